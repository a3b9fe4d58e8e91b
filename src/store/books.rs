//! Entries that belong to no wallet's request, and what is read from the ledger as a whole. They are written by `apply::enter`.

use bitcoin::Txid;
use sqlx::any::AnyRow;

use super::row::Columns;
use super::{Conn, StoreError, Tx, chain};
use crate::clock::Timestamp;
use crate::domain::movement::Subject;
use crate::ids::RequestId;
use crate::money::AssetId;

/// An entry for no wallet's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookEntry {
    pub id: RequestId,
    /// The movement of the node that it is for.
    pub number: Option<i64>,
    /// The posting in suspense that it resolves.
    pub resolves: Option<String>,
    pub kind: &'static str,
    pub data: String,
}

/// Answers whether it was written: an entry, a movement and a resolution are there once.
pub(super) async fn insert(tx: &mut Tx<'_>, entry: &BookEntry) -> Result<bool, StoreError> {
    let now = tx.now().millis();
    let written = sqlx::query(
        "INSERT INTO book_entries (id, number, resolves, kind, data, created_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT DO NOTHING",
    )
    .bind(entry.id.to_string())
    .bind(entry.number)
    .bind(entry.resolves.clone())
    .bind(entry.kind)
    .bind(entry.data.clone())
    .bind(now)
    .execute(tx.conn())
    .await?
    .rows_affected();
    Ok(written == 1)
}

/// The number of the last movement that was entered.
///
/// # Errors
/// When the database can't answer.
pub async fn cursor(conn: &mut Conn) -> Result<i64, StoreError> {
    let row = sqlx::query("SELECT COALESCE(MAX(number), 0) AS n FROM book_entries").fetch_one(conn).await?;
    row.take("n")
}

/// Whether a script is of an address that was handed out for the reserve.
///
/// # Errors
/// When the database can't answer.
pub async fn is_of_reserve(conn: &mut Conn, script: &str) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT address FROM reserve_addresses WHERE script = $1")
        .bind(script.to_owned())
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some())
}

/// Whether this is a wallet's: paid to an address that is bound to one, or sent for its request.
///
/// # Errors
/// When the database can't answer.
pub async fn is_of_a_wallet(conn: &mut Conn, subject: Subject<'_>) -> Result<bool, StoreError> {
    let (sql, key) = match subject {
        Subject::Paid { script } => ("SELECT 1 AS there FROM node_addresses WHERE script = $1", script.to_owned()),
        Subject::Ordered(request) => ("SELECT 1 AS there FROM requests WHERE id = $1", request.to_string()),
    };
    Ok(sqlx::query(sql).bind(key).fetch_optional(conn).await?.is_some())
}

/// Whether a transaction has brought home what was in closed channels.
///
/// # Errors
/// When the database can't answer.
pub async fn has_swept(conn: &mut Conn, txid: Txid) -> Result<bool, StoreError> {
    let id = RequestId::of_movement(&format!("swept:{txid}"));
    let row = sqlx::query("SELECT 1 AS there FROM book_entries WHERE id = $1").bind(id.to_string());
    Ok(row.fetch_optional(conn).await?.is_some())
}

/// One line of the trial balance: an account, or all accounts of one kind together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub account: String,
    pub asset: String,
    /// How many accounts it is about.
    pub accounts: u64,
    /// Credits less debits.
    pub total: i64,
    pub held: i64,
}

/// The ledger by account; those of wallets are one line.
///
/// # Errors
/// When the database can't answer.
pub async fn trial_balance(conn: &mut Conn) -> Result<Vec<Line>, StoreError> {
    let rows = sqlx::query(
        "SELECT account, asset, COUNT(*) AS accounts, CAST(SUM(total) AS BIGINT) AS total, CAST(SUM(held) AS BIGINT) AS held FROM \
         (SELECT CASE WHEN account LIKE 'wallet:%' THEN 'wallets' WHEN account LIKE 'debt:%' THEN 'debts' ELSE account END AS account, \
          asset, total, held FROM balances) b GROUP BY account, asset ORDER BY asset, account",
    )
    .fetch_all(conn)
    .await?;
    let line = |row: &AnyRow| {
        Ok(Line {
            account: row.take("account")?,
            asset: row.take("asset")?,
            accounts: row.number("accounts")?,
            total: row.take("total")?,
            held: row.take("held")?,
        })
    };
    rows.iter().map(line).collect()
}

/// What the operator's accounts have gained within a time: credits less debits, from the first moment to before the last.
///
/// # Errors
/// When the database can't answer.
pub async fn gains(conn: &mut Conn, from: Timestamp, to: Timestamp) -> Result<Vec<(String, i64)>, StoreError> {
    let rows = sqlx::query(
        "SELECT account, CAST(SUM(amount) AS BIGINT) AS gain FROM \
         (SELECT credit AS account, amount, kind, created_at FROM postings UNION ALL SELECT debit, -amount, kind, created_at FROM postings) l \
         WHERE kind IN ('post', 'post_hold') AND created_at >= $1 AND created_at < $2 AND account LIKE 'operator:%' GROUP BY account ORDER BY account",
    )
    .bind(from.millis())
    .bind(to.millis())
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok((row.take("account")?, row.take("gain")?))).collect()
}

/// A posting that waits in suspense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspended {
    /// The posting's id.
    pub id: String,
    pub request: RequestId,
    /// Above zero: money that came. Below: a loss.
    pub amount: i64,
    /// The other side of it.
    pub other: String,
    /// What it is about: the movement of the node, or empty for a request's.
    pub about: Option<String>,
    pub created_at: Timestamp,
}

const OPEN: &str = "FROM postings p LEFT JOIN book_entries e ON e.id = p.request_id \
     WHERE (p.debit = 'operator:suspense' OR p.credit = 'operator:suspense') AND p.kind IN ('post', 'post_hold') \
     AND e.resolves IS NULL AND NOT EXISTS (SELECT 1 FROM book_entries r WHERE r.resolves = p.id)";

/// What waits in suspense, oldest first, after a place in the list.
///
/// # Errors
/// When the database can't answer.
pub async fn suspended(
    conn: &mut Conn,
    after: Option<(Timestamp, &str)>,
    limit: u32,
) -> Result<Vec<Suspended>, StoreError> {
    let (at, id) = after.map_or((i64::MIN, ""), |(at, id)| (at.millis(), id));
    let sql = format!(
        "SELECT p.*, e.data AS about {OPEN} AND (p.created_at > $1 OR (p.created_at = $1 AND p.id > $2)) \
         ORDER BY p.created_at, p.id LIMIT $3"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(at)
        .bind(id.to_owned())
        .bind(i64::from(limit))
        .fetch_all(conn)
        .await?;
    rows.iter().map(read_suspended).collect()
}

/// One of them, if it still waits.
///
/// # Errors
/// When the database can't answer.
pub async fn suspended_by_id(conn: &mut Conn, id: &str) -> Result<Option<Suspended>, StoreError> {
    let sql = format!("SELECT p.*, e.data AS about {OPEN} AND p.id = $1");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.to_owned()).fetch_optional(conn).await?;
    row.as_ref().map(read_suspended).transpose()
}

fn read_suspended(row: &AnyRow) -> Result<Suspended, StoreError> {
    let (debit, credit): (String, String) = (row.take("debit")?, row.take("credit")?);
    let amount: i64 = row.take("amount")?;
    let came = credit == "operator:suspense";
    Ok(Suspended {
        id: row.take("id")?,
        request: row.parsed("request_id")?,
        amount: if came { amount } else { -amount },
        other: if came { debit } else { credit },
        about: row.take("about")?,
        created_at: row.time("created_at")?,
    })
}

/// What the books say of the node's money and of what is owed, at one moment. In millisatoshi.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// In channels and in flight.
    pub channels: i64,
    pub closing: i64,
    pub onchain: i64,
    /// On the way between the node's coins and wallets, without what belongs to credits that are in a block and not deep enough, and to
    /// withdrawals that are out and in no block.
    pub crossing: i64,
    /// Withdrawals that nobody knows of whether they are out.
    pub crossings: u64,
    /// The block that the follower has read.
    pub height: Option<u32>,
    /// What wallets own together.
    pub claims: i64,
    /// What payments that are under way have set aside.
    pub paying: i64,
    /// What receives that are being claimed are about.
    pub claiming: i64,
    /// Requests that wait for the node's word.
    pub waiting: u64,
    /// The last movement that was entered.
    pub cursor: i64,
}

/// # Errors
/// When the database can't answer.
pub async fn position(conn: &mut Conn) -> Result<Position, StoreError> {
    let row = sqlx::query(
        "SELECT CAST(COALESCE(SUM(CASE WHEN account IN ('node:channels', 'node:in_flight') THEN -total ELSE 0 END), 0) AS BIGINT) AS channels, \
         CAST(COALESCE(SUM(CASE WHEN account = 'node:closing' THEN -total ELSE 0 END), 0) AS BIGINT) AS closing, \
         CAST(COALESCE(SUM(CASE WHEN account = 'node:onchain' THEN -total ELSE 0 END), 0) AS BIGINT) AS onchain, \
         CAST(COALESCE(SUM(CASE WHEN account = 'node:crossing' THEN total ELSE 0 END), 0) AS BIGINT) AS crossing, \
         CAST(COALESCE(SUM(CASE WHEN account LIKE 'wallet:%' THEN total ELSE 0 END), 0) AS BIGINT) AS claims \
         FROM balances WHERE asset = $1",
    )
    .bind(AssetId::Btc.to_string())
    .fetch_one(&mut *conn)
    .await?;
    let waiting = sqlx::query("SELECT COUNT(*) AS n FROM requests WHERE state IN ('claiming', 'paying')")
        .fetch_one(&mut *conn)
        .await?;
    let crossings = sqlx::query("SELECT COUNT(*) AS n FROM requests WHERE kind = 'withdraw' AND state = 'requested'")
        .fetch_one(&mut *conn)
        .await?;
    let under_way = crossing_under_way(conn).await?;
    let paying = sqlx::query(
        "SELECT CAST(COALESCE(SUM(h.amount), 0) AS BIGINT) AS n FROM holds h JOIN requests r ON r.id = h.request_id \
         WHERE r.state = 'paying' AND r.kind = 'lightning_pay'",
    )
    .fetch_one(&mut *conn)
    .await?;
    let claiming = sqlx::query(
        "SELECT CAST(COALESCE(SUM(p.amount_msat), 0) AS BIGINT) AS n FROM payments p JOIN requests r ON r.id = p.request_id \
         WHERE r.state = 'claiming'",
    )
    .fetch_one(&mut *conn)
    .await?;
    Ok(Position {
        channels: row.take("channels")?,
        closing: row.take("closing")?,
        onchain: row.take("onchain")?,
        crossing: row.take::<i64>("crossing")?.saturating_sub(under_way),
        crossings: crossings.number("n")?,
        height: chain::cursor(conn).await?.map(|block| block.height),
        claims: row.take("claims")?,
        paying: paying.take("n")?,
        claiming: claiming.take("n")?,
        waiting: waiting.number("n")?,
        cursor: cursor(conn).await?,
    })
}

/// How often a transaction may have been undone and told again for its entries to be found.
const AGAIN: u32 = 8;

/// What of the account of what crosses belongs to credits and withdrawals that are under way: the postings of each, and those of what the
/// node has told of its transaction.
async fn crossing_under_way(conn: &mut Conn) -> Result<i64, StoreError> {
    let rows = sqlx::query(
        "SELECT c.request_id AS id, 'arrived:' || c.outpoint AS key FROM credits c JOIN requests r ON r.id = c.request_id \
         WHERE r.state IN ('mined', 'reorged') UNION ALL \
         SELECT w.request_id, 'sent:' || w.txid FROM withdrawals w JOIN requests r ON r.id = w.request_id WHERE r.state = 'broadcast'",
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut total = 0_i64;
    for row in &rows {
        let (id, key): (String, String) = (row.take("id")?, row.take("key")?);
        let told = (1..=AGAIN).flat_map(|times| [format!("undone:{times}:{key}"), format!("again:{times}:{key}")]);
        let told = told.chain([key.clone()]).map(|key| RequestId::of_movement(&key).to_string());
        total = total.saturating_add(crossing_of(conn, told.chain([id]).collect()).await?);
    }
    Ok(total)
}

async fn crossing_of(conn: &mut Conn, requests: Vec<String>) -> Result<i64, StoreError> {
    let places: Vec<String> = (1..=requests.len()).map(|n| format!("${n}")).collect();
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(CASE WHEN credit = 'node:crossing' THEN amount ELSE -amount END), 0) AS BIGINT) AS n FROM postings \
         WHERE request_id IN ({}) AND kind IN ('post', 'post_hold') AND (credit = 'node:crossing' OR debit = 'node:crossing')",
        places.join(", ")
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for request in requests {
        query = query.bind(request);
    }
    query.fetch_one(conn).await?.take("n")
}
