//! Paying an invoice of this gateway: a transfer in the books, atomic and free, and never beside a payment from outside.

use futures::future::join_all;
use sluice::domain::pay::State as PayState;
use sluice::domain::receive::{Rail, State};
use sluice::flows::{Code, estimate};
use sluice::ports::lightning::PayOutcome;

use crate::harness::lightning::sat;
use crate::harness::rig::{Client, Rig, on_both};

async fn pair(rig: &Rig) -> (Client, Client) {
    let (payer, payee) = (Client::number(1), Client::number(2));
    rig.register(&payer).await;
    rig.register(&payee).await;
    rig.funded_offchain(&payer, sat(50_000)).await;
    (payer, payee)
}

on_both!(a_transfer_is_free_and_tells_both_sides, async |rig: Rig| {
    let (payer, payee) = pair(&rig).await;
    let receive = rig.invoice(&payee, Some(sat(20_000))).await;
    let fee = estimate::estimate(&rig.flows, "invoice", &receive.machine.invoice, None).await.expect("an estimate");
    assert!(fee.is_zero());
    let begun = rig.begin_pay(&payer, &receive.machine.invoice, None).await.expect("it begins");
    assert_eq!(rig.available(&payer).await, 30_000_000, "the hold is the amount");
    let ended = rig.end_pay(&payer, &begun).await.expect("it ends");
    assert!(matches!(ended.machine.state, PayState::Succeeded { by: Rail::Book, .. }));
    assert_eq!(rig.receive(&payee, receive.id).await.state, State::Settled { amount: sat(20_000), by: Rail::Book });
    assert_eq!((rig.available(&payer).await, rig.available(&payee).await), (30_000_000, 20_000_000));
    rig.audit().await;
});

on_both!(a_transfer_needs_no_node, async |rig: Rig| {
    let (payer, payee) = pair(&rig).await;
    let receive = rig.invoice(&payee, Some(sat(20_000))).await;
    rig.flows.node().leave();
    let begun = rig.begin_pay(&payer, &receive.machine.invoice, None).await.expect("it begins");
    rig.end_pay(&payer, &begun).await.expect("it ends");
    assert_eq!(rig.available(&payee).await, 20_000_000);
    rig.flows.node().arrive(rig.lightning.node.clone());
    rig.audit().await;
});

on_both!(a_wallet_does_not_pay_itself, async |rig: Rig| {
    let (payer, _) = pair(&rig).await;
    let receive = rig.invoice(&payer, Some(sat(1_000))).await;
    let refused = rig.begin_pay(&payer, &receive.machine.invoice, None).await.expect_err("it is its own");
    assert_eq!(refused.code(), Code::SelfPayment);
    rig.audit().await;
});

on_both!(who_pays_first_from_inside_or_outside_pays_alone, async |rig: Rig| {
    let (payer, payee) = pair(&rig).await;
    // From outside first: it is held and decided upon, and the transfer finds a payer at work, then a paid invoice.
    let receive = rig.invoice(&payee, Some(sat(20_000))).await;
    let begun = rig.begin_pay(&payer, &receive.machine.invoice, None).await.expect("it begins");
    rig.lightning.shop_pays(&receive.machine.invoice, receive.machine.hash, sat(20_000)).await;
    rig.settle().await;
    let lost = rig.end_pay(&payer, &begun).await.expect_err("somebody else has paid");
    assert_eq!(lost.code(), Code::AlreadyPaid);
    assert_eq!((rig.available(&payer).await, rig.available(&payee).await), (50_000_000, 20_000_000));
    // From inside first: what comes from outside goes back.
    let receive = rig.invoice(&payee, Some(sat(20_000))).await;
    let begun = rig.begin_pay(&payer, &receive.machine.invoice, None).await.expect("it begins");
    rig.end_pay(&payer, &begun).await.expect("it ends");
    let outcome = rig.lightning.shop_pays(&receive.machine.invoice, receive.machine.hash, sat(20_000)).await;
    assert_eq!(outcome, PayOutcome::Pending);
    rig.settle().await;
    assert_eq!((rig.available(&payer).await, rig.available(&payee).await), (30_000_000, 40_000_000));
    rig.audit().await;
});

on_both!(a_race_from_inside_and_outside_credits_each_payment_once, async |rig: Rig| {
    let (payer, payee) = pair(&rig).await;
    for round in 0..6 {
        let receive = rig.invoice(&payee, Some(sat(1_000))).await;
        let begun = rig.begin_pay(&payer, &receive.machine.invoice, None).await.expect("it begins");
        let signed = payer.sign(&begun.psbt);
        let before = (rig.available(&payee).await, rig.offchain(&payer).await.total.base_units());
        let outside = async {
            rig.lightning.shop_pays(&receive.machine.invoice, receive.machine.hash, sat(1_000)).await;
            rig.follow_node().await;
        };
        let inside = rig.end_pay_signed(&payer, &signed);
        let (ended, ()) = if round % 2 == 0 {
            tokio::join!(inside, outside)
        } else {
            let ((), ended) = tokio::join!(outside, inside);
            (ended, ())
        };
        rig.settle().await;
        let after = (rig.available(&payee).await, rig.offchain(&payer).await.total.base_units());
        assert_eq!(after.0 - before.0, 1_000_000, "credited once");
        let paid_inside = before.1 - after.1;
        assert_eq!(paid_inside, if ended.is_ok() { 1_000_000 } else { 0 }, "{ended:?}");
        rig.wait(3_600).await;
    }
    rig.audit().await;
});

on_both!(sixty_four_payers_of_one_balance_are_one_payment, async |rig: Rig| {
    let (payer, payee) = (Client::number(1), Client::number(2));
    rig.register(&payer).await;
    rig.register(&payee).await;
    rig.funded_offchain(&payer, sat(1_000)).await;
    let mut invoices = Vec::new();
    for _ in 0..64 {
        invoices.push(rig.invoice(&payee, Some(sat(1_000))).await.machine.invoice);
    }
    let begun = join_all(invoices.iter().map(|invoice| rig.begin_pay(&payer, invoice, None))).await;
    let begun: Vec<_> = begun.into_iter().filter_map(Result::ok).collect();
    assert_eq!(begun.len(), 1);
    let ended = join_all((0..64).map(|_| rig.end_pay(&payer, &begun[0]))).await;
    assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    assert_eq!((rig.available(&payer).await, rig.available(&payee).await), (0, 1_000_000));
    rig.audit().await;
});
