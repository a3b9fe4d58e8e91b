//! A send of the client's own coins: the client signs, the gateway watches every version of it for ever.

use bitcoin::Txid;
use serde::{Deserialize, Serialize};

use super::event::payloads::{BroadcastRefused, Conflict, Nothing, Reason, SendMined, Transaction, TransactionMined};
use super::{Effect, Fact, Illegal, Leases, Machine, Transition};
use crate::clock::Timestamp;
use crate::ids::RequestId;
use crate::money::{Amount, FeeRate, Sat};

/// What was asked for. Fixed at begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The destination as the caller wrote it.
    pub to: String,
    /// The amount as the caller wrote it.
    pub amount_requested: Sat,
    /// What the recipient gets: less than requested when the fee is deducted.
    pub amount_sent: Sat,
    pub fee_rate: FeeRate,
    pub deduct_fee: bool,
    /// Which pair of endpoints began it; the same pair must end it.
    pub door: Door,
    /// Empty: it moves bitcoin only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assets: Option<AssetTerms>,
}

/// What a transaction moves besides bitcoin. Its payees accept before it goes out: what they would refuse would be lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetTerms {
    pub request: RequestId,
    /// The engine's own number for it.
    pub batch: i32,
    /// When it is given up unless everybody has accepted.
    pub accept_by: Timestamp,
    pub payees: Vec<Payee>,
}

/// Whoever gets an asset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payee {
    pub asset: String,
    pub amount: Amount,
    /// The name under which it takes its consignment and says whether it accepts.
    pub recipient: String,
    /// Where the consignment is brought: the first that can be called.
    pub endpoints: Vec<String>,
    /// The output that pays it, when it gets a new coin.
    pub vout: Option<u32>,
}

/// The pair of endpoints that a send came in through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    WalletSend,
    OnchainSend,
    Pay,
    /// To an address of the node that is bound to the wallet.
    Settle,
    /// To the wallet's own colored account, whose coins carry assets.
    AssetCoins,
    /// An asset, by the wallet's own path.
    AssetSend,
}

/// Why a transaction was issued for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Original,
    /// The same payment at a higher fee.
    Bump,
    /// The same coins back to the wallet.
    Cancel,
}

impl Role {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Bump => "bump",
            Self::Cancel => "cancel",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    AwaitingSignature,
    /// Signed, and kept back until everybody who gets an asset has accepted it.
    WaitingAck {
        txid: Txid,
    },
    /// A signed version is out, or being offered. `last_error` says why no node has taken it yet.
    Broadcast {
        txid: Txid,
        last_error: Option<String>,
    },
    /// In a block that is not yet deep enough.
    Seen {
        txid: Txid,
        height: u32,
        role: Role,
    },
    Confirmed {
        txid: Txid,
        height: u32,
    },
    /// The cancelling version is deep enough.
    Cancelled {
        txid: Txid,
        height: u32,
    },
    /// Another transaction took a coin of it. `signed` is the version to go back to if that is undone.
    Conflicted {
        by: Txid,
        signed: Option<Txid>,
    },
    /// No signature came in time. Its transaction is in the client's hands and stays watched.
    Expired,
    /// Given up before it went out: a payee refused the asset or said nothing, or the owner took it back.
    Failed {
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnchainSend {
    pub terms: Terms,
    #[serde(flatten)]
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `end` took a valid signature of this version.
    Signed { txid: Txid },
    /// Time is up for the signature.
    TimedOut,
    /// Everybody who gets an asset has accepted.
    Acknowledged { txid: Txid },
    /// The engine will not go on with it.
    GivenUp { reason: String },
    /// The network took the transaction when it was offered.
    Accepted { txid: Txid },
    /// A node refused it when it was offered.
    Refused { txid: Txid, reason: String },
    /// A version of it is in the mempool, whoever put it there.
    InMempool { txid: Txid },
    /// A version of it is in a block.
    Mined { txid: Txid, height: u32, role: Role },
    /// The block it is in is deep enough.
    Deep,
    /// The block it was in is no longer part of the chain.
    Unmined { txid: Txid },
    /// A transaction that is not ours spends one of its coins.
    InputSpent { by: Txid, mined: bool },
    /// That transaction is gone again.
    InputFreed { by: Txid },
}

impl Event {
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Signed { .. } => "signed",
            Self::TimedOut => "timed_out",
            Self::Acknowledged { .. } => "acknowledged",
            Self::GivenUp { .. } => "given_up",
            Self::Accepted { .. } => "accepted",
            Self::Refused { .. } => "refused",
            Self::InMempool { .. } => "in_mempool",
            Self::Mined { .. } => "mined",
            Self::Deep => "deep",
            Self::Unmined { .. } => "unmined",
            Self::InputSpent { .. } => "input_spent",
            Self::InputFreed { .. } => "input_freed",
        }
    }
}

impl Machine for OnchainSend {
    type Event = Event;
    const KIND: &'static str = "onchain_send";

    fn state(&self) -> &'static str {
        match self.state {
            State::AwaitingSignature => "awaiting_signature",
            State::WaitingAck { .. } => "waiting_ack",
            State::Broadcast { .. } => "broadcast",
            State::Seen { .. } => "seen",
            State::Confirmed { .. } => "confirmed",
            State::Cancelled { .. } => "cancelled",
            State::Conflicted { .. } => "conflicted",
            State::Expired => "expired",
            State::Failed { .. } => "failed",
        }
    }

    fn is_open(&self) -> bool {
        match self.state {
            State::AwaitingSignature | State::WaitingAck { .. } | State::Broadcast { .. } | State::Seen { .. } => true,
            State::Confirmed { .. }
            | State::Cancelled { .. }
            | State::Conflicted { .. }
            | State::Expired
            | State::Failed { .. } => false,
        }
    }

    fn apply(&self, event: &Event, _now: Timestamp) -> Result<Transition<Self>, Illegal> {
        match event {
            Event::Signed { txid } => self.signed(*txid),
            Event::TimedOut => Ok(self.timed_out()),
            Event::Acknowledged { txid } => Ok(self.acknowledged(*txid)),
            Event::GivenUp { reason } => Ok(self.given_up(reason)),
            Event::Accepted { txid } => Ok(self.offered(*txid, None)),
            Event::Refused { txid, reason } => Ok(self.offered(*txid, Some(reason.clone()))),
            Event::InMempool { txid } => Ok(self.in_mempool(*txid)),
            Event::Mined { txid, height, role } => Ok(self.mined(*txid, *height, *role)),
            Event::Deep => self.deep(),
            Event::Unmined { txid } => Ok(self.unmined(*txid)),
            Event::InputSpent { by, mined } => Ok(self.input_spent(*by, *mined)),
            Event::InputFreed { by } => Ok(self.input_freed(*by)),
        }
    }
}

impl OnchainSend {
    #[must_use]
    pub const fn begun(terms: Terms) -> Self {
        Self { terms, state: State::AwaitingSignature }
    }

    /// The version that stands for the request now: the last one offered, or the one in a block.
    #[must_use]
    pub const fn txid(&self) -> Option<Txid> {
        match self.state {
            State::WaitingAck { txid }
            | State::Broadcast { txid, .. }
            | State::Seen { txid, .. }
            | State::Confirmed { txid, .. }
            | State::Cancelled { txid, .. } => Some(txid),
            State::Conflicted { signed, .. } => signed,
            State::AwaitingSignature | State::Expired | State::Failed { .. } => None,
        }
    }

    fn unchanged(&self) -> Transition<Self> {
        Transition::to(self.clone())
    }

    fn to(&self, state: State) -> Transition<Self> {
        Transition::to(Self { terms: self.terms.clone(), state })
    }

    /// Tells the engine, once, that nothing will come of it.
    fn freeing_assets(&self, next: Transition<Self>) -> Transition<Self> {
        match &self.terms.assets {
            Some(assets) => next.effect(Effect::GiveUp(assets.request)),
            None => next,
        }
    }

    fn signed(&self, txid: Txid) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::Broadcast { txid: current, .. } if current == txid => Ok(self.unchanged()),
            State::AwaitingSignature if self.terms.assets.is_some() => {
                Ok(self.to(State::WaitingAck { txid }).event(Fact::SendWaitingAck(Transaction { txid })))
            }
            State::AwaitingSignature | State::Broadcast { .. } => Ok(self
                .to(State::Broadcast { txid, last_error: None })
                .event(Fact::SendBroadcast(Transaction { txid }))
                .effect(Effect::Broadcast(txid))),
            State::WaitingAck { .. } | State::Seen { .. } | State::Confirmed { .. } | State::Cancelled { .. } => {
                Ok(self.unchanged())
            }
            State::Conflicted { .. } | State::Expired | State::Failed { .. } => {
                Err(Illegal { state: self.state(), event: "signed" })
            }
        }
    }

    fn timed_out(&self) -> Transition<Self> {
        match self.state {
            State::AwaitingSignature => self
                .freeing_assets(self.to(State::Expired).event(Fact::SendExpired(Nothing {})).leases(Leases::Release)),
            State::WaitingAck { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled { .. }
            | State::Conflicted { .. }
            | State::Expired
            | State::Failed { .. } => self.unchanged(),
        }
    }

    fn acknowledged(&self, txid: Txid) -> Transition<Self> {
        match self.state {
            State::WaitingAck { txid: kept } if kept == txid => self
                .to(State::Broadcast { txid, last_error: None })
                .event(Fact::SendBroadcast(Transaction { txid }))
                .effect(Effect::Broadcast(txid)),
            State::AwaitingSignature
            | State::WaitingAck { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled { .. }
            | State::Conflicted { .. }
            | State::Expired
            | State::Failed { .. } => self.unchanged(),
        }
    }

    fn given_up(&self, reason: &str) -> Transition<Self> {
        match self.state {
            State::AwaitingSignature | State::WaitingAck { .. } => self
                .to(State::Failed { reason: reason.to_owned() })
                .event(Fact::SendFailed(Reason { reason: reason.to_owned() }))
                .leases(Leases::Release),
            State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled { .. }
            | State::Conflicted { .. }
            | State::Expired
            | State::Failed { .. } => self.unchanged(),
        }
    }

    /// The answer of one node. It moves nothing: only a block does.
    fn offered(&self, txid: Txid, error: Option<String>) -> Transition<Self> {
        match &self.state {
            State::Broadcast { txid: current, last_error } if *current == txid && *last_error != error => {
                let next = self.to(State::Broadcast { txid, last_error: error.clone() });
                match error {
                    Some(reason) => {
                        next.event(Fact::SendBroadcastRefused(BroadcastRefused { txid, reason: reason.to_owned() }))
                    }
                    None => next,
                }
            }
            State::AwaitingSignature
            | State::WaitingAck { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled { .. }
            | State::Conflicted { .. }
            | State::Expired
            | State::Failed { .. } => self.unchanged(),
        }
    }

    fn in_mempool(&self, txid: Txid) -> Transition<Self> {
        match &self.state {
            State::Broadcast { txid: current, last_error: None } if *current == txid => self.unchanged(),
            State::Broadcast { txid: current, .. } => {
                let next = self.to(State::Broadcast { txid, last_error: None });
                if *current == txid {
                    return next;
                }
                next.event(Fact::SendBroadcast(Transaction { txid })).effect(Effect::Broadcast(txid))
            }
            State::AwaitingSignature
            | State::WaitingAck { .. }
            | State::Conflicted { .. }
            | State::Expired
            | State::Failed { .. } => self
                .to(State::Broadcast { txid, last_error: None })
                .event(Fact::SendBroadcast(Transaction { txid }))
                .effect(Effect::Broadcast(txid))
                .leases(Leases::Retake),
            State::Seen { .. } | State::Confirmed { .. } | State::Cancelled { .. } => self.unchanged(),
        }
    }

    fn mined(&self, txid: Txid, height: u32, role: Role) -> Transition<Self> {
        match self.state {
            State::Seen { txid: t, height: h, .. }
            | State::Confirmed { txid: t, height: h }
            | State::Cancelled { txid: t, height: h }
                if t == txid && h == height =>
            {
                self.unchanged()
            }
            State::AwaitingSignature
            | State::WaitingAck { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled { .. }
            | State::Conflicted { .. }
            | State::Expired
            | State::Failed { .. } => {
                self.to(State::Seen { txid, height, role }).event(Fact::SendSeen(SendMined { txid, height, role }))
            }
        }
    }

    fn deep(&self) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::Seen { txid, height, role: Role::Original | Role::Bump } => Ok(self
                .to(State::Confirmed { txid, height })
                .event(Fact::SendConfirmed(TransactionMined { txid, height }))
                .leases(Leases::Release)),
            State::Seen { txid, height, role: Role::Cancel } => Ok(self
                .to(State::Cancelled { txid, height })
                .event(Fact::SendCancelled(TransactionMined { txid, height }))
                .leases(Leases::Release)),
            State::Confirmed { .. } | State::Cancelled { .. } => Ok(self.unchanged()),
            State::AwaitingSignature
            | State::WaitingAck { .. }
            | State::Broadcast { .. }
            | State::Conflicted { .. }
            | State::Expired
            | State::Failed { .. } => Err(Illegal { state: self.state(), event: "deep" }),
        }
    }

    fn unmined(&self, txid: Txid) -> Transition<Self> {
        match self.state {
            State::Seen { txid: t, .. } | State::Confirmed { txid: t, .. } | State::Cancelled { txid: t, .. }
                if t == txid =>
            {
                self.to(State::Broadcast { txid, last_error: None })
                    .event(Fact::SendReorged(Transaction { txid }))
                    .effect(Effect::Broadcast(txid))
                    .leases(Leases::Retake)
            }
            State::AwaitingSignature
            | State::WaitingAck { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled { .. }
            | State::Conflicted { .. }
            | State::Expired
            | State::Failed { .. } => self.unchanged(),
        }
    }

    /// Before a signature reached us, a stranger's spend ends the request. After, only a block does: the network may yet choose ours.
    fn input_spent(&self, by: Txid, mined: bool) -> Transition<Self> {
        let conflicted = |signed| {
            self.to(State::Conflicted { by, signed })
                .event(Fact::SendConflicted(Conflict { by, mined }))
                .leases(Leases::Release)
        };
        match self.state {
            State::AwaitingSignature => self.freeing_assets(conflicted(None)),
            // It never went out: there is nothing to go back to.
            State::WaitingAck { .. } if mined => self.freeing_assets(conflicted(None)),
            State::Broadcast { txid, .. } if mined => conflicted(Some(txid)),
            State::WaitingAck { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled { .. }
            | State::Conflicted { .. }
            | State::Expired
            | State::Failed { .. } => self.unchanged(),
        }
    }

    fn input_freed(&self, by: Txid) -> Transition<Self> {
        match self.state {
            State::Conflicted { by: current, signed: Some(txid) } if current == by => self
                .to(State::Broadcast { txid, last_error: None })
                .event(Fact::SendBroadcast(Transaction { txid }))
                .effect(Effect::Broadcast(txid))
                .leases(Leases::Retake),
            State::AwaitingSignature
            | State::WaitingAck { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled { .. }
            | State::Conflicted { .. }
            | State::Expired
            | State::Failed { .. } => self.unchanged(),
        }
    }
}
