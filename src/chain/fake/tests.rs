//! What the fake promises to tests beyond the port; the port itself is the conformance suite's.

use bitcoin::Witness;
use bitcoin::hashes::Hash;
use bitcoin::{TxOut, WPubkeyHash};

use super::*;

const SAT: Sat = Sat::literal(50_000);

fn script(n: u8) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([n; 20]))
}

/// Spends the first output of another transaction and leaves a good fee.
fn child_of(parent: &Transaction) -> Transaction {
    let mut child = parent.clone();
    child.input.truncate(1);
    child.input[0].previous_output = OutPoint { txid: parent.compute_txid(), vout: 0 };
    child.input[0].witness = Witness::from_slice(&[[9; 64]]);
    child.output = vec![TxOut { value: (SAT.to_bitcoin() / 2), script_pubkey: script(9) }];
    child
}

/// A payment with a child, both waiting.
async fn family(chain: &FakeChain) -> (Transaction, Transaction) {
    let parent = chain.build_payment(&[(script(1), SAT)]).unwrap();
    let child = child_of(&parent);
    for tx in [&parent, &child] {
        assert_eq!(chain.broadcast(tx).await, Ok(BroadcastOutcome::InMempool));
    }
    (parent, child)
}

#[tokio::test]
async fn blocks_are_sound_and_linked() {
    let chain = FakeChain::new();
    family(&chain).await;
    let tip = chain.mine(20);
    let mut parent = chain.block_hash(0).await.unwrap().unwrap();
    for height in 1..=tip.height {
        let block = chain.block(chain.block_hash(height).await.unwrap().unwrap()).await.unwrap();
        assert_eq!(block.header.prev_blockhash, parent);
        assert!(block.check_merkle_root() && block.check_witness_commitment());
        // The library reads no heights that are a single opcode.
        if height > 16 {
            assert_eq!(block.bip34_block_height(), Ok(u64::from(height)));
        }
        parent = block.header.validate_pow(block.header.target()).unwrap();
    }
    assert_eq!(parent, tip.hash);
}

#[tokio::test]
async fn a_child_goes_where_its_parent_goes() {
    let chain = FakeChain::new();
    let (parent, child) = family(&chain).await;
    assert!(chain.evict(parent.compute_txid()));
    assert!(chain.mempool_ids().is_empty());
    assert!(!chain.evict(child.compute_txid()), "it is gone already");

    let (parent, _) = family(&chain).await;
    let replacement = chain.replace(parent.compute_txid(), &[(script(2), SAT)]).unwrap();
    assert_eq!(chain.mempool_ids(), HashSet::from([replacement]));
}

#[tokio::test]
async fn a_block_throws_out_what_contradicts_it() {
    let chain = FakeChain::new();
    let (parent, _) = family(&chain).await;
    let rival = chain.build_rival(parent.compute_txid(), &[(script(2), SAT)]).unwrap();
    chain.mine_with(vec![rival.clone()]).unwrap();
    assert!(chain.mempool_ids().is_empty());
    assert!(matches!(chain.broadcast(&parent).await, Ok(BroadcastOutcome::Refused { .. })));
    assert!(matches!(chain.mine_with(vec![rival]), Err(FakeError::Unspendable(_))), "mined twice");
}

#[tokio::test]
async fn the_fates_of_a_reorg() {
    for (fate, waiting, mined) in
        [(Reorged::MinedAgain, 0, true), (Reorged::BackInMempool, 2, false), (Reorged::Gone, 0, false)]
    {
        let chain = FakeChain::new();
        let (parent, child) = family(&chain).await;
        chain.mine(1);
        let old = chain.mine(2);
        let tip = chain.reorg(3, 4, fate).unwrap();
        assert_eq!(tip.height, old.height + 1, "{fate:?}");
        assert_eq!(chain.mempool_ids().len(), waiting, "{fate:?}");
        let coin = OutPoint { txid: child.compute_txid(), vout: 0 };
        assert_eq!(
            chain.still_unspent(&[coin]).await,
            Ok((tip, mined.then_some(coin).into_iter().collect())),
            "{fate:?}"
        );
        assert_eq!(chain.transaction(parent.compute_txid()).is_some(), mined || waiting > 0, "{fate:?}");
    }
}

#[tokio::test]
async fn a_reorg_takes_away_what_waits_for_the_lost() {
    let chain = FakeChain::new();
    let (outpoint, _) = chain.fund_confirmed(&script(1), SAT).unwrap();
    let parent = chain.transaction(outpoint.txid).unwrap();
    assert_eq!(chain.broadcast(&child_of(&parent)).await, Ok(BroadcastOutcome::InMempool));
    chain.reorg(1, 2, Reorged::Gone).unwrap();
    assert!(chain.mempool_ids().is_empty());
    assert_eq!(chain.reorg(3, 4, Reorged::Gone), Err(FakeError::TooDeep), "block 1 stays");
}

#[tokio::test]
async fn what_is_mined_and_spent_is_still_in_the_chain() {
    let chain = FakeChain::new();
    let (outpoint, _) = chain.fund_confirmed(&script(1), SAT).unwrap();
    let parent = chain.transaction(outpoint.txid).unwrap();
    chain.mine_with(vec![child_of(&parent)]).unwrap();
    assert_eq!(chain.broadcast(&parent).await, Ok(BroadcastOutcome::InChain));
}

#[tokio::test]
async fn every_fault_shows_and_can_be_mended() {
    let chain = FakeChain::new();
    let tx = chain.build_payment(&[(script(1), SAT)]).unwrap();
    for fault in [Fault::Down, Fault::Error500, Fault::Hang(Duration::from_millis(1))] {
        chain.set_fault(fault);
        assert!(matches!(chain.broadcast(&tx).await, Err(PortError::Unreachable { .. })), "{fault:?}");
        assert!(chain.mempool_ids().is_empty(), "{fault:?}");
    }
    chain.set_fault(Fault::WrongNetwork);
    let wrong = chain.info().await.unwrap().genesis;
    chain.set_fault(Fault::FeeRate(f64::NAN));
    assert!(matches!(chain.fee_rate(6).await, Err(PortError::Nonsense { .. })));
    chain.set_fault(Fault::AnswerLost);
    assert!(matches!(chain.broadcast(&tx).await, Err(PortError::Unreachable { .. })));
    assert_eq!(chain.mempool_ids(), HashSet::from([tx.compute_txid()]), "it went out all the same");
    chain.set_fault(None);
    assert_ne!(chain.info().await.unwrap().genesis, wrong);
    chain.set_fee_rate(Some(FeeRate::RELAY_MINIMUM));
    assert_eq!(chain.fee_rate(6).await, Ok(Some(FeeRate::RELAY_MINIMUM)));

    chain.refuse_broadcast(Some("not today"));
    let refused = BroadcastOutcome::Refused { reason: "not today".to_owned() };
    assert_eq!(chain.broadcast(&tx).await, Ok(refused));
}

type Falsify = fn(&mut Transaction);

#[tokio::test]
async fn nonsense_is_refused() {
    let chain = FakeChain::new();
    let good = chain.build_payment(&[(script(1), SAT)]).unwrap();
    let falsifications: [(&str, Falsify); 6] = [
        ("missingorspent", |tx| tx.input[0].previous_output.vout = 1_000_000),
        ("duplicate", |tx| tx.input.push(tx.input[0].clone())),
        ("vin-or-vout-empty", |tx| tx.input.clear()),
        ("vin-or-vout-empty", |tx| tx.output.clear()),
        ("belowout", |tx| tx.output[0].value *= 1_000_000),
        ("min relay fee", |tx| tx.output[1].value += bitcoin::Amount::from_sat(2_090)),
    ];
    for (why, falsify) in falsifications {
        let mut tx = good.clone();
        falsify(&mut tx);
        let Ok(BroadcastOutcome::Refused { reason }) = chain.broadcast(&tx).await else { panic!("{why}: taken") };
        assert!(reason.contains(why), "{why}: {reason}");
    }
    assert_eq!(chain.broadcast(&good).await, Ok(BroadcastOutcome::InMempool));
}

#[tokio::test]
async fn a_big_block_can_be_filled() {
    let chain = FakeChain::new();
    for n in 0..2_000u32 {
        chain.pay(&script(u8::try_from(n % 256).unwrap()), SAT).unwrap();
    }
    let many: Vec<(ScriptBuf, Sat)> = (0..2_000).map(|_| (script(7), SAT)).collect();
    chain.pay_many(&many).unwrap();
    let tip = chain.mine(1);
    assert_eq!(chain.block(tip.hash).await.unwrap().txdata.len(), 2_002);
    assert!(chain.mempool_ids().is_empty());
}
