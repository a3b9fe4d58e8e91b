//! Writes postings and keeps the balances that they add up to. Only `apply` posts.

use super::row::Columns;
use super::{Conn, StoreError, Tx};
use crate::ledger::model::{Balance, Refusal, check_form};
use crate::ledger::{Account, HoldId, Kind, Posting};
use crate::money::AssetId;

pub(super) async fn post(tx: &mut Tx<'_>, posting: &Posting) -> Result<(), StoreError> {
    check_form(posting)?;
    insert(tx, posting).await?;
    let amount = posting.money.amount.as_bigint();
    match &posting.kind {
        Kind::Post => {
            shift(tx.conn(), &posting.debit, &posting.money.asset, -amount, 0).await?;
            shift(tx.conn(), &posting.credit, &posting.money.asset, amount, 0).await
        }
        Kind::Hold => {
            open_hold(tx.conn(), posting).await?;
            shift(tx.conn(), &posting.debit, &posting.money.asset, 0, amount).await
        }
        Kind::PostHold(hold) => {
            let held = close_hold(tx.conn(), hold, posting).await?;
            if held < amount {
                return Err(Refusal::HoldMismatch.into());
            }
            shift(tx.conn(), &posting.debit, &posting.money.asset, -amount, -held).await?;
            shift(tx.conn(), &posting.credit, &posting.money.asset, amount, 0).await
        }
        Kind::VoidHold(hold) => {
            let held = close_hold(tx.conn(), hold, posting).await?;
            if held != amount {
                return Err(Refusal::HoldMismatch.into());
            }
            shift(tx.conn(), &posting.debit, &posting.money.asset, 0, -held).await
        }
    }
}

async fn insert(tx: &mut Tx<'_>, posting: &Posting) -> Result<(), StoreError> {
    let (kind, hold) = match &posting.kind {
        Kind::Post => ("post", None),
        Kind::Hold => ("hold", None),
        Kind::PostHold(hold) => ("post_hold", Some(hold.to_string())),
        Kind::VoidHold(hold) => ("void_hold", Some(hold.to_string())),
    };
    let now = tx.now().millis();
    let written = sqlx::query(
        "INSERT INTO postings (id, request_id, kind, debit, credit, asset, amount, hold_id, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING",
    )
    .bind(posting.id.to_string())
    .bind(posting.request.to_string())
    .bind(kind)
    .bind(posting.debit.to_string())
    .bind(posting.credit.to_string())
    .bind(posting.money.asset.to_string())
    .bind(posting.money.amount.as_bigint())
    .bind(hold)
    .bind(now)
    .execute(tx.conn())
    .await
    .map_err(closed_twice)?
    .rows_affected();
    if written == 1 { Ok(()) } else { Err(Refusal::Duplicate.into()) }
}

/// A second posting that closes the same hold breaks the unique index on it.
fn closed_twice(error: sqlx::Error) -> StoreError {
    if error.as_database_error().is_some_and(|inner| inner.is_unique_violation()) {
        Refusal::NoSuchHold.into()
    } else {
        error.into()
    }
}

async fn open_hold(conn: &mut Conn, posting: &Posting) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO holds (id, request_id, debit, asset, amount) VALUES ($1, $2, $3, $4, $5)")
        .bind(posting.id.to_string())
        .bind(posting.request.to_string())
        .bind(posting.debit.to_string())
        .bind(posting.money.asset.to_string())
        .bind(posting.money.amount.as_bigint())
        .execute(conn)
        .await?;
    Ok(())
}

/// Takes the hold away and answers how much it held.
async fn close_hold(conn: &mut Conn, hold: &HoldId, posting: &Posting) -> Result<i64, StoreError> {
    let row = sqlx::query("DELETE FROM holds WHERE id = $1 RETURNING debit, asset, amount")
        .bind(hold.to_string())
        .fetch_optional(conn)
        .await?
        .ok_or(Refusal::NoSuchHold)?;
    let same_money = row.take::<String>("debit")? == posting.debit.to_string()
        && row.take::<String>("asset")? == posting.money.asset.to_string();
    if same_money { row.take("amount") } else { Err(Refusal::HoldMismatch.into()) }
}

/// A relative update that the table's own check guards: no read before it, so no race.
async fn shift(conn: &mut Conn, account: &Account, asset: &AssetId, total: i64, held: i64) -> Result<(), StoreError> {
    ensure_row(conn, account, asset).await?;
    let written = sqlx::query(
        "UPDATE balances SET total = total + $1, held = held + $2 WHERE account = $3 AND asset = $4 \
         AND (guarded = 0 OR total + $1 >= held + $2)",
    )
    .bind(total)
    .bind(held)
    .bind(account.to_string())
    .bind(asset.to_string())
    .execute(conn)
    .await
    .map_err(overflow)?
    .rows_affected();
    if written == 1 { Ok(()) } else { Err(Refusal::Insufficient.into()) }
}

async fn ensure_row(conn: &mut Conn, account: &Account, asset: &AssetId) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO balances (account, asset, guarded, total, held) VALUES ($1, $2, $3, 0, 0) ON CONFLICT (account, asset) DO NOTHING",
    )
    .bind(account.to_string())
    .bind(asset.to_string())
    .bind(i64::from(account.is_guarded()))
    .execute(conn)
    .await?;
    Ok(())
}

/// PostgreSQL says 22003. SQLite turns the sum into a float, which no longer is an integer of the table.
fn overflow(error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|inner| inner.code().map(|code| code.into_owned()));
    if code.as_deref() == Some("22003") { Refusal::Overflow.into() } else { error.into() }
}

/// The stored balance of an account. Zero when nothing was ever posted.
///
/// # Errors
/// When the database can't answer.
pub async fn balance(conn: &mut Conn, account: &Account, asset: &AssetId) -> Result<Balance, StoreError> {
    let row = sqlx::query("SELECT total, held FROM balances WHERE account = $1 AND asset = $2")
        .bind(account.to_string())
        .bind(asset.to_string())
        .fetch_optional(conn)
        .await?;
    row.map_or(Ok(Balance::default()), |row| Ok(Balance { total: row.take("total")?, held: row.take("held")? }))
}
