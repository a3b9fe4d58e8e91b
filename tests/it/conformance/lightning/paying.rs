//! Payments of invoices, and without.

use std::time::Duration;

use lightning_invoice::Currency;
use sluice::money::Amount;
use sluice::ports::lightning::{
    Destination, NodeEvent, Outgoing, Paid, PayFailure, PayOutcome, Payment, Preimage, Quote,
};

use super::{AMOUNT, ANY_FEE, EXPIRES_IN, World, fresh_id, invoice_of_nobody, minus, msat, payment, plus};
use crate::harness::peer::{eventually, stays};

const A_WHILE: Duration = Duration::from_millis(300);

/// What was paid, and for which fee.
fn fee_of(outcome: &PayOutcome) -> Amount {
    let PayOutcome::Succeeded(Paid { fee, .. }) = outcome else { panic!("not paid: {outcome:?}") };
    *fee
}

async fn quote(w: &World, invoice: &str) -> Amount {
    let quote = w.node().quote(&Destination::Bolt11(invoice.to_owned()), AMOUNT).await.unwrap();
    let Quote::Fee(fee) = quote else { panic!("{quote:?}") };
    fee
}

pub async fn a_payment_ends_with_its_preimage_and_its_fee(w: &World) {
    let (before, _) = w.money().await;
    let invoice = w.near().invoice(Some(AMOUNT)).await;
    let payment = payment(&invoice, AMOUNT);
    let outcome = w.pay(&payment).await;
    let PayOutcome::Succeeded(Paid { preimage, fee }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((preimage.hash(), fee), (payment.hash, Amount::ZERO), "nobody is between them");
    w.has(minus(before, AMOUNT)).await;
}

pub async fn the_payer_says_how_much_where_the_invoice_does_not(w: &World) {
    let (before, _) = w.money().await;
    let invoice = w.near().invoice(None).await;
    assert_eq!(fee_of(&w.pay(&payment(&invoice, msat(1_234_567))).await), Amount::ZERO);
    w.has(minus(before, msat(1_234_567))).await;
}

pub async fn the_same_id_is_one_payment(w: &World) {
    let (before, _) = w.money().await;
    let invoice = w.near().invoice(None).await;
    let payment = payment(&invoice, AMOUNT);
    let at_once = futures::future::join_all((0..4).map(|_| async { w.node().pay(&payment).await })).await;
    let is_taken = |ordered: &PayOutcome| matches!(ordered, PayOutcome::Pending | PayOutcome::Succeeded(_));
    // Of those who ask while one is being answered, some may not be told.
    assert!(at_once.iter().any(is_taken), "{at_once:?}");
    assert!(!at_once.iter().any(|ordered| matches!(ordered, PayOutcome::Failed(_))), "{at_once:?}");
    let outcome = w.outcome(&payment).await;
    assert_eq!(fee_of(&outcome), Amount::ZERO);
    assert_eq!(w.node().pay(&payment).await, outcome);
    w.rig.restart().await;
    assert_eq!(w.node().pay(&payment).await, outcome);
    assert_eq!(w.standing(&payment).await, outcome);
    let after = minus(before, AMOUNT);
    w.has(after).await;
    stays("it was paid once", A_WHILE, async || w.money().await == (after, Amount::ZERO)).await;
}

pub async fn other_ids_are_other_payments(w: &World) {
    let (before, _) = w.money().await;
    for _ in 0..2 {
        let invoice = w.near().invoice(Some(AMOUNT)).await;
        fee_of(&w.pay(&payment(&invoice, AMOUNT)).await);
    }
    w.has(minus(before, plus(AMOUNT, AMOUNT))).await;
}

pub async fn a_failed_payment_stays_failed(w: &World) {
    let preimage = Preimage::fresh();
    let invoice = w.near().hold_invoice(Some(AMOUNT), preimage.hash()).await;
    let payment = payment(&invoice, AMOUNT);
    w.node().pay(&payment).await;
    eventually("the payee has it", async || w.near().holds(payment.hash).await.then_some(())).await;
    w.near().fail(payment.hash).await;
    let failed = w.outcome(&payment).await;
    assert_eq!(failed, PayOutcome::Failed(PayFailure::Rejected));
    assert_eq!(w.node().pay(&payment).await, failed);
    w.rig.restart().await;
    assert_eq!(w.node().pay(&payment).await, failed);
    assert_eq!(w.standing(&payment).await, failed);
    assert!(!w.near().holds(payment.hash).await, "it was not sent again");
}

pub async fn nobody_reaches_a_stranger(w: &World) {
    let (before, _) = w.money().await;
    let invoice = invoice_of_nobody(Currency::Regtest, Duration::ZERO);
    assert_eq!(w.pay(&payment(&invoice, AMOUNT)).await, PayOutcome::Failed(PayFailure::NoLiquidity));
    let quote = w.node().quote(&Destination::Bolt11(invoice), AMOUNT).await.unwrap();
    assert!(matches!(quote, Quote::NoRoute { .. }), "{quote:?}");
    w.has(before).await;
}

pub async fn more_than_there_is_is_not_sent(w: &World) {
    let balance = w.node().balance().await.unwrap();
    let too_much = plus(balance.can_send, msat(1_000));
    let invoice = w.near().invoice(None).await;
    assert_eq!(w.pay(&payment(&invoice, too_much)).await, PayOutcome::Failed(PayFailure::NoLiquidity));
    let quote = w.node().quote(&Destination::Bolt11(invoice), too_much).await.unwrap();
    assert!(matches!(quote, Quote::NoRoute { .. }), "{quote:?}");
    w.has(balance.channels).await;
}

pub async fn what_can_not_be_paid_is_refused_for_good(w: &World) {
    let (before, _) = w.money().await;
    let expired = invoice_of_nobody(Currency::Regtest, EXPIRES_IN + Duration::from_secs(60));
    assert_eq!(w.pay(&payment(&expired, AMOUNT)).await, PayOutcome::Failed(PayFailure::InvoiceExpired));
    let of_mainnet = invoice_of_nobody(Currency::Bitcoin, Duration::ZERO);
    assert_eq!(w.pay(&payment(&of_mainnet, AMOUNT)).await, PayOutcome::Failed(PayFailure::NotPayable));
    let good = w.near().invoice(Some(AMOUNT)).await;
    let unlike = [
        Payment { destination: Destination::Bolt11("lnbcrt1nonsense".to_owned()), ..payment(&good, AMOUNT) },
        Payment { destination: Destination::Bolt12("00".to_owned()), ..payment(&good, AMOUNT) },
        Payment { hash: Preimage::fresh().hash(), ..payment(&good, AMOUNT) },
        Payment { amount: minus(AMOUNT, msat(1)), ..payment(&good, AMOUNT) },
    ];
    for payment in unlike {
        assert_eq!(w.pay(&payment).await, PayOutcome::Failed(PayFailure::NotPayable), "{payment:?}");
    }
    w.has(before).await;
}

pub async fn the_fee_is_what_was_quoted(w: &World) {
    let (before, _) = w.money().await;
    let near = w.near().invoice(Some(AMOUNT)).await;
    assert_eq!(quote(w, &near).await, Amount::ZERO);
    let invoice = w.far().invoice(Some(AMOUNT)).await;
    let fee = quote(w, &invoice).await;
    assert!(!fee.is_zero(), "the one between them takes something");
    assert_eq!(fee_of(&w.pay(&payment(&invoice, AMOUNT)).await), fee);
    w.has(minus(before, plus(AMOUNT, fee))).await;
}

pub async fn the_ceiling_is_kept_to_the_last_unit(w: &World) {
    let (before, _) = w.money().await;
    let invoice = w.far().invoice(Some(AMOUNT)).await;
    let fee = quote(w, &invoice).await;
    for too_low in [minus(fee, msat(1)), Amount::ZERO] {
        let payment = Payment { max_fee: too_low, ..payment(&invoice, AMOUNT) };
        assert_eq!(w.pay(&payment).await, PayOutcome::Failed(PayFailure::FeeTooHigh), "{too_low} of {fee}");
    }
    w.has(before).await;
    let enough = Payment { max_fee: fee, ..payment(&invoice, AMOUNT) };
    assert_eq!(fee_of(&w.pay(&enough).await), fee);
    let near = w.near().invoice(Some(AMOUNT)).await;
    let nothing = Payment { max_fee: Amount::ZERO, ..payment(&near, AMOUNT) };
    assert_eq!(fee_of(&w.pay(&nothing).await), Amount::ZERO);
    w.has(minus(before, plus(fee, plus(AMOUNT, AMOUNT)))).await;
}

pub async fn a_payee_that_does_not_want_it(w: &World) {
    let (before, _) = w.money().await;
    for payee in [w.near(), w.far()] {
        let preimage = Preimage::fresh();
        let invoice = payee.hold_invoice(Some(AMOUNT), preimage.hash()).await;
        let payment = payment(&invoice, AMOUNT);
        w.node().pay(&payment).await;
        eventually("the payee has it", async || payee.holds(payment.hash).await.then_some(())).await;
        payee.fail(payment.hash).await;
        assert_eq!(w.outcome(&payment).await, PayOutcome::Failed(PayFailure::Rejected));
    }
    w.has(before).await;
}

pub async fn a_payee_that_takes_its_time(w: &World) {
    let (before, _) = w.money().await;
    let preimage = Preimage::fresh();
    let invoice = w.near().hold_invoice(Some(AMOUNT), preimage.hash()).await;
    let payment = payment(&invoice, AMOUNT);
    assert_eq!(w.node().pay(&payment).await, PayOutcome::Pending);
    eventually("the payee has it", async || w.near().holds(payment.hash).await.then_some(())).await;
    stays("it is on its way", A_WHILE, async || w.standing(&payment).await == PayOutcome::Pending).await;
    assert_eq!(w.money().await, (minus(before, AMOUNT), AMOUNT));
    assert_eq!(w.node().pay(&payment).await, PayOutcome::Pending);
    w.near().claim(preimage).await;
    let paid = Paid { preimage, fee: Amount::ZERO };
    assert_eq!(w.outcome(&payment).await, PayOutcome::Succeeded(paid));
    w.has(minus(before, AMOUNT)).await;
}

pub async fn what_is_on_its_way_outlives_a_restart(w: &World) {
    let (before, _) = w.money().await;
    let preimage = Preimage::fresh();
    let invoice = w.near().hold_invoice(Some(AMOUNT), preimage.hash()).await;
    let payment = payment(&invoice, AMOUNT);
    w.node().pay(&payment).await;
    eventually("the payee has it", async || w.near().holds(payment.hash).await.then_some(())).await;
    w.rig.restart().await;
    assert_eq!(w.standing(&payment).await, PayOutcome::Pending);
    assert_eq!(w.node().pay(&payment).await, PayOutcome::Pending);
    assert_eq!(w.money().await, (minus(before, AMOUNT), AMOUNT));
    w.near().claim(preimage).await;
    let paid = Paid { preimage, fee: Amount::ZERO };
    assert_eq!(w.outcome(&payment).await, PayOutcome::Succeeded(paid));
    w.has(minus(before, AMOUNT)).await;
}

pub async fn a_payment_without_an_invoice_arrives(w: &World) {
    let (before, _) = w.money().await;
    let preimage = Preimage::fresh();
    let keysend = |preimage: Preimage| Payment {
        id: fresh_id(),
        hash: preimage.hash(),
        destination: Destination::Keysend { to: w.far().id(), preimage },
        amount: AMOUNT,
        max_fee: ANY_FEE,
    };
    let quoted = w.node().quote(&keysend(preimage).destination, AMOUNT).await.unwrap();
    let Quote::Fee(fee) = quoted else { panic!("{quoted:?}") };
    assert_eq!(w.pay(&keysend(preimage)).await, PayOutcome::Succeeded(Paid { preimage, fee }));
    let too_low = Payment { max_fee: minus(fee, msat(1)), ..keysend(Preimage::fresh()) };
    assert_eq!(w.pay(&too_low).await, PayOutcome::Failed(PayFailure::FeeTooHigh));
    let unlike = Payment { hash: Preimage::fresh().hash(), ..keysend(Preimage::fresh()) };
    assert_eq!(w.pay(&unlike).await, PayOutcome::Failed(PayFailure::NotPayable));
    w.has(minus(before, plus(AMOUNT, fee))).await;
}

pub async fn a_hint_comes_when_a_payment_ends(w: &World) {
    let mut events = w.node().events();
    let invoice = w.near().invoice(Some(AMOUNT)).await;
    let payment = payment(&invoice, AMOUNT);
    assert_eq!(w.node().outgoing(payment.id, payment.hash).await, Ok(Outgoing::Nothing));
    w.node().pay(&payment).await;
    eventually("a hint comes", async || {
        loop {
            match events.try_recv() {
                Ok(event) if event == NodeEvent::Outgoing(payment.id) => return Some(()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    })
    .await;
    fee_of(&w.outcome(&payment).await);
}
