//! Asking all peers to close, and bringing home what the closings pay to the seed.
//!
//! A peer that is reached names the channels that it still has with this node. LDK knows none of them any more, and answers in a way
//! that makes the other side close. What a closing pays is found in the chain, by script, and spent to the node's wallet. All state is
//! in the chain: a recovery that was interrupted begins again.

use std::collections::HashSet;
use std::sync::Arc;

use bdk_wallet::KeychainKind;
use bdk_wallet::chain::BlockId;
use bitcoin::{Network, OutPoint, ScriptBuf, Transaction};

use super::super::error::LdkError;
use super::super::node::Node;
use super::super::peers;
use super::super::seed::Seed;
use super::super::start::{META, put};
use super::super::{Config, LdkNode, Rpc, broadcast};
use super::file::{RecoveryFile, RecoveryPeer};
use super::keys::{Coin, PaymentKeys};
use crate::money::Sat;
use crate::ports::PortError;
use crate::ports::chain::{BlockRef, ChainBackend, ScannedCoin};
use crate::store::owners::Ownership;
use crate::store::{Store, node};

/// The mark of a database on which a recovery has begun and not ended.
pub const RECOVERING: &str = "recovering";
/// Scripts of the node's wallet that are looked for, of each keychain.
const WALLET_SCRIPTS: u32 = 1_000;
/// A sweep that was not mined in so many blocks is made again, at the rate of that day.
const PATIENCE: u32 = 6;

/// A recovery under way. The node under it has no channels and takes none.
pub struct Recovery {
    host: Arc<LdkNode>,
    file: RecoveryFile,
    keys: PaymentKeys,
    /// Up to here the chain was searched. `None`: not yet, or the block is gone.
    searched: Option<BlockRef>,
    found: Vec<Coin>,
    sweeps: Vec<Sweep>,
    swept: Sat,
    /// What the next sweep pays at least, in satoshis per 1,000 units of weight: one that was not mined has to be outbid.
    least_rate: u32,
}

struct Sweep {
    transaction: Transaction,
    coins: Vec<Coin>,
    since: u32,
    rate: u32,
}

/// What a recovery has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub height: u32,
    /// Channels whose funding is not spent in a block yet.
    pub open: usize,
    pub closed: usize,
    /// Peers of open channels that can't be reached, each with the reason.
    pub away: Vec<(String, String)>,
    /// What was found and is not yet in the wallet.
    pub on_the_way: Sat,
    /// What this run has brought to the wallet.
    pub swept: Sat,
    /// What the wallet has in blocks.
    pub wallet: Sat,
}

impl Progress {
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.open == 0 && self.on_the_way == Sat::ZERO
    }
}

impl Recovery {
    /// Starts a node that does nothing but recover.
    ///
    /// # Errors
    /// When the file is of another node or network, or the database has the node's channels.
    pub async fn start(
        config: &Config,
        network: Network,
        rpc: Rpc,
        chain: Arc<dyn ChainBackend>,
        store: Store,
        owner: Ownership,
        file: RecoveryFile,
    ) -> Result<Self, LdkError> {
        if file.network != network {
            return Err(LdkError::Misconfigured(format!("the recovery file is of {}, not of {network}", file.network)));
        }
        let config = quiet(config);
        let seed = Seed::find(&config)?;
        let host = LdkNode::start_as(&config, network, rpc, chain, store, owner, true).await?;
        if host.id() != file.node_id {
            let (ours, stored) = (host.id().to_string(), file.node_id.to_string());
            host.stop().await;
            return Err(LdkError::WrongSeed { ours, stored });
        }
        let keys = PaymentKeys::derive(&seed, &host.node.keys)?;
        Ok(Self {
            host,
            file,
            keys,
            searched: None,
            found: Vec::new(),
            sweeps: Vec::new(),
            swept: Sat::ZERO,
            least_rate: 0,
        })
    }

    fn node(&self) -> &Arc<Node> {
        &self.host.node
    }

    /// One look at the peers and at the chain, and what follows from it.
    ///
    /// # Errors
    /// When bitcoind can't be asked. The next look begins where this one ended.
    pub async fn step(&mut self) -> Result<Progress, LdkError> {
        self.search().await?;
        let still_open = self.still_open().await?;
        let away = self.ask_to_close(&still_open).await;
        self.follow_sweeps().await?;
        self.sweep()?;
        let on_the_way = self.found.iter().chain(self.sweeps.iter().flat_map(|sweep| &sweep.coins));
        let on_the_way = on_the_way.fold(Sat::ZERO, plus);
        Ok(Progress {
            height: self.searched.map_or(0, |block| block.height),
            open: still_open.len(),
            closed: self.file.channels.len().saturating_sub(still_open.len()),
            away,
            on_the_way,
            swept: self.swept,
            wallet: self.node().wallet.coins().confirmed,
        })
    }

    /// Ends it: the database may be served from now on, whatever is still open.
    ///
    /// # Errors
    /// When the node stops before that is written.
    pub async fn finish(self) -> Result<(), LdkError> {
        let mark = node::Step::Remove { space: META, name: RECOVERING.to_owned() };
        self.node().stage.push(mark);
        let written = self.node().committed().await;
        self.host.stop().await;
        Ok(written?)
    }

    pub async fn stop(self) {
        self.host.stop().await;
    }

    // ---- the chain ----

    /// Reads the blocks that have come since the last look; at first, and after a reorganisation, all unspent outputs there are.
    async fn search(&mut self) -> Result<(), LdkError> {
        let chain = Arc::clone(&self.node().chain);
        let known = match self.searched {
            Some(block) if chain.block_hash(block.height).await? == Some(block.hash) => Some(block),
            Some(_) | None => None,
        };
        let Some(mut block) = known else { return self.search_all().await };
        while let Some(hash) = chain.block_hash(block.height.saturating_add(1)).await? {
            let next = BlockRef { height: block.height.saturating_add(1), hash };
            for transaction in chain.block(hash).await?.txdata {
                self.take(&transaction);
            }
            block = next;
            self.searched = Some(next);
        }
        Ok(())
    }

    fn take(&mut self, transaction: &Transaction) {
        let txid = transaction.compute_txid();
        for (vout, output) in (0..).zip(&transaction.output) {
            if self.keys.owns(&output.script_pubkey) {
                self.note(Coin { outpoint: OutPoint { txid, vout }, output: output.clone() });
            }
        }
    }

    fn note(&mut self, coin: Coin) {
        let known =
            self.found.iter().chain(self.sweeps.iter().flat_map(|sweep| &sweep.coins)).any(|other| *other == coin);
        if !known {
            tracing::info!(outpoint = %coin.outpoint, value = %coin.output.value, "found an output that a closing pays to the seed");
            self.found.push(coin);
        }
    }

    async fn search_all(&mut self) -> Result<(), LdkError> {
        let ours = self.node().wallet.first_scripts(WALLET_SCRIPTS);
        let scripts: Vec<ScriptBuf> =
            self.keys.scripts().cloned().chain(ours.iter().map(|(script, ..)| script.clone())).collect();
        let scan = self.node().chain.scan(&scripts).await?;
        (self.found, self.sweeps) = (Vec::new(), Vec::new());
        for coin in scan.coins {
            match ours.iter().find(|(script, ..)| *script == coin.script) {
                Some((_, keychain, index)) => self.adopt(&coin, *keychain, *index).await?,
                None => {
                    let output = bitcoin::TxOut { value: coin.amount.to_bitcoin(), script_pubkey: coin.script };
                    self.note(Coin { outpoint: coin.outpoint, output });
                }
            }
        }
        self.node().wallet.wake();
        self.searched = Some(scan.tip);
        Ok(())
    }

    /// The wallet learns of a coin from before its database.
    async fn adopt(&self, coin: &ScannedCoin, keychain: KeychainKind, index: u32) -> Result<(), LdkError> {
        let chain = &self.node().chain;
        let gone = || LdkError::Blocks(format!("the block at height {} is gone", coin.height));
        let hash = chain.block_hash(coin.height).await?.ok_or_else(gone)?;
        let block = chain.block(hash).await?;
        let time = u64::from(block.header.time);
        let transaction = block.txdata.into_iter().find(|transaction| transaction.compute_txid() == coin.outpoint.txid);
        let transaction = transaction.ok_or_else(gone)?;
        self.node().wallet.adopt(transaction, BlockId { height: coin.height, hash }, time, (keychain, index))
    }

    async fn still_open(&self) -> Result<HashSet<OutPoint>, LdkError> {
        let fundings: Vec<OutPoint> = self.file.channels.iter().map(|channel| channel.funding).collect();
        if fundings.is_empty() {
            return Ok(HashSet::new());
        }
        Ok(self.node().chain.still_unspent(&fundings).await?.1)
    }

    // ---- the peers ----

    /// Reaching a peer is asking it: what it says of its channels is answered by LDK.
    async fn ask_to_close(&self, open: &HashSet<OutPoint>) -> Vec<(String, String)> {
        let concerned = |peer: &&RecoveryPeer| {
            self.file.channels.iter().any(|channel| channel.peer == peer.id && open.contains(&channel.funding))
        };
        let tried = self.file.peers.iter().filter(concerned).map(|peer| async move {
            let mut why = "no address of it is known".to_owned();
            for address in &peer.addresses {
                match peers::dial(self.node(), peer.id, address).await {
                    Ok(()) => return None,
                    Err(reason) => why = format!("{address}: {reason}"),
                }
            }
            Some((peer.id.to_string(), why))
        });
        futures::future::join_all(tried).await.into_iter().flatten().collect()
    }

    // ---- the coins ----

    /// What is mined is in the wallet; what is not is offered again, and after a while made again.
    async fn follow_sweeps(&mut self) -> Result<(), LdkError> {
        let height = self.searched.map_or(0, |block| block.height);
        let chain = Arc::clone(&self.node().chain);
        for sweep in std::mem::take(&mut self.sweeps) {
            let spends: Vec<OutPoint> = sweep.coins.iter().map(|coin| coin.outpoint).collect();
            let (_, unspent) = chain.still_unspent(&spends).await?;
            if unspent.is_empty() {
                let brought = sweep.transaction.output.iter().map(|output| output.value.to_sat()).sum::<u64>();
                self.swept = Sat::new(self.swept.to_u64().saturating_add(brought)).unwrap_or(Sat::MAX);
            } else if height >= sweep.since.saturating_add(PATIENCE) {
                self.least_rate = sweep.rate.saturating_add(sweep.rate / 2);
                self.found.extend(sweep.coins);
            } else {
                broadcast::offer(&*chain, std::slice::from_ref(&sweep.transaction)).await;
                self.sweeps.push(sweep);
            }
        }
        Ok(())
    }

    fn sweep(&mut self) -> Result<(), LdkError> {
        if self.found.is_empty() {
            return Ok(());
        }
        let node = Arc::clone(self.node());
        let to = node.wallet.new_address().script_pubkey();
        let rate = node.fees.funding().max(self.least_rate);
        let Some(transaction) = self.keys.sweep(&self.found, &to, rate)? else { return Ok(()) };
        tracing::info!(txid = %transaction.compute_txid(), coins = self.found.len(), "sweeps what closings have paid");
        node.broadcaster.hold(vec![transaction.clone()]);
        let since = self.searched.map_or(0, |block| block.height);
        self.sweeps.push(Sweep { transaction, coins: std::mem::take(&mut self.found), since, rate });
        Ok(())
    }
}

fn plus(sum: Sat, coin: &Coin) -> Sat {
    Sat::new(sum.to_u64().saturating_add(coin.output.value.to_sat())).unwrap_or(Sat::MAX)
}

/// Nobody reaches it, and it takes no channel.
fn quiet(config: &Config) -> Config {
    let mut config = Config { listen: None, announce_addresses: Vec::new(), ..config.clone() };
    config.channels.accept = false;
    config.channels.trusted_peers = Vec::new();
    config
}

/// Whether a recovery has begun on this database and not ended.
///
/// # Errors
/// When the database can't answer.
pub async fn is_under_way(conn: &mut crate::store::Conn) -> Result<bool, PortError> {
    Ok(node::value(conn, META, RECOVERING).await?.is_some())
}

pub fn mark() -> node::Step {
    put(META, RECOVERING, b"1".to_vec())
}
