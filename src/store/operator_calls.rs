//! What an operator asked for by an idempotency key, and what came of it; and the addresses that are the operator's own.

use bitcoin::ScriptBuf;

use super::idempotency::BodyHash;
use super::row::Columns;
use super::{Conn, StoreError, Tx};
use crate::ids::RequestId;

/// A call that was made before with the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub body_hash: BodyHash,
    /// Empty: it was begun, and nobody knows how it ended.
    pub answer: Option<String>,
}

/// # Errors
/// When the database can't answer.
pub async fn find(conn: &mut Conn, id: RequestId) -> Result<Option<Call>, StoreError> {
    let row = sqlx::query("SELECT body_hash, value_hash, answer FROM operator_calls WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(conn)
        .await?;
    row.map(|row| Ok(Call { body_hash: BodyHash::read(&row)?, answer: row.take("answer")? })).transpose()
}

/// Notes that a call is about to be carried out; answers whether it is the first of its key.
///
/// # Errors
/// When the database can't do it.
pub async fn begin(tx: &mut Tx<'_>, id: RequestId, body_hash: &BodyHash) -> Result<bool, StoreError> {
    let now = tx.now().millis();
    let written = sqlx::query(
        "INSERT INTO operator_calls (id, body_hash, created_at, value_hash) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING",
    )
    .bind(id.to_string())
    .bind(body_hash.bytes.clone())
    .bind(now)
    .bind(body_hash.value.clone())
    .execute(tx.conn())
    .await?
    .rows_affected();
    Ok(written == 1)
}

/// # Errors
/// When the database can't do it.
pub async fn finish(tx: &mut Tx<'_>, id: RequestId, answer: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE operator_calls SET answer = $1 WHERE id = $2")
        .bind(answer.to_owned())
        .bind(id.to_string())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Nothing was done: the key is free again.
///
/// # Errors
/// When the database can't do it.
pub async fn forget(tx: &mut Tx<'_>, id: RequestId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM operator_calls WHERE id = $1 AND answer IS NULL")
        .bind(id.to_string())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The address of the reserve that was handed out last.
///
/// # Errors
/// When the database can't answer.
pub async fn reserve_address(conn: &mut Conn) -> Result<Option<String>, StoreError> {
    let sql = "SELECT address FROM reserve_addresses ORDER BY created_at DESC, address LIMIT 1";
    let row = sqlx::query(sql).fetch_optional(conn).await?;
    row.map(|row| row.take("address")).transpose()
}

/// # Errors
/// When the database can't do it.
pub async fn keep_reserve_address(tx: &mut Tx<'_>, script: &ScriptBuf, address: &str) -> Result<(), StoreError> {
    let now = tx.now().millis();
    sqlx::query(
        "INSERT INTO reserve_addresses (script, address, created_at) VALUES ($1, $2, $3) ON CONFLICT (script) DO NOTHING",
    )
    .bind(script.to_hex_string())
    .bind(address.to_owned())
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}
