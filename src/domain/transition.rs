use super::event::Fact;
use super::lightning::PaymentHash;
use crate::ids::RequestId;
use crate::ledger::Posting;

/// What a step of a machine asks to be written, all of it in one database transaction.
#[must_use = "a transition that is not applied has not happened"]
#[derive(Clone, Debug, PartialEq)]
pub struct Transition<S> {
    pub next: S,
    pub postings: Vec<Posting>,
    pub events: Vec<Fact>,
    pub effects: Vec<Effect>,
    pub leases: Leases,
}

impl<S> Transition<S> {
    pub fn to(next: S) -> Self {
        Self { next, postings: Vec::new(), events: Vec::new(), effects: Vec::new(), leases: Leases::Keep }
    }

    pub fn event(mut self, fact: Fact) -> Self {
        self.events.push(fact);
        self
    }

    pub fn events(mut self, facts: impl IntoIterator<Item = Fact>) -> Self {
        self.events.extend(facts);
        self
    }

    pub fn effect(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }

    pub fn posting(mut self, posting: Posting) -> Self {
        self.postings.push(posting);
        self
    }

    pub fn leases(mut self, leases: Leases) -> Self {
        self.leases = leases;
        self
    }
}

impl<S: PartialEq> Transition<S> {
    /// Nothing to write: the event had been applied before, or changes nothing here.
    #[must_use]
    pub fn is_unchanged(&self, before: &S) -> bool {
        self.next == *before
            && self.postings.is_empty()
            && self.events.is_empty()
            && self.effects.is_empty()
            && self.leases == Leases::Keep
    }
}

/// Something to be done outside. It is a row, keyed by what it does, so that it is done at least once and known by one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Offer the signed transaction to the network, until it is in the mempool or a block.
    Broadcast(bitcoin::Txid),
    /// Have the node pay, until it says how that ended.
    Pay(RequestId),
    /// Have the node claim what it holds, until it says that it has.
    Claim(PaymentHash),
    /// Have the node send coins of its own, until it says that it has.
    Withdraw(RequestId),
    /// Have the engine for assets free what it keeps for a request that has ended.
    GiveUp(RequestId),
}

impl Effect {
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Broadcast(txid) => format!("broadcast:{txid}"),
            Self::Pay(request) => format!("pay:{request}"),
            Self::Claim(hash) => format!("claim:{hash}"),
            Self::Withdraw(request) => format!("withdraw:{request}"),
            Self::GiveUp(request) => format!("give_up:{request}"),
        }
    }
}

/// What happens to the coins that a request has set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leases {
    Keep,
    Release,
    /// Take the inputs again, as far as nobody else has them by now.
    Retake,
}

/// The event does not fit the state. Always a fault of the caller, never of a user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event} can't happen to a request that is {state}")]
pub struct Illegal {
    pub state: &'static str,
    pub event: &'static str,
}
