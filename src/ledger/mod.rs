//! Double entry for money that the operator owes or owns: off-chain balances, and what backs them.
//!
//! On-chain pockets are not here: their truth is the chain, and their books are scripts, deposits, leases and issued
//! transactions. An entry can't be unbalanced, because a posting has one debit and one credit account and one amount.

#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

mod account;
pub mod model;
mod posting;

pub use account::Account;
pub use posting::{HoldId, Kind, Posting, PostingId};
