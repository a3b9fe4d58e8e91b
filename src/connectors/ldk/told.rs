//! What the node's movements add up to, as its own state says it now. The books say the same once all of it is entered, whatever is
//! opening, closing or waiting for a block: what has not been told is left out here, channel by channel and transaction by transaction.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use bitcoin::OutPoint;
use lightning::ln::channel_state::{ChannelDetails, ChannelShutdownState};
use lightning::util::sweep::OutputSpendStatus;

use super::books::{ChannelNote, Inner, given, value};
use super::channels::ours;
use super::map;
use super::node::Node;
use super::types::lock;
use crate::money::Sat;
use crate::ports::lightning::Told;

const MSAT: u64 = 1_000;

impl Node {
    pub fn told(&self) -> Told {
        let channels = self.manager.list_channels();
        let unswept = self.unswept();
        let inner = lock(&self.books.inner);
        let in_channels: i64 = channels.iter().map(|one| inner.told_in(one)).sum();
        let is_listed = |name: &str| channels.iter().any(|one| map::channel_text(one.channel_id) == name);
        let is_gone = |(name, noted): (&String, &ChannelNote)| {
            noted.closed_msat.is_none() && (noted.is_outbound || noted.is_given) && !is_listed(name)
        };
        let came = |channel: &str| {
            let of_it = inner.outputs.iter().filter(|(_, noted)| noted.channel == channel);
            of_it.filter(|(outpoint, _)| !unswept.contains_key(*outpoint)).map(|(_, noted)| noted.sat).sum::<u64>()
        };
        let unresolved = inner.unresolved.iter().filter_map(|name| {
            let closed = inner.channels.get(name)?.closed_msat?;
            Some(signed(closed).saturating_sub(signed(came(name).saturating_mul(MSAT))))
        });
        let is_resolved = |outpoint: &OutPoint| {
            inner.outputs.get(outpoint).is_none_or(|noted| !inner.unresolved.contains(&noted.channel))
        };
        let closing: u64 = unswept.iter().filter(|(outpoint, _)| is_resolved(outpoint)).map(|(_, sat)| sat).sum();
        Told {
            channels: in_channels
                .saturating_sub(inner.closed_before_told())
                .saturating_sub(signed(inner.earned.untold())),
            unresolved: unresolved.sum(),
            closing: signed(closing.saturating_mul(MSAT)),
            onchain: self.wallet.worth(|txid| inner.stands(txid)).saturating_mul(1_000),
            is_behind: self.books.is_stale.load(Ordering::SeqCst) || inner.channels.iter().any(is_gone),
        }
    }

    /// What came out of closed channels and is not among the node's own coins yet, by its output. In satoshis.
    fn unswept(&self) -> HashMap<OutPoint, u64> {
        let outputs = self.sweeper.tracked_spendable_outputs().into_iter();
        let unswept =
            outputs.filter(|one| !matches!(one.status, OutputSpendStatus::PendingThresholdConfirmations { .. }));
        let named = unswept.map(|one| {
            let outpoint = one.descriptor.spendable_outpoint().into_bitcoin_outpoint();
            (outpoint, value(&one.descriptor))
        });
        named.collect()
    }

    /// What is still to come out of closed channels: what their monitors can claim, and what is not swept. A channel that never came into
    /// use has nothing of ours in it, whatever its opener announced.
    pub fn closing(&self) -> Sat {
        let unswept: u64 = self.unswept().into_values().fold(0, u64::saturating_add);
        let names: Vec<String> = lock(&self.books.inner).unresolved.iter().cloned().collect();
        let monitors = names.iter().filter_map(|name| self.monitors.get_monitor(map::read_channel(name)?).ok());
        let claimable = monitors.flat_map(|monitor| monitor.get_claimable_balances());
        let claimable = claimable.map(|balance| balance.claimable_amount_satoshis());
        Sat::new(claimable.fold(unswept, u64::saturating_add)).unwrap_or(Sat::MAX)
    }

    /// Whether what is in a channel is ours to count: our coins are on their way into it, or it is in use, and so in a block unless
    /// the operator trusts its opener. What a peer announces is nothing before that.
    pub fn is_funded(&self, channel: &ChannelDetails) -> bool {
        if channel.is_outbound {
            return channel.funding_txo.is_some_and(|funding| self.wallet.knows(funding.txid));
        }
        let inner = lock(&self.books.inner);
        inner.channels.get(&map::channel_text(channel.channel_id)).is_some_and(|noted| noted.is_given)
    }
}

impl Inner {
    /// What of an open channel is in the books: what is ours in it now, less what it began with while that is not told.
    fn told_in(&self, channel: &ChannelDetails) -> i64 {
        let flying = channel.pending_outbound_htlcs.iter().map(|htlc| htlc.amount_msat).sum::<u64>();
        let has = signed(ours(channel).saturating_add(flying));
        let noted = self.channels.get(&map::channel_text(channel.channel_id));
        if noted.is_some_and(|noted| self.is_opening_told(noted)) {
            return has;
        }
        let shutdown = channel.channel_shutdown_state.as_ref();
        let was_used =
            channel.is_channel_ready || shutdown.is_some_and(|state| *state != ChannelShutdownState::NotShuttingDown);
        // A channel that is not ready is worth nothing and has no entry.
        if was_used { has.saturating_sub(signed(opening(channel))) } else { 0 }
    }

    fn is_opening_told(&self, noted: &ChannelNote) -> bool {
        if noted.is_outbound { noted.funding.is_some_and(|funding| self.stands(funding.txid)) } else { noted.is_given }
    }

    /// Channels of ours that were closed before their funding was in a block: that they are closed is told, and their opening is not.
    fn closed_before_told(&self) -> i64 {
        let early = self
            .channels
            .values()
            .filter(|noted| noted.closed_msat.is_some() && noted.is_outbound && !self.is_opening_told(noted));
        early.map(|noted| signed(noted.opening_msat)).sum()
    }
}

/// What was ours in a channel when it began.
pub(super) fn opening(channel: &ChannelDetails) -> u64 {
    let given = given(channel.user_channel_id);
    if !channel.is_outbound {
        return given;
    }
    channel.channel_value_satoshis.saturating_mul(MSAT).saturating_sub(given)
}

/// No sum of bitcoins has more than fits.
fn signed(msat: u64) -> i64 {
    i64::try_from(msat).unwrap_or(i64::MAX)
}
