//! What a caller's key stands for: a row for ever, not an entry of a cache.

use bitcoin::Txid;

use super::row::Columns;
use super::{Conn, StoreError, Tx};
use crate::ids::{RequestId, WalletId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub body_hash: String,
    pub request: RequestId,
    /// The transaction that this call handed out, if it handed one out.
    pub unsigned_txid: Option<Txid>,
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn find(conn: &mut Conn, key: RequestId) -> Result<Option<Remembered>, StoreError> {
    let row = sqlx::query("SELECT body_hash, request_id, unsigned_txid FROM idempotency WHERE id = $1")
        .bind(key.to_string())
        .fetch_optional(conn)
        .await?;
    row.map(|row| {
        Ok(Remembered {
            body_hash: row.take("body_hash")?,
            request: row.parsed("request_id")?,
            unsigned_txid: row.parsed_opt("unsigned_txid")?,
        })
    })
    .transpose()
}

/// # Errors
/// `Conflict` when the key is taken: read it and answer what it stands for.
pub async fn remember(tx: &mut Tx<'_>, key: RequestId, wallet: &WalletId, what: &Remembered) -> Result<(), StoreError> {
    let now = tx.now().millis();
    let written = sqlx::query(
        "INSERT INTO idempotency (id, wallet_id, body_hash, request_id, unsigned_txid, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING",
    )
    .bind(key.to_string())
    .bind(wallet.to_string())
    .bind(what.body_hash.clone())
    .bind(what.request.to_string())
    .bind(what.unsigned_txid.map(|txid| txid.to_string()))
    .bind(now)
    .execute(tx.conn())
    .await?
    .rows_affected();
    if written == 1 { Ok(()) } else { Err(StoreError::Conflict("the idempotency key")) }
}
