//! Addresses of the node that are bound to wallets, and what came to them.

use bitcoin::{OutPoint, ScriptBuf, Txid};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::row::{Columns, LIST, padded, padding, placeholders};
use super::{Conn, StoreError, Tx};
use crate::ids::{RequestId, WalletId};
use crate::money::Sat;

/// An address of the node's own wallet: what comes to it is a wallet's off-chain money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundAddress {
    pub script: ScriptBuf,
    pub address: String,
    pub wallet: WalletId,
}

/// Binds an address for ever.
///
/// # Errors
/// `Conflict` when it is bound already; what the database can't do.
pub async fn bind(tx: &mut Tx<'_>, bound: &BoundAddress) -> Result<(), StoreError> {
    let now = tx.now().millis();
    let written = sqlx::query(
        "INSERT INTO node_addresses (script, address, wallet_id, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (script) DO NOTHING",
    )
    .bind(bound.script.to_hex_string())
    .bind(bound.address.clone())
    .bind(bound.wallet.to_string())
    .bind(now)
    .execute(tx.conn())
    .await?
    .rows_affected();
    if written == 1 { Ok(()) } else { Err(StoreError::Conflict("the node's address")) }
}

/// The newest address of a wallet that nothing has come to.
///
/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn unused(conn: &mut Conn, wallet: &WalletId) -> Result<Option<BoundAddress>, StoreError> {
    let row = sqlx::query(
        "SELECT * FROM node_addresses a WHERE a.wallet_id = $1 \
         AND NOT EXISTS (SELECT 1 FROM credits c WHERE c.script = a.script) ORDER BY a.created_at DESC, a.script LIMIT 1",
    )
    .bind(wallet.to_string())
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(read).transpose()
}

/// Whether any address is bound at all.
///
/// # Errors
/// When the database can't answer.
pub async fn any_bound(conn: &mut Conn) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 AS there FROM node_addresses LIMIT 1").fetch_optional(conn).await?;
    Ok(row.is_some())
}

/// Of these scripts, those that are bound.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn bound_among(conn: &mut Conn, scripts: &[ScriptBuf]) -> Result<Vec<BoundAddress>, StoreError> {
    let mut found = Vec::new();
    for chunk in scripts.chunks(LIST) {
        let text = format!("SELECT * FROM node_addresses WHERE script IN ({})", placeholders(1, padded(chunk.len())));
        let mut query = sqlx::query(AssertSqlSafe(text));
        for script in padding(chunk) {
            query = query.bind(script.to_hex_string());
        }
        for row in query.fetch_all(&mut *conn).await? {
            found.push(read(&row)?);
        }
    }
    Ok(found)
}

fn read(row: &AnyRow) -> Result<BoundAddress, StoreError> {
    let script: String = row.take("script")?;
    Ok(BoundAddress {
        script: ScriptBuf::from_hex(&script).map_err(|e| StoreError::Corrupt(format!("node_addresses.script: {e}")))?,
        address: row.take("address")?,
        wallet: row.parsed("wallet_id")?,
    })
}

/// # Errors
/// When the database can't do it.
pub async fn insert(
    tx: &mut Tx<'_>,
    outpoint: &OutPoint,
    request: RequestId,
    to: &BoundAddress,
    amount: Sat,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO credits (outpoint, request_id, wallet_id, txid, script, amount_sat) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(outpoint.to_string())
    .bind(request.to_string())
    .bind(to.wallet.to_string())
    .bind(outpoint.txid.to_string())
    .bind(to.script.to_hex_string())
    .bind(amount.as_bigint())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What a transaction brought.
///
/// # Errors
/// When the database can't answer.
pub async fn of_transaction(conn: &mut Conn, txid: Txid) -> Result<Vec<RequestId>, StoreError> {
    let rows = sqlx::query("SELECT request_id FROM credits WHERE txid = $1 ORDER BY outpoint")
        .bind(txid.to_string())
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| row.parsed("request_id")).collect()
}

/// What is on its way to a wallet and not credited yet.
///
/// # Errors
/// When the database can't answer.
pub async fn on_their_way(conn: &mut Conn, wallet: &WalletId) -> Result<Vec<RequestId>, StoreError> {
    let rows = sqlx::query(
        "SELECT id FROM requests WHERE wallet_id = $1 AND kind = 'settle_credit' AND is_open = 1 ORDER BY created_at, id",
    )
    .bind(wallet.to_string())
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| row.parsed("id")).collect()
}
