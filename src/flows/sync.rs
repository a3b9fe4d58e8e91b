//! Waiting until the follower has seen what the node has seen.

use std::time::Duration;

use super::{Code, Error, Flows};
use crate::ports::chain::BlockRef;
use crate::store::chain;

/// Another process may be the follower; its progress is only to be seen in the database.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Returns once the follower has reached the tip that the node has now.
///
/// # Errors
/// `sync_timeout` when that takes too long, `chain_unavailable` when the node does not answer.
pub async fn wait_for_tip(flows: &Flows) -> Result<BlockRef, Error> {
    let wanted = flows.chain().info().await?.tip;
    let limit = Duration::from_secs(flows.policy().sync_seconds);
    tokio::time::timeout(limit, until_reached(flows, wanted)).await.map_err(|_| {
        Error::refused(
            Code::SyncTimeout,
            format!("block {} was not reached within {} s", wanted.height, limit.as_secs()),
        )
    })?
}

async fn until_reached(flows: &Flows, wanted: BlockRef) -> Result<BlockRef, Error> {
    let mut wanted = wanted;
    loop {
        let moved = flows.inner.moved.notified();
        let mut conn = flows.store().read().await?;
        let cursor = chain::cursor(&mut conn).await?;
        let at_height = chain::block_at(&mut conn, wanted.height).await?;
        drop(conn);
        if let Some(at) = cursor.filter(|at| at.height >= wanted.height) {
            if at_height == Some(wanted) {
                return Ok(at);
            }
            // One of the two is on a branch that lost: the node's word is what counts.
            wanted = flows.chain().info().await?.tip;
        }
        // Either is a reason to look again.
        let _woken_or_not = tokio::time::timeout(LOOK_AGAIN, moved).await;
    }
}
