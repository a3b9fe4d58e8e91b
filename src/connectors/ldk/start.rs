//! From what is stored to a running node, in the order that LDK asks for.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};

use bdk_wallet::chain::BlockId;
use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::{BlockLocator, Listen};
use lightning::io::Cursor;
use lightning::ln::channelmanager::{ChainParameters, ChannelManager, ChannelManagerReadArgs};
use lightning::ln::peer_handler::{IgnoringMessageHandler, MessageHandler};
use lightning::routing::gossip::NetworkGraph;
use lightning::routing::router::DefaultRouter;
use lightning::routing::scoring::{
    ProbabilisticScorer, ProbabilisticScoringDecayParameters, ProbabilisticScoringFeeParameters,
};
use lightning::sign::{InMemorySigner, KeysManager, NodeSigner, Recipient};
use lightning::util::ser::{Readable, ReadableArgs};
use lightning::util::wallet_utils::WalletSync;
use lightning_block_sync::HeaderCache;
use lightning_block_sync::init::{synchronize_listeners, validate_best_block_header};
use lightning_block_sync::poll::ValidatedBlockHeader;
use tokio::sync::{broadcast, watch};

use super::books::Books;
use super::broadcast::Broadcaster;
use super::config::{Config, Rpc};
use super::counter::Counter;
use super::error::LdkError;
use super::fees::Fees;
use super::gossip::{self, Gossip, Learnt};
use super::lease::Lease;
use super::logger::NodeLog;
use super::node::{HINTS, Node, Phase};
use super::offers::{Fetching, Offers};
use super::payments::Paying;
use super::policy;
use super::quotes::Searches;
use super::rapid::Rapid;
use super::recovery;
use super::seed::{Generation, Seed};
use super::source::Source;
use super::stage::{SWEEPER, Stage, SweeperStore};
use super::types::{Bumper, Graph, Log, Manager, MessageRouter, Monitors, Onion, Peers, Router, Scorer, Sweeper};
use super::wallet::NodeWallet;
use crate::ports::chain::ChainBackend;
use crate::store::Store;
use crate::store::node::{self, Step};
use crate::store::node_parts;
use crate::store::owners::Ownership;

/// Values that there is one of.
pub const META: &str = "meta";
pub const MANAGER: &str = "manager";
/// Where earlier versions kept what is in files now.
pub const GRAPH: &str = "graph";
pub const SCORER: &str = "scorer";
const NODE_ID: &str = "node";
pub const GENERATION: &str = "generation";

type Monitor = ChannelMonitor<InMemorySigner>;

/// What a start is given.
pub struct Parts {
    pub config: Config,
    pub network: Network,
    pub rpc: Rpc,
    pub chain: Arc<dyn ChainBackend>,
    pub store: Store,
    pub owner: Ownership,
    /// The database was lost: an empty one, older than this machine has seen, is what is expected.
    pub recovering: bool,
}

/// A node that stands at the tip of the chain, and what it goes on from there with.
pub struct Started {
    pub node: Arc<Node>,
    pub source: Arc<Source>,
    pub tip: ValidatedBlockHeader,
    pub headers: HeaderCache,
}

/// # Errors
/// When something is missing, makes no sense, or must not be started.
pub async fn start(parts: Parts) -> Result<Started, LdkError> {
    let Parts { config, network, rpc, chain, store, owner, recovering } = parts;
    let rapid = Rapid::from_config(&config)?;
    let seed = Seed::find(&config)?;
    let now = store.clock().now();
    let seconds = u64::try_from(now.unix_seconds()).unwrap_or_default();
    let keys = Arc::new(KeysManager::new(&seed.0, seconds, rand::random_range(0..1_000_000_000), true));
    let id = keys.get_node_id(Recipient::Node).map_err(|()| LdkError::Corrupt("the seed has no key".to_owned()))?;
    let (counter, server) = Counter::begin(&config, &store, recovering).await?.unzip();
    let lease = Lease::new(store.clone(), owner, counter);
    let generation = begin_generation(&config, &store, &lease, id, recovering, server).await?;

    let source = Arc::new(Source::new(rpc)?);
    let best = validate_best_block_header(&*source).await.map_err(blocks)?;
    let log: Log = Arc::new(NodeLog);
    let stage = Arc::new(Stage::default());
    let fees = Arc::new(Fees::default());
    if let Err(error) = fees.refresh(&chain).await {
        tracing::warn!(%error, "the node begins with made-up fee rates");
    }
    let mut conn = store.read().await?;
    let changes = node::wallet(&mut conn).await?;
    let tip = BlockId { height: best.height, hash: best.to_block_locator().block_hash };
    let clock = store.clock().clone();
    let books = Arc::new(Books::read(&mut conn).await?);
    let wallet = NodeWallet::open(&seed, network, &changes, tip, Arc::clone(&stage), clock, Arc::clone(&books))?;
    let wallet = Arc::new(wallet);
    let broadcaster = Arc::new(Broadcaster::new(Arc::clone(&wallet)));
    let base = Base { config, network, log, keys, stage, fees, wallet, books, broadcaster };

    let stored = base.read_monitors(&mut conn).await?;
    let graph = base.graph(&mut conn).await?;
    let scorer = base.scorer(&mut conn, &graph).await?;
    let router = base.router(&mut conn, &graph, &scorer).await?;
    let monitors = base.chain_monitor();
    let sweeper = base.sweeper(&mut conn, best.to_block_locator()).await?;
    let manager = base.manager(&mut conn, &stored, &monitors, &router, &graph, &best).await?;
    drop(conn);
    // Blocks may close channels, which can't be asked any more then.
    base.books.note_pending(&manager.0.list_channels());
    let synchronised = base.synchronise(&source, &manager, stored, &sweeper).await?;
    for monitor in synchronised.monitors {
        let channel = monitor.channel_id();
        let known = monitors.load_existing_monitor(channel, monitor);
        known.map_err(|()| LdkError::Corrupt(format!("the channel {channel} is there twice")))?;
    }
    let assembled =
        Assembled { base, rapid, store, lease, generation, chain, id, graph, scorer, router, monitors, sweeper };
    let node = assembled.node(manager.0, &source, seconds).await?;
    Ok(Started { node, source, tip: synchronised.tip, headers: synchronised.headers })
}

fn blocks(error: lightning_block_sync::BlockSourceError) -> LdkError {
    LdkError::Blocks(error.into_inner().to_string())
}

fn unreadable(what: &str) -> impl Fn(lightning::ln::msgs::DecodeError) -> LdkError {
    move |error| LdkError::Corrupt(format!("{what}: {error:?}"))
}

/// Refuses what must not run, and raises the generation: in the database, then in the file.
async fn begin_generation(
    config: &Config,
    store: &Store,
    lease: &Lease,
    id: PublicKey,
    recovering: bool,
    server: Option<Step>,
) -> Result<(Generation, Mutex<i64>), LdkError> {
    let mut conn = store.read().await?;
    check_purpose(&mut conn, recovering).await?;
    let stored = node::value(&mut conn, META, NODE_ID).await?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let ours = id.to_string();
    if let Some(stored) = stored.filter(|stored| *stored != ours) {
        return Err(LdkError::WrongSeed { ours, stored });
    }
    let number = node::value(&mut conn, META, GENERATION).await?;
    drop(conn);
    let number = number.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(|text| text.parse().ok()).unwrap_or(0);
    let file = Generation::beside(config);
    let mut steps = vec![put(META, NODE_ID, ours.into_bytes())];
    let number = if recovering {
        steps.push(recovery::mark());
        number.max(file.newest()?)
    } else {
        file.check(number)?;
        number
    };
    let next = number.saturating_add(1);
    steps.push(generation_step(next));
    steps.extend(server);
    lease.commit(steps).await;
    file.write(next)?;
    Ok((file, Mutex::new(next)))
}

/// A recovery wants a database without channels, and what is recovered is not served meanwhile.
async fn check_purpose(conn: &mut crate::store::Conn, recovering: bool) -> Result<(), LdkError> {
    let is_under_way = recovery::is_under_way(conn).await?;
    let has_channels = !is_under_way && node::value(conn, MANAGER, "").await?.is_some();
    match (recovering, is_under_way, has_channels) {
        (true, _, true) => Err(LdkError::Misconfigured(
            "this database has a Lightning node in it, which `sluice serve` starts. A recovery needs an empty database: it is \
             for a node whose database is lost"
                .to_owned(),
        )),
        (false, true, _) => Err(LdkError::Misconfigured(
            "a recovery of the node has begun on this database: let `sluice node recover` come to its end, or end it with --give-up"
                .to_owned(),
        )),
        (true, _, false) | (false, false, _) => Ok(()),
    }
}

pub fn generation_step(number: i64) -> Step {
    put(META, GENERATION, number.to_string().into_bytes())
}

pub fn put(space: &'static str, name: &str, value: Vec<u8>) -> Step {
    Step::Put { space, name: name.to_owned(), value }
}

/// What everything else is made from.
struct Base {
    config: Config,
    network: Network,
    log: Log,
    keys: Arc<KeysManager>,
    stage: Arc<Stage>,
    fees: Arc<Fees>,
    wallet: Arc<NodeWallet>,
    books: Arc<Books>,
    broadcaster: Arc<Broadcaster>,
}

struct Synchronised {
    monitors: Vec<Monitor>,
    headers: HeaderCache,
    tip: ValidatedBlockHeader,
}

impl Base {
    /// Every monitor, with the updates that were stored since it was.
    async fn read_monitors(&self, conn: &mut crate::store::Conn) -> Result<Vec<(BlockLocator, Monitor)>, LdkError> {
        let mut all = Vec::new();
        for (name, bytes) in node::monitors(conn).await? {
            let args = (&*self.keys, &*self.keys);
            let (locator, monitor) = <(BlockLocator, Monitor)>::read(&mut Cursor::new(&bytes), args)
                .map_err(unreadable(&format!("the monitor {name}")))?;
            for bytes in node::updates(conn, &name).await? {
                let update = ChannelMonitorUpdate::read(&mut Cursor::new(&bytes)).map_err(unreadable(&name))?;
                if update.update_id > monitor.get_latest_update_id() {
                    let applied = monitor.update_monitor(&update, &self.broadcaster, &self.fees, &self.log);
                    applied.map_err(|()| LdkError::Corrupt(format!("update {} of {name}", update.update_id)))?;
                }
            }
            all.push((locator, monitor));
        }
        Ok(all)
    }

    async fn graph(&self, conn: &mut crate::store::Conn) -> Result<Arc<Graph>, LdkError> {
        let stored = match gossip::read(&Learnt::beside(&self.config).graph) {
            Some(bytes) => Some(bytes),
            None => node::value(conn, GRAPH, "").await?,
        };
        let read = stored.map(|bytes| Graph::read(&mut Cursor::new(&bytes), Arc::clone(&self.log)));
        // It is gossip: without it the node asks for it anew.
        let graph = read.and_then(Result::ok).unwrap_or_else(|| NetworkGraph::new(self.network, Arc::clone(&self.log)));
        Ok(Arc::new(graph))
    }

    async fn scorer(&self, conn: &mut crate::store::Conn, graph: &Arc<Graph>) -> Result<Arc<RwLock<Scorer>>, LdkError> {
        let decay = ProbabilisticScoringDecayParameters::default();
        let stored = match gossip::read(&Learnt::beside(&self.config).scores) {
            Some(bytes) => Some(bytes),
            None => node::value(conn, SCORER, "").await?,
        };
        let args = || (decay, Arc::clone(graph), Arc::clone(&self.log));
        let read = stored.map(|bytes| Scorer::read(&mut Cursor::new(&bytes), args()));
        let scorer = read.and_then(Result::ok);
        let scorer =
            scorer.unwrap_or_else(|| ProbabilisticScorer::new(decay, Arc::clone(graph), Arc::clone(&self.log)));
        Ok(Arc::new(RwLock::new(scorer)))
    }

    async fn router(
        &self,
        conn: &mut crate::store::Conn,
        graph: &Arc<Graph>,
        scorer: &Arc<RwLock<Scorer>>,
    ) -> Result<Arc<Router>, LdkError> {
        let parted = node_parts::open(conn).await?;
        let search = DefaultRouter::new(
            Arc::clone(graph),
            Arc::clone(&self.log),
            Arc::clone(&self.keys),
            Arc::clone(scorer),
            ProbabilisticScoringFeeParameters::default(),
        );
        Ok(Arc::new(Router::new(search, Arc::clone(&self.stage), parted)))
    }

    /// In deferred mode: what the manager orders waits until the manager itself is staged.
    fn chain_monitor(&self) -> Arc<Monitors> {
        Arc::new(Monitors::new(
            None,
            Arc::clone(&self.broadcaster),
            Arc::clone(&self.log),
            Arc::clone(&self.fees),
            Arc::clone(&self.stage),
            Arc::clone(&self.keys),
            self.keys.get_peer_storage_key(),
            true,
        ))
    }

    async fn sweeper(
        &self,
        conn: &mut crate::store::Conn,
        best: BlockLocator,
    ) -> Result<(BlockLocator, Arc<Sweeper>), LdkError> {
        let (broadcaster, fees) = (Arc::clone(&self.broadcaster), Arc::clone(&self.fees));
        let (keys, wallet) = (Arc::clone(&self.keys), Arc::clone(&self.wallet));
        let (stage, log) = (Arc::new(SweeperStore(Arc::clone(&self.stage))), Arc::clone(&self.log));
        match node::value(conn, SWEEPER, "").await? {
            Some(bytes) => {
                let args = (broadcaster, fees, None, keys, wallet, stage, log);
                let read = <(BlockLocator, Sweeper)>::read(&mut Cursor::new(&bytes), args);
                let (locator, sweeper) = read.map_err(unreadable("the sweeper"))?;
                Ok((locator, Arc::new(sweeper)))
            }
            None => {
                let sweeper = Sweeper::new(best, broadcaster, fees, None, keys, wallet, stage, log);
                Ok((best, Arc::new(sweeper)))
            }
        }
    }

    async fn manager(
        &self,
        conn: &mut crate::store::Conn,
        stored: &[(BlockLocator, Monitor)],
        monitors: &Arc<Monitors>,
        router: &Arc<Router>,
        graph: &Arc<Graph>,
        best: &ValidatedBlockHeader,
    ) -> Result<(Arc<Manager>, BlockLocator), LdkError> {
        let config = policy::user_config(&self.config, self.network);
        let messages = Arc::new(MessageRouter::new(Arc::clone(graph), Arc::clone(&self.keys)));
        let Some(bytes) = node::value(conn, MANAGER, "").await? else {
            if !stored.is_empty() {
                return Err(LdkError::Corrupt("there are channels, and no manager of them".to_owned()));
            }
            let locator = best.to_block_locator();
            let manager = ChannelManager::new(
                Arc::clone(&self.fees),
                Arc::clone(monitors),
                Arc::clone(&self.broadcaster),
                Arc::clone(router),
                messages,
                Arc::clone(&self.log),
                Arc::clone(&self.keys),
                Arc::clone(&self.keys),
                Arc::clone(&self.keys),
                config,
                ChainParameters { network: self.network, best_block: locator },
                best.header.time,
            );
            return Ok((Arc::new(manager), locator));
        };
        let args = ChannelManagerReadArgs::new(
            Arc::clone(&self.keys),
            Arc::clone(&self.keys),
            Arc::clone(&self.keys),
            Arc::clone(&self.fees),
            Arc::clone(monitors),
            Arc::clone(&self.broadcaster),
            Arc::clone(router),
            messages,
            Arc::clone(&self.log),
            config,
            stored.iter().map(|(_, monitor)| monitor).collect(),
        );
        let read = <(BlockLocator, Manager)>::read(&mut Cursor::new(&bytes), args);
        let (locator, manager) = read.map_err(unreadable("the manager"))?;
        Ok((Arc::new(manager), locator))
    }

    /// Brings everything to the same block, each from where it was stored.
    async fn synchronise(
        &self,
        source: &Arc<Source>,
        (manager, manager_at): &(Arc<Manager>, BlockLocator),
        stored: Vec<(BlockLocator, Monitor)>,
        (sweeper_at, sweeper): &(BlockLocator, Arc<Sweeper>),
    ) -> Result<Synchronised, LdkError> {
        let with_tools = |(at, monitor): (BlockLocator, Monitor)| {
            let tools = (Arc::clone(&self.broadcaster), Arc::clone(&self.fees), Arc::clone(&self.log));
            (at, (monitor, tools.0, tools.1, tools.2))
        };
        let monitors: Vec<_> = stored.into_iter().map(with_tools).collect();
        let mut listeners: Vec<(BlockLocator, &(dyn Listen + Send + Sync))> =
            vec![(self.wallet.locator(), &*self.wallet), (*manager_at, &**manager), (*sweeper_at, &**sweeper)];
        listeners.extend(monitors.iter().map(|(at, monitor)| (*at, monitor as &(dyn Listen + Send + Sync))));
        let (headers, tip) = synchronize_listeners(&**source, self.network, listeners).await.map_err(blocks)?;
        let monitors = monitors.into_iter().map(|(_, (monitor, ..))| monitor).collect();
        Ok(Synchronised { monitors, headers, tip })
    }
}

struct Assembled {
    base: Base,
    rapid: Option<Rapid>,
    store: Store,
    lease: Lease,
    generation: (Generation, Mutex<i64>),
    chain: Arc<dyn ChainBackend>,
    id: PublicKey,
    graph: Arc<Graph>,
    scorer: Arc<RwLock<Scorer>>,
    router: Arc<Router>,
    monitors: Arc<Monitors>,
    sweeper: (BlockLocator, Arc<Sweeper>),
}

impl Assembled {
    async fn node(self, manager: Arc<Manager>, source: &Arc<Source>, seconds: u64) -> Result<Arc<Node>, LdkError> {
        let Base { config, network, log, keys, stage, fees, wallet, books, broadcaster } = self.base;
        let learnt = Learnt::beside(&config);
        let fetching = Arc::new(Fetching::default());
        let offers = Arc::new(Offers::new(Arc::clone(&manager), Arc::clone(&fetching)));
        let gossip = Gossip::new(self.rapid, source, &self.graph, &log);
        let (onion, peers) =
            network_side(&gossip, &self.graph, &manager, offers, &self.monitors, (&keys, &log), seconds);
        let coins = Arc::new(WalletSync::new(Arc::clone(&wallet), Arc::clone(&log)));
        let bumper = Bumper::new(Arc::clone(&broadcaster), coins, Arc::clone(&keys), Arc::clone(&log));

        let mut conn = self.store.read().await?;
        let paying = Paying::from_rows(node::open_payments(&mut conn).await?);
        let since =
            crate::clock::Timestamp::from_millis(self.store.clock().now().millis() - super::incoming::CANCELLED_FOR_MS);
        let cancelled = node::cancelled(&mut conn, since).await?.into_iter().collect();
        let addresses: HashMap<_, _> = node::peers(&mut conn)
            .await?
            .into_iter()
            .filter_map(|(id, address)| Some((id.parse().ok()?, address)))
            .collect();
        drop(conn);
        Ok(Arc::new(Node {
            config,
            network,
            id: self.id,
            log,
            store: self.store,
            lease: self.lease,
            generation: self.generation,
            chain: self.chain,
            keys,
            fees,
            stage,
            wallet,
            books,
            broadcaster,
            graph: self.graph,
            scorer: self.scorer,
            router: self.router,
            monitors: self.monitors,
            manager,
            gossip,
            onion,
            peers,
            sweeper: self.sweeper.1,
            bumper,
            hints: broadcast::channel(HINTS).0,
            paying: Mutex::new(paying),
            fetching,
            searches: Searches::default(),
            learnt,
            tries_again: AtomicBool::default(),
            cancelled: Mutex::new(cancelled),
            suspects: Mutex::default(),
            unfunded: Mutex::default(),
            addresses: Mutex::new(addresses),
            phase: watch::channel(Phase::Running).0,
            tasks: Mutex::default(),
            sending: tokio::sync::Mutex::default(),
        }))
    }
}

/// What speaks with peers.
fn network_side(
    gossip: &Gossip,
    graph: &Arc<Graph>,
    manager: &Arc<Manager>,
    offers: Arc<Offers>,
    monitors: &Arc<Monitors>,
    (keys, log): (&Arc<KeysManager>, &Log),
    seconds: u64,
) -> (Arc<Onion>, Arc<Peers>) {
    let messages = Arc::new(MessageRouter::new(Arc::clone(graph), Arc::clone(keys)));
    let onion = Arc::new(Onion::new(
        Arc::clone(keys),
        Arc::clone(keys),
        Arc::clone(log),
        Arc::clone(manager),
        messages,
        offers,
        // Nobody who was away is paid by a message of his when he comes back.
        IgnoringMessageHandler {},
        IgnoringMessageHandler {},
        IgnoringMessageHandler {},
    ));
    let handlers = MessageHandler {
        chan_handler: Arc::clone(manager),
        route_handler: gossip.handler(),
        onion_message_handler: Arc::clone(&onion),
        custom_message_handler: IgnoringMessageHandler {},
        send_only_message_handler: Arc::clone(monitors),
    };
    let now = u32::try_from(seconds).unwrap_or(u32::MAX);
    let random: [u8; 32] = rand::random();
    let peers = Arc::new(Peers::new(handlers, now, &random, Arc::clone(log), Arc::clone(keys)));
    (onion, peers)
}
