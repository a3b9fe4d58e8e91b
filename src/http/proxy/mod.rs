//! The consignment proxy: one path where wallets of RGB hand each other consignments, in JSON-RPC and not in the dialect of the API.
//! Nobody is asked who he is. What is brought for the gateway's own invoices is answered by the gateway itself, not by this path.

mod counter;
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
use crate::flows::values::{Acknowledged, Posted, Standing};
use crate::flows::{Code, ProxyPolicy};
use counter::{Counter, Served};
use fault::Fault;
use request::{Call, File, Refused};
use room::{Room, Rooms};
use upload::Gatekeeper;

pub use document::{OPERATION, TAG};

/// Where everybody calls.
pub const ROUTE: &str = "/json-rpc";
/// What other proxies speak. Wallets ask for exactly this.
const PROTOCOL: &str = "0.2";
/// How long a call may take to arrive, whatever its length, and how many bytes more a second there are on top of that.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);
const ARRIVING_BYTES_PER_SECOND: u64 = 400 * 1024;
/// What is written of a file at a time.
const PIECE: usize = 64 * 1024;
/// The methods by name, as metrics call them.
const METHODS: [&str; 7] =
    ["server.info", "consignment.post", "consignment.get", "ack.post", "ack.get", "media.post", "media.get"];

/// What calls are answered from besides the flows.
pub struct Proxy {
    clients: Clients,
    counter: Counter,
    rooms: Rooms,
    started: Instant,
}

impl Proxy {
    #[must_use]
    pub fn new(is_limited: bool, policy: &ProxyPolicy) -> Self {
        Self {
            clients: Clients::new(is_limited, policy),
            counter: Counter::new(is_limited),
            rooms: Rooms::new(policy.largest()),
            started: Instant::now(),
        }
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
    if !policy.is_on() {
        return nothing_here().into_response();
    }
    if local::of_foreign_page(request.headers(), &state.cors_origins).is_some() {
        return refused(&Value::Null, &fault::FROM_A_PAGE, "unread");
    }
    let client = Client::of(request.headers(), request.extensions(), state.believes_proxy);
    let brings_file = upload::is_form(request.headers());
    // Nothing of a call that is refused here was read.
    if let Err(problem) = state.proxy.clients.check(&client, brings_file) {
        return refused(&Value::Null, &fault::too_many_calls(problem), "unread");
    }
    let Some(mut served) = state.proxy.counter.serve(client) else {
        return refused(&Value::Null, &fault::BUSY, "unread");
    };
    if brings_file && !served.takes_file() {
        return refused(&Value::Null, &fault::BUSY, "unread");
    }
    serve(&state, request, served).await
}

/// As of any path that is not there.
fn nothing_here() -> Problem {
    Problem::new(Code::NotFound, "there is no such path; see /docs")
}

/// How long a call may take to arrive: by what it announces, else as long as the largest file may take.
fn arrives_within(request: &Request, largest: u64) -> Duration {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let seconds = announced.unwrap_or(largest).min(largest) / ARRIVING_BYTES_PER_SECOND;
    ARRIVES_WITHIN.saturating_add(Duration::from_secs(seconds))
}

async fn serve(state: &HttpState, request: Request, served: Served) -> Response {
    let largest = state.flows.policy().proxy.largest();
    let within = arrives_within(&request, largest);
    let gate = Gate { state };
    let read = request::read(request, &gate, largest);
    let call = match tokio::time::timeout(within, read).await {
        Ok(Ok(call)) => call,
        Ok(Err(Refused { id, fault })) => return refused(&id, &fault, "unread"),
        Err(_elapsed) => return refused(&Value::Null, &fault::LATE, "unread"),
    };
    // What a file takes is held until it is stored.
    let Call { id, method, params, file, room: _brought } = call;
    let mut held = Held { room: state.proxy.rooms.to_fetch(), served };
    let asked = Asked { state, params: &params };
    let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("unknown");
    let outcome = match method {
        "server.info" => Ok(asked.info()),
        "consignment.post" => asked.post_consignment(file).await,
        "consignment.get" => asked.consignment(&mut held).await,
        "ack.post" => asked.acknowledge().await,
        "ack.get" => asked.acknowledgement().await,
        "media.post" | "media.get" if !state.flows.policy().proxy.media => Err(fault::NO_SUCH_METHOD),
        "media.post" => asked.post_media(file).await,
        "media.get" => asked.media(&mut held).await,
        _ => Err(fault::NO_SUCH_METHOD),
    };
    match outcome {
        Ok(result) => answered(&id, &result, method, held),
        Err(fault) => refused(&id, &fault, method),
    }
}

/// What a call keeps until its answer is written: its place, and what a file takes.
struct Held {
    room: Room,
    served: Served,
}

/// Looks at what a form says it brings, before its file is read.
struct Gate<'a> {
    state: &'a HttpState,
}

impl Gatekeeper for Gate<'_> {
    async fn admit(&self, method: &str, params: &Value) -> Result<Room, Fault> {
        let rooms = &self.state.proxy.rooms;
        match method {
            "consignment.post" => {
                let Some(id) = params.as_object().and_then(|params| request::recipient_id(params).ok()) else {
                    return Ok(rooms.for_strangers());
                };
                match consignments::standing(&self.state.flows, &id).await? {
                    Standing::Strangers => Ok(rooms.for_strangers()),
                    Standing::Open => Ok(rooms.for_our_own()),
                    Standing::Closed if consignments::find(&self.state.flows, &id).await?.is_some() => {
                        Ok(rooms.for_strangers())
                    }
                    Standing::Closed => Err(fault::CLOSED),
                }
            }
            "media.post" if !self.state.flows.policy().proxy.media => Err(fault::NO_SUCH_METHOD),
            _ => Ok(rooms.for_strangers()),
        }
    }

    fn for_anything(&self) -> Room {
        self.state.proxy.rooms.for_strangers()
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
        let length = bytes.len();
        stored(consignments::post(flows, label, bytes).await?, length)
    }

    async fn post_media(&self, file: File) -> Result<Value, Fault> {
        let flows = &self.state.flows;
        let id = request::attachment_id(self.params)?;
        let bytes = whole(file, "a media file", flows.policy().proxy.max_media_bytes)?;
        let length = bytes.len();
        stored(consignments::post_media(flows, id, bytes).await?, length)
    }

    async fn consignment(&self, held: &mut Held) -> Result<Value, Fault> {
        let (flows, id) = (&self.state.flows, request::recipient_id(self.params)?);
        let found = consignments::find(flows, &id).await?.filter(|found| !found.is_dropped);
        let found = found.ok_or(fault::NO_CONSIGNMENT)?;
        make_room(held, found.size)?;
        let content = consignments::content(flows, &id).await?.ok_or(fault::NO_CONSIGNMENT)?;
        let mut result = serde_json::Map::new();
        result.insert("consignment".to_owned(), Value::String(content));
        result.insert("txid".to_owned(), Value::String(found.txid));
        if let Some(vout) = found.vout {
            result.insert("vout".to_owned(), Value::from(vout));
        }
        Ok(Value::Object(result))
    }

    async fn media(&self, held: &mut Held) -> Result<Value, Fault> {
        let (flows, id) = (&self.state.flows, request::attachment_id(self.params)?);
        let size = consignments::media_size(flows, &id).await?.ok_or(fault::NO_MEDIA)?;
        make_room(held, size)?;
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

fn make_room(held: &mut Held, size: u64) -> Result<(), Fault> {
    let fits = held.served.takes_file() && usize::try_from(size).is_ok_and(|size| held.room.grow(size));
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
        Posted::Closed => Err(fault::CLOSED),
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

fn answered(id: &Value, result: &Value, method: &'static str, held: Held) -> Response {
    count(method, "ok".to_owned());
    let body = serde_json::to_vec(&Success { jsonrpc: "2.0", id, result }).unwrap_or_default();
    respond(body, Some(held), None)
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
fn respond(body: Vec<u8>, held: Option<Held>, retry_after: Option<u32>) -> Response {
    let length = body.len();
    let body = Bytes::from(body);
    let pieces = (0..length).step_by(PIECE).map(move |from| {
        let _held_as_long_as_this = &held;
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
