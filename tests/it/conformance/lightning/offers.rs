//! Offers, made here and made elsewhere.

use sluice::money::Amount;
use sluice::ports::lightning::{
    ClaimOutcome, Destination, Fetched, NewOffer, Paid, PayFailure, PayOutcome, Payment, PaymentHash,
};

use super::{AMOUNT, ANY_FEE, EXPIRES_IN, Sent, World, end_of, fresh_id, minus, msat, plus};
use crate::harness::peer::eventually;

async fn offer(w: &World, amount: Option<Amount>) -> String {
    let new = NewOffer { amount, description: "an offer".to_owned(), expires_in: Some(EXPIRES_IN) };
    w.node().create_offer(&new).await.unwrap()
}

/// The hash of the one payment that is held.
async fn the_one_held(w: &World) -> PaymentHash {
    eventually("something is held", async || w.node().held().await.unwrap().first().copied()).await
}

pub async fn an_offer_is_paid_and_held_and_claimed_without_its_preimage(w: &World) {
    let (before, _) = w.money().await;
    let offer = offer(w, Some(AMOUNT)).await;
    // Both times it is another hash, and the same offer.
    for claims in [true, false] {
        let sent = w.near().pay_offer(&offer, None).await;
        let hash = the_one_held(w).await;
        let held = w.held(hash).await;
        assert_eq!((held.amount, held.offer), (AMOUNT, Some(offer.clone())));
        if claims {
            assert_eq!(w.node().claim(hash, None).await, Ok(ClaimOutcome::Claiming));
            assert_eq!(w.claimed(hash).await, AMOUNT);
            assert!(matches!(end_of(w.near(), &sent).await, Sent::Arrived { .. }));
        } else {
            w.node().fail(hash).await.unwrap();
            assert_eq!(end_of(w.near(), &sent).await, Sent::Failed);
        }
        w.nothing_is_held(hash).await;
    }
    w.has(plus(before, AMOUNT)).await;
}

pub async fn an_offer_without_an_amount_takes_what_comes(w: &World) {
    let (before, _) = w.money().await;
    let offer = offer(w, None).await;
    let sent = w.near().pay_offer(&offer, Some(msat(1_234_567))).await;
    let hash = the_one_held(w).await;
    assert_eq!(w.held(hash).await.amount, msat(1_234_567));
    w.node().claim(hash, None).await.unwrap();
    assert!(matches!(end_of(w.near(), &sent).await, Sent::Arrived { .. }));
    assert_eq!(w.claimed(hash).await, msat(1_234_567));
    w.has(plus(before, msat(1_234_567))).await;
}

async fn pay_offer(w: &World, offer: &str, asked: Option<Amount>, due: Amount) {
    let (before, _) = w.money().await;
    let fetched = w.node().fetch_invoice(offer, asked, Some("a note")).await.unwrap();
    let Fetched::Invoice { invoice, hash, amount, expires_in } = fetched else { panic!("{fetched:?}") };
    assert_eq!(amount, due);
    assert!(!expires_in.is_zero());
    let destination = Destination::Bolt12(invoice);
    let payment = Payment { id: fresh_id(), hash, destination, amount, max_fee: ANY_FEE };
    let unlike = Payment { id: fresh_id(), amount: minus(amount, msat(1)), ..payment.clone() };
    assert_eq!(w.pay(&unlike).await, PayOutcome::Failed(PayFailure::NotPayable));
    let outcome = w.pay(&payment).await;
    let PayOutcome::Succeeded(Paid { preimage, fee }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(preimage.hash(), hash);
    assert_eq!(w.node().pay(&payment).await, outcome);
    w.has(minus(before, plus(due, fee))).await;
}

pub async fn an_invoice_is_fetched_for_an_offer_and_paid(w: &World) {
    let offer = w.near().offer(Some(AMOUNT)).await;
    pay_offer(w, &offer, None, AMOUNT).await;
}

pub async fn the_amount_is_said_where_the_offer_says_none(w: &World) {
    let offer = w.near().offer(None).await;
    pay_offer(w, &offer, Some(msat(1_234_567)), msat(1_234_567)).await;
}
