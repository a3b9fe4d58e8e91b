//! RGB assets between two wallets of a gateway: every kind of invoice, both ways, many at once, and what goes wrong.

use serde_json::{Value, json};

use super::asset_scene::{Scene, scene};
use crate::harness::process::Call;
use crate::harness::rig::{Client, Database};

/// Two wallets; the first has issued 1,000 of an asset.
pub struct Pair {
    pub scene: Scene,
    pub ann: Client,
    pub bob: Client,
    pub asset: String,
}

pub async fn pair(database: Database) -> Option<Pair> {
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
    pub async fn invoice(&self, payee: &Client, path: &str, body: Value) -> Value {
        self.scene.ok(&Call::post(path, payee).json(body)).await
    }

    /// Begins, signs and ends; answers what the end answers.
    pub async fn send(&self, payer: &Client, begin: &str, end: &str, body: Value) -> Value {
        let begun = self.scene.ok(&Call::post(begin, payer).json(body)).await;
        let signed = json!({ "signed_psbt": payer.sign(begun.as_str().expect("a PSBT")) });
        self.scene.ok(&Call::post(end, payer).json(signed)).await
    }

    pub async fn pay(&self, payer: &Client, body: Value) -> Value {
        self.send(payer, "/wallet/sendbegin", "/wallet/sendend", body).await
    }

    /// Waits until a send is out, and then until it is final.
    pub async fn settle(&self, payer: &Client, send: &str) {
        let call = Call::get(format!("/onchain-send/{send}"), payer);
        self.scene.until("it is out", &call, |send| send["status"] == "BROADCASTED").await;
        self.scene.mine().await;
        self.scene.until("it is final", &call, |send| send["status"] == "CONFIRMED").await;
    }

    pub async fn received(&self, payee: &Client, request: &Value, state: &str) -> Value {
        let call = Call::get(format!("/requests/{}", request.as_str().expect("an id")), payee);
        self.scene.until(state, &call, |request| request["state"] == state).await
    }

    /// Nothing for a wallet that has never had any.
    pub async fn balance(&self, of: &Client) -> u64 {
        self.settled_in(&self.scene.ok(&Call::get("/lightning/balance", of)).await)
    }

    /// Waits until a wallet has so much: the engine looks at a block after the gateway has.
    pub async fn comes_to(&self, of: &Client, amount: u64) {
        let call = Call::get("/lightning/balance", of);
        let is_so = |body: &Value| self.settled_in(body) == amount;
        self.scene.until(&format!("it has {amount}"), &call, is_so).await;
    }

    fn settled_in(&self, balances: &Value) -> u64 {
        let all = balances["asset_balances"].as_array().expect("a list");
        let of_asset = all.iter().find(|one| one["asset_id"] == self.asset.as_str());
        of_asset.map_or(0, |one| one["balance"]["settled"].as_u64().expect("an amount"))
    }

    /// Transfers of any asset with this numeric status.
    pub async fn transfers_in(&self, of: &Client, status: u64) -> Vec<Value> {
        let all = self.scene.ok(&Call::post("/lightning/listtransfers", of)).await;
        all.as_array().expect("a list").iter().filter(|one| one["status"] == status).cloned().collect()
    }

    pub async fn transfers(&self, of: &Client) -> Vec<Value> {
        let call = Call::post("/wallet/listtransfers", of).json(json!({ "asset_id": self.asset }));
        self.scene.ok(&call).await.as_array().expect("a list").clone()
    }
}

pub fn text(value: &Value) -> &str {
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
    pair.comes_to(ann, 990).await;
    pair.comes_to(bob, 10).await;

    let current = Call::get("/lightning/onchain-receive", bob);
    let address = pair.scene.until("it has an invoice", &current, |address| address["asset_invoice"] != "").await;
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
    assert_eq!(shown["asset"], json!({ "asset_id": pair.asset, "amount": 5, "amount_str": "5" }));
    let is_another = |after: &Value| !["", text(&address["asset_invoice"])].contains(&text(&after["asset_invoice"]));
    let after = pair.scene.until("an invoice is paid once", &current, is_another).await;
    assert_eq!(after["btc_address"], address["btc_address"]);

    let witness = pair.invoice(bob, "/wallet/witnessreceive", json!({ "asset_id": pair.asset })).await;
    let body = json!({
        "address_or_invoice": witness["invoice"], "fee_rate": 2, "min_confirmations": 1, "asset": { "asset_id": pair.asset, "amount": 7 },
    });
    let paid = pair.send(ann, "/lightning/paybegin", "/lightning/payend", body).await;
    assert_eq!((&paid["payment_type"], &paid["status"]), (&json!("ASSET"), &json!("PENDING")), "{paid}");
    pair.settle(ann, text(&paid["id"])).await;
    pair.received(bob, &witness["request_id"], "settled").await;
    pair.comes_to(ann, 978).await;
    pair.comes_to(bob, 22).await;

    there_and_back_and_many_at_once(&pair).await;
    pair.scene.end().await;
}

async fn there_and_back_and_many_at_once(pair: &Pair) {
    let (ann, bob) = (&pair.ann, &pair.bob);
    let back = pair.invoice(ann, "/wallet/blindreceive", json!({ "asset_id": pair.asset, "amount": 20 })).await;
    let sent = pair.pay(bob, json!({ "invoice": back["invoice"], "fee_rate": 2, "min_confirmations": 1 })).await;
    pair.settle(bob, text(&sent["send_id"])).await;
    pair.received(ann, &back["request_id"], "settled").await;
    pair.comes_to(ann, 998).await;
    pair.comes_to(bob, 2).await;

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
    pair.comes_to(ann, 848).await;
    pair.comes_to(bob, 152).await;
    let transfers = pair.transfers(bob).await;
    let shown: Vec<(&Value, &Value, &Value)> =
        transfers.iter().map(|one| (&one["kind"], &one["status"], &one["amount"])).collect();
    let row = |kind, amount| (json!(kind), json!(2), json!(amount));
    let rows = [row(2, 50), row(1, 100), row(3, 20), row(2, 7), row(2, 5), row(1, 10)];
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

/// A body of a send, and how it is refused: the status, the code, and the field if one is to blame.
type BadBegin = (Value, u16, &'static str, Option<&'static str>);

/// Invoices: of any asset and amount; of ten on a new coin; of the payer's own.
fn bad_begins(asset: &str, [open, ten, own]: &[&Value; 3]) -> Vec<BadBegin> {
    vec![
        (json!({ "invoice": "rgb:nothing" }), 400, "invalid_invoice", Some("invoice")),
        (json!({ "invoice": "" }), 400, "invalid_invoice", Some("invoice")),
        (json!({ "invoice": open, "amount": 10 }), 400, "invalid_request", Some("asset_id")),
        (json!({ "invoice": open, "asset_id": asset }), 400, "invalid_request", Some("amount")),
        (json!({ "invoice": open, "asset_id": asset, "amount": 0 }), 400, "invalid_request", Some("amount")),
        (json!({ "invoice": open, "asset_id": asset, "amount": -1 }), 400, "invalid_request", Some("amount")),
        (json!({ "invoice": open, "asset_id": asset, "amount": "1" }), 400, "invalid_request", Some("amount")),
        (json!({ "invoice": open, "asset_id": asset, "amount": u64::MAX }), 400, "invalid_request", Some("amount")),
        (json!({ "invoice": ten, "asset_id": asset, "amount": 11 }), 400, "invalid_request", Some("amount")),
        (
            json!({ "invoice": open, "asset_id": asset, "amount": 1, "fee_rate": 0 }),
            400,
            "fee_rate_out_of_range",
            Some("fee_rate"),
        ),
        (
            json!({ "invoice": open, "asset_id": asset, "amount": 1, "min_confirmations": 101 }),
            400,
            "invalid_request",
            Some("min_confirmations"),
        ),
        (
            json!({ "invoice": open, "asset_id": asset, "amount": 1, "expires_in_seconds": 1 }),
            400,
            "invalid_request",
            Some("expires_in_seconds"),
        ),
        (
            json!({ "invoice": open, "asset_id": asset, "amount": 1, "witness_data": { "amount_sat": 1000 } }),
            400,
            "invalid_request",
            Some("witness_data"),
        ),
        (
            json!({ "invoice": ten, "asset_id": asset, "witness_data": { "amount_sat": 1 } }),
            400,
            "amount_below_dust",
            Some("witness_data"),
        ),
        (
            json!({ "invoice": ten, "asset_id": asset, "more": [{ "invoice": open, "asset_id": asset }] }),
            400,
            "invalid_request",
            Some("amount"),
        ),
        (
            json!({ "invoice": ten, "asset_id": asset, "more": [{ "invoice": ten, "asset_id": asset }] }),
            400,
            "invalid_invoice",
            Some("invoice"),
        ),
        (json!({ "invoice": own, "asset_id": asset }), 409, "self_payment", Some("invoice")),
        (json!({ "invoice": ten, "asset_id": "rgb:x" }), 404, "asset_unknown", Some("asset_id")),
        (json!({ "invoice": open, "asset_id": asset, "amount": 1_001 }), 400, "insufficient_assets", Some("amount")),
        (
            json!({ "invoice": ten, "asset_id": asset, "witness_data": { "amount_sat": 90_000 } }),
            409,
            "colored_btc_low",
            None,
        ),
    ]
}

/// What is wrong with a send or an invoice is said by its field, and nothing is set aside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_names_the_field_and_sets_nothing_aside() {
    let Some(pair) = pair(Database::Sqlite).await else { return };
    let (ann, bob, scene) = (&pair.ann, &pair.bob, &pair.scene);
    let open = pair.invoice(bob, "/wallet/blindreceive", json!({})).await["invoice"].clone();
    let ten = pair.invoice(bob, "/wallet/witnessreceive", json!({ "amount": 10 })).await["invoice"].clone();
    let own = pair.invoice(ann, "/wallet/blindreceive", json!({ "amount": 10 })).await["invoice"].clone();
    let asset = &pair.asset;
    let begins = bad_begins(asset, &[&open, &ten, &own]);
    for (body, status, code, field) in begins {
        let answer = scene.gateway.answer(&Call::post("/wallet/sendbegin", ann).json(body.clone())).await;
        let said = (answer.status, answer.body["error"].as_str(), answer.body["field"].as_str());
        assert_eq!(said, (status, Some(code), field), "{body}: {:?}", answer.body);
    }
    let begins = [
        (json!({ "address_or_invoice": open }), "asset.asset_id"),
        (json!({ "address_or_invoice": open, "asset": { "asset_id": asset, "amount": 0 } }), "asset.amount"),
        (json!({ "address_or_invoice": open, "asset": { "asset_id": asset, "amount": 1_001 } }), "asset.amount"),
        (json!({ "address_or_invoice": ten, "asset": { "asset_id": "rgb:x", "amount": 10 } }), "asset.asset_id"),
        (
            json!({ "address_or_invoice": ten, "amount_sats": 1, "asset": { "asset_id": asset, "amount": 10 } }),
            "amount_sats",
        ),
        (json!({ "address_or_invoice": own, "asset": { "asset_id": asset, "amount": 10 } }), "address_or_invoice"),
    ];
    for (body, field) in begins {
        let answer = scene.gateway.answer(&Call::post("/lightning/paybegin", ann).json(body.clone())).await;
        assert_eq!(answer.body["field"].as_str(), Some(field), "{body}: {:?}", answer.body);
    }
    let invoices = [
        (json!({ "duration_seconds": 59 }), "duration_seconds"),
        (json!({ "duration_seconds": 2_592_001 }), "duration_seconds"),
        (json!({ "amount": 0 }), "amount"),
        (json!({ "min_confirmations": 300 }), "min_confirmations"),
        (json!({ "asset_id": "rgb:x" }), "asset_id"),
    ];
    for (body, field) in invoices {
        let answer = scene.gateway.answer(&Call::post("/wallet/blindreceive", ann).json(body.clone())).await;
        assert_eq!(answer.body["field"].as_str(), Some(field), "{body}: {:?}", answer.body);
    }
    let never = Call::post("/wallet/failtransfers", ann).json(json!({ "batch_transfer_idx": 77 }));
    scene.refused(&never, 404, "not_found").await;
    let unspents = scene.ok(&Call::post("/wallet/listunspents", ann)).await;
    assert!(unspents.as_array().expect("a list").iter().all(|coin| coin["utxo"]["leased_by"].is_null()), "{unspents}");
    let has = scene.ok(&Call::post("/wallet/assetbalance", ann).json(json!({ "asset_id": asset }))).await;
    assert_eq!((&has["spendable"], &has["future"]), (&json!(1_000), &json!(1_000)), "something is set aside");
    pair.scene.end().await;
}

/// Bitcoin leaves the same wallet while an asset is sent: they take no coin of each other, and neither waits for the other.
async fn bitcoin_and_assets_leave_at_once(database: Database) {
    let Some(pair) = pair(database).await else { return };
    let (ann, bob) = (&pair.ann, &pair.bob);
    let address = pair.scene.ok(&Call::post("/wallet/address", bob)).await;
    let mut sent = 0;
    for round in 1..=3_u64 {
        let invoice = pair.invoice(bob, "/wallet/blindreceive", json!({ "amount": round })).await;
        let body = json!({
            "invoice": invoice["invoice"], "asset_id": pair.asset, "fee_rate": 2, "min_confirmations": 1,
        });
        let coins = json!({ "address": address, "amount": 5_000, "fee_rate": 2 });
        let (asset, bitcoin) =
            tokio::join!(pair.pay(ann, body), pair.send(ann, "/wallet/sendbtcbegin", "/wallet/sendbtcend", coins),);
        assert_eq!(text(&bitcoin).len(), 64, "{bitcoin}");
        pair.settle(ann, text(&asset["send_id"])).await;
        pair.received(bob, &invoice["request_id"], "settled").await;
        sent += round;
        pair.comes_to(ann, 1_000 - sent).await;
    }
    pair.scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bitcoin_and_assets_leave_at_once_on_sqlite() {
    bitcoin_and_assets_leave_at_once(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bitcoin_and_assets_leave_at_once_on_postgres() {
    bitcoin_and_assets_leave_at_once(Database::Postgres).await;
}
