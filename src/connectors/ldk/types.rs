//! LDK's objects with our parts filled in.

use std::sync::{Arc, Mutex, RwLock};

use lightning::chain::Filter;
use lightning::chain::chainmonitor::ChainMonitor as LdkChainMonitor;
use lightning::events::bump_transaction::sync::BumpTransactionEventHandlerSync;
use lightning::ln::channelmanager::ChannelManager;
use lightning::ln::msgs::RoutingMessageHandler;
use lightning::ln::peer_handler::{IgnoringMessageHandler, PeerManager as LdkPeerManager};
use lightning::onion_message::messenger::{DefaultMessageRouter, OnionMessenger as LdkOnionMessenger};
use lightning::routing::gossip::{NetworkGraph, P2PGossipSync};
use lightning::routing::router::DefaultRouter;
use lightning::routing::scoring::{ProbabilisticScorer, ProbabilisticScoringFeeParameters};
use lightning::sign::{InMemorySigner, KeysManager};
use lightning::util::sweep::OutputSweeperSync;
use lightning::util::wallet_utils::WalletSync;
use lightning_block_sync::gossip::{GossipVerifier, TokioSpawner};
use lightning_net_tokio::SocketDescriptor;

use super::broadcast::Broadcaster;
use super::fees::Fees;
use super::logger::NodeLog;
use super::offers::Offers;
pub use super::router::Router;
use super::source::Source;
use super::stage::{Stage, SweeperStore};
use super::wallet::NodeWallet;

pub type Log = Arc<NodeLog>;
pub type NoFilter = Arc<dyn Filter + Send + Sync>;
pub type Graph = NetworkGraph<Log>;
pub type Scorer = ProbabilisticScorer<Arc<Graph>, Log>;
pub type Search =
    DefaultRouter<Arc<Graph>, Log, Arc<KeysManager>, Arc<RwLock<Scorer>>, ProbabilisticScoringFeeParameters, Scorer>;
pub type MessageRouter = DefaultMessageRouter<Arc<Graph>, Log, Arc<KeysManager>>;
pub type Monitors =
    LdkChainMonitor<InMemorySigner, NoFilter, Arc<Broadcaster>, Arc<Fees>, Log, Arc<Stage>, Arc<KeysManager>>;
pub type Manager = ChannelManager<
    Arc<Monitors>,
    Arc<Broadcaster>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Fees>,
    Arc<Router>,
    Arc<MessageRouter>,
    Log,
>;
pub type Verifier = GossipVerifier<TokioSpawner, Arc<Source>>;
pub type PeerGossip = P2PGossipSync<Arc<Graph>, Arc<Verifier>, Log>;
pub type RouteHandler = Arc<dyn RoutingMessageHandler + Send + Sync>;
pub type Onion = LdkOnionMessenger<
    Arc<KeysManager>,
    Arc<KeysManager>,
    Log,
    Arc<Manager>,
    Arc<MessageRouter>,
    Arc<Offers>,
    IgnoringMessageHandler,
    IgnoringMessageHandler,
    IgnoringMessageHandler,
>;
pub type Peers = LdkPeerManager<
    SocketDescriptor,
    Arc<Manager>,
    RouteHandler,
    Arc<Onion>,
    Log,
    IgnoringMessageHandler,
    Arc<KeysManager>,
    Arc<Monitors>,
>;
pub type Sweeper =
    OutputSweeperSync<Arc<Broadcaster>, Arc<NodeWallet>, Arc<Fees>, NoFilter, Arc<SweeperStore>, Log, Arc<KeysManager>>;
pub type Bumper =
    BumpTransactionEventHandlerSync<Arc<Broadcaster>, Arc<WalletSync<Arc<NodeWallet>, Log>>, Arc<KeysManager>, Log>;

/// Locks, whoever panicked while holding it: such a panic ends the process anyway.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
