//! A chain in memory behind the same port, for tests and benchmarks: real blocks and real transactions, moved by hand.
//!
//! What is absent: signatures, coinbase maturity and policy beyond fees. Nothing outside of tests and benchmarks wires it.

mod state;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::blockdata::constants::genesis_block;
use bitcoin::{Block, BlockHash, Network, OutPoint, ScriptBuf, Transaction, Txid};

use self::state::State;
use crate::money::{FeeRate, Sat};
use crate::ports::PortError;
use crate::ports::chain::{BlockRef, BroadcastOutcome, ChainBackend, ChainInfo, Mempool, Scan};

const SERVICE: &str = "fake chain";

/// What is wrong with the backend until it is mended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nobody listens.
    Down,
    /// The call is taken, and nothing comes back before the client gives up after this long.
    Hang(Duration),
    /// Every answer is a server error.
    Error500,
    /// It follows another chain than it should: its genesis block is mainnet's.
    WrongNetwork,
    /// A transaction that is offered goes out, but the answer is lost.
    AnswerLost,
    /// Estimates are this many bitcoin per 1,000 virtual bytes, however absurd.
    FeeRate(f64),
}

/// What becomes of the transactions of blocks that a reorganisation takes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reorged {
    /// The first of the new blocks has them again.
    MinedAgain,
    /// They wait in the mempool again, and the new blocks are empty.
    BackInMempool,
    /// Nobody has them any more.
    Gone,
}

/// A test asked for what can't be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FakeError {
    #[error("{0} does not exist, or is spent")]
    Unspendable(OutPoint),
    #[error("{0} is not in the mempool")]
    NotInMempool(Txid),
    #[error("the faucet has no confirmed coins left: mine")]
    FaucetDry,
    #[error("the inputs do not hold that much")]
    TooLittle,
    #[error("that many blocks can't be taken off")]
    TooDeep,
    #[error("the mempool refuses it: {0}")]
    Refused(String),
}

/// The controls of a test. They work whatever fault is set: faults are between the gateway and the chain.
pub struct FakeChain {
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    fault: Option<Fault>,
    refusal: Option<String>,
    fee_rate: Option<FeeRate>,
    syncing: bool,
}

impl Default for FakeChain {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeChain {
    /// A regtest chain of height 1, whose block 1 fills the faucet.
    #[must_use]
    pub fn new() -> Self {
        let state = State::new();
        Self { inner: Mutex::new(Inner { state, fault: None, refusal: None, fee_rate: None, syncing: false }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn tip(&self) -> BlockRef {
        self.lock().state.tip()
    }

    /// Mines the mempool into a block, and empty blocks on top of it.
    pub fn mine(&self, blocks: u32) -> BlockRef {
        let state = &mut self.lock().state;
        for _ in 0..blocks {
            let waiting = state.waiting_in_order();
            state.mine_checked(waiting);
        }
        state.tip()
    }

    /// Mines blocks that leave the mempool waiting.
    pub fn mine_empty(&self, blocks: u32) -> BlockRef {
        let state = &mut self.lock().state;
        for _ in 0..blocks {
            state.mine_checked(Vec::new());
        }
        state.tip()
    }

    /// Mines the mempool into a block whose reward goes to this script.
    pub fn mine_to(&self, script: &ScriptBuf) -> BlockRef {
        let state = &mut self.lock().state;
        let waiting = state.waiting_in_order();
        state.append_block(script.clone(), waiting)
    }

    /// Mines one block of exactly these; what they contradict leaves the mempool.
    ///
    /// # Errors
    /// When one spends what isn't there.
    pub fn mine_with(&self, txs: Vec<Transaction>) -> Result<BlockRef, FakeError> {
        self.lock().state.mine(txs)
    }

    /// A payment of the faucet that nobody has seen yet. Its output 0 is the one asked for.
    ///
    /// # Errors
    /// When the faucet can't pay that much.
    pub fn build_payment(&self, outputs: &[(ScriptBuf, Sat)]) -> Result<Transaction, FakeError> {
        self.lock().state.payment(outputs)
    }

    /// Pays into the mempool. The payment's output 0 is the one asked for.
    ///
    /// # Errors
    /// When the faucet can't pay that much.
    pub fn pay(&self, script: &ScriptBuf, sat: Sat) -> Result<Txid, FakeError> {
        self.pay_many(&[(script.clone(), sat)])
    }

    /// Pays all of these with one transaction; its first outputs are those asked for, in order.
    ///
    /// # Errors
    /// When the faucet can't pay that much.
    pub fn pay_many(&self, outputs: &[(ScriptBuf, Sat)]) -> Result<Txid, FakeError> {
        let state = &mut self.lock().state;
        let tx = state.payment(outputs)?;
        offer(state, tx)
    }

    /// Pays, and mines a block of only that payment.
    ///
    /// # Errors
    /// When the faucet can't pay that much.
    pub fn fund_confirmed(&self, script: &ScriptBuf, sat: Sat) -> Result<(OutPoint, BlockRef), FakeError> {
        let state = &mut self.lock().state;
        let tx = state.payment(&[(script.clone(), sat)])?;
        let outpoint = OutPoint { txid: tx.compute_txid(), vout: 0 };
        Ok((outpoint, state.mine(vec![tx])?))
    }

    /// Takes the last `depth` blocks off and mines `new_len` others on what is left. A new branch that isn't longer is
    /// allowed: it stands for one with more work.
    ///
    /// # Errors
    /// When there aren't that many blocks above block 1.
    pub fn reorg(&self, depth: u32, new_len: u32, fate: Reorged) -> Result<BlockRef, FakeError> {
        let state = &mut self.lock().state;
        let lost = state.disconnect(depth)?;
        let first = match fate {
            Reorged::MinedAgain => lost,
            Reorged::BackInMempool => {
                state.refill(lost);
                Vec::new()
            }
            Reorged::Gone => Vec::new(),
        };
        let mut first = Some(first);
        for _ in 0..new_len {
            state.mine(first.take().unwrap_or_default())?;
        }
        // What waited for a transaction that is gone is gone with it.
        state.refill(Vec::new());
        Ok(state.tip())
    }

    /// Removes a transaction and its descendants from the mempool, as a full mempool does. False when it wasn't there.
    pub fn evict(&self, txid: Txid) -> bool {
        self.lock().state.evict(txid)
    }

    /// Replaces a waiting transaction by one that spends the same inputs, pays more fee, and pays these outputs first.
    ///
    /// # Errors
    /// When it isn't waiting, or its inputs do not hold that much.
    pub fn replace(&self, txid: Txid, outputs: &[(ScriptBuf, Sat)]) -> Result<Txid, FakeError> {
        let state = &mut self.lock().state;
        let tx = state.rival(txid, outputs)?;
        offer(state, tx)
    }

    /// The replacement without offering it: to mine it behind the mempool's back.
    ///
    /// # Errors
    /// When the other isn't waiting, or its inputs do not hold that much.
    pub fn build_rival(&self, txid: Txid, outputs: &[(ScriptBuf, Sat)]) -> Result<Transaction, FakeError> {
        self.lock().state.rival(txid, outputs)
    }

    /// Empties the mempool, as a restart without its file does.
    pub fn wipe_mempool(&self) {
        self.lock().state.wipe_mempool();
    }

    /// `None` mends it.
    pub fn set_fault(&self, fault: impl Into<Option<Fault>>) {
        self.lock().fault = fault.into();
    }

    /// Refuses whatever is offered, with this reason; `None` ends that.
    pub fn refuse_broadcast(&self, reason: Option<&str>) {
        self.lock().refusal = reason.map(str::to_owned);
    }

    /// What is estimated for every target. At first nothing is, as on any young regtest.
    pub fn set_fee_rate(&self, rate: Option<FeeRate>) {
        self.lock().fee_rate = rate;
    }

    pub fn set_syncing(&self, syncing: bool) {
        self.lock().syncing = syncing;
    }

    #[must_use]
    pub fn mempool_ids(&self) -> HashSet<Txid> {
        self.lock().state.mempool_ids()
    }

    /// A transaction of the mempool, or of the best chain.
    #[must_use]
    pub fn transaction(&self, txid: Txid) -> Option<Transaction> {
        self.lock().state.find(txid)
    }

    /// Every transaction of the best chain.
    #[must_use]
    pub fn confirmed(&self) -> Vec<Transaction> {
        self.lock().state.confirmed()
    }

    /// Every call of the port goes through here, and hangs or fails if it shall.
    async fn reach(&self) -> Result<MutexGuard<'_, Inner>, PortError> {
        let fault = self.lock().fault;
        match fault {
            Some(Fault::Down) => Err(unreachable("nobody listens")),
            Some(Fault::Error500) => Err(unreachable("HTTP 500")),
            Some(Fault::Hang(span)) => {
                tokio::time::sleep(span).await;
                Err(unreachable("no answer in time"))
            }
            Some(Fault::WrongNetwork | Fault::AnswerLost | Fault::FeeRate(_)) | None => Ok(self.lock()),
        }
    }
}

fn offer(state: &mut State, tx: Transaction) -> Result<Txid, FakeError> {
    let txid = tx.compute_txid();
    match state.accept(tx) {
        BroadcastOutcome::InMempool | BroadcastOutcome::InChain => Ok(txid),
        BroadcastOutcome::Refused { reason } => Err(FakeError::Refused(reason)),
    }
}

fn unreachable(reason: &str) -> PortError {
    PortError::Unreachable { service: SERVICE, reason: reason.to_owned() }
}

fn nonsense(reason: String) -> PortError {
    PortError::Nonsense { service: SERVICE, reason }
}

#[async_trait]
impl ChainBackend for FakeChain {
    async fn info(&self) -> Result<ChainInfo, PortError> {
        let inner = self.reach().await?;
        let network = if inner.fault == Some(Fault::WrongNetwork) { Network::Bitcoin } else { Network::Regtest };
        let genesis = genesis_block(network).block_hash();
        Ok(ChainInfo { genesis, tip: inner.state.tip(), syncing: inner.syncing })
    }

    async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, PortError> {
        Ok(self.reach().await?.state.hash_at(height))
    }

    async fn block(&self, hash: BlockHash) -> Result<Block, PortError> {
        let inner = self.reach().await?;
        inner.state.block(hash).cloned().ok_or_else(|| nonsense(format!("block {hash} not found")))
    }

    async fn mempool(&self) -> Result<Mempool, PortError> {
        let inner = self.reach().await?;
        Ok(Mempool { tip: inner.state.tip(), txids: inner.state.mempool_ids() })
    }

    async fn mempool_transactions(&self, txids: &[Txid]) -> Result<Vec<Option<Transaction>>, PortError> {
        let inner = self.reach().await?;
        Ok(txids.iter().map(|txid| inner.state.waiting(*txid).cloned()).collect())
    }

    async fn confirmed_transaction(&self, txid: Txid, block: BlockHash) -> Result<Option<Transaction>, PortError> {
        let inner = self.reach().await?;
        let block = inner.state.block(block).filter(|_| inner.state.is_best(block));
        Ok(block.and_then(|block| block.txdata.iter().find(|tx| tx.compute_txid() == txid)).cloned())
    }

    async fn scan(&self, scripts: &[ScriptBuf]) -> Result<Scan, PortError> {
        let inner = self.reach().await?;
        let asked: HashSet<&ScriptBuf> = scripts.iter().collect();
        Ok(Scan { tip: inner.state.tip(), coins: inner.state.coins_to(&asked) })
    }

    async fn still_unspent(&self, outpoints: &[OutPoint]) -> Result<(BlockRef, HashSet<OutPoint>), PortError> {
        let inner = self.reach().await?;
        let unspent = outpoints.iter().filter(|outpoint| inner.state.is_unspent(outpoint)).copied().collect();
        Ok((inner.state.tip(), unspent))
    }

    async fn broadcast(&self, transaction: &Transaction) -> Result<BroadcastOutcome, PortError> {
        let mut inner = self.reach().await?;
        let outcome = match inner.refusal.clone() {
            Some(reason) => BroadcastOutcome::Refused { reason },
            None => inner.state.accept(transaction.clone()),
        };
        if inner.fault == Some(Fault::AnswerLost) { Err(unreachable("the answer was lost")) } else { Ok(outcome) }
    }

    async fn fee_rate(&self, _target_blocks: u16) -> Result<Option<FeeRate>, PortError> {
        let inner = self.reach().await?;
        match inner.fault {
            Some(Fault::FeeRate(rate)) => {
                FeeRate::from_btc_per_kvb(rate).map(Some).map_err(|_| nonsense(format!("a fee rate of {rate} BTC/kvB")))
            }
            _ => Ok(inner.fee_rate),
        }
    }

    async fn fee_floor(&self) -> Result<FeeRate, PortError> {
        self.reach().await.map(|_inner| FeeRate::from_sat_per_vb(1))
    }
}
