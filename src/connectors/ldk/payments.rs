//! Paying, once for an id.
//!
//! A row comes first: it is the guard, because LDK forgets a payment within minutes of its end. A payment that has no room (every slot
//! of the channel is taken, what it needs is in flight, the peer is away) waits here, in its row, and is sent when there is
//! room; what can't be paid at all fails at once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lightning::events::PaymentFailureReason;
use lightning::ln::channelmanager::RecentPaymentDetails;
use tokio::sync::Notify;

use super::map;
use super::node::Node;
use super::routes::{Parsed, SendError};
use super::types::lock;
use crate::clock::Timestamp;
use crate::crash;
use crate::domain::lightning::{PaymentHash, PaymentId};
use crate::ports::PortError;
use crate::ports::lightning::{NodeEvent, Outgoing, PayFailure, PayOutcome, Payment};
use crate::store::node::{self, NewPayment, PaymentRow, Step};

/// Queued payments that find no room before the rest is left for the next time.
const TRIES_WITHOUT_ROOM: usize = 8;

/// Payments that have not ended.
#[derive(Default)]
pub struct Paying {
    open: HashMap<PaymentId, Open>,
    queue: VecDeque<PaymentId>,
    /// The queue is being gone through.
    sending: bool,
    /// Something changed since the queue was last looked at.
    pub room: bool,
    /// Told when a payment is no longer being looked for.
    looked: Arc<Notify>,
}

struct Open {
    /// Empty while its row is looked for.
    payment: Option<Payment>,
    state: State,
    since: Timestamp,
    wait: Wait,
    /// It was pending when the process began: LDK says whether it has it.
    inherited: bool,
    /// A channel of ours could not take it when it came to it: somebody else was faster.
    lost_race: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Checking,
    Queued,
    /// It is in the queue, and a way is looked for.
    Trying,
    Pending,
}

/// What a payment waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A slot in a channel that has the money.
    Slots,
    /// A peer that is away, or money that is in flight.
    Peers,
}

/// How it went when a payment was given to LDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    Sent,
    Waits(Wait),
    Failed(PayFailure),
}

impl Paying {
    #[must_use]
    pub fn from_rows(rows: Vec<PaymentRow>) -> Self {
        let mut paying = Self { room: true, ..Self::default() };
        for row in rows {
            let state = if row.state == "queued" { State::Queued } else { State::Pending };
            let destination = map::read_destination(&row.destination);
            let payment = destination.map(|destination| Payment {
                id: row.id,
                hash: row.hash,
                destination,
                amount: row.amount,
                max_fee: row.max_fee,
            });
            if state == State::Queued {
                paying.queue.push_back(row.id);
            }
            let open = Open {
                payment,
                state,
                since: row.created_at,
                wait: Wait::Peers,
                inherited: state == State::Pending,
                lost_race: false,
            };
            paying.open.insert(row.id, open);
        }
        paying
    }

    pub fn forget(&mut self, ended: &[PaymentId]) {
        for id in ended {
            self.open.remove(id);
        }
    }

    /// Whether it did not wait before.
    fn waits(&mut self, id: PaymentId, wait: Wait) -> bool {
        let Some(open) = self.open.get_mut(&id) else { return false };
        open.state = State::Queued;
        open.wait = wait;
        open.lost_race = false;
        let is_new = !self.queue.contains(&id);
        if is_new {
            self.queue.push_back(id);
        }
        is_new
    }

    /// The payment, if it waits: nobody gives up on it while a way is looked for.
    fn try_queued(&mut self, id: PaymentId) -> Option<Payment> {
        let open = self.open.get_mut(&id).filter(|open| open.state == State::Queued)?;
        let payment = open.payment.clone()?;
        open.state = State::Trying;
        Some(payment)
    }

    /// Whether it was waiting, and does not any more.
    fn leave_queue(&mut self, id: PaymentId) -> bool {
        if let Some(open) = self.open.get_mut(&id) {
            open.state = State::Pending;
        }
        let before = self.queue.len();
        self.queue.retain(|queued| *queued != id);
        self.queue.len() < before
    }
}

impl Node {
    pub async fn take_payment(self: Arc<Self>, payment: Payment) -> PayOutcome {
        if !self.is_running() {
            return unknown("the node is stopping");
        }
        loop {
            let looked = Arc::clone(&lock(&self.paying).looked);
            let mut looked = std::pin::pin!(looked.notified());
            // Before the state is read: what changes between the two is not missed.
            looked.as_mut().enable();
            match self.take_up(payment.id) {
                None => break,
                Some(State::Checking) => looked.await,
                Some(State::Queued | State::Trying | State::Pending) => return PayOutcome::Pending,
            }
        }
        match self.stored(payment.id).await {
            Ok(None) => self.take_new(payment).await,
            Ok(Some(row)) => {
                self.let_go(payment.id);
                map::outcome(&row)
            }
            Err(error) => {
                self.let_go(payment.id);
                unknown(error.to_string())
            }
        }
    }

    /// Nobody needs to be kept from paying this: its row says how it stands.
    fn let_go(&self, id: PaymentId) {
        let mut paying = lock(&self.paying);
        paying.open.remove(&id);
        paying.looked.notify_waiters();
    }

    async fn take_new(self: &Arc<Self>, payment: Payment) -> PayOutcome {
        let (id, since) = (payment.id, self.store.clock().now());
        let open = Open {
            payment: Some(payment.clone()),
            state: State::Pending,
            since,
            wait: Wait::Peers,
            inherited: false,
            lost_race: false,
        };
        {
            let mut paying = lock(&self.paying);
            paying.open.insert(id, open);
            paying.looked.notify_waiters();
        }
        self.stage.push(Step::Payment(NewPayment {
            id,
            hash: payment.hash,
            state: "pending",
            destination: map::write_destination(&payment.destination),
            amount: payment.amount,
            max_fee: payment.max_fee,
        }));
        crash::point("node.payment_staged");
        let attempt = self.attempt(payment).await;
        self.note_attempt(id, attempt);
        let durable = self.committed().await;
        crash::point("node.sent");
        match (durable, attempt) {
            (Err(error), _) => unknown(error.to_string()),
            (Ok(()), Attempt::Failed(failure)) => PayOutcome::Failed(failure),
            (Ok(()), Attempt::Sent | Attempt::Waits(_)) => PayOutcome::Pending,
        }
    }

    /// Keeps everybody else from paying the same; the state when somebody does.
    fn take_up(&self, id: PaymentId) -> Option<State> {
        let mut paying = lock(&self.paying);
        if let Some(open) = paying.open.get(&id) {
            return Some(open.state);
        }
        let since = self.store.clock().now();
        let open = Open {
            payment: None,
            state: State::Checking,
            since,
            wait: Wait::Peers,
            inherited: false,
            lost_race: false,
        };
        paying.open.insert(id, open);
        None
    }

    async fn stored(&self, id: PaymentId) -> Result<Option<PaymentRow>, PortError> {
        let mut conn = self.store.read().await?;
        Ok(node::payment(&mut conn, id).await?)
    }

    /// What became of a payment, by its row.
    pub async fn look_up(&self, id: PaymentId, hash: PaymentHash) -> Result<Outgoing, PortError> {
        // Asked before the row is read: it is forgotten here only when its row says how it ended.
        let open = lock(&self.paying).open.get(&id).map(|open| open.state);
        match self.stored(id).await? {
            Some(row) if row.hash != hash => Err(PortError::Nonsense {
                service: "the Lightning node",
                reason: format!("the payment {id} has another hash than {hash}"),
            }),
            Some(row) => Ok(Outgoing::Known(map::outcome(&row))),
            None => match open {
                Some(State::Queued | State::Trying | State::Pending) => Ok(Outgoing::Known(PayOutcome::Pending)),
                Some(State::Checking) | None => Ok(Outgoing::Nothing),
            },
        }
    }

    async fn attempt(self: &Arc<Self>, payment: Payment) -> Attempt {
        self.search(move |node| node.try_now(&payment)).await
    }

    /// The way is looked for before LDK is asked to pay: its locks, which the next commit needs, are not held meanwhile.
    fn try_now(&self, payment: &Payment) -> Attempt {
        let parsed = match Parsed::read(payment, self.network).and_then(|parsed| self.payable(payment, parsed)) {
            Ok(parsed) => parsed,
            Err(failure) => return Attempt::Failed(failure),
        };
        let Ok(way) = self.route(&parsed, payment.amount, Some(payment.max_fee)) else {
            return self.why_no_route(payment, &parsed);
        };
        // Before LDK has it: what is in the manager is never only waiting in its row.
        if lock(&self.paying).leave_queue(payment.id) {
            self.stage.push(Step::PaymentPending(payment.id));
        }
        self.router.want(payment, Some(way));
        match self.send(payment, &parsed) {
            Ok(()) | Err(SendError::Duplicate) => Attempt::Sent,
            Err(SendError::Definite(failure)) => {
                self.router.forget(payment.id);
                Attempt::Failed(failure)
            }
            Err(SendError::NoRoute) => {
                self.router.forget(payment.id);
                self.why_no_route(payment, &parsed)
            }
        }
    }

    fn note_attempt(&self, id: PaymentId, attempt: Attempt) {
        match attempt {
            Attempt::Sent => {}
            Attempt::Waits(wait) => {
                if lock(&self.paying).waits(id, wait) {
                    self.stage.push(Step::PaymentQueued(id));
                }
            }
            Attempt::Failed(failure) => {
                lock(&self.paying).leave_queue(id);
                self.end_failed(id, failure);
            }
        }
    }

    /// No way was found with what our channels can send now. Would there be one later, or for more money?
    fn why_no_route(&self, payment: &Payment, parsed: &Parsed) -> Attempt {
        if let Ok(route) = self.route(parsed, payment.amount, None) {
            let too_high = route.get_total_fees() > payment.max_fee.base_units();
            // Else there was none a moment ago.
            return if too_high { Attempt::Failed(PayFailure::FeeTooHigh) } else { Attempt::Waits(Wait::Slots) };
        }
        let wanted = payment.amount.base_units();
        let (mut slots, mut later, mut most) = (false, false, 0_u64);
        for channel in self.manager.list_channels() {
            let closing = channel.channel_shutdown_state.is_some_and(|state| !map::is_open(&state));
            if !channel.is_channel_ready || closing {
                continue;
            }
            let lacks =
                channel.next_outbound_htlc_limit_msat < wanted || channel.next_outbound_htlc_minimum_msat > wanted;
            let busy = channel.is_usable && !channel.pending_outbound_htlcs.is_empty() && lacks;
            slots |= busy && channel.outbound_capacity_msat >= wanted;
            later |= busy || !channel.is_usable;
            let in_flight = channel.pending_outbound_htlcs.iter().map(|htlc| htlc.amount_msat);
            most = in_flight.chain([channel.outbound_capacity_msat, most]).fold(0, u64::saturating_add);
        }
        // Not even if everything came back.
        match (slots, later && wanted <= most) {
            (true, _) => Attempt::Waits(Wait::Slots),
            (false, true) => Attempt::Waits(Wait::Peers),
            (false, false) => Attempt::Failed(PayFailure::NoLiquidity),
        }
    }

    /// Sends what waits, oldest first, while there is room. It runs beside the loop, once at a time.
    pub fn send_queued(self: &Arc<Self>) {
        let waiting: Vec<PaymentId> = {
            let mut paying = lock(&self.paying);
            if paying.sending || !std::mem::take(&mut paying.room) || paying.queue.is_empty() {
                return;
            }
            paying.sending = true;
            paying.queue.iter().copied().collect()
        };
        drop(tokio::spawn(Arc::clone(self).send_each(waiting)));
    }

    async fn send_each(self: Arc<Self>, waiting: Vec<PaymentId>) {
        let mut without_room = 0;
        for id in waiting {
            if without_room == TRIES_WITHOUT_ROOM || !self.is_running() {
                break;
            }
            let Some(payment) = lock(&self.paying).try_queued(id) else { continue };
            let attempt = self.attempt(payment).await;
            without_room += usize::from(matches!(attempt, Attempt::Waits(_)));
            self.note_attempt(id, attempt);
        }
        lock(&self.paying).sending = false;
    }

    /// Ends what has waited for longer than it may.
    pub fn give_up_waiting(&self) {
        let now = self.store.clock().now();
        let over: Vec<PaymentId> = {
            let paying = lock(&self.paying);
            let is_over = |open: &Open| open.state == State::Queued && open.since.after(self.longest(open.wait)) < now;
            paying.queue.iter().filter(|id| paying.open.get(id).is_none_or(is_over)).copied().collect()
        };
        for id in over {
            self.note_attempt(id, Attempt::Failed(PayFailure::NoLiquidity));
        }
    }

    fn longest(&self, wait: Wait) -> Duration {
        match wait {
            Wait::Slots => self.config.wait_for_slots(),
            Wait::Peers => self.config.wait_for_peers(),
        }
    }

    fn end_failed(&self, id: PaymentId, failure: PayFailure) {
        self.stage.push(Step::PaymentFailed { id, failure: map::failure_name(failure) });
        self.stage.ended(id);
        self.stage.hint(NodeEvent::Outgoing(id));
    }

    /// A channel of ours did not take a payment that it had room for a moment before.
    pub fn note_lost_race(&self, id: PaymentId) {
        if let Some(open) = lock(&self.paying).open.get_mut(&id) {
            open.lost_race = true;
        }
    }

    /// LDK has given up on a payment: nothing of it is out any more. When it lacked room, it waits for some.
    pub fn payment_failed(self: &Arc<Self>, id: PaymentId, reason: Option<PaymentFailureReason>) {
        self.router.forget(id);
        let open = lock(&self.paying).open.get_mut(&id).map(|open| {
            // LDK had it, whatever it has of it now.
            open.inherited = false;
            (open.payment.clone(), open.lost_race)
        });
        // Ours are all open until their end is durable. What is not open has ended, or was never ours.
        let Some((Some(payment), lost_race)) = open else { return };
        let attempt = match reason {
            Some(PaymentFailureReason::RouteNotFound | PaymentFailureReason::RetriesExhausted) if lost_race => {
                Attempt::Waits(Wait::Slots)
            }
            Some(PaymentFailureReason::RouteNotFound) => {
                drop(tokio::spawn(Arc::clone(self).judge(payment)));
                return;
            }
            reason => Attempt::Failed(map::failure(reason)),
        };
        self.note_attempt(id, attempt);
    }

    /// Whether a payment without a way may have one later.
    async fn judge(self: Arc<Self>, payment: Payment) {
        let id = payment.id;
        let attempt = self.search(move |node| match Parsed::read(&payment, node.network) {
            Ok(parsed) if node.route(&parsed, payment.amount, Some(payment.max_fee)).is_err() => {
                node.why_no_route(&payment, &parsed)
            }
            // There is a way, and it was tried.
            _ => Attempt::Failed(PayFailure::NoLiquidity),
        });
        let attempt = attempt.await;
        self.note_attempt(id, attempt);
    }

    /// After the first round of a start, every event that LDK kept has been handled. A payment that was given to us before, and that LDK
    /// does not know, died with the process before it was sent.
    pub fn settle_unsent(&self) {
        let known: HashSet<PaymentId> = self.manager.list_recent_payments().iter().map(recent_id).collect();
        let lost: Vec<PaymentId> = {
            let paying = lock(&self.paying);
            let lost = paying
                .open
                .iter()
                .filter(|(id, open)| open.inherited && open.state == State::Pending && !known.contains(id));
            lost.map(|(id, _)| *id).collect()
        };
        for id in lost {
            tracing::info!(payment = %id, "a payment was never sent");
            self.end_failed(id, PayFailure::NeverSent);
        }
    }
}

fn recent_id(payment: &RecentPaymentDetails) -> PaymentId {
    match payment {
        RecentPaymentDetails::AwaitingInvoice { payment_id }
        | RecentPaymentDetails::Pending { payment_id, .. }
        | RecentPaymentDetails::Fulfilled { payment_id, .. }
        | RecentPaymentDetails::Abandoned { payment_id, .. } => PaymentId(payment_id.0),
    }
}

fn unknown(reason: impl Into<String>) -> PayOutcome {
    PayOutcome::Unknown { reason: reason.into() }
}
