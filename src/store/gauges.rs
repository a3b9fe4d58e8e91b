//! Numbers for the metrics. Counted over what is open only, so that they cost the same however long the history is.

use super::row::Columns;
use super::{Conn, StoreError};
use crate::clock::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gauges {
    /// Kind, state, and how many there are.
    pub open_requests: Vec<(String, String, i64)>,
    pub effects_pending: i64,
    /// Since when the oldest of them waits.
    pub oldest_effect: Option<Timestamp>,
    /// Since when the oldest withdrawal waits to be sent.
    pub oldest_withdrawal: Option<Timestamp>,
    /// Wallets whose search for earlier coins is not done.
    pub wallets_to_scan: i64,
}

/// # Errors
/// When the database can't answer.
pub async fn count(conn: &mut Conn) -> Result<Gauges, StoreError> {
    // The two halves are the two partial indexes of what is open.
    let rows = sqlx::query(
        "SELECT kind, state, COUNT(*) AS number FROM requests WHERE state IN ('mined', 'seen') GROUP BY kind, state \
         UNION ALL \
         SELECT kind, state, COUNT(*) AS number FROM requests WHERE state IN ('open', 'awaiting_signature') \
         AND expires_at IS NOT NULL GROUP BY kind, state",
    )
    .fetch_all(&mut *conn)
    .await?;
    let open_requests = rows
        .iter()
        .map(|row| Ok((row.take("kind")?, row.take("state")?, row.take("number")?)))
        .collect::<Result<_, StoreError>>()?;
    let effects = sqlx::query(
        "SELECT COUNT(*) AS number, MIN(created_at) AS oldest, \
         MIN(CASE WHEN key LIKE 'withdraw:%' THEN created_at END) AS withdrawal FROM effects WHERE done_at IS NULL",
    )
    .fetch_one(&mut *conn)
    .await?;
    let wallets_to_scan =
        sqlx::query_scalar("SELECT COUNT(*) FROM wallets WHERE scanned_at IS NULL AND released_at IS NULL")
            .fetch_one(&mut *conn)
            .await?;
    Ok(Gauges {
        open_requests,
        effects_pending: effects.take("number")?,
        oldest_effect: effects.time_opt("oldest")?,
        oldest_withdrawal: effects.time_opt("withdrawal")?,
        wallets_to_scan,
    })
}
