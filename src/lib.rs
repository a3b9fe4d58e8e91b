//! Sluice: a self-hosted, multi-asset Lightning and on-chain gateway.
//!
//! The rooms, in reading order. `docs/ARCHITECTURE.md` is the map; `tests/tidy.rs` checks who may import whom.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::string_slice, clippy::let_underscore_must_use))]

pub mod clock;
pub mod ids;
pub mod money;
pub mod secret;

pub mod domain;
pub mod ledger;

pub mod ports;
pub mod store;

pub mod assets;
pub mod chain;
pub mod connectors;
pub mod flows;
pub mod workers;

pub mod http;

pub mod app;
pub mod cli;
pub mod config;

pub mod crash;
