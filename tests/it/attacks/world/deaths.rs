//! At which point the attacked gateway is to die next, and which act leads there.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use sluice::crash::{LIGHTNING_POINTS, POINTS, RAIL_POINTS};

use super::World;
use super::acts::{ACTS, Act};
use crate::harness::process::died_at_its_point;
use crate::harness::rig::Database;

/// Passed by the first start on a new database alone: a world begins with it.
pub(super) const FIRST_BLOCK: &str = "follow.first_block_committed";
/// Passed by a start that finds something signed and not offered, as after a death at the other one.
const CLAIMED: &str = "effects.claimed";
const LEFT_TO_BE_CLAIMED: &str = "end.committed";
/// Passed on PostgreSQL alone: on SQLite events are numbered as they are written.
const NUMBERED: &str = "events.numbered";
/// Acts of one process. When it has not died by then, another one is to die elsewhere.
const PATIENCE: u32 = 4;
/// Every write passes these: which of them dies is drawn.
const MANY_WRITES: &str = "store.";
const WRITES: u32 = 15;

/// An act that passes a point, for each point that is passed by more than a start.
const WAYS: &[(&str, &[&str])] = &[
    ("a_tenant_squats_an_invoice", &["store.before_commit", "store.after_commit", NUMBERED, "role.acquired"]),
    ("a_tenant_squats_an_invoice", &["invoice.made", "invoice.committed"]),
    ("a_tenant_pays_itself_while_it_is_searched", &["register.committed", "scan.widened", "scan.committed"]),
    ("a_payer_pays_an_address_that_is_over", &["address.committed", "expiry.committed"]),
    ("a_tenant_replaces_what_it_has_sent", &["begin.committed", LEFT_TO_BE_CLAIMED, "end.broadcast"]),
    ("a_tenant_replaces_what_it_has_sent", &["effects.offered", "bump.committed", "bump_end.committed"]),
    ("the_chain_changes_its_mind", &["follow.block_committed", "follow.block_disconnected"]),
    ("a_stranger_pays_and_takes_it_back", &["follow.mempool_committed"]),
    ("two_tenants_consent_to_one_invoice_at_once", &["pay_begin.committed", "pay_end.committed"]),
    ("two_tenants_consent_to_one_invoice_at_once", &["node.payment_staged", "node.sent"]),
    ("two_tenants_consent_to_one_invoice_at_once", &["node.pay_ordered", "node.pay_concluded"]),
    ("a_tenant_spends_beyond_the_limit_of_its_key", &["pay_with_key.committed"]),
    ("a_payer_pays_an_invoice_twice", &["node.before_commit", "node.after_commit", "node.claimable"]),
    ("a_payer_pays_an_invoice_twice", &["node.claiming", "node.claim_ordered", "node.claimed", "node.credited"]),
    ("a_tenant_settles_and_the_chain_changes_its_mind", &["settle.bound"]),
    ("a_tenant_sets_money_aside_and_takes_it_back", &["withdraw_begin.committed", "withdraw.cancelled"]),
    ("a_tenant_cancels_a_withdrawal_that_goes_out", &["withdraw_end.committed", "node.send_held"]),
    ("a_tenant_cancels_a_withdrawal_that_goes_out", &["withdraw.sent", "withdraw.concluded"]),
];

fn all_points() -> impl Iterator<Item = &'static str> {
    POINTS.iter().chain(LIGHTNING_POINTS).chain(RAIL_POINTS).copied()
}

/// `None` where a start is the way, and no act.
fn way_to(point: &str) -> Option<&'static Act> {
    let (name, _) = WAYS.iter().find(|(_, points)| points.contains(&point))?;
    Some(ACTS.iter().find(|act| act.name == *name).expect("the act is there"))
}

#[test]
fn there_is_a_way_to_each_point() {
    let led: Vec<&str> = WAYS.iter().flat_map(|(_, points)| points.iter().copied()).collect();
    let unique: BTreeSet<&str> = led.iter().copied().collect();
    assert_eq!(unique.len(), led.len(), "a point has two ways");
    let needed: BTreeSet<&str> = all_points().filter(|point| ![FIRST_BLOCK, CLAIMED].contains(point)).collect();
    assert_eq!(unique, needed);
    assert!(needed.into_iter().all(|point| way_to(point).is_some()));
}

/// At which points each world has to die: half of them each, on SQLite first; in a soak all, in both.
pub(super) fn plans(seed: u64, is_soak: bool) -> [Vec<&'static str>; 2] {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut points: Vec<&str> =
        all_points().filter(|point| ![FIRST_BLOCK, CLAIMED, NUMBERED].contains(point)).collect();
    points.shuffle(&mut dice);
    let mut postgres = if is_soak { points.clone() } else { points.split_off(points.len() / 2) };
    postgres.push(NUMBERED);
    let mut plans = [points, postgres];
    for plan in &mut plans {
        plan.push(FIRST_BLOCK);
        if plan.contains(&LEFT_TO_BE_CLAIMED) {
            plan.push(CLAIMED);
        }
    }
    plans
}

#[test]
fn a_plan_leaves_no_point_out() {
    for (is_soak, seed) in [(false, 1), (false, 2), (true, 3)] {
        let [sqlite, postgres] = plans(seed, is_soak);
        let either: BTreeSet<&str> = sqlite.iter().chain(&postgres).copied().collect();
        assert_eq!(either, all_points().collect());
        let count = all_points().count();
        let least = if is_soak { count - 1 } else { count / 2 };
        assert!(sqlite.len() >= least && postgres.len() >= least, "{} and {} of {count}", sqlite.len(), postgres.len());
    }
}

/// Where the processes of a world have died, and where the present one is to.
pub(super) struct Deaths {
    wanted: Vec<&'static str>,
    died: BTreeMap<&'static str, u32>,
    /// Points that a process was to die at, and did not come by.
    missed: BTreeMap<&'static str, u32>,
    doomed: Option<&'static str>,
    /// Acts since it was started.
    acts: u32,
}

impl Deaths {
    pub(super) fn wanted(wanted: Vec<&'static str>) -> Self {
        let died = BTreeMap::from([(FIRST_BLOCK, 1)]);
        Self { wanted, died, missed: BTreeMap::new(), doomed: None, acts: 0 }
    }

    fn is_missing(&self, point: &str) -> bool {
        self.wanted.contains(&point) && !self.died.contains_key(point)
    }

    pub(super) fn all_died(&self) -> bool {
        self.wanted.iter().all(|point| self.died.contains_key(point))
    }

    pub(super) fn report(&self) -> String {
        let missing: Vec<&&str> = self.wanted.iter().filter(|point| self.is_missing(point)).collect();
        let (count, points): (u32, usize) = (self.died.values().sum(), self.died.len());
        format!(
            "{count} deaths at {points} points {:?}; missed {:?}; never died at {missing:?}",
            self.died, self.missed
        )
    }
}

impl World {
    /// The act that leads to the point of the present process, every second time.
    pub(super) async fn lead_to_death(&mut self) -> Option<&'static Act> {
        if self.deaths.doomed.is_none() && self.is_to_live() {
            return None;
        }
        if self.deaths.doomed.is_none() || self.deaths.acts >= PATIENCE {
            if let Some(point) = self.deaths.doomed.take() {
                *self.deaths.missed.entry(point).or_default() += 1;
            }
            self.pair.sides[0].gateway.kill();
            self.bury_and_start(None).await;
            self.revive().await;
        }
        self.deaths.acts += 1;
        let leads = self.deaths.acts % 2 == 1;
        self.deaths.doomed.filter(|_| leads).and_then(way_to)
    }

    /// A process that has died at its point is audited, and the next one started, which may die at its start.
    pub(super) async fn revive(&mut self) {
        while let Some(status) = self.pair.sides[0].gateway.exit_status() {
            assert!(died_at_its_point(status), "it ended otherwise: {status}\n{}", self.pair.sides[0].gateway.log());
            let died = self.deaths.doomed.take();
            if let Some(point) = died {
                *self.deaths.died.entry(point).or_default() += 1;
            }
            self.bury_and_start(died).await;
        }
    }

    /// Once it has died wherever it had to, acts that are missing have their turn.
    fn is_to_live(&self) -> bool {
        self.deaths.all_died() && !self.missing().is_empty()
    }

    async fn bury_and_start(&mut self, died: Option<&'static str>) {
        if self.is_to_live() {
            let gateway = &self.pair.sides[0].gateway;
            gateway.site.audit().await;
            gateway.free_roles().await;
            gateway.restart(None).await;
            return;
        }
        let point = self.next_point(died);
        let visited = match point.starts_with(MANY_WRITES) {
            true => format!("{point}:{}", self.dice.random_range(1..=WRITES)),
            false => point.to_owned(),
        };
        let gateway = &self.pair.sides[0].gateway;
        gateway.site.audit().await;
        gateway.free_roles().await;
        gateway.restart(Some(&visited)).await;
        self.deaths.doomed = Some(point);
        self.deaths.acts = 0;
    }

    /// One that is missing; else one that is seldom died at.
    fn next_point(&mut self, died: Option<&'static str>) -> &'static str {
        if died == Some(LEFT_TO_BE_CLAIMED) {
            return CLAIMED;
        }
        let is_of_its_own = |point: &&str| [FIRST_BLOCK, CLAIMED].contains(point);
        let is_there = |point: &&str| self.database == Database::Postgres || *point != NUMBERED;
        let drawn: Vec<&str> = all_points().filter(|point| !is_of_its_own(point) && is_there(point)).collect();
        let deaths = &self.deaths;
        let mut open: Vec<&str> = drawn.iter().copied().filter(|point| deaths.is_missing(point)).collect();
        if deaths.is_missing(CLAIMED) && !open.contains(&LEFT_TO_BE_CLAIMED) {
            open.push(LEFT_TO_BE_CLAIMED);
        }
        let among = if open.is_empty() { drawn } else { open };
        let often = |point: &str| {
            [&deaths.died, &deaths.missed].iter().map(|counts| counts.get(point).copied().unwrap_or(0)).sum::<u32>()
        };
        let least = among.iter().map(|point| often(point)).min().unwrap_or(0);
        let seldom: Vec<&str> = among.into_iter().filter(|point| often(point) == least).collect();
        seldom.choose(&mut self.dice).copied().unwrap_or(LEFT_TO_BE_CLAIMED)
    }
}
