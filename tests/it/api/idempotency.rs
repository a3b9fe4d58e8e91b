//! A key makes one request, for ever, whoever asks at the same time.

use serde_json::json;

use super::{Scene, on_both, send_of};
use crate::harness::client::Call;

on_both!(
    one_key_is_one_send,
    one_key_is_one_address,
    the_same_value_written_otherwise_is_the_same_call,
    what_a_program_wrote_that_compared_bytes_goes_on_counting,
    a_race_for_a_key_has_one_winner_and_one_answer,
    a_race_for_the_only_coin_has_one_winner,
);

async fn one_key_is_one_send(scene: &Scene) {
    let owner = scene.funded(1, &[100_000, 90_000]).await;
    let to = scene.stranger().await;
    let begin = |sat| Call::post("/lightning/onchain-send-begin", &send_of(&to, sat)).idempotent("payout-7");
    let first = owner.call(begin(30_000)).await;
    let psbt = first.ok();
    let again = owner.call(begin(30_000)).await;
    assert_eq!(again.text, first.text, "byte for byte");
    for name in ["sluice-request-id", "sluice-expires-at", "sluice-fee-sats"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    owner.call(begin(30_001)).await.refused(422, "idempotency_mismatch");
    let other_door = json!({ "address": to, "amount": 30_000, "fee_rate": 2 });
    owner
        .call(Call::post("/wallet/sendbtcbegin", &other_door).idempotent("payout-7"))
        .await
        .refused(422, "idempotency_mismatch");
    owner.post("/lightning/onchain-send-end", json!({ "signed_psbt": owner.sign(&psbt) })).await.ok();
    assert_eq!(owner.call(begin(30_000)).await.text, first.text, "also when it is done");
    scene.mine(1).await;
    assert_eq!(owner.call(begin(30_000)).await.text, first.text);
    let sends = owner.get("/onchain-send").await.ok();
    assert_eq!(sends["sends"].as_array().map(Vec::len), Some(1));

    let stranger = scene.funded(2, &[100_000]).await;
    let foreign = stranger.call(begin(30_000)).await;
    assert_ne!(foreign.header("sluice-request-id"), first.header("sluice-request-id"), "a key belongs to its wallet");
    for bad in ["", &"x".repeat(256), "\u{e9}"] {
        let refused =
            owner.call(begin(30_000).header("idempotency-key", "second")).await.refused(400, "invalid_request");
        assert_eq!(refused["field"], "Idempotency-Key");
        let call = Call::post("/lightning/onchain-send-begin", &send_of(&to, 30_000)).header("idempotency-key", bad);
        assert_eq!(owner.call(call).await.refused(400, "invalid_request")["field"], "Idempotency-Key", "{bad}");
    }
}

async fn one_key_is_one_address(scene: &Scene) {
    let owner = scene.gateway.registered(1).await;
    let new =
        |label: &str| Call::post("/lightning/onchain-receive", &json!({ "label": label })).idempotent("customer-1");
    let first = owner.call(new("a")).await.ok();
    assert_eq!(owner.call(new("a")).await.ok(), first);
    owner.call(new("b")).await.refused(422, "idempotency_mismatch");
    scene.pay(&first["btc_address"], 50_000).await;
    scene.mine(1).await;
    assert_eq!(owner.call(new("a")).await.ok()["btc_address"], first["btc_address"], "also when it was paid to");
    let receive = || Call::post_empty("/lightning/receive").idempotent("customer-2");
    let made = owner.call(receive()).await.ok();
    assert_eq!(owner.call(receive()).await.ok(), made);
    assert_ne!(made["btc_address"], first["btc_address"]);
}

async fn the_same_value_written_otherwise_is_the_same_call(scene: &Scene) {
    let owner = scene.funded(1, &[100_000]).await;
    let to = scene.stranger().await;
    let begin = |body: String| Call::post_raw("/lightning/onchain-send-begin", body).idempotent("payout-8");
    let first =
        owner.call(begin(format!(r#"{{"address_or_rgbinvoice":"{to}","amount_sats":20000,"fee_rate":2}}"#))).await;
    first.ok();
    for other in [
        format!(r#"{{ "fee_rate": 2, "amount_sats": 20000, "address_or_rgbinvoice": "{to}" }}"#),
        format!("{{\n\t\"amount_sats\" : 20000,\n\t\"fee_rate\" : 2, \"address_or_rgbinvoice\":\"{to}\"}}\n"),
    ] {
        assert_eq!(owner.call(begin(other)).await.text, first.text, "byte for byte");
    }
    let other = format!(r#"{{"address_or_rgbinvoice":"{to}","amount_sats":20000,"fee_rate":3}}"#);
    owner.call(begin(other)).await.refused(422, "idempotency_mismatch");
    let label = |body: &str| Call::post_raw("/lightning/onchain-receive", body.as_bytes()).idempotent("customer-3");
    let address = owner.call(label(r#"{"label":"a","reference":"b"}"#)).await.ok();
    assert_eq!(owner.call(label(r#"{"reference":"b", "label":"a"}"#)).await.ok(), address);
    owner.call(label(r#"{"reference":"a", "label":"b"}"#)).await.refused(422, "idempotency_mismatch");
}

async fn what_a_program_wrote_that_compared_bytes_goes_on_counting(scene: &Scene) {
    let owner = scene.gateway.registered(1).await;
    let call = |body: &str| Call::post_raw("/lightning/onchain-receive", body.as_bytes()).idempotent("customer-4");
    let first = owner.call(call(r#"{"label": "a" }"#)).await.ok();
    scene.gateway.sql("UPDATE idempotency SET value_hash = NULL").await;
    assert_eq!(owner.call(call(r#"{"label": "a" }"#)).await.ok(), first, "the same bytes");
    owner.call(call(r#"{"label":"a"}"#)).await.refused(422, "idempotency_mismatch");
    // Most write a value as its one form is.
    let call = |body: &str| Call::post_raw("/lightning/onchain-receive", body.as_bytes()).idempotent("customer-5");
    let first = owner.call(call(r#"{"label":"a"}"#)).await.ok();
    scene.gateway.sql("UPDATE idempotency SET value_hash = NULL").await;
    assert_eq!(owner.call(call(r#"{ "label": "a" }"#)).await.ok(), first);
}

async fn a_race_for_a_key_has_one_winner_and_one_answer(scene: &Scene) {
    let owner = scene.funded(1, &[50_000, 60_000, 70_000, 80_000]).await;
    let to = scene.stranger().await;
    let racer = async |sat: u64| {
        owner.call(Call::post("/lightning/onchain-send-begin", &send_of(&to, sat)).idempotent("raced")).await
    };
    let answers = futures::future::join_all((0..12).map(|_| racer(20_000))).await;
    let first = answers[0].ok();
    assert!(answers.iter().all(|answer| answer.ok() == first), "every racer gets the same PSBT");
    let (a, b) = tokio::join!(
        owner.call(Call::post("/lightning/onchain-send-begin", &send_of(&to, 21_000)).idempotent("split")),
        owner.call(Call::post("/lightning/onchain-send-begin", &send_of(&to, 22_000)).idempotent("split")),
    );
    let mut statuses = [a.status, b.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 422], "{a} / {b}");
    let sends = owner.get("/onchain-send?state=awaiting_signature").await.ok();
    assert_eq!(sends["sends"].as_array().map(Vec::len), Some(2));
}

async fn a_race_for_the_only_coin_has_one_winner(scene: &Scene) {
    let owner = scene.funded(1, &[100_000]).await;
    let to = scene.stranger().await;
    let racers = (0..16u64).map(|n| owner.post("/lightning/onchain-send-begin", send_of(&to, 30_000 + n)));
    let answers = futures::future::join_all(racers).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!(won.len(), 1, "one coin, one send");
    for answer in &lost {
        assert_eq!(answer.refused(409, "coins_leased")["retryable"], true);
    }
    let signed = json!({ "signed_psbt": owner.sign(&won[0].ok()) });
    let ends = (0..8).map(|_| owner.post("/lightning/onchain-send-end", signed.clone()));
    let ended = futures::future::join_all(ends).await;
    assert!(ended.iter().all(|answer| answer.ok() == ended[0].body), "one transaction, one answer");
    let txid = ended[0].body["txid"].as_str().expect("a transaction id").to_owned();
    scene.in_mempool(&txid).await;
    assert_eq!(scene.node.rpc("getrawmempool", json!([])).await, json!([txid]));
    let sends = owner.get("/onchain-send").await.ok();
    assert_eq!(sends["sends"].as_array().map(Vec::len), Some(1), "who lost began nothing");
}
