//! Coins of the node's own that came for a wallet: an output to an address that is bound to it becomes off-chain money once it is deep
//! enough, whoever paid it. One output, one credit, whatever happens to its transaction.

use bitcoin::{OutPoint, Txid};
use serde::{Deserialize, Serialize};

use super::event::payloads::CoinsReceived;
use super::{Fact, Illegal, Machine, Transition};
use crate::clock::Timestamp;
use crate::ids::{RequestId, WalletId};
use crate::ledger::{Account, Kind, Posting, PostingId};
use crate::money::{Amount, Money, Sat};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// In the mempool.
    Seen,
    /// In a block that is not yet deep enough.
    Mined { height: u32 },
    /// The books owe it to the wallet.
    Credited { height: u32 },
    /// Another transaction spent what it was paid with.
    Replaced { by: Txid },
    /// It left the mempool without a successor.
    Evicted,
    /// Its block is no longer part of the chain.
    Reorged,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    pub request: RequestId,
    pub wallet: WalletId,
    pub outpoint: OutPoint,
    pub address: String,
    pub amount: Sat,
    /// How often it was credited; each time but the last, a reorganisation took it back.
    pub times: u32,
    #[serde(flatten)]
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    InMempool,
    Mined {
        height: u32,
    },
    /// The block it is in is deep enough.
    Deep,
    /// Its block is gone. `available` is what the wallet has and nothing holds: the rest it owes.
    Unmined {
        available: Amount,
    },
    Replaced {
        by: Txid,
    },
    Evicted,
    /// The client offers its transaction again: what had taken its place is gone.
    Revived,
}

impl Machine for Credit {
    type Event = Event;
    const KIND: &'static str = "settle_credit";

    fn state(&self) -> &'static str {
        match self.state {
            State::Seen => "seen",
            State::Mined { .. } => "mined",
            State::Credited { .. } => "credited",
            State::Replaced { .. } => "replaced",
            State::Evicted => "evicted",
            State::Reorged => "reorged",
        }
    }

    fn is_open(&self) -> bool {
        match self.state {
            State::Seen | State::Mined { .. } | State::Reorged => true,
            State::Credited { .. } | State::Replaced { .. } | State::Evicted => false,
        }
    }

    fn apply(&self, event: &Event, _now: Timestamp) -> Result<Transition<Self>, Illegal> {
        Ok(match event {
            Event::InMempool => self.in_mempool(),
            Event::Revived => match self.state {
                State::Replaced { .. } => self.moved_to(State::Seen),
                State::Seen | State::Mined { .. } | State::Credited { .. } | State::Evicted | State::Reorged => {
                    self.unchanged()
                }
            },
            Event::Mined { height } => self.mined(*height),
            Event::Deep => self.deep()?,
            Event::Unmined { available } => self.unmined(*available),
            Event::Replaced { by } => match self.state {
                State::Seen | State::Evicted | State::Reorged => self.moved_to(State::Replaced { by: *by }),
                State::Mined { .. } | State::Credited { .. } | State::Replaced { .. } => self.unchanged(),
            },
            Event::Evicted => match self.state {
                State::Seen | State::Reorged => self.moved_to(State::Evicted),
                State::Mined { .. } | State::Credited { .. } | State::Evicted | State::Replaced { .. } => {
                    self.unchanged()
                }
            },
        })
    }
}

impl Credit {
    /// The credit as it is first written, with the event that announces it.
    pub fn announce(&self) -> Transition<Self> {
        Transition::to(self.clone()).event(self.fact())
    }

    /// The block that it is in.
    #[must_use]
    pub const fn height(&self) -> Option<u32> {
        match self.state {
            State::Mined { height } | State::Credited { height } => Some(height),
            State::Seen | State::Replaced { .. } | State::Evicted | State::Reorged => None,
        }
    }

    fn in_mempool(&self) -> Transition<Self> {
        match self.state {
            State::Evicted | State::Replaced { .. } => self.moved_to(State::Seen),
            State::Seen | State::Mined { .. } | State::Credited { .. } | State::Reorged => self.unchanged(),
        }
    }

    fn mined(&self, height: u32) -> Transition<Self> {
        match self.state {
            State::Mined { height: h } | State::Credited { height: h } if h == height => self.unchanged(),
            // What is credited is credited, wherever the block stands.
            State::Credited { .. } => Transition::to(self.in_state(State::Credited { height })),
            State::Seen | State::Mined { .. } | State::Replaced { .. } | State::Evicted | State::Reorged => {
                self.moved_to(State::Mined { height })
            }
        }
    }

    fn deep(&self) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::Mined { height } => {
                let next = Self { times: self.times.saturating_add(1), ..self.in_state(State::Credited { height }) };
                let to = Account::Wallet(self.wallet.clone());
                let step = format!("credit-{}", next.times);
                let posting = self.posting(&step, Account::Crossing, to, Amount::from_sat(self.amount));
                Ok(next.announce().posting(posting))
            }
            State::Credited { .. } => Ok(self.unchanged()),
            State::Seen | State::Replaced { .. } | State::Evicted | State::Reorged => {
                Err(Illegal { state: self.state(), event: "deep" })
            }
        }
    }

    /// What was credited is taken back by new postings: from the wallet what is there, and the rest it owes.
    fn unmined(&self, available: Amount) -> Transition<Self> {
        match self.state {
            State::Mined { .. } => self.moved_to(State::Reorged),
            State::Credited { .. } => {
                let credited = Amount::from_sat(self.amount);
                let taken = credited.min(available);
                let owed = credited.checked_sub(taken).unwrap_or(Amount::ZERO);
                let mut transition = self.moved_to(State::Reorged);
                for (what, from, amount) in [
                    ("reversal", Account::Wallet(self.wallet.clone()), taken),
                    ("debt", Account::Debt(self.wallet.clone()), owed),
                ] {
                    if !amount.is_zero() {
                        let step = format!("{what}-{}", self.times);
                        transition = transition.posting(self.posting(&step, from, Account::Crossing, amount));
                    }
                }
                transition
            }
            State::Seen | State::Replaced { .. } | State::Evicted | State::Reorged => self.unchanged(),
        }
    }

    fn posting(&self, step: &str, debit: Account, credit: Account, amount: Amount) -> Posting {
        let (id, money) = (PostingId::of(self.request, step), Money::btc(amount));
        Posting { id, request: self.request, debit, credit, money, kind: Kind::Post }
    }

    fn unchanged(&self) -> Transition<Self> {
        Transition::to(self.clone())
    }

    fn in_state(&self, state: State) -> Self {
        Self { state, ..self.clone() }
    }

    fn moved_to(&self, state: State) -> Transition<Self> {
        self.in_state(state).announce()
    }

    fn fact(&self) -> Fact {
        let coins = CoinsReceived::of(self.outpoint, &self.address, self.amount);
        match self.state {
            State::Seen => Fact::SettleSeen(coins),
            State::Mined { height } => Fact::SettleMined(CoinsReceived { height: Some(height), ..coins }),
            State::Credited { height } => Fact::SettleCredited(CoinsReceived { height: Some(height), ..coins }),
            State::Replaced { by } => Fact::SettleReplaced(CoinsReceived { replaced_by: Some(by), ..coins }),
            State::Evicted => Fact::SettleEvicted(coins),
            State::Reorged => Fact::SettleReorged(coins),
        }
    }
}
