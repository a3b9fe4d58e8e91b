//! Signers that put another version and sequence on what they sign: their consent is taken, and proven in the full form of BIP-322.

use bitcoin::transaction::Version;
use bitcoin::{Psbt, Sequence};
use sluice::domain::authorization::has_simple_form;
use sluice::flows::send::Source;
use sluice::flows::{Code, grants, pay_invoice, withdraw};
use sluice::money::Sat;

use crate::harness::lightning::sat;
use crate::harness::rig::{Client, Rig, on_both, stranger, wanted};
use crate::harness::spec_signer;

async fn rich(rig: &Rig) -> Client {
    let client = Client::of(spec_signer::PUBLIC);
    rig.register(&client).await;
    rig.funded_offchain(&client, sat(100_000)).await;
    client
}

/// What such a signer makes of it.
fn signed_as(psbt: &str, version: i32, sequence: u32) -> String {
    let mut psbt: Psbt = psbt.parse().expect("a PSBT");
    psbt.unsigned_tx.version = Version(version);
    psbt.unsigned_tx.input[0].sequence = Sequence(sequence);
    spec_signer::sign(&psbt.to_string())
}

on_both!(a_payment_is_consented_to_in_the_other_form_and_in_no_third, async |rig: Rig| {
    let client = rich(&rig).await;
    let (invoice, preimage) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let begun = rig.begin_pay(&client, &invoice, None).await.expect("it begins");
    for (version, sequence) in [(2, 0), (0, u32::MAX), (1, u32::MAX), (2, u32::MAX - 1), (3, u32::MAX)] {
        let odd = rig.end_pay_signed(&client, &signed_as(&begun.psbt, version, sequence)).await;
        assert_eq!(odd.expect_err("no such form is issued").code(), Code::PsbtAltered, "{version} {sequence}");
    }
    let mut late: Psbt = begun.psbt.parse().expect("a PSBT");
    late.unsigned_tx.lock_time = bitcoin::absolute::LockTime::from_height(1).expect("a height");
    let late = rig.end_pay_signed(&client, &spec_signer::sign(&late.to_string())).await;
    assert_eq!(late.expect_err("nor one that is good later").code(), Code::PsbtAltered);
    let signed = signed_as(&begun.psbt, 2, u32::MAX);
    rig.end_pay_signed(&client, &signed).await.expect("it is the wallet's consent");
    rig.lightning.shop_claims(preimage).await;
    rig.settle().await;
    // The same again, in either form, answers the same; the first signature is the proof.
    for again in [signed, client.sign(&begun.psbt)] {
        rig.end_pay_signed(&client, &again).await.expect("it answers");
    }
    assert_eq!(rig.payment_state(&client, begun.request).await, "succeeded");
    let proof = pay_invoice::consent(&rig.flows, &client.keys.id(), begun.request).await.expect("the store answers");
    let proof = proof.expect("there is a proof").signed_tx.expect("it is signed");
    assert_eq!((proof.version, proof.input[0].sequence), (Version::TWO, Sequence::MAX));
    assert!(!has_simple_form(&proof), "the witness alone would not prove it");
    rig.audit().await;
});

on_both!(a_withdrawal_and_a_grant_are_consented_to_in_the_other_form, async |rig: Rig| {
    let client = rich(&rig).await;
    let chain = std::sync::Arc::clone(&rig.chain);
    rig.lightning.node.send_through(move |script, amount| chain.pay(script, amount).expect("the fake pays"));
    rig.lightning.node.fund(Sat::literal(500_000));
    rig.lightning.network.mine(1);
    let out = wanted(&stranger(), 50_000);
    let begun = withdraw::begin_either(&rig.flows, &client.keys, Some(Source::Offchain), out, None).await;
    let signed = signed_as(&begun.expect("it begins").psbt, 2, u32::MAX);
    let ended = withdraw::end(&rig.flows, &client.keys, &signed).await.expect("it ends");
    assert!(ended.is_some(), "it is a withdrawal");
    rig.mine(6).await;
    let asked = rig.ask_grant(&client, &["btc:1000/day"]).await;
    let given = grants::give(&rig.flows, &asked.key, &signed_as(&asked.psbt, 2, u32::MAX)).await.expect("it is given");
    assert!(!has_simple_form(&given.signed_tx.expect("it is signed")));
    rig.audit().await;
});
