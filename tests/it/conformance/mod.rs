//! One suite per port, run by every adapter of it.

mod assets;
mod bitcoind_answers;
mod chain;
mod courier;
mod esplora;
mod ldk_peer;
mod ldk_recovery;
pub mod lightning;
mod lightning_ldk_smoke;
mod rapid_gossip;
mod store;
