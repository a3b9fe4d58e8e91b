use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use super::failure::{Failure, print};
use super::signals::Stop;
use super::{block_on, logging};
use crate::app;
use crate::config::Config;

/// How often the peers and the chain are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What is left of the Lightning node when its database is lost
#[derive(Subcommand)]
pub(super) enum Node {
    /// Print what is needed to ask all peers to close: ids, addresses, channel points
    ///
    /// The running gateway keeps this in a file beside the node's generation, node.recovery.json, and writes it again whenever a channel
    /// is opened or closed. It holds no secret. Keep a copy of it where the database is not.
    #[command(after_help = "Example:\n  sluice node export-recovery > /backup/node.recovery.json")]
    ExportRecovery,
    /// Start the node with its seed and an empty database, only to have all channels closed and to bring home what they pay
    ///
    /// It connects to every peer of the file and has it close; it finds what the closings pay to the seed, and what the node's wallet had
    /// before, and sends the former to the latter. It makes no payment and takes no channel. Payments that were under way in the channels
    /// are lost. It ends when every channel is closed and all that was found is in the wallet, and may be stopped and started again.
    #[command(
        after_help = "Example:\n  sluice node recover --from /backup/node.recovery.json --store sqlite:data/recovered.db"
    )]
    Recover {
        /// The file that `export-recovery` has printed
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// End the recovery as it stands: the database may be served, and channels that are still open are left to their peers
        #[arg(long)]
        give_up: bool,
    },
}

impl Node {
    pub(super) fn run(self, config: &Config) -> Result<ExitCode, Failure> {
        match self {
            Self::ExportRecovery => export(config),
            Self::Recover { from, give_up } => {
                logging::start(&config.log)?;
                block_on(recover(config, &from, give_up))
            }
        }
    }
}

fn export(config: &Config) -> Result<ExitCode, Failure> {
    let path = app::recovery_file(config);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::new(format!("{}: {error}; the gateway writes it when it starts with ldk.enabled", path.display()))
    })?;
    print(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

async fn recover(config: &Config, from: &std::path::Path, give_up: bool) -> Result<ExitCode, Failure> {
    let mut stop = Stop::listen()?;
    let mut recovery = app::Recovering::start(config, from).await?;
    if give_up {
        recovery.finish().await?;
        print("The recovery is ended.")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut said = None;
    loop {
        match recovery.step().await {
            Ok(now) => {
                if said.as_ref() != Some(&now) {
                    print(&in_words(&now))?;
                }
                if now.is_over() {
                    recovery.finish().await?;
                    print("All channels are closed, and what they paid is in the node's wallet.")?;
                    return Ok(ExitCode::SUCCESS);
                }
                said = Some(now);
            }
            Err(error) => tracing::warn!(%error, "the recovery goes on when this is over"),
        }
        tokio::select! {
            () = stop.asked() => {
                recovery.stop().await;
                return Err(Failure::new("stopped before the end; the same command goes on"));
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn in_words(now: &app::RecoveryProgress) -> String {
    let mut lines = vec![format!(
        "block {}: {} channels open, {} closed; {} sat on the way to the wallet, {} sat brought there, {} sat in it",
        now.height, now.open, now.closed, now.on_the_way, now.swept, now.wallet
    )];
    lines.extend(now.away.iter().map(|(peer, why)| format!("  peer {peer} is not reached: {why}")));
    lines.join("\n")
}
