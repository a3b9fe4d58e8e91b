//! A channel that the gateway opens by itself, with a peer of another make, and that a death does not open twice.

use bitcoin::OutPoint;
use serde_json::{Value, json};

use super::on_both;
use super::scene::{Scene, Set};
use crate::harness::peer::{eventually, eventually_shown};
use crate::harness::process::{Call, Gateway};

const AMOUNT: u64 = 500_000;
/// Enough for both sides.
const BURIED: u32 = 6;

/// The gateway again, with a policy: less than one channel is wanted, so that one is enough.
async fn with_policy(scene: &mut Scene) {
    scene.gateway.terminate().await;
    let peer = format!("[\"{}@{}\"]", scene.peer.id(), scene.peer.listens());
    let site = scene.gateway.site.clone();
    let site = site
        .with("liquidity.peers", peer)
        .with("liquidity.want_outbound_sats", "400000")
        .with("liquidity.channel_sats", AMOUNT.to_string())
        .with("liquidity.every_seconds", "1");
    scene.gateway = Gateway::start(&site).await;
    scene.wait_for_node().await;
}

/// The only opening, once it is in this state.
async fn opening(scene: &Scene, state: &str) -> Value {
    let read = Call::get("/admin/liquidity", &scene.client).bearer(&scene.operator);
    eventually_shown(&format!("the opening is {state}"), async || {
        let shown = scene.gateway.answer(&read).await.ok();
        match &shown["openings"].as_array().expect("a list")[..] {
            [opening] if opening["state"] == state => Ok(opening.clone()),
            [] | [_] => Err(shown),
            many => panic!("more than one: {many:?}"),
        }
    })
    .await
}

on_both!(a_channel_is_opened_by_itself_and_a_death_does_not_open_another, Set::Strangers, async |mut scene: Scene| {
    with_policy(&mut scene).await;
    let begun = opening(&scene, "opening").await;
    assert_eq!(begun["amount_sats"], AMOUNT);
    // Before its transaction is out a death ends it on both sides, and nothing is lost.
    eventually("its transaction waits for a block", async || {
        let channels = scene.peer.channels_with(scene.node).await;
        let funding: OutPoint = channels.first()?.funding.as_deref()?.parse().ok()?;
        scene.chain.try_rpc("getmempoolentry", json!([funding.txid])).await.ok()
    })
    .await;
    scene.die_and_return().await;
    scene.mine(BURIED).await;
    scene.usable().await;
    let opened = opening(&scene, "opened").await;
    assert_eq!(opened["id"], begun["id"]);
    let channels = scene.peer.channels_with(scene.node).await;
    assert_eq!(channels.len(), 1, "{channels:?}");
    scene.audit().await;
});
