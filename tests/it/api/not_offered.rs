//! What this gateway does not have is said to be missing, by name, and never looks like a mistake of the caller's.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::harness::client::{Answer, Call, Caller};
use crate::harness::document::operations;
use crate::harness::gateway::Gateway;
use crate::harness::rig::stranger;

const LIGHTNING: &str = "lightning_unavailable";
const ASSETS: &str = "assets_unavailable";
const UNKNOWN: &str = "0198c0f2-9d7c-7f6e-a1c2-0d3be5a90b47";

/// The code of each endpoint that waits for its rail.
fn codes() -> HashMap<&'static str, &'static str> {
    let lightning = [
        "/lightning/create-invoice",
        "/lightning/pay-invoice-begin",
        "/lightning/pay-invoice-end",
        "/lightning/pay-invoice",
        "/lightning/fee-estimate",
        "/lightning/send-request/{request_id}/authorization",
        "/lightning/decode",
        "/lightning/settle",
        "/lightning/settle-begin",
        "/lightning/settle-end",
        "/lightning/settle/{id}",
        "/lightning/capabilities",
    ];
    let assets = [
        "/lightning/listtransfers",
        "/wallet/createutxosbegin",
        "/wallet/createutxosend",
        "/wallet/listassets",
        "/wallet/assetbalance",
        "/wallet/issueassetnia",
        "/wallet/blindreceive",
        "/wallet/witnessreceive",
        "/wallet/decodergbinvoice",
        "/wallet/sendbegin",
        "/wallet/sendend",
        "/wallet/listtransfers",
        "/wallet/failtransfers",
    ];
    lightning.map(|path| (path, LIGHTNING)).into_iter().chain(assets.map(|path| (path, ASSETS))).collect()
}

async fn no_body(caller: &Caller, path: &str) -> Answer {
    caller.call(Call::post_empty(path).expecting(501)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_without_its_rail_answers_501_with_its_code() {
    let (gateway, _chain) = Gateway::start_fake(&[]).await;
    let caller = gateway.registered(1).await;
    let mut codes = codes();
    for operation in operations().into_iter().filter(|operation| operation.is_not_offered()) {
        let code =
            codes.remove(operation.path.as_str()).unwrap_or_else(|| panic!("{} is not in the list", operation.path));
        let path = operation.path_with(UNKNOWN);
        if operation.method == "GET" {
            caller.call(Call::get(path).expecting(501)).await.refused(501, code);
            continue;
        }
        let example = operation.example();
        caller.call(Call::post(path.as_str(), &example).expecting(501)).await.refused(501, code);
        no_body(&caller, &path).await.refused(501, code);
        caller.call(Call::post_raw(path.as_str(), "{").expecting(501)).await.refused(501, code);
    }
    assert!(codes.is_empty(), "offered, or not in the document: {codes:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_needs_another_rail_is_told_which() {
    let (gateway, _chain) = Gateway::start_fake(&[]).await;
    let caller = gateway.registered(1).await;
    let asset = json!({ "asset_id": "rgb:2dkSTbr-jFhznbPmo", "amount": 10 });
    let to = stranger().to_string();
    let send = |to: &str, more: Value| {
        let mut body = json!({ "address_or_rgbinvoice": to, "amount_sats": 5_000, "fee_rate": 2 });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        ("/lightning/onchain-send-begin", body)
    };
    let pay = |to: &str, asset: Value| {
        ("/lightning/paybegin", json!({ "address_or_invoice": to, "amount_sats": 5_000, "asset": asset }))
    };
    let cases = [
        (send(&to, json!({ "asset": asset })), ASSETS),
        (send("rgb:~/~/bcrt:utxob:2fgs9", json!({})), ASSETS),
        (send(&to, json!({ "source": "offchain" })), "offchain_unavailable"),
        (pay("lnbcrt50u1pj", Value::Null), LIGHTNING),
        (pay("LIGHTNING:LNBCRT1", Value::Null), LIGHTNING),
        (pay("lnbcrt50u1pj", asset.clone()), "asset_lightning_unavailable"),
        (pay("rgb:~/~/bcrt:utxob:2fgs9", Value::Null), ASSETS),
        (pay(&to, asset.clone()), ASSETS),
        (("/lightning/receive", json!({ "amount_sat": 3_000, "asset": asset })), ASSETS),
    ];
    let before = gateway.row_counts().await;
    for ((path, body), code) in cases {
        caller.call(Call::post(path, &body).expecting(501)).await.refused(501, code);
    }
    assert_eq!(gateway.row_counts().await, before);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_empty_for_want_of_a_rail_is_empty_and_not_an_error() {
    let (gateway, _chain) = Gateway::start_fake(&[]).await;
    let caller = gateway.registered(1).await;
    for id in [UNKNOWN, "1", "any-word", "lnbcrt"] {
        for kind in ["receive-request", "send-request"] {
            let answer = caller.get(format!("/lightning/{kind}/{id}")).await;
            assert_eq!((answer.status, answer.text.as_str()), (200, "null"), "{answer}");
        }
        caller.get(format!("/onchain-send/{id}")).await.refused(404, "not_found");
    }
    assert_eq!(caller.get("/lightning/listpayments").await.ok(), json!({ "payments": [], "next_cursor": null }));
    let balance = caller.get("/lightning/balance").await.ok();
    let offchain = json!({ "total": 0, "details": [], "total_msat": 0, "held_msat": 0, "available_msat": 0 });
    assert_eq!((&balance["balance"]["offchain_balance"], &balance["asset_balances"]), (&offchain, &json!([])));
    let received = caller.post_empty("/lightning/receive").await.ok();
    assert_eq!((&received["asset_invoice"], &received["ln_invoice"]), (&json!(""), &json!("")));
    gateway.stop().await;
}
