//! A hostile world: a tenant, a payer, a stranger and the chain do at random what they may do and what they may not, while the gateway is
//! killed at its crash points. After it an honest wallet receives, pays, withdraws and settles as if nothing had been; the audit is clean,
//! nobody's payouts are stopped, and all wallets together have no more than was brought.
//!
//! `SLUICE_WORLD_SECONDS` says for how long (60 in CI, 40 elsewhere, half on each database), `SLUICE_SEED` names the sequence of acts.

mod acts;
mod honest;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sluice::crash::{LIGHTNING_POINTS, POINTS, RAIL_POINTS};
use tokio::net::TcpStream;

use self::acts::ACTS;
use crate::crash::pair::{PURSE, Pair};
use crate::crash::random::number_from;
use crate::crash::say;
use crate::harness::process::{Answer, Call, DEADLINE, POLL, died_at_its_point};
use crate::harness::rig::{Client, Database};

const USUAL_SECONDS: u64 = 40;
/// A soak draws its own.
const USUAL_SEED: u64 = 402_714;
const CI_SECONDS: u64 = 60;
/// How often the gateway is about to die. On PostgreSQL the roles of a dead one are free after ten seconds only.
const DEATH: f64 = 0.5;
const DEATH_ON_POSTGRES: f64 = 0.1;
/// Acts after which a process that has not come by its crash point is given another one.
const PATIENCE: u32 = 3;
/// Crash points at which it has to have died in a run of CI's length, and in a soak. Each of them has a story of its own besides.
const POINTS_IN_CI: usize = 3;
const POINTS_IN_CI_ON_POSTGRES: usize = 1;
const POINTS_IN_A_SOAK: usize = 12;
/// What the tenant has to play with, off-chain.
const STAKE: u64 = 50_000;

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
    for database in [Database::Sqlite, Database::Postgres] {
        let Some(pair) = Pair::prepare_on(database).await else { return };
        World::new(pair, database, seed).run(Duration::from_secs(seconds) / 2, is_soak).await;
    }
}

/// The first gateway of the pair is attacked. The second one's wallet and node are the payer and the peer.
pub(super) struct World {
    pair: Pair,
    tenant: Client,
    dice: StdRng,
    number: u64,
    /// The point at which the present process is to die.
    doomed: Option<String>,
    database: Database,
    /// Acts since then.
    since: u32,
    done: BTreeMap<&'static str, u32>,
    deaths: BTreeMap<String, u32>,
    /// Points that a process was to die at, and did not come by.
    missed: BTreeMap<String, u32>,
    /// Calls that a stranger has begun and never ends.
    slow: Vec<TcpStream>,
    /// Millisatoshi that were credited from the chain.
    settled: u64,
}

impl World {
    fn new(pair: Pair, database: Database, seed: u64) -> Self {
        Self {
            pair,
            tenant: Client::number(11),
            dice: StdRng::seed_from_u64(seed),
            number: 0,
            doomed: None,
            database,
            since: 0,
            done: BTreeMap::new(),
            deaths: BTreeMap::new(),
            missed: BTreeMap::new(),
            slow: Vec::new(),
            settled: 0,
        }
    }

    async fn run(mut self, span: Duration, is_soak: bool) {
        self.stake().await;
        let begun = Instant::now();
        // Each act once, in an order of the seed's; then whatever comes.
        let mut first: Vec<_> = ACTS.iter().collect();
        while begun.elapsed() < span || !first.is_empty() || self.deaths.len() < self.least_points(is_soak) {
            let act = match first.is_empty() {
                false => first.swap_remove(self.dice.random_range(0..first.len())),
                true => ACTS.choose(&mut self.dice).expect("there are acts"),
            };
            self.perhaps_doom().await;
            if (act.play)(&mut self).await {
                *self.done.entry(act.name).or_default() += 1;
            } else if !self.done.contains_key(act.name) {
                first.push(act);
            }
            self.revive().await;
            let late = begun.elapsed() > span + 4 * DEADLINE;
            assert!(!late, "{} acts were never carried out; it died at {:?}", first.len(), self.deaths);
        }
        let points = self.deaths.len();
        let report = format!(
            "a hostile world on {:?}: {} acts in {:.0?} {:?}; {} deaths at {points} points",
            self.database,
            self.done.values().sum::<u32>(),
            begun.elapsed(),
            self.done,
            self.deaths.values().sum::<u32>(),
        );
        say(&report);
        self.require_all(is_soak);
        self.require_peace().await;
    }

    fn require_all(&self, is_soak: bool) {
        for act in ACTS {
            assert!(self.done.contains_key(act.name), "{} was never carried out", act.name);
        }
        assert!(self.deaths.len() >= self.least_points(is_soak), "it died at too few points: {:?}", self.deaths);
    }

    const fn least_points(&self, is_soak: bool) -> usize {
        match self.database {
            Database::Sqlite | Database::Postgres if is_soak => POINTS_IN_A_SOAK,
            Database::Sqlite => POINTS_IN_CI,
            Database::Postgres => POINTS_IN_CI_ON_POSTGRES,
        }
    }

    /// The tenant's own money, paid by the other gateway's wallet.
    async fn stake(&mut self) {
        let gateway = &self.pair.sides[0].gateway;
        gateway.until("it registers", &Call::post("/wallet/register", &self.tenant), Answer::is_ok).await;
        let order = Call::post("/lightning/create-invoice", &self.tenant).json(json!({ "amount_sats": STAKE }));
        let invoice = gateway.until("an invoice", &order, Answer::is_ok).await;
        self.payer_pays(invoice.text("invoice")).await;
        let read = Call::get("/lightning/balance", &self.tenant);
        let gateway = &self.pair.sides[0].gateway;
        gateway.until("the tenant is paid", &read, |answer| offchain(answer) == STAKE * 1_000).await;
    }

    /// Has the next process die at a point that it has not died at, or seldom.
    async fn perhaps_doom(&mut self) {
        self.since += 1;
        let is_waited_for = self.doomed.is_some() && self.since <= PATIENCE;
        let death = match self.database {
            Database::Sqlite => DEATH,
            Database::Postgres => DEATH_ON_POSTGRES,
        };
        if is_waited_for || !self.dice.random_bool(death) {
            return;
        }
        if let Some(point) = self.doomed.take() {
            *self.missed.entry(point).or_default() += 1;
        }
        let all = [&self.deaths, &self.missed];
        let often = |point: &&str| all.iter().map(|counts| counts.get(*point).copied().unwrap_or(0)).sum::<u32>();
        let least = all_points().map(|point| often(&point)).min().unwrap_or(0);
        let seldom: Vec<&str> = all_points().filter(|point| often(point) == least).collect();
        let point = *seldom.choose(&mut self.dice).expect("there are points");
        let gateway = &self.pair.sides[0].gateway;
        gateway.kill();
        gateway.site.audit().await;
        gateway.restart(Some(point)).await;
        self.doomed = Some(point.to_owned());
        self.since = 0;
    }

    /// A process that has died at its point is audited and started again.
    async fn revive(&mut self) {
        let gateway = &self.pair.sides[0].gateway;
        let Some(status) = gateway.exit_status() else { return };
        assert!(died_at_its_point(status), "it ended otherwise: {status}\n{}", gateway.log());
        gateway.site.audit().await;
        gateway.restart(None).await;
        if let Some(point) = self.doomed.take() {
            *self.deaths.entry(point).or_default() += 1;
        }
    }

    /// A call to the attacked gateway. `None`: it has died of it, and runs again.
    async fn ask(&mut self, call: &Call) -> Option<Answer> {
        let answered = self.pair.sides[0].gateway.call(call).await.ok();
        if answered.is_none() {
            self.revive().await;
        }
        answered
    }

    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }
}

fn all_points() -> impl Iterator<Item = &'static str> {
    POINTS.iter().chain(LIGHTNING_POINTS).chain(RAIL_POINTS).copied().filter(|point| !UNREACHED.contains(point))
}

/// Points that no act here passes: other stories die at them.
const UNREACHED: &[&str] = &[
    "bump.committed",
    "bump_end.committed",
    "scan.widened",
    "pay_with_key.committed",
    "follow.first_block_committed",
    "role.acquired",
    "register.committed",
    "scan.committed",
    "begin.committed",
    "end.committed",
    "end.broadcast",
    "effects.offered",
    "settle.bound",
];

fn offchain(answer: &Answer) -> u64 {
    let total = |body: &Value| body["balance"]["offchain_balance"]["total_msat"].as_u64();
    total(&answer.body).unwrap_or(0)
}

/// Waits for something of the world outside the gateway.
async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(POLL).await;
    }
}
