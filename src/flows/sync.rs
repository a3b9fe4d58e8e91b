//! Waiting until the follower has seen what the node has seen.

use std::time::Duration;

use super::{Code, Error, Flows};
use crate::ports::chain::BlockRef;
use crate::store::chain;

/// Another process may be the follower; its progress is only to be seen in the database.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How far the follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The last block that counts here.
    pub at: BlockRef,
    /// The node's tip where that is further below: the node has given blocks up and has no others in their place yet, so they count here still.
    pub shorter: Option<BlockRef>,
}

/// Returns once the follower has reached the tip that the node has now.
///
/// # Errors
/// `sync_timeout` when that takes too long, `chain_unavailable` when the node does not answer.
pub async fn wait_for_tip(flows: &Flows) -> Result<Reached, Error> {
    let wanted = flows.chain().info().await?.tip;
    let limit = Duration::from_secs(flows.policy().sync_seconds);
    let at = tokio::time::timeout(limit, until_reached(flows, wanted)).await.map_err(|_| {
        Error::refused(
            Code::SyncTimeout,
            format!("block {} was not reached within {} s", wanted.height, limit.as_secs()),
        )
    })??;
    if at.height <= wanted.height {
        return Ok(Reached { at, shorter: None });
    }
    // Usually the node has gone on, too.
    let tip = flows.chain().info().await?.tip;
    Ok(Reached { at, shorter: Some(tip).filter(|tip| tip.height < at.height) })
}

async fn until_reached(flows: &Flows, mut wanted: BlockRef) -> Result<BlockRef, Error> {
    loop {
        let moved = flows.inner.moved.notified();
        let mut conn = flows.store().read().await?;
        let high_enough = chain::cursor(&mut conn).await?.filter(|at| at.height >= wanted.height);
        // As high is not enough: it may be the block that a reorganisation has just replaced.
        let other = match high_enough {
            Some(_) => chain::block_at(&mut conn, wanted.height).await?.filter(|block| *block != wanted),
            None => None,
        };
        drop(conn);
        match (high_enough, other) {
            (Some(at), None) => return Ok(at),
            // Either the follower has yet to turn, or the block that was the tip is gone again.
            (Some(_), Some(_)) => wanted = flows.chain().info().await?.tip,
            (None, _) => {}
        }
        // Either is a reason to look again.
        let _woken_or_not = tokio::time::timeout(LOOK_AGAIN, moved).await;
    }
}
