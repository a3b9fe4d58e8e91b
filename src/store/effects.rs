//! Things to be done outside, as rows. Who inserts one has it leased; who finds one with its lease over does it.

use std::time::Duration;

use bitcoin::Txid;
use sqlx::any::AnyRow;

use super::batch::Batch;
use super::row::{Columns, parse};
use super::{Conn, StoreError, Tx};
use crate::clock::Timestamp;
use crate::domain::Effect;
use crate::domain::lightning::PaymentHash;
use crate::ids::RequestId;

/// How long the inserting flow has an effect to itself. Longer than any call it makes.
const FLOW_LEASE: Duration = Duration::from_secs(20);
/// How long until a refused broadcast is offered again without a new block.
pub const RETRY_AFTER: Duration = Duration::from_secs(30);

/// What this process has, besides the chain.
#[derive(Clone, Copy, Debug)]
pub struct Able {
    pub node: bool,
    pub assets: bool,
}

/// How long an effect that could not be carried out rests at most.
const LONGEST_REST: Duration = Duration::from_secs(3_600);

/// An effect that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub key: String,
    pub attempts: i64,
    /// Empty where the row makes no sense. It must not keep the others from their turn.
    pub what: Option<(RequestId, Effect)>,
}

pub(super) fn arm(tx: &Tx<'_>, batch: &mut Batch, request: RequestId, effect: &Effect) {
    let now = tx.now();
    batch.add(
        "INSERT INTO effects (key, request_id, leased_until, attempts, created_at) VALUES ($1, $2, $3, 0, $4) \
         ON CONFLICT (key) DO UPDATE SET leased_until = excluded.leased_until, done_at = NULL",
        [effect.key().into(), request.to_string().into(), now.after(FLOW_LEASE).millis().into(), now.millis().into()],
        StoreError::Conflict("the effect"),
    );
}

/// Takes what is due, so that nobody else does it at the same time. What only the node or the engine for assets can do is left to who
/// has it.
///
/// # Errors
/// When the database can't do it or a row is corrupt.
pub async fn claim_due(tx: &mut Tx<'_>, limit: u32, able: Able) -> Result<Vec<Due>, StoreError> {
    let now = tx.now();
    let rows = sqlx::query(
        "UPDATE effects SET leased_until = $1, attempts = attempts + 1 WHERE done_at IS NULL AND leased_until <= $2 \
         AND key IN (SELECT key FROM effects WHERE done_at IS NULL AND leased_until <= $2 \
         AND (key LIKE 'broadcast:%' OR (key LIKE 'give_up:%' AND $5 = 1) \
         OR ((key LIKE 'pay:%' OR key LIKE 'withdraw:%' OR key LIKE 'claim:%') AND $4 = 1)) \
         ORDER BY leased_until LIMIT $3) \
         RETURNING key, request_id, attempts",
    )
    .bind(now.after(FLOW_LEASE).millis())
    .bind(now.millis())
    .bind(i64::from(limit))
    .bind(i64::from(able.node))
    .bind(i64::from(able.assets))
    .fetch_all(tx.conn())
    .await?;
    let read = |row: &AnyRow| {
        let (key, attempts): (String, i64) = (row.take("key")?, row.take("attempts")?);
        let request = row.parsed::<RequestId>("request_id");
        let what = request.and_then(|request| Ok((request, parse_key(&key)?)));
        let what = what.map_err(|error| tracing::error!(key, %error, "an effect makes no sense")).ok();
        Ok(Due { key, attempts, what })
    };
    rows.iter().map(read).collect()
}

fn parse_key(key: &str) -> Result<Effect, StoreError> {
    match key.split_once(':') {
        Some(("broadcast", txid)) => Ok(Effect::Broadcast(parse::<Txid>("effects.key", txid)?)),
        Some(("pay", request)) => Ok(Effect::Pay(parse::<RequestId>("effects.key", request)?)),
        Some(("withdraw", request)) => Ok(Effect::Withdraw(parse::<RequestId>("effects.key", request)?)),
        Some(("give_up", request)) => Ok(Effect::GiveUp(parse::<RequestId>("effects.key", request)?)),
        Some(("claim", hash)) => Ok(Effect::Claim(parse::<PaymentHash>("effects.key", hash)?)),
        _ => Err(StoreError::Corrupt(format!("an effect has the unknown key {key}"))),
    }
}

/// # Errors
/// When the database can't do it.
pub async fn done(tx: &mut Tx<'_>, effect: &Effect) -> Result<(), StoreError> {
    let now = tx.now().millis();
    sqlx::query("UPDATE effects SET done_at = $1, last_error = NULL WHERE key = $2 AND done_at IS NULL")
        .bind(now)
        .bind(effect.key())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Leaves it for later.
///
/// # Errors
/// When the database can't do it.
pub async fn postpone(tx: &mut Tx<'_>, effect: &Effect, error: &str) -> Result<(), StoreError> {
    let until = tx.now().after(RETRY_AFTER).millis();
    sqlx::query("UPDATE effects SET leased_until = $1, last_error = $2 WHERE key = $3 AND done_at IS NULL")
        .bind(until)
        .bind(error.to_owned())
        .bind(effect.key())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Leaves what could not be carried out for later, the longer the more often that was so. A block makes it due at once.
///
/// # Errors
/// When the database can't do it.
pub async fn back_off(tx: &mut Tx<'_>, due: &Due, error: &str) -> Result<(), StoreError> {
    let doublings = u32::try_from(due.attempts.saturating_sub(1).clamp(0, 16)).unwrap_or(16);
    let rest = RETRY_AFTER.saturating_mul(1 << doublings).min(LONGEST_REST);
    sqlx::query("UPDATE effects SET leased_until = $1, last_error = $2 WHERE key = $3 AND done_at IS NULL")
        .bind(tx.now().after(rest).millis())
        .bind(error.to_owned())
        .bind(due.key.clone())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Makes every unfinished effect due at once: a new block may have changed what a node thinks of it.
///
/// # Errors
/// When the database can't do it.
pub async fn wake_all(conn: &mut Conn, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE effects SET leased_until = $1 WHERE done_at IS NULL AND last_error IS NOT NULL AND leased_until > $1",
    )
    .bind(now.millis())
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes every unfinished effect due at once, whoever had it leased: the process that did may be gone. Doing one twice is harmless.
///
/// # Errors
/// When the database can't do it.
pub async fn take_over(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let now = tx.now().millis();
    sqlx::query("UPDATE effects SET leased_until = $1 WHERE done_at IS NULL AND leased_until > $1")
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Arms again what was done: the transaction has left the mempool.
///
/// # Errors
/// When the database can't do it.
pub async fn undo(tx: &mut Tx<'_>, effect: &Effect) -> Result<(), StoreError> {
    let now = tx.now().millis();
    sqlx::query("UPDATE effects SET done_at = NULL, leased_until = $1 WHERE key = $2")
        .bind(now)
        .bind(effect.key())
        .execute(tx.conn())
        .await?;
    Ok(())
}
