use std::process::ExitCode;

use clap::Args;

use super::failure::Failure;
use super::signals::Stop;
use super::{block_on, logging};
use crate::app;
use crate::config::Config;

/// Run the gateway
///
/// It needs a bitcoind, and serves what it can while that is down. The database is created and brought up to date at start.
/// SIGTERM and Ctrl-C stop it: calls in flight are finished first.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    sluice serve --set chain.bitcoind.cookie_file=$HOME/.bitcoin/regtest/.cookie\n  \
    sluice serve --config /etc/sluice.toml\n  \
    SLUICE__STORE__URL=postgres://sluice@db/sluice sluice serve --listen 0.0.0.0:8080")]
pub(super) struct Serve {
    /// Leave the database's schema as it is, and end if it is not up to date; `sluice migrate` brings it there
    #[arg(long)]
    no_migrate: bool,
}

impl Serve {
    pub(super) fn run(self, config: &Config) -> Result<ExitCode, Failure> {
        logging::start(&config.log)?;
        let mut config = config.clone();
        config.store.migrate = !self.no_migrate;
        block_on(serve(&config))
    }
}

async fn serve(config: &Config) -> Result<ExitCode, Failure> {
    let mut stop = Stop::listen()?;
    let mut running = app::start(config).await?;
    let broken = tokio::select! {
        () = stop.asked() => None,
        why = running.broken() => Some(why),
    };
    tracing::info!("stopping");
    tokio::select! {
        () = running.stop() => {}
        // Whoever asks twice does not want to wait. Nothing that was answered is lost.
        () = stop.asked() => return Err(Failure::new("stopped without finishing")),
    }
    match broken {
        Some(why) => Err(Failure::new(why)),
        None => Ok(ExitCode::SUCCESS),
    }
}
