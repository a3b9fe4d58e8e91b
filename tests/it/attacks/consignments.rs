//! A stranger at the consignment proxy, who needs no key: with slow sockets, with files that nobody wants, and with too many of them.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice::assets::fake::{FakeEngine, World};
use sluice::clock::Clock;
use sluice::flows::assets::accept::{self, PutOff};
use sluice::flows::assets::give_up;
use sluice::flows::assets::receive::{self, NewInvoice, Where};
use sluice::flows::values::{Label, Posted};
use sluice::flows::{Policy, ProxyPolicy, consignments};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::assets::side;
use crate::harness::client::{Call, Caller};
use crate::harness::consignments::{own_recipient, own_word};
use crate::harness::gateway::{Gateway, eventually};
use crate::harness::rig::{Client, Database, Rig, on_both, policy};

const PROXY: &str = "/json-rpc";
const BOUNDARY: &str = "a-line-between";
const A_DAY: u64 = 24 * 60 * 60;
/// The limits are on, and none of them but those of this file is met.
const LIMITS: [&str; 6] = [
    "proxy.enabled=true",
    "http.forwarded_for=true",
    "http.limits.enabled=true",
    "proxy.per_client_per_second=1000",
    "proxy.uploads_per_client_per_minute=1000",
    "auth.mode=key",
];

fn part(name: &str, value: &str) -> String {
    let file = if name == "file" { "; filename=\"f\"\r\nContent-Type: application/octet-stream" } else { "" };
    format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}")
}

/// The texts of a form that brings a consignment, up to where its file begins.
fn up_to_the_file(recipient: &str) -> String {
    let params = json!({ "recipient_id": recipient, "txid": "0f".repeat(32) }).to_string();
    let texts = [("method", "consignment.post"), ("jsonrpc", "2.0"), ("id", "7"), ("params", params.as_str())];
    let texts: String = texts.iter().map(|(name, value)| part(name, value) + "\r\n").collect();
    texts + &part("file", "")
}

/// A call whose head announces so many bytes, as this client.
async fn call(gateway: &Gateway, from: &str, kind: &str, length: usize, begun: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    // Little is taken off the gateway's hands that is not read.
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    let address = gateway.url.trim_start_matches("http://").parse().expect("an address");
    let mut stream = socket.connect(address).await.expect("a connection");
    let head = format!(
        "POST {PROXY} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {from}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{begun}"
    );
    stream.write_all(head.as_bytes()).await.expect("it is written");
    stream
}

async fn upload(gateway: &Gateway, from: &str, length: usize, begun: &str) -> TcpStream {
    call(gateway, from, &format!("multipart/form-data; boundary={BOUNDARY}"), length, begun).await
}

/// What is still being sent has no answer, unless it was turned away.
fn was_answered(stream: &TcpStream) -> bool {
    stream.try_read(&mut [0; 1]).is_ok()
}

/// A whole form.
fn form(recipient: &str, file: &[u8], from: &'static str) -> Call {
    let mut body = up_to_the_file(recipient).into_bytes();
    body.extend_from_slice(file);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    let call = Call::post_raw(PROXY, body);
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    Call { headers: Vec::new(), ..call }.header("content-type", kind).header("x-forwarded-for", from)
}

async fn bring(stranger: &Caller, recipient: &str, file: &[u8], from: &'static str) -> Value {
    stranger.call(form(recipient, file, from)).await.ok()
}

fn get(recipient: &str) -> String {
    json!({ "jsonrpc": "2.0", "id": 7, "method": "consignment.get", "params": { "recipient_id": recipient } })
        .to_string()
}

/// What is said until one of these words is.
async fn first_words(stream: &mut TcpStream, enough: &[&str]) -> String {
    let (mut said, mut piece) = (String::new(), [0; 1_024]);
    while !enough.iter().any(|word| said.contains(word)) {
        let read = stream.read(&mut piece).await.expect("an answer");
        assert!(read > 0, "it hung up: {said}");
        said.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_uploads_of_strangers_keep_payers_of_our_invoices_out() {
    let (gateway, _chain) = Gateway::start_fake(&[&LIMITS[..], &["proxy.max_consignment_bytes=65536"]].concat()).await;
    let stranger = gateway.caller(1).without_wallet();
    assert!(own_recipient(gateway.flows(), "ours", 3).await);
    let mut slow = Vec::new();
    let begun = format!("{}{}", part("file", ""), "x".repeat(60_000));
    for from in ["198.51.100.1", "198.51.100.1", "198.51.100.2", "198.51.100.2"] {
        slow.push((from, upload(&gateway, from, 70_000, &begun).await));
    }
    eventually("the room of strangers is taken", async || {
        let answer = bring(&stranger, "theirs", b"x", "198.51.100.3").await;
        for (from, stream) in &mut slow {
            // This call may have had the last room when it came: it comes again.
            if was_answered(stream) {
                *stream = upload(&gateway, from, 70_000, &begun).await;
            }
        }
        (answer["error"]["code"] == -32_003).then_some(())
    })
    .await;
    assert_eq!(bring(&stranger, "ours", &[7; 60_000], "198.51.100.3").await["result"], true, "there is room for ours");
    let one_more = bring(&stranger, "theirs", b"x", "198.51.100.1").await;
    assert_eq!(one_more["error"]["code"], -32_003, "two files of one client at a time");
    drop(slow);
    eventually("there is room again", async || {
        (bring(&stranger, "theirs", b"x", "198.51.100.1").await["result"] == true).then_some(())
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_keep_those_out_who_bring() {
    let (gateway, _chain) = Gateway::start_fake(&LIMITS).await;
    let stranger = gateway.caller(1).without_wallet();
    let large = vec![7; 16 * 1024 * 1024];
    assert_eq!(bring(&stranger, "large", &large, "198.51.100.3").await["result"], true);
    let mut slow = Vec::new();
    for from in ["198.51.100.1", "198.51.100.1", "198.51.100.2", "198.51.100.2"] {
        let body = get("large");
        let mut reader = call(&gateway, from, "application/json", body.len(), &body).await;
        assert!(first_words(&mut reader, &["\r\n\r\n"]).await.starts_with("HTTP/1.1 200"));
        slow.push(reader);
    }
    let body = get("large");
    for from in ["198.51.100.1", "198.51.100.9"] {
        let mut reader = call(&gateway, from, "application/json", body.len(), &body).await;
        assert!(first_words(&mut reader, &["}"]).await.contains("-32003"), "{from}");
    }
    assert_eq!(bring(&stranger, "another", &large, "198.51.100.9").await["result"], true, "bringing needs none of it");
    drop(slow);
    eventually("it can be fetched again", async || {
        let mut reader = call(&gateway, "198.51.100.9", "application/json", body.len(), &body).await;
        first_words(&mut reader, &["\"result\"", "\"error\""]).await.contains("\"result\"").then_some(())
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_stall_take_all_connections_from_those_who_have_keys() {
    let (gateway, _chain) = Gateway::start_fake(&[&LIMITS[..], &["http.max_connections=80"]].concat()).await;
    let key = gateway.key(&[sluice::flows::keys::Scope::Register, sluice::flows::keys::Scope::Read], &[]).await;
    let owner = gateway.caller(1).with_key(&key);
    owner.post_empty("/wallet/register").await.ok();
    let mut stalled = Vec::new();
    for n in 0..64 {
        stalled.push(call(&gateway, &format!("198.51.100.{n}"), "application/json", 100, "{").await);
    }
    eventually("no more of them are served", async || {
        let body = json!({ "jsonrpc": "2.0", "method": "server.info" }).to_string();
        let mut one = call(&gateway, "203.0.113.9", "application/json", body.len(), &body).await;
        first_words(&mut one, &["}"]).await.contains("-32003").then_some(())
    })
    .await;
    owner.get("/lightning/balance").await.ok();
    // A call of no length has ten seconds to arrive.
    let said = first_words(&mut stalled[0], &["}"]).await;
    assert!(said.contains("-32700") && said.contains("in time"), "{said}");
    gateway.stop().await;
}

/// An invoice of a wallet for an asset.
async fn invoice(rig: &Rig, client: &Client) -> (String, i32) {
    let wanted = NewInvoice {
        at: Where::Witness,
        asset: None,
        amount: None,
        min_confirmations: None,
        lifetime: std::time::Duration::from_secs(A_DAY),
        address: None,
    };
    let request = receive::open(&rig.flows, &client.keys, wanted, None).await.expect("an invoice");
    (request.machine.recipient, request.machine.batch)
}

fn label(recipient: &str) -> Label {
    Label { recipient_id: recipient.to_owned(), txid: "ab".repeat(32), vout: None }
}

async fn post(rig: &Rig, recipient: &str, bytes: &[u8]) -> Posted {
    consignments::post(&rig.flows, label(recipient), bytes.to_vec()).await.expect("the store writes")
}

async fn has_file(rig: &Rig, recipient: &str) -> bool {
    consignments::content(&rig.flows, recipient).await.expect("the store answers").is_some()
}

fn with_engine(rig: &Rig) {
    let engine = FakeEngine::new(World::new(rig.clock.clone()), Arc::clone(&rig.chain) as _);
    rig.flows.use_assets(side(engine));
}

on_both!(files_for_an_invoice_that_is_over_fill_the_ledger_for_ever, |rig| async move {
    with_engine(&rig);
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    let (late, batch) = invoice(&rig, &client).await;
    assert_eq!(post(&rig, &late, b"garbage").await, Posted::Stored);
    assert!(give_up::batch(&rig.flows, &client.keys, batch, false).await.expect("it is taken back"));
    // What was brought before is looked at, refused and dropped; that it came stays known.
    while accept::look_at_what_was_brought(&rig.flows, &mut PutOff::default()).await.expect("the engine looks") {}
    let found = consignments::find(&rig.flows, &late).await.expect("the store answers").expect("it is known");
    assert!(found.is_dropped && found.ack == Some(false) && !has_file(&rig, &late).await);
    assert_eq!(post(&rig, &late, b"garbage").await, Posted::Same);

    let (over, batch) = invoice(&rig, &client).await;
    assert!(give_up::batch(&rig.flows, &client.keys, batch, false).await.expect("it is taken back"));
    assert_eq!(post(&rig, &over, &[7; 1_000]).await, Posted::Closed);
    assert!(!has_file(&rig, &over).await);
    rig.audit().await;
});

on_both!(what_was_brought_for_an_invoice_outlives_it_for_ever, |rig| async move {
    with_engine(&rig);
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    let (paid, batch) = invoice(&rig, &client).await;
    let (open, _) = invoice(&rig, &client).await;
    for recipient in [&paid, &open] {
        assert_eq!(post(&rig, recipient, b"a consignment").await, Posted::Stored);
        own_word(&rig.flows, recipient, true).await;
    }
    assert!(give_up::batch(&rig.flows, &client.keys, batch, false).await.expect("it has ended"));
    while consignments::sweep(&rig.flows).await.expect("the sweep runs") > 0 {}
    assert!(has_file(&rig, &paid).await, "not yet");
    rig.clock.advance(std::time::Duration::from_secs(31 * A_DAY));
    while consignments::sweep(&rig.flows).await.expect("the sweep runs") > 0 {}
    assert!(!has_file(&rig, &paid).await && has_file(&rig, &open).await);
    let found = consignments::find(&rig.flows, &paid).await.expect("the store answers").expect("it is known");
    assert!(found.is_dropped && found.ack == Some(true), "what was said stays");
    rig.audit().await;
});

/// Ten bytes are all that one wallet has room for.
fn ten_bytes() -> Policy {
    Policy { proxy: ProxyPolicy { max_wallet_bytes: 10, ..ProxyPolicy::default() }, ..policy() }
}

on_both!(files_for_invoices_of_one_wallet_fill_the_ledger, ten_bytes(), |rig| async move {
    for (recipient, wallet) in [("one", 1), ("two", 1), ("another's", 2)] {
        assert!(own_recipient(&rig.flows, recipient, wallet).await);
    }
    assert_eq!(post(&rig, "one", b"123456").await, Posted::Stored);
    assert_eq!(post(&rig, "two", b"12345").await, Posted::Full);
    assert_eq!(post(&rig, "another's", b"1234567890").await, Posted::Stored, "each wallet has its own");
    own_word(&rig.flows, "one", false).await;
    assert_eq!(post(&rig, "two", b"12345").await, Posted::Stored, "what was refused makes room");
    rig.audit().await;
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_for_an_invoice_that_is_over_is_not_even_read() {
    let overrides = [&LIMITS[..], &["auth.mode=wallet", "http.forwarded_for=false"]].concat();
    let Some((gateway, chain)) = Gateway::start_fake_on(Database::Sqlite, &overrides).await else { return };
    gateway.flows().use_assets(side(FakeEngine::new(World::new(Clock::System), chain.clone() as _)));
    let owner = gateway.registered(1).await;
    let made = owner.post("/wallet/witnessreceive", json!({})).await.ok();
    let recipient = made["recipient_id"].as_str().expect("a recipient").to_owned();
    let taken_back = json!({ "batch_transfer_idx": made["batch_transfer_idx"], "no_asset_only": false });
    owner.post("/wallet/failtransfers", taken_back).await.ok();
    let before = gateway.row_counts().await;
    // All but the file is sent, and nothing of it ever is.
    let head = up_to_the_file(&recipient);
    let mut stream = upload(&gateway, "", 16_000_000, &head).await;
    let said = first_words(&mut stream, &["}"]).await;
    assert!(said.contains("-32005") && said.contains("\"id\":\"7\""), "{said}");
    assert_eq!(gateway.row_counts().await, before);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_assets_hosts_files_of_anybody() {
    let (gateway, _chain) = Gateway::start_fake(&[]).await;
    let stranger = gateway.caller(1).without_wallet();
    stranger.call(form("anything", b"malware", "198.51.100.1")).await.refused(404, "not_found");
    gateway.stop().await;

    let (gateway, _chain) = Gateway::start_fake(&["proxy.enabled=true"]).await;
    let stranger = gateway.caller(1).without_wallet();
    let before = gateway.row_counts().await;
    let medium = json!({ "jsonrpc": "2.0", "id": 7, "method": "media.get", "params": { "attachment_id": "x" } });
    assert_eq!(stranger.post(PROXY, medium).await.ok()["error"]["code"], -32_601);
    let body = up_to_the_file("x").replace("consignment.post", "media.post").replace("recipient_id", "attachment_id");
    let mut stream = upload(&gateway, "198.51.100.1", 5_000_000, &body).await;
    assert!(first_words(&mut stream, &["}"]).await.contains("-32601"), "media are taken");
    // What strangers exchange is in no table.
    assert_eq!(bring(&stranger, "theirs", b"a consignment", "198.51.100.1").await["result"], true);
    assert_eq!(gateway.row_counts().await, before);
    gateway.stop().await;
}
