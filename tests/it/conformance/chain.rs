//! What every chain backend has to do, on the fake and on a real bitcoind.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, ScriptBuf, Transaction, Txid, WPubkeyHash};
use sluice::chain::bitcoind::Bitcoind as Adapter;
use sluice::chain::fake::{FakeChain, Fault, Reorged};
use sluice::money::Sat;
use sluice::ports::PortError;
use sluice::ports::chain::{BlockRef, BroadcastOutcome, ChainBackend};

use crate::harness::bitcoind::{Bitcoind, PASSWORD, address};

const AMOUNT: Sat = Sat::literal(123_456);
/// A call to a backend that does not answer has to end long before this.
const GIVES_UP_WITHIN: Duration = Duration::from_secs(15);
const RECOVERS_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// The world behind a backend, moved by hand.
#[async_trait]
trait ChainRig: Send + Sync {
    fn backend(&self) -> Arc<dyn ChainBackend>;
    /// Mines the mempool.
    async fn mine(&self, blocks: u32) -> BlockRef;
    async fn mine_empty(&self, blocks: u32) -> BlockRef;
    /// Pays into the mempool; the output that pays the script.
    async fn pay(&self, script: &ScriptBuf, sat: Sat) -> OutPoint;
    /// Replaces a payment by one with more fee.
    async fn bump(&self, txid: Txid) -> Txid;
    /// A good payment that nobody has seen yet.
    async fn unsent(&self, script: &ScriptBuf, sat: Sat) -> Transaction;
    /// The same inputs and the same fee to another script: no reason to prefer it.
    async fn rival(&self, tx: &Transaction, script: &ScriptBuf) -> Transaction;
    /// The last blocks are replaced by one more than they were.
    async fn reorg(&self, depth: u32, mined_again: bool) -> BlockRef;
    async fn go_down(&self);
    async fn hang(&self);
    async fn mend(&self);
}

struct FakeRig(Arc<FakeChain>);

#[async_trait]
impl ChainRig for FakeRig {
    fn backend(&self) -> Arc<dyn ChainBackend> {
        Arc::clone(&self.0) as Arc<dyn ChainBackend>
    }
    async fn mine(&self, blocks: u32) -> BlockRef {
        self.0.mine(blocks)
    }
    async fn mine_empty(&self, blocks: u32) -> BlockRef {
        self.0.mine_empty(blocks)
    }
    async fn pay(&self, script: &ScriptBuf, sat: Sat) -> OutPoint {
        OutPoint { txid: self.0.pay(script, sat).unwrap(), vout: 0 }
    }
    async fn bump(&self, txid: Txid) -> Txid {
        self.0.replace(txid, &[(fresh_script(), AMOUNT)]).unwrap()
    }
    async fn unsent(&self, script: &ScriptBuf, sat: Sat) -> Transaction {
        self.0.build_payment(&[(script.clone(), sat)]).unwrap()
    }
    async fn rival(&self, tx: &Transaction, script: &ScriptBuf) -> Transaction {
        let mut rival = tx.clone();
        rival.output[0].script_pubkey = script.clone();
        rival
    }
    async fn reorg(&self, depth: u32, mined_again: bool) -> BlockRef {
        let fate = if mined_again { Reorged::MinedAgain } else { Reorged::BackInMempool };
        self.0.reorg(depth, depth + 1, fate).unwrap()
    }
    async fn go_down(&self) {
        self.0.set_fault(Fault::Down);
    }
    async fn hang(&self) {
        self.0.set_fault(Fault::Hang(Duration::from_millis(20)));
    }
    async fn mend(&self) {
        self.0.set_fault(None);
    }
}

struct BitcoindRig {
    node: Bitcoind,
    adapter: Arc<Adapter>,
    frozen: std::sync::atomic::AtomicBool,
}

impl BitcoindRig {
    async fn start() -> Option<Self> {
        let node = Bitcoind::start().await?;
        let adapter = Arc::new(Adapter::new(&node.config()).unwrap());
        Some(Self { node, adapter, frozen: false.into() })
    }
}

#[async_trait]
impl ChainRig for BitcoindRig {
    fn backend(&self) -> Arc<dyn ChainBackend> {
        Arc::clone(&self.adapter) as Arc<dyn ChainBackend>
    }
    async fn mine(&self, blocks: u32) -> BlockRef {
        self.node.mine(blocks).await
    }
    async fn mine_empty(&self, blocks: u32) -> BlockRef {
        self.node.mine_empty(blocks).await
    }
    async fn pay(&self, script: &ScriptBuf, sat: Sat) -> OutPoint {
        let txid = self.node.pay(&address(script), sat).await;
        let tx = self.adapter.mempool_transactions(&[txid]).await.unwrap().remove(0).expect("it was just sent");
        output_to(&tx, script)
    }
    async fn bump(&self, txid: Txid) -> Txid {
        self.node.bump(txid).await
    }
    async fn unsent(&self, script: &ScriptBuf, sat: Sat) -> Transaction {
        self.node.unsent_payment(&address(script), sat).await
    }
    async fn rival(&self, tx: &Transaction, script: &ScriptBuf) -> Transaction {
        self.node.rival(tx, script).await
    }
    async fn reorg(&self, depth: u32, mined_again: bool) -> BlockRef {
        self.node.reorg(depth, mined_again).await
    }
    async fn go_down(&self) {
        self.node.stop().await;
    }
    async fn hang(&self) {
        self.node.freeze();
        self.frozen.store(true, std::sync::atomic::Ordering::SeqCst);
    }
    async fn mend(&self) {
        if self.frozen.swap(false, std::sync::atomic::Ordering::SeqCst) {
            self.node.thaw();
        } else {
            self.node.launch().await;
        }
    }
}

/// Runs every function of the suite against every rig.
macro_rules! suite {
    ($($name:ident),+ $(,)?) => {
        mod fake {
            use super::*;
            $(#[tokio::test] async fn $name() {
                super::$name(&FakeRig(Arc::new(FakeChain::new()))).await;
            })+
        }
        mod bitcoind {
            use super::*;
            $(#[tokio::test] async fn $name() {
                if let Some(rig) = BitcoindRig::start().await {
                    super::$name(&rig).await;
                }
            })+
        }
    };
}

suite![
    tells_its_network_and_tip,
    gives_the_block_that_was_asked_for,
    has_no_block_above_the_tip,
    shows_a_payment_in_the_mempool,
    forgets_a_replaced_payment,
    finds_a_confirmed_transaction_only_in_its_block,
    says_where_an_offered_transaction_is,
    refuses_a_double_spend,
    finds_coins_by_their_scripts,
    says_which_outputs_are_unspent,
    follows_a_reorg_that_drops_a_payment,
    follows_a_reorg_that_mines_a_payment_again,
    fails_while_down_and_works_again,
    gives_up_on_silence_and_works_again,
    has_no_fee_rate_on_a_young_chain,
    says_what_the_mempool_takes_at_least,
];

async fn tells_its_network_and_tip(rig: &dyn ChainRig) {
    let mined = rig.mine(2).await;
    let info = rig.backend().info().await.unwrap();
    assert_eq!(info.genesis, bitcoin::constants::genesis_block(bitcoin::Network::Regtest).block_hash());
    assert_eq!(info.tip, mined);
}

async fn gives_the_block_that_was_asked_for(rig: &dyn ChainRig) {
    let backend = rig.backend();
    let payment = rig.pay(&fresh_script(), AMOUNT).await;
    let tip = rig.mine(1).await;
    assert_eq!(backend.block_hash(tip.height).await, Ok(Some(tip.hash)));
    let block = backend.block(tip.hash).await.unwrap();
    assert_eq!(block.block_hash(), tip.hash);
    assert!(block.check_merkle_root() && block.check_witness_commitment());
    assert!(block.txdata[0].is_coinbase());
    assert!(block.txdata.iter().any(|tx| tx.compute_txid() == payment.txid));
    let parent = backend.block(block.header.prev_blockhash).await.unwrap();
    assert_eq!(backend.block_hash(tip.height - 1).await, Ok(Some(parent.block_hash())));
    assert!(matches!(backend.block(BlockHash::all_zeros()).await, Err(PortError::Nonsense { .. })));
}

async fn has_no_block_above_the_tip(rig: &dyn ChainRig) {
    let tip = rig.mine(1).await;
    let backend = rig.backend();
    assert_eq!(backend.block_hash(tip.height + 1).await, Ok(None));
    assert_eq!(backend.block_hash(u32::MAX).await, Ok(None));
}

async fn shows_a_payment_in_the_mempool(rig: &dyn ChainRig) {
    let backend = rig.backend();
    let script = fresh_script();
    let tip = rig.mine(1).await;
    let payment = rig.pay(&script, AMOUNT).await;
    let mempool = backend.mempool().await.unwrap();
    assert_eq!((mempool.tip, mempool.txids), (tip, HashSet::from([payment.txid])));

    let nobody = Txid::from_byte_array([7; 32]);
    let found = backend.mempool_transactions(&[nobody, payment.txid]).await.unwrap();
    let [None, Some(tx)] = found.as_slice() else { panic!("not in the order asked: {found:?}") };
    assert_eq!((tx.compute_txid(), output_to(tx, &script)), (payment.txid, payment));
    assert_eq!(backend.mempool_transactions(&[]).await, Ok(Vec::new()));

    let tip = rig.mine(1).await;
    let mempool = backend.mempool().await.unwrap();
    assert_eq!((mempool.tip, mempool.txids), (tip, HashSet::new()));
    assert_eq!(backend.mempool_transactions(&[payment.txid]).await, Ok(vec![None]));
}

async fn forgets_a_replaced_payment(rig: &dyn ChainRig) {
    let payment = rig.pay(&fresh_script(), AMOUNT).await;
    let replacement = rig.bump(payment.txid).await;
    assert_eq!(rig.backend().mempool().await.unwrap().txids, HashSet::from([replacement]));
    assert_eq!(rig.backend().mempool_transactions(&[payment.txid]).await, Ok(vec![None]));
}

async fn finds_a_confirmed_transaction_only_in_its_block(rig: &dyn ChainRig) {
    let backend = rig.backend();
    let payment = rig.pay(&fresh_script(), AMOUNT).await;
    let home = rig.mine(1).await;
    let other = rig.mine(1).await;
    let found = backend.confirmed_transaction(payment.txid, home.hash).await.unwrap();
    assert_eq!(found.map(|tx| tx.compute_txid()), Some(payment.txid));
    assert_eq!(backend.confirmed_transaction(payment.txid, other.hash).await, Ok(None));
    assert_eq!(backend.confirmed_transaction(payment.txid, BlockHash::all_zeros()).await, Ok(None));

    rig.reorg(2, false).await;
    assert_eq!(backend.confirmed_transaction(payment.txid, home.hash).await, Ok(None), "its block lost");
}

async fn says_where_an_offered_transaction_is(rig: &dyn ChainRig) {
    let backend = rig.backend();
    let tx = rig.unsent(&fresh_script(), AMOUNT).await;
    assert_eq!(backend.broadcast(&tx).await, Ok(BroadcastOutcome::InMempool));
    assert_eq!(backend.broadcast(&tx).await, Ok(BroadcastOutcome::InMempool), "again");
    assert!(backend.mempool().await.unwrap().txids.contains(&tx.compute_txid()));
    rig.mine(1).await;
    assert_eq!(backend.broadcast(&tx).await, Ok(BroadcastOutcome::InChain), "after it was mined");
}

async fn refuses_a_double_spend(rig: &dyn ChainRig) {
    let backend = rig.backend();
    let tx = rig.unsent(&fresh_script(), AMOUNT).await;
    let rival = rig.rival(&tx, &fresh_script()).await;
    assert_eq!(backend.broadcast(&tx).await, Ok(BroadcastOutcome::InMempool));
    assert_refused(backend.broadcast(&rival).await, "insufficient fee");
    rig.mine(1).await;
    assert_refused(backend.broadcast(&rival).await, "missingorspent");
}

async fn finds_coins_by_their_scripts(rig: &dyn ChainRig) {
    let backend = rig.backend();
    let (ours, unpaid, pending) = (fresh_script(), fresh_script(), fresh_script());
    let payment = rig.pay(&ours, AMOUNT).await;
    let home = rig.mine(1).await;
    let reward = backend.block(home.hash).await.unwrap().txdata[0].output[0].script_pubkey.clone();
    rig.pay(&pending, AMOUNT).await;
    let tip = rig.mine_empty(2).await;

    let scan = backend.scan(&[ours.clone(), unpaid.clone(), ours.clone(), pending]).await.unwrap();
    assert_eq!((scan.tip, scan.coins.len()), (tip, 1), "{scan:?}");
    let coin = &scan.coins[0];
    assert_eq!((coin.outpoint, &coin.script, coin.amount), (payment, &ours, AMOUNT));
    assert_eq!((coin.height, coin.coinbase), (home.height, false));

    let rewards = backend.scan(&[reward]).await.unwrap();
    assert!(rewards.coins.iter().any(|coin| coin.coinbase && coin.height == home.height), "{rewards:?}");
    let nothing = backend.scan(&[]).await.unwrap();
    assert_eq!((nothing.tip, nothing.coins), (tip, Vec::new()));
    let many: Vec<ScriptBuf> = (0..5_000).map(|_| fresh_script()).chain([ours]).collect();
    assert_eq!(backend.scan(&many).await.unwrap().coins.len(), 1);
}

async fn says_which_outputs_are_unspent(rig: &dyn ChainRig) {
    let backend = rig.backend();
    let kept = rig.pay(&fresh_script(), AMOUNT).await;
    rig.mine(1).await;
    let tx = rig.unsent(&fresh_script(), AMOUNT).await;
    let spent = tx.input[0].previous_output;
    let made = OutPoint { txid: tx.compute_txid(), vout: 0 };
    let tip = rig.mine(1).await;
    let all = [kept, spent, made];
    assert_eq!(backend.still_unspent(&all).await, Ok((tip, HashSet::from([kept, spent]))));

    assert_eq!(backend.broadcast(&tx).await, Ok(BroadcastOutcome::InMempool));
    let seen = backend.still_unspent(&all).await;
    assert_eq!(seen, Ok((tip, HashSet::from([kept, spent]))), "the mempool doesn't count");

    let tip = rig.mine(1).await;
    assert_eq!(backend.still_unspent(&all).await, Ok((tip, HashSet::from([kept, made]))));
    assert_eq!(backend.still_unspent(&[]).await, Ok((tip, HashSet::new())));
    let unknown = |vout| OutPoint { txid: Txid::from_byte_array([7; 32]), vout };
    let many: Vec<OutPoint> = (0..2_500).map(unknown).chain([kept]).collect();
    assert_eq!(backend.still_unspent(&many).await, Ok((tip, HashSet::from([kept]))));
}

async fn follows_a_reorg_that_drops_a_payment(rig: &dyn ChainRig) {
    let backend = rig.backend();
    let script = fresh_script();
    let payment = rig.pay(&script, AMOUNT).await;
    let home = rig.mine(1).await;
    let old_tip = rig.mine(2).await;

    let tip = rig.reorg(3, false).await;
    assert_eq!(tip.height, old_tip.height + 1);
    assert_ne!(backend.block_hash(home.height).await.unwrap(), Some(home.hash));
    assert_eq!(backend.info().await.unwrap().tip, tip);
    assert_eq!(backend.block(home.hash).await.unwrap().block_hash(), home.hash, "a block that lost is still known");
    assert!(backend.scan(std::slice::from_ref(&script)).await.unwrap().coins.is_empty());
    assert_eq!(backend.still_unspent(&[payment]).await, Ok((tip, HashSet::new())));
    assert_eq!(backend.mempool().await.unwrap().txids, HashSet::from([payment.txid]), "it waits again");

    let tip = rig.mine(1).await;
    let found = backend.scan(&[script]).await.unwrap();
    assert_eq!(found.coins.iter().map(|coin| coin.height).collect::<Vec<_>>(), [tip.height]);
}

async fn follows_a_reorg_that_mines_a_payment_again(rig: &dyn ChainRig) {
    let backend = rig.backend();
    let payment = rig.pay(&fresh_script(), AMOUNT).await;
    let home = rig.mine(1).await;
    rig.reorg(1, true).await;
    let new_home = backend.block_hash(home.height).await.unwrap().unwrap();
    assert_ne!(new_home, home.hash);
    let found = backend.confirmed_transaction(payment.txid, new_home).await.unwrap();
    assert_eq!(found.map(|tx| tx.compute_txid()), Some(payment.txid));
    assert_eq!(backend.mempool().await.unwrap().txids, HashSet::new());
}

async fn fails_while_down_and_works_again(rig: &dyn ChainRig) {
    let tip = rig.mine(1).await;
    rig.backend().info().await.unwrap();
    rig.go_down().await;
    every_call_is_unanswered(&*rig.backend()).await;
    rig.mend().await;
    answers_again(&*rig.backend(), tip).await;
}

async fn gives_up_on_silence_and_works_again(rig: &dyn ChainRig) {
    let tip = rig.mine(1).await;
    rig.backend().info().await.unwrap();
    rig.hang().await;
    every_call_is_unanswered(&*rig.backend()).await;
    rig.mend().await;
    answers_again(&*rig.backend(), tip).await;
}

async fn says_what_the_mempool_takes_at_least(rig: &dyn ChainRig) {
    let floor = rig.backend().fee_floor().await.expect("a rate").milli_sat_per_vb();
    // Nodes have taken 1 sat/vB for years, and 0.1 since; an empty mempool asks for no more.
    assert!((100..=1_000).contains(&floor), "{floor}");
}

async fn has_no_fee_rate_on_a_young_chain(rig: &dyn ChainRig) {
    for target in [0, 1, 6, u16::MAX] {
        assert_eq!(rig.backend().fee_rate(target).await, Ok(None), "{target}");
    }
}

/// All at once, so that the test waits for one time-out and not for all of them.
async fn every_call_is_unanswered(backend: &dyn ChainBackend) {
    let tx = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).txdata.remove(0);
    let (txid, hash) = (tx.compute_txid(), BlockHash::all_zeros());
    let scripts = [fresh_script()];
    let outpoints = [OutPoint { txid, vout: 0 }];
    let all = async {
        tokio::join!(
            async { backend.info().await.err() },
            async { backend.block_hash(0).await.err() },
            async { backend.block(hash).await.err() },
            async { backend.mempool().await.err() },
            async { backend.mempool_transactions(&[txid]).await.err() },
            async { backend.confirmed_transaction(txid, hash).await.err() },
            async { backend.still_unspent(&outpoints).await.err() },
            async { backend.broadcast(&tx).await.err() },
            async { backend.fee_rate(6).await.err() },
            async { backend.scan(&scripts).await.err() },
        )
    };
    let answers = tokio::time::timeout(GIVES_UP_WITHIN, all).await.expect("every call gives up by itself");
    let (a, b, c, d, e, f, g, h, i, j) = answers;
    for (call, error) in [a, b, c, d, e, f, g, h, i, j].into_iter().enumerate() {
        assert!(matches!(error, Some(PortError::Unreachable { .. })), "call {call}: {error:?}");
    }
}

async fn answers_again(backend: &dyn ChainBackend, tip: BlockRef) {
    let deadline = Instant::now() + RECOVERS_WITHIN;
    loop {
        match backend.info().await {
            Ok(info) => return assert_eq!(info.tip, tip),
            Err(error) => assert!(Instant::now() < deadline, "still: {error}"),
        }
        tokio::time::sleep(POLL).await;
    }
}

fn assert_refused(outcome: Result<BroadcastOutcome, PortError>, why: &str) {
    let Ok(BroadcastOutcome::Refused { reason }) = outcome else { panic!("not refused: {outcome:?}") };
    assert!(reason.contains(why), "{reason}");
}

fn fresh_script() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(rand::random()))
}

fn output_to(tx: &Transaction, script: &ScriptBuf) -> OutPoint {
    let vout = tx.output.iter().position(|output| output.script_pubkey == *script).expect("an output to the script");
    OutPoint { txid: tx.compute_txid(), vout: u32::try_from(vout).unwrap() }
}

// What only a real node can show.

#[tokio::test]
async fn a_bad_signature_is_refused() {
    let Some(rig) = BitcoindRig::start().await else { return };
    let mut tx = rig.unsent(&fresh_script(), AMOUNT).await;
    let mut elements: Vec<Vec<u8>> = tx.input[0].witness.iter().map(<[u8]>::to_vec).collect();
    elements[0][10] ^= 1;
    tx.input[0].witness = bitcoin::Witness::from_slice(&elements);
    assert_refused(rig.adapter.broadcast(&tx).await, "script-verify-flag");
}

#[tokio::test]
async fn a_new_cookie_is_read_after_a_restart() {
    let Some(rig) = BitcoindRig::start().await else { return };
    let tip = rig.adapter.info().await.unwrap().tip;
    let cookie = std::fs::read_to_string(rig.node.cookie_file()).unwrap();
    rig.node.restart().await;
    assert_ne!(std::fs::read_to_string(rig.node.cookie_file()).unwrap(), cookie);
    answers_again(&*rig.adapter, tip).await;
}

#[tokio::test]
async fn a_wrong_password_is_the_configurations_fault() {
    let Some(rig) = BitcoindRig::start().await else { return };
    let right = Adapter::new(&rig.node.password_config(PASSWORD)).unwrap();
    assert_eq!(right.info().await, rig.adapter.info().await);
    let wrong = Adapter::new(&rig.node.password_config("hunter2-is-wrong")).unwrap();
    let error = wrong.info().await.unwrap_err();
    assert!(matches!(error, PortError::Misconfigured { .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn an_index_of_all_transactions_is_used_and_does_not_confuse() {
    let Some(node) = Bitcoind::start_with(&["-txindex=1"]).await else { return };
    let adapter = Adapter::new(&node.config()).unwrap();
    let tx = node.unsent_payment(&node.new_address().await, AMOUNT).await;
    assert_eq!(adapter.broadcast(&tx).await, Ok(BroadcastOutcome::InMempool));
    let txid = tx.compute_txid();
    assert!(adapter.mempool_transactions(&[txid]).await.unwrap()[0].is_some());
    node.mine(1).await;
    node.rpc("sendall", serde_json::json!([[node.new_address().await]])).await;
    node.mine(1).await;
    wait_for_index(&node).await;
    assert_eq!(adapter.mempool_transactions(&[txid]).await, Ok(vec![None]), "it is confirmed, not waiting");
    let all_spent = adapter.broadcast(&tx).await;
    assert_eq!(all_spent, Ok(BroadcastOutcome::InChain), "all its outputs are spent, and it is what spent its inputs");
}

async fn wait_for_index(node: &Bitcoind) {
    let deadline = Instant::now() + RECOVERS_WITHIN;
    let tip = u64::from(node.tip().await.height);
    while node.rpc("getindexinfo", serde_json::json!(["txindex"])).await["txindex"]["best_block_height"] != tip {
        assert!(Instant::now() < deadline, "the index does not get ready");
        tokio::time::sleep(POLL).await;
    }
}
