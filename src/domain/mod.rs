//! Pure machines: what a request may become, and what has to be written when it does. No async, no IO, no database.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod address;
pub mod asset_receive;
pub mod authorization;
mod block;
pub mod credit;
pub mod deposit;
pub mod event;
pub mod export;
pub mod grant;
pub mod invoice;
pub mod lightning;
pub mod liquidity;
pub mod movement;
pub mod offer;
pub mod onchain_send;
pub mod pay;
pub mod policy;
pub mod psbt;
pub mod public_address;
pub mod receive;
pub mod request;
#[cfg(test)]
mod states;
pub mod transition;
pub mod wallet;
pub mod withdraw;

pub use block::BlockRef;
pub use event::Fact;
pub use request::{LineStatus, Machine, PaymentLine, Request};
pub use transition::{Effect, Illegal, Leases, Transition};
