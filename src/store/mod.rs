//! The only room with SQL. One text serves SQLite and PostgreSQL; what differs between them is in `engine.rs`.
//!
//! Reads take a connection. Writes are values (`Write`): they can be run again when the database asks for it, and on
//! SQLite many of them share one commit. Nobody is answered before the commit has returned.

pub mod apply;
pub mod audit;
pub mod chain;
pub mod effects;
mod engine;
mod error;
pub mod events;
pub mod gauges;
pub mod halts;
pub mod idempotency;
pub mod issued;
pub mod keys;
pub mod leases;
pub mod ledger;
mod migrate;
pub mod owners;
pub mod requests;
mod row;
pub mod wallets;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool};

use crate::clock::{Clock, Timestamp};
use crate::ids::GatewayId;

pub use engine::Engine;
pub use error::{Retryable, StoreError};

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
}

impl Default for Config {
    fn default() -> Self {
        Self { url: crate::secret::Secret::new("sqlite:data/sluice.db"), connections: 16, wait_ms: 5_000 }
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
    pool: AnyPool,
    writer: writer::Writer,
    clock: Clock,
    gateway: GatewayId,
    /// Held as long as the store lives. Empty on PostgreSQL, where rows do the locking.
    _lock: Option<std::fs::File>,
}

impl Store {
    /// Opens the database, takes its lock, brings its schema up to date.
    ///
    /// # Errors
    /// When it can't be reached, another process has it, or its schema is newer than this program.
    pub async fn open(config: &Config, clock: Clock) -> Result<Self, StoreError> {
        let engine = Engine::of_url(config.url.expose())?;
        let lock = engine.lock(config.url.expose())?;
        let pool = engine.pool(config).await?;
        let mut first = engine.connect(config.url.expose()).await?;
        migrate::run(&mut first, engine, clock.now()).await?;
        let gateway = gateway_id(&mut first).await?;
        let writer = writer::Writer::start(engine, first, pool.clone(), clock.clone());
        Ok(Self { inner: Arc::new(Inner { engine, pool, writer, clock, gateway, _lock: lock }) })
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
    pub async fn read(&self) -> Result<PoolConnection<Any>, StoreError> {
        Ok(self.inner.pool.acquire().await?)
    }

    /// Runs a write to its commit.
    ///
    /// # Errors
    /// What the write itself refuses, or that the database could not commit it. Nothing has changed then.
    pub async fn write<W: Write>(&self, write: W) -> Result<W::Output, W::Error> {
        self.inner.writer.write(write).await
    }

    /// Finishes what was accepted and closes every connection.
    pub async fn close(&self) {
        self.inner.writer.close().await;
        self.inner.pool.close().await;
    }
}

async fn gateway_id(conn: &mut Conn) -> Result<GatewayId, StoreError> {
    sqlx::query("INSERT INTO meta (name, value) VALUES ('gateway', $1) ON CONFLICT (name) DO NOTHING")
        .bind(GatewayId::fresh().0)
        .execute(&mut *conn)
        .await?;
    let id: String = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'gateway'").fetch_one(conn).await?;
    Ok(GatewayId(id))
}

/// Ties a database to one chain, for ever: the first network that uses it is written down.
///
/// # Errors
/// When the database belongs to another chain.
pub async fn bind_network(conn: &mut Conn, genesis: &str) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO meta (name, value) VALUES ('genesis', $1) ON CONFLICT (name) DO NOTHING")
        .bind(genesis)
        .execute(&mut *conn)
        .await?;
    let bound: String = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'genesis'").fetch_one(conn).await?;
    if bound == genesis { Ok(()) } else { Err(StoreError::WrongNetwork { bound, asked: genesis.to_owned() }) }
}
