//! Recomputing the books when the operator asks for it, and what the last audit found.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::flows::Code;
use crate::flows::audit_runs::{self, Backing, Finding, More, Run};
use crate::http::HttpState;
use crate::http::api::examples;
use crate::http::auth::{Operator, ToAdminister, ToLook};
use crate::http::problem::Problem;

/// What an audit says of a rule.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "rule": "leases", "detail": "one too many" }))]
pub struct FindingView {
    pub rule: String,
    pub detail: String,
}

impl From<Finding> for FindingView {
    fn from(finding: Finding) -> Self {
        let Finding { rule, detail } = finding;
        Self { rule, detail }
    }
}

/// A rule, and on how much it was checked.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "rule": "leases", "rows": 17 }))]
pub struct CheckedView {
    pub rule: String,
    pub rows: u64,
}

/// What the node had more than the books say. Nobody is harmed by it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "rule": "node_channels_are_what_the_node_says", "account": "node:channels", "more_msat": 7 }))]
pub struct SurplusView {
    pub rule: String,
    pub account: String,
    pub more_msat: i64,
}

impl From<More> for SurplusView {
    fn from(more: More) -> Self {
        let More { rule, account, more_msat } = more;
        Self { rule, account, more_msat }
    }
}

/// What wallets own, and what was there for it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "claims_msat": 5_000_000, "backing_msat": 9_000_000 }))]
pub struct BackingView {
    pub claims_msat: i64,
    /// In channels, in flight, closing and on-chain, without the reserve.
    pub backing_msat: i64,
}

/// What an audit found.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "started_at": examples::TIME, "ended_at": examples::TIME, "asked_by": "5f1c09ab77d2", "drift_count": 0, "drifts": [], "skipped": [],
    "pending": [], "surplus": [], "unopened": [], "checked": [{ "rule": "leases", "rows": 17 }], "solvency": { "claims_msat": 5_000_000, "backing_msat": 9_000_000 },
}))]
pub struct AuditView {
    pub started_at: String,
    pub ended_at: String,
    /// Who asked for it. Empty: it ran by itself.
    pub asked_by: Option<String>,
    /// How many differences there were. At most 200 of each kind are kept; all are in the log.
    pub drift_count: i64,
    /// Differences that should not be. None of them is harmless.
    pub drifts: Vec<FindingView>,
    /// What could not be checked, and why.
    pub skipped: Vec<FindingView>,
    /// What of the node's money was under way, and is compared later.
    pub pending: Vec<FindingView>,
    /// What the node had more than the books say. It is put into suspense once it has stayed for several looks.
    pub surplus: Vec<SurplusView>,
    /// Wallets whose assets could not be opened. Nobody else's payouts stop for it.
    pub unopened: Vec<FindingView>,
    pub checked: Vec<CheckedView>,
    /// Empty where the Lightning node could not be asked.
    pub solvency: Option<BackingView>,
}

impl From<Run> for AuditView {
    fn from(run: Run) -> Self {
        let views = |all: Vec<Finding>| all.into_iter().map(Into::into).collect();
        let checked = run.found.checked.into_iter().map(|(rule, rows)| CheckedView { rule, rows }).collect();
        let backing = |Backing { claims_msat, backing_msat }| BackingView { claims_msat, backing_msat };
        Self {
            started_at: run.started_at.rfc3339(),
            ended_at: run.ended_at.rfc3339(),
            asked_by: run.asked_by,
            drift_count: run.drifts,
            drifts: views(run.found.drifts),
            skipped: views(run.found.skipped),
            pending: views(run.found.pending),
            surplus: run.found.surplus.into_iter().map(Into::into).collect(),
            unopened: views(run.found.unopened),
            checked,
            solvency: run.found.solvency.map(backing),
        }
    }
}

/// The last audit, if there was one.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "audit": null }))]
pub struct LastAuditResponse {
    /// Empty: no audit has run yet.
    pub audit: Option<AuditView>,
}

pub const LAST: &[Code] = &[];

/// The last audit
///
/// What the last audit found, whether it ran by itself or somebody asked for it.
#[utoipa::path(get, path = "/admin/audit", operation_id = "adminLastAudit", tag = "operator",
    responses((status = 200, description = "The last audit", body = LastAuditResponse)))]
pub async fn last(
    State(state): State<HttpState>,
    _operator: Operator<ToLook>,
) -> Result<Json<LastAuditResponse>, Problem> {
    let run = audit_runs::last(&state.flows).await?;
    Ok(Json(LastAuditResponse { audit: run.map(Into::into) }))
}

pub const RUN: &[Code] = &[];

/// Audit now
///
/// Recomputes the books and compares them with the chain and the node. A drift stops payouts, as it does when the audit that runs by itself finds it.
/// On a large database it may take longer than a call: it goes on then, and its result is read with `GET`.
#[utoipa::path(post, path = "/admin/audit", operation_id = "adminRunAudit", tag = "operator",
    responses((status = 200, description = "What was found", body = AuditView)))]
pub async fn run(State(state): State<HttpState>, operator: Operator<ToAdminister>) -> Result<Json<AuditView>, Problem> {
    Ok(Json(audit_runs::run(&state.flows, operator.by).await?.into()))
}
