//! What keeps the node's rows few although strangers write them: what they send through is added up by the hour, and what came to
//! nothing is forgotten.

use super::super::row::Columns;
use super::super::{Conn, StoreError, Tx};
use super::run;
use crate::clock::Timestamp;

/// What was earned within an hour, counted since 1970, and what of that is told. In millisatoshi.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hour {
    pub hour: i64,
    pub fee: u64,
    pub told: u64,
}

pub(super) async fn put_hour(tx: &mut Tx<'_>, Hour { hour, fee, told }: Hour) -> Result<(), StoreError> {
    let sql = "INSERT INTO node_forwards (hour, fee, told) VALUES ($1, $2, $3) \
               ON CONFLICT (hour) DO UPDATE SET fee = excluded.fee, told = excluded.told";
    let bigint = |msat: u64| i64::try_from(msat).unwrap_or(i64::MAX);
    run(tx, sqlx::query(sql).bind(hour).bind(bigint(fee)).bind(bigint(told))).await
}

pub(super) async fn forget_receipts(tx: &mut Tx<'_>, before: Timestamp) -> Result<(), StoreError> {
    let sql = "DELETE FROM node_receipts WHERE state = 'failed' AND updated_at < $1 \
               AND NOT EXISTS (SELECT 1 FROM payments p WHERE p.payment_hash = node_receipts.hash AND p.inbound = 1)";
    run(tx, sqlx::query(sql).bind(before.millis())).await
}

/// The last hours in which something was earned by forwarding, and all of which not everything is told: each with what was earned in it,
/// and what of that is told.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn untold_hours(conn: &mut Conn) -> Result<Vec<Hour>, StoreError> {
    let sql = "SELECT hour, fee, told FROM node_forwards \
               WHERE told < fee OR hour >= (SELECT COALESCE(MAX(hour), 0) - 24 FROM node_forwards)";
    let rows = sqlx::query(sql).fetch_all(conn).await?;
    rows.iter()
        .map(|row| Ok(Hour { hour: row.take("hour")?, fee: row.number("fee")?, told: row.number("told")? }))
        .collect()
}
