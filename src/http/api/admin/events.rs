//! The log of what happened to the gateway itself.

use axum::Json;
use axum::extract::State;

use crate::flows::history;
use crate::http::HttpState;
use crate::http::api::events::{EventParams, EventsResponse};
use crate::http::api::examples;
use crate::http::auth::{Operator, ToLook};
use crate::http::extract::Params;
use crate::http::problem::Problem;

/// The gateway's events
///
/// What happened to the gateway's own node and money, what it did by itself and why, and what its operators did; oldest first. They are
/// read on like those of a wallet, with which they share their numbers.
#[utoipa::path(get, path = "/admin/events", operation_id = "adminEvents", tag = "operator",
    params(EventParams),
    responses((status = 200, description = "The events", body = EventsResponse, example = json!({
        "events": [{
            "seq": 57, "kind": "liquidity.held_back", "wallet_id": null, "request_id": null, "reference": null, "label": null,
            "created_at": examples::TIME,
            "data": {
                "why": "fee_rate_too_high", "detail": "the fee rate is 35 sat/vB, and liquidity.max_fee_rate is 20 sat/vB",
                "outbound_sats": 200_000,
            },
        }],
        "next_after": 57,
    }))))]
pub async fn list(
    State(state): State<HttpState>,
    _operator: Operator<ToLook>,
    Params(params): Params<EventParams>,
) -> Result<Json<EventsResponse>, Problem> {
    let (after, most) = params.read()?;
    let events = history::gateway_events(&state.flows, after, most).await?;
    Ok(Json(EventsResponse::of(events, after)))
}
