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
#[path = "../../tests/it/harness/ports.rs"]
mod ports;
#[path = "../../tests/it/harness/postgres.rs"]
#[allow(dead_code, reason = "the bench needs one database of it, the stories more")]
mod postgres;
mod start;
mod table;

use table::Table;

/// Times that each row is measured.
const RUNS: usize = 3;

/// What is measured, in the order of the page.
const PARTS: [&str; 7] = ["bare", "api", "offchain", "channel", "assets", "block", "start"];

#[tokio::main]
async fn main() {
    // What a gateway finds wrong is seen, and not only that it answers no more.
    tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).with_writer(std::io::stderr).init();
    // `make bench ARGS='-- assets'` measures these rows only, and writes no page, which would have lost the others.
    let named: Vec<String> = std::env::args().filter(|argument| PARTS.contains(&argument.as_str())).collect();
    let mut table = Table::default();
    let mut bare_commits = String::new();
    for part in PARTS.into_iter().filter(|part| named.is_empty() || named.iter().any(|named| named == part)) {
        match part {
            "bare" => bare_commits = bare::measure(&mut table).await,
            "api" => api::measure(&mut table, &bare_commits).await,
            "offchain" => offchain::measure(&mut table, &bare_commits).await,
            "channel" => channel::measure(&mut table).await,
            "assets" => assets::measure(&mut table).await,
            "block" => block::measure(&mut table).await,
            _ => start::measure(&mut table).await,
        }
    }
    println!("{table}");
    if let Some(path) = std::env::var_os("SLUICE_BENCH_WRITE").filter(|_| named.is_empty()) {
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
