//! Money that arrived on an address handed out for receiving. One output, one deposit, whatever happens to its transaction.

use bitcoin::{OutPoint, Txid};
use serde::{Deserialize, Serialize};

use super::event::payloads::CoinsReceived;
use super::{Fact, Illegal, Machine, Transition};
use crate::clock::Timestamp;
use crate::ids::RequestId;
use crate::money::Sat;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// In the mempool.
    Seen,
    /// In a block that is not yet deep enough.
    Mined {
        height: u32,
    },
    Confirmed {
        height: u32,
    },
    /// Another transaction spent what it was paid with.
    Replaced {
        by: Txid,
    },
    /// It left the mempool without a successor.
    Evicted,
    /// Its block is no longer part of the chain.
    Reorged,
    /// Its transaction spends a coin of the same wallet, as was found out later: it is no money from outside, whatever becomes of it.
    Own,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deposit {
    pub outpoint: OutPoint,
    pub address: String,
    pub amount: Sat,
    /// The request that handed out the address.
    pub address_request: Option<RequestId>,
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
    Unmined,
    Replaced {
        by: Txid,
    },
    Evicted,
    /// The client offers its transaction again: what had taken its place is gone.
    Revived,
    /// A coin that its transaction spends is found to be the same wallet's.
    FromItself,
}

impl Machine for Deposit {
    type Event = Event;
    const KIND: &'static str = "deposit";

    fn state(&self) -> &'static str {
        match self.state {
            State::Seen => "seen",
            State::Mined { .. } => "mined",
            State::Confirmed { .. } => "confirmed",
            State::Replaced { .. } => "replaced",
            State::Evicted => "evicted",
            State::Reorged => "reorged",
            State::Own => "own",
        }
    }

    fn is_open(&self) -> bool {
        match self.state {
            State::Seen | State::Mined { .. } | State::Reorged => true,
            State::Confirmed { .. } | State::Replaced { .. } | State::Evicted | State::Own => false,
        }
    }

    fn apply(&self, event: &Event, _now: Timestamp) -> Result<Transition<Self>, Illegal> {
        let next = self.next(event)?;
        if next == self.state {
            return Ok(Transition::to(self.clone()));
        }
        Ok(self.moved_to(next))
    }
}

impl Deposit {
    fn next(&self, event: &Event) -> Result<State, Illegal> {
        Ok(match (event, &self.state) {
            (
                Event::FromItself,
                State::Seen
                | State::Mined { .. }
                | State::Confirmed { .. }
                | State::Replaced { .. }
                | State::Evicted
                | State::Reorged
                | State::Own,
            ) => State::Own,
            (
                Event::InMempool
                | Event::Mined { .. }
                | Event::Unmined
                | Event::Replaced { .. }
                | Event::Evicted
                | Event::Revived,
                State::Own,
            ) => State::Own,
            (Event::InMempool, State::Evicted | State::Replaced { .. }) | (Event::Revived, State::Replaced { .. }) => {
                State::Seen
            }
            (
                Event::InMempool | Event::Revived,
                State::Seen | State::Mined { .. } | State::Confirmed { .. } | State::Reorged,
            )
            | (Event::Revived, State::Evicted) => self.state.clone(),
            (Event::Mined { height }, State::Mined { height: h } | State::Confirmed { height: h }) if h == height => {
                self.state.clone()
            }
            (
                Event::Mined { height },
                State::Seen
                | State::Mined { .. }
                | State::Confirmed { .. }
                | State::Replaced { .. }
                | State::Evicted
                | State::Reorged,
            ) => State::Mined { height: *height },
            (Event::Deep, State::Mined { height } | State::Confirmed { height }) => {
                State::Confirmed { height: *height }
            }
            (Event::Deep, State::Seen | State::Replaced { .. } | State::Evicted | State::Reorged | State::Own) => {
                return Err(Illegal { state: self.state(), event: "deep" });
            }
            (Event::Unmined, State::Mined { .. } | State::Confirmed { .. }) => State::Reorged,
            (Event::Unmined, State::Seen | State::Replaced { .. } | State::Evicted | State::Reorged) => {
                self.state.clone()
            }
            (Event::Replaced { by }, State::Seen | State::Evicted | State::Reorged) => State::Replaced { by: *by },
            (Event::Evicted, State::Seen | State::Reorged) => State::Evicted,
            (Event::Replaced { .. }, State::Mined { .. } | State::Confirmed { .. } | State::Replaced { .. })
            | (
                Event::Evicted,
                State::Mined { .. } | State::Confirmed { .. } | State::Evicted | State::Replaced { .. },
            ) => self.state.clone(),
        })
    }

    /// The deposit as it is first written, with the event that announces it.
    pub fn announce(&self) -> Transition<Self> {
        Transition::to(self.clone()).event(self.fact())
    }

    fn moved_to(&self, state: State) -> Transition<Self> {
        let next = Self { state, ..self.clone() };
        let fact = next.fact();
        Transition::to(next).event(fact)
    }

    fn fact(&self) -> Fact {
        let coins = CoinsReceived::of(self.outpoint, &self.address, self.amount);
        match self.state {
            State::Seen => Fact::DepositSeen(coins),
            State::Mined { height } => Fact::DepositMined(CoinsReceived { height: Some(height), ..coins }),
            State::Confirmed { height } => Fact::DepositConfirmed(CoinsReceived { height: Some(height), ..coins }),
            State::Replaced { by } => Fact::DepositReplaced(CoinsReceived { replaced_by: Some(by), ..coins }),
            State::Evicted => Fact::DepositEvicted(coins),
            State::Reorged => Fact::DepositReorged(coins),
            State::Own => Fact::DepositOwn(coins),
        }
    }
}
