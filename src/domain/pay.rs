//! Paying over Lightning: what was asked for, the consent, and the one outcome that moves money.

use serde::{Deserialize, Serialize};

use super::event::payloads::{
    Nothing, Payment, PaymentBegun, PaymentCost, PaymentFailed, PaymentOverspent, PaymentSucceeded,
};
use super::lightning::{Destination, Paid, PayFailure, PaymentHash, Preimage};
use super::receive::Rail;
use super::{Effect, Fact, Illegal, LineStatus, Machine, PaymentLine, Transition};
use crate::clock::Timestamp;
use crate::ids::{KeyId, RequestId, WalletId};
use crate::ledger::{Account, Kind, Posting, PostingId};
use crate::money::{Amount, Money};

/// What was asked for. Fixed at begin, and what the client consents to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub destination: Destination,
    pub hash: PaymentHash,
    pub amount: Amount,
    /// What routing may cost at most. Zero for a transfer in the books.
    pub max_fee: Amount,
    /// What the cheapest way cost at begin, where the node could tell.
    pub estimate: Option<Amount>,
    /// The payee's node, where the invoice tells.
    pub payee: Option<String>,
    /// The invoice is one of this gateway: whose, and by which request.
    pub book: Option<Book>,
    /// Which pair of endpoints began it; the same pair must end it.
    pub door: Door,
    /// The key that consents in the place of the wallet's owner, within what was granted to it. Empty where the owner signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    pub receive: RequestId,
    pub wallet: WalletId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    PayInvoice,
    Pay,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// The amount and the ceiling are held.
    AwaitingSignature,
    /// Consented to. Only the node's definite word ends it.
    Paying,
    Succeeded {
        fee: Amount,
        preimage: Preimage,
        by: Rail,
    },
    Failed {
        why: PayFailure,
    },
    /// No consent came in time.
    Expired,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pay {
    pub request: RequestId,
    pub wallet: WalletId,
    pub terms: Terms,
    #[serde(flatten)]
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The client consented, itself or by the grant of a key, and the node is to pay.
    Signed,
    /// The client consented, and the books have paid.
    Booked {
        preimage: Preimage,
    },
    TimedOut,
    /// The node has paid.
    Paid(Paid),
    /// The node says that nothing of it is out or will go out.
    Failed {
        why: PayFailure,
    },
}

impl Event {
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Booked { .. } => "booked",
            Self::TimedOut => "timed_out",
            Self::Paid(_) => "paid",
            Self::Failed { .. } => "failed",
        }
    }
}

impl Machine for Pay {
    type Event = Event;
    const KIND: &'static str = "lightning_pay";

    fn state(&self) -> &'static str {
        self.payment_state()
    }

    fn is_open(&self) -> bool {
        match self.state {
            State::AwaitingSignature | State::Paying => true,
            State::Succeeded { .. } | State::Failed { .. } | State::Expired => false,
        }
    }

    fn apply(&self, event: &Event, _now: Timestamp) -> Result<Transition<Self>, Illegal> {
        match event {
            Event::Signed => self.signed(),
            Event::Booked { preimage } => self.booked(*preimage),
            Event::TimedOut => Ok(self.timed_out()),
            Event::Paid(paid) => self.paid(*paid),
            Event::Failed { why } => self.failed(*why),
        }
    }

    fn payment_line(&self) -> Option<PaymentLine> {
        let status = match self.state {
            State::AwaitingSignature => LineStatus::Waiting,
            State::Paying => LineStatus::Pending,
            State::Succeeded { .. } => LineStatus::Succeeded,
            State::Failed { .. } => LineStatus::Failed,
            State::Expired => LineStatus::Void,
        };
        Some(PaymentLine { hash: self.terms.hash, inbound: false, status, amount: Some(self.terms.amount) })
    }

    fn spending_key(&self) -> Option<&KeyId> {
        self.terms.key.as_ref()
    }
}

impl Pay {
    /// What is set aside: the amount and the ceiling. `None` when the sum is more than there can be.
    #[must_use]
    pub fn held(&self) -> Option<Amount> {
        self.terms.amount.checked_add(self.terms.max_fee)
    }

    /// The payment as it is first written: the hold, and the event that announces it. `None` when the sum is more than there can be.
    #[must_use]
    pub fn begin(&self) -> Option<Transition<Self>> {
        let Terms { hash, amount, max_fee, .. } = &self.terms;
        let begun = PaymentBegun { payment_hash: *hash, amount_msat: *amount, max_fee_msat: *max_fee };
        let hold = self.posting(self.hold(), self.held()?, Kind::Hold);
        Some(Transition::to(self.clone()).posting(hold).event(Fact::PaymentBegun(begun)))
    }

    /// The state by its name, for logs and counters.
    #[must_use]
    pub const fn payment_state(&self) -> &'static str {
        match self.state {
            State::AwaitingSignature => "awaiting_signature",
            State::Paying => "paying",
            State::Succeeded { .. } => "succeeded",
            State::Failed { .. } => "failed",
            State::Expired => "expired",
        }
    }

    /// Nothing is expected to happen to it any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !self.is_open()
    }

    /// How the node broke its word on the way to what the payment becomes now, if it did.
    #[must_use]
    pub fn broken_promise(&self, next: &Self) -> Option<String> {
        let State::Succeeded { fee, by: Rail::Channel, .. } = next.state else { return None };
        match self.state {
            State::Failed { .. } => Some("the node paid what it had called failed".to_owned()),
            State::AwaitingSignature | State::Paying | State::Expired if fee > self.terms.max_fee => {
                Some(format!("the node paid a fee of {fee} msat, and the ceiling was {} msat", self.terms.max_fee))
            }
            State::AwaitingSignature | State::Paying | State::Expired | State::Succeeded { .. } => None,
        }
    }

    fn hold(&self) -> PostingId {
        PostingId::of(self.request, "hold")
    }

    fn posting(&self, id: PostingId, amount: Amount, kind: Kind) -> Posting {
        let credit = match &self.terms.book {
            Some(book) => Account::Wallet(book.wallet.clone()),
            None => Account::Channels,
        };
        let debit = Account::Wallet(self.wallet.clone());
        Posting { id, request: self.request, debit, credit, money: Money::btc(amount), kind }
    }

    fn unchanged(&self) -> Transition<Self> {
        Transition::to(self.clone())
    }

    fn to(&self, state: State) -> Transition<Self> {
        Transition::to(Self { state, ..self.clone() })
    }

    const fn illegal(&self, event: &Event) -> Illegal {
        Illegal { state: self.payment_state(), event: event.name() }
    }

    fn signed(&self) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::AwaitingSignature => Ok(self
                .to(State::Paying)
                .event(Fact::PaymentPaying(Payment { payment_hash: self.terms.hash }))
                .effect(Effect::Pay(self.request))),
            State::Paying | State::Succeeded { .. } | State::Failed { .. } => Ok(self.unchanged()),
            State::Expired => Err(self.illegal(&Event::Signed)),
        }
    }

    fn booked(&self, preimage: Preimage) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::AwaitingSignature => Ok(self.succeeded(Amount::ZERO, preimage, Rail::Book).posting(self.posting(
                PostingId::of(self.request, "book"),
                self.terms.amount,
                Kind::PostHold(self.hold()),
            ))),
            State::Succeeded { by: Rail::Book, .. } => Ok(self.unchanged()),
            State::Succeeded { by: Rail::Channel, .. } | State::Paying | State::Failed { .. } | State::Expired => {
                Err(self.illegal(&Event::Booked { preimage }))
            }
        }
    }

    fn timed_out(&self) -> Transition<Self> {
        match self.state {
            State::AwaitingSignature => self.released(State::Expired).event(Fact::PaymentExpired(Nothing {})),
            State::Paying | State::Succeeded { .. } | State::Failed { .. } | State::Expired => self.unchanged(),
        }
    }

    fn paid(&self, paid: Paid) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::Paying => Ok(self.settle(paid)),
            State::Succeeded { .. } => Ok(self.unchanged()),
            State::Failed { .. } => Ok(self.paid_after_all(paid)),
            State::AwaitingSignature | State::Expired => Err(self.illegal(&Event::Paid(paid))),
        }
    }

    /// The wallet pays what it agreed to and not more: what a node spent beyond the ceiling is the operator's loss.
    fn settle(&self, paid: Paid) -> Transition<Self> {
        let fee = paid.fee.min(self.terms.max_fee);
        let Some(sum) = self.terms.amount.checked_add(fee) else { return self.unchanged() };
        let step = PostingId::of(self.request, "pay");
        let next = self.succeeded(paid.fee, paid.preimage, Rail::Channel).posting(self.posting(
            step,
            sum,
            Kind::PostHold(self.hold()),
        ));
        match paid.fee.checked_sub(self.terms.max_fee) {
            Some(over) if !over.is_zero() => {
                next.posting(self.loss("overspend", over)).event(Fact::PaymentOverspent(PaymentOverspent {
                    payment_hash: self.terms.hash,
                    fee_msat: paid.fee,
                    max_fee_msat: self.terms.max_fee,
                }))
            }
            Some(_) | None => next,
        }
    }

    /// A node that said "failed" and paid all the same has broken its word. The hold is gone, so the loss waits in suspense.
    fn paid_after_all(&self, paid: Paid) -> Transition<Self> {
        let Some(sum) = self.terms.amount.checked_add(paid.fee) else { return self.unchanged() };
        let cost = PaymentCost { payment_hash: self.terms.hash, amount_msat: self.terms.amount, fee_msat: paid.fee };
        self.succeeded(paid.fee, paid.preimage, Rail::Channel)
            .posting(self.loss("paid_after_failure", sum))
            .event(Fact::PaymentPaidAfterFailure(cost))
    }

    fn loss(&self, step: &str, amount: Amount) -> Posting {
        Posting {
            id: PostingId::of(self.request, step),
            request: self.request,
            debit: Account::Suspense,
            credit: Account::Channels,
            money: Money::btc(amount),
            kind: Kind::Post,
        }
    }

    fn failed(&self, why: PayFailure) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::AwaitingSignature | State::Paying => {
                let failed = PaymentFailed { payment_hash: self.terms.hash, why };
                Ok(self.released(State::Failed { why }).event(Fact::PaymentFailed(failed)))
            }
            // What is known to have arrived has arrived.
            State::Succeeded { .. } | State::Failed { .. } => Ok(self.unchanged()),
            State::Expired => Err(self.illegal(&Event::Failed { why })),
        }
    }

    fn succeeded(&self, fee: Amount, preimage: Preimage, by: Rail) -> Transition<Self> {
        let (payment_hash, amount_msat) = (self.terms.hash, self.terms.amount);
        let succeeded = PaymentSucceeded { payment_hash, amount_msat, fee_msat: fee, by };
        self.to(State::Succeeded { fee, preimage, by }).event(Fact::PaymentSucceeded(succeeded))
    }

    fn released(&self, state: State) -> Transition<Self> {
        let next = self.to(state);
        match self.held() {
            Some(held) => {
                next.posting(self.posting(PostingId::of(self.request, "release"), held, Kind::VoidHold(self.hold())))
            }
            None => next,
        }
    }
}
