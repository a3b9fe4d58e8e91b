//! The public test wallet of the contract, with a signer that has only what the contract promises: whatever the gateway hands out for
//! signing can be signed by it.

use serde_json::{Value, json};

use super::asset_scene::{Scene, scene};
use super::asset_transfers::text;
use crate::harness::process::Call;
use crate::harness::rig::{Client, Database};
use crate::harness::spec_signer::{PUBLIC, sign};

const FINGERPRINT: &str = "1f5bd7df";
const FIRST_ADDRESS: &str = "bcrt1pvpmd0cuvyha2sjylhr57kd6t8x9jrju8f063mdvkmk4c5uq464qqjpeapm";

/// Begins, has the bare signer sign, and ends.
async fn signed(scene: &Scene, wallet: &Client, begin: &str, end: &str, body: Value) -> Value {
    let begun = scene.ok(&Call::post(begin, wallet).json(body)).await;
    let ended = json!({ "signed_psbt": sign(text(&begun)) });
    scene.ok(&Call::post(end, wallet).json(ended)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contracts_signer_signs_whatever_is_handed_out() {
    let Some(scene) = scene(Database::Sqlite).await else { return };
    let (public, other) = (Client::of(PUBLIC), &scene.client);
    assert_eq!(public.keys.fingerprint(), FINGERPRINT);
    assert_eq!(public.address_at(0).to_string(), FIRST_ADDRESS);
    scene.join(&public).await;
    let coins = json!({ "num": 4, "size": 5_000, "fee_rate": 2 });
    let made = signed(&scene, &public, "/wallet/createutxosbegin", "/wallet/createutxosend", coins).await;
    assert_eq!(made, 4);
    scene.mine().await;
    let issue = json!({ "ticker": "GOLD", "name": "Gold", "amounts": [100] });
    let asset = scene.ok(&Call::post("/wallet/issueassetnia", &public).json(issue)).await["asset_id"].clone();
    let invoice = scene.ok(&Call::post("/wallet/witnessreceive", other).json(json!({ "amount": 30 }))).await;
    let send = json!({
        "invoice": invoice["invoice"], "asset_id": asset, "fee_rate": 2, "min_confirmations": 1,
    });
    let sent = signed(&scene, &public, "/wallet/sendbegin", "/wallet/sendend", send).await;
    let shown = Call::get(format!("/onchain-send/{}", text(&sent["send_id"])), &public);
    scene.until("it is out", &shown, |send| send["status"] == "BROADCASTED").await;
    scene.mine().await;
    scene.until("it is final", &shown, |send| send["status"] == "CONFIRMED").await;

    // What is left of the asset, from a coin of change; and bitcoin, from change too.
    let rest = scene.ok(&Call::post("/wallet/blindreceive", &public)).await;
    assert!(text(&rest["invoice"]).starts_with("rgb:"), "{rest}");
    let invoice = scene.ok(&Call::post("/wallet/witnessreceive", other).json(json!({ "amount": 60 }))).await;
    let send = json!({
        "address_or_rgbinvoice": invoice["invoice"], "fee_rate": 2, "asset": { "asset_id": asset, "amount": 60 },
    });
    let (begin, end) = ("/lightning/onchain-send-begin", "/lightning/onchain-send-end");
    let sent = signed(&scene, &public, begin, end, send).await;
    assert_eq!(sent["status"], "REQUESTED", "{sent}");
    let address = scene.ok(&Call::post("/wallet/address", other)).await;
    let bitcoin = json!({ "address": address, "amount": 10_000, "fee_rate": 2 });
    let txid = signed(&scene, &public, "/wallet/sendbtcbegin", "/wallet/sendbtcend", bitcoin).await;
    assert_eq!(text(&txid).len(), 64);
    let shown = Call::get(format!("/onchain-send/{}", text(&sent["send_id"])), &public);
    scene.until("it is out", &shown, |send| send["status"] == "BROADCASTED").await;
    scene.mine().await;
    scene.until("it is final", &shown, |send| send["status"] == "CONFIRMED").await;
    payments_and_the_export_too(&scene, &public, &asset).await;
    scene.end().await;
}

/// By the call that takes whatever the text is; and the message by which the owner leaves with what the gateway knows.
async fn payments_and_the_export_too(scene: &Scene, public: &Client, asset: &Value) {
    let wanted = json!({ "amount": 10 });
    let invoice = scene.ok(&Call::post("/wallet/witnessreceive", &scene.client).json(wanted)).await;
    let pay = json!({
        "address_or_invoice": invoice["invoice"], "asset": { "asset_id": asset, "amount": 10 }, "min_confirmations": 1,
        "fee_rate": 2,
    });
    let paid = signed(scene, public, "/lightning/paybegin", "/lightning/payend", pay).await;
    assert_eq!((&paid["status"], &paid["payment_type"]), (&json!("PENDING"), &json!("ASSET")), "{paid}");
    let shown = Call::get(format!("/onchain-send/{}", text(&paid["id"])), public);
    scene.until("it is out", &shown, |send| send["status"] == "BROADCASTED").await;
    let begun = scene.ok(&Call::post("/wallet/export-begin", public)).await;
    let ended = json!({ "signed_psbt": sign(text(&begun["psbt"])), "password": "correct horse battery staple" });
    let exported = scene.gateway.answer(&Call::post("/wallet/export-end", public).json(ended)).await;
    assert_eq!(exported.status, 200, "{:?}", exported.body);
    assert!(exported.bytes.len() > 1_000, "{}", exported.bytes.len());
}
