//! Channels that close: which payments were under way through them, what became of each, and what of the channel was lost or won.
//!
//! Every payment that was in a channel when it closed is booked by its own end, to the millisatoshi: never by what came out of the
//! channel. What came out tells only what closing has cost; what came out beyond that has no owner, and goes to suspense.

use std::collections::HashMap;

use lightning::chain::channelmonitor::Balance;
use lightning::events::bump_transaction::BumpTransactionEvent;
use lightning::events::{InboundHTLCLocator, OutboundHTLCLocator};
use lightning::ln::channel_state::{ChannelDetails, InboundHTLCStateDetails, OutboundHTLCStateDetails};
use lightning::ln::types::ChannelId;

use super::books::{Books, CHANNELS, ChannelNote, Inner, note, sats};
use super::events::amount;
use super::map;
use super::node::Node;
use super::types::lock;
use crate::domain::lightning::PaymentHash;
use crate::domain::movement::Movement;
use crate::store::StoreError;
use crate::store::node::{self, Step};

const MSAT: u64 = 1_000;

/// A payment in a channel that is on neither side for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Htlc {
    hash: PaymentHash,
    msat: u64,
    /// The channel's number for it; of those that come in.
    id: Option<u64>,
    /// Its preimage has been told: it will not come back, whatever block says so.
    is_claimed: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    leaving: Vec<Htlc>,
    coming: Vec<Htlc>,
}

impl Pending {
    fn of(channel: &ChannelDetails) -> Self {
        // What has no number yet was never told to the peer: it is still ours, and may take another way at once.
        let told = channel.pending_outbound_htlcs.iter().filter(|htlc| htlc.htlc_id.is_some());
        let leaving = told.map(|htlc| Htlc {
            hash: PaymentHash(htlc.payment_hash.0),
            msat: htlc.amount_msat,
            id: htlc.htlc_id,
            is_claimed: htlc.state == Some(OutboundHTLCStateDetails::AwaitingRemoteRevokeToRemoveSuccess),
        });
        let coming = channel.pending_inbound_htlcs.iter().map(|htlc| Htlc {
            hash: PaymentHash(htlc.payment_hash.0),
            msat: htlc.amount_msat,
            id: Some(htlc.htlc_id),
            is_claimed: htlc.state == Some(InboundHTLCStateDetails::AwaitingRemoteRevokeToRemoveFulfill),
        });
        Self { leaving: leaving.collect(), coming: coming.collect() }
    }

    /// What the monitor can get back, where the channel was never seen with a payment in it. To whole satoshis, and without dust.
    fn of_monitor(balances: &[Balance]) -> Self {
        let mut pending = Self::default();
        let htlc = |hash: lightning::types::payment::PaymentHash, sat: u64, is_claimed| Htlc {
            hash: PaymentHash(hash.0),
            msat: sat.saturating_mul(MSAT),
            id: None,
            is_claimed,
        };
        for balance in balances {
            match balance {
                Balance::MaybeTimeoutClaimableHTLC { amount_satoshis, payment_hash, .. } => {
                    pending.leaving.push(htlc(*payment_hash, *amount_satoshis, false));
                }
                Balance::MaybePreimageClaimableHTLC { amount_satoshis, payment_hash, .. } => {
                    pending.coming.push(htlc(*payment_hash, *amount_satoshis, false));
                }
                Balance::ContentiousClaimable { amount_satoshis, payment_hash, .. } => {
                    pending.coming.push(htlc(*payment_hash, *amount_satoshis, true));
                }
                _ => {}
            }
        }
        pending
    }

    /// Of payments whose preimage the monitor has, we are the ones who claim.
    fn note_known(&mut self, balances: &[Balance]) {
        for balance in balances {
            if let Balance::ContentiousClaimable { payment_hash, .. } = balance {
                let known = |htlc: &&mut Htlc| htlc.hash.0 == payment_hash.0;
                self.coming.iter_mut().filter(known).for_each(|htlc| htlc.is_claimed = true);
            }
        }
    }
}

/// A payment of others that went through, as it is told: named by its way in, which is there once.
#[derive(Clone, Debug)]
pub(super) struct Forward {
    name: String,
    way_in: String,
    number: Option<u64>,
    came: Option<u64>,
    way_out: Option<String>,
    went: u64,
}

impl Forward {
    pub fn of(ways_in: &[InboundHTLCLocator], ways_out: &[OutboundHTLCLocator], went: u64) -> Option<Self> {
        let way = ways_in.first()?;
        let number = way.htlc_id.map_or_else(|| format!("{:016x}", rand::random::<u64>()), |id| id.to_string());
        let way_in = map::channel_text(way.channel_id);
        Some(Self {
            name: format!("{way_in}:{number}"),
            way_in,
            number: way.htlc_id,
            came: way.amount_msat,
            way_out: ways_out.first().map(|way| map::channel_text(way.channel_id)),
            went,
        })
    }
}

impl ChannelNote {
    /// What is under way is written down with the channel: what is claimed already as a sum, the rest by its hash.
    fn close(&mut self, name: &str, local_msat: u64, mut pending: Pending, forwards: &[Forward]) {
        for forward in forwards {
            if forward.way_out.as_deref() == Some(name) {
                let same = |htlc: &&mut Htlc| !htlc.is_claimed && htlc.msat == forward.went;
                pending.leaving.iter_mut().filter(same).take(1).for_each(|htlc| htlc.is_claimed = true);
            }
            if forward.way_in == name {
                let same = |htlc: &&mut Htlc| htlc.id == forward.number;
                pending.coming.iter_mut().filter(same).for_each(|htlc| htlc.is_claimed = true);
            }
        }
        let claimed = |all: &[Htlc]| all.iter().filter(|htlc| htlc.is_claimed).map(|htlc| htlc.msat).sum();
        let open = |all: Vec<Htlc>| {
            all.into_iter().filter(|htlc| !htlc.is_claimed).map(|htlc| (htlc.hash, htlc.msat)).collect()
        };
        self.closed_msat = Some(local_msat);
        (self.went_msat, self.came_msat) = (claimed(&pending.leaving), claimed(&pending.coming));
        (self.leaving, self.coming) = (open(pending.leaving), open(pending.coming));
    }

    /// A payment of others went through after this channel had closed. Answers whether that was new.
    fn note_forward(&mut self, name: &str, forward: &Forward) -> bool {
        let is_out = forward.way_out.as_deref() == Some(name);
        if self.closed_msat.is_none() || self.is_resolved || self.forwards.contains(&forward.name) {
            return false;
        }
        if is_out {
            self.went_msat = self.went_msat.saturating_add(forward.went);
        }
        if forward.way_in == name {
            self.came_msat = self.came_msat.saturating_add(forward.came.unwrap_or(0));
        }
        self.forwards.push(forward.name.clone());
        true
    }

    /// What is to be told once nothing more comes out of it. `paid` and `claimed` are of payments of our own whose end came later,
    /// `came` is what came out.
    fn resolve(&self, channel: String, paid: u64, claimed: u64, came: u64) -> Movement {
        let (paid, claimed) = (paid.saturating_add(self.went_msat), claimed.saturating_add(self.came_msat));
        let should = self.closed_msat.unwrap_or(0).saturating_add(claimed);
        let (lost, excess) =
            (should.saturating_sub(paid.saturating_add(came)), paid.saturating_add(came).saturating_sub(should));
        Movement::Resolved {
            channel,
            paid: amount(paid),
            claimed: amount(claimed),
            fee: sats(lost / MSAT),
            fraction: amount(lost % MSAT),
            excess: amount(excess),
        }
    }
}

impl Inner {
    /// What is under way in open channels, as it is after everything that was heard. What was seen before is still said of channels
    /// that are gone and not told to be closed.
    fn remember_pending(&mut self, channels: &[ChannelDetails]) {
        self.forwards.clear();
        for channel in channels {
            let name = map::channel_text(channel.channel_id);
            let pending = Pending::of(channel);
            if pending == Pending::default() {
                self.pending.remove(&name)
            } else {
                self.pending.insert(name, pending)
            };
        }
    }
}

impl Books {
    /// Looks at what is under way in channels: when one closes, it can't be asked any more.
    pub fn note_pending(&self, channels: &[ChannelDetails]) {
        lock(&self.inner).remember_pending(channels);
    }
}

impl Node {
    /// A channel is closed. What was given with one that never came into use was never ours.
    pub fn note_closed(&self, channel: ChannelId, local_msat: u64) {
        let name = map::channel_text(channel);
        let balances = self.monitors.get_monitor(channel).map(|monitor| monitor.get_claimable_balances());
        let balances = balances.unwrap_or_default();
        let mut inner = lock(&self.books.inner);
        let Inner { channels, pending, forwards, unresolved, .. } = &mut *inner;
        let Some(noted) = channels.get_mut(&name) else { return };
        if noted.closed_msat.is_some() || !(noted.is_outbound || noted.is_given) {
            return;
        }
        let mut pending = pending.remove(&name).unwrap_or_else(|| Pending::of_monitor(&balances));
        pending.note_known(&balances);
        self.book_parts(&name, noted, &pending);
        noted.close(&name, local_msat, pending, forwards);
        self.stage.push(note(CHANNELS, &name, noted));
        self.tell(Movement::Closed { channel: name.clone(), amount: amount(local_msat) });
        unresolved.insert(name);
    }

    /// Parts of payments that were under way are booked with the channel, whether they come out of it or their payee takes them: they are
    /// not counted as let go, too.
    fn book_parts(&self, name: &str, noted: &mut ChannelNote, pending: &Pending) {
        let parted = self.parted_payments();
        for (number, htlc) in pending.leaving.iter().enumerate() {
            if let Some(id) = parted.get(&htlc.hash) {
                noted.parts.push((htlc.hash, htlc.msat));
                let part = format!("{name}:{number}");
                self.stage.push(Step::PartClaimed { id: *id, part, cost: amount(htlc.msat) });
            }
        }
    }

    /// Whether a part that its payee took was in a channel when that closed. Asked once for each.
    pub fn is_booked_with_its_channel(&self, hash: PaymentHash, msat: u64) -> bool {
        let mut inner = lock(&self.books.inner);
        for (name, noted) in &mut inner.channels {
            if let Some(at) = noted.parts.iter().position(|part| *part == (hash, msat)) {
                noted.parts.swap_remove(at);
                self.stage.push(note(CHANNELS, name, noted));
                return true;
            }
        }
        false
    }

    /// A channel of others that never came into use has nothing of ours in it, and perhaps no block will ever have its funding: whoever
    /// offers such channels and gives them up would have our coins set aside for nothing.
    pub fn is_worth_hurrying(&self, bump: &BumpTransactionEvent) -> bool {
        let BumpTransactionEvent::ChannelClose { channel_id, .. } = bump else { return true };
        let noted = lock(&self.books.inner).channels.get(&map::channel_text(*channel_id)).cloned();
        // One that is not noted yet was signed for a moment ago. What LDK wants to hurry it asks for again.
        let Some(noted) = noted else { return false };
        // One of ours that its peer broke at once may be noted as if it were the peer's: its funding tells.
        let is_funded_by_us = || noted.funding.is_some_and(|funding| self.wallet.knows(funding.txid));
        noted.is_outbound || noted.is_given || is_funded_by_us()
    }

    /// A payment of others went through. What was earned is not said where the way in is claimed on the chain, and it may be told twice
    /// then; what the chain takes is booked with the channel.
    pub fn note_forwarded(&self, forward: Option<Forward>, earned: Option<u64>) {
        let Some(forward) = forward else { return };
        let mut inner = lock(&self.books.inner);
        let mut is_new = false;
        for name in [Some(&forward.way_in), forward.way_out.as_ref()].into_iter().flatten() {
            if let Some(noted) = inner.channels.get_mut(name)
                && noted.note_forward(name, &forward)
            {
                is_new = true;
                self.stage.push(note(CHANNELS, name, noted));
            }
        }
        let on_chain = || forward.came.filter(|_| is_new).map(|came| came.saturating_sub(forward.went));
        if let Some(msat) = earned.or_else(on_chain).filter(|msat| *msat > 0) {
            let step = inner.earned.add(self.store.clock().now(), msat);
            self.stage.push(step);
        }
        inner.forwards.push(forward);
    }

    /// Closed channels of which nothing more is to come, as far as their monitors know. Asked before their last events are handled.
    pub fn quiet_channels(&self) -> Vec<String> {
        let inner = lock(&self.books.inner);
        let is_quiet = |name: &&String| {
            let monitor = map::read_channel(name).map(|id| self.monitors.get_monitor(id));
            !matches!(monitor, Some(Ok(monitor)) if !monitor.get_claimable_balances().is_empty())
        };
        inner.unresolved.iter().filter(is_quiet).cloned().collect()
    }

    /// Tells what became of channels that were quiet in the round before this one, too: what was heard in that one is stored by now.
    pub async fn resolve_quiet(&self, quiet: Vec<String>) {
        let ripe: Vec<String> = {
            let mut inner = lock(&self.books.inner);
            let ripe = quiet.iter().filter(|name| inner.were_quiet.contains(*name)).cloned().collect();
            inner.were_quiet = quiet.into_iter().collect();
            if !inner.were_quiet.is_empty() {
                self.stage.wake();
            }
            ripe
        };
        for name in ripe {
            if let Err(error) = self.resolve(&name).await {
                tracing::warn!(%error, channel = name, "what was lost in closing a channel can't be told yet");
            }
        }
    }

    async fn resolve(&self, name: &str) -> Result<(), StoreError> {
        let Some(noted) = lock(&self.books.inner).channels.get(name).cloned() else { return Ok(()) };
        let (mut paid, mut claimed) = (0_u64, 0_u64);
        if !(noted.leaving.is_empty() && noted.coming.is_empty()) {
            let mut conn = self.store.read().await?;
            for (hash, msat) in &noted.leaving {
                paid = paid.saturating_add(if node::was_sent(&mut conn, *hash).await? { *msat } else { 0 });
            }
            for (hash, msat) in &noted.coming {
                let is_ours = node::receipts(&mut conn, *hash).await?.iter().any(|receipt| receipt.state == "claimed");
                claimed = claimed.saturating_add(if is_ours { *msat } else { 0 });
            }
        }
        let mut inner = lock(&self.books.inner);
        let came = inner.outputs.values().filter(|output| output.channel == name).map(|output| output.sat);
        let came = came.fold(0_u64, u64::saturating_add).saturating_mul(MSAT);
        let movement = noted.resolve(name.to_owned(), paid, claimed, came);
        if let Some(noted) = inner.channels.get_mut(name) {
            noted.is_resolved = true;
            self.stage.push(note(CHANNELS, name, noted));
        }
        inner.unresolved.remove(name);
        drop(inner);
        self.tell(movement);
        Ok(())
    }
}

/// What is under way, by the channel's name.
pub(super) type UnderWay = HashMap<String, Pending>;

#[cfg(test)]
mod tests;
