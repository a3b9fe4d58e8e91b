//! Stands between the gateway and a real bitcoind, and can spoil what passes.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bitcoin::Network;
use bitcoin::constants::genesis_block;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::harness::bitcoind::Bitcoind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Honest,
    /// Every call is answered 500, without JSON.
    Broken,
    /// Says that its first block is another network's.
    Foreign,
}

pub struct Proxy {
    pub url: String,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

struct Inner {
    target: String,
    mood: Mutex<Mood>,
    http: reqwest::Client,
}

impl Proxy {
    pub async fn start(node: &Bitcoind, mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        let inner = Arc::new(Inner { target: node.url(), mood: Mutex::new(mood), http });
        let app = Router::new().fallback(pass).with_state(Arc::clone(&inner));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("serves") });
        Self { url, inner, task }
    }

    pub fn become_(&self, mood: Mood) {
        *self.inner.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    let mood = *inner.mood.lock().unwrap_or_else(PoisonError::into_inner);
    if mood == Mood::Broken {
        return (StatusCode::INTERNAL_SERVER_ERROR, "something broke").into_response();
    }
    let mut request = inner.http.post(&inner.target).body(body);
    if let Some(login) = headers.get(header::AUTHORIZATION) {
        request = request.header(header::AUTHORIZATION, login);
    }
    let Ok(answer) = request.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let status = answer.status();
    let Ok(text) = answer.text().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let first = |network| genesis_block(network).block_hash().to_string();
    let text = match mood {
        Mood::Foreign => text.replace(&first(Network::Regtest), &first(Network::Signet)),
        Mood::Honest | Mood::Broken => text,
    };
    (StatusCode::from_u16(status.as_u16()).expect("a status"), text).into_response()
}
