//! The gateway dies while an asset goes from one of its wallets to another, at every step there is. Whoever asks again with the same
//! key goes on where it was; nothing is paid twice, and no coin stays set aside for what nobody knows of.

use serde_json::{Value, json};
use sluice::crash::TRANSFER_POINTS;

use super::asset_transfers::{Pair, pair, text};
use crate::harness::process::{Answer, Call, died_at_its_point};
use crate::harness::rig::Database;

const AMOUNT: u64 = 10;

/// A caller who asks again when nobody answers.
struct Stubborn<'a> {
    pair: &'a mut Pair,
    point: &'static str,
    deaths: u32,
}

impl Stubborn<'_> {
    async fn ask(&mut self, call: &Call) -> Value {
        loop {
            match self.pair.scene.gateway.call(call).await {
                Ok(answer) => return answer.ok(),
                Err(_) => self.bury().await,
            }
        }
    }

    /// The gateway has died where it was told to, and is started again.
    async fn bury(&mut self) {
        assert!(died_at_its_point(self.pair.scene.gateway.wait_exit().await), "{}", self.point);
        self.deaths += 1;
        assert_eq!(self.deaths, 1, "{}: it dies once", self.point);
        self.pair.scene.gateway.restart(None).await;
    }

    async fn until(&mut self, what: &str, call: &Call, is_so: impl Fn(&Answer) -> bool) -> Value {
        for _ in 0..600 {
            match self.pair.scene.gateway.call(call).await {
                Ok(answer) if answer.is_ok() && is_so(&answer) => return answer.ok(),
                Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
                Err(_) => self.bury().await,
            }
        }
        panic!("{}: not in time: {what}\n{}", self.point, self.pair.scene.gateway.log());
    }

    /// From the invoice to the block.
    async fn pay(&mut self) {
        let point = self.point;
        let asked = json!({ "asset_id": null, "amount": AMOUNT });
        let receive = Call::post("/wallet/blindreceive", &self.pair.bob).json(asked).key(format!("{point} invoice"));
        let invoice = self.ask(&receive).await;
        let body = json!({
            "invoice": invoice["invoice"], "asset_id": self.pair.asset, "fee_rate": 2, "min_confirmations": 1,
        });
        let begin = Call::post("/wallet/sendbegin", &self.pair.ann).json(body).key(format!("{point} send"));
        let begun = self.ask(&begin).await;
        let signed = json!({ "signed_psbt": self.pair.ann.sign(text(&begun)) });
        let sent = self.ask(&Call::post("/wallet/sendend", &self.pair.ann).json(signed)).await;
        let send = Call::get(format!("/onchain-send/{}", text(&sent["send_id"])), &self.pair.ann);
        self.until("it is out", &send, |answer| answer.body["status"] == "BROADCASTED").await;
        // It may die as late as now.
        self.pair.scene.node.mine(1).await;
        self.until("it is final", &send, |answer| answer.body["status"] == "CONFIRMED").await;
        let receipt = Call::get(format!("/requests/{}", text(&invoice["request_id"])), &self.pair.bob);
        self.until("it is settled", &receipt, |answer| answer.body["state"] == "settled").await;
    }
}

async fn every_step(database: Database) {
    let Some(mut pair) = pair(database).await else { return };
    // Each payment is received on a coin of its own.
    pair.scene.make_coins_for(&pair.bob, json!({ "num": 9, "size": 3_000, "fee_rate": 2 })).await;
    let before = pair.balance(&pair.bob).await;
    let mut paid = 0;
    for point in TRANSFER_POINTS {
        pair.scene.gateway.kill();
        pair.scene.gateway.restart(Some(point)).await;
        let mut caller = Stubborn { pair: &mut pair, point, deaths: 0 };
        caller.pay().await;
        assert_eq!(caller.deaths, 1, "{point}: it was never passed");
        paid += AMOUNT;
        pair.comes_to(&pair.bob, before + paid).await;
        pair.comes_to(&pair.ann, 1_000 - before - paid).await;
    }
    let promised: Vec<Value> = pair.transfers_in(&pair.bob, 0).await;
    assert_eq!(promised, Vec::<Value>::new(), "an invoice that nobody knows of is open");
    pair.scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_dies_at_any_step_pays_once_on_sqlite() {
    every_step(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_dies_at_any_step_pays_once_on_postgres() {
    every_step(Database::Postgres).await;
}
