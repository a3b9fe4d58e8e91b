//! The books as a whole: every account, what was earned and paid, and what waits in suspense for somebody's word.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::read_reason;
use crate::clock::Timestamp;
use crate::flows::Error;
use crate::flows::books::{self, Claimant, Resolution};
use crate::flows::values::{Suspended, TrialLine};
use crate::http::HttpState;
use crate::http::api::examples;
use crate::http::api::wire::PageParams;
use crate::http::auth::{Operator, ToAdminister, ToLook};
use crate::http::extract::{AnyId, PAGE_USUAL, Params, Posted, cursor, limit, read_cursor};
use crate::http::problem::Problem;

/// One account, or all accounts of one kind together.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "account": "node:channels", "asset": "btc", "accounts": 1, "balance_msat": -5_000_000_000_i64, "held_msat": 0 }))]
pub struct TrialLineView {
    /// Those of wallets are one line, `wallets`.
    pub account: String,
    pub asset: String,
    /// How many accounts it is about.
    pub accounts: u64,
    /// Credits less debits: what the operator owes is above zero, what he has is below.
    pub balance_msat: i64,
    /// What of it is set aside for payments.
    pub held_msat: i64,
}

impl From<TrialLine> for TrialLineView {
    fn from(line: TrialLine) -> Self {
        let TrialLine { account, asset, accounts, total, held } = line;
        Self { account, asset, accounts, balance_msat: total, held_msat: held }
    }
}

/// Every account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "at": examples::TIME,
    "lines": [{ "account": "node:channels", "asset": "btc", "accounts": 1, "balance_msat": -5_000_000_000_i64, "held_msat": 0 }],
    "sum_msat": 0,
}))]
pub struct TrialBalanceResponse {
    pub at: String,
    pub lines: Vec<TrialLineView>,
    /// Of all lines. Zero, or the books are broken.
    pub sum_msat: i64,
}

/// Trial balance
///
/// Every account with its balance now. The sum of all is zero.
#[utoipa::path(get, path = "/admin/trial-balance", operation_id = "adminTrialBalance", tag = "operator",
    responses((status = 200, description = "The accounts", body = TrialBalanceResponse)))]
pub async fn trial_balance(
    State(state): State<HttpState>,
    _operator: Operator<ToLook>,
) -> Result<Json<TrialBalanceResponse>, Problem> {
    let (at, lines) = books::trial_balance(&state.flows).await?;
    let sum_msat = lines.iter().map(|line| line.total).fold(0_i64, i64::saturating_add);
    let lines = lines.into_iter().map(Into::into).collect();
    Ok(Json(TrialBalanceResponse { at: at.rfc3339(), lines, sum_msat }))
}

/// From when to when.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SpanParams {
    /// The first moment, in unix seconds; the beginning of all unless given.
    #[param(minimum = 0)]
    pub from: Option<u32>,
    /// The moment after the last, in unix seconds; now unless given.
    #[param(minimum = 0)]
    pub to: Option<u32>,
}

/// What the operator has earned and paid. Above zero is earned.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "from": examples::TIME, "to": examples::TIME, "routing_fees_msat": 12_000, "onchain_fees_msat": -420_000,
    "closing_fees_msat": -1_100_000, "rounding_msat": -677, "profit_msat": -1_508_677, "capital_msat": 1_000_000_000,
    "suspense_msat": 0,
}))]
pub struct ProfitAndLossResponse {
    pub from: String,
    pub to: String,
    /// For forwarding.
    pub routing_fees_msat: i64,
    /// Of opening channels, of bumping, and of sending for nobody.
    pub onchain_fees_msat: i64,
    /// Of closing channels and of bringing back what was in them.
    pub closing_fees_msat: i64,
    /// Fractions of a satoshi that the chain can't hold.
    pub rounding_msat: i64,
    /// All of these together.
    pub profit_msat: i64,
    /// What the operator has brought in, less what was taken out or given away. No profit.
    pub capital_msat: i64,
    /// What has come, or gone, without an owner. No profit yet.
    pub suspense_msat: i64,
}

/// Profit and loss
///
/// What the operator's own accounts have gained within a time.
#[utoipa::path(get, path = "/admin/profit-and-loss", operation_id = "adminProfitAndLoss", tag = "operator",
    params(SpanParams),
    responses((status = 200, description = "Gains and losses", body = ProfitAndLossResponse)))]
pub async fn profit_and_loss(
    State(state): State<HttpState>,
    _operator: Operator<ToLook>,
    Params(span): Params<SpanParams>,
) -> Result<Json<ProfitAndLossResponse>, Problem> {
    let time = |seconds: u32| Timestamp::from_millis(i64::from(seconds).saturating_mul(1_000));
    let (from, to) = (time(span.from.unwrap_or(0)), span.to.map(time));
    let to = to.unwrap_or_else(|| books::from_now_on(&state.flows));
    let gains = books::gains(&state.flows, from, to).await?;
    let of = |account: &str| gains.iter().find(|(name, _)| name == account).map_or(0, |(_, gain)| *gain);
    let (routing, onchain) = (of("operator:routing_fees"), of("operator:onchain_fees"));
    let (closing, rounding) = (of("operator:closing_fees"), of("operator:rounding"));
    Ok(Json(ProfitAndLossResponse {
        from: from.rfc3339(),
        to: to.rfc3339(),
        routing_fees_msat: routing,
        onchain_fees_msat: onchain,
        closing_fees_msat: closing,
        rounding_msat: rounding,
        profit_msat: [routing, onchain, closing, rounding].into_iter().fold(0_i64, i64::saturating_add),
        capital_msat: of("operator:capital"),
        suspense_msat: of("operator:suspense"),
    }))
}

/// Something that waits in suspense.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "0198c0f2-9d7c-5f6e-a1c2-0d3be5a90b47:arrived", "amount_msat": 7_000_000, "other_account": "node:onchain",
    "about": { "kind": "arrived", "amount": 7_000 }, "request_id": null, "created_at": examples::TIME,
}))]
pub struct SuspendedView {
    pub id: String,
    /// Above zero: money that came. Below: a loss.
    pub amount_msat: i64,
    /// The other side of the posting.
    pub other_account: String,
    /// What the node has told of it; empty when it comes from a wallet's request.
    #[schema(value_type = Object, nullable)]
    pub about: Option<serde_json::Value>,
    /// The wallet's request that it comes from; empty when it comes from the node.
    pub request_id: Option<String>,
    pub created_at: String,
}

impl From<Suspended> for SuspendedView {
    fn from(item: Suspended) -> Self {
        let Suspended { id, request, amount, other, about, created_at } = item;
        let request_id = about.is_none().then(|| request.to_string());
        let about = about.and_then(|text| serde_json::from_str(&text).ok());
        Self {
            id: wire_id(&id),
            amount_msat: amount,
            other_account: other,
            about,
            request_id,
            created_at: created_at.rfc3339(),
        }
    }
}

/// The slash of a posting's name would be a path's.
fn wire_id(id: &str) -> String {
    id.replace('/', ":")
}

/// What waits in suspense.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "items": [{
        "id": "0198c0f2-9d7c-5f6e-a1c2-0d3be5a90b47:arrived", "amount_msat": 7_000_000, "other_account": "node:onchain",
        "about": { "kind": "arrived", "amount": 7_000 }, "request_id": null, "created_at": examples::TIME,
    }],
    "next_cursor": null,
}))]
pub struct SuspenseResponse {
    pub items: Vec<SuspendedView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// Suspense
///
/// Money that came, and losses, that nobody has been named for, oldest first.
#[utoipa::path(get, path = "/admin/suspense", operation_id = "adminSuspense", tag = "operator",
    params(PageParams),
    responses((status = 200, description = "What waits", body = SuspenseResponse)))]
pub async fn suspense(
    State(state): State<HttpState>,
    _operator: Operator<ToLook>,
    Params(page): Params<PageParams>,
) -> Result<Json<SuspenseResponse>, Problem> {
    let most = limit(page.limit, PAGE_USUAL)?;
    let after = read_cursor::<String>(page.cursor.as_deref())?;
    let rows = books::suspended(&state.flows, after, most).await?;
    let full = rows.len() >= most as usize;
    let next_cursor = rows.last().filter(|_| full).map(|row| cursor(row.created_at, &row.id));
    Ok(Json(SuspenseResponse { items: rows.into_iter().map(Into::into).collect(), next_cursor }))
}

/// Who it belongs to after all.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "to": "capital", "reason": "ticket 7: the top-up of last week, to an old address" }))]
pub struct ResolveRequestModel {
    /// `capital`, or the id of a wallet. A loss can only be borne by `capital`.
    #[schema(pattern = "^(capital|[0-9a-f]{16})$")]
    pub to: String,
    /// Why, for whoever reads the books later.
    #[schema(min_length = 1, max_length = 500)]
    pub reason: String,
}

/// What was decided.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": examples::ID, "item": "0198c0f2-9d7c-5f6e-a1c2-0d3be5a90b47:arrived", "account": "operator:capital", "amount_msat": 7_000_000,
    "reason": "ticket 7: the top-up of last week, to an old address",
}))]
pub struct ResolutionResponse {
    /// The entry that resolves it.
    pub id: String,
    pub item: String,
    /// The account that has it now, or bears the loss.
    pub account: String,
    pub amount_msat: i64,
    pub reason: String,
}

impl From<Resolution> for ResolutionResponse {
    fn from(done: Resolution) -> Self {
        let Resolution { id, item, account, amount_msat, reason } = done;
        Self { id, item: wire_id(&item), account, amount_msat, reason }
    }
}

/// Resolve an item
///
/// Posts an item out of suspense, whole: money to a wallet or to the operator's capital, a loss to capital. It is done once, and the
/// entry keeps the reason and the key of who decided.
#[utoipa::path(post, path = "/admin/suspense/{id}/resolve", operation_id = "adminResolve", tag = "operator",
    params(("id" = String, Path, description = "The item")),
    request_body = ResolveRequestModel,
    responses((status = 200, description = "It is resolved", body = ResolutionResponse)))]
pub async fn resolve(
    State(state): State<HttpState>,
    operator: Operator<ToAdminister>,
    id: AnyId,
    posted: Posted<ResolveRequestModel>,
) -> Result<Json<ResolutionResponse>, Problem> {
    let ResolveRequestModel { to, reason } = posted.value;
    let to = match to.as_str() {
        "capital" => Claimant::Capital,
        wallet => {
            Claimant::Wallet(wallet.parse().map_err(|_| Error::field("to", "must be `capital` or a wallet's id"))?)
        }
    };
    let reason = read_reason(reason)?;
    let item = id.0.replacen(':', "/", 1);
    let done = books::resolve(&state.flows, item, to, reason, operator.by, posted.idempotency).await?;
    Ok(Json(done.into()))
}
