//! Invoices, and what arrives for them.

use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescriptionRef, Currency};
use sluice::money::Amount;
use sluice::ports::lightning::{
    ClaimOutcome, Description, Incoming, NewInvoice, NodeEvent, Outgoing, PaymentHash, Preimage,
};

use super::{AMOUNT, Sent, World, end_of, fresh_id, msat, new_invoice, plus};
use crate::harness::peer::{eventually, stays};

const A_WHILE: Duration = Duration::from_millis(300);

pub async fn an_invoice_says_what_was_asked_for(w: &World) {
    let node = w.node();
    let hashed = sha256::Hash::hash(b"a long text").to_byte_array();
    let texts = [Description::Text("coffee, \u{fc}".to_owned()), Description::Hash(hashed)];
    for (description, amount) in texts.into_iter().zip([Some(AMOUNT), None]) {
        let hash = Preimage::fresh().hash();
        let new = NewInvoice { hash, amount, description, expires_in: Duration::from_secs(77) };
        let invoice: Bolt11Invoice = node.create_invoice(&new).await.unwrap().parse().unwrap();
        assert_eq!(invoice.payment_hash().0, hash.0);
        assert_eq!(invoice.amount_milli_satoshis(), amount.map(Amount::base_units));
        assert_eq!(invoice.expiry_time(), new.expires_in);
        assert_eq!(invoice.currency(), Currency::Regtest);
        assert_eq!(invoice.get_payee_pub_key(), node.info().await.unwrap().id);
        match (&new.description, invoice.description()) {
            (Description::Text(asked), Bolt11InvoiceDescriptionRef::Direct(says)) => {
                assert_eq!(says.to_string(), *asked);
            }
            (Description::Hash(asked), Bolt11InvoiceDescriptionRef::Hash(says)) => {
                assert_eq!(says.0.to_byte_array(), *asked);
            }
            (asked, says) => panic!("asked for {asked:?}, says {says:?}"),
        }
    }
}

pub async fn the_same_hash_may_be_asked_for_again(w: &World) {
    let preimage = Preimage::fresh();
    let new = new_invoice(preimage.hash(), Some(AMOUNT));
    for _ in 0..2 {
        w.node().create_invoice(&new).await.unwrap();
    }
    let invoice = w.node().create_invoice(&NewInvoice { amount: None, ..new }).await.unwrap();
    let sent = w.near().pay(&invoice, Some(AMOUNT)).await;
    w.held(preimage.hash()).await;
    assert_eq!(w.node().claim(preimage.hash(), Some(preimage)).await, Ok(ClaimOutcome::Claiming));
    assert_eq!(end_of(w.near(), &sent).await, Sent::Arrived { preimage: Some(preimage) });
}

pub async fn what_arrives_is_held_until_it_is_claimed(w: &World) {
    let (before, _) = w.money().await;
    let (invoice, preimage) = w.invoice(Some(AMOUNT)).await;
    let hash = preimage.hash();
    let sent = w.near().pay(&invoice, None).await;
    let held = w.held(hash).await;
    assert_eq!((held.amount, held.offer), (AMOUNT, None));
    let height = w.node().info().await.unwrap().height;
    assert!(held.claim_before.is_none_or(|until| until > height), "{:?} at {height}", held.claim_before);
    assert_eq!(w.node().held().await.unwrap(), [hash]);
    stays("the payer waits", A_WHILE, async || w.near().sent(&sent).await == Sent::OnItsWay).await;
    assert_eq!(w.node().incoming(hash).await.unwrap().claimed, None);

    assert_eq!(w.node().claim(hash, Some(preimage)).await, Ok(ClaimOutcome::Claiming));
    assert_eq!(w.claimed(hash).await, AMOUNT);
    assert_eq!(end_of(w.near(), &sent).await, Sent::Arrived { preimage: Some(preimage) });
    w.nothing_is_held(hash).await;
    w.has(plus(before, AMOUNT)).await;
}

pub async fn an_invoice_without_an_amount_takes_what_comes(w: &World) {
    let (before, _) = w.money().await;
    let (invoice, preimage) = w.invoice(None).await;
    w.near().pay(&invoice, Some(msat(1_234_567))).await;
    assert_eq!(w.held(preimage.hash()).await.amount, msat(1_234_567));
    w.node().claim(preimage.hash(), Some(preimage)).await.unwrap();
    assert_eq!(w.claimed(preimage.hash()).await, msat(1_234_567));
    w.has(plus(before, msat(1_234_567))).await;
}

pub async fn what_is_failed_goes_back_to_the_payer(w: &World) {
    let (before, _) = w.money().await;
    let (invoice, preimage) = w.invoice(Some(AMOUNT)).await;
    let sent = w.near().pay(&invoice, None).await;
    w.held(preimage.hash()).await;
    w.node().fail(preimage.hash()).await.unwrap();
    assert_eq!(end_of(w.near(), &sent).await, Sent::Failed);
    w.nothing_is_held(preimage.hash()).await;
    assert_eq!(w.node().claim(preimage.hash(), Some(preimage)).await, Ok(ClaimOutcome::NothingHeld));
    assert_eq!(w.node().incoming(preimage.hash()).await, Ok(Incoming::default()));
    w.has(before).await;
}

pub async fn a_cancelled_invoice_takes_nothing_any_more(w: &World) {
    let (invoice, preimage) = w.invoice(Some(AMOUNT)).await;
    let sent = w.near().pay(&invoice, None).await;
    w.held(preimage.hash()).await;
    w.node().cancel_invoice(preimage.hash()).await.unwrap();
    assert_eq!(end_of(w.near(), &sent).await, Sent::Failed);
    w.nothing_is_held(preimage.hash()).await;

    let late = w.far().pay(&invoice, None).await;
    assert_eq!(end_of(w.far(), &late).await, Sent::Failed);
    w.nothing_is_held(preimage.hash()).await;
}

pub async fn a_second_payment_for_a_claimed_hash_is_held_again(w: &World) {
    let (before, _) = w.money().await;
    let (invoice, preimage) = w.invoice(Some(AMOUNT)).await;
    let hash = preimage.hash();
    let first = w.near().pay(&invoice, None).await;
    w.held(hash).await;
    w.node().claim(hash, Some(preimage)).await.unwrap();
    assert_eq!(end_of(w.near(), &first).await, Sent::Arrived { preimage: Some(preimage) });
    assert_eq!(w.claimed(hash).await, AMOUNT);
    w.nothing_is_held(hash).await;

    let second = w.far().pay(&invoice, None).await;
    assert_eq!(w.held(hash).await.amount, AMOUNT);
    assert_eq!(w.node().incoming(hash).await.unwrap().claimed, Some(AMOUNT), "the first stays claimed");
    w.node().fail(hash).await.unwrap();
    assert_eq!(end_of(w.far(), &second).await, Sent::Failed);
    w.nothing_is_held(hash).await;

    // An order to claim that was meant for the first does not take the next: it goes back as well.
    let third = w.far().pay(&invoice, None).await;
    w.held(hash).await;
    assert_eq!(w.node().claim(hash, Some(preimage)).await, Ok(ClaimOutcome::Claiming));
    assert_eq!(end_of(w.far(), &third).await, Sent::Failed);
    w.nothing_is_held(hash).await;
    assert_eq!(w.claimed(hash).await, AMOUNT);
    w.has(plus(before, AMOUNT)).await;
}

pub async fn what_comes_from_afar_is_held_as_well(w: &World) {
    let (before, _) = w.money().await;
    let (invoice, preimage) = w.invoice(Some(AMOUNT)).await;
    let sent = w.far().pay(&invoice, None).await;
    assert_eq!(w.held(preimage.hash()).await.amount, AMOUNT);
    w.node().claim(preimage.hash(), Some(preimage)).await.unwrap();
    assert_eq!(end_of(w.far(), &sent).await, Sent::Arrived { preimage: Some(preimage) });
    w.has(plus(before, AMOUNT)).await;
}

pub async fn orders_may_be_repeated_and_a_claim_stays(w: &World) {
    let (invoice, preimage) = w.invoice(Some(AMOUNT)).await;
    let hash = preimage.hash();
    let sent = w.near().pay(&invoice, None).await;
    w.held(hash).await;
    for _ in 0..3 {
        assert_eq!(w.node().claim(hash, Some(preimage)).await, Ok(ClaimOutcome::Claiming));
    }
    assert_eq!(w.claimed(hash).await, AMOUNT);
    assert_eq!(end_of(w.near(), &sent).await, Sent::Arrived { preimage: Some(preimage) });
    for _ in 0..2 {
        w.node().fail(hash).await.unwrap();
    }
    w.node().cancel_invoice(hash).await.unwrap();
    assert_eq!(w.node().claim(hash, Some(preimage)).await, Ok(ClaimOutcome::Claiming), "it was claimed");
    assert_eq!(w.node().incoming(hash).await, Ok(Incoming { held: None, claimed: Some(AMOUNT) }));
}

pub async fn nothing_is_known_of_what_never_came(w: &World) {
    let preimage = Preimage::fresh();
    let hash = preimage.hash();
    assert_eq!(w.node().incoming(hash).await, Ok(Incoming::default()));
    assert_eq!(w.node().claim(hash, Some(preimage)).await, Ok(ClaimOutcome::NothingHeld));
    assert_eq!(w.node().fail(hash).await, Ok(()));
    assert_eq!(w.node().cancel_invoice(hash).await, Ok(()));
    assert_eq!(w.node().outgoing(fresh_id(), hash).await, Ok(Outgoing::Nothing));
    let (_, unpaid) = w.invoice(Some(AMOUNT)).await;
    assert_eq!(w.node().incoming(unpaid.hash()).await, Ok(Incoming::default()));
    assert_eq!(w.node().claim(unpaid.hash(), Some(unpaid)).await, Ok(ClaimOutcome::NothingHeld));
}

pub async fn a_payment_without_an_invoice_is_held(w: &World) {
    let id = w.node().info().await.unwrap().id;
    let (before, _) = w.money().await;
    for claims in [false, true] {
        let preimage = Preimage::fresh();
        let sent = w.near().keysend(id, AMOUNT, preimage).await;
        let held = w.held(preimage.hash()).await;
        assert_eq!((held.amount, held.offer), (AMOUNT, None));
        if claims {
            let claiming = w.node().claim(preimage.hash(), Some(preimage)).await;
            assert_eq!(claiming, Ok(ClaimOutcome::Claiming));
            assert_eq!(w.claimed(preimage.hash()).await, AMOUNT);
            assert!(matches!(end_of(w.near(), &sent).await, Sent::Arrived { .. }));
        } else {
            w.node().fail(preimage.hash()).await.unwrap();
            assert_eq!(end_of(w.near(), &sent).await, Sent::Failed);
        }
    }
    w.has(plus(before, AMOUNT)).await;
}

pub async fn what_is_held_and_what_was_claimed_outlive_a_restart(w: &World) {
    let (before, _) = w.money().await;
    let (invoice, claimed) = w.invoice(Some(AMOUNT)).await;
    w.near().pay(&invoice, None).await;
    w.held(claimed.hash()).await;
    w.node().claim(claimed.hash(), Some(claimed)).await.unwrap();
    w.claimed(claimed.hash()).await;
    let (invoice, held) = w.invoice(Some(AMOUNT)).await;
    let sent = w.near().pay(&invoice, None).await;
    w.held(held.hash()).await;
    let (later, unpaid) = w.invoice(Some(AMOUNT)).await;

    w.rig.restart().await;
    assert_eq!(w.node().incoming(claimed.hash()).await.unwrap(), Incoming { held: None, claimed: Some(AMOUNT) });
    assert_eq!(w.held(held.hash()).await.amount, AMOUNT);
    assert_eq!(w.node().held().await.unwrap(), [held.hash()]);
    w.node().claim(held.hash(), Some(held)).await.unwrap();
    assert_eq!(w.claimed(held.hash()).await, AMOUNT);
    assert_eq!(end_of(w.near(), &sent).await, Sent::Arrived { preimage: Some(held) });

    let sent = w.near().pay(&later, None).await;
    w.held(unpaid.hash()).await;
    w.node().fail(unpaid.hash()).await.unwrap();
    assert_eq!(end_of(w.near(), &sent).await, Sent::Failed);
    w.has(plus(before, plus(AMOUNT, AMOUNT))).await;
}

pub async fn what_is_held_for_too_long_goes_back(w: &World) {
    let (before, _) = w.money().await;
    let (invoice, preimage) = w.invoice(Some(AMOUNT)).await;
    let sent = w.near().pay(&invoice, None).await;
    let until = w.held(preimage.hash()).await.claim_before.expect("this node knows when");
    let height = w.node().info().await.unwrap().height;
    assert!(until > height + 6, "there is time to claim: {until} at {height}");
    w.rig.mine(until - height).await;
    assert_eq!(end_of(w.near(), &sent).await, Sent::Failed);
    w.nothing_is_held(preimage.hash()).await;
    assert_eq!(w.node().claim(preimage.hash(), Some(preimage)).await, Ok(ClaimOutcome::NothingHeld));
    assert_eq!(w.node().incoming(preimage.hash()).await, Ok(Incoming::default()));
    w.has(before).await;
}

pub async fn a_hint_comes_with_what_arrives(w: &World) {
    let mut events = w.node().events();
    let mut hint = async |hash: PaymentHash| {
        eventually("a hint comes", async || {
            loop {
                match events.try_recv() {
                    Ok(event) if event == NodeEvent::Incoming(hash) => return Some(()),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        })
        .await;
    };
    let (invoice, preimage) = w.invoice(Some(AMOUNT)).await;
    w.near().pay(&invoice, None).await;
    hint(preimage.hash()).await;
    assert_eq!(w.held(preimage.hash()).await.amount, AMOUNT);
    w.node().claim(preimage.hash(), Some(preimage)).await.unwrap();
    hint(preimage.hash()).await;
    assert_eq!(w.claimed(preimage.hash()).await, AMOUNT);
}
