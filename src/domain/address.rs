//! An address handed out for receiving. It is never handed out again, and it is watched for ever, expired or not.

use bitcoin::OutPoint;
use serde::{Deserialize, Serialize};

use super::event::payloads::{AddressExpired, AddressPaid};
use super::{Fact, Illegal, Machine, Transition};
use crate::clock::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Nothing has been paid to it.
    Open,
    Used,
    /// The chain shows that it had been used before it was handed out, by another program with the same keys.
    UsedBefore,
    /// Its time is over. Money that arrives all the same is still a deposit.
    Expired,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiveAddress {
    pub address: String,
    pub index: u32,
    #[serde(flatten)]
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Paid {
        outpoint: OutPoint,
    },
    /// The search for coins from before the registration found one on it.
    FoundUsed {
        outpoint: OutPoint,
    },
    TimedOut,
}

impl ReceiveAddress {
    fn paid(&self, by: OutPoint) -> AddressPaid {
        AddressPaid { address: self.address.clone(), txid: by.txid, vout: by.vout }
    }
}

impl Machine for ReceiveAddress {
    type Event = Event;
    const KIND: &'static str = "onchain_receive";

    fn state(&self) -> &'static str {
        match self.state {
            State::Open => "open",
            State::Used => "used",
            State::UsedBefore => "used_before",
            State::Expired => "expired",
        }
    }

    fn is_open(&self) -> bool {
        match self.state {
            State::Open => true,
            State::Used | State::UsedBefore | State::Expired => false,
        }
    }

    fn apply(&self, event: &Event, _now: Timestamp) -> Result<Transition<Self>, Illegal> {
        let to = |state| Transition::to(Self { state, ..self.clone() });
        Ok(match (event, self.state) {
            (Event::Paid { outpoint }, State::Open | State::Expired) => {
                to(State::Used).event(Fact::AddressUsed(self.paid(*outpoint)))
            }
            (Event::FoundUsed { outpoint }, State::Open | State::Used | State::Expired) => {
                to(State::UsedBefore).event(Fact::AddressUsedBefore(self.paid(*outpoint)))
            }
            (Event::TimedOut, State::Open) => {
                to(State::Expired).event(Fact::AddressExpired(AddressExpired { address: self.address.clone() }))
            }
            (Event::Paid { .. }, State::Used | State::UsedBefore)
            | (Event::FoundUsed { .. }, State::UsedBefore)
            | (Event::TimedOut, State::Used | State::UsedBefore | State::Expired) => to(self.state),
        })
    }
}
