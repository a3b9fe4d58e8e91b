//! RGB assets whose blocks are undone: what they had brought waits again, and is spent only when it is in a block again.

use serde_json::{Value, json};

use super::asset_transfers::{Pair, pair, text};
use crate::harness::process::Call;
use crate::harness::rig::{Client, Database};

/// Two invoices of the second wallet, a blind one and a witness one, that the first has paid in one transaction.
struct Paid {
    send: String,
    requests: [Value; 2],
}

impl Pair {
    /// Both are paid, and their block is the tip.
    async fn both_are_paid(&self) -> Paid {
        let blind = self.invoice(&self.bob, "/wallet/blindreceive", json!({ "amount": 10 })).await;
        let witness = self.invoice(&self.bob, "/wallet/witnessreceive", json!({ "amount": 7 })).await;
        let body = json!({
            "invoice": blind["invoice"], "asset_id": self.asset, "fee_rate": 2, "min_confirmations": 1,
            "more": [{ "invoice": witness["invoice"], "asset_id": self.asset }],
        });
        let send = text(&self.pay(&self.ann, body).await["send_id"]).to_owned();
        self.settle(&self.ann, &send).await;
        let requests = [blind["request_id"].clone(), witness["request_id"].clone()];
        for request in &requests {
            self.received(&self.bob, request, "settled").await;
        }
        Paid { send, requests }
    }

    /// The tip is undone, and what was in it waits.
    async fn undo_tip(&self) {
        let tip = self.scene.node.tip().await;
        self.scene.node.invalidate_block(tip.hash).await;
    }

    /// Waits until a wallet's transfers of these kinds that have a transaction, two of them, are listed so.
    async fn lists_two(&self, of: &Client, kinds: &[u8], state: &str, status: u64) {
        let call = Call::post("/wallet/listtransfers", of).json(json!({ "asset_id": self.asset }));
        let is_meant = |one: &&Value| one["txid"].is_string() && kinds.iter().any(|kind| one["kind"] == *kind);
        let is_so = |one: &Value| one["state"] == state && one["status"] == status;
        let are_so = |all: &Value| {
            let meant: Vec<&Value> = all.as_array().expect("a list").iter().filter(is_meant).collect();
            meant.len() == 2 && meant.into_iter().all(is_so)
        };
        self.scene.until(state, &call, are_so).await;
    }

    /// A payment of so much from one to the other, to be begun.
    async fn asked(&self, payer: &Client, payee: &Client, amount: u64) -> Call {
        let wanted = json!({ "asset_id": self.asset, "amount": amount });
        let invoice = self.invoice(payee, "/wallet/witnessreceive", wanted).await;
        let body = json!({ "invoice": invoice["invoice"], "fee_rate": 2, "min_confirmations": 1 });
        Call::post("/wallet/sendbegin", payer).json(body)
    }

    async fn timeline(&self, of: &Client, request: &Value) -> Vec<String> {
        let shown = self.scene.ok(&Call::get(format!("/requests/{}", text(request)), of)).await;
        let kind = |event: &Value| text(&event["kind"]).trim_start_matches("asset_receive.").to_owned();
        shown["timeline"].as_array().expect("a list").iter().map(kind).collect()
    }

    /// What both have, once the engine has looked at the last block.
    async fn balances(&self, ann: u64, bob: u64) {
        for (client, amount) in [(&self.ann, ann), (&self.bob, bob)] {
            let call = Call::post("/wallet/assetbalance", client).json(json!({ "asset_id": self.asset }));
            self.scene.until(&format!("it has {amount}"), &call, |balance| balance["settled"] == amount).await;
        }
    }

    async fn sent(&self, send: &str) -> Value {
        self.scene.ok(&Call::get(format!("/onchain-send/{send}"), &self.ann)).await
    }
}

const RECEIVED: [u8; 2] = [1, 2];
const SENT: [u8; 1] = [3];
/// What is told of a receipt whose block was undone, and that is in another by now.
const THERE_AGAIN: [&str; 7] = ["opened", "arriving", "seen", "settled", "reorged", "seen", "settled"];

/// Both ends of a payment whose block is undone: neither spends what it had from it, until another block has it.
async fn what_a_block_had_brought_waits_for_another(database: Database) {
    let Some(pair) = pair(database).await else { return };
    let (ann, bob) = (&pair.ann, &pair.bob);
    let paid = pair.both_are_paid().await;
    let (back, more) = (pair.asked(bob, ann, 12).await, pair.asked(ann, bob, 900).await);
    pair.undo_tip().await;
    pair.scene.node.mine_empty(2).await;
    pair.scene.gateway.wait_synced(&pair.scene.node).await;
    for request in &paid.requests {
        pair.received(bob, request, "reorged").await;
    }
    pair.lists_two(bob, &RECEIVED, "reorged", 1).await;
    pair.lists_two(ann, &SENT, "reorged", 1).await;
    let sent = pair.sent(&paid.send).await;
    assert_eq!((&sent["status"], &sent["height"]), (&json!("BROADCASTED"), &Value::Null));
    for begin in [&back, &more] {
        pair.scene.refused(begin, 409, "coins_unconfirmed").await;
    }

    pair.scene.mine().await;
    for request in &paid.requests {
        pair.received(bob, request, "settled").await;
        assert_eq!(pair.timeline(bob, request).await, THERE_AGAIN);
    }
    assert_eq!(pair.sent(&paid.send).await["status"], "CONFIRMED");
    pair.lists_two(bob, &RECEIVED, "settled", 2).await;
    pair.lists_two(ann, &SENT, "settled", 2).await;
    pair.balances(983, 17).await;
    for (payer, begin) in [(bob, &back), (ann, &more)] {
        pair.goes_through(payer, begin).await;
    }
    pair.balances(95, 905).await;
    pair.scene.end().await;
}

impl Pair {
    /// Begins, signs, ends, and waits for the block.
    async fn goes_through(&self, payer: &Client, begin: &Call) {
        let begun = self.scene.ok(begin).await;
        let signed = json!({ "signed_psbt": payer.sign(text(&begun)) });
        let sent = self.scene.ok(&Call::post("/wallet/sendend", payer).json(signed)).await;
        self.settle(payer, text(&sent["send_id"])).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_block_had_brought_waits_for_another_on_sqlite() {
    what_a_block_had_brought_waits_for_another(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_block_had_brought_waits_for_another_on_postgres() {
    what_a_block_had_brought_waits_for_another(Database::Postgres).await;
}

/// A block takes the place of another at the same height. The engine is asked again, although the chain is no longer than it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_in_the_place_of_another_is_looked_at() {
    let Some(pair) = pair(Database::Sqlite).await else { return };
    let bob = &pair.bob;
    // That it is settled tells that the engine was asked at this height.
    let paid = pair.both_are_paid().await;
    let height = pair.scene.node.tip().await.height;
    pair.undo_tip().await;
    pair.scene.mine().await;
    assert_eq!(pair.scene.node.tip().await.height, height);
    for request in &paid.requests {
        pair.received(bob, request, "settled").await;
        assert_eq!(pair.timeline(bob, request).await, THERE_AGAIN);
    }
    pair.balances(983, 17).await;
    pair.scene.end().await;
}
