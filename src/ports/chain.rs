//! The port to the Bitcoin network: blocks, mempool, broadcast, fee rates.

use std::collections::HashSet;

use async_trait::async_trait;
use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf, Transaction, Txid};

use super::PortError;
pub use crate::domain::BlockRef;
use crate::money::{FeeRate, Sat};

/// What a backend says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainInfo {
    pub genesis: BlockHash,
    pub tip: BlockRef,
    /// It is still fetching old blocks: what it says of the mempool and the tip is not yet the network's view.
    pub syncing: bool,
}

/// The transactions that wait for a block, and the tip they were read at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mempool {
    pub tip: BlockRef,
    pub txids: HashSet<Txid>,
}

/// A confirmed coin found by a scan of the whole set of unspent outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedCoin {
    pub outpoint: OutPoint,
    pub script: ScriptBuf,
    pub amount: Sat,
    pub height: u32,
    pub coinbase: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The tip that the scan is true for.
    pub tip: BlockRef,
    pub coins: Vec<ScannedCoin>,
}

/// What the backend said when it was offered a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BroadcastOutcome {
    /// It is in the mempool now, or was there before.
    InMempool,
    /// It is in a block already.
    InChain,
    /// The node does not want it now. Somebody else's node might: this is no proof that it can't confirm.
    Refused { reason: String },
}

/// Every call ends: with an answer, or with an error after the backend's own deadline. None of them changes anything but
/// [`ChainBackend::broadcast`], so all others may be repeated at will. What is checked against what was asked is said at
/// each; the rest is the backend's word. `tests/it/conformance/chain.rs` holds every implementation to this.
#[async_trait]
pub trait ChainBackend: Send + Sync {
    /// The network by its genesis block, and the tip. The first call to make, and the one that tells whether it is up.
    async fn info(&self) -> Result<ChainInfo, PortError>;

    /// The hash of the best chain's block at this height; `None` above the tip.
    async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, PortError>;

    /// A whole block, whose hash, transactions and witnesses have been checked against what was asked for. A block that
    /// lost is still a block; one that the backend does not know is an error.
    async fn block(&self, hash: BlockHash) -> Result<Block, PortError>;

    /// The mempool as it was at this tip: what was mined or brought back by the tip's block is reflected in it.
    async fn mempool(&self) -> Result<Mempool, PortError>;

    /// Transactions of the mempool, in the order asked and with the ids asked for; `None` for one that has left it, for a
    /// block too.
    async fn mempool_transactions(&self, txids: &[Txid]) -> Result<Vec<Option<Transaction>>, PortError>;

    /// A transaction of a block of the best chain, with the id asked for; `None` when the block does not hold it, is no
    /// longer stored, or is not of the best chain.
    async fn confirmed_transaction(&self, txid: Txid, block: BlockHash) -> Result<Option<Transaction>, PortError>;

    /// Finds every confirmed unspent output to one of these scripts, each once. May take minutes on mainnet: give it all
    /// scripts at once.
    async fn scan(&self, scripts: &[ScriptBuf]) -> Result<Scan, PortError>;

    /// Of these outputs, those that are unspent in the chain (the mempool doesn't count), and the tip at which that is true.
    async fn still_unspent(&self, outpoints: &[OutPoint]) -> Result<(BlockRef, HashSet<OutPoint>), PortError>;

    /// Offers a transaction; offering it again is harmless. An error means that nobody knows whether it went out. A
    /// backend may refuse what is confirmed already when all its outputs are spent: only the follower knows for certain.
    async fn broadcast(&self, transaction: &Transaction) -> Result<BroadcastOutcome, PortError>;

    /// Offers a transaction together with its parents, which come before it: what one of them pays too little, the others
    /// may pay for it. The answer is that of the last. A backend that can't do that offers one after the other.
    async fn broadcast_package(&self, transactions: &[Transaction]) -> Result<BroadcastOutcome, PortError> {
        let mut outcome = BroadcastOutcome::InMempool;
        for transaction in transactions {
            outcome = self.broadcast(transaction).await?;
        }
        Ok(outcome)
    }

    /// The rate for confirmation within so many blocks; `None` when the backend has too little data.
    async fn fee_rate(&self, target_blocks: u16) -> Result<Option<FeeRate>, PortError>;

    /// The lowest rate that the mempool takes now. What pays less is neither kept nor relayed.
    async fn fee_floor(&self) -> Result<FeeRate, PortError>;
}
