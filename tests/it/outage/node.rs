//! bitcoind restarts, hangs, breaks, is another one, has forgotten, or was alone for days.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice::money::Sat;

use super::proxy::{Mood, Proxy};
use super::say;
use crate::harness::bitcoind::Bitcoind;
use crate::harness::process::{Answer, Call, DEADLINE, Gateway, POLL, Site};
use crate::harness::rig::{Client, Database, parse_address, stranger};

/// A read needs no node: it is as fast as ever without one. Generous, for a machine that builds beside the tests.
const READ_WITHIN: Duration = Duration::from_secs(2);
const COIN: u64 = 100_000;

/// A gateway with a wallet of two coins.
struct Scene {
    gateway: Gateway,
    client: Client,
}

impl Scene {
    async fn new(node: &Bitcoind, site: &Site) -> Self {
        let gateway = Gateway::start(site).await;
        let client = Client::number(1);
        gateway.until("it registers", &Call::post("/wallet/register", &client), Answer::is_ok).await;
        let scene = Self { gateway, client };
        scene.until_balance("it is scanned", |body| body["scanning"] == false).await;
        scene.pay(node, COIN).await;
        scene.pay(node, COIN).await;
        node.mine(1).await;
        scene.until_settled(2 * COIN).await;
        scene
    }

    fn balance(&self) -> Call {
        Call::post("/wallet/btcbalance", &self.client)
    }

    async fn until_balance(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        self.gateway.until(what, &self.balance(), |answer| answer.is_ok() && holds(&answer.body)).await;
    }

    async fn until_settled(&self, sats: u64) {
        self.until_balance(&format!("{sats} sat are settled"), |body| body["vanilla"]["settled"] == sats).await;
    }

    /// Pays to a new address of the wallet; answers the transaction.
    async fn pay(&self, node: &Bitcoind, sats: u64) -> String {
        let address = self.gateway.answer(&Call::post("/lightning/onchain-receive", &self.client)).await;
        let address = parse_address(address.text("btc_address"));
        node.pay(&address, Sat::new(sats).expect("an amount")).await.to_string()
    }

    /// Begins and ends a send; answers its id and its transaction.
    async fn send(&self, sats: u64) -> (String, String) {
        let wanted = json!({ "address_or_rgbinvoice": stranger().to_string(), "amount_sats": sats, "fee_rate": 2 });
        let begun =
            self.gateway.answer(&Call::post("/lightning/onchain-send-begin", &self.client).json(wanted)).await.ok();
        let signed = self.client.sign(begun.as_str().expect("a PSBT"));
        let ending = Call::post("/lightning/onchain-send-end", &self.client).json(json!({ "signed_psbt": signed }));
        let sent = self.gateway.answer(&ending).await;
        assert_eq!(sent.text("status"), "BROADCASTED");
        (sent.text("send_id").to_owned(), sent.text("txid").to_owned())
    }

    async fn until_confirmed(&self, send: &str) -> Answer {
        let call = Call::get(format!("/onchain-send/{send}"), &self.client);
        self.gateway
            .until("the send is confirmed", &call, |answer| {
                answer.body["status"] == "CONFIRMED" && answer.body["last_error"].is_null()
            })
            .await
    }

    /// What works without a node: reading, handing out addresses, and a send up to the point where the network has to be told.
    async fn works_alone(&self) -> (String, String) {
        let begun = Instant::now();
        self.gateway.answer(&self.balance()).await.ok();
        assert!(begun.elapsed() < READ_WITHIN, "a read took {:?}", begun.elapsed());
        self.gateway.answer(&Call::post("/lightning/onchain-receive", &self.client)).await.ok();
        let (send, txid) = self.send(30_000).await;
        let answer = self.gateway.answer(&Call::get(format!("/onchain-send/{send}"), &self.client)).await;
        assert!(answer.body["last_error"].is_string(), "no node has it, and that is said: {answer:?}");
        (send, txid)
    }

    /// The chain's rail is the one that is not ready, and it says why.
    async fn until_chain_is_named(&self) -> String {
        let down = |answer: &Answer| {
            let rails = &answer.body["rails"];
            answer.status == 503 && rails["store"]["ok"] == true && rails["chain"]["reason"].is_string()
        };
        let answer = self.gateway.wait_health("the chain's rail is named", down).await;
        answer.body["rails"]["chain"]["reason"].as_str().expect("a reason").to_owned()
    }

    async fn finish(&self, node: &Bitcoind) {
        self.gateway.wait_synced(node).await;
        self.gateway.kill();
        assert_eq!(self.gateway.site.audit().await, 0);
    }
}

async fn until_in_mempool(node: &Bitcoind, txid: &str, gateway: &Gateway) {
    let deadline = Instant::now() + DEADLINE;
    while node.try_rpc("getmempoolentry", json!([txid])).await.is_err() {
        assert!(Instant::now() < deadline, "{txid} does not go out\n{}", gateway.log());
        tokio::time::sleep(POLL).await;
    }
}

async fn restarted(database: Database) {
    let Some(node) = Bitcoind::start().await else { return };
    let Some(site) = Site::new(database, &node).await else { return };
    let scene = Scene::new(&node, &site).await;
    node.stop().await;
    let reason = scene.until_chain_is_named().await;
    let (send, txid) = scene.works_alone().await;
    let refused = scene.gateway.answer(&Call::post("/wallet/sync", &scene.client)).await;
    assert!([503, 504].contains(&refused.status) && refused.retry_after.is_some(), "{refused:?}");
    node.launch().await;
    let back = Instant::now();
    scene.gateway.wait_ready().await;
    let ready = back.elapsed();
    // A new block has it offered again at once.
    node.mine(1).await;
    until_in_mempool(&node, &txid, &scene.gateway).await;
    node.mine(1).await;
    scene.until_confirmed(&send).await;
    say(&format!("bitcoind restarted under {database:?}: ready {ready:.1?} after it; meanwhile: {reason}"));
    scene.finish(&node).await;
}

#[tokio::test]
async fn a_node_that_restarts_sqlite() {
    restarted(Database::Sqlite).await;
}

#[tokio::test]
async fn a_node_that_restarts_postgres() {
    restarted(Database::Postgres).await;
}

#[tokio::test]
async fn a_node_that_hangs_for_five_seconds() {
    let Some(node) = Bitcoind::start().await else { return };
    let scene = Scene::new(&node, &Site::at(None, &node)).await;
    let frozen = Instant::now();
    node.freeze();
    scene.until_chain_is_named().await;
    let (send, txid) = scene.works_alone().await;
    while frozen.elapsed() < Duration::from_secs(5) {
        let begun = Instant::now();
        scene.gateway.answer(&scene.balance()).await.ok();
        assert!(begun.elapsed() < READ_WITHIN, "a read took {:?}", begun.elapsed());
        tokio::time::sleep(POLL).await;
    }
    node.thaw();
    scene.gateway.wait_ready().await;
    until_in_mempool(&node, &txid, &scene.gateway).await;
    node.mine(1).await;
    scene.until_confirmed(&send).await;
    scene.finish(&node).await;
}

#[tokio::test]
async fn a_node_that_answers_500() {
    let Some(node) = Bitcoind::start().await else { return };
    let proxy = Proxy::start(&node, Mood::Honest).await;
    let scene = Scene::new(&node, &Site::at(None, &node).with("chain.bitcoind.url", &*proxy.url)).await;
    proxy.become_(Mood::Broken);
    scene.until_chain_is_named().await;
    let (send, txid) = scene.works_alone().await;
    assert!(node.try_rpc("getmempoolentry", json!([txid])).await.is_err(), "the proxy does not do its work");
    proxy.become_(Mood::Honest);
    scene.gateway.wait_ready().await;
    node.mine(1).await;
    until_in_mempool(&node, &txid, &scene.gateway).await;
    node.mine(1).await;
    scene.until_confirmed(&send).await;
    scene.finish(&node).await;
}

#[tokio::test]
async fn a_node_of_another_network_is_refused_at_start() {
    let Some(node) = Bitcoind::start().await else { return };
    let proxy = Proxy::start(&node, Mood::Foreign).await;
    let site = Site::at(None, &node).with("chain.bitcoind.url", &*proxy.url);
    let refused = site.run(&["serve"]).await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("another network") && said.contains("regtest"), "{said}");
}

#[tokio::test]
async fn a_node_that_is_suddenly_of_another_network_teaches_nothing() {
    let Some(node) = Bitcoind::start().await else { return };
    let proxy = Proxy::start(&node, Mood::Honest).await;
    let scene = Scene::new(&node, &Site::at(None, &node).with("chain.bitcoind.url", &*proxy.url)).await;
    scene.gateway.wait_synced(&node).await;
    let before = scene.gateway.ready().await.expect("an answer").body["rails"]["chain"]["cursor"].clone();
    proxy.become_(Mood::Foreign);
    let reason = scene.until_chain_is_named().await;
    assert!(reason.contains("another network") || reason.contains("not on regtest"), "{reason}");
    scene.pay(&node, COIN).await;
    node.mine(3).await;
    let seen = Instant::now();
    while seen.elapsed() < Duration::from_secs(3) {
        let health = scene.gateway.ready().await.expect("an answer");
        assert_eq!(health.body["rails"]["chain"]["cursor"], before, "it follows another network");
        assert_eq!(health.status, 503);
        scene.gateway.answer(&scene.balance()).await.ok();
        tokio::time::sleep(POLL).await;
    }
    proxy.become_(Mood::Honest);
    scene.until_settled(3 * COIN).await;
    scene.finish(&node).await;
}

#[tokio::test]
async fn a_tip_that_is_gone_right_after_the_first_start() {
    let Some(node) = Bitcoind::start().await else { return };
    let gateway = Gateway::start(&Site::at(None, &node)).await;
    gateway.wait_synced(&node).await;
    node.reorg(10, true).await;
    gateway.wait_synced(&node).await;
    assert_eq!(gateway.ready().await.expect("an answer").body["rails"]["payouts"]["halted"], json!([]));
}

#[tokio::test]
async fn a_mempool_that_was_wiped() {
    let Some(node) = Bitcoind::start_with(&["-persistmempool=0"]).await else { return };
    let scene = Scene::new(&node, &Site::at(None, &node)).await;
    let (send, txid) = scene.send(30_000).await;
    until_in_mempool(&node, &txid, &scene.gateway).await;
    let deposits = Call::get("/deposits?state=seen", &scene.client);
    let deposit = scene.pay(&node, COIN).await;
    let is_seen = |answer: &Answer| answer.body["deposits"][0]["txid"] == deposit;
    scene.gateway.until("the deposit is seen", &deposits, is_seen).await;
    node.restart().await;
    // Nobody but the gateway knows the send any more.
    until_in_mempool(&node, &txid, &scene.gateway).await;
    scene.gateway.until("the deposit is still seen", &deposits, is_seen).await;
    node.mine(1).await;
    scene.until_confirmed(&send).await;
    scene.finish(&node).await;
}

#[tokio::test]
async fn days_offline() {
    const BLOCKS: u32 = 300;
    const PAYMENTS: u32 = 30;
    let Some(node) = Bitcoind::start().await else { return };
    let scene = Scene::new(&node, &Site::at(None, &node)).await;
    let mut addresses = Vec::new();
    for _ in 0..PAYMENTS {
        let address = scene.gateway.answer(&Call::post("/lightning/onchain-receive", &scene.client)).await;
        addresses.push(parse_address(address.text("btc_address")));
    }
    let (send, _) = scene.send(30_000).await;
    assert_eq!(scene.gateway.terminate().await.0.code(), Some(0));
    for address in &addresses {
        node.pay(address, Sat::literal(COIN)).await;
        node.mine(BLOCKS / PAYMENTS).await;
    }
    let begun = Instant::now();
    scene.gateway.restart(None).await;
    scene.gateway.answer(&scene.balance()).await.ok();
    let served = begun.elapsed();
    scene.gateway.wait_synced(&node).await;
    let caught_up = begun.elapsed();
    let sent = scene.until_confirmed(&send).await;
    let fee = sent.body["fee_sats"].as_u64().expect("a fee");
    scene.until_settled((2 + u64::from(PAYMENTS)) * COIN - 30_000 - fee).await;
    let page = scene.gateway.answer(&Call::get("/deposits?limit=100&state=confirmed", &scene.client)).await.ok();
    assert_eq!(page["deposits"].as_array().map(Vec::len), Some(2 + PAYMENTS as usize));
    say(&format!(
        "{BLOCKS} blocks and {PAYMENTS} deposits while it was off: serves after {served:.1?}, has caught up after {caught_up:.1?}"
    ));
    scene.finish(&node).await;
}
