//! What callers write in another way than it is written here: it is understood, or refused by the name of what is wrong with it.

use std::time::Duration;

use lightning_invoice::Currency;
use serde_json::{Value, json};

use crate::conformance::lightning::invoice_of_nobody;
use crate::harness::client::Call;
use crate::harness::gateway::Gateway;
use crate::harness::lightning::{msat, sat};
use crate::harness::rig::Database;

#[tokio::test]
async fn what_is_spelt_otherwise_is_understood_or_named() {
    let started = Gateway::start_lightning(Database::Sqlite, &[]).await;
    let (gateway, _chain, lightning) = started.expect("SQLite is always there");
    let caller = gateway.registered(1).await;

    // An id that can't be one is as unknown as one that never was.
    let long = "x".repeat(300);
    for id in ["a%20b", "%00", "%ff", long.as_str(), "0198c0f2-9d7c-7f6e-a1c2-0d3be5a90b47"] {
        for path in ["/lightning/send-request", "/lightning/receive-request"] {
            assert_eq!(caller.get(format!("{path}/{id}")).await.ok(), Value::Null, "{path}/{id}");
        }
        caller.get(format!("/requests/{id}")).await.refused(404, "not_found");
        caller.post_empty(format!("/requests/{id}/cancel")).await.refused(404, "not_found");
    }

    // An integer is one however many zeros stand behind its point.
    let made = caller.call(Call::post_raw("/lightning/create-invoice", r#"{"amount_sats": 80.0}"#)).await.ok();
    assert_eq!(made["amount_sats"], 80);
    let half = caller.call(Call::post_raw("/lightning/create-invoice", r#"{"amount_sats": 80.5}"#)).await;
    assert_eq!(half.refused(400, "invalid_request")["field"], "amount_sats");

    // Somebody sends the key that he should have kept.
    let headers = caller.wallet_headers();
    let mut call = Call::post_empty("/wallet/btcbalance");
    let private = "tprv8ZgxMBicQKsPd7Uf69XL1XwhmjHopUGep8GuEiJDZmbQz6o58LninorQAfcKZWARbtRtfnLcJ5MQ2AtHcQJCCRUcMRvmDUjyEmNUWwx8UbK";
    for (name, value) in headers {
        call = call.header(name, if name == "xpub-van" { private.to_owned() } else { value });
    }
    let refused = caller.without_wallet().call(call).await.refused(422, "invalid_keys");
    assert_eq!(refused["field"], "xpub-van");
    let detail = refused["detail"].as_str().expect("a text");
    assert!(detail.contains("is a private key") && !detail.contains("tprv"), "{detail}");

    // Of a text that is nothing, the amount is the least that is wrong.
    let hello = caller.post("/lightning/paybegin", json!({ "address_or_invoice": "hello" })).await;
    assert_eq!(hello.refused(400, "invalid_address")["field"], "address_or_invoice");

    // An asset is not moved off-chain, whether there is an engine for assets or not.
    let asset = json!({ "asset_id": "rgb:2dkSTbr-jFhznbPmo", "amount": 10 });
    let call = Call::post("/lightning/settle-begin", &json!({ "amount_sats": 5_000, "fee_rate": 2, "asset": asset }));
    caller.call(call.expecting(501)).await.refused(501, "asset_lightning_unavailable");

    // That nobody is found is no fault of the gateway.
    let nobody = invoice_of_nobody(Currency::Regtest, Duration::ZERO);
    let none = caller.post("/lightning/fee-estimate", json!({ "invoice": nobody })).await.refused(409, "no_liquidity");
    assert_eq!(none["retryable"], true);

    // The list says who was paid, as the payment itself does.
    let made = caller.post("/lightning/create-invoice", json!({ "amount_sats": 20_000 })).await.ok();
    let hash = made["payment_hash"].as_str().expect("a hash").parse().expect("a hash");
    lightning.shop_pays(made["invoice"].as_str().expect("a text"), hash, sat(20_000)).await;
    let path = format!("/lightning/receive-request/{}", made["id"].as_str().expect("an id"));
    caller.until(&path, |receive| receive["status"] == "SETTLED").await;
    let (invoice, preimage) = lightning.shop_invoice(Some(msat(5_000_000)));
    let begun = caller.post("/lightning/pay-invoice-begin", json!({ "invoice": invoice })).await.ok();
    let signed = json!({ "signed_psbt": caller.sign(&begun) });
    let ended = caller.post("/lightning/pay-invoice-end", signed).await.ok();
    lightning.shop_claims(preimage).await;
    let list = caller.get("/lightning/listpayments?direction=out").await.ok();
    assert!(ended["payee_pubkey"].is_string());
    assert_eq!(list["payments"][0]["payee_pubkey"], ended["payee_pubkey"]);
    assert_eq!(
        caller.get("/lightning/listpayments?direction=in").await.ok()["payments"][0]["payee_pubkey"],
        Value::Null
    );
    let path = format!("/lightning/send-request/{}", ended["id"].as_str().expect("an id"));
    caller.until(&path, |pay| pay["status"] == "SUCCEEDED").await;
    gateway.stop().await;
}
