use std::process::ExitCode;

use clap::Subcommand;

use super::block_on;
use super::desk::Desk;
use super::failure::{Failure, print};
use crate::config::Config;
use crate::http::api::admin::halts::{ClearHaltRequestModel, HaltsResponse, RaiseHaltRequestModel};

/// Stop payouts, list what stops them, and let them go on
///
/// While a halt is in force nothing that takes money out is begun, ended or bumped, and what was promised and has not gone out waits.
/// Receiving goes on. While a gateway runs here, it is asked over its socket.
#[derive(Subcommand)]
pub(super) enum Halts {
    /// Stop payouts at once
    #[command(after_help = "Example:\n  sluice halts raise \"ticket 12: a key has leaked\"")]
    Raise {
        /// Why, for whoever is to clear it later
        reason: String,
        /// What to call it, for instance key_leak
        #[arg(long)]
        name: Option<String>,
        /// Stop the payouts of this wallet alone
        #[arg(long, value_name = "WALLET")]
        wallet: Option<String>,
    },
    /// List what stops payouts now
    List,
    /// Let payouts go on
    #[command(after_help = "Example:\n  sluice halts clear operator --reason \"ticket 12: the key is revoked\"")]
    Clear {
        /// Its name or its id, as `sluice halts list` prints them
        halt: String,
        /// Why, for whoever reads the events later
        #[arg(long)]
        reason: Option<String>,
    },
}

impl Halts {
    pub(super) fn run(self, config: &Config) -> Result<ExitCode, Failure> {
        block_on(async {
            let desk = Desk::open(config).await?;
            let done = match self {
                Self::Raise { reason, name, wallet } => {
                    raise(&desk, &RaiseHaltRequestModel { name, wallet, reason }).await
                }
                Self::List => list(&desk).await,
                Self::Clear { halt, reason } => clear(&desk, &halt, reason).await,
            };
            desk.close().await;
            done.map(|()| ExitCode::SUCCESS)
        })
    }
}

async fn raise(desk: &Desk, wanted: &RaiseHaltRequestModel) -> Result<(), Failure> {
    tell(desk.post("/admin/halts", wanted).await?)
}

pub(super) async fn list(desk: &Desk) -> Result<(), Failure> {
    tell(desk.get("/admin/halts").await?)
}

fn tell(found: HaltsResponse) -> Result<(), Failure> {
    if found.halts.is_empty() {
        print("Nothing stops payouts.")?;
    }
    for halt in found.halts {
        let whose = halt.wallet.map_or("everybody".to_owned(), |wallet| format!("wallet {wallet}"));
        print(&format!("{}  {whose}  since {}  {}\n    {}", halt.name, halt.created_at, halt.reason, halt.id))?;
    }
    Ok(())
}

pub(super) async fn clear(desk: &Desk, halt: &str, reason: Option<String>) -> Result<(), Failure> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if halt.is_empty() || !halt.bytes().all(is_word) {
        return Err(Failure::new(format!("nothing is stopped by {halt}; `sluice halts list` says what is")));
    }
    let path = format!("/admin/halts/{halt}/clear");
    let _left: HaltsResponse = desk.post(&path, &ClearHaltRequestModel { reason }).await?;
    print(&format!("Cleared {halt}."))
}
