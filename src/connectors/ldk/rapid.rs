//! Rapid gossip sync: the network as one server tells it, which the operator has named, in the place of what peers say of it.
//!
//! A snapshot is signed by nobody. It says which ways there are and what they cost, so a server that lies makes payments fail, or dearer up to
//! the ceiling that each of them has. It can take nothing, and this is the only file of the node that asks somebody over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bitcoin::Network;
use lightning::io::Cursor;
use lightning::ln::msgs::DecodeError;
use lightning::routing::gossip::NetworkGraph;
use lightning::util::ser::{Readable, Writeable as _};
use lightning_rapid_gossip_sync::{GraphSyncError, RapidGossipSync};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};

use super::config::Config;
use super::error::LdkError;
use super::gossip::Gossip;
use super::node::Node;
use super::types::{Graph, Log};
use crate::ports::root_cause;

const USER_AGENT: &str = concat!("sluice/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failure it is asked again after this, then after twice as long, and so on, up to the usual time.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Some gigabytes of graph are no network: this is several times what mainnet's comes to, as it is written to a file.
const LARGEST_GRAPH: usize = 128 * 1024 * 1024;
/// A snapshot names sets of features once, for each node that has them: a few bytes there are many megabytes in the graph.
const LARGEST_FEATURES: usize = 256;
/// What is as late as that is no clock that goes wrong. LDK asks for what came after it, and nothing does.
const EARLY_SECONDS: u64 = 24 * 60 * 60;
/// The letters, the version and the first block's hash: LDK looks at these.
const BEFORE_TIME: u64 = 3 + 1 + 32;
const VERSION_AT: usize = 3;
/// The version that has sets of features.
const WITH_FEATURES: u8 = 2;

/// How much of a server is borne.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// For one answer, with all that it brings.
    time: Duration,
    /// mainnet, all of it, is some five megabytes.
    bytes: usize,
}

const LIMITS: Limits = Limits { time: Duration::from_secs(60), bytes: 16 * 1024 * 1024 };

/// Why a snapshot changed nothing.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("no answer: {0}")]
    NoAnswer(String),
    #[error("HTTP {}{}", .0.as_u16(), if .0.is_redirection() { ", and no redirect is followed" } else { "" })]
    Status(StatusCode),
    #[error("the snapshot is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the network would be larger than any is; begin anew by taking the file of the graph away")]
    Bloated,
    #[error("the snapshot can't be meant: {0}")]
    Nonsense(String),
    #[error("it could not be applied: {0}")]
    Panicked(String),
}

impl From<GraphSyncError> for SyncError {
    fn from(error: GraphSyncError) -> Self {
        match error {
            GraphSyncError::DecodeError(error) => error.into(),
            GraphSyncError::LightningError(error) => Self::Nonsense(error.err),
        }
    }
}

impl From<DecodeError> for SyncError {
    fn from(error: DecodeError) -> Self {
        Self::Nonsense(format!("{error:?}"))
    }
}

/// The server, and whether it was of use since the node runs.
pub struct Rapid {
    url: Url,
    every: Duration,
    http: Client,
    limits: Limits,
    has_synced: AtomicBool,
}

impl Rapid {
    /// `None` where the operator names no server.
    ///
    /// # Errors
    /// When what is named can't be asked.
    pub fn from_config(config: &Config) -> Result<Option<Self>, LdkError> {
        let named = config.rapid_gossip_sync.as_deref().unwrap_or_default();
        let every = Duration::from_secs(config.rapid_gossip_sync_seconds);
        if named.is_empty() { Ok(None) } else { Self::new(named, every, LIMITS).map(Some) }
    }

    fn new(named: &str, every: Duration, limits: Limits) -> Result<Self, LdkError> {
        let wrong = |why: String| LdkError::Misconfigured(format!("ldk.rapid_gossip_sync: {why}"));
        let url = Url::parse(named).map_err(|error| wrong(format!("it is no URL: {error}")))?;
        if !["http", "https"].contains(&url.scheme()) || url.cannot_be_a_base() {
            return Err(wrong("it has to begin with https:// or http://".to_owned()));
        }
        let has_login = !url.username().is_empty() || url.password().is_some();
        if has_login || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has no user, no password and nothing behind its path".to_owned()));
        }
        if every.is_zero() {
            return Err(LdkError::Misconfigured("ldk.rapid_gossip_sync_seconds: it has to be at least 1".to_owned()));
        }
        let http = Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT.min(limits.time))
            .timeout(limits.time)
            // The operator has named this server, and no other.
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            // It is asked once an hour.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| wrong(format!("no HTTP client: {}", root_cause(&error))))?;
        Ok(Self { url, every, http, limits, has_synced: AtomicBool::new(false) })
    }

    /// What is old is known to be old only once the server has said what is new.
    pub fn has_synced(&self) -> bool {
        self.has_synced.load(Ordering::Relaxed)
    }

    /// What the server has since then.
    async fn fetch(&self, since: u32) -> Result<Vec<u8>, SyncError> {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(&since.to_string());
        }
        let no_answer = |error: reqwest::Error| {
            let late = error.is_timeout();
            SyncError::NoAnswer(if late { "not in time".to_owned() } else { root_cause(&error).to_string() })
        };
        let mut response = self.http.get(url).send().await.map_err(no_answer)?;
        if response.status() != StatusCode::OK {
            return Err(SyncError::Status(response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
            if bytes.len().saturating_add(chunk.len()) > self.limits.bytes {
                return Err(SyncError::TooLarge(self.limits.bytes));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn pause(&self, failures: u32) -> Duration {
        if failures == 0 {
            return self.every;
        }
        FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures - 1)).min(self.every)
    }
}

/// What LDK believes without a look.
fn look(snapshot: &[u8], now: u64) -> Result<(), SyncError> {
    let mut rest = Cursor::new(snapshot);
    rest.set_position(BEFORE_TIME);
    let time: u32 = Readable::read(&mut rest)?;
    if u64::from(time) > now.saturating_add(EARLY_SECONDS) {
        return Err(SyncError::Nonsense("it is from the future".to_owned()));
    }
    if snapshot.get(VERSION_AT) != Some(&WITH_FEATURES) {
        return Ok(());
    }
    let sets: u8 = Readable::read(&mut rest)?;
    for _ in 0..sets {
        let features: Vec<u8> = Readable::read(&mut rest)?;
        if features.len() > LARGEST_FEATURES {
            return Err(SyncError::Nonsense(format!("{} bytes of features", features.len())));
        }
    }
    Ok(())
}

/// Brings a snapshot into the graph, and answers of when it is. First into a graph of its own, which shows whether all of it can be read and
/// how large it is: what fails half-way would have changed the other one.
fn apply(graph: &Arc<Graph>, snapshot: &[u8], network: Network, log: &Log, now: u64) -> Result<u32, SyncError> {
    look(snapshot, now)?;
    let trial: Graph = NetworkGraph::new(network, Arc::clone(log));
    RapidGossipSync::new(&trial, Arc::clone(log)).update_network_graph_no_std(snapshot, Some(now))?;
    if trial.serialized_length().saturating_add(graph.serialized_length()) > LARGEST_GRAPH {
        return Err(SyncError::Bloated);
    }
    drop(trial);
    Ok(RapidGossipSync::new(&**graph, Arc::clone(log)).update_network_graph_no_std(snapshot, Some(now))?)
}

/// Asks the server now and then, for as long as the node runs. Whatever it does, the node goes on with what it knows.
pub async fn keep_synced(node: Arc<Node>) {
    let Gossip::Server(rapid) = &node.gossip else { return };
    tell_time(node.graph.get_last_rapid_gossip_sync_timestamp().unwrap_or_default());
    let mut failures = 0_u32;
    while node.is_running() {
        let synced = tokio::select! {
            synced = sync(&node, rapid) => synced,
            () = node.draining() => return,
        };
        let outcome = if synced.is_ok() { "ok" } else { "failed" };
        metrics::counter!("sluice_lightning_gossip_syncs_total", "outcome" => outcome).increment(1);
        match synced {
            Ok(time) => {
                failures = 0;
                tell_time(time);
                Arc::clone(&node).keep_graph().await;
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                let again_in = rapid.pause(failures);
                tracing::warn!(server = %rapid.url, %error, ?again_in, "the rapid gossip sync server was of no use");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(rapid.pause(failures)) => {}
            () = node.draining() => return,
        }
    }
}

fn tell_time(time: u32) {
    metrics::gauge!("sluice_lightning_gossip_timestamp_seconds").set(time);
}

async fn sync(node: &Arc<Node>, rapid: &Rapid) -> Result<u32, SyncError> {
    let since = node.graph.get_last_rapid_gossip_sync_timestamp().unwrap_or_default();
    let snapshot = rapid.fetch(since).await?;
    let (graph, log, network, now) =
        (Arc::clone(&node.graph), Arc::clone(&node.log), node.network, node.since_epoch().as_secs());
    let length = snapshot.len();
    let applied = tokio::task::spawn_blocking(move || apply(&graph, &snapshot, network, &log, now));
    let time = applied.await.map_err(|error| SyncError::Panicked(error.to_string()))??;
    rapid.has_synced.store(true, Ordering::Relaxed);
    let channels = node.graph.read_only().channels().len();
    tracing::debug!(since, time, length, channels, "what is new in the network is known");
    Ok(time)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::connectors::ldk::logger::NodeLog;

    /// Two channels of mainnet in January 2022, from the tests of LDK's crate.
    const SNAPSHOT: [u8; 300] = [
        76, 68, 75, 1, 111, 226, 140, 10, 182, 241, 179, 114, 193, 166, 162, 70, 174, 99, 247, 79, 147, 30, 131, 101,
        225, 90, 8, 156, 104, 214, 25, 0, 0, 0, 0, 0, 97, 227, 98, 218, 0, 0, 0, 4, 2, 22, 7, 207, 206, 25, 164, 197,
        231, 230, 231, 56, 102, 61, 250, 251, 187, 172, 38, 46, 79, 247, 108, 44, 155, 48, 219, 238, 252, 53, 192, 6,
        67, 2, 36, 125, 157, 176, 223, 175, 234, 116, 94, 248, 201, 225, 97, 235, 50, 47, 115, 172, 63, 136, 88, 216,
        115, 11, 111, 217, 114, 84, 116, 124, 231, 107, 2, 158, 1, 242, 121, 152, 106, 204, 131, 186, 35, 93, 70, 216,
        10, 237, 224, 183, 89, 95, 65, 3, 83, 185, 58, 138, 181, 64, 187, 103, 127, 68, 50, 2, 201, 19, 17, 138, 136,
        149, 185, 226, 156, 137, 175, 110, 32, 237, 0, 217, 90, 31, 100, 228, 149, 46, 219, 175, 168, 77, 4, 143, 38,
        128, 76, 97, 0, 0, 0, 2, 0, 0, 255, 8, 153, 192, 0, 2, 27, 0, 0, 0, 1, 0, 0, 255, 2, 68, 226, 0, 6, 11, 0, 1,
        2, 3, 0, 0, 0, 4, 0, 40, 0, 0, 0, 0, 0, 0, 3, 232, 0, 0, 3, 232, 0, 0, 0, 1, 0, 0, 0, 0, 29, 129, 25, 192, 255,
        8, 153, 192, 0, 2, 27, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 100, 0, 0, 2, 224, 0, 0, 0, 0, 58, 85, 116,
        216, 0, 29, 0, 0, 0, 1, 0, 0, 0, 125, 0, 0, 0, 0, 58, 85, 116, 216, 255, 2, 68, 226, 0, 6, 11, 0, 1, 0, 0, 1,
    ];
    const MADE_AT: u64 = 1_642_291_930;
    const DAY: u64 = 24 * 60 * 60;
    const PATIENT: Limits = Limits { time: Duration::from_secs(60), bytes: 1_000 };
    const HASTY: Limits = Limits { time: Duration::from_millis(300), ..PATIENT };

    fn graph() -> (Arc<Graph>, Log) {
        let log: Log = Arc::new(NodeLog);
        (Arc::new(NetworkGraph::new(Network::Bitcoin, Arc::clone(&log))), log)
    }

    #[test]
    fn a_snapshot_is_applied_as_a_whole_or_not_at_all() {
        let (graph, log) = graph();
        let says = |snapshot: &[u8], now| apply(&graph, snapshot, Network::Bitcoin, &log, now);
        let cut_off = &SNAPSHOT[..SNAPSHOT.len() - 1];
        let mut foreign = SNAPSHOT;
        foreign[4] ^= 1;
        for (snapshot, now) in [
            (&b""[..], MADE_AT),
            (b"<html><body>not found</body></html> and so on, further than a head is", MADE_AT),
            (cut_off, MADE_AT),
            (&foreign, MADE_AT),
            (&SNAPSHOT, MADE_AT + 15 * DAY),
            (&SNAPSHOT, MADE_AT - DAY - 1),
        ] {
            assert!(matches!(says(snapshot, now), Err(SyncError::Nonsense(_))), "{now}: {snapshot:?}");
            assert_eq!(graph.read_only().channels().len(), 0);
            assert_eq!(graph.get_last_rapid_gossip_sync_timestamp(), None);
        }
        assert_eq!(says(&SNAPSHOT, MADE_AT - DAY).unwrap(), 1_642_291_930);
        assert_eq!(graph.read_only().channels().len(), 2);
        assert_eq!(graph.get_last_rapid_gossip_sync_timestamp(), Some(1_642_291_930));
    }

    #[test]
    fn few_bytes_of_a_snapshot_are_not_many_megabytes_of_the_graph() {
        // One set of features, and nodes that have it.
        let with = |features: usize, nodes: u32| {
            let mut snapshot = SNAPSHOT[..40].to_vec();
            snapshot[VERSION_AT] = WITH_FEATURES;
            snapshot.push(1);
            snapshot.extend(u16::try_from(features).unwrap().to_be_bytes());
            snapshot.extend(vec![0; features]);
            snapshot.extend(nodes.to_be_bytes());
            for node in 1..=nodes {
                let mut key = [7; 33];
                key[0] = 0b0000_1010;
                key[29..].copy_from_slice(&node.to_be_bytes());
                snapshot.extend(key);
            }
            snapshot.extend([0; 8]);
            snapshot
        };
        let (graph, log) = graph();
        let says = |snapshot: &[u8]| apply(&graph, snapshot, Network::Bitcoin, &log, MADE_AT);
        assert!(says(&with(LARGEST_FEATURES, 9)).is_ok());
        let said = says(&with(LARGEST_FEATURES + 1, 9)).unwrap_err().to_string();
        assert!(said.contains("257 bytes of features"), "{said}");
    }

    #[derive(Clone, Copy)]
    enum Then {
        Closes,
        Hangs,
        Floods,
        Trickles,
    }

    /// A server that answers every call with these bytes, and then does as it does.
    async fn server(answer: &'static str, then: Then) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Whoever has heard enough hangs up.
                drop(serve(stream, answer, then).await);
            }
        }));
        address
    }

    async fn serve(mut stream: TcpStream, answer: &'static str, then: Then) -> std::io::Result<()> {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(stream.read_u8().await?);
        }
        let asked = String::from_utf8(asked).unwrap();
        stream.write_all(answer.replace("{path}", asked.split(' ').nth(1).unwrap()).as_bytes()).await?;
        loop {
            match then {
                Then::Closes => return Ok(()),
                Then::Hangs => std::future::pending().await,
                Then::Floods => stream.write_all(&[0; 1_000]).await?,
                Then::Trickles => {
                    stream.write_all(&[0]).await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    async fn fetched(address: SocketAddr, limits: Limits) -> Result<Vec<u8>, SyncError> {
        let rapid = Rapid::new(&format!("http://{address}/a/"), Duration::from_secs(1), limits).unwrap();
        rapid.fetch(7).await
    }

    #[tokio::test]
    async fn a_server_is_asked_for_what_came_since_and_borne_for_so_long() {
        const OK: &str = "HTTP/1.1 200 OK\r\n\r\n";
        let path = server("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{path}", Then::Hangs).await;
        assert_eq!(fetched(path, PATIENT).await.unwrap(), b"/a/7");
        let flood = fetched(server(OK, Then::Floods).await, PATIENT).await;
        assert!(matches!(flood, Err(SyncError::TooLarge(1_000))), "{flood:?}");
        for (answer, then) in [("", Then::Hangs), (OK, Then::Hangs), (OK, Then::Trickles)] {
            let late = fetched(server(answer, then).await, HASTY).await.unwrap_err().to_string();
            assert_eq!(late, "no answer: not in time");
        }
        let nobody = server("", Then::Closes).await;
        assert!(matches!(fetched(nobody, PATIENT).await, Err(SyncError::NoAnswer(_))));
        let failed = server("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", Then::Closes).await;
        assert_eq!(fetched(failed, PATIENT).await.unwrap_err().to_string(), "HTTP 500");
        let elsewhere = "HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n";
        let said = fetched(server(elsewhere, Then::Closes).await, PATIENT).await.unwrap_err().to_string();
        assert_eq!(said, "HTTP 302, and no redirect is followed");
    }

    #[test]
    fn a_server_has_to_be_one_that_can_be_asked() {
        let named = |url: &str| {
            let config = Config { rapid_gossip_sync: Some(url.to_owned()), ..Config::default() };
            Rapid::from_config(&config).map(|rapid| rapid.is_some())
        };
        assert!(named("https://rgs.example/snapshot").unwrap() && !named("").unwrap());
        assert!(Rapid::from_config(&Config::default()).unwrap().is_none());
        for wrong in ["rgs.example", "ftp://rgs.example", "mailto:a@b", "https://u:p@rgs.example", "https://a/?b", "/x"]
        {
            let said = named(wrong).unwrap_err().to_string();
            assert!(said.contains("ldk.rapid_gossip_sync: ") && !said.contains("u:p"), "{said}");
        }
        let never = Config {
            rapid_gossip_sync: Some("https://rgs.example".to_owned()),
            rapid_gossip_sync_seconds: 0,
            ..Config::default()
        };
        assert!(Rapid::from_config(&never).is_err());
    }

    #[test]
    fn a_server_that_fails_is_asked_again_soon_and_then_less_often() {
        let every = |seconds| Rapid::new("https://rgs.example", Duration::from_secs(seconds), LIMITS).unwrap();
        let pauses = |rapid: &Rapid| [0, 1, 2, 3, 9, 99].map(|failures| rapid.pause(failures).as_secs());
        assert_eq!(pauses(&every(3_600)), [3_600, 10, 20, 40, 2_560, 3_600]);
        assert_eq!(pauses(&every(5)), [5; 6]);
        assert!(!Gossip::Server(every(1)).tells_what_is_stale(), "nothing is old before it is known what is new");
    }
}
