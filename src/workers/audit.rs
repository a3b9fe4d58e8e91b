//! Recomputes the books beside the gateway's work. A difference stops payouts: nobody knows whose money it would be.

use std::time::Duration;

use async_trait::async_trait;

use super::supervise::{Next, Worker};
use crate::flows::audit;
use crate::flows::{Error, Flows};

/// A gateway that has just started has better things to do first.
const FIRST_AFTER: Duration = Duration::from_secs(60);

pub(super) struct Audit {
    flows: Flows,
    every: Duration,
    has_waited: bool,
}

impl Audit {
    pub(super) fn new(flows: &Flows, every: Duration) -> Self {
        Self { flows: flows.clone(), every, has_waited: false }
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
        let report = audit::audit(&self.flows).await?;
        metrics::gauge!("sluice_audit_drifts").set(u32::try_from(report.drifts.len()).unwrap_or(u32::MAX));
        if let Some(solvency) = report.solvency {
            metrics::gauge!("sluice_solvency_claims_msat").set(lossy(solvency.claims_msat));
            metrics::gauge!("sluice_solvency_backing_msat").set(lossy(solvency.backing_msat));
        }
        if report.drifts.is_empty() {
            tracing::info!(skipped = report.skipped.len(), pending = report.pending.len(), "the audit found no drift");
            return Ok(Next::After(self.every));
        }
        for drift in &report.drifts {
            tracing::error!(rule = drift.rule, detail = %drift.detail, "the audit found a drift; payouts stop");
        }
        audit::raise_alarms(&self.flows, &report).await?;
        Ok(Next::After(self.every))
    }
}

/// A gauge is a picture: what a fraction with 53 bits can't hold does not show in it.
#[allow(clippy::cast_precision_loss, reason = "gauges are fractions")]
const fn lossy(msat: i64) -> f64 {
    msat as f64
}
