//! API keys as rows: their hashes, scopes and wallets.

use sqlx::any::AnyRow;

use super::row::Columns;
use super::{Conn, StoreError, Tx};
use crate::clock::Timestamp;
use crate::ids::{KeyId, WalletId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    pub id: KeyId,
    /// SHA-256 of the secret, as hex.
    pub hash: String,
    pub name: String,
    pub scopes: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

/// # Errors
/// When the database can't do it.
pub async fn insert(tx: &mut Tx<'_>, key: &KeyRow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO api_keys (id, hash, name, scopes, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(key.id.to_string())
    .bind(key.hash.clone())
    .bind(key.name.clone())
    .bind(key.scopes.clone())
    .bind(key.created_at.millis())
    .bind(key.expires_at.map(Timestamp::millis))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// # Errors
/// When the database can't do it, or the wallet is not registered.
pub async fn bind_wallet(tx: &mut Tx<'_>, key: &KeyId, wallet: &WalletId) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO api_key_wallets (key_id, wallet_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(key.to_string())
        .bind(wallet.to_string())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn by_hash(conn: &mut Conn, hash: &str) -> Result<Option<KeyRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM api_keys WHERE hash = $1").bind(hash.to_owned()).fetch_optional(conn).await?;
    row.as_ref().map(read).transpose()
}

/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn list(conn: &mut Conn) -> Result<Vec<KeyRow>, StoreError> {
    let rows = sqlx::query("SELECT * FROM api_keys ORDER BY created_at, id").fetch_all(conn).await?;
    rows.iter().map(read).collect()
}

/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn wallets_of(conn: &mut Conn, key: &KeyId) -> Result<Vec<WalletId>, StoreError> {
    let rows = sqlx::query("SELECT wallet_id FROM api_key_wallets WHERE key_id = $1 ORDER BY wallet_id")
        .bind(key.to_string())
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| row.parsed("wallet_id")).collect()
}

/// How many registered wallets a key may act for.
///
/// # Errors
/// When the database can't answer.
pub async fn wallets_in_use(conn: &mut Conn, key: &KeyId) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS n FROM api_key_wallets JOIN wallets ON wallets.id = api_key_wallets.wallet_id \
         WHERE api_key_wallets.key_id = $1 AND wallets.released_at IS NULL",
    )
    .bind(key.to_string())
    .fetch_one(conn)
    .await?;
    row.number("n")
}

/// # Errors
/// When the database can't answer.
pub async fn is_bound(conn: &mut Conn, key: &KeyId, wallet: &WalletId) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT wallet_id FROM api_key_wallets WHERE key_id = $1 AND wallet_id = $2")
        .bind(key.to_string())
        .bind(wallet.to_string())
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some())
}

/// Waits until nobody else spends with this key, and keeps it from being revoked until this transaction ends. Answers whether it is in force.
///
/// # Errors
/// When the database can't do it.
pub async fn lock_in_force(tx: &mut Tx<'_>, key: &KeyId) -> Result<bool, StoreError> {
    let now = tx.now().millis();
    let locked = sqlx::query(
        "UPDATE api_keys SET revoked_at = NULL WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)",
    )
    .bind(key.to_string())
    .bind(now)
    .execute(tx.conn())
    .await?
    .rows_affected();
    Ok(locked == 1)
}

/// When a key was revoked, if it was.
///
/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn revoked_at(conn: &mut Conn, key: &KeyId) -> Result<Option<Timestamp>, StoreError> {
    let row =
        sqlx::query("SELECT revoked_at FROM api_keys WHERE id = $1").bind(key.to_string()).fetch_optional(conn).await?;
    row.map_or(Ok(None), |row| row.time_opt("revoked_at"))
}

/// Answers whether there was such a key in force.
///
/// # Errors
/// When the database can't do it.
pub async fn revoke(tx: &mut Tx<'_>, key: &KeyId) -> Result<bool, StoreError> {
    let now = tx.now().millis();
    let revoked = sqlx::query("UPDATE api_keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL")
        .bind(now)
        .bind(key.to_string())
        .execute(tx.conn())
        .await?
        .rows_affected();
    Ok(revoked == 1)
}

/// Whether any key is in force: a public listener needs one.
///
/// # Errors
/// When the database can't answer.
pub async fn any_in_force(conn: &mut Conn, now: Timestamp) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "SELECT id FROM api_keys WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1) LIMIT 1",
    )
    .bind(now.millis())
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
}

fn read(row: &AnyRow) -> Result<KeyRow, StoreError> {
    Ok(KeyRow {
        id: KeyId(row.take("id")?),
        hash: row.take("hash")?,
        name: row.take("name")?,
        scopes: row.take("scopes")?,
        created_at: row.time("created_at")?,
        expires_at: row.time_opt("expires_at")?,
        revoked_at: row.time_opt("revoked_at")?,
    })
}
