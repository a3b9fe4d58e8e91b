//! kill -9 on both sides of a channel, under payments in both directions: no channel is closed by force, no payment is lost or made
//! twice, and the books of both gateways agree with their channels to the millisatoshi.
//!
//! `SLUICE_CHANNEL_KILL_SECONDS` says for how long (240 in CI, 30 elsewhere), `SLUICE_SEED` names the sequence of what is done.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::pair::{PURSE, Pair, Side};
use super::random::number_from;
use super::say;
use crate::harness::process::{Answer, Call, DEADLINE, POLL};

const USUAL_SECONDS: u64 = 30;
const CI_SECONDS: u64 = 240;
/// What four minutes have to bring.
const KILLS_IN_CI: usize = 25;
const SOAK_KILLS: usize = 200;
const PAYERS: u64 = 12;
const ENOUGH: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_on_either_side_closes_a_channel_or_moves_money_twice() {
    let usual = if std::env::var("CI").as_deref() == Ok("true") { CI_SECONDS } else { USUAL_SECONDS };
    let seconds = number_from("SLUICE_CHANNEL_KILL_SECONDS").unwrap_or(usual);
    let kills = Field::run(Until::Elapsed(Duration::from_secs(seconds))).await;
    if let Some(kills) = kills.filter(|_| seconds >= CI_SECONDS) {
        assert!(kills >= KILLS_IN_CI, "{kills} kills are too few to prove anything");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_kills_on_both_sides_of_a_channel() {
    match number_from("SLUICE_SOAK_SECONDS") {
        Some(_) => drop(Field::run(Until::Kills(SOAK_KILLS)).await),
        None => say("soak_kills_on_both_sides_of_a_channel: SLUICE_SOAK_SECONDS is not set (see `make soak`)"),
    }
}

#[derive(Clone, Copy)]
enum Until {
    Elapsed(Duration),
    Kills(usize),
}

/// A payment that a client has begun, and goes on with until it is told how it ended.
struct Paid {
    from: usize,
    send: String,
    receive: String,
    msat: u64,
}

struct Field {
    pair: Pair,
    over: AtomicBool,
    numbers: AtomicU64,
    retries: AtomicU64,
    paid: Mutex<Vec<Paid>>,
}

impl Field {
    async fn run(until: Until) -> Option<usize> {
        let pair = Pair::prepare().await?;
        let (over, zero) = (AtomicBool::new(false), || AtomicU64::new(0));
        let field = Self { pair, over, numbers: zero(), retries: zero(), paid: Mutex::default() };
        let begun = Instant::now();
        let (kills, ..) = tokio::join!(
            field.keep_killing(until),
            futures::future::join_all((0..PAYERS).map(|payer| field.keep_paying(payer))),
        );
        let mended = Instant::now();
        let ended = field.account_for_all().await;
        say(&format!(
            "kills on a channel: {kills} in {:.0?}, none closed it; {ended}; {} calls made again; all ended {:.1?} after the last kill",
            begun.elapsed(),
            field.retries.load(Ordering::SeqCst),
            mended.elapsed(),
        ));
        field.pair.compare_with_channels().await;
        Some(kills)
    }

    async fn keep_killing(&self, until: Until) -> usize {
        let seed = number_from("SLUICE_SEED").unwrap_or(1);
        let mut dice = StdRng::seed_from_u64(seed);
        let begun = Instant::now();
        let mut kills = 0;
        let is_over = |kills: usize| match until {
            Until::Elapsed(span) => begun.elapsed() >= span,
            Until::Kills(most) => kills >= most,
        };
        while !is_over(kills) {
            tokio::time::sleep(Duration::from_millis(dice.random_range(300..3_500))).await;
            let victims: &[usize] = [&[0][..], &[1], &[0, 1]][dice.random_range(0..3)];
            for victim in victims {
                self.pair.sides[*victim].gateway.kill();
            }
            kills += victims.len();
            tokio::time::sleep(Duration::from_millis(dice.random_range(0..300))).await;
            for victim in victims {
                self.pair.sides[*victim].gateway.restart(None).await;
            }
            self.pair.require_open().await;
        }
        self.over.store(true, Ordering::SeqCst);
        kills
    }

    /// Pays from one wallet to the other, again and again, through the calls that clients use.
    async fn keep_paying(&self, payer: u64) {
        let mut dice = StdRng::seed_from_u64(payer + 100);
        while !self.over.load(Ordering::SeqCst) {
            let from = usize::from(dice.random_bool(0.5));
            let amount = dice.random_range(1..1_500);
            self.pay(from, amount).await;
        }
    }

    async fn pay(&self, from: usize, amount: u64) {
        let (payer, payee) = (&self.pair.sides[from], &self.pair.sides[1 - from]);
        let number = self.numbers.fetch_add(1, Ordering::SeqCst);
        let order = Call::post("/lightning/create-invoice", &payee.client).key(format!("invoice-{number}"));
        let order = order.json(json!({ "amount_sats": amount, "expiry_seconds": 86_400 }));
        let Some(invoice) = self.insist(payee, &order).await else { return };
        let begin = Call::post("/lightning/pay-invoice-begin", &payer.client).key(format!("pay-{number}"));
        let begin = begin.json(json!({ "invoice": invoice.body["invoice"], "max_fee_sats": 10 }));
        let Some(begun) = self.insist(payer, &begin).await else { return };
        let signed = payer.client.sign(begun.body.as_str().expect("a PSBT"));
        let send = begun.request_id.clone().expect("the begin names its request");
        // From here on the payment counts: a client that was not answered asks again until it is.
        let receive = invoice.text("id").to_owned();
        let paid = Paid { from, send, receive, msat: amount * 1_000 };
        self.paid.lock().unwrap_or_else(PoisonError::into_inner).push(paid);
        let end = Call::post("/lightning/pay-invoice-end", &payer.client).json(json!({ "signed_psbt": signed }));
        self.insist(payer, &end).await;
    }

    /// Makes a call until it is answered for good; `None` for an answer that says no, or when it is over before there was one.
    async fn insist(&self, side: &Side, call: &Call) -> Option<Answer> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match side.gateway.call(call).await {
                Ok(answer) if answer.is_ok() => return Some(answer),
                Ok(answer) if answer.body["retryable"] == true => {}
                // A wallet may be empty for a while, and a request that was begun may have expired.
                Ok(answer) if answer.body["error"] == "insufficient_funds" => return None,
                Ok(answer) => panic!("{}: {call:?} was answered {answer:?}", side.name),
                Err(_nobody_there) => {}
            }
            self.retries.fetch_add(1, Ordering::SeqCst);
            assert!(Instant::now() < deadline, "{}: {call:?} is not answered\n{}", side.name, side.gateway.log());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Every payment has ended, the same on both sides, and the wallets have what that makes.
    async fn account_for_all(&self) -> String {
        let all = std::mem::take(&mut *self.paid.lock().unwrap_or_else(PoisonError::into_inner));
        let mut purses = [PURSE * 1_000; 2];
        let mut ends: BTreeMap<String, u32> = BTreeMap::new();
        let deadline = Instant::now() + ENOUGH;
        for paid in &all {
            let status = self.end_of(paid, deadline).await;
            let (payer, payee) = (&self.pair.sides[paid.from], &self.pair.sides[1 - paid.from]);
            let receive = Call::get(format!("/lightning/receive-request/{}", paid.receive), &payee.client);
            let receive = payee.gateway.answer(&receive).await;
            let was_paid = receive.body["status"] == "SETTLED";
            assert_eq!(was_paid, status["status"] == "SUCCEEDED", "{}: {status} and {receive:?}", payer.name);
            if was_paid {
                purses[paid.from] -= paid.msat + status["fee_msat"].as_u64().expect("a fee");
                purses[1 - paid.from] += paid.msat;
            }
            let end = status["error_code"].as_str().unwrap_or("succeeded").to_owned();
            *ends.entry(end).or_default() += 1;
        }
        for (side, purse) in self.pair.sides.iter().zip(purses) {
            let balance = side.offchain().await;
            assert_eq!(
                (balance["total_msat"].as_u64(), balance["held_msat"].as_u64()),
                (Some(purse), Some(0)),
                "{}",
                side.name
            );
        }
        self.pair.require_open().await;
        format!("{} payments: {ends:?}", all.len())
    }

    async fn end_of(&self, paid: &Paid, deadline: Instant) -> Value {
        let side = &self.pair.sides[paid.from];
        let read = Call::get(format!("/lightning/send-request/{}", paid.send), &side.client);
        loop {
            let status = side.gateway.answer(&read).await.ok();
            if status["status"] != "PENDING" {
                return status;
            }
            assert!(Instant::now() < deadline, "{}: {status} does not end\n{}", side.name, side.gateway.log());
            tokio::time::sleep(POLL).await;
        }
    }
}
