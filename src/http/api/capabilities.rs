//! What this gateway can do now.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::HttpState;
use crate::http::auth::{ToRead, Wallet};
use crate::http::problem::Problem;

/// What this gateway can do now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "network": "regtest", "onchain": true, "assets": false, "asset_lightning": false,
    "lightning": { "configured": true, "ready": true, "reason": null, "bolt11": true, "bolt12": true, "quotes": true },
    "facades": [],
}))]
pub struct CapabilitiesResponse {
    pub network: String,
    /// The client's own coins: addresses and sends.
    pub onchain: bool,
    pub lightning: LightningCapabilities,
    /// RGB assets on-chain.
    pub assets: bool,
    /// RGB assets over Lightning.
    pub asset_lightning: bool,
    /// Other dialects that this gateway speaks beside this one.
    pub facades: Vec<String>,
}

/// What can be done over Lightning.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "configured": true, "ready": true, "reason": null, "bolt11": true, "bolt12": true, "quotes": true,
}))]
pub struct LightningCapabilities {
    /// There is a node, or there will be one.
    pub configured: bool,
    /// It accepts new payments now.
    pub ready: bool,
    /// Why it does not.
    pub reason: Option<String>,
    /// Invoices can be made and paid.
    pub bolt11: bool,
    /// Offers can be paid.
    pub bolt12: bool,
    /// Fees are computed over a route, not guessed.
    pub quotes: bool,
}

/// What this gateway can do
///
/// Which rails there are and how they are now. It changes while a node starts or stops.
#[utoipa::path(get, path = "/lightning/capabilities", operation_id = "capabilities", tag = "lightning",
    responses((status = 200, description = "What it can do", body = CapabilitiesResponse)))]
pub async fn get(
    State(state): State<HttpState>,
    _wallet: Wallet<ToRead>,
) -> Result<Json<CapabilitiesResponse>, Problem> {
    let slot = state.flows.node();
    let node = slot.node().ok().map(|node| node.capabilities());
    let reason = slot.ready().err().map(|error| error.to_string());
    let lightning = LightningCapabilities {
        configured: slot.is_configured(),
        ready: slot.is_ready(),
        reason,
        bolt11: node.is_some(),
        bolt12: node.is_some_and(|can| can.bolt12),
        quotes: node.is_some_and(|can| can.quotes),
    };
    Ok(Json(CapabilitiesResponse {
        network: state.flows.network().to_string(),
        onchain: true,
        lightning,
        assets: state.flows.asset_engine().is_some(),
        asset_lightning: false,
        facades: Vec::new(),
    }))
}
