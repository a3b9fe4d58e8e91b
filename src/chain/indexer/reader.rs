//! Bringing the index up to date before each answer.

use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Transaction};
use tokio::sync::{Mutex, MutexGuard};

use super::index::{Index, Orphan};
use crate::ports::PortError;
use crate::ports::chain::{BroadcastOutcome, ChainBackend};

/// How often the mempool is read again when something left it while it was read.
const ATTEMPTS_AT_A_STILL_MEMPOOL: usize = 5;
const SERVICE: &str = "the node behind the indexer";

pub(super) struct Reader {
    chain: Arc<dyn ChainBackend>,
    index: Mutex<Index>,
}

impl Reader {
    pub(super) fn new(chain: Arc<dyn ChainBackend>) -> Self {
        Self { chain, index: Mutex::default() }
    }

    /// The index as the node's chain and mempool were after this was called. A caller that goes away in the middle leaves
    /// an index behind that is merely old: every step keeps it whole.
    ///
    /// # Errors
    /// When the node can't be asked, or does not stand still for long enough.
    pub(super) async fn current(&self) -> Result<MutexGuard<'_, Index>, PortError> {
        let mut index = self.index.lock().await;
        for _ in 0..ATTEMPTS_AT_A_STILL_MEMPOOL {
            match self.catch_up(&mut index).await {
                Ok(true) => return Ok(index),
                Ok(false) => {}
                Err(CatchUpError::Node(error)) => return Err(error),
                Err(CatchUpError::Orphan(orphan)) => {
                    tracing::warn!(%orphan, "the indexer begins again");
                    *index = Index::default();
                }
            }
        }
        Err(PortError::Unreachable { service: SERVICE, reason: "it did not stand still to be read".to_owned() })
    }

    /// False when a transaction left the mempool while it was read.
    async fn catch_up(&self, index: &mut Index) -> Result<bool, CatchUpError> {
        let mempool = self.chain.mempool().await?;
        index.leave_mempool(&mempool.txids);
        self.follow(index, mempool.tip.hash).await?;
        let new = self.chain.mempool_transactions(&index.unknown(&mempool.txids)).await?;
        match new.into_iter().collect::<Option<Vec<Transaction>>>() {
            Some(new) => index.enter_mempool(new).map(|()| true).map_err(CatchUpError::Orphan),
            None => Ok(false),
        }
    }

    /// Blocks are read from the tip back to one that is known, by their hashes: whatever the node does meanwhile, they belong together.
    async fn follow(&self, index: &mut Index, tip: BlockHash) -> Result<(), CatchUpError> {
        let mut new = Vec::new();
        let mut hash = tip;
        while hash != BlockHash::all_zeros() && index.height_of(&hash).is_none() {
            let block = self.chain.block(hash).await?;
            hash = block.header.prev_blockhash;
            new.push(block);
        }
        index.disconnect_to(index.height_of(&hash).map_or(0, |fork| fork + 1));
        for block in new.into_iter().rev() {
            index.connect(block).map_err(CatchUpError::Orphan)?;
        }
        Ok(())
    }

    /// # Errors
    /// When nobody knows whether it went out.
    pub(super) async fn broadcast(&self, transaction: &Transaction) -> Result<BroadcastOutcome, PortError> {
        self.chain.broadcast(transaction).await
    }
}

enum CatchUpError {
    Node(PortError),
    /// Blocks and mempool were not of one moment, or something was missed: what is known can't be mended.
    Orphan(Orphan),
}

impl From<PortError> for CatchUpError {
    fn from(error: PortError) -> Self {
        Self::Node(error)
    }
}
