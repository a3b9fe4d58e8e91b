//! A payer who knows an invoice's hash signs a text of his own over it, and has the books pay that one.

use sluice::domain::lightning::PaymentHash;
use sluice::flows::{Code, audit, estimate, invoice};
use sluice::money::Amount;

use crate::harness::lightning::{forged_invoice, msat, sat};
use crate::harness::rig::{Client, Rig, on_both};

const ASKED: Amount = Amount::from_sat(sluice::money::Sat::literal(40_000));

/// An invoice that a stranger's key signs over any hash.
fn forged(rig: &Rig, hash: PaymentHash, amount: Option<Amount>) -> String {
    forged_invoice(hash, amount, rig.clock.now())
}

async fn merchant_and_thief(rig: &Rig) -> (Client, Client) {
    let (merchant, thief) = (Client::number(1), Client::number(2));
    rig.register(&merchant).await;
    rig.register(&thief).await;
    rig.funded_offchain(&thief, sat(50_000)).await;
    (merchant, thief)
}

on_both!(a_merchants_invoice_is_paid_with_another_text_over_its_hash, async |rig: Rig| {
    let (merchant, thief) = merchant_and_thief(&rig).await;
    let receive = rig.invoice(&merchant, Some(ASKED)).await;
    let key = rig.spending_key(&thief, &["btc:50000/day"], None).await;
    for amount in [Some(msat(1)), Some(sat(39_999)), Some(ASKED), None] {
        let text = forged(&rig, receive.machine.hash, amount);
        let mut wanted = crate::harness::lightning::paying(&text, None);
        wanted.amount = amount.is_none().then(|| msat(1));
        let begun = sluice::flows::pay_invoice::begin(&rig.flows, &thief.keys, wanted.clone(), None).await;
        let refused = begun.expect_err("it is not the merchant's invoice");
        assert_eq!((refused.code(), refused.field_name()), (Code::InvalidInvoice, Some("invoice")), "{refused}");
        let refused = rig.pay_with(&thief, &key, wanted).await.expect_err("nor is it for a key");
        assert_eq!((refused.code(), refused.field_name()), (Code::InvalidInvoice, Some("invoice")), "{refused}");
        let refused =
            estimate::estimate(&rig.flows, "invoice", &text, Some(ASKED)).await.expect_err("nor does it cost");
        assert_eq!(refused.code(), Code::InvalidInvoice);
        assert!(!invoice::decode(&rig.flows, "input", &text).await.expect("it can be read").is_own);
    }
    rig.settle().await;
    assert_eq!(rig.receive_state(&merchant, receive.id).await, "open");
    assert_eq!(rig.lightning.node.paid().0, 0, "the node was asked to pay");
    assert_eq!((rig.available(&thief).await, rig.available(&merchant).await), (50_000_000, 0));
    // Its own text is paid, in full, however it is spelt.
    let spelt = receive.machine.invoice.to_uppercase();
    let begun = rig.begin_pay(&thief, &spelt, None).await.expect("it begins");
    rig.end_pay(&thief, &begun).await.expect("it ends");
    assert_eq!((rig.available(&thief).await, rig.available(&merchant).await), (10_000_000, 40_000_000));
    rig.audit().await;
});

// What a gateway of before has let begin is in the database when this one comes.
on_both!(a_text_that_an_older_gateway_took_is_signed_for, async |rig: Rig| {
    let (merchant, thief) = merchant_and_thief(&rig).await;
    let receive = rig.invoice(&merchant, Some(ASKED)).await;
    let begun = rig.begin_pay(&thief, &receive.machine.invoice, None).await.expect("it begins");
    let text = forged(&rig, receive.machine.hash, Some(msat(1)));
    let change = format!(
        "UPDATE requests SET data = REPLACE(data, '{}', '{text}') WHERE id = '{}'",
        receive.machine.invoice, begun.request
    );
    rig.sql(&change).await;
    let refused = rig.end_pay(&thief, &begun).await.expect_err("it is not the merchant's invoice");
    assert_eq!(refused.code(), Code::InvalidInvoice);
    assert_eq!(rig.payment_state(&thief, begun.request).await, "failed");
    assert_eq!(rig.receive_state(&merchant, receive.id).await, "open");
    assert_eq!((rig.available(&thief).await, rig.available(&merchant).await), (50_000_000, 0), "the hold is free");
    rig.audit().await;
});

on_both!(the_books_say_that_an_invoice_was_paid_with_less, async |rig: Rig| {
    let (merchant, thief) = merchant_and_thief(&rig).await;
    let receive = rig.invoice(&merchant, Some(ASKED)).await;
    let begun = rig.begin_pay(&thief, &receive.machine.invoice, None).await.expect("it begins");
    rig.end_pay(&thief, &begun).await.expect("it ends");
    let by =
        |one: i64| format!("UPDATE payments SET asked_msat = asked_msat + {one} WHERE request_id = '{}'", receive.id);
    rig.sql(&by(1)).await;
    let report = audit::audit(&rig.flows).await.expect("the audit runs");
    let rules: Vec<_> = report.drifts.iter().map(|drift| drift.rule).collect();
    assert_eq!(rules, ["what_the_books_settled_was_paid_in_full"], "{:?}", report.drifts);
    rig.sql(&by(-1)).await;
    rig.audit().await;
});
