//! The whole router over a real store and a chain in memory, without a socket.

mod lightning;

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use bitcoin::Network;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::clock::{Clock, Timestamp};
use crate::flows::keys::{NewKey, Scope};
use crate::flows::{NodeSlot, Policy, keys};

const VAN: &str =
    "tpubDDfvzhdVV4unsoKt5aE6dcsNsfeWbTgmLZPi8LQDYU2xixrYemMfWJ3BaVneH3u7DBQePdTwhpybaKRU95pi6PMUtLPBJLVQRpzEnjfjZzX";
const COL: &str =
    "tpubDDPLJfdVbDoGtnn6hSto3oCnm6hpfHe9uk2MxcANanxk87EuquhSVfSLQv7e5UykgzaFn41DUXaikjjVGcUSUTGNaJ9LcozfRwatKp1vTfC";

/// The time that the clock of a test stands at.
const NOW: i64 = 1_763_683_200_000;

struct Api {
    router: Router,
    flows: Flows,
    chain: Arc<crate::chain::fake::FakeChain>,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

async fn api(config: Config) -> Api {
    api_with(config, NodeSlot::default(), Clock::manual(Timestamp::from_millis(NOW))).await
}

async fn api_with(config: Config, slot: NodeSlot, clock: Clock) -> Api {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("test.db").display());
    let store = crate::store::Config { url: crate::secret::Secret::new(url), ..Default::default() };
    let store = crate::store::Store::open(&store, clock).await.unwrap();
    let chain = Arc::new(crate::chain::fake::FakeChain::new());
    let policy = Policy { lookahead: 5, ..Policy::default() };
    let flows = Flows::with_node(store, chain.clone(), slot, Network::Regtest, policy);
    let state = HttpState::new(flows.clone(), &config);
    let router = router(state);
    Api { router, flows, chain, _folder: folder }
}

impl Api {
    async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), 10_000_000).await.unwrap();
        Answer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(wallet("GET", path, Body::empty())).await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(wallet("POST", path, Body::from(body.to_owned()))).await
    }

    async fn registered(config: Config) -> Self {
        let api = api(config).await;
        let answer = api.post("/wallet/register", "").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        api
    }
}

fn wallet(method: &str, path: &str, body: Body) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path);
    builder
        .header("xpub-van", VAN)
        .header("xpub-col", COL)
        .header("master-fingerprint", "1f5bd7df")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body)
        .unwrap()
}

fn code(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.body["error"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_wallet_registers_and_reads_what_it_has() {
    let api = Api::registered(Config::default()).await;
    let registered = api.post("/wallet/register", "").await;
    let address = registered.body["address"].clone();
    assert_eq!(api.post("/wallet/address", "").await.body, address);
    assert_eq!(registered.body["btc_balance"]["vanilla"], json!({ "settled": 0, "future": 0, "spendable": 0 }));
    let receive = api.get("/lightning/onchain-receive").await.body;
    assert_eq!((&receive["btc_address"], &receive["asset_invoice"]), (&address, &json!("")));
    let balance = api.get("/lightning/balance").await.body;
    assert_eq!(balance["balance"]["offchain_balance"]["total"], 0);
    assert_eq!(balance["asset_balances"], json!([]));
    for path in ["/wallet/listunspents", "/wallet/listtransactions"] {
        assert_eq!(api.post(path, "").await.body, json!([]), "{path}");
    }
    assert_eq!(api.get("/lightning/listtransactions").await.body, json!({ "transactions": [], "next_cursor": null }));
    assert_eq!(api.get("/deposits?limit=5&state=confirmed").await.body, json!({ "deposits": [], "next_cursor": null }));
    assert_eq!(api.get("/onchain-send").await.body, json!({ "sends": [], "next_cursor": null }));
    let rate = api.post("/wallet/get_fee_estimation", r#"{"blocks": 6}"#).await;
    assert!(rate.body.as_f64().is_some_and(|rate| rate >= 1.0), "{}", rate.body);
}

#[tokio::test]
async fn each_customer_gets_an_address_of_his_own_and_pages_follow_each_other() {
    let api = Api::registered(Config::default()).await;
    let mut made = Vec::new();
    for n in 0..3 {
        let answer = api.post("/lightning/onchain-receive", &format!(r#"{{"label":"c{n}"}}"#)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        made.push(answer.body["btc_address"].as_str().unwrap().to_owned());
    }
    let mut seen = Vec::new();
    let mut path = "/lightning/unused-addresses?limit=2".to_owned();
    loop {
        let page = api.get(&path).await.body;
        seen.extend(
            page["addresses"].as_array().unwrap().iter().map(|a| a["btc_address"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/lightning/unused-addresses?limit=2&cursor={cursor}");
    }
    assert_eq!(seen.len(), 4, "three, and the one of the registration");
    assert!(made.iter().all(|address| seen.contains(address)));
    let events = api.get("/events?limit=2").await.body;
    assert_eq!(events["events"].as_array().unwrap().len(), 2);
    let rest = api.get(&format!("/events?after={}", events["next_after"])).await.body;
    assert!(rest["events"][0]["seq"].as_i64() > events["next_after"].as_i64());
}

#[tokio::test]
async fn an_idempotency_key_makes_one_address() {
    let api = Api::registered(Config::default()).await;
    let ask = async |body: &str| {
        let mut request = wallet("POST", "/lightning/onchain-receive", Body::from(body.to_owned()));
        request.headers_mut().insert("idempotency-key", "k1".parse().unwrap());
        api.ask(request).await
    };
    let first = ask(r#"{"label":"a"}"#).await.body;
    assert_eq!(first, ask(r#"{"label":"a"}"#).await.body);
    let other = ask(r#"{"label":"b"}"#).await;
    assert_eq!(code(&other), (422, "idempotency_mismatch"));
    assert_eq!(other.body["field"], "Idempotency-Key");
    let request = api.get(&format!("/requests/{}", first["request_id"].as_str().unwrap())).await.body;
    assert_eq!((&request["kind"], &request["state"]), (&json!("onchain_receive"), &json!("open")));
    assert_eq!(request["receive"]["btc_address"], first["btc_address"]);
    assert_eq!(request["timeline"][0]["kind"], "onchain_receive.issued");
}

#[tokio::test]
async fn what_is_wrong_is_said_and_has_a_trace_id() {
    let api = Api::registered(Config::default()).await;
    let unknown = api.get("/no/such/path").await;
    assert_eq!(code(&unknown), (404, "not_found"));
    assert_eq!(unknown.headers["content-type"], "application/problem+json");
    assert_eq!(unknown.body["instance"], "/no/such/path");
    assert_eq!(unknown.body["trace_id"].as_str(), unknown.headers["x-request-id"].to_str().ok());
    let method = api.get("/wallet/register").await;
    assert_eq!(code(&method), (405, "method_not_allowed"));
    assert_eq!(method.headers["allow"], "POST");
    for (path, body, field) in [
        ("/wallet/sendbtcbegin", r#"{"address":"x","amount":1e3}"#, "amount"),
        ("/wallet/sendbtcbegin", r#"{"amount":1}"#, "address"),
        ("/lightning/onchain-send-begin", r#"{"address_or_rgbinvoice":"x","fee_rate":1}"#, "amount_sats"),
        ("/wallet/get_fee_estimation", r#"{"blocks":0}"#, "blocks"),
        ("/wallet/get_fee_estimation", r#"{"blocks":65536}"#, "blocks"),
        ("/lightning/onchain-receive", r#"{"label":""}"#, "label"),
    ] {
        let answer = api.post(path, body).await;
        assert_eq!(
            (code(&answer).0, answer.body["field"].as_str()),
            (400, Some(field)),
            "{path} {body} {}",
            answer.body
        );
    }
    let answer = api.get("/deposits?state=nonsense").await;
    assert_eq!((code(&answer).0, answer.body["field"].as_str()), (400, Some("state")));
}

#[tokio::test]
async fn ids_of_nobody_are_null_for_lightning_and_unknown_for_the_rest() {
    let api = Api::registered(Config::default()).await;
    let id = crate::ids::RequestId::fresh();
    for path in ["/lightning/receive-request", "/lightning/send-request"] {
        let answer = api.get(&format!("{path}/{id}")).await;
        assert_eq!((answer.status.as_u16(), answer.body), (200, Value::Null));
    }
    for path in ["/onchain-send", "/lightning/onchain-send", "/requests"] {
        assert_eq!(code(&api.get(&format!("{path}/{id}")).await), (404, "not_found"));
        assert_eq!(code(&api.get(&format!("{path}/..%2fx")).await), (404, "not_found"));
        assert_eq!(code(&api.get(&format!("{path}/%ff")).await), (404, "not_found"));
    }
}

#[tokio::test]
async fn what_is_not_here_yet_says_which_rail_is_missing() {
    let api = Api::registered(Config::default()).await;
    assert_eq!(code(&api.post("/lightning/create-invoice", "").await), (400, "invalid_request"));
    let invoice = api.post("/lightning/create-invoice", r#"{"amount_sats":5}"#).await;
    assert_eq!(code(&invoice), (501, "lightning_unavailable"));
    assert_eq!(code(&api.post("/wallet/createutxosbegin", "{}").await), (501, "assets_unavailable"));
    assert_eq!(api.get("/lightning/listpayments").await.body, json!({ "payments": [], "next_cursor": null }));
}

#[tokio::test]
async fn headers_that_are_missing_malformed_or_unknown_are_told_apart() {
    let api = api(Config::default()).await;
    assert_eq!(code(&api.get("/lightning/balance").await), (404, "wallet_not_registered"));
    let mut request = wallet("GET", "/lightning/balance", Body::empty());
    request.headers_mut().remove("xpub-col");
    let missing = api.ask(request).await;
    assert_eq!((code(&missing), missing.body["field"].as_str()), ((401, "wallet_headers_missing"), Some("xpub-col")));
    let mut request = wallet("GET", "/lightning/balance", Body::empty());
    request.headers_mut().insert("master-fingerprint", "nonsense".parse().unwrap());
    let malformed = api.ask(request).await;
    assert_eq!(
        (code(&malformed), malformed.body["field"].as_str()),
        ((422, "invalid_keys"), Some("master-fingerprint"))
    );
}

async fn key(flows: &Flows, scopes: &[Scope]) -> String {
    let wanted = NewKey { name: "test".to_owned(), scopes: scopes.to_vec(), wallets: Vec::new(), expires_at: None };
    keys::create(flows, wanted).await.unwrap().1.expose().to_owned()
}

#[tokio::test]
async fn with_keys_a_wallet_belongs_to_the_key_that_registers_it() {
    let auth = config::AuthConfig { mode: Some(Mode::Key) };
    let api = api(Config { auth, ..Config::default() }).await;
    let (owner, stranger) =
        (key(&api.flows, &[Scope::Register, Scope::Read]).await, key(&api.flows, &[Scope::Read]).await);
    let ask = async |method: &str, path: &str, key: &str| {
        let mut request = wallet(method, path, Body::empty());
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        api.ask(request).await
    };
    let none = api.get("/lightning/balance").await;
    assert_eq!(code(&none), (401, "unauthorized"));
    assert!(none.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    assert_eq!(code(&ask("GET", "/lightning/balance", "wrong").await), (401, "unauthorized"));
    assert_eq!(code(&ask("POST", "/wallet/register", &stranger).await), (403, "forbidden"));
    let before = ask("GET", "/lightning/balance", &owner).await;
    assert_eq!(ask("POST", "/wallet/register", &owner).await.status, 200);
    assert_eq!(ask("GET", "/lightning/balance", &owner).await.status, 200);
    let foreign = ask("GET", "/lightning/balance", &stranger).await;
    assert_eq!(code(&foreign), (403, "forbidden"));
    assert_eq!(foreign.body["detail"], before.body["detail"], "a stranger can't tell a foreign wallet from none");
    assert_eq!(code(&ask("POST", "/wallet/address", &owner).await), (403, "forbidden"), "no scope receive");
    let answer = api.get(&format!("/lightning/balance?key={owner}&access_token={owner}")).await;
    assert_eq!(code(&answer), (401, "unauthorized"));
}

#[tokio::test]
async fn a_wallet_that_calls_too_often_waits() {
    let limits = config::RateLimits { per_wallet_per_second: std::num::NonZeroU32::MIN, ..Default::default() };
    let api = Api::registered(Config { limits, ..Config::default() }).await;
    let refused = api.get("/lightning/balance").await;
    assert_eq!(code(&refused), (429, "rate_limited"));
    assert!(refused.headers.contains_key("retry-after") && refused.body["retryable"] == true);
}

#[tokio::test]
async fn pages_of_other_origins_are_let_in_by_name_only() {
    let config = Config { cors_origins: vec!["https://shop.example".to_owned()], ..Config::default() };
    let api = Api::registered(config).await;
    let ask = async |origin: &'static str| {
        let mut request = wallet("GET", "/lightning/balance", Body::empty());
        request.headers_mut().insert("origin", origin.parse().unwrap());
        api.ask(request).await.headers
    };
    assert_eq!(ask("https://shop.example").await["access-control-allow-origin"], "https://shop.example");
    assert!(!ask("https://evil.example").await.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn the_document_and_its_pages_are_served() {
    let api = api(Config::default()).await;
    let plain = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    let document = api.ask(plain("/openapi.json")).await;
    assert_eq!(document.body["openapi"], "3.1.0");
    for path in ["/docs", "/docs/errors", "/docs/scalar.js"] {
        assert_eq!(api.ask(plain(path)).await.status, 200, "{path}");
    }
    assert_eq!(api.ask(plain("/docs/scalar.js")).await.headers["content-encoding"], "gzip");
    assert!(api.ask(plain("/docs")).await.headers.contains_key("content-security-policy"));
}

impl Api {
    /// A confirmed coin for the wallet, seen by the follower.
    async fn fund(&self, sat: u64) {
        let address = self.post("/wallet/address", "").await.body;
        let address: bitcoin::Address<_> = address.as_str().unwrap().parse().unwrap();
        self.follow().await;
        let script = address.assume_checked().script_pubkey();
        self.chain.fund_confirmed(&script, crate::money::Sat::new(sat).unwrap()).unwrap();
        self.follow().await;
    }

    async fn follow(&self) {
        use crate::flows::follow::{Progress, step};
        use crate::store::owners::{Acquire, Role};
        self.flows.store().clock().advance(std::time::Duration::from_secs(600));
        let acquire = Acquire { role: Role::Chain, holder: crate::ids::RequestId::fresh().to_string() };
        let owner = self.flows.store().write(acquire).await.unwrap().unwrap();
        while step(&self.flows, &owner).await.unwrap() == Progress::Moved {}
    }
}

#[tokio::test]
async fn a_send_begins_once_per_key_and_is_read_back() {
    let api = Api::registered(Config::default()).await;
    api.fund(100_000).await;
    let to = "bcrt1qs758ursh4q9z627kt3pp5yysm78ddny6txaqgw";
    let body = format!(r#"{{"address_or_rgbinvoice":"{to}","amount_sats":50000,"fee_rate":5,"reference":"r1"}}"#);
    let ask = async |accept: &'static str| {
        let mut request = wallet("POST", "/lightning/onchain-send-begin", Body::from(body.clone()));
        request.headers_mut().insert("idempotency-key", "k".parse().unwrap());
        request.headers_mut().insert("accept", accept.parse().unwrap());
        api.ask(request).await
    };
    let bare = ask("application/json").await;
    assert_eq!(bare.status, 200, "{}", bare.body);
    let psbt = bare.body.as_str().unwrap().to_owned();
    let object = ask("application/json; profile=object").await;
    assert_eq!(object.body["psbt"], psbt.as_str(), "the same key is the same request");
    assert_eq!(object.body["request_id"].as_str(), bare.headers["sluice-request-id"].to_str().ok());
    assert_eq!(bare.headers["sluice-source"], "onchain");
    assert_eq!(object.body["fee_sats"].to_string(), bare.headers["sluice-fee-sats"].to_str().unwrap());

    let id = object.body["request_id"].as_str().unwrap();
    let send = api.get(&format!("/onchain-send/{id}")).await.body;
    assert_eq!((&send["status"], &send["amount_sats_sent"]), (&json!("REQUESTED"), &Value::Null));
    assert_eq!(send, api.get(&format!("/lightning/onchain-send/{id}")).await.body);
    assert_eq!(send, api.get("/onchain-send?reference=r1").await.body["sends"][0]);
    assert_eq!(send, api.get(&format!("/requests/{id}")).await.body["send"]);
    assert_eq!(api.post("/wallet/listunspents", "").await.body[0]["utxo"]["leased_by"], id);
    let second = api.post("/lightning/onchain-send-begin", &body).await;
    assert_eq!(code(&second), (409, "coins_leased"));
    assert!(second.headers.contains_key("retry-after"));

    let end = |psbt: &str| json!({ "signed_psbt": psbt }).to_string();
    assert_eq!(code(&api.post("/lightning/onchain-send-end", &end(&psbt)).await), (400, "psbt_not_signed"));
    assert_eq!(code(&api.post("/wallet/sendbtcend", &end(&psbt)).await), (404, "psbt_unknown"), "another door");
    assert_eq!(code(&api.post("/lightning/onchain-send-end", &end("nonsense")).await), (400, "invalid_psbt"));
    let bump = api.post(&format!("/onchain-send/{id}/bump-begin"), r#"{"fee_rate":9}"#).await;
    assert_eq!(code(&bump), (409, "not_broadcast"));
}

#[tokio::test]
async fn a_deposit_its_coin_and_its_transaction_are_shown() {
    let api = Api::registered(Config::default()).await;
    api.fund(70_000).await;
    let deposits = api.get("/deposits").await.body;
    assert_eq!(
        (&deposits["deposits"][0]["amount_sats"], &deposits["deposits"][0]["state"]),
        (&json!(70_000), &json!("confirmed"))
    );
    let listed = api.post("/wallet/listtransactions?limit=1", "").await;
    assert_eq!((&listed.body[0]["received"], &listed.body[0]["fee"]), (&json!(70_000), &json!(0)));
    let message = api.post("/wallet/sync", "").await.body["message"].as_str().unwrap().to_owned();
    assert!(message.contains(&api.chain.tip().hash.to_string()), "{message}");
    assert_eq!(api.post("/wallet/refresh", "").await.body, json!({}));
    let balance = api.post("/wallet/btcbalance", "").await.body;
    assert_eq!(balance["vanilla"]["spendable"], 70_000);
    let mut amounts = Vec::new();
    let mut path = "/wallet/listunspents?limit=1".to_owned();
    api.fund(30_000).await;
    loop {
        let page = api.post(&path, "").await;
        amounts.extend(page.body.as_array().unwrap().iter().map(|coin| coin["utxo"]["btc_amount"].as_u64().unwrap()));
        let Some(next) = page.headers.get("sluice-next-cursor") else { break };
        path = format!("/wallet/listunspents?limit=1&cursor={}", next.to_str().unwrap());
    }
    amounts.sort_unstable();
    assert_eq!(amounts, [30_000, 70_000]);
}
