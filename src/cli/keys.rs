use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::block_on;
use super::failure::{Failure, print};
use crate::app;
use crate::clock::Clock;
use crate::config::Config;
use crate::flows::grants::{self, Granted, WantedGrant};
use crate::flows::keys::{self, NewKey, Scope};
use crate::flows::values::{Limit, read_sum};
use crate::ids::{KeyId, WalletId};
use crate::money::Money;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a key may spend unless the operator says otherwise.
const USUAL_GRANT_DAYS: u32 = 90;
/// Far more than a signed grant; a pipe from the wrong place ends here.
const MAX_INPUT_BYTES: u64 = 1024 * 1024;

/// Make, list and revoke API keys
///
/// A key is needed where the API listens beyond loopback, or auth.mode is "key". It is sent as `Authorization: Bearer <key>`
/// or as the password of Basic authentication. On SQLite the gateway has to be stopped meanwhile.
#[derive(Subcommand)]
pub(super) enum Keys {
    /// Make a key and print it, once
    #[command(after_help = "Examples:\n  \
        sluice keys create --name backoffice --scope register --scope read --scope receive --scope send\n  \
        sluice keys create --name dashboard --scope read --wallet 0123456789abcdef --expires-in-days 90\n  \
        sluice keys create --name shop --scope read --scope send --wallet 0123456789abcdef --limit btc:1000000/day --limit-per-payment btc:50000\n\n\
        A key with a limit pays without a signature. It comes into force with the grant of the wallet's owner, see `sluice keys grant --help`.")]
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
        /// It stops working after so many days [default: never; with a limit 90]
        #[arg(long, value_name = "DAYS")]
        expires_in_days: Option<u32>,
        #[command(flatten)]
        spending: Spending,
    },
    /// Print what a wallet's owner has to sign before a key may spend: the PSBT, and on standard error its message
    #[command(
        after_help = "Example:\n  sluice keys grant-message 0123456789ab | sluice-signer grant --file wallet | sluice keys grant 0123456789ab"
    )]
    GrantMessage {
        /// The key's id, as `sluice keys create` and `sluice keys list` print it
        id: String,
    },
    /// Take the signed grant of a key: from then on it may spend within its limits
    #[command(after_help = "Example:\n  sluice keys grant 0123456789ab --grant signed.psbt")]
    Grant {
        /// The key's id
        id: String,
        /// The file with the signed PSBT [default: standard input]
        #[arg(long, value_name = "FILE")]
        grant: Option<PathBuf>,
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

#[derive(Args)]
#[command(next_help_heading = "Spending")]
pub(super) struct Spending {
    /// What it may spend without a signature in each hour, day, week or month of the calendar (UTC), in satoshis; one for each period at most
    #[arg(long = "limit", value_name = "btc:SAT/PERIOD")]
    limits: Vec<Limit>,
    /// What one payment may come to, its fee ceiling included
    #[arg(long, value_name = "btc:SAT", value_parser = read_sum, requires = "limits")]
    limit_per_payment: Option<Money>,
}

fn wallet_id(text: &str) -> Result<WalletId, String> {
    text.parse().map_err(|_| "a wallet id has 16 hexadecimal characters; see `sluice wallets list`".to_owned())
}

impl Keys {
    pub(super) fn run(self, config: &Config) -> Result<ExitCode, Failure> {
        block_on(async {
            match self {
                Self::Create { name, scopes, wallets, expires_in_days, spending } => {
                    let expires_in_days =
                        expires_in_days.or_else(|| (!spending.limits.is_empty()).then_some(USUAL_GRANT_DAYS));
                    let expires_at = expires_in_days.map(|days| Clock::System.now().after(DAY.saturating_mul(days)));
                    create(config, NewKey { name, scopes, wallets, expires_at }, spending).await
                }
                Self::GrantMessage { id } => grant_message(config, &KeyId(id)).await,
                Self::Grant { id, grant } => give(config, &KeyId(id), grant.as_deref()).await,
                Self::List => list(config).await,
                Self::Revoke { id } => revoke(config, KeyId(id)).await,
            }
        })
    }
}

async fn create(config: &Config, mut wanted: NewKey, spending: Spending) -> Result<ExitCode, Failure> {
    wanted.scopes.sort_unstable();
    wanted.scopes.dedup();
    if !spending.limits.is_empty() {
        return ask(config, wanted, spending).await;
    }
    let flows = app::open(config).await?;
    let (id, secret) = keys::create(&flows, wanted).await?;
    flows.store().close().await;
    print(secret.expose())?;
    eprintln!("This is the key {id}. It is not stored and can't be shown again.");
    Ok(ExitCode::SUCCESS)
}

/// A key that may spend waits for its grant first.
async fn ask(config: &Config, wanted: NewKey, spending: Spending) -> Result<ExitCode, Failure> {
    let NewKey { name, scopes, wallets, expires_at } = wanted;
    let (Some(expires_at), [wallet]) = (expires_at, wallets.as_slice()) else {
        return Err(Failure::new("a key that may spend is for one wallet: name it with --wallet, once"));
    };
    let Spending { limits, limit_per_payment: per_payment } = spending;
    let wanted = WantedGrant { name, scopes, wallet: wallet.clone(), limits, per_payment, expires_at };
    let flows = app::open(config).await?;
    let asked = grants::ask(&flows, wanted).await?;
    flows.store().close().await;
    print(asked.secret.expose())?;
    let id = &asked.key;
    eprintln!("This is the key {id}. It is not stored and can't be shown again.");
    eprintln!("It is not in force yet: the owner of the wallet {wallet} has to sign this message first.");
    tell_message(&asked.message);
    eprintln!(
        "Have it signed: sluice keys grant-message {id} | sluice-signer grant --file WALLET | sluice keys grant {id}"
    );
    Ok(ExitCode::SUCCESS)
}

fn tell_message(message: &str) {
    for line in message.lines() {
        eprintln!("  {line}");
    }
}

async fn grant_message(config: &Config, id: &KeyId) -> Result<ExitCode, Failure> {
    let flows = app::open(config).await?;
    let asked = grants::asked(&flows, id).await?;
    flows.store().close().await;
    tell_message(&asked.message);
    print(&asked.psbt)?;
    Ok(ExitCode::SUCCESS)
}

async fn give(config: &Config, id: &KeyId, file: Option<&Path>) -> Result<ExitCode, Failure> {
    // Read before the database is opened: on SQLite, whoever writes to the pipe may still have it.
    let signed = match file {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?
        }
        None => read_input()?,
    };
    let flows = app::open(config).await?;
    let given = grants::give(&flows, id, signed.trim()).await?;
    flows.store().close().await;
    print(&format!("The key {id} may spend for the wallet {} until {}.", given.wallet, given.expires_at))?;
    Ok(ExitCode::SUCCESS)
}

fn read_input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().lock().take(MAX_INPUT_BYTES).read_to_string(&mut text)?;
    if text.trim().is_empty() {
        return Err(Failure::new("standard input is empty; a signed PSBT was expected"));
    }
    Ok(text)
}

async fn list(config: &Config) -> Result<ExitCode, Failure> {
    let flows = app::open(config).await?;
    let all = keys::list(&flows).await?;
    let granted = grants::list(&flows).await?;
    let now = flows.store().clock().now();
    flows.store().close().await;
    if all.is_empty() && granted.is_empty() {
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
        for granted in granted.iter().filter(|granted| granted.grant.key == row.id) {
            print_limits(granted)?;
        }
    }
    for granted in granted.iter().filter(|granted| granted.grant.signed_at.is_none()) {
        let grant = &granted.grant;
        let state = if grant.expires_at <= now { "never granted, expired" } else { "waits for its grant" };
        print(&format!(
            "{}  {}  {state}\n    scopes {}, wallets {}",
            grant.key, grant.name, grant.scopes, grant.wallet
        ))?;
        print_limits(granted)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_limits(granted: &Granted) -> Result<(), Failure> {
    for budget in &granted.budgets {
        let (amount, period) = (budget.limit.money.amount.sat_floor(), budget.limit.period);
        print(&format!(
            "    may spend {amount} sat per {period}: {} used, {} left, renews {}",
            budget.used.sat_ceil(),
            budget.left().sat_floor(),
            budget.window.ends
        ))?;
    }
    if let Some(most) = granted.grant.per_payment {
        print(&format!("    at most {} sat in one payment", most.sat_floor()))?;
    }
    Ok(())
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
