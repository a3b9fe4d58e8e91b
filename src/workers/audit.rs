//! Recomputes the books beside the gateway's work. A difference stops payouts: nobody knows whose money it would be.

use std::time::Duration;

use async_trait::async_trait;

use super::supervise::{Next, Worker};
use crate::flows::audit::{self, Drift};
use crate::flows::{Error, Flows};
use crate::store::{StoreError, Tx, Write, halts};

/// A gateway that has just started has better things to do first.
const FIRST_AFTER: Duration = Duration::from_secs(60);
/// Drifts that are spelt out in the halt; all of them are in the log.
const SPELT_OUT: usize = 5;

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
        if report.drifts.is_empty() {
            tracing::info!(skipped = report.skipped.len(), "the audit found no drift");
            return Ok(Next::After(self.every));
        }
        for drift in &report.drifts {
            tracing::error!(rule = drift.rule, detail = %drift.detail, "the audit found a drift; payouts stop");
        }
        self.flows.store().write(RaiseHalt { detail: spell_out(&report.drifts) }).await?;
        Ok(Next::After(self.every))
    }
}

fn spell_out(drifts: &[Drift]) -> String {
    let mut lines: Vec<String> =
        drifts.iter().take(SPELT_OUT).map(|drift| format!("{}: {}", drift.rule, drift.detail)).collect();
    if drifts.len() > SPELT_OUT {
        lines.push(format!("and {} more", drifts.len() - SPELT_OUT));
    }
    lines.join("; ")
}

struct RaiseHalt {
    detail: String,
}

#[async_trait]
impl Write for RaiseHalt {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        halts::raise(tx, halts::AUDIT_DRIFT, &self.detail).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_halt_says_what_is_wrong_and_stays_short() {
        let drift = |n: usize| Drift { rule: "leases", detail: n.to_string() };
        assert_eq!(spell_out(&[drift(1)]), "leases: 1");
        let many: Vec<Drift> = (0..7).map(drift).collect();
        assert!(spell_out(&many).ends_with("leases: 4; and 2 more"), "{}", spell_out(&many));
    }
}
