//! The command line: one file per subcommand.

mod audit;
mod config;
mod desk;
mod failure;
mod halts;
mod health;
mod keys;
mod logging;
mod migrate;
mod node;
mod openapi;
mod regtest;
mod resume;
mod serve;
mod signals;
mod wallets;

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Override, Sources};
use crate::secret;
use failure::Failure;

/// Names the configuration file, as `--config` does.
const FILE_VARIABLE: &str = "SLUICE_CONFIG";
/// Read from the folder that `sluice` is started in, when nobody names another.
const USUAL_FILE: &str = "sluice.toml";

/// A self-hosted gateway for bitcoin payments: clients keep their keys, the gateway keeps the books.
///
/// Wallets are known by their public keys only. `sluice regtest` starts everything on a private chain, to try it;
/// `sluice serve` is the gateway itself.
#[derive(Parser)]
#[command(
    name = "sluice",
    version,
    after_help = "Try it: sluice regtest\nSettings: sluice.example.toml says what each one means."
)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
#[command(next_help_heading = "Settings")]
struct Settings {
    /// The configuration file [default: sluice.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE", env = FILE_VARIABLE, hide_env_values = true)]
    config: Option<PathBuf>,
    /// Where the API listens, for instance 127.0.0.1:8080
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The database: sqlite:path/to/file or postgres://user@host/database
    #[arg(long, global = true, value_name = "URL")]
    store: Option<String>,
    /// Any other setting, for instance --set policy.confirmations=6; may be repeated
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE", value_parser = Override::parse_flag)]
    set: Vec<Override>,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    Regtest(regtest::Regtest),
    Migrate(migrate::Migrate),
    Openapi(openapi::Openapi),
    #[command(subcommand)]
    Halts(halts::Halts),
    #[command(subcommand)]
    Keys(keys::Keys),
    #[command(subcommand)]
    Wallets(wallets::Wallets),
    #[command(subcommand)]
    Node(node::Node),
    Audit(audit::Audit),
    Resume(resume::Resume),
    Config(config::ShowConfig),
    Health(health::Health),
}

/// Parses the command line, loads the configuration and runs.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { settings, command } = Cli::parse();
    secret::keep_new_files_private();
    match run(&settings, command) {
        Ok(code) => code,
        Err(failure) => failure.tell(),
    }
}

fn run(settings: &Settings, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(serve) => serve.run(&settings.load()?),
        Command::Regtest(regtest) => regtest.run(settings),
        Command::Migrate(migrate) => migrate.run(&settings.load()?),
        Command::Openapi(openapi) => openapi.run(),
        Command::Halts(halts) => halts.run(&settings.load()?),
        Command::Keys(keys) => keys.run(&settings.load()?),
        Command::Wallets(wallets) => wallets.run(&settings.load()?),
        Command::Node(node) => node.run(&settings.load()?),
        Command::Audit(audit) => audit.run(&settings.load()?),
        Command::Resume(resume) => resume.run(&settings.load()?),
        Command::Config(config) => config.run(&settings.load()?),
        Command::Health(health) => health.run(settings),
    }
}

impl Settings {
    fn load(&self) -> Result<Config, Failure> {
        let usual = PathBuf::from(USUAL_FILE);
        let file = self.config.clone().or_else(|| usual.is_file().then_some(usual));
        self.load_over(Vec::new(), file)
    }

    fn load_over(&self, presets: Vec<Override>, file: Option<PathBuf>) -> Result<Config, Failure> {
        let sources = Sources { presets, file, environment: environment(std::env::vars_os()), flags: self.flags() };
        Ok(Config::load(&sources)?)
    }

    /// The short flags first: `--set` is the more precise word.
    fn flags(&self) -> Vec<Override> {
        let listen = self.listen.iter().map(|address| Override::new("http.listen", address, "--listen"));
        let store = self.store.iter().map(|url| Override::new("store.url", url, "--store"));
        listen.chain(store).chain(self.set.iter().cloned()).collect()
    }
}

/// A name that is not text is none of ours; a value that is not text is shown to the configuration as it reads.
fn environment(all: impl Iterator<Item = (OsString, OsString)>) -> Vec<(String, String)> {
    all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))).collect()
}

/// Runs a command that waits for things.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("no threads to run on: {error}")))?;
    runtime.block_on(work)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_is_explained() {
        let cli = Cli::command();
        cli.clone().debug_assert();
        for command in cli.get_subcommands() {
            assert!(command.get_about().is_some(), "{} says nothing about itself", command.get_name());
        }
    }

    #[test]
    fn flags_become_settings_and_set_has_the_last_word() {
        let line = [
            "sluice",
            "serve",
            "--listen",
            "127.0.0.1:1",
            "--store",
            "sqlite:a.db",
            "--set",
            "http.listen=127.0.0.1:2",
        ];
        let cli = Cli::try_parse_from(line).unwrap();
        let config = Config::load(&Sources { flags: cli.settings.flags(), ..Sources::default() }).unwrap();
        assert_eq!(config.http.listen.port(), 2);
        assert_eq!(config.store.url.expose(), "sqlite:a.db");
        assert!(Cli::try_parse_from(["sluice", "serve", "--set", "nonsense"]).is_err());
    }
}
