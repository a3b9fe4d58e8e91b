//! Writes postings and keeps the balances that they add up to. Only `apply` posts.

use std::collections::BTreeSet;

use super::row::Columns;
use super::{Conn, Engine, StoreError, Tx};
use crate::ids::WalletId;
use crate::ledger::model::{Balance, Refusal, check_form};
use crate::ledger::{Account, HoldId, Kind, Posting};
use crate::money::{Amount, AssetId, Money};

/// Posts in order, all or, by the error that undoes the transaction, none.
pub(super) async fn post(tx: &mut Tx<'_>, postings: &[Posting]) -> Result<(), StoreError> {
    lock_in_one_order(tx, postings).await?;
    for posting in postings {
        post_one(tx, posting).await?;
    }
    collect_debts(tx, postings).await
}

/// Two transactions that write the same balances in another order would wait for each other. On SQLite there is one writer.
async fn lock_in_one_order(tx: &mut Tx<'_>, postings: &[Posting]) -> Result<(), StoreError> {
    if tx.engine == Engine::Sqlite {
        return Ok(());
    }
    let rows: BTreeSet<(&Account, &AssetId)> = postings
        .iter()
        .flat_map(|posting| [&posting.debit, &posting.credit].map(|account| (account, &posting.money.asset)))
        .collect();
    for (account, asset) in rows {
        sqlx::query(
            "INSERT INTO balances (account, asset, guarded, total, held) VALUES ($1, $2, $3, 0, 0) \
             ON CONFLICT (account, asset) DO UPDATE SET held = balances.held",
        )
        .bind(account.to_string())
        .bind(asset.to_string())
        .bind(i64::from(account.is_guarded()))
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}

async fn post_one(tx: &mut Tx<'_>, posting: &Posting) -> Result<(), StoreError> {
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
    let row = sqlx::query("DELETE FROM holds WHERE id = $1 RETURNING request_id, debit, asset, amount")
        .bind(hold.to_string())
        .fetch_optional(conn)
        .await?
        .ok_or(Refusal::NoSuchHold)?;
    let same = row.take::<String>("request_id")? == posting.request.to_string()
        && row.take::<String>("debit")? == posting.debit.to_string()
        && row.take::<String>("asset")? == posting.money.asset.to_string();
    if same { row.take("amount") } else { Err(Refusal::HoldMismatch.into()) }
}

/// A relative update that its own condition guards: no read before it, so no race.
async fn shift(conn: &mut Conn, account: &Account, asset: &AssetId, total: i64, held: i64) -> Result<(), StoreError> {
    if try_shift(conn, account, asset, total, held).await? {
        return Ok(());
    }
    let added = sqlx::query(
        "INSERT INTO balances (account, asset, guarded, total, held) VALUES ($1, $2, $3, 0, 0) ON CONFLICT (account, asset) DO NOTHING",
    )
    .bind(account.to_string())
    .bind(asset.to_string())
    .bind(i64::from(account.is_guarded()))
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if added == 1 && try_shift(conn, account, asset, total, held).await? {
        return Ok(());
    }
    let before = balance(conn, account, asset).await?;
    // What it was refused for may have changed since: then it is decided again.
    let refusal = before.shifted(total, held, account.is_guarded()).err();
    Err(refusal.map_or(StoreError::Conflict("the balance"), StoreError::from))
}

/// Whether there is such a balance, and the sum fits it. Neither engine is left to find an overflow: PostgreSQL ends the
/// transaction over it, SQLite goes on with a number that is no integer.
async fn try_shift(
    conn: &mut Conn,
    account: &Account,
    asset: &AssetId,
    total: i64,
    held: i64,
) -> Result<bool, StoreError> {
    let needed = held.checked_sub(total).ok_or(Refusal::Overflow)?;
    let written = sqlx::query(
        "UPDATE balances SET total = total + $1, held = held + $2 WHERE account = $3 AND asset = $4 \
         AND total BETWEEN $5 AND $6 AND held <= $7 \
         AND CASE WHEN guarded = 1 THEN total - held ELSE $8 END >= $8",
    )
    .bind(total)
    .bind(held)
    .bind(account.to_string())
    .bind(asset.to_string())
    .bind(i64::MIN - total.min(0))
    .bind(i64::MAX - total.max(0))
    .bind(i64::MAX - held.max(0))
    .bind(needed)
    .execute(conn)
    .await?
    .rows_affected();
    Ok(written == 1)
}

/// What a wallet has off-chain and nothing holds.
///
/// # Errors
/// When the database can't answer, or the balance makes no sense.
pub async fn available(conn: &mut Conn, wallet: &WalletId) -> Result<Amount, StoreError> {
    let balance = balance(conn, &Account::Wallet(wallet.clone()), &AssetId::Btc).await?;
    let free = balance.total.saturating_sub(balance.held);
    Amount::from_bigint(free).map_err(|_| StoreError::Corrupt(format!("the balance of {wallet} is negative")))
}

/// What a wallet owes after a reorganisation took back money that was spent.
///
/// # Errors
/// When the database can't answer, or the balance makes no sense.
pub async fn debt(conn: &mut Conn, wallet: &WalletId) -> Result<Amount, StoreError> {
    let owed = balance(conn, &Account::Debt(wallet.clone()), &AssetId::Btc).await?.total;
    Amount::from_bigint(owed.saturating_neg())
        .map_err(|_| StoreError::Corrupt(format!("the debt of {wallet} is overpaid")))
}

/// Pays the debts of wallets to which these postings have given something: a wallet that owes has nothing to spend.
async fn collect_debts(tx: &mut Tx<'_>, postings: &[Posting]) -> Result<(), StoreError> {
    for posting in postings {
        let Some(wallet) = enriched(posting) else { continue };
        let owed = debt(tx.conn(), wallet).await?;
        if owed.is_zero() {
            continue;
        }
        let paid = owed.min(available(tx.conn(), wallet).await?);
        if paid.is_zero() {
            continue;
        }
        let collected = Posting {
            id: posting.id.and_debt(),
            request: posting.request,
            debit: Account::Wallet(wallet.clone()),
            credit: Account::Debt(wallet.clone()),
            money: Money::btc(paid),
            kind: Kind::Post,
        };
        lock_in_one_order(tx, std::slice::from_ref(&collected)).await?;
        post_one(tx, &collected).await?;
    }
    Ok(())
}

/// The wallet that has more to spend after this posting.
fn enriched(posting: &Posting) -> Option<&WalletId> {
    let gains = match posting.kind {
        Kind::Post => &posting.credit,
        // Whatever was not used of a hold is free again.
        Kind::PostHold(_) => match &posting.credit {
            Account::Wallet(_) => &posting.credit,
            _ => &posting.debit,
        },
        Kind::VoidHold(_) => &posting.debit,
        Kind::Hold => return None,
    };
    match gains {
        Account::Wallet(wallet) if posting.money.asset == AssetId::Btc => Some(wallet),
        _ => None,
    }
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
