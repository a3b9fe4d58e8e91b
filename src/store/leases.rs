//! Coins that unfinished requests have set aside.

use bitcoin::OutPoint;

use super::row::Columns;
use super::{Conn, StoreError, Tx, issued};
use crate::ids::{RequestId, WalletId};
use crate::ledger::Account;

/// Sets coins aside, all of them or none.
///
/// # Errors
/// `Conflict` when another request has one of them.
pub async fn take(
    tx: &mut Tx<'_>,
    request: RequestId,
    wallet: &WalletId,
    outpoints: &[OutPoint],
) -> Result<(), StoreError> {
    for outpoint in outpoints {
        if !try_take(tx, request, wallet, outpoint).await? {
            return Err(StoreError::Conflict("a coin"));
        }
    }
    Ok(())
}

/// Sets the inputs of a request's transactions aside again, but for those that another request has by now.
pub(super) async fn retake(tx: &mut Tx<'_>, request: RequestId, wallet: &WalletId) -> Result<(), StoreError> {
    for version in issued::of_request(tx.conn(), request).await? {
        for input in version.parse_psbt()?.unsigned_tx.input {
            try_take(tx, request, wallet, &input.previous_output).await?;
        }
    }
    Ok(())
}

async fn try_take(
    tx: &mut Tx<'_>,
    request: RequestId,
    wallet: &WalletId,
    outpoint: &OutPoint,
) -> Result<bool, StoreError> {
    let now = tx.now().millis();
    let written = sqlx::query(
        "INSERT INTO leases (outpoint, request_id, wallet_id, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (outpoint) DO NOTHING",
    )
    .bind(outpoint.to_string())
    .bind(request.to_string())
    .bind(wallet.to_string())
    .bind(now)
    .execute(tx.conn())
    .await?
    .rows_affected();
    Ok(written == 1)
}

pub(super) async fn release(conn: &mut Conn, request: RequestId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM leases WHERE request_id = $1").bind(request.to_string()).execute(conn).await?;
    Ok(())
}

/// Who has this coin set aside.
///
/// # Errors
/// When the database can't answer.
pub async fn holder(conn: &mut Conn, outpoint: &OutPoint) -> Result<Option<RequestId>, StoreError> {
    let row = sqlx::query("SELECT request_id FROM leases WHERE outpoint = $1")
        .bind(outpoint.to_string())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(|row| row.parsed("request_id")).transpose()
}

/// How many requests of this wallet wait for a signature and so hold money that they may never spend. They are found by what they
/// hold: a wallet's history may be long.
///
/// # Errors
/// When the database can't answer.
pub async fn waiting_requests(conn: &mut Conn, wallet: &WalletId) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar(
        "SELECT COUNT(*) FROM requests WHERE kind IN ('onchain_send', 'lightning_pay', 'withdraw') AND state = 'awaiting_signature' \
         AND id IN (SELECT request_id FROM leases WHERE wallet_id = $1 UNION SELECT request_id FROM holds WHERE debit = $2)",
    )
    .bind(wallet.to_string())
    .bind(Account::Wallet(wallet.clone()).to_string())
    .fetch_one(conn)
    .await?;
    Ok(count)
}
