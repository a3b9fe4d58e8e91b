//! The outermost layer: every call gets a trace id, a line in the log, a place in the metrics, and an answer.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;
use uuid::Uuid;

use super::config::REQUEST_TIMEOUT;
use super::problem::{Problem, entry};
use crate::flows::Code;

/// Carries the trace id of every answer.
pub const TRACE_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Names one call in the log and in its answer. Always our own: a caller's would let him forge lines of the log.
#[derive(Clone, Debug)]
pub struct TraceId(String);

impl TraceId {
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::now_v7().as_simple().to_string())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Runs a call to its end, whatever happens to it or to whoever asked.
pub async fn layer(request: Request, next: Next) -> Response {
    let trace = TraceId::fresh();
    let method = request.method().clone();
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| "unmatched".to_owned(), |m| m.as_str().to_owned());
    // A problem says which path was called. No path holds a secret: ids name, and what opens something is in headers and bodies.
    let path = request.uri().path().to_owned();
    // Never headers, query or body: they hold keys, signatures and who pays whom.
    let span = tracing::info_span!("call", trace_id = trace.as_str(), method = %method, route);
    let started = Instant::now();
    let response = isolated(next.run(request).instrument(span.clone())).await;
    let code = response.extensions().get::<Problem>().map(|problem| entry(problem.code).name);
    let mut response = match response.extensions().get::<Problem>().cloned() {
        Some(problem) => problem.render(response, trace.as_str(), &path),
        None => response,
    };
    // What a wallet has is nobody's to keep, least of all a proxy's.
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(trace.as_str()) {
        response.headers_mut().insert(TRACE_HEADER, value);
    }
    let took = started.elapsed();
    measure(&method, &route, response.status().as_u16(), took.as_secs_f64());
    let status = response.status().as_u16();
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    span.in_scope(|| tracing::info!(status, micros, code, "answered"));
    response
}

/// In a task of its own a call survives the caller who hangs up in the middle of it, and its panic ends nobody else.
async fn isolated(call: impl Future<Output = Response> + Send + 'static) -> Response {
    let task = tokio::spawn(call);
    match tokio::time::timeout(REQUEST_TIMEOUT, task).await {
        Ok(Ok(response)) => response,
        Ok(Err(fault)) => {
            tracing::error!(%fault, "a call ended in a panic");
            Problem::plain(Code::Internal).into_response()
        }
        Err(_elapsed) => Problem::plain(Code::Timeout).into_response(),
    }
}

fn measure(method: &Method, route: &str, status: u16, seconds: f64) {
    let labels =
        [("method", known_method(method).to_owned()), ("route", route.to_owned()), ("status", status.to_string())];
    metrics::counter!("sluice_http_requests_total", &labels).increment(1);
    metrics::histogram!("sluice_http_request_seconds", &labels).record(seconds);
}

/// Anybody can invent a method; a metric with a row for each would grow for ever.
fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_panic_is_an_internal_error_with_a_trace_id() {
        async fn fault() -> &'static str {
            std::panic::panic_any("a secret")
        }
        let app = Router::new().route("/", get(fault)).layer(axum::middleware::from_fn(layer));
        let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), 500);
        let id = response.headers()[&TRACE_HEADER].to_str().unwrap().to_owned();
        let body = axum::body::to_bytes(response.into_body(), 9_999).await.unwrap();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["trace_id"], id);
        assert_eq!(problem["error"], "internal");
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
    }
}
