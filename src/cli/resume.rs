use std::process::ExitCode;

use clap::Args;

use super::block_on;
use super::failure::{Failure, print};
use crate::app;
use crate::config::Config;
use crate::flows::{Flows, operator};

/// Let payouts go on that an alarm has stopped
///
/// Without a reason it lists what stops them. Find out first what happened: a deep reorganisation may have taken deposits
/// back, and a drift means that the books are wrong. On SQLite the gateway has to be stopped meanwhile.
#[derive(Args)]
#[command(after_help = "Examples:\n  sluice resume\n  sluice resume deep_reorg")]
pub(super) struct Resume {
    /// The halt to clear, for instance deep_reorg or audit_drift
    reason: Option<String>,
}

impl Resume {
    pub(super) fn run(self, config: &Config) -> Result<ExitCode, Failure> {
        block_on(async {
            let flows = app::open(config).await?;
            let done = match &self.reason {
                Some(reason) => resume(&flows, reason).await,
                None => list(&flows).await,
            };
            flows.store().close().await;
            done
        })
    }
}

async fn list(flows: &Flows) -> Result<ExitCode, Failure> {
    let halts = operator::halts(flows).await?;
    if halts.is_empty() {
        print("Nothing stops payouts.")?;
    }
    for halt in halts {
        print(&format!("{}  since {}  {}", halt.reason, halt.created_at, halt.detail))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn resume(flows: &Flows, reason: &str) -> Result<ExitCode, Failure> {
    if operator::resume(flows, reason).await? {
        print(&format!("Cleared {reason}."))?;
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::new(format!("nothing is stopped by {reason}; `sluice resume` lists what is")))
}
