//! Reasons for which no money goes out. An alarm writes one; an operator clears it.

use uuid::Uuid;

use super::row::Columns;
use super::{Conn, StoreError, Tx};
use crate::clock::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    pub reason: String,
    pub detail: String,
    pub created_at: Timestamp,
}

/// The chain was reorganised deeper than the operator allows.
pub const DEEP_REORG: &str = "deep_reorg";
/// The audit found the books and the world to differ.
pub const AUDIT_DRIFT: &str = "audit_drift";

/// Wallets own more than there is.
pub const INSOLVENT: &str = "insolvent";

/// The node paid more for routing than it was allowed, or paid what it had called failed.
pub const NODE_OVERSPENT: &str = "node_overspent";

/// # Errors
/// When the database can't do it.
pub async fn raise(tx: &mut Tx<'_>, reason: &str, detail: &str) -> Result<(), StoreError> {
    let now = tx.now().millis();
    sqlx::query(
        "INSERT INTO halts (id, reason, detail, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (reason) WHERE cleared_at IS NULL DO NOTHING",
    )
    .bind(Uuid::now_v7().to_string())
    .bind(reason.to_owned())
    .bind(detail.to_owned())
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Answers whether there was such a halt.
///
/// # Errors
/// When the database can't do it.
pub async fn clear(tx: &mut Tx<'_>, reason: &str) -> Result<bool, StoreError> {
    let now = tx.now().millis();
    let cleared = sqlx::query("UPDATE halts SET cleared_at = $1 WHERE reason = $2 AND cleared_at IS NULL")
        .bind(now)
        .bind(reason.to_owned())
        .execute(tx.conn())
        .await?
        .rows_affected();
    Ok(cleared > 0)
}

/// # Errors
/// When the database can't answer.
pub async fn in_force(conn: &mut Conn) -> Result<Vec<Halt>, StoreError> {
    let rows = sqlx::query("SELECT reason, detail, created_at FROM halts WHERE cleared_at IS NULL ORDER BY created_at")
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Halt { reason: row.take("reason")?, detail: row.take("detail")?, created_at: row.time("created_at")? })
        })
        .collect()
}

/// How long an operator's word on a halt stands: long enough to walk back the blocks it was about.
const WORD_STANDS_MILLIS: i64 = 60 * 60 * 1_000;

/// Whether an operator cleared such a halt a short while ago, and so allowed what raised it.
///
/// # Errors
/// When the database can't answer.
pub async fn was_cleared_lately(tx: &mut Tx<'_>, reason: &str) -> Result<bool, StoreError> {
    let since = tx.now().millis() - WORD_STANDS_MILLIS;
    let row = sqlx::query("SELECT id FROM halts WHERE reason = $1 AND cleared_at > $2 LIMIT 1")
        .bind(reason.to_owned())
        .bind(since)
        .fetch_optional(tx.conn())
        .await?;
    Ok(row.is_some())
}
