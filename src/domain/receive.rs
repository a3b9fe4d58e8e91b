//! Receiving over Lightning: an invoice, what arrives for it, and the one time that it is credited.

use serde::{Deserialize, Serialize};

use super::event::payloads::{InvoiceOpened, InvoicePaying, InvoiceSettled, Payment};
use super::lightning::{PaymentHash, Preimage};
use super::{Effect, Fact, Illegal, LineStatus, Machine, PaymentLine, Transition};
use crate::clock::Timestamp;
use crate::ids::{RequestId, WalletId};
use crate::ledger::{Account, Kind, Posting, PostingId};
use crate::money::{Amount, Money};

/// How money came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rail {
    /// Through the node's channels.
    Channel,
    /// From wallet to wallet in the books of this gateway.
    Book,
}

impl Rail {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Book => "book",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    Open,
    /// Decided, before the node is told: what it holds for this invoice is claimed and credited, and nobody else may pay it.
    Claiming {
        #[serde(rename = "received")]
        amount: Amount,
    },
    Settled {
        #[serde(rename = "received")]
        amount: Amount,
        by: Rail,
    },
    /// Nothing came in time. What comes late and can still be claimed is taken all the same.
    Expired,
    /// The owner took it back.
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receive {
    pub request: RequestId,
    pub wallet: WalletId,
    pub invoice: String,
    pub hash: PaymentHash,
    /// Ours until it is claimed with: whoever has it can take the payment on its way.
    pub preimage: Preimage,
    /// Empty: the payer says how much.
    pub amount: Option<Amount>,
    pub description: Option<String>,
    /// How often something was to be claimed for it. What is found out about one of those times says nothing about another.
    #[serde(default)]
    pub attempts: u32,
    /// What the node has claimed beyond what was credited. It waits in suspense.
    #[serde(default)]
    pub surplus: Amount,
    #[serde(flatten)]
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node holds so much for it.
    Held {
        amount: Amount,
    },
    /// The node has claimed so much.
    Claimed {
        amount: Amount,
    },
    /// What was held in this attempt went back before it was claimed.
    Missed {
        attempt: u32,
    },
    /// A wallet of this gateway pays it in the books, with no less than was asked for.
    BookPaid {
        amount: Amount,
    },
    TimedOut,
    Cancelled,
}

impl Event {
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Held { .. } => "held",
            Self::Claimed { .. } => "claimed",
            Self::Missed { .. } => "missed",
            Self::BookPaid { .. } => "book_paid",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What to do with something that the node holds for an invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Claim,
    /// Less than was asked for, or for an invoice that no longer takes money.
    FailBack,
}

impl Machine for Receive {
    type Event = Event;
    const KIND: &'static str = "lightning_receive";

    fn state(&self) -> &'static str {
        match self.state {
            State::Open => "open",
            State::Claiming { .. } => "claiming",
            State::Settled { .. } => "settled",
            State::Expired => "expired",
            State::Cancelled => "cancelled",
        }
    }

    fn is_open(&self) -> bool {
        match self.state {
            State::Open | State::Claiming { .. } => true,
            State::Settled { .. } | State::Expired | State::Cancelled => false,
        }
    }

    fn apply(&self, event: &Event, _now: Timestamp) -> Result<Transition<Self>, Illegal> {
        match event {
            Event::Held { amount } => Ok(self.held(*amount)),
            Event::Claimed { amount } => Ok(self.claimed(*amount)),
            Event::Missed { attempt } => Ok(self.missed(*attempt)),
            Event::BookPaid { amount } => self.book_paid(*amount),
            Event::TimedOut => Ok(self.ended(State::Expired, Fact::InvoiceExpired)),
            Event::Cancelled => Ok(self.ended(State::Cancelled, Fact::InvoiceCancelled)),
        }
    }

    fn payment_line(&self) -> Option<PaymentLine> {
        let (status, amount) = match self.state {
            State::Open => (LineStatus::Pending, self.amount),
            State::Claiming { amount } => (LineStatus::Pending, Some(amount)),
            State::Settled { amount, .. } => (LineStatus::Succeeded, Some(amount)),
            State::Expired | State::Cancelled => (LineStatus::Failed, self.amount),
        };
        Some(PaymentLine { hash: self.hash, inbound: true, status, amount })
    }
}

impl Receive {
    /// The invoice as it is first written, with the event that announces it.
    pub fn announce(&self) -> Transition<Self> {
        let opened = InvoiceOpened { payment_hash: self.hash, amount_msat: self.amount };
        Transition::to(self.clone()).event(Fact::InvoiceOpened(opened))
    }

    /// Whether so much, held now, is to be claimed.
    #[must_use]
    pub fn verdict(&self, held: Amount) -> Verdict {
        let enough = self.amount.is_none_or(|asked| held >= asked);
        match self.state {
            State::Open | State::Claiming { .. } | State::Expired if enough => Verdict::Claim,
            State::Open | State::Claiming { .. } | State::Expired | State::Settled { .. } | State::Cancelled => {
                Verdict::FailBack
            }
        }
    }

    /// The state by its name, for logs.
    #[must_use]
    pub fn payment_state(&self) -> &'static str {
        Machine::state(self)
    }

    /// Nothing is expected to happen to it any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !self.is_open()
    }

    fn unchanged(&self) -> Transition<Self> {
        Transition::to(self.clone())
    }

    fn to(&self, state: State) -> Transition<Self> {
        Transition::to(Self { state, ..self.clone() })
    }

    fn attempted(&self, amount: Amount) -> Transition<Self> {
        let attempts = self.attempts.saturating_add(1);
        Transition::to(Self { attempts, state: State::Claiming { amount }, ..self.clone() })
    }

    fn held(&self, amount: Amount) -> Transition<Self> {
        match self.state {
            State::Open | State::Expired if self.verdict(amount) == Verdict::Claim => self
                .attempted(amount)
                .event(Fact::InvoiceClaiming(self.paying(amount)))
                .effect(Effect::Claim(self.hash)),
            State::Open | State::Expired | State::Claiming { .. } | State::Settled { .. } | State::Cancelled => {
                self.unchanged()
            }
        }
    }

    /// The node has the money: it is credited, whatever we had thought of the invoice. Once: what comes beyond that waits in suspense.
    fn claimed(&self, amount: Amount) -> Transition<Self> {
        match self.state {
            State::Open | State::Claiming { .. } | State::Expired | State::Cancelled => {
                self.settled(amount, Rail::Channel).posting(Posting {
                    id: PostingId::of(self.request, "receive"),
                    request: self.request,
                    debit: Account::Channels,
                    credit: Account::Wallet(self.wallet.clone()),
                    money: Money::btc(amount),
                    kind: Kind::Post,
                })
            }
            State::Settled { amount: received, by } => self.claimed_beyond(amount, received, by),
        }
    }

    /// The node has claimed so much in all, for an invoice that was settled: what nobody was credited with is booked, too.
    fn claimed_beyond(&self, claimed: Amount, received: Amount, by: Rail) -> Transition<Self> {
        let credited = match by {
            Rail::Channel => received,
            Rail::Book => Amount::ZERO,
        };
        let beyond = claimed.checked_sub(credited).unwrap_or(Amount::ZERO);
        let Some(more) = beyond.checked_sub(self.surplus).filter(|more| !more.is_zero()) else {
            return self.unchanged();
        };
        let surplus = Fact::InvoiceSurplus(self.paying(more));
        Transition::to(Self { surplus: beyond, ..self.clone() }).event(surplus).posting(Posting {
            id: PostingId::of(self.request, &format!("surplus {}", beyond.base_units())),
            request: self.request,
            debit: Account::Channels,
            credit: Account::Suspense,
            money: Money::btc(more),
            kind: Kind::Post,
        })
    }

    fn missed(&self, of: u32) -> Transition<Self> {
        match self.state {
            State::Claiming { amount } if self.attempts == of => {
                self.to(State::Open).event(Fact::InvoiceMissed(self.paying(amount)))
            }
            State::Open | State::Claiming { .. } | State::Settled { .. } | State::Expired | State::Cancelled => {
                self.unchanged()
            }
        }
    }

    /// The posting stands with the payment: one movement, one entry. Never less than was asked for: the payee ships what it was.
    fn book_paid(&self, amount: Amount) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::Open if self.amount.is_none_or(|asked| amount >= asked) => Ok(self.settled(amount, Rail::Book)),
            State::Open | State::Claiming { .. } | State::Settled { .. } | State::Expired | State::Cancelled => {
                Err(Illegal { state: self.state(), event: "book_paid" })
            }
        }
    }

    fn settled(&self, amount: Amount, by: Rail) -> Transition<Self> {
        let settled = InvoiceSettled { payment_hash: self.hash, amount_msat: amount, by };
        self.to(State::Settled { amount, by }).event(Fact::InvoiceSettled(settled))
    }

    const fn paying(&self, amount: Amount) -> InvoicePaying {
        InvoicePaying { payment_hash: self.hash, amount_msat: amount }
    }

    fn ended(&self, state: State, fact: impl FnOnce(Payment) -> Fact) -> Transition<Self> {
        match self.state {
            State::Open => self.to(state).event(fact(Payment { payment_hash: self.hash })),
            State::Claiming { .. } | State::Settled { .. } | State::Expired | State::Cancelled => self.unchanged(),
        }
    }
}
