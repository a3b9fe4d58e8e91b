//! Money that arrives from outside: seen, confirmed, replaced, evicted, and back again.

use std::collections::HashSet;

use bitcoin::OutPoint;
use sluice::domain::deposit::State;
use sluice::flows::history;
use sluice::flows::{Code, Policy};
use sluice::store::requests::AnyRequest;

use crate::harness::rig::{Client, Rig, amount, on_both, policy, spend_elsewhere, stranger};

fn three_confirmations() -> Policy {
    Policy { confirmations: Some(3), min_confirmations: 3, ..policy() }
}

async fn address_state(rig: &Rig, client: &Client, index: u32) -> &'static str {
    use sluice::domain::Machine;
    let filter = sluice::store::requests::Filter::default();
    let mut conn = rig.flows.store().read().await.expect("the store answers");
    let all = sluice::store::requests::page::<sluice::domain::address::ReceiveAddress>(
        &mut conn,
        &client.keys.id(),
        &filter,
        None,
        500,
    )
    .await
    .expect("the store answers");
    let of_index = all.iter().find(|request| request.machine.index == index).expect("it was handed out");
    of_index.machine.state()
}

on_both!(a_deposit_is_seen_and_then_confirmed, |rig| async move {
    let client = Client::number(1);
    let address = rig.register(&client).await;
    let txid = rig.pay(&address, 50_000).await;
    let deposit = rig.deposit(&client).await;
    assert_eq!(deposit.state, State::Seen);
    assert_eq!((deposit.outpoint, deposit.amount), (OutPoint { txid, vout: 0 }, amount(50_000)));
    assert_eq!(rig.balance(&client).await.future, amount(50_000));
    assert_eq!(rig.spendable(&client).await, 0, "a stranger's coin waits for a block");
    assert_eq!(rig.begin(&client, &stranger(), 10_000).await.expect_err("not yet").code(), Code::CoinsUnconfirmed);
    rig.mine(1).await;
    let height = rig.chain.tip().height;
    assert_eq!(rig.deposit(&client).await.state, State::Confirmed { height });
    assert_eq!(rig.spendable(&client).await, 50_000);
    let id = rig.deposits(&client).await[0].id;
    let (request, timeline) =
        history::request(&rig.flows, &client.keys.id(), id).await.expect("the store answers").expect("it is known");
    assert!(matches!(request, AnyRequest::Deposit(_)));
    let kinds: Vec<&str> = timeline.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["deposit.seen", "deposit.mined", "deposit.confirmed"]);
    rig.audit().await;
});

on_both!(three_confirmations_are_waited_for, three_confirmations(), |rig| async move {
    let client = Client::number(2);
    let address = rig.register(&client).await;
    rig.pay(&address, 50_000).await;
    for _ in 0..2 {
        rig.mine(1).await;
        assert!(matches!(rig.deposit(&client).await.state, State::Mined { .. }));
        assert_eq!(rig.spendable(&client).await, 0);
        let refused = rig.begin(&client, &stranger(), 10_000).await.expect_err("not deep enough");
        assert_eq!(refused.code(), Code::CoinsUnconfirmed);
    }
    rig.mine(1).await;
    assert!(matches!(rig.deposit(&client).await.state, State::Confirmed { .. }));
    assert_eq!(rig.spendable(&client).await, 50_000);
    rig.audit().await;
});

on_both!(a_payer_replaces_his_payment_with_another_amount, |rig| async move {
    let client = Client::number(3);
    let address = rig.register(&client).await;
    let first = rig.pay(&address, 50_000).await;
    let second = rig.chain.replace(first, &[(address.script_pubkey(), amount(40_000))]).expect("it outbids");
    rig.settle().await;
    let mut states: Vec<_> =
        rig.deposits(&client).await.into_iter().map(|d| (d.machine.amount, d.machine.state)).collect();
    states.sort_by_key(|(amount, _)| *amount);
    assert_eq!(states, [(amount(40_000), State::Seen), (amount(50_000), State::Replaced { by: second })]);
    assert_eq!(rig.balance(&client).await.future, amount(40_000));
    rig.mine(1).await;
    assert_eq!(rig.spendable(&client).await, 40_000, "paid once");
    rig.audit().await;
});

on_both!(a_payer_takes_his_payment_back, |rig| async move {
    let client = Client::number(4);
    let address = rig.register(&client).await;
    let first = rig.pay(&address, 50_000).await;
    let second = rig.chain.replace(first, &[(stranger().script_pubkey(), amount(40_000))]).expect("it outbids");
    rig.settle().await;
    assert_eq!(rig.deposit(&client).await.state, State::Replaced { by: second });
    assert_eq!(rig.balance(&client).await.future, amount(0));
    rig.mine(1).await;
    assert_eq!(rig.deposit(&client).await.state, State::Replaced { by: second });
    rig.audit().await;
});

on_both!(a_payment_is_replaced_by_a_block_that_nobody_saw_coming, |rig| async move {
    let client = Client::number(5);
    let address = rig.register(&client).await;
    let first = rig.pay(&address, 50_000).await;
    let rival = rig.chain.build_rival(first, &[(stranger().script_pubkey(), amount(1_000))]).expect("a rival");
    let by = rival.compute_txid();
    rig.mine_with(vec![rival]).await;
    assert_eq!(rig.deposit(&client).await.state, State::Replaced { by });
    rig.audit().await;
});

on_both!(a_replaced_payment_is_back_after_a_reorganisation_nobody_looked_during, |rig| async move {
    let client = Client::number(6);
    let address = rig.register(&client).await;
    let first = rig.pay(&address, 50_000).await;
    let original = rig.chain.transaction(first).expect("it waits");
    let rival = rig.chain.build_rival(first, &[(stranger().script_pubkey(), amount(1_000))]).expect("a rival");
    rig.chain.mine_with(vec![rival]).expect("a valid block");
    rig.follow().await;
    rig.chain.reorg(1, 2, sluice::chain::fake::Reorged::Gone).expect("a reorganisation");
    rig.offer(&original).await;
    assert_eq!(rig.deposit(&client).await.state, State::Seen);
    rig.mine(1).await;
    assert!(matches!(rig.deposit(&client).await.state, State::Confirmed { .. }));
    rig.audit().await;
});

on_both!(an_evicted_payment_may_come_back, |rig| async move {
    let client = Client::number(7);
    let address = rig.register(&client).await;
    let txid = rig.pay(&address, 50_000).await;
    let transaction = rig.chain.transaction(txid).expect("it waits");
    assert!(rig.chain.evict(txid));
    rig.settle().await;
    assert_eq!(rig.deposit(&client).await.state, State::Evicted);
    assert_eq!(rig.balance(&client).await.future, amount(0));
    rig.offer(&transaction).await;
    assert_eq!(rig.deposit(&client).await.state, State::Seen);
    assert_eq!(rig.balance(&client).await.future, amount(50_000));
    rig.chain.wipe_mempool();
    rig.settle().await;
    assert_eq!(rig.deposit(&client).await.state, State::Evicted);
    rig.mine_with(vec![transaction]).await;
    assert!(matches!(rig.deposit(&client).await.state, State::Confirmed { .. }), "a miner had kept it");
    assert_eq!(rig.deposits(&client).await.len(), 1);
    rig.audit().await;
});

on_both!(two_outputs_of_one_transaction_are_two_deposits, |rig| async move {
    let (client, other) = (Client::number(8), Client::number(9));
    let first = rig.register(&client).await;
    let second = rig.address(&client).await;
    let of_other = rig.register(&other).await;
    let outputs = [(&first, 1_000), (&second, 2_000), (&first, 3_000), (&of_other, 4_000)];
    let outputs: Vec<_> = outputs.iter().map(|(to, sat)| (to.script_pubkey(), amount(*sat))).collect();
    rig.chain.pay_many(&outputs).expect("the fake pays");
    rig.mine(1).await;
    let deposits = rig.deposits(&client).await;
    let amounts: HashSet<u64> = deposits.iter().map(|deposit| deposit.machine.amount.to_u64()).collect();
    assert_eq!((deposits.len(), amounts), (3, HashSet::from([1_000, 2_000, 3_000])));
    assert_eq!(rig.spendable(&client).await, 6_000);
    assert_eq!(rig.deposit(&other).await.amount, amount(4_000));
    rig.audit().await;
});

on_both!(money_to_an_expired_address_is_a_deposit, |rig| async move {
    let client = Client::number(10);
    let address = rig.register(&client).await;
    rig.wait(25 * 60 * 60).await;
    assert_eq!(address_state(&rig, &client, 0).await, "expired");
    assert_ne!(rig.current_address(&client).await, address, "an expired address is not offered");
    rig.pay_confirmed(&address, 7_000).await;
    assert!(matches!(rig.deposit(&client).await.state, State::Confirmed { .. }));
    assert_eq!(address_state(&rig, &client, 0).await, "used");
    rig.audit().await;
});

on_both!(own_money_is_never_a_deposit, |rig| async move {
    let client = Client::number(11);
    rig.funded(&client, 100_000).await;
    let own = rig.current_address(&client).await;
    let begun = rig.begin(&client, &own, 30_000).await.expect("it begins");
    rig.end(&client, &begun.psbt).await.expect("it ends");
    rig.settle().await;
    assert_eq!(rig.deposits(&client).await.len(), 1, "only what came from outside");
    assert_eq!(rig.spendable(&client).await, 100_000 - begun.fee.to_u64(), "both outputs are own");
    assert_ne!(rig.current_address(&client).await, own, "it has been paid to: it is not handed out again");
    rig.mine(1).await;
    assert_eq!(rig.deposits(&client).await.len(), 1);
    assert_eq!(rig.balance(&client).await.settled, amount(100_000 - begun.fee.to_u64()));
    rig.audit().await;
});

on_both!(a_spend_elsewhere_with_the_same_keys_is_own_too, |rig| async move {
    let client = Client::number(12);
    let address = rig.register(&client).await;
    let coin = rig.pay_confirmed(&address, 100_000).await;
    let own = rig.current_address(&client).await;
    let elsewhere = spend_elsewhere(&[coin], &own, 90_000);
    rig.offer(&elsewhere).await;
    assert_eq!(rig.deposits(&client).await.len(), 1);
    rig.mine(1).await;
    assert_eq!(rig.deposits(&client).await.len(), 1);
    assert_eq!(rig.spendable(&client).await, 90_000);
    rig.audit().await;
});

on_both!(a_send_to_another_wallet_is_his_deposit_once_the_network_has_it, |rig| async move {
    let (payer, payee) = (Client::number(13), Client::number(14));
    rig.funded(&payer, 100_000).await;
    let to = rig.register(&payee).await;
    rig.chain.refuse_broadcast(Some("not now"));
    let begun = rig.begin(&payer, &to, 40_000).await.expect("it begins");
    rig.end(&payer, &begun.psbt).await.expect("it ends");
    rig.settle().await;
    assert_eq!(rig.deposits(&payee).await.len(), 0);
    assert_eq!(rig.balance(&payee).await.future, amount(0), "a promise of another wallet is no money");
    assert!(rig.coins(&payee).await.is_empty());
    rig.chain.refuse_broadcast(None);
    rig.wait(31).await;
    assert_eq!(rig.deposit(&payee).await.state, State::Seen);
    rig.mine(1).await;
    assert_eq!(rig.spendable(&payee).await, 40_000);
    rig.audit().await;
});

on_both!(a_block_with_parent_and_child_is_read_in_any_shape, |rig| async move {
    let (first, second) = (Client::number(15), Client::number(16));
    let to_first = rig.register(&first).await;
    let to_second = rig.register(&second).await;
    let parent = rig.chain.build_payment(&[(to_first.script_pubkey(), amount(50_000))]).expect("a payment");
    let coin = OutPoint { txid: parent.compute_txid(), vout: 0 };
    let child = spend_elsewhere(&[coin], &to_second, 45_000);
    rig.mine_with(vec![parent, child]).await;
    assert!(matches!(rig.deposit(&first).await.state, State::Confirmed { .. }));
    assert_eq!(rig.balance(&first).await.settled, amount(0), "it is spent in the same block");
    assert_eq!(rig.deposit(&second).await.amount, amount(45_000));
    rig.audit().await;
});

on_both!(a_chain_of_ten_in_the_mempool_is_read_parents_first, |rig| async move {
    let client = Client::number(17);
    let address = rig.register(&client).await;
    let txid = rig.chain.pay(&address.script_pubkey(), amount(100_000)).expect("the fake pays");
    let mut coin = OutPoint { txid, vout: 0 };
    for round in 1..=10u64 {
        let next = spend_elsewhere(&[coin], &address, 100_000 - round * 1_000);
        coin = OutPoint { txid: next.compute_txid(), vout: 0 };
        use sluice::ports::chain::ChainBackend;
        rig.chain.broadcast(&next).await.expect("the fake answers");
    }
    rig.settle().await;
    assert_eq!(rig.deposits(&client).await.len(), 1, "only the first came from outside");
    assert_eq!(rig.balance(&client).await.future, amount(90_000));
    rig.mine(1).await;
    assert_eq!(rig.balance(&client).await.settled, amount(90_000));
    rig.audit().await;
});

on_both!(a_mined_coin_of_a_miner_waits_a_hundred_blocks, |rig| async move {
    let client = Client::number(18);
    let address = rig.register(&client).await;
    rig.chain.mine_to(&address.script_pubkey());
    rig.settle().await;
    assert!(matches!(rig.deposit(&client).await.state, State::Confirmed { .. }));
    assert_eq!(rig.spendable(&client).await, 0);
    rig.mine(98).await;
    assert_eq!(rig.spendable(&client).await, 0);
    assert_eq!(rig.begin(&client, &stranger(), 10_000).await.expect_err("young").code(), Code::CoinsUnconfirmed);
    rig.mine(1).await;
    assert_eq!(rig.spendable(&client).await, 5_000_000_000);
    rig.audit().await;
});

on_both!(a_mined_coin_is_gone_with_its_block, |rig| async move {
    let client = Client::number(19);
    let address = rig.register(&client).await;
    rig.chain.mine_to(&address.script_pubkey());
    rig.settle().await;
    rig.chain.reorg(1, 2, sluice::chain::fake::Reorged::MinedAgain).expect("a reorganisation");
    rig.settle().await;
    assert_eq!(rig.deposit(&client).await.state, State::Evicted, "a coinbase can't be mined again");
    assert_eq!(rig.balance(&client).await.future, amount(0));
    rig.audit().await;
});
