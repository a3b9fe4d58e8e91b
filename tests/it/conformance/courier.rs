//! The gateway's client of consignment proxies: against a gateway's own proxy, and against servers that mean no good.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bitcoin::Txid;
use serde_json::json;
use sluice::assets::courier::{Config, HttpCourier};
use sluice::ports::PortError;
use sluice::ports::courier::{Brought, Courier, Parcel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::harness::gateway::Gateway;

/// Longer than any answer takes that comes at all, and shorter than a test may wait for one that doesn't.
const SHORT: Duration = Duration::from_millis(700);
const MAX_ANSWER_BYTES: usize = 2_048;

fn courier(allowed: &[&str]) -> HttpCourier {
    let allow_private = allowed.iter().map(|&host| host.to_owned()).collect();
    HttpCourier::new(&Config { allow_private, ..Config::default() }).expect("a courier")
}

/// One that soon gives up.
fn hasty(allowed: &str) -> HttpCourier {
    let timeout_ms = u64::try_from(SHORT.as_millis()).expect("short");
    let allow_private = vec![allowed.to_owned()];
    HttpCourier::new(&Config { allow_private, timeout_ms, max_answer_bytes: MAX_ANSWER_BYTES }).expect("a courier")
}

fn parcel(recipient: &str) -> Parcel {
    let txid: Txid = "0f".repeat(32).parse().expect("a txid");
    Parcel { recipient: recipient.to_owned(), txid, vout: None, bytes: b"\0a consignment\xff\r\n--".to_vec() }
}

fn recipient() -> &'static str {
    "bcrt:utxob:2FGs9vEx-8kS4wNL"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parcel_is_brought_once_and_the_word_comes_back() {
    let (gateway, _chain) = Gateway::start_fake(&["auth.mode=key", "proxy.enabled=true"]).await;
    let address = gateway.url.trim_start_matches("http://").to_owned();
    let endpoint = format!("rpc://{address}/json-rpc");
    let courier = courier(&[&address]);
    assert_eq!(courier.check(&endpoint), Ok(()));

    let first = parcel(recipient());
    assert_eq!(courier.answer(&endpoint, recipient()).await, Ok(None), "nothing is there");
    assert_eq!(courier.bring(&endpoint, &first).await, Ok(Brought::Taken));
    assert_eq!(courier.bring(&endpoint, &first).await, Ok(Brought::Taken), "asked again, it answers the same");
    let others = [
        Parcel { bytes: b"other bytes".to_vec(), ..first.clone() },
        Parcel { txid: "aa".repeat(32).parse().expect("a txid"), ..first.clone() },
        Parcel { vout: Some(0), ..first.clone() },
        Parcel { recipient: "r".repeat(256), ..first.clone() },
    ];
    for other in others {
        let refused = courier.bring(&endpoint, &other).await;
        assert!(matches!(&refused, Ok(Brought::Refused { reason }) if !reason.is_empty()), "{refused:?}");
    }
    let second = Parcel { vout: Some(u32::MAX), bytes: vec![7; 3_000_000], ..parcel("another") };
    assert_eq!(courier.bring(&endpoint, &second).await, Ok(Brought::Taken));
    assert_eq!(courier.bring(&endpoint, &Parcel { bytes: Vec::new(), ..parcel("nothing") }).await, Ok(Brought::Taken));

    assert_eq!(courier.answer(&endpoint, recipient()).await, Ok(None), "nothing was said");
    for (name, word) in [(recipient(), true), ("another", false)] {
        let params = json!({ "recipient_id": name, "ack": word });
        let call = json!({ "jsonrpc": "2.0", "id": null, "method": "ack.post", "params": params });
        gateway.caller(1).without_wallet().post("/json-rpc", call).await.ok();
        assert_eq!(courier.answer(&endpoint, name).await, Ok(Some(word)));
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parcel_that_is_too_large_is_refused_for_good() {
    let (gateway, _chain) = Gateway::start_fake(&["proxy.enabled=true", "proxy.max_consignment_bytes=1000"]).await;
    let address = gateway.url.trim_start_matches("http://").to_owned();
    let large = Parcel { bytes: vec![0; 1_001], ..parcel(recipient()) };
    let refused = courier(&[&address]).bring(&format!("rpc://{address}/json-rpc"), &large).await;
    assert!(matches!(&refused, Ok(Brought::Refused { reason }) if reason.contains("1000 bytes")), "{refused:?}");
    gateway.stop().await;
}

/// What a server does with a caller, once it has heard something.
#[derive(Clone)]
enum Trick {
    /// Says these bytes, and closes.
    Says(String),
    /// Says these bytes, and then more of the same without end.
    Endless(String),
    /// Says these bytes, and keeps the caller.
    Stalls(String),
    /// Says one byte after the other, each in time.
    Drips,
}

/// A server that means no good, and counts who comes.
struct Hostile {
    address: String,
    callers: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Hostile {
    async fn start(trick: Trick) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let callers = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&callers);
        let task = tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(play(trick.clone(), caller));
            }
        });
        Self { address, callers, task }
    }

    async fn saying(status: &str, headers: &str, body: &str) -> Self {
        Self::start(Trick::Says(said(status, headers, body))).await
    }

    fn endpoint(&self) -> String {
        format!("rpc://{}/json-rpc", self.address)
    }

    fn callers(&self) -> usize {
        self.callers.load(Ordering::SeqCst)
    }

    /// Both calls of the port, of a courier that may call it.
    async fn outcomes(&self) -> [PortError; 2] {
        let courier = hasty(&self.address);
        let brought = courier.bring(&self.endpoint(), &parcel(recipient())).await.expect_err("nothing was brought");
        let answered = courier.answer(&self.endpoint(), recipient()).await.expect_err("nothing was answered");
        assert_eq!(self.callers(), 2, "it was called");
        [brought, answered]
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn said(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

async fn play(trick: Trick, mut caller: TcpStream) {
    let mut heard = vec![0; 65_536];
    if caller.read(&mut heard).await.is_err() {
        return;
    }
    // A caller that has gone is what is hoped for; nobody asks how these end.
    match trick {
        Trick::Says(text) => drop(caller.write_all(text.as_bytes()).await),
        Trick::Endless(head) => {
            drop(caller.write_all(head.as_bytes()).await);
            while caller.write_all(&[b' '; 1_000]).await.is_ok() {}
        }
        Trick::Stalls(text) => {
            drop(caller.write_all(text.as_bytes()).await);
            std::future::pending::<()>().await;
        }
        Trick::Drips => {
            drop(caller.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await);
            while caller.write_all(b" ").await.is_ok() {
                tokio::time::sleep(SHORT / 10).await;
            }
        }
    }
    // Read to the end, else closing would reset what was said.
    while caller.read(&mut heard).await.is_ok_and(|read| read > 0) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_not_followed() {
    let target = Hostile::saying("200 OK", "", r#"{"jsonrpc":"2.0","id":"1","result":true}"#).await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let header = format!("location: http://{}/json-rpc\r\n", target.address);
        let hostile = Hostile::saying(status, &header, "").await;
        for outcome in hostile.outcomes().await {
            assert!(matches!(outcome, PortError::Nonsense { .. }), "{outcome}");
        }
    }
    assert_eq!(target.callers(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_read_no_further_than_it_may_be_long() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let within = MAX_ANSWER_BYTES - 100;
    for trick in
        [Trick::Endless(format!("{head}\r\n")), Trick::Endless(format!("{head}content-length: 999999999\r\n\r\n"))]
    {
        let begun = Instant::now();
        let hostile = Hostile::start(trick).await;
        for outcome in hostile.outcomes().await {
            assert!(matches!(&outcome, PortError::Nonsense { reason, .. } if reason.contains("2048")), "{outcome}");
        }
        assert!(begun.elapsed() < SHORT, "it was not waited for");
    }
    let spaces = " ".repeat(within);
    let fits = Hostile::saying("200 OK", "", &format!("{spaces}{{\"result\":true}}")).await;
    assert_eq!(hasty(&fits.address).answer(&fits.endpoint(), recipient()).await, Ok(Some(true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_longer_than_was_said() {
    let silent = Trick::Stalls(String::new());
    let half = Trick::Stalls("HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n{\"result\"".to_owned());
    for trick in [silent, half, Trick::Drips] {
        let hostile = Hostile::start(trick).await;
        let begun = Instant::now();
        for outcome in hostile.outcomes().await {
            assert!(
                matches!(&outcome, PortError::Unreachable { reason, .. } if reason.contains("in time")),
                "{outcome}"
            );
        }
        assert!(begun.elapsed() < SHORT * 6, "two calls took {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_answer_is_not_believed() {
    let long = format!("\u{1b}[2J{}", "secret ".repeat(200));
    let bodies = [
        ("200 OK", "<html>welcome</html>"),
        ("200 OK", ""),
        ("200 OK", "[]"),
        ("200 OK", "true"),
        ("200 OK", "{}"),
        ("200 OK", r#"{"jsonrpc":"2.0","id":"1","result":"yes"}"#),
        ("200 OK", r#"{"jsonrpc":"2.0","id":"1","result":{"ack":true}}"#),
        ("200 OK", r#"{"jsonrpc":"2.0","id":"1","error":{"code":-32603,"message":"Internal error"}}"#),
        ("201 Created", r#"{"jsonrpc":"2.0","id":"1","result":true}"#),
        ("404 Not Found", r#"{"jsonrpc":"2.0","id":"1","result":true}"#),
        ("500 Internal Server Error", r#"{"jsonrpc":"2.0","id":"1","result":true}"#),
        ("200 OK", &long),
    ];
    for (status, body) in bodies {
        let hostile = Hostile::saying(status, "", body).await;
        for outcome in hostile.outcomes().await {
            assert!(matches!(outcome, PortError::Nonsense { .. }), "{status} {body}: {outcome}");
            let text = outcome.to_string();
            assert!(text.len() < 320 && !text.contains(char::is_control), "{text:?}");
        }
    }
    let no_http = Hostile::start(Trick::Says("SSH-2.0-OpenSSH_9.2\r\n".to_owned())).await;
    for outcome in no_http.outcomes().await {
        assert!(matches!(outcome, PortError::Unreachable { .. }), "{outcome}");
        assert!(!outcome.to_string().contains("OpenSSH"), "{outcome}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_in_front_may_say_that_it_is_too_large() {
    let hostile = Hostile::saying("413 Payload Too Large", "", "<html>").await;
    let refused = hasty(&hostile.address).bring(&hostile.endpoint(), &parcel(recipient())).await;
    assert!(matches!(&refused, Ok(Brought::Refused { reason }) if reason.contains("413")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_to_this_machine_is_not_called() {
    let inside = Hostile::saying("200 OK", "", r#"{"jsonrpc":"2.0","id":"1","result":true}"#).await;
    let (_, port) = inside.address.rsplit_once(':').expect("a port");
    let courier = courier(&["127.0.0.1:1", "localhost:1"]);
    for scheme in ["rpc", "rpcs"] {
        for host in ["localhost", "LOCALHOST"] {
            let endpoint = format!("{scheme}://{host}:{port}/json-rpc");
            assert_eq!(courier.check(&endpoint), Ok(()), "a name says nothing by itself");
            let brought = courier.bring(&endpoint, &parcel(recipient())).await.expect_err("refused");
            let answered = courier.answer(&endpoint, recipient()).await.expect_err("refused");
            for outcome in [brought, answered] {
                let PortError::Misconfigured { reason, .. } = &outcome else { panic!("{endpoint}: {outcome:?}") };
                assert!(reason.contains("no public address") && reason.contains("allow_private"), "{reason}");
            }
        }
        for host in ["127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"] {
            let endpoint = format!("{scheme}://{host}:{port}/json-rpc");
            assert!(courier.check(&endpoint).is_err(), "{host}");
            let refused = courier.bring(&endpoint, &parcel(recipient())).await.expect_err("refused");
            assert!(matches!(refused, PortError::Misconfigured { .. }), "{refused}");
        }
    }
    assert_eq!(inside.callers(), 0);
    let allowed = format!("localhost:{port}");
    let answered = hasty(&allowed).answer(&format!("rpc://{allowed}/json-rpc"), recipient()).await;
    assert_eq!((answered, inside.callers()), (Ok(Some(true)), 1), "the operator may allow it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_not_a_no() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    drop(listener);
    let outcome = hasty(&address).answer(&format!("rpc://{address}/json-rpc"), recipient()).await;
    assert!(matches!(outcome, Err(PortError::Unreachable { .. })), "{outcome:?}");
    let unknown = courier(&[]).answer("rpc://nobody.invalid/json-rpc", recipient()).await;
    assert!(matches!(unknown, Err(PortError::Unreachable { .. })), "{unknown:?}");
}
