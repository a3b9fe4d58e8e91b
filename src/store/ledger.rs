//! Writes postings and keeps the balances that they add up to. Only `apply` posts.

use std::collections::BTreeSet;

use sqlx::AssertSqlSafe;

use super::batch::Batch;
use super::row::Columns;
use super::{Conn, Engine, StoreError, Tx};
use crate::clock::Timestamp;
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
        .flat_map(|posting| shifted_accounts(posting).map(|account| (account, &posting.money.asset)))
        .collect();
    // Whoever writes one row alone has nothing to wait for while it holds it.
    if rows.len() < 2 {
        return Ok(());
    }
    let places: Vec<String> = (0..rows.len())
        .map(|n| format!("(${}, ${}, CAST(${} AS BIGINT), 0, 0)", n * 3 + 1, n * 3 + 2, n * 3 + 3))
        .collect();
    let text = format!(
        "INSERT INTO balances (account, asset, guarded, total, held) VALUES {} \
         ON CONFLICT (account, asset) DO UPDATE SET held = balances.held",
        places.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(text));
    for (account, asset) in rows {
        query = query.bind(account.to_string()).bind(asset.to_string()).bind(i64::from(account.is_guarded()));
    }
    query.execute(tx.conn()).await?;
    Ok(())
}

/// Keeps the balance of a wallet, and what it owes, as they are until this transaction is over. On SQLite there is one writer.
///
/// # Errors
/// When the database can't do it.
pub async fn lock_wallet(tx: &mut Tx<'_>, wallet: &WalletId) -> Result<(), StoreError> {
    if tx.engine == Engine::Sqlite {
        return Ok(());
    }
    for account in [Account::Wallet(wallet.clone()), Account::Debt(wallet.clone())] {
        sqlx::query(
            "INSERT INTO balances (account, asset, guarded, total, held) VALUES ($1, $2, CAST($3 AS BIGINT), 0, 0) \
             ON CONFLICT (account, asset) DO UPDATE SET held = balances.held",
        )
        .bind(account.to_string())
        .bind(AssetId::Btc.to_string())
        .bind(i64::from(account.is_guarded()))
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}

/// The accounts whose balance a posting changes.
fn shifted_accounts(posting: &Posting) -> impl Iterator<Item = &Account> {
    let credit = match posting.kind {
        Kind::Post | Kind::PostHold(_) => Some(&posting.credit),
        Kind::Hold | Kind::VoidHold(_) => None,
    };
    [Some(&posting.debit), credit].into_iter().flatten()
}

async fn post_one(tx: &mut Tx<'_>, posting: &Posting) -> Result<(), StoreError> {
    check_form(posting)?;
    let amount = posting.money.amount.as_bigint();
    let mut batch = Batch::default();
    insert(&mut batch, posting, tx.now());
    let shifts = match &posting.kind {
        Kind::Post => vec![Shift::of(&posting.debit, -amount, 0), Shift::of(&posting.credit, amount, 0)],
        Kind::Hold => {
            open_hold(&mut batch, posting);
            vec![Shift::of(&posting.debit, 0, amount)]
        }
        Kind::PostHold(hold) => {
            let held = close_hold(tx.conn(), hold, posting).await?;
            if held < amount {
                return Err(refused(tx.conn(), posting, Refusal::HoldMismatch).await);
            }
            vec![Shift::of(&posting.debit, -amount, -held), Shift::of(&posting.credit, amount, 0)]
        }
        Kind::VoidHold(hold) => {
            let held = close_hold(tx.conn(), hold, posting).await?;
            if held != amount {
                return Err(refused(tx.conn(), posting, Refusal::HoldMismatch).await);
            }
            vec![Shift::of(&posting.debit, 0, -held)]
        }
    };
    write(tx, batch, &posting.money.asset, &shifts).await
}

/// Writes the entry and moves the balances. What did not move at once is looked into.
async fn write(tx: &mut Tx<'_>, mut batch: Batch, asset: &AssetId, shifts: &[Shift<'_>]) -> Result<(), StoreError> {
    for shift in shifts {
        shift.add(&mut batch, asset)?;
    }
    let done = batch.run_each(tx).await.map_err(closed_twice)?;
    if done.first() != Some(&true) {
        return Err(Refusal::Duplicate.into());
    }
    let moved = done.iter().rev().take(shifts.len()).rev();
    for (shift, _) in shifts.iter().zip(moved).filter(|(_, moved)| !**moved) {
        shift.run(tx, asset).await?;
    }
    Ok(())
}

fn insert(batch: &mut Batch, posting: &Posting, now: Timestamp) {
    let (kind, hold) = match &posting.kind {
        Kind::Post => ("post", None),
        Kind::Hold => ("hold", None),
        Kind::PostHold(hold) => ("post_hold", Some(hold.to_string())),
        Kind::VoidHold(hold) => ("void_hold", Some(hold.to_string())),
    };
    batch.add(
        "INSERT INTO postings (id, request_id, kind, debit, credit, asset, amount, hold_id, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING",
        [
            posting.id.to_string().into(),
            posting.request.to_string().into(),
            kind.into(),
            posting.debit.to_string().into(),
            posting.credit.to_string().into(),
            posting.money.asset.to_string().into(),
            posting.money.amount.as_bigint().into(),
            hold.into(),
            now.millis().into(),
        ],
        Refusal::Duplicate.into(),
    );
}

/// A second posting that closes the same hold breaks the unique index on it.
fn closed_twice(error: StoreError) -> StoreError {
    let is_twice = match &error {
        StoreError::Sql(inner) => inner.as_database_error().is_some_and(|inner| inner.is_unique_violation()),
        _ => false,
    };
    if is_twice { Refusal::NoSuchHold.into() } else { error }
}

fn open_hold(batch: &mut Batch, posting: &Posting) {
    batch.add(
        "INSERT INTO holds (id, request_id, debit, asset, amount) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING",
        [
            posting.id.to_string().into(),
            posting.request.to_string().into(),
            posting.debit.to_string().into(),
            posting.money.asset.to_string().into(),
            posting.money.amount.as_bigint().into(),
        ],
        Refusal::Duplicate.into(),
    );
}

/// Takes the hold away and answers how much it held.
async fn close_hold(conn: &mut Conn, hold: &HoldId, posting: &Posting) -> Result<i64, StoreError> {
    let row = sqlx::query("DELETE FROM holds WHERE id = $1 RETURNING request_id, debit, asset, amount")
        .bind(hold.to_string())
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = row else { return Err(refused(conn, posting, Refusal::NoSuchHold).await) };
    let same = row.take::<String>("request_id")? == posting.request.to_string()
        && row.take::<String>("debit")? == posting.debit.to_string()
        && row.take::<String>("asset")? == posting.money.asset.to_string();
    if same { row.take("amount") } else { Err(refused(conn, posting, Refusal::HoldMismatch).await) }
}

/// Why a posting about a hold is refused: before all, that it was made before.
async fn refused(conn: &mut Conn, posting: &Posting, why: Refusal) -> StoreError {
    let known = sqlx::query("SELECT id FROM postings WHERE id = $1").bind(posting.id.to_string());
    match known.fetch_optional(conn).await {
        Ok(Some(_)) => Refusal::Duplicate.into(),
        Ok(None) => why.into(),
        Err(error) => error.into(),
    }
}

/// A change of one balance: a relative update that its own condition guards, with no read before it and so no race.
struct Shift<'p> {
    account: &'p Account,
    total: i64,
    held: i64,
}

impl<'p> Shift<'p> {
    const fn of(account: &'p Account, total: i64, held: i64) -> Self {
        Self { account, total, held }
    }

    /// Writes its row if there is such a balance, and the sum fits it. Neither engine is left to find an overflow: PostgreSQL ends
    /// the transaction over it, SQLite goes on with a number that is no integer.
    fn add(&self, batch: &mut Batch, asset: &AssetId) -> Result<(), StoreError> {
        let Self { account, total, held } = *self;
        let needed = held.checked_sub(total).ok_or(Refusal::Overflow)?;
        batch.add(
            "UPDATE balances SET total = total + $1, held = held + $2 WHERE account = $3 AND asset = $4 \
             AND total BETWEEN $5 AND $6 AND held <= $7 \
             AND CASE WHEN guarded = 1 THEN total - held ELSE $8 END >= $8",
            [
                total.into(),
                held.into(),
                account.to_string().into(),
                asset.to_string().into(),
                (i64::MIN - total.min(0)).into(),
                (i64::MAX - total.max(0)).into(),
                (i64::MAX - held.max(0)).into(),
                needed.into(),
            ],
            StoreError::Conflict("the balance"),
        );
        Ok(())
    }

    /// The same where there may be no such balance yet, and says why it is refused.
    async fn run(&self, tx: &mut Tx<'_>, asset: &AssetId) -> Result<(), StoreError> {
        let added = sqlx::query(
            "INSERT INTO balances (account, asset, guarded, total, held) VALUES ($1, $2, $3, 0, 0) ON CONFLICT (account, asset) DO NOTHING",
        )
        .bind(self.account.to_string())
        .bind(asset.to_string())
        .bind(i64::from(self.account.is_guarded()))
        .execute(tx.conn())
        .await?
        .rows_affected();
        let mut again = Batch::default();
        self.add(&mut again, asset)?;
        if added == 1 && again.run_each(tx).await? == [true] {
            return Ok(());
        }
        let before = balance(tx.conn(), self.account, asset).await?;
        // What it was refused for may have changed since: then it is decided again.
        let refusal = before.shifted(self.total, self.held, self.account.is_guarded()).err();
        Err(refusal.map_or(StoreError::Conflict("the balance"), StoreError::from))
    }
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
    owed_by(wallet, balance(conn, &Account::Debt(wallet.clone()), &AssetId::Btc).await?.total)
}

/// A wallet's balance and what it owes, in one question.
///
/// # Errors
/// When the database can't answer, or a balance makes no sense.
pub async fn balance_and_debt(conn: &mut Conn, wallet: &WalletId) -> Result<(Balance, Amount), StoreError> {
    let (own, debt) = (Account::Wallet(wallet.clone()).to_string(), Account::Debt(wallet.clone()).to_string());
    let rows = sqlx::query("SELECT account, total, held FROM balances WHERE account IN ($1, $2) AND asset = $3")
        .bind(own.clone())
        .bind(debt)
        .bind(AssetId::Btc.to_string())
        .fetch_all(conn)
        .await?;
    let (mut balance, mut owed) = (Balance::default(), Amount::ZERO);
    for row in &rows {
        let total: i64 = row.take("total")?;
        if row.take::<String>("account")? == own {
            balance = Balance { total, held: row.take("held")? };
        } else {
            owed = owed_by(wallet, total)?;
        }
    }
    Ok((balance, owed))
}

fn owed_by(wallet: &WalletId, total: i64) -> Result<Amount, StoreError> {
    Amount::from_bigint(total.saturating_neg())
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
