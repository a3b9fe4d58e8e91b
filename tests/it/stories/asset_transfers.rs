//! RGB assets between two wallets of a gateway: every kind of invoice, both ways, many at once, and what goes wrong.

use serde_json::{Value, json};

use super::asset_scene::{Scene, scene};
use crate::harness::process::Call;
use crate::harness::rig::{Client, Database};

/// Two wallets; the first has issued 1,000 of an asset.
struct Pair {
    scene: Scene,
    ann: Client,
    bob: Client,
    asset: String,
}

async fn pair(database: Database) -> Option<Pair> {
    let scene = scene(database).await?;
    let (ann, bob) = (Client::number(1), Client::number(2));
    scene.join(&bob).await;
    scene.make_coins_for(&ann, json!({ "num": 6, "size": 5_000, "fee_rate": 2 })).await;
    scene.make_coins_for(&bob, json!({ "num": 3, "size": 5_000, "fee_rate": 2 })).await;
    let issue = scene.post("/wallet/issueassetnia", json!({ "ticker": "GOLD", "name": "Gold", "amounts": [1_000] }));
    let asset = scene.ok(&issue).await["asset_id"].as_str().expect("an id").to_owned();
    Some(Pair { scene, ann, bob, asset })
}

impl Pair {
    async fn invoice(&self, payee: &Client, path: &str, body: Value) -> Value {
        self.scene.ok(&Call::post(path, payee).json(body)).await
    }

    /// Begins, signs and ends; answers what the end answers.
    async fn send(&self, payer: &Client, begin: &str, end: &str, body: Value) -> Value {
        let begun = self.scene.ok(&Call::post(begin, payer).json(body)).await;
        let signed = json!({ "signed_psbt": payer.sign(begun.as_str().expect("a PSBT")) });
        self.scene.ok(&Call::post(end, payer).json(signed)).await
    }

    async fn pay(&self, payer: &Client, body: Value) -> Value {
        self.send(payer, "/wallet/sendbegin", "/wallet/sendend", body).await
    }

    /// Waits until a send is out, and then until it is final.
    async fn settle(&self, payer: &Client, send: &str) {
        let call = Call::get(format!("/onchain-send/{send}"), payer);
        self.scene.until("it is out", &call, |send| send["status"] == "BROADCASTED").await;
        self.scene.mine().await;
        self.scene.until("it is final", &call, |send| send["status"] == "CONFIRMED").await;
    }

    async fn received(&self, payee: &Client, request: &Value, state: &str) -> Value {
        let call = Call::get(format!("/requests/{}", request.as_str().expect("an id")), payee);
        self.scene.until(state, &call, |request| request["state"] == state).await
    }

    async fn balance(&self, of: &Client) -> u64 {
        let call = Call::post("/wallet/assetbalance", of).json(json!({ "asset_id": self.asset }));
        self.scene.ok(&call).await["settled"].as_u64().expect("an amount")
    }

    async fn transfers(&self, of: &Client) -> Vec<Value> {
        let call = Call::post("/wallet/listtransfers", of).json(json!({ "asset_id": self.asset }));
        self.scene.ok(&call).await.as_array().expect("a list").clone()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

async fn every_kind_of_invoice_is_paid(database: Database) {
    let Some(pair) = pair(database).await else { return };
    let (ann, bob) = (&pair.ann, &pair.bob);
    let blind = pair.invoice(bob, "/wallet/blindreceive", json!({ "amount": 10 })).await;
    let sent = pair
        .pay(ann, json!({ "invoice": blind["invoice"], "asset_id": pair.asset, "fee_rate": 2, "min_confirmations": 1 }))
        .await;
    assert_eq!(sent["status"], "REQUESTED", "{sent}");
    pair.settle(ann, text(&sent["send_id"])).await;
    let request = pair.received(bob, &blind["request_id"], "settled").await;
    assert_eq!(
        (&request["asset_receive"]["amount"], &request["asset_receive"]["asset_id"]),
        (&json!(10), &json!(pair.asset))
    );
    let timeline: Vec<&str> =
        request["timeline"].as_array().expect("a list").iter().map(|event| text(&event["kind"])).collect();
    assert_eq!(
        timeline,
        ["asset_receive.opened", "asset_receive.arriving", "asset_receive.seen", "asset_receive.settled"]
    );
    assert_eq!((pair.balance(ann).await, pair.balance(bob).await), (990, 10));

    let address = pair.scene.ok(&Call::get("/lightning/onchain-receive", bob)).await;
    assert_eq!(
        address,
        pair.scene.ok(&Call::get("/lightning/onchain-receive", bob)).await,
        "the same until it is paid"
    );
    let body = json!({
        "address_or_rgbinvoice": address["asset_invoice"], "fee_rate": 2, "asset": { "asset_id": pair.asset, "amount": 5 },
    });
    let sent = pair.send(ann, "/lightning/onchain-send-begin", "/lightning/onchain-send-end", body).await;
    pair.settle(ann, text(&sent["send_id"])).await;
    let shown = pair.scene.ok(&Call::get(format!("/onchain-send/{}", text(&sent["send_id"])), ann)).await;
    assert_eq!(shown["asset"], json!({ "asset_id": pair.asset, "amount": 5 }));
    let after = pair.scene.ok(&Call::get("/lightning/onchain-receive", bob)).await;
    assert_ne!(after["asset_invoice"], address["asset_invoice"], "an invoice is paid once");
    assert_eq!(after["btc_address"], address["btc_address"]);

    let witness = pair.invoice(bob, "/wallet/witnessreceive", json!({ "asset_id": pair.asset })).await;
    let body = json!({
        "address_or_invoice": witness["invoice"], "fee_rate": 2, "min_confirmations": 1, "asset": { "asset_id": pair.asset, "amount": 7 },
    });
    let paid = pair.send(ann, "/lightning/paybegin", "/lightning/payend", body).await;
    assert_eq!((&paid["payment_type"], &paid["status"]), (&json!("ASSET"), &json!("PENDING")), "{paid}");
    pair.settle(ann, text(&paid["id"])).await;
    pair.received(bob, &witness["request_id"], "settled").await;
    assert_eq!((pair.balance(ann).await, pair.balance(bob).await), (978, 22));

    there_and_back_and_many_at_once(&pair).await;
    pair.scene.end().await;
}

async fn there_and_back_and_many_at_once(pair: &Pair) {
    let (ann, bob) = (&pair.ann, &pair.bob);
    let back = pair.invoice(ann, "/wallet/blindreceive", json!({ "asset_id": pair.asset, "amount": 20 })).await;
    let sent = pair.pay(bob, json!({ "invoice": back["invoice"], "fee_rate": 2, "min_confirmations": 1 })).await;
    pair.settle(bob, text(&sent["send_id"])).await;
    pair.received(ann, &back["request_id"], "settled").await;
    assert_eq!((pair.balance(ann).await, pair.balance(bob).await), (998, 2));

    let first = pair.invoice(bob, "/wallet/blindreceive", json!({ "asset_id": pair.asset, "amount": 100 })).await;
    let second = pair.invoice(bob, "/wallet/witnessreceive", json!({ "asset_id": pair.asset, "amount": 50 })).await;
    let body = json!({
        "invoice": first["invoice"], "fee_rate": 2, "min_confirmations": 1,
        "more": [{ "invoice": second["invoice"], "witness_data": { "amount_sat": 1_500 } }],
    });
    let sent = pair.pay(ann, body).await;
    pair.settle(ann, text(&sent["send_id"])).await;
    for invoice in [&first, &second] {
        pair.received(bob, &invoice["request_id"], "settled").await;
    }
    assert_eq!((pair.balance(ann).await, pair.balance(bob).await), (848, 152));
    let transfers = pair.transfers(bob).await;
    let shown: Vec<(&Value, &Value, &Value)> =
        transfers.iter().map(|one| (&one["kind"], &one["status"], &one["amount"])).collect();
    let row = |kind, amount| (json!(kind), json!(2), json!(amount));
    let rows = [row(2, 50), row(1, 100), row(3, 20), row(2, 7), row(1, 5), row(1, 10)];
    assert_eq!(shown, rows.iter().map(|(kind, status, amount)| (kind, status, amount)).collect::<Vec<_>>());
    let types: Vec<Value> = pair
        .scene
        .ok(&Call::post("/wallet/listtransactions", ann))
        .await
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["transaction_type"].clone())
        .collect();
    assert_eq!(types.iter().filter(|kind| **kind == 0).count(), 4, "{types:?}");
    assert_eq!(types.iter().filter(|kind| **kind == 2).count(), 1, "{types:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_invoice_is_paid_on_sqlite() {
    every_kind_of_invoice_is_paid(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_invoice_is_paid_on_postgres() {
    every_kind_of_invoice_is_paid(Database::Postgres).await;
}
