//! Blocks from bitcoind, for everything in the node that follows the chain.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bitcoin::{Block, BlockHash, OutPoint, block};
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BlockLocator, Listen};
use lightning_block_sync::gossip::UtxoSource;
use lightning_block_sync::rpc::RpcClient;
use lightning_block_sync::{BlockData, BlockHeaderData, BlockSource, BlockSourceError, BlockSourceResult};

use super::config::Rpc;
use super::error::LdkError;
use super::types::{Manager, Monitors, Sweeper, lock};
use super::wallet::NodeWallet;

/// How long bitcoind may take. LDK's client waits for minutes, also on a connection that it keeps and that is dead.
const ANSWER: Duration = Duration::from_secs(5);
const BLOCK: Duration = Duration::from_secs(30);

async fn within<T>(span: Duration, call: impl Future<Output = BlockSourceResult<T>>) -> BlockSourceResult<T> {
    let late = |_| Err(BlockSourceError::transient("bitcoind did not answer in time"));
    tokio::time::timeout(span, call).await.unwrap_or_else(late)
}

/// bitcoind over JSON-RPC. Its cookie changes whenever it is restarted, so a call that failed is made again with what is in
/// the file then, on a new connection.
pub struct Source {
    rpc: Rpc,
    client: Mutex<Arc<RpcClient>>,
}

impl Source {
    /// # Errors
    /// When there is nothing to log in with.
    pub fn new(rpc: Rpc) -> Result<Self, LdkError> {
        let client = Mutex::new(Arc::new(log_in(&rpc)?));
        Ok(Self { rpc, client })
    }

    fn client(&self) -> Arc<RpcClient> {
        Arc::clone(&lock(&self.client))
    }

    fn log_in_again(&self) -> Arc<RpcClient> {
        match log_in(&self.rpc) {
            Ok(client) => *lock(&self.client) = Arc::new(client),
            Err(error) => tracing::debug!(%error, "can't log in to bitcoind"),
        }
        self.client()
    }
}

fn log_in(rpc: &Rpc) -> Result<RpcClient, LdkError> {
    let login = match (&rpc.cookie_file, &rpc.user) {
        (Some(path), _) => {
            let cookie = std::fs::read_to_string(path);
            cookie.map_err(|error| LdkError::File { path: path.clone(), error })?.trim().to_owned()
        }
        (None, Some(user)) => format!("{user}:{}", rpc.password.as_ref().map_or("", |password| password.expose())),
        (None, None) => return Err(LdkError::Misconfigured("bitcoind needs a cookie_file or a user".to_owned())),
    };
    Ok(RpcClient::new(&BASE64.encode(login), rpc.url.trim_end_matches('/').to_owned()))
}

impl BlockSource for Source {
    async fn get_header(&self, hash: &BlockHash, height: Option<u32>) -> BlockSourceResult<BlockHeaderData> {
        match within(ANSWER, self.client().get_header(hash, height)).await {
            Ok(header) => Ok(header),
            Err(_) => within(ANSWER, self.log_in_again().get_header(hash, height)).await,
        }
    }

    async fn get_block(&self, hash: &BlockHash) -> BlockSourceResult<BlockData> {
        match within(BLOCK, self.client().get_block(hash)).await {
            Ok(block) => Ok(block),
            Err(_) => within(BLOCK, self.log_in_again().get_block(hash)).await,
        }
    }

    async fn get_best_block(&self) -> BlockSourceResult<(BlockHash, Option<u32>)> {
        match within(ANSWER, self.client().get_best_block()).await {
            Ok(best) => Ok(best),
            Err(_) => within(ANSWER, self.log_in_again().get_best_block()).await,
        }
    }
}

impl UtxoSource for Source {
    async fn get_block_hash_by_height(&self, height: u32) -> BlockSourceResult<BlockHash> {
        within(ANSWER, self.client().get_block_hash_by_height(height)).await
    }

    async fn is_output_unspent(&self, outpoint: OutPoint) -> BlockSourceResult<bool> {
        within(ANSWER, self.client().is_output_unspent(outpoint)).await
    }
}

/// All that follow the chain, once they are at the same block.
pub struct Followers {
    pub wallet: Arc<NodeWallet>,
    pub monitors: Arc<Monitors>,
    pub manager: Arc<Manager>,
    pub sweeper: Arc<Sweeper>,
}

impl Listen for Followers {
    fn block_connected(&self, block: &Block, height: u32) {
        self.wallet.block_connected(block, height);
        self.monitors.block_connected(block, height);
        self.manager.block_connected(block, height);
        self.sweeper.block_connected(block, height);
    }

    fn filtered_block_connected(&self, header: &block::Header, transactions: &TransactionData, height: u32) {
        self.monitors.filtered_block_connected(header, transactions, height);
        self.manager.filtered_block_connected(header, transactions, height);
        self.sweeper.filtered_block_connected(header, transactions, height);
    }

    fn blocks_disconnected(&self, fork_point: BlockLocator) {
        self.wallet.blocks_disconnected(fork_point);
        self.monitors.blocks_disconnected(fork_point);
        self.manager.blocks_disconnected(fork_point);
        self.sweeper.blocks_disconnected(fork_point);
    }
}
