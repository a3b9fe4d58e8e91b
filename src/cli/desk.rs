//! How a command does what an operator does: by the same calls as over HTTP. They go over the socket of the gateway that runs here, and
//! where none does, to the same handlers in this process, on the database itself.

use std::io;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tower::ServiceExt;

use super::failure::Failure;
use crate::app;
use crate::config::Config;
use crate::flows::Flows;
use crate::http::{self, HttpState, SocketPeer};

/// An audit of large books, or a page of 500 keys: far less than that.
const MOST_BYTES: usize = 64 * 1024 * 1024;

pub(super) struct Desk {
    way: Way,
}

enum Way {
    /// To the gateway that runs here.
    Socket(PathBuf),
    /// No gateway runs here.
    Here { calls: Router, flows: Flows },
}

impl Desk {
    pub(super) async fn open(config: &Config) -> Result<Self, Failure> {
        match Self::at_the_socket(config).await? {
            Some(desk) => Ok(desk),
            None => Ok(Self::here(app::open(config).await?, config)),
        }
    }

    /// For who only looks: no database is made. With the engine for assets where no gateway runs and it can be had; else says why not.
    pub(super) async fn open_to_look(config: &Config) -> Result<(Self, Option<String>), Failure> {
        if let Some(desk) = Self::at_the_socket(config).await? {
            return Ok((desk, None));
        }
        let (flows, without_assets) = app::open_with_assets(config).await?;
        Ok((Self::here(flows, config), without_assets))
    }

    async fn at_the_socket(config: &Config) -> Result<Option<Self>, Failure> {
        match config.admin_socket() {
            Some(path) if is_served(&path).await? => Ok(Some(Self { way: Way::Socket(path) })),
            Some(_) | None => Ok(None),
        }
    }

    fn here(flows: Flows, config: &Config) -> Self {
        let calls = http::operator_calls(HttpState::new(flows.clone(), &config.http));
        Self { way: Way::Here { calls, flows } }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, None).await
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_string(body).map_err(|error| Failure::new(error.to_string()))?;
        self.ask(Method::POST, path, Some(body)).await
    }

    pub(super) async fn post_empty<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::POST, path, None).await
    }

    pub(super) async fn close(self) {
        match self.way {
            Way::Socket(_) => {}
            Way::Here { calls: _, flows } => flows.store().close().await,
        }
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<String>) -> Result<T, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.map_or_else(Body::empty, Body::from))
            .map_err(|error| Failure::new(error.to_string()))?;
        let answer = match &self.way {
            Way::Socket(socket) => over(socket, request).await?,
            Way::Here { calls, .. } => here(calls.clone(), request).await,
        };
        let is_ok = answer.status().is_success();
        let bytes = axum::body::to_bytes(answer.into_body(), MOST_BYTES).await;
        let bytes = bytes.map_err(|error| Failure::new(format!("the gateway's answer broke off: {error}")))?;
        if is_ok {
            return serde_json::from_slice(&bytes).map_err(|error| {
                Failure::new(format!("the gateway is of another version than this program: {error}"))
            });
        }
        let problem: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let said =
            problem["detail"].as_str().map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), str::to_owned);
        Err(Failure::new(said))
    }
}

/// Whether a gateway lives at this socket.
async fn is_served(path: &Path) -> Result<bool, Failure> {
    match UnixStream::connect(path).await {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(false),
        Err(error) => Err(Failure::new(format!("the gateway's socket {}: {error}", path.display()))),
    }
}

async fn over(socket: &Path, request: Request<Body>) -> Result<Response<Body>, Failure> {
    let cant = |error: &dyn std::fmt::Display| {
        Failure::new(format!("the gateway does not answer at its socket {}: {error}", socket.display()))
    };
    let stream = UnixStream::connect(socket).await.map_err(|error| cant(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| cant(&error))?;
    let carrying = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| cant(&error))?;
    let (parts, body) = answer.into_parts();
    let bytes = axum::body::to_bytes(Body::new(body), MOST_BYTES).await.map_err(|error| cant(&error))?;
    carrying.abort();
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

/// Whoever may open the database is the operator.
async fn here(calls: Router, mut request: Request<Body>) -> Response<Body> {
    request.extensions_mut().insert(SocketPeer { uid: None });
    match calls.oneshot(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}
