//! Having the node send, as often as it takes, and once.

use async_trait::async_trait;
use bitcoin::Txid;

use super::super::node::Hand;
use super::super::{Code, Error, Flows, send};
use super::{closing, height, load};
use crate::crash;
use crate::domain::withdraw::{Event, State, Withdraw};
use crate::domain::{Effect, Machine, Request};
use crate::ids::{RequestId, WalletId};
use crate::money::FeeRate;
use crate::ports::chain::BlockRef;
use crate::ports::lightning::{Asked, OnchainOrder, SentOnchain};
use crate::store::{Retryable, StoreError, Tx, Write, apply, chain, effects, halts, requests, withdrawals};

/// In so many blocks it is looked for what the node tells of a send that nobody expects.
const LOOK_BACK: u32 = 144;

/// Has the node send, and closes a channel for it where the operator allows that. The same request is the same send, however often this
/// is called. One hand at a time does it: whoever comes meanwhile waits for that hand, and leaves the rest to the effect.
pub async fn push(flows: &Flows, id: RequestId) -> Result<(), Error> {
    let lock = flows.driving(&Effect::Withdraw(id));
    let Ok(_mine) = lock.try_lock() else {
        let _theirs = lock.lock().await;
        return Ok(());
    };
    let mut conn = flows.store().read().await?;
    let asked = requests::load::<Withdraw>(&mut conn, id).await?;
    drop(conn);
    if let Some(asked) = asked {
        send::refuse_while_halted(flows, &asked.wallet).await?;
    }
    let hand = flows.node().ready_hand()?;
    while let Some(request) = flows.store().write(hand.fenced(Take(id))).await? {
        let next = match request.machine.state {
            State::Requested { since } => order(flows, &hand, &request, since).await?,
            State::ClosingChannels => closing::close(flows, &hand, &request).await?,
            State::WaitingClose { since } => closing::look_for_close(flows, &hand, &request, since).await?,
            State::Sweeping { height } => closing::look_for_sweep(flows, &hand, &request, height).await?,
            State::AwaitingSignature
            | State::Queued { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled
            | State::Expired => Next::Wait,
        };
        if next == Next::Wait {
            break;
        }
    }
    Ok(())
}

/// Whether there is more to do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    GoOn,
    Wait,
}

async fn order(flows: &Flows, hand: &Hand, request: &Request<Withdraw>, since: u32) -> Result<Next, Error> {
    let (id, terms) = (request.id, &request.machine.terms);
    let to = send::read_address(flows, "address_or_rgbinvoice", &terms.to)?;
    let order = OnchainOrder { id, to, amount: terms.amount_sent, fee_rate: terms.fee_rate, max_fee: terms.max_fee };
    let asked = hand.node.onchain_send(&order).await.map_err(Error::Node)?;
    crash::point("withdraw.sent");
    match asked {
        Asked::Done(sent) => conclude(flows, hand, id, since, sent).await.map(|()| Next::Wait),
        Asked::Refused { reason } => closing::begin_or_wait(flows, hand, request, reason).await,
    }
}

/// What is put off is asked for again; what was taken back is not. What the node is asked for is an attempt of its own.
struct Take(RequestId);

#[async_trait]
impl Write for Take {
    type Output = Option<Request<Withdraw>>;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Option<Request<Withdraw>>, StoreError> {
        let request = load(tx, self.0).await?;
        match request.machine.state {
            State::ClosingChannels | State::WaitingClose { .. } | State::Sweeping { .. } => Ok(Some(request)),
            State::Requested { .. } | State::Queued { .. } => {
                let height = height(tx).await?;
                apply::advance::<Withdraw>(tx, self.0, &Event::Taken { height }).await.map(Some)
            }
            State::AwaitingSignature
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled
            | State::Expired => {
                effects::done(tx, &Effect::Withdraw(self.0)).await?;
                Ok(None)
            }
        }
    }
}

/// The node's coins do not reach, and nothing else helps now.
pub struct PutOff {
    pub id: RequestId,
    pub attempt: u32,
    pub reason: String,
}

#[async_trait]
impl Write for PutOff {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let short = Event::Short { attempt: self.attempt, reason: self.reason.clone() };
        apply::advance::<Withdraw>(tx, self.id, &short).await?;
        effects::postpone(tx, &Effect::Withdraw(self.id), &self.reason).await
    }
}

/// Writes down that it was sent, and the block it is in, should the follower have passed that already.
async fn conclude(flows: &Flows, hand: &Hand, id: RequestId, since: u32, sent: SentOnchain) -> Result<(), Error> {
    loop {
        let mut conn = flows.store().read().await?;
        let at = chain::cursor(&mut conn).await?;
        drop(conn);
        let mined = match at {
            Some(at) => block_with(flows, sent.txid, since, at.height).await?,
            None => None,
        };
        match flows.store().write(hand.fenced(Conclude { id, sent, at, mined })).await {
            Ok(()) => break,
            // The follower has moved on: what it passed meanwhile is looked at, too.
            Err(Concluding::Moved) => {}
            Err(Concluding::Other(error)) => return Err(error.into()),
        }
    }
    crash::point("withdraw.concluded");
    flows.tell_ended(id, false);
    Ok(())
}

/// The node tells that it has sent coins for an order. Of one that nobody expects any more nobody would ask: it is written down here.
pub async fn note_sent(flows: &Flows, hand: &Hand, id: RequestId, sent: SentOnchain) -> Result<(), Error> {
    let mut conn = flows.store().read().await?;
    let Some(request) = requests::load::<Withdraw>(&mut conn, id).await? else { return Ok(()) };
    let tip = chain::cursor(&mut conn).await?.map_or(0, |tip| tip.height);
    drop(conn);
    match request.machine.state {
        State::AwaitingSignature | State::Cancelled | State::Expired => {
            tracing::error!(%id, txid = %sent.txid, "the node has sent coins for a withdrawal that nobody expects any more");
        }
        // Another version is in a block, of which a process that died had told nobody.
        State::Broadcast { txid, .. } if txid != sent.txid => {}
        // Who drives it asks the node, and is told.
        State::Requested { .. }
        | State::Queued { .. }
        | State::ClosingChannels
        | State::WaitingClose { .. }
        | State::Sweeping { .. }
        | State::Broadcast { .. }
        | State::Seen { .. }
        | State::Confirmed { .. } => return Ok(()),
    }
    let lock = flows.driving(&Effect::Withdraw(id));
    let _one_hand_at_a_time = lock.lock().await;
    conclude(flows, hand, id, tip.saturating_sub(LOOK_BACK), sent).await
}

/// Has the node replace what it has sent. Both versions are looked for in blocks.
pub async fn bump(flows: &Flows, id: RequestId, fee_rate: FeeRate) -> Result<Asked<SentOnchain>, Error> {
    let lock = flows.driving(&Effect::Withdraw(id));
    let _one_hand_at_a_time = lock.lock().await;
    let hand = flows.node().ready_hand()?;
    let mut conn = flows.store().read().await?;
    let found = requests::load::<Withdraw>(&mut conn, id).await?;
    drop(conn);
    let request =
        found.ok_or_else(|| Error::refused(Code::NotFound, "no withdrawal of off-chain money has this id"))?;
    if !matches!(request.machine.state, State::Broadcast { .. }) {
        let detail = format!("it is {}: only what waits for a block can be replaced", request.machine.state());
        return Err(Error::refused(Code::NotBumpable, detail));
    }
    let asked = hand.node.onchain_bump(id, fee_rate).await.map_err(Error::Node)?;
    if let Asked::Done(sent) = asked {
        flows.store().write(hand.fenced(Replace { id, sent, wallet: request.wallet })).await?;
    }
    Ok(asked)
}

struct Replace {
    id: RequestId,
    sent: SentOnchain,
    wallet: WalletId,
}

#[async_trait]
impl Write for Replace {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let txid = self.sent.txid;
        withdrawals::stand(tx, txid, self.id, &self.wallet).await?;
        apply::advance::<Withdraw>(tx, self.id, &Event::Replaced { txid }).await.map(drop)
    }
}

async fn block_with(flows: &Flows, txid: Txid, since: u32, until: u32) -> Result<Option<u32>, Error> {
    for height in since.saturating_add(1)..=until {
        let Some(hash) = flows.chain().block_hash(height).await? else { return Ok(None) };
        let block = flows.chain().block(hash).await?;
        if block.txdata.iter().any(|tx| tx.compute_txid() == txid) {
            return Ok(Some(height));
        }
    }
    Ok(None)
}

struct Conclude {
    id: RequestId,
    sent: SentOnchain,
    at: Option<BlockRef>,
    mined: Option<u32>,
}

enum Concluding {
    Moved,
    Other(StoreError),
}

impl From<StoreError> for Concluding {
    fn from(error: StoreError) -> Self {
        Self::Other(error)
    }
}

impl Retryable for Concluding {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Moved => false,
            Self::Other(error) => error.is_retryable(),
        }
    }
}

#[async_trait]
impl Write for Conclude {
    type Output = ();
    type Error = Concluding;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Concluding> {
        match self.at {
            Some(at) => match chain::hold_cursor(tx, at).await {
                Ok(()) => {}
                Err(StoreError::Conflict(_)) => return Err(Concluding::Moved),
                Err(error) => return Err(error.into()),
            },
            None if chain::cursor(tx.conn()).await?.is_some() => return Err(Concluding::Moved),
            None => {}
        }
        let before = load(tx, self.id).await?;
        let is_known = before.machine.txid() == Some(self.sent.txid);
        let SentOnchain { txid, fee } = self.sent;
        if let Some(broken) = before.machine.broken_promise(fee) {
            halts::raise(tx, halts::NODE_OVERSPENT, &format!("request {}: {broken}", self.id)).await?;
        }
        apply::advance::<Withdraw>(tx, self.id, &Event::Sent { txid, fee }).await?;
        if !is_known {
            withdrawals::stand(tx, txid, self.id, &before.wallet).await?;
            apply::advance::<Withdraw>(tx, self.id, &Event::Replaced { txid }).await?;
            if let Some(height) = self.mined {
                withdrawals::set_height(tx.conn(), self.id, Some(height)).await?;
                apply::advance::<Withdraw>(tx, self.id, &Event::Mined { height }).await?;
            }
        }
        Ok(effects::done(tx, &Effect::Withdraw(self.id)).await?)
    }
}
