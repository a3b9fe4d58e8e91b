//! The flows on a real database and a chain in memory: stories without HTTP, in milliseconds.

use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::hashes::Hash;
use bitcoin::{Address, Network, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use sluice::chain::fake::FakeChain;
use sluice::clock::{Clock, Timestamp};
use sluice::domain::deposit::Deposit;
use sluice::domain::onchain_send::{Door, State};
use sluice::domain::wallet::{Account, WalletKeys};
use sluice::domain::{Machine, Request};
use sluice::flows::address::NewAddress;
use sluice::flows::balance::Balance;
use sluice::flows::bump::{self, BeginBump};
use sluice::flows::follow::{self, Progress};
use sluice::flows::history::{self, Send};
use sluice::flows::send::{BeginSend, Begun};
use sluice::flows::{Error, Flows, NodeSlot, Policy, address, audit, balance, effects, expiry, register, scan, send};
use sluice::ids::{RequestId, WalletId};
use sluice::money::Sat;
use sluice::ports::chain::{BroadcastOutcome, ChainBackend};
use sluice::secret::Secret;
use sluice::store::chain::Coin;
use sluice::store::events::NumberEvents;
use sluice::store::owners::{Acquire, Ownership, Role};
use sluice::store::requests::Filter;
use sluice::store::shelf::Shelf;
use sluice::store::{Config, Engine, Store, StoreError, Tx, Write, apply, halts, wallets};
use sluice_signer::Signer;

use super::lightning::Lightning;
use super::postgres;

/// The databases that every story runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

/// Runs a story on both databases, under the default policy or another.
macro_rules! on_both {
    ($name:ident, $story:expr) => {
        on_both!($name, $crate::harness::rig::policy(), $story);
    };
    ($name:ident, $policy:expr, $story:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "a short story may need nothing of its file")]
            use super::*;
            use $crate::harness::rig::{Database, tell};

            #[tokio::test]
            async fn sqlite() {
                tell(Database::Sqlite, $policy, $story).await;
            }

            #[tokio::test]
            async fn postgres() {
                tell(Database::Postgres, $policy, $story).await;
            }
        }
    };
}
pub(crate) use on_both;

/// The default policy, but for a shorter lookahead: deriving scripts is most of the time that a registration takes.
pub fn policy() -> Policy {
    Policy { lookahead: 50, ..Policy::default() }
}

/// Tells one story on one database; skips it loudly where that is not there.
pub async fn tell<F: Future<Output = ()>>(database: Database, policy: Policy, story: impl FnOnce(Rig) -> F) {
    if let Some(rig) = Rig::with(database, policy).await {
        story(rig).await;
    }
}

pub struct Rig {
    pub flows: Flows,
    pub chain: Arc<FakeChain>,
    pub clock: Clock,
    pub owner: Ownership,
    pub lightning: Lightning,
    sequencer: Ownership,
    shelf: Shelf,
    _folder: tempfile::TempDir,
}

/// A wallet of a client: its keys, and the signer that alone knows the secret.
pub struct Client {
    pub keys: WalletKeys,
    pub signer: Signer,
}

impl Client {
    /// The secret that follows from a number.
    pub fn mnemonic(number: u32) -> bip39::Mnemonic {
        let mut entropy = [7u8; 16];
        entropy[..4].copy_from_slice(&number.to_be_bytes());
        bip39::Mnemonic::from_entropy(&entropy).expect("sixteen bytes are entropy")
    }

    /// A client whose secret follows from a number.
    pub fn number(number: u32) -> Self {
        Self::of(&Self::mnemonic(number).to_string())
    }

    /// A client with this secret.
    pub fn of(mnemonic: &str) -> Self {
        let signer = Signer::from_mnemonic(Network::Regtest, mnemonic, "").expect("a mnemonic makes a signer");
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

    /// The address at an index of the vanilla keychain, whether it was handed out or not.
    pub fn address_at(&self, index: u32) -> Address {
        let derived = self.keys.scripts(Account::Vanilla, index..index + 1);
        Address::from_script(&derived[0].script, Network::Regtest).expect("an address")
    }

    /// The transaction that the network gets to see once a PSBT is signed.
    pub fn signed_tx(&self, psbt: &str) -> Transaction {
        Psbt::from_str(&self.sign(psbt)).expect("a PSBT").extract_tx_unchecked_fee_rate()
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

impl Client {
    /// Signs an export, which the signer does by a command of its own.
    pub fn export(&self, psbt: &str) -> String {
        let mut psbt = Psbt::from_str(psbt).expect("the gateway hands out PSBTs");
        self.signer.export(&mut psbt, None).expect("the signer signs exports");
        psbt.to_string()
    }

    /// Signs a grant, which the signer does by a command of its own.
    pub fn grant(&self, psbt: &str) -> String {
        let mut psbt = Psbt::from_str(psbt).expect("the gateway hands out PSBTs");
        self.signer.grant(&mut psbt, &sluice_signer::Expected::default()).expect("the signer signs grants");
        psbt.to_string()
    }
}

impl Rig {
    pub async fn sqlite() -> Self {
        Self::with(Database::Sqlite, policy()).await.expect("SQLite is always there")
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
        let backend: Arc<dyn ChainBackend> = chain.clone();
        let lightning = Lightning::new(clock.clone());
        let slot = NodeSlot::expected();
        slot.arrive(lightning.node.clone());
        let flows = Flows::with_node(store, backend, slot, Network::Regtest, policy);
        let shelf = Shelf::open(&folder.path().join("consignments")).expect("a folder of our own");
        flows.use_shelf(shelf.clone());
        let acquire = |role| Acquire { role, holder: "rig".to_owned() };
        let owner = flows.store().write(acquire(Role::Chain)).await.expect("a role").expect("nobody holds it");
        let sequencer = flows.store().write(acquire(Role::Sequencer)).await.expect("a role").expect("nobody holds it");
        let rig = Self { flows, chain, clock, owner, lightning, sequencer, shelf, _folder: folder };
        rig.settle().await;
        Some(rig)
    }

    /// Lets the follower, the scanner, the effects and the sequencer do all there is to do.
    pub async fn settle(&self) {
        self.lightning.node.see_chain(self.chain.tip().height, || self.chain.confirmed());
        self.follow_node().await;
        loop {
            let progress = self.follow().await;
            let scanned = scan::scan_waiting(&self.flows, &self.owner).await.expect("the scanner scans");
            let done = effects::run_due(&self.flows).await.expect("effects run");
            if progress != Progress::Moved && scanned == 0 && done == 0 {
                break;
            }
        }
        self.number_events().await;
    }

    /// Follows the chain as far as it goes; tells whether anything was done.
    pub async fn follow(&self) -> Progress {
        let mut moved = Progress::CaughtUp;
        loop {
            match follow::step(&self.flows, &self.owner).await.expect("the follower steps") {
                Progress::Moved => moved = Progress::Moved,
                Progress::CaughtUp => return moved,
                Progress::Halted => return Progress::Halted,
            }
        }
    }

    async fn number_events(&self) {
        if self.flows.store().engine() == Engine::Postgres {
            while self.flows.store().write(NumberEvents { owner: self.sequencer.clone() }).await.expect("numbering") > 0
            {
            }
        }
    }

    /// The gateway stops and starts again on the same database: nothing but the store is remembered.
    pub fn restart(&mut self) {
        let chain: Arc<dyn ChainBackend> = self.chain.clone();
        self.restart_with(chain);
    }

    pub fn restart_with(&mut self, chain: Arc<dyn ChainBackend>) {
        let policy = self.flows.policy().clone();
        let slot = NodeSlot::expected();
        slot.arrive(self.lightning.node.clone());
        self.flows = Flows::with_node(self.flows.store().clone(), chain, slot, Network::Regtest, policy);
        self.flows.use_shelf(self.shelf.clone());
    }

    /// Lets time pass, and everything happen that it brings.
    pub async fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        while expiry::expire_overdue(&self.flows).await.expect("expiry runs") > 0 {}
        self.settle().await;
    }

    pub async fn mine(&self, blocks: u32) {
        self.chain.mine(blocks);
        self.settle().await;
    }

    /// Pays an address from outside, into the mempool.
    pub async fn pay(&self, to: &Address, sat: u64) -> Txid {
        let txid = self.chain.pay(&to.script_pubkey(), amount(sat)).expect("the fake pays");
        self.settle().await;
        txid
    }

    /// Pays an address from outside, in a block.
    pub async fn pay_confirmed(&self, to: &Address, sat: u64) -> OutPoint {
        let (outpoint, _) = self.chain.fund_confirmed(&to.script_pubkey(), amount(sat)).expect("the fake pays");
        self.settle().await;
        outpoint
    }

    /// Offers somebody else's transaction to the network, behind the gateway's back.
    pub async fn offer(&self, transaction: &Transaction) {
        let said = self.chain.broadcast(transaction).await.expect("the fake answers");
        assert_eq!(said, BroadcastOutcome::InMempool);
        self.settle().await;
    }

    pub async fn mine_with(&self, transactions: Vec<Transaction>) {
        self.chain.mine_with(transactions).expect("the block is valid");
        self.settle().await;
    }

    pub async fn register(&self, client: &Client) -> Address {
        let registered = register::register(&self.flows, &client.keys, None).await.expect("the wallet registers");
        self.settle().await;
        parse_address(&registered.address)
    }

    /// Registers a client and gives it one confirmed coin.
    pub async fn funded(&self, client: &Client, sat: u64) -> Address {
        let address = self.register(client).await;
        self.pay_confirmed(&address, sat).await;
        address
    }

    /// Registers a client and gives it these confirmed coins, each in an output of its own.
    pub async fn funded_with(&self, client: &Client, coins: &[u64]) -> Address {
        let address = self.register(client).await;
        let outputs: Vec<_> = coins.iter().map(|sat| (address.script_pubkey(), amount(*sat))).collect();
        self.chain.pay_many(&outputs).expect("the fake pays");
        self.mine(1).await;
        address
    }

    /// An address of its own for one more customer.
    pub async fn address(&self, client: &Client) -> Address {
        let issued = address::new(&self.flows, &client.keys, NewAddress::default(), None).await.expect("an address");
        parse_address(&issued.machine.address)
    }

    pub async fn current_address(&self, client: &Client) -> Address {
        let current = address::current(&self.flows, &client.keys).await.expect("an address");
        parse_address(&current.machine.address)
    }

    pub async fn begin(&self, client: &Client, to: &Address, sat: u64) -> Result<Begun, Error> {
        send::begin(&self.flows, &client.keys, wanted(to, sat), None).await
    }

    pub async fn begin_with(&self, client: &Client, wanted: BeginSend) -> Result<Begun, Error> {
        send::begin(&self.flows, &client.keys, wanted, None).await
    }

    pub async fn end(&self, client: &Client, psbt: &str) -> Result<Send, Error> {
        self.end_signed(client, &client.sign(psbt)).await
    }

    pub async fn end_signed(&self, client: &Client, signed: &str) -> Result<Send, Error> {
        send::end(&self.flows, &client.keys.id(), Door::OnchainSend, signed).await
    }

    /// Begins and ends a send to a stranger that must work.
    pub async fn sent(&self, client: &Client, sat: u64) -> Begun {
        let begun = self.begin(client, &stranger(), sat).await.expect("it begins");
        self.end(client, &begun.psbt).await.expect("it ends");
        self.settle().await;
        begun
    }

    pub async fn bump(&self, client: &Client, send: RequestId, fee_rate: u32, cancel: bool) -> Result<Begun, Error> {
        let wanted = BeginBump { send, fee_rate, cancel, expires_in_seconds: None };
        bump::begin(&self.flows, &client.keys, wanted, None).await
    }

    pub async fn end_bump(&self, client: &Client, bump: &Begun) -> Result<Send, Error> {
        let signed = client.sign(&bump.psbt);
        bump::end(&self.flows, &client.keys.id(), bump.request, &signed).await
    }

    pub async fn state(&self, client: &Client, send: RequestId) -> State {
        let send = history::send(&self.flows, &client.keys.id(), send).await.expect("the store answers");
        send.expect("the send is known").request.machine.state
    }

    pub async fn deposits(&self, client: &Client) -> Vec<Request<Deposit>> {
        let filter = Filter::default();
        let all = history::deposits(&self.flows, &client.keys.id(), &filter, None, 500).await;
        all.expect("the store answers")
    }

    /// The only deposit of a wallet.
    pub async fn deposit(&self, client: &Client) -> Deposit {
        let mut all = self.deposits(client).await;
        assert_eq!(all.len(), 1, "one deposit: {all:?}");
        all.remove(0).machine
    }

    pub async fn balance(&self, client: &Client) -> Balance {
        balance::balances(&self.flows, &client.keys.id()).await.expect("a balance").vanilla
    }

    pub async fn spendable(&self, client: &Client) -> u64 {
        self.balance(client).await.spendable.to_u64()
    }

    pub async fn coins(&self, client: &Client) -> Vec<Coin> {
        balance::coins(&self.flows, &client.keys.id()).await.expect("coins")
    }

    pub async fn clear_halt(&self, reason: &'static str) -> bool {
        self.flows.store().write(ClearHalt(reason)).await.expect("the store writes")
    }

    /// Changes the database behind everybody's back.
    pub async fn sql(&self, sql: &str) {
        self.flows.store().write(Sql(sql.to_owned())).await.expect("it is written");
    }

    pub async fn release(&self, client: &Client) {
        self.flows.store().write(Release(client.keys.id())).await.expect("nothing is open");
    }

    /// Every test ends here: the books balance and agree with the chain.
    pub async fn audit(&self) {
        self.audited().await;
    }

    /// The same where nothing is under way: then the books say of the node's money exactly what the node says.
    pub async fn audit_exactly(&self) {
        let report = self.audited().await;
        assert_eq!(report.pending, [], "something is still under way");
        assert!(report.checked.iter().any(|(rule, _)| rule.starts_with("node_onchain")), "{report:?}");
    }

    async fn audited(&self) -> audit::Report {
        self.settle().await;
        let report = audit::audit(&self.flows).await.expect("the audit runs");
        assert_eq!(report.drifts, [], "the audit found drift");
        assert_eq!(report.surplus, [], "the node has more than the books");
        assert_eq!(report.skipped, [], "the audit could not check everything");
        report
    }
}

/// Tells one event to a request, as a flow does inside its transaction.
pub struct Advance<M: Machine> {
    id: RequestId,
    event: M::Event,
}

impl<M: Machine> Advance<M> {
    pub fn new(id: RequestId, event: M::Event) -> Self {
        Self { id, event }
    }
}

#[async_trait]
impl<M: Machine<Event: std::marker::Send + Sync + 'static>> Write for Advance<M> {
    type Output = Request<M>;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Request<M>, StoreError> {
        apply::advance::<M>(tx, self.id, &self.event).await
    }
}

struct ClearHalt(&'static str);

#[async_trait]
impl Write for ClearHalt {
    type Output = bool;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        halts::clear(tx, self.0).await
    }
}

pub struct Sql(pub String);

#[async_trait]
impl Write for Sql {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(self.0.clone())).execute(tx.conn()).await?;
        Ok(())
    }
}

struct Release(WalletId);

#[async_trait]
impl Write for Release {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        wallets::release(tx, &self.0).await
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

pub const fn amount(sat: u64) -> Sat {
    Sat::literal(sat)
}

/// The coins that a PSBT or transaction spends.
pub fn inputs_of(transaction: &Transaction) -> Vec<OutPoint> {
    transaction.input.iter().map(|input| input.previous_output).collect()
}

pub fn unsigned(psbt: &str) -> Transaction {
    Psbt::from_str(psbt).expect("a PSBT").unsigned_tx
}

/// Somebody spends these coins with the same keys elsewhere. The fake chain asks for no signature.
pub fn spend_elsewhere(coins: &[OutPoint], to: &Address, sat: u64) -> Transaction {
    let input = |outpoint: &OutPoint| TxIn {
        previous_output: *outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    };
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: coins.iter().map(input).collect(),
        output: vec![TxOut { value: amount(sat).to_bitcoin(), script_pubkey: to.script_pubkey() }],
    }
}

/// An address of somebody who is no wallet here.
pub fn stranger() -> Address {
    let script = ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array([9; 20]));
    Address::from_script(&script, Network::Regtest).expect("an address")
}
