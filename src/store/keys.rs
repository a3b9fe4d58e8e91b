//! API keys as rows: their hashes, scopes and wallets.

use sqlx::AssertSqlSafe;
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

/// The key itself, and every key that takes its place, now or later.
const IT_AND_SUCCESSORS: &str = "WITH RECURSIVE next_keys (id) AS (SELECT CAST($1 AS TEXT) UNION \
     SELECT successor_id FROM api_key_successors JOIN next_keys ON key_id = next_keys.id)";

/// Lets a key act for a wallet, and so every key that takes its place.
///
/// # Errors
/// When the database can't do it, or the wallet is not registered.
pub async fn bind_wallet(tx: &mut Tx<'_>, key: &KeyId, wallet: &WalletId) -> Result<(), StoreError> {
    let sql = format!(
        "{IT_AND_SUCCESSORS} INSERT INTO api_key_wallets (key_id, wallet_id) \
         SELECT id, CAST($2 AS TEXT) FROM next_keys WHERE 1 = 1 ON CONFLICT DO NOTHING"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(key.to_string()).bind(wallet.to_string()).execute(tx.conn()).await?;
    Ok(())
}

/// Makes a key take the place of another: it may act for the same wallets, those too that are still to come.
///
/// # Errors
/// When the database can't do it.
pub async fn succeed(tx: &mut Tx<'_>, old: &KeyId, new: &KeyId, ends_at: Option<Timestamp>) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO api_key_successors (key_id, successor_id, ends_at) VALUES ($1, $2, $3)")
        .bind(old.to_string())
        .bind(new.to_string())
        .bind(ends_at.map(Timestamp::millis))
        .execute(tx.conn())
        .await?;
    sqlx::query(
        "INSERT INTO api_key_wallets (key_id, wallet_id) \
         SELECT CAST($1 AS TEXT), wallet_id FROM api_key_wallets WHERE key_id = $2 ON CONFLICT DO NOTHING",
    )
    .bind(new.to_string())
    .bind(old.to_string())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The key that has taken the place of this one, if one has.
///
/// # Errors
/// When the database can't answer.
pub async fn replaced_by(conn: &mut Conn, key: &KeyId) -> Result<Option<KeyId>, StoreError> {
    let row =
        sqlx::query("SELECT successor_id FROM api_key_successors WHERE key_id = $1 AND ends_at IS NOT NULL LIMIT 1")
            .bind(key.to_string())
            .fetch_optional(conn)
            .await?;
    row.map(|row| Ok(KeyId(row.take("successor_id")?))).transpose()
}

/// Lets a key end at a time, unless it ends before.
///
/// # Errors
/// When the database can't do it.
pub async fn end_at(tx: &mut Tx<'_>, key: &KeyId, at: Timestamp) -> Result<(), StoreError> {
    sqlx::query("UPDATE api_keys SET expires_at = $1 WHERE id = $2 AND (expires_at IS NULL OR expires_at > $1)")
        .bind(at.millis())
        .bind(key.to_string())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn by_id(conn: &mut Conn, key: &KeyId) -> Result<Option<KeyRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM api_keys WHERE id = $1").bind(key.to_string()).fetch_optional(conn).await?;
    row.as_ref().map(read).transpose()
}

/// A page of all keys, oldest first, each with how many wallets it may act for.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn page(
    conn: &mut Conn,
    after: Option<&(Timestamp, String)>,
    limit: u32,
) -> Result<Vec<(KeyRow, i64)>, StoreError> {
    let (at, id) = after.map_or((i64::MIN, ""), |(at, id)| (at.millis(), id.as_str()));
    let rows = sqlx::query(
        "SELECT api_keys.*, (SELECT COUNT(*) FROM api_key_wallets WHERE key_id = api_keys.id) AS wallets FROM api_keys \
         WHERE created_at > $1 OR (created_at = $1 AND id > $2) ORDER BY created_at, id LIMIT $3",
    )
    .bind(at)
    .bind(id.to_owned())
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok((read(row)?, row.take("wallets")?))).collect()
}

/// # Errors
/// When the database can't answer.
pub async fn count_wallets(conn: &mut Conn, key: &KeyId) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar("SELECT COUNT(*) FROM api_key_wallets WHERE key_id = $1");
    Ok(count.bind(key.to_string()).fetch_one(conn).await?)
}

/// A page of the wallets that a key may act for, in the order of their ids.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn wallets_after(conn: &mut Conn, key: &KeyId, after: &str, limit: u32) -> Result<Vec<WalletId>, StoreError> {
    let rows = sqlx::query(
        "SELECT wallet_id FROM api_key_wallets WHERE key_id = $1 AND wallet_id > $2 ORDER BY wallet_id LIMIT $3",
    )
    .bind(key.to_string())
    .bind(after.to_owned())
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| row.parsed("wallet_id")).collect()
}

/// Whether there ever was a key with one of these scopes, in force or not.
///
/// # Errors
/// When the database can't answer.
pub async fn was_any_with(conn: &mut Conn, scopes: &[&str]) -> Result<bool, StoreError> {
    let rows = sqlx::query("SELECT scopes FROM api_keys").fetch_all(conn).await?;
    for row in &rows {
        let has: String = row.take("scopes")?;
        if has.split(',').any(|scope| scopes.contains(&scope)) {
            return Ok(true);
        }
    }
    Ok(false)
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
