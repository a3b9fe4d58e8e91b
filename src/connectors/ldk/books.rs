//! What the node tells of its own money: each transaction of its wallet once it is in a block, and each channel when it closes and
//! when nothing more comes out of it.
//!
//! It is derived from what is durable: the wallet's transactions, and a note about each channel and each output that is to be swept.
//! So a crash loses nothing, it is only told later.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bitcoin::{OutPoint, Txid};
use lightning::ln::channel_state::{ChannelDetails, ChannelShutdownState};
use lightning::ln::types::ChannelId;
use lightning::sign::SpendableOutputDescriptor;
use lightning::util::sweep::OutputSpendStatus;
use serde::{Deserialize, Serialize};

use super::closes::{Forward, UnderWay};
use super::earned::Earned;
use super::error::LdkError;
use super::events::amount;
use super::map;
use super::node::Node;
use super::start::put;
use super::told::opening;
use super::types::lock;
use super::wallet::OwnTransaction;
use crate::domain::lightning::PaymentHash;
use crate::domain::movement::Movement;
use crate::money::Sat;
use crate::ports::lightning::NodeEvent;
use crate::store::node::{self, Step};
use crate::store::node_sends;
use crate::store::{Conn, StoreError};

/// Notes about channels, and about outputs that are to be swept.
pub(super) const CHANNELS: &str = "book_channel";
const OUTPUTS: &str = "book_output";
/// The upper half of the number that LDK keeps with each channel for us; the lower half is what was given at its opening.
const TAG: u128 = 0x736c_7569_6365_0001;
/// Movements are read in pages at a start.
const PAGE: u32 = 1_000;

/// The number that LDK keeps with a channel: what its opener gives to the other end.
#[must_use]
pub fn user_id(given_msat: u64) -> u128 {
    TAG << 64 | u128::from(given_msat)
}

pub(super) fn given(user_id: u128) -> u64 {
    if user_id >> 64 == TAG { u64::try_from(user_id & u128::from(u64::MAX)).unwrap_or(0) } else { 0 }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct ChannelNote {
    pub funding: Option<OutPoint>,
    pub is_outbound: bool,
    pub given_msat: u64,
    /// What was ours in it when it began.
    #[serde(default)]
    pub opening_msat: u64,
    /// What the peer gave is told.
    pub is_given: bool,
    pub closed_msat: Option<u64>,
    pub is_resolved: bool,
    /// Payments that were under way through it when it closed and had not ended: hash, and how much.
    pub leaving: Vec<(PaymentHash, u64)>,
    pub coming: Vec<(PaymentHash, u64)>,
    /// What of that is certain to have gone to the peer, and to have come from it.
    #[serde(default)]
    pub went_msat: u64,
    #[serde(default)]
    pub came_msat: u64,
    /// The names of others' payments that are in these two, so that none is in them twice.
    #[serde(default)]
    pub forwards: Vec<String>,
    /// Parts of payments that were under way through it when it closed and whose payee has not taken them: hash, and how much.
    #[serde(default)]
    pub parts: Vec<(PaymentHash, u64)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct OutputNote {
    pub channel: String,
    pub sat: u64,
}

#[derive(Default)]
pub(super) struct Inner {
    pub channels: HashMap<String, ChannelNote>,
    pub outputs: HashMap<OutPoint, OutputNote>,
    /// What was told of each transaction, and how often that was undone and told again: an odd number says that it stands.
    told: HashMap<Txid, (Vec<Movement>, u32)>,
    /// Channels that are closed, and of which something may still come.
    pub unresolved: HashSet<String>,
    /// Of those, which seemed to be over in the last round.
    pub were_quiet: HashSet<String>,
    /// What is under way in open channels, and others' payments that went through since that was looked at.
    pub pending: UnderWay,
    pub forwards: Vec<Forward>,
    pub earned: Earned,
}

/// What was told, and what is needed to tell more.
#[derive(Default)]
pub struct Books {
    pub(super) inner: Mutex<Inner>,
    /// A block has come since the wallet's transactions were looked at.
    pub(super) is_stale: AtomicBool,
}

impl Books {
    /// # Errors
    /// When something stored can't be read.
    pub async fn read(conn: &mut Conn) -> Result<Self, LdkError> {
        let mut inner = Inner::default();
        for (name, bytes) in node::values(conn, CHANNELS).await? {
            let note: ChannelNote = parse(&bytes)?;
            if note.closed_msat.is_some() && !note.is_resolved {
                inner.unresolved.insert(name.clone());
            }
            inner.channels.insert(name, note);
        }
        for (name, bytes) in node::values(conn, OUTPUTS).await? {
            let outpoint = name.parse().map_err(|_| StoreError::Corrupt(format!("{name} is no output")))?;
            inner.outputs.insert(outpoint, parse(&bytes)?);
        }
        let mut after = 0;
        loop {
            let page = node::movements_of_coins(conn, after, PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            page.into_iter().for_each(|(_, movement)| inner.remember(movement));
        }
        inner.earned = Earned::of(node::untold_hours(conn).await?);
        Ok(Self { inner: Mutex::new(inner), is_stale: AtomicBool::new(true) })
    }

    pub fn block_came(&self) {
        self.is_stale.store(true, Ordering::SeqCst);
    }
}

fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Corrupt(format!("a note of the node: {error}")))
}

pub(super) fn note(space: &'static str, name: &str, value: &impl Serialize) -> Step {
    put(space, name, serde_json::to_vec(value).unwrap_or_default())
}

impl Inner {
    fn remember(&mut self, movement: Movement) {
        let (what, count) = match movement {
            Movement::Undone { what, times } => (*what, times.saturating_mul(2)),
            Movement::Again { what, times } => (*what, times.saturating_mul(2).saturating_add(1)),
            told => (told, 1),
        };
        if let Some(txid) = txid_of(&what) {
            let (all, known) = self.told.entry(txid).or_default();
            *known = count.max(*known);
            if !all.contains(&what) {
                all.push(what);
            }
        }
    }

    pub fn stands(&self, txid: Txid) -> bool {
        self.told.get(&txid).is_some_and(|(_, count)| !count.is_multiple_of(2))
    }

    /// What is to be told of the wallet's transactions: those in blocks that do not stand yet, and those that stand and are gone.
    fn changes(&mut self, in_blocks: &[OwnTransaction], known: &HashSet<Txid>) -> Vec<Movement> {
        let mut changes = Vec::new();
        for own in in_blocks {
            let times = self.told.get(&own.txid).map_or(0, |(_, count)| count / 2);
            for what in self.classify(own) {
                changes.push(match times {
                    0 => what,
                    times => Movement::Again { what: Box::new(what), times },
                });
            }
        }
        let gone = self.told.iter().filter(|(txid, (_, count))| !count.is_multiple_of(2) && !known.contains(*txid));
        for (_, (all, count)) in gone {
            let times = count.div_ceil(2);
            changes.extend(all.iter().map(|what| Movement::Undone { what: Box::new(what.clone()), times }));
        }
        changes.iter().for_each(|movement| self.remember(movement.clone()));
        changes
    }

    /// What a transaction of the wallet was for, which shows in what it spends and creates.
    fn classify(&self, own: &OwnTransaction) -> Vec<Movement> {
        let OwnTransaction { txid, inputs, outputs, spent, received, out, order } = own;
        if spent.is_empty() && !inputs.iter().any(|input| self.outputs.contains_key(input)) {
            let arrived = outputs.iter().map(|(vout, script, sat)| Movement::Arrived {
                outpoint: OutPoint { txid: *txid, vout: *vout },
                script: script.to_hex_string(),
                amount: *sat,
            });
            return arrived.collect();
        }
        let (back, total) = (sats(*received), spent.iter().map(|(_, sat)| sat).sum::<u64>());
        let swept: u64 = inputs.iter().filter_map(|input| self.outputs.get(input)).map(|note| note.sat).sum();
        if swept > 0 {
            return vec![Movement::Swept { txid: *txid, back, fee: sats(swept.saturating_sub(*received)) }];
        }
        let funded: Vec<&ChannelNote> =
            self.channels.values().filter(|note| note.funding.is_some_and(|funding| funding.txid == *txid)).collect();
        let ours = spent.len() == inputs.len();
        if ours && funded.iter().any(|note| note.is_outbound) {
            let value: u64 =
                funded.iter().filter_map(|note| note.funding).filter_map(|f| out.get(f.vout as usize)).sum();
            let given = funded.iter().map(|note| note.given_msat).sum();
            let fee = total.saturating_sub(*received).saturating_sub(value);
            return vec![Movement::Funded { txid: *txid, amount: sats(value), given: amount(given), fee: sats(fee) }];
        }
        let cost =
            i64::try_from(total).unwrap_or(i64::MAX).saturating_sub(i64::try_from(*received).unwrap_or(i64::MAX));
        if !ours {
            return vec![Movement::Bumped { txid: *txid, cost }];
        }
        let fee = total.saturating_sub(out.iter().sum());
        let sent = total.saturating_sub(*received).saturating_sub(fee);
        vec![Movement::Sent { txid: *txid, order: *order, amount: sats(sent), fee: sats(fee) }]
    }
}

pub(super) fn sats(sat: u64) -> Sat {
    Sat::new(sat).unwrap_or(Sat::MAX)
}

/// The transaction that a movement is. Of one that paid us in several outputs, each output is a movement of its own.
fn txid_of(movement: &Movement) -> Option<Txid> {
    match movement {
        Movement::Arrived { outpoint, .. } => Some(outpoint.txid),
        Movement::Sent { txid, .. }
        | Movement::Funded { txid, .. }
        | Movement::Bumped { txid, .. }
        | Movement::Swept { txid, .. } => Some(*txid),
        Movement::Given { .. }
        | Movement::Closed { .. }
        | Movement::Resolved { .. }
        | Movement::Forwarded { .. }
        | Movement::Unclaimed { .. }
        | Movement::Unasked { .. }
        | Movement::Undone { .. }
        | Movement::Again { .. } => None,
    }
}

impl Node {
    /// A channel has a funding from now on.
    pub fn note_channel(&self, channel: ChannelId, funding: OutPoint, user_id: u128) {
        let name = map::channel_text(channel);
        let found = self.manager.list_channels().into_iter().find(|one| one.channel_id == channel);
        let fresh = ChannelNote {
            funding: Some(funding),
            is_outbound: found.as_ref().is_some_and(|one| one.is_outbound),
            given_msat: given(user_id),
            opening_msat: found.as_ref().map_or(0, opening),
            ..ChannelNote::default()
        };
        let mut inner = lock(&self.books.inner);
        let noted = inner.channels.entry(name.clone()).or_insert(fresh);
        self.stage.push(note(CHANNELS, &name, noted));
    }

    /// A channel is in use: what the peer gave with it is ours.
    pub fn note_given(&self, channel: ChannelId) {
        let name = map::channel_text(channel);
        let mut inner = lock(&self.books.inner);
        let Some(noted) = inner.channels.get_mut(&name) else { return };
        if noted.is_outbound || noted.is_given {
            return;
        }
        noted.is_given = true;
        self.stage.push(note(CHANNELS, &name, noted));
        if noted.given_msat > 0 {
            self.tell(Movement::Given { channel: name, amount: amount(noted.given_msat) });
        }
    }

    /// These came out of a channel, and are to be swept.
    pub fn note_outputs(&self, outputs: &[SpendableOutputDescriptor], channel: Option<ChannelId>) {
        let channel = channel.map(map::channel_text).unwrap_or_default();
        let mut inner = lock(&self.books.inner);
        for output in outputs {
            let outpoint = output.spendable_outpoint().into_bitcoin_outpoint();
            let noted = OutputNote { channel: channel.clone(), sat: value(output) };
            self.stage.push(note(OUTPUTS, &outpoint.to_string(), &noted));
            inner.outputs.insert(outpoint, noted);
        }
    }

    pub fn tell(&self, movement: Movement) {
        self.stage.push(Step::Movement(movement));
        self.stage.hint(NodeEvent::Channels);
    }

    /// Tells what has happened to the node's own money since the last round.
    pub async fn tell_own_money(&self, quiet: Vec<String>) {
        self.resolve_quiet(quiet).await;
        if !self.books.is_stale.swap(false, Ordering::SeqCst) {
            return;
        }
        let (mut in_blocks, known) = {
            let inner = lock(&self.books.inner);
            self.wallet.in_blocks(|txid| inner.stands(txid))
        };
        if let Err(error) = self.name_orders(&mut in_blocks).await {
            tracing::warn!(%error, "what happened to the node's coins can't be told yet");
            self.books.is_stale.store(true, Ordering::SeqCst);
            return;
        }
        for movement in lock(&self.books.inner).changes(&in_blocks, &known) {
            self.tell(movement);
        }
    }

    /// Of these, says by whose order those were sent that were.
    async fn name_orders(&self, all: &mut [OwnTransaction]) -> Result<(), StoreError> {
        for own in all.iter_mut().filter(|own| !own.spent.is_empty()) {
            let mut conn = self.store.read().await?;
            own.order = node_sends::order_of(&mut conn, own.txid).await?;
        }
        Ok(())
    }

    /// Something of the node's own money is on its way from one place to another, or was not told yet.
    pub fn is_money_moving(&self) -> bool {
        let channels = self.manager.list_channels();
        let is_settled = |shutdown: Option<ChannelShutdownState>| {
            shutdown.is_none_or(|state| state == ChannelShutdownState::NotShuttingDown)
        };
        let swept = self.sweeper.tracked_spendable_outputs();
        if swept.iter().any(|one| !matches!(one.status, OutputSpendStatus::PendingThresholdConfirmations { .. })) {
            return true;
        }
        let inner = lock(&self.books.inner);
        let is_moving = |one: &ChannelDetails| {
            let noted = inner.channels.get(&map::channel_text(one.channel_id));
            let has_ours = one.is_outbound || noted.is_some_and(|noted| noted.is_given);
            // What a peer announces moves nothing of ours.
            if has_ours {
                !one.is_channel_ready || !is_settled(one.channel_shutdown_state)
            } else {
                one.is_channel_ready
            }
        };
        !inner.unresolved.is_empty()
            || channels.iter().any(is_moving)
            || self.wallet.coins().unconfirmed != Sat::ZERO
            || !self.wallet.unconfirmed().is_empty()
            || self.books.is_stale.load(Ordering::SeqCst)
    }
}

pub fn value(output: &SpendableOutputDescriptor) -> u64 {
    match output {
        SpendableOutputDescriptor::StaticOutput { output, .. } => output.value.to_sat(),
        SpendableOutputDescriptor::DelayedPaymentOutput(delayed) => delayed.output.value.to_sat(),
        SpendableOutputDescriptor::StaticPaymentOutput(fixed) => fixed.output.value.to_sat(),
    }
}
