//! Money that is on its way out when somebody stops payouts.

use sluice::connectors::fake::Fault;
use sluice::domain::lightning::PaymentId;
use sluice::flows::Code;
use sluice::flows::operator::{self, Stop};
use sluice::flows::values::HaltScope;
use sluice::ports::lightning::{LightningNode, Outgoing};

use crate::harness::lightning::sat;
use crate::harness::rig::{Client, Rig, on_both, stranger, unsigned};

impl Rig {
    async fn stop_payouts(&self) {
        let by = "an operator".to_owned();
        let stop = Stop { scope: HaltScope::Everybody, name: "key_leak".to_owned(), reason: "a drill".to_owned() };
        operator::halt(&self.flows, stop, by, None).await.expect("it stops");
    }

    async fn let_go_on(&self) {
        let by = "an operator".to_owned();
        operator::resume(&self.flows, "key_leak".to_owned(), None, by, None).await.expect("it goes on");
    }
}

on_both!(a_transaction_that_was_never_offered_goes_out_while_payouts_are_stopped, async |rig: Rig| {
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    let begun = rig.begin(&client, &stranger(), 30_000).await.expect("it begins");
    rig.chain.refuse_broadcast(Some("not now"));
    rig.end(&client, &begun.psbt).await.expect("it is promised");
    rig.stop_payouts().await;
    rig.chain.refuse_broadcast(None);
    rig.wait(31).await;
    rig.mine(1).await;
    // Ending it again is answered, and changes nothing.
    rig.end(&client, &begun.psbt).await.expect("it was promised");
    assert!(rig.chain.mempool_ids().is_empty(), "nothing goes out");
    assert_eq!(rig.begin(&client, &stranger(), 5_000).await.expect_err("stopped").code(), Code::PayoutsHalted);
    rig.let_go_on().await;
    rig.wait(31).await;
    assert_eq!(rig.chain.mempool_ids(), [unsigned(&begun.psbt).compute_txid()].into());
    rig.audit().await;
});

on_both!(a_transaction_that_has_left_the_mempool_is_offered_again_while_payouts_are_stopped, async |rig: Rig| {
    let client = Client::number(2);
    rig.funded(&client, 100_000).await;
    let begun = rig.sent(&client, 30_000).await;
    rig.stop_payouts().await;
    let txid = unsigned(&begun.psbt).compute_txid();
    assert!(rig.chain.evict(txid));
    rig.wait(31).await;
    assert!(rig.chain.mempool_ids().is_empty(), "nothing goes out");
    rig.let_go_on().await;
    rig.wait(31).await;
    assert_eq!(rig.chain.mempool_ids(), [txid].into());
    rig.mine(1).await;
    rig.audit().await;
});

on_both!(a_payment_is_given_to_the_node_while_payouts_are_stopped, async |rig: Rig| {
    let client = Client::number(3);
    rig.register(&client).await;
    rig.funded_offchain(&client, sat(100_000)).await;
    let (given, claimed) = rig.lightning.shop_invoice(Some(sat(5_000)));
    let given = rig.begin_pay(&client, &given, None).await.expect("it begins");
    rig.end_pay(&client, &given).await.expect("it is paid");
    let (invoice, preimage) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let begun = rig.begin_pay(&client, &invoice, None).await.expect("it begins");
    rig.lightning.node.set_fault(Fault::PaymentLost);
    rig.end_pay(&client, &begun).await.expect("it is promised");
    rig.stop_payouts().await;
    rig.lightning.node.set_fault(None);
    rig.wait(31).await;
    rig.settle().await;
    let id = PaymentId::of_request(begun.request);
    let known = rig.lightning.node.outgoing(id, preimage.hash()).await.expect("the node answers");
    assert_eq!(known, Outgoing::Nothing, "the node was given nothing");
    assert_eq!(rig.payment_state(&client, begun.request).await, "paying");
    rig.lightning.shop_claims(claimed).await;
    rig.settle().await;
    assert_eq!(rig.payment_state(&client, given.request).await, "succeeded", "what was under way ends");
    rig.let_go_on().await;
    rig.wait(31).await;
    rig.lightning.shop_claims(preimage).await;
    rig.settle().await;
    assert_eq!(rig.payment_state(&client, begun.request).await, "succeeded");
    rig.audit().await;
});
