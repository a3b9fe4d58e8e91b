//! The consignment proxy: one path where wallets of RGB hand each other consignments, in JSON-RPC and not in the dialect of the API.
//! Nobody is asked who he is. What is brought for the gateway's own invoices is answered by the gateway itself, not by this path.

mod document;
mod fault;
mod request;
mod room;
mod upload;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post as post_to;
use futures::stream;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;

use super::HttpState;
use super::client::Client;
use super::limits::Clients;
use super::local;
use super::problem::Problem;
use crate::flows::consignments;
use crate::flows::values::{Acknowledged, Posted};
use crate::flows::{Code, ProxyPolicy};
use fault::Fault;
use request::{Call, File, Refused};
use room::{Room, Rooms};

pub use document::{OPERATION, TAG};

/// Where everybody calls.
pub const ROUTE: &str = "/json-rpc";
/// What other proxies speak. Wallets ask for exactly this.
const PROTOCOL: &str = "0.2";
/// How long a call may take to arrive: a file at 400 kB a second.
const ARRIVES_WITHIN: Duration = Duration::from_secs(45);
/// What is written of a file at a time.
const PIECE: usize = 64 * 1024;
/// The methods by name, as metrics call them.
const METHODS: [&str; 7] =
    ["server.info", "consignment.post", "consignment.get", "ack.post", "ack.get", "media.post", "media.get"];

/// What calls are answered from besides the flows.
pub struct Proxy {
    clients: Clients,
    rooms: Rooms,
    started: Instant,
}

impl Proxy {
    #[must_use]
    pub fn new(is_limited: bool, policy: &ProxyPolicy) -> Self {
        Self { clients: Clients::new(is_limited, policy), rooms: Rooms::new(policy.largest()), started: Instant::now() }
    }
}

/// Adds the path to the router and to the document.
#[must_use]
pub fn add_to(mut router: OpenApiRouter<HttpState>) -> OpenApiRouter<HttpState> {
    document::add_to(router.get_openapi_mut());
    router.route(ROUTE, post_to(anybodys))
}

async fn anybodys(State(state): State<HttpState>, request: Request) -> Response {
    let policy = &state.flows.policy().proxy;
    if !policy.enabled {
        return nothing_here().into_response();
    }
    if local::of_foreign_page(request.headers(), &state.cors_origins).is_some() {
        return refused(&Value::Null, &fault::FROM_A_PAGE, "unread");
    }
    let client = Client::of(request.headers(), request.extensions(), state.believes_proxy);
    match state.proxy.clients.check(&client, upload::is_form(request.headers())) {
        Ok(()) => serve(&state, request).await,
        // Nothing of the call was read.
        Err(problem) => refused(&Value::Null, &fault::too_many_calls(problem), "unread"),
    }
}

/// As of any path that is not there.
fn nothing_here() -> Problem {
    Problem::new(Code::NotFound, "there is no such path; see /docs")
}

async fn serve(state: &HttpState, request: Request) -> Response {
    let largest = state.flows.policy().proxy.largest();
    let read = request::read(request, &state.proxy.rooms, largest);
    let call = match tokio::time::timeout(ARRIVES_WITHIN, read).await {
        Ok(Ok(call)) => call,
        Ok(Err(Refused { id, fault })) => return refused(&id, &fault, "unread"),
        Err(_elapsed) => return refused(&Value::Null, &fault::LATE, "unread"),
    };
    let Call { id, method, params, file, mut room } = call;
    let asked = Asked { state, params: &params };
    let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("unknown");
    let outcome = match method {
        "server.info" => Ok(asked.info()),
        "consignment.post" => asked.post_consignment(file).await,
        "consignment.get" => asked.consignment(&mut room).await,
        "ack.post" => asked.acknowledge().await,
        "ack.get" => asked.acknowledgement().await,
        "media.post" => asked.post_media(file).await,
        "media.get" => asked.media(&mut room).await,
        _ => Err(fault::NO_SUCH_METHOD),
    };
    match outcome {
        Ok(result) => answered(&id, &result, method, room),
        Err(fault) => refused(&id, &fault, method),
    }
}

/// A call that was read.
struct Asked<'a> {
    state: &'a HttpState,
    params: &'a serde_json::Map<String, Value>,
}

impl Asked<'_> {
    fn info(&self) -> Value {
        let uptime = self.state.proxy.started.elapsed().as_secs();
        json!({ "protocol_version": PROTOCOL, "version": env!("CARGO_PKG_VERSION"), "uptime": uptime })
    }

    async fn post_consignment(&self, file: File) -> Result<Value, Fault> {
        let flows = &self.state.flows;
        let bytes = whole(file, "a consignment", flows.policy().proxy.max_consignment_bytes)?;
        let label = request::label(self.params)?;
        stored(consignments::post(flows, label, &bytes).await?, bytes.len())
    }

    async fn post_media(&self, file: File) -> Result<Value, Fault> {
        let flows = &self.state.flows;
        let id = request::attachment_id(self.params)?;
        let bytes = whole(file, "a media file", flows.policy().proxy.max_media_bytes)?;
        stored(consignments::post_media(flows, id, &bytes).await?, bytes.len())
    }

    async fn consignment(&self, room: &mut Room) -> Result<Value, Fault> {
        let (flows, id) = (&self.state.flows, request::recipient_id(self.params)?);
        let found = consignments::find(flows, &id).await?.ok_or(fault::NO_CONSIGNMENT)?;
        make_room(room, found.size)?;
        let content = consignments::content(flows, &id).await?.ok_or(fault::NO_CONSIGNMENT)?;
        let mut result = serde_json::Map::new();
        result.insert("consignment".to_owned(), Value::String(content));
        result.insert("txid".to_owned(), Value::String(found.txid));
        if let Some(vout) = found.vout {
            result.insert("vout".to_owned(), Value::from(vout));
        }
        Ok(Value::Object(result))
    }

    async fn media(&self, room: &mut Room) -> Result<Value, Fault> {
        let (flows, id) = (&self.state.flows, request::attachment_id(self.params)?);
        let size = consignments::media_size(flows, &id).await?.ok_or(fault::NO_MEDIA)?;
        make_room(room, size)?;
        Ok(Value::String(consignments::media(flows, &id).await?.ok_or(fault::NO_MEDIA)?))
    }

    async fn acknowledge(&self) -> Result<Value, Fault> {
        let (id, ack) = (request::recipient_id(self.params)?, request::ack(self.params)?);
        match consignments::acknowledge(&self.state.flows, id, ack).await? {
            Acknowledged::Set => Ok(Value::Bool(true)),
            Acknowledged::Same => Ok(Value::Bool(false)),
            Acknowledged::Differs => Err(fault::CANNOT_CHANGE_ACK),
            Acknowledged::NoConsignment => Err(fault::NO_CONSIGNMENT),
            Acknowledged::NotTheirs => Err(fault::NOT_THEIR_ACK),
        }
    }

    async fn acknowledgement(&self) -> Result<Value, Fault> {
        let id = request::recipient_id(self.params)?;
        let found = consignments::find(&self.state.flows, &id).await?.ok_or(fault::NO_CONSIGNMENT)?;
        Ok(found.ack.map_or(Value::Null, Value::Bool))
    }
}

fn whole(file: File, what: &str, most: u64) -> Result<Vec<u8>, Fault> {
    match file {
        File::None => Err(fault::MISSING_FILE),
        File::NoRoom => Err(fault::BUSY),
        File::Whole(bytes) if bytes.len() as u64 <= most => Ok(bytes),
        File::Whole(_) | File::TooLarge => Err(fault::too_large(what, most)),
    }
}

fn make_room(room: &mut Room, size: u64) -> Result<(), Fault> {
    let fits = usize::try_from(size).is_ok_and(|size| room.grow(size));
    if fits { Ok(()) } else { Err(fault::BUSY) }
}

fn stored(posted: Posted, length: usize) -> Result<Value, Fault> {
    match posted {
        Posted::Stored => {
            metrics::counter!("sluice_proxy_stored_bytes_total").increment(length as u64);
            Ok(Value::Bool(true))
        }
        Posted::Same => Ok(Value::Bool(false)),
        Posted::Differs => Err(fault::CANNOT_CHANGE_FILE),
        Posted::Full => Err(fault::FULL),
    }
}

#[derive(Serialize)]
struct Success<'a> {
    jsonrpc: &'static str,
    id: &'a Value,
    result: &'a Value,
}

#[derive(Serialize)]
struct Failure<'a> {
    jsonrpc: &'static str,
    id: &'a Value,
    error: FailureDetail<'a>,
}

#[derive(Serialize)]
struct FailureDetail<'a> {
    code: i32,
    message: &'a str,
}

fn answered(id: &Value, result: &Value, method: &'static str, room: Room) -> Response {
    count(method, "ok".to_owned());
    let body = serde_json::to_vec(&Success { jsonrpc: "2.0", id, result }).unwrap_or_default();
    // Only what was fetched is still here; what was brought is stored and gone.
    let room = (body.len() > PIECE).then_some(room);
    respond(body, room, None)
}

fn refused(id: &Value, fault: &Fault, method: &'static str) -> Response {
    count(method, fault.code.to_string());
    let error = FailureDetail { code: fault.code, message: &fault.message };
    let body = serde_json::to_vec(&Failure { jsonrpc: "2.0", id, error }).unwrap_or_default();
    respond(body, None, fault.retry_after)
}

fn count(method: &'static str, outcome: String) {
    metrics::counter!("sluice_proxy_calls_total", "method" => method, "outcome" => outcome).increment(1);
}

/// Whatever became of a call, HTTP has delivered it. A file keeps its room until it is written or its reader has gone.
fn respond(body: Vec<u8>, room: Option<Room>, retry_after: Option<u32>) -> Response {
    let length = body.len();
    let body = Bytes::from(body);
    let pieces = (0..length).step_by(PIECE).map(move |from| {
        let _held_as_long_as_this = &room;
        Ok::<_, Infallible>(body.slice(from..length.min(from.saturating_add(PIECE))))
    });
    let mut response = Response::new(Body::from_stream(stream::iter(pieces)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
