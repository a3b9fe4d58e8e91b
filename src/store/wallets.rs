//! Wallets, their two keychains, and the scripts that were derived from them.

use bitcoin::ScriptBuf;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::row::{Columns, LIST, padded, padding, placeholders};
use super::{Conn, PAGE_MAX, StoreError, Tx};
use crate::clock::Timestamp;
use crate::domain::wallet::{Account, DerivedScript, WalletKeys};
use crate::ids::{RequestId, WalletId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletRow {
    pub id: WalletId,
    pub xpub_van: String,
    pub xpub_col: String,
    pub fingerprint: String,
    pub created_at: Timestamp,
    /// Empty while the chain is searched for coins from before.
    pub scanned_at: Option<Timestamp>,
    pub released_at: Option<Timestamp>,
}

/// Where a keychain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keychain {
    pub next_index: u32,
    pub derived_to: u32,
}

/// What an index is issued for. Once, and never for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Receive,
    Change,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Change => "change",
        }
    }
}

/// A script of ours, found by what stands in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownScript {
    pub script: ScriptBuf,
    pub wallet: WalletId,
    pub account: Account,
    pub index: u32,
    pub is_receive: bool,
    pub request: Option<RequestId>,
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn find(conn: &mut Conn, id: &WalletId) -> Result<Option<WalletRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM wallets WHERE id = $1").bind(id.to_string()).fetch_optional(conn).await?;
    row.as_ref().map(read).transpose()
}

/// A page of all wallets, in the order of their ids.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn list(conn: &mut Conn, after: &str, limit: u32) -> Result<Vec<WalletRow>, StoreError> {
    let rows = sqlx::query("SELECT * FROM wallets WHERE id > $1 ORDER BY id LIMIT $2")
        .bind(after.to_owned())
        .bind(i64::from(limit.min(PAGE_MAX)))
        .fetch_all(conn)
        .await?;
    rows.iter().map(read).collect()
}

/// Wallets whose first scan is not done: the oldest of each key, then the next of each. Whoever registers one does not wait for somebody
/// who registers thousands.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn to_scan(conn: &mut Conn, limit: u32) -> Result<Vec<WalletRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT waiting.*, ROW_NUMBER() OVER (PARTITION BY key_id ORDER BY created_at, id) AS turn FROM \
         (SELECT wallets.*, (SELECT MIN(key_id) FROM api_key_wallets WHERE wallet_id = wallets.id) AS key_id \
          FROM wallets WHERE scanned_at IS NULL AND released_at IS NULL) AS waiting \
         ORDER BY turn, created_at, id LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<WalletRow, StoreError> {
    Ok(WalletRow {
        id: row.parsed("id")?,
        xpub_van: row.take("xpub_van")?,
        xpub_col: row.take("xpub_col")?,
        fingerprint: row.take("fingerprint")?,
        created_at: row.time("created_at")?,
        scanned_at: row.time_opt("scanned_at")?,
        released_at: row.time_opt("released_at")?,
    })
}

/// Writes a wallet, or takes a released one up again. Its indexes go on where the same keys left off.
/// False when somebody else has registered it meanwhile: then nothing is written.
///
/// # Errors
/// `Conflict` when one of its keys belongs to another wallet.
pub async fn insert(tx: &mut Tx<'_>, keys: &WalletKeys) -> Result<bool, StoreError> {
    let now = tx.now().millis();
    let written = sqlx::query(
        "INSERT INTO wallets (id, xpub_van, xpub_col, fingerprint, created_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (id) DO UPDATE SET released_at = NULL, scanned_at = NULL, created_at = excluded.created_at \
         WHERE wallets.released_at IS NOT NULL",
    )
    .bind(keys.id().to_string())
    .bind(keys.xpub(Account::Vanilla))
    .bind(keys.xpub(Account::Colored))
    .bind(keys.fingerprint())
    .bind(now)
    .execute(tx.conn())
    .await?
    .rows_affected();
    if written == 0 {
        return Ok(false);
    }
    for account in Account::ALL {
        insert_keychain(tx.conn(), keys, account).await?;
    }
    Ok(true)
}

async fn insert_keychain(conn: &mut Conn, keys: &WalletKeys, account: Account) -> Result<(), StoreError> {
    let material = keys.key_material(account);
    let next_index: i64 =
        sqlx::query_scalar("SELECT COALESCE(MAX(next_index), 0) FROM keychains WHERE key_material = $1")
            .bind(material.clone())
            .fetch_one(&mut *conn)
            .await?;
    // Scripts of a released wallet are gone: deriving begins at the first index again, so that old addresses are watched too.
    let written = sqlx::query(
        "INSERT INTO keychains (wallet_id, account, key_material, next_index, derived_to) VALUES ($1, $2, $3, $4, 0) \
         ON CONFLICT (wallet_id, account) DO UPDATE SET released_at = NULL, next_index = excluded.next_index, derived_to = 0 \
         WHERE keychains.released_at IS NOT NULL",
    )
    .bind(keys.id().to_string())
    .bind(account.as_str())
    .bind(material)
    .bind(next_index)
    .execute(conn)
    .await;
    match written {
        Ok(_) => Ok(()),
        Err(error) if error.as_database_error().is_some_and(|inner| inner.is_unique_violation()) => {
            Err(StoreError::Conflict("the key"))
        }
        Err(error) => Err(error.into()),
    }
}

/// The wallet that uses a key now.
///
/// # Errors
/// When the database can't answer.
pub async fn user_of_key(conn: &mut Conn, key_material: &str) -> Result<Option<WalletId>, StoreError> {
    let row = sqlx::query("SELECT wallet_id FROM keychains WHERE key_material = $1 AND released_at IS NULL")
        .bind(key_material.to_owned())
        .fetch_optional(conn)
        .await?;
    row.map(|row| row.parsed("wallet_id")).transpose()
}

/// Wallets that a colored script was given away for, after this one in the order of their names.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn with_colored_scripts(conn: &mut Conn, after: &str, limit: u32) -> Result<Vec<WalletId>, StoreError> {
    let rows = sqlx::query(
        "SELECT wallet_id FROM keychains WHERE account = 'colored' AND next_index > 0 AND released_at IS NULL AND wallet_id > $1 \
         ORDER BY wallet_id LIMIT $2",
    )
    .bind(after.to_owned())
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| row.parsed("wallet_id")).collect()
}

/// # Errors
/// When the database can't answer or there is no such keychain.
pub async fn keychain(conn: &mut Conn, wallet: &WalletId, account: Account) -> Result<Keychain, StoreError> {
    let row = sqlx::query("SELECT next_index, derived_to FROM keychains WHERE wallet_id = $1 AND account = $2")
        .bind(wallet.to_string())
        .bind(account.as_str())
        .fetch_one(conn)
        .await?;
    Ok(Keychain { next_index: row.number("next_index")?, derived_to: row.number("derived_to")? })
}

/// Waits until nobody else issues an index of this keychain, and keeps others waiting until this transaction ends.
///
/// # Errors
/// When the database can't do it.
pub async fn lock_keychain(tx: &mut Tx<'_>, wallet: &WalletId, account: Account) -> Result<(), StoreError> {
    sqlx::query("UPDATE keychains SET next_index = next_index WHERE wallet_id = $1 AND account = $2")
        .bind(wallet.to_string())
        .bind(account.as_str())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Adds derived scripts to the index. Those that are there already stay as they are.
///
/// # Errors
/// When the database can't do it.
pub async fn add_scripts(
    tx: &mut Tx<'_>,
    wallet: &WalletId,
    account: Account,
    scripts: &[DerivedScript],
) -> Result<(), StoreError> {
    const ROWS: usize = 200;
    for chunk in scripts.chunks(ROWS) {
        let rows: Vec<String> = (0..chunk.len()).map(|row| format!("({})", placeholders(row * 4 + 1, 4))).collect();
        let text = format!(
            "INSERT INTO scripts (script, wallet_id, account, idx) VALUES {} ON CONFLICT DO NOTHING",
            rows.join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for script in chunk {
            query = query
                .bind(script.script.to_hex_string())
                .bind(wallet.to_string())
                .bind(account.as_str())
                .bind(i64::from(script.index));
        }
        query.execute(tx.conn()).await?;
    }
    let Some(last) = scripts.last() else { return Ok(()) };
    sqlx::query("UPDATE keychains SET derived_to = $1 WHERE wallet_id = $2 AND account = $3 AND derived_to < $1")
        .bind(i64::from(last.index) + 1)
        .bind(wallet.to_string())
        .bind(account.as_str())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Issues an index that is the next one still.
///
/// # Errors
/// `Conflict` when somebody else issued it first.
pub async fn issue_index(
    tx: &mut Tx<'_>,
    wallet: &WalletId,
    account: Account,
    index: u32,
    purpose: Purpose,
    request: RequestId,
) -> Result<(), StoreError> {
    let moved = sqlx::query(
        "UPDATE keychains SET next_index = $1 WHERE wallet_id = $2 AND account = $3 AND next_index = $4 AND derived_to > $4",
    )
    .bind(i64::from(index) + 1)
    .bind(wallet.to_string())
    .bind(account.as_str())
    .bind(i64::from(index))
    .execute(tx.conn())
    .await?
    .rows_affected();
    let now = tx.now().millis();
    let issued = sqlx::query(
        "UPDATE scripts SET purpose = $1, request_id = $2, issued_at = $3 \
         WHERE wallet_id = $4 AND account = $5 AND idx = $6 AND purpose IS NULL",
    )
    .bind(purpose.as_str())
    .bind(request.to_string())
    .bind(now)
    .bind(wallet.to_string())
    .bind(account.as_str())
    .bind(i64::from(index))
    .execute(tx.conn())
    .await?
    .rows_affected();
    if moved == 1 && issued == 1 { Ok(()) } else { Err(StoreError::Conflict("the next index")) }
}

/// How many scripts of an account were issued for a request.
///
/// # Errors
/// When the database can't answer.
pub async fn count_issued(
    conn: &mut Conn,
    wallet: &WalletId,
    account: Account,
    request: RequestId,
) -> Result<u32, StoreError> {
    let row =
        sqlx::query("SELECT COUNT(*) AS n FROM scripts WHERE wallet_id = $1 AND account = $2 AND request_id = $3")
            .bind(wallet.to_string())
            .bind(account.as_str())
            .bind(request.to_string())
            .fetch_one(conn)
            .await?;
    row.number("n")
}

/// Moves the counter past an index that the chain shows as used, so that it is never handed out.
///
/// # Errors
/// When the database can't do it.
pub async fn skip_to(tx: &mut Tx<'_>, wallet: &WalletId, account: Account, used: u32) -> Result<(), StoreError> {
    sqlx::query("UPDATE keychains SET next_index = $1 WHERE wallet_id = $2 AND account = $3 AND next_index < $1")
        .bind(i64::from(used) + 1)
        .bind(wallet.to_string())
        .bind(account.as_str())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The stored script at an index.
///
/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn script_at(
    conn: &mut Conn,
    wallet: &WalletId,
    account: Account,
    index: u32,
) -> Result<Option<KnownScript>, StoreError> {
    let row = sqlx::query("SELECT * FROM scripts WHERE wallet_id = $1 AND account = $2 AND idx = $3")
        .bind(wallet.to_string())
        .bind(account.as_str())
        .bind(i64::from(index))
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(read_script).transpose()
}

/// Every derived script of a wallet.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn scripts_of(conn: &mut Conn, wallet: &WalletId) -> Result<Vec<KnownScript>, StoreError> {
    let rows =
        sqlx::query("SELECT * FROM scripts WHERE wallet_id = $1").bind(wallet.to_string()).fetch_all(conn).await?;
    rows.iter().map(read_script).collect()
}

/// Of these scripts, those that are ours.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn scripts_among(conn: &mut Conn, scripts: &[ScriptBuf]) -> Result<Vec<KnownScript>, StoreError> {
    let mut found = Vec::new();
    for chunk in scripts.chunks(LIST) {
        let text = format!("SELECT * FROM scripts WHERE script IN ({})", placeholders(1, padded(chunk.len())));
        let mut query = sqlx::query(AssertSqlSafe(text));
        for script in padding(chunk) {
            query = query.bind(script.to_hex_string());
        }
        for row in query.fetch_all(&mut *conn).await? {
            found.push(read_script(&row)?);
        }
    }
    Ok(found)
}

fn read_script(row: &AnyRow) -> Result<KnownScript, StoreError> {
    let script: String = row.take("script")?;
    Ok(KnownScript {
        script: ScriptBuf::from_hex(&script).map_err(|e| StoreError::Corrupt(format!("scripts.script: {e}")))?,
        wallet: row.parsed("wallet_id")?,
        account: row.parsed("account")?,
        index: row.number("idx")?,
        is_receive: row.take::<Option<String>>("purpose")?.as_deref() == Some("receive"),
        request: row.parsed_opt("request_id")?,
    })
}

/// # Errors
/// When the database can't do it.
pub async fn mark_scanned(tx: &mut Tx<'_>, wallet: &WalletId) -> Result<(), StoreError> {
    let now = tx.now().millis();
    sqlx::query("UPDATE wallets SET scanned_at = $1 WHERE id = $2 AND scanned_at IS NULL")
        .bind(now)
        .bind(wallet.to_string())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Frees a wallet's keys for another registration. What was recorded of its requests stays; it is no longer watched.
///
/// # Errors
/// `Conflict` when a request of it is still open.
pub async fn release(tx: &mut Tx<'_>, wallet: &WalletId) -> Result<(), StoreError> {
    let open: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM requests WHERE wallet_id = $1 AND is_open = 1 AND kind <> 'onchain_receive'",
    )
    .bind(wallet.to_string())
    .fetch_one(tx.conn())
    .await?;
    if open > 0 {
        return Err(StoreError::Conflict("an open request of the wallet"));
    }
    let now = tx.now().millis();
    for statement in [
        "DELETE FROM spends WHERE outpoint IN (SELECT outpoint FROM coins WHERE wallet_id = $1)",
        "DELETE FROM coins WHERE wallet_id = $1",
        "DELETE FROM wallet_txs WHERE wallet_id = $1",
        "DELETE FROM leases WHERE wallet_id = $1",
        "DELETE FROM scripts WHERE wallet_id = $1",
        "DELETE FROM api_key_wallets WHERE wallet_id = $1",
    ] {
        sqlx::query(statement).bind(wallet.to_string()).execute(tx.conn()).await?;
    }
    for statement in [
        "UPDATE keychains SET released_at = $1 WHERE wallet_id = $2",
        "UPDATE wallets SET released_at = $1 WHERE id = $2",
    ] {
        sqlx::query(statement).bind(now).bind(wallet.to_string()).execute(tx.conn()).await?;
    }
    Ok(())
}
