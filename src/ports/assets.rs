//! The port to RGB: assets whose history is kept beside the chain, on coins of a wallet's colored account.
//!
//! The engine reads the chain, and speaks to nobody else: what a payer and a payee exchange (consignments, and the word that one was
//! accepted) is carried by the gateway. It signs nothing and takes no coin of the vanilla account.

use async_trait::async_trait;
use bitcoin::{OutPoint, ScriptBuf, Txid};

use super::PortError;
pub use crate::domain::wallet::{Account, WalletKeys};
use crate::money::{Amount, FeeRate, Sat};
use crate::secret::Secret;

/// Why the engine did not do what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssetError {
    /// Definite: nothing has changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Whether anything has changed is unknown.
    #[error(transparent)]
    Port(#[from] PortError),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the wallet does not know the asset {0}")]
    UnknownAsset(String),
    #[error("no coin of the colored account is free to carry an asset")]
    NoFreeCoin,
    #[error("{available} of this asset can be spent")]
    NotEnough { available: Amount },
    #[error(
        "the coins that carry the asset hold {available} sat, and {needed} sat are needed for the fee and what recipients get"
    )]
    BitcoinLow { needed: Sat, available: Sat },
    /// A value that the protocol does not allow. Named as [`NewAsset`] and the other orders name it.
    #[error("{what}: {reason}")]
    Invalid { what: &'static str, reason: String },
    #[error("this wallet has no such transfer")]
    NoSuchTransfer,
    #[error("the transfer has gone too far to be given up")]
    TooLate,
    #[error("a coin that would be spent carries {} as well, and the engine can't send one of them apart", assets.join(" and "))]
    SharedCoin { assets: Vec<String> },
    #[error("what is left of {} would come to lie on one coin", assets.join(" and of "))]
    WouldShareCoin { assets: Vec<String> },
    /// The engine has stumbled over this very order, and is as it was before.
    #[error("the RGB engine can't do this; nothing has changed")]
    Broken,
}

/// An asset of a fixed supply, as its issuer describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAsset {
    pub ticker: String,
    pub name: String,
    /// Digits behind the point that wallets show.
    pub precision: u8,
    /// Each goes to a coin of its own as far as there are free ones.
    pub amounts: Vec<Amount>,
}

/// What the genesis of an asset says, and what the wallet has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    pub id: String,
    pub schema: Schema,
    /// Not every schema has one.
    pub ticker: Option<String>,
    pub name: String,
    pub details: Option<String>,
    pub precision: u8,
    pub issued_supply: Amount,
    /// When it was issued, and when this wallet learnt of it: seconds since 1970.
    pub issued_at: i64,
    pub added_at: i64,
    pub balance: AssetBalance,
}

/// The kinds of assets that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Schema {
    Nia,
    Uda,
    Cfa,
    Ifa,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssetBalance {
    pub settled: Amount,
    /// What it will be once everything that is under way has ended well.
    pub future: Amount,
    pub spendable: Amount,
}

/// A coin of the colored account, and what is on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColoredCoin {
    pub outpoint: OutPoint,
    pub allocations: Vec<Allocation>,
    /// Invoices that name this coin and are not paid yet.
    pub promised: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Empty while it is known that something will come, and not what.
    pub asset: Option<String>,
    pub amount: Amount,
    pub settled: bool,
}

/// Where a payee wants an asset to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// A coin that the wallet has already, which the payer doesn't learn.
    OwnCoin,
    /// A new coin that the payer makes.
    NewCoin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReceive {
    pub onto: Onto,
    /// Empty: any asset.
    pub asset: Option<String>,
    /// Empty: any amount.
    pub amount: Option<Amount>,
    /// Seconds since 1970.
    pub expires_at: u64,
    pub min_confirmations: u8,
    /// Where payers bring their consignments, as they write it: `rpc://host:port/path`.
    pub endpoints: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receive {
    pub invoice: String,
    /// The name under which consignment and acknowledgement are exchanged.
    pub recipient: String,
    pub batch: i32,
    /// As the list of transfers tells it, but for the coin that a blinded invoice names.
    pub transfer: Transfer,
}

/// What an RGB invoice says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbInvoice {
    pub recipient: String,
    pub onto: Onto,
    /// Where the new coin is to be; empty when it is one that the payee has.
    pub script: Option<ScriptBuf>,
    pub asset: Option<String>,
    pub schema: Option<Schema>,
    pub amount: Option<Amount>,
    pub assignment: Option<String>,
    pub network: bitcoin::Network,
    /// Seconds since 1970.
    pub expires_at: Option<u64>,
    pub endpoints: Vec<String>,
}

/// One of those whom a transfer pays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    pub asset: String,
    pub id: String,
    pub amount: Amount,
    /// What a new coin for the payee holds; nothing when it is one that the payee has.
    pub witness: Option<Sat>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTransfer {
    pub recipients: Vec<Recipient>,
    pub fee_rate: FeeRate,
    pub min_confirmations: u8,
    /// When it is given up unless it was acknowledged: seconds since 1970.
    pub expires_at: u64,
}

/// A transfer that waits for the client's signature. The coins that it spends are set aside by the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BegunTransfer {
    pub psbt: bitcoin::Psbt,
    pub batch: i32,
}

/// What a payee has to see before a payment is broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consignment {
    pub asset: String,
    pub bytes: Vec<u8>,
}

/// What a payee's engine says of a consignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is valid and pays this recipient.
    Accepted,
    /// Part of its history is too young; ask again after the next block.
    NotYet,
    /// It is broken, or pays something else: it will never be accepted.
    Refused { reason: String },
}

/// How a transfer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransferStatus {
    /// Begun, and not signed.
    Initiated,
    /// An invoice that nobody has paid, or a payment that nobody has acknowledged.
    WaitingCounterparty,
    WaitingConfirmations,
    Settled,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransferKind {
    Issuance,
    ReceiveBlind,
    ReceiveWitness,
    Send,
    Inflation,
    Burn,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Counts the transfers of a wallet.
    pub index: i32,
    /// Transfers of one transaction share it.
    pub batch: i32,
    pub status: TransferStatus,
    pub kind: TransferKind,
    pub asset: Option<String>,
    pub requested: Option<Amount>,
    pub amounts: Vec<Amount>,
    pub txid: Option<Txid>,
    pub recipient: Option<String>,
    pub receive_coin: Option<OutPoint>,
    pub change_coin: Option<OutPoint>,
    /// Seconds since 1970.
    pub created_at: i64,
    pub updated_at: i64,
    pub expires_at: Option<u64>,
}

/// Every call is about one wallet, and calls for one wallet run one after the other. A wallet that the engine has never heard of
/// is made by the first call. `tests/it/conformance/assets.rs` holds every implementation to what is said here.
#[async_trait]
pub trait AssetEngine: Send + Sync {
    /// Reads an invoice. No wallet is needed.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with `invoice`.
    fn read_invoice(&self, text: &str) -> Result<RgbInvoice, Refusal>;

    /// Makes the engine look at every script of the colored account below this index, which must never get smaller, and take in
    /// the coins that are there.
    async fn learn_coins(&self, wallet: &WalletKeys, below: u32) -> Result<(), AssetError>;

    /// The index of the first script of the colored account that the engine has given to nobody.
    async fn next_index(&self, wallet: &WalletKeys) -> Result<u32, AssetError>;

    /// The coins of the colored account that the engine has taken in, whatever is on them.
    async fn coins(&self, wallet: &WalletKeys) -> Result<Vec<ColoredCoin>, AssetError>;

    /// Makes an asset, all of it on coins of the wallet's. Needs no transaction. Asked twice, it makes two.
    async fn issue(&self, wallet: &WalletKeys, new: NewAsset) -> Result<Asset, AssetError>;

    async fn assets(&self, wallet: &WalletKeys) -> Result<Vec<Asset>, AssetError>;

    async fn receive(&self, wallet: &WalletKeys, new: NewReceive) -> Result<Receive, AssetError>;

    /// Looks at a consignment that somebody brought for this recipient of the wallet's. Asked again, it answers the same.
    async fn accept(&self, wallet: &WalletKeys, recipient: &str, consignment: Vec<u8>) -> Result<Verdict, AssetError>;

    /// Builds a transaction that moves assets, for the client to sign.
    async fn begin_transfer(&self, wallet: &WalletKeys, new: NewTransfer) -> Result<BegunTransfer, AssetError>;

    /// Takes the signature, and answers what the payees have to see: one consignment an asset, for all its recipients. Nothing is
    /// broadcast. Asked again, it answers the same.
    async fn end_transfer(&self, wallet: &WalletKeys, signed: &bitcoin::Psbt) -> Result<Vec<Consignment>, AssetError>;

    /// A payee has accepted. With the last one the transaction is offered to the network.
    async fn acknowledged(&self, wallet: &WalletKeys, recipient: &str) -> Result<(), AssetError>;

    /// Gives a transfer up that was not broadcast, and frees its coins.
    async fn give_up(&self, wallet: &WalletKeys, batch: i32) -> Result<(), AssetError>;

    /// Looks at the chain for what waits for confirmations.
    async fn refresh(&self, wallet: &WalletKeys) -> Result<(), AssetError>;

    /// Every transfer, oldest first.
    async fn transfers(&self, wallet: &WalletKeys) -> Result<Vec<Transfer>, AssetError>;

    /// All that the engine knows of the wallet at this moment, sealed with a password, in a form of the engine's own.
    async fn export(&self, wallet: &WalletKeys, password: &Secret) -> Result<Vec<u8>, AssetError>;

    /// Whether the wallet's state can be opened. Changes nothing, and needs no network.
    async fn try_out(&self, wallet: &WalletKeys) -> Result<(), AssetError>;
}
