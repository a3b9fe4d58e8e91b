//! Adapters of the chain port, and the face that a private chain shows to those who look for an Esplora.

pub mod bitcoind;
pub mod fake;
pub mod indexer;
