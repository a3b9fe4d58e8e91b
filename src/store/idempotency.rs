//! What a caller's key stands for: a row for ever, not an entry of a cache.

use bitcoin::Txid;
use sqlx::any::AnyRow;

use super::row::Columns;
use super::{Conn, StoreError, Tx};
use crate::ids::{RequestId, WalletId};

/// What was asked with a key: the hash of the bytes as they came, and of the value that they are, however it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyHash {
    pub bytes: String,
    /// Empty where a program wrote the row that compared bytes.
    pub value: Option<String>,
}

impl BodyHash {
    /// Of a body that is no JSON.
    #[must_use]
    pub fn of_bytes(hash: impl Into<String>) -> Self {
        Self { bytes: hash.into(), value: None }
    }

    /// Whether both are of the same call. What was compared as bytes goes on counting: it may have been written as its value is.
    #[must_use]
    pub fn is_of_same_call(&self, other: &Self) -> bool {
        let is_value_of = |a: &Self, b: &Self| a.value.as_ref().is_some_and(|value| *value == b.bytes);
        self.bytes == other.bytes
            || (self.value.is_some() && self.value == other.value)
            || is_value_of(self, other)
            || is_value_of(other, self)
    }

    pub(super) fn read(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self { bytes: row.take("body_hash")?, value: row.take("value_hash")? })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub body_hash: BodyHash,
    pub request: RequestId,
    /// The transaction that this call handed out, if it handed one out.
    pub unsigned_txid: Option<Txid>,
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn find(conn: &mut Conn, key: RequestId) -> Result<Option<Remembered>, StoreError> {
    let row = sqlx::query("SELECT body_hash, value_hash, request_id, unsigned_txid FROM idempotency WHERE id = $1")
        .bind(key.to_string())
        .fetch_optional(conn)
        .await?;
    row.map(|row| {
        Ok(Remembered {
            body_hash: BodyHash::read(&row)?,
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
        "INSERT INTO idempotency (id, wallet_id, body_hash, request_id, unsigned_txid, created_at, value_hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO NOTHING",
    )
    .bind(key.to_string())
    .bind(wallet.to_string())
    .bind(what.body_hash.bytes.clone())
    .bind(what.request.to_string())
    .bind(what.unsigned_txid.map(|txid| txid.to_string()))
    .bind(now)
    .bind(what.body_hash.value.clone())
    .execute(tx.conn())
    .await?
    .rows_affected();
    if written == 1 { Ok(()) } else { Err(StoreError::Conflict("the idempotency key")) }
}
