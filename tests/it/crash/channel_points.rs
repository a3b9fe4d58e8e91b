//! A gateway that dies at each point of the Lightning rail, while it is paid and pays over a channel, and comes to the same end.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;
use sluice::crash::LIGHTNING_POINTS;

use super::pair::{PURSE, Pair, Side};
use super::say;
use crate::harness::process::{Answer, Call, DEADLINE, POLL, died_at_its_point};

const RECEIVED: u64 = 700;
const PAID: u64 = 300;

/// Points that many rounds of the node pass: which of them dies depends on the visit.
fn visits(point: &str) -> &'static [u32] {
    match point {
        "node.before_commit" | "node.after_commit" => &[2, 6, 12],
        _ => &[1],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_dies_at_any_point_of_a_payment_comes_to_the_same_end() {
    let begun = Instant::now();
    let Some(pair) = Pair::prepare().await else { return };
    let story = Story::of(pair);
    let mut told = 0;
    for point in LIGHTNING_POINTS {
        for visit in visits(point) {
            told += 1;
            story.tell(&format!("{point}:{visit}"), told).await;
        }
    }
    story.pair.compare_with_channels().await;
    say(&format!("crash points of a channel: {told} deaths, {:.0?}", begun.elapsed()));
}

/// The first side dies; the second one is who it pays and is paid by.
pub(super) struct Story {
    pub(super) pair: Pair,
    deaths: AtomicUsize,
    numbers: AtomicU64,
}

impl Story {
    pub(super) fn of(pair: Pair) -> Self {
        Self { pair, deaths: AtomicUsize::new(0), numbers: AtomicU64::new(0) }
    }

    pub(super) fn deaths(&self) -> usize {
        self.deaths.load(Ordering::SeqCst)
    }

    async fn tell(&self, point: &str, told: u64) {
        let [dies, other] = &self.pair.sides;
        dies.gateway.kill();
        let secret = match point.starts_with("pay_with_key.") {
            true => Some(dies.gateway.site.spending_key(&dies.client, "btc:100000/month").await),
            false => None,
        };
        dies.gateway.restart(Some(point)).await;
        let before = self.deaths();
        self.pay(point, other, dies, RECEIVED, None).await;
        self.pay(point, dies, other, PAID, secret.as_deref()).await;
        self.persist(point, dies, &Call::get("/lightning/balance", &dies.client)).await;
        assert_eq!(self.deaths(), before + 1, "it does not die at {point}");
        let moved = told * (RECEIVED - PAID);
        for (side, purse) in [(dies, PURSE + moved), (other, PURSE - moved)] {
            let read = Call::get("/lightning/balance", &side.client);
            side.gateway
                .until(&format!("{point}: {} has {purse} sat", side.name), &read, |answer| {
                    let balance = &answer.body["balance"]["offchain_balance"];
                    balance["total_msat"] == purse * 1_000 && balance["held_msat"] == 0
                })
                .await;
        }
        self.pair.require_open().await;
    }

    /// From the invoice to the end, by clients who ask again until they are answered. With a key, or signed by the owner.
    async fn pay(&self, point: &str, payer: &Side, payee: &Side, sat: u64, secret: Option<&str>) {
        let number = self.numbers.fetch_add(1, Ordering::SeqCst);
        let order = Call::post("/lightning/create-invoice", &payee.client).key(format!("invoice-{number}"));
        let invoice = self.persist(point, payee, &order.json(json!({ "amount_sats": sat }))).await;
        let (to, key) = (&invoice.body["invoice"], format!("pay-{number}"));
        let ended = if let Some(secret) = secret {
            let pay = Call::post("/lightning/pay-invoice", &payer.client).key(key).bearer(secret);
            self.persist(point, payer, &pay.json(json!({ "destination": to, "max_fee_sats": 1, "wait": 2 }))).await
        } else {
            let begin = Call::post("/lightning/pay-invoice-begin", &payer.client).key(key);
            let begun = self.persist(point, payer, &begin.json(json!({ "invoice": to, "max_fee_sats": 1 }))).await;
            let signed = payer.client.sign(begun.body.as_str().expect("a PSBT"));
            let end = Call::post("/lightning/pay-invoice-end", &payer.client).json(json!({ "signed_psbt": signed }));
            self.persist(point, payer, &end).await
        };
        let (send, receive) = (ended.text("id").to_owned(), invoice.text("id").to_owned());
        let read = Call::get(format!("/lightning/send-request/{send}"), &payer.client);
        let sent = self.until(point, payer, &read, |answer| answer.body["status"] != "PENDING").await;
        assert_eq!(sent.body["status"], "SUCCEEDED", "{point}: {sent:?}");
        let read = Call::get(format!("/lightning/receive-request/{receive}"), &payee.client);
        self.until(point, payee, &read, |answer| answer.body["status"] == "SETTLED").await;
    }

    pub(super) async fn persist(&self, point: &str, side: &Side, call: &Call) -> Answer {
        self.until(point, side, call, Answer::is_ok).await
    }

    /// Asks until the answer is what is waited for. A gateway that has died at its point is audited and started again.
    pub(super) async fn until(&self, point: &str, side: &Side, call: &Call, holds: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let last = side.gateway.call(call).await;
            match last {
                Ok(answer) if answer.is_ok() && holds(&answer) => return answer,
                last if Instant::now() > deadline => {
                    panic!("{point}: {}: {call:?}: not in time, last {last:?}\n{}", side.name, side.gateway.log())
                }
                _ => self.revive(point, side).await,
            }
        }
    }

    async fn revive(&self, point: &str, side: &Side) {
        // The one that dies may do so while the other is asked.
        let dies = &self.pair.sides[0];
        match dies.gateway.exit_status() {
            Some(status) => {
                assert!(died_at_its_point(status), "{point}: it ended otherwise: {status}\n{}", side.gateway.log());
                self.deaths.fetch_add(1, Ordering::SeqCst);
                dies.gateway.site.audit().await;
                dies.gateway.restart(None).await;
            }
            None => tokio::time::sleep(POLL).await,
        }
    }
}
