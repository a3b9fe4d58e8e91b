//! Money with its unit in the type. Nothing here has operators: whoever adds two amounts says what happens when they don't fit.

#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

mod amount;
mod asset;
mod rate;
mod sat;

pub use amount::Amount;
pub use asset::{AssetId, Money};
pub use rate::FeeRate;
pub use sat::Sat;

/// An amount that no balance of ours can hold, or a sum that went below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("amount out of range")]
pub struct OutOfRange;
