use std::process::ExitCode;

use clap::Args;

use super::block_on;
use super::failure::{Failure, print};
use crate::app;
use crate::config::Config;

/// Create the database or bring it up to date, and end
///
/// `sluice serve` does this by itself at start. Run it apart to see it succeed before a new version is rolled out,
/// and start that with `sluice serve --no-migrate`. The version before still serves on what additions leave.
#[derive(Args)]
#[command(after_help = "Example:\n  sluice migrate --store postgres://sluice@db/sluice")]
pub(super) struct Migrate {}

impl Migrate {
    pub(super) fn run(self, config: &Config) -> Result<ExitCode, Failure> {
        block_on(async {
            let flows = app::open(config).await?;
            print(&format!(
                "The database is up to date. Gateway {}, network {}.",
                flows.store().gateway().0,
                flows.network()
            ))?;
            flows.store().close().await;
            Ok(ExitCode::SUCCESS)
        })
    }
}
