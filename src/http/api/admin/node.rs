//! The node as a whole: what it is, what it has, and the coins that must stay beside its channels.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::flows::node_admin::{self, Overview, Reserve};
use crate::flows::values::{Capabilities, Halt, NodeBalance};
use crate::http::HttpState;
use crate::http::api::examples;
use crate::http::auth::{Operator, ToAdminister, ToLook};
use crate::http::problem::Problem;

/// The node, and what it has.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": examples::NODE, "height": 890_000, "ready": true, "accepts_spends": true, "listens": ["203.0.113.7:9735"],
    "capabilities": { "quotes": true, "bolt12": true, "channels": true, "onchain": true },
    "balance": {
        "channels_msat": 4_800_000_000_u64, "in_flight_msat": 0, "closing_sats": 0, "onchain_confirmed_sats": 250_000,
        "onchain_unconfirmed_sats": 0, "reserve_sats": 30_000, "can_send_msat": 4_700_000_000_u64, "can_receive_msat": 1_900_000_000,
        "coming_msat": 0, "is_moving": false,
    },
    "halts": [],
}))]
pub struct NodeResponse {
    /// The node's public key, as hex.
    pub id: String,
    /// The height of the chain as the node has seen it.
    pub height: u32,
    /// It has caught up with the chain and with what its own state says is open.
    pub ready: bool,
    /// New payments are accepted now.
    pub accepts_spends: bool,
    /// Where peers reach it.
    pub listens: Vec<String>,
    pub capabilities: NodeCapabilities,
    pub balance: NodeBalanceView,
    /// Reasons for which no money goes out.
    pub halts: Vec<HaltView>,
}

/// What the node can do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "quotes": true, "bolt12": true, "channels": true, "onchain": true }))]
pub struct NodeCapabilities {
    pub quotes: bool,
    pub bolt12: bool,
    pub channels: bool,
    pub onchain: bool,
}

impl From<Capabilities> for NodeCapabilities {
    fn from(can: Capabilities) -> Self {
        let Capabilities { quotes, bolt12, channels, onchain } = can;
        Self { quotes, bolt12, channels, onchain }
    }
}

/// The node's own money, by where it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "channels_msat": 4_800_000_000_u64, "in_flight_msat": 0, "closing_sats": 0, "onchain_confirmed_sats": 250_000,
    "onchain_unconfirmed_sats": 0, "reserve_sats": 30_000, "can_send_msat": 4_700_000_000_u64, "can_receive_msat": 1_900_000_000,
        "coming_msat": 0, "is_moving": false,
}))]
pub struct NodeBalanceView {
    /// The node's in open channels, without what is in flight.
    pub channels_msat: u64,
    /// Has left, and neither arrived nor come back.
    pub in_flight_msat: u64,
    /// Of channels that are closing.
    pub closing_sats: u64,
    pub onchain_confirmed_sats: u64,
    pub onchain_unconfirmed_sats: u64,
    /// What must stay on-chain to be able to bump the closing of channels.
    pub reserve_sats: u64,
    /// What could be sent now over all channels together.
    pub can_send_msat: u64,
    /// What could be received now over all channels together.
    pub can_receive_msat: u64,
    /// Payments of others that have come in and are not taken yet.
    pub coming_msat: u64,
    /// A channel is opening or closing, or a transaction waits for its block.
    pub is_moving: bool,
}

impl From<NodeBalance> for NodeBalanceView {
    fn from(balance: NodeBalance) -> Self {
        let NodeBalance {
            channels,
            in_flight,
            closing,
            onchain_confirmed,
            onchain_unconfirmed,
            reserve,
            can_send,
            can_receive,
            coming,
            is_moving,
        } = balance;
        Self {
            channels_msat: channels.base_units(),
            in_flight_msat: in_flight.base_units(),
            closing_sats: closing.to_u64(),
            onchain_confirmed_sats: onchain_confirmed.to_u64(),
            onchain_unconfirmed_sats: onchain_unconfirmed.to_u64(),
            reserve_sats: reserve.to_u64(),
            can_send_msat: can_send.base_units(),
            can_receive_msat: can_receive.base_units(),
            coming_msat: coming.base_units(),
            is_moving,
        }
    }
}

/// A reason for which no money goes out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "reason": "audit_drift", "detail": "leases: 1", "since": examples::TIME }))]
pub struct HaltView {
    pub reason: String,
    pub detail: String,
    pub since: String,
}

impl From<Halt> for HaltView {
    fn from(halt: Halt) -> Self {
        let Halt { id: _, scope: _, reason, detail, created_at } = halt;
        Self { reason, detail, since: created_at.rfc3339() }
    }
}

/// The node
///
/// What the node is, what it can do, where its money is, and whether payouts are stopped.
#[utoipa::path(get, path = "/admin/node", operation_id = "adminNode", tag = "operator",
    responses((status = 200, description = "The node", body = NodeResponse)))]
pub async fn get(State(state): State<HttpState>, _operator: Operator<ToLook>) -> Result<Json<NodeResponse>, Problem> {
    let Overview { info, capabilities, balance, accepts_spends, halts } = node_admin::overview(&state.flows).await?;
    Ok(Json(NodeResponse {
        id: info.id.to_string(),
        height: info.height,
        ready: info.ready,
        accepts_spends,
        listens: info.listens,
        capabilities: capabilities.into(),
        balance: balance.into(),
        halts: halts.into_iter().map(Into::into).collect(),
    }))
}

/// The node's own coins, and what of them must stay.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "address": examples::ADDRESS, "confirmed_sats": 20_000, "unconfirmed_sats": 0, "required_sats": 30_000, "missing_sats": 10_000,
}))]
pub struct ReserveResponse {
    /// Where to pay a top-up: what arrives here is the operator's own money.
    pub address: String,
    pub confirmed_sats: u64,
    pub unconfirmed_sats: u64,
    /// What must stay to be able to bump the closing of channels.
    pub required_sats: u64,
    /// What of that is missing.
    pub missing_sats: u64,
}

impl From<Reserve> for ReserveResponse {
    fn from(reserve: Reserve) -> Self {
        let Reserve { address, confirmed, unconfirmed, required, missing } = reserve;
        Self {
            address,
            confirmed_sats: confirmed.to_u64(),
            unconfirmed_sats: unconfirmed.to_u64(),
            required_sats: required.to_u64(),
            missing_sats: missing.to_u64(),
        }
    }
}

/// The reserve
///
/// The coins beside the channels, how many of them must stay, and the address for a top-up. What is paid to it is booked as
/// the operator's capital by itself.
#[utoipa::path(get, path = "/admin/reserve", operation_id = "adminReserve", tag = "operator",
    responses((status = 200, description = "The reserve", body = ReserveResponse)))]
pub async fn reserve(
    State(state): State<HttpState>,
    _operator: Operator<ToLook>,
) -> Result<Json<ReserveResponse>, Problem> {
    Ok(Json(node_admin::reserve(&state.flows).await?.into()))
}

/// New reserve address
///
/// Another address for a top-up. Earlier ones stay good.
#[utoipa::path(post, path = "/admin/reserve", operation_id = "adminReserveNew", tag = "operator",
    responses((status = 200, description = "The reserve, with the new address", body = ReserveResponse)))]
pub async fn new_reserve_address(
    State(state): State<HttpState>,
    _operator: Operator<ToAdminister>,
) -> Result<Json<ReserveResponse>, Problem> {
    Ok(Json(node_admin::reserve_with_new_address(&state.flows).await?.into()))
}
