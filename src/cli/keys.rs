use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use super::block_on;
use super::failure::{Failure, print};
use crate::app;
use crate::clock::Clock;
use crate::config::Config;
use crate::flows::keys::{self, NewKey, Scope};
use crate::ids::{KeyId, WalletId};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Make, list and revoke API keys
///
/// A key is needed where the API listens beyond loopback, or auth.mode is "key". It is sent as `Authorization: Bearer <key>`
/// or as the password of Basic authentication. On SQLite the gateway has to be stopped meanwhile.
#[derive(Subcommand)]
pub(super) enum Keys {
    /// Make a key and print it, once
    #[command(after_help = "Examples:\n  \
        sluice keys create --name backoffice --scope register --scope read --scope receive --scope send\n  \
        sluice keys create --name dashboard --scope read --wallet 0123456789abcdef --expires-in-days 90")]
    Create {
        /// What you call it in lists
        #[arg(long)]
        name: String,
        /// What it may do; may be repeated: read, receive, send, register, admin
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<Scope>,
        /// A registered wallet that it may act for; may be repeated. Wallets that are registered with the key are added by themselves
        #[arg(long = "wallet", value_name = "WALLET", value_parser = wallet_id)]
        wallets: Vec<WalletId>,
        /// It stops working after so many days [default: never]
        #[arg(long, value_name = "DAYS")]
        expires_in_days: Option<u32>,
    },
    /// List all keys: what they are called and may do, never the keys themselves
    List,
    /// End a key at once
    #[command(after_help = "Example:\n  sluice keys revoke 0123456789ab")]
    Revoke {
        /// Its id, as `sluice keys list` prints it
        id: String,
    },
}

fn wallet_id(text: &str) -> Result<WalletId, String> {
    text.parse().map_err(|_| "a wallet id has 16 hexadecimal characters; see `sluice wallets list`".to_owned())
}

impl Keys {
    pub(super) fn run(self, config: &Config) -> Result<ExitCode, Failure> {
        block_on(async {
            match self {
                Self::Create { name, scopes, wallets, expires_in_days } => {
                    let expires_at = expires_in_days.map(|days| Clock::System.now().after(DAY.saturating_mul(days)));
                    create(config, NewKey { name, scopes, wallets, expires_at }).await
                }
                Self::List => list(config).await,
                Self::Revoke { id } => revoke(config, KeyId(id)).await,
            }
        })
    }
}

async fn create(config: &Config, mut wanted: NewKey) -> Result<ExitCode, Failure> {
    wanted.scopes.sort_unstable();
    wanted.scopes.dedup();
    let flows = app::open(config).await?;
    let (id, secret) = keys::create(&flows, wanted).await?;
    flows.store().close().await;
    print(secret.expose())?;
    eprintln!("This is the key {id}. It is not stored and can't be shown again.");
    Ok(ExitCode::SUCCESS)
}

async fn list(config: &Config) -> Result<ExitCode, Failure> {
    let flows = app::open(config).await?;
    let all = keys::list(&flows).await?;
    let now = flows.store().clock().now();
    flows.store().close().await;
    if all.is_empty() {
        print("There is no key yet; see `sluice keys create --help`.")?;
    }
    for (row, wallets) in all {
        let state = match (row.revoked_at, row.expires_at) {
            (Some(at), _) => format!("revoked {at}"),
            (None, Some(at)) if at <= now => format!("expired {at}"),
            (None, Some(at)) => format!("until {at}"),
            (None, None) => "in force".to_owned(),
        };
        let wallets: Vec<String> = wallets.iter().map(ToString::to_string).collect();
        print(&format!(
            "{}  {}  {}\n    scopes {}, wallets {}, made {}",
            row.id,
            row.name,
            state,
            row.scopes,
            if wallets.is_empty() { "none".to_owned() } else { wallets.join(" ") },
            row.created_at
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn revoke(config: &Config, id: KeyId) -> Result<ExitCode, Failure> {
    let flows = app::open(config).await?;
    let was_in_force = keys::revoke(&flows, id.clone()).await?;
    flows.store().close().await;
    if was_in_force {
        print(&format!("Revoked {id}."))?;
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::new(format!("no key {id} is in force; see `sluice keys list`")))
}
