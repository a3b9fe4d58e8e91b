use std::process::ExitCode;

use clap::Args;

use super::block_on;
use super::desk::Desk;
use super::failure::{Failure, print, print_json};
use crate::config::Config;
use crate::flows::audit_assets;
use crate::http::api::admin::audit::{AuditView, FindingView};

/// Recompute the books and say where they differ from what is stored
///
/// Exits with 1 if anything differs. What the node can't be asked about now is said to be skipped. The gateway audits itself beside its work,
/// too. While one runs here, it is asked over its socket; a drift stops payouts. A database that is not there is an error, and is not made.
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
            let (desk, without_assets) = Desk::open_to_look(config).await?;
            let report = desk.post_empty::<AuditView>("/admin/audit").await;
            desk.close().await;
            let mut report = report?;
            let rule = audit_assets::RULE.to_owned();
            report.pending.extend(without_assets.map(|detail| FindingView { rule, detail }));
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

fn in_words(report: &AuditView) -> String {
    let mut lines: Vec<String> =
        report.checked.iter().map(|one| format!("{}: {} checked", one.rule, one.rows)).collect();
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
    use crate::http::api::admin::audit::CheckedView;

    #[test]
    fn a_drift_can_be_grepped_for() {
        let found = |rule: &str, detail: &str| FindingView { rule: rule.to_owned(), detail: detail.to_owned() };
        let mut report = AuditView {
            started_at: String::new(),
            ended_at: String::new(),
            asked_by: None,
            drift_count: 0,
            drifts: Vec::new(),
            skipped: Vec::new(),
            pending: Vec::new(),
            surplus: Vec::new(),
            unopened: Vec::new(),
            checked: vec![CheckedView { rule: "leases".to_owned(), rows: 3 }],
            solvency: None,
        };
        assert_eq!(in_words(&report), "leases: 3 checked\nNo drift.");
        report.skipped.push(found("coins", "the node is down"));
        assert!(
            in_words(&report)
                .ends_with("SKIPPED coins: the node is down\nNo drift in what could be checked; 1 could not.")
        );
        report.drifts.push(found("leases", "one too many"));
        assert!(in_words(&report).contains("\nDRIFT leases: one too many\n"));
        assert!(in_words(&report).ends_with("\n1 drifts."));
    }
}
