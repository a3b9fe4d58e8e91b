//! The list of transactions as an object, beside the bare array of `/wallet`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::{PageParams, Transaction};
use super::{examples, wallet};
use crate::http::HttpState;
use crate::http::auth::{ToRead, Wallet};
use crate::http::extract::{PAGE_USUAL, Params, limit};
use crate::http::problem::Problem;

/// A page of transactions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "transactions": [{
        "transaction_type": 3, "txid": examples::TXID, "received": 100_000, "sent": 0, "fee": 0,
        "confirmation_time": { "height": 812, "timestamp": 1_763_683_200 },
    }],
    "next_cursor": null,
}))]
pub struct TransactionsResponse {
    pub transactions: Vec<Transaction>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// The transactions
///
/// What touched the wallet on-chain, newest first.
#[utoipa::path(get, path = "/lightning/listtransactions", operation_id = "listTransactions", tag = "history",
    params(PageParams),
    responses((status = 200, description = "The transactions", body = TransactionsResponse)))]
pub async fn transactions(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    Params(page): Params<PageParams>,
) -> Result<Json<TransactionsResponse>, Problem> {
    let most = limit(page.limit, PAGE_USUAL)?;
    let (transactions, next_cursor) = wallet::transactions(&state, &wallet, page.cursor.as_deref(), most).await?;
    Ok(Json(TransactionsResponse { transactions, next_cursor }))
}
