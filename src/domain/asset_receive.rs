//! Receiving an asset on-chain: an invoice, the consignment that is accepted for it, and the block that makes it final.

use bitcoin::Txid;
use serde::{Deserialize, Serialize};

use super::event::payloads::{AssetArrived, AssetInvoice, Nothing, Transaction, TransactionMined};
use super::{Effect, Fact, Illegal, Machine, Transition};
use crate::clock::Timestamp;
use crate::ids::RequestId;
use crate::money::Amount;

/// Where the payer is asked to put it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Onto {
    /// On a coin that the wallet has, which the payer doesn't learn.
    Blind,
    /// On a new coin that the payer makes.
    Witness,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetReceive {
    pub request: RequestId,
    pub invoice: String,
    /// The name under which payers bring consignments.
    pub recipient: String,
    /// The engine's own number for it.
    pub batch: i32,
    pub onto: Onto,
    /// Empty: any asset.
    pub asset: Option<String>,
    /// Empty: any amount.
    pub amount: Option<Amount>,
    /// Blocks until it counts as settled.
    #[serde(default)]
    pub min_confirmations: u32,
    /// The address that was handed out together with it.
    pub address_request: Option<RequestId>,
    #[serde(flatten)]
    pub state: State,
}

/// What a consignment that was accepted brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    #[serde(rename = "received_asset")]
    pub asset: String,
    #[serde(rename = "received_amount")]
    pub amount: Amount,
    pub txid: Txid,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    Open,
    /// Accepted, which lets the payer send it out; it is in no block yet.
    Arriving(Arrival),
    /// In a block that is not yet deep enough.
    Seen {
        #[serde(flatten)]
        arrival: Arrival,
        height: u32,
    },
    /// The height is empty when its block was older than the acceptance.
    Settled {
        #[serde(flatten)]
        arrival: Arrival,
        height: Option<u32>,
    },
    /// The block that had brought it is no longer part of the chain.
    Reorged(Arrival),
    /// Nothing was accepted in time.
    Expired,
    /// The owner took the invoice back.
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The engine has accepted what a payer brought.
    Accepted(Arrival),
    /// Its transaction is in a block.
    Mined {
        height: u32,
    },
    /// The engine counts it as settled.
    Settled,
    /// The block it was in is no longer part of the chain.
    Unmined,
    TimedOut,
    Cancelled,
}

impl Event {
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Mined { .. } => "mined",
            Self::Settled => "settled",
            Self::Unmined => "unmined",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Machine for AssetReceive {
    type Event = Event;
    const KIND: &'static str = "asset_receive";

    fn state(&self) -> &'static str {
        match self.state {
            State::Open => "open",
            State::Arriving(_) => "arriving",
            State::Seen { .. } => "seen",
            State::Settled { .. } => "settled",
            State::Reorged(_) => "reorged",
            State::Expired => "expired",
            State::Cancelled => "cancelled",
        }
    }

    fn is_open(&self) -> bool {
        match self.state {
            State::Open | State::Arriving(_) | State::Seen { .. } | State::Reorged(_) => true,
            State::Settled { .. } | State::Expired | State::Cancelled => false,
        }
    }

    fn apply(&self, event: &Event, _now: Timestamp) -> Result<Transition<Self>, Illegal> {
        match event {
            Event::Accepted(arrival) => Ok(self.accepted(arrival)),
            Event::Mined { height } => Ok(self.mined(*height)),
            Event::Settled => self.settled(),
            Event::Unmined => Ok(self.unmined()),
            Event::TimedOut => Ok(self.closed(State::Expired, Fact::AssetReceiveExpired(Nothing {}))),
            Event::Cancelled => Ok(self.closed(State::Cancelled, Fact::AssetReceiveCancelled(Nothing {}))),
        }
    }
}

impl AssetReceive {
    /// The invoice as it is first written, with the event that announces it.
    pub fn announce(&self) -> Transition<Self> {
        Transition::to(self.clone()).event(Fact::AssetReceiveOpened(AssetInvoice {
            recipient_id: self.recipient.clone(),
            asset_id: self.asset.clone(),
            amount: self.amount,
            amount_str: self.amount.map(|amount| amount.base_units().to_string()),
        }))
    }

    /// What has come for it, whatever became of that.
    #[must_use]
    pub const fn arrival(&self) -> Option<&Arrival> {
        match &self.state {
            State::Arriving(arrival)
            | State::Seen { arrival, .. }
            | State::Settled { arrival, .. }
            | State::Reorged(arrival) => Some(arrival),
            State::Open | State::Expired | State::Cancelled => None,
        }
    }

    /// Whether it is as deep as its owner wants it, where the block is known. The engine keeps its word when a block is undone: what is in
    /// another block since has to get as deep again.
    #[must_use]
    pub const fn is_deep(&self, tip: u32) -> bool {
        match &self.state {
            State::Seen { height, .. } => tip.saturating_add(1).saturating_sub(*height) >= self.min_confirmations,
            State::Open
            | State::Arriving(_)
            | State::Settled { .. }
            | State::Reorged(_)
            | State::Expired
            | State::Cancelled => true,
        }
    }

    fn unchanged(&self) -> Transition<Self> {
        Transition::to(self.clone())
    }

    fn to(&self, state: State) -> Transition<Self> {
        Transition::to(Self { state, ..self.clone() })
    }

    /// The engine has it, whatever we had thought of the invoice.
    fn accepted(&self, arrival: &Arrival) -> Transition<Self> {
        match self.state {
            State::Open | State::Expired | State::Cancelled => {
                self.to(State::Arriving(arrival.clone())).event(Fact::AssetReceiveArriving(told(arrival)))
            }
            State::Arriving(_) | State::Seen { .. } | State::Settled { .. } | State::Reorged(_) => self.unchanged(),
        }
    }

    fn mined(&self, height: u32) -> Transition<Self> {
        match &self.state {
            State::Seen { height: known, .. } | State::Settled { height: Some(known), .. } if *known == height => {
                self.unchanged()
            }
            State::Arriving(arrival) | State::Seen { arrival, .. } | State::Reorged(arrival) => {
                let seen = self.to(State::Seen { arrival: arrival.clone(), height });
                seen.event(Fact::AssetReceiveSeen(TransactionMined { txid: arrival.txid, height }))
            }
            State::Settled { arrival, .. } => {
                self.to(State::Settled { arrival: arrival.clone(), height: Some(height) })
            }
            // Nobody has accepted it: it may be another payment's transaction as well.
            State::Open | State::Expired | State::Cancelled => self.unchanged(),
        }
    }

    /// The engine counts blocks by itself, and keeps its word when one of them is undone: what waits for a block again is not settled.
    fn settled(&self) -> Result<Transition<Self>, Illegal> {
        let (arrival, height) = match &self.state {
            State::Arriving(arrival) => (arrival, None),
            State::Seen { arrival, height } => (arrival, Some(*height)),
            State::Settled { .. } | State::Reorged(_) => return Ok(self.unchanged()),
            State::Open | State::Expired | State::Cancelled => {
                return Err(Illegal { state: self.state(), event: "settled" });
            }
        };
        let settled = self.to(State::Settled { arrival: arrival.clone(), height });
        Ok(settled.event(Fact::AssetReceiveSettled(told(arrival))))
    }

    fn unmined(&self) -> Transition<Self> {
        match &self.state {
            State::Seen { arrival, .. } | State::Settled { arrival, .. } => self
                .to(State::Reorged(arrival.clone()))
                .event(Fact::AssetReceiveReorged(Transaction { txid: arrival.txid })),
            State::Open | State::Arriving(_) | State::Reorged(_) | State::Expired | State::Cancelled => {
                self.unchanged()
            }
        }
    }

    fn closed(&self, state: State, fact: Fact) -> Transition<Self> {
        match self.state {
            State::Open => self.to(state).event(fact).effect(Effect::GiveUp(self.request)),
            State::Arriving(_)
            | State::Seen { .. }
            | State::Settled { .. }
            | State::Reorged(_)
            | State::Expired
            | State::Cancelled => self.unchanged(),
        }
    }
}

fn told(arrival: &Arrival) -> AssetArrived {
    AssetArrived {
        asset_id: arrival.asset.clone(),
        amount: arrival.amount,
        amount_str: arrival.amount.base_units().to_string(),
        txid: arrival.txid,
    }
}
