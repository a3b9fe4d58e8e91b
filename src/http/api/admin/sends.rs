//! What the node has sent of its own coins, and how it is hurried.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::flows::Code;
use crate::flows::node_admin::{self, Bumped};
use crate::http::HttpState;
use crate::http::api::examples;
use crate::http::auth::{Operator, ToAdminister};
use crate::http::extract::{Id, Posted};
use crate::http::problem::Problem;
use crate::money::FeeRate;

/// A higher rate for what the node has sent.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "fee_rate": 20 }))]
#[serde(deny_unknown_fields)]
pub struct BumpNodeSendRequestModel {
    /// Whole satoshis per virtual byte.
    #[schema(minimum = 1)]
    pub fee_rate: u32,
}

/// The version that was sent last.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "id": examples::ID, "txid": examples::TXID, "fee_sats": 2_820 }))]
pub struct NodeSendBumpedResponse {
    /// The withdrawal.
    pub id: String,
    /// The transaction that takes the place of the one before. Whichever of them gets into a block counts.
    pub txid: String,
    /// What this version costs.
    pub fee_sats: u64,
}

pub const BUMP: &[Code] = &[
    Code::FeeRateOutOfRange,
    Code::OutcomeUnknown,
    Code::NotBumpable,
    Code::NodeRefused,
    Code::LightningUnavailable,
    Code::LightningNotReady,
];

/// Raise the fee of a withdrawal
///
/// Replaces the transaction with which the node pays a withdrawal of off-chain money by a version that pays more, while it waits for a block.
/// The recipient gets the same. The wallet has paid the fee of the first version; what the last one costs beyond that is the operator's.
#[utoipa::path(post, path = "/admin/node/sends/{id}/bump", operation_id = "adminBumpNodeSend", tag = "operator",
    params(("id" = String, Path, description = "The withdrawal", example = json!(examples::ID))),
    request_body = BumpNodeSendRequestModel,
    responses((status = 200, description = "It is replaced", body = NodeSendBumpedResponse)))]
pub async fn bump(
    State(state): State<HttpState>,
    _operator: Operator<ToAdminister>,
    Id(id): Id,
    body: Posted<BumpNodeSendRequestModel>,
) -> Result<Json<NodeSendBumpedResponse>, Problem> {
    let rate = FeeRate::from_sat_per_vb(body.value.fee_rate);
    let Bumped { txid, fee } = node_admin::bump(&state.flows, id, rate, body.idempotency).await?;
    Ok(Json(NodeSendBumpedResponse { id: id.to_string(), txid: txid.to_string(), fee_sats: fee.to_u64() }))
}
