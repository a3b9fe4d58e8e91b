//! What wallets of RGB exchange: consignments by recipient, what the recipients said to them, and media. What strangers have stored
//! is counted in one row, which every change takes first: two of them at once come one after the other.

use sqlx::any::AnyRow;

use super::row::{Columns, placeholders};
use super::{Conn, StoreError, Tx};
use crate::clock::Timestamp;
use crate::ids::WalletId;

/// A file that somebody brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// The SHA-256 of its bytes.
    pub hash: String,
    pub size: i64,
    /// The bytes in base64.
    pub content: String,
}

/// What a consignment belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub recipient_id: String,
    pub txid: String,
    pub vout: Option<u32>,
}

/// A consignment without its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consignment {
    pub txid: String,
    pub vout: Option<u32>,
    pub hash: String,
    pub size: u64,
    pub ack: Option<bool>,
    /// Its recipient is one of this gateway's invoices.
    pub is_own: bool,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    Stored,
    /// The same was there already.
    Same,
    /// Something else was there already, and stays.
    Differs,
    /// Strangers have stored as much as they may.
    Full,
}

/// What became of a recipient's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    Set,
    /// The same was said before.
    Same,
    /// The other was said before, and stays.
    Differs,
    /// There is nothing to acknowledge.
    NoConsignment,
    /// Only the gateway itself says anything for this recipient.
    NotTheirs,
}

fn read(row: &AnyRow) -> Result<Consignment, StoreError> {
    Ok(Consignment {
        txid: row.take("txid")?,
        vout: row.number_opt("vout")?,
        hash: row.take("hash")?,
        size: row.number("size")?,
        ack: row.take::<Option<i64>>("ack")?.map(|ack| ack == 1),
        is_own: row.take::<i64>("kept")? == 1,
    })
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn find(conn: &mut Conn, recipient_id: &str) -> Result<Option<Consignment>, StoreError> {
    let row = sqlx::query("SELECT txid, vout, hash, size, ack, kept FROM consignments WHERE recipient_id = $1")
        .bind(recipient_id.to_owned())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(read).transpose()
}

/// The file of a consignment, in base64.
///
/// # Errors
/// When the database can't answer.
pub async fn content(conn: &mut Conn, recipient_id: &str) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT content FROM consignments WHERE recipient_id = $1")
        .bind(recipient_id.to_owned())
        .fetch_optional(conn)
        .await?;
    row.map(|row| row.take("content")).transpose()
}

/// How long a medium is.
///
/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn media_size(conn: &mut Conn, attachment_id: &str) -> Result<Option<u64>, StoreError> {
    let row = sqlx::query("SELECT size FROM consignment_media WHERE attachment_id = $1")
        .bind(attachment_id.to_owned())
        .fetch_optional(conn)
        .await?;
    row.map(|row| row.number("size")).transpose()
}

/// A medium, in base64.
///
/// # Errors
/// When the database can't answer.
pub async fn media_content(conn: &mut Conn, attachment_id: &str) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT content FROM consignment_media WHERE attachment_id = $1")
        .bind(attachment_id.to_owned())
        .fetch_optional(conn)
        .await?;
    row.map(|row| row.take("content")).transpose()
}

/// How many bytes strangers have stored.
///
/// # Errors
/// When the database can't answer.
pub async fn used(conn: &mut Conn) -> Result<i64, StoreError> {
    let row = sqlx::query("SELECT bytes FROM consignment_usage WHERE name = 'strangers'").fetch_one(conn).await?;
    row.take("bytes")
}

/// Has everybody else who changes what is stored wait until this transaction has ended.
async fn take_turn(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    change_usage(tx, 0).await
}

async fn change_usage(tx: &mut Tx<'_>, by: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE consignment_usage SET bytes = bytes + $1 WHERE name = 'strangers'")
        .bind(by)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Counts what a stranger brings; answers whether it fits.
async fn fits(tx: &mut Tx<'_>, size: i64, most: i64) -> Result<bool, StoreError> {
    let counted =
        sqlx::query("UPDATE consignment_usage SET bytes = bytes + $1 WHERE name = 'strangers' AND bytes + $2 <= $3")
            .bind(size)
            .bind(size)
            .bind(most)
            .execute(tx.conn())
            .await?
            .rows_affected();
    Ok(counted == 1)
}

async fn is_own(tx: &mut Tx<'_>, recipient_id: &str) -> Result<bool, StoreError> {
    Ok(owner(tx.conn(), recipient_id).await?.is_some())
}

/// The wallet in whose invoice a recipient stands, if it is one of this gateway's.
///
/// # Errors
/// When the database can't answer.
pub async fn owner(conn: &mut Conn, recipient_id: &str) -> Result<Option<WalletId>, StoreError> {
    let row = sqlx::query("SELECT wallet_id FROM consignment_recipients WHERE recipient_id = $1")
        .bind(recipient_id.to_owned())
        .fetch_optional(conn)
        .await?;
    row.map(|row| row.parsed("wallet_id")).transpose()
}

/// Notes that a recipient stands in an invoice of this gateway; answers whether the invoice is this wallet's. From then on nobody else
/// acknowledges for it, what somebody did before does not count, and what is there for it is kept.
///
/// # Errors
/// When the database can't do it.
pub async fn keep(tx: &mut Tx<'_>, recipient_id: &str, wallet: &WalletId) -> Result<bool, StoreError> {
    let now = tx.now().millis();
    take_turn(tx).await?;
    let is_new = sqlx::query(
        "INSERT INTO consignment_recipients (recipient_id, wallet_id, created_at) VALUES ($1, $2, $3) \
         ON CONFLICT (recipient_id) DO NOTHING",
    )
    .bind(recipient_id.to_owned())
    .bind(wallet.to_string())
    .bind(now)
    .execute(tx.conn())
    .await?
    .rows_affected()
        == 1;
    if !is_new {
        return Ok(owner(tx.conn(), recipient_id).await?.as_ref() == Some(wallet));
    }
    if let Some(before) = find(tx.conn(), recipient_id).await? {
        sqlx::query("UPDATE consignments SET kept = 1, ack = NULL WHERE recipient_id = $1")
            .bind(recipient_id.to_owned())
            .execute(tx.conn())
            .await?;
        change_usage(tx, i64::try_from(before.size).unwrap_or(i64::MAX).saturating_neg()).await?;
    }
    Ok(true)
}

/// Stores a consignment, unless there is one.
///
/// # Errors
/// When the database can't do it.
pub async fn post(tx: &mut Tx<'_>, label: &Label, file: &NewFile, most: i64) -> Result<Posted, StoreError> {
    let now = tx.now().millis();
    take_turn(tx).await?;
    if let Some(there) = find(tx.conn(), &label.recipient_id).await? {
        let is_same = there.hash == file.hash && there.txid == label.txid && there.vout == label.vout;
        return Ok(if is_same { Posted::Same } else { Posted::Differs });
    }
    let is_own = is_own(tx, &label.recipient_id).await?;
    if !is_own && !fits(tx, file.size, most).await? {
        return Ok(Posted::Full);
    }
    sqlx::query(
        "INSERT INTO consignments (recipient_id, txid, vout, hash, size, kept, created_at, content) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(label.recipient_id.clone())
    .bind(label.txid.clone())
    .bind(label.vout.map(i64::from))
    .bind(file.hash.clone())
    .bind(file.size)
    .bind(i64::from(is_own))
    .bind(now)
    .bind(file.content.clone())
    .execute(tx.conn())
    .await?;
    Ok(Posted::Stored)
}

/// Stores a medium, unless there is one of this name.
///
/// # Errors
/// When the database can't do it.
pub async fn post_media(tx: &mut Tx<'_>, id: &str, file: &NewFile, most: i64) -> Result<Posted, StoreError> {
    let now = tx.now().millis();
    take_turn(tx).await?;
    let there = sqlx::query("SELECT hash FROM consignment_media WHERE attachment_id = $1")
        .bind(id.to_owned())
        .fetch_optional(tx.conn())
        .await?;
    if let Some(there) = there {
        let is_same = there.take::<String>("hash")? == file.hash;
        return Ok(if is_same { Posted::Same } else { Posted::Differs });
    }
    if !fits(tx, file.size, most).await? {
        return Ok(Posted::Full);
    }
    sqlx::query(
        "INSERT INTO consignment_media (attachment_id, hash, size, created_at, content) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(id.to_owned())
    .bind(file.hash.clone())
    .bind(file.size)
    .bind(now)
    .bind(file.content.clone())
    .execute(tx.conn())
    .await?;
    Ok(Posted::Stored)
}

/// Keeps what a recipient says to a consignment, once and for all.
///
/// # Errors
/// When the database can't do it.
pub async fn acknowledge(
    tx: &mut Tx<'_>,
    recipient_id: &str,
    ack: bool,
    is_gateway: bool,
) -> Result<Acknowledged, StoreError> {
    take_turn(tx).await?;
    let Some(there) = find(tx.conn(), recipient_id).await? else { return Ok(Acknowledged::NoConsignment) };
    if there.is_own && !is_gateway {
        return Ok(Acknowledged::NotTheirs);
    }
    if let Some(before) = there.ack {
        return Ok(if before == ack { Acknowledged::Same } else { Acknowledged::Differs });
    }
    sqlx::query("UPDATE consignments SET ack = $1 WHERE recipient_id = $2")
        .bind(i64::from(ack))
        .bind(recipient_id.to_owned())
        .execute(tx.conn())
        .await?;
    Ok(Acknowledged::Set)
}

/// Takes away what somebody brought for an invoice of this gateway and what is worth nothing, so that another one may come.
///
/// # Errors
/// When the database can't do it.
pub async fn discard(tx: &mut Tx<'_>, recipient_id: &str) -> Result<(), StoreError> {
    take_turn(tx).await?;
    sqlx::query("DELETE FROM consignments WHERE recipient_id = $1 AND kept = 1 AND ack IS NULL")
        .bind(recipient_id.to_owned())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Whether strangers have something here from before this time.
///
/// # Errors
/// When the database can't answer.
pub async fn any_before(conn: &mut Conn, before: Timestamp) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "SELECT 1 AS there WHERE EXISTS (SELECT 1 FROM consignments WHERE kept = 0 AND created_at < $1) \
         OR EXISTS (SELECT 1 FROM consignment_media WHERE created_at < $2)",
    )
    .bind(before.millis())
    .bind(before.millis())
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
}

/// Forgets the oldest of what strangers have stored before this time: so many consignments and so many media at most. Answers how many
/// there were.
///
/// # Errors
/// When the database can't do it.
pub async fn forget_before(tx: &mut Tx<'_>, before: Timestamp, most: u32) -> Result<usize, StoreError> {
    take_turn(tx).await?;
    let consignments = "SELECT recipient_id AS id, size FROM consignments WHERE kept = 0 AND created_at < $1 \
                        ORDER BY created_at LIMIT $2";
    let media = "SELECT attachment_id AS id, size FROM consignment_media WHERE created_at < $1 \
                 ORDER BY created_at LIMIT $2";
    let mut forgotten = 0;
    for (overdue, table, key) in
        [(consignments, "consignments", "recipient_id"), (media, "consignment_media", "attachment_id")]
    {
        let rows = sqlx::query(overdue).bind(before.millis()).bind(i64::from(most)).fetch_all(tx.conn()).await?;
        forgotten += rows.len();
        forget(tx, table, key, &rows).await?;
    }
    Ok(forgotten)
}

async fn forget(tx: &mut Tx<'_>, table: &str, key: &str, rows: &[AnyRow]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = format!("DELETE FROM {table} WHERE {key} IN ({})", placeholders(1, rows.len()));
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    let mut size = 0_i64;
    for row in rows {
        query = query.bind(row.take::<String>("id")?);
        size = size.saturating_add(row.take("size")?);
    }
    query.execute(tx.conn()).await?;
    change_usage(tx, size.saturating_neg()).await
}
