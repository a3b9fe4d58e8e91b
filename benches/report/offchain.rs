//! The Lightning rail without a channel: invoices, transfers in the books, and the list of payments. The node is one in memory.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use sluice::clock::Clock;
use sluice::connectors::fake::{FakeNetwork, FakeNode};
use sluice::money::{Amount, Sat};
use sluice::ports::lightning::{Destination, LightningNode, Payment, PaymentId};
use sluice::store::owners::Ownership;
use sluice::workers::{NodeFailure, NodeHost};
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};

use super::api::{Bench, IN_FLIGHT, load, runs};
use super::table::Table;
use super::{RUNS, postgres};

const INVOICES: u64 = 5_000;
const TRANSFERS: u64 = 1_000;
pub const PAYMENTS: u64 = 1_000_000;
const LISTS: u64 = 5_000;
const CHANNEL: Sat = Sat::literal(1_000_000_000_000);
/// What each wallet has off-chain: enough for every transfer.
const PURSE: u64 = 1_000_000_000;

/// The gateway's node, and one that pays its invoices.
#[derive(Clone)]
pub struct Nodes {
    node: Arc<FakeNode>,
    payer: Arc<FakeNode>,
}

impl Nodes {
    pub fn new() -> Self {
        let network = FakeNetwork::new(Clock::System);
        let (node, payer) = (network.add_node(), network.add_node());
        network.open(&node, &payer, CHANNEL, CHANNEL);
        Self { node, payer }
    }

    async fn pay(&self, invoice: &serde_json::Value, amount: Amount) {
        let hash = invoice["payment_hash"].as_str().expect("a hash").parse().expect("a hash");
        let destination = Destination::Bolt11(invoice["invoice"].as_str().expect("an invoice").to_owned());
        let payment = Payment { id: PaymentId(rand::random()), hash, destination, amount, max_fee: Amount::ZERO };
        self.payer.pay(&payment).await;
    }
}

#[async_trait]
impl NodeHost for Nodes {
    async fn start(&self, _owner: Ownership) -> Result<Arc<dyn LightningNode>, NodeFailure> {
        Ok(self.node.clone())
    }

    async fn stop(&self) {}
}

pub async fn measure(table: &mut Table, bare_commits: &str) {
    let mut databases = vec![("SQLite", None)];
    if let Some(url) = postgres::database().await {
        databases.push(("PostgreSQL", Some(url)));
    }
    for (name, url) in databases {
        let is_file = url.is_none();
        let bench = Arc::new(Bench::start(url).await);
        fund(&bench).await;
        let (rates, tails) = runs(|| load(&bench, INVOICES, |bench, n| async move { invoice(&bench, n).await })).await;
        table.row(format!("create-invoice, {IN_FLIGHT} in flight, {name}"), "/s", rates, "goal: 2,500/s");
        table.row(format!("create-invoice, p99, {name}"), "ms", tails, "goal: 80 ms");
        transfers(table, &bench, name, bare_commits).await;
        if is_file {
            lists(table, &bench).await;
        }
        Arc::into_inner(bench).expect("all load is over").stop().await;
    }
}

async fn fund(bench: &Bench) {
    for wallet in &bench.wallets {
        let order = format!(r#"{{"amount_sats":{PURSE}}}"#);
        let invoice = wallet.post("/lightning/create-invoice", order).await;
        bench.nodes.pay(&invoice, Amount::from_sat(Sat::literal(PURSE))).await;
        while wallet.get("/lightning/balance").await["balance"]["offchain_balance"]["total"] != PURSE {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

async fn invoice(bench: &Bench, number: u64) {
    bench.wallet(number).post("/lightning/create-invoice", r#"{"amount_sats":1000}"#.to_owned()).await;
}

/// Each step of many transfers by itself: what is signed in between is the client's time, not ours.
async fn transfers(table: &mut Table, bench: &Arc<Bench>, name: &str, bare_commits: &str) {
    let (mut begins, mut ends, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let mut bodies = Vec::new();
        for number in 0..TRANSFERS {
            let payee = bench.wallet(number + 1);
            let invoice = payee.post("/lightning/create-invoice", r#"{"amount_sats":1}"#.to_owned()).await;
            bodies.push(format!(r#"{{"invoice":{}}}"#, invoice["invoice"]));
        }
        let (begun, begin_seconds) = all(bench, "/lightning/pay-invoice-begin", bodies).await;
        let signed = begun.iter().enumerate().map(|(number, psbt)| {
            let wallet = bench.wallet(u64::try_from(number).expect("not that many"));
            let mut psbt: bitcoin::Psbt = psbt.as_str().expect("a PSBT").parse().expect("a PSBT");
            wallet.signer.sign(&mut psbt).expect("it signs");
            format!(r#"{{"signed_psbt":"{psbt}"}}"#)
        });
        let (ended, end_seconds) = all(bench, "/lightning/pay-invoice-end", signed.collect()).await;
        assert!(ended.iter().all(|paid| paid["status"] == "SUCCEEDED"), "a transfer was not made");
        let count = f64::from(u32::try_from(TRANSFERS).expect("not that many"));
        begins.push(count / begin_seconds);
        ends.push(count / end_seconds);
        pairs.push(count / (begin_seconds + end_seconds));
    }
    table.row(format!("begin of a transfer in the books, {IN_FLIGHT} in flight, {name}"), "/s", begins, bare_commits);
    table.row(
        format!("end of it, which is the transfer, {name}"),
        "/s",
        ends,
        "goal: 2,000/s SQLite, 1,800/s PostgreSQL",
    );
    table.row(format!("both, without the client's signing, {name}"), "pairs/s", pairs, "goal: 900/s");
}

/// Makes these calls, a fixed number in flight; answers what was answered, in order, and how long it took.
async fn all(bench: &Arc<Bench>, path: &'static str, bodies: Vec<String>) -> (Vec<serde_json::Value>, f64) {
    let begun = Instant::now();
    let in_flight = usize::try_from(IN_FLIGHT).expect("a small number");
    let calls = bodies.into_iter().enumerate().map(|(number, body)| {
        let bench = Arc::clone(bench);
        tokio::spawn(async move { bench.wallet(u64::try_from(number).expect("not that many")).post(path, body).await })
    });
    let mut answers = Vec::new();
    let mut waiting = std::collections::VecDeque::new();
    for call in calls {
        waiting.push_back(call);
        if waiting.len() == in_flight {
            answers.push(waiting.pop_front().expect("one waits").await.expect("the call is made"));
        }
    }
    for call in waiting {
        answers.push(call.await.expect("the call is made"));
    }
    (answers, begun.elapsed().as_secs_f64())
}

/// Pages from random places of a long history, which is written straight into the table.
async fn lists(table: &mut Table, bench: &Arc<Bench>) {
    fill_payments(&bench.database(), &bench.wallets[0].id(), PAYMENTS).await;
    let list = |bench: Arc<Bench>, _| async move {
        let until = rand::random_range(1..PAYMENTS / 1_000);
        let page = bench.wallets[0].get(&format!("/lightning/listpayments?limit=50&until={until}")).await;
        assert!(!page["payments"].as_array().expect("a list").is_empty(), "{page}");
    };
    let (rates, tails) = runs(|| load(bench, LISTS, list)).await;
    table.row(format!("list 50 at a random place of {PAYMENTS} payments"), "/s", rates, "goal: 2,500/s");
    table.row("the same, p99", "ms", tails, "goal: 10 ms");
}

/// Payments that ended long ago, a millisecond apart.
pub async fn fill_payments(database: &str, wallet: &str, count: u64) {
    let mut line = SqliteConnection::connect(&format!("sqlite://{database}")).await.expect("the file opens");
    line.execute("PRAGMA busy_timeout = 60000; PRAGMA foreign_keys = OFF").await.expect("it waits");
    let series = format!("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})");
    let requests = format!(
        "{series} INSERT INTO requests (id, wallet_id, kind, state, is_open, data, created_at, updated_at, version) \
         SELECT printf('%08x-0000-7000-8000-%012x', i, i), '{wallet}', 'lightning_receive', 'settled', 0, '{{}}', i, i, 1 FROM n"
    );
    let payments = format!(
        "{series} INSERT INTO payments (request_id, wallet_id, payment_hash, inbound, status, amount_msat, created_at, updated_at) \
         SELECT printf('%08x-0000-7000-8000-%012x', i, i), '{wallet}', printf('%064x', i), 1, 'succeeded', 1000 + i, i, i FROM n"
    );
    for text in [requests, payments] {
        line.execute(AssertSqlSafe(text)).await.expect("the rows are written");
    }
    line.close().await.expect("it closes");
}
