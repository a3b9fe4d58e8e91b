//! What an operator asks: is it alive, is it ready, how is it doing. On a listener of its own, without keys, never public.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Serialize;

use super::config::Mode;
use crate::flows::health::{Health, Rails};

/// Upper bounds in seconds: from a read in memory to the longest wait that is allowed.
const SECONDS: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];
/// What was measured is folded at least so often, whether or not somebody asks for it.
const UPKEEP: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct OperatorState {
    pub health: Health,
    pub metrics: PrometheusHandle,
    /// Who is believed by the API.
    pub mode: Mode,
}

/// Makes the process measure itself. Once per process.
///
/// # Errors
/// When something else measures already.
pub fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()
}

/// Keeps measurements from piling up. Runs until it is dropped.
pub async fn metrics_upkeep(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        metrics.run_upkeep();
    }
}

/// The operator's endpoints.
pub fn operator_router(state: OperatorState) -> Router {
    Router::new()
        .route("/health/live", get(async || Json(Live { status: "live" })))
        .route("/health/ready", get(ready))
        .route("/metrics", get(measured))
        .with_state(state)
}

#[derive(Serialize)]
struct Live {
    status: &'static str,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    /// `key`, or `wallet`: then whoever reaches the API acts for any wallet whose public keys he knows.
    auth_mode: Mode,
    /// Blocks that the node has and the gateway has not.
    lag: Option<u32>,
    rails: Rails,
}

async fn ready(State(state): State<OperatorState>) -> Response {
    let rails = state.health.rails();
    let ready = rails.are_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, auth_mode: state.mode, lag: rails.lag(), rails })).into_response()
}

async fn measured(State(state): State<OperatorState>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    #[tokio::test]
    async fn ready_names_each_rail() {
        let health = Health::default();
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let app = operator_router(OperatorState { health: health.clone(), metrics, mode: Mode::Wallet });
        let ask = async |path: &str| {
            let response = app.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
            let status = response.status();
            (status, to_bytes(response.into_body(), 9_999).await.unwrap())
        };
        assert_eq!(ask("/health/live").await.0, StatusCode::OK);
        let (status, body) = ask("/health/ready").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(body["rails"]["store"]["ok"] == false && body["rails"]["chain"]["connected"] == false);
        let lightning = serde_json::json!({ "configured": false, "ready": false, "reason": null });
        assert_eq!(body["rails"]["lightning"], lightning);
        assert_eq!(body["auth_mode"], "wallet");
        let assets = serde_json::json!({ "configured": false, "ready": false, "unopened": 0, "reason": null });
        assert_eq!(body["rails"]["assets"], assets);
        health.update(|rails| {
            rails.store.ok = true;
            rails.chain.connected = true;
            rails.chain.synced = true;
        });
        assert_eq!(ask("/health/ready").await.0, StatusCode::OK);
        assert_eq!(ask("/metrics").await.0, StatusCode::OK);
    }
}
