//! A withdrawal for which the node's coins do not reach: a channel is closed for it, by agreement with the peer.

use bitcoin::Txid;
use serde_json::{Value, json};
use sluice::crash::CLOSING_POINTS;
use sluice::ids::RequestId;
use sluice::money::{FeeRate, Sat};
use sluice::ports::lightning::{Asked, LightningNode, OnchainOrder};

use super::on_both;
use super::scene::{PURSE, RESERVE, Scene, Set};
use crate::harness::peer::{DEADLINE, eventually_within};
use crate::harness::process::{Answer, Call, died_at_its_point};
use crate::harness::rig::stranger;

/// More than the node has beside its reserve, once the scene's coins are gone.
const WITHDRAWN: u64 = 300_000;
/// Of the node's coins so many stay.
const LEFT: u64 = 120_000;
/// Blocks that the story may have taken.
const RECENT: u32 = 60;

fn begin(scene: &Scene, sats: u64) -> Call {
    Call::post("/lightning/onchain-send-begin", &scene.client).json(json!({
        "address_or_rgbinvoice": stranger().to_string(), "amount_sats": sats, "fee_rate": 2, "source": "offchain",
    }))
}

async fn end(scene: &Scene, begun: &Answer) -> Value {
    let signed = scene.client.sign(begun.body.as_str().expect("a PSBT"));
    let end = Call::post("/lightning/onchain-send-end", &scene.client).json(json!({ "signed_psbt": signed }));
    scene.gateway.answer(&end).await.ok()
}

/// The node's coins go to somebody else, but for a few.
async fn spend_the_coins(scene: &Scene) {
    let order = OnchainOrder {
        id: RequestId::fresh(),
        to: stranger(),
        amount: Sat::literal(RESERVE - LEFT),
        fee_rate: FeeRate::from_sat_per_vb(1),
        max_fee: Sat::literal(5_000),
    };
    let sent = scene.at_the_node(async |node| node.onchain_send(&order).await).await;
    assert!(matches!(sent, Ok(Asked::Done(_))), "{sent:?}");
    scene.chain.mine_to(1, &stranger()).await;
}

async fn mine_until(scene: &Scene, id: &str, status: &str) -> (Value, Vec<String>) {
    let read = Call::get(format!("/onchain-send/{id}"), &scene.client);
    let mut seen: Vec<String> = Vec::new();
    let last = eventually_within(DEADLINE * 3, &format!("the withdrawal is {status}"), async || {
        let answer = scene.gateway.answer(&read).await.ok();
        let now = answer["status"].as_str().expect("a status").to_owned();
        if seen.last() != Some(&now) {
            seen.push(now.clone());
        }
        if now == status {
            return Ok(answer);
        }
        scene.mine(1).await;
        Err(answer)
    })
    .await;
    (last, seen)
}

on_both!(a_channel_is_closed_when_the_coins_do_not_reach, Set::Closing, async |scene: Scene| {
    spend_the_coins(&scene).await;
    scene.gateway.restart(None).await;
    scene.wait_for_node().await;
    scene.usable().await;
    let refused = scene.gateway.answer(&begin(&scene, 2_000_000)).await;
    assert_eq!((refused.status, refused.text("error")), (409, "reserve_low"), "no channel holds that: {refused:?}");
    let begun = scene.gateway.answer(&begin(&scene, WITHDRAWN)).await;
    assert!(begun.is_ok(), "{begun:?}");
    let ended = end(&scene, &begun).await;
    let id = ended["send_id"].as_str().expect("an id").to_owned();
    let (done, seen) = mine_until(&scene, &id, "CONFIRMED").await;
    assert!(seen.iter().any(|status| status == "SWEEPING_OUTPUTS"), "{seen:?}");
    let [close] = &done["close_txids"].as_array().expect("a list")[..] else { panic!("one closing: {done}") };
    let (close, sweep) = (txid(close), txid(&done["sweep_txid"]));
    let sweep = mined(&scene, sweep).await;
    assert!(sweep.iter().any(|input| input["txid"] == json!(close)), "the sweep spends the closing: {sweep:?}");
    let fee = done["fee_sats"].as_u64().expect("a fee");
    scene.has((PURSE - WITHDRAWN - fee) * 1_000, 0).await;
    assert_eq!(scene.peer.channels_with(scene.node).await.len(), 0, "the channel is gone");
    scene.audit().await;
});

on_both!(a_gateway_that_dies_while_a_channel_is_closed_comes_to_the_same_end, Set::Closing, async |scene: Scene| {
    spend_the_coins(&scene).await;
    scene.gateway.restart(None).await;
    scene.wait_for_node().await;
    scene.usable().await;
    let begun = scene.gateway.answer(&begin(&scene, WITHDRAWN)).await;
    let id = begun.request_id.clone().expect("begin names its request");
    let signed = json!({ "signed_psbt": scene.client.sign(begun.body.as_str().expect("a PSBT")) });
    for point in CLOSING_POINTS {
        scene.gateway.kill();
        scene.gateway.restart(Some(point)).await;
        let status = eventually_within(DEADLINE * 3, &format!("it dies at {point}"), async || {
            let end = Call::post("/lightning/onchain-send-end", &scene.client).json(signed.clone());
            drop(scene.gateway.call(&end).await);
            drop(scene.peer.try_call("connect", scene.whereabouts()).await);
            mine_if_read(&scene).await;
            scene.gateway.exit_status().ok_or("it lives")
        })
        .await;
        assert!(died_at_its_point(status), "{point}: {status}\n{}", scene.gateway.log());
        scene.gateway.site.audit().await;
    }
    scene.gateway.restart(None).await;
    scene.wait_for_node().await;
    let (done, _) = mine_until(&scene, &id, "CONFIRMED").await;
    assert_eq!(done["close_txids"].as_array().map(Vec::len), Some(1), "{done}");
    txid(&done["sweep_txid"]);
    let fee = done["fee_sats"].as_u64().expect("a fee");
    scene.has((PURSE - WITHDRAWN - fee) * 1_000, 0).await;
    scene.audit().await;
});

/// The inputs of a transaction of one of the last blocks.
async fn mined(scene: &Scene, txid: Txid) -> Vec<Value> {
    let mut hash = scene.chain.rpc("getbestblockhash", json!([])).await;
    for _ in 0..RECENT {
        let block = scene.chain.rpc("getblock", json!([hash, 2])).await;
        let found = block["tx"].as_array().expect("transactions").iter().find(|tx| tx["txid"] == json!(txid));
        if let Some(inputs) = found.and_then(|tx| tx["vin"].as_array()) {
            return inputs.clone();
        }
        hash = block["previousblockhash"].clone();
    }
    panic!("{txid} is in none of the last {RECENT} blocks");
}

/// A block, once the gateway's node has read the last one: blocks that come faster than that are no network's.
async fn mine_if_read(scene: &Scene) {
    let node = scene.gateway.call(&Call::get("/admin/node", &scene.client).bearer(&scene.operator)).await;
    let height = scene.chain.rpc("getblockcount", json!([])).await;
    if node.is_ok_and(|answer| answer.body["height"] == height) {
        scene.chain.mine_to(1, &stranger()).await;
        scene.peer.sync().await;
    }
}

fn txid(value: &Value) -> Txid {
    value.as_str().unwrap_or_default().parse().unwrap_or_else(|_| panic!("{value} is no transaction's id"))
}
