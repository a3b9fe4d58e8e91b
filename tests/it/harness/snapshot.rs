//! A rapid gossip sync server: what it says of a network is written as LDK's crate reads it, and it can be of any mood.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::peer::eventually;

/// A public channel, and what both of its ends ask for.
pub struct Announced {
    pub scid: u64,
    pub ends: [PublicKey; 2],
    pub base_msat: u32,
    pub proportional_millionths: u32,
    pub cltv_delta: u16,
    pub most_msat: u64,
}

/// Version 1 of the format: the nodes, the channels, and for each of its directions an update that has nothing but defaults.
pub fn snapshot(unix_seconds: u32, channel: &Announced) -> Vec<u8> {
    let mut ends = channel.ends.map(|end| end.serialize());
    ends.sort_unstable();
    let mut bytes = b"LDK\x01".to_vec();
    bytes.extend(ChainHash::using_genesis_block_const(Network::Regtest).to_bytes());
    bytes.extend(unix_seconds.to_be_bytes());
    bytes.extend(2_u32.to_be_bytes());
    bytes.extend(ends.concat());
    bytes.extend(1_u32.to_be_bytes());
    // No features; then its number, less that of the one before; then its ends, as they stand above.
    bytes.extend([0, 0]);
    bytes.extend(big_size(channel.scid));
    bytes.extend([0, 1]);
    bytes.extend(2_u32.to_be_bytes());
    bytes.extend(channel.cltv_delta.to_be_bytes());
    bytes.extend(1_u64.to_be_bytes());
    bytes.extend(channel.base_msat.to_be_bytes());
    bytes.extend(channel.proportional_millionths.to_be_bytes());
    bytes.extend(channel.most_msat.to_be_bytes());
    for (step, direction) in [(channel.scid, 0), (0, 1)] {
        bytes.extend(big_size(step));
        bytes.push(direction);
    }
    bytes
}

/// The numbers of BOLT 1's streams.
fn big_size(number: u64) -> Vec<u8> {
    match (u8::try_from(number), u16::try_from(number), u32::try_from(number)) {
        (Ok(small), ..) if small < 0xfd => vec![small],
        (_, Ok(number), _) => [&[0xfd][..], &number.to_be_bytes()].concat(),
        (_, _, Ok(number)) => [&[0xfe][..], &number.to_be_bytes()].concat(),
        _ => [&[0xff][..], &number.to_be_bytes()].concat(),
    }
}

#[derive(Clone, Debug)]
pub enum Mood {
    Says(Vec<u8>),
    Fails,
    /// To where it would say this.
    Redirects(Vec<u8>),
    /// Never answers.
    Hangs,
}

pub struct SnapshotServer {
    pub url: String,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

struct Seen {
    mood: Mutex<Mood>,
    paths: Mutex<Vec<String>>,
}

impl SnapshotServer {
    pub async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/snapshot", listener.local_addr().expect("its address"));
        let seen = Arc::new(Seen { mood: Mutex::new(mood), paths: Mutex::default() });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&seen));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("serves") });
        Self { url, seen, task }
    }

    /// Comes back when it was asked in this mood, and has asked again: what it was told is behind it.
    pub async fn tries(&self, mood: Mood) {
        let before = {
            let mut now = self.seen.mood.lock().unwrap_or_else(PoisonError::into_inner);
            *now = mood;
            self.paths().len()
        };
        eventually("it is asked, and asked again", async || (self.paths().len() >= before + 2).then_some(())).await;
    }

    pub fn become_(&self, mood: Mood) {
        *self.seen.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    pub fn paths(&self) -> Vec<String> {
        self.seen.paths.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for SnapshotServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(seen): State<Arc<Seen>>, uri: Uri) -> Response {
    let mood = {
        let mood = seen.mood.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.paths.lock().unwrap_or_else(PoisonError::into_inner).push(uri.path().to_owned());
        mood
    };
    match mood {
        Mood::Says(bytes) => bytes.into_response(),
        Mood::Redirects(bytes) if uri.path().starts_with("/elsewhere") => bytes.into_response(),
        Mood::Redirects(_) => (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response(),
        Mood::Fails => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Mood::Hangs => {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            StatusCode::GATEWAY_TIMEOUT.into_response()
        }
    }
}
