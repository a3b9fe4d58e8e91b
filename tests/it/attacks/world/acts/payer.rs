//! What those do who pay, with a node and a wallet of their own, and who are connected to the gateway's node.

use std::time::{Duration, Instant};

use rand::Rng;
use serde_json::json;
use sluice::money::Sat;

use super::refused;
use crate::attacks::world::{DEADLINE, PAYMENT_DEADLINE, POLL, SMALLEST_CHANNEL, World};
use crate::harness::process::{Answer, Call};
use crate::harness::rig::parse_address;

const DEPOSIT: u64 = 4_000;
const PEERS_COIN: Sat = Sat::literal(1_000_000);

impl World {
    pub(super) async fn a_payer_pays_an_invoice_twice(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(50).await else { return false };
        self.payer_pays(bill.text("invoice")).await;
        let payer = &self.pair.sides[1];
        let again =
            Call::post("/lightning/pay-invoice-begin", &payer.client).json(json!({ "invoice": bill.text("invoice") }));
        let answer = payer.gateway.until("an answer", &again, |answer| answer.status < 500).await;
        refused(&answer, &["already_paid"])
    }

    /// Whether it was in time or not: what has left the payer has arrived, and nothing else has.
    pub(super) async fn a_payer_pays_in_the_last_moment(&mut self) -> bool {
        let order = Call::post("/lightning/create-invoice", &self.pair.sides[0].client);
        let order = order.json(json!({ "amount_sats": 60, "expiry_seconds": 2 }));
        let Some(bill) = self.ask(&order).await.filter(Answer::is_ok) else { return false };
        let payer = &self.pair.sides[1];
        let begin = Call::post("/lightning/pay-invoice-begin", &payer.client)
            .json(json!({ "invoice": bill.text("invoice"), "max_fee_sats": 10 }));
        let Some(begun) = payer.gateway.call(&begin).await.ok().filter(Answer::is_ok) else { return false };
        let signed = payer.client.sign(begun.body.as_str().expect("a PSBT"));
        let end = Call::post("/lightning/pay-invoice-end", &payer.client).json(json!({ "signed_psbt": signed }));
        tokio::time::sleep(Duration::from_millis(self.dice.random_range(0..2_000))).await;
        let ended = self.pair.sides[1].gateway.answer(&end).await;
        let was_paid = if ended.is_ok() {
            self.payers_payment_ends(&begun).await == "SUCCEEDED"
        } else {
            refused(&ended, &["invoice_expired", "request_expired"]);
            false
        };
        let read = Call::get(format!("/lightning/receive-request/{}", bill.text("id")), &self.pair.sides[0].client);
        if was_paid {
            self.persist(&read, |answer| answer.body["status"] == "SETTLED").await;
        } else {
            let read = self.persist(&read, Answer::is_ok).await;
            assert_ne!(read.body["status"], "SETTLED", "its payer was told that it has failed");
        }
        true
    }

    pub(super) async fn a_payer_pays_an_address_that_is_over(&mut self) -> bool {
        let ask = Call::post("/lightning/onchain-receive", &self.tenant);
        let Some(issued) = self.ask(&ask).await.filter(Answer::is_ok) else { return false };
        let to = parse_address(issued.text("btc_address"));
        let request = issued.request_id.as_deref().unwrap_or_else(|| issued.text("request_id"));
        let request = Call::get(format!("/requests/{request}"), &self.tenant);
        self.persist(&request, |answer| answer.body["state"] == "expired").await;
        let txid = self.pair.node.pay(&to, Sat::literal(DEPOSIT)).await.to_string();
        self.pair.node.mine(1).await;
        let deposits = Call::get("/deposits", &self.tenant);
        let is_there = |answer: &Answer| {
            let all = answer.body["deposits"].as_array();
            all.is_some_and(|all| all.iter().any(|one| one["txid"] == txid.as_str() && one["state"] == "confirmed"))
        };
        self.persist(&deposits, is_there).await;
        true
    }

    pub(super) async fn a_payer_is_killed_while_it_pays(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(40).await else { return false };
        let payer = &self.pair.sides[1];
        let begin = Call::post("/lightning/pay-invoice-begin", &payer.client)
            .json(json!({ "invoice": bill.text("invoice"), "max_fee_sats": 10 }));
        let begun = payer.gateway.until("it begins", &begin, Answer::is_ok).await;
        let signed = payer.client.sign(begun.body.as_str().expect("a PSBT"));
        let end = Call::post("/lightning/pay-invoice-end", &payer.client).json(json!({ "signed_psbt": signed }));
        let died = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            payer.gateway.kill();
        };
        // Whether it was answered is the point: either is right.
        drop(tokio::join!(payer.gateway.call(&end), died));
        payer.gateway.restart(None).await;
        payer.gateway.until("it is consented to", &end, Answer::is_ok).await;
        let was_paid = self.payers_payment_ends(&begun).await == "SUCCEEDED";
        let read = Call::get(format!("/lightning/receive-request/{}", bill.text("id")), &self.pair.sides[0].client);
        self.persist(&read, |answer| answer.is_ok() && (answer.body["status"] == "SETTLED") == was_paid).await;
        true
    }

    /// How a payment of the other gateway's wallet ends, while its payee may die.
    async fn payers_payment_ends(&mut self, begun: &Answer) -> String {
        let id = begun.request_id.clone().expect("begin names its request");
        let read = Call::get(format!("/lightning/send-request/{id}"), &self.pair.sides[1].client);
        let deadline = Instant::now() + PAYMENT_DEADLINE;
        loop {
            let sent = self.pair.sides[1].gateway.answer(&read).await;
            if sent.body["status"] != "PENDING" {
                return sent.text("status").to_owned();
            }
            assert!(Instant::now() < deadline, "the payment does not end: {sent:?}");
            self.revive().await;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Gives the other gateway's node coins of its own.
    pub(in crate::attacks::world) async fn fund_the_peer(&mut self) {
        let peer = &self.pair.sides[1];
        let ask = self.operator(1, Call::post("/admin/reserve", &peer.client));
        let reserve = peer.gateway.until("an address", &ask, Answer::is_ok).await;
        self.pair.node.pay(&parse_address(reserve.text("address")), PEERS_COIN).await;
        self.pair.node.mine(1).await;
        let look = self.operator(1, Call::get("/admin/node", &peer.client));
        let has =
            |answer: &Answer| answer.body["balance"]["onchain_confirmed_sats"].as_u64() >= Some(PEERS_COIN.to_u64());
        peer.gateway.until("the coin is there", &look, has).await;
    }

    pub(super) async fn a_peer_offers_a_channel_that_is_too_small(&mut self) -> bool {
        const NOT_TAKEN: &str = "an offered channel is not taken";
        let peers = self.operator(1, Call::get("/admin/peers", &self.pair.sides[1].client));
        let listed = self.pair.sides[1].gateway.answer(&peers).await;
        let all = listed.body["peers"].as_array().cloned().unwrap_or_default();
        let Some(victim) = all.iter().find(|peer| peer["connected"] == true) else { return false };
        let times = || self.pair.sides[0].gateway.whole_log().matches(NOT_TAKEN).count();
        let before = times();
        let open = self.operator(1, Call::post("/admin/channels", &self.pair.sides[1].client));
        let open = open.json(json!({ "peer": victim["id"], "amount_sats": SMALLEST_CHANNEL / 2 }));
        let opened = self.pair.sides[1].gateway.answer(&open).await;
        if !opened.is_ok() {
            return refused(&opened, &["node_refused", "outcome_unknown"]) && times() > before;
        }
        let deadline = Instant::now() + DEADLINE;
        while times() == before {
            assert!(Instant::now() < deadline, "the channel is neither taken nor refused");
            if self.pair.sides[0].gateway.exit_status().is_some() {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        let channels = self.operator(0, Call::get("/admin/channels", &self.pair.sides[0].client));
        let Some(answer) = self.ask(&channels).await.filter(Answer::is_ok) else { return false };
        let count = answer.body["channels"].as_array().map(Vec::len);
        assert_eq!(count, Some(1), "a channel that is too small was taken: {answer:?}");
        true
    }
}
