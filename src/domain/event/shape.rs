//! What the fields of an event look like in JSON. The API document is written from it.

use bitcoin::{OutPoint, Txid};

use crate::domain::lightning::{PayFailure, PaymentHash};
use crate::domain::onchain_send::Role;
use crate::domain::receive::Rail;
use crate::ids::{KeyId, RequestId, WalletId};
use crate::money::{Amount, AssetId, Sat};

/// The form of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    Text,
    /// A date and a time, as RFC 3339 writes them.
    Time,
    Txid,
    Uuid,
    /// Hex digits of 32 bytes.
    Hash,
    /// A whole number that is 0 or more.
    Count,
    /// A whole number that may be below zero.
    Number,
    Flag,
    OneOf(&'static [&'static str]),
    List(&'static Shape),
    Object(&'static Payload),
    /// An object that is told in full elsewhere.
    Any,
    /// The value, or null.
    Nullable(&'static Shape),
}

/// One field of an event's data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field {
    pub name: &'static str,
    pub about: &'static str,
    pub shape: Shape,
}

/// The data of an event: its name in the API document, and its fields.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Payload {
    pub name: &'static str,
    pub about: &'static str,
    pub fields: &'static [Field],
}

/// A type that has one form in JSON.
pub trait Shaped {
    const SHAPE: Shape;
}

macro_rules! shaped {
    ($($type:ty => $shape:expr),* $(,)?) => {
        $(impl Shaped for $type { const SHAPE: Shape = $shape; })*
    };
}

shaped! {
    String => Shape::Text,
    OutPoint => Shape::Text,
    AssetId => Shape::Text,
    KeyId => Shape::Text,
    WalletId => Shape::Text,
    Txid => Shape::Txid,
    RequestId => Shape::Uuid,
    PaymentHash => Shape::Hash,
    u32 => Shape::Count,
    u64 => Shape::Count,
    usize => Shape::Count,
    Sat => Shape::Count,
    Amount => Shape::Count,
    i64 => Shape::Number,
    bool => Shape::Flag,
    Rail => Shape::OneOf(&["channel", "book"]),
    Role => Shape::OneOf(&["original", "bump", "cancel"]),
    PayFailure => Shape::OneOf(&["no_liquidity", "fee_too_high", "rejected", "invoice_expired", "not_payable", "never_sent"]),
}

impl<T: Shaped + 'static> Shaped for Option<T> {
    const SHAPE: Shape = Shape::Nullable(&T::SHAPE);
}

/// What contains itself.
impl<T> Shaped for Box<T> {
    const SHAPE: Shape = Shape::Any;
}

impl<T: Shaped + 'static> Shaped for Vec<T> {
    const SHAPE: Shape = Shape::List(&T::SHAPE);
}

/// A point in time, as text.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Moment(String);

impl From<crate::clock::Timestamp> for Moment {
    fn from(at: crate::clock::Timestamp) -> Self {
        Self(at.rfc3339())
    }
}

impl Shaped for Moment {
    const SHAPE: Shape = Shape::Time;
}
