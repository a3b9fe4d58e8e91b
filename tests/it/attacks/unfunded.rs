//! Channels that strangers offer and never fund: they cost nothing, and must stop nobody.

use std::time::Duration;

use serde_json::json;
use sluice::money::{Amount, Sat};

use super::till::Till;
use crate::harness::lightning::sat;
use crate::harness::peer::{LdkPeer, eventually, eventually_shown, stays};

const NODES: u64 = 50;
/// As many of one peer as LDK takes.
const EACH: u64 = 4;

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
async fn two_hundred_channels_are_offered_and_none_is_funded() {
    let Some(till) = Till::open(1, |_| {}).await else { return };
    till.is_paid(sat(100_000)).await;
    till.until_over(1).await;
    let before = till.node.balance().await.expect("an answer");
    assert_eq!(flooded(&till, NODES, EACH).await, 20, "two of each peer, and twenty of all");
    // Nothing of it is ours, nothing is set aside for it, and the books are compared with the node as before.
    let after = till.node.balance().await.expect("an answer");
    assert_eq!(after, before);
    till.until_over(1).await;
    // Who has money is paid and pays.
    till.is_paid(sat(10_000)).await;
    let invoice = till.hostile.call("invoice", json!({ "msat": 50_000_000_u64 })).await;
    let payment = till.pays(invoice.as_str().expect("a text"), sat(10)).await;
    till.has_paid(&payment).await;
    assert_eq!(till.purse().await, 60_000_000);
    till.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_holds_every_place_with_channels_that_it_never_funds() {
    let few = |config: &mut sluice::config::Config| {
        config.ldk.channels.max_unfunded = 2;
        config.ldk.channels.unfunded_seconds = 4;
    };
    let Some(till) = Till::open(0, few).await else { return };
    let Some(honest) = LdkPeer::start(&till.bitcoind, "honest").await else { return };
    honest.fund(&till.bitcoind, Sat::literal(2_000_000)).await;
    let info = till.node.info().await.expect("an answer");
    let address = info.listens.first().expect("it listens");
    assert_eq!(flooded(&till, 1, 2).await, 2);
    let asked = json!({
        "node": info.id.to_string(),
        "address": address,
        "sat": 500_000,
        "push_msat": 0,
        "announced": false,
    });
    eventually("somebody else has a place", async || {
        let channels = honest.channels_with(info.id).await;
        if channels.is_empty() {
            // It is refused while all places are taken.
            drop(honest.try_call("open_channel", asked.clone()).await);
        }
        channels.iter().any(|channel| channel.funding.is_some()).then_some(())
    })
    .await;
    till.something_waits().await;
    // A funding that waits for a block keeps its place.
    stays("the place is kept", Duration::from_secs(6), async || {
        till.node.channels().await.expect("a list").iter().any(|channel| channel.peer == honest.id())
    })
    .await;
    till.mine(6).await;
    eventually("it is used", async || {
        honest.sync().await;
        till.node.channels().await.expect("a list").iter().any(|channel| channel.usable).then_some(())
    })
    .await;
    till.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_says_of_channels_that_it_has_not_funded_that_they_are_broken() {
    let Some(till) = Till::open(1, |_| {}).await else { return };
    till.until_over(1).await;
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
