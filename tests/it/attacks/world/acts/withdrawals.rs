//! What a wallet's owner does with off-chain money that leaves on-chain, and with coins that become off-chain money.

use std::sync::Arc;

use rand::Rng;
use serde_json::json;

use super::{refused, signed};
use crate::attacks::world::World;
use crate::harness::process::{Answer, Call};
use crate::harness::rig::stranger;

const BEGIN: &str = "/lightning/onchain-send-begin";
const END: &str = "/lightning/onchain-send-end";
const WITHDRAWN: u64 = 1_000;
/// What the tenant moves off-chain at a time.
pub(in crate::attacks::world) const SETTLED: u64 = 20_000;

impl World {
    pub(super) async fn a_tenant_cancels_a_withdrawal_that_goes_out(&mut self) -> bool {
        let tenant = Arc::clone(&self.tenant);
        let to = self.pair.node.new_address().await;
        let wanted = json!({
            "address_or_rgbinvoice": to.to_string(), "amount_sats": WITHDRAWN, "fee_rate": 1, "source": "offchain",
        });
        let Some(begun) = self.begun(&tenant, BEGIN, wanted).await else { return false };
        let id = begun.request_id.clone().expect("begin names its request");
        let end = Call::post(END, &tenant).json(signed(&tenant, &begun));
        let cancel = Call::post(format!("/onchain-send/{id}/cancel"), &tenant);
        // At the same time, or after it was consented to: then it may wait, or be on its way.
        let is_late = self.dice.random_bool(0.5);
        if is_late && !self.ask(&end).await.is_some_and(|answer| answer.is_ok()) {
            return false;
        }
        let gateway = &self.pair.sides[0].gateway;
        let answers = futures::future::join_all([&end, &cancel, &end, &cancel].map(|call| gateway.call(call))).await;
        self.revive().await;
        let all_answered = answers.iter().all(Result::is_ok);
        // What was lost in a death is done now, or was done: a withdrawal that nobody has signed would wait for its time.
        self.ask(&end).await;
        let read = Call::get(format!("/onchain-send/{id}"), &tenant);
        let ended = ["CONFIRMED", "FAILED"];
        let over =
            self.persist_mining(&read, |answer| ended.iter().any(|status| answer.body["status"] == *status)).await;
        let received = self.pair.node.rpc("getreceivedbyaddress", json!([to.to_string(), 0])).await;
        let went_out = received.as_f64().is_some_and(|bitcoins| bitcoins > 0.0);
        assert_eq!(went_out, over.body["status"] == "CONFIRMED", "it went out and came back: {over:?}, {received}");
        all_answered
    }

    pub(super) async fn a_tenant_sets_money_aside_and_takes_it_back(&mut self) -> bool {
        let tenant = Arc::clone(&self.tenant);
        let wanted = json!({
            "address_or_rgbinvoice": stranger().to_string(), "amount_sats": WITHDRAWN, "fee_rate": 2, "source": "offchain",
        });
        let Some(begun) = self.begun(&tenant, BEGIN, wanted).await else { return false };
        let id = begun.request_id.clone().expect("begin names its request");
        let cancel = Call::post(format!("/onchain-send/{id}/cancel"), &tenant);
        if !self.ask(&cancel).await.is_some_and(|answer| answer.is_ok()) {
            return false;
        }
        // What was taken back is not sent by a consent that comes late.
        let end = Call::post(END, &tenant).json(signed(&tenant, &begun));
        let Some(answer) = self.ask(&end).await else { return false };
        if !answer.is_ok() {
            return refused(&answer, &["request_expired"]);
        }
        answer.body["status"] == "FAILED"
    }

    pub(super) async fn a_tenant_settles_and_the_chain_changes_its_mind(&mut self) -> bool {
        if !self.tenants_coins().await {
            return false;
        }
        let tenant = Arc::clone(&self.tenant);
        let wanted = json!({ "amount_sats": SETTLED, "fee_rate": 2 });
        let Some(begun) = self.begun(&tenant, "/lightning/settle-begin", wanted).await else { return false };
        let id = begun.request_id.clone().expect("begin names its request");
        self.settles.push(id.clone());
        let end = Call::post("/lightning/settle-end", &tenant).json(signed(&tenant, &begun));
        if !self.ask(&end).await.is_some_and(|answer| answer.is_ok()) {
            return false;
        }
        let read = Call::get(format!("/lightning/settle/{id}"), &tenant);
        let is_credited = |answer: &Answer| answer.body["status"] == "CREDITED";
        self.persist_mining(&read, is_credited).await;
        self.pair.node.reorg(1, true).await;
        self.followed().await;
        // The same coins are in another block, and credited once.
        self.persist_mining(&read, is_credited).await;
        true
    }
}
