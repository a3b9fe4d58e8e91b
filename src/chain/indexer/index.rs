//! What is known of the chain and the mempool: every block, every transaction, who spends what, and what concerns a script.
//! Pure; who calls keeps to the order in which a node changes: what has left the mempool first, then blocks off, blocks on,
//! and last what is new in the mempool.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bitcoin::block::Header;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Block, BlockHash, OutPoint, Script, Transaction, TxOut, Txid, Weight};

/// By what Esplora's callers name a script: the SHA-256 of it.
pub(super) type ScriptHash = sha256::Hash;

/// The blocks whose times make the median of a block: its own and those before it.
const MEDIAN_TIME_SPAN: usize = 11;

/// A transaction spends what no known one has made: what was read does not belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is spent, and no transaction has made it")]
pub(super) struct Orphan(OutPoint);

/// Where a transaction stands, ordered from the oldest to the newest: what waits is newer than what is in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Block { height: usize, position: usize },
    Mempool { arrival: u64 },
}

pub(super) struct IndexedBlock {
    pub(super) hash: BlockHash,
    pub(super) header: Header,
    pub(super) size: usize,
    pub(super) weight: Weight,
    pub(super) txids: Vec<Txid>,
}

pub(super) struct Indexed {
    pub(super) txid: Txid,
    pub(super) transaction: Transaction,
    /// What its inputs spend, in their order; none for a coinbase.
    pub(super) prevouts: Vec<TxOut>,
    pub(super) place: Place,
}

#[derive(Clone, Copy)]
pub(super) struct Spend {
    pub(super) txid: Txid,
    pub(super) vin: usize,
}

#[derive(Default)]
pub(super) struct Index {
    /// The best chain; a block's height is its place in the list.
    blocks: Vec<IndexedBlock>,
    heights: HashMap<BlockHash, usize>,
    transactions: HashMap<Txid, Indexed>,
    spends: HashMap<OutPoint, Spend>,
    histories: HashMap<ScriptHash, BTreeMap<Place, Txid>>,
    arrivals: u64,
}

impl Indexed {
    /// The scripts that it pays or spends from, each once.
    fn scripts(&self) -> BTreeSet<ScriptHash> {
        self.transaction.output.iter().chain(&self.prevouts).map(|output| hash(&output.script_pubkey)).collect()
    }
}

pub(super) fn hash(script: &Script) -> ScriptHash {
    sha256::Hash::hash(script.as_bytes())
}

// ---- looking things up ----

impl Index {
    pub(super) fn tip(&self) -> Option<&IndexedBlock> {
        self.blocks.last()
    }

    pub(super) fn block(&self, height: usize) -> Option<&IndexedBlock> {
        self.blocks.get(height)
    }

    pub(super) fn height_of(&self, block: &BlockHash) -> Option<usize> {
        self.heights.get(block).copied()
    }

    /// The blocks from this height down, or from the tip, and their heights.
    pub(super) fn blocks_down_from(&self, height: Option<usize>) -> impl Iterator<Item = (usize, &IndexedBlock)> {
        let end = height.map_or(self.blocks.len(), |height| self.blocks.len().min(height + 1));
        self.blocks.iter().enumerate().take(end).rev()
    }

    pub(super) fn median_time(&self, height: usize) -> u32 {
        let mut times: Vec<u32> =
            self.blocks_down_from(Some(height)).take(MEDIAN_TIME_SPAN).map(|(_, block)| block.header.time).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    pub(super) fn transaction(&self, txid: &Txid) -> Option<&Indexed> {
        self.transactions.get(txid)
    }

    pub(super) fn spend(&self, outpoint: &OutPoint) -> Option<Spend> {
        self.spends.get(outpoint).copied()
    }

    /// What waits in the mempool and concerns a script, newest first.
    pub(super) fn waiting(&self, script: &ScriptHash) -> impl Iterator<Item = &Indexed> {
        self.history(script, None).take_while(|found| matches!(found.place, Place::Mempool { .. }))
    }

    /// What is in blocks and concerns a script, newest first; what comes after this transaction, if one is named. Nothing
    /// comes after one that is in no block, or does not concern the script.
    pub(super) fn confirmed(&self, script: &ScriptHash, after: Option<&Txid>) -> impl Iterator<Item = &Indexed> {
        let last = after.map(|txid| self.transaction(txid).map(|found| found.place));
        let concerned = |place: &Place| self.histories.get(script).is_some_and(|history| history.contains_key(place));
        let (known, before) = match last {
            None => (true, None),
            Some(Some(place @ Place::Block { .. })) => (concerned(&place), Some(place)),
            Some(Some(Place::Mempool { .. }) | None) => (false, None),
        };
        let found = self.history(script, before).filter(|found| matches!(found.place, Place::Block { .. }));
        found.filter(move |_| known)
    }

    /// All that concerns a script, newest first.
    fn history(&self, script: &ScriptHash, before: Option<Place>) -> impl Iterator<Item = &Indexed> {
        let history = self.histories.get(script).into_iter().flatten().rev();
        let older = history.skip_while(move |(place, _)| before.is_some_and(|before| **place >= before));
        older.filter_map(|(_, txid)| self.transactions.get(txid))
    }

    /// Those of the mempool's transactions that are not known yet.
    pub(super) fn unknown(&self, mempool: &HashSet<Txid>) -> Vec<Txid> {
        mempool.iter().filter(|txid| !self.transactions.contains_key(*txid)).copied().collect()
    }
}

// ---- following ----

impl Index {
    /// Forgets what waited and does no longer, whether it is in a block now or nowhere.
    pub(super) fn leave_mempool(&mut self, still_there: &HashSet<Txid>) {
        let waits = |found: &Indexed| matches!(found.place, Place::Mempool { .. });
        let gone = self.transactions.values().filter(|found| waits(found) && !still_there.contains(&found.txid));
        for txid in gone.map(|found| found.txid).collect::<Vec<_>>() {
            self.remove(&txid);
        }
    }

    /// Takes blocks off until so many are left. Their transactions are forgotten: those that wait again are new in the mempool.
    pub(super) fn disconnect_to(&mut self, blocks: usize) {
        for block in self.blocks.split_off(blocks.min(self.blocks.len())) {
            self.heights.remove(&block.hash);
            for txid in &block.txids {
                self.remove(txid);
            }
        }
    }

    /// # Errors
    /// When a transaction spends what isn't known. The index is then of no use any more.
    pub(super) fn connect(&mut self, block: Block) -> Result<(), Orphan> {
        let height = self.blocks.len();
        let (hash, size, weight) = (block.block_hash(), block.total_size(), block.weight());
        let Block { header, txdata } = block;
        let mut txids = Vec::with_capacity(txdata.len());
        for (position, transaction) in txdata.into_iter().enumerate() {
            txids.push(self.insert(transaction, Place::Block { height, position })?);
        }
        self.heights.insert(hash, height);
        self.blocks.push(IndexedBlock { hash, header, size, weight, txids });
        Ok(())
    }

    /// Takes in what is new in the mempool, in any order.
    ///
    /// # Errors
    /// When a transaction spends what isn't known. The index is then of no use any more.
    pub(super) fn enter_mempool(&mut self, mut new: Vec<Transaction>) -> Result<(), Orphan> {
        while let Some(first) = new.first() {
            let orphan = self.prevouts(first).err();
            let (ready, later): (Vec<_>, Vec<_>) = new.into_iter().partition(|tx| self.prevouts(tx).is_ok());
            // A child waits for its parents; when nobody is ready, it waits for nothing.
            if let (true, Some(orphan)) = (ready.is_empty(), orphan) {
                return Err(orphan);
            }
            for transaction in ready {
                self.arrivals += 1;
                self.insert(transaction, Place::Mempool { arrival: self.arrivals })?;
            }
            new = later;
        }
        Ok(())
    }

    fn insert(&mut self, transaction: Transaction, place: Place) -> Result<Txid, Orphan> {
        let txid = transaction.compute_txid();
        let prevouts = self.prevouts(&transaction)?;
        let indexed = Indexed { txid, transaction, prevouts, place };
        let spent = indexed.transaction.input.iter().map(|input| input.previous_output).enumerate();
        for (vin, outpoint) in spent.filter(|(_, outpoint)| !outpoint.is_null()) {
            self.spends.insert(outpoint, Spend { txid, vin });
        }
        for script in indexed.scripts() {
            self.histories.entry(script).or_default().insert(place, txid);
        }
        self.transactions.insert(txid, indexed);
        Ok(txid)
    }

    fn remove(&mut self, txid: &Txid) {
        let Some(indexed) = self.transactions.remove(txid) else { return };
        for input in &indexed.transaction.input {
            if self.spends.get(&input.previous_output).is_some_and(|spend| spend.txid == *txid) {
                self.spends.remove(&input.previous_output);
            }
        }
        for script in indexed.scripts() {
            if let Some(history) = self.histories.get_mut(&script) {
                history.remove(&indexed.place);
                if history.is_empty() {
                    self.histories.remove(&script);
                }
            }
        }
    }

    fn prevouts(&self, transaction: &Transaction) -> Result<Vec<TxOut>, Orphan> {
        if transaction.is_coinbase() {
            return Ok(Vec::new());
        }
        let made = |outpoint: OutPoint| {
            let vout = usize::try_from(outpoint.vout).ok()?;
            self.transactions.get(&outpoint.txid)?.transaction.output.get(vout).cloned()
        };
        let inputs = transaction.input.iter().map(|input| input.previous_output);
        inputs.map(|outpoint| made(outpoint).ok_or(Orphan(outpoint))).collect()
    }
}
