//! A hostile world: a tenant, a payer, a peer, a stranger and the chain do at random what they may do and what they may not, while the
//! gateway is killed at its crash points. After it an honest wallet receives, pays, withdraws and settles as if nothing had been; the audit
//! is clean, nobody's payouts are stopped, what wallets own is covered, and all of them together have no more than was brought.
//!
//! Both databases have a world of their own, at the same time. In each, every act is carried out at least once. Each point of `POINTS`,
//! `LIGHTNING_POINTS` and `RAIL_POINTS` is died at in one of both, and each world dies at half of them at least; in a soak each world
//! dies at all. (`events.numbered` is a point of PostgreSQL alone.) Points of closing channels and of assets are not here: no
//! act of these four closes a channel, an engine for assets is not there, and both have stories that die at them.
//!
//! `SLUICE_WORLD_SECONDS` says for how long (60 in CI, 40 elsewhere), `SLUICE_SEED` names the sequence of acts and points.

mod acts;
mod deaths;
mod honest;
mod threats;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use self::acts::{ACTS, Act};
use self::deaths::{Deaths, FIRST_BLOCK};
use crate::crash::pair::{PURSE, Pair};
use crate::crash::random::number_from;
use crate::crash::say;
use crate::harness::process::{Answer, Call, DEADLINE, POLL, Site};
use crate::harness::rig::{Client, Database};

const USUAL_SECONDS: u64 = 40;
/// A soak draws its own.
const USUAL_SEED: u64 = 402_714;
const CI_SECONDS: u64 = 60;
/// What the tenant and his accomplice have to play with, off-chain.
const STAKE: u64 = 400_000;
const ACCOMPLICES_STAKE: u64 = 100_000;
/// What a key of the tenant's may spend of that on one day.
const KEYS_LIMIT: u64 = 50_000;
/// Bounds that are low, so that they are met.
const OPEN_AT_MOST: u64 = 24;
const REGISTRATIONS_A_MINUTE: u64 = 8;
const GUESSES_A_MINUTE: u64 = 5;
const SMALLEST_CHANNEL: u64 = 100_000;
/// A payment waits a minute for a peer that is away, and half of one before it is tried again.
const PAYMENT_DEADLINE: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_others_do_an_honest_wallet_loses_nothing_and_is_not_stopped() {
    let usual = if std::env::var("CI").as_deref() == Ok("true") { CI_SECONDS } else { USUAL_SECONDS };
    on_both(number_from("SLUICE_WORLD_SECONDS").unwrap_or(usual), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_in_a_hostile_world() {
    match number_from("SLUICE_SOAK_SECONDS") {
        Some(seconds) => on_both(seconds, true).await,
        None => say("soak_in_a_hostile_world: SLUICE_SOAK_SECONDS is not set (see `make soak`)"),
    }
}

async fn on_both(seconds: u64, is_soak: bool) {
    let drawn = if is_soak { rand::rng().random_range(1..1_000_000) } else { USUAL_SEED };
    let seed = number_from("SLUICE_SEED").unwrap_or(drawn);
    say(&format!("a hostile world: SLUICE_SEED={seed}"));
    let [sqlite, postgres] = deaths::plans(seed, is_soak);
    let span = Duration::from_secs(seconds);
    tokio::join!(live(Database::Sqlite, sqlite, seed, span), live(Database::Postgres, postgres, seed, span));
}

async fn live(database: Database, wanted: Vec<&'static str>, seed: u64, span: Duration) {
    let set_up = |site: Site| {
        site.with("http.limits.enabled", "true")
            .with("http.limits.per_key_per_second", "100000")
            .with("http.limits.per_wallet_per_second", "100000")
            .with("http.limits.begins_per_wallet_per_minute", "100000")
            .with("http.limits.registrations_per_minute", "100000")
            .with("http.limits.registrations_per_key_per_minute", REGISTRATIONS_A_MINUTE.to_string())
            .with("http.limits.failed_keys_per_client_per_minute", GUESSES_A_MINUTE.to_string())
            // So that a test may call from elsewhere: who guesses on this machine itself is not counted.
            .with("http.forwarded_for", "true")
            .with("policy.max_waiting_sends", OPEN_AT_MOST.to_string())
            .with("policy.address_seconds", "2")
            .with("ldk.channels.accept_min_sat", SMALLEST_CHANNEL.to_string())
            .with("proxy.enabled", "true")
    };
    let Some(pair) = Pair::prepare_on(database, set_up, Some(FIRST_BLOCK)).await else { return };
    World::new(pair, database, seed, wanted).run(span).await;
}

/// The first gateway of the pair is attacked. The second one's wallet and node are the payer and the peer.
pub(super) struct World {
    pair: Pair,
    database: Database,
    tenant: Arc<Client>,
    /// Another wallet of his.
    accomplice: Arc<Client>,
    /// A key that may spend for the tenant.
    spender: String,
    /// Keys of both gateways' operators.
    operators: [String; 2],
    dice: StdRng,
    number: u64,
    done: BTreeMap<&'static str, u32>,
    deaths: Deaths,
    /// Calls that a stranger has begun and never ends.
    slow: Vec<TcpStream>,
    /// Coins that the tenant has signed over to the node, by the ids of their moves.
    settles: Vec<String>,
    /// Millisatoshi that were credited to the honest wallet from the chain.
    settled: u64,
}

impl World {
    fn new(pair: Pair, database: Database, seed: u64, wanted: Vec<&'static str>) -> Self {
        Self {
            pair,
            database,
            tenant: Arc::new(Client::number(11)),
            accomplice: Arc::new(Client::number(12)),
            spender: String::new(),
            operators: [String::new(), String::new()],
            dice: StdRng::seed_from_u64(seed),
            number: 0,
            done: BTreeMap::new(),
            deaths: Deaths::wanted(wanted),
            slow: Vec::new(),
            settles: Vec::new(),
            settled: 0,
        }
    }

    async fn run(mut self, span: Duration) {
        self.prepare().await;
        let begun = Instant::now();
        while begun.elapsed() < span || self.done.len() < ACTS.len() || !self.deaths.all_died() {
            let act = self.next_act().await;
            if (act.play)(&mut self).await {
                *self.done.entry(act.name).or_default() += 1;
            }
            self.revive().await;
            let late = begun.elapsed() > span + 4 * DEADLINE;
            assert!(!late, "never carried out: {:?}; {}", self.missing(), self.deaths.report());
        }
        let count: u32 = self.done.values().sum();
        let took = begun.elapsed();
        say(&format!("a hostile world on {:?}: {count} acts in {took:.0?} {:?}", self.database, self.done));
        say(&format!("a hostile world on {:?}: {}", self.database, self.deaths.report()));
        self.require_all();
        self.require_peace().await;
        say(&format!("a hostile world on {:?}: at peace after {:.0?}", self.database, begun.elapsed()));
    }

    fn missing(&self) -> Vec<&'static str> {
        ACTS.iter().map(|act| act.name).filter(|name| !self.done.contains_key(name)).collect()
    }

    fn require_all(&self) {
        assert_eq!(self.missing(), Vec::<&str>::new(), "these were never carried out");
        assert!(self.deaths.all_died(), "{}", self.deaths.report());
    }

    /// Every second act is on the way to the point at which the process is to die. The others are those that are missing, then any.
    async fn next_act(&mut self) -> &'static Act {
        let leads_there = self.lead_to_death().await;
        self.until_ready().await;
        if let Some(act) = leads_there {
            return act;
        }
        let missing: Vec<&Act> = ACTS.iter().filter(|act| !self.done.contains_key(act.name)).collect();
        match missing.choose(&mut self.dice) {
            Some(act) => act,
            None => ACTS.choose(&mut self.dice).expect("there are acts"),
        }
    }

    /// Waits until the node of the present process can be used, or that of the one after it: the first invoice shows it.
    async fn until_ready(&mut self) {
        let order = Call::post("/lightning/create-invoice", &self.tenant);
        let order = order.json(json!({ "amount_sats": 1, "expiry_seconds": 60 }));
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.revive().await;
            let made = self.pair.sides[0].gateway.call(&order).await;
            if made.as_ref().is_ok_and(Answer::is_ok) {
                return;
            }
            assert!(Instant::now() < deadline, "no node: {made:?}\n{}", self.pair.sides[0].gateway.log());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Money and keys for everybody, while nothing dies.
    async fn prepare(&mut self) {
        for (wallet, sats) in [(self.tenant.clone(), STAKE), (self.accomplice.clone(), ACCOMPLICES_STAKE)] {
            let gateway = &self.pair.sides[0].gateway;
            gateway.until("it registers", &Call::post("/wallet/register", &wallet), Answer::is_ok).await;
            let order = Call::post("/lightning/create-invoice", &wallet).json(json!({ "amount_sats": sats }));
            let invoice = gateway.until("an invoice", &order, Answer::is_ok).await;
            self.payer_pays(invoice.text("invoice")).await;
            let read = Call::get("/lightning/balance", &wallet);
            let gateway = &self.pair.sides[0].gateway;
            gateway.until("it is paid", &read, |answer| offchain(answer) == sats * 1_000).await;
        }
        let operator = ["keys", "create", "--name", "operator", "--scope", "admin"];
        for side in 0..2 {
            self.operators[side] = self.pair.sides[side].gateway.site.said(&operator).await;
        }
        let limit = format!("btc:{KEYS_LIMIT}/day");
        self.spender = self.pair.sides[0].gateway.site.spending_key(&self.tenant, &limit).await;
        self.fund_the_peer().await;
        self.tenants_coins().await;
    }

    /// A call to the attacked gateway. `None`: it has died of it, and runs again.
    async fn ask(&mut self, call: &Call) -> Option<Answer> {
        let answered = self.pair.sides[0].gateway.call(call).await.ok();
        if answered.is_none() {
            self.revive().await;
        }
        answered
    }

    /// A call of the operator of one of both gateways.
    fn operator(&self, side: usize, call: Call) -> Call {
        call.bearer(&self.operators[side])
    }

    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }
}

fn offchain(answer: &Answer) -> u64 {
    let total = |body: &Value| body["balance"]["offchain_balance"]["total_msat"].as_u64();
    total(&answer.body).unwrap_or(0)
}
