use std::fmt;

use super::Account;
use crate::ids::RequestId;
use crate::money::Money;

/// Names a posting for ever: the request it belongs to and its place in it. Writing it twice is refused by the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PostingId(String);

impl PostingId {
    #[must_use]
    pub fn of(request: RequestId, step: &str) -> Self {
        Self(format!("{request}/{step}"))
    }

    /// The posting that pays a debt out of what this one gave.
    #[must_use]
    pub fn and_debt(&self) -> Self {
        Self(format!("{self}+debt"))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PostingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The posting that took a hold.
pub type HoldId = PostingId;

/// What a posting does to the two balances it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Moves the amount.
    Post,
    /// Sets the amount aside on the debit account; nothing has moved.
    Hold,
    /// Moves the amount, at most what was held, and frees the rest of the hold.
    PostHold(HoldId),
    /// Frees the whole hold. The amount says how much that is.
    VoidHold(HoldId),
}

/// One debit, one credit, one asset, one amount above zero: an unbalanced entry has no form here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    pub id: PostingId,
    pub request: RequestId,
    pub debit: Account,
    pub credit: Account,
    pub money: Money,
    pub kind: Kind,
}
