//! Keys that may spend, over HTTP and on the command line: from the grant to the payment, its proof, and what is left.

use std::sync::Arc;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use sluice::chain::fake::FakeChain;
use sluice::flows::grants::{self, Asked};
use sluice::flows::keys::{self, Scope};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::fields;
use crate::harness::bitcoind::Bitcoind;
use crate::harness::client::{Call, Caller};
use crate::harness::gateway::{Gateway, eventually};
use crate::harness::lightning::{Lightning, sat};
use crate::harness::process::{self, Site};
use crate::harness::rig::{Client, Database};
use crate::harness::spending::wanted;

const PAY: &str = "/lightning/pay-invoice";
const GRANTS: &str = "/lightning/spending-grants";
const LIST: &str = "/lightning/listpayments?direction=out";

struct Market {
    gateway: Gateway,
    chain: Arc<FakeChain>,
    lightning: Lightning,
}

/// Tells a story on both databases, and looks at the books afterwards.
macro_rules! stories {
    ($($story:ident),+ $(,)?) => {$(
        mod $story {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::tell(crate::harness::rig::Database::Sqlite, super::$story).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                super::tell(crate::harness::rig::Database::Postgres, super::$story).await;
            }
        }
    )+};
}

stories!(from_the_grant_to_the_proof, what_a_key_may_not_do_is_said, who_hangs_up_has_paid_all_the_same);

async fn tell(database: Database, story: impl AsyncFnOnce(&Market)) {
    let Some((gateway, chain, lightning)) = Gateway::start_lightning(database, &[]).await else { return };
    let market = Market { gateway, chain, lightning };
    story(&market).await;
    market.gateway.stop().await;
}

impl Market {
    /// A wallet with so much off-chain.
    async fn funded(&self, wallet: u32, sats: u64) -> Caller {
        let owner = self.gateway.registered(wallet).await;
        let made = owner.post("/lightning/create-invoice", json!({ "amount_sats": sats })).await.ok();
        let hash = text(&made, "payment_hash").parse().expect("a hash");
        self.lightning.shop_pays(&text(&made, "invoice"), hash, sat(sats)).await;
        let path = format!("/lightning/receive-request/{}", text(&made, "id"));
        owner.until(&path, |invoice| invoice["status"] == "SETTLED").await;
        owner
    }

    async fn ask(&self, owner: &Caller, limits: &[&str], per_payment: Option<&str>) -> Asked {
        let flows = self.gateway.flows();
        grants::ask(flows, wanted(flows, &owner.wallet, limits, per_payment)).await.expect("it is asked for")
    }

    /// The same caller, with a key that may spend.
    async fn spender(&self, owner: &Caller, limits: &[&str], per_payment: Option<&str>) -> Caller {
        let asked = self.ask(owner, limits, per_payment).await;
        let signed = owner.wallet.grant(&asked.psbt);
        grants::give(self.gateway.flows(), &asked.key, &signed).await.expect("it is given");
        owner.with_key(asked.secret.expose())
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned()
}

async fn from_the_grant_to_the_proof(market: &Market) {
    let owner = market.funded(1, 50_000).await;
    let asked = market.ask(&owner, &["btc:20000/month"], Some("btc:15000")).await;
    let spender = owner.with_key(asked.secret.expose());
    let (invoice, preimage) = market.lightning.shop_invoice(Some(sat(10_000)));
    let order =
        json!({ "destination": format!("lightning:{invoice}"), "max_fee_sats": 100, "wait": 20, "reference": "p1" });
    spender.post(PAY, order.clone()).await.refused(401, "unauthorized");
    // The owner looks at what is asked, and gives it.
    let listed = owner.get(GRANTS).await.ok()["grants"][0].clone();
    assert_eq!((&listed["state"], &listed["signature"]), (&json!("waiting"), &Value::Null));
    assert_eq!((&listed["message"], &listed["psbt"]), (&json!(asked.message), &json!(asked.psbt)));
    let give = format!("{GRANTS}/{}", asked.key);
    let signed = json!({ "signed_psbt": owner.wallet.grant(&text(&listed, "psbt")) });
    market.gateway.registered(2).await.post(give.as_str(), signed.clone()).await.refused(404, "not_found");
    owner.post(give.as_str(), json!({ "signed_psbt": listed["psbt"] })).await.refused(400, "psbt_not_signed");
    let given = owner.post(give.as_str(), signed.clone()).await.ok();
    assert_eq!(given["state"], "in_force");
    owner.post(give.as_str(), signed).await.refused(400, "invalid_request");
    // The key pays, and waits for the end.
    let claim = async {
        owner.until(LIST, |list| list["payments"][0]["status"] == "Pending").await;
        market.lightning.shop_claims(preimage).await;
    };
    let call = Call::post(PAY, &order).idempotent("pay-1");
    let (paid, ()) = tokio::join!(spender.call(call.clone()), claim);
    let paid = paid.ok();
    assert_eq!((&paid["status"], &paid["preimage"]), (&json!("SUCCEEDED"), &json!(preimage.to_string())));
    assert_eq!((&paid["expires_at"], &paid["reference"]), (&Value::Null, &json!("p1")));
    assert_eq!(spender.call(call).await.ok(), paid, "the same key is the same payment");
    let read = owner.get(format!("/lightning/send-request/{}", text(&paid, "id"))).await.ok();
    assert_eq!((&read, fields(&read)), (&paid, fields(&paid)), "it is a payment as any other");
    let request = owner.get(format!("/requests/{}", text(&paid, "id"))).await.ok();
    let kinds: Vec<&Value> = request["timeline"].as_array().expect("a timeline").iter().map(|e| &e["kind"]).collect();
    assert_eq!(kinds, ["lightning_pay.begun", "lightning_pay.paying", "lightning_pay.succeeded"]);
    // The proof of it is the grant, and anybody can check it.
    let proof = owner.get(format!("/lightning/send-request/{}/authorization", text(&paid, "id"))).await.ok();
    assert_eq!(proof["message"], asked.message);
    let verdict =
        bip322::verify_simple_encoded(&text(&proof, "address"), &text(&proof, "message"), &text(&proof, "signature"));
    assert!(matches!(verdict, Ok(bip322::Verification::Valid { .. })), "{proof}");
    let limit = owner.get(GRANTS).await.ok()["grants"][0]["limits"][0].clone();
    let fee = paid["fee_msat"].as_u64().expect("a fee");
    assert_eq!(
        (limit["used_msat"].as_u64(), limit["left_msat"].as_u64()),
        (Some(10_000_000 + fee), Some(10_000_000 - fee))
    );
    let events = owner.until("/events?limit=500", |page| page.to_string().contains("spending_grant.given")).await;
    assert!(!events.to_string().contains(asked.secret.expose()));
}

async fn what_a_key_may_not_do_is_said(market: &Market) {
    let owner = market.funded(1, 50_000).await;
    let (other, flows) = (market.gateway.registered(2).await, market.gateway.flows());
    let (invoice, _) = market.lightning.shop_invoice(Some(sat(6_000)));
    let order = json!({ "destination": invoice, "max_fee_sats": 0 });
    // No key, a key without a limit, and one that may not send.
    let said = owner.post(PAY, order.clone()).await.refused(403, "spending_not_granted");
    assert!(text(&said, "detail").contains("pay-invoice-begin"), "{said}");
    let wallet = [owner.wallet.keys.id(), other.wallet.keys.id()];
    let plain = owner.with_key(&market.gateway.key(&[Scope::Send], &wallet).await);
    let said = plain.post(PAY, order.clone()).await.refused(403, "spending_not_granted");
    assert!(text(&said, "detail").contains("sluice keys create --limit"), "{said}");
    let reader = owner.with_key(&market.gateway.key(&[Scope::Read], &wallet).await);
    reader.post(PAY, order.clone()).await.refused(403, "forbidden");
    owner.with_key("sluice_0_0").post(PAY, order.clone()).await.refused(401, "unauthorized");
    // One of another wallet.
    let spender = market.spender(&owner, &["btc:10000/month"], Some("btc:8000")).await;
    let authorization = market.ask(&other, &["btc:10000/month"], None).await;
    let theirs = grants::give(flows, &authorization.key, &other.wallet.grant(&authorization.psbt)).await;
    theirs.expect("it is given");
    owner.with_key(authorization.secret.expose()).post(PAY, order.clone()).await.refused(403, "forbidden");
    // Fields that are wrong have names.
    for (body, field) in [
        (json!({}), "destination"),
        (json!({ "destination": invoice, "wait": 31 }), "wait"),
        (json!({ "destination": invoice, "wait": true }), "wait"),
        (json!({ "destination": invoice, "amount_sats": 0 }), "amount_sats"),
        (json!({ "destination": invoice, "amount_sats": 5 }), "amount_sats"),
        (json!({ "destination": "lnbcrt1x" }), "destination"),
        (json!({ "destination": invoice, "max_fee_sats": -1 }), "max_fee_sats"),
        (json!({ "destination": invoice, "reference": "" }), "reference"),
    ] {
        let answer = spender.post(PAY, body.clone()).await;
        assert_eq!((answer.status, &answer.body["field"]), (400, &json!(field)), "{answer}");
    }
    // Above one payment, and above what is left of the month.
    let (large, _) = market.lightning.shop_invoice(Some(sat(8_001)));
    spender.post(PAY, json!({ "destination": large })).await.refused(403, "payment_above_limit");
    let paid = spender.post(PAY, order.clone()).await.ok();
    assert_eq!((&paid["status"], &paid["amount_sats"]), (&json!("PENDING"), &json!(6_000)));
    let (second, _) = market.lightning.shop_invoice(Some(sat(5_000)));
    let before = market.gateway.row_counts().await;
    let answer = spender.post(PAY, json!({ "destination": second, "max_fee_sats": 0 })).await;
    let said = answer.refused(409, "spending_limit_exceeded");
    assert!(text(&said, "detail").contains("4000000 msat left, and it renews at "), "{said}");
    assert_eq!(said["retryable"], true);
    let seconds = answer.header("retry-after").and_then(|text| text.parse::<u64>().ok()).expect("seconds");
    assert!((1..=31 * 24 * 60 * 60 + 1).contains(&seconds), "{seconds}");
    assert_eq!(market.gateway.row_counts().await, before);
    // The owner's own signature is bound by no limit.
    let begun = owner.post("/lightning/pay-invoice-begin", json!({ "invoice": second, "max_fee_sats": 0 })).await.ok();
    let body = json!({ "signed_psbt": owner.sign(&begun) });
    owner.post("/lightning/pay-invoice-end", body).await.ok();
    // Revoked, it is as unknown as one that never was.
    let granted = grants::of_wallet(flows, &owner.wallet.keys.id()).await.expect("the store answers");
    assert!(keys::revoke(flows, granted[0].grant.key.clone()).await.expect("the store writes"));
    spender.post(PAY, order).await.refused(401, "unauthorized");
    assert_eq!(owner.get(GRANTS).await.ok()["grants"][0]["state"], "revoked");
}

async fn who_hangs_up_has_paid_all_the_same(market: &Market) {
    let owner = market.funded(1, 50_000).await;
    let asked = market.ask(&owner, &["btc:20000/month"], None).await;
    let signed = owner.wallet.grant(&asked.psbt);
    grants::give(market.gateway.flows(), &asked.key, &signed).await.expect("it is given");
    let (invoice, preimage) = market.lightning.shop_invoice(Some(sat(10_000)));
    let body = json!({ "destination": invoice, "wait": 30 }).to_string();
    let mut head = format!("{} {PAY} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n", Method::POST);
    for (name, value) in owner.wallet_headers() {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("authorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}", asked.secret.expose(), body.len());
    let address = market.gateway.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("the gateway listens");
    stream.write_all(head.as_bytes()).await.expect("the call is sent");
    owner.until(LIST, |list| list["payments"][0]["status"] == "Pending").await;
    drop(stream);
    // It is pending as soon as it is consented to, and that is before the node is asked.
    eventually("it arrives", async || market.lightning.shop.is_holding(preimage.hash()).then_some(())).await;
    market.lightning.shop_claims(preimage).await;
    owner.until(LIST, |list| list["payments"][0]["status"] == "Succeeded").await;
    let limit = owner.get(GRANTS).await.ok()["grants"][0]["limits"][0].clone();
    assert_eq!(limit["used_msat"], 10_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_races_through_two_gateways_keeps_to_its_limit() {
    const CALLS: usize = 32;
    const WITHIN: usize = 10;
    let Some((gateway, chain, lightning)) = Gateway::start_lightning(Database::Postgres, &[]).await else { return };
    let market = Market { gateway, chain, lightning };
    let (payer, payee) = (market.funded(1, 50_000).await, market.gateway.registered(2).await);
    let second = Gateway::start_beside(&market.gateway, &market.chain, &market.lightning).await;
    let asked = market.ask(&payer, &["btc:10000/month"], None).await;
    let signed = payer.wallet.grant(&asked.psbt);
    grants::give(second.flows(), &asked.key, &signed).await.expect("it is given");
    let one = payer.with_key(asked.secret.expose());
    let other = second.caller(1).with_key(asked.secret.expose());
    let mut orders = Vec::new();
    for _ in 0..CALLS {
        let made = payee.post("/lightning/create-invoice", json!({ "amount_sats": 1_000 })).await.ok();
        orders.push(json!({ "destination": made["invoice"] }));
    }
    let calls = orders.iter().enumerate().map(|(number, order)| {
        let caller = if number % 2 == 0 { &one } else { &other };
        caller.post(PAY, order.clone())
    });
    let answers = join_all(calls).await;
    for answer in &answers {
        match answer.status {
            200 => assert_eq!(answer.body["status"], "SUCCEEDED"),
            _ => drop(answer.refused(409, "spending_limit_exceeded")),
        }
    }
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), WITHIN);
    let limit = payer.get(GRANTS).await.ok()["grants"][0]["limits"][0].clone();
    assert_eq!((&limit["used_sats"], &limit["left_sats"]), (&json!(10_000), &json!(0)));
    second.stop().await;
    market.gateway.stop().await;
}

/// What a command printed: standard output, and standard error.
async fn run(site: &Site, arguments: &[&str]) -> (bool, String, String) {
    let output = site.run(arguments).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_makes_such_a_key_on_the_command_line() {
    let Some(node) = Bitcoind::start().await else { return };
    let site = Site::at(None, &node);
    let client = Client::number(1);
    let gateway = process::Gateway::start(&site).await;
    gateway.wait_synced(&node).await;
    gateway.answer(&process::Call::post("/wallet/register", &client)).await.ok();
    gateway.terminate().await;
    let wallet = client.keys.id().to_string();
    let create = ["keys", "create", "--name", "shop", "--scope", "send", "--wallet", wallet.as_str()];
    let limits = ["--limit", "btc:1000000/day", "--limit", "btc:5000000/month", "--limit-per-payment", "btc:50000"];
    let (ok, secret, said) = run(&site, &[create.as_slice(), &limits].concat()).await;
    assert!(ok && secret.starts_with("sluice_"), "{said}");
    let id = secret.split('_').nth(1).expect("an id").to_owned();
    assert!(said.contains("not in force yet") && said.contains("  limit: 1000000000 msat per day\n"), "{said}");
    let (_, listed, _) = run(&site, &["keys", "list"]).await;
    assert!(listed.contains("waits for its grant") && !listed.contains(secret.trim()), "{listed}");

    let (ok, psbt, message) = run(&site, &["keys", "grant-message", &id]).await;
    assert!(ok && message.contains("Sluice spending grant v1"), "{message}");
    let file = site.folder().join("signed");
    let name = file.display().to_string();
    std::fs::write(&file, psbt.trim()).expect("a file");
    let (ok, _, said) = run(&site, &["keys", "grant", &id, "--grant", &name]).await;
    assert!(!ok && said.contains("is not signed"), "{said}");
    std::fs::write(&file, client.grant(psbt.trim())).expect("a file");
    let (ok, said, _) = run(&site, &["keys", "grant", &id, "--grant", &name]).await;
    assert!(ok && said.contains(&format!("The key {id} may spend for the wallet {wallet} until ")), "{said}");
    let (ok, _, said) = run(&site, &["keys", "grant", &id, "--grant", &name]).await;
    assert!(!ok && said.contains("was given at"), "{said}");
    let (_, listed, _) = run(&site, &["keys", "list"]).await;
    assert!(listed.contains("may spend 1000000 sat per day: 0 used, 1000000 left, renews "), "{listed}");
    assert!(listed.contains("at most 50000 sat in one payment"), "{listed}");

    let (ok, _, _) = run(&site, &["keys", "revoke", &id]).await;
    let (_, listed, _) = run(&site, &["keys", "list"]).await;
    assert!(ok && listed.contains("revoked "), "{listed}");
    for bad in ["btc:5/year", "btc:0/day", "5/day", "rgb:abc:5/day"] {
        let (ok, _, said) = run(&site, &[create.as_slice(), &["--limit", bad]].concat()).await;
        assert!(!ok && said.contains("--limit"), "{bad}: {said}");
    }
    assert_eq!(site.audit().await, 0);
}
