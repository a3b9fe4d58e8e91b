//! The flows on a real database and a chain in memory: stories without HTTP, in milliseconds.

use std::str::FromStr;
use std::sync::Arc;

use bitcoin::{Address, Network, Psbt, ScriptBuf};
use sluice::chain::fake::FakeChain;
use sluice::clock::{Clock, Timestamp};
use sluice::domain::onchain_send::Door;
use sluice::domain::wallet::WalletKeys;
use sluice::flows::follow::{self, Progress};
use sluice::flows::history::Send;
use sluice::flows::send::{BeginSend, Begun};
use sluice::flows::{Error, Flows, Policy, audit, balance, effects, register, scan, send};
use sluice::money::Sat;
use sluice::secret::Secret;
use sluice::store::events::NumberEvents;
use sluice::store::owners::{Acquire, Ownership, Role};
use sluice::store::{Config, Engine, Store};
use sluice_signer::Signer;

use super::postgres;

/// The databases that every story runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

pub struct Rig {
    pub flows: Flows,
    pub chain: Arc<FakeChain>,
    pub clock: Clock,
    pub owner: Ownership,
    sequencer: Ownership,
    _folder: tempfile::TempDir,
}

/// A wallet of a client: its keys, and the signer that alone knows the secret.
pub struct Client {
    pub keys: WalletKeys,
    pub signer: Signer,
}

impl Client {
    /// A client whose secret follows from a number.
    pub fn number(number: u32) -> Self {
        let mut entropy = [7u8; 16];
        entropy[..4].copy_from_slice(&number.to_be_bytes());
        let mnemonic = bip39::Mnemonic::from_entropy(&entropy).expect("sixteen bytes are entropy").to_string();
        let signer = Signer::from_mnemonic(Network::Regtest, &mnemonic, "").expect("a mnemonic makes a signer");
        let xpubs = signer.wallet_xpubs();
        let keys = WalletKeys::parse(
            &xpubs.xpub_van.to_string(),
            &xpubs.xpub_col.to_string(),
            &xpubs.master_fingerprint.to_string(),
            Network::Regtest,
        )
        .expect("the signer's keys are a wallet");
        Self { keys, signer }
    }

    /// Signs what the gateway handed out.
    pub fn sign(&self, psbt: &str) -> String {
        let mut psbt = Psbt::from_str(psbt).expect("the gateway hands out PSBTs");
        let limits =
            sluice_signer::Limits { max_fee: Some(bitcoin::Amount::from_sat(10_000_000)), ..Default::default() };
        self.signer.sign_within(&mut psbt, &limits).expect("the signer signs its own coins");
        psbt.to_string()
    }
}

impl Rig {
    pub async fn sqlite() -> Self {
        Self::with(Database::Sqlite, Policy::default()).await.expect("SQLite is always there")
    }

    /// `None` after a loud skip where there is no PostgreSQL.
    pub async fn with(database: Database, policy: Policy) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = match database {
            Database::Sqlite => format!("sqlite:{}", folder.path().join("sluice.db").display()),
            Database::Postgres => postgres::database().await?,
        };
        let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        let config = Config { url: Secret::new(url), ..Config::default() };
        let store = Store::open(&config, clock.clone()).await.expect("the store opens");
        let chain = Arc::new(FakeChain::new());
        chain.mine(101);
        let flows = Flows::new(store, chain.clone(), Network::Regtest, policy);
        let acquire = |role| Acquire { role, holder: "rig".to_owned() };
        let owner = flows.store().write(acquire(Role::Chain)).await.expect("a role").expect("nobody holds it");
        let sequencer = flows.store().write(acquire(Role::Sequencer)).await.expect("a role").expect("nobody holds it");
        let rig = Self { flows, chain, clock, owner, sequencer, _folder: folder };
        rig.settle().await;
        Some(rig)
    }

    /// Lets the follower, the scanner, the effects and the sequencer do all there is to do.
    pub async fn settle(&self) {
        loop {
            let progress = follow::step(&self.flows, &self.owner).await.expect("the follower steps");
            let scanned = scan::scan_waiting(&self.flows, &self.owner).await.expect("the scanner scans");
            let done = effects::run_due(&self.flows).await.expect("effects run");
            if progress != Progress::Moved && scanned == 0 && done == 0 {
                break;
            }
        }
        if self.flows.store().engine() == Engine::Postgres {
            while self.flows.store().write(NumberEvents { owner: self.sequencer.clone() }).await.expect("numbering") > 0
            {
            }
        }
    }

    pub async fn register(&self, client: &Client) -> Address {
        let registered = register::register(&self.flows, &client.keys, None).await.expect("the wallet registers");
        self.settle().await;
        parse_address(&registered.address)
    }

    /// Registers a client and gives it one confirmed coin.
    pub async fn funded(&self, client: &Client, sat: u64) -> Address {
        let address = self.register(client).await;
        self.chain.fund_confirmed(&address.script_pubkey(), Sat::new(sat).expect("an amount")).expect("the fake pays");
        self.settle().await;
        address
    }

    pub async fn begin(&self, client: &Client, to: &Address, sat: u64) -> Result<Begun, Error> {
        send::begin(&self.flows, &client.keys, wanted(to, sat), None).await
    }

    pub async fn end(&self, client: &Client, psbt: &str) -> Result<Send, Error> {
        send::end(&self.flows, &client.keys.id(), Door::OnchainSend, &client.sign(psbt)).await
    }

    pub async fn spendable(&self, client: &Client) -> u64 {
        let balances = balance::balances(&self.flows, &client.keys.id()).await.expect("a balance");
        balances.vanilla.spendable.to_u64()
    }

    /// Every test ends here: the books balance and agree with the chain.
    pub async fn audit(&self) {
        self.settle().await;
        let report = audit::audit(&self.flows).await.expect("the audit runs");
        assert_eq!(report.drifts, [], "the audit found drift");
        assert_eq!(report.skipped, [], "the audit could not check everything");
    }
}

/// A send as `onchain-send-begin` asks for it.
pub fn wanted(to: &Address, sat: u64) -> BeginSend {
    BeginSend {
        to: to.to_string(),
        amount: Sat::new(sat).expect("an amount"),
        fee_rate: 2,
        deduct_fee: false,
        expires_in_seconds: None,
        reference: None,
        door: Door::OnchainSend,
        min_confirmations: None,
        to_field: "address_or_rgbinvoice",
        amount_field: "amount_sats",
    }
}

pub fn parse_address(text: &str) -> Address {
    Address::from_str(text).expect("an address").require_network(Network::Regtest).expect("of regtest")
}

/// An address of somebody who is no wallet here.
pub fn stranger() -> Address {
    let script = ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array([9; 20]));
    Address::from_script(&script, Network::Regtest).expect("an address")
}

use bitcoin::hashes::Hash;
