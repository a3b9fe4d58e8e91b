//! A payment of a wallet to itself that looks like one from outside, because the coin that it spends is found later.

use bitcoin::OutPoint;
use sluice::domain::deposit::State;
use sluice::flows::{history, register};
use sluice::ports::chain::ChainBackend;
use sluice::store::requests::AnyRequest;

use crate::harness::rig::{Client, Rig, amount, on_both, parse_address, spend_elsewhere};

/// The deposit is its own now, whatever happens to its transaction, and nobody's payouts are stopped.
async fn is_own(rig: &Rig, client: &Client) {
    assert_eq!(rig.deposit(client).await.state, State::Own);
    let id = rig.deposits(client).await[0].id;
    let found = history::request(&rig.flows, &client.keys.id(), id).await.expect("the store answers");
    let (request, timeline) = found.expect("it is known");
    assert!(matches!(request, AnyRequest::Deposit(_)));
    assert_eq!(timeline.last().map(|event| event.kind.as_str()), Some("deposit.own"));
    rig.audit().await;
}

on_both!(an_old_coin_that_is_spent_to_an_address_while_its_wallet_is_searched, async |rig: Rig| {
    let client = Client::number(1);
    let (old, _) = rig.chain.fund_confirmed(&client.address_at(3).script_pubkey(), amount(50_000)).expect("it pays");
    // Read by the follower while nobody watches it.
    rig.follow().await;
    let registered = register::register(&rig.flows, &client.keys, None).await.expect("it registers");
    rig.follow().await;
    let to_itself = spend_elsewhere(&[old], &parse_address(&registered.address), 49_000);
    rig.chain.broadcast(&to_itself).await.expect("the chain answers");
    rig.follow().await;
    assert_eq!(rig.deposit(&client).await.state, State::Seen, "nobody knows whose coin it spends");
    rig.settle().await;
    is_own(&rig, &client).await;
    rig.mine(6).await;
    is_own(&rig, &client).await;
    assert_eq!(rig.spendable(&client).await, 49_000);
});

on_both!(a_coin_beyond_what_is_watched_that_comes_into_sight_by_another_payment, async |rig: Rig| {
    let client = Client::number(1);
    let address = rig.register(&client).await;
    let beyond = rig.pay(&client.address_at(200), 50_000).await;
    let to_itself = spend_elsewhere(&[OutPoint { txid: beyond, vout: 0 }], &address, 49_000);
    rig.offer(&to_itself).await;
    assert_eq!(rig.deposit(&client).await.state, State::Seen);
    rig.pay(&client.address_at(145), 1_000).await;
    is_own(&rig, &client).await;
    rig.chain.evict(to_itself.compute_txid());
    rig.settle().await;
    is_own(&rig, &client).await;
    rig.chain.broadcast(&to_itself).await.expect("the chain answers");
    rig.mine(6).await;
    is_own(&rig, &client).await;
});
