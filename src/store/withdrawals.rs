//! Which transaction stands for a withdrawal, its other versions, and the block that it is in: what the follower looks for.

use std::collections::HashMap;

use bitcoin::Txid;

use super::row::Columns;
use super::{Conn, StoreError, Tx};
use crate::ids::{RequestId, WalletId};

/// This version stands for a withdrawal from now on. Those before it are still looked for.
///
/// # Errors
/// When the database can't do it.
pub async fn stand(tx: &mut Tx<'_>, txid: Txid, request: RequestId, wallet: &WalletId) -> Result<(), StoreError> {
    let sql = "SELECT txid FROM withdrawals WHERE request_id = $1";
    let before = sqlx::query(sql).bind(request.to_string()).fetch_optional(tx.conn()).await?;
    let Some(before) = before.map(|row| row.parsed::<Txid>("txid")).transpose()? else {
        let sql = "INSERT INTO withdrawals (txid, request_id, wallet_id) VALUES ($1, $2, $3)";
        let query = sqlx::query(sql).bind(txid.to_string()).bind(request.to_string()).bind(wallet.to_string());
        query.execute(tx.conn()).await?;
        return Ok(());
    };
    if before != txid {
        let sql = "INSERT INTO withdrawal_versions (txid, request_id) VALUES ($1, $2) ON CONFLICT (txid) DO NOTHING";
        for version in [before, txid] {
            let query = sqlx::query(sql).bind(version.to_string()).bind(request.to_string());
            query.execute(tx.conn()).await?;
        }
        let sql = "UPDATE withdrawals SET txid = $1 WHERE request_id = $2";
        sqlx::query(sql).bind(txid.to_string()).bind(request.to_string()).execute(tx.conn()).await?;
    }
    Ok(())
}

/// All versions of those that are in no block.
///
/// # Errors
/// When the database can't answer.
pub async fn unmined(conn: &mut Conn) -> Result<HashMap<Txid, RequestId>, StoreError> {
    let sql = "SELECT txid, request_id FROM withdrawals WHERE height IS NULL \
               UNION SELECT v.txid, v.request_id FROM withdrawal_versions v JOIN withdrawals w ON w.request_id = v.request_id \
               WHERE w.height IS NULL";
    let rows = sqlx::query(sql).fetch_all(conn).await?;
    rows.iter().map(|row| Ok((row.parsed("txid")?, row.parsed("request_id")?))).collect()
}

/// Those that are in the block of a height.
///
/// # Errors
/// When the database can't answer.
pub async fn mined_at(conn: &mut Conn, height: u32) -> Result<Vec<RequestId>, StoreError> {
    let rows = sqlx::query("SELECT request_id FROM withdrawals WHERE height = $1")
        .bind(i64::from(height))
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| row.parsed("request_id")).collect()
}

/// # Errors
/// When the database can't do it.
pub async fn set_height(conn: &mut Conn, request: RequestId, height: Option<u32>) -> Result<(), StoreError> {
    sqlx::query("UPDATE withdrawals SET height = $1 WHERE request_id = $2")
        .bind(height.map(i64::from))
        .bind(request.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Takes one closing of a channel out of the budget of a day. Whoever has it is alone until the transaction ends; nobody gets one that is
/// not there.
///
/// # Errors
/// When the database can't do it.
pub async fn take_close(tx: &mut Tx<'_>, day: i64, per_day: u32) -> Result<bool, StoreError> {
    let written = sqlx::query(
        "UPDATE close_budget SET closes = CASE WHEN day = $1 THEN closes + 1 ELSE 1 END, day = $1 \
         WHERE name = 'cooperative' AND CASE WHEN day = $1 THEN closes ELSE 0 END < $2",
    )
    .bind(day)
    .bind(i64::from(per_day))
    .execute(tx.conn())
    .await?
    .rows_affected();
    Ok(written == 1)
}

/// Withdrawals for which a channel is being closed.
///
/// # Errors
/// When the database can't answer.
pub async fn closing(conn: &mut Conn) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS n FROM requests WHERE kind = 'withdraw' AND state IN ('closing_channels', 'waiting_close', 'sweeping')",
    )
    .fetch_one(conn)
    .await?;
    row.number("n")
}
