//! Where logs go: standard error, as text or as JSON lines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::failure::Failure;
use crate::config::{Log, LogFormat};

const ENGINES_QUERIES: &str = "sqlx::query";

/// Starts logging for the whole process.
pub(super) fn start(log: &Log) -> Result<(), Failure> {
    // The RGB engine tells each of its queries otherwise. Whoever wants them names them.
    let level = format!("{ENGINES_QUERIES}=warn,{}", log.level);
    let filter = EnvFilter::try_new(level)
        .map_err(|error| Failure::new(format!("log.level: {:?} can't be understood: {error}", log.level)))?;
    // Where standard error is a file on a full disk, saying so there would end whoever had something to say.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let started = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::new(format!("logging could not be started: {error}")))
}
