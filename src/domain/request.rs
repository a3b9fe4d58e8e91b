use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lightning::PaymentHash;
use super::{Illegal, Transition};
use crate::clock::Timestamp;
use crate::ids::{KeyId, RequestId, WalletId};
use crate::money::Amount;

/// A kind of request: its states, its events, and the one pure function that moves between them.
pub trait Machine: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    type Event;

    /// The kind as it is stored and shown.
    const KIND: &'static str;

    /// The state as it is stored and shown.
    fn state(&self) -> &'static str;

    /// Whether time or the outside may still move it on its own.
    fn is_open(&self) -> bool;

    /// # Errors
    /// When the event makes no sense in this state. A repeated event is not an error: it changes nothing.
    fn apply(&self, event: &Self::Event, now: Timestamp) -> Result<Transition<Self>, Illegal>;

    /// Its line in the list of Lightning payments, if it is one.
    fn payment_line(&self) -> Option<PaymentLine> {
        None
    }

    /// The key whose limits count what it holds and pays, if it is paid for by one.
    fn spending_key(&self) -> Option<&KeyId> {
        None
    }
}

/// A Lightning payment as lists know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaymentLine {
    pub hash: PaymentHash,
    pub inbound: bool,
    pub status: LineStatus,
    /// Empty while nobody has said how much it is.
    pub amount: Option<Amount>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineStatus {
    /// Begun, and not yet consented to: no payment yet, but nobody else may begin to pay the same hash.
    Waiting,
    Pending,
    Succeeded,
    Failed,
    /// Never consented to: there was no payment.
    Void,
}

impl LineStatus {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Void => "void",
        }
    }
}

/// A row of the table of requests: what every kind has in common, and the machine itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Request<M> {
    pub id: RequestId,
    pub wallet: WalletId,
    /// The owner's own word for it, kept and shown, never looked at.
    pub reference: Option<String>,
    pub label: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// Counts writes; a write that names an old version is refused.
    pub version: i64,
    pub machine: M,
}
