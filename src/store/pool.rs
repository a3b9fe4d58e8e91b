//! Connections that stay open and are handed from call to call.
//!
//! The pool of sqlx asks the database whether a connection still works when it is taken and again when it is given back: more work than
//! the one short query that most calls make in between. Here a connection is asked only when there is a reason to doubt it.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::error::{failures_seen, is_not_up_yet};
use super::{Config, Conn, Engine, StoreError};

/// A connection that rested for longer is asked whether it still works.
const DOUBTED_AFTER: Duration = Duration::from_secs(1);
/// One that nobody needed for so long is closed.
const LONGEST_REST: Duration = Duration::from_secs(600);
/// How long until a server that is not up yet is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub(super) struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    address: String,
    /// One for each connection that there may be.
    places: Arc<Semaphore>,
    most: u32,
    wait: Duration,
    /// The last one to rest is the first to work again. Empty once the pool is closed.
    resting: Mutex<Option<VecDeque<Resting>>>,
}

struct Resting {
    conn: Conn,
    since: Instant,
    /// Failures of any connection that had been seen when this one was taken last.
    failures: u64,
}

impl Resting {
    /// Nothing speaks against it: it worked a moment ago, and nothing has failed since.
    fn is_trusted(&self) -> bool {
        self.since.elapsed() < DOUBTED_AFTER && self.failures == failures_seen()
    }
}

impl Pool {
    pub(super) fn new(engine: Engine, address: String, config: &Config) -> Self {
        let most = config.connections.max(2);
        Self {
            inner: Arc::new(Inner {
                engine,
                address,
                places: Arc::new(Semaphore::new(most as usize)),
                most,
                wait: Duration::from_millis(config.wait_ms),
                resting: Mutex::new(Some(VecDeque::new())),
            }),
        }
    }

    /// # Errors
    /// When none becomes free in time, the database is out of reach, or the pool is closed.
    pub(super) async fn take(&self) -> Result<Taken, StoreError> {
        let deadline = Instant::now() + self.inner.wait;
        let begun = Instant::now();
        let place = timeout_at(deadline, Arc::clone(&self.inner.places).acquire_owned()).await;
        metrics::histogram!("sluice_store_pool_wait_seconds").record(begun.elapsed().as_secs_f64());
        let place = place.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        // Before it is used: a failure on the way is one that this connection may have had.
        let failures = failures_seen();
        let conn = match self.resting_one(deadline).await? {
            Some(conn) => conn,
            None => timeout_at(deadline, self.connect()).await.map_err(|_| sqlx::Error::PoolTimedOut)??,
        };
        Ok(Taken { conn: Some(conn), failures, pool: self.clone(), _place: place })
    }

    /// A view of the database that does not change.
    ///
    /// # Errors
    /// As `take`.
    pub(super) async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut taken = self.take().await?;
        sqlx::raw_sql(self.inner.engine.begin_snapshot()).execute(&mut *taken).await?;
        Ok(Snapshot { taken })
    }

    async fn resting_one(&self, deadline: Instant) -> Result<Option<Conn>, StoreError> {
        loop {
            let next = self.resting().as_mut().ok_or(sqlx::Error::PoolClosed)?.pop_back();
            let Some(mut resting) = next else { return Ok(None) };
            if resting.is_trusted() || matches!(timeout_at(deadline, resting.conn.ping()).await, Ok(Ok(()))) {
                return Ok(Some(resting.conn));
            }
        }
    }

    /// Waits for a server that is about to come up.
    async fn connect(&self) -> Result<Conn, StoreError> {
        loop {
            match self.try_connect().await {
                Err(error) if is_not_up_yet(&error) => tokio::time::sleep(AGAIN_AFTER).await,
                done => return Ok(done?),
            }
        }
    }

    async fn try_connect(&self) -> Result<Conn, sqlx::Error> {
        let mut conn = Conn::connect(&self.inner.address).await?;
        sqlx::raw_sql(AssertSqlSafe(self.inner.engine.settings())).execute(&mut conn).await?;
        Ok(conn)
    }

    fn give_back(&self, conn: Conn, failures: u64) {
        let mut all = self.resting();
        // A closed pool keeps nothing.
        let Some(resting) = all.as_mut() else { return };
        let is_over = resting.front().is_some_and(|oldest| oldest.since.elapsed() > LONGEST_REST);
        let unneeded = if is_over { resting.pop_front() } else { None };
        resting.push_back(Resting { conn, since: Instant::now(), failures });
        drop(all);
        drop(unneeded);
    }

    fn resting(&self) -> MutexGuard<'_, Option<VecDeque<Resting>>> {
        self.inner.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what is being done, and closes every connection. Whoever comes later is told so.
    pub(super) async fn close(&self) {
        let all = self.inner.places.acquire_many(self.inner.most).await;
        self.inner.places.close();
        drop(all);
        let resting = self.resting().take();
        for one in resting.into_iter().flatten() {
            drop(one.conn.close().await);
        }
    }
}

/// A connection that somebody uses. Dropping it gives it back.
pub struct Taken {
    /// Empty only while it is being dropped.
    conn: Option<Conn>,
    failures: u64,
    pool: Pool,
    _place: OwnedSemaphorePermit,
}

impl Taken {
    /// Closes it: nobody is to use it again.
    pub(super) fn discard(mut self) {
        drop(self.conn.take());
    }
}

impl Deref for Taken {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        // proof: only what consumes it takes the connection out.
        self.conn.as_ref().expect("it is there until it is dropped")
    }
}

impl DerefMut for Taken {
    fn deref_mut(&mut self) -> &mut Conn {
        // proof: only what consumes it takes the connection out.
        self.conn.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let conn = self.conn.take();
        // What panicked may have left something open on it.
        if let Some(conn) = conn.filter(|_| !std::thread::panicking()) {
            self.pool.give_back(conn, self.failures);
        }
    }
}

/// A connection on which a transaction that only reads is open. Dropping it ends both.
pub struct Snapshot {
    taken: Taken,
}

impl Deref for Snapshot {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.taken
    }
}

impl DerefMut for Snapshot {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.taken
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        drop(self.taken.conn.take());
    }
}
