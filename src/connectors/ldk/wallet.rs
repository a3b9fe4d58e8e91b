//! The node's own on-chain wallet: what funds channels, bumps their closing, and takes what comes back from them.
//!
//! Its keys are derived from the node's seed (BIP 84). Its state is a list of changes in the database; it learns of
//! blocks like the channels do, and of its own transactions when they are sent. Somebody else's payment to it is seen when it is in a block.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use bdk_wallet::chain::{BlockId, ConfirmationBlockTime, Merge as _, TxUpdate};
use bdk_wallet::coin_selection::LargestFirstCoinSelection;
use bdk_wallet::template::Bip84;
use bdk_wallet::{ChangeSet, KeychainKind, SignOptions, Update, Wallet};
use bitcoin::bip32::Xpriv;
use bitcoin::{Address, Block, FeeRate, Network, OutPoint, Psbt, ScriptBuf, Transaction, Txid, block};
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BlockLocator, Listen};
use lightning::sign::ChangeDestinationSourceSync;
use lightning::util::wallet_utils::{Utxo, WalletSourceSync};

use super::books::Books;
use super::error::LdkError;
use super::seed::Seed;
use super::stage::{Stage, written};
use super::types::lock;
use crate::clock::Clock;
use crate::ids::RequestId;
use crate::money::Sat;
use crate::ports::chain::BroadcastOutcome;
use crate::store::node::Step;

/// Changes beyond which they are written as one, at a start.
const COMPACT_ABOVE: usize = 500;

pub struct NodeWallet {
    inner: Mutex<Inner>,
    stage: Arc<Stage>,
    clock: Clock,
    books: Arc<Books>,
}

struct Inner {
    wallet: Wallet,
    next: i64,
    /// Refused when they were last offered.
    refused: HashSet<Txid>,
}

/// Coins for the reserve that one transaction makes at most: whoever pays for it pays for them, too.
const MOST_SPLITS: usize = 2;

/// What stays in the wallet whatever it pays: so many coins of at least so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    pub each: Sat,
    pub coins: usize,
}

impl Keep {
    fn total(self) -> Sat {
        let coins = u64::try_from(self.coins).unwrap_or(u64::MAX);
        Sat::new(self.each.to_u64().saturating_mul(coins)).unwrap_or(Sat::MAX)
    }
}

/// What the wallet has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coins {
    pub confirmed: Sat,
    pub unconfirmed: Sat,
}

/// A transaction that spends coins of the wallet or pays to it.
pub struct OwnTransaction {
    pub txid: Txid,
    /// By whose order it was sent, once that was looked up.
    pub order: Option<RequestId>,
    pub inputs: Vec<OutPoint>,
    /// Of the inputs, the wallet's, with what they bring.
    pub spent: Vec<(OutPoint, u64)>,
    /// Of the outputs, the wallet's.
    pub outputs: Vec<(u32, ScriptBuf, Sat)>,
    /// All of those together.
    pub received: u64,
    /// What each output has, whosever it is.
    pub out: Vec<u64>,
}

impl OwnTransaction {
    fn of(wallet: &Wallet, txid: Txid, transaction: &Transaction) -> Self {
        let inputs: Vec<OutPoint> = transaction.input.iter().map(|input| input.previous_output).collect();
        let spent = inputs.iter().filter_map(|input| {
            let output = wallet.tx_graph().get_txout(*input)?;
            wallet.is_mine(output.script_pubkey.clone()).then(|| (*input, output.value.to_sat()))
        });
        let spent = spent.collect();
        let ours = (0..).zip(&transaction.output).filter(|(_, output)| wallet.is_mine(output.script_pubkey.clone()));
        let outputs: Vec<(u32, ScriptBuf, Sat)> =
            ours.map(|(vout, output)| (vout, output.script_pubkey.clone(), sat(output.value))).collect();
        let received = outputs.iter().map(|(_, _, sat)| sat.to_u64()).sum();
        let out = transaction.output.iter().map(|output| output.value.to_sat()).collect();
        Self { txid, order: None, inputs, spent, outputs, received, out }
    }
}

impl NodeWallet {
    /// Reads the wallet from its changes, or begins it at this block.
    ///
    /// # Errors
    /// When the changes make no sense or belong to another seed.
    pub fn open(
        seed: &Seed,
        network: Network,
        changes: &[(i64, String)],
        tip: BlockId,
        stage: Arc<Stage>,
        clock: Clock,
        books: Arc<Books>,
    ) -> Result<Self, LdkError> {
        let key = Xpriv::new_master(network, &seed.0).map_err(corrupt)?;
        let next = changes.last().map_or(0, |(number, _)| *number).saturating_add(1);
        let wallet = match merged(changes)? {
            None => begin(key, network, tip)?,
            Some(changes) => {
                let load = Wallet::load()
                    .descriptor(KeychainKind::External, Some(Bip84(key, KeychainKind::External)))
                    .descriptor(KeychainKind::Internal, Some(Bip84(key, KeychainKind::Internal)))
                    .extract_keys()
                    .check_network(network);
                load.load_wallet_no_persist(changes).map_err(corrupt)?.ok_or_else(|| corrupt("the wallet is empty"))?
            }
        };
        let opened = Self { inner: Mutex::new(Inner { wallet, next, refused: HashSet::new() }), stage, clock, books };
        opened.compact(changes)?;
        opened.change(|_| ());
        Ok(opened)
    }

    /// Many changes become one.
    fn compact(&self, changes: &[(i64, String)]) -> Result<(), LdkError> {
        let (Some((number, _)), true) = (changes.last(), changes.len() > COMPACT_ABOVE) else { return Ok(()) };
        if let Some(merged) = merged(changes)? {
            let value = serde_json::to_string(&merged).map_err(corrupt)?;
            self.stage.push(Step::WalletCompacted { number: *number, value });
        }
        Ok(())
    }

    /// Does something with the wallet, and stages what that changed.
    fn change<T>(&self, act: impl FnOnce(&mut Wallet) -> T) -> T {
        self.change_with(Vec::new(), act)
    }

    /// The same, for a change of which the reason has to be in the same commit.
    fn change_with<T>(&self, mut steps: Vec<Step>, act: impl FnOnce(&mut Wallet) -> T) -> T {
        let mut inner = lock(&self.inner);
        let result = act(&mut inner.wallet);
        if let Some(changes) = inner.wallet.take_staged() {
            let (number, value) = (inner.next, written("a change of its wallet", &changes));
            inner.next = number.saturating_add(1);
            steps.push(Step::Wallet { number, value });
        }
        if !steps.is_empty() {
            self.stage.push_all(steps);
        }
        result
    }

    pub fn wake(&self) {
        self.stage.wake();
    }

    /// Where it stands in the chain.
    pub fn locator(&self) -> BlockLocator {
        let inner = lock(&self.inner);
        let mut checkpoints = inner.wallet.checkpoints();
        let tip = inner.wallet.latest_checkpoint();
        let mut locator = BlockLocator::new(tip.hash(), tip.height());
        drop(checkpoints.next());
        for checkpoint in checkpoints {
            let back = usize::try_from(tip.height().saturating_sub(checkpoint.height())).unwrap_or(usize::MAX);
            match locator.previous_blocks.get_mut(back.saturating_sub(1)) {
                Some(slot) => *slot = Some(checkpoint.hash()),
                None => break,
            }
        }
        locator
    }

    pub fn new_address(&self) -> Address {
        self.change(|wallet| wallet.reveal_next_address(KeychainKind::External).address)
    }

    /// The scripts that its first addresses had, for a search of the chain.
    pub fn first_scripts(&self, each: u32) -> Vec<(ScriptBuf, KeychainKind, u32)> {
        let inner = lock(&self.inner);
        let of = |keychain| {
            let wallet = &inner.wallet;
            (0..each).map(move |index| (wallet.peek_address(keychain, index).script_pubkey(), keychain, index))
        };
        of(KeychainKind::External).chain(of(KeychainKind::Internal)).collect()
    }

    /// Takes in a transaction of a block from before its database, which pays to this address of it.
    ///
    /// # Errors
    /// When the block is of another chain than the wallet's.
    pub fn adopt(
        &self,
        transaction: Transaction,
        block: BlockId,
        time: u64,
        (keychain, index): (KeychainKind, u32),
    ) -> Result<(), LdkError> {
        let txid = transaction.compute_txid();
        let mut tx_update = TxUpdate::default();
        tx_update.txs = vec![Arc::new(transaction)];
        tx_update.anchors = [(ConfirmationBlockTime { block_id: block, confirmation_time: time }, txid)].into();
        let applied = self.change(|wallet| {
            let chain = Some(wallet.latest_checkpoint().insert(block));
            let last_active_indices = BTreeMap::from([(keychain, index)]);
            wallet.apply_update(Update { last_active_indices, tx_update, chain })
        });
        applied.map_err(corrupt)?;
        self.books.block_came();
        Ok(())
    }

    pub fn coins(&self) -> Coins {
        let balance = lock(&self.inner).wallet.balance();
        let unconfirmed = balance.immature + balance.trusted_pending + balance.untrusted_pending;
        Coins { confirmed: sat(balance.confirmed), unconfirmed: sat(unconfirmed) }
    }

    /// Whether an output to this script would be ours.
    pub fn owns(&self, script: &ScriptBuf) -> bool {
        lock(&self.inner).wallet.is_mine(script.clone())
    }

    /// What paying this would cost, from confirmed coins, leaving the reserve.
    ///
    /// # Errors
    /// Why it can't be paid.
    pub fn quote(
        &self,
        script: ScriptBuf,
        amount: bitcoin::Amount,
        sat_per_kw: u32,
        keep: Keep,
    ) -> Result<Sat, String> {
        self.change(|wallet| {
            let (psbt, fee) = plan(wallet, &Wanted { script, amount, sat_per_kw }, keep)?;
            for output in &psbt.unsigned_tx.output {
                // The index of its change is free for the next one.
                if let Some((keychain, index)) = wallet.derivation_of_spk(output.script_pubkey.clone()) {
                    wallet.unmark_used(keychain, index);
                }
            }
            Ok(fee)
        })
    }

    /// A signed transaction that pays this, from confirmed coins, and leaves the reserve, and what it costs. Its coins are set aside.
    ///
    /// # Errors
    /// Why there is none.
    pub fn pay(
        &self,
        script: ScriptBuf,
        amount: bitcoin::Amount,
        sat_per_kw: u32,
        keep: Keep,
    ) -> Result<(Transaction, Sat), String> {
        self.change(|wallet| {
            let (mut psbt, fee) = plan(wallet, &Wanted { script, amount, sat_per_kw }, keep)?;
            let done = wallet.sign(&mut psbt, SignOptions::default()).map_err(|error| error.to_string())?;
            if !done {
                return Err("the wallet could not sign all of it".to_owned());
            }
            let transaction = psbt.extract_tx().map_err(|error| error.to_string())?;
            transaction.input.iter().for_each(|input| wallet.lock_outpoint(input.previous_output));
            Ok((transaction, fee))
        })
    }

    /// The same payment at a higher rate, in the place of a transaction of ours that is in no block, and what it costs.
    ///
    /// # Errors
    /// Why there is none.
    pub fn bump(&self, txid: Txid, sat_per_kw: u32, keep: Keep) -> Result<(Transaction, Sat), String> {
        self.change(|wallet| {
            let before = wallet.get_tx(txid).ok_or("its transaction is gone")?.tx_node.tx.clone();
            let is_of_it = |coin: &OutPoint| before.input.iter().any(|input| input.previous_output == *coin);
            let kept: Vec<OutPoint> = set_aside(wallet, keep).into_iter().filter(|coin| !is_of_it(coin)).collect();
            // Its own coins are locked since it was sent.
            before.input.iter().for_each(|input| wallet.unlock_outpoint(input.previous_output));
            let built = rebuild(wallet, txid, sat_per_kw, kept);
            before.input.iter().for_each(|input| wallet.lock_outpoint(input.previous_output));
            let mut psbt = built?;
            let fee = psbt.fee().map_err(|error| error.to_string())?;
            if !wallet.sign(&mut psbt, SignOptions::default()).map_err(|error| error.to_string())? {
                return Err("the wallet could not sign all of it".to_owned());
            }
            let transaction = psbt.extract_tx().map_err(|error| error.to_string())?;
            transaction.input.iter().for_each(|input| wallet.lock_outpoint(input.previous_output));
            Ok((transaction, sat(fee)))
        })
    }

    /// A transaction that is not sent after all: its coins are free again.
    pub fn let_go(&self, transaction: &Transaction) {
        self.change(|wallet| transaction.input.iter().for_each(|input| wallet.unlock_outpoint(input.previous_output)));
    }

    /// Whatever was set aside is free again, but for what transactions that are under way spend.
    pub fn let_go_of_all_but(&self, spent: &HashSet<OutPoint>) {
        self.change(|wallet| {
            let locked: Vec<OutPoint> = wallet.list_locked_outpoints().filter(|coin| !spent.contains(coin)).collect();
            locked.into_iter().for_each(|outpoint| wallet.unlock_outpoint(outpoint));
        });
    }

    /// These are about to be sent, for a reason: what of them is the wallet's is known from now on.
    pub fn sending(&self, transactions: &[Transaction], reason: Vec<Step>) {
        let now = u64::try_from(self.clock.now().unix_seconds()).unwrap_or_default();
        self.change_with(reason, |wallet| {
            // Seen in the same second, neither of two versions would be the later one.
            let replaced = rivals(wallet, transactions);
            wallet.apply_evicted_txs(replaced.into_iter().map(|txid| (txid, now)));
            wallet.apply_unconfirmed_txs(transactions.iter().map(|tx| (tx.clone(), now)));
        });
    }

    /// Those of our transactions that wait for a block, to be sent again.
    pub fn unconfirmed(&self) -> Vec<Transaction> {
        let inner = lock(&self.inner);
        let ours = inner.wallet.transactions().filter(|tx| tx.chain_position.is_unconfirmed());
        let ours = ours.map(|tx| Transaction::clone(&tx.tx_node.tx));
        ours.filter(|tx| inner.wallet.sent_and_received(tx).0 > bitcoin::Amount::ZERO).collect()
    }

    /// Takes note of what became of one of those. What bumps a closing spends a coin of ours beside an output of the channel; when the
    /// peer's closing is mined instead, nothing here tells that it can never confirm. Refused twice in a row it is taken for gone, and
    /// the coin is free. Should LDK send it again, it is known again.
    pub fn offered(&self, transaction: &Transaction, outcome: &BroadcastOutcome) {
        let txid = transaction.compute_txid();
        let is_gone = {
            let mut inner = lock(&self.inner);
            match outcome {
                BroadcastOutcome::InMempool | BroadcastOutcome::InChain => {
                    inner.refused.remove(&txid);
                    false
                }
                // What spends our coins alone is good for ever.
                BroadcastOutcome::Refused { .. } => {
                    spends_of_others(&inner.wallet, transaction) && !inner.refused.insert(txid)
                }
            }
        };
        if is_gone {
            tracing::info!(%txid, "a transaction of the node's wallet is taken for gone: it is refused, and others have outputs in it");
            let now = u64::try_from(self.clock.now().unix_seconds()).unwrap_or_default();
            self.change(|wallet| wallet.apply_evicted_txs([(txid, now)]));
            lock(&self.inner).refused.remove(&txid);
        }
    }

    /// The transactions of ours that are in blocks, but for those that are told; and all that are there, in blocks or not.
    pub fn in_blocks(&self, is_told: impl Fn(Txid) -> bool) -> (Vec<OwnTransaction>, HashSet<Txid>) {
        let inner = lock(&self.inner);
        let (mut all, mut known) = (Vec::new(), HashSet::new());
        for tx in inner.wallet.transactions() {
            let txid = tx.tx_node.txid;
            known.insert(txid);
            if tx.chain_position.is_confirmed() && !is_told(txid) {
                all.push(OwnTransaction::of(&inner.wallet, txid, &tx.tx_node.tx));
            }
        }
        (all, known)
    }

    /// What these transactions of ours add up to: what they brought, less what they took. In satoshis.
    pub fn worth(&self, is_one: impl Fn(Txid) -> bool) -> i64 {
        let inner = lock(&self.inner);
        let mut worth = 0_i64;
        for tx in inner.wallet.transactions().filter(|tx| is_one(tx.tx_node.txid)) {
            let (sent, received) = inner.wallet.sent_and_received(&tx.tx_node.tx);
            let signed = |amount: bitcoin::Amount| i64::try_from(amount.to_sat()).unwrap_or(i64::MAX);
            worth = worth.saturating_add(signed(received)).saturating_sub(signed(sent));
        }
        worth
    }

    pub fn knows(&self, txid: Txid) -> bool {
        lock(&self.inner).wallet.get_tx(txid).is_some()
    }
}

fn corrupt(error: impl ToString) -> LdkError {
    LdkError::Corrupt(format!("the wallet: {}", error.to_string()))
}

fn sat(amount: bitcoin::Amount) -> Sat {
    Sat::try_from(amount).unwrap_or(Sat::MAX)
}

fn merged(changes: &[(i64, String)]) -> Result<Option<ChangeSet>, LdkError> {
    let mut all: Option<ChangeSet> = None;
    for (_, change) in changes {
        let change: ChangeSet = serde_json::from_str(change).map_err(corrupt)?;
        match &mut all {
            None => all = Some(change),
            Some(all) => all.merge(change),
        }
    }
    Ok(all)
}

fn begin(key: Xpriv, network: Network, tip: BlockId) -> Result<Wallet, LdkError> {
    let descriptors = (Bip84(key, KeychainKind::External), Bip84(key, KeychainKind::Internal));
    let create = Wallet::create(descriptors.0, descriptors.1).network(network);
    let mut wallet = create.create_wallet_no_persist().map_err(corrupt)?;
    // It has no history: nobody had an address of it before.
    let chain = Some(wallet.latest_checkpoint().insert(tip));
    wallet.apply_update(Update { chain, ..Update::default() }).map_err(corrupt)?;
    Ok(wallet)
}

/// What a transaction of the wallet is to pay.
struct Wanted {
    script: ScriptBuf,
    amount: bitcoin::Amount,
    sat_per_kw: u32,
}

/// A transaction that leaves the reserve, and what it costs. The reserve stays in confirmed coins, one for each channel: what bumps a closing
/// spends a coin of its own, and change can't be spent before it is in a block. Where the coins are too few or too large for that, this
/// transaction makes the coins that are missing from its change, and the rule holds from the next one on.
fn plan(wallet: &mut Wallet, wanted: &Wanted, keep: Keep) -> Result<(Psbt, Sat), String> {
    let kept = set_aside(wallet, keep);
    if kept.len() >= keep.coins
        && let Ok(psbt) = build(wallet, wanted, &kept, 0, keep.each)
    {
        return with_fee(psbt);
    }
    // Of those that there are, this one may spend the largest.
    let missing = keep.coins.saturating_sub(kept.len()).clamp(1, MOST_SPLITS).min(keep.coins);
    let psbt = match build(wallet, wanted, &[], missing, keep.each) {
        Ok(psbt) => psbt,
        Err(_too_little_to_split) => build(wallet, wanted, &[], 0, keep.each)?,
    };
    let (left, reserve) = (remaining(wallet, &psbt), keep.total().to_bitcoin());
    if left < reserve {
        let short = reserve - left;
        return Err(format!("the wallet is {short} short of that and of what closing the channels may cost"));
    }
    with_fee(psbt)
}

fn with_fee(psbt: Psbt) -> Result<(Psbt, Sat), String> {
    let fee = psbt.fee().map_err(|error| error.to_string())?;
    Ok((psbt, sat(fee)))
}

fn build(wallet: &mut Wallet, wanted: &Wanted, kept: &[OutPoint], splits: usize, each: Sat) -> Result<Psbt, String> {
    let own = wallet.next_unused_address(KeychainKind::Internal).script_pubkey();
    // BDK draws coins at random unless it is told otherwise, and what was quoted would not be what it costs.
    let mut builder = wallet.build_tx().coin_selection(LargestFirstCoinSelection);
    builder.add_recipient(wanted.script.clone(), wanted.amount);
    for _ in 0..splits {
        builder.add_recipient(own.clone(), each.to_bitcoin());
    }
    let fee_rate = FeeRate::from_sat_per_kwu(u64::from(wanted.sat_per_kw));
    builder.fee_rate(fee_rate).exclude_unconfirmed().unspendable(kept.to_vec());
    builder.finish().map_err(|error| error.to_string())
}

/// The smallest coins that can each bump the closing of a channel, one for each.
fn set_aside(wallet: &Wallet, keep: Keep) -> Vec<OutPoint> {
    let is_free = |outpoint: OutPoint| !wallet.is_outpoint_locked(outpoint);
    let coins = wallet.list_unspent().filter(|coin| coin.chain_position.is_confirmed() && is_free(coin.outpoint));
    let mut enough: Vec<_> = coins.filter(|coin| coin.txout.value >= keep.each.to_bitcoin()).collect();
    enough.sort_by_key(|coin| (coin.txout.value, coin.outpoint));
    enough.into_iter().take(keep.coins).map(|coin| coin.outpoint).collect()
}

/// Those of the wallet that wait for a block and spend what these spend.
fn rivals(wallet: &Wallet, transactions: &[Transaction]) -> Vec<Txid> {
    let ids: HashSet<Txid> = transactions.iter().map(Transaction::compute_txid).collect();
    let spent: HashSet<OutPoint> =
        transactions.iter().flat_map(|tx| &tx.input).map(|input| input.previous_output).collect();
    let waiting =
        wallet.transactions().filter(|tx| tx.chain_position.is_unconfirmed() && !ids.contains(&tx.tx_node.txid));
    let rivals = waiting.filter(|tx| tx.tx_node.tx.input.iter().any(|input| spent.contains(&input.previous_output)));
    rivals.map(|tx| tx.tx_node.txid).collect()
}

fn rebuild(wallet: &mut Wallet, txid: Txid, sat_per_kw: u32, kept: Vec<OutPoint>) -> Result<Psbt, String> {
    let mut builder = wallet.build_fee_bump(txid).map_err(|error| error.to_string())?;
    let fee_rate = FeeRate::from_sat_per_kwu(u64::from(sat_per_kw));
    builder.fee_rate(fee_rate).exclude_unconfirmed().unspendable(kept);
    builder.finish().map_err(|error| error.to_string())
}

fn spends_of_others(wallet: &Wallet, transaction: &Transaction) -> bool {
    transaction.input.iter().any(|input| wallet.get_tx(input.previous_output.txid).is_none())
}

/// What is left of our confirmed coins, and of this transaction's change.
fn remaining(wallet: &Wallet, psbt: &Psbt) -> bitcoin::Amount {
    let spent: Vec<OutPoint> = psbt.unsigned_tx.input.iter().map(|input| input.previous_output).collect();
    let free = |outpoint: &OutPoint| !spent.contains(outpoint) && !wallet.is_outpoint_locked(*outpoint);
    let kept = wallet.list_unspent().filter(|coin| coin.chain_position.is_confirmed() && free(&coin.outpoint));
    let kept: bitcoin::Amount = kept.map(|coin| coin.txout.value).sum();
    let change = psbt.unsigned_tx.output.iter().filter(|output| wallet.is_mine(output.script_pubkey.clone()));
    kept + change.map(|output| output.value).sum::<bitcoin::Amount>()
}

impl Listen for NodeWallet {
    fn block_connected(&self, block: &Block, height: u32) {
        self.books.block_came();
        self.take_block(block, height);
        // Again: what was looked at in between was not all.
        self.books.block_came();
    }

    fn filtered_block_connected(&self, _header: &block::Header, _transactions: &TransactionData, _height: u32) {}

    /// The next block says what is in the chain instead.
    fn blocks_disconnected(&self, _fork_point: BlockLocator) {}
}

impl NodeWallet {
    fn take_block(&self, block: &Block, height: u32) {
        self.change(|wallet| {
            if let Err(error) = wallet.apply_block(block, height) {
                // A fork below the block at which the wallet began: it has nothing there.
                let genesis = BlockId { height: 0, hash: wallet.local_chain().genesis_hash() };
                if wallet.apply_block_connected_to(block, height, genesis).is_err() {
                    tracing::error!(%error, height, "the node's wallet can't follow the chain");
                }
            }
        });
    }
}

impl WalletSourceSync for NodeWallet {
    fn list_confirmed_utxos(&self) -> Result<Vec<Utxo>, ()> {
        let inner = lock(&self.inner);
        let coins = inner.wallet.list_unspent().filter(|coin| coin.chain_position.is_confirmed());
        let free = coins.filter(|coin| !inner.wallet.is_outpoint_locked(coin.outpoint));
        free.map(|coin| {
            let script = &coin.txout.script_pubkey;
            let hash = script.p2wpkh_script_code().and_then(|_| {
                let program = script.as_bytes().get(2..22)?;
                <[u8; 20]>::try_from(program).ok()
            });
            let hash = hash.ok_or(())?;
            Ok(Utxo::new_v0_p2wpkh(coin.outpoint, coin.txout.value, &pubkey_hash(hash)))
        })
        .collect()
    }

    fn get_prevtx(&self, outpoint: OutPoint) -> Result<Transaction, ()> {
        let inner = lock(&self.inner);
        inner.wallet.get_tx(outpoint.txid).map(|tx| Transaction::clone(&tx.tx_node.tx)).ok_or(())
    }

    fn get_change_script(&self) -> Result<ScriptBuf, ()> {
        Ok(self.change(|wallet| wallet.reveal_next_address(KeychainKind::Internal).script_pubkey()))
    }

    fn sign_psbt(&self, mut psbt: Psbt) -> Result<Transaction, ()> {
        let options = SignOptions { trust_witness_utxo: true, ..SignOptions::default() };
        let inner = lock(&self.inner);
        // LDK adds the witnesses of the inputs that are the channel's.
        inner.wallet.sign(&mut psbt, options).map_err(|error| tracing::error!(%error, "the wallet can't sign"))?;
        Ok(psbt.extract_tx_unchecked_fee_rate())
    }
}

fn pubkey_hash(bytes: [u8; 20]) -> bitcoin::WPubkeyHash {
    use bitcoin::hashes::Hash as _;
    bitcoin::WPubkeyHash::from_byte_array(bytes)
}

impl ChangeDestinationSourceSync for NodeWallet {
    fn get_change_destination_script(&self) -> Result<ScriptBuf, ()> {
        self.get_change_script()
    }
}
