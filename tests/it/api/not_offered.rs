//! What this gateway does not have is said to be missing, by name, and never looks like a mistake of the caller's.

use serde_json::{Value, json};

use sluice::http::api::examples::INVOICE;

use crate::harness::client::Call;
use crate::harness::document::{Operation, operations};
use crate::harness::gateway::Gateway;
use crate::harness::rig::stranger;

const LIGHTNING: &str = "lightning_unavailable";
const ASSETS: &str = "assets_unavailable";
/// Where there was never an engine, what they list is nothing.
const LISTS: [&str; 3] = ["/wallet/listassets", "/wallet/listtransfers", "/lightning/listtransfers"];
const UNKNOWN: &str = "0198c0f2-9d7c-7f6e-a1c2-0d3be5a90b47";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_an_engine_says_so_to_whoever_asks_for_assets() {
    let (gateway, _chain) = Gateway::start_fake(&[]).await;
    let caller = gateway.registered(1).await;
    // Ending needs no engine: what was begun elsewhere is unknown here.
    let is_list = |operation: &Operation| LISTS.contains(&operation.path.as_str());
    let needs_one =
        |operation: &Operation| operation.is_about_assets() && !operation.path.ends_with("end") && !is_list(operation);
    for operation in operations().into_iter().filter(needs_one) {
        let call = Call::post(operation.path.as_str(), &operation.example());
        caller.call(call.expecting(501)).await.refused(501, ASSETS);
    }
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
    // The amount is that of the invoice.
    let pay = |to: &str, asset: Value| {
        ("/lightning/paybegin", json!({ "address_or_invoice": to, "amount_sats": 5_000, "asset": asset }))
    };
    let cases = [
        (send("rgb:~/~/bcrt:utxob:2fgs9", json!({})), ASSETS),
        (send(&to, json!({ "source": "offchain" })), LIGHTNING),
        (("/lightning/settle-begin", json!({ "amount_sats": 5_000, "fee_rate": 2 })), LIGHTNING),
        (
            ("/lightning/settle-begin", json!({ "amount_sats": 5_000, "fee_rate": 2, "asset": asset })),
            "asset_lightning_unavailable",
        ),
        (pay(INVOICE, Value::Null), LIGHTNING),
        (pay(&format!("LIGHTNING:{}", INVOICE.to_uppercase()), Value::Null), LIGHTNING),
        (pay(&format!("bitcoin:?lightning={INVOICE}"), Value::Null), LIGHTNING),
        (("/lightning/pay-invoice-begin", json!({ "invoice": INVOICE })), LIGHTNING),
        (("/lightning/fee-estimate", json!({ "invoice": INVOICE })), LIGHTNING),
        (("/lightning/fee-estimate", json!({ "invoice": INVOICE, "asset": asset })), "asset_lightning_unavailable"),
        (("/lightning/create-invoice", json!({ "amount_sats": 5_000 })), LIGHTNING),
        (("/lightning/create-invoice", json!({ "amount_sats": 5_000, "asset": asset })), "asset_lightning_unavailable"),
        (("/lightning/decode", json!({ "input": "rgb:~/~/bcrt:utxob:2fgs9" })), ASSETS),
        (pay("lnbcrt50u1pj", asset.clone()), "asset_lightning_unavailable"),
        (pay("rgb:~/~/bcrt:utxob:2fgs9", Value::Null), ASSETS),
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
    for list in &LISTS[1..] {
        assert_eq!(caller.post(*list, json!({ "asset_id": "rgb:x" })).await.ok(), json!([]));
    }
    let assets = caller.post_empty(LISTS[0]).await.ok();
    assert!(assets.as_object().expect("an object").values().all(|of_kind| *of_kind == json!([])), "{assets}");
    assert_eq!(caller.get("/lightning/listpayments").await.ok(), json!({ "payments": [], "next_cursor": null }));
    let balance = caller.get("/lightning/balance").await.ok();
    let offchain =
        json!({ "total": 0, "details": [], "total_msat": 0, "held_msat": 0, "available_msat": 0, "debt_msat": 0 });
    assert_eq!((&balance["balance"]["offchain_balance"], &balance["asset_balances"]), (&offchain, &json!([])));
    let received = caller.post_empty("/lightning/receive").await.ok();
    assert_eq!((&received["asset_invoice"], &received["ln_invoice"]), (&json!(""), &json!("")));
    assert!(received["ln_request_id"].is_null(), "{received}");
    let can = caller.get("/lightning/capabilities").await.ok();
    assert_eq!(
        (&can["lightning"]["configured"], &can["assets"], &can["facades"]),
        (&json!(false), &json!(false), &json!([]))
    );
    let proof = caller.get(format!("/lightning/send-request/{UNKNOWN}/authorization")).await;
    proof.refused(404, "not_found");
    gateway.stop().await;
}
