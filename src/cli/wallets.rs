use std::process::ExitCode;

use clap::Subcommand;

use super::block_on;
use super::desk::Desk;
use super::failure::{Failure, print, print_json};
use crate::config::Config;
use crate::http::api::admin::wallets::{ReleasedResponse, WalletView, WalletsResponse};
use crate::ids::WalletId;

const PAGE: u32 = 500;

/// List wallets, and release one
///
/// While a gateway runs here, it is asked over its socket.
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

impl Wallets {
    pub(super) fn run(self, config: &Config) -> Result<ExitCode, Failure> {
        block_on(async {
            let desk = Desk::open(config).await?;
            let done = match self {
                Self::List { json } => list(&desk, json).await,
                Self::Release { id } => release(&desk, &id).await,
            };
            desk.close().await;
            done.map(|()| ExitCode::SUCCESS)
        })
    }
}

async fn list(desk: &Desk, json: bool) -> Result<(), Failure> {
    let all = read_all(desk).await?;
    if json {
        return print_json(&all);
    }
    if all.is_empty() {
        print("No wallet is registered yet.")?;
    }
    for wallet in all {
        let state = match (&wallet.released_at, &wallet.scanned_at) {
            (Some(at), _) => format!("released {at}"),
            (None, Some(_)) => "watched".to_owned(),
            (None, None) => "being scanned".to_owned(),
        };
        let (id, fingerprint, registered) = (wallet.id, wallet.master_fingerprint, wallet.registered_at);
        print(&format!("{id}  fingerprint {fingerprint}  registered {registered}  {state}"))?;
    }
    Ok(())
}

async fn read_all(desk: &Desk) -> Result<Vec<WalletView>, Failure> {
    let mut all = Vec::new();
    let mut path = format!("/admin/wallets?limit={PAGE}");
    loop {
        let page: WalletsResponse = desk.get(&path).await?;
        all.extend(page.wallets);
        let Some(cursor) = page.next_cursor else { return Ok(all) };
        path = format!("/admin/wallets?limit={PAGE}&cursor={cursor}");
    }
}

async fn release(desk: &Desk, id: &str) -> Result<(), Failure> {
    let wallet: WalletId =
        id.parse().map_err(|_| Failure::new("a wallet id has 16 hexadecimal characters; see `sluice wallets list`"))?;
    let _done: ReleasedResponse = desk.post_empty(&format!("/admin/wallets/{wallet}/release")).await?;
    print(&format!("Released {id}."))
}
