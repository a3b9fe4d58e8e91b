//! What is left when the database is gone: the seed, and a file that names the peers and the channels.
//!
//! `file.rs` keeps that file while the node runs, `keys.rs` finds what peers pay to the seed alone, `run.rs` asks them to close and
//! brings it home. Nothing here opens a channel or makes a payment.

mod file;
mod keys;
mod run;

pub use file::{RecoveryChannel, RecoveryFile, RecoveryPeer, keep, path};
pub use run::{Progress, Recovery, is_under_way, mark};
