//! How fast a gateway with many wallets answers after a start, and what it takes of memory when nothing happens.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::RUNS;
use super::fixture::{Fixture, fill_wallets};
use super::offchain::{PAYMENTS, fill_payments};
use super::table::Table;

const WALLETS: u32 = 10_000;
const SCRIPTS: u32 = 100;
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

pub async fn measure(table: &mut Table) {
    let fixture = Fixture::new().await;
    fill_wallets(&mut fixture.line().await, WALLETS, SCRIPTS).await;
    let folder = fixture.close().await;
    let database = folder.path().join("sluice.db").display().to_string();
    fill_payments(&database, &format!("{:016x}", 0), PAYMENTS).await;
    let (mut starts, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (start, mebibytes) = one_start(&database).await;
        starts.push(start);
        memory.push(mebibytes);
    }
    table.row(
        format!("start to the first answer, {WALLETS} wallets and {PAYMENTS} payments"),
        "ms",
        starts,
        "goal: < 1 s; its bitcoind is down",
    );
    table.row("memory when idle", "MiB", memory, "goal: < 60 MiB; resident set");
}

async fn one_start(database: &str) -> (f64, f64) {
    let (api, operator) = (free_port(), free_port());
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .arg("serve")
        .env("SLUICE__HTTP__LISTEN", format!("127.0.0.1:{api}"))
        .env("SLUICE__OPERATOR__LISTEN", format!("127.0.0.1:{operator}"))
        .env("SLUICE__STORE__URL", format!("sqlite:{database}"))
        .env("SLUICE__CHAIN__BITCOIND__URL", format!("http://127.0.0.1:{}", free_port()))
        .env("SLUICE__CHAIN__BITCOIND__USER", "nobody")
        .env("SLUICE__CHAIN__BITCOIND__PASSWORD", "nothing")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the gateway starts");
    wait_for_answer(api, &mut child).await;
    let start = begun.elapsed().as_secs_f64() * 1_000.0;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let memory = resident_mebibytes(child.id());
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    (start, memory)
}

async fn wait_for_answer(port: u16, child: &mut Child) {
    let http = reqwest::Client::new();
    let deadline = Instant::now() + ANSWERS_WITHIN;
    // A wallet's call: without the headers it is answered 401, by the whole of the API's stack.
    while http.get(format!("http://127.0.0.1:{port}/deposits")).send().await.is_err() {
        assert!(matches!(child.try_wait(), Ok(None)), "the gateway ended");
        assert!(Instant::now() < deadline, "no answer in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn resident_mebibytes(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    let kibibytes: f64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    kibibytes / 1_024.0
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
