//! Everything that one node is made of.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use lightning::sign::KeysManager;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use super::books::Books;
use super::broadcast::Broadcaster;
use super::config::Config;
use super::fees::Fees;
use super::gossip::{Gossip, Learnt};
use super::inbound::Unfunded;
use super::lease::{Lease, die};
use super::offers::Fetching;
use super::payments::Paying;
use super::quotes::Searches;
use super::seed::Generation;
use super::stage::Stage;
use super::types::{Bumper, Graph, Log, Manager, Monitors, Onion, Peers, Router, Scorer, Sweeper};
use super::wallet::NodeWallet;
use crate::domain::lightning::PaymentHash;
use crate::ports::PortError;
use crate::ports::chain::ChainBackend;
use crate::ports::lightning::NodeEvent;
use crate::store::{Store, StoreError};

/// Hints that a slow listener may be behind.
pub const HINTS: usize = 4_096;

pub struct Node {
    pub config: Config,
    pub network: Network,
    pub id: PublicKey,
    pub log: Log,
    pub store: Store,
    pub lease: Lease,
    pub generation: (Generation, Mutex<i64>),
    pub chain: Arc<dyn ChainBackend>,
    pub keys: Arc<KeysManager>,
    pub fees: Arc<Fees>,
    pub stage: Arc<Stage>,
    pub wallet: Arc<NodeWallet>,
    pub books: Arc<Books>,
    pub broadcaster: Arc<Broadcaster>,
    pub graph: Arc<Graph>,
    pub scorer: Arc<RwLock<Scorer>>,
    pub router: Arc<Router>,
    pub monitors: Arc<Monitors>,
    pub manager: Arc<Manager>,
    pub gossip: Gossip,
    pub onion: Arc<Onion>,
    pub peers: Arc<Peers>,
    pub sweeper: Arc<Sweeper>,
    pub bumper: Bumper,
    pub hints: broadcast::Sender<NodeEvent>,
    pub paying: Mutex<Paying>,
    pub fetching: Arc<Fetching>,
    pub searches: Searches,
    pub learnt: Learnt,
    /// A part of a payment has failed, and LDK may try another way.
    pub tries_again: AtomicBool,
    pub cancelled: Mutex<HashSet<PaymentHash>>,
    /// Hashes of which a part was turned away: perhaps what is held for them is gone.
    pub suspects: Mutex<HashSet<PaymentHash>>,
    pub unfunded: Mutex<Unfunded>,
    /// Where peers were reached.
    pub addresses: Mutex<HashMap<PublicKey, String>>,
    pub phase: watch::Sender<Phase>,
    pub tasks: Mutex<Vec<JoinHandle<()>>>,
    /// One send of coins at a time: whoever asks for the same one again finds its row.
    pub sending: tokio::sync::Mutex<()>,
}

/// Where the node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Running,
    /// Takes no new payments, and has no peers any more.
    Draining,
    Stopped,
}

impl Node {
    pub fn is_running(&self) -> bool {
        *self.phase.borrow() == Phase::Running
    }

    /// Comes back when the node is about to stop.
    pub async fn draining(&self) {
        let mut phase = self.phase.subscribe();
        // An error says that there is no node any more.
        drop(phase.wait_for(|phase| *phase >= Phase::Draining).await);
    }

    /// The time since 1970, as LDK's scores want it.
    pub fn since_epoch(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.store.clock().now().millis()).unwrap_or_default())
    }

    /// Waits until everything that was staged until now is durable.
    ///
    /// # Errors
    /// When the node stops before that.
    pub async fn committed(&self) -> Result<(), PortError> {
        let durable = self.stage.committed();
        // Nobody takes what is staged after the last commit.
        if *self.phase.borrow() == Phase::Stopped {
            return Err(stopped());
        }
        durable.await.map_err(|_| stopped())
    }

    /// Runs a task of the node. A node with a part of it gone is worse than none: a panic ends the process.
    pub fn spawn(self: &Arc<Self>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        use futures::FutureExt as _;
        let guarded = std::panic::AssertUnwindSafe(task).catch_unwind();
        let handle = tokio::spawn(async move {
            if guarded.await.is_err() {
                die(&format!("its task `{name}` panicked"));
            }
        });
        super::types::lock(&self.tasks).push(handle);
    }
}

pub fn stopped() -> PortError {
    unreachable("the node is stopping")
}

pub fn unreachable(reason: impl Into<String>) -> PortError {
    PortError::Unreachable { service: "the Lightning node", reason: reason.into() }
}

pub fn refused(reason: impl Into<String>) -> PortError {
    PortError::Misconfigured { service: "the Lightning node", reason: reason.into() }
}

impl From<StoreError> for PortError {
    fn from(error: StoreError) -> Self {
        unreachable(error.to_string())
    }
}
