//! The consignment proxy as wallets of RGB use it: every row of its table, every code, and everything that is no call at all.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::future::join_all;
use serde_json::{Value, json};
use sluice::chain::fake::FakeChain;
use sluice::flows::values::Acknowledged;
use sluice::store::{StoreError, Tx, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::client::{Answer, Call, Caller};
use crate::harness::consignments::{own_recipient, own_word};
use crate::harness::document::every_operation;
use crate::harness::gateway::{Gateway, eventually};
use crate::harness::rig::Database;

const PROXY: &str = "/json-rpc";
const BOUNDARY: &str = "a-line-between";
const MEGABYTE: usize = 1024 * 1024;
/// Without assets it is off, and media are.
const ON: [&str; 3] = ["auth.mode=key", "proxy.enabled=true", "proxy.media=true"];

/// A gateway, and somebody who has no wallet and no key.
struct Desk {
    gateway: Gateway,
    chain: Arc<FakeChain>,
    anybody: Caller,
}

impl Desk {
    async fn open(database: Database, overrides: &[&str]) -> Option<Self> {
        let (gateway, chain) = Gateway::start_fake_on(database, &[&ON[..], overrides].concat()).await?;
        Some(Self { anybody: gateway.caller(1).without_wallet(), gateway, chain })
    }

    async fn on_sqlite(overrides: &[&str]) -> Self {
        Self::open(Database::Sqlite, overrides).await.expect("SQLite is always there")
    }

    async fn again(self) -> Self {
        let gateway = self.gateway.again(&self.chain).await;
        Self { anybody: gateway.caller(1).without_wallet(), gateway, chain: self.chain }
    }

    /// A call that brings no file.
    async fn ask(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": null, "method": method, "params": params });
        outcome(&self.anybody.post(PROXY, body).await, &Value::Null)
    }

    async fn bring(&self, method: &str, params: &Value, file: &[u8]) -> Value {
        let params = params.to_string();
        let parts =
            [("method", method.as_bytes()), ("jsonrpc", b"2.0"), ("id", b"null"), ("params", params.as_bytes())];
        let call = form(PROXY, &[&parts[..], &[("file", file)]].concat());
        outcome(&self.anybody.call(call).await, &Value::Null)
    }

    async fn consign(&self, recipient: &str, file: &[u8]) -> Value {
        self.bring("consignment.post", &consignment(recipient), file).await
    }

    async fn stop(self) {
        self.gateway.stop().await;
    }
}

fn txid() -> String {
    "0f".repeat(32)
}

fn consignment(recipient: &str) -> Value {
    json!({ "recipient_id": recipient, "txid": txid() })
}

fn to(recipient: &str) -> Value {
    json!({ "recipient_id": recipient })
}

fn form(path: &str, parts: &[(&str, &[u8])]) -> Call {
    let mut body = Vec::new();
    for (name, value) in parts {
        body.extend_from_slice(part_head(name).as_bytes());
        body.extend_from_slice(value);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    raw_form(path, body)
}

fn part_head(name: &str) -> String {
    let file = if name == "file" { "; filename=\"f\"\r\nContent-Type: application/octet-stream" } else { "" };
    format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n")
}

fn raw_form(path: &str, body: impl Into<Vec<u8>>) -> Call {
    let call = Call::post_raw(path, body);
    Call { headers: Vec::new(), ..call }.header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"))
}

/// The result, or the whole error; of an answer that is one, and has this id.
#[track_caller]
fn outcome(answer: &Answer, id: &Value) -> Value {
    let body = answer.ok();
    assert_eq!((&body["jsonrpc"], &body["id"]), (&json!("2.0"), id), "{answer}");
    let fields = super::fields(&body);
    if fields == ["error", "id", "jsonrpc"] {
        assert_eq!(super::fields(&body["error"]), ["code", "message"]);
        return body["error"].clone();
    }
    assert_eq!(fields, ["id", "jsonrpc", "result"], "{answer}");
    body["result"].clone()
}

#[track_caller]
fn code(outcome: &Value) -> i64 {
    assert!(outcome["message"].as_str().is_some_and(|message| message.len() > 5), "{outcome} is no error");
    outcome["code"].as_i64().expect("a code")
}

/// Tells stories on both databases.
macro_rules! on_both {
    ($($story:ident),+ $(,)?) => {$(
        mod $story {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::tell(Database::Sqlite, super::$story).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                super::tell(Database::Postgres, super::$story).await;
            }
        }
    )+};
}

async fn tell(database: Database, story: impl AsyncFnOnce(Desk) -> Desk) {
    let overrides = ["proxy.max_media_bytes=1000", "proxy.max_total_bytes=50000000"];
    let Some(desk) = Desk::open(database, &overrides).await else { return };
    story(desk).await.stop().await;
}

on_both!(
    a_consignment_goes_from_payer_to_payee_and_the_word_comes_back,
    media_are_there_for_whoever_knows_their_name,
    each_thing_that_is_wrong_has_its_code,
    only_the_gateway_itself_acknowledges_for_its_invoices,
    the_largest_file_is_taken_and_one_byte_more_is_not,
    of_two_that_come_at_once_one_is_stored,
    a_restart_keeps_everything,
    what_is_old_goes_by_itself,
);

async fn a_consignment_goes_from_payer_to_payee_and_the_word_comes_back(desk: Desk) -> Desk {
    let info = desk.ask("server.info", Value::Null).await;
    assert_eq!(super::fields(&info), ["protocol_version", "uptime", "version"]);
    assert_eq!((&info["protocol_version"], &info["version"]), (&json!("0.2"), &json!(env!("CARGO_PKG_VERSION"))));
    assert!(info["uptime"].is_u64());
    let body = json!({ "jsonrpc": "2.0", "method": "server.info" });
    outcome(&desk.anybody.post(PROXY, body).await, &Value::Null);

    let bytes = b"\0a consignment\xff\r\n--a-line-betwee";
    assert_eq!(code(&desk.ask("consignment.get", to("r")).await), -400);
    assert_eq!(code(&desk.ask("ack.get", to("r")).await), -400);
    assert_eq!(code(&desk.ask("ack.post", json!({ "recipient_id": "r", "ack": true })).await), -400);
    assert_eq!(desk.consign("r", bytes).await, true);
    assert_eq!(desk.consign("r", bytes).await, false);
    let there = desk.ask("consignment.get", to("r")).await;
    assert_eq!(there, json!({ "consignment": BASE64_STANDARD.encode(bytes), "txid": txid() }));
    let with_vout = json!({ "recipient_id": "r2", "txid": txid().to_uppercase(), "vout": 4_294_967_295_u32 });
    assert_eq!(desk.bring("consignment.post", &with_vout, b"").await, true);
    assert_eq!(desk.bring("consignment.post", &with_vout, b"").await, false);
    let there = desk.ask("consignment.get", to("r2")).await;
    assert_eq!(there, json!({ "consignment": "", "txid": txid(), "vout": 4_294_967_295_u32 }));

    assert_eq!(code(&desk.consign("r", b"other bytes").await), -101);
    let other_tx = json!({ "recipient_id": "r", "txid": "aa".repeat(32) });
    assert_eq!(code(&desk.bring("consignment.post", &other_tx, bytes).await), -101);
    let other_vout = json!({ "recipient_id": "r", "txid": txid(), "vout": 0 });
    assert_eq!(code(&desk.bring("consignment.post", &other_vout, bytes).await), -101);

    assert_eq!(desk.ask("ack.get", to("r")).await, Value::Null);
    let say = async |ack: bool| desk.ask("ack.post", json!({ "recipient_id": "r", "ack": ack })).await;
    assert_eq!(say(true).await, true);
    assert_eq!(say(true).await, false);
    assert_eq!(code(&say(false).await), -100);
    assert_eq!(desk.ask("ack.get", to("r")).await, true);
    let no = json!({ "recipient_id": "r2", "ack": false });
    assert_eq!(desk.ask("ack.post", no.clone()).await, true);
    assert_eq!(desk.ask("ack.post", no).await, false);
    assert_eq!(desk.ask("ack.get", to("r2")).await, false);

    for id in [json!("17"), json!("null"), json!(17), json!("")] {
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": "ack.get", "params": to("r") });
        assert_eq!(outcome(&desk.anybody.post(PROXY, body).await, &id), true);
    }
    let text = consignment("r").to_string();
    let parts = [
        ("file", &bytes[..]),
        ("params", text.as_bytes()),
        ("id", b"17"),
        ("jsonrpc", b"2.0"),
        ("method", b"consignment.post"),
    ];
    let last_first = desk.anybody.call(form(PROXY, &parts)).await;
    assert_eq!(outcome(&last_first, &json!("17")), false, "the file may come first, and an id is text");
    desk
}

async fn media_are_there_for_whoever_knows_their_name(desk: Desk) -> Desk {
    let named = json!({ "attachment_id": "9a271f" });
    assert_eq!(code(&desk.ask("media.get", named.clone()).await), -401);
    assert_eq!(desk.bring("media.post", &named, b"a picture").await, true);
    assert_eq!(desk.bring("media.post", &named, b"a picture").await, false);
    assert_eq!(code(&desk.bring("media.post", &named, b"another").await), -101);
    assert_eq!(desk.ask("media.get", named).await, BASE64_STANDARD.encode("a picture"));
    desk
}

async fn each_thing_that_is_wrong_has_its_code(desk: Desk) -> Desk {
    desk.consign("r", b"x").await;
    let before = desk.gateway.row_counts().await;
    for (expected, method, params) in [
        (-300, "ack.post", to("r")),
        (-200, "ack.post", json!({ "recipient_id": "r", "ack": "yes" })),
        (-302, "ack.post", json!({ "ack": true })),
        (-202, "ack.post", json!({ "recipient_id": 5, "ack": true })),
        (-302, "ack.get", Value::Null),
        (-202, "ack.get", to("")),
        (-202, "consignment.get", to(&"x".repeat(256))),
        (-202, "consignment.get", to("a\nb")),
        (-302, "consignment.get", json!({})),
        (-301, "media.get", Value::Null),
        (-201, "media.get", json!({ "attachment_id": null })),
        (-303, "consignment.post", consignment("new")),
        (-303, "media.post", json!({ "attachment_id": "new" })),
        (-301, "media.post", json!({})),
        (-32_601, "consignment.delete", Value::Null),
        (-32_601, "", Value::Null),
        (-32_602, "server.info", json!([])),
    ] {
        let outcome = desk.ask(method, params).await;
        assert_eq!(code(&outcome), expected, "{method}: {outcome}");
    }
    for (expected, params) in [
        (-302, json!({ "txid": txid() })),
        (-202, json!({ "recipient_id": "\u{e9}", "txid": txid() })),
        (-303, to("new")),
        (-203, json!({ "recipient_id": "new", "txid": "ab" })),
        (-203, json!({ "recipient_id": "new", "txid": "zz".repeat(32) })),
        (-204, json!({ "recipient_id": "new", "txid": txid(), "vout": -1 })),
        (-204, json!({ "recipient_id": "new", "txid": txid(), "vout": "1" })),
        (-204, json!({ "recipient_id": "new", "txid": txid(), "vout": 4_294_967_296_u64 })),
    ] {
        let outcome = desk.bring("consignment.post", &params, b"bytes").await;
        assert_eq!(code(&outcome), expected, "{params}: {outcome}");
    }
    let missing = desk.bring("consignment.post", &to("new"), b"bytes").await;
    assert_eq!(missing["message"], "Missing TXID", "one code for two things: the message tells");
    assert_eq!(code(&desk.bring("media.post", &json!({ "attachment_id": 7 }), b"bytes").await), -201);
    assert_eq!(desk.gateway.row_counts().await, before, "something has changed");
    desk
}

async fn only_the_gateway_itself_acknowledges_for_its_invoices(desk: Desk) -> Desk {
    assert!(own_recipient(desk.gateway.flows(), "ours", 3).await);
    assert_eq!(desk.consign("ours", b"for us").await, true, "anybody brings");
    assert_eq!(desk.ask("consignment.get", to("ours")).await["txid"], txid());
    for ack in [true, false] {
        let refused = desk.ask("ack.post", json!({ "recipient_id": "ours", "ack": ack })).await;
        assert!(code(&refused) == -100 && refused["message"].to_string().contains("gateway"), "{refused}");
    }
    assert_eq!(desk.ask("ack.get", to("ours")).await, Value::Null);
    assert!(own_word(desk.gateway.flows(), "ours", true).await == Acknowledged::Set, "the gateway itself has the word");
    assert_eq!(desk.ask("ack.get", to("ours")).await, true);
    assert_eq!(code(&desk.ask("ack.post", json!({ "recipient_id": "ours", "ack": true })).await), -100);
    let metrics = reqwest::get(format!("{}/metrics", desk.gateway.operator_url)).await.expect("an answer");
    let metrics = metrics.text().await.expect("text");
    assert!(metrics.contains("sluice_proxy_calls_total{method=\"ack.post\",outcome=\"-100\"}"), "calls are counted");
    desk
}

async fn the_largest_file_is_taken_and_one_byte_more_is_not(desk: Desk) -> Desk {
    let most = 16 * MEGABYTE;
    let bytes: Vec<u8> = (0..most).map(|n| u8::try_from(n % 251).expect("a byte")).collect();
    assert_eq!(desk.consign("large", &bytes).await, true);
    let there = desk.ask("consignment.get", to("large")).await;
    let text = there["consignment"].as_str().expect("base64");
    assert!(BASE64_STANDARD.decode(text).expect("base64") == bytes, "other bytes came back");
    for more in [1, 3 * most] {
        let refused = desk.consign("larger", &vec![7; most + more]).await;
        assert!(code(&refused) == -32_000 && refused["message"].to_string().contains("16777216 bytes"), "{refused}");
    }
    one_that_is_announced_far_too_long_is_not_read(&desk).await;
    let named = json!({ "attachment_id": "m" });
    assert_eq!(desk.bring("media.post", &named, &[1; 1_000]).await, true);
    let refused = desk.bring("media.post", &json!({ "attachment_id": "n" }), &[1; 1_001]).await;
    assert!(code(&refused) == -32_000 && refused["message"].to_string().contains("1000 bytes"), "{refused}");
    let full = async |n: u32| desk.consign(&format!("large {n}"), &bytes).await;
    assert_eq!(full(1).await, true);
    assert_eq!(code(&full(2).await), -32_001, "fifty megabytes are all that strangers may store");
    assert_eq!(code(&desk.ask("consignment.get", to("large 2")).await), -400);
    desk
}

async fn one_that_is_announced_far_too_long_is_not_read(desk: &Desk) {
    let mut stream = slow_upload(desk, 100 * MEGABYTE, "").await;
    let mut said = vec![0; 4_096];
    let length = stream.read(&mut said).await.expect("an answer");
    let said = String::from_utf8_lossy(&said[..length]).into_owned();
    assert!(said.starts_with("HTTP/1.1 200") && said.contains("\r\ncontent-type: application/json\r\n"), "{said}");
}

/// The beginning of an upload that announces so many bytes.
async fn slow_upload(desk: &Desk, length: usize, file: &str) -> TcpStream {
    let mut stream = TcpStream::connect(desk.gateway.url.trim_start_matches("http://")).await.expect("a connection");
    let kind = format!("Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {length}\r\n");
    let head = format!("POST {PROXY} HTTP/1.1\r\nHost: x\r\n{kind}\r\n{}{file}", part_head("file"));
    stream.write_all(head.as_bytes()).await.expect("it is written");
    stream
}

async fn of_two_that_come_at_once_one_is_stored(desk: Desk) -> Desk {
    for round in 0..5 {
        let recipient = format!("r{round}");
        let files: Vec<Vec<u8>> = (0..8_u8).map(|n| vec![n; 3_000]).collect();
        let said = join_all(files.iter().map(|file| desk.consign(&recipient, file))).await;
        let winners: Vec<usize> = (0..8).filter(|n| said[*n] == true).collect();
        assert_eq!(winners.len(), 1, "{said:?}");
        assert!(said.iter().enumerate().all(|(n, one)| n == winners[0] || code(one) == -101), "{said:?}");
        let there = desk.ask("consignment.get", to(&recipient)).await;
        assert_eq!(there["consignment"], BASE64_STANDARD.encode(&files[winners[0]]));
        let words = join_all((0..8).map(|n| {
            let word = json!({ "recipient_id": recipient, "ack": n % 2 == 0 });
            desk.ask("ack.post", word)
        }));
        let words = words.await;
        assert_eq!(words.iter().filter(|word| **word == true).count(), 1, "{words:?}");
        assert_eq!(words.iter().filter(|word| **word == false).count(), 3, "{words:?}");
        let other = format!("{recipient}, the same");
        let same = join_all((0..8).map(|_| desk.consign(&other, b"same"))).await;
        assert_eq!(same.iter().filter(|one| **one == true).count(), 1, "{same:?}");
        assert_eq!(same.iter().filter(|one| **one == false).count(), 7, "{same:?}");
    }
    desk
}

async fn a_restart_keeps_everything(desk: Desk) -> Desk {
    assert!(own_recipient(desk.gateway.flows(), "ours", 3).await);
    for recipient in ["ours", "theirs"] {
        assert_eq!(desk.consign(recipient, recipient.as_bytes()).await, true);
    }
    let yes = json!({ "recipient_id": "theirs", "ack": true });
    assert_eq!(desk.ask("ack.post", yes.clone()).await, true);
    let media = json!({ "attachment_id": "m" });
    assert_eq!(desk.bring("media.post", &media, b"a picture").await, true);
    let desk = desk.again().await;
    for recipient in ["ours", "theirs"] {
        let there = desk.ask("consignment.get", to(recipient)).await;
        assert_eq!(there["consignment"], BASE64_STANDARD.encode(recipient));
        assert_eq!(desk.consign(recipient, recipient.as_bytes()).await, false);
        assert_eq!(code(&desk.consign(recipient, b"other").await), -101);
    }
    assert_eq!(desk.ask("ack.get", to("theirs")).await, true);
    assert_eq!(desk.ask("ack.post", yes).await, false);
    assert_eq!(code(&desk.ask("ack.post", json!({ "recipient_id": "ours", "ack": true })).await), -100);
    assert_eq!(desk.ask("media.get", media).await, BASE64_STANDARD.encode("a picture"));
    desk
}

/// As if what strangers brought had come when clocks began. A start reads when that was from the names.
fn age(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).expect("the folder can be listed") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let mut parts: Vec<&str> = name.split('-').collect();
        if parts.len() == 5 {
            parts[2] = "0";
            std::fs::rename(&path, folder.join(parts.join("-"))).expect("it can be renamed");
        }
    }
}

/// As if everything in the database had been stored when clocks began.
struct Age;

#[async_trait]
impl Write for Age {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        sqlx::query("UPDATE consignments SET created_at = 0").execute(tx.conn()).await?;
        sqlx::query("UPDATE consignment_media SET created_at = 0").execute(tx.conn()).await?;
        Ok(())
    }
}

async fn what_is_old_goes_by_itself(desk: Desk) -> Desk {
    assert!(own_recipient(desk.gateway.flows(), "ours", 3).await);
    let media = json!({ "attachment_id": "m" });
    desk.consign("ours", b"x").await;
    desk.consign("theirs", b"x").await;
    desk.bring("media.post", &media, b"a picture").await;
    desk.gateway.flows().store().write(Age).await.expect("it is written");
    age(&desk.gateway.config.policy.proxy.data_dir);
    let desk = desk.again().await;
    desk.consign("theirs, new", b"x").await;
    eventually("what is old is forgotten", async || {
        let gone = desk.ask("consignment.get", to("theirs")).await["code"] == -400;
        let media_gone = desk.ask("media.get", media.clone()).await["code"] == -401;
        (gone && media_gone).then_some(())
    })
    .await;
    for recipient in ["ours", "theirs, new"] {
        assert_eq!(desk.ask("consignment.get", to(recipient)).await["txid"], txid());
    }
    assert_eq!(desk.consign("theirs", b"another").await, true);
    desk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_call_is_answered_and_changes_nothing() {
    let desk = Desk::on_sqlite(&[]).await;
    let before = desk.gateway.row_counts().await;
    let text = async |body: Vec<u8>| {
        let answer = desk.anybody.call(Call::post_raw(PROXY, body)).await;
        code(&outcome(&answer, &Value::Null))
    };
    for body in ["", "{", "nonsense", "\0", "{}{}", "{\"a\":NaN}"] {
        assert_eq!(text(body.into()).await, -32_700, "{body}");
    }
    for body in ["[]", "null", "7", "\"x\"", "{}", "{\"jsonrpc\":\"2.0\",\"method\":7}", "{\"method\":\"server.info\"}"]
    {
        assert_eq!(text(body.into()).await, -32_600, "{body}");
    }
    assert_eq!(text(b"[".repeat(60_000)).await, -32_700);
    assert_eq!(text(vec![0xff; 100]).await, -32_700);
    assert_eq!(text(b" ".repeat(100_000)).await, -32_000);
    for body in
        ["", "--", "nothing", "--a-line-between\r\n\r\n", "--a-line-between--", &part_head("file"), &part_head("id")]
    {
        let answer = desk.anybody.call(raw_form(PROXY, body)).await;
        let code = code(&outcome(&answer, &Value::Null));
        assert!([-32_700, -32_600].contains(&code), "{body}: {code}");
    }
    let no_boundary = Call { headers: Vec::new(), ..Call::post_raw(PROXY, "x") };
    let answer = desk.anybody.call(no_boundary.header("content-type", "multipart/form-data")).await;
    assert_eq!(code(&outcome(&answer, &Value::Null)), -32_700);
    let bad_params = form(PROXY, &[("jsonrpc", b"2.0"), ("id", b"9"), ("method", b"media.post"), ("params", b"{")]);
    let answer = desk.anybody.call(bad_params).await;
    assert_eq!(code(&outcome(&answer, &json!("9"))), -32_700);
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        let call = Call { method: method.parse().expect("a method"), ..Call::get(PROXY) };
        let refused = desk.anybody.call(call).await;
        refused.refused(405, "method_not_allowed");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    }
    assert_eq!(desk.gateway.row_counts().await, before, "something has changed");
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_of_the_document_is_understood() {
    let desk = Desk::on_sqlite(&[]).await;
    let all = every_operation();
    let operation = all.iter().find(|operation| operation.is_anybodys()).expect("it is in the document");
    assert_eq!((operation.path.as_str(), all.iter().filter(|one| one.path.contains("json-rpc")).count()), (PROXY, 1));
    let content = &operation.spec["requestBody"]["content"];
    let examples = |kind: &str| content[kind]["examples"].as_object().expect("examples").values();
    let mut asked = Vec::new();
    for example in examples("multipart/form-data") {
        let value = example["value"].as_object().expect("fields");
        let parts: Vec<_> =
            value.iter().map(|(name, text)| (name.as_str(), text.as_str().expect("a text").as_bytes())).collect();
        assert_eq!(outcome(&desk.anybody.call(form(PROXY, &parts)).await, &Value::Null), true);
        asked.push(example["value"]["method"].clone());
    }
    for example in examples("application/json") {
        let said = outcome(&desk.anybody.post(PROXY, example["value"].clone()).await, &Value::Null);
        assert!(said.get("code").is_none(), "{said}");
        asked.push(example["value"]["method"].clone());
    }
    assert_eq!(asked.len(), 7, "{asked:?}");
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turned_off_there_is_nothing_here() {
    let desk = Desk::on_sqlite(&["proxy.enabled=false"]).await;
    let body = json!({ "jsonrpc": "2.0", "id": null, "method": "server.info" });
    desk.anybody.post(PROXY, body).await.refused(404, "not_found");
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_calls_too_often_waits_and_another_does_not() {
    let limits = [
        "http.limits.enabled=true",
        "proxy.per_client_per_second=5",
        "proxy.uploads_per_client_per_minute=2",
        "proxy.forwarded_for=true",
    ];
    let desk = Desk::on_sqlite(&limits).await;
    let info = json!({ "jsonrpc": "2.0", "id": "x", "method": "server.info" });
    let from = |address: &str| Call::post(PROXY, &info).header("x-forwarded-for", format!("203.0.113.1, {address}"));
    let mut refused = None;
    for _ in 0..200 {
        let answer = desk.anybody.call(from("198.51.100.1")).await;
        if answer.body.get("error").is_some() {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a limit is reached");
    assert_eq!(code(&outcome(&refused, &Value::Null)), -32_002);
    assert!(refused.header("retry-after").is_some_and(|s| s.parse::<u32>().is_ok_and(|s| s > 0)), "{refused}");
    outcome(&desk.anybody.call(from("198.51.100.2")).await, &json!("x"));
    eventually("the client may call again", async || {
        let answer = desk.anybody.call(from("198.51.100.1")).await;
        answer.body.get("result").is_some().then_some(())
    })
    .await;

    let bring = async |n: u32| {
        let params = consignment(&format!("r{n}")).to_string();
        let parts: [(&str, &[u8]); 4] =
            [("jsonrpc", b"2.0"), ("method", b"consignment.post"), ("params", params.as_bytes()), ("file", b"x")];
        outcome(&desk.anybody.call(form(PROXY, &parts).header("x-forwarded-for", "198.51.100.3")).await, &Value::Null)
    };
    assert_eq!((bring(1).await, bring(2).await), (json!(true), json!(true)));
    assert_eq!(code(&bring(3).await), -32_002);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_bring_much_and_slowly_do_not_fill_the_memory() {
    let desk = Desk::on_sqlite(&["proxy.max_consignment_bytes=65536", "proxy.max_media_bytes=65536"]).await;
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.push(slow_upload(&desk, 70_000, &"x".repeat(60_000)).await);
    }
    eventually("there is no room", async || {
        let answer = desk.consign("r", b"x").await;
        (answer["code"] == -32_003).then_some(())
    })
    .await;
    assert!(desk.ask("server.info", Value::Null).await["uptime"].is_u64(), "what brings nothing needs no room");
    drop(slow);
    eventually("there is room again", async || desk.consign("r2", b"x").await.as_bool()).await;
    eventually("and to fetch", async || {
        let there = desk.ask("consignment.get", to("r2")).await;
        (there["consignment"] == "eA==").then_some(())
    })
    .await;
    desk.stop().await;
}
