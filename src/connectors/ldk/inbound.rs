//! Channels that others want to open with us: which of them are taken. Offering one costs nothing, so those that are not in a block
//! are few, and none is taken that the coins for bumping don't reach for. One whose funding is not even in the mempool gives up its place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::TrustedChannelFeatures;
use lightning::ln::types::ChannelId;
use tokio::time::Instant;

use super::books::user_id;
use super::config::ChannelConfig;
use super::node::Node;
use super::types::lock;
use crate::money::Sat;
use crate::ports::PortError;

/// What is to be known about an offer and about what is there already.
#[derive(Clone, Copy, Debug)]
struct Offer {
    sat: u64,
    is_trusted: bool,
    /// Channels that others have begun and that are in no block: of this peer, and of all.
    waiting_of_peer: usize,
    waiting: usize,
    /// Coins that are there for bumping, and what is needed with this one and with all that wait.
    has: Sat,
    needs: Sat,
}

impl Node {
    /// Somebody wants to open a channel with us.
    pub fn consider(&self, channel: ChannelId, peer: PublicKey, sat: u64, given: u64) {
        let config = &self.config.channels;
        let channels = self.manager.list_channels();
        let waiting = || channels.iter().filter(|one| one.channel_id != channel && is_announced_only(one));
        let is_trusted = config.trusted_peers.contains(&peer.to_string());
        let offer = Offer {
            sat,
            is_trusted,
            waiting_of_peer: waiting().filter(|one| one.counterparty.node_id == peer).count(),
            waiting: waiting().count(),
            has: self.wallet.coins().confirmed,
            needs: self.reserve_with(waiting().count().saturating_add(1)),
        };
        let why_not =
            if self.is_running() { why_not(config, self.network, &offer) } else { Some("the node is stopping") };
        let answer = match why_not {
            Some(why) => {
                tracing::info!(%peer, sat, why, "an offered channel is not taken");
                let why = "this node takes no such channel".to_owned();
                self.manager.force_close_broadcasting_latest_txn(&channel, &peer, why)
            }
            None if is_trusted => {
                let trust = TrustedChannelFeatures::ZeroConf;
                self.manager.accept_inbound_channel_from_trusted_peer(&channel, &peer, user_id(given), trust, None)
            }
            None => self.manager.accept_inbound_channel(&channel, &peer, user_id(given), None),
        };
        if let Err(error) = answer {
            tracing::warn!(?error, %peer, "an offered channel could not be answered");
        }
    }
}

/// Channels of strangers whose funding nobody has seen, and since when.
pub type Unfunded = HashMap<ChannelId, Instant>;

impl Node {
    /// LDK waits two weeks for the funding of a channel, and so long a few strangers could hold all places for nothing.
    pub async fn give_up_unfunded(self: Arc<Self>) {
        let trusted = &self.config.channels.trusted_peers;
        let mut offered = self.manager.list_channels();
        offered.retain(|one| is_announced_only(one) && !trusted.contains(&one.counterparty.node_id.to_string()));
        let unseen = match self.unseen(&offered).await {
            Ok(unseen) => unseen,
            Err(error) => {
                tracing::debug!(%error, "nobody says which fundings wait");
                // What was mined meanwhile must not count as missing.
                lock(&self.unfunded).clear();
                return;
            }
        };
        let limit = Duration::from_secs(self.config.channels.unfunded_seconds);
        let late = overdue(&mut lock(&self.unfunded), &unseen, Instant::now(), limit);
        for channel in offered.iter().filter(|one| late.contains(&one.channel_id)) {
            let (id, peer) = (channel.channel_id, channel.counterparty.node_id);
            tracing::info!(channel = %id, %peer, "a channel of others is given up: nobody has seen its funding");
            let why = "its funding was not seen in time".to_owned();
            if let Err(error) = self.manager.force_close_broadcasting_latest_txn(&id, &peer, why) {
                tracing::debug!(?error, "it is gone already");
            }
        }
    }

    /// Those whose funding is not in the mempool.
    async fn unseen(&self, offered: &[ChannelDetails]) -> Result<Vec<ChannelId>, PortError> {
        let fundings = offered.iter().filter_map(|one| one.funding_txo.map(|funding| funding.txid));
        let fundings: Vec<_> = fundings.collect();
        let found = if fundings.is_empty() { Vec::new() } else { self.chain.mempool_transactions(&fundings).await? };
        let seen = |one: &&ChannelDetails| {
            let mut both = fundings.iter().zip(&found);
            let funding = one.funding_txo.map(|funding| funding.txid);
            both.any(|(txid, found)| funding == Some(*txid) && found.is_some())
        };
        Ok(offered.iter().filter(|one| !seen(one)).map(|one| one.channel_id).collect())
    }
}

/// Those that were unseen at every look for so long.
fn overdue(since: &mut Unfunded, unseen: &[ChannelId], now: Instant, limit: Duration) -> Vec<ChannelId> {
    since.retain(|channel, _| unseen.contains(channel));
    for channel in unseen {
        since.entry(*channel).or_insert(now);
    }
    since.iter().filter(|(_, first)| now.duration_since(**first) >= limit).map(|(channel, _)| *channel).collect()
}

fn why_not(config: &ChannelConfig, network: Network, offer: &Offer) -> Option<&'static str> {
    if !config.accept {
        return Some("no channel of others is taken");
    }
    if offer.sat < config.accept_min_sat {
        return Some("it is too small");
    }
    if !offer.is_trusted && offer.waiting_of_peer >= usize::from(config.max_unfunded_per_peer) {
        return Some("its peer has others that are in no block");
    }
    if !offer.is_trusted && offer.waiting >= usize::from(config.max_unfunded) {
        return Some("too many others are in no block");
    }
    let without_reserve = config.accept_without_reserve.unwrap_or(network == Network::Regtest);
    (!without_reserve && offer.has < offer.needs).then_some("the node's coins do not reach for bumping one more")
}

/// Another node has begun it, and no block has its funding yet: so far it is a word.
pub(super) fn is_announced_only(channel: &ChannelDetails) -> bool {
    !channel.is_outbound && !channel.is_channel_ready && channel.confirmations.unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: Offer = Offer {
        sat: 100_000,
        is_trusted: false,
        waiting_of_peer: 0,
        waiting: 0,
        has: Sat::literal(50_000),
        needs: Sat::literal(50_000),
    };

    fn is_taken(offer: Offer) -> bool {
        why_not(&ChannelConfig::default(), Network::Bitcoin, &offer).is_none()
    }

    #[test]
    fn a_stranger_has_few_channels_that_are_in_no_block_and_all_strangers_together_have_some() {
        assert!(is_taken(OFFER));
        assert!(is_taken(Offer { waiting_of_peer: 1, ..OFFER }));
        assert!(!is_taken(Offer { waiting_of_peer: 2, ..OFFER }));
        assert!(!is_taken(Offer { waiting: 20, ..OFFER }));
        assert!(is_taken(Offer { waiting_of_peer: 2, waiting: 20, is_trusted: true, ..OFFER }));
    }

    #[test]
    fn a_funding_that_is_seen_in_between_is_waited_for_anew() {
        let (mut since, limit) = (Unfunded::new(), Duration::from_secs(600));
        let [lost, slow] = [1, 2].map(|number| ChannelId([number; 32]));
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(overdue(&mut since, &[lost, slow], at(0), limit), []);
        assert_eq!(overdue(&mut since, &[lost], at(300), limit), []);
        assert_eq!(overdue(&mut since, &[lost, slow], at(599), limit), []);
        assert_eq!(overdue(&mut since, &[lost, slow], at(600), limit), [lost]);
        assert_eq!(overdue(&mut since, &[slow], at(601), limit), []);
        assert_eq!(overdue(&mut since, &[slow], at(1_199), limit), [slow]);
        assert_eq!(overdue(&mut since, &[], at(1_300), limit), []);
        assert!(since.is_empty(), "what is gone is forgotten");
    }

    #[test]
    fn no_channel_is_taken_that_could_not_be_bumped() {
        assert!(!is_taken(Offer { has: Sat::literal(49_999), ..OFFER }));
        assert!(!is_taken(Offer { has: Sat::literal(49_999), is_trusted: true, ..OFFER }));
        let poor = Offer { has: Sat::ZERO, ..OFFER };
        assert!(
            why_not(&ChannelConfig::default(), Network::Regtest, &poor).is_none(),
            "coins of regtest are worth nothing"
        );
        let allowed = ChannelConfig { accept_without_reserve: Some(true), ..ChannelConfig::default() };
        assert!(why_not(&allowed, Network::Bitcoin, &poor).is_none());
    }
}
