//! The command line of the signer: reads standard input, explains on standard error, answers on standard output.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;

use bitcoin::{Amount, Network, Psbt};
use clap::{Args, Parser, Subcommand};
use sluice_signer::grant::parse_at_most;
use sluice_signer::keys::{network_from_name, network_name};
use sluice_signer::{
    Error, Expected, Kind, Limits, MaxAmount, Signed, Signer, Summary, WalletFile, describe, parse_psbt,
};

const PASSPHRASE_VARIABLE: &str = "SLUICE_SIGNER_PASSPHRASE";
/// Far more than the largest PSBT a gateway makes; a pipe from the wrong place ends here.
const MAX_INPUT_BYTES: u64 = 16 * 1024 * 1024;

type Failure = Box<dyn std::error::Error>;

/// Signs the PSBTs of a Sluice gateway, offline. A BIP39 passphrase is read from SLUICE_SIGNER_PASSPHRASE.
#[derive(Parser)]
#[command(name = "sluice-signer", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a wallet file that only you can read; an existing file is never overwritten
    Init {
        #[arg(long)]
        file: PathBuf,
        /// mainnet, testnet, signet or regtest
        #[arg(long, default_value = "regtest", value_parser = parse_network)]
        network: Network,
        /// Read the words from standard input instead of making new ones
        #[arg(long)]
        mnemonic_stdin: bool,
    },
    /// Print what names the wallet to a gateway: the three wallet headers
    Xpubs {
        #[arg(long)]
        file: PathBuf,
        /// As a JSON object
        #[arg(long, conflicts_with = "headers")]
        json: bool,
        /// As a curl configuration, for `curl -K`
        #[arg(long)]
        headers: bool,
    },
    /// Say what the PSBT on standard input does, and whether it would be signed
    Show {
        /// The wallet; without it nothing is known to be yours
        #[arg(long, conflicts_with = "network")]
        file: Option<PathBuf>,
        /// Without a wallet: mainnet, testnet, signet or regtest
        #[arg(long, default_value = "regtest", value_parser = parse_network)]
        network: Network,
    },
    /// Sign the PSBT on standard input
    Sign {
        #[arg(long)]
        file: PathBuf,
        /// Answer {"signed_psbt":"..."}, the body of the gateway's end calls
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Sign the spending grant on standard input: a key of a gateway may then spend without asking again
    Grant {
        #[arg(long)]
        file: PathBuf,
        /// Answer {"signed_psbt":"..."}
        #[arg(long)]
        json: bool,
        /// Sign only if it is for the gateway with this id
        #[arg(long, value_name = "ID")]
        expect_gateway: Option<String>,
        /// Sign only if it is for the key with this id
        #[arg(long, value_name = "ID")]
        expect_key: Option<String>,
        /// Sign only if it has a limit of at most so many satoshis in this period, for instance 1000000/day
        #[arg(long, value_name = "SAT/PERIOD", value_parser = parse_at_most)]
        max_limit: Option<(u64, &'static str)>,
    },
    /// Sign the export on standard input: a gateway may then hand out all that it knows of the wallet's assets, sealed with a password
    Export {
        #[arg(long)]
        file: PathBuf,
        /// Answer {"signed_psbt":"..."}
        #[arg(long)]
        json: bool,
        /// Sign only if it is for the gateway with this id
        #[arg(long, value_name = "ID")]
        expect_gateway: Option<String>,
    },
}

#[derive(Args)]
struct LimitArgs {
    /// Sign an authorisation only if it is for the gateway with this id
    #[arg(long, value_name = "ID")]
    expect_gateway: Option<String>,
    /// Sign only if it pays this address or payment hash, and nobody else
    #[arg(long, value_name = "ADDRESS|HASH")]
    expect_to: Option<String>,
    /// Sign only up to this amount without fees: `5000` (satoshis), `5000 msat` or `5000 rgb:...`
    #[arg(long, value_name = "AMOUNT")]
    max_amount: Option<MaxAmount>,
    /// The highest fee [default: 100000, and 25 % of the coins spent]
    #[arg(long, value_name = "SAT")]
    max_fee_sat: Option<u64>,
}

impl From<LimitArgs> for Limits {
    fn from(args: LimitArgs) -> Self {
        Limits {
            expect_gateway: args.expect_gateway,
            expect_to: args.expect_to,
            max_amount: args.max_amount,
            max_fee: args.max_fee_sat.map(Amount::from_sat),
        }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Init { file, network, mnemonic_stdin } => init(file, network, mnemonic_stdin)?,
        Command::Xpubs { file, json, headers } => print_xpubs(&open(file)?, json, headers),
        Command::Show { file, network } => return show(file, network),
        Command::Sign { file, json, limits } => {
            sign(file, json, |signer, psbt| signer.sign_within(psbt, &limits.into()))?
        }
        Command::Grant { file, json, expect_gateway, expect_key, max_limit } => {
            let expected = Expected { gateway: expect_gateway, key: expect_key, at_most: max_limit };
            sign(file, json, |signer, psbt| signer.grant(psbt, &expected))?;
        }
        Command::Export { file, json, expect_gateway } => {
            sign(file, json, |signer, psbt| signer.export(psbt, expect_gateway.as_deref()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn init(path: PathBuf, network: Network, mnemonic_stdin: bool) -> Result<(), Failure> {
    let mnemonic = mnemonic_stdin.then(read_input).transpose()?;
    let file = WalletFile::at(&path);
    let signer = file.create(network, mnemonic.as_deref(), &passphrase()?)?;
    let (network, path) = (network_name(network), path.display());
    eprintln!("A {network} wallet is in {path}. Its words are the only copy of its keys: keep one elsewhere.");
    print_xpubs(&signer, false, false);
    Ok(())
}

fn print_xpubs(signer: &Signer, json: bool, curl_config: bool) {
    let headers = signer.wallet_xpubs().headers();
    let line = |(name, value): &(&str, String)| match (json, curl_config) {
        (true, _) => format!("\"{}\":\"{value}\"", name.replace('-', "_")),
        (_, true) => format!("header = \"{name}: {value}\""),
        _ => format!("{name}: {value}"),
    };
    let lines: Vec<String> = headers.iter().map(line).collect();
    if json {
        println!("{{{}}}", lines.join(","));
    } else {
        println!("{}", lines.join("\n"));
    }
}

/// Fails when it would not be signed, so that a script can ask before it signs.
fn show(file: Option<PathBuf>, network: Network) -> Result<ExitCode, Failure> {
    let signer = file.map(open).transpose()?;
    let psbt = parse_psbt(&read_input()?)?;
    let summary = match &signer {
        Some(signer) => signer.describe(&psbt),
        None => describe(&psbt, network),
    };
    print!("{summary}");
    warn_if_expired(&summary);
    Ok(if summary.refusals.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn sign(
    file: PathBuf,
    json: bool,
    sign_it: impl FnOnce(&Signer, &mut Psbt) -> Result<Signed, Error>,
) -> Result<(), Failure> {
    let signer = open(file)?;
    let mut psbt = parse_psbt(&read_input()?)?;
    let summary = signer.describe(&psbt);
    eprint!("{summary}");
    warn_if_expired(&summary);
    let signed = sign_it(&signer, &mut psbt).map_err(|error| format!("not signed: {error}"))?;
    eprintln!("signed inputs: {}", signed.inputs_signed);
    if json {
        println!("{{\"signed_psbt\":\"{psbt}\"}}");
    } else {
        println!("{psbt}");
    }
    Ok(())
}

/// Only a warning: this machine's clock may be wrong, and the gateway refuses what has expired.
#[expect(clippy::disallowed_types, reason = "a program that ends at once has no Clock to be handed")]
fn warn_if_expired(summary: &Summary) {
    let expires = match &summary.kind {
        Kind::Authorization(authorization) => authorization.expires_unix,
        Kind::Grant(grant) => grant.expires_unix,
        Kind::Export(export) => export.expires_unix,
        Kind::Transaction | Kind::UnreadableAuthorization => return,
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    if expires <= now {
        eprintln!("warning: it has expired; the gateway will refuse it");
    }
}

fn open(path: PathBuf) -> Result<Signer, Failure> {
    let file = WalletFile::at(&path);
    if file.is_exposed() {
        eprintln!("warning: others on this machine can read {}; `chmod 600` it", path.display());
    }
    Ok(file.open(&passphrase()?)?)
}

/// From the environment, because other users of a machine can read command lines.
fn passphrase() -> Result<String, Failure> {
    match std::env::var(PASSPHRASE_VARIABLE) {
        Ok(passphrase) => Ok(passphrase),
        Err(std::env::VarError::NotPresent) => Ok(String::new()),
        // Its own error would print the passphrase.
        Err(std::env::VarError::NotUnicode(_)) => Err(format!("{PASSPHRASE_VARIABLE} is not UTF-8").into()),
    }
}

fn parse_network(name: &str) -> Result<Network, String> {
    network_from_name(name).ok_or_else(|| "expected mainnet, testnet, signet or regtest".to_owned())
}

fn read_input() -> Result<String, Failure> {
    let mut text = String::new();
    let read = io::stdin().lock().take(MAX_INPUT_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_INPUT_BYTES {
        return Err("the input is larger than any PSBT".into());
    }
    Ok(text)
}
