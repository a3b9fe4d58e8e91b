//! Every transaction that was handed out for signing. None is ever forgotten: the client may broadcast it years later.

use std::str::FromStr;

use bitcoin::{Psbt, Transaction, Txid};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::row::{Columns, LIST, padded, padding, placeholders};
use super::{Conn, StoreError};
use crate::clock::Timestamp;
use crate::domain::onchain_send::Role;
use crate::ids::{RequestId, WalletId};
use crate::money::{FeeRate, Sat};

#[derive(Clone, Debug, PartialEq)]
pub struct IssuedTx {
    pub unsigned_txid: Txid,
    pub request: RequestId,
    pub wallet: WalletId,
    pub role: Role,
    /// As it was handed out, to the byte.
    pub psbt: String,
    pub fee: Sat,
    pub fee_rate: FeeRate,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub signed_tx: Option<Transaction>,
}

impl IssuedTx {
    /// # Errors
    /// When the stored text is no PSBT.
    pub fn parse_psbt(&self) -> Result<Psbt, StoreError> {
        Psbt::from_str(&self.psbt).map_err(|e| StoreError::Corrupt(format!("issued PSBT {}: {e}", self.unsigned_txid)))
    }
}

/// # Errors
/// `Conflict` when this transaction was issued before.
pub async fn insert(conn: &mut Conn, issued: &IssuedTx) -> Result<(), StoreError> {
    let written = sqlx::query(
        "INSERT INTO request_txs (unsigned_txid, request_id, wallet_id, role, psbt, fee_sat, fee_rate_milli, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (unsigned_txid) DO NOTHING",
    )
    .bind(issued.unsigned_txid.to_string())
    .bind(issued.request.to_string())
    .bind(issued.wallet.to_string())
    .bind(issued.role.as_str())
    .bind(issued.psbt.clone())
    .bind(issued.fee.as_bigint())
    .bind(i64::try_from(issued.fee_rate.milli_sat_per_vb()).unwrap_or(i64::MAX))
    .bind(issued.created_at.millis())
    .bind(issued.expires_at.millis())
    .execute(conn)
    .await?
    .rows_affected();
    if written == 1 { Ok(()) } else { Err(StoreError::Conflict("the issued transaction")) }
}

/// Keeps the signed form. The first one stays; a later valid signature of the same transaction is the same payment.
///
/// # Errors
/// When the database can't do it.
pub async fn keep_signed(conn: &mut Conn, txid: Txid, signed: &Transaction, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query("UPDATE request_txs SET signed_tx = $1, signed_at = $2 WHERE unsigned_txid = $3 AND signed_tx IS NULL")
        .bind(bitcoin::consensus::encode::serialize_hex(signed))
        .bind(now.millis())
        .bind(txid.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn by_txid(conn: &mut Conn, txid: Txid) -> Result<Option<IssuedTx>, StoreError> {
    let row = sqlx::query("SELECT * FROM request_txs WHERE unsigned_txid = $1")
        .bind(txid.to_string())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(read).transpose()
}

/// Of these transactions, those that were issued here.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn among(conn: &mut Conn, txids: &[Txid]) -> Result<Vec<IssuedTx>, StoreError> {
    let mut found = Vec::new();
    for chunk in txids.chunks(LIST) {
        let text =
            format!("SELECT * FROM request_txs WHERE unsigned_txid IN ({})", placeholders(1, padded(chunk.len())));
        let mut query = sqlx::query(AssertSqlSafe(text));
        for txid in padding(chunk) {
            query = query.bind(txid.to_string());
        }
        for row in query.fetch_all(&mut *conn).await? {
            found.push(read(&row)?);
        }
    }
    Ok(found)
}

/// The versions of a request, oldest first.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn of_request(conn: &mut Conn, request: RequestId) -> Result<Vec<IssuedTx>, StoreError> {
    let rows = sqlx::query("SELECT * FROM request_txs WHERE request_id = $1 ORDER BY created_at, unsigned_txid")
        .bind(request.to_string())
        .fetch_all(conn)
        .await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<IssuedTx, StoreError> {
    let role = match row.take::<String>("role")?.as_str() {
        "original" => Role::Original,
        "bump" => Role::Bump,
        "cancel" => Role::Cancel,
        other => return Err(StoreError::Corrupt(format!("an issued transaction has the unknown role {other}"))),
    };
    let signed_tx = row
        .take::<Option<String>>("signed_tx")?
        .map(|hex| bitcoin::consensus::encode::deserialize_hex(&hex))
        .transpose()
        .map_err(|e| StoreError::Corrupt(format!("signed transaction: {e}")))?;
    Ok(IssuedTx {
        unsigned_txid: row.parsed("unsigned_txid")?,
        request: row.parsed("request_id")?,
        wallet: row.parsed("wallet_id")?,
        role,
        psbt: row.take("psbt")?,
        fee: row.sat("fee_sat")?,
        fee_rate: FeeRate::from_milli_sat_per_vb(row.number("fee_rate_milli")?),
        created_at: row.time("created_at")?,
        expires_at: row.time("expires_at")?,
        signed_tx,
    })
}
