//! What clients were asked to consent to, and the signatures that they gave. None is ever forgotten: a signature is the operator's proof.

use bitcoin::{Transaction, Txid};
use sqlx::any::AnyRow;

use super::batch::Batch;
use super::row::Columns;
use super::{Conn, StoreError};
use crate::clock::Timestamp;
use crate::ids::{RequestId, WalletId};

#[derive(Clone, Debug, PartialEq)]
pub struct Authorization {
    pub request: RequestId,
    pub unsigned_txid: Txid,
    pub wallet: WalletId,
    /// As it was handed out, to the byte.
    pub psbt: String,
    /// What is signed, to the byte.
    pub message: String,
    pub expires_at: Timestamp,
    pub signed_tx: Option<Transaction>,
    pub signed_at: Option<Timestamp>,
}

/// One that was asked for before is a conflict.
pub(super) fn insert(batch: &mut Batch, asked: &Authorization) {
    batch.add(
        "INSERT INTO authorizations (request_id, unsigned_txid, wallet_id, psbt, message, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        [
            asked.request.to_string().into(),
            asked.unsigned_txid.to_string().into(),
            asked.wallet.to_string().into(),
            asked.psbt.clone().into(),
            asked.message.clone().into(),
            asked.expires_at.millis().into(),
        ],
        StoreError::Conflict("the authorisation"),
    );
}

/// Keeps the signature. The first one stays.
///
/// # Errors
/// When the database can't do it.
pub async fn keep_signed(
    conn: &mut Conn,
    request: RequestId,
    signed: &Transaction,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE authorizations SET signed_tx = $1, signed_at = $2 WHERE request_id = $3 AND signed_tx IS NULL")
        .bind(bitcoin::consensus::encode::serialize_hex(signed))
        .bind(now.millis())
        .bind(request.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn by_txid(conn: &mut Conn, txid: Txid) -> Result<Option<Authorization>, StoreError> {
    let row = sqlx::query("SELECT * FROM authorizations WHERE unsigned_txid = $1")
        .bind(txid.to_string())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(read).transpose()
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn of_request(conn: &mut Conn, request: RequestId) -> Result<Option<Authorization>, StoreError> {
    let row = sqlx::query("SELECT * FROM authorizations WHERE request_id = $1")
        .bind(request.to_string())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &AnyRow) -> Result<Authorization, StoreError> {
    let signed_tx = row
        .take::<Option<String>>("signed_tx")?
        .map(|hex| bitcoin::consensus::encode::deserialize_hex(&hex))
        .transpose()
        .map_err(|e| StoreError::Corrupt(format!("signed authorisation: {e}")))?;
    Ok(Authorization {
        request: row.parsed("request_id")?,
        unsigned_txid: row.parsed("unsigned_txid")?,
        wallet: row.parsed("wallet_id")?,
        psbt: row.take("psbt")?,
        message: row.take("message")?,
        expires_at: row.time("expires_at")?,
        signed_tx,
        signed_at: row.time_opt("signed_at")?,
    })
}
