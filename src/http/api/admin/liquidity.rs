//! Channels that the gateway opens by itself: what it may do, and what it did.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::flows::LiquidityPolicy;
use crate::flows::liquidity::{self, Overview};
use crate::flows::values::{LiquidityOpening, Word};
use crate::http::HttpState;
use crate::http::api::examples;
use crate::http::auth::{Operator, ToLook};
use crate::http::problem::Problem;
use crate::money::Sat;

/// What the operator has allowed, in the section `liquidity` of the configuration.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "peers": [format!("{}@203.0.113.9:9735", examples::NODE)], "max_channels_per_peer": 2, "announced": false,
    "want_outbound_sats": 5_000_000, "want_inbound_sats": 1_000_000, "channel_sats": 1_000_000, "min_channel_sats": 200_000,
    "keep_onchain_sats": 500_000, "max_fee_rate": 20, "daily_fee_sats": 20_000, "every_seconds": 60,
}))]
pub struct LiquidityPolicyView {
    /// With whom channels are opened. Empty: all of it is off.
    pub peers: Vec<String>,
    pub max_channels_per_peer: u32,
    pub announced: bool,
    #[schema(value_type = u64)]
    pub want_outbound_sats: Sat,
    #[schema(value_type = u64)]
    pub want_inbound_sats: Sat,
    #[schema(value_type = u64)]
    pub channel_sats: Sat,
    #[schema(value_type = u64)]
    pub min_channel_sats: Sat,
    #[schema(value_type = u64)]
    pub keep_onchain_sats: Sat,
    /// In sat/vB.
    pub max_fee_rate: u32,
    #[schema(value_type = u64)]
    pub daily_fee_sats: Sat,
    pub every_seconds: u64,
}

impl From<LiquidityPolicy> for LiquidityPolicyView {
    fn from(policy: LiquidityPolicy) -> Self {
        let LiquidityPolicy {
            peers,
            max_channels_per_peer,
            announced,
            want_outbound_sats,
            want_inbound_sats,
            channel_sats,
            min_channel_sats,
            keep_onchain_sats,
            max_fee_rate,
            daily_fee_sats,
            every_seconds,
        } = policy;
        let peers = peers.into_iter().map(String::from).collect();
        Self {
            peers,
            max_channels_per_peer,
            announced,
            want_outbound_sats,
            want_inbound_sats,
            channel_sats,
            min_channel_sats,
            keep_onchain_sats,
            max_fee_rate,
            daily_fee_sats,
            every_seconds,
        }
    }
}

/// What was decided last.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "decision": "fee_rate_too_high", "detail": "the fee rate is 35 sat/vB, and liquidity.max_fee_rate is 20 sat/vB",
    "since": examples::TIME,
}))]
pub struct LiquidityDecisionView {
    /// enough, opening, or why no channel is opened although one is wanted: node_not_ready, chain_not_synced, payouts_halted,
    /// withdrawals_wait, fee_rate_too_high, budget_spent, peers_full, peers_refused, coins_short.
    pub decision: String,
    /// The same in a sentence, as it was when it began. Empty where the word says it all.
    pub detail: String,
    pub since: String,
}

impl From<Word> for LiquidityDecisionView {
    fn from(word: Word) -> Self {
        let Word { word, detail, since } = word;
        Self { decision: word, detail, since: since.rfc3339() }
    }
}

/// A channel that the gateway has set out to open by itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": examples::ID, "peer": examples::NODE, "amount_sats": 1_000_000, "fee_sats": 2_000, "state": "opened",
    "channel": examples::HASH, "reason": null, "created_at": examples::TIME, "updated_at": examples::TIME,
}))]
pub struct LiquidityOpeningView {
    pub id: String,
    pub peer: String,
    #[schema(value_type = u64)]
    pub amount_sats: Sat,
    /// What its transaction was reckoned to cost, which is what counts against the budget of its day.
    #[schema(value_type = u64)]
    pub fee_sats: Sat,
    /// asking: the node is being asked, or its answer was lost; opening; opened: in use; refused: nothing was done; gone: the node
    /// has no such channel, and did not say why.
    pub state: &'static str,
    /// The id that it has, or had when the node began.
    pub channel: Option<String>,
    /// Why it came to nothing.
    pub reason: Option<String>,
    pub created_at: String,
    pub updated_at: String,
}

impl From<LiquidityOpening> for LiquidityOpeningView {
    fn from(opening: LiquidityOpening) -> Self {
        let LiquidityOpening { id, peer, amount, fee, had: _, state, channel, reason, created_at, updated_at } =
            opening;
        Self {
            id: id.to_string(),
            peer: peer.to_string(),
            amount_sats: amount,
            fee_sats: fee,
            state: state.as_str(),
            channel,
            reason,
            created_at: created_at.rfc3339(),
            updated_at: updated_at.rfc3339(),
        }
    }
}

/// What the gateway does about its channels by itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "policy": {
        "peers": [format!("{}@203.0.113.9:9735", examples::NODE)], "max_channels_per_peer": 2, "announced": false,
        "want_outbound_sats": 5_000_000, "want_inbound_sats": 1_000_000, "channel_sats": 1_000_000,
        "min_channel_sats": 200_000, "keep_onchain_sats": 500_000, "max_fee_rate": 20, "daily_fee_sats": 20_000,
        "every_seconds": 60,
    },
    "last": {
        "decision": "fee_rate_too_high", "detail": "the fee rate is 35 sat/vB, and liquidity.max_fee_rate is 20 sat/vB",
        "since": examples::TIME,
    },
    "inbound_low_since": null,
    "spent_today_sats": 2_000,
    "openings": [{
        "id": examples::ID, "peer": examples::NODE, "amount_sats": 1_000_000, "fee_sats": 2_000, "state": "opened",
        "channel": examples::HASH, "reason": null, "created_at": examples::TIME, "updated_at": examples::TIME,
    }],
}))]
pub struct LiquidityResponse {
    pub policy: LiquidityPolicyView,
    /// Empty before the first look.
    pub last: Option<LiquidityDecisionView>,
    /// Since when less can be received than is wanted; empty when it is enough.
    pub inbound_low_since: Option<String>,
    /// What today's openings (UTC) may have cost.
    #[schema(value_type = u64)]
    pub spent_today_sats: Sat,
    /// The last twenty, newest first.
    pub openings: Vec<LiquidityOpeningView>,
}

/// Liquidity
///
/// What the gateway may open by itself, what it decided last and why, what it has spent today, and the channels that it has set out
/// to open.
#[utoipa::path(get, path = "/admin/liquidity", operation_id = "adminLiquidity", tag = "operator",
    responses((status = 200, description = "The policy and what came of it", body = LiquidityResponse)))]
pub async fn get(
    State(state): State<HttpState>,
    _operator: Operator<ToLook>,
) -> Result<Json<LiquidityResponse>, Problem> {
    let Overview { policy, decision, inbound_low_since, spent_today, openings } =
        liquidity::overview(&state.flows).await?;
    Ok(Json(LiquidityResponse {
        policy: policy.into(),
        last: decision.map(Into::into),
        inbound_low_since: inbound_low_since.map(|since| since.rfc3339()),
        spent_today_sats: spent_today,
        openings: openings.into_iter().map(Into::into).collect(),
    }))
}
