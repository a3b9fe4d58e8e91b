//! Off-chain money that leaves on-chain: the client consents, the node sends its own coins, the wallet pays what that really cost.

use bitcoin::{OutPoint, Txid};
use serde::{Deserialize, Serialize};

use super::event::payloads::{
    Nothing, Reason, Replacement, Transaction, TransactionMined, WithdrawalBegun, WithdrawalSent,
    WithdrawalSentAfterAll,
};
use super::{Effect, Fact, Illegal, Machine, Transition};
use crate::clock::Timestamp;
use crate::ids::{RequestId, WalletId};
use crate::ledger::{Account, Kind, Posting, PostingId};
use crate::money::{Amount, FeeRate, Money, Sat};

mod closing;

pub use closing::Close;

/// What was asked for. Fixed at begin, and what the client consents to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub to: String,
    /// The amount as the caller wrote it.
    pub amount_requested: Sat,
    /// What the recipient gets: less than requested when the fee is deducted.
    pub amount_sent: Sat,
    pub fee_rate: FeeRate,
    /// What the transaction may cost at most.
    pub max_fee: Sat,
    pub deduct_fee: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// The amount and the ceiling are held.
    AwaitingSignature,
    /// Consented to, and given to the node. Only the node's definite word moves it. Its transaction is in no block up to this height.
    Requested {
        since: u32,
    },
    /// The node's coins do not reach now, and nothing was sent. It is tried again, and may be cancelled.
    Queued {
        reason: String,
    },
    /// The node's coins do not reach, and the last of `closes` is being closed, by agreement with its peer.
    ClosingChannels,
    /// The channel is closed, and the transaction that closes it is in no block up to this height.
    WaitingClose {
        since: u32,
    },
    /// That is in a block of this height, and what it brought is not among the node's coins yet.
    Sweeping {
        height: u32,
    },
    /// The node has signed and sent it.
    Broadcast {
        txid: Txid,
        fee: Sat,
    },
    /// In a block that is not yet deep enough.
    Seen {
        txid: Txid,
        fee: Sat,
        height: u32,
    },
    Confirmed {
        txid: Txid,
        fee: Sat,
        height: u32,
    },
    /// Its owner took it back before anything was sent.
    Cancelled,
    /// No consent came in time.
    Expired,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdraw {
    pub request: RequestId,
    pub wallet: WalletId,
    pub terms: Terms,
    /// Channels that were closed for it, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closes: Vec<Close>,
    /// How often it was taken to be given to the node. What the node says of an earlier time is no answer to a later one.
    #[serde(default)]
    pub attempts: u32,
    #[serde(flatten)]
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The client consented, and the node is to send. The chain is so high.
    Signed {
        height: u32,
    },
    TimedOut,
    /// The node has sent it.
    Sent {
        txid: Txid,
        fee: Sat,
    },
    /// The node has sent another version of the same transaction, or an older version is in a block after all.
    Replaced {
        txid: Txid,
    },
    /// The node says of this attempt that it can't now, and that nothing was sent.
    Short {
        attempt: u32,
        reason: String,
    },
    /// A channel is to be closed for it.
    Close {
        channel: String,
        funding: OutPoint,
    },
    /// That channel can't be closed now.
    NotClosed {
        reason: String,
    },
    /// The node has closed it. The chain is so high.
    Closed {
        height: u32,
    },
    /// The transaction that closed it is in a block.
    CloseMined {
        txid: Txid,
        height: u32,
    },
    /// What it brought is among the node's coins.
    Swept {
        by: Option<Txid>,
        height: u32,
    },
    /// Somebody takes it to the node, in an attempt of its own. The chain is so high.
    Taken {
        height: u32,
    },
    Cancelled,
    Mined {
        height: u32,
    },
    /// The block it is in is deep enough.
    Deep,
    Unmined,
}

impl Event {
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Signed { .. } => "signed",
            Self::TimedOut => "timed_out",
            Self::Sent { .. } => "sent",
            Self::Replaced { .. } => "replaced",
            Self::Short { .. } => "short",
            Self::Close { .. } => "close",
            Self::NotClosed { .. } => "not_closed",
            Self::Closed { .. } => "closed",
            Self::CloseMined { .. } => "close_mined",
            Self::Swept { .. } => "swept",
            Self::Taken { .. } => "taken",
            Self::Cancelled => "cancelled",
            Self::Mined { .. } => "mined",
            Self::Deep => "deep",
            Self::Unmined => "unmined",
        }
    }
}

impl Machine for Withdraw {
    type Event = Event;
    const KIND: &'static str = "withdraw";

    fn state(&self) -> &'static str {
        match self.state {
            State::AwaitingSignature => "awaiting_signature",
            State::Requested { .. } => "requested",
            State::Queued { .. } => "queued",
            State::ClosingChannels => "closing_channels",
            State::WaitingClose { .. } => "waiting_close",
            State::Sweeping { .. } => "sweeping",
            State::Broadcast { .. } => "broadcast",
            State::Seen { .. } => "seen",
            State::Confirmed { .. } => "confirmed",
            State::Cancelled => "cancelled",
            State::Expired => "expired",
        }
    }

    fn is_open(&self) -> bool {
        match self.state {
            State::AwaitingSignature
            | State::Requested { .. }
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
            | State::Broadcast { .. }
            | State::Seen { .. } => true,
            State::Confirmed { .. } | State::Cancelled | State::Expired => false,
        }
    }

    fn apply(&self, event: &Event, _now: Timestamp) -> Result<Transition<Self>, Illegal> {
        match event {
            Event::Signed { height } => self.signed(*height),
            Event::TimedOut => Ok(self.timed_out()),
            Event::Sent { txid, fee } => self.sent(*txid, *fee),
            Event::Replaced { txid } => self.replaced(*txid),
            Event::Short { attempt, reason } => self.short(*attempt, reason),
            Event::Close { channel, funding } => self.close(channel, *funding),
            Event::NotClosed { reason } => self.not_closed(reason),
            Event::Closed { height } => self.closed(*height),
            Event::CloseMined { txid, height } => self.close_mined(*txid, *height),
            Event::Swept { by, height } => self.swept(*by, *height),
            Event::Taken { height } => self.taken(*height),
            Event::Cancelled => self.cancelled(),
            Event::Mined { height } => self.mined(*height),
            Event::Deep => self.deep(),
            Event::Unmined => Ok(self.unmined()),
        }
    }
}

impl Withdraw {
    /// What is set aside: the amount and the ceiling. `None` when the sum is more than there can be.
    #[must_use]
    pub fn held(&self) -> Option<Amount> {
        self.terms.amount_sent.checked_add(self.terms.max_fee).map(Amount::from_sat)
    }

    /// The withdrawal as it is first written: the hold, and the event that announces it. `None` when the sum is more than there can be.
    #[must_use]
    pub fn begin(&self) -> Option<Transition<Self>> {
        let begun = WithdrawalBegun {
            to: self.terms.to.clone(),
            amount_sats: self.terms.amount_sent,
            amount_msat: Amount::from_sat(self.terms.amount_sent),
            max_fee_sats: self.terms.max_fee,
            max_fee_msat: Amount::from_sat(self.terms.max_fee),
        };
        let hold = self.posting(self.hold(), self.held()?, Kind::Hold);
        Some(Transition::to(self.clone()).posting(hold).event(Fact::WithdrawalBegun(begun)))
    }

    /// The transaction that stands for it.
    #[must_use]
    pub const fn txid(&self) -> Option<Txid> {
        match self.state {
            State::Broadcast { txid, .. } | State::Seen { txid, .. } | State::Confirmed { txid, .. } => Some(txid),
            State::AwaitingSignature
            | State::Requested { .. }
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
            | State::Cancelled
            | State::Expired => None,
        }
    }

    /// What it really cost.
    #[must_use]
    pub const fn fee(&self) -> Option<Sat> {
        match self.state {
            State::Broadcast { fee, .. } | State::Seen { fee, .. } | State::Confirmed { fee, .. } => Some(fee),
            State::AwaitingSignature
            | State::Requested { .. }
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
            | State::Cancelled
            | State::Expired => None,
        }
    }

    /// The block that it is in.
    #[must_use]
    pub const fn height(&self) -> Option<u32> {
        match self.state {
            State::Seen { height, .. } | State::Confirmed { height, .. } => Some(height),
            State::AwaitingSignature
            | State::Requested { .. }
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
            | State::Broadcast { .. }
            | State::Cancelled
            | State::Expired => None,
        }
    }

    fn hold(&self) -> PostingId {
        PostingId::of(self.request, "hold")
    }

    fn posting(&self, id: PostingId, amount: Amount, kind: Kind) -> Posting {
        let (debit, credit) = (Account::Wallet(self.wallet.clone()), Account::Crossing);
        Posting { id, request: self.request, debit, credit, money: Money::btc(amount), kind }
    }

    fn unchanged(&self) -> Transition<Self> {
        Transition::to(self.clone())
    }

    fn to(&self, state: State) -> Transition<Self> {
        Transition::to(Self { state, ..self.clone() })
    }

    fn illegal(&self, event: &Event) -> Illegal {
        Illegal { state: self.state(), event: event.name() }
    }

    fn signed(&self, height: u32) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::AwaitingSignature => Ok(self
                .to(State::Requested { since: height })
                .event(Fact::WithdrawalRequested(Nothing {}))
                .effect(Effect::Withdraw(self.request))),
            State::Requested { .. }
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. } => Ok(self.unchanged()),
            State::Cancelled | State::Expired => Err(self.illegal(&Event::Signed { height })),
        }
    }

    fn timed_out(&self) -> Transition<Self> {
        match self.state {
            State::AwaitingSignature => self.released(State::Expired).event(Fact::WithdrawalExpired(Nothing {})),
            State::Requested { .. }
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled
            | State::Expired => self.unchanged(),
        }
    }

    /// The wallet pays what it really cost, and never more than it agreed to.
    fn sent(&self, txid: Txid, fee: Sat) -> Result<Transition<Self>, Illegal> {
        match self.state {
            // An order of before may be found to be done whatever was begun since.
            State::Requested { .. }
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. } => {
                let event = Event::Sent { txid, fee };
                let charged = fee.min(self.terms.max_fee);
                let sum = self.terms.amount_sent.checked_add(charged).ok_or_else(|| self.illegal(&event))?;
                let paid = PostingId::of(self.request, "withdraw");
                let mut next = self
                    .to(State::Broadcast { txid, fee })
                    .event(Fact::WithdrawalBroadcast(WithdrawalSent {
                        txid,
                        fee_sats: fee,
                        fee_msat: Amount::from_sat(fee),
                    }))
                    .posting(self.posting(paid, Amount::from_sat(sum), Kind::PostHold(self.hold())));
                if let Some(over) = fee.checked_sub(charged).filter(|over| *over > Sat::ZERO) {
                    let step = PostingId::of(self.request, "overspend");
                    let loss = self.posting(step, Amount::from_sat(over), Kind::Post);
                    next = next.posting(Posting { debit: Account::Suspense, ..loss });
                }
                Ok(next)
            }
            State::Broadcast { .. } | State::Seen { .. } | State::Confirmed { .. } => Ok(self.unchanged()),
            State::AwaitingSignature => {
                Ok(self.sent_after_all(self.released(State::Broadcast { txid, fee }), txid, fee))
            }
            State::Cancelled | State::Expired => {
                Ok(self.sent_after_all(self.to(State::Broadcast { txid, fee }), txid, fee))
            }
        }
    }

    /// A node that had said that nothing went out, or that nobody had asked, has sent it. The hold is gone, so the loss waits in suspense.
    fn sent_after_all(&self, next: Transition<Self>, txid: Txid, fee: Sat) -> Transition<Self> {
        let Some(sum) = self.terms.amount_sent.checked_add(fee) else { return self.unchanged() };
        let step = PostingId::of(self.request, "sent_after_all");
        let loss = self.posting(step, Amount::from_sat(sum), Kind::Post);
        let sent = WithdrawalSentAfterAll {
            txid,
            amount_sats: self.terms.amount_sent,
            amount_msat: Amount::from_sat(self.terms.amount_sent),
            fee_sats: fee,
            fee_msat: Amount::from_sat(fee),
            was: self.state().to_owned(),
        };
        next.posting(Posting { debit: Account::Suspense, ..loss }).event(Fact::WithdrawalSentAfterAll(sent))
    }

    /// What the node has broken by sending this, if it has broken its word.
    #[must_use]
    pub fn broken_promise(&self, fee: Sat) -> Option<String> {
        match self.state {
            State::AwaitingSignature | State::Cancelled | State::Expired => {
                Some(format!("the node sent coins for what was {}", self.state()))
            }
            State::Requested { .. }
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
                if fee > self.terms.max_fee =>
            {
                Some(format!("a fee of {fee} sat, and the ceiling was {} sat", self.terms.max_fee))
            }
            State::Requested { .. }
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. } => None,
        }
    }

    /// What another version costs beyond the first is the operator's, who wanted it: the wallet has paid what it agreed to.
    fn replaced(&self, txid: Txid) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::Broadcast { txid: before, fee } if before != txid => Ok(self
                .to(State::Broadcast { txid, fee })
                .event(Fact::WithdrawalReplaced(Replacement { txid, replaces: before }))),
            State::Broadcast { .. } | State::Seen { .. } | State::Confirmed { .. } => Ok(self.unchanged()),
            State::AwaitingSignature
            | State::Requested { .. }
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
            | State::Cancelled
            | State::Expired => Err(self.illegal(&Event::Replaced { txid })),
        }
    }

    fn short(&self, attempt: u32, reason: &str) -> Result<Transition<Self>, Illegal> {
        match &self.state {
            State::Requested { .. } if attempt == self.attempts => Ok(self
                .to(State::Queued { reason: reason.to_owned() })
                .event(Fact::WithdrawalQueued(Reason { reason: reason.to_owned() }))),
            // An answer to somebody else's attempt says nothing about this one, and one that comes late nothing at all.
            State::Requested { .. }
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled
            | State::Expired => Ok(self.unchanged()),
            State::AwaitingSignature => Err(self.illegal(&Event::Short { attempt, reason: reason.to_owned() })),
        }
    }

    /// Each taking is an attempt of its own: whoever took it before is not heard any more.
    fn taken(&self, height: u32) -> Result<Transition<Self>, Illegal> {
        let attempts = self.attempts.saturating_add(1);
        let as_of = |since| Transition::to(Self { attempts, state: State::Requested { since }, ..self.clone() });
        match self.state {
            State::Queued { .. } => Ok(as_of(height)),
            State::Requested { since } => Ok(as_of(since)),
            State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled
            | State::Expired => Ok(self.unchanged()),
            State::AwaitingSignature => Err(self.illegal(&Event::Taken { height })),
        }
    }

    /// While the node is being asked, nobody knows whether it sends: only what it has put off can be taken back.
    fn cancelled(&self) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::AwaitingSignature
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. } => {
                Ok(self.released(State::Cancelled).event(Fact::WithdrawalCancelled(Nothing {})))
            }
            State::Cancelled => Ok(self.unchanged()),
            State::Requested { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Expired => Err(self.illegal(&Event::Cancelled)),
        }
    }

    fn mined(&self, height: u32) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::Seen { height: h, .. } | State::Confirmed { height: h, .. } if h == height => Ok(self.unchanged()),
            State::Broadcast { txid, fee } | State::Seen { txid, fee, .. } | State::Confirmed { txid, fee, .. } => {
                Ok(self
                    .to(State::Seen { txid, fee, height })
                    .event(Fact::WithdrawalSeen(TransactionMined { txid, height })))
            }
            State::AwaitingSignature
            | State::Requested { .. }
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
            | State::Cancelled
            | State::Expired => Err(self.illegal(&Event::Mined { height })),
        }
    }

    fn deep(&self) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::Seen { txid, fee, height } => Ok(self
                .to(State::Confirmed { txid, fee, height })
                .event(Fact::WithdrawalConfirmed(TransactionMined { txid, height }))),
            State::Confirmed { .. } => Ok(self.unchanged()),
            State::AwaitingSignature
            | State::Requested { .. }
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
            | State::Broadcast { .. }
            | State::Cancelled
            | State::Expired => Err(self.illegal(&Event::Deep)),
        }
    }

    fn unmined(&self) -> Transition<Self> {
        match self.state {
            State::Seen { txid, fee, .. } | State::Confirmed { txid, fee, .. } => {
                self.to(State::Broadcast { txid, fee }).event(Fact::WithdrawalReorged(Transaction { txid }))
            }
            State::AwaitingSignature
            | State::Requested { .. }
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
            | State::Broadcast { .. }
            | State::Cancelled
            | State::Expired => self.unchanged(),
        }
    }

    fn released(&self, state: State) -> Transition<Self> {
        let next = self.to(state);
        match self.held() {
            Some(held) => {
                let step = PostingId::of(self.request, "release");
                next.posting(self.posting(step, held, Kind::VoidHold(self.hold())))
            }
            None => next,
        }
    }
}
