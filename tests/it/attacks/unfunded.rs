//! Channels that strangers offer and never fund: they cost nothing, and must stop nobody.

use std::time::Duration;

use serde_json::json;
use sluice::money::{Amount, Sat};

use super::till::Till;
use crate::harness::peer::{eventually, eventually_shown, stays};

/// So many nodes offer so many channels each; answers how many of them are in our node.
async fn flooded(till: &Till, nodes: u64, each: u64) -> usize {
    let info = till.node.info().await.expect("an answer");
    let address = info.listens.first().expect("it listens").clone();
    let had = till.node.channels().await.expect("a list").len();
    let asked = json!({ "node": info.id.to_string(), "address": address, "nodes": nodes, "each": each });
    till.hostile.call("flood", asked).await;
    eventually_shown("all are answered", async || {
        let stands = till.hostile.call("crowd", json!({})).await;
        let number = |name: &str| stands[name].as_u64().expect("a number");
        if number("signed") + number("gone") == nodes * each { Ok(()) } else { Err(stands) }
    })
    .await;
    till.node.channels().await.expect("a list").len() - had
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_says_of_channels_that_it_has_not_funded_that_they_are_broken() {
    let Some(till) = Till::open(1, |_| {}).await else { return };
    let before = till.node.balance().await.expect("an answer");
    assert_eq!(flooded(&till, 1, 2).await, 2);
    till.hostile.call("abandon", json!({})).await;
    eventually("they are gone", async || (till.node.channels().await.expect("a list").len() == 1).then_some(())).await;
    // Their ends can be in no block: no coin of ours is spent to hurry them.
    stays("no coin is touched", Duration::from_secs(3), async || {
        till.node.balance().await.expect("an answer") == before
    })
    .await;
    assert!(before.closing == Sat::ZERO && before.channels > Amount::ZERO);
    till.close().await;
}
