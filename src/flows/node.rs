//! The Lightning node, as flows see it: there or not, and what to do when it has something to say.
//!
//! What the node says is only a hint. Each reaction looks up how things stand and moves the request there, so that hints may be
//! lost, come twice or late.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;

use super::{Code, Error, Flows, send};
use crate::crash;
use crate::domain::lightning::{PaymentHash, PaymentId};
use crate::domain::pay::{self, Pay};
use crate::domain::receive::{self, Receive, Verdict};
use crate::domain::{Effect, Machine, Request};
use crate::ids::RequestId;
use crate::ports::lightning::{ClaimOutcome, LightningNode, Outgoing, PayOutcome, Payment};
use crate::store::owners::{Fenced, Ownership};
use crate::store::requests::AnyRequest;
use crate::store::{StoreError, Tx, Write, apply, effects, halts, payments, requests};

/// Where the node stands while it is this process that owns it. Shared by the worker that runs it and by every flow.
#[derive(Clone, Default)]
pub struct NodeSlot {
    slot: Arc<RwLock<Slot>>,
}

#[derive(Clone, Default)]
enum Slot {
    /// No node is configured.
    #[default]
    Without,
    /// It is starting, stopping, or another process's.
    Absent,
    /// It answers; open requests are being looked up, and no new money goes out.
    CatchingUp(Hand),
    Ready(Hand),
}

/// The node, and the proof that this process is the one that acts with it. What the node answers is only written down under that proof: a
/// process that was replaced knows nothing about the node any more.
#[derive(Clone)]
pub struct Hand {
    pub node: Arc<dyn LightningNode>,
    /// Empty for a node that no other process could run.
    owner: Option<Ownership>,
}

impl Hand {
    /// The same write, undone when another process has taken the node over.
    pub(super) fn fenced<W: Write>(&self, write: W) -> Fenced<W> {
        Fenced { owner: self.owner.clone(), write }
    }
}

impl NodeSlot {
    /// There will be a node.
    #[must_use]
    pub fn expected() -> Self {
        Self { slot: Arc::new(RwLock::new(Slot::Absent)) }
    }

    /// A node that no other process could run, which no epoch has to protect.
    pub fn arrive(&self, node: Arc<dyn LightningNode>) {
        self.set(Slot::CatchingUp(Hand { node, owner: None }));
    }

    /// The node, while this process owns it.
    pub fn arrive_owned(&self, node: Arc<dyn LightningNode>, owner: Ownership) {
        self.set(Slot::CatchingUp(Hand { node, owner: Some(owner) }));
    }

    /// Everything open has been looked up: new spends are accepted.
    pub fn accept_spends(&self) {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        if let Slot::CatchingUp(hand) = &*slot {
            *slot = Slot::Ready(hand.clone());
        }
    }

    pub fn leave(&self) {
        self.set(Slot::Absent);
    }

    fn set(&self, slot: Slot) {
        *self.slot.write().unwrap_or_else(PoisonError::into_inner) = slot;
    }

    fn get(&self) -> Slot {
        self.slot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The node, for everything but new spends.
    ///
    /// # Errors
    /// When there is none, or it is not here now.
    pub fn node(&self) -> Result<Arc<dyn LightningNode>, Error> {
        self.hand().map(|hand| hand.node)
    }

    /// The node, for new spends.
    ///
    /// # Errors
    /// As `node`, and while it catches up.
    pub fn ready(&self) -> Result<Arc<dyn LightningNode>, Error> {
        self.ready_hand().map(|hand| hand.node)
    }

    /// As `node`, for what writes down what the node answers.
    ///
    /// # Errors
    /// As `node`.
    pub fn hand(&self) -> Result<Hand, Error> {
        match self.get() {
            Slot::Without => Err(Error::refused(Code::LightningUnavailable, "this gateway has no Lightning node")),
            Slot::Absent => Err(not_ready("the Lightning node is not running here now; try again shortly")),
            Slot::CatchingUp(hand) | Slot::Ready(hand) => Ok(hand),
        }
    }

    /// As `ready`, for what writes down what the node answers.
    ///
    /// # Errors
    /// As `ready`.
    pub fn ready_hand(&self) -> Result<Hand, Error> {
        match self.get() {
            Slot::CatchingUp(_) => Err(not_ready("the Lightning node is catching up; try again shortly")),
            Slot::Ready(hand) => Ok(hand),
            Slot::Without | Slot::Absent => self.hand(),
        }
    }

    #[must_use]
    pub fn is_configured(&self) -> bool {
        !matches!(self.get(), Slot::Without)
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.get(), Slot::Ready(_))
    }
}

fn not_ready(why: &str) -> Error {
    Error::refused(Code::LightningNotReady, why)
}

// ---- what arrives ----

/// Brings the request of a hash to where the node says it is. What is held for nobody goes back.
///
/// # Errors
/// When the store or the node can't be used. Nothing is lost then: the same look-up is made again.
pub async fn look_at_incoming(flows: &Flows, hash: PaymentHash) -> Result<(), Error> {
    let lock = flows.driving(&Effect::Claim(hash));
    let _one_hand_at_a_time = lock.lock().await;
    let hand = flows.node().hand()?;
    let node = &hand.node;
    let incoming = node.incoming(hash).await.map_err(Error::Node)?;
    let Some(id) = receive_of(flows, hash).await? else {
        if incoming.held.is_some() {
            tracing::info!(%hash, "a payment for no invoice of this gateway goes back");
            node.fail(hash).await.map_err(Error::Node)?;
        }
        return Ok(());
    };
    if let Some(amount) = incoming.claimed {
        move_receive(flows, id, receive::Event::Claimed { amount }).await?;
        crash::point("node.credited");
    }
    let Some(held) = incoming.held else { return Ok(()) };
    let request = move_receive(flows, id, receive::Event::Held { amount: held.amount }).await?;
    crash::point("node.claiming");
    match request.machine.verdict(held.amount) {
        Verdict::Claim => claim(flows, &hand, &request).await,
        Verdict::FailBack => {
            tracing::info!(%hash, state = request.machine.payment_state(), "a payment for an invoice that takes none goes back");
            Ok(node.fail(hash).await.map_err(Error::Node)?)
        }
    }
}

/// Looks at everything that the node holds, and at every request that waits for it. Answers how many could not be looked at.
///
/// # Errors
/// When the store or the node can't be used at all.
pub async fn look_at_everything(flows: &Flows) -> Result<usize, Error> {
    let mut failed = 0;
    let mut note = |what: &str, looked: Result<(), Error>| {
        if let Err(error) = looked {
            tracing::warn!(what, %error, "it could not be looked up; it is looked up again");
            failed += 1;
        }
    };
    for hash in flows.node().node()?.held().await.map_err(Error::Node)? {
        note("something held", look_at_incoming(flows, hash).await);
    }
    note("the node's own money", super::books::enter_movements(flows).await.map(drop));
    let mut conn = flows.store().read().await?;
    let waiting = requests::waiting_for_node(&mut conn).await?;
    drop(conn);
    for request in waiting {
        match request {
            AnyRequest::Receive(request) => note("a receive", claim_of(flows, request.machine.hash, request.id).await),
            AnyRequest::Pay(request) => note("a payment", pay(flows, request.id).await),
            // What waits to be sent on-chain has an effect, which is due at each start.
            AnyRequest::Withdraw(_) => {}
            AnyRequest::Address(_)
            | AnyRequest::Send(_)
            | AnyRequest::Deposit(_)
            | AnyRequest::Credit(_)
            | AnyRequest::AssetReceive(_) => {}
        }
    }
    Ok(failed)
}

/// Has the node claim, for an invoice that is being claimed; goes on when it is certain that it has, or that there is nothing left to claim.
async fn claim(flows: &Flows, hand: &Hand, request: &Request<Receive>) -> Result<(), Error> {
    let receive::State::Claiming { .. } = request.machine.state else { return Ok(()) };
    let Receive { hash, preimage, attempts: attempt, .. } = request.machine;
    let node = &hand.node;
    let outcome = node.claim(hash, Some(preimage)).await.map_err(Error::Node)?;
    crash::point("node.claim_ordered");
    // Looked up after the order: what went back before it was given can't come again.
    let claimed = node.incoming(hash).await.map_err(Error::Node)?.claimed;
    match (claimed, outcome) {
        (Some(amount), ClaimOutcome::Claiming | ClaimOutcome::NothingHeld) => {
            move_receive(flows, request.id, receive::Event::Claimed { amount }).await.map(drop)
        }
        // Only who still owns the node may say that there is nothing.
        (None, ClaimOutcome::NothingHeld) => {
            let missed = MoveReceive { id: request.id, event: receive::Event::Missed { attempt } };
            Ok(flows.store().write(hand.fenced(missed)).await.map(drop)?)
        }
        (None, ClaimOutcome::Claiming) => Ok(()),
    }
}

/// Has the node claim what a request waits for: what is left to do when its effect is due. One hand at a time does it, by how the request
/// stands then.
pub(super) async fn claim_of(flows: &Flows, hash: PaymentHash, request: RequestId) -> Result<(), Error> {
    let lock = flows.driving(&Effect::Claim(hash));
    let _one_hand_at_a_time = lock.lock().await;
    let hand = flows.node().hand()?;
    let mut conn = flows.store().read().await?;
    let found = requests::load::<Receive>(&mut conn, request).await?;
    drop(conn);
    match found {
        Some(request) => claim(flows, &hand, &request).await,
        None => Ok(()),
    }
}

async fn receive_of(flows: &Flows, hash: PaymentHash) -> Result<Option<RequestId>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(payments::receive_of(&mut conn, hash).await?)
}

async fn move_receive(flows: &Flows, id: RequestId, event: receive::Event) -> Result<Request<Receive>, Error> {
    let moved = flows.store().write(MoveReceive { id, event }).await?;
    flows.tell_ended(id, moved.machine.is_over());
    Ok(moved)
}

struct MoveReceive {
    id: RequestId,
    event: receive::Event,
}

#[async_trait]
impl Write for MoveReceive {
    type Output = Request<Receive>;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Request<Receive>, StoreError> {
        let moved = apply::advance::<Receive>(tx, self.id, &self.event).await?;
        match moved.machine.state {
            receive::State::Claiming { .. } => {}
            receive::State::Open
            | receive::State::Settled { .. }
            | receive::State::Expired
            | receive::State::Cancelled => effects::done(tx, &Effect::Claim(moved.machine.hash)).await?,
        }
        Ok(moved)
    }
}

// ---- what leaves ----

/// Brings the request of a payment to where the node says it is.
///
/// # Errors
/// When the store or the node can't be used. Nothing is lost then: the effect stays due.
pub async fn look_at_outgoing(flows: &Flows, id: PaymentId) -> Result<(), Error> {
    let Some(request) = id.request() else { return Ok(()) };
    let Some(paying) = paying(flows, request).await? else { return Ok(()) };
    let node = flows.node().node()?;
    match node.outgoing(id, paying.machine.terms.hash).await.map_err(Error::Node)? {
        Outgoing::Known(outcome) => conclude(flows, request, outcome).await,
        // It was never given to the node: the effect gives it.
        Outgoing::Nothing => Ok(()),
    }
}

/// Has the node pay. The same request is the same payment, however often this is called. While payouts are stopped, the node is given
/// nothing new, and asked how what it has stands.
pub(super) async fn pay(flows: &Flows, request: RequestId) -> Result<(), Error> {
    // What has failed is never given to a node again, whatever that would make of it.
    let is_wanted = |request: &Request<Pay>| request.machine.state == pay::State::Paying;
    let Some(paying) = paying(flows, request).await?.filter(is_wanted) else { return Ok(()) };
    let node = flows.node().node()?;
    let is_halted = send::refuse_while_halted(flows, &paying.wallet).await;
    let terms = paying.machine.terms;
    if let Err(halted) = is_halted {
        let id = PaymentId::of_request(request);
        // What the node has been given is followed to its end; what it has not been given waits.
        return match node.outgoing(id, terms.hash).await.map_err(Error::Node)? {
            Outgoing::Known(outcome) => conclude(flows, request, outcome).await,
            Outgoing::Nothing => {
                tracing::info!(%request, %halted, "a payment that has not gone out waits");
                Ok(())
            }
        };
    }
    let payment = Payment {
        id: PaymentId::of_request(request),
        hash: terms.hash,
        destination: terms.destination,
        amount: terms.amount,
        max_fee: terms.max_fee,
    };
    let outcome = node.pay(&payment).await;
    crash::point("node.pay_ordered");
    conclude(flows, request, outcome).await
}

/// The request, if its payment is out, and may have ended or not.
async fn paying(flows: &Flows, id: RequestId) -> Result<Option<Request<Pay>>, Error> {
    let mut conn = flows.store().read().await?;
    let request = requests::load::<Pay>(&mut conn, id).await?;
    Ok(request.filter(|request| match request.machine.state {
        // A node that goes back on a failure has to be heard.
        pay::State::Paying | pay::State::Failed { .. } => true,
        pay::State::AwaitingSignature | pay::State::Succeeded { .. } | pay::State::Expired => false,
    }))
}

/// Only a definite word of the node moves a payment.
async fn conclude(flows: &Flows, request: RequestId, outcome: PayOutcome) -> Result<(), Error> {
    let event = match outcome {
        PayOutcome::Succeeded(paid) => pay::Event::Paid(paid),
        PayOutcome::Failed(why) => pay::Event::Failed { why },
        PayOutcome::Pending => return Ok(()),
        PayOutcome::Unknown { reason } => {
            tracing::warn!(%request, reason, "it is not known how a payment stands; it keeps its hold");
            return Ok(());
        }
    };
    let (ended, has_moved) = flows.store().write(EndPay { request, event }).await?;
    crash::point("node.pay_concluded");
    if has_moved {
        // The same outcome is told by the call and by a hint; it is one payment.
        count(&ended.machine);
    }
    flows.tell_ended(request, ended.machine.is_over());
    Ok(())
}

/// How many payments ended how, and how far estimates were from what was paid.
fn count(pay: &Pay) {
    let state = pay.payment_state();
    metrics::counter!("sluice_lightning_pays_total", "state" => state).increment(1);
    if let (pay::State::Succeeded { fee, .. }, Some(estimate)) = (&pay.state, pay.terms.estimate) {
        metrics::counter!("sluice_lightning_fee_estimated_msat_total").increment(estimate.base_units());
        metrics::counter!("sluice_lightning_fee_paid_msat_total").increment(fee.base_units());
    }
}

struct EndPay {
    request: RequestId,
    event: pay::Event,
}

#[async_trait]
impl Write for EndPay {
    /// The payment, and whether this has moved it.
    type Output = (Request<Pay>, bool);
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(Request<Pay>, bool), StoreError> {
        let now = tx.now();
        let before = requests::load::<Pay>(tx.conn(), self.request).await?;
        let before = before.ok_or_else(|| StoreError::Corrupt(format!("request {} is gone", self.request)))?;
        let transition = before.machine.apply(&self.event, now)?;
        if let Some(broken) = before.machine.broken_promise(&transition.next) {
            halts::raise(tx, halts::NODE_OVERSPENT, &format!("request {}: {broken}", self.request)).await?;
        }
        let has_moved = !transition.is_unchanged(&before.machine);
        let ended = apply::apply(tx, before, transition).await?;
        effects::done(tx, &Effect::Pay(self.request)).await?;
        Ok((ended, has_moved))
    }
}
