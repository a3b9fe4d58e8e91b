//! The books of the fake chain: blocks, coins and mempool, and the rules by which they change.

use std::collections::{HashMap, HashSet};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::blockdata::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::OP_PUSHNUM_1;
use bitcoin::script::Builder;
use bitcoin::transaction;
use bitcoin::{
    Amount, Block, BlockHash, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid,
    Witness,
};

use super::FakeError;
use crate::money::Sat;
use crate::ports::chain::{BlockRef, BroadcastOutcome, ScannedCoin};

/// The second block gives the faucet this many coins, so that a test can pay at once and a benchmark can fill a block.
const FAUCET_COINS: usize = 4_096;
const FAUCET_COIN: Amount = Amount::from_sat(10 * 100_000_000);
const SUBSIDY: Amount = Amount::from_sat(50 * 100_000_000);
/// The reserved value of BIP 141 that every coinbase carries.
const WITNESS_RESERVED: [u8; 32] = [0; 32];
const WITNESS_COMMITMENT_MARK: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
/// What the faucet pays, and by how much more a replacement outbids: above one satoshi per virtual byte.
const FAUCET_FEE: u64 = 2_000;
/// And this much for every input and output: the faucet's inputs have 41 bytes, no standard output has more than 43.
const FAUCET_FEE_A_PIECE: u64 = 50;

#[derive(Clone)]
struct Coin {
    output: TxOut,
    height: u32,
    coinbase: bool,
}

#[derive(Clone)]
struct Waiting {
    tx: Transaction,
    fee: u64,
    /// Parents come before their children.
    place: u64,
}

pub(super) struct State {
    /// Every block there ever was: those that lost are still answered for.
    blocks: HashMap<BlockHash, Block>,
    best: Vec<BlockHash>,
    coins: HashMap<OutPoint, Coin>,
    confirmed: HashMap<Txid, BlockHash>,
    mempool: HashMap<Txid, Waiting>,
    /// Which transaction of the mempool spends an output.
    spent_by: HashMap<OutPoint, Txid>,
    /// The faucet's confirmed coins, some of them spent since.
    faucet: Vec<OutPoint>,
    /// Makes every coinbase, and every mempool place, another one.
    counter: u64,
}

/// Anyone may spend these: no key is needed anywhere in the fake.
pub(super) fn faucet_script() -> ScriptBuf {
    Builder::new().push_opcode(OP_PUSHNUM_1).into_script()
}

impl State {
    pub(super) fn new() -> Self {
        let genesis = genesis_block(Network::Regtest);
        let hash = genesis.block_hash();
        let mut state = Self {
            blocks: HashMap::from([(hash, genesis)]),
            best: vec![hash],
            coins: HashMap::new(),
            confirmed: HashMap::new(),
            mempool: HashMap::new(),
            spent_by: HashMap::new(),
            faucet: Vec::new(),
            counter: 0,
        };
        let faucet = TxOut { value: FAUCET_COIN, script_pubkey: faucet_script() };
        state.append(vec![faucet; FAUCET_COINS], Vec::new());
        state
    }

    pub(super) fn tip(&self) -> BlockRef {
        // There is always a genesis block, and regtest ends long before u32 does.
        let height = u32::try_from(self.best.len().saturating_sub(1)).unwrap_or(u32::MAX);
        BlockRef { height, hash: self.best.last().copied().unwrap_or_else(BlockHash::all_zeros) }
    }

    pub(super) fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.best.get(usize::try_from(height).ok()?).copied()
    }

    pub(super) fn block(&self, hash: BlockHash) -> Option<&Block> {
        self.blocks.get(&hash)
    }

    pub(super) fn is_best(&self, hash: BlockHash) -> bool {
        self.best.contains(&hash)
    }

    pub(super) fn mempool_ids(&self) -> HashSet<Txid> {
        self.mempool.keys().copied().collect()
    }

    pub(super) fn waiting(&self, txid: Txid) -> Option<&Transaction> {
        self.mempool.get(&txid).map(|waiting| &waiting.tx)
    }

    pub(super) fn find(&self, txid: Txid) -> Option<Transaction> {
        let mined = || {
            let block = self.blocks.get(self.confirmed.get(&txid)?)?;
            block.txdata.iter().find(|tx| tx.compute_txid() == txid)
        };
        self.waiting(txid).or_else(mined).cloned()
    }

    pub(super) fn confirmed(&self) -> Vec<Transaction> {
        let blocks = self.best.iter().filter_map(|hash| self.blocks.get(hash));
        blocks.flat_map(|block| block.txdata.iter().cloned()).collect()
    }

    pub(super) fn is_unspent(&self, outpoint: &OutPoint) -> bool {
        self.coins.contains_key(outpoint)
    }

    pub(super) fn coins_to(&self, scripts: &HashSet<&ScriptBuf>) -> Vec<ScannedCoin> {
        let ours = self.coins.iter().filter(|(_, coin)| scripts.contains(&coin.output.script_pubkey));
        ours.filter_map(|(outpoint, coin)| {
            Some(ScannedCoin {
                outpoint: *outpoint,
                script: coin.output.script_pubkey.clone(),
                amount: Sat::try_from(coin.output.value).ok()?,
                height: coin.height,
                coinbase: coin.coinbase,
            })
        })
        .collect()
    }

    /// Mines a block of these transactions, whatever the mempool thinks of them.
    pub(super) fn mine(&mut self, txs: Vec<Transaction>) -> Result<BlockRef, FakeError> {
        self.mine_for(faucet_script(), txs)
    }

    pub(super) fn mine_for(&mut self, miner: ScriptBuf, txs: Vec<Transaction>) -> Result<BlockRef, FakeError> {
        self.check_block(&txs)?;
        Ok(self.append_block(miner, txs))
    }

    /// The same for the faucet.
    pub(super) fn mine_checked(&mut self, txs: Vec<Transaction>) -> BlockRef {
        self.append_block(faucet_script(), txs)
    }

    /// For transactions that are known to fit: the mempool holds no others.
    pub(super) fn append_block(&mut self, miner: ScriptBuf, txs: Vec<Transaction>) -> BlockRef {
        let subsidy = TxOut { value: SUBSIDY, script_pubkey: miner };
        self.append(vec![subsidy], txs)
    }

    /// The mempool's transactions in an order in which they can be mined.
    pub(super) fn waiting_in_order(&self) -> Vec<Transaction> {
        let mut all: Vec<&Waiting> = self.mempool.values().collect();
        all.sort_by_key(|waiting| waiting.place);
        all.into_iter().map(|waiting| waiting.tx.clone()).collect()
    }

    fn check_block(&self, txs: &[Transaction]) -> Result<(), FakeError> {
        let mut made = HashSet::new();
        let mut spent = HashSet::new();
        for tx in txs {
            for input in &tx.input {
                let outpoint = input.previous_output;
                let exists = self.coins.contains_key(&outpoint) || made.contains(&outpoint);
                if !exists || !spent.insert(outpoint) {
                    return Err(FakeError::Unspendable(outpoint));
                }
            }
            made.extend(outpoints(tx).map(|(outpoint, _)| outpoint));
        }
        Ok(())
    }

    fn append(&mut self, mut reward: Vec<TxOut>, txs: Vec<Transaction>) -> BlockRef {
        let parent = self.tip();
        let height = parent.height.saturating_add(1);
        self.counter += 1;
        reward.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() });
        let mut txdata = vec![coinbase(height, self.counter, reward)];
        txdata.extend(txs);
        let block = seal(parent.hash, height, txdata);
        let hash = block.block_hash();
        self.connect(&block, height);
        self.best.push(hash);
        self.blocks.insert(hash, block);
        BlockRef { height, hash }
    }

    fn connect(&mut self, block: &Block, height: u32) {
        let hash = block.block_hash();
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            self.mempool_forget(txid);
            for input in &tx.input {
                self.coins.remove(&input.previous_output);
                // Whatever else wanted this coin can't be mined any more.
                if let Some(loser) = self.spent_by.get(&input.previous_output).copied() {
                    self.evict(loser);
                }
            }
            let coinbase = tx.is_coinbase();
            for (outpoint, output) in outpoints(tx) {
                if output.script_pubkey == faucet_script() {
                    self.faucet.push(outpoint);
                }
                if !output.script_pubkey.is_op_return() {
                    self.coins.insert(outpoint, Coin { output: output.clone(), height, coinbase });
                }
            }
            self.confirmed.insert(txid, hash);
        }
    }

    /// Takes the last blocks off and returns their transactions, in order. The genesis block and the faucet's stay.
    pub(super) fn disconnect(&mut self, depth: u32) -> Result<Vec<Transaction>, FakeError> {
        let keep = usize::try_from(depth).ok().and_then(|depth| self.best.len().checked_sub(depth));
        let Some(keep) = keep.filter(|keep| *keep >= 2) else { return Err(FakeError::TooDeep) };
        let lost = self.best.split_off(keep);
        self.coins.clear();
        self.confirmed.clear();
        self.faucet.clear();
        let kept: Vec<Block> = self.best.iter().skip(1).filter_map(|hash| self.blocks.get(hash).cloned()).collect();
        for (height, block) in (1..).zip(&kept) {
            self.connect(block, height);
        }
        let lost = lost.iter().filter_map(|hash| self.blocks.get(hash));
        Ok(lost.flat_map(|block| block.txdata.iter().skip(1).cloned()).collect())
    }

    /// Offers these to the mempool anew, before what waits there already; what no longer fits is gone.
    pub(super) fn refill(&mut self, first: Vec<Transaction>) {
        let waiting = self.waiting_in_order();
        self.wipe_mempool();
        for tx in first.into_iter().chain(waiting) {
            // A refusal is the answer here: the transaction does not come back.
            let _: BroadcastOutcome = self.accept(tx);
        }
    }

    pub(super) fn wipe_mempool(&mut self) {
        self.mempool.clear();
        self.spent_by.clear();
    }

    /// Removes a transaction and everything that spends its outputs. False when it is not there.
    pub(super) fn evict(&mut self, txid: Txid) -> bool {
        let mut found = false;
        let mut doomed = vec![txid];
        while let Some(next) = doomed.pop() {
            if let Some(tx) = self.mempool_forget(next) {
                found = true;
                doomed.extend(outpoints(&tx).filter_map(|(outpoint, _)| self.spent_by.get(&outpoint)).copied());
            }
        }
        found
    }

    fn mempool_forget(&mut self, txid: Txid) -> Option<Transaction> {
        let waiting = self.mempool.remove(&txid)?;
        for input in &waiting.tx.input {
            self.spent_by.remove(&input.previous_output);
        }
        Some(waiting.tx)
    }

    /// Takes a transaction into the mempool, as a node would that checks no signatures.
    pub(super) fn accept(&mut self, tx: Transaction) -> BroadcastOutcome {
        let txid = tx.compute_txid();
        if self.confirmed.contains_key(&txid) {
            return BroadcastOutcome::InChain;
        }
        if self.mempool.contains_key(&txid) {
            return BroadcastOutcome::InMempool;
        }
        match self.fee_of(&tx).and_then(|fee| self.make_room(&tx, fee).map(|()| fee)) {
            Ok(fee) => {
                self.counter += 1;
                self.spent_by.extend(tx.input.iter().map(|input| (input.previous_output, txid)));
                self.mempool.insert(txid, Waiting { tx, fee, place: self.counter });
                BroadcastOutcome::InMempool
            }
            Err(reason) => BroadcastOutcome::Refused { reason: reason.to_owned() },
        }
    }

    fn fee_of(&self, tx: &Transaction) -> Result<u64, &'static str> {
        if tx.input.is_empty() || tx.output.is_empty() {
            return Err("bad-txns-vin-or-vout-empty");
        }
        let mut distinct = HashSet::new();
        let mut had: u64 = 0;
        for input in &tx.input {
            if !distinct.insert(input.previous_output) {
                return Err("bad-txns-inputs-duplicate");
            }
            let output = self.output(&input.previous_output).ok_or("bad-txns-inputs-missingorspent")?;
            had = had.saturating_add(output.value.to_sat());
        }
        let given = tx.output.iter().map(|output| output.value.to_sat()).fold(0, u64::saturating_add);
        let fee = had.checked_sub(given).ok_or("bad-txns-in-belowout")?;
        if fee < u64::try_from(tx.vsize()).unwrap_or(u64::MAX) { Err("min relay fee not met") } else { Ok(fee) }
    }

    /// Removes what the transaction replaces, if it pays more than all of that together.
    fn make_room(&mut self, tx: &Transaction, fee: u64) -> Result<(), &'static str> {
        let rivals: HashSet<Txid> =
            tx.input.iter().filter_map(|input| self.spent_by.get(&input.previous_output).copied()).collect();
        let doomed = self.with_descendants(&rivals);
        if tx.input.iter().any(|input| doomed.contains(&input.previous_output.txid)) {
            return Err("bad-txns-spends-conflicting-tx");
        }
        let lost = doomed.iter().filter_map(|txid| self.mempool.get(txid)).map(|waiting| waiting.fee).sum::<u64>();
        if !doomed.is_empty() && fee <= lost {
            return Err("insufficient fee, rejecting replacement");
        }
        for rival in rivals {
            self.evict(rival);
        }
        Ok(())
    }

    fn with_descendants(&self, roots: &HashSet<Txid>) -> HashSet<Txid> {
        let mut all = roots.clone();
        let mut todo: Vec<Txid> = roots.iter().copied().collect();
        while let Some(tx) = todo.pop().and_then(|txid| self.waiting(txid)) {
            let children = outpoints(tx).filter_map(|(outpoint, _)| self.spent_by.get(&outpoint).copied());
            todo.extend(children.filter(|child| all.insert(*child)));
        }
        all
    }

    fn output(&self, outpoint: &OutPoint) -> Option<&TxOut> {
        let confirmed = self.coins.get(outpoint).map(|coin| &coin.output);
        confirmed.or_else(|| {
            let vout = usize::try_from(outpoint.vout).ok()?;
            self.waiting(outpoint.txid)?.output.get(vout)
        })
    }

    /// A transaction of the faucet that pays these outputs. It is not in the mempool yet.
    pub(super) fn payment(&mut self, outputs: &[(ScriptBuf, Sat)]) -> Result<Transaction, FakeError> {
        let mut wanted = total(outputs)? + faucet_fee(outputs.len());
        let mut inputs = Vec::new();
        let mut had = 0;
        while had < wanted {
            let outpoint = self.faucet.pop().ok_or(FakeError::FaucetDry)?;
            if let Some(coin) = self.coins.get(&outpoint).filter(|_| !self.spent_by.contains_key(&outpoint)) {
                had += coin.output.value.to_sat();
                wanted += FAUCET_FEE_A_PIECE;
                inputs.push(outpoint);
            }
        }
        Ok(spend(&inputs, outputs, had - wanted))
    }

    /// A transaction that spends what a waiting one spends and outbids it and its descendants.
    pub(super) fn rival(&self, txid: Txid, outputs: &[(ScriptBuf, Sat)]) -> Result<Transaction, FakeError> {
        let old = self.waiting(txid).ok_or(FakeError::NotInMempool(txid))?;
        let inputs: Vec<OutPoint> = old.input.iter().map(|input| input.previous_output).collect();
        let had: u64 = inputs.iter().filter_map(|outpoint| self.output(outpoint)).map(|out| out.value.to_sat()).sum();
        let doomed = self.with_descendants(&HashSet::from([txid]));
        let lost: u64 = doomed.iter().filter_map(|txid| self.mempool.get(txid)).map(|waiting| waiting.fee).sum();
        let rest = had
            .checked_sub(total(outputs)?)
            .and_then(|rest| rest.checked_sub(lost + faucet_fee(inputs.len() + outputs.len())));
        Ok(spend(&inputs, outputs, rest.ok_or(FakeError::TooLittle)?))
    }
}

fn faucet_fee(pieces: usize) -> u64 {
    FAUCET_FEE + FAUCET_FEE_A_PIECE * u64::try_from(pieces).unwrap_or(0)
}

fn total(outputs: &[(ScriptBuf, Sat)]) -> Result<u64, FakeError> {
    Sat::sum(outputs.iter().map(|(_, sat)| *sat)).map(Sat::to_u64).ok_or(FakeError::TooLittle)
}

fn spend(inputs: &[OutPoint], outputs: &[(ScriptBuf, Sat)], change: u64) -> Transaction {
    let input = |outpoint: &OutPoint| TxIn {
        previous_output: *outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    };
    let paid = outputs.iter().map(|(script, sat)| TxOut { value: sat.to_bitcoin(), script_pubkey: script.clone() });
    let change = (change > 0).then(|| TxOut { value: Amount::from_sat(change), script_pubkey: faucet_script() });
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.iter().map(input).collect(),
        output: paid.chain(change).collect(),
    }
}

fn outpoints(tx: &Transaction) -> impl Iterator<Item = (OutPoint, &TxOut)> {
    let txid = tx.compute_txid();
    (0..).zip(&tx.output).map(move |(vout, output)| (OutPoint { txid, vout }, output))
}

fn coinbase(height: u32, salt: u64, reward: Vec<TxOut>) -> Transaction {
    let script_sig = Builder::new().push_int(i64::from(height)).push_slice(salt.to_le_bytes()).into_script();
    let witness = Witness::from_slice(&[WITNESS_RESERVED]);
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: OutPoint::null(), script_sig, sequence: Sequence::MAX, witness }],
        output: reward,
    }
}

/// Makes a block of these: commitment, merkle root, proof of work. The coinbase's last output is the commitment's place.
fn seal(parent: BlockHash, height: u32, txdata: Vec<Transaction>) -> Block {
    let mut header = genesis_block(Network::Regtest).header;
    header = Header {
        version: Version::TWO,
        prev_blockhash: parent,
        time: header.time.saturating_add(height.saturating_mul(600)),
        ..header
    };
    let mut block = Block { header, txdata };
    let root = block.witness_root();
    let place = block.txdata.first_mut().and_then(|coinbase| coinbase.output.last_mut());
    if let (Some(root), Some(place)) = (root, place) {
        let commitment = Block::compute_witness_commitment(&root, &WITNESS_RESERVED);
        let script: Vec<u8> = WITNESS_COMMITMENT_MARK.iter().chain(commitment.as_byte_array()).copied().collect();
        place.script_pubkey = ScriptBuf::from_bytes(script);
    }
    block.header.merkle_root = block.compute_merkle_root().unwrap_or_else(TxMerkleNode::all_zeros);
    // Regtest wants two tries on average.
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce = block.header.nonce.wrapping_add(1);
    }
    block
}
