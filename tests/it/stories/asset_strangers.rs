//! RGB assets between wallets of a gateway and wallets of others, which bring and fetch consignments themselves: through the gateway's
//! proxy, and through one that is somewhere else.

use bitcoin::Txid;
use serde_json::{Value, json};
use sluice::assets::courier::{Config, HttpCourier};
use sluice::ports::courier::{Brought, Courier, Parcel};

use super::asset_scene::{Scene, scene_with};
use super::asset_transfers::text;
use crate::harness::bitcoind::Bitcoind;
use crate::harness::gateway::{Gateway as Elsewhere, eventually};
use crate::harness::process::{Call, Gateway, Site};
use crate::harness::rgb_wallet::{Asked, Held, Invoiced, Payee, RgbWallet};
use crate::harness::rig::{Client, Database};
use crate::harness::tls::{TlsFront, authority};

const SUPPLY: u64 = 1_000;
/// Enough for the gateway to begin on a busy machine, and not long to wait for.
const SOON: u32 = 15;

/// A wallet of the gateway, which has issued an asset on four coins, and a wallet of somebody else.
struct Meeting {
    scene: Scene,
    ann: Client,
    alice: RgbWallet,
    /// The gateway's own proxy.
    here: String,
    asset: String,
}

async fn meeting(database: Database, settings: &[(&str, &str)]) -> Option<Meeting> {
    let scene = scene_with(database, settings).await?;
    let alice = stranger(&scene).await?;
    let ann = Client::number(1);
    scene.make_coins(json!({ "num": 8, "size": 5_000, "fee_rate": 2 })).await;
    let wanted = json!({ "ticker": "GOLD", "name": "Gold", "amounts": [250, 250, 250, 250] });
    let issued = scene.ok(&scene.post("/wallet/issueassetnia", wanted)).await;
    let here = scene.gateway.proxy();
    Some(Meeting { asset: text(&issued["asset_id"]).to_owned(), scene, ann, alice, here })
}

async fn stranger(scene: &Scene) -> Option<RgbWallet> {
    RgbWallet::start(&scene.node, scene.esplora.as_ref().expect("an indexer")).await
}

/// One who is paid, and the name under which he is.
type Paid<'a> = (&'a RgbWallet, &'a Invoiced);

impl Meeting {
    /// An invoice of a stranger for a coin that it has.
    async fn blind(&self, of: &RgbWallet, amount: u64, proxy: &str) -> Invoiced {
        of.blind_receive(Asked { amount: Some(amount), endpoints: &[proxy], ..Asked::default() }).await
    }

    async fn witness(&self, of: &RgbWallet, amount: u64, proxy: &str) -> Invoiced {
        of.witness_receive(Asked { amount: Some(amount), endpoints: &[proxy], ..Asked::default() }).await
    }

    /// One that can be paid for some seconds only.
    async fn brief(&self, amount: u64) -> Invoiced {
        let endpoints = [self.here.as_str()];
        let asked = Asked { amount: Some(amount), endpoints: &endpoints, expires_in: Some(SOON), asset: None };
        self.alice.blind_receive(asked).await
    }

    /// Begins to pay invoices that leave the asset open; answers the request and its PSBT.
    async fn begin(&self, invoices: &[&str]) -> (String, String) {
        let more: Vec<Value> =
            invoices[1..].iter().map(|invoice| json!({ "invoice": invoice, "asset_id": self.asset })).collect();
        let body = json!({
            "invoice": invoices[0], "asset_id": self.asset, "more": more, "fee_rate": 2, "min_confirmations": 1,
        });
        let begun = self.scene.gateway.answer(&self.scene.post("/wallet/sendbegin", body)).await;
        let send = begun.request_id.clone().expect("a request");
        (send, text(&begun.ok()).to_owned())
    }

    async fn send(&self, invoices: &[&str]) -> String {
        let (_, psbt) = self.begin(invoices).await;
        let signed = json!({ "signed_psbt": self.ann.sign(&psbt) });
        let sent = self.scene.ok(&self.scene.post("/wallet/sendend", signed)).await;
        assert_eq!(sent["status"], "REQUESTED", "{sent}");
        text(&sent["send_id"]).to_owned()
    }

    fn status_of(&self, send: &str) -> Call {
        Call::get(format!("/onchain-send/{send}"), &self.ann)
    }

    /// Pays, lets the strangers accept, and waits for the block at both ends.
    async fn pay(&self, invoices: &[&str], strangers: &[Paid<'_>]) {
        let send = self.send(invoices).await;
        eventually("it is out", async || {
            for (stranger, _) in strangers {
                stranger.refresh().await;
            }
            let send = self.scene.ok(&self.status_of(&send)).await;
            assert_ne!(send["status"], "FAILED", "{send}");
            (send["status"] == "BROADCASTED").then_some(())
        })
        .await;
        self.scene.mine().await;
        self.scene.until("it is final", &self.status_of(&send), |send| send["status"] == "CONFIRMED").await;
        for (stranger, invoiced) in strangers {
            settles(stranger, &self.asset, &invoiced.recipient).await;
        }
    }

    /// A stranger pays invoices of the gateway in one transaction.
    async fn is_paid(&self, payer: &RgbWallet, asset: &str, invoices: &[(&Value, u64)]) {
        let mut payees = Vec::new();
        for (invoice, amount) in invoices {
            payees.push(Payee::of(payer.read_invoice(text(invoice)).await, asset, *amount));
        }
        payer.send(&payees).await;
        let recipient = &payees[0].recipient;
        reaches(payer, asset, recipient, "WAITING_CONFIRMATIONS").await;
        self.scene.mine().await;
        settles(payer, asset, recipient).await;
    }

    async fn invoice(&self, path: &str) -> Value {
        self.scene.ok(&self.scene.post(path, json!({}))).await
    }

    async fn request(&self, id: &Value, state: &str) -> Value {
        let call = Call::get(format!("/requests/{}", text(id)), &self.ann);
        self.scene.until(state, &call, |request| request["state"] == state).await
    }

    /// What a wallet of the gateway has of an asset, once the engine has looked at the last block: all of it can be spent.
    async fn has(&self, of: &Client, asset: &str, amount: u64) {
        let call = Call::post("/wallet/assetbalance", of).json(json!({ "asset_id": asset }));
        let is_all = |balance: &Value| ["settled", "future", "spendable"].iter().all(|field| balance[field] == amount);
        self.scene.until(&format!("it has {amount}"), &call, is_all).await;
    }

    /// The number under which the engine knows a send.
    async fn batch_of(&self, send: &str) -> Value {
        let listed = Call::post("/wallet/listtransfers", &self.ann).json(json!({ "asset_id": self.asset }));
        let transfers = self.scene.ok(&listed).await;
        let mut sends = transfers.as_array().expect("a list").iter().filter(|one| one["request_id"] == json!(send));
        sends.next().expect("the send")["batch_transfer_idx"].clone()
    }

    /// Asks the gateway's proxy as anybody may.
    async fn proxy(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": "1", "method": method, "params": params });
        self.scene.ok(&Call::post("/json-rpc", &self.ann).json(body)).await
    }

    /// Brings something to the gateway's proxy as anybody may.
    async fn bring(&self, recipient: &str, txid: Txid, bytes: &[u8]) {
        let config = Config { allow_private: vec!["127.0.0.1".to_owned()], ..Config::default() };
        let parcel = Parcel { recipient: recipient.to_owned(), txid, vout: None, bytes: bytes.to_vec() };
        let brought = HttpCourier::new(&config).expect("a courier").bring(&self.here, &parcel).await;
        assert_eq!(brought, Ok(Brought::Taken));
    }
}

/// A stranger looks until a transfer of its own is so far.
async fn reaches(wallet: &RgbWallet, asset: &str, recipient: &str, status: &str) {
    eventually(status, async || {
        wallet.refresh().await;
        (wallet.transfer_of(asset, recipient).await.status == status).then_some(())
    })
    .await;
}

async fn settles(wallet: &RgbWallet, asset: &str, recipient: &str) {
    reaches(wallet, asset, recipient, "SETTLED").await;
}

/// What a stranger has. What others have promised it and gave up is left out: it waits for that until its invoices expire.
async fn holds(wallet: &RgbWallet, asset: &str, amount: u64) {
    let Held { settled, future: _, spendable } = wallet.balance(asset).await;
    assert_eq!((settled, spendable), (amount, amount));
}

async fn strangers_are_paid_and_pay(database: Database) {
    let (elsewhere, _chain) = Elsewhere::start_fake(&["auth.mode=key", "proxy.enabled=true"]).await;
    let there = format!("{}/json-rpc", elsewhere.url.replace("http://", "rpc://"));
    let allowed = format!("[\"{}\"]", elsewhere.url.trim_start_matches("http://"));
    let settings = [("assets.courier.allow_private", allowed.as_str())];
    let Some(met) = meeting(database, &settings).await else { return };
    let Some(carol) = stranger(&met.scene).await else { return };
    let (alice, ann, asset) = (&met.alice, &met.ann, met.asset.as_str());

    let blind = met.blind(alice, 300, &met.here).await;
    met.pay(&[&blind.invoice], &[(alice, &blind)]).await;
    let witness = met.witness(alice, 200, &there).await;
    met.pay(&[&witness.invoice], &[(alice, &witness)]).await;
    holds(alice, asset, 500).await;
    met.has(ann, asset, 500).await;

    strangers_pay_back(&met).await;
    holds(alice, asset, 325).await;
    met.has(ann, asset, 675).await;

    let bob = Client::number(2);
    met.scene.join(&bob).await;
    let blind = met.blind(alice, 40, &met.here).await;
    let witness = met.witness(&carol, 30, &there).await;
    let wanted = json!({ "amount": 20 });
    let own = met.scene.ok(&Call::post("/wallet/witnessreceive", &bob).json(wanted)).await;
    let invoices = [blind.invoice.as_str(), &witness.invoice, text(&own["invoice"])];
    met.pay(&invoices, &[(alice, &blind), (&carol, &witness)]).await;
    let bobs = Call::get(format!("/requests/{}", text(&own["request_id"])), &bob);
    met.scene.until("it is settled", &bobs, |request| request["state"] == "settled").await;
    holds(alice, asset, 365).await;
    holds(&carol, asset, 30).await;
    met.has(&bob, asset, 20).await;
    met.has(ann, asset, SUPPLY - 365 - 30 - 20).await;

    an_unknown_asset_is_taken(&met, &carol).await;
    elsewhere.stop().await;
    met.scene.end().await;
}

/// To an invoice of each kind, in one transaction.
async fn strangers_pay_back(met: &Meeting) {
    let blind = met.invoice("/wallet/blindreceive").await;
    let witness = met.invoice("/wallet/witnessreceive").await;
    let current = Call::get("/lightning/onchain-receive", &met.ann);
    let address = met.scene.until("it has an invoice", &current, |address| address["asset_invoice"] != "").await;
    let invoices = [(&blind["invoice"], 100), (&witness["invoice"], 50), (&address["asset_invoice"], 25)];
    met.is_paid(&met.alice, &met.asset, &invoices).await;
    for (request, amount) in [(&blind, 100), (&witness, 50)] {
        let request = met.request(&request["request_id"], "settled").await;
        let received = &request["asset_receive"];
        assert_eq!((&received["asset_id"], &received["amount"]), (&json!(met.asset), &json!(amount)));
    }
    let listed = Call::post("/wallet/listtransfers", &met.ann).json(json!({ "asset_id": met.asset }));
    let is_settled = |one: &Value| one["state"] == "settled";
    met.scene
        .until("all are settled", &listed, |all| all.as_array().is_some_and(|all| all.iter().all(is_settled)))
        .await;
}

/// Who has never heard of an asset takes it on an invoice that names none.
async fn an_unknown_asset_is_taken(met: &Meeting, payer: &RgbWallet) {
    let silver = payer.issue_nia("SILVER", "Silver", 1, &[500]).await;
    let invoice = met.invoice("/wallet/blindreceive").await;
    met.is_paid(payer, &silver, &[(&invoice["invoice"], 70)]).await;
    let request = met.request(&invoice["request_id"], "settled").await;
    let received = &request["asset_receive"];
    assert_eq!((&received["asked_asset_id"], &received["asset_id"]), (&Value::Null, &json!(silver)));
    met.has(&met.ann, &silver, 70).await;
    holds(payer, &silver, 430).await;
    let listed = met.scene.ok(&Call::post("/wallet/listassets", &met.ann)).await;
    let names = listed["nia"].as_array().expect("a list").iter().map(|asset| text(&asset["ticker"]));
    assert!(names.eq(["GOLD", "SILVER"]), "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_paid_and_pay_on_sqlite() {
    strangers_are_paid_and_pay(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_paid_and_pay_on_postgres() {
    strangers_are_paid_and_pay(Database::Postgres).await;
}

/// A no of the payee gives the send up, and what it had set aside pays another invoice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_refuses_is_not_paid() {
    let Some(met) = meeting(Database::Sqlite, &[]).await else { return };
    let refused = met.blind(&met.alice, SUPPLY, &met.here).await;
    let send = met.send(&[&refused.invoice]).await;
    let to_payee = json!({ "recipient_id": refused.recipient });
    eventually("the consignment is there", async || {
        let there = met.proxy("consignment.get", to_payee.clone()).await;
        there["result"]["consignment"].is_string().then_some(())
    })
    .await;
    let word = met.proxy("ack.post", json!({ "recipient_id": refused.recipient, "ack": false })).await;
    assert_eq!(word["result"], true, "{word}");
    let failed = met.scene.until("it is given up", &met.status_of(&send), |send| send["status"] == "FAILED").await;
    assert_eq!((&failed["error_code"], &failed["state"]), (&json!("given_up"), &json!("failed")));
    assert!(text(&failed["error_message"]).contains("refused"), "{failed}");
    met.has(&met.ann, &met.asset, SUPPLY).await;

    let taken = met.blind(&met.alice, SUPPLY, &met.here).await;
    met.pay(&[&taken.invoice], &[(&met.alice, &taken)]).await;
    holds(&met.alice, &met.asset, SUPPLY).await;
    met.has(&met.ann, &met.asset, 0).await;
    met.scene.end().await;
}

/// Nobody signs, nobody accepts, or the owner thinks better of it: each time the coins are free afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_go_out_gives_its_coins_back() {
    let Some(met) = meeting(Database::Sqlite, &[]).await else { return };
    let brief = met.brief(200).await;
    let (unsigned, _) = met.begin(&[&brief.invoice]).await;
    let brief = met.brief(201).await;
    let unanswered = met.send(&[&brief.invoice]).await;
    its_owner_gives_up(&met).await;

    let failed = met.scene.until("its time is up", &met.status_of(&unsigned), |send| send["status"] == "FAILED").await;
    assert_eq!((&failed["error_code"], &failed["state"]), (&json!("request_expired"), &json!("expired")));
    let failed =
        met.scene.until("its time is up", &met.status_of(&unanswered), |send| send["status"] == "FAILED").await;
    assert_eq!((&failed["error_code"], &failed["state"]), (&json!("given_up"), &json!("failed")));
    let listed = Call::post("/wallet/listtransfers", &met.ann).json(json!({ "asset_id": met.asset }));
    let is_over = |one: &Value| one["kind"] == 0 || (one["status"] == 3 && one["state"] == "failed");
    met.scene.until("the engine knows", &listed, |all| all.as_array().is_some_and(|all| all.iter().all(is_over))).await;
    met.has(&met.ann, &met.asset, SUPPLY).await;

    // An invoice can be paid although a send to it was given up.
    let all = met.blind(&met.alice, SUPPLY, &met.here).await;
    let (send, _) = met.begin(&[&all.invoice]).await;
    let given_up = json!({ "batch_transfer_idx": met.batch_of(&send).await });
    assert_eq!(met.scene.ok(&met.scene.post("/wallet/failtransfers", given_up)).await["failed"], true);
    met.pay(&[&all.invoice], &[(&met.alice, &all)]).await;
    holds(&met.alice, &met.asset, SUPPLY).await;
    met.scene.end().await;
}

/// A send that waits for its payee, and an invoice that waits for its payer.
async fn its_owner_gives_up(met: &Meeting) {
    let give_up = |batch: &Value, no_asset_only: bool| {
        met.scene.post("/wallet/failtransfers", json!({ "batch_transfer_idx": batch, "no_asset_only": no_asset_only }))
    };
    let waiting = met.blind(&met.alice, 202, &met.here).await;
    let send = met.send(&[&waiting.invoice]).await;
    let batch = &met.batch_of(&send).await;
    assert_eq!(met.scene.ok(&give_up(batch, true)).await["failed"], false, "its asset is known");
    assert_eq!(met.scene.ok(&give_up(batch, false)).await["failed"], true);
    assert_eq!(met.scene.ok(&give_up(batch, false)).await["failed"], false, "it is given up already");
    let failed = met.scene.ok(&met.status_of(&send)).await;
    assert_eq!((&failed["status"], &failed["error_code"]), (&json!("FAILED"), &json!("given_up")));

    let open = met.invoice("/wallet/blindreceive").await;
    let batch = &open["batch_transfer_idx"];
    assert_eq!(met.scene.ok(&give_up(batch, true)).await["failed"], true);
    met.request(&open["request_id"], "cancelled").await;
    assert_eq!(met.scene.ok(&give_up(batch, false)).await["failed"], false);
    met.scene.refused(&give_up(&json!(999), false), 404, "not_found").await;
}

/// Who brings something worthless keeps nobody from being paid: neither nonsense, nor what pays another invoice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_worthless_makes_room() {
    let Some(met) = meeting(Database::Sqlite, &[]).await else { return };
    let silver = met.alice.issue_nia("SILVER", "Silver", 0, &[500]).await;
    let first = met.invoice("/wallet/blindreceive").await;
    met.bring(text(&first["recipient_id"]), "0f".repeat(32).parse().expect("a txid"), b"no consignment").await;
    is_refused(&met, &first).await;
    met.is_paid(&met.alice, &silver, &[(&first["invoice"], 10)]).await;
    let paid = met.request(&first["request_id"], "settled").await;

    let second = met.invoice("/wallet/witnessreceive").await;
    let kept = met.proxy("consignment.get", json!({ "recipient_id": first["recipient_id"] })).await;
    let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text(&kept["result"]["consignment"]));
    let txid = text(&paid["asset_receive"]["txid"]).parse().expect("a txid");
    met.bring(text(&second["recipient_id"]), txid, &bytes.expect("base64")).await;
    is_refused(&met, &second).await;
    met.is_paid(&met.alice, &silver, &[(&second["invoice"], 20)]).await;
    met.request(&second["request_id"], "settled").await;
    met.has(&met.ann, &silver, 30).await;
    holds(&met.alice, &silver, 470).await;
    met.scene.end().await;
}

/// What was paid with is too young for the invoice: the gateway says nothing, and accepts it once there are enough blocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_young_history_is_waited_for() {
    let Some(met) = meeting(Database::Sqlite, &[]).await else { return };
    let silver = met.alice.issue_nia("SILVER", "Silver", 0, &[500]).await;
    let first = met.invoice("/wallet/blindreceive").await;
    met.is_paid(&met.alice, &silver, &[(&first["invoice"], 10)]).await;
    met.request(&first["request_id"], "settled").await;

    let deep = met.scene.post("/wallet/blindreceive", json!({ "asset_id": silver, "min_confirmations": 3 }));
    let second = met.scene.ok(&deep).await;
    met.alice.pay(text(&second["invoice"]), &silver, 20).await;
    let listed = Call::post("/wallet/listtransfers", &met.ann).json(json!({ "asset_id": silver }));
    let is_it = |one: &Value| one["request_id"] == second["request_id"] && one["txid"].is_string();
    let is_there = |all: &Value| all.as_array().is_some_and(|all| all.iter().any(is_it));
    met.scene.until("it was looked at", &listed, is_there).await;
    met.request(&second["request_id"], "open").await;
    for _ in 0..3 {
        met.scene.mine().await;
    }
    met.request(&second["request_id"], "arriving").await;
    reaches(&met.alice, &silver, text(&second["recipient_id"]), "WAITING_CONFIRMATIONS").await;
    for _ in 0..3 {
        met.scene.mine().await;
    }
    met.request(&second["request_id"], "settled").await;
    met.has(&met.ann, &silver, 30).await;
    met.scene.end().await;
}

/// The invoice is open as before, and its timeline says what was brought.
async fn is_refused(met: &Meeting, invoice: &Value) {
    let call = Call::get(format!("/requests/{}", text(&invoice["request_id"])), &met.ann);
    let told = |request: &Value| {
        let events = request["timeline"].as_array().expect("a list");
        events.iter().any(|event| event["kind"] == "asset_receive.consignment_refused")
    };
    let request = met.scene.until("it is refused", &call, told).await;
    assert_eq!(request["state"], "open");
    let there = met.proxy("consignment.get", json!({ "recipient_id": invoice["recipient_id"] })).await;
    assert!(there["error"].is_object(), "it is taken away: {there}");
}

/// Of the places that an invoice names, the one that can be reached is told; behind TLS it has to be who it says it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_behind_tls_is_told_when_it_can_be_trusted() {
    let (elsewhere, _chain) = Elsewhere::start_fake(&["auth.mode=key", "proxy.enabled=true"]).await;
    let front = TlsFront::of(elsewhere.url.trim_start_matches("http://")).await;
    let settings = [("assets.courier.allow_private", r#"["localhost"]"#)];
    let Some(mut met) = meeting(Database::Sqlite, &settings).await else { return };
    let there = format!("rpcs://{}/json-rpc", front.address());
    let endpoints = ["rpc://localhost:1/json-rpc", there.as_str()];
    let asked = Asked { amount: Some(300), endpoints: &endpoints, ..Asked::default() };
    let invoiced = met.alice.blind_receive(asked).await;
    let send = met.send(&[&invoiced.invoice]).await;
    eventually("the certificate is looked at", async || {
        met.scene.gateway.whole_log().contains("UnknownIssuer").then_some(())
    })
    .await;
    let elsewhere_says = async |method: &str, params: Value| {
        let call = json!({ "jsonrpc": "2.0", "id": "1", "method": method, "params": params });
        elsewhere.caller(1).without_wallet().post("/json-rpc", call).await.ok()
    };
    let named = json!({ "recipient_id": invoiced.recipient });
    assert_eq!(elsewhere_says("consignment.get", named.clone()).await["error"]["code"], -400);

    met.scene.gateway.terminate().await;
    let site = met.scene.gateway.site.clone().env("SSL_CERT_FILE", authority().display().to_string());
    met.scene.gateway = Gateway::start(&site).await;
    eventually("the consignment is there", async || {
        let there = elsewhere_says("consignment.get", named.clone()).await;
        there["result"]["consignment"].is_string().then_some(())
    })
    .await;
    elsewhere_says("ack.post", json!({ "recipient_id": invoiced.recipient, "ack": true })).await;
    met.scene.until("it is out", &met.status_of(&send), |send| send["status"] == "BROADCASTED").await;
    met.scene.mine().await;
    met.scene.until("it is final", &met.status_of(&send), |send| send["status"] == "CONFIRMED").await;
    elsewhere.stop().await;
    met.scene.end().await;
}

/// Without any authority to trust no gateway starts, and it says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_trusts_nobody_is_told_what_is_missing() {
    let Some(node) = Bitcoind::start().await else { return };
    let site = Site::at(None, &node).env("SSL_CERT_FILE", "/nonexistent").env("SSL_CERT_DIR", "/nonexistent");
    let output = site.run(&["serve"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("No CA certificates were loaded"), "{said}");
    assert!(!site.folder().join("sluice.db").exists(), "it begins nothing");
}
