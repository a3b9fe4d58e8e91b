//! What the node has sent of its own coins for requests, in all its versions: which of them is mined, nobody knows before.

use bitcoin::Txid;

use super::node::NewSend;
use super::row::Columns;
use super::{Conn, StoreError, Tx};
use crate::ids::RequestId;
use crate::money::Sat;

/// # Errors
/// When the database can't do it.
pub async fn insert(tx: &mut Tx<'_>, new: &NewSend) -> Result<(), StoreError> {
    let now = tx.now().millis();
    let sql = "INSERT INTO node_sends (id, txid, address, amount_sat, fee_sat, created_at) \
               VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING";
    sqlx::query(sql)
        .bind(new.id.to_string())
        .bind(new.txid.to_string())
        .bind(new.address.clone())
        .bind(new.amount.as_bigint())
        .bind(new.fee.as_bigint())
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Another version takes the place of one; both are remembered.
///
/// # Errors
/// When the database can't do it.
pub async fn bumped(tx: &mut Tx<'_>, id: RequestId, replaces: Txid, txid: Txid, fee: Sat) -> Result<(), StoreError> {
    let now = tx.now().millis();
    let version =
        "INSERT INTO node_send_versions (txid, id, created_at) VALUES ($1, $2, $3) ON CONFLICT (txid) DO NOTHING";
    for version_txid in [replaces, txid] {
        let query = sqlx::query(version).bind(version_txid.to_string()).bind(id.to_string());
        query.bind(now).execute(tx.conn()).await?;
    }
    sqlx::query("UPDATE node_sends SET txid = $1, fee_sat = $2 WHERE id = $3")
        .bind(txid.to_string())
        .bind(fee.as_bigint())
        .bind(id.to_string())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The last version that was sent for a request, and its fee.
///
/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn send(conn: &mut Conn, id: RequestId) -> Result<Option<(Txid, Sat)>, StoreError> {
    let row = sqlx::query("SELECT txid, fee_sat FROM node_sends WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(conn)
        .await?;
    row.map(|row| Ok((row.parsed("txid")?, row.sat("fee_sat")?))).transpose()
}

/// By whose order a transaction was sent, if it was one, whichever version it is.
///
/// # Errors
/// When the database can't answer.
pub async fn order_of(conn: &mut Conn, txid: Txid) -> Result<Option<RequestId>, StoreError> {
    let sql = "SELECT id FROM node_sends WHERE txid = $1 UNION SELECT id FROM node_send_versions WHERE txid = $1";
    let row = sqlx::query(sql).bind(txid.to_string()).fetch_optional(conn).await?;
    row.map(|row| row.parsed("id")).transpose()
}
