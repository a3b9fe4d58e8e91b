//! Runs writes to their commit.
//!
//! On SQLite one task owns the only writing connection. It takes whatever waits, gives each write a savepoint of its own
//! and commits them together, so that one fsync answers many. On PostgreSQL each write has its own transaction from the
//! pool. In both, a write that lost a race is run again here, and nowhere else.

use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use sqlx::{AssertSqlSafe, Connection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::pool::{Pool, Taken};
use super::{Conn, Engine, Retryable, StoreError, Tx, Write};
use crate::clock::Clock;
use crate::secret::Secret;

/// Writes that may share a commit. More would make the first of them wait too long.
const MOST_PER_COMMIT: usize = 128;
/// Writes that may wait. Beyond that callers are slowed down, not refused.
const QUEUE: usize = 4_096;
/// How often a write that lost a race is run again before its caller hears of it.
const ATTEMPTS: u32 = 12;
/// How long a write on PostgreSQL may take before its commit. A server that hangs must not hang its callers for ever.
const LONGEST_RUN: Duration = Duration::from_secs(60);
/// How long a commit may take before it is asked from another connection what became of it.
const LONGEST_COMMIT: Duration = Duration::from_secs(30);
/// For how many times as long as a call waits for a connection that is asked. A server that starts again needs some seconds.
const INQUIRE_FOR: u32 = 4;
const INQUIRE_EVERY: Duration = Duration::from_millis(100);

/// How long commits take: what the disk, or the server, is worth.
const COMMIT_SECONDS: &str = "sluice_store_commit_seconds";

type Jobs = mpsc::Sender<Box<dyn Job>>;

pub(super) enum Writer {
    Sqlite {
        /// Empty once the store is closed.
        jobs: Mutex<Option<Jobs>>,
        task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    },
    Postgres(Apart),
}

impl Writer {
    /// The lock on the file is kept until the last write is committed, whoever is gone by then.
    pub(super) fn sqlite(conn: Conn, url: &Secret, lock: File, clock: Clock) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let groups = Groups { conn: Some(conn), url: url.clone(), clock, _lock: lock };
        let task = tokio::spawn(groups.write(queue));
        Self::Sqlite { jobs: Mutex::new(Some(jobs)), task: tokio::sync::Mutex::new(Some(task)) }
    }

    pub(super) fn postgres(pool: Pool, wait_ms: u64, clock: Clock) -> Self {
        Self::Postgres(Apart { pool, clock, inquire_for: Duration::from_millis(wait_ms) * INQUIRE_FOR })
    }

    pub(super) async fn write<W: Write>(&self, write: W) -> Result<W::Output, W::Error> {
        let mut write = write;
        for attempt in 1.. {
            let (back, result) = match self {
                Self::Sqlite { jobs, .. } => enqueue(jobs, write).await?,
                Self::Postgres(apart) => apart.clone().write(write).await?,
            };
            match result {
                Err(error) if error.is_retryable() && attempt < ATTEMPTS => write = back,
                done => return done,
            }
            let jitter = rand::random_range(0..=1u64 << attempt.min(6));
            tokio::time::sleep(Duration::from_millis(jitter)).await;
        }
        Err(StoreError::Conflict("a row").into())
    }

    /// How many writes wait for their commit. On PostgreSQL none waits in line.
    pub(super) fn waiting(&self) -> i64 {
        match self {
            Self::Sqlite { jobs, .. } => {
                let jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
                let waiting = jobs.as_ref().map_or(0, |jobs| jobs.max_capacity().saturating_sub(jobs.capacity()));
                i64::try_from(waiting).unwrap_or(i64::MAX)
            }
            Self::Postgres(_) => 0,
        }
    }

    /// Waits until everything that was accepted has been committed. Nothing is accepted any more.
    pub(super) async fn close(&self) {
        if let Self::Sqlite { jobs, task } = self {
            drop(jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
            if let Some(task) = task.lock().await.take() {
                // It ends when the queue does; a panic of its own has been told already.
                drop(task.await);
            }
        }
    }
}

type Returned<W> = (W, Result<<W as Write>::Output, <W as Write>::Error>);

async fn enqueue<W: Write>(jobs: &Mutex<Option<Jobs>>, write: W) -> Result<Returned<W>, StoreError> {
    let stopped = || StoreError::Unavailable("the store is closed".to_owned());
    let jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(stopped)?;
    let (reply, answer) = oneshot::channel();
    let job = WriteJob { write, result: None, reply };
    jobs.send(Box::new(job)).await.map_err(|_| stopped())?;
    // The queue ends when nobody can send to it.
    drop(jobs);
    answer.await.map_err(|_| stopped())
}

/// A write in the queue, without its type.
#[async_trait]
pub(super) trait Job: Send {
    /// Runs it; says whether its changes are to be kept.
    async fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Answers the caller, once the commit has returned.
    fn answer(self: Box<Self>, committed: Result<(), &str>);
}

struct WriteJob<W: Write> {
    write: W,
    result: Option<Result<W::Output, W::Error>>,
    reply: oneshot::Sender<Returned<W>>,
}

#[async_trait]
impl<W: Write> Job for WriteJob<W> {
    async fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        let result = run_guarded(&self.write, tx).await;
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn answer(self: Box<Self>, committed: Result<(), &str>) {
        let result = match (self.result, committed) {
            (Some(result), Ok(())) => result,
            // A refusal too: it may rest on what a neighbour wrote that was not committed either.
            (_, Err(reason)) => Err(StoreError::Unavailable(reason.to_owned()).into()),
            (None, Ok(())) => Err(StoreError::Unavailable("the write was not run".to_owned()).into()),
        };
        // A caller that went away does not need its answer; what was committed stays.
        drop(self.reply.send((self.write, result)));
    }
}

/// The one writing connection to SQLite, and whoever wants to write with it.
struct Groups {
    /// Empty after a failure: a connection that failed is not used again, so that whatever was wrong with it is gone.
    conn: Option<Conn>,
    url: Secret,
    clock: Clock,
    _lock: File,
}

impl Groups {
    async fn write(mut self, mut queue: mpsc::Receiver<Box<dyn Job>>) {
        while let Some(first) = queue.recv().await {
            let mut group = vec![first];
            let outcome = self.commit(&mut queue, &mut group).await.map_err(|error| error.to_string());
            for job in group {
                job.answer(outcome.as_ref().copied().map_err(String::as_str));
            }
        }
        if let Some(conn) = self.conn.take() {
            drop(conn.close().await);
        }
    }

    async fn commit(
        &mut self,
        queue: &mut mpsc::Receiver<Box<dyn Job>>,
        group: &mut Vec<Box<dyn Job>>,
    ) -> Result<(), StoreError> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => Engine::Sqlite.connect(self.url.expose()).await?,
        };
        match commit_group(&mut conn, queue, group, &self.clock).await {
            Ok(()) => {
                self.conn = Some(conn);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, writes = group.len(), "a commit failed");
                // Closing undoes what is left of the transaction, and is waited for: the next one needs its lock.
                drop(sqlx::raw_sql("ROLLBACK").execute(&mut conn).await);
                drop(conn.close().await);
                Err(error.into())
            }
        }
    }
}

/// Runs the first job and whatever has queued up behind it, then commits them all.
async fn commit_group(
    conn: &mut Conn,
    queue: &mut mpsc::Receiver<Box<dyn Job>>,
    group: &mut Vec<Box<dyn Job>>,
    clock: &Clock,
) -> Result<(), sqlx::Error> {
    let mut done = 0;
    let mut before = Before::Begin;
    while let Some(job) = group.get_mut(done) {
        before = run_in_savepoint(conn, job.as_mut(), clock, before).await?;
        done += 1;
        if group.len() < MOST_PER_COMMIT
            && let Ok(next) = queue.try_recv()
        {
            group.push(next);
        }
    }
    crate::crash::point("store.before_commit");
    let begun = Instant::now();
    sqlx::raw_sql("COMMIT").execute(&mut *conn).await?;
    crate::crash::point("store.after_commit");
    metrics::histogram!(COMMIT_SECONDS).record(begun.elapsed().as_secs_f64());
    Ok(())
}

/// What has to be said before a job has a savepoint of its own.
#[derive(Clone, Copy)]
enum Before {
    Begin,
    /// The one before it stays, and so its savepoint goes.
    Kept,
    /// The one before it left nothing behind but its savepoint.
    Undone,
}

/// Answers what the next job begins after. The last savepoint is released by the commit.
async fn run_in_savepoint(
    conn: &mut Conn,
    job: &mut dyn Job,
    clock: &Clock,
    before: Before,
) -> Result<Before, sqlx::Error> {
    match before {
        Before::Begin => {
            sqlx::raw_sql("BEGIN IMMEDIATE; SAVEPOINT job").execute(&mut *conn).await?;
        }
        Before::Kept => {
            sqlx::raw_sql("RELEASE job; SAVEPOINT job").execute(&mut *conn).await?;
        }
        Before::Undone => {}
    }
    if job.run(&mut Tx { conn, engine: Engine::Sqlite, now: clock.now() }).await {
        return Ok(Before::Kept);
    }
    sqlx::raw_sql("ROLLBACK TO job").execute(&mut *conn).await?;
    Ok(Before::Undone)
}

/// A panic inside a write is a fault of ours; it must not leave a transaction open or take the writer down.
async fn run_guarded<W: Write>(write: &W, tx: &mut Tx<'_>) -> Result<W::Output, W::Error> {
    let result = AssertUnwindSafe(write.run(tx)).catch_unwind().await;
    result.unwrap_or_else(|_| Err(StoreError::Corrupt("a write panicked".to_owned()).into()))
}

/// Each write in its own transaction, on a connection from the pool.
#[derive(Clone)]
pub(super) struct Apart {
    pool: Pool,
    clock: Clock,
    inquire_for: Duration,
}

impl Apart {
    /// In a task of its own: a caller that goes away must not leave a transaction half done on a pooled connection.
    async fn write<W: Write>(self, write: W) -> Result<Returned<W>, StoreError> {
        let task = tokio::spawn(async move {
            let result = self.run_and_commit(&write).await;
            (write, result)
        });
        task.await.map_err(|e| StoreError::InDoubt(format!("the write did not finish: {e}")))
    }

    async fn run_and_commit<W: Write>(&self, write: &W) -> Result<W::Output, W::Error> {
        let mut conn = self.pool.take().await?;
        match timeout(LONGEST_RUN, self.run(&mut conn, write)).await {
            Ok(Ok((transaction, output))) => {
                self.commit(conn, &transaction).await?;
                Ok(output)
            }
            Ok(Err(error)) => {
                roll_back(conn).await;
                Err(error)
            }
            Err(_) => {
                conn.discard();
                Err(StoreError::Unavailable("the database takes too long".to_owned()).into())
            }
        }
    }

    /// Answers also the number of the transaction, to ask for it should its commit break.
    async fn run<W: Write>(&self, conn: &mut Conn, write: &W) -> Result<(String, W::Output), W::Error> {
        let transaction = begin_numbered(conn).await?;
        let output = run_guarded(write, &mut Tx { conn, engine: Engine::Postgres, now: self.clock.now() }).await?;
        Ok((transaction, output))
    }

    /// Commits, and when the connection breaks while it does, finds out what became of it before anybody is told.
    async fn commit(&self, mut conn: Taken, transaction: &str) -> Result<(), StoreError> {
        crate::crash::point("store.before_commit");
        // COMMIT of a transaction that has failed undoes it and is answered as a success. The query before it is not.
        let begun = Instant::now();
        let broken = match timeout(LONGEST_COMMIT, sqlx::raw_sql("SELECT 1; COMMIT").execute(&mut *conn)).await {
            Ok(Ok(_)) => {
                crate::crash::point("store.after_commit");
                metrics::histogram!(COMMIT_SECONDS).record(begun.elapsed().as_secs_f64());
                return Ok(());
            }
            Ok(Err(error)) => StoreError::from(error),
            Err(_) => StoreError::Unavailable("the commit takes too long".to_owned()),
        };
        // Whoever asks needs a connection too: this one must not be in the way.
        conn.discard();
        let deadline = Instant::now() + self.inquire_for;
        loop {
            match self.status(transaction).await.as_deref() {
                Ok("committed") => return Ok(()),
                Ok("aborted") => return Err(broken),
                Ok(_) | Err(_) if Instant::now() < deadline => tokio::time::sleep(INQUIRE_EVERY).await,
                Ok(_) | Err(_) => return Err(StoreError::InDoubt(broken.to_string())),
            }
        }
    }

    async fn status(&self, transaction: &str) -> Result<String, StoreError> {
        // The number comes from the server and is all digits; the cast has no parameter form on every version.
        let digits: String = transaction.chars().filter(char::is_ascii_digit).collect();
        let query = format!("SELECT COALESCE(pg_xact_status(CAST('{digits}' AS xid8)), 'forgotten')");
        let mut conn = self.pool.take().await?;
        Ok(sqlx::query_scalar(AssertSqlSafe(query)).persistent(false).fetch_one(&mut *conn).await?)
    }
}

async fn begin_numbered(conn: &mut Conn) -> Result<String, StoreError> {
    let begin = format!("{}; SELECT CAST(pg_current_xact_id() AS TEXT) AS id", Engine::Postgres.begin());
    // All of the answer: what is asked for one row stops at the first of the two statements, which has none.
    let rows = sqlx::raw_sql(AssertSqlSafe(begin)).fetch_all(conn).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok(sqlx::Row::try_get(row, "id")?)
}

/// Never gives a connection back with a transaction open on it.
async fn roll_back(mut conn: Taken) {
    let undone = timeout(LONGEST_COMMIT, sqlx::raw_sql("ROLLBACK").execute(&mut *conn)).await;
    if !matches!(undone, Ok(Ok(_))) {
        conn.discard();
    }
}
