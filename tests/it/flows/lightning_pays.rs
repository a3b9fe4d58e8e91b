//! Paying over Lightning: what is consented to is paid once, and only a definite word of the node moves the money.

use bitcoin::Psbt;
use bitcoin::base64::Engine as _;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice::connectors::fake::Fault;
use sluice::domain::pay::{Door, State};
use sluice::domain::receive::Rail;
use sluice::flows::pay_invoice;
use sluice::flows::{BodyHash, Code, Idempotency};
use sluice::ports::lightning::LightningNode;

use crate::harness::lightning::{CHANNEL_SIDE, msat, paying, sat};
use crate::harness::rig::{Client, Rig, on_both};

/// A wallet with money off-chain.
async fn rich(rig: &Rig, number: u32) -> Client {
    let client = Client::number(number);
    rig.register(&client).await;
    rig.funded_offchain(&client, sat(100_000)).await;
    client
}

on_both!(a_payment_settles_at_what_it_cost, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let (invoice, preimage) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let begun = rig.begin_pay(&client, &invoice, None).await.expect("it begins");
    assert_eq!(rig.available(&client).await, 100_000_000 - 10_000_000 - 3_000_000, "amount and ceiling are held");
    assert!(begun.message.as_ref().is_some_and(|text| text.contains(&preimage.hash().to_string())));
    let ended = rig.end_pay(&client, &begun).await.expect("it ends");
    assert_eq!(ended.machine.payment_state(), "paying");
    rig.lightning.shop_claims(preimage).await;
    rig.settle().await;
    let succeeded = State::Succeeded { fee: msat(0), preimage, by: Rail::Channel };
    assert_eq!(rig.payment(&client, begun.request).await.state, succeeded);
    assert_eq!(rig.available(&client).await, 90_000_000, "a direct channel costs nothing");
    // The same again answers the same.
    let again = rig.end_pay(&client, &begun).await.expect("it answers");
    assert_eq!(again.machine.state, succeeded);
    let refused = rig.begin_pay(&client, &invoice, None).await.expect_err("it was paid");
    assert_eq!(refused.code(), Code::AlreadyPaid);
    rig.audit().await;
});

on_both!(many_ends_are_one_payment, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let (invoice, preimage) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let begun = rig.begin_pay(&client, &invoice, None).await.expect("it begins");
    let signed = client.sign(&begun.psbt);
    let all = join_all((0..64).map(|_| rig.end_pay_signed(&client, &signed))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    rig.lightning.shop_claims(preimage).await;
    rig.settle().await;
    assert_eq!(rig.available(&client).await, 90_000_000);
    rig.audit().await;
});

on_both!(two_wallets_paying_one_invoice_are_told_apart, async |rig: Rig| {
    let (one, other) = (rich(&rig, 1).await, rich(&rig, 2).await);
    let (invoice, preimage) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let both = tokio::join!(rig.begin_pay(&one, &invoice, None), rig.begin_pay(&other, &invoice, None));
    let (mine, theirs) = (both.0.expect("it begins"), both.1.expect("and so does the other one"));
    let loser = match tokio::join!(rig.end_pay(&one, &mine), rig.end_pay(&other, &theirs)) {
        (Ok(_), Err(lost)) | (Err(lost), Ok(_)) => lost,
        both => panic!("one of them ends: {both:?}"),
    };
    assert_eq!(loser.code(), Code::PaymentInProgress);
    rig.lightning.shop_claims(preimage).await;
    rig.settle().await;
    rig.wait(3_600).await;
    assert_eq!(rig.available(&one).await + rig.available(&other).await, 190_000_000);
    rig.audit().await;
});

on_both!(an_idempotency_key_is_one_payment, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let (invoice, _) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let key = |body: &str| Some(Idempotency { key: "k".to_owned(), body_hash: BodyHash::of_bytes(body) });
    let begin = |body: &'static str| pay_invoice::begin(&rig.flows, &client.keys, paying(&invoice, None), key(body));
    let all = join_all((0..8).map(|_| begin("same"))).await;
    let first = all[0].as_ref().expect("it begins");
    assert!(all.iter().all(|begun| begun.as_ref().is_ok_and(|begun| begun == first)), "{all:?}");
    assert_eq!(begin("other").await.expect_err("another body").code(), Code::IdempotencyMismatch);
    rig.wait(3_600).await;
    assert_eq!(begin("same").await.expect_err("it is over").code(), Code::RequestExpired);
    assert_eq!(rig.available(&client).await, 100_000_000, "what was held is free again");
    rig.audit().await;
});

on_both!(a_consent_is_good_for_one_request_of_one_wallet, async |rig: Rig| {
    let (one, other) = (rich(&rig, 1).await, rich(&rig, 2).await);
    let (invoice, _) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let (second, _) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let begun = rig.begin_pay(&one, &invoice, None).await.expect("it begins");
    let signed = one.sign(&begun.psbt);
    let foreign = rig.end_pay_signed(&other, &signed).await.expect_err("another wallet's");
    assert_eq!(foreign.code(), Code::PsbtUnknown);
    let wrong_door = pay_invoice::end(&rig.flows, &one.keys, Door::Pay, &signed).await.expect_err("another endpoint");
    assert_eq!(wrong_door.code(), Code::PsbtUnknown);
    let unsigned = rig.end_pay_signed(&one, &begun.psbt).await.expect_err("unsigned");
    assert_eq!(unsigned.code(), Code::PsbtNotSigned);
    // The signature of one request on the authorisation of another.
    let theirs = rig.begin_pay(&other, &second, None).await.expect("it begins");
    let mut moved: bitcoin::Psbt = theirs.psbt.parse().expect("a PSBT");
    moved.inputs[0].final_script_witness =
        signed.parse::<bitcoin::Psbt>().expect("a PSBT").inputs[0].final_script_witness.clone();
    moved.inputs[0].tap_key_sig = signed.parse::<bitcoin::Psbt>().expect("a PSBT").inputs[0].tap_key_sig;
    let moved = rig.end_pay_signed(&other, &moved.to_string()).await.expect_err("not this wallet's key");
    assert_eq!(moved.code(), Code::InvalidSignature);
    // A message that says something else is another transaction.
    let mut altered: bitcoin::Psbt = signed.parse().expect("a PSBT");
    altered.unsigned_tx.input[0].previous_output.vout = 1;
    assert_eq!(rig.end_pay_signed(&one, &altered.to_string()).await.expect_err("altered").code(), Code::PsbtUnknown);
    assert_eq!(rig.payment_state(&one, begun.request).await, "awaiting_signature");
    rig.audit().await;
});

on_both!(no_way_gives_back_what_was_held, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let (invoice, _) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let begun = rig.begin_pay(&client, &invoice, None).await.expect("it begins");
    rig.lightning.shop.set_fault(Fault::Down);
    rig.end_pay(&client, &begun).await.expect("the consent is taken");
    rig.settle().await;
    assert_eq!(rig.payment_state(&client, begun.request).await, "failed");
    assert_eq!(rig.available(&client).await, 100_000_000);
    // The same invoice can be paid later.
    rig.lightning.shop.set_fault(None);
    rig.begin_pay(&client, &invoice, None).await.expect("it begins anew");
    rig.audit().await;
});

on_both!(an_answer_that_is_lost_moves_nothing, async |rig: Rig| {
    for fault in [Fault::AnswerLost, Fault::PaymentLost] {
        let client = rich(&rig, if fault == Fault::AnswerLost { 1 } else { 2 }).await;
        let (invoice, preimage) = rig.lightning.shop_invoice(Some(sat(10_000)));
        let begun = rig.begin_pay(&client, &invoice, None).await.expect("it begins");
        rig.lightning.node.set_fault(fault);
        let ended = rig.end_pay(&client, &begun).await.expect("the consent is taken");
        assert_eq!(ended.machine.payment_state(), "paying");
        assert_eq!(rig.available(&client).await, 87_000_000, "it keeps its hold");
        rig.lightning.node.set_fault(None);
        // The effect asks again: the same payment, not a second one.
        rig.settle().await;
        rig.lightning.shop_claims(preimage).await;
        rig.settle().await;
        assert_eq!(rig.payment_state(&client, begun.request).await, "succeeded");
        assert_eq!(rig.available(&client).await, 90_000_000);
    }
    rig.audit().await;
});

on_both!(the_ceiling_is_held_to, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    // A stranger behind the shop, who asks 99 %.
    let far = rig.lightning.network.add_node();
    rig.lightning.network.open(&rig.lightning.shop, &far, CHANNEL_SIDE, CHANNEL_SIDE);
    rig.lightning.shop.set_fees(msat(0), 990_000);
    let far_invoice = far.invoice(Some(sat(10_000)), "far").0;
    let refused = rig.begin_pay(&client, &far_invoice, Some(sat(100))).await.expect_err("too dear");
    assert_eq!((refused.code(), refused.field_name()), (Code::FeeLimitTooLow, Some("max_fee_sats")));
    assert!(refused.to_string().contains("9900 sat"), "it names the cheapest: {refused}");
    // Dear only after the begin: the node keeps to the ceiling.
    rig.lightning.shop.set_fees(msat(0), 1_000);
    let begun = rig.begin_pay(&client, &far_invoice, Some(sat(100))).await.expect("it begins");
    rig.lightning.shop.set_fees(msat(0), 990_000);
    rig.end_pay(&client, &begun).await.expect("the consent is taken");
    rig.settle().await;
    assert_eq!(rig.payment_state(&client, begun.request).await, "failed");
    assert_eq!(rig.available(&client).await, 100_000_000);
    rig.audit().await;
});

on_both!(an_overspending_node_costs_the_operator_and_stops_payouts, async |rig: Rig| {
    let client = rich(&rig, 1).await;
    let far = rig.lightning.network.add_node();
    rig.lightning.network.open(&rig.lightning.shop, &far, CHANNEL_SIDE, CHANNEL_SIDE);
    rig.lightning.shop.set_fees(msat(0), 1_000);
    let (invoice, preimage) = far.invoice(Some(sat(10_000)), "far");
    let begun = rig.begin_pay(&client, &invoice, Some(sat(10))).await.expect("it begins");
    rig.lightning.node.overspend(sat(90));
    rig.end_pay(&client, &begun).await.expect("the consent is taken");
    far.claim(preimage.hash(), Some(preimage)).await.expect("it claims");
    rig.settle().await;
    assert_eq!(rig.payment_state(&client, begun.request).await, "succeeded");
    assert_eq!(rig.available(&client).await, 100_000_000 - 10_000_000 - 10_000, "the wallet pays its ceiling");
    let (other, _) = rig.lightning.shop_invoice(Some(sat(10)));
    let refused = rig.begin_pay(&client, &other, None).await.expect_err("payouts are stopped");
    assert_eq!(refused.code(), Code::PayoutsHalted);
    rig.audit().await;
});

on_both!(a_balance_is_enough_for_one_of_many, async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    rig.funded_offchain(&client, sat(10_000)).await;
    let mut invoices = Vec::new();
    for _ in 0..16 {
        invoices.push(rig.lightning.shop_invoice(Some(sat(9_000))).0);
    }
    let begun = join_all(invoices.iter().map(|invoice| rig.begin_pay(&client, invoice, Some(sat(10))))).await;
    assert_eq!(begun.iter().filter(|begun| begun.is_ok()).count(), 1);
    for refused in begun.into_iter().filter_map(Result::err) {
        assert_eq!(refused.code(), Code::InsufficientFunds);
    }
    rig.audit().await;
});

// Single bytes of a signed authorisation, changed at random: nothing is paid by what is not the consent that was asked for.
on_both!(a_changed_authorisation_pays_nothing, async |rig: Rig| {
    const MUTANTS: u32 = 2_000;
    let client = rich(&rig, 1).await;
    let (invoice, _) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let begun = rig.begin_pay(&client, &invoice, None).await.expect("it begins");
    let signed: Psbt = client.sign(&begun.psbt).parse().expect("a PSBT");
    let bytes = signed.serialize();
    let mut dice = StdRng::seed_from_u64(0x51_1CE);
    let mut refused = 0;
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
        if consents {
            // What was changed is not looked at: this is the consent, and is left for the end.
            continue;
        }
        let text = bitcoin::base64::engine::general_purpose::STANDARD.encode(&mutant);
        assert!(rig.end_pay_signed(&client, &text).await.is_err());
        refused += 1;
    }
    assert!(refused > MUTANTS / 4, "{refused} mutants prove little");
    assert_eq!(rig.payment_state(&client, begun.request).await, "awaiting_signature");
    assert_eq!(rig.lightning.node.paid().0, 0, "the node was asked to pay");
    rig.end_pay_signed(&client, &signed.to_string()).await.expect("the consent itself is taken");
    assert_eq!(rig.payment_state(&client, begun.request).await, "paying");
    rig.audit().await;
});
