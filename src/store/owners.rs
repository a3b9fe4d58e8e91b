//! Who acts for the whole gateway in a role. An owner that was away too long finds a newer epoch and writes nothing.

use std::time::Duration;

use async_trait::async_trait;

use super::row::Columns;
use super::{Conn, Engine, StoreError, Tx, Write};

/// How long an owner may be silent before another process takes over.
pub const LEASE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Follows the chain.
    Chain,
    /// Numbers events.
    Sequencer,
    /// Runs the Lightning node.
    Node,
}

impl Role {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::Sequencer => "sequencer",
            Self::Node => "node",
        }
    }
}

/// The time by which leases are judged, as SQL: one clock for all processes. Where the database is a server that is its own: a machine whose
/// clock is ahead would take every role from who is alive.
fn common_time(tx: &Tx<'_>) -> String {
    match tx.engine {
        Engine::Sqlite => tx.now().millis().to_string(),
        Engine::Postgres => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)".to_owned(),
    }
}

fn lease_millis() -> i64 {
    i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX)
}

/// The proof that this process owns a role. Every write in the role checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    pub role: Role,
    pub epoch: i64,
    pub holder: String,
}

/// Takes a role that nobody holds, or that its holder has left.
#[derive(Clone, Debug)]
pub struct Acquire {
    pub role: Role,
    /// A name for this process that no other process has.
    pub holder: String,
}

#[async_trait]
impl Write for Acquire {
    /// `None` when somebody else holds it.
    type Output = Option<Ownership>;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Option<Ownership>, StoreError> {
        let now = common_time(tx);
        let sql = format!(
            "INSERT INTO owners (role, epoch, holder, leased_until) VALUES ($1, 1, $2, {now} + $3) \
             ON CONFLICT (role) DO UPDATE SET epoch = owners.epoch + 1, holder = excluded.holder, leased_until = excluded.leased_until \
             WHERE owners.leased_until < {now} RETURNING epoch"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(self.role.as_str())
            .bind(self.holder.clone())
            .bind(lease_millis())
            .fetch_optional(tx.conn())
            .await?;
        let epoch = row.map(|row| row.take("epoch")).transpose()?;
        Ok(epoch.map(|epoch| Ownership { role: self.role, epoch, holder: self.holder.clone() }))
    }
}

/// Proves ownership inside the transaction that acts on it, and renews the lease. Nobody can take the role over before that
/// transaction ends, because the row is written.
///
/// # Errors
/// `Fenced` when a newer owner has taken over.
pub async fn fence(tx: &mut Tx<'_>, owner: &Ownership) -> Result<(), StoreError> {
    let now = common_time(tx);
    let sql = format!("UPDATE owners SET leased_until = {now} + $1 WHERE role = $2 AND epoch = $3 AND holder = $4");
    let held = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(lease_millis())
        .bind(owner.role.as_str())
        .bind(owner.epoch)
        .bind(owner.holder.clone())
        .execute(tx.conn())
        .await?
        .rows_affected();
    if held == 1 { Ok(()) } else { Err(StoreError::Fenced { role: owner.role.as_str() }) }
}

/// A write that is undone when a newer owner has taken over. Without an owner it is what it is.
#[derive(Clone, Debug)]
pub struct Fenced<W> {
    pub owner: Option<Ownership>,
    pub write: W,
}

#[async_trait]
impl<W: Write> Write for Fenced<W> {
    type Output = W::Output;
    type Error = W::Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<W::Output, W::Error> {
        if let Some(owner) = &self.owner {
            fence(tx, owner).await?;
        }
        self.write.run(tx).await
    }
}

/// Says that the owner is alive.
#[derive(Clone, Debug)]
pub struct Renew(pub Ownership);

#[async_trait]
impl Write for Renew {
    type Output = ();
    type Error = StoreError;
    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        fence(tx, &self.0).await
    }
}

/// Gives a role back, so that the next process need not wait for the lease to run out.
#[derive(Clone, Debug)]
pub struct Resign(pub Ownership);

#[async_trait]
impl Write for Resign {
    type Output = ();
    type Error = StoreError;
    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        sqlx::query("UPDATE owners SET leased_until = 0 WHERE role = $1 AND epoch = $2 AND holder = $3")
            .bind(self.0.role.as_str())
            .bind(self.0.epoch)
            .bind(self.0.holder.clone())
            .execute(tx.conn())
            .await?;
        Ok(())
    }
}

/// Frees every role, where it is known that no holder is alive. Epochs go on: an old one stays fenced.
pub(super) async fn resign_all(conn: &mut Conn) -> Result<(), StoreError> {
    sqlx::query("UPDATE owners SET leased_until = 0 WHERE leased_until > 0").execute(conn).await?;
    Ok(())
}

/// The present epoch of a role and who holds it.
///
/// # Errors
/// When the database can't answer.
pub async fn current(conn: &mut Conn, role: Role) -> Result<Option<Ownership>, StoreError> {
    let row = sqlx::query("SELECT epoch, holder FROM owners WHERE role = $1")
        .bind(role.as_str())
        .fetch_optional(conn)
        .await?;
    row.map(|row| Ok(Ownership { role, epoch: row.take("epoch")?, holder: row.take("holder")? })).transpose()
}
