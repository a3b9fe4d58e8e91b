//! An invoice that is paid twice.

use std::time::Duration;

use sluice::domain::receive::{Event, Receive};
use sluice::flows::{books, effects, node};
use sluice::ports::lightning::LightningNode;

use crate::harness::lightning::sat;
use crate::harness::rig::{Advance, Client, Rig, on_both};

async fn suspense(rig: &Rig) -> i64 {
    let suspended = books::suspended(&rig.flows, None, 10).await.expect("a list");
    suspended.iter().map(|item| item.amount).sum()
}

on_both!(a_second_payment_is_not_claimed_by_an_order_that_was_meant_for_the_first, async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    let receive = rig.invoice(&client, Some(sat(5_000))).await;
    let Receive { invoice, hash, preimage, .. } = receive.machine.clone();
    rig.lightning.shop_pays(&invoice, hash, sat(5_000)).await;
    // The first is claimed, and before anybody has followed that up the second is held.
    let held = Advance::<Receive>::new(receive.id, Event::Held { amount: sat(5_000) });
    rig.flows.store().write(held).await.expect("it moves");
    rig.lightning.node.claim(hash, Some(preimage)).await.expect("it is claimed");
    rig.lightning.shop_pays(&invoice, hash, sat(5_000)).await;
    assert!(rig.lightning.node.is_holding(hash));
    rig.clock.advance(Duration::from_secs(31));
    effects::run_due(&rig.flows).await.expect("the order is given again");
    assert!(!rig.lightning.node.is_holding(hash), "it went back");
    assert_eq!(rig.lightning.node.incoming(hash).await.expect("an answer").claimed, Some(sat(5_000)));
    assert_eq!(rig.receive_state(&client, receive.id).await, "settled");
    assert_eq!(rig.available(&client).await, 5_000_000, "an invoice is paid once");
    rig.audit_exactly().await;
});

on_both!(what_a_node_claims_beyond_an_invoice_is_booked, async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    let receive = rig.invoice(&client, Some(sat(5_000))).await;
    let Receive { invoice, hash, preimage, .. } = receive.machine.clone();
    rig.lightning.shop_pays(&invoice, hash, sat(5_000)).await;
    rig.settle().await;
    let before = suspense(&rig).await;
    for round in 1..=2 {
        rig.lightning.shop_pays(&invoice, hash, sat(5_000)).await;
        rig.lightning.node.claim_anyway(hash, preimage);
        for _told in 0..2 {
            node::look_at_incoming(&rig.flows, hash).await.expect("it is looked at");
        }
        assert_eq!(rig.available(&client).await, 5_000_000, "nobody is credited with what was not asked for");
        assert_eq!(suspense(&rig).await - before, round * 5_000_000, "it waits for who decides");
        rig.audit_exactly().await;
    }
});
