use std::process::ExitCode;

use clap::Args;

use super::block_on;
use super::failure::{Failure, print, print_json};
use crate::app;
use crate::config::Config;
use crate::flows::audit::{self, Drift, Report};
use crate::flows::audit_assets;

/// Recompute the books and say where they differ from what is stored
///
/// Exits with 1 if anything differs. What the node can't be asked about now is said to be skipped. The gateway audits itself beside its work, too; on
/// SQLite it has to be stopped for this command. A database that is not there is an error, and is not made.
#[derive(Args)]
#[command(after_help = "Examples:\n  sluice audit\n  sluice audit --json | jq .drifts")]
pub(super) struct Audit {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(super) fn run(self, config: &Config) -> Result<ExitCode, Failure> {
        block_on(async {
            let (flows, without_assets) = app::open_with_assets(config).await?;
            let mut report = audit::audit(&flows).await?;
            report.pending.extend(without_assets.map(|detail| Drift::new(audit_assets::RULE, detail)));
            flows.store().close().await;
            if self.json {
                print_json(&report)?
            } else {
                print(&in_words(&report))?
            }
            let is_well = report.drifts.is_empty() && report.unopened.is_empty();
            Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }
}

fn in_words(report: &Report) -> String {
    let mut lines: Vec<String> = report.checked.iter().map(|(rule, rows)| format!("{rule}: {rows} checked")).collect();
    lines.extend(report.drifts.iter().map(|drift| format!("DRIFT {}: {}", drift.rule, drift.detail)));
    lines.extend(report.surplus.iter().map(|more| {
        format!("SURPLUS {}: the node has {} msat more than {} in the books", more.rule, more.more_msat, more.account)
    }));
    lines.extend(report.unopened.iter().map(|unopened| format!("UNOPENED {}: {}", unopened.rule, unopened.detail)));
    lines.extend(report.skipped.iter().map(|skipped| format!("SKIPPED {}: {}", skipped.rule, skipped.detail)));
    lines.extend(report.pending.iter().map(|pending| format!("PENDING {}: {}", pending.rule, pending.detail)));
    lines.push(match (report.drifts.len(), report.skipped.len()) {
        (0, 0) => "No drift.".to_owned(),
        (0, skipped) => format!("No drift in what could be checked; {skipped} could not."),
        (drifts, _) => format!("{drifts} drifts."),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drift_can_be_grepped_for() {
        let drift = Drift::new("leases", "one too many".to_owned());
        let mut report = Report { checked: vec![("leases", 3)], ..Report::default() };
        assert_eq!(in_words(&report), "leases: 3 checked\nNo drift.");
        report.skipped.push(Drift::new("coins", "the node is down".to_owned()));
        assert!(
            in_words(&report)
                .ends_with("SKIPPED coins: the node is down\nNo drift in what could be checked; 1 could not.")
        );
        report.drifts.push(drift);
        assert!(in_words(&report).contains("\nDRIFT leases: one too many\n"));
        assert!(in_words(&report).ends_with("\n1 drifts."));
    }
}
