//! A gateway that dies at each named point, is started again, and comes to the same end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use sluice::crash::{CLOSING_POINTS, LIGHTNING_POINTS, POINTS, RAIL_POINTS};
use sluice::domain::wallet::Account;
use sluice::money::Sat;

use super::{balance, begin, end, say};
use crate::harness::bitcoind::{self, Bitcoind};
use crate::harness::process::{Answer, Call, DEADLINE, Gateway, POLL, Site, died_at_its_point};
use crate::harness::rig::{Client, Database, parse_address};

const BEFORE: u64 = 100_000;
const DEPOSIT: u64 = 200_000;
const SENT: u64 = 50_000;

/// Points that many different writes pass: which of them dies depends on the visit.
fn visits(point: &str) -> &'static [u32] {
    match point {
        "store.before_commit" | "store.after_commit" => &[3, 12, 30],
        "follow.block_committed" | "end.broadcast" | "effects.offered" => &[1, 2],
        _ => &[1],
    }
}

/// On SQLite events are numbered as they are written: there is nobody to die.
fn is_there(point: &str, database: Database) -> bool {
    !(database == Database::Sqlite && point == "events.numbered")
}

#[test]
fn the_list_of_points_is_the_list_of_places() {
    let all: Vec<&str> =
        POINTS.iter().chain(LIGHTNING_POINTS).chain(RAIL_POINTS).chain(CLOSING_POINTS).copied().collect();
    let listed: BTreeSet<&str> = all.iter().copied().collect();
    assert_eq!(listed.len(), all.len(), "a point is listed twice");
    let mut sources = String::new();
    let mut folders = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the sources can be listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("crash.rs") {
                sources += &std::fs::read_to_string(path).expect("a source");
            }
        }
    }
    let places = sources.matches("crash::point(").count();
    assert!(places >= all.len(), "{places} places for {} points", all.len());
    for point in all {
        assert!(sources.contains(&format!("\"{point}\"")), "no place dies at {point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite() {
    walk(Database::Sqlite, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    // Most of the time goes into waiting for the lease of the one that died.
    walk(Database::Postgres, 4).await;
}

async fn walk(database: Database, lanes: usize) {
    let begun = Instant::now();
    let all: Vec<String> = POINTS
        .iter()
        .filter(|point| is_there(point, database))
        .flat_map(|point| visits(point).iter().map(move |visit| format!("{point}:{visit}")))
        .collect();
    let next = AtomicUsize::new(0);
    let lane = || async {
        let Some(node) = Bitcoind::start().await else { return };
        while let Some(point) = all.get(next.fetch_add(1, Ordering::SeqCst)) {
            let Some(site) = Site::new(database, &node).await else { return };
            Story::new(&node, site, point).await.run().await;
        }
    };
    futures::future::join_all((0..lanes).map(|_| lane())).await;
    say(&format!("crash points on {database:?}: {} deaths, {:.0?}", all.len(), begun.elapsed()));
}

struct Story<'a> {
    node: &'a Bitcoind,
    gateway: Gateway,
    client: Client,
    point: &'a str,
    deaths: AtomicUsize,
}

impl<'a> Story<'a> {
    async fn new(node: &'a Bitcoind, site: Site, point: &'a str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(1_000);
        let number = u32::try_from(NUMBER.fetch_add(1, Ordering::SeqCst)).expect("a small number");
        let client = Client::number(number);
        let old = client.keys.scripts(Account::Vanilla, 5..6).remove(0).script;
        node.pay(&bitcoind::address(&old), Sat::literal(BEFORE)).await;
        node.mine(1).await;
        let lifetime = if point.starts_with("expiry.") { "2" } else { "86400" };
        let site = site.with("policy.address_seconds", lifetime);
        let gateway = Gateway::start_armed(&site, Some(point)).await;
        Self { node, gateway, client, point, deaths: AtomicUsize::new(0) }
    }

    async fn run(&self) {
        let from = self.node.tip().await.height;
        self.receive().await;
        let (send, txids) = self.send().await;
        self.until("it dies", &balance(&self.client), |_| self.deaths.load(Ordering::SeqCst) == 1).await;
        self.check_chain(from, &txids).await;
        let sent = self.until("the send is confirmed", &send, |answer| answer.body["status"] == "CONFIRMED").await;
        assert_eq!(sent.text("txid"), txids.last().expect("two"), "{}: {sent:?}", self.point);
        let fee = sent.body["fee_sats"].as_u64().expect("a fee");
        let left = BEFORE + DEPOSIT - SENT - fee;
        self.until("the balance is right", &balance(&self.client), |answer| {
            answer.body["vanilla"]["settled"] == left && answer.body["vanilla"]["spendable"] == left
        })
        .await;
        self.gateway.wait_synced(self.node).await;
        self.gateway.kill();
        assert_eq!(self.gateway.site.audit().await, 0, "{}: the audit could not check everything", self.point);
    }

    /// The coin from before, an address, a deposit in the mempool and in a block.
    async fn receive(&self) {
        self.persist(&Call::post("/wallet/register", &self.client)).await;
        let found = |answer: &Answer| answer.body["scanning"] == false && answer.body["vanilla"]["settled"] == BEFORE;
        self.until("the coin from before is found", &balance(&self.client), found).await;
        let wanted = Call::post("/lightning/onchain-receive", &self.client).key("address");
        let address = self.persist(&wanted).await;
        let again = self.persist(&wanted).await;
        assert_eq!(address.body["btc_address"], again.body["btc_address"], "{}", self.point);
        let txid = self.node.pay(&parse_address(address.text("btc_address")), Sat::literal(DEPOSIT)).await;
        let deposits = Call::get("/deposits", &self.client);
        let only = |answer: &Answer, state: &str| {
            let all = answer.body["deposits"].as_array().cloned().unwrap_or_default();
            assert!(all.len() <= 1, "{}: more than was paid: {all:?}", self.point);
            all.first().is_some_and(|deposit| deposit["txid"] == txid.to_string() && deposit["state"] == state)
        };
        self.until("the deposit is seen", &deposits, |answer| only(answer, "seen")).await;
        self.node.mine(1).await;
        self.until("the deposit is confirmed", &deposits, |answer| only(answer, "confirmed")).await;
    }

    /// A send that is bumped, mined, and mined again after a reorganisation. Answers how to look at it, and both versions.
    async fn send(&self) -> (Call, Vec<String>) {
        let wanted = begin(&self.client, "send", SENT);
        let begun = self.persist(&wanted).await;
        let psbt = begun.body.as_str().expect("a PSBT").to_owned();
        let ending = end(&self.client, &psbt);
        let node_was_away = self.point.starts_with("effects.claimed");
        if node_was_away {
            self.node.stop().await;
        }
        let first = self.persist(&ending).await.text("txid").to_owned();
        if node_was_away {
            self.node.launch().await;
            self.node.mine(1).await;
        }
        self.until_in_mempool(&first).await;
        assert_eq!(self.persist(&wanted).await.body, Value::from(psbt), "{}: begin answers otherwise now", self.point);
        assert_eq!(self.persist(&ending).await.text("txid"), first);
        let id = begun.request_id.expect("a request id");
        let bump = Call::post(format!("/onchain-send/{id}/bump-begin"), &self.client)
            .key("bump")
            .json(json!({ "fee_rate": 10 }));
        let bumped = self.persist(&bump).await;
        let higher = bumped.body.as_str().expect("a PSBT").to_owned();
        let ending = Call::post(format!("/onchain-send/{id}/bump-end"), &self.client)
            .json(json!({ "signed_psbt": self.client.sign(&higher) }));
        let second = self.persist(&ending).await.text("txid").to_owned();
        self.until_in_mempool(&second).await;
        assert_eq!(self.persist(&bump).await.body, Value::from(higher), "{}: bump answers otherwise now", self.point);
        let send = Call::get(format!("/onchain-send/{id}"), &self.client);
        self.node.mine(1).await;
        self.until("the send is confirmed", &send, |answer| answer.body["status"] == "CONFIRMED").await;
        self.node.reorg(1, true).await;
        (send, vec![first, second])
    }

    /// A call that has to succeed, made again when the gateway dies on the way.
    async fn persist(&self, call: &Call) -> Answer {
        self.until("it is answered", call, Answer::is_ok).await
    }

    async fn until(&self, what: &str, call: &Call, holds: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.revive().await;
            let last = self.gateway.call(call).await;
            match last {
                Ok(answer) if holds(&answer) => return answer,
                last => {
                    let late = Instant::now() > deadline;
                    assert!(!late, "{}: {what}: not in time, last {last:?}\n{}", self.point, self.gateway.log());
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts the gateway again when it has died, which it does once, at its point, and leaves the books in order.
    async fn revive(&self) {
        let Some(status) = self.gateway.exit_status() else { return };
        assert!(died_at_its_point(status), "{}: {status}\n{}", self.point, self.gateway.log());
        assert_eq!(self.deaths.fetch_add(1, Ordering::SeqCst), 0, "{}: it died twice", self.point);
        self.gateway.site.audit().await;
        self.gateway.restart(None).await;
    }

    async fn until_in_mempool(&self, txid: &str) {
        let deadline = Instant::now() + DEADLINE;
        while self.node.try_rpc("getmempoolentry", json!([txid])).await.is_err() {
            self.revive().await;
            assert!(Instant::now() < deadline, "{}: {txid} does not go out\n{}", self.point, self.gateway.log());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Of both versions, the second is in the chain, once.
    async fn check_chain(&self, from: u32, txids: &[String]) {
        let mut mined: Vec<String> = Vec::new();
        for height in from..=self.node.tip().await.height {
            let block = self.node.rpc("getblock", json!([self.node.block_hash(height).await, 1])).await;
            let all = block["tx"].as_array().cloned().unwrap_or_default();
            mined.extend(all.iter().filter_map(|txid| txid.as_str().map(str::to_owned)));
        }
        let times: Vec<usize> = txids.iter().map(|txid| mined.iter().filter(|other| *other == txid).count()).collect();
        assert_eq!(times, [0, 1], "{}: the versions in the chain", self.point);
    }
}

/// What was promised goes out, also when neither the client nor a block asks for it again.
async fn goes_out_by_itself(database: Database) {
    let Some(node) = Bitcoind::start().await else { return };
    let Some(site) = Site::new(database, &node).await else { return };
    let client = Client::number(1);
    let gateway = Gateway::start_armed(&site, Some("end.committed")).await;
    super::fund(&gateway, &node, &client, 1, DEPOSIT).await;
    let psbt = gateway.answer(&begin(&client, "send", SENT)).await.ok();
    let ending = end(&client, psbt.as_str().expect("a PSBT"));
    assert!(gateway.call(&ending).await.is_err(), "it dies before it answers");
    gateway.wait_exit().await;
    assert_eq!(node.rpc("getrawmempool", json!([])).await, json!([]), "nothing is out yet");
    gateway.restart(None).await;
    let begun = Instant::now();
    while node.rpc("getrawmempool", json!([])).await == json!([]) {
        assert!(begun.elapsed().as_secs() < 10, "it is not offered at start\n{}", gateway.log());
        tokio::time::sleep(POLL).await;
    }
}

/// A bump that was accepted takes the change of the version before away, also while nobody has told the network yet.
#[tokio::test]
async fn nobody_builds_on_the_change_that_an_accepted_bump_replaces() {
    let Some(node) = Bitcoind::start().await else { return };
    let site = Site::at(None, &node);
    let client = Client::number(1);
    let gateway = Gateway::start(&site).await;
    super::fund(&gateway, &node, &client, 1, DEPOSIT).await;
    let begun = gateway.answer(&begin(&client, "first", SENT)).await;
    let id = begun.request_id.clone().expect("a request id");
    gateway.answer(&end(&client, begun.body.as_str().expect("a PSBT"))).await.ok();
    let bump =
        |rate: u32| Call::post(format!("/onchain-send/{id}/bump-begin"), &client).json(json!({ "fee_rate": rate }));
    let bumps = [gateway.answer(&bump(10)).await.ok(), gateway.answer(&bump(20)).await.ok()];
    node.stop().await;
    let ending = |psbt: &Value| {
        Call::post(format!("/onchain-send/{id}/bump-end"), &client)
            .json(json!({ "signed_psbt": client.sign(psbt.as_str().expect("a PSBT")) }))
    };
    gateway.answer(&ending(&bumps[0])).await.ok();
    let refused = gateway.answer(&begin(&client, "second", SENT)).await;
    assert_eq!(refused.text("error"), "coins_leased", "{refused:?}");
    node.launch().await;
    node.mine_empty(1).await;
    let third = begin(&client, "third", SENT);
    let begun = gateway.until("the change of the bump is there", &third, Answer::is_ok).await;
    gateway.answer(&end(&client, begun.body.as_str().expect("a PSBT"))).await.ok();
    let late = gateway.answer(&ending(&bumps[1])).await;
    assert_eq!(late.text("error"), "change_spent", "{late:?}");
    node.mine(1).await;
    let send = Call::get(format!("/onchain-send/{id}"), &client);
    gateway.until("the bump is confirmed", &send, |answer| answer.body["status"] == "CONFIRMED").await;
    gateway.wait_synced(&node).await;
    gateway.kill();
    assert_eq!(site.audit().await, 0);
}

#[tokio::test]
async fn a_signed_send_goes_out_at_the_next_start_sqlite() {
    goes_out_by_itself(Database::Sqlite).await;
}

#[tokio::test]
async fn a_signed_send_goes_out_at_the_next_start_postgres() {
    goes_out_by_itself(Database::Postgres).await;
}
