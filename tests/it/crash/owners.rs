//! Two gateways on one database: one acts for both, and one that was away too long does nothing more.

use std::collections::HashSet;
use std::str::FromStr;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitcoin::Psbt;
use sluice::clock::Clock;
use sluice::secret::Secret;
use sluice::store::owners::{Acquire, LEASE, Ownership, Role, fence};
use sluice::store::{Config, Store, StoreError, Tx, Write};
use sqlx::{Connection, PgConnection};

use super::{balance, begin, fund, say};
use crate::harness::bitcoind::Bitcoind;
use crate::harness::postgres;
use crate::harness::process::{Answer, Call, DEADLINE, Gateway, POLL, Site, died_at_its_point};
use crate::harness::rig::{Client, Database, parse_address};
use sluice::money::Sat;

const HOLDS: &str = "this process holds the role now role=\"chain\"";

/// Two gateways; the first follows.
async fn two(node: &Bitcoind) -> Option<(Gateway, Gateway)> {
    let site = Site::new(Database::Postgres, node).await?;
    let first = Gateway::start(&site).await;
    first.wait_synced(node).await;
    let second = Gateway::start(&site).await;
    second.wait_ready().await;
    assert!(first.whole_log().contains(HOLDS), "{}", first.log());
    assert!(!second.whole_log().contains(HOLDS), "{}", second.log());
    Some((first, second))
}

/// What only an owner writes.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    events: i64,
    numbered: i64,
    requests: i64,
    cursor: (i64, String),
    epochs: Vec<(String, i64, String)>,
}

impl Written {
    async fn read(url: &str) -> Self {
        let mut conn = PgConnection::connect(url).await.expect("PostgreSQL answers");
        let count = async |conn: &mut PgConnection, what: &'static str| {
            sqlx::query_scalar(what).fetch_one(conn).await.expect("a number")
        };
        Self {
            events: count(&mut conn, "SELECT COUNT(*) FROM events").await,
            numbered: count(&mut conn, "SELECT COUNT(*) FROM event_order").await,
            requests: count(&mut conn, "SELECT CAST(SUM(version) AS BIGINT) FROM requests").await,
            cursor: sqlx::query_as("SELECT CAST(height AS BIGINT), hash FROM chain_cursor")
                .fetch_one(&mut conn)
                .await
                .expect("a cursor"),
            epochs: sqlx::query_as("SELECT role, CAST(epoch AS BIGINT), holder FROM owners ORDER BY role")
                .fetch_all(&mut conn)
                .await
                .expect("owners"),
        }
    }

    /// Once the sequencer has nothing left to do.
    async fn all_numbered(url: &str) -> Self {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let written = Self::read(url).await;
            if written.numbered == written.events {
                return written;
            }
            assert!(Instant::now() < deadline, "not everything is numbered in time: {written:?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_owner_is_succeeded_and_aborts_when_it_wakes() {
    let Some(node) = Bitcoind::start().await else { return };
    let Some((first, second)) = two(&node).await else { return };
    let client = Client::number(1);
    fund(&first, &node, &client, 2, 100_000).await;
    let before = Written::read(first.site.store_url()).await;
    let address = second.answer(&Call::post("/lightning/onchain-receive", &client)).await;
    first.freeze();
    let paused = Instant::now();
    node.pay(&parse_address(address.text("btc_address")), Sat::literal(70_000)).await;
    node.mine(3).await;
    // The other one goes on answering all the while.
    let mut reads = 0;
    let got_it = |answer: &Answer| answer.body["vanilla"]["settled"] == 270_000;
    while !got_it(&second.answer(&balance(&client)).await) {
        reads += 1;
        if reads == 5 {
            second.answer(&begin(&client, "meanwhile", 50_000)).await.ok();
        }
        assert!(paused.elapsed() < LEASE + Duration::from_secs(30), "nobody follows\n{}", second.log());
        tokio::time::sleep(POLL).await;
    }
    let succeeded_after = paused.elapsed();
    assert!(succeeded_after > Duration::from_secs(3), "the role was taken from an owner that lived");
    second.wait_synced(&node).await;
    let after = Written::all_numbered(second.site.store_url()).await;
    first.thaw();
    let status = first.wait_exit().await;
    assert!(died_at_its_point(status), "it did not abort: {status}\n{}", first.log());
    assert!(first.log().contains("another process has taken over"), "{}", first.log());
    let woken = Written::read(first.site.store_url()).await;
    assert_eq!(woken, after, "the paused one has written something");
    for ((role, old, _), (_, new, _)) in before.epochs.iter().zip(&woken.epochs) {
        assert!(new > old, "{role} is still of epoch {old}");
    }
    node.mine(1).await;
    second.wait_synced(&node).await;
    assert!(Written::read(first.site.store_url()).await.cursor.0 > woken.cursor.0);
    say(&format!("a paused owner was succeeded after {succeeded_after:.1?}; {reads} reads were answered meanwhile"));
    second.terminate().await;
    assert_eq!(second.site.audit().await, 0);
}

/// Owns the role inside a transaction, and stays there.
struct Dawdle(Ownership, Duration);

#[async_trait]
impl Write for Dawdle {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        fence(tx, &self.0).await?;
        tokio::time::sleep(self.1).await;
        Ok(())
    }
}

/// The worst moment to be paused at: with the owner's row locked, a successor would wait for as long as the pause is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_paused_inside_a_transaction_is_succeeded_too() {
    let Some(url) = postgres::database().await else { return };
    let config = Config { url: Secret::new(url), ..Config::default() };
    let first = Store::open(&config, Clock::System).await.expect("the store opens");
    let second = Store::open(&config, Clock::System).await.expect("the store opens");
    let acquire = |holder: &str| Acquire { role: Role::Chain, holder: holder.to_owned() };
    let owner = first.write(acquire("first")).await.expect("a role").expect("nobody holds it");
    let begun = Instant::now();
    let dawdling = tokio::spawn(async move { first.write(Dawdle(owner, LEASE * 4)).await });
    loop {
        if let Ok(Some(owner)) = second.write(acquire("second")).await {
            assert_eq!(owner.epoch, 2);
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let took = begun.elapsed();
    assert!(took < LEASE * 2, "the successor waited {took:?}");
    assert!(dawdling.await.expect("no panic").is_err(), "the paused transaction was committed");
    say(&format!("an owner that was paused inside a transaction was succeeded after {took:.1?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begins_on_two_gateways_never_share_a_coin() {
    const COINS: u32 = 40;
    const BEGINS: u32 = 64;
    let Some(node) = Bitcoind::start().await else { return };
    let Some(site) = Site::new(Database::Postgres, &node).await else { return };
    let site = site.with("policy.max_waiting_sends", "100");
    let (first, second) = (Gateway::start(&site).await, Gateway::start(&site).await);
    let client = Client::number(1);
    fund(&first, &node, &client, COINS, 60_000).await;
    let calls = (0..BEGINS).map(|number| {
        let gateway = if number % 2 == 0 { &first } else { &second };
        let call = begin(&client, &format!("send-{number}"), 40_000);
        async move { gateway.answer(&call).await }
    });
    let answers = futures::future::join_all(calls).await;
    let mut taken = HashSet::new();
    let mut begun = 0u32;
    for answer in answers {
        if answer.status == 409 {
            assert_eq!(answer.text("error"), "coins_leased");
            continue;
        }
        begun += 1;
        let psbt = Psbt::from_str(answer.ok().as_str().expect("a PSBT")).expect("a PSBT");
        for input in &psbt.unsigned_tx.input {
            assert!(taken.insert(input.previous_output), "{} is in two sends", input.previous_output);
        }
    }
    say(&format!("{BEGINS} begins on two gateways: {begun} got one of {COINS} coins each"));
    assert!((COINS / 2..=COINS).contains(&begun), "{begun} of {COINS} coins were used");
    assert_eq!(u32::try_from(taken.len()).expect("few"), begun);
    first.terminate().await;
    second.terminate().await;
    assert_eq!(site.audit().await, 0);
}

#[tokio::test]
async fn a_second_process_on_one_sqlite_file_is_refused() {
    let Some(node) = Bitcoind::start().await else { return };
    let site = Site::at(None, &node);
    let gateway = Gateway::start(&site).await;
    for command in ["serve", "migrate"] {
        let refused = site.run(&[command]).await;
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("another process uses this database") && said.contains("PostgreSQL"), "{said}");
    }
    gateway.wait_ready().await;
    // What an operator asks goes over the socket of the process that has the file.
    assert_eq!(site.audit().await, 0);
    assert!(site.folder().join("sluice.db.sock").exists());
    gateway.kill();
    // What the killed process has left behind answers nobody: the command uses the file itself, and the next process takes its place.
    assert_eq!(site.audit().await, 0);
    gateway.restart(None).await;
    assert_eq!(site.audit().await, 0);
    gateway.terminate().await;
    assert!(!site.folder().join("sluice.db.sock").exists(), "it is taken away");
}
