//! `make bench`: the rows of what Sluice promises to be fast at, beside a bare loop of the same run on the same disk.
//!
//! Each row is measured several times; the table says the least, the median and the most. It is printed, and written to
//! docs/BENCHMARKS.md when the environment asks for it.

mod bare;
mod block;
mod fixture;
mod table;

use table::Table;

/// Times that each row is measured.
const RUNS: usize = 3;

#[tokio::main]
async fn main() {
    let mut table = Table::default();
    bare::measure(&mut table).await;
    block::measure(&mut table).await;
    print!("{table}");
}
