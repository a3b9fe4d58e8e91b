//! The Esplora of a private chain, over a real bitcoind or a chain in memory, and the client that wallets use.

use std::sync::Arc;

use bdk_esplora::esplora_client::{BlockingClient, Builder};
use sluice::chain::bitcoind::Bitcoind as Adapter;
use sluice::chain::indexer::Indexer;
use sluice::ports::chain::ChainBackend;

use super::bitcoind::Bitcoind;

/// Longer than the indexer waits for its node.
const TIMEOUT_SECONDS: u64 = 20;

/// Serves until it is dropped.
pub struct Esplora {
    indexer: Indexer,
}

impl Esplora {
    pub async fn start(node: &Bitcoind) -> Self {
        Self::over(Arc::new(Adapter::new(&node.config()).expect("an adapter"))).await
    }

    pub async fn over(chain: Arc<dyn ChainBackend>) -> Self {
        Self { indexer: Indexer::start(chain).await.expect("the indexer starts") }
    }

    pub fn url(&self) -> &str {
        self.indexer.url()
    }

    /// Asks with the client of BDK and rgb-lib, which waits where it stands and is therefore given a thread.
    pub async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&BlockingClient) -> T + Send + 'static) -> T {
        let client = Builder::new(self.url()).timeout(TIMEOUT_SECONDS).max_retries(0).build_blocking();
        tokio::task::spawn_blocking(move || question(&client)).await.expect("it was asked")
    }
}
