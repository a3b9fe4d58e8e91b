//! `make bench`: the rows of what Sluice promises to be fast at, beside a bare loop of the same run on the same disk.
//!
//! Each row is measured several times; the table says the least, the median and the most. It is printed, and written to
//! docs/BENCHMARKS.md when the environment asks for it.

mod api;
mod assets;
mod bare;
#[path = "../../tests/it/harness/bitcoind.rs"]
#[allow(dead_code, reason = "the bench needs a node that mines, the stories more")]
mod bitcoind;
mod block;
mod channel;
mod fixture;
mod offchain;
#[path = "../../tests/it/harness/postgres.rs"]
#[allow(dead_code, reason = "the bench needs one database of it, the stories more")]
mod postgres;
mod start;
mod table;

use table::Table;

/// Times that each row is measured.
const RUNS: usize = 3;

#[tokio::main]
async fn main() {
    let mut table = Table::default();
    // `make bench ARGS='-- assets'` measures these rows only, and writes no page, which would have lost the others.
    if std::env::args().any(|argument| argument == "assets") {
        assets::measure(&mut table).await;
        println!("{table}");
        return;
    }
    let bare_commits = bare::measure(&mut table).await;
    api::measure(&mut table, &bare_commits).await;
    offchain::measure(&mut table, &bare_commits).await;
    channel::measure(&mut table).await;
    assets::measure(&mut table).await;
    block::measure(&mut table).await;
    start::measure(&mut table).await;
    println!("{table}");
    if let Some(path) = std::env::var_os("SLUICE_BENCH_WRITE") {
        std::fs::write(path, page(&table)).expect("the page can be written");
    }
}

/// docs/BENCHMARKS.md.
fn page(table: &Table) -> String {
    format!(
        "# Benchmarks\n\nWritten by `make bench`. Each row was measured {RUNS} times in one run, on {cores} cores that the load generator shares, \
         in an optimised build. Figures of such a machine are noisy: compare a row with what stands beside it, not with another day.\n\n\
         The chain is one in memory, but for payments over a channel and for assets, so that no other row waits for a node; the databases are real files, durable on every commit.\n\n{table}",
        cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
    )
}
