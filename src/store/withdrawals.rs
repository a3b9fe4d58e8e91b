//! Which transaction stands for a withdrawal, and the block that it is in: what the follower looks for.

use std::collections::HashMap;

use bitcoin::Txid;

use super::row::Columns;
use super::{Conn, StoreError, Tx};
use crate::ids::{RequestId, WalletId};

/// # Errors
/// When the database can't do it.
pub async fn insert(tx: &mut Tx<'_>, txid: Txid, request: RequestId, wallet: &WalletId) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO withdrawals (txid, request_id, wallet_id) VALUES ($1, $2, $3) ON CONFLICT (txid) DO NOTHING",
    )
    .bind(txid.to_string())
    .bind(request.to_string())
    .bind(wallet.to_string())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Those that are in no block.
///
/// # Errors
/// When the database can't answer.
pub async fn unmined(conn: &mut Conn) -> Result<HashMap<Txid, RequestId>, StoreError> {
    let rows = sqlx::query("SELECT txid, request_id FROM withdrawals WHERE height IS NULL").fetch_all(conn).await?;
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
