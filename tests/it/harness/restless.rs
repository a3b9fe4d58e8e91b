//! A chain in memory that does not stand still while it is asked.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf, Transaction, Txid};
use sluice::chain::fake::FakeChain;
use sluice::money::FeeRate;
use sluice::ports::PortError;
use sluice::ports::chain::{BlockRef, BroadcastOutcome, ChainBackend, ChainInfo, Mempool, Scan};
use tokio::sync::oneshot;

type Event = Box<dyn FnOnce(&FakeChain) + Send>;

/// A chain that goes on while somebody reads it.
pub struct Restless {
    inner: Arc<FakeChain>,
    during_scan: Mutex<Option<Event>>,
    after_mempool: Mutex<Option<Pause>>,
}

/// An answer that is on its way for a while.
struct Pause {
    given: oneshot::Sender<()>,
    go_on: oneshot::Receiver<()>,
}

/// What whoever pauses an answer has in his hand.
pub struct Paused {
    pub given: oneshot::Receiver<()>,
    pub go_on: oneshot::Sender<()>,
}

impl Restless {
    /// Something happens while the chain is searched for scripts.
    pub fn during_scan(inner: &Arc<FakeChain>, event: impl FnOnce(&FakeChain) + Send + 'static) -> Arc<Self> {
        let (inner, during_scan) = (Arc::clone(inner), Mutex::new(Some(Box::new(event) as Event)));
        Arc::new(Self { inner, during_scan, after_mempool: Mutex::default() })
    }

    /// What the mempool is next said to hold is old when it arrives.
    pub fn after_mempool(inner: &Arc<FakeChain>) -> (Arc<Self>, Paused) {
        let (told, given) = oneshot::channel();
        let (go_on, wait) = oneshot::channel();
        let pause = Mutex::new(Some(Pause { given: told, go_on: wait }));
        let chain = Self { inner: Arc::clone(inner), during_scan: Mutex::default(), after_mempool: pause };
        (Arc::new(chain), Paused { given, go_on })
    }
}

#[async_trait]
impl ChainBackend for Restless {
    async fn info(&self) -> Result<ChainInfo, PortError> {
        self.inner.info().await
    }
    async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, PortError> {
        self.inner.block_hash(height).await
    }
    async fn block(&self, hash: BlockHash) -> Result<Block, PortError> {
        self.inner.block(hash).await
    }
    async fn mempool(&self) -> Result<Mempool, PortError> {
        let mempool = self.inner.mempool().await;
        let pause = self.after_mempool.lock().expect("nobody panics").take();
        if let Some(pause) = pause {
            pause.given.send(()).expect("somebody waits for it");
            pause.go_on.await.expect("somebody lets it go on");
        }
        mempool
    }
    async fn mempool_transactions(&self, txids: &[Txid]) -> Result<Vec<Option<Transaction>>, PortError> {
        self.inner.mempool_transactions(txids).await
    }
    async fn confirmed_transaction(&self, txid: Txid, block: BlockHash) -> Result<Option<Transaction>, PortError> {
        self.inner.confirmed_transaction(txid, block).await
    }
    async fn scan(&self, scripts: &[ScriptBuf]) -> Result<Scan, PortError> {
        let scan = self.inner.scan(scripts).await;
        let event = self.during_scan.lock().expect("nobody panics").take();
        if let Some(event) = event {
            event(&self.inner);
        }
        scan
    }
    async fn still_unspent(&self, outpoints: &[OutPoint]) -> Result<(BlockRef, HashSet<OutPoint>), PortError> {
        self.inner.still_unspent(outpoints).await
    }
    async fn broadcast(&self, transaction: &Transaction) -> Result<BroadcastOutcome, PortError> {
        self.inner.broadcast(transaction).await
    }
    async fn fee_rate(&self, target_blocks: u16) -> Result<Option<FeeRate>, PortError> {
        self.inner.fee_rate(target_blocks).await
    }
    async fn fee_floor(&self) -> Result<FeeRate, PortError> {
        self.inner.fee_floor().await
    }
}
