//! PostgreSQL goes away in the middle of traffic, and comes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::say;
use crate::harness::bitcoind::Bitcoind;
use crate::harness::postgres::Cluster;
use crate::harness::process::{Answer, Call, Gateway, POLL, Site};
use crate::harness::rig::Client;

/// What callers saw.
#[derive(Default)]
struct Seen {
    /// Addresses that were answered with 200, by the key they were asked for with.
    given: Vec<(String, String)>,
    told_to_wait: u32,
}

/// Asks for addresses until it is over. Every answer is a 200 that lasts or a 503 that says when to come back.
async fn keep_asking(gateway: &Gateway, client: &Client, name: u32, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut number = 0;
    while !over.load(Ordering::SeqCst) {
        let key = format!("{name}-{number}");
        let answer = gateway.answer(&Call::post("/lightning/onchain-receive", client).key(&*key)).await;
        if answer.is_ok() {
            seen.given.push((key, answer.text("btc_address").to_owned()));
            number += 1;
        } else {
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(answer.retry_after.is_some(), "{answer:?}");
            seen.told_to_wait += 1;
        }
        tokio::time::sleep(POLL).await;
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_restarts_in_the_middle_of_traffic() {
    let Some(cluster) = Cluster::private() else { return };
    let Some(node) = Bitcoind::start().await else { return };
    let site = Site::at(Some(cluster.database("traffic").await), &node).with("store.wait_ms", "1000");
    let gateway = Gateway::start(&site).await;
    let client = Client::number(1);
    gateway.until("it registers", &Call::post("/wallet/register", &client), Answer::is_ok).await;
    gateway.wait_ready().await;
    let over = AtomicBool::new(false);
    let callers = futures::future::join_all((0..4).map(|name| keep_asking(&gateway, &client, name, &over)));
    let trouble = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.restart();
        gateway.wait_ready().await;
        cluster.stop();
        let down = |answer: &Answer| answer.status == 503 && answer.body["rails"]["store"]["reason"].is_string();
        gateway.wait_health("the store's rail is named", down).await;
        let refused = gateway.answer(&Call::post("/wallet/btcbalance", &client)).await;
        assert!(refused.status == 503 && refused.retry_after.is_some(), "{refused:?}");
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.start();
        let back = Instant::now();
        gateway.wait_ready().await;
        let ready = back.elapsed();
        node.mine(1).await;
        gateway.wait_synced(&node).await;
        over.store(true, Ordering::SeqCst);
        ready
    };
    let (seen, ready) = tokio::join!(callers, trouble);
    let given: Vec<_> = seen.iter().flat_map(|seen| &seen.given).collect();
    let waits: u32 = seen.iter().map(|seen| seen.told_to_wait).sum();
    assert!(waits > 0, "nobody noticed that the database was away");
    for (key, address) in &given {
        let again = gateway.answer(&Call::post("/lightning/onchain-receive", &client).key(&**key)).await;
        assert_eq!(again.text("btc_address"), address, "an answer was lost");
    }
    let mut unique: Vec<&String> = given.iter().map(|(_, address)| address).collect();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), given.len(), "an address was handed out twice");
    say(&format!(
        "PostgreSQL restarted twice: {} calls answered, {waits} told to wait, ready {ready:.1?} after it was back",
        given.len()
    ));
    gateway.terminate().await;
    assert_eq!(site.audit().await, 0);
}
