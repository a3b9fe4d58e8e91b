//! Closing a channel when the node's coins do not reach for a withdrawal: by agreement with its peer, one at a time, so many a day, and only
//! where the operator allows it.

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::{OutPoint, Transaction, Txid};
use serde::{Deserialize, Serialize};

use super::super::node::Hand;
use super::super::{Error, Flows};
use super::load;
use super::sending::{Next, PutOff};
use crate::crash;
use crate::domain::withdraw::{Event, State, Withdraw};
use crate::domain::{Effect, Request};
use crate::ids::RequestId;
use crate::money::{Amount, Sat};
use crate::ports::lightning::{Asked, Channel, CloseHow, LightningNode, NodeBalance};
use crate::store::{StoreError, Tx, Write, apply, books, chain, effects, withdrawals};

/// A transaction that was looked for and not found is looked for again in this many blocks, should they be other ones by then.
const OTHER_BLOCKS: u32 = 6;
const SECONDS_A_DAY: i64 = 24 * 60 * 60;

/// What the operator decides about withdrawals of off-chain money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WithdrawPolicy {
    /// What is done when the node's coins do not reach.
    pub close_channels: CloseChannels,
    /// How many channels may be closed for withdrawals on one day (UTC).
    pub closes_per_day: u32,
}

impl Default for WithdrawPolicy {
    fn default() -> Self {
        Self { close_channels: CloseChannels::Never, closes_per_day: 2 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseChannels {
    /// The withdrawal waits for the operator.
    Never,
    /// A channel is closed by agreement with its peer. Never by force.
    Cooperative,
}

/// Whether closing channels could pay this, so that it may begin although the node's coins do not reach.
pub async fn would_cover(flows: &Flows, amount: Sat, cost: Sat) -> Result<bool, Error> {
    if flows.policy().withdraw.close_channels == CloseChannels::Never {
        return Ok(false);
    }
    let node = flows.node().ready()?;
    let (balance, channels) = look(&node).await?;
    let wanted = amount.checked_add(cost).unwrap_or(Sat::MAX);
    Ok(choose(missing(&balance, wanted), &channels).is_some())
}

async fn look(node: &Arc<dyn LightningNode>) -> Result<(NodeBalance, Vec<Channel>), Error> {
    let balance = node.balance().await.map_err(Error::Node)?;
    Ok((balance, node.channels().await.map_err(Error::Node)?))
}

/// What is wanted beyond the coins that are there or on their way.
fn missing(balance: &NodeBalance, wanted: Sat) -> Sat {
    let there = [balance.onchain_confirmed, balance.onchain_unconfirmed, balance.closing];
    let there = there.into_iter().fold(Sat::ZERO, |sum, more| sum.checked_add(more).unwrap_or(Sat::MAX));
    let free = there.checked_sub(balance.reserve).unwrap_or(Sat::ZERO);
    wanted.checked_sub(free).unwrap_or(Sat::ZERO)
}

/// The smallest channel that brings so much; else the largest, if all of them together bring it.
fn choose(missing: Sat, channels: &[Channel]) -> Option<&Channel> {
    let missing = Amount::from_sat(missing);
    let open = || channels.iter().filter(|channel| channel.usable && channel.funding.is_some());
    let enough = open().filter(|channel| channel.can_send >= missing).min_by_key(|channel| channel.can_send);
    let all = open().map(|channel| channel.can_send.base_units()).fold(0, u64::saturating_add);
    enough.or_else(|| open().max_by_key(|channel| channel.can_send).filter(|_| all >= missing.base_units()))
}

/// The node's coins do not reach: a channel is chosen to be closed, or the withdrawal waits.
pub async fn begin_or_wait(
    flows: &Flows,
    hand: &Hand,
    request: &Request<Withdraw>,
    reason: String,
) -> Result<Next, Error> {
    let (id, attempt) = (request.id, request.machine.attempts);
    if flows.policy().withdraw.close_channels == CloseChannels::Cooperative {
        let (balance, channels) = look(&hand.node).await?;
        let terms = &request.machine.terms;
        let missing = missing(&balance, terms.amount_sent.checked_add(terms.max_fee).unwrap_or(Sat::MAX));
        let chosen = (missing > Sat::ZERO).then(|| choose(missing, &channels)).flatten();
        if let Some((channel, funding)) = chosen.and_then(|channel| Some((channel.id.clone(), channel.funding?))) {
            let per_day = flows.policy().withdraw.closes_per_day;
            let begin = Begin { id, attempt, channel, funding, per_day };
            if flows.store().write(hand.fenced(begin)).await? {
                crash::point("withdraw.close_begun");
                return Ok(Next::GoOn);
            }
        }
    }
    flows.store().write(hand.fenced(PutOff { id, attempt, reason })).await?;
    Ok(Next::Wait)
}

struct Begin {
    id: RequestId,
    attempt: u32,
    channel: String,
    funding: OutPoint,
    per_day: u32,
}

#[async_trait]
impl Write for Begin {
    /// Whether it may: one at a time, and so many a day.
    type Output = bool;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let before = load(tx, self.id).await?;
        let is_ours =
            matches!(before.machine.state, State::Requested { .. }) && before.machine.attempts == self.attempt;
        if !is_ours || withdrawals::closing(tx.conn()).await? > 0 {
            return Ok(false);
        }
        let day = tx.now().unix_seconds().div_euclid(SECONDS_A_DAY);
        // Whoever waited for this row sees what the other has begun.
        if !withdrawals::take_close(tx, day, self.per_day).await? {
            return Ok(false);
        }
        if withdrawals::closing(tx.conn()).await? > 0 {
            return Ok(false);
        }
        let event = Event::Close { channel: self.channel.clone(), funding: self.funding };
        apply::advance::<Withdraw>(tx, self.id, &event).await?;
        Ok(true)
    }
}

/// Has the node close the channel that was chosen, until it has.
pub async fn close(flows: &Flows, hand: &Hand, request: &Request<Withdraw>) -> Result<Next, Error> {
    let node = &hand.node;
    let Some(last) = request.machine.closes.last() else { return Ok(Next::Wait) };
    let is_there = async || Ok::<_, Error>(look(node).await?.1.iter().any(|channel| channel.id == last.channel));
    if is_there().await? {
        let asked = node.close_channel(&last.channel, CloseHow::Cooperative).await.map_err(Error::Node)?;
        crash::point("withdraw.close_asked");
        if let Asked::Refused { reason } = asked {
            let reason = format!("a channel could not be closed: {reason}");
            flows.store().write(hand.fenced(Tell::of(request, Event::NotClosed { reason }, true))).await?;
            return Ok(Next::Wait);
        }
    }
    if is_there().await? {
        return wait(flows, hand, request.id, "the peer has not agreed to the closing yet").await;
    }
    let height = tip(flows).await?;
    flows.store().write(hand.fenced(Tell::of(request, Event::Closed { height }, false))).await?;
    Ok(Next::GoOn)
}

/// Looks for the transaction that spends the channel, in the blocks since it was closed.
pub async fn look_for_close(
    flows: &Flows,
    hand: &Hand,
    request: &Request<Withdraw>,
    since: u32,
) -> Result<Next, Error> {
    let Some(last) = request.machine.closes.last() else { return Ok(Next::Wait) };
    let tip = tip(flows).await?;
    let spends = |tx: &Transaction| tx.input.iter().any(|input| input.previous_output == last.funding);
    if let Some((txid, height)) = find(flows, since.saturating_sub(OTHER_BLOCKS), tip, spends).await?.first() {
        let event = Event::CloseMined { txid: *txid, height: *height };
        flows.store().write(hand.fenced(Tell::of(request, event, false))).await?;
        crash::point("withdraw.close_mined");
        return Ok(Next::GoOn);
    }
    flows.store().write(hand.fenced(Tell::of(request, Event::Closed { height: tip }, true))).await?;
    Ok(Next::Wait)
}

/// Looks for the transaction that brought home what was in the channel; or learns from the node that none is needed.
pub async fn look_for_sweep(
    flows: &Flows,
    hand: &Hand,
    request: &Request<Withdraw>,
    height: u32,
) -> Result<Next, Error> {
    let Some(close) = request.machine.closes.last().and_then(|last| last.txid) else { return Ok(Next::Wait) };
    // The node first: whatever it had told by then is found below.
    let quiet = quiet_at(flows, &hand.node).await?;
    let tip = tip(flows).await?;
    let by = sweep_of(flows, close, height.saturating_sub(1), tip).await?;
    if by.is_none() && quiet.is_none_or(|height| height > tip) {
        return wait(flows, hand, request.id, "what was in the channel is on its way").await;
    }
    flows.store().write(hand.fenced(Tell::of(request, Event::Swept { by, height: tip }, false))).await?;
    crash::point("withdraw.swept");
    Ok(Next::GoOn)
}

/// The block that the node has read, if nothing of its money moves and all that it has told is entered.
async fn quiet_at(flows: &Flows, node: &Arc<dyn LightningNode>) -> Result<Option<u32>, Error> {
    let balance = node.balance().await.map_err(Error::Node)?;
    let height = node.info().await.map_err(Error::Node)?.height;
    let mut conn = flows.store().read().await?;
    let cursor = books::cursor(&mut conn).await?;
    drop(conn);
    let told = node.movements(cursor, 1).await.map_err(Error::Node)?;
    // What has left the channel and is not being swept yet shows in no sum.
    let is_quiet = !balance.is_moving && balance.closing == Sat::ZERO && told.is_empty();
    Ok(is_quiet.then_some(height))
}

/// The transaction that spends what a closing brought us. The peer's part is spent by somebody, too.
async fn sweep_of(flows: &Flows, close: Txid, after: u32, until: u32) -> Result<Option<Txid>, Error> {
    let spends = |tx: &Transaction| tx.input.iter().any(|input| input.previous_output.txid == close);
    let candidates = find(flows, after, until, spends).await?;
    let mut conn = flows.store().read().await?;
    for (txid, _) in candidates {
        if books::has_swept(&mut conn, txid).await? {
            return Ok(Some(txid));
        }
    }
    Ok(None)
}

/// The block that the follower has read.
async fn tip(flows: &Flows) -> Result<u32, Error> {
    let mut conn = flows.store().read().await?;
    Ok(chain::cursor(&mut conn).await?.map_or(0, |tip| tip.height))
}

/// Transactions of the blocks after one and up to another.
async fn find(
    flows: &Flows,
    after: u32,
    until: u32,
    is_it: impl Fn(&Transaction) -> bool,
) -> Result<Vec<(Txid, u32)>, Error> {
    let mut found = Vec::new();
    for height in after.saturating_add(1)..=until {
        let Some(hash) = flows.chain().block_hash(height).await? else { break };
        let block = flows.chain().block(hash).await?;
        found.extend(block.txdata.iter().filter(|tx| is_it(tx)).map(|tx| (tx.compute_txid(), height)));
    }
    Ok(found)
}

async fn wait(flows: &Flows, hand: &Hand, id: RequestId, why: &'static str) -> Result<Next, Error> {
    flows.store().write(hand.fenced(Rest { id, why })).await?;
    Ok(Next::Wait)
}

struct Rest {
    id: RequestId,
    why: &'static str,
}

#[async_trait]
impl Write for Rest {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        effects::postpone(tx, &Effect::Withdraw(self.id), self.why).await
    }
}

/// Tells the withdrawal what has happened to its channel, unless somebody has moved it since it was looked at: then what was seen is about
/// something else, and it is looked at again.
struct Tell {
    id: RequestId,
    version: i64,
    event: Event,
    /// Whether nothing more can be done before another block.
    rest: bool,
}

impl Tell {
    fn of(request: &Request<Withdraw>, event: Event, rest: bool) -> Self {
        Self { id: request.id, version: request.version, event, rest }
    }
}

#[async_trait]
impl Write for Tell {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        if load(tx, self.id).await?.version != self.version {
            return Ok(());
        }
        apply::advance::<Withdraw>(tx, self.id, &self.event).await?;
        if self.rest {
            effects::postpone(tx, &Effect::Withdraw(self.id), self.event.name()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash as _;

    fn channel(id: &str, can_send: u64, usable: bool) -> Channel {
        let peer = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap();
        Channel {
            id: id.to_owned(),
            peer,
            funding: Some(OutPoint { txid: Txid::all_zeros(), vout: 0 }),
            capacity: Sat::literal(1_000_000),
            can_send: Amount::from_sat(Sat::new(can_send).unwrap()),
            can_receive: Amount::ZERO,
            usable,
            announced: false,
            is_outbound: true,
            fees: None,
        }
    }

    fn chosen(missing: u64, channels: &[Channel]) -> Option<&str> {
        choose(Sat::new(missing).unwrap(), channels).map(|channel| channel.id.as_str())
    }

    #[test]
    fn the_smallest_that_is_enough_is_closed_else_the_largest() {
        let all =
            [channel("a", 300, true), channel("b", 900, true), channel("c", 500, true), channel("d", 5_000, false)];
        assert_eq!(chosen(400, &all), Some("c"));
        assert_eq!(chosen(901, &all), Some("b"), "another one is closed later");
        assert_eq!(chosen(1_701, &all), None, "all of them together would not be enough");
    }

    #[test]
    fn coins_on_their_way_are_waited_for() {
        let balance = NodeBalance {
            onchain_confirmed: Sat::literal(100),
            onchain_unconfirmed: Sat::literal(50),
            closing: Sat::literal(25),
            reserve: Sat::literal(30),
            ..NodeBalance::default()
        };
        assert_eq!(missing(&balance, Sat::literal(200)), Sat::literal(55));
        assert_eq!(missing(&balance, Sat::literal(145)), Sat::ZERO);
    }
}
