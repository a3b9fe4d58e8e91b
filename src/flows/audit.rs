//! `sluice audit`: recomputes the books and says where they differ, from themselves and from the chain. It changes nothing.

use std::collections::HashSet;

use async_trait::async_trait;
use bitcoin::OutPoint;

use super::audit_node::{self, audit_node};
use super::{Error, Flows};
use crate::domain::EventNote;
use crate::store::audit::{self, RULES};
use crate::store::{Conn, StoreError, Tx, Write, chain, events, halts, issued, leases};

/// Coins that one question to the node is about.
const CHUNK: u32 = 500;
/// Drifts that are spelt out in the halt; all of them are in the log.
const SPELT_OUT: usize = 5;

/// A difference that should not be. None of them is harmless.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Drift {
    /// The rule that is broken.
    pub rule: &'static str,
    pub detail: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// How many rows each rule was checked on.
    pub checked: Vec<(&'static str, u64)>,
    pub drifts: Vec<Drift>,
    /// What could not be checked now, and why. Not a drift, and not a clean bill either.
    pub skipped: Vec<Drift>,
    /// What of the node's money is under way, so that it is compared later, or within bounds.
    pub pending: Vec<Drift>,
    /// Empty where the node could not be asked.
    pub solvency: Option<Solvency>,
}

/// What wallets own, and what is there for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Solvency {
    pub claims_msat: i64,
    /// In channels, in flight, closing and on-chain, without the reserve.
    pub backing_msat: i64,
}

impl Report {
    pub(super) fn note(&mut self, rule: &'static str, count: u64, broken: Vec<String>) {
        self.checked.push((rule, count));
        self.drifts.extend(broken.into_iter().map(|detail| Drift { rule, detail }));
    }
}

/// Audits the store, and compares it with the chain where the node can be asked.
///
/// # Errors
/// When the store can't be read.
pub async fn audit(flows: &Flows) -> Result<Report, Error> {
    let mut report = Report::default();
    let mut snapshot = flows.store().snapshot().await?;
    audit_books(&mut snapshot, &mut report).await?;
    drop(snapshot);
    audit_chain(flows, &mut report).await?;
    audit_node(flows, &mut report).await?;
    Ok(report)
}

/// The part of it that asks the Lightning node: what the node has, and whether that covers what is owed.
///
/// # Errors
/// When the store can't be read.
pub async fn audit_node_alone(flows: &Flows) -> Result<Report, Error> {
    let mut report = Report::default();
    audit_node(flows, &mut report).await?;
    Ok(report)
}

/// Stops payouts for what a report found, and notes it. What was raised before stays as it is.
///
/// # Errors
/// When the store can't be used.
pub async fn raise_alarms(flows: &Flows, report: &Report) -> Result<(), Error> {
    let (uncovered, drifts): (Vec<&Drift>, Vec<&Drift>) =
        report.drifts.iter().partition(|drift| drift.rule == audit_node::SOLVENT);
    for (reason, event, drifts) in
        [(halts::INSOLVENT, "operator.insolvent", uncovered), (halts::AUDIT_DRIFT, "operator.audit_drift", drifts)]
    {
        if !drifts.is_empty() {
            flows.store().write(RaiseAlarm { reason, event, detail: spell_out(&drifts) }).await?;
        }
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

struct RaiseAlarm {
    reason: &'static str,
    event: &'static str,
    detail: String,
}

#[async_trait]
impl Write for RaiseAlarm {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        if halts::in_force(tx.conn()).await?.iter().any(|halt| halt.reason == self.reason) {
            return Ok(());
        }
        halts::raise(tx, self.reason, &self.detail).await?;
        let note = EventNote { kind: self.event, data: serde_json::json!({ "detail": self.detail }) };
        events::append(tx, None, None, &note).await
    }
}

async fn audit_books(conn: &mut Conn, report: &mut Report) -> Result<(), StoreError> {
    for rule in RULES {
        let (count, broken) = audit::check(conn, rule).await?;
        report.note(rule.name, count, broken);
    }
    let waiting = audit::waiting_sends(conn).await?;
    let mut broken = Vec::new();
    for id in &waiting {
        for version in issued::of_request(conn, *id).await? {
            let psbt = version.parse_psbt()?;
            if psbt.unsigned_tx.compute_txid() != version.unsigned_txid {
                broken.push(format!("{id}: the issued PSBT is not the one it is filed under"));
            }
            for input in &psbt.unsigned_tx.input {
                if leases::holder(conn, &input.previous_output).await? != Some(*id) {
                    broken.push(format!("{id}: {} is not set aside for it", input.previous_output));
                }
            }
        }
    }
    report.note("waiting_sends_hold_their_coins", waiting.len() as u64, broken);
    Ok(())
}

/// Every confirmed coin that the books call unspent is unspent for the node, at the same block.
async fn audit_chain(flows: &Flows, report: &mut Report) -> Result<(), Error> {
    const RULE: &str = "unspent_coins_are_unspent_in_the_chain";
    let mut after = String::new();
    let mut count = 0;
    let mut broken = Vec::new();
    loop {
        let mut conn = flows.store().read().await?;
        let cursor = chain::cursor(&mut conn).await?;
        let ours = audit::confirmed_unspent(&mut conn, &after, CHUNK).await?;
        let still_there = chain::cursor(&mut conn).await? == cursor;
        drop(conn);
        let Some(last) = ours.last() else { break };
        after = last.to_string();
        let (at, unspent): (_, HashSet<OutPoint>) = match flows.chain().still_unspent(&ours).await {
            Ok(answer) => answer,
            Err(error) => {
                report.skipped.push(Drift { rule: RULE, detail: error.to_string() });
                return Ok(());
            }
        };
        if Some(at) != cursor || !still_there {
            report.skipped.push(Drift {
                rule: RULE,
                detail: "the chain moved while it was asked; run the audit again".to_owned(),
            });
            return Ok(());
        }
        count += ours.len() as u64;
        broken.extend(
            ours.iter().filter(|coin| !unspent.contains(coin)).map(|coin| format!("{coin} is spent or unknown")),
        );
    }
    report.note(RULE, count, broken);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_halt_says_what_is_wrong_and_stays_short() {
        let drift = |n: usize| Drift { rule: "leases", detail: n.to_string() };
        let many: Vec<Drift> = (0..7).map(drift).collect();
        let many: Vec<&Drift> = many.iter().collect();
        assert_eq!(spell_out(&many[1..2]), "leases: 1");
        assert!(spell_out(&many).ends_with("leases: 4; and 2 more"), "{}", spell_out(&many));
    }
}
