//! What the gateway does, one file per verb. Flows decide and write; they never name an adapter and never see HTTP.

pub mod address;
pub mod alarms;
pub mod assets;
pub mod audit;
pub mod audit_assets;
mod audit_node;
pub mod audit_runs;
pub mod balance;
pub mod books;
pub mod bump;
pub mod cancel;
pub mod consignments;
pub mod differences;
pub mod effects;
mod end;
mod error;
pub mod estimate;
pub mod expiry;
pub mod fees;
mod fetches;
pub mod follow;
pub mod grants;
pub mod health;
pub mod history;
mod ingest;
pub mod invoice;
pub mod key_admin;
pub mod keys;
pub mod liquidity;
mod locks;
mod mempool;
pub mod node;
pub mod node_admin;
pub mod operator;
mod operator_call;
mod own_invoice;
pub mod pay_invoice;
pub mod pay_with_key;
pub mod register;
pub mod scan;
pub mod send;
pub mod settle;
mod spend;
pub mod sync;
pub mod values;
pub mod withdraw;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bitcoin::{Network, Txid};
use serde::{Deserialize, Serialize};

pub use consignments::ProxyPolicy;
pub use error::{Code, Error};
use locks::Locks;
pub use node::NodeSlot;
pub use settle::SettlePolicy;
pub use withdraw::{CloseChannels, WithdrawPolicy};

pub use crate::domain::liquidity::LiquidityPolicy;

use crate::clock::Timestamp;
use crate::domain::Effect;
use crate::domain::policy::{FeeCaps, SignatureTime};
use crate::ids::{RequestId, WalletId};
use crate::money::Sat;
use crate::ports::assets::AssetEngine;
use crate::ports::chain::ChainBackend;
use crate::ports::courier::Courier;
use crate::store::Store;
pub use crate::store::idempotency::BodyHash;
use crate::store::owners::Ownership;
use crate::store::shelf::Shelf;

/// What the operator decides about on-chain money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    pub fees: FeeCaps,
    pub signature: SignatureTime,
    /// Blocks until a send is CONFIRMED and a deposit is confirmed. Empty: 1 on regtest, 3 elsewhere.
    pub confirmations: Option<u32>,
    /// Blocks until a coin from a stranger may be spent. Change of one's own needs none.
    pub min_confirmations: u32,
    /// Scripts that are watched beyond the last issued index of each keychain.
    pub lookahead: u32,
    /// How long an address is offered as the current one. It is watched for ever all the same.
    pub address_seconds: u64,
    /// Sends of one wallet that may wait for a signature at the same time.
    pub max_waiting_sends: u32,
    /// Wallets that one key may have registered.
    pub max_wallets_per_key: u32,
    /// Fee rate in sat/vB where the node has no estimate.
    pub fallback_fee_rate: u32,
    /// A reorganisation deeper than this stops payouts.
    pub reorg_max: u32,
    /// Seconds that refresh and sync wait for the follower to reach the node's tip.
    pub sync_seconds: u64,
    /// The section `settle` of the configuration.
    #[serde(skip)]
    pub settle: SettlePolicy,
    /// The section `withdraw` of the configuration.
    #[serde(skip)]
    pub withdraw: WithdrawPolicy,
    /// The section `liquidity` of the configuration.
    #[serde(skip)]
    pub liquidity: LiquidityPolicy,
    /// The section `proxy` of the configuration.
    #[serde(skip)]
    pub proxy: ProxyPolicy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            fees: FeeCaps::default(),
            signature: SignatureTime::default(),
            confirmations: None,
            min_confirmations: 1,
            lookahead: 1_000,
            address_seconds: 24 * 60 * 60,
            max_waiting_sends: 32,
            max_wallets_per_key: 10_000,
            fallback_fee_rate: 5,
            reorg_max: 100,
            sync_seconds: 30,
            settle: SettlePolicy::default(),
            withdraw: WithdrawPolicy::default(),
            liquidity: LiquidityPolicy::default(),
            proxy: ProxyPolicy::default(),
        }
    }
}

/// Everything a flow may use.
#[derive(Clone)]
pub struct Flows {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    chain: Arc<dyn ChainBackend>,
    node: NodeSlot,
    /// Empty where there are no assets.
    assets: OnceLock<AssetSide>,
    /// Where strangers' consignments are. Empty where none are taken.
    shelf: OnceLock<Shelf>,
    /// Woken when a payee or a payer of an asset may have something to be done.
    assets_moved: tokio::sync::Notify,
    network: Network,
    policy: Policy,
    /// One at a time per wallet where coins are chosen. Across processes the database decides; this only saves retries.
    choosing: Locks<WalletId>,
    /// Held while the first scripts of a wallet are derived.
    deriving: tokio::sync::Semaphore,
    /// One hand at a time per effect that the node carries out. Across processes its epoch decides.
    driving: Locks<String>,
    /// What could not be expired, and is left alone for a while.
    stuck: expiry::Stuck,
    /// Woken when the follower has moved.
    moved: tokio::sync::Notify,
    /// The mempool as the follower last saw it, and in which epoch of its role: only what is new is fetched.
    mempool_seen: Mutex<(i64, Arc<HashSet<Txid>>)>,
    /// Lightning requests that have just ended, for whoever waits for one.
    ended: tokio::sync::broadcast::Sender<RequestId>,
    /// Woken when somebody would like the channels to be looked at.
    liquidity: tokio::sync::Notify,
    /// Payees of offers that are being asked.
    fetches: fetches::Fetches,
    /// Held by the audit that an operator has asked for.
    auditing: tokio::sync::Mutex<()>,
}

/// What moves assets, besides the chain.
pub struct AssetSide {
    pub engine: Arc<dyn AssetEngine>,
    pub courier: Arc<dyn Courier>,
    /// Where payers bring consignments for invoices of this gateway.
    pub endpoints: Vec<String>,
    /// How far the deliveries of this process are.
    deliveries: assets::deliver::Deliveries,
    /// Invoices for addresses that are being made.
    making: assets::receive::Making,
    /// Wallets with coins that the engine does not know yet.
    learning: assets::learn::Learning,
    /// What the audit has found in the engine's folders.
    pub looked: audit_assets::Looked,
}

impl AssetSide {
    #[must_use]
    pub fn new(engine: Arc<dyn AssetEngine>, courier: Arc<dyn Courier>, endpoints: Vec<String>) -> Self {
        let (deliveries, making) = (assets::deliver::Deliveries::default(), assets::receive::Making::default());
        let learning = assets::learn::Learning::default();
        let looked = audit_assets::Looked::default();
        Self { engine, courier, endpoints, deliveries, making, learning, looked }
    }
}

/// Endings that a waiter may be behind before it looks for itself.
const ENDED_KEPT: usize = 1_024;

/// Calls of one wallet that may wait for their turn at the same time, the one whose turn it is included.
const WAITING_PER_WALLET: usize = 64;
/// Wallets whose first scripts are derived at the same time: it takes whole cores.
const DERIVING_AT_ONCE: usize = 2;

/// A caller's idempotency key, and what was asked with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    pub key: String,
    pub body_hash: BodyHash,
}

impl Flows {
    #[must_use]
    pub fn new(store: Store, chain: Arc<dyn ChainBackend>, network: Network, policy: Policy) -> Self {
        Self::with_node(store, chain, NodeSlot::default(), network, policy)
    }

    /// Flows that also have a Lightning node, when one is in the slot.
    #[must_use]
    pub fn with_node(
        store: Store,
        chain: Arc<dyn ChainBackend>,
        node: NodeSlot,
        network: Network,
        policy: Policy,
    ) -> Self {
        let moved = tokio::sync::Notify::new();
        let mempool_seen = Mutex::default();
        let ended = tokio::sync::broadcast::channel(ENDED_KEPT).0;
        let liquidity = tokio::sync::Notify::new();
        let inner = Inner {
            store,
            chain,
            node,
            assets: OnceLock::new(),
            shelf: OnceLock::new(),
            assets_moved: tokio::sync::Notify::new(),
            network,
            policy,
            choosing: Locks::default(),
            deriving: tokio::sync::Semaphore::new(DERIVING_AT_ONCE),
            driving: Locks::default(),
            stuck: expiry::Stuck::default(),
            moved,
            mempool_seen,
            ended,
            liquidity,
            fetches: fetches::Fetches::default(),
            auditing: tokio::sync::Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    #[must_use]
    pub fn chain(&self) -> &dyn ChainBackend {
        self.inner.chain.as_ref()
    }

    #[must_use]
    pub fn node(&self) -> &NodeSlot {
        &self.inner.node
    }

    /// Gives the flows what they need for assets, once.
    pub fn use_assets(&self, side: AssetSide) {
        let _first = self.inner.assets.get_or_init(|| side);
    }

    /// What there is for assets; nothing where there are none.
    #[must_use]
    pub fn asset_side(&self) -> Option<&AssetSide> {
        self.inner.assets.get()
    }

    /// Gives the flows a place for what strangers bring each other, once.
    pub fn use_shelf(&self, shelf: Shelf) {
        let _first = self.inner.shelf.get_or_init(|| shelf);
    }

    fn shelf(&self) -> Option<&Shelf> {
        self.inner.shelf.get()
    }

    /// The engine for assets; nothing where there are no assets.
    #[must_use]
    pub fn asset_engine(&self) -> Option<&Arc<dyn AssetEngine>> {
        self.asset_side().map(|side| &side.engine)
    }

    /// Has transfers of assets looked at soon.
    fn wake_assets(&self) {
        self.inner.assets_moved.notify_one();
    }

    /// Returns when somebody has woken it, now or since the last time.
    pub async fn assets_are_woken(&self) {
        self.inner.assets_moved.notified().await;
    }

    /// Tells whoever waits for a Lightning request that it has ended.
    fn tell_ended(&self, request: RequestId, is_over: bool) {
        if is_over {
            // Nobody may be waiting.
            drop(self.inner.ended.send(request));
        }
    }

    /// Lightning requests that end from now on.
    #[must_use]
    pub fn endings(&self) -> tokio::sync::broadcast::Receiver<RequestId> {
        self.inner.ended.subscribe()
    }

    /// Has the channels looked at soon. What is done about them is the operator's policy alone.
    fn wake_liquidity(&self) {
        self.inner.liquidity.notify_one();
    }

    /// Returns when somebody has woken it, now or since the last time.
    pub async fn liquidity_is_woken(&self) {
        self.inner.liquidity.notified().await;
    }

    #[must_use]
    pub fn network(&self) -> Network {
        self.inner.network
    }

    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.inner.policy
    }

    /// How many blocks make a send or a deposit final here.
    #[must_use]
    pub fn confirmations(&self) -> u32 {
        let usual = if self.network() == Network::Regtest { 1 } else { 3 };
        self.policy().confirmations.unwrap_or(usual).max(1)
    }

    /// How deep a coin that came to the node for a wallet has to be before it is credited.
    #[must_use]
    pub fn settle_confirmations(&self, amount: Sat) -> u32 {
        self.policy().settle.confirmations(self.network(), amount)
    }

    fn now(&self) -> Timestamp {
        self.store().clock().now()
    }

    /// What an earlier owner saw says nothing: another one may have followed the chain in between.
    fn mempool_seen(&self, owner: &Ownership) -> Arc<HashSet<Txid>> {
        let mut seen = self.inner.mempool_seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != owner.epoch {
            *seen = (owner.epoch, Arc::default());
        }
        Arc::clone(&seen.1)
    }

    /// Remembers what was looked at, unless somebody asked meanwhile for everything to be looked at again.
    fn remember_mempool(&self, owner: &Ownership, before: &Arc<HashSet<Txid>>, now: Arc<HashSet<Txid>>) {
        let mut seen = self.inner.mempool_seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 == owner.epoch && Arc::ptr_eq(&seen.1, before) {
            seen.1 = now;
        }
    }

    /// Has the whole mempool looked at again: scripts are watched that were not when it was read.
    fn forget_mempool(&self) {
        self.inner.mempool_seen.lock().unwrap_or_else(PoisonError::into_inner).1 = Arc::default();
    }

    /// Waits for a turn to derive. The semaphore is never closed.
    async fn may_derive(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.inner.deriving.acquire().await.ok()
    }

    /// The same lock for a call that somebody waits for: a queue that is too long is not joined. Whoever gives up waiting leaves a task
    /// behind that does not.
    fn queue_up(&self, wallet: &WalletId) -> Result<Arc<tokio::sync::Mutex<()>>, Error> {
        let lock = self.choosing(wallet);
        if Arc::strong_count(&lock) > WAITING_PER_WALLET {
            let detail = "too many calls of this wallet wait for each other; try again".to_owned();
            return Err(Error::Later { code: Code::RateLimited, detail, seconds: 5 });
        }
        Ok(lock)
    }

    fn auditing(&self) -> &tokio::sync::Mutex<()> {
        &self.inner.auditing
    }

    /// The lock under which coins of a wallet are chosen in this process.
    fn choosing(&self, wallet: &WalletId) -> Arc<tokio::sync::Mutex<()>> {
        self.inner.choosing.of(wallet)
    }

    fn stuck(&self) -> &expiry::Stuck {
        &self.inner.stuck
    }

    /// The lock under which the node is asked for an effect in this process.
    fn driving(&self, effect: &Effect) -> Arc<tokio::sync::Mutex<()>> {
        self.inner.driving.of(&effect.key())
    }
}
