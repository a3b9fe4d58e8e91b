//! What an operator can say about the built-in node.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub enabled: bool,
    /// Where peers connect to; without it the node only connects to others.
    pub listen: Option<SocketAddr>,
    /// Shown in the public graph, together with the addresses, when there are public channels.
    pub alias: String,
    /// `host:port`, as peers reach this node from outside.
    pub announce_addresses: Vec<String>,
    /// 64 hexadecimal digits in a file that only we can read. It is made on the first start.
    pub seed_file: PathBuf,
    /// The seed itself, from a secrets manager. It wins over the file.
    pub seed: Option<Secret>,
    /// The folder of the file with the generation, where the seed has no file of its own.
    pub data_dir: Option<PathBuf>,
    /// A rapid gossip sync server, which is asked how the network looks in the place of the peers. Empty: the peers are.
    pub rapid_gossip_sync: Option<String>,
    /// How often it is asked what is new.
    pub rapid_gossip_sync_seconds: u64,
    /// How often LDK's clock ticks. Payments that ended stay in memory for eight ticks; a peer has two to answer.
    pub tick_seconds: u64,
    /// How often bitcoind is asked for new blocks.
    pub poll_ms: u64,
    /// How long a payment waits for a peer that is away, or for money that is in flight.
    pub wait_for_peers_seconds: u64,
    /// How long a payment waits for one of the channel's slots.
    pub wait_for_slots_seconds: u64,
    /// How long a payee has to answer with an invoice for its offer.
    pub offer_deadline_seconds: u64,
    pub channels: ChannelConfig,
    pub routing: RoutingConfig,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChannelConfig {
    /// Whether others may open channels to us.
    pub accept: bool,
    pub accept_min_sat: u64,
    /// Peers whose channels are used before they are confirmed: their word is trusted with the whole amount.
    pub trusted_peers: Vec<String>,
    /// Blocks until a channel is used. Empty: 1 on regtest, 3 elsewhere.
    pub minimum_depth: Option<u32>,
    /// Payments in flight towards us, in one channel. At most 483.
    pub max_accepted_htlcs: u16,
    /// What may be lost to fees because it is too small to be claimed on-chain, per channel.
    pub max_dust_msat: u64,
    /// What is set aside on-chain for each channel, so that its closing can be bumped: for this fee rate and so many payments.
    pub reserve_fee_rate: u32,
    pub reserve_payments: u16,
    /// Channels that others have begun and that are in no block: how many at the same time, of one peer and of all. Those of trusted
    /// peers are not counted.
    pub max_unfunded_per_peer: u16,
    pub max_unfunded: u16,
    /// So long after it was last seen in the mempool, or never was, the funding of such a channel is not waited for any more.
    pub unfunded_seconds: u64,
    /// Whether channels of others are taken while the node's coins do not reach for bumping them. Empty: on regtest only.
    pub accept_without_reserve: Option<bool>,
}

/// What we ask for when others' payments pass through us.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoutingConfig {
    /// Whether payments of others pass through this node at all.
    pub forward: bool,
    pub base_msat: u32,
    pub proportional_millionths: u32,
    pub cltv_delta: u16,
    /// Also to peers whose channel with us is not public.
    pub to_private_channels: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: None,
            alias: "sluice".to_owned(),
            announce_addresses: Vec::new(),
            seed_file: PathBuf::from("data/node.seed"),
            seed: None,
            data_dir: None,
            rapid_gossip_sync: None,
            rapid_gossip_sync_seconds: 3_600,
            tick_seconds: 10,
            poll_ms: 1_000,
            wait_for_peers_seconds: 60,
            wait_for_slots_seconds: 600,
            offer_deadline_seconds: 15,
            channels: ChannelConfig::default(),
            routing: RoutingConfig::default(),
        }
    }
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self {
            accept: true,
            accept_min_sat: 20_000,
            trusted_peers: Vec::new(),
            minimum_depth: None,
            max_accepted_htlcs: 483,
            max_dust_msat: 50_000_000,
            reserve_fee_rate: 25,
            reserve_payments: 2,
            max_unfunded_per_peer: 2,
            max_unfunded: 20,
            unfunded_seconds: 600,
            accept_without_reserve: None,
        }
    }
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self {
            forward: false,
            base_msat: 1_000,
            proportional_millionths: 100,
            cltv_delta: 72,
            to_private_channels: true,
        }
    }
}

impl Config {
    pub(super) fn wait_for_peers(&self) -> Duration {
        Duration::from_secs(self.wait_for_peers_seconds)
    }

    pub(super) fn wait_for_slots(&self) -> Duration {
        Duration::from_secs(self.wait_for_slots_seconds)
    }

    pub(super) fn offer_deadline(&self) -> Duration {
        Duration::from_secs(self.offer_deadline_seconds)
    }
}

/// Where bitcoind is: the same words as the chain room's, which this one does not see.
#[derive(Clone, Debug)]
pub struct Rpc {
    pub url: String,
    pub cookie_file: Option<PathBuf>,
    pub user: Option<String>,
    pub password: Option<Secret>,
}
