//! Opening channels by the operator's policy: looking at what there is, and carrying out what follows from it.
//!
//! What to do is decided in `domain/liquidity.rs`. An opening is written before the node is asked, one at a time; when its answer was
//! lost, the node's channels tell what became of it, and it is never asked for again.

use std::time::Duration;

use async_trait::async_trait;

use super::{Error, Flows};
use crate::clock::Timestamp;
use crate::domain::Fact;
use crate::domain::event::payloads::{
    InboundLow, LiquidityHeldBack, LiquidityOpened, LiquidityOpening, LiquidityRefused,
};
use crate::domain::liquidity::{self, Decision, FUNDING_TARGET, LiquidityPolicy, Seen, Why};
use crate::ids::RequestId;
use crate::money::{Amount, FeeRate, Sat};
use crate::ports::PortError;
use crate::ports::lightning::{Asked, Channel, LightningNode, NewChannel};
use crate::store::liquidity::{self as rows, Opening, State, Word};
use crate::store::{Conn, StoreError, Tx, Write, chain, events, halts};

/// How long a channel that the node does not show may still come: longer than any node takes to answer or to give up on a peer.
const COMES_WITHIN: Duration = Duration::from_secs(10 * 60);
/// How long a peer with whom an opening came to nothing is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(60 * 60);
const DAY_MILLIS: i64 = 24 * 60 * 60 * 1_000;
/// Openings that an overview names.
const SHOWN: u32 = 20;

/// The subjects of which the last word is kept.
const DECISION: &str = "decision";
const INBOUND: &str = "inbound";
/// What is said of them beside the reasons for holding back.
const ENOUGH: &str = "enough";
const LOW: &str = "low";
const BEGUN: &str = "opening";

/// Decides, and opens a channel if that is what follows. Answers whether there was anything to look at: elsewhere it is for
/// whoever runs the node.
///
/// # Errors
/// When the store, the chain or the node can't be used. What was begun is found again by the next look.
pub async fn look(flows: &Flows) -> Result<bool, Error> {
    if !flows.policy().liquidity.is_on() || !flows.node().is_ready() {
        return Ok(false);
    }
    if let Some(opening) = decide(flows).await? {
        carry_out(flows, opening).await?;
    }
    Ok(true)
}

/// Looks at everything, says what follows where that is new, and writes down what is to be opened, if anything is.
///
/// # Errors
/// As `look`.
pub async fn decide(flows: &Flows) -> Result<Option<Planned>, Error> {
    let policy = &flows.policy().liquidity;
    let node = flows.node().ready()?;
    let channels = node.channels().await.map_err(Error::Node)?;
    conclude(flows, &channels).await?;
    let seen = see(flows, node.as_ref(), &channels).await?;
    set_gauges(policy, &seen);
    let decision = policy.decide(&seen);
    let planned = match &decision {
        Decision::Open(opening) => Some(plan(opening, &channels)),
        Decision::Enough | Decision::HeldBack(_) => None,
    };
    let inbound = Inbound { has: seen.inbound, short: policy.inbound_short(&seen), wanted: policy.want_inbound_sats };
    let outbound = seen.outbound;
    let is_begun = flows.store().write(Say { inbound, outbound, decision, planned: planned.clone() }).await?;
    Ok(planned.filter(|_| is_begun))
}

/// An opening that is written down, and of which the node has not been told.
#[derive(Clone, Debug)]
pub struct Planned {
    opening: Opening,
    address: String,
}

fn plan(wanted: &liquidity::Opening, channels: &[Channel]) -> Planned {
    let ours = channels.iter().filter(|channel| channel.is_outbound && channel.peer == wanted.peer.id);
    let opening = Opening {
        id: RequestId::fresh(),
        peer: wanted.peer.id,
        amount: wanted.amount,
        fee: wanted.fee,
        had: ours.map(|channel| channel.id.clone()).collect(),
        state: State::Asking,
        channel: None,
        reason: None,
        // The transaction has its own time.
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(0),
    };
    Planned { opening, address: wanted.peer.address.clone() }
}

/// Has the node open it. Once: if nobody knows what came of it, the node's channels tell later.
///
/// # Errors
/// When the store can't be used.
pub async fn carry_out(flows: &Flows, planned: Planned) -> Result<(), Error> {
    let node = flows.node().ready()?;
    let announced = flows.policy().liquidity.announced;
    let id = planned.opening.id;
    match ask(node.as_ref(), &planned, announced).await {
        Ok(Asked::Done(channel)) => {
            let opening = Advance { id, state: State::Opening, channel: Some(channel), reason: None, fact: None };
            flows.store().write(opening).await?;
            Ok(())
        }
        Ok(Asked::Refused { reason }) => end(flows, &planned.opening, State::Refused, None, Some(reason)).await,
        Err(error) => {
            tracing::warn!(opening = %id, %error, "it is not known whether a channel is being opened; the node's channels will tell");
            Ok(())
        }
    }
}

async fn ask(node: &dyn LightningNode, planned: &Planned, announced: bool) -> Result<Asked<String>, PortError> {
    let Planned { opening, address } = planned;
    // Until it is asked to open one nothing can have been opened, whatever went wrong.
    if let Err(reason) = connect(node, opening, address).await {
        return Ok(Asked::Refused { reason: format!("the peer can't be connected to: {reason}") });
    }
    let new = NewChannel { peer: opening.peer, amount: opening.amount, push: Amount::ZERO, announced };
    node.open_channel(&new).await
}

async fn connect(node: &dyn LightningNode, opening: &Opening, address: &str) -> Result<(), String> {
    let peers = node.peers().await.map_err(|error| error.to_string())?;
    if peers.iter().any(|peer| peer.id == opening.peer && peer.connected) {
        return Ok(());
    }
    match node.connect(opening.peer, address).await.map_err(|error| error.to_string())? {
        Asked::Done(()) => Ok(()),
        Asked::Refused { reason } => Err(reason),
    }
}

/// Finds out what became of the opening that was begun last.
async fn conclude(flows: &Flows, channels: &[Channel]) -> Result<(), Error> {
    let mut conn = flows.store().read().await?;
    let Some(opening) = rows::under_way(&mut conn).await? else { return Ok(()) };
    drop(conn);
    let is_it = |channel: &&Channel| {
        let is_new = !opening.had.contains(&channel.id);
        channel.is_outbound && channel.peer == opening.peer && channel.capacity == opening.amount && is_new
    };
    match channels.iter().find(is_it) {
        Some(channel) if channel.usable => end(flows, &opening, State::Opened, Some(channel), None).await,
        Some(_) => Ok(()),
        None if flows.now() < opening.created_at.after(COMES_WITHIN) => Ok(()),
        None => {
            let reason = "the node has no such channel: it was never begun, or is gone before it was used";
            end(flows, &opening, State::Gone, None, Some(reason.to_owned())).await
        }
    }
}

async fn end(
    flows: &Flows,
    opening: &Opening,
    state: State,
    channel: Option<&Channel>,
    reason: Option<String>,
) -> Result<(), Error> {
    let fact = match channel {
        Some(channel) => {
            tracing::info!(peer = %opening.peer, amount = %opening.amount, "a channel that was opened by itself is in use");
            opened(opening, channel)
        }
        None => {
            tracing::warn!(peer = %opening.peer, amount = %opening.amount, reason, "a channel was not opened");
            refused(opening, reason.clone())
        }
    };
    let channel = channel.map(|channel| channel.id.clone());
    if flows.store().write(Advance { id: opening.id, state, channel, reason, fact: Some(fact) }).await? {
        metrics::counter!("sluice_liquidity_openings_total", "outcome" => state.as_str()).increment(1);
    }
    Ok(())
}

fn opened(opening: &Opening, channel: &Channel) -> Fact {
    Fact::LiquidityOpened(LiquidityOpened {
        opening: opening.id,
        peer: opening.peer.to_string(),
        amount_sats: opening.amount,
        amount_msat: Amount::from_sat(opening.amount),
        fee_sats: opening.fee,
        fee_msat: Amount::from_sat(opening.fee),
        channel: channel.id.clone(),
        funding: channel.funding.map(|funding| funding.to_string()),
    })
}

fn refused(opening: &Opening, reason: Option<String>) -> Fact {
    Fact::LiquidityRefused(LiquidityRefused {
        opening: opening.id,
        peer: opening.peer.to_string(),
        amount_sats: opening.amount,
        amount_msat: Amount::from_sat(opening.amount),
        fee_sats: opening.fee,
        fee_msat: Amount::from_sat(opening.fee),
        reason,
    })
}

async fn see(flows: &Flows, node: &dyn LightningNode, channels: &[Channel]) -> Result<Seen, Error> {
    let info = node.info().await.map_err(Error::Node)?;
    let balance = node.balance().await.map_err(Error::Node)?;
    let tip = flows.chain().info().await?;
    let fee_rate = flows.chain().fee_rate(FUNDING_TARGET).await?;
    let now = flows.now();
    let mut conn = flows.store().read().await?;
    let cursor = chain::cursor(&mut conn).await?.map_or(0, |block| block.height);
    // A block that came in while we were looking is no lag.
    let is_near = |height: u32| height.saturating_add(1) >= tip.tip.height;
    let sum = |of: fn(&Channel) -> Amount| {
        Sat::sum(channels.iter().filter_map(|channel| Sat::new(of(channel).sat_floor()).ok())).unwrap_or(Sat::MAX)
    };
    Ok(Seen {
        payouts_halted: !halts::in_force(&mut conn).await?.is_empty(),
        node_ready: info.ready,
        chain_synced: !tip.syncing && is_near(cursor) && is_near(info.height),
        opening_under_way: rows::under_way(&mut conn).await?.is_some(),
        withdrawals_wait: rows::withdrawals_wait(&mut conn).await?,
        outbound: sum(|channel| channel.can_send),
        inbound: sum(|channel| channel.can_receive),
        coins: balance.onchain_confirmed,
        reserve: liquidity::reserve_with_one_more(balance.reserve, channels.len()),
        fee_rate: fee_rate.unwrap_or_else(|| FeeRate::from_sat_per_vb(flows.policy().fallback_fee_rate)),
        spent_today: spent_today(&mut conn, now).await?,
        channels: channels.iter().filter(|channel| channel.is_outbound).map(|channel| channel.peer).collect(),
        refused_lately: rows::refused_since(&mut conn, before(now, LEFT_ALONE)).await?,
    })
}

async fn spent_today(conn: &mut Conn, now: Timestamp) -> Result<Sat, StoreError> {
    let begin = now.millis().saturating_sub(now.millis().rem_euclid(DAY_MILLIS));
    rows::spent_since(conn, Timestamp::from_millis(begin)).await
}

fn before(now: Timestamp, span: Duration) -> Timestamp {
    Timestamp::from_millis(now.millis().saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
}

fn set_gauges(policy: &LiquidityPolicy, seen: &Seen) {
    for (direction, short) in [("outbound", policy.outbound_short(seen)), ("inbound", policy.inbound_short(seen))] {
        metrics::gauge!("sluice_liquidity_short_sats", "direction" => direction).set(in_picture(short));
    }
}

/// A gauge is a picture, and a fraction: every number of satoshis is exact in it.
#[expect(clippy::cast_precision_loss, reason = "a Sat has 51 bits, and a fraction has 53")]
const fn in_picture(sat: Sat) -> f64 {
    sat.to_u64() as f64
}

// ---- what is written ----

#[derive(Clone, Copy)]
struct Inbound {
    has: Sat,
    short: Sat,
    wanted: Sat,
}

/// Says what is new, and writes down the opening that is to come.
struct Say {
    inbound: Inbound,
    outbound: Sat,
    decision: Decision,
    planned: Option<Planned>,
}

#[async_trait]
impl Write for Say {
    /// Whether the opening may be carried out.
    type Output = bool;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        self.say_inbound(tx).await?;
        match (&self.decision, &self.planned) {
            (Decision::Open(_), Some(planned)) => self.begin(tx, &planned.opening).await,
            // What is under way was said when it was begun.
            (Decision::HeldBack(Why::OpeningUnderWay), _) => Ok(false),
            (Decision::HeldBack(why), _) => {
                let detail = why.to_string();
                if rows::say(tx, DECISION, why.code(), &detail).await? {
                    tracing::info!(why = why.code(), detail, "no channel is opened now");
                    let held_back =
                        LiquidityHeldBack { why: why.code().to_owned(), detail, outbound_sats: self.outbound };
                    events::append(tx, None, None, &Fact::LiquidityHeldBack(held_back)).await?;
                }
                Ok(false)
            }
            (Decision::Enough | Decision::Open(_), _) => {
                rows::say(tx, DECISION, ENOUGH, "").await?;
                Ok(false)
            }
        }
    }
}

impl Say {
    async fn say_inbound(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let Inbound { has, short, wanted } = self.inbound;
        let word = if short == Sat::ZERO { ENOUGH } else { LOW };
        if rows::say(tx, INBOUND, word, "").await? && short != Sat::ZERO {
            tracing::warn!(%has, %wanted, "less can be received than is wanted; only others can open channels for that");
            let low = InboundLow { inbound_sats: has, wanted_sats: wanted };
            events::append(tx, None, None, &Fact::InboundLow(low)).await?;
        }
        Ok(())
    }

    async fn begin(&self, tx: &mut Tx<'_>, opening: &Opening) -> Result<bool, StoreError> {
        // An alarm may have been raised since it was decided.
        if !halts::in_force(tx.conn()).await?.is_empty() || !rows::begin(tx, opening).await? {
            return Ok(false);
        }
        rows::say(tx, DECISION, BEGUN, &format!("{} sat with {}", opening.amount, opening.peer)).await?;
        let begun = LiquidityOpening {
            opening: opening.id,
            peer: opening.peer.to_string(),
            amount_sats: opening.amount,
            amount_msat: Amount::from_sat(opening.amount),
            fee_sats: opening.fee,
            fee_msat: Amount::from_sat(opening.fee),
            outbound_sats: self.outbound,
        };
        events::append(tx, None, None, &Fact::LiquidityOpening(begun)).await?;
        Ok(true)
    }
}

struct Advance {
    id: RequestId,
    state: State,
    channel: Option<String>,
    reason: Option<String>,
    fact: Option<Fact>,
}

#[async_trait]
impl Write for Advance {
    /// Whether it was under way.
    type Output = bool;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let moved = rows::advance(tx, self.id, self.state, self.channel.as_deref(), self.reason.as_deref()).await?;
        if let (true, Some(fact)) = (moved, &self.fact) {
            events::append(tx, None, None, fact).await?;
        }
        Ok(moved)
    }
}

// ---- what is read ----

/// What the operator wants, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    pub policy: LiquidityPolicy,
    /// Empty before the first look.
    pub decision: Option<Word>,
    pub inbound_low_since: Option<Timestamp>,
    pub spent_today: Sat,
    /// The last ones, newest first.
    pub openings: Vec<Opening>,
}

/// # Errors
/// When the store can't be used.
pub async fn overview(flows: &Flows) -> Result<Overview, Error> {
    let mut conn = flows.store().read().await?;
    let inbound = rows::last_word(&mut conn, INBOUND).await?;
    Ok(Overview {
        policy: flows.policy().liquidity.clone(),
        decision: rows::last_word(&mut conn, DECISION).await?,
        inbound_low_since: inbound.filter(|inbound| inbound.word == LOW).map(|inbound| inbound.since),
        spent_today: spent_today(&mut conn, flows.now()).await?,
        openings: rows::newest(&mut conn, SHOWN).await?,
    })
}
