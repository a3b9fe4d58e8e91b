//! What stops payouts: reading it, stopping them, and letting them go on.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::read_reason;
use crate::flows::Code;
use crate::flows::operator::{self, Stop};
use crate::flows::values::{Halt, HaltScope};
use crate::http::HttpState;
use crate::http::api::examples;
use crate::http::auth::{Operator, ToAdminister, ToLook};
use crate::http::extract::{AnyId, MaybePosted, Posted};
use crate::http::problem::Problem;

/// Something that stops payouts.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": examples::ID, "name": "operator", "wallet": null, "reason": "ticket 12: a key has leaked", "created_at": examples::TIME,
}))]
pub struct HaltInForce {
    pub id: String,
    /// An alarm, such as `deep_reorg` or `audit_drift`, or what the operator called it.
    pub name: String,
    /// The one wallet whose payouts it stops. Empty: everybody's.
    pub wallet: Option<String>,
    /// What has happened, in words.
    pub reason: String,
    pub created_at: String,
}

impl From<Halt> for HaltInForce {
    fn from(halt: Halt) -> Self {
        let Halt { id, scope, reason, detail, created_at } = halt;
        let wallet = match scope {
            HaltScope::Everybody => None,
            HaltScope::Wallet(wallet) => Some(wallet.to_string()),
        };
        Self { id, name: reason, wallet, reason: detail, created_at: created_at.rfc3339() }
    }
}

/// Everything that stops payouts now, oldest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "halts": [{
        "id": examples::ID, "name": "operator", "wallet": null, "reason": "ticket 12: a key has leaked", "created_at": examples::TIME,
    }],
}))]
pub struct HaltsResponse {
    pub halts: Vec<HaltInForce>,
}

async fn in_force(state: &HttpState) -> Result<Json<HaltsResponse>, Problem> {
    let halts = operator::halts(&state.flows).await?;
    Ok(Json(HaltsResponse { halts: halts.into_iter().map(Into::into).collect() }))
}

pub const LIST: &[Code] = &[];

/// Halts in force
///
/// What stops payouts now. While there is anything, nothing that takes money out is begun, ended or bumped, and what was promised and
/// has not gone out waits.
#[utoipa::path(get, path = "/admin/halts", operation_id = "adminHalts", tag = "operator",
    responses((status = 200, description = "The halts", body = HaltsResponse)))]
pub async fn list(State(state): State<HttpState>, _operator: Operator<ToLook>) -> Result<Json<HaltsResponse>, Problem> {
    in_force(&state).await
}

/// Why payouts are to stop.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "name": "operator", "reason": "ticket 12: a key has leaked" }))]
pub struct RaiseHaltRequestModel {
    /// What to call it: a word of 1 to 32 characters of a to z, 0 to 9 and _. `operator` unless given. Alarms have names of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[a-z0-9_]{1,32}$")]
    pub name: Option<String>,
    /// The one wallet whose payouts are to stop. Everybody's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[0-9a-f]{16}$")]
    pub wallet: Option<String>,
    /// For whoever is to clear it later.
    #[schema(min_length = 1, max_length = 500)]
    pub reason: String,
}

pub const RAISE: &[Code] = &[];

/// Stop payouts
///
/// Begin, end and bump are refused at once with `payouts_halted`, and so is every retry of what was promised and has not gone out. Receiving goes on.
/// A halt of this name that is in force stays as it is. Answers what is in force.
#[utoipa::path(post, path = "/admin/halts", operation_id = "adminRaiseHalt", tag = "operator",
    request_body = RaiseHaltRequestModel,
    responses((status = 200, description = "Payouts are stopped", body = HaltsResponse)))]
pub async fn raise(
    State(state): State<HttpState>,
    operator: Operator<ToAdminister>,
    posted: Posted<RaiseHaltRequestModel>,
) -> Result<Json<HaltsResponse>, Problem> {
    let RaiseHaltRequestModel { name, wallet, reason } = posted.value;
    let reason = read_reason(reason)?;
    let name = name.unwrap_or_else(|| operator::HALT_NAME.to_owned());
    let wrong = |_| Problem::field(Code::InvalidRequest, "wallet", "wallet: is no id of a wallet");
    let scope = match wallet {
        Some(wallet) => HaltScope::Wallet(wallet.parse().map_err(wrong)?),
        None => HaltScope::Everybody,
    };
    operator::halt(&state.flows, Stop { scope, name, reason }, operator.by, posted.idempotency).await?;
    in_force(&state).await
}

/// Why payouts may go on.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "reason": "ticket 12: the key is revoked" }))]
pub struct ClearHaltRequestModel {
    /// It is kept with the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 500)]
    pub reason: Option<String>,
}

pub const CLEAR: &[Code] = &[];

/// Let payouts go on
///
/// Clears the halt with this id or name, and what waited goes out. Find out first what happened: after a deep reorganisation deposits may be gone, and
/// a drift means that the books are wrong. Answers what is still in force.
#[utoipa::path(post, path = "/admin/halts/{id}/clear", operation_id = "adminClearHalt", tag = "operator",
    params(("id" = String, Path, description = "Its id or its name", example = json!("operator"))),
    request_body = ClearHaltRequestModel,
    responses((status = 200, description = "It is cleared", body = HaltsResponse)))]
pub async fn clear(
    State(state): State<HttpState>,
    operator: Operator<ToAdminister>,
    id: AnyId,
    posted: MaybePosted<ClearHaltRequestModel>,
) -> Result<Json<HaltsResponse>, Problem> {
    let reason = posted.value.reason.map(read_reason).transpose()?;
    operator::resume(&state.flows, id.0, reason, operator.by, posted.idempotency).await?;
    in_force(&state).await
}
