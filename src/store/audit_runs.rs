//! What audits have found. The newest are kept, so that an operator reads the last one without running another.

use uuid::Uuid;

use super::row::Columns;
use super::{Conn, StoreError, Tx};
use crate::clock::Timestamp;

/// How many are kept.
const KEPT: i64 = 50;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRun {
    /// Empty: it ran by itself.
    pub asked_by: Option<String>,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    pub drifts: i64,
    /// What was found, as JSON.
    pub report: String,
}

/// # Errors
/// When the database can't do it.
pub async fn insert(tx: &mut Tx<'_>, run: &AuditRun) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit_runs (id, asked_by, started_at, ended_at, drifts, report) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(Uuid::now_v7().to_string())
    .bind(run.asked_by.clone())
    .bind(run.started_at.millis())
    .bind(run.ended_at.millis())
    .bind(run.drifts)
    .bind(run.report.clone())
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "DELETE FROM audit_runs WHERE id NOT IN (SELECT id FROM audit_runs ORDER BY ended_at DESC, id DESC LIMIT $1)",
    )
    .bind(KEPT)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn last(conn: &mut Conn) -> Result<Option<AuditRun>, StoreError> {
    let row =
        sqlx::query("SELECT * FROM audit_runs ORDER BY ended_at DESC, id DESC LIMIT 1").fetch_optional(conn).await?;
    row.map(|row| {
        Ok(AuditRun {
            asked_by: row.take("asked_by")?,
            started_at: row.time("started_at")?,
            ended_at: row.time("ended_at")?,
            drifts: row.take("drifts")?,
            report: row.take("report")?,
        })
    })
    .transpose()
}
