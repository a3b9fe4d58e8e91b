//! RGB by rgb-lib: one folder and one watch-only wallet for each wallet of the gateway.
//!
//! rgb-lib blocks, and keeps files; all of it stays in this folder. Its own exchange with counterparties is never used: transfers are
//! made "out of band", so that every byte that comes in or goes out passes the gateway.

mod export;
mod invoice;
mod kept;
mod last;
mod map;
mod registry;
mod reveal;
mod shared;
mod wallet;

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use bitcoin::{Network, Psbt};
use serde::{Deserialize, Serialize, Serializer};

use self::registry::{Job, Registry};
use self::wallet::RgbWallet;
use crate::assets::courier;
use crate::ports::PortError;
use crate::ports::assets::{
    Asset, AssetEngine, AssetError, BegunTransfer, ColoredCoin, Consignment, NewAsset, NewReceive, NewTransfer,
    Receive, Refusal, RgbInvoice, Transfer, Verdict, WalletKeys,
};
use crate::secret::{self, Secret};

pub(super) const SERVICE: &str = "the RGB engine";

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the state of all wallets lives. What is lost here is lost for ever, whoever has the keys.
    pub data_dir: PathBuf,
    /// An Esplora (`http://`, `https://`) or an Electrum (`tcp://`, `ssl://`) of the same chain. Empty: there are no assets here.
    #[serde(serialize_with = "without_login")]
    pub indexer: Option<String>,
    /// Where payers bring consignments, as they write it: `rpcs://host/json-rpc`. Empty: this gateway's own listener, as this machine
    /// reaches it.
    pub endpoints: Vec<String>,
    /// Wallets kept open. Each takes a few file descriptors and half a megabyte.
    pub open_wallets: usize,
    /// Wallets that the engine works for at the same time.
    pub at_once: usize,
    /// How consignments are brought to others.
    pub courier: courier::Config,
}

/// A login to the indexer is not shown.
fn without_login<S: Serializer>(indexer: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    indexer.as_deref().map(secret::without_login).serialize(serializer)
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { data_dir, indexer, endpoints, open_wallets, at_once, courier } = self;
        f.debug_struct("Config")
            .field("data_dir", data_dir)
            .field("indexer", &indexer.as_deref().map(secret::without_login))
            .field("endpoints", endpoints)
            .field("open_wallets", open_wallets)
            .field("at_once", at_once)
            .field("courier", courier)
            .finish()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("assets"),
            indexer: None,
            endpoints: Vec::new(),
            open_wallets: 64,
            at_once: 4,
            courier: courier::Config::default(),
        }
    }
}

/// The engine. The folder is its own: a second process on it is refused.
pub struct RgbEngine {
    registry: Registry,
}

impl RgbEngine {
    /// # Errors
    /// When no indexer is named, or the folder can't be used or is in use.
    pub fn open(config: &Config, network: Network) -> Result<Self, PortError> {
        Ok(Self { registry: Registry::open(config, network)? })
    }

    /// What tells the folder of this engine from every other.
    #[must_use]
    pub fn folder_identity(&self) -> &str {
        &self.registry.identity
    }

    async fn with<T: Send + 'static>(
        &self,
        keys: &WalletKeys,
        job: impl FnOnce(&mut RgbWallet) -> Result<T, AssetError> + Send + 'static,
    ) -> Result<T, AssetError> {
        self.registry.run(keys, Job::Writes, job).await
    }

    async fn read<T: Send + 'static>(
        &self,
        keys: &WalletKeys,
        job: impl FnOnce(&mut RgbWallet) -> Result<T, AssetError> + Send + 'static,
    ) -> Result<T, AssetError> {
        self.registry.run(keys, Job::Reads, job).await
    }
}

#[async_trait]
impl AssetEngine for RgbEngine {
    fn read_invoice(&self, text: &str) -> Result<RgbInvoice, Refusal> {
        invoice::read(text)
    }

    async fn learn_coins(&self, wallet: &WalletKeys, below: u32) -> Result<(), AssetError> {
        self.registry.reveal(wallet, below).await?;
        self.with(wallet, RgbWallet::take_in_coins).await
    }

    async fn next_index(&self, wallet: &WalletKeys) -> Result<u32, AssetError> {
        self.registry.reveal(wallet, 0).await
    }

    async fn coins(&self, wallet: &WalletKeys) -> Result<Vec<ColoredCoin>, AssetError> {
        self.read(wallet, RgbWallet::coins).await
    }

    async fn issue(&self, wallet: &WalletKeys, new: NewAsset) -> Result<Asset, AssetError> {
        self.with(wallet, move |wallet| wallet.issue(new)).await
    }

    async fn assets(&self, wallet: &WalletKeys) -> Result<Vec<Asset>, AssetError> {
        self.read(wallet, RgbWallet::assets).await
    }

    async fn receive(&self, wallet: &WalletKeys, new: NewReceive) -> Result<Receive, AssetError> {
        self.with(wallet, move |wallet| wallet.receive(&new)).await
    }

    async fn accept(&self, wallet: &WalletKeys, recipient: &str, consignment: Vec<u8>) -> Result<Verdict, AssetError> {
        let recipient = recipient.to_owned();
        self.with(wallet, move |wallet| wallet.accept(&recipient, &consignment)).await
    }

    async fn begin_transfer(&self, wallet: &WalletKeys, new: NewTransfer) -> Result<BegunTransfer, AssetError> {
        self.with(wallet, move |wallet| wallet.begin_transfer(&new)).await
    }

    async fn end_transfer(&self, wallet: &WalletKeys, signed: &Psbt) -> Result<Vec<Consignment>, AssetError> {
        let signed = signed.clone();
        self.with(wallet, move |wallet| wallet.end_transfer(&signed)).await
    }

    async fn acknowledged(&self, wallet: &WalletKeys, recipient: &str) -> Result<(), AssetError> {
        let recipient = recipient.to_owned();
        let told = self.with(wallet, move |wallet| wallet.acknowledged(&recipient)).await;
        told.map_err(perhaps_out)
    }

    async fn give_up(&self, wallet: &WalletKeys, batch: i32) -> Result<(), AssetError> {
        self.with(wallet, move |wallet| wallet.give_up(batch)).await
    }

    async fn refresh(&self, wallet: &WalletKeys) -> Result<(), AssetError> {
        match self.with(wallet, RgbWallet::refresh).await.map_err(perhaps_out)? {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    async fn transfers(&self, wallet: &WalletKeys) -> Result<Vec<Transfer>, AssetError> {
        self.read(wallet, RgbWallet::transfers).await
    }

    async fn export(&self, wallet: &WalletKeys, password: &Secret) -> Result<Vec<u8>, AssetError> {
        let password = password.clone();
        self.with(wallet, move |wallet| wallet.export(&password)).await
    }

    async fn try_out(&self, wallet: &WalletKeys) -> Result<(), AssetError> {
        self.registry.try_out(wallet).await
    }
}

/// The folder is put back to what it was, and the network is not: a transaction may have gone out first.
fn perhaps_out(error: AssetError) -> AssetError {
    match error {
        AssetError::Refused(Refusal::Broken) => nonsense(Refusal::Broken).into(),
        error => error,
    }
}

fn nonsense(reason: impl std::fmt::Display) -> PortError {
    PortError::Nonsense { service: SERVICE, reason: reason.to_string() }
}

fn misconfigured(reason: impl std::fmt::Display) -> PortError {
    PortError::Misconfigured { service: SERVICE, reason: reason.to_string() }
}
