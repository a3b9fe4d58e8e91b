//! The chain takes blocks back: what was final is not, and is again.

use sluice::chain::fake::Reorged;
use sluice::domain::deposit;
use sluice::domain::onchain_send::State;
use sluice::flows::follow::{self, Progress};
use sluice::flows::{Code, Policy, sync};
use sluice::store::halts;

use crate::harness::rig::{Client, Rig, amount, inputs_of, on_both, policy, spend_elsewhere, stranger, unsigned};

fn shallow() -> Policy {
    Policy { reorg_max: 3, ..policy() }
}

async fn tip_is_followed(rig: &Rig) -> bool {
    let mut conn = rig.flows.store().read().await.expect("the store answers");
    let cursor = sluice::store::chain::cursor(&mut conn).await.expect("the store answers");
    cursor == Some(rig.chain.tip())
}

/// A deposit, a send and its change, all of them in the block that is taken back first.
async fn taken_back_and_mined_again(rig: &Rig, client: &Client, depth: u32, fate: Reorged) {
    let before = rig.spendable(client).await;
    let address = rig.address(client).await;
    let coin = rig.pay_confirmed(&address, 10_000).await;
    let begun = rig.sent(client, 3_000).await;
    rig.mine(1).await;
    rig.mine(depth - 1).await;
    assert!(matches!(rig.state(client, begun.request).await, State::Confirmed { .. }));
    rig.chain.reorg(depth, depth + 1, fate).expect("a reorganisation");
    rig.settle().await;
    if fate == Reorged::MinedAgain {
        assert!(matches!(rig.state(client, begun.request).await, State::Confirmed { .. }), "{depth}");
    } else {
        assert!(matches!(rig.state(client, begun.request).await, State::Broadcast { .. }), "{depth}");
        // The flow that promised it has it to itself for a while; then it is offered again.
        rig.wait(31).await;
        let txid = unsigned(&begun.psbt).compute_txid();
        assert!(rig.chain.mempool_ids().contains(&txid), "it is offered again after {depth} blocks");
        assert_eq!(rig.state(client, begun.request).await, State::Broadcast { txid, last_error: None });
        rig.mine(1).await;
        assert!(matches!(rig.state(client, begun.request).await, State::Confirmed { .. }));
    }
    assert_eq!(rig.spendable(client).await, before + 10_000 - 3_000 - begun.fee.to_u64());
    let of_coin = rig.deposits(client).await.into_iter().find(|d| d.machine.outpoint == coin).expect("a deposit");
    assert!(matches!(of_coin.machine.state, deposit::State::Confirmed { .. }));
    rig.audit().await;
}

on_both!(one_to_ten_blocks_with_the_same_transactions, |rig| async move {
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    for depth in 1..=10 {
        taken_back_and_mined_again(&rig, &client, depth, Reorged::MinedAgain).await;
    }
});

on_both!(one_to_ten_blocks_back_into_the_mempool, |rig| async move {
    let client = Client::number(2);
    rig.funded(&client, 100_000).await;
    for depth in 1..=10 {
        taken_back_and_mined_again(&rig, &client, depth, Reorged::BackInMempool).await;
    }
});

on_both!(one_to_ten_blocks_and_nobody_remembers, |rig| async move {
    let client = Client::number(3);
    rig.funded(&client, 100_000).await;
    for depth in 1..=10 {
        taken_back_and_mined_again(&rig, &client, depth, Reorged::Gone).await;
    }
});

on_both!(a_deposit_that_nobody_mines_again_is_gone, |rig| async move {
    let client = Client::number(4);
    let address = rig.register(&client).await;
    let coin = rig.pay_confirmed(&address, 10_000).await;
    let payment = rig.chain.transaction(coin.txid).expect("it is in a block");
    let (outpoint, _) = (coin, rig.chain.tip());
    rig.chain.reorg(1, 0, Reorged::BackInMempool).expect("a reorganisation");
    rig.chain.mine_empty(2);
    rig.settle().await;
    let deposit = rig.deposit(&client).await;
    assert_eq!((deposit.outpoint, deposit.state), (outpoint, deposit::State::Reorged));
    assert_eq!(rig.spendable(&client).await, 0);
    rig.chain.wipe_mempool();
    rig.settle().await;
    assert_eq!(rig.deposit(&client).await.state, deposit::State::Evicted);
    assert_eq!(rig.balance(&client).await.future, amount(0));
    rig.mine_with(vec![payment]).await;
    assert!(matches!(rig.deposit(&client).await.state, deposit::State::Confirmed { .. }));
    rig.audit().await;
});

on_both!(a_conflict_in_the_other_branch_fails_the_send_until_it_is_undone, |rig| async move {
    let client = Client::number(5);
    rig.funded(&client, 100_000).await;
    let begun = rig.sent(&client, 30_000).await;
    let signed = client.signed_tx(&begun.psbt);
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, begun.request).await, State::Confirmed { .. }));
    let theft = spend_elsewhere(&inputs_of(&signed), &stranger(), 99_000);
    rig.chain.reorg(1, 1, Reorged::Gone).expect("a reorganisation");
    rig.mine_with(vec![theft.clone()]).await;
    let conflicted = State::Conflicted { by: theft.compute_txid(), signed: Some(signed.compute_txid()) };
    assert_eq!(rig.state(&client, begun.request).await, conflicted);
    assert_eq!(rig.balance(&client).await.future, amount(0));
    rig.audit().await;
    rig.chain.reorg(1, 2, Reorged::Gone).expect("a reorganisation");
    rig.settle().await;
    let back = rig.state(&client, begun.request).await;
    assert!(matches!(back, State::Broadcast { txid, .. } if txid == signed.compute_txid()), "{back:?}");
    rig.wait(31).await;
    assert!(rig.chain.mempool_ids().contains(&signed.compute_txid()), "it is offered again");
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, begun.request).await, State::Confirmed { .. }));
    rig.audit().await;
});

on_both!(one_of_two_conflicts_is_undone_and_the_other_stands, |rig| async move {
    let client = Client::number(6);
    rig.funded_with(&client, &[50_000, 40_000]).await;
    let begun = rig.sent(&client, 80_000).await;
    let signed = client.signed_tx(&begun.psbt);
    let coins = inputs_of(&signed);
    let thefts = [spend_elsewhere(&coins[..1], &stranger(), 30_000), spend_elsewhere(&coins[1..], &stranger(), 30_000)];
    let [first, second] = thefts;
    let second_txid = second.compute_txid();
    rig.mine_with(vec![second]).await;
    rig.mine_with(vec![first.clone()]).await;
    let state = rig.state(&client, begun.request).await;
    assert!(matches!(state, State::Conflicted { .. }), "{state:?}");
    rig.chain.reorg(1, 2, Reorged::Gone).expect("a reorganisation");
    rig.settle().await;
    let still = State::Conflicted { by: second_txid, signed: Some(signed.compute_txid()) };
    assert_eq!(rig.state(&client, begun.request).await, still, "the other one is still in a block");
    rig.audit().await;
    rig.chain.reorg(3, 4, Reorged::Gone).expect("a reorganisation");
    rig.wait(31).await;
    assert!(rig.chain.mempool_ids().contains(&signed.compute_txid()));
    rig.audit().await;
});

on_both!(both_conflicts_undone_in_the_order_in_which_they_came, |rig| async move {
    let client = Client::number(7);
    rig.funded_with(&client, &[50_000, 40_000]).await;
    let begun = rig.sent(&client, 80_000).await;
    let coins = inputs_of(&unsigned(&begun.psbt));
    let first = spend_elsewhere(&coins[..1], &stranger(), 30_000);
    let second = spend_elsewhere(&coins[1..], &stranger(), 30_000);
    let first_txid = first.compute_txid();
    rig.mine_with(vec![first]).await;
    rig.mine_with(vec![second]).await;
    rig.chain.reorg(1, 2, Reorged::Gone).expect("a reorganisation");
    rig.settle().await;
    let state = rig.state(&client, begun.request).await;
    assert!(matches!(state, State::Conflicted { by, .. } if by == first_txid), "{state:?}");
    rig.audit().await;
});

on_both!(deeper_than_allowed_stops_payouts_until_an_operator_decides, shallow(), |rig| async move {
    let client = Client::number(8);
    rig.funded_with(&client, &[100_000, 100_000, 100_000]).await;
    let waiting = rig.begin(&client, &stranger(), 20_000).await.expect("it begins");
    let sent = rig.sent(&client, 30_000).await;
    let confirmed = rig.sent(&client, 40_000).await;
    rig.chain.evict(unsigned(&sent.psbt).compute_txid());
    rig.mine(1).await;
    rig.mine(5).await;
    let unmined = rig.sent(&client, 5_000).await;
    let before = rig.state(&client, confirmed.request).await;
    rig.chain.reorg(6, 7, Reorged::Gone).expect("a reorganisation");
    assert_eq!(rig.follow().await, Progress::Halted);
    assert_eq!(follow::step(&rig.flows, &rig.owner).await.expect("it steps"), Progress::Halted);
    assert_eq!(rig.state(&client, confirmed.request).await, before, "nothing is undone");
    let code = |result: Result<_, sluice::flows::Error>| result.map(drop).expect_err("payouts are stopped").code();
    assert_eq!(code(rig.begin(&client, &stranger(), 1_000).await.map(drop)), Code::PayoutsHalted);
    assert_eq!(code(rig.end(&client, &waiting.psbt).await.map(drop)), Code::PayoutsHalted);
    assert_eq!(code(rig.bump(&client, unmined.request, 9, false).await.map(drop)), Code::PayoutsHalted);
    let again = rig.end(&client, &confirmed.psbt).await.expect("what was said before is said again");
    assert_eq!(again.request.machine.state, before);
    assert!(rig.clear_halt(halts::DEEP_REORG).await);
    rig.settle().await;
    assert!(tip_is_followed(&rig).await);
    assert!(matches!(rig.state(&client, confirmed.request).await, State::Broadcast { .. }));
    rig.wait(31).await;
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, confirmed.request).await, State::Confirmed { .. }));
    rig.end(&client, &waiting.psbt).await.expect("payouts go on");
    rig.audit().await;
});

on_both!(a_branch_that_loses_again_needs_no_decision_to_be_followed, shallow(), |rig| async move {
    let client = Client::number(9);
    rig.funded(&client, 100_000).await;
    rig.mine(4).await;
    rig.chain.reorg(4, 5, Reorged::Gone).expect("a reorganisation");
    assert_eq!(rig.follow().await, Progress::Halted);
    rig.chain.mine(1);
    assert_eq!(rig.follow().await, Progress::Halted, "it stays halted while the branch grows");
    assert!(rig.clear_halt(halts::DEEP_REORG).await);
    rig.settle().await;
    assert!(tip_is_followed(&rig).await);
    rig.audit().await;
});

on_both!(a_new_gateway_survives_a_reorganisation_of_its_first_blocks, |rig| async move {
    let client = Client::number(10);
    // The rig began at the tip a moment ago.
    rig.chain.reorg(5, 6, Reorged::Gone).expect("a reorganisation");
    assert_eq!(rig.follow().await, Progress::Moved);
    assert!(tip_is_followed(&rig).await);
    rig.funded(&client, 100_000).await;
    assert_eq!(rig.spendable(&client).await, 100_000);
    rig.audit().await;
});

on_both!(days_offline, |rig| async move {
    let mut rig = rig;
    let client = Client::number(11);
    let address = rig.funded(&client, 100_000).await;
    let begun = rig.begin(&client, &stranger(), 30_000).await.expect("it begins");
    let late = rig.address(&client).await;
    // The client broadcasts without telling anybody, and is paid.
    let signed = client.signed_tx(&begun.psbt);
    rig.chain.mine(200);
    rig.chain.mine_with(vec![signed]).expect("a valid block");
    rig.chain.mine(200);
    rig.chain.fund_confirmed(&late.script_pubkey(), amount(5_000)).expect("the fake pays");
    rig.chain.fund_confirmed(&address.script_pubkey(), amount(6_000)).expect("the fake pays");
    rig.chain.mine(100);
    rig.restart();
    rig.wait(3 * 24 * 60 * 60).await;
    assert!(tip_is_followed(&rig).await);
    assert!(matches!(rig.state(&client, begun.request).await, State::Confirmed { .. }));
    assert_eq!(rig.deposits(&client).await.len(), 3);
    assert_eq!(rig.spendable(&client).await, 70_000 - begun.fee.to_u64() + 11_000);
    rig.audit().await;
});

/// The node's tip is a block that we know: it has lost its last blocks and fetches them again.
async fn node_falls_behind(rig: Rig, syncing: bool) {
    let client = Client::number(12);
    rig.funded(&client, 100_000).await;
    rig.mine(3).await;
    let (before, lost) = (rig.deposit(&client).await.state, rig.chain.tip());
    rig.chain.set_syncing(syncing);
    rig.chain.reorg(3, 0, Reorged::Gone).expect("blocks can be taken off");
    assert_eq!(rig.follow().await, Progress::CaughtUp);
    assert_eq!(rig.deposit(&client).await.state, before);
    let mut conn = rig.flows.store().read().await.expect("the store answers");
    assert_eq!(sluice::store::chain::cursor(&mut conn).await.expect("the store answers"), Some(lost));
    drop(conn);
    rig.chain.set_syncing(false);
    // It turns out to be on another branch after all.
    rig.mine(2).await;
    assert!(tip_is_followed(&rig).await);
    rig.audit().await;
}

on_both!(a_node_that_is_syncing_has_not_disagreed, |rig| node_falls_behind(rig, true));

on_both!(a_node_that_is_behind_has_not_disagreed, |rig| node_falls_behind(rig, false));

on_both!(sync_waits_for_the_branch_and_not_only_for_the_height, |rig| async move {
    let client = Client::number(13);
    rig.funded(&client, 100_000).await;
    rig.chain.reorg(1, 1, Reorged::Gone).expect("a reorganisation");
    let (reached, ()) = tokio::join!(sync::wait_for_tip(&rig.flows), rig.settle());
    assert_eq!(reached.expect("the tip is reached").at, rig.chain.tip());
    rig.audit().await;
});
