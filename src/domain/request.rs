use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Illegal, Transition};
use crate::clock::Timestamp;
use crate::ids::{RequestId, WalletId};

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
