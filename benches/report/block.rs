//! A block of 2,000 transactions, with few wallets and with many: the time from block to committed state must not grow with them.

use std::time::Instant;

use sluice::flows::follow::{self, Progress};
use sluice::money::Sat;

use super::RUNS;
use super::fixture::{Fixture, fill_wallets, script};
use super::table::Table;

const TRANSACTIONS: u32 = 2_000;
/// Transactions of the block that pay a wallet here.
const OURS: u32 = 200;
/// Scripts a wallet in the fixture. A registered wallet has 2,000; the fixture has fewer so that it is made in seconds.
const SCRIPTS: u32 = 100;

pub async fn measure(table: &mut Table) {
    for wallets in [10, 10_000] {
        let fixture = Fixture::new().await;
        fill_wallets(&mut fixture.line().await, wallets, SCRIPTS).await;
        catch_up(&fixture).await;
        let mut times = Vec::new();
        for run in 0..RUNS {
            times.push(one_block(&fixture, wallets, run).await);
        }
        let what =
            format!("block of 2,000 transactions, {wallets} wallets with {SCRIPTS} scripts each, {OURS} deposits");
        table.row(what, "ms", times, "goal: < 100 ms with 10,000 wallets");
    }
}

async fn one_block(fixture: &Fixture, wallets: u32, run: usize) -> f64 {
    let run = u32::try_from(run).expect("few runs");
    for number in 0..TRANSACTIONS {
        let target = if number % (TRANSACTIONS / OURS) == 0 {
            script(number % wallets, (number / wallets + run * 10) % SCRIPTS)
        } else {
            script(u32::MAX - number, run)
        };
        let sat = Sat::new(10_000 + u64::from(number)).expect("an amount");
        let outputs = [(target, sat), (script(u32::MAX - number, run + 1_000), sat)];
        fixture.chain.pay_many(&outputs).expect("the fake pays");
    }
    fixture.chain.mine(1);
    let start = Instant::now();
    catch_up(fixture).await;
    start.elapsed().as_secs_f64() * 1_000.0
}

async fn catch_up(fixture: &Fixture) {
    while follow::step(&fixture.flows, &fixture.owner).await.expect("the follower steps") == Progress::Moved {}
}
