//! Runs writes to their commit.
//!
//! On SQLite one task owns the only writing connection. It takes whatever waits, gives each write a savepoint of its own
//! and commits them together, so that one fsync answers many. On PostgreSQL each write has its own transaction from the
//! pool. In both, a write that lost a race is run again here, and nowhere else.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use sqlx::{AnyPool, AssertSqlSafe, Connection};
use tokio::sync::{mpsc, oneshot};

use super::{Conn, Engine, Retryable, StoreError, Tx, Write};
use crate::clock::Clock;

/// Writes that may share a commit. More would make the first of them wait too long.
const MOST_PER_COMMIT: usize = 128;
/// Writes that may wait. Beyond that callers are slowed down, not refused.
const QUEUE: usize = 4_096;
/// How often a write that lost a race is run again before its caller hears of it.
const ATTEMPTS: u32 = 12;
/// How often the outcome of a commit is asked for when the connection broke during it.
const COMMIT_INQUIRIES: u32 = 20;

pub(super) enum Writer {
    Sqlite { jobs: mpsc::Sender<Box<dyn Job>> },
    Postgres { pool: AnyPool, clock: Clock },
}

impl Writer {
    pub(super) fn start(engine: Engine, conn: Conn, pool: AnyPool, clock: Clock) -> Self {
        match engine {
            Engine::Sqlite => {
                let (jobs, queue) = mpsc::channel(QUEUE);
                tokio::spawn(write_in_groups(conn, queue, clock));
                Self::Sqlite { jobs }
            }
            Engine::Postgres => Self::Postgres { pool, clock },
        }
    }

    pub(super) async fn write<W: Write>(&self, write: W) -> Result<W::Output, W::Error> {
        let mut write = write;
        for attempt in 1.. {
            let (back, result) = match self {
                Self::Sqlite { jobs } => enqueue(jobs, write).await?,
                Self::Postgres { pool, clock } => write_apart(pool.clone(), clock.clone(), write).await?,
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

    /// Waits until everything that was accepted has been committed.
    pub(super) async fn close(&self) {
        if let Self::Sqlite { jobs } = self {
            let (reply, done) = oneshot::channel();
            if jobs.send(Box::new(Marker { reply })).await.is_ok() {
                // The marker is answered after the commit of all before it; a closed channel means the writer is gone already.
                drop(done.await);
            }
        }
    }
}

type Returned<W> = (W, Result<<W as Write>::Output, <W as Write>::Error>);

async fn enqueue<W: Write>(jobs: &mpsc::Sender<Box<dyn Job>>, write: W) -> Result<Returned<W>, StoreError> {
    let stopped = || StoreError::Unavailable("the writer has stopped".to_owned());
    let (reply, answer) = oneshot::channel();
    let job = WriteJob { write, result: None, reply };
    jobs.send(Box::new(job)).await.map_err(|_| stopped())?;
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
            (Some(Err(refused)), _) => Err(refused),
            (Some(Ok(output)), Ok(())) => Ok(output),
            (_, Err(reason)) => Err(StoreError::Unavailable(reason.to_owned()).into()),
            (None, Ok(())) => Err(StoreError::Unavailable("the write was not run".to_owned()).into()),
        };
        // A caller that went away does not need its answer; what was committed stays.
        drop(self.reply.send((self.write, result)));
    }
}

struct Marker {
    reply: oneshot::Sender<()>,
}

#[async_trait]
impl Job for Marker {
    async fn run(&mut self, _tx: &mut Tx<'_>) -> bool {
        true
    }
    fn answer(self: Box<Self>, _committed: Result<(), &str>) {
        // Whoever waited may have gone away.
        let _gone = self.reply.send(());
    }
}

async fn write_in_groups(mut conn: Conn, mut queue: mpsc::Receiver<Box<dyn Job>>, clock: Clock) {
    while let Some(first) = queue.recv().await {
        let mut group = vec![first];
        let committed = commit_group(&mut conn, &mut queue, &mut group, &clock).await;
        if committed.is_err() {
            // What is left of the transaction, if anything is; there may be none to roll back.
            drop(sqlx::raw_sql("ROLLBACK").execute(&mut conn).await);
        }
        let outcome = committed.map_err(|error| error.to_string());
        for job in group {
            job.answer(outcome.as_ref().copied().map_err(String::as_str));
        }
    }
    drop(conn.close().await);
}

/// Runs the first job and whatever has queued up behind it, then commits them all.
async fn commit_group(
    conn: &mut Conn,
    queue: &mut mpsc::Receiver<Box<dyn Job>>,
    group: &mut Vec<Box<dyn Job>>,
    clock: &Clock,
) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(Engine::Sqlite.begin()).execute(&mut *conn).await?;
    let mut done = 0;
    while let Some(job) = group.get_mut(done) {
        run_in_savepoint(conn, job.as_mut(), clock).await?;
        done += 1;
        if group.len() < MOST_PER_COMMIT
            && let Ok(next) = queue.try_recv()
        {
            group.push(next);
        }
    }
    crate::crash::point("store.before_commit");
    sqlx::raw_sql("COMMIT").execute(&mut *conn).await?;
    crate::crash::point("store.after_commit");
    Ok(())
}

async fn run_in_savepoint(conn: &mut Conn, job: &mut dyn Job, clock: &Clock) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("SAVEPOINT job").execute(&mut *conn).await?;
    let keep = job.run(&mut Tx { conn, engine: Engine::Sqlite, now: clock.now() }).await;
    if !keep {
        sqlx::raw_sql("ROLLBACK TO job").execute(&mut *conn).await?;
    }
    sqlx::raw_sql("RELEASE job").execute(&mut *conn).await?;
    Ok(())
}

/// A panic inside a write is a fault of ours; it must not leave a transaction open or take the writer down.
async fn run_guarded<W: Write>(write: &W, tx: &mut Tx<'_>) -> Result<W::Output, W::Error> {
    let result = AssertUnwindSafe(write.run(tx)).catch_unwind().await;
    result.unwrap_or_else(|_| Err(StoreError::Corrupt("a write panicked".to_owned()).into()))
}

/// In a task of its own: a caller that goes away must not leave a transaction half done on a pooled connection.
async fn write_apart<W: Write>(pool: AnyPool, clock: Clock, write: W) -> Result<Returned<W>, StoreError> {
    let task = tokio::spawn(async move {
        let result = write_alone(&pool, &clock, &write).await;
        (write, result)
    });
    task.await.map_err(|e| StoreError::Unavailable(format!("the write did not finish: {e}")))
}

async fn write_alone<W: Write>(pool: &AnyPool, clock: &Clock, write: &W) -> Result<W::Output, W::Error> {
    let mut conn = pool.acquire().await.map_err(StoreError::from)?;
    sqlx::raw_sql(Engine::Postgres.begin()).execute(&mut *conn).await.map_err(StoreError::from)?;
    let result = run_guarded(write, &mut Tx { conn: &mut conn, engine: Engine::Postgres, now: clock.now() }).await;
    match result {
        Ok(output) => match commit_known(pool, &mut conn).await {
            Ok(()) => Ok(output),
            Err(error) => {
                // Nobody knows what is open on it.
                drop(conn.detach());
                Err(error.into())
            }
        },
        Err(error) => {
            if sqlx::raw_sql("ROLLBACK").execute(&mut *conn).await.is_err() {
                // Never give a connection back with a transaction open on it.
                drop(conn.detach());
            }
            Err(error)
        }
    }
}

/// Commits, and when the connection breaks while it does, finds out what became of it before anybody is told.
async fn commit_known(pool: &AnyPool, conn: &mut Conn) -> Result<(), StoreError> {
    let transaction: String =
        sqlx::query_scalar("SELECT CAST(pg_current_xact_id() AS TEXT)").fetch_one(&mut *conn).await?;
    crate::crash::point("store.before_commit");
    let broken = match sqlx::raw_sql("COMMIT").execute(&mut *conn).await {
        Ok(_) => {
            crate::crash::point("store.after_commit");
            return Ok(());
        }
        Err(error) => StoreError::from(error),
    };
    for _ in 0..COMMIT_INQUIRIES {
        match commit_status(pool, &transaction).await {
            Ok(Some(status)) if status == "committed" => return Ok(()),
            Ok(Some(status)) if status == "aborted" => return Err(broken),
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(250)).await,
        }
    }
    Err(broken)
}

async fn commit_status(pool: &AnyPool, transaction: &str) -> Result<Option<String>, sqlx::Error> {
    // The number comes from the server and is all digits; the cast has no parameter form on every version.
    let digits: String = transaction.chars().filter(char::is_ascii_digit).collect();
    let query = format!("SELECT pg_xact_status(CAST('{digits}' AS xid8))");
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(pool).await
}
