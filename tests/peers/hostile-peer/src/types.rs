//! LDK's objects with our parts filled in.

use std::sync::{Arc, RwLock};

use bitcoin::Transaction;
use lightning::chain::chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator, TransactionType};
use lightning::chain::chainmonitor::{ChainMonitor, Persist};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::{ChannelMonitorUpdateStatus, Filter};
use lightning::ln::channelmanager::ChannelManager;
use lightning::ln::peer_handler::{IgnoringMessageHandler, PeerManager};
use lightning::onion_message::messenger::{DefaultMessageRouter, OnionMessenger};
use lightning::routing::gossip::{NetworkGraph, P2PGossipSync};
use lightning::routing::router::DefaultRouter;
use lightning::routing::scoring::{ProbabilisticScorer, ProbabilisticScoringFeeParameters};
use lightning::routing::utxo::UtxoLookup;
use lightning::sign::{InMemorySigner, KeysManager};
use lightning::util::logger::{Level, Logger, Record};
use lightning::util::persist::MonitorName;
use lightning_net_tokio::SocketDescriptor;

use crate::muffled::Muffled;
use crate::offers::Lure;

pub struct Log;
pub type Logs = Arc<Log>;
pub struct Chain;
pub struct Forgetful;

pub type Graph = NetworkGraph<Logs>;
pub type Scorer = ProbabilisticScorer<Arc<Graph>, Logs>;
pub type Router =
    DefaultRouter<Arc<Graph>, Logs, Arc<KeysManager>, Arc<RwLock<Scorer>>, ProbabilisticScoringFeeParameters, Scorer>;
pub type MessageRouter = DefaultMessageRouter<Arc<Graph>, Logs, Arc<KeysManager>>;
pub type Monitors = ChainMonitor<
    InMemorySigner,
    Arc<dyn Filter + Send + Sync>,
    Arc<Chain>,
    Arc<Chain>,
    Logs,
    Arc<Forgetful>,
    Arc<KeysManager>,
>;
pub type Manager = ChannelManager<
    Arc<Monitors>,
    Arc<Chain>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Chain>,
    Arc<Router>,
    Arc<MessageRouter>,
    Logs,
>;
pub type Gossip = P2PGossipSync<Arc<Graph>, Arc<dyn UtxoLookup + Send + Sync>, Logs>;
pub type Onion = OnionMessenger<
    Arc<KeysManager>,
    Arc<KeysManager>,
    Logs,
    Arc<Manager>,
    Arc<MessageRouter>,
    Arc<Lure>,
    Arc<Lure>,
    IgnoringMessageHandler,
    IgnoringMessageHandler,
>;
pub type Peers = PeerManager<
    SocketDescriptor,
    Arc<Muffled>,
    Arc<Gossip>,
    Arc<Onion>,
    Logs,
    IgnoringMessageHandler,
    Arc<KeysManager>,
    Arc<Monitors>,
>;

impl Logger for Log {
    fn log(&self, record: Record) {
        if record.level >= Level::Debug {
            eprintln!("{} {}: {}", record.level, record.module_path, record.args);
        }
    }
}

impl FeeEstimator for Chain {
    fn get_est_sat_per_1000_weight(&self, _target: ConfirmationTarget) -> u32 {
        253
    }
}

/// It has no coins, and nothing to send.
impl BroadcasterInterface for Chain {
    fn broadcast_transactions(&self, _transactions: &[(&Transaction, TransactionType)]) {}
}

/// It is never started again.
impl Persist<InMemorySigner> for Forgetful {
    fn persist_new_channel(
        &self,
        _name: MonitorName,
        _monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        _name: MonitorName,
        _update: Option<&ChannelMonitorUpdate>,
        _monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn archive_persisted_channel(&self, _name: MonitorName) {}
}
