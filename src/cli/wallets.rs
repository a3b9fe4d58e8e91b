use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use super::block_on;
use super::failure::{Failure, print, print_json};
use crate::app;
use crate::config::Config;
use crate::flows::operator;
use crate::ids::WalletId;

const PAGE: u32 = 500;

/// List wallets, and release one
///
/// On SQLite the gateway has to be stopped meanwhile.
#[derive(Subcommand)]
pub(super) enum Wallets {
    /// List every wallet that was ever registered
    List {
        /// As a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Stop watching a wallet and free its keys for another registration
    ///
    /// Refused while a send or a deposit is under way. What was recorded of its requests stays. Money that arrives at its
    /// addresses later is not seen, until the same keys are registered again.
    #[command(after_help = "Example:\n  sluice wallets release 0123456789abcdef")]
    Release {
        /// Its id, as `sluice wallets list` prints it
        id: String,
    },
}

#[derive(Serialize)]
struct Line {
    id: WalletId,
    fingerprint: String,
    registered_at: String,
    scanned_at: Option<String>,
    released_at: Option<String>,
    xpub_van: String,
    xpub_col: String,
}

impl Wallets {
    pub(super) fn run(self, config: &Config) -> Result<ExitCode, Failure> {
        block_on(async {
            match self {
                Self::List { json } => list(config, json).await,
                Self::Release { id } => release(config, &id).await,
            }
        })
    }
}

async fn list(config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let lines = read_all(config).await?;
    if json {
        print_json(&lines)?;
        return Ok(ExitCode::SUCCESS);
    }
    if lines.is_empty() {
        print("No wallet is registered yet.")?;
    }
    for line in lines {
        let state = match (&line.released_at, &line.scanned_at) {
            (Some(at), _) => format!("released {at}"),
            (None, Some(_)) => "watched".to_owned(),
            (None, None) => "being scanned".to_owned(),
        };
        print(&format!("{}  fingerprint {}  registered {}  {state}", line.id, line.fingerprint, line.registered_at))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn read_all(config: &Config) -> Result<Vec<Line>, Failure> {
    let flows = app::open(config).await?;
    let mut lines: Vec<Line> = Vec::new();
    loop {
        let page = operator::wallets_after(&flows, lines.last().map(|line| &line.id), PAGE).await?;
        if page.is_empty() {
            break;
        }
        lines.extend(page.into_iter().map(|row| Line {
            id: row.id,
            fingerprint: row.fingerprint,
            registered_at: row.created_at.to_string(),
            scanned_at: row.scanned_at.map(|at| at.to_string()),
            released_at: row.released_at.map(|at| at.to_string()),
            xpub_van: row.xpub_van,
            xpub_col: row.xpub_col,
        }));
    }
    flows.store().close().await;
    Ok(lines)
}

async fn release(config: &Config, id: &str) -> Result<ExitCode, Failure> {
    let wallet: WalletId =
        id.parse().map_err(|_| Failure::new("a wallet id has 16 hexadecimal characters; see `sluice wallets list`"))?;
    let flows = app::open(config).await?;
    operator::release_wallet(&flows, wallet).await?;
    flows.store().close().await;
    print(&format!("Released {id}."))?;
    Ok(ExitCode::SUCCESS)
}
