//! A chain as an Esplora server tells it, over the chain port: what BDK and rgb-lib look at a private chain through.
//!
//! It has only the calls that those make, and it serves regtest only: the whole chain is kept in memory, which a chain of
//! blocks made by hand allows and no other does. What is absent: a clock and a database. It asks the node before each
//! answer, so nobody sees a chain older than his own last action, and a restart reads all blocks again.

mod index;
mod reader;
mod routes;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bitcoin::constants::genesis_block;
use bitcoin::{BlockHash, Network};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::reader::Reader;
use crate::ports::PortError;
use crate::ports::chain::ChainBackend;

#[derive(Debug, thiserror::Error)]
pub enum IndexerError {
    #[error("it keeps the whole chain in memory, so it serves regtest only; this chain begins with {0}")]
    NotRegtest(BlockHash),
    #[error("it can't listen on this machine: {0}")]
    Listen(#[from] io::Error),
    #[error(transparent)]
    Node(#[from] PortError),
}

/// Serves until it is dropped.
pub struct Indexer {
    url: String,
    task: JoinHandle<()>,
}

impl Indexer {
    /// Reads the chain, and serves it on a free port that only this machine reaches.
    ///
    /// # Errors
    /// When the node can't be read, or is of another network.
    pub async fn start(chain: Arc<dyn ChainBackend>) -> Result<Self, IndexerError> {
        let found = chain.info().await?.genesis;
        if found != genesis_block(Network::Regtest).block_hash() {
            return Err(IndexerError::NotRegtest(found));
        }
        let reader = Arc::new(Reader::new(chain));
        // The first caller would wait for it otherwise, and may be less patient.
        drop(reader.current().await?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let router = routes::router(reader);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the indexer's listener has failed");
            }
        });
        Ok(Self { url, task })
    }

    /// Where it serves, as its clients want to be told: without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
