//! Consignments for invoices of this gateway, and what the gateway said to them. What strangers exchange is not here but in a folder
//! (`shelf.rs`); what they stored here before there was one is read and forgotten as it was. Every change takes one row first, which
//! counts that: two of them at once come one after the other.

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
    /// The file was taken away: it was worth nothing, or its invoice has ended long ago.
    pub is_dropped: bool,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    Stored,
    /// The same was there already.
    Same,
    /// Something else was there already, and stays.
    Differs,
    /// As much is stored as may be, of strangers or for this wallet.
    Full,
    /// The invoice in which its recipient stands takes nothing any more.
    Closed,
}

/// What a recipient is to this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// None of ours.
    Strangers,
    /// It stands in an invoice that waits to be paid.
    Open,
    /// It stands in an invoice that has been paid, or will not be.
    Closed,
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
        is_dropped: row.take::<Option<i64>>("dropped_at")?.is_some(),
    })
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn find(conn: &mut Conn, recipient_id: &str) -> Result<Option<Consignment>, StoreError> {
    let row =
        sqlx::query("SELECT txid, vout, hash, size, ack, kept, dropped_at FROM consignments WHERE recipient_id = $1")
            .bind(recipient_id.to_owned())
            .fetch_optional(conn)
            .await?;
    row.as_ref().map(read).transpose()
}

/// The file of a consignment, in base64, unless it was taken away.
///
/// # Errors
/// When the database can't answer.
pub async fn content(conn: &mut Conn, recipient_id: &str) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT content FROM consignments WHERE recipient_id = $1 AND dropped_at IS NULL")
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

/// The hash of a medium.
///
/// # Errors
/// When the database can't answer.
pub async fn media_hash(conn: &mut Conn, attachment_id: &str) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT hash FROM consignment_media WHERE attachment_id = $1")
        .bind(attachment_id.to_owned())
        .fetch_optional(conn)
        .await?;
    row.map(|row| row.take("hash")).transpose()
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

/// How many bytes strangers have stored here.
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

/// What a recipient is to this gateway, and whose.
///
/// # Errors
/// When the database can't answer.
pub async fn standing(conn: &mut Conn, recipient_id: &str) -> Result<(Standing, Option<WalletId>), StoreError> {
    let Some(wallet) = owner(conn, recipient_id).await? else { return Ok((Standing::Strangers, None)) };
    let row = sqlx::query(
        "SELECT r.state AS state FROM asset_transfers t JOIN requests r ON r.id = t.request_id \
         WHERE t.recipient_id = $1 AND t.kind IN ('receive_blind', 'receive_witness') LIMIT 1",
    )
    .bind(recipient_id.to_owned())
    .fetch_optional(conn)
    .await?;
    let state: Option<String> = row.map(|row| row.take("state")).transpose()?;
    let standing = if state.is_none_or(|state| state == "open") { Standing::Open } else { Standing::Closed };
    Ok((standing, Some(wallet)))
}

/// How many bytes are stored for a wallet's invoices.
async fn stored_for(tx: &mut Tx<'_>, wallet: &WalletId) -> Result<i64, StoreError> {
    let row = sqlx::query(
        "SELECT CAST(COALESCE(SUM(c.size), 0) AS BIGINT) AS bytes FROM consignment_recipients r \
         JOIN consignments c ON c.recipient_id = r.recipient_id WHERE r.wallet_id = $1 AND c.dropped_at IS NULL",
    )
    .bind(wallet.to_string())
    .fetch_one(tx.conn())
    .await?;
    row.take("bytes")
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

/// Stores a consignment for one of our invoices, unless there is one. Its wallet has room for so many bytes.
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
    let (standing, wallet) = standing(tx.conn(), &label.recipient_id).await?;
    let (Standing::Open, Some(wallet)) = (standing, wallet) else { return Ok(Posted::Closed) };
    if stored_for(tx, &wallet).await?.saturating_add(file.size) > most {
        return Ok(Posted::Full);
    }
    sqlx::query(
        "INSERT INTO consignments (recipient_id, txid, vout, hash, size, kept, created_at, content) \
         VALUES ($1, $2, $3, $4, $5, 1, $6, $7)",
    )
    .bind(label.recipient_id.clone())
    .bind(label.txid.clone())
    .bind(label.vout.map(i64::from))
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
    let now = tx.now().millis();
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
    if is_gateway && !ack {
        // Worth nothing: that it came, and what was said to it, is all that is to be known.
        sqlx::query("UPDATE consignments SET content = '', dropped_at = $1 WHERE recipient_id = $2")
            .bind(now)
            .bind(recipient_id.to_owned())
            .execute(tx.conn())
            .await?;
    }
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

/// Consignments from before this time whose invoice has ended, so many at most: who needed them has them.
const OUTLIVED: &str = "SELECT c.recipient_id AS id FROM consignments c JOIN asset_transfers t ON t.recipient_id = c.recipient_id \
     JOIN requests r ON r.id = t.request_id WHERE c.kept = 1 AND c.ack IS NOT NULL AND c.dropped_at IS NULL \
     AND t.kind IN ('receive_blind', 'receive_witness') AND c.created_at < $1 AND r.is_open = 0 ORDER BY c.created_at LIMIT $2";

/// Whether there is one of them.
///
/// # Errors
/// When the database can't answer.
pub async fn any_outlived(conn: &mut Conn, before: Timestamp) -> Result<bool, StoreError> {
    let row = sqlx::query(OUTLIVED).bind(before.millis()).bind(1_i64).fetch_optional(conn).await?;
    Ok(row.is_some())
}

/// Takes the files of so many of them away. Their hashes and what was said to them stay. Answers how many there were.
///
/// # Errors
/// When the database can't do it.
pub async fn drop_outlived(tx: &mut Tx<'_>, before: Timestamp, most: u32) -> Result<usize, StoreError> {
    let now = tx.now().millis();
    take_turn(tx).await?;
    let rows = sqlx::query(OUTLIVED).bind(before.millis()).bind(i64::from(most)).fetch_all(tx.conn()).await?;
    for row in &rows {
        sqlx::query("UPDATE consignments SET content = '', dropped_at = $1 WHERE recipient_id = $2")
            .bind(now)
            .bind(row.take::<String>("id")?)
            .execute(tx.conn())
            .await?;
    }
    Ok(rows.len())
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
