//! The event log: append-only, numbered in the order in which commits became readable, without gaps.

use serde_json::Value;
use uuid::Uuid;

use super::batch::Batch;
use super::row::Columns;
use super::{Conn, Engine, PAGE_MAX, StoreError, Tx, Write, owners};
use crate::clock::Timestamp;
use crate::domain::{Fact, event};
use crate::ids::{RequestId, WalletId};

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Empty on a request's timeline for an event that has no number yet.
    pub seq: Option<i64>,
    pub wallet: Option<WalletId>,
    pub request: Option<RequestId>,
    pub kind: String,
    pub data: Value,
    /// What the request's owner calls it.
    pub reference: Option<String>,
    pub label: Option<String>,
    pub created_at: Timestamp,
}

/// Events that one batch numbers.
const BATCH: i64 = 1_000;

/// # Errors
/// When the database can't do it.
pub async fn append(
    tx: &mut Tx<'_>,
    wallet: Option<&WalletId>,
    request: Option<RequestId>,
    fact: &Fact,
) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    add(tx, &mut batch, wallet, request, fact);
    batch.run(tx).await
}

/// Adds an event to what is about to be written.
pub(super) fn add(tx: &Tx<'_>, batch: &mut Batch, wallet: Option<&WalletId>, request: Option<RequestId>, fact: &Fact) {
    let id = Uuid::now_v7().to_string();
    let wallet = wallet.map(ToString::to_string);
    batch.add(
        "INSERT INTO events (id, wallet_id, request_id, kind, data, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        [
            id.clone().into(),
            wallet.clone().into(),
            request.map(|id| id.to_string()).into(),
            fact.kind().into(),
            fact.data().to_string().into(),
            tx.now().millis().into(),
        ],
        StoreError::Conflict("the event"),
    );
    let number = match tx.engine {
        // The single writer is alone in its transaction: the next number is its to take.
        Engine::Sqlite => {
            "INSERT INTO event_order (seq, event_id, wallet_id) SELECT COALESCE(MAX(seq), 0) + 1, $1, $2 FROM event_order"
        }
        // A counter would be held through every fsync. The sequencer numbers what has been committed.
        Engine::Postgres => "INSERT INTO events_unnumbered (event_id, wallet_id) VALUES ($1, $2)",
    };
    batch.add(number, [id.into(), wallet.into()], StoreError::Conflict("the event's number"));
}

/// Numbers a batch of committed events; answers how many there were.
#[derive(Clone, Debug)]
pub struct NumberEvents {
    pub owner: owners::Ownership,
}

#[async_trait::async_trait]
impl Write for NumberEvents {
    type Output = u64;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<u64, StoreError> {
        owners::fence(tx, &self.owner).await?;
        let numbered = sqlx::query(
            "INSERT INTO event_order (seq, event_id, wallet_id) \
             SELECT (SELECT COALESCE(MAX(seq), 0) FROM event_order) + ROW_NUMBER() OVER (ORDER BY u.event_id), u.event_id, u.wallet_id \
             FROM (SELECT event_id, wallet_id FROM events_unnumbered ORDER BY event_id LIMIT $1) u",
        )
        .bind(BATCH)
        .execute(tx.conn())
        .await?
        .rows_affected();
        if numbered > 0 {
            // Those that were numbered, and none that was committed meanwhile.
            sqlx::query(
                "DELETE FROM events_unnumbered WHERE event_id IN (SELECT event_id FROM event_order WHERE seq > \
                         (SELECT MAX(seq) FROM event_order) - $1)",
            )
            .bind(BATCH)
            .execute(tx.conn())
            .await?;
        }
        Ok(numbered)
    }
}

/// A wallet's events after a number, oldest first.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn after(conn: &mut Conn, wallet: &WalletId, after: i64, limit: u32) -> Result<Vec<Event>, StoreError> {
    let rows = sqlx::query(
        "SELECT o.seq, e.wallet_id, e.request_id, e.kind, e.data, e.created_at, r.reference, r.label FROM event_order o \
         JOIN events e ON e.id = o.event_id LEFT JOIN requests r ON r.id = e.request_id WHERE o.wallet_id = $1 AND o.seq > $2 ORDER BY o.seq LIMIT $3",
    )
    .bind(wallet.to_string())
    .bind(after)
    .bind(i64::from(limit.min(PAGE_MAX)))
    .fetch_all(conn)
    .await?;
    rows.iter().map(read).collect()
}

/// What happened to the gateway itself and to no wallet, after a number, oldest first.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn of_the_gateway(conn: &mut Conn, after: i64, limit: u32) -> Result<Vec<Event>, StoreError> {
    let rows = sqlx::query(
        "SELECT o.seq, e.wallet_id, e.request_id, e.kind, e.data, e.created_at, r.reference, r.label FROM event_order o \
         JOIN events e ON e.id = o.event_id LEFT JOIN requests r ON r.id = e.request_id WHERE o.wallet_id IS NULL AND o.seq > $1 ORDER BY o.seq LIMIT $2",
    )
    .bind(after)
    .bind(i64::from(limit.min(PAGE_MAX)))
    .fetch_all(conn)
    .await?;
    rows.iter().map(read).collect()
}

/// Everything that happened to a request, oldest first.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn timeline(conn: &mut Conn, request: RequestId) -> Result<Vec<Event>, StoreError> {
    let rows = sqlx::query(
        "SELECT o.seq, e.wallet_id, e.request_id, e.kind, e.data, e.created_at, r.reference, r.label FROM events e \
         LEFT JOIN event_order o ON o.event_id = e.id LEFT JOIN requests r ON r.id = e.request_id WHERE e.request_id = $1 ORDER BY e.created_at, e.id LIMIT 1000",
    )
    .bind(request.to_string())
    .fetch_all(conn)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &sqlx::any::AnyRow) -> Result<Event, StoreError> {
    let (kind, data): (String, String) = (row.take("kind")?, row.take("data")?);
    let stored = serde_json::from_str(&data).map_err(|e| StoreError::Corrupt(format!("event data: {e}")))?;
    Ok(Event {
        seq: row.take("seq")?,
        wallet: row.parsed_opt("wallet_id")?,
        request: row.parsed_opt("request_id")?,
        data: event::lift(&kind, stored),
        kind,
        reference: row.take("reference")?,
        label: row.take("label")?,
        created_at: row.time("created_at")?,
    })
}
