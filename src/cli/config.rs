use std::process::ExitCode;

use clap::Args;

use super::failure::{Failure, print, print_json};
use crate::config::Config;

/// Print the settings in force, secrets masked
///
/// They are put together from defaults, the file, the environment and flags, the later the stronger.
#[derive(Args)]
#[command(after_help = "Examples:\n  sluice config\n  SLUICE__POLICY__LOOKAHEAD=50 sluice config --json | jq .policy")]
pub(super) struct ShowConfig {
    /// As JSON instead of TOML
    #[arg(long)]
    json: bool,
}

impl ShowConfig {
    pub(super) fn run(self, config: &Config) -> Result<ExitCode, Failure> {
        if self.json {
            print_json(config)?;
        } else {
            let text = config.to_toml().map_err(|error| Failure::new(error.to_string()))?;
            print(text.trim_end())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
