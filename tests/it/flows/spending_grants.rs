//! Grants: only the one that was asked for, signed by the wallet's first key, in time and once, makes a key that may spend.

use async_trait::async_trait;
use bitcoin::Psbt;
use bitcoin::base64::Engine as _;
use bitcoin::base64::prelude::BASE64_STANDARD;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice::flows::grants::{self, Asked};
use sluice::flows::keys::{self, NewKey, Scope};
use sluice::flows::{Code, Error, audit};
use sluice::store::{StoreError, Tx, Write};

use crate::harness::lightning::sat;
use crate::harness::rig::{Client, Rig, on_both};
use crate::harness::spending::wanted;

const DAY: &[&str] = &["btc:50000/day"];

async fn registered(rig: &Rig, number: u32) -> Client {
    let client = Client::number(number);
    rig.register(&client).await;
    client
}

async fn refused(rig: &Rig, asked: &Asked, signed: &str) -> Error {
    let error = grants::give(&rig.flows, &asked.key, signed).await.expect_err("it is refused");
    let known = keys::authenticate(&rig.flows, asked.secret.expose()).await.expect("the store answers");
    assert_eq!(known, None, "a key came into force by a grant that was refused: {error}");
    error
}

/// The fields of a signature, moved to another PSBT.
fn moved(from: &str, to: &str) -> String {
    let (from, mut to): (Psbt, Psbt) = (from.parse().expect("a PSBT"), to.parse().expect("a PSBT"));
    to.inputs[0].final_script_witness = from.inputs[0].final_script_witness.clone();
    to.inputs[0].tap_key_sig = from.inputs[0].tap_key_sig;
    to.to_string()
}

on_both!(a_key_is_in_force_when_its_grant_is_given_and_not_before, async |rig: Rig| {
    let client = registered(&rig, 1).await;
    let asked = rig.ask_grant(&client, DAY).await;
    assert!(asked.message.starts_with("Sluice spending grant v1\ngateway: "), "{}", asked.message);
    assert!(asked.message.contains("\nlimit: 50000000 msat per day\nper_payment: none\n"), "{}", asked.message);
    let secret = asked.secret.expose().to_owned();
    assert_eq!(keys::authenticate(&rig.flows, &secret).await.expect("the store answers"), None);
    let given = grants::give(&rig.flows, &asked.key, &client.grant(&asked.psbt)).await.expect("it is given");
    assert!(given.signed_tx.is_some() && given.message == asked.message);
    let caller = keys::authenticate(&rig.flows, &secret).await.expect("the store answers").expect("it is in force");
    assert!(caller.may(Scope::Send) && caller.key == asked.key);
    assert!(keys::is_bound(&rig.flows, &asked.key, &client.keys.id()).await.expect("the store answers"));
    rig.audit().await;
});

on_both!(a_grant_is_good_for_one_key_once, async |rig: Rig| {
    let (one, other) = (registered(&rig, 1).await, registered(&rig, 2).await);
    let first = rig.ask_grant(&one, DAY).await;
    let signed = one.grant(&first.psbt);
    // Another key of the same wallet, one with a larger limit, and one of another wallet.
    for (to, line) in [
        (rig.ask_grant(&one, DAY).await, "`key: "),
        (rig.ask_grant(&one, &["btc:60000/day"]).await, "`key: "),
        (rig.ask_grant(&other, DAY).await, "`wallet: "),
    ] {
        let error = refused(&rig, &to, &signed).await;
        assert_eq!((error.code(), error.field_name()), (Code::PsbtAltered, Some("grant")));
        assert!(error.to_string().contains(line), "{error}");
        let error = refused(&rig, &to, &moved(&signed, &to.psbt)).await;
        assert_eq!(error.code(), Code::InvalidSignature);
    }
    // The very message of another grant, only that it says more.
    let mut altered: Psbt = signed.parse().expect("a PSBT");
    for message in altered.unknown.values_mut() {
        *message = first.message.replace("50000000 msat per day", "90000000 msat per day").into_bytes();
    }
    let dearer = rig.ask_grant(&one, &["btc:90000/day"]).await;
    refused(&rig, &dearer, &altered.to_string()).await;
    grants::give(&rig.flows, &first.key, &signed).await.expect("it is given to its own key");
    let again = grants::give(&rig.flows, &first.key, &signed).await.expect_err("twice");
    assert!(again.to_string().contains("was given at"), "{again}");
    rig.audit().await;
});

on_both!(a_grant_of_another_gateway_is_named, async |rig: Rig| {
    let client = registered(&rig, 1).await;
    let elsewhere = Rig::sqlite().await;
    elsewhere.register(&client).await;
    let theirs = elsewhere.ask_grant(&client, DAY).await;
    let ours = rig.ask_grant(&client, DAY).await;
    let error = refused(&rig, &ours, &client.grant(&theirs.psbt)).await;
    assert!(error.to_string().contains("it says `gateway: "), "{error}");
    rig.audit().await;
});

on_both!(only_the_owner_grants, async |rig: Rig| {
    let (one, other) = (registered(&rig, 1).await, registered(&rig, 2).await);
    let asked = rig.ask_grant(&one, DAY).await;
    assert_eq!(refused(&rig, &asked, &asked.psbt).await.code(), Code::PsbtNotSigned);
    assert_eq!(refused(&rig, &asked, "no PSBT").await.code(), Code::InvalidPsbt);
    let theirs = rig.ask_grant(&other, DAY).await;
    let foreign = moved(&other.grant(&theirs.psbt), &asked.psbt);
    assert_eq!(refused(&rig, &asked, &foreign).await.code(), Code::InvalidSignature);
    // A payment's authorisation is no grant.
    rig.funded_offchain(&one, sat(20_000)).await;
    let (invoice, _) = rig.lightning.shop_invoice(Some(sat(1_000)));
    let begun = rig.begin_pay(&one, &invoice, None).await.expect("it begins");
    let error = refused(&rig, &asked, &one.sign(&begun.psbt)).await;
    assert!(error.to_string().contains("`Sluice spend authorization v1`"), "{error}");
    // And a grant is no payment's authorisation.
    let error = rig.end_pay_signed(&one, &one.grant(&asked.psbt)).await.expect_err("it is refused");
    assert_eq!(error.code(), Code::PsbtUnknown);
    rig.audit().await;
});

on_both!(a_grant_that_ended_or_was_taken_back_is_refused, async |rig: Rig| {
    let client = registered(&rig, 1).await;
    let (late, gone) = (rig.ask_grant(&client, DAY).await, rig.ask_grant(&client, DAY).await);
    assert!(keys::revoke(&rig.flows, gone.key.clone()).await.expect("the store writes"));
    let error = refused(&rig, &gone, &client.grant(&gone.psbt)).await;
    assert!(error.to_string().contains("waits for a grant"), "{error}");
    rig.wait(91 * 24 * 60 * 60).await;
    let error = refused(&rig, &late, &client.grant(&late.psbt)).await;
    assert_eq!(error.code(), Code::RequestExpired);
    rig.audit().await;
});

on_both!(many_gifts_of_one_grant_make_one_key, async |rig: Rig| {
    let client = registered(&rig, 1).await;
    let asked = rig.ask_grant(&client, DAY).await;
    let signed = client.grant(&asked.psbt);
    let all = join_all((0..16).map(|_| grants::give(&rig.flows, &asked.key, &signed))).await;
    assert_eq!(all.iter().filter(|given| given.is_ok()).count(), 1, "{all:?}");
    assert_eq!(keys::list(&rig.flows).await.expect("the store answers").len(), 1);
    rig.audit().await;
});

on_both!(what_is_no_limit_is_not_asked_for, async |rig: Rig| {
    let client = registered(&rig, 1).await;
    let usual = || wanted(&rig.flows, &client, DAY, None);
    let twice = wanted(&rig.flows, &client, &["btc:1/day", "btc:2/day"], None);
    for (asked, field) in [
        (grants::WantedGrant { limits: Vec::new(), ..usual() }, "limit"),
        (twice, "limit"),
        (grants::WantedGrant { scopes: vec![Scope::Read], ..usual() }, "scope"),
        (grants::WantedGrant { scopes: vec![Scope::Send, Scope::Register], ..usual() }, "scope"),
        (grants::WantedGrant { wallet: Client::number(9).keys.id(), ..usual() }, "wallet"),
        (grants::WantedGrant { expires_at: rig.flows.store().clock().now(), ..usual() }, "expires_in_days"),
    ] {
        let error = grants::ask(&rig.flows, asked).await.expect_err("it is refused");
        assert_eq!(error.field_name(), Some(field), "{error}");
    }
    assert!(grants::list(&rig.flows).await.expect("the store answers").is_empty());
    rig.audit().await;
});

// Single bytes of a signed grant, changed at random: no key comes into force by what is not the grant that was asked for.
on_both!(a_changed_grant_makes_no_key, async |rig: Rig| {
    const MUTANTS: u32 = 1_000;
    let client = registered(&rig, 1).await;
    let asked = rig.ask_grant(&client, DAY).await;
    let signed: Psbt = client.grant(&asked.psbt).parse().expect("a PSBT");
    let bytes = signed.serialize();
    let mut dice = StdRng::seed_from_u64(0x6_2A27);
    let mut tried = 0;
    for _ in 0..MUTANTS {
        let mut mutant = bytes.clone();
        for _ in 0..dice.random_range(1..=3) {
            let place = dice.random_range(0..mutant.len());
            mutant[place] ^= dice.random_range(1..=255u8);
        }
        let consents = Psbt::deserialize(&mutant).is_ok_and(|psbt| {
            psbt.unsigned_tx == signed.unsigned_tx
                && psbt.inputs[0].final_script_witness == signed.inputs[0].final_script_witness
                && psbt.inputs[0].tap_key_sig == signed.inputs[0].tap_key_sig
        });
        if !consents {
            // What is changed elsewhere is not looked at: that is still the grant.
            grants::give(&rig.flows, &asked.key, &BASE64_STANDARD.encode(&mutant)).await.expect_err("it is refused");
            tried += 1;
        }
    }
    assert!(tried > MUTANTS / 4, "{tried} mutants prove little");
    assert_eq!(keys::list(&rig.flows).await.expect("the store answers"), []);
    grants::give(&rig.flows, &asked.key, &signed.to_string()).await.expect("the grant itself is taken");
    rig.audit().await;
});

/// A statement behind the gateway's back.
struct Tamper(&'static str);

#[async_trait]
impl Write for Tamper {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let written = sqlx::query(self.0).execute(tx.conn()).await?.rows_affected();
        if written == 0 { Err(StoreError::Corrupt("nothing was tampered with".to_owned())) } else { Ok(()) }
    }
}

on_both!(the_audit_finds_what_keys_have_used_otherwise, async |rig: Rig| {
    let client = registered(&rig, 1).await;
    rig.funded_offchain(&client, sat(100_000)).await;
    let key = rig.spending_key(&client, &["btc:50000/day", "btc:90000/month"], None).await;
    let (invoice, preimage) = rig.lightning.shop_invoice(Some(sat(10_000)));
    rig.key_pays(&client, &key, &invoice, Some(sat(100))).await.expect("it pays");
    rig.lightning.shop_claims(preimage).await;
    rig.audit().await;
    for (there, back, rule) in [
        (
            "UPDATE spending_budgets SET used = used - 1 WHERE period = 'day'",
            "UPDATE spending_budgets SET used = used + 1 WHERE period = 'day'",
            "budgets_of_keys_are_the_fold_of_their_payments",
        ),
        (
            "UPDATE key_payments SET amount = amount + 1",
            "UPDATE key_payments SET amount = amount - 1",
            "payments_by_keys_count_what_is_held_or_was_paid",
        ),
        (
            "UPDATE spending_budgets SET ends_at = starts_at + 1 WHERE period = 'month'",
            "UPDATE spending_budgets SET ends_at = starts_at + 2678400000 WHERE period = 'month'",
            "every_payment_by_a_key_is_in_a_budget_of_each_limit",
        ),
        (
            "UPDATE key_payments SET wallet_id = wallet_id || 'x'",
            "UPDATE key_payments SET wallet_id = SUBSTR(wallet_id, 1, 16)",
            "payments_by_keys_were_granted",
        ),
        (
            "UPDATE api_keys SET scopes = 'send,read'",
            "UPDATE api_keys SET scopes = 'read,send'",
            "grants_that_were_given_made_one_key",
        ),
    ] {
        rig.flows.store().write(Tamper(there)).await.expect("it is tampered with");
        let report = audit::audit(&rig.flows).await.expect("the audit runs");
        assert!(report.drifts.iter().any(|drift| drift.rule == rule), "{there}: {:?}", report.drifts);
        rig.flows.store().write(Tamper(back)).await.expect("it is put back");
    }
    // A payment without any consent is no payment by a key.
    let unlimited =
        NewKey { name: "n".to_owned(), scopes: vec![Scope::Send], wallets: vec![client.keys.id()], expires_at: None };
    let (unlimited, _) = keys::create(&rig.flows, unlimited).await.expect("a key");
    let (invoice, _) = rig.lightning.shop_invoice(Some(sat(1_000)));
    let error = rig.key_pays(&client, &unlimited, &invoice, None).await.expect_err("it has no limit");
    assert_eq!(error.code(), Code::SpendingNotGranted);
    rig.audit().await;
});
