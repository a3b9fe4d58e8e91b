//! A channel that the peer closes by force, with payments in it: each of them ends on the chain, the node's coins come back to its
//! wallet, and nobody's balance changes by it.

use bitcoin::{OutPoint, Transaction};
use serde_json::json;
use sluice::money::Sat;
use sluice::ports::lightning::{LightningNode, NodeBalance};

use super::on_both;
use super::scene::{PURSE, PUSHED, RESERVE, Scene, Set};
use crate::harness::bitcoind::Bitcoind;
use crate::harness::peer::{eventually, eventually_shown};
use crate::harness::rig::stranger;

const CEILING: u64 = 7;
const CLAIMED: u64 = 40_000;
const LOST: u64 = 60_000;
/// What sweeping and claiming may cost, all together.
const ONCHAIN_FEES: u64 = 20_000;
/// Blocks that are mined at once while a lock runs out.
pub const STRIDE: u32 = 12;

/// The transaction that spends a channel's funding, once it is in the mempool.
pub async fn closing(chain: &Bitcoind, funding: OutPoint) -> Transaction {
    eventually("the channel's closing is in the mempool", async || {
        let waiting = chain.rpc("getrawmempool", json!([])).await;
        for txid in waiting.as_array().expect("a list") {
            let hex = chain.rpc("getrawtransaction", json!([txid])).await;
            let hex = hex.as_str().expect("hex");
            let tx: Transaction = bitcoin::consensus::encode::deserialize_hex(hex).expect("a transaction");
            if tx.input.iter().any(|input| input.previous_output == funding) {
                return Some(tx);
            }
        }
        None
    })
    .await
}

/// Mines until a payment has ended.
async fn mine_until_over(scene: &Scene, id: &str, stride: u32) -> serde_json::Value {
    eventually_shown("the payment ends", async || {
        let status = scene.status(id).await;
        if status["status"] != "PENDING" {
            return Ok(status);
        }
        scene.mine(stride).await;
        Err(status)
    })
    .await
}

on_both!(a_peer_that_closes_by_force_costs_no_wallet_anything, Set::Pair, async |scene: Scene| {
    let claimed = scene.pays_and_waits(CLAIMED, CEILING).await;
    let lost = scene.pays_and_waits(LOST, CEILING).await;
    let both = CLAIMED + LOST + 2 * CEILING;
    let [channel] = &scene.peer.channels_with(scene.node).await[..] else { panic!("one channel") };
    let funding: OutPoint = channel.funding.as_deref().expect("it is funded").parse().expect("an outpoint");

    // The gateway is away when it happens, and when the peer takes on the chain what it can.
    scene.gateway.kill();
    scene.peer.close(&channel.id, true).await;
    let closing = closing(&scene.chain, funding).await;
    scene.chain.mine_to(1, &stranger()).await;
    scene.peer.sync().await;
    scene.peer.claim(claimed.preimage).await;
    scene.gateway.restart(None).await;
    scene.wait_for_node().await;
    scene.has(PURSE * 1_000, both * 1_000).await;

    // The preimage is in a block: the payee has it, and it is paid.
    let ended = mine_until_over(&scene, &claimed.id, 1).await;
    assert_eq!((&ended["status"], &ended["fee_msat"]), (&"SUCCEEDED".into(), &0.into()), "{ended}");
    assert_eq!(ended["preimage"], claimed.preimage.to_string());
    let left = (PURSE - CLAIMED) * 1_000;
    scene.has(left, (LOST + CEILING) * 1_000).await;
    assert_eq!(scene.status(&lost.id).await["state"], "paying", "nobody knows yet");

    // The other one comes back when its time is over, and not before that is buried.
    let ended = mine_until_over(&scene, &lost.id, STRIDE).await;
    assert_eq!((&ended["status"], &ended["error_code"]), (&"FAILED".into(), &"no_liquidity".into()), "{ended}");
    scene.has(left, 0).await;

    let ours = PUSHED + PURSE - CLAIMED - LOST;
    until_swept(&scene, &closing, ours, 1).await;
    scene.has(left, 0).await;
    let whole = RESERVE + ours + LOST;
    scene.at_the_node(async |node| all_is_back(&scene, node, whole).await).await;
    scene.audit().await;
});

/// Mines until the node's side of a closed channel is spent.
pub async fn until_swept(scene: &Scene, closing: &Transaction, ours: u64, stride: u32) {
    let is_ours = |output: &bitcoin::TxOut| output.value.to_sat() == ours;
    let vout = closing.output.iter().position(is_ours).expect("our side of the channel");
    let txid = closing.compute_txid();
    eventually("the node's coins are swept", async || {
        scene.mine(stride).await;
        // In blocks alone: what spends it has to be mined.
        scene.chain.rpc("gettxout", json!([txid, vout, false])).await.is_null().then_some(())
    })
    .await;
}

/// There is no channel, nothing is on its way, and the coins are in the node's wallet.
pub async fn all_is_back(scene: &Scene, node: &dyn LightningNode, whole: u64) {
    eventually_shown(&format!("about {whole} sat are in the node's wallet"), async || {
        let balance = node.balance().await.expect("a balance");
        let NodeBalance { channels, in_flight, closing, onchain_confirmed, .. } = balance;
        let none_left = channels.is_zero() && in_flight.is_zero() && closing == Sat::ZERO;
        let cost = whole.checked_sub(onchain_confirmed.to_u64());
        if none_left && cost.is_some_and(|cost| cost <= ONCHAIN_FEES) {
            return Ok(());
        }
        scene.chain.mine_to(1, &stranger()).await;
        Err(balance)
    })
    .await;
    assert_eq!(node.channels().await, Ok(Vec::new()));
}
