//! A transaction that is displaced, comes back to be offered, and is taken by nobody: what it pays stands as it does.

use sluice::domain::credit::{Credit, State as CreditState};
use sluice::domain::deposit::State as DepositState;
use sluice::flows::settle::{self, BeginSettle};
use sluice::money::Sat;
use sluice::store::{credits, requests};

use crate::harness::rig::{Client, Rig, inputs_of, on_both, spend_elsewhere, stranger, unsigned};

on_both!(a_settlement_that_is_displaced_and_refused_when_it_comes_back, async |rig: Rig| {
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    let wanted =
        BeginSettle { amount: Some(Sat::literal(40_000)), fee_rate: 2, expires_in_seconds: None, reference: None };
    let begun = settle::begin(&rig.flows, &client.keys, wanted, None).await.expect("it begins");
    settle::end(&rig.flows, &client.keys.id(), &client.sign(&begun.psbt)).await.expect("it ends");
    rig.settle().await;
    let thief = spend_elsewhere(&inputs_of(&unsigned(&begun.psbt)), &stranger(), 90_000);
    rig.offer(&thief).await;
    let state = async || {
        let mut conn = rig.flows.store().read().await.expect("a connection");
        let txid = unsigned(&begun.psbt).compute_txid();
        let ids = credits::of_transaction(&mut conn, txid).await.expect("the store answers");
        requests::load::<Credit>(&mut conn, ids[0]).await.expect("it reads").expect("it is there").machine.state
    };
    assert_eq!(state().await, CreditState::Replaced { by: thief.compute_txid() });
    rig.chain.refuse_broadcast(Some("min relay fee not met"));
    rig.chain.evict(thief.compute_txid());
    rig.settle().await;
    assert_eq!(state().await, CreditState::Seen);
    rig.audit().await;
    rig.chain.refuse_broadcast(None);
    rig.wait(31).await;
    rig.mine(1).await;
    assert!(matches!(state().await, CreditState::Credited { .. }));
    rig.audit().await;
});

on_both!(a_send_to_a_neighbour_that_is_displaced_and_refused_when_it_comes_back, async |rig: Rig| {
    let (payer, payee) = (Client::number(1), Client::number(2));
    rig.funded(&payer, 100_000).await;
    let to = rig.register(&payee).await;
    let begun = rig.begin(&payer, &to, 30_000).await.expect("it begins");
    rig.end(&payer, &begun.psbt).await.expect("it ends");
    rig.settle().await;
    let thief = spend_elsewhere(&inputs_of(&unsigned(&begun.psbt)), &stranger(), 90_000);
    rig.offer(&thief).await;
    assert_eq!(rig.deposit(&payee).await.state, DepositState::Replaced { by: thief.compute_txid() });
    rig.chain.refuse_broadcast(Some("min relay fee not met"));
    rig.chain.evict(thief.compute_txid());
    rig.settle().await;
    assert_eq!(rig.deposit(&payee).await.state, DepositState::Seen);
    rig.audit().await;
});
