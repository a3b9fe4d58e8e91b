//! Entries that put the books of the node's money right, with a reason.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::read_reason;
use crate::flows::Code;
use crate::flows::differences::{self, Against, Difference, DifferenceBooking, Direction, NodeAccount};
use crate::http::HttpState;
use crate::http::api::examples;
use crate::http::auth::{Operator, ToAdminister};
use crate::http::extract::Posted;
use crate::http::problem::Problem;
use crate::money::Amount;

/// What the node has, compared with the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(example = json!("more"))]
pub enum DirectionWord {
    More,
    Less,
}

/// A difference between the node and the books.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "account": "node:onchain", "against": "suspense", "direction": "more", "amount_msat": 7_000, "reason": "ticket 3: coins from before",
}))]
pub struct BookDifferenceRequestModel {
    /// The account of the node: `node:channels`, `node:closing`, `node:onchain` or `node:crossing`.
    #[schema(pattern = "^node:(channels|closing|onchain|crossing)$")]
    pub account: String,
    /// Who has what is too much, or bears what is missing: `suspense` until it is resolved, `capital` or `rounding`.
    #[schema(pattern = "^(suspense|capital|rounding)$")]
    pub against: String,
    /// Whether the node has more or less than the books say.
    pub direction: DirectionWord,
    #[schema(minimum = 1)]
    pub amount_msat: u64,
    /// Why, for whoever reads the books later.
    #[schema(min_length = 1, max_length = 500)]
    pub reason: String,
}

/// A difference that was booked.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": examples::ID, "account": "node:onchain", "against": "operator:suspense", "amount_msat": 7_000,
    "reason": "ticket 3: coins from before",
}))]
pub struct DifferenceResponse {
    /// The entry.
    pub id: String,
    pub account: String,
    /// The other side of the posting.
    pub against: String,
    /// Above zero: the node had more than the books. Below: less.
    pub amount_msat: i64,
    pub reason: String,
}

impl From<Difference> for DifferenceResponse {
    fn from(done: Difference) -> Self {
        let Difference { id, account, against, amount_msat, reason } = done;
        Self { id, account, against, amount_msat, reason }
    }
}

pub const BOOK: &[Code] = &[Code::OutcomeUnknown];

/// Book a difference
///
/// Puts the books right where the node has more or less than they say and nothing else explains it. The entry keeps the reason and who decided. Look at
/// the audit first: it names the account and the amount.
#[utoipa::path(post, path = "/admin/differences", operation_id = "adminBookDifference", tag = "operator",
    request_body = BookDifferenceRequestModel,
    responses((status = 200, description = "It is booked", body = DifferenceResponse)))]
pub async fn book(
    State(state): State<HttpState>,
    operator: Operator<ToAdminister>,
    posted: Posted<BookDifferenceRequestModel>,
) -> Result<Json<DifferenceResponse>, Problem> {
    let BookDifferenceRequestModel { account, against, direction, amount_msat, reason } = posted.value;
    let wrong = |field: &'static str, why: &str| Problem::field(Code::InvalidRequest, field, format!("{field}: {why}"));
    let booking = DifferenceBooking {
        account: NodeAccount::parse(&account).ok_or_else(|| wrong("account", "is no account of the node"))?,
        against: Against::parse(&against).ok_or_else(|| wrong("against", "must be suspense, capital or rounding"))?,
        amount: Amount::from_msat(amount_msat).map_err(|_| wrong("amount_msat", "is more than there can be"))?,
        direction: match direction {
            DirectionWord::More => Direction::More,
            DirectionWord::Less => Direction::Less,
        },
        reason: read_reason(reason)?,
        by: operator.by,
    };
    Ok(Json(differences::book(&state.flows, booking, posted.idempotency).await?.into()))
}
