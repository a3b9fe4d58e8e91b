//! What the machine does without us: an fsync, and a commit of one row by SQLite.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use sqlx::{Connection, Executor};

use super::RUNS;
use super::table::Table;

const FSYNCS: u32 = 200;
const COMMITS: u32 = 300;

/// Answers in a word what a row that commits stands beside.
pub async fn measure(table: &mut Table) -> String {
    let fsyncs = (0..RUNS).map(|_| fsync_millis()).collect();
    table.row("fsync of one page", "ms", fsyncs, "the disk of this run");
    let mut commits = Vec::new();
    for _ in 0..RUNS {
        commits.push(commits_per_second().await);
    }
    commits.sort_by(f64::total_cmp);
    let median = commits[commits.len() / 2];
    table.row("SQLite, one row a commit, one at a time", "/s", commits, "bare loop");
    format!("bare loop without group commit: {median:.0}/s")
}

fn fsync_millis() -> f64 {
    let mut file = tempfile::tempfile().expect("a temporary file");
    let page = [1u8; 4096];
    let start = Instant::now();
    for _ in 0..FSYNCS {
        file.write_all(&page).expect("it can be written");
        File::sync_data(&file).expect("it can be synced");
    }
    start.elapsed().as_secs_f64() * 1_000.0 / f64::from(FSYNCS)
}

async fn commits_per_second() -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("bare.db").display());
    let mut conn = sqlx::SqliteConnection::connect(&url).await.expect("SQLite opens");
    conn.execute(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT)",
    )
    .await
    .expect("it is set up");
    let start = Instant::now();
    for _ in 0..COMMITS {
        conn.execute("INSERT INTO t (x) VALUES ('one row of some length, as a request would be')")
            .await
            .expect("it inserts");
    }
    f64::from(COMMITS) / start.elapsed().as_secs_f64()
}
