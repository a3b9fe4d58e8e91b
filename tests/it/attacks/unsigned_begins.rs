//! Somebody begins to pay what others have to pay, and never signs.

use futures::future::join_all;
use sluice::flows::Code;
use sluice::ports::lightning::LightningNode;

use crate::harness::lightning::sat;
use crate::harness::rig::{Client, Rig, on_both};

async fn rich(rig: &Rig, number: u32) -> Client {
    let client = Client::number(number);
    rig.register(&client).await;
    rig.funded_offchain(&client, sat(100_000)).await;
    client
}

on_both!(a_begin_that_is_never_signed_keeps_an_invoice_from_its_payers, async |rig: Rig| {
    let (squatter, payer) = (rich(&rig, 1).await, rich(&rig, 2).await);
    let key = rig.spending_key(&payer, &["btc:50000/day"], None).await;
    let (first, one) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let (second, two) = rig.lightning.shop_invoice(Some(sat(10_000)));
    for invoice in [&first, &first, &second] {
        rig.begin_pay(&squatter, invoice, Some(sat(0))).await.expect("it begins");
    }
    let begun = rig.begin_pay(&payer, &first, None).await.expect("it begins all the same");
    rig.begin_pay(&payer, &first, None).await.expect("and again, by the same wallet");
    rig.end_pay(&payer, &begun).await.expect("it ends");
    rig.key_pays(&payer, &key, &second, Some(sat(0))).await.expect("and a key pays");
    rig.lightning.shop_claims(one).await;
    rig.lightning.shop_claims(two).await;
    rig.settle().await;
    assert_eq!(rig.payment_state(&payer, begun.request).await, "succeeded");
    rig.wait(3_600).await;
    assert_eq!((rig.available(&squatter).await, rig.available(&payer).await), (100_000_000, 80_000_000));
    rig.audit().await;
});

on_both!(one_invoice_is_consented_to_by_many_at_once, async |rig: Rig| {
    let (one, other) = (rich(&rig, 1).await, rich(&rig, 2).await);
    let (invoice, preimage) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let mut begun = Vec::new();
    for payer in [&one, &other, &one, &other] {
        begun.push((payer, rig.begin_pay(payer, &invoice, None).await.expect("it begins")));
    }
    let ended = join_all(begun.iter().map(|(payer, begun)| rig.end_pay(payer, begun))).await;
    assert_eq!(ended.iter().filter(|ended| ended.is_ok()).count(), 1, "{ended:?}");
    for refused in ended.iter().filter_map(|ended| ended.as_ref().err()) {
        assert_eq!(refused.code(), Code::PaymentInProgress);
        assert!(!refused.to_string().contains("wallet"), "it tells about others: {refused}");
    }
    let won = ended.iter().position(Result::is_ok).expect("one is paid");
    // The first one comes to nothing: whoever consents next is next.
    rig.lightning.shop.fail(preimage.hash()).await.expect("the shop gives it back");
    rig.settle().await;
    let next = (won + 1) % begun.len();
    rig.end_pay(begun[next].0, &begun[next].1).await.expect("the consent of before is still good");
    rig.lightning.shop_claims(preimage).await;
    rig.settle().await;
    assert_eq!(rig.payment_state(begun[next].0, begun[next].1.request).await, "succeeded");
    let late = (won + 2) % begun.len();
    let refused = rig.end_pay(begun[late].0, &begun[late].1).await.expect_err("it is paid");
    assert_eq!(refused.code(), Code::AlreadyPaid);
    assert_eq!(rig.payment_state(begun[late].0, begun[late].1.request).await, "failed", "its hold is free at once");
    let refused = rig.begin_pay(&other, &invoice, None).await.expect_err("it is paid");
    assert_eq!(refused.code(), Code::AlreadyPaid);
    rig.wait(3_600).await;
    assert_eq!(rig.available(&one).await + rig.available(&other).await, 190_000_000, "paid once");
    rig.audit().await;
});
