use std::process::ExitCode;

use clap::Args;

use super::desk::Desk;
use super::failure::Failure;
use super::{block_on, halts};
use crate::config::Config;

/// Let payouts go on that an alarm has stopped
///
/// Without a name it lists what stops them. Find out first what happened: a deep reorganisation may have taken deposits
/// back, and a drift means that the books are wrong. The same as `sluice halts list` and `sluice halts clear`.
#[derive(Args)]
#[command(after_help = "Examples:\n  sluice resume\n  sluice resume deep_reorg")]
pub(super) struct Resume {
    /// The halt to clear, for instance deep_reorg or audit_drift
    reason: Option<String>,
}

impl Resume {
    pub(super) fn run(self, config: &Config) -> Result<ExitCode, Failure> {
        block_on(async {
            let desk = Desk::open(config).await?;
            let done = match &self.reason {
                Some(name) => halts::clear(&desk, name, None).await,
                None => halts::list(&desk).await,
            };
            desk.close().await;
            done.map(|()| ExitCode::SUCCESS)
        })
    }
}
