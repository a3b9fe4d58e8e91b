//! Begin, sign, end, confirm through each of the three doors.

use serde_json::{Value, json};

use super::{Scene, fields, on_both, send_of};
use crate::harness::client::Call;

on_both!(
    through_the_wallets_door,
    through_the_door_of_sends,
    through_the_door_of_payments,
    a_wallet_is_emptied_to_the_last_satoshi
);

const BEGIN_HEADERS: [&str; 4] = ["sluice-request-id", "sluice-expires-at", "sluice-source", "sluice-fee-sats"];

async fn through_the_wallets_door(scene: &Scene) {
    let owner = scene.funded(1, &[100_000]).await;
    let to = scene.stranger().await;
    let begun = owner
        .post("/wallet/sendbtcbegin", json!({ "address": to, "amount": 40_000, "fee_rate": 3, "skip_sync": false }))
        .await;
    for name in BEGIN_HEADERS {
        assert!(begun.header(name).is_some(), "{name}");
    }
    assert_eq!(begun.header("sluice-source"), Some("onchain"));
    let psbt = begun.ok();
    assert!(psbt.as_str().is_some_and(|text| text.starts_with("cHNidP8") && !text.contains('\n')), "{psbt}");
    let signed = json!({ "signed_psbt": owner.sign(&psbt), "skip_sync": true });
    let txid = owner.post("/wallet/sendbtcend", signed.clone()).await.ok();
    let id = begun.header("sluice-request-id").expect("an id").to_owned();
    let txid = txid.as_str().expect("a transaction id");
    scene.in_mempool(txid).await;
    assert_eq!(scene.paid_to(txid, &to).await, 40_000);
    scene.mine(1).await;
    let send = owner.get(format!("/onchain-send/{id}")).await.ok();
    assert_eq!((&send["status"], &send["txid"]), (&json!("CONFIRMED"), &json!(txid)));
    assert_eq!(owner.post("/wallet/sendbtcend", signed).await.ok(), json!(txid), "the same again answers the same");
}

async fn through_the_door_of_sends(scene: &Scene) {
    let owner = scene.funded(1, &[100_000]).await;
    let to = scene.stranger().await;
    let mut wanted = send_of(&to, 30_000);
    wanted["reference"] = json!("payout-1");
    let begin = Call::post("/lightning/onchain-send-begin", &wanted);
    let begun = owner.call(begin.for_object()).await;
    let object = begun.ok();
    assert_eq!(fields(&object), ["expires_at", "fee_sats", "message", "psbt", "request_id", "source"]);
    assert!(object["message"].is_null() && object["source"] == "onchain");
    assert_eq!(begun.header("sluice-request-id"), object["request_id"].as_str());
    assert_eq!(begun.header("sluice-fee-sats"), Some(object["fee_sats"].to_string().as_str()));
    assert_eq!(begun.header("sluice-expires-at"), object["expires_at"].as_str());
    let id = object["request_id"].as_str().expect("an id");
    let path = format!("/onchain-send/{id}");
    assert_requested(&owner.get(&path).await.ok(), &to.to_string());

    let signed = json!({ "signed_psbt": owner.sign(&object) });
    let ended = owner.post("/lightning/onchain-send-end", signed.clone()).await.ok();
    assert_eq!(fields(&ended), ["send_id", "status", "txid", "withdrawal_id"]);
    assert_eq!((&ended["send_id"], &ended["withdrawal_id"]), (&json!(id), &json!(id)));
    let txid = ended["txid"].as_str().expect("a transaction id");
    scene.in_mempool(txid).await;
    let fee = scene.node.rpc("getmempoolentry", json!([txid])).await["fees"]["base"].as_f64().expect("a fee");
    let fee_sats = object["fee_sats"].as_f64().expect("a fee");
    assert!((fee * 100_000_000.0 - fee_sats).abs() < 0.5, "the fee that was named is the fee that is paid");
    let out = owner.until(&path, |send| send["last_error"].is_null() && send["status"] == "BROADCASTED").await;
    assert_eq!((&out["amount_sats_sent"], &out["fee_sats"]), (&json!(30_000), &object["fee_sats"]));

    scene.mine(1).await;
    let done = owner.get(&path).await.ok();
    assert_eq!(done, owner.get(format!("/lightning/onchain-send/{id}")).await.ok(), "the other path says the same");
    assert_eq!((&done["status"], &done["state"]), (&json!("CONFIRMED"), &json!("confirmed")));
    let times = &done["timestamps"];
    for name in ["created", "completed", "created_at", "updated_at"] {
        assert!(times[name].is_i64() || times[name].is_u64(), "{name} in {times}");
    }
    let again = owner.post("/lightning/onchain-send-end", signed).await.ok();
    assert_eq!((&again["status"], &again["send_id"]), (&json!("CONFIRMED"), &json!(id)));
}

fn assert_requested(send: &Value, to: &str) {
    assert_eq!(
        fields(send),
        [
            "address_or_rgbinvoice",
            "amount_sats_requested",
            "amount_sats_sent",
            "asset",
            "close_txids",
            "error_code",
            "error_message",
            "expires_at",
            "fee_sats",
            "height",
            "last_error",
            "reference",
            "retryable",
            "send_id",
            "source",
            "state",
            "status",
            "sweep_txid",
            "timestamps",
            "txid",
            "versions",
            "withdrawal_id",
        ]
    );
    assert_eq!((&send["status"], &send["address_or_rgbinvoice"]), (&json!("REQUESTED"), &json!(to)));
    assert_eq!((&send["amount_sats_requested"], &send["reference"]), (&json!(30_000), &json!("payout-1")));
    for empty in ["amount_sats_sent", "asset", "sweep_txid", "error_code", "error_message", "txid", "height"] {
        assert!(send[empty].is_null(), "{empty} in {send}");
    }
    assert_eq!((&send["close_txids"], &send["retryable"]), (&json!([]), &json!(false)));
}

async fn through_the_door_of_payments(scene: &Scene) {
    let owner = scene.funded(1, &[100_000]).await;
    scene.mine(2).await;
    let to = scene.stranger().await;
    let uri = json!({ "address_or_invoice": format!("bitcoin:{to}?amount=0.0002") });
    let psbt = owner.post("/lightning/paybegin", uri).await.ok();
    let signed = json!({ "signed_psbt": owner.sign(&psbt) });
    let ended = owner.post("/lightning/payend", signed.clone()).await.ok();
    assert_eq!(
        fields(&ended),
        ["amount_sats", "asset", "created_at", "fee_sats", "id", "payment_type", "status", "txid"]
    );
    assert_eq!((&ended["status"], &ended["payment_type"]), (&json!("PENDING"), &json!("BTC")));
    assert_eq!((&ended["amount_sats"], &ended["asset"]), (&json!(20_000), &Value::Null));
    assert!(ended["created_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{ended}");
    let txid = ended["txid"].as_str().expect("a transaction id");
    scene.in_mempool(txid).await;
    assert_eq!(scene.paid_to(txid, &to).await, 20_000);
    scene.mine(1).await;
    let again = owner.post("/lightning/payend", signed).await.ok();
    assert_eq!((&again["status"], &again["txid"], &again["id"]), (&json!("SUCCEEDED"), &json!(txid), &ended["id"]));
}

async fn a_wallet_is_emptied_to_the_last_satoshi(scene: &Scene) {
    let owner = scene.funded(1, &[60_000, 40_000]).await;
    let to = scene.stranger().await;
    let whole = owner.post("/lightning/onchain-send-begin", send_of(&to, 100_000)).await;
    whole.refused(409, "insufficient_funds");
    let mut wanted = send_of(&to, 100_000);
    wanted["deduct_fee_from_amount"] = json!(true);
    let begun = owner.call(Call::post("/lightning/onchain-send-begin", &wanted).for_object()).await.ok();
    let fee = begun["fee_sats"].as_u64().expect("a fee");
    let signed = json!({ "signed_psbt": owner.sign(&begun) });
    let txid = owner.post("/lightning/onchain-send-end", signed).await.ok()["txid"].clone();
    scene.in_mempool(txid.as_str().expect("a transaction id")).await;
    assert_eq!(scene.paid_to(txid.as_str().expect("a transaction id"), &to).await, 100_000 - fee);
    scene.mine(1).await;
    let id = begun["request_id"].as_str().expect("an id");
    let send = owner.get(format!("/onchain-send/{id}")).await.ok();
    assert_eq!((&send["amount_sats_requested"], &send["amount_sats_sent"]), (&json!(100_000), &json!(100_000 - fee)));
    assert_eq!(owner.post_empty("/wallet/listunspents").await.ok(), json!([]));
    let balance = owner.post_empty("/wallet/btcbalance").await.ok();
    assert_eq!(balance["vanilla"], json!({ "settled": 0, "future": 0, "spendable": 0 }));
}
