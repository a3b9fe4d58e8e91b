//! What a chain in memory shows: that following it, whatever happens to it, ends where reading it anew does.

use std::collections::BTreeSet;

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, ScriptBuf, Transaction, WPubkeyHash};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::index::Index;
use super::wire::{BlockSummary, Outspend, Status, Tx};
use super::*;
use crate::chain::fake::{FakeChain, Fault, Reorged};
use crate::money::Sat;

const AMOUNT: Sat = Sat::literal(50_000);
const SCRIPTS: u8 = 4;
const WALKS: u64 = 8;
const STEPS: usize = 80;

fn script(n: u8) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([n; 20]))
}

fn reader(chain: &Arc<FakeChain>) -> Reader {
    Reader::new(Arc::clone(chain) as Arc<dyn ChainBackend>)
}

/// What is told of blocks, of every transaction that there ever was, and of their scripts. What waits stands in no order:
/// an index that begins now has not seen it arrive.
fn picture(index: &Index, ever: &[Transaction]) -> Value {
    let blocks: Vec<_> =
        index.blocks_down_from(None).map(|(height, block)| BlockSummary::of(index, height, block)).collect();
    let transactions: Vec<_> = ever.iter().map(|tx| told(index, tx)).collect();
    let scripts: BTreeSet<_> =
        ever.iter().flat_map(|tx| &tx.output).map(|output| index::hash(&output.script_pubkey)).collect();
    let histories: Vec<_> = scripts.iter().map(|script| history(index, script)).collect();
    json!({ "blocks": blocks, "transactions": transactions, "histories": histories })
}

fn told(index: &Index, tx: &Transaction) -> Value {
    let txid = tx.compute_txid();
    let found = index.transaction(&txid);
    let spends: Vec<_> = (0..).zip(&tx.output).map(|(vout, _)| Outspend::of(index, &OutPoint { txid, vout })).collect();
    json!({ "status": Status::of(index, found), "tx": found.map(|found| Tx::of(index, found)), "spends": spends })
}

fn history(index: &Index, script: &index::ScriptHash) -> Value {
    let waiting: BTreeSet<_> = index.waiting(script).map(|found| found.txid).collect();
    let confirmed: Vec<_> = index.confirmed(script, None).map(|found| found.txid).collect();
    for (at, txid) in confirmed.iter().enumerate() {
        let after: Vec<_> = index.confirmed(script, Some(txid)).map(|found| found.txid).collect();
        assert_eq!(after, confirmed[at + 1..], "a page begins where the one before ended");
    }
    json!([waiting, confirmed])
}

/// Something happens to the chain.
fn step(chain: &FakeChain, dice: &mut StdRng) {
    let waiting: BTreeSet<_> = chain.mempool_ids().into_iter().collect();
    let one = waiting.iter().nth(dice.random_range(0..waiting.len().max(1))).copied();
    let to = script(dice.random_range(1..=SCRIPTS));
    let fates = [Reorged::MinedAgain, Reorged::BackInMempool, Reorged::Gone];
    // What can't be done now is no step.
    match (dice.random_range(0..10), one) {
        (0..=3, _) => drop(chain.pay(&to, AMOUNT)),
        (4, Some(txid)) => drop(chain.replace(txid, &[(to, AMOUNT)])),
        (5, Some(txid)) => drop(chain.evict(txid)),
        (6, _) => drop(chain.mine_empty(1)),
        (7, _) => {
            let depth = dice.random_range(1..=4);
            let fate = fates[dice.random_range(0..fates.len())];
            if chain.reorg(depth, depth + dice.random_range(0..=1), fate).is_err() {
                // Its blocks are off, and what was to come instead can't be mined: now the mempool has to fit again.
                chain.reorg(0, 0, Reorged::Gone).expect("nothing is mined");
            }
        }
        (8, Some(txid)) => {
            let rival = chain.build_rival(txid, &[(to, AMOUNT)]).expect("it waits");
            drop(chain.mine_with(vec![rival]));
        }
        _ => drop(chain.mine(1)),
    }
}

#[tokio::test]
async fn what_was_followed_is_what_a_new_index_reads() {
    for seed in 0..WALKS {
        let (chain, mut dice) = (Arc::new(FakeChain::new()), StdRng::seed_from_u64(seed));
        chain.mine(20);
        let followed = reader(&chain);
        let mut ever: Vec<Transaction> = Vec::new();
        for at in 0..STEPS {
            step(&chain, &mut dice);
            let known: BTreeSet<_> = ever.iter().map(Transaction::compute_txid).collect();
            let waiting = chain.mempool_ids().into_iter().filter_map(|txid| chain.transaction(txid));
            let all = chain.confirmed().into_iter().chain(waiting);
            // But the one that fills the faucet: it would be most of the picture.
            ever.extend(all.filter(|tx| tx.output.len() < 10 && !known.contains(&tx.compute_txid())));
            // Sometimes much happens between two questions.
            if dice.random_bool(0.4) {
                let seen = picture(&followed.current().await.unwrap(), &ever);
                let anew = picture(&reader(&chain).current().await.unwrap(), &ever);
                assert_eq!(seen, anew, "walk {seed}, step {at}");
            }
        }
    }
}

#[tokio::test]
async fn another_chain_than_regtest_is_refused() {
    let chain = Arc::new(FakeChain::new());
    chain.set_fault(Fault::WrongNetwork);
    let refused = Indexer::start(chain).await.err().expect("it does not start");
    assert!(matches!(refused, IndexerError::NotRegtest(_)), "{refused}");
    assert!(refused.to_string().contains("memory"), "{refused}");
}

#[tokio::test]
async fn a_node_that_does_not_answer_has_no_index() {
    let chain = Arc::new(FakeChain::new());
    let reader = reader(&chain);
    for fault in [Fault::Down, Fault::Error500] {
        chain.set_fault(fault);
        assert!(matches!(reader.current().await, Err(PortError::Unreachable { .. })));
        assert!(matches!(Indexer::start(chain.clone()).await, Err(IndexerError::Node(_))));
    }
    chain.set_fault(None);
    let tip = chain.mine(3);
    assert_eq!(reader.current().await.unwrap().tip().map(|block| block.hash), Some(tip.hash));
}
