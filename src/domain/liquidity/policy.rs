//! What an operator may write about channels that are opened by themselves.

use std::fmt;
use std::str::FromStr;

use bitcoin::secp256k1::PublicKey;
use serde::{Deserialize, Serialize};

use crate::money::Sat;

/// Below this most nodes take no channel.
const LEAST_CHANNEL: Sat = Sat::literal(20_000);
/// Above this a rate is a slip of the pen.
const HIGHEST_RATE: u32 = 1_000;
/// A look costs a few questions to the node; less often than daily the day's budget means nothing.
const EVERY: std::ops::RangeInclusive<u64> = 1..=86_400;

/// The section `liquidity` of the configuration. Off while no peer is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LiquidityPolicy {
    /// With whom channels are opened, as `<node id>@host:port`.
    pub peers: Vec<PeerAddress>,
    /// Channels that we have opened with one peer, however they came about, at most.
    pub max_channels_per_peer: u32,
    /// Whether the network is told of the channels.
    pub announced: bool,
    /// Channels are opened until they hold this much to send.
    pub want_outbound_sats: Sat,
    /// Below this much to receive an event says so. Nothing is opened for it: only others can.
    pub want_inbound_sats: Sat,
    /// How much goes into a channel.
    pub channel_sats: Sat,
    /// The least that goes into one, where the coins reach for no more.
    pub min_channel_sats: Sat,
    /// What stays on-chain for withdrawals, beyond the reserve.
    pub keep_onchain_sats: Sat,
    /// Above this many sat/vB nothing is opened.
    pub max_fee_rate: u32,
    /// What the transactions of one day (UTC) may cost together.
    pub daily_fee_sats: Sat,
    pub every_seconds: u64,
}

impl Default for LiquidityPolicy {
    fn default() -> Self {
        Self {
            peers: Vec::new(),
            max_channels_per_peer: 2,
            announced: false,
            want_outbound_sats: Sat::ZERO,
            want_inbound_sats: Sat::ZERO,
            channel_sats: Sat::literal(1_000_000),
            min_channel_sats: Sat::literal(200_000),
            keep_onchain_sats: Sat::ZERO,
            max_fee_rate: 20,
            daily_fee_sats: Sat::literal(20_000),
            every_seconds: 60,
        }
    }
}

/// A value that makes no sense, or none beside another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct BadPolicy {
    /// Its name within the section.
    pub key: &'static str,
    pub reason: String,
}

impl LiquidityPolicy {
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.peers.is_empty()
    }

    /// # Errors
    /// Which value can't be meant, and why.
    pub fn check(&self) -> Result<(), BadPolicy> {
        let refuse = |key, reason: String| Err(BadPolicy { key, reason });
        let named_before = |(at, peer): &(usize, &PeerAddress)| self.peers.iter().take(*at).any(|p| p.id == peer.id);
        if let Some((_, twice)) = self.peers.iter().enumerate().find(named_before) {
            return refuse("peers", format!("{} is named twice", twice.id));
        }
        if self.max_channels_per_peer == 0 {
            return refuse("max_channels_per_peer", "must be at least 1".to_owned());
        }
        if self.min_channel_sats < LEAST_CHANNEL {
            return refuse("min_channel_sats", format!("must be at least {LEAST_CHANNEL}"));
        }
        if self.channel_sats < self.min_channel_sats {
            return refuse("channel_sats", format!("must be at least min_channel_sats, {}", self.min_channel_sats));
        }
        if !(1..=HIGHEST_RATE).contains(&self.max_fee_rate) {
            return refuse("max_fee_rate", format!("must be from 1 to {HIGHEST_RATE} sat/vB"));
        }
        if !EVERY.contains(&self.every_seconds) {
            return refuse("every_seconds", format!("must be from {} to {}", EVERY.start(), EVERY.end()));
        }
        let wants_outbound = self.want_outbound_sats != Sat::ZERO;
        let wants = wants_outbound || self.want_inbound_sats != Sat::ZERO;
        if self.is_on() && !wants {
            return refuse("want_outbound_sats", "peers are named, and nothing is wanted; name no peers".to_owned());
        }
        if wants && !self.is_on() {
            return refuse("peers", "is empty, which turns all of it off, but something is wanted".to_owned());
        }
        Ok(())
    }
}

/// A node, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerAddress {
    pub id: PublicKey,
    /// Host and port.
    pub address: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not <node id>@host:port, with a node id of 66 hexadecimal digits")]
pub struct BadPeer(String);

impl FromStr for PeerAddress {
    type Err = BadPeer;

    fn from_str(text: &str) -> Result<Self, BadPeer> {
        let read = || {
            let (id, address) = text.split_once('@')?;
            let (host, port) = address.rsplit_once(':')?;
            let port_is_one = port.parse::<u16>().is_ok_and(|port| port != 0);
            let is_plain = !host.is_empty() && !host.contains(['@', '/', ' ']);
            let id = id.parse().ok()?;
            (port_is_one && is_plain).then(|| Self { id, address: address.to_owned() })
        };
        read().ok_or_else(|| BadPeer(text.to_owned()))
    }
}

impl TryFrom<String> for PeerAddress {
    type Error = BadPeer;

    fn try_from(text: String) -> Result<Self, BadPeer> {
        text.parse()
    }
}

impl From<PeerAddress> for String {
    fn from(peer: PeerAddress) -> Self {
        peer.to_string()
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.address)
    }
}
