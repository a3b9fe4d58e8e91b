//! Receiving over Lightning: what arrives is credited once, exactly, and only for who is to have it.

use sluice::domain::receive::{Event, Receive};
use sluice::domain::receive::{Rail, State};
use sluice::flows::invoice::{self, WantedInvoice};
use sluice::flows::{Code, node};
use sluice::ports::lightning::{LightningNode, PayOutcome};

use crate::harness::lightning::{msat, sat};
use crate::harness::rig::{Client, Rig, on_both};

on_both!(an_invoice_is_paid_and_credited_once, async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    let receive = rig.invoice(&client, Some(sat(5_000))).await;
    assert_eq!(receive.machine.payment_state(), "open");
    assert_eq!(rig.available(&client).await, 0);
    let paid = rig.lightning.shop_pays(&receive.machine.invoice, receive.machine.hash, sat(5_000)).await;
    assert_eq!(paid, PayOutcome::Pending, "it is held until the gateway has decided");
    rig.settle().await;
    let settled = State::Settled { amount: sat(5_000), by: Rail::Channel };
    assert_eq!(rig.receive(&client, receive.id).await.state, settled);
    assert_eq!(rig.available(&client).await, 5_000_000);
    // The same hints again, and everything looked up once more.
    for _ in 0..3 {
        node::look_at_incoming(&rig.flows, receive.machine.hash).await.expect("it looks");
        rig.settle().await;
    }
    assert_eq!(rig.available(&client).await, 5_000_000);
    rig.audit().await;
});

on_both!(the_amount_that_arrived_is_what_is_credited, async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    let open = rig.invoice(&client, None).await;
    rig.lightning.shop_pays(&open.machine.invoice, open.machine.hash, msat(1_234_567)).await;
    rig.settle().await;
    assert_eq!(rig.available(&client).await, 1_234_567);
    rig.audit().await;
});

on_both!(a_second_payment_goes_back, async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    let receive = rig.invoice(&client, Some(sat(5_000))).await;
    let (invoice, hash) = (receive.machine.invoice.clone(), receive.machine.hash);
    rig.lightning.shop_pays(&invoice, hash, sat(5_000)).await;
    rig.settle().await;
    rig.lightning.shop_pays(&invoice, hash, sat(5_000)).await;
    rig.settle().await;
    assert_eq!(rig.available(&client).await, 5_000_000, "credited once");
    assert_eq!(rig.lightning.node.incoming(hash).await.expect("an answer").held, None, "the second went back");
    rig.audit().await;
});

on_both!(late_money_that_can_still_be_claimed_is_credited, async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    let receive = rig.invoice(&client, Some(sat(5_000))).await;
    // It arrives in time; the gateway hears of it only after the invoice has expired.
    rig.lightning.shop_pays(&receive.machine.invoice, receive.machine.hash, sat(5_000)).await;
    rig.flows.node().leave();
    rig.wait(3_600).await;
    assert_eq!(rig.receive_state(&client, receive.id).await, "expired");
    rig.flows.node().arrive(rig.lightning.node.clone());
    rig.settle().await;
    assert_eq!(rig.receive_state(&client, receive.id).await, "settled");
    assert_eq!(rig.available(&client).await, 5_000_000);
    rig.audit().await;
});

on_both!(a_payment_for_no_invoice_of_ours_goes_back, async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    let preimage = sluice::domain::lightning::Preimage::fresh();
    let description = sluice::ports::lightning::Description::Text(String::new());
    let wanted = sluice::ports::lightning::NewInvoice {
        hash: preimage.hash(),
        amount: Some(sat(100)),
        description,
        expires_in: std::time::Duration::from_secs(600),
    };
    let invoice = rig.lightning.node.create_invoice(&wanted).await.expect("the node makes one behind our back");
    rig.lightning.shop_pays(&invoice, preimage.hash(), sat(100)).await;
    rig.settle().await;
    assert_eq!(rig.lightning.node.held().await.expect("an answer"), []);
    assert_eq!(rig.available(&client).await, 0);
    rig.audit().await;
});

on_both!(a_missed_claim_goes_back_to_open_and_can_be_paid_again, async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    let receive = rig.invoice(&client, Some(sat(5_000))).await;
    let (invoice, hash) = (receive.machine.invoice.clone(), receive.machine.hash);
    rig.lightning.shop_pays(&invoice, hash, sat(5_000)).await;
    // Decided to claim, and then the node was away until the time to claim was over.
    rig.flows
        .store()
        .write(crate::harness::rig::Advance::<Receive>::new(receive.id, Event::Held { amount: sat(5_000) }))
        .await
        .expect("it moves");
    rig.flows.node().leave();
    rig.lightning.network.mine(500);
    rig.flows.node().arrive(rig.lightning.node.clone());
    rig.settle().await;
    assert_eq!(rig.receive_state(&client, receive.id).await, "open");
    rig.lightning.shop_pays(&invoice, hash, sat(5_000)).await;
    rig.settle().await;
    assert_eq!(rig.receive_state(&client, receive.id).await, "settled");
    assert_eq!(rig.available(&client).await, 5_000_000);
    rig.audit().await;
});

on_both!(bad_terms_are_refused_and_named, async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    let cases = [
        (WantedInvoice { amount: Some(sat(0)), ..WantedInvoice::default() }, "amount_sats"),
        (WantedInvoice { description: Some("x".repeat(640)), ..WantedInvoice::default() }, "description"),
        (WantedInvoice { expiry_seconds: Some(0), ..WantedInvoice::default() }, "expiry_seconds"),
        (WantedInvoice { expiry_seconds: Some(u64::MAX), ..WantedInvoice::default() }, "expiry_seconds"),
    ];
    for (wanted, field) in cases {
        let refused = invoice::create(&rig.flows, &client.keys, wanted, None).await.expect_err("it is refused");
        assert_eq!((refused.code(), refused.field_name()), (Code::InvalidRequest, Some(field)));
    }
    rig.audit().await;
});
