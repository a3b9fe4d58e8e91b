//! Channels that the gateway opens by itself: what was begun and how it ended, and what was last decided about them.

use std::str::FromStr;

use bitcoin::secp256k1::PublicKey;
use sqlx::any::AnyRow;

use super::row::Columns;
use super::{Conn, StoreError, Tx};
use crate::clock::Timestamp;
use crate::ids::RequestId;
use crate::money::Sat;

/// How an opening stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The node is about to be asked, or its answer was lost.
    Asking,
    /// The node has begun.
    Opening,
    /// The channel is in use.
    Opened,
    /// The node said no: nothing was done.
    Refused,
    /// The node has no such channel, and did not say why.
    Gone,
}

impl State {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asking => "asking",
            Self::Opening => "opening",
            Self::Opened => "opened",
            Self::Refused => "refused",
            Self::Gone => "gone",
        }
    }

    #[must_use]
    pub const fn is_under_way(self) -> bool {
        match self {
            Self::Asking | Self::Opening => true,
            Self::Opened | Self::Refused | Self::Gone => false,
        }
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Asking, Self::Opening, Self::Opened, Self::Refused, Self::Gone];
        all.into_iter().find(|state| state.as_str() == text).ok_or_else(|| format!("{text} is no state of an opening"))
    }
}

/// A channel that the gateway has set out to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub id: RequestId,
    pub peer: PublicKey,
    pub amount: Sat,
    /// What its transaction was reckoned to cost.
    pub fee: Sat,
    /// The channels that we had opened with this peer before.
    pub had: Vec<String>,
    pub state: State,
    pub channel: Option<String>,
    /// Why it came to nothing.
    pub reason: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

fn read(row: &AnyRow) -> Result<Opening, StoreError> {
    let had: String = row.take("had")?;
    Ok(Opening {
        id: row.parsed("id")?,
        peer: row.parsed("peer")?,
        amount: row.sat("amount")?,
        fee: row.sat("fee")?,
        had: serde_json::from_str(&had).map_err(|error| StoreError::Corrupt(format!("column had: {error}")))?,
        state: row.parsed("state")?,
        channel: row.take("channel")?,
        reason: row.take("reason")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

/// Notes that the node is about to be asked; answers whether nothing else was under way. The row takes the time of the transaction.
///
/// # Errors
/// When the database can't do it.
pub async fn begin(tx: &mut Tx<'_>, opening: &Opening) -> Result<bool, StoreError> {
    let now = tx.now().millis();
    let had = serde_json::to_string(&opening.had).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let written = sqlx::query(
        "INSERT INTO liquidity_openings (id, peer, amount, fee, had, state, under_way, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $8) ON CONFLICT (under_way) DO NOTHING",
    )
    .bind(opening.id.to_string())
    .bind(opening.peer.to_string())
    .bind(opening.amount.as_bigint())
    .bind(opening.fee.as_bigint())
    .bind(had)
    .bind(State::Asking.as_str())
    .bind(now)
    .bind(now)
    .execute(tx.conn())
    .await?
    .rows_affected();
    Ok(written == 1)
}

/// Moves an opening that is under way; answers whether it still was.
///
/// # Errors
/// When the database can't do it.
pub async fn advance(
    tx: &mut Tx<'_>,
    id: RequestId,
    state: State,
    channel: Option<&str>,
    reason: Option<&str>,
) -> Result<bool, StoreError> {
    let now = tx.now().millis();
    let moved = sqlx::query(
        "UPDATE liquidity_openings SET state = $1, under_way = $2, channel = COALESCE($3, channel), reason = $4, \
         updated_at = $5 WHERE id = $6 AND under_way = 1",
    )
    .bind(state.as_str())
    .bind(state.is_under_way().then_some(1_i64))
    .bind(channel.map(str::to_owned))
    .bind(reason.map(str::to_owned))
    .bind(now)
    .bind(id.to_string())
    .execute(tx.conn())
    .await?
    .rows_affected();
    Ok(moved == 1)
}

/// The one that nobody knows the end of.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn under_way(conn: &mut Conn) -> Result<Option<Opening>, StoreError> {
    let row = sqlx::query("SELECT * FROM liquidity_openings WHERE under_way = 1").fetch_optional(conn).await?;
    row.as_ref().map(read).transpose()
}

/// The last ones, newest first.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn newest(conn: &mut Conn, most: u32) -> Result<Vec<Opening>, StoreError> {
    let rows = sqlx::query("SELECT * FROM liquidity_openings ORDER BY created_at DESC, id DESC LIMIT $1")
        .bind(i64::from(most))
        .fetch_all(conn)
        .await?;
    rows.iter().map(read).collect()
}

/// What was spent on those since a time. What was refused has cost nothing.
///
/// # Errors
/// When the database can't answer or the sum is absurd.
pub async fn spent_since(conn: &mut Conn, since: Timestamp) -> Result<Sat, StoreError> {
    let sql = "SELECT CAST(COALESCE(SUM(fee), 0) AS BIGINT) AS fee FROM liquidity_openings \
               WHERE created_at >= $1 AND state <> $2";
    let row = sqlx::query(sql).bind(since.millis()).bind(State::Refused.as_str()).fetch_one(conn).await?;
    row.sat("fee")
}

/// With whom one came to nothing since a time. One of which the node perhaps never heard says nothing about the peer.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn refused_since(conn: &mut Conn, since: Timestamp) -> Result<Vec<PublicKey>, StoreError> {
    let sql = "SELECT DISTINCT peer FROM liquidity_openings WHERE updated_at > $1 \
               AND (state = $2 OR (state = $3 AND channel IS NOT NULL))";
    let rows = sqlx::query(sql)
        .bind(since.millis())
        .bind(State::Refused.as_str())
        .bind(State::Gone.as_str())
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| row.parsed("peer")).collect()
}

/// Whether a withdrawal that was consented to has not been sent yet.
///
/// # Errors
/// When the database can't answer.
pub async fn withdrawals_wait(conn: &mut Conn) -> Result<bool, StoreError> {
    let sql = "SELECT key FROM effects WHERE done_at IS NULL AND key LIKE 'withdraw:%' LIMIT 1";
    Ok(sqlx::query(sql).fetch_optional(conn).await?.is_some())
}

/// What was last said of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub word: String,
    /// In a sentence; empty where the word says it all.
    pub detail: String,
    pub since: Timestamp,
}

/// # Errors
/// When the database can't answer.
pub async fn last_word(conn: &mut Conn, subject: &str) -> Result<Option<Word>, StoreError> {
    let row = sqlx::query("SELECT word, detail, since FROM liquidity_words WHERE subject = $1")
        .bind(subject.to_owned())
        .fetch_optional(conn)
        .await?;
    row.map(|row| Ok(Word { word: row.take("word")?, detail: row.take("detail")?, since: row.time("since")? }))
        .transpose()
}

/// Keeps what is said of a subject now; answers whether the word is another one than before.
///
/// # Errors
/// When the database can't do it.
pub async fn say(tx: &mut Tx<'_>, subject: &str, word: &str, detail: &str) -> Result<bool, StoreError> {
    let now = tx.now().millis();
    let changed = sqlx::query(
        "INSERT INTO liquidity_words (subject, word, detail, since) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (subject) DO UPDATE SET word = excluded.word, detail = excluded.detail, since = excluded.since \
         WHERE liquidity_words.word <> excluded.word",
    )
    .bind(subject.to_owned())
    .bind(word.to_owned())
    .bind(detail.to_owned())
    .bind(now)
    .execute(tx.conn())
    .await?
    .rows_affected();
    Ok(changed > 0)
}
