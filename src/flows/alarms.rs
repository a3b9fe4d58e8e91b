//! What follows from what audits have found: whose payouts stop, what is put into suspense, and what an operator is told.
//!
//! Books that differ from themselves stop everybody at once. What the node or a sum says of one moment has to be said by several looks,
//! one after the other: a peer, a payer or a block may be between two steps. What concerns one wallet stops that wallet.

use std::collections::HashMap;

use async_trait::async_trait;
use serde_json::json;

use super::audit::{Drift, Report, Surplus};
use super::audit_node::{OF_THE_NODE, SOLVENT};
use super::{Error, Flows};
use crate::clock::Timestamp;
use crate::domain::Fact;
use crate::domain::event::payloads::{Alarm, AuditBlind, NodeSurplus};
use crate::ids::RequestId;
use crate::ledger::{Account, Kind, Posting, PostingId};
use crate::money::{Amount, AssetId, Money};
use crate::store::books::BookEntry;
use crate::store::halts::{self, Scope};
use crate::store::{StoreError, Tx, Write, apply, events, ledger};

/// Looks, one after the other, that have to find the same before it is believed.
pub const LOOKS: u32 = 3;
/// How long something may be too much under way to be compared.
const BLIND_MILLIS: i64 = 60 * 60 * 1_000;
/// Drifts that are spelt out in the halt; all of them are in the log.
const SPELT_OUT: usize = 5;

/// What the looks before have found.
#[derive(Default)]
pub struct Watch {
    short: HashMap<&'static str, u32>,
    surplus: HashMap<&'static str, (Surplus, u32)>,
    /// Since when a rule could not be compared, and whether that was said.
    blind: HashMap<&'static str, (Timestamp, bool)>,
}

impl Watch {
    /// Does what follows from one more look.
    ///
    /// # Errors
    /// When the store can't be used.
    pub async fn react(&mut self, flows: &Flows, report: &Report) -> Result<(), Error> {
        let lasting = |drift: &&Drift| is_of_one_moment(drift.rule);
        let (moments, at_once): (Vec<&Drift>, Vec<&Drift>) = report.drifts.iter().partition(lasting);
        let lasted = self.lasted(report, &moments);
        let (uncovered, short): (Vec<&Drift>, Vec<&Drift>) =
            lasted.into_iter().partition(|drift| drift.rule == SOLVENT);
        let (own, everybody): (Vec<&Drift>, Vec<&Drift>) =
            at_once.into_iter().partition(|drift| drift.wallet.is_some());
        let everybody: Vec<&Drift> = everybody.into_iter().chain(short).collect();
        for drift in own {
            if let Some(wallet) = &drift.wallet {
                let scope = Scope::Wallet(wallet.clone());
                raise(flows, scope, halts::AUDIT_DRIFT, Fact::WalletDrift, &[drift]).await?;
            }
        }
        raise(flows, Scope::Everybody, halts::AUDIT_DRIFT, Fact::AuditDrift, &everybody).await?;
        raise(flows, Scope::Everybody, halts::INSOLVENT, Fact::Insolvent, &uncovered).await?;
        for surplus in self.surplus_that_stays(report) {
            flows.store().write(Suspend(surplus)).await?;
        }
        for (rule, since) in self.blind_for_long(report, flows.now()) {
            tracing::error!(rule, %since, "this could not be compared for a long time");
            let blind = AuditBlind { rule: rule.to_owned(), since: since.into() };
            flows.store().write(Say(Fact::AuditBlind(blind))).await?;
        }
        Ok(())
    }

    /// Of what is said of a moment, what several looks have said one after the other. What could not be compared says nothing.
    fn lasted<'r>(&mut self, report: &Report, moments: &[&'r Drift]) -> Vec<&'r Drift> {
        for (rule, _) in &report.checked {
            if !moments.iter().any(|drift| drift.rule == *rule) {
                self.short.remove(rule);
            }
        }
        moments.iter().for_each(|drift| *self.short.entry(drift.rule).or_default() += 1);
        let has_lasted = |drift: &&&Drift| self.short.get(drift.rule).is_some_and(|looks| *looks >= LOOKS);
        moments.iter().filter(has_lasted).copied().collect()
    }

    /// Surplus that is the same in several looks while no payment is under way that could explain it.
    fn surplus_that_stays(&mut self, report: &Report) -> Vec<Surplus> {
        let mut stays = Vec::new();
        let is_bounded = |rule: &str| report.pending.iter().any(|pending| pending.rule == rule);
        for (rule, _) in &report.checked {
            match report.surplus.iter().find(|more| more.rule == *rule && !is_bounded(rule)) {
                None => drop(self.surplus.remove(rule)),
                Some(more) => {
                    let (before, looks) = self.surplus.entry(*rule).or_insert((*more, 0));
                    *looks = if before == more { looks.saturating_add(1) } else { 1 };
                    *before = *more;
                    if *looks >= LOOKS {
                        stays.push(*more);
                    }
                }
            }
        }
        stays
    }

    /// Rules that could not be compared for long, each said once.
    fn blind_for_long(&mut self, report: &Report, now: Timestamp) -> Vec<(&'static str, Timestamp)> {
        let mut blind = Vec::new();
        for rule in OF_THE_NODE.into_iter().chain([SOLVENT]) {
            let is_compared = report.checked.iter().any(|(checked, _)| *checked == rule);
            if is_compared || !report.pending.iter().any(|pending| pending.rule == rule) {
                self.blind.remove(rule);
                continue;
            }
            let (since, is_said) = self.blind.entry(rule).or_insert((now, false));
            if !*is_said && now.millis().saturating_sub(since.millis()) >= BLIND_MILLIS {
                *is_said = true;
                blind.push((rule, *since));
            }
        }
        blind
    }
}

fn is_of_one_moment(rule: &str) -> bool {
    rule == SOLVENT || OF_THE_NODE.contains(&rule)
}

async fn raise(
    flows: &Flows,
    scope: Scope,
    reason: &'static str,
    fact: fn(Alarm) -> Fact,
    drifts: &[&Drift],
) -> Result<(), Error> {
    if !drifts.is_empty() {
        flows.store().write(RaiseAlarm { scope, reason, fact, detail: spell_out(drifts) }).await?;
    }
    Ok(())
}

fn spell_out(drifts: &[&Drift]) -> String {
    let mut lines: Vec<String> =
        drifts.iter().take(SPELT_OUT).map(|drift| format!("{}: {}", drift.rule, drift.detail)).collect();
    if drifts.len() > SPELT_OUT {
        lines.push(format!("and {} more", drifts.len() - SPELT_OUT));
    }
    lines.join("; ")
}

/// What was raised before stays as it is.
struct RaiseAlarm {
    scope: Scope,
    reason: &'static str,
    fact: fn(Alarm) -> Fact,
    detail: String,
}

#[async_trait]
impl Write for RaiseAlarm {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        if !halts::raise_for(tx, &self.scope, self.reason, &self.detail).await? {
            return Ok(());
        }
        let wallet = match &self.scope {
            Scope::Everybody => None,
            Scope::Wallet(wallet) => Some(wallet.clone()),
        };
        let alarm = Alarm { detail: self.detail.clone(), wallet };
        events::append(tx, None, None, &(self.fact)(alarm)).await
    }
}

/// Enters what the node has more than the books, as money without an owner.
struct Suspend(Surplus);

#[async_trait]
impl Write for Suspend {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let Surplus { account, books_msat, more_msat, .. } = self.0;
        let ours = match account {
            "node:channels" => Account::Channels,
            "node:closing" => Account::Closing,
            _ => Account::Onchain,
        };
        let before = ledger::balance(tx.conn(), &ours, &AssetId::Btc).await?.total;
        let Ok(amount) = Amount::from_bigint(more_msat) else { return Ok(()) };
        // The same surplus of the same books is one entry, whoever finds it.
        let id = RequestId::of_movement(&format!(
            "surplus:{account}:{before}:{books_msat}:{more_msat}:{}",
            tx.now().millis() / HOUR
        ));
        let data = json!({ "account": account, "books_msat": books_msat, "more_msat": more_msat });
        let entry = BookEntry { id, number: None, resolves: None, kind: "surplus", data: data.to_string() };
        let posting = Posting {
            id: PostingId::of(id, "surplus"),
            request: id,
            debit: ours,
            credit: Account::Suspense,
            money: Money::btc(amount),
            kind: Kind::Post,
        };
        let surplus = NodeSurplus { account: account.to_owned(), books_msat, more_msat };
        let note = Fact::NodeSurplus(surplus);
        if apply::enter(tx, &entry, &[posting], None, &note).await? {
            tracing::error!(account, more_msat, "the node has more than the books; it is in suspense");
        }
        Ok(())
    }
}

const HOUR: i64 = 60 * 60 * 1_000;

struct Say(Fact);

#[async_trait]
impl Write for Say {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        events::append(tx, None, None, &self.0).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_halt_says_what_is_wrong_and_stays_short() {
        let drift = |n: usize| Drift::new("leases", n.to_string());
        let many: Vec<Drift> = (0..7).map(drift).collect();
        let many: Vec<&Drift> = many.iter().collect();
        assert_eq!(spell_out(&many[1..2]), "leases: 1");
        assert!(spell_out(&many).ends_with("leases: 4; and 2 more"), "{}", spell_out(&many));
    }

    #[test]
    fn what_could_not_be_compared_for_an_hour_is_said_once() {
        let mut watch = Watch::default();
        let mut report = Report::default();
        report.pending.push(Drift::new(SOLVENT, "the node does not answer".to_owned()));
        let at = |minutes: i64| Timestamp::from_millis(minutes * 60_000);
        assert_eq!(watch.blind_for_long(&report, at(0)), []);
        assert_eq!(watch.blind_for_long(&report, at(59)), []);
        assert_eq!(watch.blind_for_long(&report, at(60)), [(SOLVENT, at(0))]);
        assert_eq!(watch.blind_for_long(&report, at(61)), []);
        let compared = Report { checked: vec![(SOLVENT, 1)], ..report.clone() };
        assert_eq!(watch.blind_for_long(&compared, at(62)), []);
        assert_eq!(watch.blind_for_long(&report, at(63)), [], "it begins anew");
    }
}
