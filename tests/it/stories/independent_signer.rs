//! A wallet whose signer is not ours: coins, payments, withdrawals, grants and exports are signed by embit, over HTTP where there is a call.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bitcoin::Transaction;
use bitcoin::transaction::Version;
use serde_json::{Value, json};
use sluice::assets::fake::{FakeEngine, World};
use sluice::clock::Clock;
use sluice::money::Sat;

use crate::harness::assets::side;
use crate::harness::client::Caller;
use crate::harness::embit::Embit;
use crate::harness::gateway::Gateway;
use crate::harness::lightning::sat;
use crate::harness::rig::{Client, Database, stranger};
use crate::harness::spec_signer::PUBLIC;
use crate::harness::spending::wanted;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// Begins with a call and ends with another, and answers what the end said.
async fn through(caller: &Caller, embit: &Embit, begin: (&str, Value), end: &str) -> Value {
    let begun = caller.post(begin.0, begin.1).await.ok();
    let signed = embit.sign(text(&begun)).await;
    caller.post(end, json!({ "signed_psbt": signed })).await.ok()
}

#[tokio::test]
async fn a_wallet_of_another_signer_does_everything_that_is_signed() {
    let Some(embit) = Embit::of(PUBLIC) else { return };
    let (gateway, chain, lightning) =
        Gateway::start_lightning(Database::Sqlite, &[]).await.expect("SQLite is always there");
    let caller = Caller::new(&gateway.url, Client::of(PUBLIC));
    gateway.register(&caller).await;
    let paying = Arc::clone(&chain);
    lightning.node.send_through(move |script, amount| paying.pay(script, amount).expect("the fake pays"));
    lightning.node.fund(Sat::literal(500_000));
    lightning.network.mine(1);

    // Its own coins: a transaction of version 2, as any signer signs it.
    let address = caller.post_empty("/wallet/address").await.ok();
    let address = crate::harness::rig::parse_address(text(&address));
    chain.fund_confirmed(&address.script_pubkey(), Sat::literal(100_000)).expect("the fake pays");
    gateway.at_tip().await;
    let send = json!({ "address_or_rgbinvoice": stranger().to_string(), "amount_sats": 40_000, "fee_rate": 2 });
    let sent = through(&caller, &embit, ("/lightning/onchain-send-begin", send), "/lightning/onchain-send-end").await;
    assert!(sent["txid"].is_string(), "{sent}");

    // A payment: the consent comes back in another form than it was handed out in, and is proven in the full form.
    let made = caller.post("/lightning/create-invoice", json!({ "amount_sats": 200_000 })).await.ok();
    let hash = text(&made["payment_hash"]).parse().expect("a hash");
    lightning.shop_pays(text(&made["invoice"]), hash, sat(200_000)).await;
    let path = format!("/lightning/receive-request/{}", text(&made["id"]));
    caller.until(&path, |receive| receive["status"] == "SETTLED").await;
    let (invoice, preimage) = lightning.shop_invoice(Some(sat(10_000)));
    let begin = ("/lightning/pay-invoice-begin", json!({ "invoice": invoice }));
    let paid = through(&caller, &embit, begin, "/lightning/pay-invoice-end").await;
    lightning.shop_claims(preimage).await;
    let path = format!("/lightning/send-request/{}", text(&paid["id"]));
    caller.until(&path, |pay| pay["status"] == "SUCCEEDED").await;
    let proof = caller.get(format!("{path}/authorization")).await.ok();
    require_full_form(&proof);

    // A withdrawal.
    let out = json!({
        "address_or_rgbinvoice": stranger().to_string(), "amount_sats": 50_000, "fee_rate": 2, "source": "offchain",
    });
    let begin = ("/lightning/onchain-send-begin", out);
    let left = through(&caller, &embit, begin, "/lightning/onchain-send-end").await;
    caller.until(&format!("/onchain-send/{}", text(&left["send_id"])), |send| send["txid"].is_string()).await;

    // A grant, and an export.
    let grant = wanted(gateway.flows(), &caller.wallet, &["btc:1000/day"], None);
    let asked = sluice::flows::grants::ask(gateway.flows(), grant).await.expect("it is asked for");
    let given = sluice::flows::grants::give(gateway.flows(), &asked.key, &embit.sign(&asked.psbt).await).await;
    assert!(given.expect("it is given").signed_at.is_some());
    let grants = caller.get("/lightning/spending-grants").await.ok();
    require_full_form(&grants["grants"][0]);
    gateway.flows().use_assets(side(FakeEngine::new(World::new(Clock::System), Arc::clone(&chain) as _)));
    let begun = caller.post("/wallet/export-begin", json!({})).await.ok();
    let signed = embit.sign(text(&begun["psbt"])).await;
    let password = "a password of a test";
    let sealed = caller.post("/wallet/export-end", json!({ "signed_psbt": signed, "password": password })).await;
    assert_eq!((sealed.status, sealed.bytes.is_empty()), (200, false), "{}", sealed.status);
    chain.mine(6);
    gateway.stop().await;
}

/// The witness alone would prove nothing of a transaction of version 2: the whole of it is told, and BIP-322 takes it.
fn require_full_form(proof: &Value) {
    assert_eq!(proof["signature"], Value::Null, "{proof}");
    let hex = text(&proof["signed_transaction"]);
    let signed: Transaction = bitcoin::consensus::encode::deserialize_hex(hex).expect("a transaction");
    assert_eq!(signed.version, Version::TWO);
    let encoded = BASE64_STANDARD.encode(bitcoin::consensus::encode::serialize(&signed));
    let said = bip322::verify_full_encoded(text(&proof["address"]), text(&proof["message"]), &encoded);
    assert!(matches!(said, Ok(bip322::Verification::Valid { .. })), "{said:?}");
}
