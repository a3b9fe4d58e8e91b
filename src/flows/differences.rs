//! An operator's entry that puts the books of the node's money right: what the node has more or less than they say, with a reason. It is
//! for what nothing else explains; nothing here decides whether there is such a difference.

use async_trait::async_trait;
use serde_json::json;

use super::operator_call::once;
use super::{Error, Flows, Idempotency};
use crate::domain::Fact;
pub use crate::domain::event::payloads::Difference;
use crate::domain::event::payloads::DifferenceBooked;
use crate::ids::RequestId;
use crate::ledger::{Account, Kind, Posting, PostingId};
use crate::money::{Amount, Money};
use crate::store::books::BookEntry;
use crate::store::{StoreError, Tx, Write, apply};

/// A reason is a sentence.
const REASON_MAX: usize = 500;

/// Where the node has more or less than the books say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeAccount {
    Channels,
    Closing,
    Onchain,
    Crossing,
}

impl NodeAccount {
    pub const ALL: [Self; 4] = [Self::Channels, Self::Closing, Self::Onchain, Self::Crossing];

    /// Reads the name that the trial balance has for it, as `node:channels`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.account().to_string() == name)
    }

    #[must_use]
    pub const fn account(self) -> Account {
        match self {
            Self::Channels => Account::Channels,
            Self::Closing => Account::Closing,
            Self::Onchain => Account::Onchain,
            Self::Crossing => Account::Crossing,
        }
    }
}

/// Who has what is too much, or bears what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// Nobody, until the item is resolved.
    Suspense,
    Capital,
    Rounding,
}

impl Against {
    pub const ALL: [Self; 3] = [Self::Suspense, Self::Capital, Self::Rounding];

    /// Reads the last word of the account's name, as `suspense`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.account().to_string().strip_prefix("operator:") == Some(name))
    }

    #[must_use]
    pub const fn account(self) -> Account {
        match self {
            Self::Suspense => Account::Suspense,
            Self::Capital => Account::Capital,
            Self::Rounding => Account::Rounding,
        }
    }
}

/// What the node has, compared with the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    More,
    Less,
}

/// A difference that is to be booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DifferenceBooking {
    pub account: NodeAccount,
    pub against: Against,
    pub amount: Amount,
    pub direction: Direction,
    pub reason: String,
    /// The key, or the person, that decides.
    pub by: String,
}

/// Books a difference, once for an idempotency key.
///
/// # Errors
/// When the amount is zero or the reason is no sentence, and what becomes of an idempotency key.
pub async fn book(
    flows: &Flows,
    booking: DifferenceBooking,
    idempotency: Option<Idempotency>,
) -> Result<Difference, Error> {
    if booking.amount.is_zero() {
        return Err(Error::field("amount_msat", "must be above zero"));
    }
    let length = booking.reason.chars().count();
    if !(1..=REASON_MAX).contains(&length) || booking.reason.chars().any(char::is_control) {
        return Err(Error::field("reason", format!("must be 1 to {REASON_MAX} characters without control characters")));
    }
    let id = match &idempotency {
        // The same key is the same entry, whatever became of the first answer.
        Some(given) => RequestId::of_movement(&format!("difference:{}", given.key)),
        None => RequestId::fresh(),
    };
    let note = |done: &Difference| Fact::DifferenceAnswered(done.clone());
    let act = async { Ok(flows.store().write(Book { id, booking }).await?) };
    once(flows, idempotency, note, act).await
}

struct Book {
    id: RequestId,
    booking: DifferenceBooking,
}

#[async_trait]
impl Write for Book {
    type Output = Difference;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Difference, StoreError> {
        let DifferenceBooking { account, against, amount, direction, reason, by } = &self.booking;
        let (ours, other) = (account.account(), against.account());
        let msat = amount.as_bigint();
        let difference = Difference {
            id: self.id.to_string(),
            account: ours.to_string(),
            against: other.to_string(),
            amount_msat: match direction {
                Direction::More => msat,
                Direction::Less => msat.saturating_neg(),
            },
            reason: reason.clone(),
        };
        let booked = DifferenceBooked { difference: difference.clone(), by: by.clone() };
        // What the operator has is below zero: a debit makes it more.
        let (debit, credit) = match direction {
            Direction::More => (ours, other),
            Direction::Less => (other, ours),
        };
        let posting = Posting {
            id: PostingId::of(self.id, "difference"),
            request: self.id,
            debit,
            credit,
            money: Money::btc(*amount),
            kind: Kind::Post,
        };
        let entry = BookEntry {
            id: self.id,
            number: None,
            resolves: None,
            kind: "difference",
            data: json!(booked).to_string(),
        };
        let note = Fact::DifferenceBooked(booked);
        if apply::enter(tx, &entry, &[posting], None, &note).await? {
            return Ok(difference);
        }
        Err(StoreError::Conflict("the difference"))
    }
}
