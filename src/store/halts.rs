//! Reasons for which no money goes out: nobody's, or that of one wallet. An alarm or an operator raises one; an operator clears it.

use sqlx::any::AnyRow;
use uuid::Uuid;

use super::row::Columns;
use super::{Conn, StoreError, Tx};
use crate::clock::Timestamp;
use crate::ids::WalletId;

/// Whom a halt stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Everybody,
    Wallet(WalletId),
}

impl Scope {
    /// Its kind and its subject, as they are stored. Of everybody there is no subject.
    #[must_use]
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Everybody => ("everybody", ""),
            Self::Wallet(wallet) => ("wallet", wallet.as_str()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    pub id: String,
    pub scope: Scope,
    pub reason: String,
    pub detail: String,
    pub created_at: Timestamp,
}

/// The chain was reorganised deeper than the operator allows.
pub const DEEP_REORG: &str = "deep_reorg";
/// The audit found the books and the world to differ.
pub const AUDIT_DRIFT: &str = "audit_drift";

/// Wallets own more than there is.
pub const INSOLVENT: &str = "insolvent";

/// The node paid more for routing than it was allowed, or paid what it had called failed.
pub const NODE_OVERSPENT: &str = "node_overspent";

/// An operator stopped payouts, and gave it no name of its own.
pub const OPERATOR: &str = "operator";

/// The names of alarms. An operator raises none of them: to clear one says something about what it was about.
pub const ALARMS: [&str; 4] = [DEEP_REORG, AUDIT_DRIFT, INSOLVENT, NODE_OVERSPENT];

/// # Errors
/// When the database can't do it.
pub async fn raise(tx: &mut Tx<'_>, reason: &str, detail: &str) -> Result<(), StoreError> {
    let now = tx.now().millis();
    sqlx::query(
        "INSERT INTO halts (id, reason, detail, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (reason) WHERE cleared_at IS NULL DO NOTHING",
    )
    .bind(Uuid::now_v7().to_string())
    .bind(reason.to_owned())
    .bind(detail.to_owned())
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Answers whether there was such a halt.
///
/// # Errors
/// When the database can't do it.
pub async fn clear(tx: &mut Tx<'_>, reason: &str) -> Result<bool, StoreError> {
    let now = tx.now().millis();
    let cleared = sqlx::query("UPDATE halts SET cleared_at = $1 WHERE reason = $2 AND cleared_at IS NULL")
        .bind(now)
        .bind(reason.to_owned())
        .execute(tx.conn())
        .await?
        .rows_affected();
    Ok(cleared > 0)
}

/// # Errors
/// When the database can't answer.
pub async fn in_force(conn: &mut Conn) -> Result<Vec<Halt>, StoreError> {
    let rows =
        sqlx::query("SELECT id, reason, detail, created_at FROM halts WHERE cleared_at IS NULL ORDER BY created_at")
            .fetch_all(conn)
            .await?;
    rows.iter().map(|row| read(row, Scope::Everybody)).collect()
}

fn read(row: &AnyRow, scope: Scope) -> Result<Halt, StoreError> {
    let (id, reason, detail) = (row.take("id")?, row.take("reason")?, row.take("detail")?);
    Ok(Halt { id, scope, reason, detail, created_at: row.time("created_at")? })
}

fn read_scoped(row: &AnyRow) -> Result<Halt, StoreError> {
    let scope = match row.take::<String>("scope")?.as_str() {
        "wallet" => Scope::Wallet(row.parsed("subject")?),
        other => return Err(StoreError::Corrupt(format!("a halt has the unknown scope {other}"))),
    };
    read(row, scope)
}

/// Every halt in force, whomever it stops; those of everybody first.
///
/// # Errors
/// When the database can't answer.
pub async fn all_in_force(conn: &mut Conn) -> Result<Vec<Halt>, StoreError> {
    let mut all = in_force(conn).await?;
    let rows = sqlx::query(
        "SELECT id, scope, subject, reason, detail, created_at FROM scoped_halts WHERE cleared_at IS NULL ORDER BY created_at, id",
    )
    .fetch_all(conn)
    .await?;
    for row in &rows {
        all.push(read_scoped(row)?);
    }
    Ok(all)
}

/// What stops the payouts of this wallet: a halt of everybody, or one of its own.
///
/// # Errors
/// When the database can't answer.
pub async fn stopping(conn: &mut Conn, wallet: &WalletId) -> Result<Option<Halt>, StoreError> {
    let row = sqlx::query(
        "SELECT id, 'everybody' AS scope, reason, detail, created_at FROM halts WHERE cleared_at IS NULL \
         UNION ALL SELECT id, scope, reason, detail, created_at FROM scoped_halts \
         WHERE scope = 'wallet' AND subject = $1 AND cleared_at IS NULL ORDER BY scope, created_at LIMIT 1",
    )
    .bind(wallet.to_string())
    .fetch_optional(conn)
    .await?;
    let read = |row: AnyRow| {
        let is_own = row.take::<String>("scope")? == "wallet";
        read(&row, if is_own { Scope::Wallet(wallet.clone()) } else { Scope::Everybody })
    };
    row.map(read).transpose()
}

/// Raises a halt of a scope; answers whether it was not in force before.
///
/// # Errors
/// When the database can't do it.
pub async fn raise_for(tx: &mut Tx<'_>, scope: &Scope, reason: &str, detail: &str) -> Result<bool, StoreError> {
    let now = tx.now().millis();
    let id = Uuid::now_v7().to_string();
    let query = match scope {
        Scope::Everybody => sqlx::query(
            "INSERT INTO halts (id, reason, detail, created_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (reason) WHERE cleared_at IS NULL DO NOTHING",
        ),
        Scope::Wallet(_) => sqlx::query(
            "INSERT INTO scoped_halts (id, reason, detail, created_at, scope, subject) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (scope, subject, reason) WHERE cleared_at IS NULL DO NOTHING",
        ),
    };
    let query = query.bind(id).bind(reason.to_owned()).bind(detail.to_owned()).bind(now);
    let query = match scope.parts() {
        ("everybody", _) => query,
        (kind, subject) => query.bind(kind).bind(subject.to_owned()),
    };
    Ok(query.execute(tx.conn()).await?.rows_affected() > 0)
}

/// Clears a halt of a scope; answers whether there was one.
///
/// # Errors
/// When the database can't do it.
pub async fn clear_for(tx: &mut Tx<'_>, scope: &Scope, reason: &str) -> Result<bool, StoreError> {
    let (kind, subject) = match scope.parts() {
        ("everybody", _) => return clear(tx, reason).await,
        parts => parts,
    };
    let now = tx.now().millis();
    let cleared = sqlx::query(
        "UPDATE scoped_halts SET cleared_at = $1 WHERE scope = $2 AND subject = $3 AND reason = $4 AND cleared_at IS NULL",
    )
    .bind(now)
    .bind(kind)
    .bind(subject.to_owned())
    .bind(reason.to_owned())
    .execute(tx.conn())
    .await?
    .rows_affected();
    Ok(cleared > 0)
}

/// How long an operator's word on a halt stands: long enough to walk back the blocks it was about.
const WORD_STANDS_MILLIS: i64 = 60 * 60 * 1_000;

/// Whether an operator cleared such a halt a short while ago, and so allowed what raised it.
///
/// # Errors
/// When the database can't answer.
pub async fn was_cleared_lately(tx: &mut Tx<'_>, reason: &str) -> Result<bool, StoreError> {
    let since = tx.now().millis() - WORD_STANDS_MILLIS;
    let row = sqlx::query("SELECT id FROM halts WHERE reason = $1 AND cleared_at > $2 LIMIT 1")
        .bind(reason.to_owned())
        .bind(since)
        .fetch_optional(tx.conn())
        .await?;
    Ok(row.is_some())
}
