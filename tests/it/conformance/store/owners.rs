//! Who may act for the whole gateway, and how a database keeps a second one out.

use std::process::Stdio;

use async_trait::async_trait;
use sluice::clock::Clock;
use sluice::secret::Secret;
use sluice::store::owners::{self, Acquire, LEASE, Ownership, Renew, Resign, Role};
use sluice::store::{Config, Store, StoreError, Tx, Write};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{Db, execute, on_both, until, work};

on_both!(
    a_role_has_one_owner_until_its_lease_is_over,
    an_owner_that_was_replaced_writes_nothing,
    a_resigned_role_is_free_at_once,
);

async fn acquire(store: &Store, holder: &str) -> Option<Ownership> {
    store.write(Acquire { role: Role::Chain, holder: holder.to_owned() }).await.expect("the database answers")
}

/// What an owner does: proves that it is one, and writes.
struct Act {
    owner: Ownership,
    name: &'static str,
    /// Proves it after it has written, which must not make a difference.
    late: bool,
}

#[async_trait]
impl Write for Act {
    type Output = ();
    type Error = StoreError;
    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        if !self.late {
            owners::fence(tx, &self.owner).await?;
        }
        execute(tx, &format!("INSERT INTO meta (name, value) VALUES ('test-{}', '')", self.name)).await?;
        if self.late {
            owners::fence(tx, &self.owner).await?;
        }
        Ok(())
    }
}

async fn a_role_has_one_owner_until_its_lease_is_over(db: Db) {
    let one = acquire(&db.store, "one").await.expect("nobody has it");
    assert_eq!(acquire(&db.store, "two").await, None);
    let sequencer = Acquire { role: Role::Sequencer, holder: "two".to_owned() };
    assert!(db.store.write(sequencer).await.expect("it answers").is_some(), "another role is another's");
    db.lapse(LEASE).await;
    db.store.write(Renew(one.clone())).await.expect("it still has it");
    db.lapse(LEASE / 2).await;
    assert_eq!(acquire(&db.store, "two").await, None, "it was renewed");
    db.lapse(LEASE).await;
    let two = acquire(&db.store, "two").await.expect("the lease is over");
    assert_eq!(two.epoch, one.epoch + 1);
    let mut conn = db.store.read().await.expect("a connection");
    assert_eq!(owners::current(&mut conn, Role::Chain).await.expect("it answers"), Some(two));
}

async fn an_owner_that_was_replaced_writes_nothing(db: Db) {
    let one = acquire(&db.store, "one").await.expect("nobody has it");
    db.lapse(LEASE * 2).await;
    // The same name is not the same owner: a process that was started again has another epoch.
    let two = acquire(&db.store, "one").await.expect("the lease is over");
    for late in [false, true] {
        let fenced = db.store.write(Act { owner: one.clone(), name: "old", late }).await;
        assert!(matches!(fenced, Err(StoreError::Fenced { role: "chain" })), "{fenced:?}");
    }
    assert!(matches!(db.store.write(Renew(one.clone())).await, Err(StoreError::Fenced { .. })));
    db.store.write(Resign(one)).await.expect("an old owner has nothing to give back");
    assert_eq!(acquire(&db.store, "three").await, None);
    db.store.write(Act { owner: two, name: "new", late: false }).await.expect("the owner writes");
    assert_eq!(db.count("SELECT COUNT(*) FROM meta WHERE name = 'test-old'").await, 0);
    assert_eq!(db.count("SELECT COUNT(*) FROM meta WHERE name = 'test-new'").await, 1);
}

async fn a_resigned_role_is_free_at_once(db: Db) {
    let one = acquire(&db.store, "one").await.expect("nobody has it");
    db.store.write(Resign(one.clone())).await.expect("it answers");
    let two = acquire(&db.store, "two").await.expect("nobody waits for the lease");
    assert!(matches!(db.store.write(Renew(one)).await, Err(StoreError::Fenced { .. })));
    db.store.write(Renew(two)).await.expect("it has it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_gateways_one_acts() {
    let Some(db) = Db::postgres().await else { return };
    let stores = [db.store.clone(), db.second_store().await];
    let asks = (0..32).map(|number| {
        let store = stores[number % 2].clone();
        tokio::spawn(async move { acquire(&store, &number.to_string()).await })
    });
    let owners: Vec<Ownership> =
        futures::future::join_all(asks).await.into_iter().filter_map(|ask| ask.expect("no panic")).collect();
    let [first] = &owners[..] else { panic!("not one owner: {owners:?}") };
    db.lapse(LEASE * 2).await;
    let second = acquire(&stores[1], "second").await.expect("the lease is over");
    let fenced = stores[0].write(Act { owner: first.clone(), name: "old", late: false }).await;
    assert!(matches!(fenced, Err(StoreError::Fenced { .. })), "{fenced:?}");
    stores[1].write(Act { owner: second, name: "new", late: false }).await.expect("the owner writes");
}

/// The clocks of two machines differ: the one that is ahead must not take what the other has.
#[tokio::test]
async fn a_machine_whose_clock_is_ahead_takes_no_role_from_who_is_alive() {
    let Some(db) = Db::postgres().await else { return };
    acquire(&db.store, "one").await.expect("nobody has it");
    db.clock.advance(LEASE * 100);
    let ahead = db.second_store().await;
    assert_eq!(acquire(&ahead, "two").await, None, "its lease is not over");
    db.lapse(LEASE * 2).await;
    acquire(&ahead, "two").await.expect("the lease is over");
}

/// A gateway that is stopped in the middle of a transaction holds the owner's row. The database lets go of it by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_stops_in_a_transaction_does_not_keep_its_role() {
    let Some(db) = Db::postgres().await else { return };
    let patience =
        db.count("SELECT CAST(setting AS BIGINT) FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'");
    let patience = patience.await;
    assert!((1..i64::try_from(LEASE.as_millis()).expect("a short time")).contains(&patience), "{patience} ms");
    let one = acquire(&db.store, "one").await.expect("nobody has it");
    let never = std::sync::Arc::new(tokio::sync::Notify::new());
    let stopped = {
        let (owner, never) = (one.clone(), std::sync::Arc::clone(&never));
        db.store.write(work(move |tx| {
            let (owner, never) = (owner.clone(), std::sync::Arc::clone(&never));
            Box::pin(async move {
                execute(tx, "SET LOCAL idle_in_transaction_session_timeout = 100").await?;
                owners::fence(tx, &owner).await?;
                never.notified().await;
                execute(tx, "INSERT INTO meta (name, value) VALUES ('test-old', '')").await
            })
        }))
    };
    let takes_over = async {
        let idle = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'";
        until("the owner stands in its transaction", || async { db.count(idle).await > 0 }).await;
        db.lapse(LEASE * 2).await;
        let two = acquire(&db.store, "two").await.expect("the lease is over, and the row is free");
        never.notify_one();
        two
    };
    let (woken, two) = futures::join!(stopped, takes_over);
    // Its connection is gone; tried on another one, it finds that it was replaced.
    assert!(matches!(woken, Err(StoreError::Unavailable(_) | StoreError::Fenced { .. })), "{woken:?}");
    assert!(matches!(db.store.write(Renew(one)).await, Err(StoreError::Fenced { .. })));
    db.store.write(Renew(two)).await.expect("it has the role");
    assert_eq!(db.count("SELECT COUNT(*) FROM meta WHERE name = 'test-old'").await, 0);
}

// ---- two processes on one SQLite file ----

const FOLDER: &str = "SLUICE_TEST_FOLDER";

fn config(folder: &std::path::Path, file: &str) -> Config {
    Config { url: Secret::new(format!("sqlite:{}", folder.join(file).display())), ..Config::default() }
}

/// Runs as a child process: opens the database, says so, and keeps it until it is killed.
#[tokio::test]
async fn child_that_keeps_the_database() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = Store::open(&config(folder.as_ref(), "sluice.db"), Clock::System).await.expect("it opens");
    let owner = acquire(&store, "child").await;
    println!("\nOPEN {}", owner.is_some());
    std::future::pending::<()>().await;
}

async fn start_child(folder: &std::path::Path) -> Child {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "conformance::store::owners::child_that_keeps_the_database", "--nocapture"])
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("this program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    while let Some(line) = lines.next_line().await.expect("text") {
        if line.starts_with("OPEN") {
            assert_eq!(line, "OPEN true");
            return child;
        }
    }
    panic!("the child did not open the database");
}

#[tokio::test]
async fn a_second_process_is_kept_out_of_a_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = |file: &'static str| {
        let config = config(folder.path(), file);
        async move { Store::open(&config, Clock::System).await.map(|_| ()) }
    };
    let mut child = start_child(folder.path()).await;
    std::os::unix::fs::symlink(folder.path().join("sluice.db"), folder.path().join("link.db")).expect("a link");
    for name in ["sluice.db", "link.db"] {
        let refused = open(name).await.expect_err("another process has it").to_string();
        let file = folder.path().join("sluice.db").display().to_string();
        assert!(refused.contains(&file), "{refused} does not name {file}");
    }
    open("sluice.other").await.expect("a file of a similar name is another database");
    child.kill().await.expect("it can be killed");
    open("sluice.db").await.expect("the lock went with the process");
}

/// Whoever held a role on SQLite is gone when the file can be opened: nobody waits for its lease.
#[tokio::test]
async fn a_role_on_sqlite_ends_with_the_process() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child = start_child(folder.path()).await;
    child.kill().await.expect("it can be killed");
    let store = Store::open(&config(folder.path(), "sluice.db"), Clock::System).await.expect("it opens");
    let owner = acquire(&store, "parent").await.expect("free at once");
    assert_eq!(owner.epoch, 2, "and the dead process is fenced all the same");
}

#[tokio::test]
async fn a_path_means_the_same_to_the_lock_and_to_the_database() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["with space.db", "with%41percent.db", "with#hash.db", "\u{fc}ber.db"] {
        let store = Store::open(&config(folder.path(), name), Clock::System).await.expect(name);
        assert!(folder.path().join(name).exists(), "{name} is not where it should be");
        drop(store);
    }
}
