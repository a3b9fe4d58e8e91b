//! Pure machines: what a request may become, and what has to be written when it does. No async, no IO, no database.

pub mod address;
pub mod deposit;
pub mod onchain_send;
pub mod policy;
pub mod psbt;
pub mod request;
#[cfg(test)]
mod states;
pub mod transition;
pub mod wallet;

pub use request::{Machine, Request};
pub use transition::{Effect, EventNote, Illegal, Leases, Transition};
