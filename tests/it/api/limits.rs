//! Callers that are too many, too fast, too slow or too long-winded.

use std::time::{Duration, Instant};

use serde_json::json;
use sluice::flows::keys::Scope;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{funded_on_fake, send_of};
use crate::harness::client::Call;
use crate::harness::gateway::{Gateway, eventually};
use crate::harness::rig::stranger;

/// More than the longest deadline, which is 15 s for a body.
const DROPPED_WITHIN: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_that_calls_too_often_waits_and_no_other_does() {
    let (gateway, _chain) =
        Gateway::start_fake(&["http.limits.enabled=true", "http.limits.per_wallet_per_second=3"]).await;
    let (busy, calm) = (gateway.caller(1), gateway.caller(2));
    calm.post_empty("/wallet/register").await.ok();
    busy.post_empty("/wallet/register").await.ok();
    let mut refused = None;
    for _ in 0..200 {
        let answer = busy.get("/lightning/balance").await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a limit is reached");
    assert_eq!(refused.refused(429, "rate_limited")["retryable"], true);
    calm.get("/lightning/balance").await.ok();
    eventually("the wallet may call again", async || {
        (busy.get("/lightning/balance").await.status == 200).then_some(())
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begins_and_keys_have_limits_of_their_own() {
    let limits = [
        "auth.mode=key",
        "http.limits.enabled=true",
        "http.limits.begins_per_wallet_per_minute=2",
        "http.limits.per_key_per_second=30",
    ];
    let (gateway, chain) = Gateway::start_fake(&limits).await;
    let all = [Scope::Register, Scope::Read, Scope::Receive, Scope::Send];
    let caller = gateway.caller(1).with_key(&gateway.key(&all, &[]).await);
    gateway.register(&caller).await;
    let caller = funded_on_fake(&gateway, &chain, caller, &[90_000, 90_000, 90_000]).await;
    let begin = Call::post("/lightning/onchain-send-begin", &send_of(&stranger(), 20_000));
    caller.call(begin.clone()).await.ok();
    caller.call(begin.clone()).await.ok();
    let before = gateway.row_counts().await;
    let refused = caller.call(begin).await;
    refused.refused(429, "rate_limited");
    let wait: u32 = refused.header("retry-after").and_then(|s| s.parse().ok()).expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(gateway.row_counts().await, before);
    let answers = futures::future::join_all((0..120).map(|_| caller.get("/lightning/balance"))).await;
    assert!(answers.iter().any(|answer| answer.status == 429), "a key has a limit");
    gateway.stop().await;
}

async fn connect(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.url.trim_start_matches("http://")).await.expect("a connection")
}

/// What comes before the other side hangs up; fails when it does not.
async fn until_dropped(mut stream: TcpStream) -> (String, Duration) {
    let started = Instant::now();
    let mut said = Vec::new();
    let ended = tokio::time::timeout(DROPPED_WITHIN, stream.read_to_end(&mut said)).await;
    // A reset is as good as an end.
    drop(ended.expect("the connection is still open"));
    (String::from_utf8_lossy(&said).into_owned(), started.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_are_half_open_or_slow_are_dropped() {
    let (gateway, _chain) = Gateway::start_fake(&[]).await;
    let caller = gateway.registered(1).await;
    let names: String = caller.wallet_headers().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let silent = connect(&gateway).await;
    let mut half_a_head = connect(&gateway).await;
    half_a_head.write_all(b"GET /lightning/balance HTTP/1.1\r\nHost: localhost\r\nxpub-").await.expect("it is written");
    let mut half_a_body = connect(&gateway).await;
    let head = format!(
        "POST /wallet/sendbtcbegin HTTP/1.1\r\nHost: localhost\r\n{names}Content-Length: 100\r\nConnection: close\r\n\r\n{{\"a"
    );
    half_a_body.write_all(head.as_bytes()).await.expect("it is written");
    let before = gateway.row_counts().await;
    let (silent, head, body) =
        tokio::join!(until_dropped(silent), until_dropped(half_a_head), until_dropped(half_a_body));
    assert!(silent.1 < Duration::from_secs(30) && !silent.0.contains(" 200 "), "{silent:?}");
    assert!(head.1 < Duration::from_secs(30) && !head.0.contains(" 200 "), "{head:?}");
    assert!(body.0.starts_with("HTTP/1.1 4"), "{body:?}");
    assert_eq!(gateway.row_counts().await, before);
    caller.get("/lightning/balance").await.ok();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_announced_too_large_is_refused_before_it_comes() {
    let (gateway, _chain) = Gateway::start_fake(&[]).await;
    let caller = gateway.registered(1).await;
    let names: String = caller.wallet_headers().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    for path in ["/wallet/sendbtcbegin", "/wallet/sendbtcend", "/lightning/onchain-receive"] {
        let mut stream = connect(&gateway).await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{names}Content-Length: 20971520\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("it is written");
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.expect("an answer");
        assert_eq!(&start, b"HTTP/1.1 413", "{path}");
        // One that does not say how long it is: it is read as far as it may go.
        let mut stream = connect(&gateway).await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{names}Transfer-Encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("it is written");
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        for _ in 0..320 {
            if stream.write_all(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
        let mut start = [0; 12];
        if stream.read_exact(&mut start).await.is_ok() {
            assert_eq!(&start, b"HTTP/1.1 413", "{path}");
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_head_is_refused_and_harms_nobody() {
    let (gateway, _chain) = Gateway::start_fake(&[]).await;
    let caller = gateway.registered(1).await;
    let many: String = (0..2_000).map(|n| format!("x-{n}: 1\r\n")).collect();
    for extra in
        [format!("x-long: {}\r\n", "x".repeat(2_000_000)), many, "bad header\r\n".to_owned(), "x: \0\r\n".to_owned()]
    {
        let mut stream = connect(&gateway).await;
        let head = format!("GET /lightning/balance HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n");
        // It may hang up before it has heard all of it.
        drop(stream.write_all(head.as_bytes()).await);
        let (said, _) = until_dropped(stream).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
    caller.get("/lightning/balance").await.ok();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_turned_away_and_places_become_free() {
    let (gateway, _chain) = Gateway::start_fake(&["http.max_connections=2"]).await;
    let busy = gateway.registered(1).await;
    let names: String = busy.wallet_headers().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&gateway).await;
        let head = format!(
            "POST /wallet/sendbtcbegin HTTP/1.1\r\nHost: localhost\r\n{names}Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("it is written");
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.expect("an answer");
        assert_eq!(&start, b"HTTP/1.1 100", "a call that is under way");
        held.push(stream);
    }
    let (said, _) = until_dropped(connect(&gateway).await).await;
    assert!(
        said.starts_with("HTTP/1.1 503") && said.contains("too_many_connections") && said.contains("Retry-After"),
        "{said}"
    );
    held.clear();
    let caller = gateway.caller(1);
    let get_in = async || {
        let call = Call::post("/wallet/register", &json!({}));
        let answer = caller.call(call.expecting(503)).await;
        (answer.status == 200).then_some(())
    };
    eventually("somebody gets in again", get_in).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_only_asks_for_fees_has_the_network_searched_no_more_often_than_a_payer() {
    let (gateway, _chain) =
        Gateway::start_fake(&["http.limits.enabled=true", "http.limits.begins_per_wallet_per_minute=2"]).await;
    let caller = gateway.caller(1);
    caller.post_empty("/wallet/register").await.ok();
    let ask = Call::post("/lightning/fee-estimate", &json!({ "invoice": "lnbcrt1" }));
    for _ in 0..2 {
        caller.call(ask.clone()).await.refused(400, "invalid_invoice");
    }
    caller.call(ask).await.refused(429, "rate_limited");
    gateway.stop().await;
}
