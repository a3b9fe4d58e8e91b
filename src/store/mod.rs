//! The only room with SQL. One text serves SQLite and PostgreSQL; what differs between them is in `engine.rs`.
//!
//! Reads take a connection. Writes are values (`Write`): they can be run again when the database asks for it, and on
//! SQLite many of them share one commit. Nobody is answered before the commit has returned.

pub mod apply;
pub mod asset_exports;
pub mod asset_issues;
pub mod asset_transfers;
pub mod audit;
pub mod audit_runs;
pub mod authorizations;
mod batch;
pub mod books;
pub mod chain;
pub mod consignments;
pub mod credits;
pub mod effects;
mod engine;
mod error;
pub mod events;
pub mod gauges;
pub mod grants;
pub mod halts;
pub mod idempotency;
pub mod issued;
pub mod keys;
pub mod leases;
pub mod ledger;
pub mod liquidity;
mod migrate;
pub mod node;
pub mod node_commits;
pub mod node_parts;
pub mod node_sends;
pub mod operator_calls;
pub mod owners;
pub mod payments;
mod pool;
pub mod requests;
mod row;
pub mod shelf;
pub mod spending;
pub mod standing;
pub mod wallets;
pub mod withdrawals;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;

use crate::clock::{Clock, Timestamp};
use crate::ids::GatewayId;

pub use engine::{Engine, LOCK_WITHIN};
pub use error::{Retryable, StoreError};
pub use pool::{Snapshot, Taken};

/// Rows of a page at most, whatever a caller asks for.
pub const PAGE_MAX: u32 = 500;

/// A connection, inside a transaction or not.
pub type Conn = AnyConnection;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `sqlite:path/to/file` or `postgres://user@host/database`.
    pub url: crate::secret::Secret,
    /// Connections of the pool. On SQLite they only read; one more writes.
    pub connections: u32,
    /// How long a call waits for a free connection.
    pub wait_ms: u64,
    /// Whether the schema is brought up to date. A flag of the command line, and no setting: `--no-migrate`.
    #[serde(skip)]
    pub migrate: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: crate::secret::Secret::new("sqlite:data/sluice.db"),
            connections: 16,
            wait_ms: 5_000,
            migrate: true,
        }
    }
}

impl Config {
    /// What files on this machine are named after that belong to this database.
    ///
    /// # Errors
    /// When the address is none of a database.
    pub fn local_name(&self) -> Result<std::path::PathBuf, StoreError> {
        engine::local_name(self.url.expose())
    }
}

/// A transaction in the making: what a `Write` is handed.
pub struct Tx<'c> {
    conn: &'c mut Conn,
    engine: Engine,
    now: Timestamp,
}

impl Tx<'_> {
    pub fn conn(&mut self) -> &mut Conn {
        self.conn
    }

    /// One time for everything that this transaction writes.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }
}

/// Everything that one transaction does, as a value that can be run again.
#[async_trait]
pub trait Write: Send + Sync + 'static {
    type Output: Send + 'static;
    type Error: From<StoreError> + Retryable + Send + 'static;

    /// An error undoes all of it.
    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Output, Self::Error>;
}

/// The database, opened, migrated and owned.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    pool: pool::Pool,
    writer: writer::Writer,
    clock: Clock,
    gateway: GatewayId,
}

impl Store {
    /// Opens the database, takes its lock, brings its schema up to date.
    ///
    /// # Errors
    /// When it can't be reached, another process has it, or its schema is newer than this program.
    pub async fn open(config: &Config, clock: Clock) -> Result<Self, StoreError> {
        let url = config.url.expose();
        let engine = Engine::of_url(url)?;
        let lock = engine.lock(url).await?;
        let missing = if config.migrate { migrate::Missing::Apply } else { migrate::Missing::Refuse };
        let (first, gateway) =
            prepare(engine, url, &clock, missing).await.map_err(|error| engine.name_file(url, error))?;
        engine.keep_private(url)?;
        let pool = engine.pool(config)?;
        let writer = match lock {
            Some(lock) => writer::Writer::sqlite(first, &config.url, lock, clock.clone()),
            None => writer::Writer::postgres(pool.clone(), config.wait_ms, clock.clone()),
        };
        Ok(Self { inner: Arc::new(Inner { engine, pool, writer, clock, gateway }) })
    }

    /// The same for a database that has to be there already: one that is not is an error, and is not made.
    ///
    /// # Errors
    /// As `open`, and when no gateway has used it.
    pub async fn open_existing(config: &Config, clock: Clock) -> Result<Self, StoreError> {
        let url = config.url.expose();
        Engine::of_url(url)?.require_existing(url).await?;
        Self::open(config, clock).await
    }

    #[must_use]
    pub fn engine(&self) -> Engine {
        self.inner.engine
    }

    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    #[must_use]
    pub fn gateway(&self) -> &GatewayId {
        &self.inner.gateway
    }

    /// A connection to read with.
    ///
    /// # Errors
    /// When none becomes free in time or the database is out of reach.
    pub async fn read(&self) -> Result<Taken, StoreError> {
        self.inner.pool.take().await
    }

    /// A view of the database that does not change while somebody looks at it. Dropping it ends it.
    ///
    /// # Errors
    /// When no connection becomes free in time or the database is out of reach.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.inner.pool.snapshot().await
    }

    /// Runs a write to its commit.
    ///
    /// # Errors
    /// What the write itself refuses, or that the database could not commit it. Nothing has changed then, but for
    /// `InDoubt`, which says that nobody knows.
    pub async fn write<W: Write>(&self, write: W) -> Result<W::Output, W::Error> {
        self.inner.writer.write(write).await
    }

    /// How many writes wait for their commit now.
    #[must_use]
    pub fn writes_waiting(&self) -> i64 {
        self.inner.writer.waiting()
    }

    /// Ties the database to the chain with this first block, for ever.
    ///
    /// # Errors
    /// When the database belongs to another chain.
    pub async fn bind_network(&self, genesis: &str) -> Result<(), StoreError> {
        self.write(BindNetwork { genesis: genesis.to_owned() }).await
    }

    /// Ties the database to the folder in which the state of assets lives, for ever.
    ///
    /// # Errors
    /// When the database belongs to another folder.
    pub async fn bind_asset_folder(&self, identity: &str) -> Result<(), StoreError> {
        self.write(BindAssetFolder { identity: identity.to_owned() }).await
    }

    /// Whether there is, or was, an engine for assets that belongs to this database, in this process or in another.
    ///
    /// # Errors
    /// When the database can't answer.
    pub async fn has_asset_folder(&self) -> Result<bool, StoreError> {
        let mut conn = self.read().await?;
        let row = sqlx::query("SELECT value FROM meta WHERE name = 'asset_folder'").fetch_optional(&mut *conn).await?;
        Ok(row.is_some())
    }

    /// Finishes what was accepted and closes every connection. Whatever comes later is told that the store is closed.
    pub async fn close(&self) {
        self.inner.writer.close().await;
        self.inner.pool.close().await;
    }
}

/// Brings the schema up to date and finds out who this gateway is.
async fn prepare(
    engine: Engine,
    url: &str,
    clock: &Clock,
    missing: migrate::Missing,
) -> Result<(Conn, GatewayId), StoreError> {
    let mut first = engine.connect(url).await?;
    migrate::run(&mut first, engine, clock.now(), missing).await?;
    if engine == Engine::Sqlite {
        // The file is ours alone: whoever held a role in it is gone, and nobody need wait for its lease.
        owners::resign_all(&mut first).await?;
    }
    let gateway = gateway_id(&mut first).await?;
    Ok((first, gateway))
}

async fn gateway_id(conn: &mut Conn) -> Result<GatewayId, StoreError> {
    sqlx::query("INSERT INTO meta (name, value) VALUES ('gateway', $1) ON CONFLICT (name) DO NOTHING")
        .bind(GatewayId::fresh().0)
        .execute(&mut *conn)
        .await?;
    let id: String = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'gateway'").fetch_one(conn).await?;
    Ok(GatewayId(id))
}

/// Changes nothing but when it was written: whether that works is what somebody wants to know.
#[derive(Clone, Copy, Debug)]
pub struct ProveWritable;

#[async_trait]
impl Write for ProveWritable {
    type Output = ();
    type Error = StoreError;
    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let now = tx.now().millis();
        sqlx::query("UPDATE meta SET value = $1 WHERE name = 'last_write'")
            .bind(now.to_string())
            .execute(tx.conn())
            .await?;
        Ok(())
    }
}

/// The state of assets is outside the database: both are of one gateway, and neither can be exchanged for another.
#[derive(Clone, Debug)]
struct BindAssetFolder {
    identity: String,
}

#[async_trait]
impl Write for BindAssetFolder {
    type Output = ();
    type Error = StoreError;
    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO meta (name, value) VALUES ('asset_folder', $1) ON CONFLICT (name) DO NOTHING")
            .bind(self.identity.clone())
            .execute(tx.conn())
            .await?;
        let bound: String =
            sqlx::query_scalar("SELECT value FROM meta WHERE name = 'asset_folder'").fetch_one(tx.conn()).await?;
        if bound == self.identity {
            return Ok(());
        }
        Err(StoreError::Misconfigured(format!(
            "assets.data_dir is folder {}, and this database belongs to folder {bound}; name that one, or restore it: \
             what it holds can't be made again",
            self.identity
        )))
    }
}

/// Ties a database to one chain, for ever: the first network that uses it is written down.
#[derive(Clone, Debug)]
struct BindNetwork {
    genesis: String,
}

#[async_trait]
impl Write for BindNetwork {
    type Output = ();
    type Error = StoreError;
    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO meta (name, value) VALUES ('genesis', $1) ON CONFLICT (name) DO NOTHING")
            .bind(self.genesis.clone())
            .execute(tx.conn())
            .await?;
        let bound: String =
            sqlx::query_scalar("SELECT value FROM meta WHERE name = 'genesis'").fetch_one(tx.conn()).await?;
        if bound == self.genesis {
            Ok(())
        } else {
            Err(StoreError::WrongNetwork { bound, asked: self.genesis.clone() })
        }
    }
}
