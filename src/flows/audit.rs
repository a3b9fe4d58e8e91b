//! `sluice audit`: recomputes the books and says where they differ, from themselves and from the chain. It changes nothing.

use std::collections::HashSet;

use bitcoin::OutPoint;

use super::audit_assets::audit_assets;
use super::audit_node::audit_node;
use super::{Error, Flows};
use crate::ids::WalletId;
use crate::store::audit::{self, Broken, RULES};
use crate::store::{Conn, StoreError, chain, issued, leases};

/// Coins that one question to the node is about.
const CHUNK: u32 = 500;

/// A difference that should not be. None of them is harmless.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Drift {
    /// The rule that is broken.
    pub rule: &'static str,
    pub detail: String,
    /// Whom alone it concerns; empty where it may concern anybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wallet: Option<WalletId>,
}

impl Drift {
    #[must_use]
    pub const fn new(rule: &'static str, detail: String) -> Self {
        Self { rule, detail, wallet: None }
    }
}

/// What the node has more than the books say. Nobody is harmed, so nobody is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Surplus {
    /// The rule that would be broken if it were less.
    pub rule: &'static str,
    pub account: &'static str,
    pub books_msat: i64,
    pub more_msat: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// How many rows each rule was checked on.
    pub checked: Vec<(&'static str, u64)>,
    pub drifts: Vec<Drift>,
    pub surplus: Vec<Surplus>,
    /// What could not be checked now, and why. Not a drift, and not a clean bill either.
    pub skipped: Vec<Drift>,
    /// What of the node's money is under way, so that it is compared later, or within bounds.
    pub pending: Vec<Drift>,
    /// Wallets whose assets' state can't be opened. Theirs alone is the harm: nobody else's payouts stop.
    pub unopened: Vec<Drift>,
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
        self.drifts.extend(broken.into_iter().map(|detail| Drift::new(rule, detail)));
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
    audit_assets(flows, &mut report).await?;
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

async fn audit_books(conn: &mut Conn, report: &mut Report) -> Result<(), StoreError> {
    for rule in RULES {
        let (count, broken) = audit::check(conn, rule).await?;
        report.checked.push((rule.name, count));
        let drift = |Broken { what, wallet }| Drift { rule: rule.name, detail: what, wallet };
        report.drifts.extend(broken.into_iter().map(drift));
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
                report.skipped.push(Drift::new(RULE, error.to_string()));
                return Ok(());
            }
        };
        if Some(at) != cursor || !still_there {
            report.skipped.push(Drift::new(RULE, "the chain moved while it was asked; run the audit again".to_owned()));
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
