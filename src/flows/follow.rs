//! Following the chain: one stream of blocks and mempool for all wallets.

use super::{Error, Flows};
use crate::store::owners::Ownership;

/// What one step of the follower did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There may be more to do at once.
    Moved,
    /// The follower has seen what the node has; wait a little.
    CaughtUp,
    /// An operator has to decide first; see the halt that was raised.
    Halted,
}

/// Takes one step: connects or disconnects one block, or looks at the mempool.
pub async fn step(_flows: &Flows, _owner: &Ownership) -> Result<Progress, Error> {
    todo!()
}
