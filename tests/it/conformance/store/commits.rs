//! What may happen between the beginning of a transaction and the answer to whoever wanted it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::future::join3;
use sluice::store::{Engine, StoreError, Write};
use tokio::sync::Semaphore;

use super::{Db, count, execute, on_both, until, work};

on_both!(
    a_panic_in_a_write_harms_nobody_else,
    a_caller_that_goes_away_leaves_nothing_half_done,
    a_write_that_hides_an_error_is_not_answered_as_done,
    a_reader_that_goes_away_in_a_snapshot_leaves_no_old_view,
    what_was_accepted_is_committed_before_the_store_closes,
);

const THERE: &str = "SELECT COUNT(*) FROM meta WHERE name LIKE 'test-%'";

fn insert(name: &str) -> String {
    format!("INSERT INTO meta (name, value) VALUES ('test-{name}', '')")
}

/// A gate that a write waits at, in the middle of what it does, and a sign that it has come there.
#[derive(Clone)]
struct Gate {
    reached: Arc<Semaphore>,
    opened: Arc<Semaphore>,
}

impl Gate {
    fn new() -> Self {
        Self { reached: Arc::new(Semaphore::new(0)), opened: Arc::new(Semaphore::new(0)) }
    }

    async fn pass(&self) {
        self.reached.add_permits(1);
        self.opened.acquire().await.expect("never closed").forget();
    }

    async fn is_reached(&self) {
        self.reached.acquire().await.expect("never closed").forget();
    }

    fn open(&self) {
        self.opened.add_permits(1);
    }
}

/// Inserts two rows, and waits at the gate between them.
fn two_rows(gate: &Gate) -> impl Write<Output = u64, Error = StoreError> + use<> {
    let gate = gate.clone();
    work(move |tx| {
        let gate = gate.clone();
        Box::pin(async move {
            execute(tx, &insert("first")).await?;
            gate.pass().await;
            execute(tx, &insert("second")).await
        })
    })
}

async fn a_panic_in_a_write_harms_nobody_else(db: Db) {
    for _ in 0..3 {
        let panics = work(|tx| {
            Box::pin(async move {
                execute(tx, &insert("panics")).await?;
                if tx.now().millis() > 0 {
                    panic!("as this test wants it");
                }
                Ok(())
            })
        });
        let answer = db.store.write(panics).await.expect_err("it panicked");
        assert!(matches!(answer, StoreError::Corrupt(_)), "{answer}");
    }
    db.sql(&insert("after")).await.expect("the writer goes on");
    assert_eq!(db.count(THERE).await, 1);
}

async fn a_caller_that_goes_away_leaves_nothing_half_done(db: Db) {
    let gate = Gate::new();
    let caller = tokio::spawn({
        let (store, write) = (db.store.clone(), two_rows(&gate));
        async move { store.write(write).await }
    });
    gate.is_reached().await;
    caller.abort();
    assert!(caller.await.expect_err("it was stopped").is_cancelled());
    assert_eq!(db.count(THERE).await, 0, "nothing is seen before it is whole");
    gate.open();
    until("what was begun is finished", || async { db.count(THERE).await == 2 }).await;
    db.sql(&insert("after")).await.expect("the writer goes on");
    if db.store.engine() == Engine::Postgres {
        assert_eq!(open_transactions(&db).await, 0);
    }
}

async fn open_transactions(db: &Db) -> i64 {
    db.count(
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
         AND state LIKE 'idle in transaction%'",
    )
    .await
}

/// PostgreSQL answers COMMIT of a failed transaction with a success that undoes it.
async fn a_write_that_hides_an_error_is_not_answered_as_done(db: Db) {
    let hides = work(|tx| {
        Box::pin(async move {
            execute(tx, &insert("kept")).await?;
            let hidden = execute(tx, "INSERT INTO meta (name, value) VALUES ('test-kept', '')").await;
            assert!(hidden.is_err(), "the name is taken");
            Ok(())
        })
    });
    let answer = db.store.write(hides).await;
    assert_eq!(answer.is_ok(), db.count(THERE).await == 1, "{answer:?}");
    // Whatever the answer was, no connection is left behind in the failed transaction.
    let reads = (0..40).map(|_| count(&db.store, THERE));
    for read in futures::future::join_all(reads).await {
        read.expect("connections are as good as new");
    }
    if db.store.engine() == Engine::Postgres {
        assert_eq!(open_transactions(&db).await, 0);
    }
}

async fn a_reader_that_goes_away_in_a_snapshot_leaves_no_old_view(db: Db) {
    for _ in 0..3 {
        let mut snapshot = db.store.snapshot().await.expect("a snapshot begins");
        sqlx::query("SELECT COUNT(*) FROM meta").fetch_one(&mut *snapshot).await.expect("it reads");
        drop(snapshot);
    }
    db.sql(&insert("after")).await.expect("writes go on");
    let reads = (0..40).map(|_| count(&db.store, THERE));
    for read in futures::future::join_all(reads).await {
        assert_eq!(read.expect("connections are as good as new"), 1);
    }
}

async fn what_was_accepted_is_committed_before_the_store_closes(db: Db) {
    let gate = Gate::new();
    let written = tokio::spawn({
        let (store, write) = (db.store.clone(), two_rows(&gate));
        async move { store.write(write).await }
    });
    gate.is_reached().await;
    let (closed, ()) = futures::join!(db.store.close(), async { gate.open() });
    let () = closed;
    written.await.expect("no panic").expect("it was accepted");
    let late = db.sql(&insert("late")).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    let again = Db::at(db.config.url.expose().to_owned(), None);
    drop(db.store);
    assert_eq!(again.await.count(THERE).await, 2);
}

// ---- writes that share a commit ----

/// Enqueues three writes while the writer is held up by a fourth, so that all of them share its commit.
async fn in_one_group(db: &Db, sqls: [&str; 3]) -> [Result<u64, StoreError>; 3] {
    let gate = Gate::new();
    let first = tokio::spawn({
        let (store, write) = (db.store.clone(), two_rows(&gate));
        async move { store.write(write).await }
    });
    gate.is_reached().await;
    let [a, b, c] = sqls;
    // Polled in turn: the three stand in the queue before the gate opens.
    let ((a, b, c), ()) = futures::join!(join3(db.sql(a), db.sql(b), db.sql(c)), async { gate.open() });
    drop(first.await.expect("no panic"));
    [a, b, c]
}

#[tokio::test]
async fn a_refused_write_of_a_group_is_undone_alone() {
    let db = Db::sqlite().await;
    let [before, refused, after] =
        in_one_group(&db, [&insert("before"), "INSERT INTO no_such_table VALUES (1)", &insert("after")]).await;
    assert!(before.is_ok() && after.is_ok(), "{before:?} {after:?}");
    assert!(refused.is_err());
    assert_eq!(db.count(THERE).await, 4);
}

#[tokio::test]
async fn nobody_of_a_group_is_told_what_was_not_committed() {
    let db = Db::sqlite().await;
    // A deferred foreign key that leads nowhere is found out by COMMIT alone.
    db.sql("CREATE TABLE orphans (parent TEXT REFERENCES meta (name) DEFERRABLE INITIALLY DEFERRED)")
        .await
        .expect("made");
    let taken = insert("first");
    let answers = in_one_group(&db, [&insert("neighbour"), &taken, "INSERT INTO orphans VALUES ('nobody')"]).await;
    for answer in answers {
        // Also the refusal: the row that it collided with is not there after all.
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    }
    assert_eq!(db.count(THERE).await, 0);
    db.sql(&taken).await.expect("the writer recovers without a restart");
    assert_eq!(db.count(THERE).await, 1);
}

// ---- writes that are run again ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serialization_failure_is_run_again() {
    let Some(db) = Db::postgres().await else { return };
    let runs = Arc::new(AtomicU32::new(0));
    let write = work({
        let runs = Arc::clone(&runs);
        move |tx| {
            let run = runs.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                if run < 2 {
                    execute(tx, "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$").await?;
                }
                execute(tx, &insert("third time")).await
            })
        }
    });
    db.store.write(write).await.expect("the third run goes through");
    assert_eq!(runs.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_run_again() {
    let Some(db) = Db::postgres().await else { return };
    db.sql(&insert("a")).await.expect("a row");
    db.sql(&insert("b")).await.expect("a row");
    let both_hold_one = Arc::new(tokio::sync::Barrier::new(2));
    let update = |first: &'static str, second: &'static str| {
        let (barrier, runs) = (Arc::clone(&both_hold_one), Arc::new(AtomicU32::new(0)));
        db.store.write(work(move |tx| {
            let (barrier, run) = (Arc::clone(&barrier), runs.fetch_add(1, Ordering::SeqCst));
            Box::pin(async move {
                execute(tx, "SET LOCAL deadlock_timeout = '20ms'").await?;
                execute(tx, &format!("UPDATE meta SET value = value || 'x' WHERE name = 'test-{first}'")).await?;
                if run == 0 {
                    barrier.wait().await;
                }
                execute(tx, &format!("UPDATE meta SET value = value || 'x' WHERE name = 'test-{second}'")).await
            })
        }))
    };
    let (one, other) = futures::join!(update("a", "b"), update("b", "a"));
    one.expect("run again");
    other.expect("run again");
    assert_eq!(db.count("SELECT COUNT(*) FROM meta WHERE value = 'xx'").await, 2, "each of them exactly once");
}
