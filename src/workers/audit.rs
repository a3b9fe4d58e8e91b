//! Recomputes the books beside the gateway's work, and asks the Lightning node in between whether it still has what is owed. What follows
//! from a difference is the business of `flows/alarms.rs`.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::supervise::{Next, Worker};
use crate::flows::alarms::Watch;
use crate::flows::{Error, Flows, audit, audit_runs};

/// A gateway that has just started has better things to do first.
const FIRST_AFTER: Duration = Duration::from_secs(60);
/// Asking the node costs a few reads; recomputing all books does not.
const NODE_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Audit {
    flows: Flows,
    every: Duration,
    has_waited: bool,
    /// When all books were recomputed.
    whole: Option<Instant>,
    watch: Watch,
}

impl Audit {
    pub(super) fn new(flows: &Flows, every: Duration) -> Self {
        Self { flows: flows.clone(), every, has_waited: false, whole: None, watch: Watch::default() }
    }
}

#[async_trait]
impl Worker for Audit {
    fn name(&self) -> &'static str {
        "audit"
    }

    async fn round(&mut self) -> Result<Next, Error> {
        if !self.has_waited {
            self.has_waited = true;
            return Ok(Next::After(FIRST_AFTER.min(self.every)));
        }
        let is_due = self.whole.is_none_or(|before| before.elapsed() >= self.every);
        let started_at = self.flows.store().clock().now();
        let report =
            if is_due { audit::audit(&self.flows).await? } else { audit::audit_node_alone(&self.flows).await? };
        let found = u32::try_from(report.drifts.len()).unwrap_or(u32::MAX);
        if is_due {
            self.whole = Some(Instant::now());
            audit_runs::keep(&self.flows, None, started_at, &report).await?;
            metrics::gauge!("sluice_audit_drifts").set(found);
            metrics::gauge!("sluice_audit_last_timestamp_seconds").set(lossy(started_at.millis() / 1_000));
        }
        if let Some(solvency) = report.solvency {
            metrics::gauge!("sluice_solvency_claims_msat").set(lossy(solvency.claims_msat));
            metrics::gauge!("sluice_solvency_backing_msat").set(lossy(solvency.backing_msat));
        }
        for unopened in &report.unopened {
            tracing::error!(detail = %unopened.detail, "the audit can't open what a wallet has of assets");
        }
        let next = Next::After(self.every.min(NODE_EVERY));
        if report.drifts.is_empty() && is_due {
            tracing::info!(skipped = report.skipped.len(), pending = report.pending.len(), "the audit found no drift");
        }
        for drift in &report.drifts {
            tracing::error!(rule = drift.rule, detail = %drift.detail, "the audit found a drift");
        }
        self.watch.react(&self.flows, &report).await?;
        Ok(next)
    }
}

/// A gauge is a picture: what a fraction with 53 bits can't hold does not show in it.
#[allow(clippy::cast_precision_loss, reason = "gauges are fractions")]
const fn lossy(msat: i64) -> f64 {
    msat as f64
}
