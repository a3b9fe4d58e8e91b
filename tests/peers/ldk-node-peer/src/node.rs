//! The node itself, what is remembered of its events, and its forwarding fees.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ldk_node::bitcoin::Network;
use ldk_node::config::{AnchorChannelsConfig, Config};
use ldk_node::lightning_types::payment::PaymentHash;
use ldk_node::{Builder, ChannelDetails, Event, Node, NodeError};
use serde_json::{Value, json};

use crate::args::Args;

pub struct Peer {
    pub node: Node,
    pub listen: SocketAddr,
    seen: Mutex<Seen>,
}

/// What events told. It is gone after a restart.
#[derive(Default)]
struct Seen {
    events: VecDeque<Value>,
    /// What can be claimed, and the height from which on it can't.
    claimable: HashMap<PaymentHash, (u64, Option<u32>)>,
    failures: HashMap<String, String>,
    fees: Option<(u32, u32)>,
}

impl Peer {
    pub fn start(args: &Args) -> Result<Self, Box<dyn Error>> {
        let listen = with_a_port(args.listen)?;
        let mut config = Config::default();
        // Nothing has to be put on-chain before a channel is accepted: closing is not what these tests bump fees for.
        config.anchor_channels_config =
            Some(AnchorChannelsConfig { per_channel_reserve_sats: 0, ..AnchorChannelsConfig::default() });
        let mut builder = Builder::from_config(config);
        builder
            .set_network(Network::Regtest)
            .set_storage_dir_path(args.dir.to_str().ok_or("a folder's name is text here")?.to_owned())
            .set_listening_addresses(vec![listen.into()])?
            .set_node_alias(args.alias.clone())?
            .set_gossip_source_p2p()
            .set_chain_source_bitcoind_rpc(
                args.rpc.ip().to_string(),
                args.rpc.port(),
                args.rpc_user.clone(),
                args.rpc_password.clone(),
            );
        let node = builder.build()?;
        node.start()?;
        Ok(Self { node, listen, seen: Mutex::new(Seen { fees: args.fees, ..Seen::default() }) })
    }

    pub fn stop(&self) -> Result<(), NodeError> {
        self.node.stop()
    }

    /// Writes down every event, for ever.
    pub fn follow_events(&self) {
        loop {
            let event = self.node.wait_next_event();
            self.note(&event);
            if self.node.event_handled().is_err() {
                return;
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, event: &Event) {
        let mut seen = self.seen();
        let text = match event {
            Event::PaymentClaimable { payment_hash, claimable_amount_msat, claim_deadline, .. } => {
                seen.claimable.insert(*payment_hash, (*claimable_amount_msat, *claim_deadline));
                json!({ "kind": "claimable", "hash": payment_hash.to_string(), "msat": claimable_amount_msat })
            }
            Event::PaymentReceived { payment_hash, amount_msat, .. } => {
                seen.claimable.remove(payment_hash);
                json!({ "kind": "received", "hash": payment_hash.to_string(), "msat": amount_msat })
            }
            Event::PaymentFailed { payment_id, reason, .. } => {
                let id = payment_id.map(|id| id.to_string()).unwrap_or_default();
                let reason = reason.map(|reason| format!("{reason:?}")).unwrap_or_default();
                seen.failures.insert(id.clone(), reason.clone());
                json!({ "kind": "failed", "id": id, "reason": reason })
            }
            Event::PaymentSuccessful { payment_id, payment_hash, .. } => {
                let id = payment_id.map(|id| id.to_string());
                json!({ "kind": "paid", "id": id, "hash": payment_hash.to_string() })
            }
            Event::PaymentForwarded { total_fee_earned_msat, .. } => {
                json!({ "kind": "forwarded", "fee_msat": total_fee_earned_msat })
            }
            Event::ChannelReady { channel_id, .. } => json!({ "kind": "channel_ready", "id": channel_id.to_string() }),
            Event::ChannelPending { channel_id, .. } => {
                json!({ "kind": "channel_pending", "id": channel_id.to_string() })
            }
            Event::ChannelClosed { channel_id, reason, .. } => {
                json!({ "kind": "channel_closed", "id": channel_id.to_string(), "reason": format!("{reason:?}") })
            }
            Event::SplicePending { .. } | Event::SpliceFailed { .. } => json!({ "kind": "splice" }),
        };
        seen.events.push_back(text);
        let fees = seen.fees;
        drop(seen);
        if let (Event::ChannelReady { .. }, Some((base, ppm))) = (event, fees)
            && let Err(error) = self.apply_fees(base, ppm)
        {
            eprintln!("the fees could not be set: {error}");
        }
    }

    pub fn take_events(&self) -> Vec<Value> {
        self.seen().events.drain(..).collect()
    }

    pub fn claimable(&self, hash: PaymentHash) -> Option<(u64, Option<u32>)> {
        self.seen().claimable.get(&hash).copied()
    }

    pub fn all_claimable(&self) -> Vec<(PaymentHash, u64, Option<u32>)> {
        self.seen().claimable.iter().map(|(hash, (msat, deadline))| (*hash, *msat, *deadline)).collect()
    }

    pub fn forget_claimable(&self, hash: PaymentHash) {
        self.seen().claimable.remove(&hash);
    }

    pub fn failure(&self, id: &str) -> Option<String> {
        self.seen().failures.get(id).cloned()
    }

    /// Asks these fees for forwarding over every channel, and over every one to come.
    pub fn set_fees(&self, base: u32, ppm: u32) -> Result<(), NodeError> {
        self.seen().fees = Some((base, ppm));
        self.apply_fees(base, ppm)
    }

    fn apply_fees(&self, base: u32, ppm: u32) -> Result<(), NodeError> {
        for ChannelDetails { user_channel_id, counterparty_node_id, mut config, .. } in self.node.list_channels() {
            config.forwarding_fee_base_msat = base;
            config.forwarding_fee_proportional_millionths = ppm;
            self.node.update_channel_config(&user_channel_id, counterparty_node_id, config)?;
        }
        Ok(())
    }
}

/// ldk-node does not say which port it got, so one is chosen for it.
fn with_a_port(wanted: SocketAddr) -> std::io::Result<SocketAddr> {
    if wanted.port() == 0 { TcpListener::bind(wanted)?.local_addr() } else { Ok(wanted) }
}
