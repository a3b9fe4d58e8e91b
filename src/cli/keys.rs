use std::fmt::Display;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Subcommand};

use super::block_on;
use super::desk::Desk;
use super::failure::{Failure, print};
use crate::config::Config;
use crate::flows::keys::Scope;
use crate::flows::values::{Limit, read_sum};
use crate::http::api::admin::key_views::{
    BindRequestModel, CreateKeyRequestModel, GiveGrantRequestModel, GrantToSignResponse, KeyMadeResponse, KeyState,
    KeyView, KeyWalletsResponse, KeysResponse, RevokedResponse, RotateRequestModel,
};
use crate::ids::WalletId;

const SECONDS_PER_HOUR: u32 = 60 * 60;
/// Far more than a signed grant; a pipe from the wrong place ends here.
const MAX_INPUT_BYTES: u64 = 1024 * 1024;

/// Make, list and revoke API keys
///
/// A key is needed where the API listens beyond loopback, or auth.mode is "key". It is sent as `Authorization: Bearer <key>`
/// or as the password of Basic authentication. While a gateway runs here, it is asked over its socket, and no key is needed for that.
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
        /// What it may do; may be repeated: read, receive, send, register, admin:read, admin:write
        #[arg(long = "scope", value_name = "SCOPE", required_unless_present = "like")]
        scopes: Vec<Scope>,
        /// Another key: it may act for the same wallets, those too that are bound to that one later
        #[arg(long, value_name = "KEY")]
        like: Option<String>,
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
    /// Let a key act for more wallets
    #[command(after_help = "Example:\n  sluice keys bind 0123456789ab --wallet 0123456789abcdef")]
    Bind {
        /// Its id, as `sluice keys list` prints it
        id: String,
        /// A registered wallet; may be repeated
        #[arg(long = "wallet", value_name = "WALLET", value_parser = wallet_id, required = true)]
        wallets: Vec<WalletId>,
    },
    /// Make a key that takes the place of another, and print it, once: same name, scopes and wallets
    ///
    /// The old one stays in force for the grace time. What is bound to it meanwhile is bound to the new one, too.
    #[command(after_help = "Example:\n  sluice keys rotate 0123456789ab --grace-hours 48")]
    Rotate {
        /// The id of the old key, as `sluice keys list` prints it
        id: String,
        /// How long the old key stays in force; 0 ends it now
        #[arg(long, value_name = "HOURS", default_value_t = 24)]
        grace_hours: u32,
    },
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
    #[arg(long = "limit", value_name = "btc:SAT/PERIOD", value_parser = checked::<Limit>)]
    limits: Vec<String>,
    /// What one payment may come to, its fee ceiling included
    #[arg(long, value_name = "btc:SAT", value_parser = checked_sum, requires = "limits")]
    limit_per_payment: Option<String>,
}

fn wallet_id(text: &str) -> Result<WalletId, String> {
    text.parse().map_err(|_| "a wallet id has 16 hexadecimal characters; see `sluice wallets list`".to_owned())
}

/// A text that is as it should be. The gateway reads it again.
fn checked<T: FromStr<Err: Display>>(text: &str) -> Result<String, String> {
    text.parse::<T>().map(|_| text.to_owned()).map_err(|why| why.to_string())
}

fn checked_sum(text: &str) -> Result<String, String> {
    read_sum(text).map(|_| text.to_owned()).map_err(|why| why.to_string())
}

impl Keys {
    pub(super) fn run(self, config: &Config) -> Result<ExitCode, Failure> {
        block_on(async {
            // Read before the database is opened: on SQLite, whoever writes to the pipe may still have it.
            let signed = match &self {
                Self::Grant { grant, .. } => read_grant(grant.as_deref())?,
                _ => String::new(),
            };
            let desk = Desk::open(config).await?;
            let done = self.act(&desk, signed).await;
            desk.close().await;
            done.map(|()| ExitCode::SUCCESS)
        })
    }

    async fn act(self, desk: &Desk, signed_psbt: String) -> Result<(), Failure> {
        match self {
            Self::Create { name, scopes, like, wallets, expires_in_days, spending } => {
                let Spending { limits, limit_per_payment } = spending;
                let scopes = scopes.iter().map(ToString::to_string).collect();
                let wallets = wallets.iter().map(ToString::to_string).collect();
                let wanted =
                    CreateKeyRequestModel { name, scopes, wallets, like, expires_in_days, limits, limit_per_payment };
                let made: KeyMadeResponse = desk.post("/admin/keys", &wanted).await?;
                tell_made(&made)
            }
            Self::GrantMessage { id } => {
                let grant: GrantToSignResponse = desk.get(&of_key(&id, "/grant")?).await?;
                tell_message(&grant.message);
                print(&grant.psbt)
            }
            Self::Grant { id, grant: _ } => {
                let asked = GiveGrantRequestModel { signed_psbt };
                let given: GrantToSignResponse = desk.post(&of_key(&id, "/grant")?, &asked).await?;
                print(&format!("The key {id} may spend for the wallet {} until {}.", given.wallet, given.expires_at))
            }
            Self::List => list(desk).await,
            Self::Bind { id, wallets } => {
                let asked = BindRequestModel { wallets: wallets.iter().map(ToString::to_string).collect() };
                let _first_page: KeyWalletsResponse = desk.post(&of_key(&id, "/wallets")?, &asked).await?;
                print(&format!("The key {id} may act for {}.", asked.wallets.join(" ")))
            }
            Self::Rotate { id, grace_hours } => {
                let grace_seconds = Some(grace_hours.saturating_mul(SECONDS_PER_HOUR));
                let made: KeyMadeResponse =
                    desk.post(&of_key(&id, "/rotate")?, &RotateRequestModel { grace_seconds }).await?;
                tell_made(&made)?;
                let ends = made.replaced.and_then(|old| old.expires_at).unwrap_or_default();
                eprintln!("The key {id} is in force until {ends}.");
                Ok(())
            }
            Self::Revoke { id } => {
                let _done: RevokedResponse = desk.post_empty(&of_key(&id, "/revoke")?).await?;
                print(&format!("Revoked {id}."))
            }
        }
    }
}

/// The path of a call about a key.
fn of_key(id: &str, rest: &str) -> Result<String, Failure> {
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Failure::new(format!("{id} is no id of a key; see `sluice keys list`")));
    }
    Ok(format!("/admin/keys/{id}{rest}"))
}

fn tell_made(made: &KeyMadeResponse) -> Result<(), Failure> {
    let id = &made.key.id;
    print(made.secret.as_deref().unwrap_or_default())?;
    eprintln!("This is the key {id}. It is not stored and can't be shown again.");
    let Some(message) = &made.grant_message else { return Ok(()) };
    let wallet = made.key.wallet.as_deref().unwrap_or_default();
    eprintln!("It is not in force yet: the owner of the wallet {wallet} has to sign this message first.");
    tell_message(message);
    eprintln!(
        "Have it signed: sluice keys grant-message {id} | sluice-signer grant --file WALLET | sluice keys grant {id}"
    );
    Ok(())
}

fn tell_message(message: &str) {
    for line in message.lines() {
        eprintln!("  {line}");
    }
}

fn read_grant(file: Option<&Path>) -> Result<String, Failure> {
    let text = match file {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?
        }
        None => read_input()?,
    };
    Ok(text.trim().to_owned())
}

fn read_input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().lock().take(MAX_INPUT_BYTES).read_to_string(&mut text)?;
    if text.trim().is_empty() {
        return Err(Failure::new("standard input is empty; a signed PSBT was expected"));
    }
    Ok(text)
}

async fn list(desk: &Desk) -> Result<(), Failure> {
    let mut is_empty = true;
    let mut waiting = Vec::new();
    let mut path = "/admin/keys?limit=500".to_owned();
    loop {
        let page: KeysResponse = desk.get(&path).await?;
        waiting.extend(page.waiting);
        for key in &page.keys {
            is_empty = false;
            tell(key, &in_words(key), &wallets_of(desk, key).await?)?;
        }
        let Some(cursor) = page.next_cursor else { break };
        path = format!("/admin/keys?limit=500&cursor={cursor}");
    }
    for key in &waiting {
        is_empty = false;
        let state = if key.state == KeyState::Waiting { "waits for its grant" } else { "never granted, expired" };
        tell(key, state, key.wallet.as_deref().unwrap_or_default())?;
    }
    if is_empty { print("There is no key yet; see `sluice keys create --help`.") } else { Ok(()) }
}

/// Some of them: a back office has thousands.
async fn wallets_of(desk: &Desk, key: &KeyView) -> Result<String, Failure> {
    const SHOWN: usize = 20;
    if key.wallet_count == 0 {
        return Ok("none".to_owned());
    }
    let page: KeyWalletsResponse = desk.get(&of_key(&key.id, &format!("/wallets?limit={SHOWN}"))?).await?;
    let shown = page.wallets.join(" ");
    Ok(if page.next_cursor.is_some() { format!("{shown} and more, {} in all", key.wallet_count) } else { shown })
}

fn in_words(key: &KeyView) -> String {
    let at = |time: &Option<String>| time.clone().unwrap_or_default();
    match key.state {
        KeyState::Revoked => format!("revoked {}", at(&key.revoked_at)),
        KeyState::Expired => format!("expired {}", at(&key.expires_at)),
        KeyState::Waiting => "waits for its grant".to_owned(),
        KeyState::InForce => key.expires_at.as_ref().map_or("in force".to_owned(), |at| format!("until {at}")),
    }
}

fn tell(key: &KeyView, state: &str, wallets: &str) -> Result<(), Failure> {
    let scopes = key.scopes.join(",");
    print(&format!(
        "{}  {}  {state}\n    scopes {scopes}, wallets {wallets}, made {}",
        key.id, key.name, key.created_at
    ))?;
    for limit in &key.limits {
        print(&format!(
            "    may spend {} sat per {}: {} used, {} left, renews {}",
            limit.amount_sats, limit.period, limit.used_sats, limit.left_sats, limit.renews_at
        ))?;
    }
    match key.limit_per_payment_sats {
        Some(most) => print(&format!("    at most {most} sat in one payment")),
        None => Ok(()),
    }
}
