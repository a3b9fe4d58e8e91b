//! The node: LDK, with what follows the chain and the peers.

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Network, Transaction};
use lightning::events::{Event, EventsProvider as _, ReplayEvent};
use lightning::ln::channelmanager::{ChainParameters, ChannelManager};
use lightning::ln::peer_handler::{IgnoringMessageHandler, MessageHandler};
use lightning::routing::gossip::{NetworkGraph, P2PGossipSync};
use lightning::routing::router::DefaultRouter;
use lightning::routing::scoring::{ProbabilisticScoringDecayParameters, ProbabilisticScoringFeeParameters};
use lightning::sign::{KeysManager, NodeSigner as _, Recipient};
use lightning::util::config::UserConfig;
use lightning_block_sync::init::validate_best_block_header;
use lightning_block_sync::poll::{ChainPoller, ValidatedBlockHeader};
use lightning_block_sync::rpc::RpcClient;
use lightning_block_sync::{HeaderCache, SpvClient};
use tokio::net::TcpListener;

use crate::Args;
use crate::crowd;
use crate::muffled::Muffled;
use crate::offers::Lure;
use crate::types::{
    Chain, Forgetful, Graph, Log, Logs, Manager, MessageRouter, Monitors, Onion, Peers, Router, Scorer,
};

const ROUND: Duration = Duration::from_millis(20);
const POLL: Duration = Duration::from_millis(100);

pub struct Hostile {
    pub args: Args,
    pub source: Arc<RpcClient>,
    pub id: PublicKey,
    pub listen: SocketAddr,
    pub keys: Arc<KeysManager>,
    pub manager: Arc<Manager>,
    pub monitors: Arc<Monitors>,
    pub onion: Arc<Onion>,
    pub peers: Arc<Peers>,
    pub muffled: Arc<Muffled>,
    pub lure: Arc<Lure>,
    /// What arrived, by its hash: hex, and millisatoshi.
    pub claimed: Mutex<HashMap<String, u64>>,
    /// How payments of its own ended, by their hash.
    pub ended: Mutex<HashMap<String, &'static str>>,
    /// Commitments as they were.
    pub remembered: Mutex<Vec<Transaction>>,
    /// Nodes of the same hand, each under a name of its own.
    pub crowd: Mutex<Vec<Arc<Self>>>,
    /// Channels that are gone.
    pub closed: AtomicU32,
}

/// Whoever does not follow the chain stays where it has begun.
pub async fn start(args: &Args, follows: bool) -> Result<Arc<Hostile>, Box<dyn Error>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seed: [u8; 32] = rand::random();
    let keys = Arc::new(KeysManager::new(&seed, now.as_secs(), now.subsec_nanos(), true));
    let id = keys.get_node_id(Recipient::Node).map_err(|()| "no key")?;
    let login = BASE64.encode(format!("{}:{}", args.login.0, args.login.1));
    let source = Arc::new(RpcClient::new(&login, format!("http://{}", args.rpc)));
    let tip = validate_best_block_header(&*source).await.map_err(|error| format!("{error:?}"))?;

    let (logs, chain) = (Arc::new(Log), Arc::new(Chain));
    let graph = Arc::new(NetworkGraph::new(Network::Regtest, Arc::clone(&logs)));
    let router = router(&graph, &logs, &keys);
    let messages = Arc::new(MessageRouter::new(Arc::clone(&graph), Arc::clone(&keys)));
    let monitors = monitors(&chain, &logs, &keys);
    let manager: Arc<Manager> = Arc::new(ChannelManager::new(
        Arc::clone(&chain),
        Arc::clone(&monitors),
        Arc::clone(&chain),
        Arc::clone(&router),
        Arc::clone(&messages),
        Arc::clone(&logs),
        Arc::clone(&keys),
        Arc::clone(&keys),
        Arc::clone(&keys),
        config(args),
        ChainParameters { network: Network::Regtest, best_block: tip.to_block_locator() },
        tip.header.time,
    ));
    let lure =
        Arc::new(Lure::new(Arc::clone(&manager), router, Arc::clone(&messages), Arc::clone(&keys), Arc::clone(&logs)));
    let onion = onion(&keys, &logs, &manager, messages, &lure);
    let muffled = Arc::new(Muffled::new(Arc::clone(&manager)));
    let handlers = MessageHandler {
        chan_handler: Arc::clone(&muffled),
        route_handler: Arc::new(P2PGossipSync::new(graph, None, Arc::clone(&logs))),
        onion_message_handler: Arc::clone(&onion),
        custom_message_handler: IgnoringMessageHandler {},
        send_only_message_handler: Arc::clone(&monitors),
    };
    let ephemeral: [u8; 32] = rand::random();
    let peers = Arc::new(Peers::new(handlers, u32::try_from(now.as_secs())?, &ephemeral, logs, Arc::clone(&keys)));
    let listener = TcpListener::bind(args.listen).await?;
    let hostile = Arc::new(Hostile {
        args: args.clone(),
        source: Arc::clone(&source),
        id,
        listen: listener.local_addr()?,
        keys,
        manager,
        monitors,
        onion,
        peers,
        muffled,
        lure,
        claimed: Mutex::default(),
        ended: Mutex::default(),
        remembered: Mutex::default(),
        crowd: Mutex::default(),
        closed: AtomicU32::new(0),
    });
    tokio::spawn(listen(Arc::clone(&hostile), listener));
    tokio::spawn(turn(Arc::clone(&hostile)));
    let followers = (Arc::clone(&hostile.monitors), Arc::clone(&hostile.manager));
    if follows {
        tokio::spawn(follow(source, tip, followers));
    }
    Ok(hostile)
}

fn config(args: &Args) -> UserConfig {
    let mut config = UserConfig::default();
    config.channel_handshake_config.minimum_depth = 1;
    config.channel_handshake_config.our_htlc_minimum_msat = args.htlc_minimum_msat;
    config.channel_handshake_config.announced_channel_max_inbound_htlc_value_in_flight_percentage = 100;
    config.channel_handshake_config.unannounced_channel_max_inbound_htlc_value_in_flight_percentage = 100;
    config.channel_handshake_limits.force_announced_channel_preference = false;
    config
}

fn onion(
    keys: &Arc<KeysManager>,
    logs: &Logs,
    manager: &Arc<Manager>,
    messages: Arc<MessageRouter>,
    lure: &Arc<Lure>,
) -> Arc<Onion> {
    Arc::new(Onion::new(
        Arc::clone(keys),
        Arc::clone(keys),
        Arc::clone(logs),
        Arc::clone(manager),
        messages,
        Arc::clone(lure),
        Arc::clone(lure),
        IgnoringMessageHandler {},
        IgnoringMessageHandler {},
    ))
}

/// It keeps nothing.
fn monitors(chain: &Arc<Chain>, logs: &Logs, keys: &Arc<KeysManager>) -> Arc<Monitors> {
    let (chain, logs) = (|| Arc::clone(chain), Arc::clone(logs));
    let storage = keys.get_peer_storage_key();
    Arc::new(Monitors::new(None, chain(), logs, chain(), Arc::new(Forgetful), Arc::clone(keys), storage, false))
}

async fn follow(source: Arc<RpcClient>, tip: ValidatedBlockHeader, followers: (Arc<Monitors>, Arc<Manager>)) {
    let poller = ChainPoller::new(source, Network::Regtest);
    let mut client = SpvClient::new(tip, poller, HeaderCache::new(), &followers);
    loop {
        if let Err(error) = client.poll_best_tip().await {
            eprintln!("bitcoind: {error:?}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Of a network that it hardly knows.
fn router(graph: &Arc<Graph>, logs: &Logs, keys: &Arc<KeysManager>) -> Arc<Router> {
    let decay = ProbabilisticScoringDecayParameters::default();
    let scorer = Arc::new(RwLock::new(Scorer::new(decay, Arc::clone(graph), Arc::clone(logs))));
    let fees = ProbabilisticScoringFeeParameters::default();
    Arc::new(DefaultRouter::new(Arc::clone(graph), Arc::clone(logs), Arc::clone(keys), scorer, fees))
}

async fn listen(hostile: Arc<Hostile>, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        match stream.into_std() {
            Ok(stream) => {
                let peers = Arc::clone(&hostile.peers);
                tokio::spawn(async move { lightning_net_tokio::setup_inbound(peers, stream).await });
            }
            Err(error) => eprintln!("a connection: {error}"),
        }
    }
}

async fn turn(hostile: Arc<Hostile>) {
    loop {
        let handle = |event: Event| -> Result<(), ReplayEvent> {
            hostile.handle(event);
            Ok(())
        };
        hostile.manager.process_pending_events(&handle);
        hostile.monitors.process_pending_events(&handle);
        hostile.onion.process_pending_events(&handle);
        hostile.manager.process_pending_htlc_forwards();
        hostile.peers.process_events();
        tokio::time::sleep(ROUND).await;
    }
}

impl Hostile {
    fn handle(&self, event: Event) {
        match event {
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => {
                let taken = self.manager.accept_inbound_channel(&temporary_channel_id, &counterparty_node_id, 0, None);
                if let Err(error) = taken {
                    eprintln!("a channel: {error:?}");
                }
            }
            Event::PaymentClaimable { purpose, .. } => {
                if let Some(preimage) = purpose.preimage() {
                    self.manager.claim_funds(preimage);
                }
            }
            Event::PaymentClaimed { payment_hash, amount_msat, .. } => {
                let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
                *claimed.entry(payment_hash.to_string()).or_default() += amount_msat;
            }
            Event::PaymentSent { payment_hash, .. } => self.note(payment_hash.to_string(), "sent"),
            Event::PaymentFailed { payment_hash: Some(hash), .. } => self.note(hash.to_string(), "failed"),
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                ..
            } => {
                let funding = crowd::funding(channel_value_satoshis, output_script);
                let given =
                    self.manager.funding_transaction_generated(temporary_channel_id, counterparty_node_id, funding);
                if let Err(error) = given {
                    eprintln!("a funding: {error:?}");
                }
            }
            Event::ChannelClosed { reason, .. } => {
                eprintln!("closed: {reason}");
                self.closed.fetch_add(1, Ordering::Relaxed);
            }
            other => eprintln!("{other:?}"),
        }
    }

    fn note(&self, hash: String, ended: &'static str) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(hash, ended);
    }
}
