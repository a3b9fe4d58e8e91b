//! The log of everything that happened to a wallet, to be read from where one left off.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::examples;
use crate::flows::values::Event;
use crate::flows::{Code, history};
use crate::http::HttpState;
use crate::http::auth::{ToRead, Wallet};
use crate::http::extract::{PAGE_USUAL, Params, limit};
use crate::http::problem::Problem;

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event, example = json!({
    "seq": 42, "kind": "deposit.confirmed", "wallet_id": examples::WALLET, "request_id": examples::ID,
    "reference": "order 17", "label": null, "created_at": examples::TIME,
    "data": {
        "txid": examples::TXID, "vout": 0, "address": examples::ADDRESS, "amount_sats": 100_000,
        "amount_msat": 100_000_000, "height": 810, "replaced_by": null,
    },
}))]
pub struct EventView {
    /// Its place in the log. Empty for a moment after it happened, on a request's own timeline.
    pub seq: Option<i64>,
    /// What happened, as `thing.happened`.
    pub kind: String,
    /// The wallet that it happened to. Null: it happened to the gateway.
    pub wallet_id: Option<String>,
    pub request_id: Option<String>,
    /// What the owner of the request calls it.
    pub reference: Option<String>,
    pub label: Option<String>,
    pub created_at: String,
    /// Depends on the kind.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            seq: event.seq,
            kind: event.kind,
            wallet_id: event.wallet.map(|id| id.to_string()),
            request_id: event.request.map(|id| id.to_string()),
            reference: event.reference,
            label: event.label,
            created_at: event.created_at.rfc3339(),
            data: event.data,
        }
    }
}

/// Where to read on in the log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventParams {
    /// Only events after this number; 0 unless given, which is from the beginning.
    #[param(minimum = 0)]
    pub after: Option<i64>,
    /// How many to answer, 1 to 500; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
}

impl EventParams {
    /// After which number, and how many.
    ///
    /// # Errors
    /// When one of them can't be.
    pub fn read(&self) -> Result<(i64, u32), Problem> {
        let after = self.after.unwrap_or(0);
        if after < 0 {
            return Err(Problem::field(Code::InvalidRequest, "after", "after: must be 0 or more"));
        }
        Ok((after, limit(self.limit, PAGE_USUAL)?))
    }
}

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "events": [], "next_after": 42 }))]
pub struct EventsResponse {
    /// Oldest first.
    pub events: Vec<EventView>,
    /// What to send as `after` next time.
    pub next_after: i64,
}

impl EventsResponse {
    #[must_use]
    pub fn of(events: Vec<Event>, after: i64) -> Self {
        let next_after = events.last().and_then(|event| event.seq).unwrap_or(after);
        Self { events: events.into_iter().map(Into::into).collect(), next_after }
    }
}

/// The events
///
/// What happened to this wallet, oldest first. Numbers grow and never change, so a reader that remembers the last one misses
/// nothing and sees nothing twice. They count the whole gateway's events: gaps belong to other wallets.
#[utoipa::path(get, path = "/events", operation_id = "events", tag = "history",
    params(EventParams),
    responses((status = 200, description = "The events", body = EventsResponse)))]
pub async fn list(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    Params(params): Params<EventParams>,
) -> Result<Json<EventsResponse>, Problem> {
    let (after, most) = params.read()?;
    let events = history::events(&state.flows, &wallet.id, after, most).await?;
    Ok(Json(EventsResponse::of(events, after)))
}
