//! A full disk, a database that is away, a wire that breaks: nobody is told what is not so, and all of it passes by itself.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sluice::clock::Clock;
use sluice::secret::Secret;
use sluice::store::{Config, Store, StoreError};
use tokio::process::Command;

use super::proxy::{Cut, Proxy};
use super::{Db, count, execute, sql, until, work};
use crate::harness::postgres::Cluster;

const THERE: &str = "SELECT COUNT(*) FROM meta WHERE name LIKE 'test-%'";
/// An answer that says "not now" has to come before its reader gives up.
const QUICK: Duration = Duration::from_secs(4);
/// What the stores here wait for a database.
const WAIT_MS: u64 = 500;

fn insert(name: &str) -> String {
    format!("INSERT INTO meta (name, value) VALUES ('test-{name}', '')")
}

fn assert_unavailable<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
}

// ---- SQLite: the disk ----

#[tokio::test]
async fn a_full_database_takes_no_write_and_recovers() {
    let db = Db::sqlite().await;
    // On the writer's own connection: no page more than there are.
    db.sql("CREATE TABLE bulk (data TEXT)").await.expect("a table");
    let full = work(|tx| {
        Box::pin(async move {
            execute(tx, "PRAGMA max_page_count = 1").await?;
            execute(tx, "INSERT INTO meta (name, value) VALUES ('test-swallowed', '')").await?;
            for _ in 0..64 {
                execute(tx, &format!("INSERT INTO bulk (data) VALUES ('{}')", "x".repeat(8_000))).await?;
            }
            Ok(())
        })
    });
    assert_unavailable(db.store.write(full).await);
    assert_eq!(db.count(THERE).await, 0);
    db.sql(&insert("after")).await.expect("the writer recovers without a restart");
    assert_eq!(db.count(THERE).await, 1);
    db.audit().await;
}

const FOLDER: &str = "SLUICE_TEST_FOLDER";

fn config(folder: &Path) -> Config {
    let url = Secret::new(format!("sqlite:{}", folder.join("sluice.db").display()));
    Config { url, ..Config::default() }
}

/// Runs this binary again with one test in it, and wants it to pass. A limit or an identity binds a whole process.
async fn run_child(prepare: &str, test: &str, folder: &Path) {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new("sh");
    child
        .args(["-c", &format!("{prepare} \"$@\""), "sh"])
        .arg(program)
        .args(["--exact", &format!("conformance::store::faults::{test}"), "--nocapture"])
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(super::DEADLINE, child.output()).await.expect("in time").expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("\nDONE"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs as a child process, where no file can grow for a while.
#[tokio::test]
async fn child_without_room() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = Store::open(&config(folder.as_ref()), Clock::System).await.expect("it opens");
    sql(&store, &insert("before")).await.expect("there is room");
    assert_eq!(count(&store, THERE).await.expect("it answers"), 1);
    let roomy = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(0), ..roomy }).expect("a limit may be lowered");
    let begun = Instant::now();
    let names: Vec<String> = (0..20).map(|number| insert(&number.to_string())).collect();
    for answer in futures::future::join_all(names.iter().map(|statement| sql(&store, statement))).await {
        assert_unavailable(answer);
    }
    assert_unavailable(sql(&store, &insert("alone")).await);
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
    assert_eq!(count(&store, THERE).await.expect("reads go on"), 1);
    setrlimit(Resource::Fsize, roomy).expect("and raised again");
    sql(&store, &insert("after")).await.expect("the writer recovers without a restart");
    assert_eq!(count(&store, THERE).await.expect("reads go on"), 2, "what was refused is not there");
    println!("\nDONE");
}

#[tokio::test]
async fn a_disk_without_room_takes_no_write_and_recovers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // The default is to kill who writes beyond the limit.
    run_child("trap '' XFSZ; exec", "child_without_room", folder.path()).await;
    let store = Store::open(&config(folder.path()), Clock::System).await.expect("it opens");
    assert_eq!(count(&store, THERE).await.expect("it answers"), 2);
}

/// Runs as a child process that may not write to the file: root may write to any.
#[tokio::test]
async fn child_that_may_not_write() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let refused = Store::open(&config(folder.as_ref()), Clock::System).await.err().expect("it can't be used");
    let said = refused.to_string();
    assert!(said.contains("sluice.db"), "{said} does not name the file");
    println!("\nDONE {said}");
}

#[tokio::test]
async fn a_read_only_file_is_refused_by_its_name() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(&config(folder.path()), Clock::System).await.expect("it opens");
    store.close().await;
    drop(store);
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("our file");
    mode(folder.path(), 0o777);
    mode(&folder.path().join("sluice.db.lock"), 0o666);
    mode(&folder.path().join("sluice.db"), 0o444);
    // A copy that everybody may run, wherever this one was built.
    let drop_rights = if rustix::process::geteuid().is_root() {
        format!(
            "cp \"$1\" '{folder}/it' && chmod 755 '{folder}/it' && shift && exec setpriv --reuid nobody --regid nogroup --clear-groups '{folder}/it'",
            folder = folder.path().display()
        )
    } else {
        "exec".to_owned()
    };
    run_child(&drop_rights, "child_that_may_not_write", folder.path()).await;
}

// ---- PostgreSQL: the wire and the server ----

/// A store on a server of its own, behind a wire that can be cut.
struct Wired {
    store: Store,
    /// Sees the database as it is.
    witness: Store,
    proxy: Proxy,
    cluster: Cluster,
}

impl Wired {
    async fn start() -> Option<Self> {
        let cluster = Cluster::private()?;
        cluster.database("wired").await;
        let proxy = Proxy::start(cluster.socket()).await;
        let open = |url: String, connections| async move {
            let config = Config { url: Secret::new(url), connections, wait_ms: WAIT_MS, ..Config::default() };
            Store::open(&config, Clock::System).await.expect("it opens")
        };
        let store = open(proxy.url("wired"), 4).await;
        let witness = open(cluster.url("wired"), 4).await;
        Some(Self { store, witness, proxy, cluster })
    }

    async fn there(&self) -> i64 {
        count(&self.witness, THERE).await.expect("the witness sees")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_read_back() {
    let Some(wired) = Wired::start().await else { return };
    wired.proxy.cut(Cut::AfterCommit);
    sql(&wired.store, &insert("done")).await.expect("it was committed, and that is found out");
    assert_eq!(wired.there().await, 1);
    wired.proxy.cut(Cut::BeforeCommit);
    assert_unavailable(sql(&wired.store, &insert("not done")).await);
    assert_eq!(wired.there().await, 1, "it never arrived");
    wired.proxy.cut(Cut::AfterCommitForGood);
    let answer = sql(&wired.store, &insert("who knows")).await;
    assert!(matches!(answer, Err(StoreError::InDoubt(_))), "neither done nor undone may be said: {answer:?}");
    assert_eq!(wired.there().await, 2);
    wired.proxy.cut(Cut::Nothing);
    until("the wire is mended", || async { sql(&wired.store, &insert("after")).await.is_ok() }).await;
    assert_eq!(wired.there().await, 3);
}

/// As many commits as there are connections lose their answers at once: finding out needs connections too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_under_many_commits_is_asked_what_became_of_them() {
    let Some(wired) = Wired::start().await else { return };
    let writes = (0..64).map(|number| {
        let (store, statement) = (wired.store.clone(), insert(&number.to_string()));
        tokio::spawn(async move { sql(&store, &statement).await })
    });
    let writes: Vec<_> = writes.collect();
    until("some are done", || async { wired.there().await > 4 }).await;
    wired.cluster.cut_power();
    wired.cluster.start();
    let mut done = 0;
    for (number, write) in writes.into_iter().enumerate() {
        let answer = write.await.expect("no panic");
        let there = format!("SELECT COUNT(*) FROM meta WHERE name = 'test-{number}'");
        until("the witness is back", || async { count(&wired.witness, &there).await.is_ok() }).await;
        let there = count(&wired.witness, &there).await.expect("the witness sees") == 1;
        match answer {
            Ok(_) => done += i64::from(there),
            Err(StoreError::Unavailable(_)) => assert!(!there, "{number} was said not to be done, and is"),
            Err(StoreError::InDoubt(_)) => done += i64::from(there),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(done, wired.there().await, "what was said to be done is there");
    until("writes go on", || async { sql(&wired.store, &insert("after")).await.is_ok() }).await;
}

/// A backend that is ended by its administrator while it commits has not committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_ended_while_it_commits_did_not() {
    let Some(db) = Db::postgres().await else { return };
    for statement in [
        "CREATE TABLE fatal (id TEXT)",
        "CREATE FUNCTION end_backend() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER fatal_commit AFTER INSERT ON fatal DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION end_backend()",
    ] {
        db.sql(statement).await.expect(statement);
    }
    let ends = work(|tx| {
        Box::pin(async move {
            execute(tx, &insert("never")).await?;
            execute(tx, "INSERT INTO fatal VALUES ('x')").await
        })
    });
    assert_unavailable(db.store.write(ends).await);
    assert_eq!(db.count(THERE).await, 0);
    db.sql(&insert("after")).await.expect("another connection does");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_said_to_be_and_comes_back() {
    let Some(wired) = Wired::start().await else { return };
    sql(&wired.store, &insert("before")).await.expect("it is there");
    // Gone altogether, and then there but deaf.
    wired.cluster.cut_power();
    assert_says_so(&wired.witness).await;
    wired.cluster.start();
    wired.proxy.cut(Cut::Everything);
    assert_says_so(&wired.store).await;
    wired.proxy.cut(Cut::Nothing);
    for store in [&wired.store, &wired.witness] {
        until("reads go on", || async { count(store, THERE).await.is_ok() }).await;
        until("writes go on", || async {
            sql(store, "UPDATE meta SET value = 'x' WHERE name = 'test-before'").await.is_ok()
        })
        .await;
    }
    assert_eq!(wired.there().await, 1);
}

async fn assert_says_so(store: &Store) {
    let begun = Instant::now();
    let writes = (0..16).map(|number| sql_of(store, number));
    for answer in futures::future::join_all(writes).await {
        assert_unavailable(answer);
    }
    assert_unavailable(count(store, THERE).await);
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
}

async fn sql_of(store: &Store, number: u32) -> Result<u64, StoreError> {
    sql(store, &insert(&format!("away-{number}"))).await
}
