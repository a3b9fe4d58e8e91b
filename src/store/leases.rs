//! Coins that unfinished requests have set aside.

use bitcoin::OutPoint;

use super::row::Columns;
use super::{Conn, Engine, StoreError, Tx, issued};
use crate::clock::Timestamp;
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

/// How much of this wallet waits for a signature: requests that hold money which they may never spend, further versions of sends, and
/// exports. Requests are found by what they hold: a wallet's history may be long. Nobody else begins anything for the wallet before this
/// transaction ends, or two of them would each see room for one.
///
/// # Errors
/// When the database can't answer.
pub async fn waiting(tx: &mut Tx<'_>, wallet: &WalletId) -> Result<i64, StoreError> {
    // SQLite has one writer.
    if tx.engine == Engine::Postgres {
        let lock = sqlx::query("SELECT id FROM wallets WHERE id = $1 FOR NO KEY UPDATE");
        lock.bind(wallet.to_string()).fetch_optional(tx.conn()).await?;
    }
    let now = tx.now();
    count_waiting(tx.conn(), wallet, now).await
}

/// The same without a lock: what it was a moment ago.
///
/// # Errors
/// When the database can't answer.
pub async fn count_waiting(conn: &mut Conn, wallet: &WalletId, now: Timestamp) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar(
        "SELECT (SELECT COUNT(*) FROM requests WHERE kind IN ('onchain_send', 'lightning_pay', 'withdraw') AND state = 'awaiting_signature' \
         AND id IN (SELECT request_id FROM leases WHERE wallet_id = $1 UNION SELECT request_id FROM holds WHERE debit = $2)) \
         + (SELECT COUNT(*) FROM request_txs WHERE wallet_id = $1 AND role <> 'original' AND signed_tx IS NULL AND expires_at > $3) \
         + (SELECT COUNT(*) FROM asset_exports WHERE wallet_id = $1 AND signed_tx IS NULL AND expires_at > $3)",
    )
    .bind(wallet.to_string())
    .bind(Account::Wallet(wallet.clone()).to_string())
    .bind(now.millis())
    .fetch_one(conn)
    .await?;
    Ok(count)
}
