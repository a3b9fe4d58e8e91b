//! What a halt of one wallet stops, and that it stops nobody else.

use sluice::domain::onchain_send::State;
use sluice::flows::operator::{self, Stop};
use sluice::flows::values::HaltScope;
use sluice::flows::{Code, Error};

use crate::harness::lightning::sat;
use crate::harness::rig::{Client, Rig, on_both, stranger};

async fn stop(rig: &Rig, client: &Client) {
    let stop = Stop {
        scope: HaltScope::Wallet(client.keys.id()),
        name: "operator".to_owned(),
        reason: "ticket 9: its owner has lost a key".to_owned(),
    };
    for _twice_is_once in 0..2 {
        operator::halt(&rig.flows, stop.clone(), "key".to_owned(), None).await.expect("it is raised");
    }
    assert_eq!(operator::halts(&rig.flows).await.expect("a list").len(), 1);
}

async fn let_go_on(rig: &Rig) {
    operator::resume(&rig.flows, "operator".to_owned(), None, "key".to_owned(), None).await.expect("it is cleared");
}

fn is_halted<T>(answer: Result<T, Error>) -> bool {
    answer.err().is_some_and(|error| error.code() == Code::PayoutsHalted)
}

on_both!(a_thief_of_a_wallet_gets_nothing_more_out_once_it_is_stopped, async |rig: Rig| {
    let (robbed, other) = (Client::number(1), Client::number(2));
    for client in [&robbed, &other] {
        rig.funded_with(client, &[100_000, 100_000]).await;
        rig.funded_offchain(client, sat(20_000)).await;
    }
    let sent = rig.begin(&robbed, &stranger(), 10_000).await.expect("it begins");
    rig.end(&robbed, &sent.psbt).await.expect("it ends");
    let begun = rig.begin(&robbed, &stranger(), 10_000).await.expect("it begins");
    let bumped = rig.bump(&robbed, sent.request, 10, false).await.expect("a bump begins");
    let invoice = rig.lightning.shop_invoice(Some(sat(1_000))).0;
    let paying = rig.begin_pay(&robbed, &invoice, None).await.expect("it begins");
    stop(&rig, &robbed).await;

    assert!(is_halted(rig.end(&robbed, &begun.psbt).await), "an end");
    assert!(is_halted(rig.begin(&robbed, &stranger(), 10_000).await), "a begin");
    assert!(is_halted(rig.bump(&robbed, sent.request, 20, false).await), "a bump");
    assert!(is_halted(rig.end_bump(&robbed, &bumped).await), "the end of a bump");
    assert!(is_halted(rig.end_pay(&robbed, &paying).await), "the end of a payment");
    assert!(
        is_halted(rig.begin_pay(&robbed, &rig.lightning.shop_invoice(Some(sat(1_000))).0, None).await),
        "a payment"
    );
    rig.sent(&other, 10_000).await;
    let paid = rig.begin_pay(&other, &rig.lightning.shop_invoice(Some(sat(1_000))).0, None).await;
    rig.end_pay(&other, &paid.expect("nobody has stopped it")).await.expect("it pays");

    let_go_on(&rig).await;
    rig.end(&robbed, &begun.psbt).await.expect("it ends now");
    rig.mine(3).await;
    rig.audit().await;
});

on_both!(what_was_signed_and_has_not_gone_out_waits_while_its_wallet_is_stopped, async |rig: Rig| {
    let robbed = Client::number(1);
    rig.funded(&robbed, 100_000).await;
    rig.funded_offchain(&robbed, sat(20_000)).await;
    let begun = rig.begin(&robbed, &stranger(), 10_000).await.expect("it begins");
    rig.chain.refuse_broadcast(Some("full"));
    rig.end(&robbed, &begun.psbt).await.expect("it is signed, and nobody takes it");
    let txid = robbed.signed_tx(&begun.psbt).compute_txid();
    rig.lightning.node.set_fault(sluice::connectors::fake::Fault::PaymentLost);
    let (invoice, preimage) = rig.lightning.shop_invoice(Some(sat(1_000)));
    let paying = rig.begin_pay(&robbed, &invoice, None).await.expect("it begins");
    let paid = rig.end_pay(&robbed, &paying).await.expect("it is consented to, and never reached the node");
    rig.lightning.node.set_fault(None);
    assert_eq!(rig.lightning.node.paid().0, 0);
    rig.chain.refuse_broadcast(None);

    stop(&rig, &robbed).await;
    rig.wait(60).await;
    assert!(!rig.chain.mempool_ids().contains(&txid), "it has gone out");
    assert_eq!(rig.lightning.node.paid().0, 0, "the node has been given a payment");
    assert!(matches!(rig.state(&robbed, begun.request).await, State::Broadcast { .. }));
    rig.end(&robbed, &begun.psbt).await.expect("the same again is only answered");
    assert!(!rig.chain.mempool_ids().contains(&txid), "asking again has sent it out");
    rig.audit().await;

    let_go_on(&rig).await;
    rig.wait(60).await;
    assert!(rig.chain.mempool_ids().contains(&txid), "it goes out now");
    assert_eq!(rig.lightning.node.paid().0, 1);
    rig.lightning.shop_claims(preimage).await;
    rig.mine(1).await;
    assert_eq!(rig.payment_state(&robbed, paid.id).await, "succeeded");
    rig.audit().await;
});
