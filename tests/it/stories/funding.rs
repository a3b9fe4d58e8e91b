//! Channels that are not yet, or no longer, in a block: a reorganisation takes their funding away, or a process dies while they are opened.

use bitcoin::{OutPoint, Transaction, Txid};
use serde_json::json;
use sluice::money::{Amount, Sat};
use sluice::ports::lightning::LightningNode;

use super::closing::{all_is_back, closing, until_swept};
use super::on_both;
use super::scene::{CHANNEL, PEER_COINS, PURSE, PUSHED, RESERVE, Scene, Set};
use crate::harness::lightning::sat;
use crate::harness::peer::{Opening, PeerChannel, eventually, eventually_shown};

/// Fewer than the gateway's node waits for.
const TOO_FEW: u32 = 2;
/// Enough for both sides.
const BURIED: u32 = 6;
const SMALL: Opening =
    Opening { amount: Sat::literal(500_000), push: Amount::from_sat(Sat::literal(200_000)), announced: false };
/// What openings may cost, all together.
const FEES: u64 = 20_000;

async fn only_channel(scene: &Scene) -> PeerChannel {
    let mut channels = scene.peer.channels_with(scene.node).await;
    assert_eq!(channels.len(), 1, "{channels:?}");
    channels.remove(0)
}

fn funding_of(channel: &PeerChannel) -> OutPoint {
    channel.funding.as_deref().expect("it is funded").parse().expect("an outpoint")
}

async fn transaction(scene: &Scene, txid: Txid) -> Transaction {
    let hex = scene.chain.rpc("getrawtransaction", json!([txid])).await;
    bitcoin::consensus::encode::deserialize_hex(hex.as_str().expect("hex")).expect("a transaction")
}

async fn waits_for_a_block(scene: &Scene, funding: OutPoint) {
    eventually("the funding is in the mempool", async || {
        scene.chain.try_rpc("getmempoolentry", json!([funding.txid])).await.ok()
    })
    .await;
}

/// Waits until the peer counts these many blocks on the funding.
async fn buried(scene: &Scene, blocks: u32) {
    eventually_shown(&format!("the funding has {blocks} blocks"), async || {
        scene.peer.sync().await;
        let channel = only_channel(scene).await;
        if channel.confirmations == u64::from(blocks) { Ok(()) } else { Err(channel) }
    })
    .await;
    scene.gateway.wait_synced(&scene.chain).await;
}

on_both!(a_funding_that_is_mined_again_makes_a_channel, Set::Strangers, async |scene: Scene| {
    scene.peer.fund_channel(scene.node, &scene.listens, CHANNEL).await;
    let funding = funding_of(&only_channel(&scene).await);
    // Once before the eyes of the gateway, once behind its back.
    for away in [false, true] {
        waits_for_a_block(&scene, funding).await;
        scene.mine(TOO_FEW).await;
        buried(&scene, TOO_FEW).await;
        if away {
            scene.gateway.kill();
        }
        scene.chain.reorg(TOO_FEW, false).await;
        if away {
            scene.gateway.restart(None).await;
            scene.wait_for_node().await;
        }
        buried(&scene, 0).await;
        assert!(!only_channel(&scene).await.usable);
    }
    waits_for_a_block(&scene, funding).await;
    scene.mine(BURIED).await;
    scene.usable().await;
    assert_eq!(funding_of(&only_channel(&scene).await), funding);
    scene.is_paid(PURSE).await;
    let ended = scene.pay(&scene.peer.invoice(Some(sat(PURSE / 2)), "goods").await, 0).await;
    assert_eq!(ended["status"], "SUCCEEDED", "{ended}");
    scene.has(PURSE / 2 * 1_000, 0).await;
    scene.audit().await;
});

// Payments may have gone over it, and it may be spent twice: LDK, on both sides, closes it at once. The peer's closing is mined, and what
// the node had set aside to bump its own is free again.
on_both!(a_funding_that_was_used_and_vanishes_gives_its_coins_back, Set::Pair, async |scene: Scene| {
    let channel = only_channel(&scene).await;
    let (funding, depth) = (funding_of(&channel), u32::try_from(channel.confirmations).expect("a few"));
    scene.gateway.kill();
    scene.chain.reorg(depth, false).await;
    waits_for_a_block(&scene, funding).await;
    let theirs = closing(&scene.chain, funding).await;
    scene.gateway.restart(None).await;
    scene.wait_for_node().await;
    eventually("the gateway closes it too", async || {
        scene.gateway.whole_log().contains("a channel is closed").then_some(())
    })
    .await;
    let funded = transaction(&scene, funding.txid).await;
    scene.chain.mine_with(&[funded, theirs.clone()]).await;
    let ours = PUSHED + PURSE;
    until_swept(&scene, &theirs, ours, 1).await;
    scene.has(PURSE * 1_000, 0).await;
    let ended = scene.pay(&scene.peer.invoice(Some(sat(1_000)), "goods").await, 0).await;
    assert_eq!((&ended["status"], &ended["error_code"]), (&"FAILED".into(), &"no_liquidity".into()), "{ended}");
    scene.has(PURSE * 1_000, 0).await;
    scene.at_the_node(async |node| all_is_back(&scene, node, RESERVE + ours).await).await;
    scene.audit().await;
});

/// How far an opening is when a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Asked,
    Funded,
    Mined,
}

const MOMENTS: [Moment; 3] = [Moment::Asked, Moment::Funded, Moment::Mined];

/// Mines until every channel between the two is in use, or is forgotten. Answers those that are in use.
async fn used_or_forgotten(scene: &Scene) -> Vec<PeerChannel> {
    scene.mine(BURIED).await;
    eventually_shown("every channel is in use", async || {
        drop(scene.peer.try_call("connect", scene.whereabouts()).await);
        scene.peer.sync().await;
        let channels = scene.peer.channels_with(scene.node).await;
        if channels.iter().all(|channel| channel.usable) {
            return Ok(channels);
        }
        scene.mine(1).await;
        Err(channels)
    })
    .await
}

on_both!(a_gateway_that_dies_while_a_channel_is_opened_loses_no_coin, Set::Strangers, async |scene: Scene| {
    for moment in MOMENTS {
        let before = scene.peer.channels_with(scene.node).await.len();
        let asked = json!({
            "node": scene.node.to_string(), "address": scene.listens, "sat": SMALL.amount.to_u64(), "push_msat": SMALL.push.base_units(),
        });
        scene.peer.call("open_channel", asked).await;
        if moment != Moment::Asked {
            eventually("the channel is funded", async || {
                let channels = scene.peer.channels_with(scene.node).await;
                (channels.len() > before && channels.iter().all(|channel| channel.funding.is_some())).then_some(())
            })
            .await;
        }
        if moment == Moment::Mined {
            let channels = scene.peer.channels_with(scene.node).await;
            let youngest = channels.iter().find(|channel| channel.confirmations == 0).expect("it waits for a block");
            waits_for_a_block(&scene, funding_of(youngest)).await;
            scene.mine(1).await;
        }
        scene.die_and_return().await;
        let channels = used_or_forgotten(&scene).await;
        assert!(moment == Moment::Asked || channels.len() == before + 1, "{moment:?}: {channels:?}");
    }
    let channels = scene.peer.channels_with(scene.node).await;
    let in_channels = SMALL.amount.to_u64() * u64::try_from(channels.len()).expect("a few");
    let has = in_channels + scene.peer.spendable().await.to_u64();
    assert!(has <= PEER_COINS && PEER_COINS - has <= FEES, "{has} of {PEER_COINS}");
    scene.is_paid(1_000).await;
    let known = scene.at_the_node(async |node| node.channels().await.expect("channels")).await;
    assert_eq!(known.len(), channels.len(), "{known:?}, {channels:?}");
    scene.audit().await;
});
