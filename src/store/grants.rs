//! What wallets' owners were asked to grant to keys, and the signatures that they gave. None that was signed is ever forgotten: it is the operator's proof.

use bitcoin::{Transaction, Txid};
use sqlx::any::AnyRow;

use super::authorizations::Authorization;
use super::row::Columns;
use super::{Conn, StoreError, Tx};
use crate::clock::Timestamp;
use crate::domain::grant::{Limit, Period};
use crate::ids::{KeyId, RequestId, WalletId};
use crate::money::{Amount, AssetId, Money};

#[derive(Clone, Debug, PartialEq)]
pub struct GrantRow {
    pub key: KeyId,
    pub wallet: WalletId,
    pub unsigned_txid: Txid,
    /// As it was handed out, to the byte.
    pub psbt: String,
    /// What is signed, to the byte.
    pub message: String,
    /// SHA-256 of the key that comes into force with the grant.
    pub key_hash: String,
    pub name: String,
    pub scopes: String,
    pub per_payment: Option<Amount>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub signed_tx: Option<Transaction>,
    pub signed_at: Option<Timestamp>,
}

impl GrantRow {
    /// The grant, as the consent to a payment that the key made.
    #[must_use]
    pub fn proof_of(self, request: RequestId) -> Authorization {
        let Self { wallet, unsigned_txid, psbt, message, expires_at, signed_tx, signed_at, .. } = self;
        Authorization { request, unsigned_txid, wallet, psbt, message, expires_at, signed_tx, signed_at }
    }
}

/// # Errors
/// When the database can't do it.
pub async fn insert(tx: &mut Tx<'_>, grant: &GrantRow, limits: &[Limit]) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO spending_grants (key_id, wallet_id, unsigned_txid, psbt, message, key_hash, name, scopes, per_payment, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(grant.key.to_string())
    .bind(grant.wallet.to_string())
    .bind(grant.unsigned_txid.to_string())
    .bind(grant.psbt.clone())
    .bind(grant.message.clone())
    .bind(grant.key_hash.clone())
    .bind(grant.name.clone())
    .bind(grant.scopes.clone())
    .bind(grant.per_payment.map(Amount::as_bigint))
    .bind(grant.created_at.millis())
    .bind(grant.expires_at.millis())
    .execute(tx.conn())
    .await?;
    for Limit { money, period } in limits {
        sqlx::query("INSERT INTO spending_limits (key_id, asset, period, amount) VALUES ($1, $2, $3, $4)")
            .bind(grant.key.to_string())
            .bind(money.asset.to_string())
            .bind(period.as_str())
            .bind(money.amount.as_bigint())
            .execute(tx.conn())
            .await?;
    }
    Ok(())
}

/// Keeps the signature, once.
///
/// # Errors
/// `Conflict` when one is kept already.
pub async fn keep_signed(tx: &mut Tx<'_>, key: &KeyId, signed: &Transaction) -> Result<(), StoreError> {
    let now = tx.now().millis();
    let kept = sqlx::query(
        "UPDATE spending_grants SET signed_tx = $1, signed_at = $2 WHERE key_id = $3 AND signed_tx IS NULL",
    )
    .bind(bitcoin::consensus::encode::serialize_hex(signed))
    .bind(now)
    .bind(key.to_string())
    .execute(tx.conn())
    .await?
    .rows_affected();
    if kept == 1 { Ok(()) } else { Err(StoreError::Conflict("the grant")) }
}

/// Forgets a grant that nobody has signed; answers whether there was one.
///
/// # Errors
/// When the database can't do it.
pub async fn withdraw(tx: &mut Tx<'_>, key: &KeyId) -> Result<bool, StoreError> {
    sqlx::query(
        "DELETE FROM spending_limits WHERE key_id IN (SELECT key_id FROM spending_grants WHERE key_id = $1 AND signed_tx IS NULL)",
    )
    .bind(key.to_string())
    .execute(tx.conn())
    .await?;
    let gone = sqlx::query("DELETE FROM spending_grants WHERE key_id = $1 AND signed_tx IS NULL")
        .bind(key.to_string())
        .execute(tx.conn())
        .await?
        .rows_affected();
    Ok(gone == 1)
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn of_key(conn: &mut Conn, key: &KeyId) -> Result<Option<GrantRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM spending_grants WHERE key_id = $1")
        .bind(key.to_string())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(read).transpose()
}

/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn all(conn: &mut Conn) -> Result<Vec<GrantRow>, StoreError> {
    let rows = sqlx::query("SELECT * FROM spending_grants ORDER BY created_at, key_id").fetch_all(conn).await?;
    rows.iter().map(read).collect()
}

/// The newest grants of a wallet, newest first.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn of_wallet(conn: &mut Conn, wallet: &WalletId, limit: u32) -> Result<Vec<GrantRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM spending_grants WHERE wallet_id = $1 ORDER BY created_at DESC, key_id DESC LIMIT $2",
    )
    .bind(wallet.to_string())
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    rows.iter().map(read).collect()
}

/// The limits of a key, shortest period first.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn limits_of(conn: &mut Conn, key: &KeyId) -> Result<Vec<Limit>, StoreError> {
    let rows = sqlx::query("SELECT asset, period, amount FROM spending_limits WHERE key_id = $1")
        .bind(key.to_string())
        .fetch_all(conn)
        .await?;
    let mut limits = rows.iter().map(read_limit).collect::<Result<Vec<_>, _>>()?;
    limits.sort_by(|a, b| (&a.money.asset, a.period).cmp(&(&b.money.asset, b.period)));
    Ok(limits)
}

fn read_limit(row: &AnyRow) -> Result<Limit, StoreError> {
    let asset: AssetId = row.parsed("asset")?;
    let period: Period = row.parsed("period")?;
    Ok(Limit { money: Money { asset, amount: amount(row.take("amount")?)? }, period })
}

pub(super) fn amount(stored: i64) -> Result<Amount, StoreError> {
    Amount::from_bigint(stored).map_err(|_| StoreError::Corrupt("an amount of a key is negative".to_owned()))
}

fn read(row: &AnyRow) -> Result<GrantRow, StoreError> {
    let signed_tx = row
        .take::<Option<String>>("signed_tx")?
        .map(|hex| bitcoin::consensus::encode::deserialize_hex(&hex))
        .transpose()
        .map_err(|e| StoreError::Corrupt(format!("signed grant: {e}")))?;
    Ok(GrantRow {
        key: KeyId(row.take("key_id")?),
        wallet: row.parsed("wallet_id")?,
        unsigned_txid: row.parsed("unsigned_txid")?,
        psbt: row.take("psbt")?,
        message: row.take("message")?,
        key_hash: row.take("key_hash")?,
        name: row.take("name")?,
        scopes: row.take("scopes")?,
        per_payment: row.take::<Option<i64>>("per_payment")?.map(amount).transpose()?,
        created_at: row.time("created_at")?,
        expires_at: row.time("expires_at")?,
        signed_tx,
        signed_at: row.time_opt("signed_at")?,
    })
}
