//! The chain as a bitcoind tells it, over JSON-RPC.
//!
//! It needs no index and no wallet of the node; version 25 or later. What is absent: notifications (the follower asks),
//! and any memory. Every answer is read afresh, so that a restarted or replaced node needs nothing from us.

mod client;
mod map;
mod wire;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf, Transaction, Txid};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use self::client::{Client, Reply, decode};
use self::map::{BroadcastNo, misconfigured, nonsense, refused_call, unreachable};
use self::wire::{
    BlockHeader, BlockchainInfo, Call, PackageResult, RpcError, SmartFee, TxOut, TxOutSet, VerboseTransaction, code,
};
use crate::money::FeeRate;
use crate::ports::PortError;
use crate::ports::chain::{BlockRef, BroadcastOutcome, ChainBackend, ChainInfo, Mempool, Scan};
use crate::secret::Secret;

/// A full block is 8 MB of hex, the largest default mempool about 30 MB of ids.
const MAX_RESPONSE_BYTES: usize = 64 << 20;
/// Transactions asked for in one message. The largest that nodes relay is 0.8 MB of hex: even a batch of those can be read.
const TRANSACTIONS_A_BATCH: usize = 50;
/// Outputs asked after in one message; an answer is below 1 kB, whatever the script.
const OUTPOINTS_A_BATCH: usize = 1_000;
/// bitcoind reads at most 32 MiB of request. A scan reads the whole set of coins however little it looks for, so it is given a lot.
const SCRIPT_BYTES_A_SCAN: usize = 16 << 20;
/// How often a question is asked again when a block arrived in the middle of it.
const ATTEMPTS_AT_A_STILL_TIP: usize = 5;
/// How long we try to get an earlier scan out of the way, and how often we look.
const PATIENCE_WITH_OLD_SCAN: Duration = Duration::from_secs(30);
const OLD_SCAN_POLL: Duration = Duration::from_millis(200);
/// bitcoind refuses to estimate for a target outside of 1..=1008.
const MAX_FEE_TARGET: u16 = 1_008;

/// Where bitcoind is, and how to log in there: with its cookie file, or with a user and a password.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `http://` or `https://`, without a password in it.
    pub url: String,
    pub cookie_file: Option<PathBuf>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// How long one call may take, other than a scan.
    pub timeout_ms: u64,
    /// How long a scan of all unspent outputs may take: minutes on mainnet.
    pub scan_timeout_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8332".to_owned(),
            cookie_file: None,
            user: None,
            password: None,
            timeout_ms: 10_000,
            scan_timeout_ms: 30 * 60 * 1_000,
        }
    }
}

pub struct Bitcoind {
    client: Client,
    scan_timeout: Duration,
    /// bitcoind does one scan at a time, and ours must not abort each other.
    scanning: tokio::sync::Mutex<()>,
}

impl Bitcoind {
    /// Does not call yet: a node that is down now is no reason not to start.
    ///
    /// # Errors
    /// When the configuration can't be used.
    pub fn new(config: &Config) -> Result<Self, PortError> {
        Ok(Self {
            client: Client::new(config)?,
            scan_timeout: Duration::from_millis(config.scan_timeout_ms),
            scanning: tokio::sync::Mutex::new(()),
        })
    }

    /// Asks between two looks at the tip; `None` when it moved meanwhile, so that the replies belong to no one tip.
    async fn at_one_tip(&self, calls: Vec<Call>) -> Result<Option<(BlockRef, Vec<Reply>)>, PortError> {
        let mut all = vec![Call::new("getblockchaininfo", json!([]))];
        all.extend(calls);
        all.push(Call::new("getbestblockhash", json!([])));
        let mut replies = self.client.batch(&all).await?;
        let after: BlockHash = expect(replies.pop())?;
        let before: BlockchainInfo = expect((!replies.is_empty()).then(|| replies.remove(0)))?;
        let tip = map::tip(&before);
        Ok((tip.hash == after).then_some((tip, replies)))
    }

    /// One pass over all outputs; `None` when the tip moved.
    async fn unspent_pass(&self, all: &[OutPoint]) -> Result<Option<(BlockRef, HashSet<OutPoint>)>, PortError> {
        let mut seen: Option<BlockRef> = None;
        let mut unspent = HashSet::new();
        // Without outputs there is still a tip to tell.
        let chunks = all.chunks(OUTPOINTS_A_BATCH).chain(all.is_empty().then_some(all));
        for chunk in chunks {
            let calls = chunk.iter().map(|out| Call::new("gettxout", json!([out.txid, out.vout, false]))).collect();
            let Some((tip, replies)) = self.at_one_tip(calls).await? else { return Ok(None) };
            if seen.is_some_and(|earlier| earlier != tip) {
                return Ok(None);
            }
            seen = Some(tip);
            for (outpoint, reply) in chunk.iter().zip(replies) {
                match expect::<Option<TxOut>>(Some(reply))? {
                    Some(found) if found.bestblock == tip.hash => unspent.insert(*outpoint),
                    Some(_) => return Ok(None),
                    None => false,
                };
            }
        }
        Ok(seen.map(|tip| (tip, unspent)))
    }

    async fn mempool_chunk(&self, txids: &[Txid]) -> Result<Vec<Option<Transaction>>, PortError> {
        let mut calls = vec![Call::new("getindexinfo", json!(["txindex"]))];
        calls.extend(txids.iter().map(|txid| Call::new("getrawtransaction", json!([txid, false]))));
        let mut replies = self.client.batch(&calls).await?.into_iter();
        let indexes: Map<String, Value> = expect(replies.next())?;
        let found = txids.iter().zip(replies).map(|(txid, reply)| found_transaction(*txid, reply));
        let found: Vec<Option<Transaction>> = found.collect::<Result<_, _>>()?;
        // A node with an index of all transactions finds those in blocks as well.
        if indexes.is_empty() { Ok(found) } else { self.only_in_mempool(txids, found).await }
    }

    async fn only_in_mempool(
        &self,
        txids: &[Txid],
        found: Vec<Option<Transaction>>,
    ) -> Result<Vec<Option<Transaction>>, PortError> {
        let calls: Vec<Call> = txids.iter().map(|txid| Call::new("getmempoolentry", json!([txid]))).collect();
        let entries = self.client.batch(&calls).await?;
        Ok(found.into_iter().zip(entries).map(|(tx, entry)| tx.filter(|_| entry.is_ok())).collect())
    }

    /// Scans once, after getting a scan out of the way that an earlier process or a lost connection left behind.
    async fn scan_set(&self, descriptors: &[String]) -> Result<TxOutSet, PortError> {
        let deadline = Instant::now() + PATIENCE_WITH_OLD_SCAN;
        loop {
            let start = Call::new("scantxoutset", json!(["start", descriptors]));
            match self.client.call_within::<TxOutSet>(start, self.scan_timeout).await? {
                Ok(set) => return Ok(set),
                Err(no) if !already_scanning(&no) => return Err(refused_call(&no)),
                Err(_) if Instant::now() >= deadline => return Err(unreachable("another scan does not end")),
                Err(_) => {
                    self.client.ask::<bool>(Call::new("scantxoutset", json!(["abort"]))).await?;
                    tokio::time::sleep(OLD_SCAN_POLL).await;
                }
            }
        }
    }

    /// The answer is that of the last.
    async fn broadcast_each(&self, transactions: &[Transaction]) -> Result<BroadcastOutcome, PortError> {
        let mut outcome = BroadcastOutcome::InMempool;
        for transaction in transactions {
            outcome = self.broadcast(transaction).await?;
        }
        Ok(outcome)
    }

    /// Whether this transaction is what has spent its own inputs. Without an index the node forgets a confirmed
    /// transaction as soon as all its outputs are spent; then it is refused, which is no proof of anything.
    async fn look_for(&self, tx: &Transaction, reason: String) -> Result<BroadcastOutcome, PortError> {
        let txid = tx.compute_txid();
        let mut calls =
            vec![Call::new("getmempoolentry", json!([txid])), Call::new("getrawtransaction", json!([txid, true]))];
        calls.extend((0..tx.output.len()).map(|vout| Call::new("gettxout", json!([txid, vout, false]))));
        let mut replies = self.client.batch(&calls).await?.into_iter();
        if matches!(replies.next(), Some(Ok(_))) {
            return Ok(BroadcastOutcome::InMempool);
        }
        let indexed = match replies.next() {
            Some(Ok(raw)) => decode::<VerboseTransaction>(&raw)?.confirmations > 0,
            _ => false,
        };
        let mut unspent = false;
        for reply in replies {
            unspent |= expect::<Option<TxOut>>(Some(reply))?.is_some();
        }
        Ok(if indexed || unspent { BroadcastOutcome::InChain } else { BroadcastOutcome::Refused { reason } })
    }
}

#[async_trait]
impl ChainBackend for Bitcoind {
    async fn info(&self) -> Result<ChainInfo, PortError> {
        let calls = [Call::new("getblockchaininfo", json!([])), Call::new("getblockhash", json!([0]))];
        let mut replies = self.client.batch(&calls).await?.into_iter();
        let info: BlockchainInfo = expect(replies.next())?;
        let genesis = expect(replies.next())?;
        Ok(ChainInfo { genesis, tip: map::tip(&info), syncing: info.initialblockdownload })
    }

    async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, PortError> {
        if i32::try_from(height).is_err() {
            return Ok(None);
        }
        match self.client.call(Call::new("getblockhash", json!([height]))).await? {
            Ok(hash) => Ok(Some(hash)),
            Err(no) if no.code == code::INVALID_PARAMETER => Ok(None),
            Err(no) => Err(refused_call(&no)),
        }
    }

    async fn block(&self, hash: BlockHash) -> Result<Block, PortError> {
        match self.client.call::<String>(Call::new("getblock", json!([hash, 0]))).await? {
            Ok(hex) => checked_block(hex, hash).await,
            Err(no) if no.code == code::MISC => Err(misconfigured(format!("block {hash}: {}", no.message))),
            Err(no) => Err(refused_call(&no)),
        }
    }

    async fn mempool(&self) -> Result<Mempool, PortError> {
        for _ in 0..ATTEMPTS_AT_A_STILL_TIP {
            let calls = vec![Call::new("getrawmempool", json!([]))];
            if let Some((tip, mut replies)) = self.at_one_tip(calls).await? {
                return Ok(Mempool { tip, txids: expect(replies.pop())? });
            }
        }
        Err(unreachable("the tip did not stay long enough to read the mempool"))
    }

    async fn mempool_transactions(&self, txids: &[Txid]) -> Result<Vec<Option<Transaction>>, PortError> {
        let mut all = Vec::with_capacity(txids.len());
        for chunk in txids.chunks(TRANSACTIONS_A_BATCH) {
            all.extend(self.mempool_chunk(chunk).await?);
        }
        Ok(all)
    }

    async fn confirmed_transaction(&self, txid: Txid, block: BlockHash) -> Result<Option<Transaction>, PortError> {
        let calls =
            [Call::new("getrawtransaction", json!([txid, false, block])), Call::new("getblockheader", json!([block]))];
        let mut replies = self.client.batch(&calls).await?.into_iter();
        let found = match replies.next() {
            // The block is known by its header only: never fetched, or pruned.
            Some(Err(no)) if no.code == code::MISC => None,
            Some(reply) => found_transaction(txid, reply)?,
            None => None,
        };
        let stale = match replies.next() {
            Some(Err(no)) if no.code == code::NOT_FOUND => true,
            header => expect::<BlockHeader>(header)?.confirmations < 1,
        };
        Ok(found.filter(|_| !stale))
    }

    async fn scan(&self, scripts: &[ScriptBuf]) -> Result<Scan, PortError> {
        let _one_at_a_time = self.scanning.lock().await;
        let asked: HashSet<&ScriptBuf> = scripts.iter().collect();
        let parts = scan_parts(&asked);
        // A scan may take very long, so a node that doesn't answer at all has to be noticed before.
        let tip = self.info().await?.tip;
        if parts.is_empty() {
            return Ok(Scan { tip, coins: Vec::new() });
        }
        for _ in 0..ATTEMPTS_AT_A_STILL_TIP {
            let mut coins = Vec::new();
            let mut tips = HashSet::new();
            for descriptors in &parts {
                let (tip, found) = map::scanned(self.scan_set(descriptors).await?, &asked)?;
                coins.extend(found);
                tips.insert(tip);
            }
            if let (1, Some(tip)) = (tips.len(), tips.into_iter().next()) {
                return Ok(Scan { tip, coins });
            }
        }
        Err(unreachable("the tip did not stay long enough to scan"))
    }

    async fn still_unspent(&self, outpoints: &[OutPoint]) -> Result<(BlockRef, HashSet<OutPoint>), PortError> {
        for _ in 0..ATTEMPTS_AT_A_STILL_TIP {
            if let Some(answer) = self.unspent_pass(outpoints).await? {
                return Ok(answer);
            }
        }
        Err(unreachable("the tip did not stay long enough to look at the outputs"))
    }

    async fn broadcast(&self, transaction: &Transaction) -> Result<BroadcastOutcome, PortError> {
        let txid = transaction.compute_txid();
        // No cap of bitcoind's on the fee: ours were applied before anything was signed.
        let call = Call::new("sendrawtransaction", json!([serialize_hex(transaction), 0]));
        match self.client.call::<Txid>(call).await? {
            Ok(sent) if sent == txid => Ok(BroadcastOutcome::InMempool),
            Ok(_) => Err(nonsense("it took another transaction than the one it was given")),
            Err(no) => match map::broadcast_no(no)? {
                BroadcastNo::InMempool => Ok(BroadcastOutcome::InMempool),
                BroadcastNo::InChain => Ok(BroadcastOutcome::InChain),
                BroadcastNo::Refused { reason } => Ok(BroadcastOutcome::Refused { reason }),
                BroadcastNo::LookForIt { reason } => self.look_for(transaction, reason).await,
            },
        }
    }

    async fn broadcast_package(&self, transactions: &[Transaction]) -> Result<BroadcastOutcome, PortError> {
        let hex: Vec<String> = transactions.iter().map(serialize_hex).collect();
        match self.client.call::<PackageResult>(Call::new("submitpackage", json!([hex]))).await? {
            Ok(result) if result.package_msg == "success" => Ok(BroadcastOutcome::InMempool),
            // A part of it may be there already, or be good enough alone; a node of an old version knows no packages.
            Ok(_) | Err(_) => self.broadcast_each(transactions).await,
        }
    }

    async fn fee_rate(&self, target_blocks: u16) -> Result<Option<FeeRate>, PortError> {
        let target = target_blocks.clamp(1, MAX_FEE_TARGET);
        let fee: SmartFee = self.client.ask(Call::new("estimatesmartfee", json!([target, "economical"]))).await?;
        map::fee_rate(&fee)
    }

    async fn fee_floor(&self) -> Result<FeeRate, PortError> {
        map::fee_floor(&self.client.ask(Call::new("getmempoolinfo", json!([]))).await?)
    }
}

/// A full block takes tens of milliseconds to read and to hash: other work goes on meanwhile.
async fn checked_block(hex: String, asked: BlockHash) -> Result<Block, PortError> {
    let checking = tokio::task::spawn_blocking(move || map::block(&hex, asked));
    checking.await.map_err(|_| unreachable("stopped while reading a block"))?
}

/// The result of a call that has to succeed.
fn expect<T: serde::de::DeserializeOwned>(reply: Option<Reply>) -> Result<T, PortError> {
    match reply {
        Some(Ok(raw)) => decode(&raw),
        Some(Err(no)) => Err(refused_call(&no)),
        None => Err(nonsense("an answer is missing")),
    }
}

fn found_transaction(txid: Txid, reply: Reply) -> Result<Option<Transaction>, PortError> {
    match reply {
        Ok(raw) => map::transaction(&decode::<String>(&raw)?, txid).map(Some),
        Err(no) if no.code == code::NOT_FOUND => Ok(None),
        Err(no) => Err(refused_call(&no)),
    }
}

fn already_scanning(no: &RpcError) -> bool {
    no.code == code::INVALID_PARAMETER && no.message.contains("already in progress")
}

/// The descriptors of all scripts, in as few parts as bitcoind can read.
fn scan_parts(scripts: &HashSet<&ScriptBuf>) -> Vec<Vec<String>> {
    let mut parts: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for script in scripts {
        let descriptor = map::descriptor(script);
        bytes += descriptor.len();
        match parts.last_mut() {
            Some(part) if bytes <= SCRIPT_BYTES_A_SCAN => part.push(descriptor),
            _ => {
                bytes = descriptor.len();
                parts.push(vec![descriptor]);
            }
        }
    }
    parts
}
