//! The API over HTTP: wire types, and a mapping onto flows. This room sees neither database nor node.
//!
//! From the outside in: `server` accepts connections, `trace` gives every call an id and every problem its body, `auth` says
//! who calls and for which wallet, `extract` reads what was sent, `api` answers. `proxy` is another dialect on the same listener.

pub mod api;
mod auth;
mod client;
pub mod config;
mod docs;
mod endpoint;
mod extract;
mod guesses;
mod limits;
mod local;
pub mod openapi;
mod operator;
mod places;
pub mod problem;
mod proxy;
mod server;
mod slow;
mod socket;
mod trace;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use utoipa_axum::router::OpenApiRouter;

pub use auth::SocketPeer;
pub use config::{Config, Mode};
pub use operator::{OperatorState, install_metrics, metrics_upkeep, operator_router};
pub use proxy::ROUTE as PROXY_ROUTE;
pub use server::serve;
pub use socket::{OperatorSocket, serve_operator};

use crate::flows::{Code, Flows};
use problem::Problem;

/// What every call is answered from. Cheap to clone.
#[derive(Clone)]
pub struct HttpState {
    pub flows: Flows,
    mode: Mode,
    limits: Arc<limits::Limits>,
    guesses: Arc<guesses::Guesses>,
    wallets: Arc<auth::Wallets>,
    proxy: Arc<proxy::Proxy>,
    cors_origins: Arc<[String]>,
    /// A proxy in front of us says who calls.
    believes_proxy: bool,
}

impl HttpState {
    #[must_use]
    pub fn new(flows: Flows, config: &Config) -> Self {
        let believes_proxy = config.forwarded_for || flows.policy().proxy.forwarded_for;
        let proxy = Arc::new(proxy::Proxy::new(config.limits.enabled, &flows.policy().proxy));
        Self {
            flows,
            mode: config.mode(),
            limits: Arc::new(limits::Limits::new(&config.limits)),
            guesses: Arc::new(guesses::Guesses::new(
                config.limits.enabled,
                config.limits.failed_keys_per_client_per_minute,
            )),
            wallets: Arc::default(),
            proxy,
            cors_origins: config.cors_origins.clone().into(),
            believes_proxy,
        }
    }
}

/// The whole API, the document and its pages.
pub fn router(state: HttpState) -> Router {
    let origins = Arc::clone(&state.cors_origins);
    let (endpoints, _document) = api::endpoints().split_for_parts();
    let router = endpoints
        .merge(docs::pages())
        .fallback(async || Problem::new(Code::NotFound, "there is no such path; see /docs"))
        .method_not_allowed_fallback(async || Problem::plain(Code::MethodNotAllowed))
        .with_state(state);
    // Without origins there is no such layer: it would answer every OPTIONS, that of an unknown path too.
    let router = if origins.is_empty() { router } else { router.layer(cors(&origins)) };
    router.layer(axum::middleware::from_fn(trace::layer))
}

/// The operator's calls alone, for the socket of this machine and for commands: the same handlers as on the API's listener. Whoever
/// serves it says of each request who called, by `SocketPeer`.
pub fn operator_calls(state: HttpState) -> Router {
    let (endpoints, _document) = api::admin::add_to(OpenApiRouter::new()).split_for_parts();
    endpoints
        .fallback(async || Problem::new(Code::NotFound, "there is no such path; only the operator's calls are here"))
        .method_not_allowed_fallback(async || Problem::plain(Code::MethodNotAllowed))
        .with_state(state)
        .layer(axum::middleware::from_fn(trace::layer))
}

/// Web pages may call from where the operator says, and read our headers.
fn cors(origins: &[String]) -> CorsLayer {
    let own = |name: &'static str| HeaderName::from_static(name);
    let [van, col, fingerprint] = auth::WALLET_HEADERS.map(own);
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::CONTENT_TYPE,
            header::ACCEPT,
            header::AUTHORIZATION,
            own(extract::IDEMPOTENCY_HEADER),
            van,
            col,
            fingerprint,
        ])
        .expose_headers([
            api::begun::REQUEST_ID,
            api::begun::EXPIRES_AT,
            api::begun::SOURCE,
            api::begun::FEE_SATS,
            api::begun::NEXT_CURSOR,
            trace::TRACE_HEADER,
            header::RETRY_AFTER,
        ]);
    if origins.iter().any(|origin| origin == "*") {
        return layer.allow_origin(Any);
    }
    // What can't stand in a header was refused when the configuration was checked.
    layer.allow_origin(AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok())))
}

#[cfg(test)]
mod tests;
