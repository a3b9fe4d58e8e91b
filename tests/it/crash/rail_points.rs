//! A gateway that dies at each point between the rails, while coins become off-chain money and off-chain money leaves, and comes to
//! the same end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice::crash::RAIL_POINTS;
use sluice::money::Sat;

use super::channel_points::Story;
use super::pair::{Pair, Side};
use super::say;
use crate::harness::process::{Answer, Call};
use crate::harness::rig::{parse_address, stranger};

/// Points of other stories that this one passes, too.
const SHARED: &[&str] = &["begin.committed", "end.committed", "end.broadcast", "follow.block_committed"];
const COIN: u64 = 100_000;
const SETTLED: u64 = 60_000;
const WITHDRAWN: u64 = 50_000;
const BETWEEN_BLOCKS: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_dies_between_the_rails_comes_to_the_same_end() {
    let begun = Instant::now();
    let Some(pair) = Pair::prepare().await else { return };
    let story = Story::of(pair);
    for point in RAIL_POINTS.iter().chain(SHARED) {
        story.settle_and_withdraw(point).await;
    }
    for side in &story.pair.sides {
        side.gateway.terminate().await;
        assert_eq!(side.gateway.site.audit().await, 0, "{}: the audit could not check everything", side.name);
    }
    say(&format!(
        "crash points between the rails: {} deaths, {:.0?}",
        RAIL_POINTS.len() + SHARED.len(),
        begun.elapsed()
    ));
}

impl Story {
    async fn settle_and_withdraw(&self, point: &str) {
        let dies = &self.pair.sides[0];
        self.fund(point, dies).await;
        let before = self.offchain(point, dies).await;
        let deaths = self.deaths();
        dies.gateway.kill();
        dies.gateway.restart(Some(point)).await;
        self.settle(point, dies).await;
        let fee = self.withdraw(point, dies).await;
        self.change_ones_mind(point, dies).await;
        self.persist(point, dies, &Call::get("/lightning/balance", &dies.client)).await;
        assert_eq!(self.deaths(), deaths + 1, "it does not die at {point}");
        assert_eq!(self.offchain(point, dies).await, before + (SETTLED - WITHDRAWN - fee) * 1_000, "{point}");
    }

    async fn fund(&self, point: &str, side: &Side) {
        let ask = Call::post("/lightning/onchain-receive", &side.client);
        let address = self.persist(point, side, &ask).await;
        let balance = Call::post("/wallet/btcbalance", &side.client);
        let had = self.persist(point, side, &balance).await.body["vanilla"]["spendable"].as_u64().expect("an amount");
        self.pair.node.pay(&parse_address(address.text("btc_address")), Sat::new(COIN).expect("an amount")).await;
        self.pair.node.mine(1).await;
        let has = |answer: &Answer| answer.body["vanilla"]["spendable"] == had + COIN;
        self.until(point, side, &balance, has).await;
    }

    /// In millisatoshi, with nothing held.
    async fn offchain(&self, point: &str, side: &Side) -> u64 {
        let read = Call::get("/lightning/balance", &side.client);
        let nothing_held = |answer: &Answer| answer.body["balance"]["offchain_balance"]["held_msat"] == 0;
        let answer = self.until(point, side, &read, nothing_held).await;
        answer.body["balance"]["offchain_balance"]["total_msat"].as_u64().expect("an amount")
    }

    async fn signed(&self, point: &str, side: &Side, begin: Call) -> Value {
        let begun = self.persist(point, side, &begin).await;
        json!({ "signed_psbt": side.client.sign(begun.body.as_str().expect("a PSBT")) })
    }

    async fn settle(&self, point: &str, side: &Side) {
        let begin = Call::post("/lightning/settle-begin", &side.client).key(format!("settle-{point}"));
        let signed = self.signed(point, side, begin.json(json!({ "amount_sats": SETTLED, "fee_rate": 2 }))).await;
        let end = Call::post("/lightning/settle-end", &side.client).json(signed);
        let id = self.persist(point, side, &end).await.text("id").to_owned();
        let read = Call::get(format!("/lightning/settle/{id}"), &side.client);
        self.mine_until(point, side, &read, "CREDITED").await;
    }

    /// Answers what it has cost.
    async fn withdraw(&self, point: &str, side: &Side) -> u64 {
        let signed = self.signed(point, side, withdrawal(side, &format!("withdraw-{point}"))).await;
        let end = Call::post("/lightning/onchain-send-end", &side.client).json(signed);
        let id = self.persist(point, side, &end).await.text("send_id").to_owned();
        let read = Call::get(format!("/onchain-send/{id}"), &side.client);
        let done = self.mine_until(point, side, &read, "CONFIRMED").await;
        assert_eq!(done.body["source"], "offchain");
        done.body["fee_sats"].as_u64().expect("a fee")
    }

    async fn change_ones_mind(&self, point: &str, side: &Side) {
        let begun = self.persist(point, side, &withdrawal(side, &format!("never-{point}"))).await;
        let id = begun.request_id.expect("begin names its request");
        let cancel = Call::post(format!("/onchain-send/{id}/cancel"), &side.client);
        self.persist(point, side, &cancel).await;
    }

    /// Asks until it is there. Blocks come meanwhile: a transaction may have been late for the last one.
    async fn mine_until(&self, point: &str, side: &Side, read: &Call, status: &str) -> Answer {
        let blocks = async {
            loop {
                self.pair.node.mine(1).await;
                tokio::time::sleep(BETWEEN_BLOCKS).await;
            }
        };
        tokio::select! {
            answer = self.until(point, side, read, |answer| answer.body["status"] == status) => answer,
            () = blocks => unreachable!("blocks come for ever"),
        }
    }
}

fn withdrawal(side: &Side, key: &str) -> Call {
    Call::post("/lightning/onchain-send-begin", &side.client).key(key.to_owned()).json(json!({
        "address_or_rgbinvoice": stranger().to_string(), "amount_sats": WITHDRAWN, "fee_rate": 2, "source": "offchain",
    }))
}
