//! Searching the chain for coins that a wallet had before it was registered.

use super::{Error, Flows};
use crate::store::owners::Ownership;

/// Scans for every wallet that waits for it, in one pass; answers how many there were. May take minutes on mainnet.
pub async fn scan_waiting(_flows: &Flows, _owner: &Ownership) -> Result<usize, Error> {
    todo!()
}
