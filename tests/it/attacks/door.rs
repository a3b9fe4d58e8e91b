//! Getting in without a key: where wallet headers alone are believed, only programs of the same machine are to be heard.

use serde_json::{Value, json};

use crate::harness::client::Call;
use crate::harness::gateway::Gateway;

/// Every header by which a call gives away that it was not made on this machine.
const FROM_ELSEWHERE: [(&str, &str); 13] = [
    ("forwarded", "for=203.0.113.9"),
    ("x-forwarded-for", "127.0.0.1"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "localhost"),
    ("x-forwarded-anything", "1"),
    ("via", "1.1 proxy"),
    ("x-real-ip", "127.0.0.1"),
    ("origin", "https://evil.example"),
    ("origin", "null"),
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-site", "same-site"),
    ("host", "rebound.example"),
    ("host", "127.0.0.1.rebound.example"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_internet_behind_a_proxy_of_the_same_machine_acts_for_a_wallet_by_its_headers() {
    let (gateway, _chain) = Gateway::start_fake(&["auth.mode=wallet"]).await;
    let owner = gateway.registered(1).await;
    let before = gateway.row_counts().await;
    for (name, value) in FROM_ELSEWHERE {
        let attempts = [
            Call::get("/lightning/balance"),
            Call::post_empty("/lightning/onchain-receive"),
            Call::post_empty("/wallet/register"),
            Call::post("/lightning/pay-invoice", &json!({ "invoice": "lnbcrt1" })),
        ];
        for attempt in attempts {
            let refused = owner.call(attempt.header(name, value)).await.refused(403, "not_local");
            assert_eq!(refused["field"], name, "{name}: {value}");
        }
        let newcomer = gateway.caller(2).call(Call::post_empty("/wallet/register").header(name, value)).await;
        newcomer.refused(403, "not_local");
    }
    assert_eq!(gateway.row_counts().await, before);
    owner.get("/lightning/balance").await.ok();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_keys_a_proxy_is_what_it_should_be() {
    let (gateway, _chain) = Gateway::start_fake(&["auth.mode=key"]).await;
    let scopes = [sluice::flows::keys::Scope::Register, sluice::flows::keys::Scope::Read];
    let owner = gateway.caller(1).with_key(&gateway.key(&scopes, &[]).await);
    for (name, value) in FROM_ELSEWHERE {
        owner.call(Call::post_empty("/wallet/register").header(name, value)).await.ok();
    }
    assert_eq!(ready(&gateway).await["auth_mode"], "key");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_configuration_opens_a_gateway_that_holds_real_money() {
    for network in ["bitcoin", "signet", "testnet", "testnet4"] {
        let why = Gateway::refused_fake(&[&format!("chain.network={network}")]).await;
        assert!(why.contains("auth.mode is not set") && why.contains("auth.mode = \"key\""), "{network}: {why}");
    }
    for listen in ["http.listen=0.0.0.0:0", "http.listen=[::]:0"] {
        let why = Gateway::refused_fake(&[listen, "auth.mode=wallet"]).await;
        assert!(why.contains("which other machines reach"), "{listen}: {why}");
    }
    for any in ["http.cors_origins=[\"*\"]", "http.cors_origins=[\"https://shop.example\", \"*\"]"] {
        for mode in [&["auth.mode=wallet"][..], &[]] {
            let why = Gateway::refused_fake(&[&[any], mode].concat()).await;
            assert!(why.contains("any web page"), "{why}");
        }
    }
    let (gateway, _chain) = Gateway::start_fake(&["auth.mode=key", "http.cors_origins=[\"*\"]"]).await;
    gateway.stop().await;
    let (gateway, _chain) = Gateway::start_fake(&[]).await;
    assert_eq!(ready(&gateway).await["auth_mode"], "wallet");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_page_has_its_readers_browser_store_files_on_their_own_gateway() {
    let more = ["proxy.enabled=true", "http.cors_origins=[\"https://shop.example\"]"];
    let (gateway, _chain) = Gateway::start_fake(&more).await;
    let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let ask = async |name: &str, value: &str| {
        // What a page may send without asking first: text, which happens to be a call.
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "server.info", "params": null });
        let sent = client.post(format!("{}/json-rpc", gateway.url)).header(name, value);
        let answer = sent.header("content-type", "text/plain").body(call.to_string()).send().await;
        serde_json::from_str::<Value>(&answer.expect("an answer").text().await.expect("a body")).expect("JSON")
    };
    for (name, value) in [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
        assert_eq!(ask(name, value).await["error"]["code"], -32_004, "{name}: {value}");
    }
    for (name, value) in [("origin", "https://shop.example"), ("user-agent", "a wallet")] {
        assert!(ask(name, value).await["result"].is_object(), "{name}: {value}");
    }
    gateway.stop().await;
}

async fn ready(gateway: &Gateway) -> Value {
    let asked = reqwest::get(format!("{}/health/ready", gateway.operator_url)).await;
    let text = asked.expect("the operator's listener answers").text().await.expect("a body");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_guesses_keys_and_the_database_is_asked_for_each() {
    let more = [
        "auth.mode=key",
        "http.limits.enabled=true",
        "http.limits.failed_keys_per_client_per_minute=5",
        "http.forwarded_for=true",
    ];
    let (gateway, _chain) = Gateway::start_fake(&more).await;
    let good = gateway.key(&[sluice::flows::keys::Scope::Register, sluice::flows::keys::Scope::Read], &[]).await;
    let owner = gateway.caller(1).with_key(&good);
    owner.call(Call::post_empty("/wallet/register").header("x-forwarded-for", "198.51.100.7")).await.ok();
    let guess = async |number: u32, from: &str| {
        let key = format!("sluice_{number:012x}_{number:064x}");
        gateway.caller(1).with_key(&key).call(Call::get("/lightning/balance").header("x-forwarded-for", from)).await
    };
    for number in 0..5 {
        guess(number, "198.51.100.7").await.refused(401, "unauthorized");
    }
    let refused = guess(5, "198.51.100.7").await;
    refused.refused(429, "rate_limited");
    assert!(refused.header("retry-after").is_some());
    // Neither somebody from elsewhere waits, nor he who has shown a right key from there.
    guess(6, "198.51.100.8").await.refused(401, "unauthorized");
    owner.call(Call::get("/lightning/balance").header("x-forwarded-for", "198.51.100.7")).await.ok();
    // What can't be a key is looked for nowhere, so it is no guess.
    for _ in 0..20 {
        let nonsense = gateway.caller(1).with_key("sluice_0_0");
        nonsense
            .call(Call::get("/lightning/balance").header("x-forwarded-for", "198.51.100.9"))
            .await
            .refused(401, "unauthorized");
    }
    guess(7, "198.51.100.9").await.refused(401, "unauthorized");
    gateway.stop().await;
}
