//! Keys that may spend: within their limits without a signature, and never beyond them.

use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use sluice::connectors::fake::Fault;
use sluice::domain::Request;
use sluice::domain::lightning::{Destination, Preimage};
use sluice::domain::pay::{Door, Pay, State, Terms};
use sluice::flows::keys;
use sluice::flows::pay_invoice;
use sluice::flows::{BodyHash, Code, Error, Idempotency, pay_with_key};
use sluice::ids::{KeyId, RequestId, WalletId};
use sluice::money::Amount;
use sluice::ports::lightning::{LightningNode, NewOffer};
use sluice::store::{StoreError, Tx, Write, apply};

use crate::harness::lightning::{CHANNEL_SIDE, msat, paying, sat};
use crate::harness::rig::{Client, Rig, on_both};

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// A wallet with money off-chain.
async fn rich(rig: &Rig, number: u32) -> Client {
    let client = Client::number(number);
    rig.register(&client).await;
    rig.funded_offchain(&client, sat(100_000)).await;
    client
}

fn later(error: Error) -> (Code, u32, String) {
    match error {
        Error::Later { code, detail, seconds } => (code, seconds, detail),
        other => panic!("it can't be done later: {other}"),
    }
}

on_both!(a_key_pays_and_what_it_did_not_cost_comes_back, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let key = rig.spending_key(&client, &["btc:50000/day", "btc:60000/month"], None).await;
    let (invoice, preimage) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let paid = rig.key_pays(&client, &key, &invoice, Some(sat(100))).await.expect("it pays");
    assert_eq!((paid.machine.payment_state(), paid.expires_at), ("paying", None));
    assert_eq!(rig.used(&client, &key).await, [10_100_000, 10_100_000], "amount and ceiling count");
    assert_eq!(rig.available(&client).await, 100_000_000 - 10_100_000);
    rig.lightning.shop_claims(preimage).await;
    rig.settle().await;
    assert_eq!(rig.payment_state(&client, paid.id).await, "succeeded");
    assert_eq!(rig.used(&client, &key).await, [10_000_000, 10_000_000], "a direct channel costs nothing");
    let proof = pay_invoice::consent(&rig.flows, &client.keys.id(), paid.id).await.expect("the store answers");
    let proof = proof.expect("the grant is the proof");
    assert!(proof.message.starts_with("Sluice spending grant v1") && proof.signed_tx.is_some());
    let stranger = Client::number(9).keys.id();
    assert_eq!(pay_invoice::consent(&rig.flows, &stranger, paid.id).await.expect("the store answers"), None);
    rig.audit().await;
});

on_both!(a_payment_that_fails_gives_the_budget_back, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let key = rig.spending_key(&client, &["btc:12000/day"], None).await;
    let (invoice, _) = rig.lightning.shop_invoice(Some(sat(10_000)));
    rig.lightning.shop.set_fault(Fault::Down);
    let paid = rig.key_pays(&client, &key, &invoice, None).await.expect("it is taken on");
    rig.settle().await;
    assert_eq!(rig.payment_state(&client, paid.id).await, "failed");
    assert_eq!((rig.used(&client, &key).await, rig.available(&client).await), (vec![0], 100_000_000));
    // The same invoice again, with the same limit.
    rig.lightning.shop.set_fault(None);
    rig.key_pays(&client, &key, &invoice, None).await.expect("it pays");
    rig.audit().await;
});

on_both!(beyond_a_limit_nothing_is_held_and_it_renews_with_the_clock, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let key = rig.spending_key(&client, &["btc:15000/day"], None).await;
    let (first, preimage) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let (second, _) = rig.lightning.shop_invoice(Some(sat(6_000)));
    rig.key_pays(&client, &key, &first, Some(sat(0))).await.expect("it pays");
    rig.lightning.shop_claims(preimage).await;
    rig.settle().await;
    let before = (rig.used(&client, &key).await, rig.available(&client).await);
    let (code, seconds, detail) =
        later(rig.key_pays(&client, &key, &second, Some(sat(0))).await.expect_err("too much"));
    // The rig's clock starts at 2027-01-15T08:00:00Z.
    assert_eq!((code, seconds), (Code::SpendingLimitExceeded, 16 * 60 * 60 + 1));
    assert!(detail.contains("5000000 msat left, and it renews at 2027-01-16T00:00:00Z"), "{detail}");
    assert_eq!((rig.used(&client, &key).await, rig.available(&client).await), before, "nothing has changed");
    rig.wait(u64::from(seconds)).await;
    assert_eq!(rig.used(&client, &key).await, [0], "another day");
    let (second, _) = rig.lightning.shop_invoice(Some(sat(6_000)));
    rig.key_pays(&client, &key, &second, Some(sat(0))).await.expect("it pays now");
    rig.audit().await;
});

on_both!(what_comes_back_comes_back_to_its_own_day, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let key = rig.spending_key(&client, &["btc:15000/day", "btc:40000/month"], None).await;
    rig.lightning.node.hold_payments();
    let (invoice, _) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let paid = rig.key_pays(&client, &key, &invoice, Some(sat(0))).await.expect("it pays");
    rig.wait(DAY_SECONDS).await;
    assert_eq!(rig.used(&client, &key).await, [0, 10_000_000]);
    rig.lightning.node.fail_payments(sluice::domain::lightning::PayFailure::NoLiquidity);
    rig.settle().await;
    assert_eq!(rig.payment_state(&client, paid.id).await, "failed");
    assert_eq!(rig.used(&client, &key).await, [0, 0], "today is not richer for it");
    rig.audit().await;
});

on_both!(one_payment_is_never_above_what_one_may_be, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let key = rig.spending_key(&client, &["btc:50000/day"], Some("btc:8000")).await;
    let (invoice, _) = rig.lightning.shop_invoice(Some(sat(7_000)));
    let refused = rig.key_pays(&client, &key, &invoice, Some(sat(1_001))).await.expect_err("the ceiling counts");
    assert_eq!(refused.code(), Code::PaymentAboveLimit);
    assert!(refused.to_string().contains("8000000 msat in one payment"), "{refused}");
    let (large, _) = rig.lightning.shop_invoice(Some(sat(8_001)));
    let refused = rig.key_pays(&client, &key, &large, None).await.expect_err("too much");
    assert_eq!(refused.code(), Code::PaymentAboveLimit);
    let paid = rig.key_pays(&client, &key, &invoice, None).await.expect("it pays");
    assert_eq!(paid.machine.terms.max_fee, sat(1_000), "the ceiling is what the limit leaves");
    let wide = rig.spending_key(&client, &["btc:9000/day"], None).await;
    let (above, _) = rig.lightning.shop_invoice(Some(sat(9_001)));
    let refused = rig.key_pays(&client, &wide, &above, None).await.expect_err("no day is long enough");
    assert!(refused.to_string().contains("9000000 msat in a day"), "{refused}");
    rig.audit().await;
});

on_both!(a_neighbour_is_paid_in_the_books_and_it_counts, async |rig: Rig| {
    let (payer, payee) = (rich(&rig, 1).await, rich(&rig, 2).await);
    let key = rig.spending_key(&payer, &["btc:5000/hour"], None).await;
    let receive = rig.invoice(&payee, Some(sat(4_000))).await;
    let paid = rig.key_pays(&payer, &key, &receive.machine.invoice, None).await.expect("it pays");
    assert_eq!(paid.machine.payment_state(), "succeeded");
    assert_eq!(rig.receive_state(&payee, receive.id).await, "settled");
    assert_eq!(rig.used(&payer, &key).await, [4_000_000]);
    let more = rig.invoice(&payee, Some(sat(1_001))).await;
    let refused = rig.key_pays(&payer, &key, &more.machine.invoice, None).await.expect_err("above what is left");
    assert_eq!(refused.code(), Code::SpendingLimitExceeded);
    let own = rig.invoice(&payer, Some(sat(10))).await;
    let refused = rig.key_pays(&payer, &key, &own.machine.invoice, None).await.expect_err("one's own");
    assert_eq!(refused.code(), Code::SelfPayment);
    let again = rig.key_pays(&payer, &key, &receive.machine.invoice, None).await.expect_err("it was paid");
    assert_eq!(again.code(), Code::AlreadyPaid);
    assert_eq!(rig.receive_state(&payee, more.id).await, "open");
    rig.audit().await;
});

on_both!(an_offer_is_paid_with_a_key, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let key = rig.spending_key(&client, &["btc:5000/day"], None).await;
    let new = NewOffer { amount: None, description: "tea".to_owned(), expires_in: None };
    let offer = rig.lightning.shop.create_offer(&new).await.expect("an offer");
    let refused = rig.key_pays(&client, &key, &offer, None).await.expect_err("it names no amount");
    assert_eq!(refused.code(), Code::InvalidInvoice);
    let wanted = sluice::flows::pay_invoice::BeginPay { amount: Some(sat(2_000)), ..paying(&offer, Some(sat(5))) };
    let paid = rig.pay_with(&client, &key, wanted).await.expect("it pays");
    rig.lightning.shop.claim(paid.machine.terms.hash, None).await.expect("the shop claims");
    rig.settle().await;
    assert_eq!(rig.payment_state(&client, paid.id).await, "succeeded");
    assert_eq!(rig.used(&client, &key).await, [2_000_000]);
    rig.audit().await;
});

// Two limits, so that the order in which they are written is tried too; a third of the payments end while others begin.
on_both!(many_at_once_never_spend_more_than_the_limit, async |rig: Rig| {
    const ALL: usize = 64;
    const WITHIN: usize = 10;
    let client = rich(&rig, 1).await;
    let key = rig.spending_key(&client, &["btc:10000/hour", "btc:10000/day", "btc:20000/month"], None).await;
    let invoices: Vec<_> = (0..ALL).map(|_| rig.lightning.shop_invoice(Some(sat(900)))).collect();
    let pay = async |(invoice, preimage): &(String, _)| {
        let paid = rig.key_pays(&client, &key, invoice, Some(sat(100))).await?;
        if paid.id.to_bytes()[15] % 3 == 0 {
            rig.lightning.shop_claims(*preimage).await;
        }
        Ok::<_, Error>(paid)
    };
    let all = join_all(invoices.iter().map(pay)).await;
    let paid = all.iter().filter(|paid| paid.is_ok()).count();
    assert_eq!(paid, WITHIN, "{all:?}");
    for refused in all.into_iter().filter_map(Result::err) {
        assert_eq!(later(refused).0, Code::SpendingLimitExceeded);
    }
    let used = rig.used(&client, &key).await;
    assert!(used.iter().all(|used| *used <= 10_000_000), "{used:?}");
    // What the fee did not cost is room for one more.
    rig.settle().await;
    for (_, preimage) in &invoices {
        if rig.lightning.shop.is_holding(preimage.hash()) {
            rig.lightning.shop_claims(*preimage).await;
        }
    }
    rig.settle().await;
    assert_eq!(rig.used(&client, &key).await, [9_000_000; 3]);
    let (one_more, _) = rig.lightning.shop_invoice(Some(sat(900)));
    rig.key_pays(&client, &key, &one_more, Some(sat(100))).await.expect("it pays");
    rig.audit().await;
});

/// A payment by a key whose limits nobody has looked at.
struct Forgetful {
    wallet: WalletId,
    key: KeyId,
    amount: Amount,
}

#[async_trait]
impl Write for Forgetful {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let (id, now) = (RequestId::fresh(), tx.now());
        let terms = Terms {
            destination: Destination::Bolt11("lnbcrt1".to_owned()),
            hash: Preimage::fresh().hash(),
            amount: self.amount,
            max_fee: Amount::ZERO,
            estimate: None,
            payee: None,
            book: None,
            door: Door::PayInvoice,
            key: Some(self.key.clone()),
        };
        let machine = Pay { request: id, wallet: self.wallet.clone(), terms, state: State::AwaitingSignature };
        let first = machine.begin().expect("it fits");
        let request = Request {
            id,
            wallet: self.wallet.clone(),
            reference: None,
            label: None,
            created_at: now,
            updated_at: now,
            expires_at: None,
            version: 1,
            machine,
        };
        apply::create(tx, request, first).await.map(drop)
    }
}

// What flows look at saves time and words; the one door for writes keeps the limit all the same.
on_both!(a_flow_that_forgets_the_limit_is_stopped_at_the_door, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let key = rig.spending_key(&client, &["btc:10000/hour", "btc:10000/month"], None).await;
    let write = |_| {
        let forgetful = Forgetful { wallet: client.keys.id(), key: key.clone(), amount: sat(1_000) };
        rig.flows.store().write(forgetful)
    };
    let all = join_all((0..16).map(write)).await;
    assert_eq!(all.iter().filter(|written| written.is_ok()).count(), 10, "{all:?}");
    assert!(all.into_iter().filter_map(Result::err).all(|error| matches!(error, StoreError::Conflict(_))));
    assert_eq!((rig.used(&client, &key).await, rig.available(&client).await), (vec![10_000_000; 2], 90_000_000));
    // And a key without a limit spends nothing at all.
    let stranger = Forgetful { wallet: client.keys.id(), key: KeyId("0".to_owned()), amount: sat(1) };
    rig.flows.store().write(stranger).await.expect_err("nobody has granted it");
    rig.audit().await;
});

on_both!(two_keys_of_one_wallet_share_its_balance_and_nothing_else, async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    rig.funded_offchain(&client, sat(10_000)).await;
    let one = rig.spending_key(&client, &["btc:9000/day"], None).await;
    let other = rig.spending_key(&client, &["btc:9000/day"], None).await;
    let invoices: Vec<_> = (0..16).map(|_| rig.lightning.shop_invoice(Some(sat(3_000))).0).collect();
    let pays = invoices.iter().enumerate().map(|(number, invoice)| {
        let key = if number % 2 == 0 { &one } else { &other };
        rig.key_pays(&client, key, invoice, Some(sat(0)))
    });
    let paid = join_all(pays).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(paid, 3, "the balance is enough for three");
    let used = rig.used(&client, &one).await[0] + rig.used(&client, &other).await[0];
    assert_eq!((used, rig.available(&client).await), (9_000_000, 1_000_000));
    rig.audit().await;
});

on_both!(a_key_spends_for_its_own_wallet_only, async |rig: Rig| {
    let (one, other) = (rich(&rig, 1).await, rich(&rig, 2).await);
    let key = rig.spending_key(&one, &["btc:5000/day"], None).await;
    let (invoice, _) = rig.lightning.shop_invoice(Some(sat(1_000)));
    let refused = rig.key_pays(&other, &key, &invoice, None).await.expect_err("another wallet's");
    assert_eq!(refused.code(), Code::SpendingNotGranted);
    rig.audit().await;
});

on_both!(a_revoked_key_starts_nothing_and_ends_what_it_began, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let key = rig.spending_key(&client, &["btc:50000/day"], None).await;
    let (first, preimage) = rig.lightning.shop_invoice(Some(sat(1_000)));
    let (second, _) = rig.lightning.shop_invoice(Some(sat(1_000)));
    let paid = rig.key_pays(&client, &key, &first, Some(sat(10))).await.expect("it pays");
    assert!(keys::revoke(&rig.flows, key.clone()).await.expect("the store writes"));
    let refused = rig.key_pays(&client, &key, &second, Some(sat(10))).await.expect_err("it is over");
    assert_eq!(refused.code(), Code::Unauthorized);
    rig.lightning.shop_claims(preimage).await;
    rig.settle().await;
    assert_eq!(rig.payment_state(&client, paid.id).await, "succeeded");
    assert_eq!(rig.used(&client, &key).await, [1_000_000]);
    // And so does one whose time is over.
    let brief = rig.spending_key(&client, &["btc:50000/day"], None).await;
    rig.wait(91 * DAY_SECONDS).await;
    let (third, _) = rig.lightning.shop_invoice(Some(sat(1_000)));
    let refused = rig.key_pays(&client, &brief, &third, Some(sat(10))).await.expect_err("it is over");
    assert_eq!(refused.code(), Code::Unauthorized);
    rig.audit().await;
});

// Between revoking and paying there is no moment in which a payment slips through.
on_both!(after_a_revocation_has_returned_nothing_is_begun, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let key = rig.spending_key(&client, &["btc:50000/day"], None).await;
    let invoices: Vec<_> = (0..24).map(|_| rig.lightning.shop_invoice(Some(sat(100))).0).collect();
    let pays = join_all(invoices.iter().map(|invoice| rig.key_pays(&client, &key, invoice, Some(sat(0)))));
    let revoked = async {
        keys::revoke(&rig.flows, key.clone()).await.expect("the store writes");
        rig.used(&client, &key).await
    };
    let (all, at_revocation) = tokio::join!(pays, revoked);
    let paid = all.iter().filter(|paid| paid.is_ok()).count() as u64;
    assert_eq!(rig.used(&client, &key).await, [paid * 100_000]);
    assert_eq!(at_revocation, [paid * 100_000], "something was begun after the revocation had returned");
    rig.audit().await;
});

on_both!(an_idempotency_key_is_one_payment_by_a_key, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let key = rig.spending_key(&client, &["btc:50000/day"], None).await;
    let (invoice, preimage) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let with = |body: &str| Some(Idempotency { key: "k".to_owned(), body_hash: BodyHash::of_bytes(body) });
    let pay = |body: &'static str| {
        pay_with_key::pay(&rig.flows, &client.keys, &key, paying(&invoice, Some(sat(10))), with(body))
    };
    let all = join_all((0..8).map(|_| pay("same"))).await;
    let first = all[0].as_ref().expect("it pays").id;
    assert!(all.iter().all(|paid| paid.as_ref().is_ok_and(|paid| paid.id == first)), "{all:?}");
    assert_eq!(pay("other").await.expect_err("another body").code(), Code::IdempotencyMismatch);
    assert_eq!(rig.used(&client, &key).await, [10_010_000]);
    rig.lightning.shop_claims(preimage).await;
    rig.settle().await;
    assert_eq!(pay("same").await.expect("it answers").machine.payment_state(), "succeeded");
    rig.audit().await;
});

on_both!(a_payment_that_was_taken_on_is_made_by_whoever_comes_next, async |rig: Rig| {
    let mut rig = rig;
    let client = rich(&rig, 1).await;
    let key = rig.spending_key(&client, &["btc:50000/day"], None).await;
    let (invoice, preimage) = rig.lightning.shop_invoice(Some(sat(10_000)));
    rig.lightning.node.set_fault(Fault::PaymentLost);
    let paid = rig.key_pays(&client, &key, &invoice, Some(sat(10))).await.expect("it is taken on");
    assert_eq!((paid.machine.payment_state(), rig.used(&client, &key).await), ("paying", vec![10_010_000]));
    rig.lightning.node.set_fault(None);
    rig.restart();
    rig.wait(60).await;
    rig.lightning.shop_claims(preimage).await;
    rig.settle().await;
    assert_eq!(rig.payment_state(&client, paid.id).await, "succeeded");
    assert_eq!((rig.used(&client, &key).await, rig.available(&client).await), (vec![10_000_000], 90_000_000));
    rig.audit().await;
});

on_both!(the_checks_of_a_payment_are_the_same, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let key = rig.spending_key(&client, &["btc:50000000/day"], None).await;
    let (dear, _) = rig.lightning.shop_invoice(Some(sat(100_001)));
    assert_eq!(rig.key_pays(&client, &key, &dear, None).await.expect_err("too dear").code(), Code::InsufficientFunds);
    let far = rig.lightning.network.add_node();
    rig.lightning.network.open(&rig.lightning.shop, &far, CHANNEL_SIDE, CHANNEL_SIDE);
    rig.lightning.shop.set_fees(msat(0), 990_000);
    let far_invoice = far.invoice(Some(sat(10_000)), "far").0;
    let refused = rig.key_pays(&client, &key, &far_invoice, Some(sat(100))).await.expect_err("too dear a way");
    assert_eq!((refused.code(), refused.field_name()), (Code::FeeLimitTooLow, Some("max_fee_sats")));
    let refused = rig.key_pays(&client, &key, "lnbcrt1nonsense", None).await.expect_err("no invoice");
    assert_eq!(refused.code(), Code::InvalidInvoice);
    assert_eq!(rig.used(&client, &key).await, [0]);
    // A node that overspends costs the operator, and the key what it was allowed.
    rig.lightning.shop.set_fees(msat(0), 1_000);
    let (invoice, preimage) = far.invoice(Some(sat(10_000)), "far");
    rig.lightning.node.overspend(sat(90));
    rig.key_pays(&client, &key, &invoice, Some(sat(10))).await.expect("it pays");
    far.claim(preimage.hash(), Some(preimage)).await.expect("it claims");
    rig.settle().await;
    assert_eq!(rig.used(&client, &key).await, [10_010_000]);
    let (other, _) = rig.lightning.shop_invoice(Some(sat(10)));
    assert_eq!(rig.key_pays(&client, &key, &other, None).await.expect_err("halted").code(), Code::PayoutsHalted);
    rig.audit().await;
});

on_both!(a_call_waits_for_the_end_or_for_its_own, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let key = rig.spending_key(&client, &["btc:50000/day"], None).await;
    let (invoice, preimage) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let paid = rig.key_pays(&client, &key, &invoice, Some(sat(10))).await.expect("it pays");
    let wait = |millis| pay_with_key::wait(&rig.flows, &paid.wallet, paid.id, Duration::from_millis(millis));
    assert_eq!(wait(0).await.expect("it answers").machine.payment_state(), "paying");
    assert_eq!(wait(20).await.expect("it answers").machine.payment_state(), "paying", "its time is over");
    let end = async {
        rig.lightning.shop_claims(preimage).await;
        rig.settle().await;
    };
    let (ended, ()) = tokio::join!(wait(30_000), end);
    assert_eq!(ended.expect("it answers").machine.payment_state(), "succeeded");
    assert_eq!(wait(30_000).await.expect("it answers at once").machine.payment_state(), "succeeded");
    rig.audit().await;
});
