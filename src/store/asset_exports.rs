//! What wallets' owners were asked to sign for an export of what the engine for assets knows. None that was signed is ever
//! forgotten: the signature is the operator's proof.

use bitcoin::{Transaction, Txid};
use sqlx::any::AnyRow;

use super::idempotency::BodyHash;
use super::row::Columns;
use super::{Conn, StoreError, Tx};
use crate::clock::Timestamp;
use crate::ids::{RequestId, WalletId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    pub id: RequestId,
    pub wallet: WalletId,
    pub unsigned_txid: Txid,
    /// What is signed, to the byte.
    pub message: String,
    pub expires_at: Timestamp,
    /// When it was fetched.
    pub signed_at: Option<Timestamp>,
    /// Of the call that began it, where that had a caller's key: the id follows from the key.
    pub body_hash: Option<BodyHash>,
}

/// # Errors
/// When the database can't do it.
pub async fn insert(tx: &mut Tx<'_>, export: &Export) -> Result<(), StoreError> {
    let now = tx.now().millis();
    sqlx::query(
        "INSERT INTO asset_exports (id, wallet_id, unsigned_txid, message, created_at, expires_at, body_hash, value_hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(export.id.to_string())
    .bind(export.wallet.to_string())
    .bind(export.unsigned_txid.to_string())
    .bind(export.message.clone())
    .bind(now)
    .bind(export.expires_at.millis())
    .bind(export.body_hash.as_ref().map(|hash| hash.bytes.clone()))
    .bind(export.body_hash.as_ref().and_then(|hash| hash.value.clone()))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Keeps the signature, once; answers whether it is the first.
///
/// # Errors
/// When the database can't do it.
pub async fn keep_signed(tx: &mut Tx<'_>, id: RequestId, signed: &Transaction) -> Result<bool, StoreError> {
    let now = tx.now().millis();
    let kept =
        sqlx::query("UPDATE asset_exports SET signed_tx = $1, signed_at = $2 WHERE id = $3 AND signed_tx IS NULL")
            .bind(bitcoin::consensus::encode::serialize_hex(signed))
            .bind(now)
            .bind(id.to_string())
            .execute(tx.conn())
            .await?
            .rows_affected();
    Ok(kept == 1)
}

/// Forgets what a wallet was asked for and has not signed in time, unless a key of the caller's stands for it.
///
/// # Errors
/// When the database can't do it.
pub async fn forget_overdue(tx: &mut Tx<'_>, wallet: &WalletId) -> Result<(), StoreError> {
    let now = tx.now().millis();
    sqlx::query("DELETE FROM asset_exports WHERE wallet_id = $1 AND signed_tx IS NULL AND body_hash IS NULL AND expires_at <= $2")
        .bind(wallet.to_string())
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn by_id(conn: &mut Conn, id: RequestId) -> Result<Option<Export>, StoreError> {
    let row = sqlx::query(
        "SELECT id, wallet_id, unsigned_txid, message, expires_at, signed_at, body_hash, value_hash FROM asset_exports WHERE id = $1",
    )
    .bind(id.to_string())
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(read).transpose()
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn by_txid(conn: &mut Conn, txid: Txid) -> Result<Option<Export>, StoreError> {
    let row = sqlx::query(
        "SELECT id, wallet_id, unsigned_txid, message, expires_at, signed_at, body_hash, value_hash FROM asset_exports WHERE unsigned_txid = $1",
    )
    .bind(txid.to_string())
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &AnyRow) -> Result<Export, StoreError> {
    let began_with_key = row.take::<Option<String>>("body_hash")?.is_some();
    Ok(Export {
        id: row.parsed("id")?,
        wallet: row.parsed("wallet_id")?,
        unsigned_txid: row.parsed("unsigned_txid")?,
        message: row.take("message")?,
        expires_at: row.time("expires_at")?,
        signed_at: row.time_opt("signed_at")?,
        body_hash: if began_with_key { Some(BodyHash::read(row)?) } else { None },
    })
}
