//! Adapters of the chain port, and the logic that follows a chain through reorganisations.

pub mod bitcoind;
pub mod fake;
