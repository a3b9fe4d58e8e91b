//! What keys have used of their limits. It follows the postings of the payments that they consent to, in the same transaction; only `apply` writes it.

use super::row::Columns;
use super::{Conn, StoreError, Tx, grants};
use crate::clock::Timestamp;
use crate::domain::grant::{Limit, Window};
use crate::domain::{Machine, Request};
use crate::ids::{KeyId, RequestId};
use crate::ledger::{Kind, Posting};
use crate::money::{Amount, AssetId};

/// A limit, the period that it is now, and what of it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub limit: Limit,
    pub window: Window,
    pub used: Amount,
}

impl Budget {
    #[must_use]
    pub fn left(&self) -> Amount {
        self.limit.money.amount.checked_sub(self.used).unwrap_or(Amount::ZERO)
    }
}

/// The limits of a key as they stand.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn budgets(conn: &mut Conn, key: &KeyId, now: Timestamp) -> Result<Vec<Budget>, StoreError> {
    let mut all = Vec::new();
    for limit in grants::limits_of(conn, key).await? {
        let window = limit.period.window(now);
        let row = sqlx::query(
            "SELECT used FROM spending_budgets WHERE key_id = $1 AND asset = $2 AND period = $3 AND starts_at = $4",
        )
        .bind(key.to_string())
        .bind(limit.money.asset.to_string())
        .bind(limit.period.as_str())
        .bind(window.starts.millis())
        .fetch_optional(&mut *conn)
        .await?;
        let used = row.map(|row| row.take("used")).transpose()?.unwrap_or(0);
        all.push(Budget { limit, window, used: grants::amount(used)? });
    }
    Ok(all)
}

/// Counts what a transition posts: a hold in full, what is paid instead of what was held, and nothing for a hold that is freed.
pub(super) async fn follow<M: Machine>(
    tx: &mut Tx<'_>,
    request: &Request<M>,
    postings: &[Posting],
) -> Result<(), StoreError> {
    let Some(key) = request.machine.spending_key() else { return Ok(()) };
    for posting in postings {
        match posting.kind {
            Kind::Hold => take(tx, key, request, posting).await?,
            Kind::PostHold(_) => keep(tx, request.id, posting.money.amount).await?,
            Kind::VoidHold(_) => keep(tx, request.id, Amount::ZERO).await?,
            // It moves no money of the wallet.
            Kind::Post => {}
        }
    }
    Ok(())
}

async fn take<M: Machine>(
    tx: &mut Tx<'_>,
    key: &KeyId,
    request: &Request<M>,
    hold: &Posting,
) -> Result<(), StoreError> {
    let now = tx.now();
    sqlx::query("INSERT INTO key_payments (request_id, key_id, wallet_id, asset, amount, held_at) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(request.id.to_string())
        .bind(key.to_string())
        .bind(request.wallet.to_string())
        .bind(hold.money.asset.to_string())
        .bind(hold.money.amount.as_bigint())
        .bind(now.millis())
        .execute(tx.conn())
        .await?;
    let limits = limits_on(tx.conn(), key, &hold.money.asset).await?;
    if limits.is_empty() {
        return Err(StoreError::Corrupt(format!("the key {key} spends without a limit")));
    }
    for limit in limits {
        take_from(tx.conn(), key, &limit, hold.money.amount, now).await?;
    }
    Ok(())
}

/// In one order for all, so that no two transactions wait for each other.
async fn limits_on(conn: &mut Conn, key: &KeyId, asset: &AssetId) -> Result<Vec<Limit>, StoreError> {
    let all = grants::limits_of(conn, key).await?;
    Ok(all.into_iter().filter(|limit| limit.money.asset == *asset).collect())
}

/// A relative update that its own condition guards: no read before it, so no race.
async fn take_from(
    conn: &mut Conn,
    key: &KeyId,
    limit: &Limit,
    amount: Amount,
    now: Timestamp,
) -> Result<(), StoreError> {
    let exceeded = StoreError::Conflict("what is left of the key's limit");
    let Some(room) = limit.money.amount.checked_sub(amount) else { return Err(exceeded) };
    let window = limit.period.window(now);
    sqlx::query(
        "INSERT INTO spending_budgets (key_id, asset, period, starts_at, ends_at, used) VALUES ($1, $2, $3, $4, $5, 0) \
         ON CONFLICT (key_id, asset, period, starts_at) DO NOTHING",
    )
    .bind(key.to_string())
    .bind(limit.money.asset.to_string())
    .bind(limit.period.as_str())
    .bind(window.starts.millis())
    .bind(window.ends.millis())
    .execute(&mut *conn)
    .await?;
    let written = sqlx::query(
        "UPDATE spending_budgets SET used = used + $1 WHERE key_id = $2 AND asset = $3 AND period = $4 AND starts_at = $5 AND used <= $6",
    )
    .bind(amount.as_bigint())
    .bind(key.to_string())
    .bind(limit.money.asset.to_string())
    .bind(limit.period.as_str())
    .bind(window.starts.millis())
    .bind(room.as_bigint())
    .execute(conn)
    .await?
    .rows_affected();
    // Somebody else was first: it is decided again, and refused with what is left then.
    if written == 1 { Ok(()) } else { Err(exceeded) }
}

/// Of what was counted, keeps what was paid. The rest comes back to the periods that it was taken from.
async fn keep(tx: &mut Tx<'_>, request: RequestId, paid: Amount) -> Result<(), StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("the payment {request} by a key {what}"));
    let row = sqlx::query("SELECT key_id, asset, amount, held_at FROM key_payments WHERE request_id = $1")
        .bind(request.to_string())
        .fetch_optional(tx.conn())
        .await?
        .ok_or_else(|| corrupt("is counted nowhere"))?;
    let (key, asset, held_at) = (KeyId(row.take("key_id")?), row.parsed::<AssetId>("asset")?, row.time("held_at")?);
    let counted = grants::amount(row.take("amount")?)?;
    let back = counted.checked_sub(paid).ok_or_else(|| corrupt("cost more than was held"))?;
    sqlx::query("UPDATE key_payments SET amount = $1 WHERE request_id = $2")
        .bind(paid.as_bigint())
        .bind(request.to_string())
        .execute(tx.conn())
        .await?;
    for limit in limits_on(tx.conn(), &key, &asset).await? {
        let written = sqlx::query(
            "UPDATE spending_budgets SET used = used - $1 WHERE key_id = $2 AND asset = $3 AND period = $4 AND starts_at = $5",
        )
        .bind(back.as_bigint())
        .bind(key.to_string())
        .bind(asset.to_string())
        .bind(limit.period.as_str())
        .bind(limit.period.window(held_at).starts.millis())
        .execute(tx.conn())
        .await?
        .rows_affected();
        if written != 1 {
            return Err(corrupt("was taken from no budget"));
        }
    }
    Ok(())
}
