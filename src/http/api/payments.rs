//! The list of Lightning payments, in and out.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::examples;
use crate::clock::Timestamp;
use crate::flows::values::{LineStatus, Listed, PageAfter, PaymentFilter};
use crate::flows::{Code, estimate};
use crate::http::HttpState;
use crate::http::auth::{ToRead, Wallet};
use crate::http::extract::{PAGE_USUAL, Params, limit, read_page};
use crate::http::problem::Problem;
use crate::money::Amount;

/// What the list can be narrowed to.
pub const STATUSES: [&str; 3] = ["Pending", "Succeeded", "Failed"];
pub const DIRECTIONS: [&str; 2] = ["in", "out"];

/// What the list of payments is narrowed to, and where its page begins.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PaymentParams {
    /// How many to answer, 1 to 500; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Only those with this status; empty is any.
    pub status: Option<String>,
    /// Only those that came in or went out; empty is both.
    pub direction: Option<String>,
    /// Only those of at least so many millisatoshis.
    #[param(minimum = 0)]
    pub min_amount_msat: Option<u64>,
    /// Only those of at most so many millisatoshis. An invoice without an amount that nobody has paid is none of them.
    #[param(minimum = 0)]
    pub max_amount_msat: Option<u64>,
    /// Only those created at or after this time, in unix seconds.
    pub since: Option<i64>,
    /// Only those created before this time, in unix seconds.
    pub until: Option<i64>,
    /// Only those of this payment hash; empty is any.
    pub payment_hash: Option<String>,
}

fn wrong(field: &'static str, why: impl std::fmt::Display) -> Problem {
    Problem::field(Code::InvalidRequest, field, format!("{field}: {why}"))
}

/// The parameters, checked.
fn read(params: PaymentParams) -> Result<(PaymentFilter, Option<PageAfter>, u32), Problem> {
    let status = match super::given(params.status).as_deref() {
        None => None,
        Some("Pending") => Some(LineStatus::Pending),
        Some("Succeeded") => Some(LineStatus::Succeeded),
        Some("Failed") => Some(LineStatus::Failed),
        Some(_) => return Err(wrong("status", format!("there are {}", STATUSES.join(", ")))),
    };
    let inbound = match super::given(params.direction).as_deref() {
        None => None,
        Some("in") => Some(true),
        Some("out") => Some(false),
        Some(_) => return Err(wrong("direction", "is in or out")),
    };
    let hash = super::given(params.payment_hash).map(|text| text.parse());
    let hash = hash.transpose().map_err(|error| wrong("payment_hash", error))?;
    let amount = |field: &'static str, msat: Option<u64>| {
        msat.map(Amount::from_msat).transpose().map_err(|_| wrong(field, "is more than there is"))
    };
    let time = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1_000));
    let filter = PaymentFilter {
        status,
        inbound,
        min_amount: amount("min_amount_msat", params.min_amount_msat)?,
        max_amount: amount("max_amount_msat", params.max_amount_msat)?,
        since: params.since.map(time),
        until: params.until.map(time),
        hash,
    };
    Ok((filter, read_page(params.cursor.as_deref())?, limit(params.limit, PAGE_USUAL)?))
}

/// How far a payment in the list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(example = json!("Succeeded"))]
pub enum PaymentStatus {
    Pending,
    Succeeded,
    Failed,
}

impl From<LineStatus> for PaymentStatus {
    fn from(status: LineStatus) -> Self {
        match status {
            LineStatus::Waiting | LineStatus::Pending => Self::Pending,
            LineStatus::Succeeded => Self::Succeeded,
            LineStatus::Failed | LineStatus::Void => Self::Failed,
        }
    }
}

/// A payment in a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "amt_msat": 5_000_000, "asset_amount": null, "asset_amount_str": null, "asset_id": null, "payment_hash": examples::HASH, "inbound": false,
    "status": "Succeeded", "created_at": 1_763_683_200, "updated_at": 1_763_683_201, "payee_pubkey": examples::NODE,
    "request_id": examples::ID,
}))]
pub struct Payment {
    /// Millisatoshis. 0 while an invoice without an amount waits for somebody to pay it.
    pub amt_msat: u64,
    pub asset_amount: Option<u64>,
    pub asset_amount_str: Option<String>,
    pub asset_id: Option<String>,
    pub payment_hash: String,
    /// An invoice of this wallet.
    pub inbound: bool,
    pub status: PaymentStatus,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds.
    pub updated_at: i64,
    /// The payee's node, where the invoice tells; empty for invoices of this wallet.
    pub payee_pubkey: Option<String>,
    /// Names the receive-request or the send-request.
    pub request_id: String,
}

impl From<&Listed> for Payment {
    fn from(listed: &Listed) -> Self {
        Self {
            amt_msat: listed.line.amount.unwrap_or_default().base_units(),
            asset_amount: None,
            asset_amount_str: None,
            asset_id: None,
            payment_hash: listed.line.hash.to_string(),
            inbound: listed.line.inbound,
            status: listed.line.status.into(),
            created_at: listed.created_at.unix_seconds(),
            updated_at: listed.updated_at.unix_seconds(),
            payee_pubkey: listed.payee.clone(),
            request_id: listed.request.to_string(),
        }
    }
}

/// A page of Lightning payments.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "payments": [{
        "amt_msat": 5_000_000, "asset_amount": null, "asset_amount_str": null, "asset_id": null, "payment_hash": examples::HASH, "inbound": true,
        "status": "Pending", "created_at": 1_763_683_200, "updated_at": 1_763_683_200, "payee_pubkey": null,
        "request_id": examples::ID,
    }],
    "next_cursor": null,
}))]
pub struct ListLightningPaymentsResponse {
    pub payments: Vec<Payment>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// The Lightning payments
///
/// Invoices of this wallet and payments that it consented to, newest first.
#[utoipa::path(get, path = "/lightning/listpayments", operation_id = "listPayments", tag = "lightning",
    params(PaymentParams),
    responses((status = 200, description = "The payments", body = ListLightningPaymentsResponse)))]
pub async fn list(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    Params(params): Params<PaymentParams>,
) -> Result<Json<ListLightningPaymentsResponse>, Problem> {
    let (filter, after, most) = read(params)?;
    let rows = estimate::payments(&state.flows, &wallet.id, &filter, after, most).await?;
    let next_cursor = super::next_cursor(&rows, most, |row| (row.created_at, row.request.to_string()));
    Ok(Json(ListLightningPaymentsResponse { payments: rows.iter().map(Into::into).collect(), next_cursor }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_narrowed_by_what_is_known_and_by_nothing_else() {
        let read_one = |params: PaymentParams| read(params).map(|(filter, _, _)| filter);
        let text = |text: &str| Some(text.to_owned());
        let filter = read_one(PaymentParams { status: text("Failed"), direction: text("in"), ..Default::default() });
        let filter = filter.unwrap();
        assert_eq!((filter.status, filter.inbound), (Some(LineStatus::Failed), Some(true)));
        let any = PaymentParams { status: text(""), direction: text(""), payment_hash: text(""), ..Default::default() };
        let any = read_one(any).unwrap();
        assert!(any.status.is_none() && any.inbound.is_none() && any.hash.is_none());
        let wrong = [
            (PaymentParams { status: text("failed"), ..Default::default() }, "status"),
            (PaymentParams { direction: text("up"), ..Default::default() }, "direction"),
            (PaymentParams { payment_hash: text("ab"), ..Default::default() }, "payment_hash"),
            (PaymentParams { min_amount_msat: Some(u64::MAX), ..Default::default() }, "min_amount_msat"),
            (PaymentParams { max_amount_msat: Some(1 << 63), ..Default::default() }, "max_amount_msat"),
            (PaymentParams { limit: Some(0), ..Default::default() }, "limit"),
        ];
        for (params, field) in wrong {
            assert_eq!(read_one(params).unwrap_err().field.as_deref(), Some(field));
        }
    }
}
