//! Audits that an operator asks for, and what the last one found, whoever asked for it.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::alarms::Watch;
use super::audit::{self, Drift, Report, Surplus};
use super::{Error, Flows};
use crate::clock::Timestamp;
use crate::domain::Fact;
use crate::domain::event::payloads;
use crate::store::audit_runs::{self, AuditRun};
use crate::store::{StoreError, Tx, Write, events};

/// How many findings of a kind are kept with a run. All of them are in the log.
const KEPT: usize = 200;

/// Something that an audit says of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub rule: String,
    pub detail: String,
}

impl From<&Drift> for Finding {
    fn from(drift: &Drift) -> Self {
        Self { rule: drift.rule.to_owned(), detail: drift.detail.clone() }
    }
}

/// What the node had more than the books say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct More {
    pub rule: String,
    pub account: String,
    pub more_msat: i64,
}

impl From<&Surplus> for More {
    fn from(surplus: &Surplus) -> Self {
        let Surplus { rule, account, more_msat, books_msat: _ } = *surplus;
        Self { rule: rule.to_owned(), account: account.to_owned(), more_msat }
    }
}

/// What wallets own, and what was there for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backing {
    pub claims_msat: i64,
    pub backing_msat: i64,
}

/// What an audit found, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Found {
    /// Each rule, and on how many rows it was checked.
    pub checked: Vec<(String, u64)>,
    pub drifts: Vec<Finding>,
    pub skipped: Vec<Finding>,
    pub pending: Vec<Finding>,
    /// What is nobody's harm.
    pub surplus: Vec<More>,
    /// Wallets whose assets could not be opened.
    pub unopened: Vec<Finding>,
    pub solvency: Option<Backing>,
}

impl Found {
    fn of(report: &Report) -> Self {
        let kept = |all: &[Drift]| all.iter().take(KEPT).map(Finding::from).collect();
        Self {
            checked: report.checked.iter().map(|(rule, rows)| ((*rule).to_owned(), *rows)).collect(),
            drifts: kept(&report.drifts),
            skipped: kept(&report.skipped),
            pending: kept(&report.pending),
            surplus: report.surplus.iter().map(More::from).collect(),
            unopened: kept(&report.unopened),
            solvency: report
                .solvency
                .map(|found| Backing { claims_msat: found.claims_msat, backing_msat: found.backing_msat }),
        }
    }
}

/// An audit that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Empty: it ran by itself.
    pub asked_by: Option<String>,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    /// How many drifts there were, also when not all of them are kept.
    pub drifts: i64,
    pub found: Found,
}

/// Audits now, one at a time, and does what the audit beside the work does with a drift.
///
/// # Errors
/// When the store can't be used.
pub async fn run(flows: &Flows, by: String) -> Result<Run, Error> {
    let _one_at_a_time = flows.auditing().lock().await;
    let started_at = flows.now();
    let report = audit::audit(flows).await?;
    // What is true of one moment is for the audit that looks again and again.
    Watch::default().react(flows, &report).await?;
    keep(flows, Some(by), started_at, &report).await
}

/// Writes down what an audit found.
///
/// # Errors
/// When the store can't be used.
pub async fn keep(flows: &Flows, by: Option<String>, started_at: Timestamp, report: &Report) -> Result<Run, Error> {
    let found = Found::of(report);
    let drifts = i64::try_from(report.drifts.len()).unwrap_or(i64::MAX);
    let run = Run { asked_by: by, started_at, ended_at: flows.now(), drifts, found };
    let text = serde_json::to_string(&run.found).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let row = AuditRun {
        asked_by: run.asked_by.clone(),
        started_at,
        ended_at: run.ended_at,
        drifts: run.drifts,
        report: text,
    };
    flows.store().write(Keep(row)).await?;
    Ok(run)
}

/// What the last audit found.
///
/// # Errors
/// When the store can't be used.
pub async fn last(flows: &Flows) -> Result<Option<Run>, Error> {
    let mut conn = flows.store().read().await?;
    let Some(row) = audit_runs::last(&mut conn).await? else { return Ok(None) };
    let found = serde_json::from_str(&row.report).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let AuditRun { asked_by, started_at, ended_at, drifts, report: _ } = row;
    Ok(Some(Run { asked_by, started_at, ended_at, drifts, found }))
}

struct Keep(AuditRun);

#[async_trait]
impl Write for Keep {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        audit_runs::insert(tx, &self.0).await?;
        // That it ran by itself is no news.
        let Some(by) = &self.0.asked_by else { return Ok(()) };
        let run = payloads::AuditRun { drifts: self.0.drifts, by: by.clone() };
        events::append(tx, None, None, &Fact::AuditRun(run)).await
    }
}
