//! What the stories run on.
#![allow(dead_code, reason = "a tool of the harness may wait for its first story")]

pub mod assets;
pub mod bitcoind;
pub mod canned;
pub mod client;
pub mod consignments;
pub mod document;
pub mod embit;
pub mod esplora;
pub mod export;
pub mod gateway;
pub mod lightning;
pub mod peer;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod restless;
pub mod rgb_wallet;
pub mod rig;
pub mod snapshot;
pub mod spec_signer;
pub mod spending;
pub mod tls;
