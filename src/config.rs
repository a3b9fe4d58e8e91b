//! The configuration of the whole gateway, composed of each room's own.
//!
//! Layers, weakest first: defaults, the file, the environment, flags. `sluice.example.toml` names every key with its default.

mod layers;

use std::net::SocketAddr;
use std::path::PathBuf;

use bitcoin::Network;
use serde::{Deserialize, Serialize};

pub use layers::{ConfigError, Override, Sources};

use crate::assets::rgb;
use crate::chain::bitcoind;
use crate::connectors::ldk;
use crate::{flows, http, store};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub http: http::Config,
    pub operator: Operator,
    pub admin: Admin,
    pub auth: http::config::AuthConfig,
    pub store: store::Config,
    pub chain: Chain,
    pub ldk: ldk::Config,
    pub policy: flows::Policy,
    pub settle: flows::SettlePolicy,
    pub withdraw: flows::WithdrawPolicy,
    pub liquidity: flows::LiquidityPolicy,
    pub proxy: flows::ProxyPolicy,
    pub assets: rgb::Config,
    pub audit: Audit,
    pub log: Log,
}

/// The listener for metrics and health. It asks nobody for a key: keep it where only operators reach it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Operator {
    pub listen: SocketAddr,
}

impl Default for Operator {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9464)) }
    }
}

/// How the operator reaches the gateway without a key, and gets the first one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// The socket over which `sluice` on this machine reaches the gateway. Unset: beside the database. Empty text: there is none.
    pub socket: Option<PathBuf>,
    /// Where `serve` writes a first key for the operator, once, if none was ever made. Unset: nowhere.
    pub first_key_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Chain {
    pub network: Network,
    /// How often the node is asked for what is new.
    pub poll_ms: u64,
    pub bitcoind: bitcoind::Config,
}

impl Default for Chain {
    fn default() -> Self {
        let network = Network::Regtest;
        let bitcoind = bitcoind::Config { url: default_bitcoind_url(network), ..bitcoind::Config::default() };
        Self { network, poll_ms: 500, bitcoind }
    }
}

/// The audit that runs beside the gateway's work.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// 0 turns it off; `sluice audit` is there all the same.
    pub every_minutes: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self { every_minutes: 60 }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub format: LogFormat,
    /// error, warn, info, debug or trace; or directives such as `info,sqlx=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

impl Config {
    /// Reads every layer and puts them together.
    ///
    /// # Errors
    /// When a layer can't be read, names a key that does not exist, or gives one a value it can't have.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut config = layers::load(sources)?;
        // Sections of their own in the file, because operators look for them there; others are who obeys them.
        config.http.auth = config.auth.clone();
        config.policy.settle = config.settle.clone();
        config.policy.withdraw = config.withdraw.clone();
        config.policy.liquidity = config.liquidity.clone();
        config.policy.proxy = config.proxy.clone();
        Ok(config)
    }

    /// Where the operator's socket is; `None` where there is to be none.
    #[must_use]
    pub fn admin_socket(&self) -> Option<PathBuf> {
        match &self.admin.socket {
            Some(path) if path.as_os_str().is_empty() => None,
            Some(path) => Some(path.clone()),
            None => {
                // A database that can't be named is refused when it is opened.
                let mut name = self.store.local_name().ok()?.into_os_string();
                name.push(".sock");
                Some(name.into())
            }
        }
    }

    /// Points the gateway at a regtest node of this machine, whatever was configured: for `sluice regtest`.
    pub fn use_private_node(&mut self, url: String, cookie_file: PathBuf) {
        self.chain.network = Network::Regtest;
        self.chain.bitcoind.url = url;
        self.chain.bitcoind.cookie_file = Some(cookie_file);
        self.chain.bitcoind.user = None;
        self.chain.bitcoind.password = None;
    }

    /// The effective configuration as TOML, secrets masked.
    ///
    /// # Errors
    /// Never for a configuration that was loaded: it came from TOML.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

/// Where bitcoind listens when nobody told it otherwise.
fn default_bitcoind_url(network: Network) -> String {
    let port = match network {
        Network::Bitcoin => 8_332,
        Network::Testnet => 18_332,
        Network::Testnet4 => 48_332,
        Network::Signet => 38_332,
        Network::Regtest => 18_443,
    };
    format!("http://127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../sluice.example.toml");

    fn parsed(text: &str) -> Config {
        layers::from_text(text).unwrap()
    }

    fn from_flags(flags: &[&str]) -> Config {
        let flags = flags.iter().map(|flag| Override::parse_flag(flag).unwrap()).collect();
        Config::load(&Sources { flags, ..Sources::default() }).unwrap()
    }

    #[test]
    fn the_example_is_the_default() {
        let (example, default) = (parsed(EXAMPLE), parsed(""));
        assert_eq!(serde_json::to_value(&example).unwrap(), serde_json::to_value(&default).unwrap());
        assert_eq!(example.store.url, default.store.url);
        assert_eq!(serde_json::to_value(&default).unwrap(), serde_json::to_value(Config::default()).unwrap());
    }

    #[test]
    fn the_example_names_every_key() {
        let defaults = serde_json::to_value(Config::default()).unwrap();
        for key in layers::leaves(&defaults) {
            let (section, name) = key.rsplit_once('.').unwrap();
            let in_section = EXAMPLE
                .lines()
                .skip_while(|line| *line != format!("[{section}]"))
                .skip(1)
                .take_while(|line| !line.starts_with('['));
            let named = in_section
                .map(|line| line.trim_start_matches("# "))
                .any(|line| line.split_once('=').is_some_and(|(before, _)| before.trim() == name));
            assert!(named, "sluice.example.toml does not name {key}");
        }
    }

    #[test]
    fn beyond_loopback_a_key_is_asked_for_unless_the_operator_says_otherwise() {
        assert_eq!(from_flags(&[]).http.mode(), http::Mode::Wallet);
        assert_eq!(from_flags(&["http.listen=0.0.0.0:8080"]).http.mode(), http::Mode::Key);
        assert_eq!(from_flags(&["http.listen=0.0.0.0:8080", "auth.mode=wallet"]).http.mode(), http::Mode::Wallet);
        assert_eq!(from_flags(&["auth.mode=key"]).http.mode(), http::Mode::Key);
    }

    #[test]
    fn the_node_is_sought_at_the_port_of_the_network() {
        let url = |text| parsed(text).chain.bitcoind.url;
        assert_eq!(url("[chain]\nnetwork = \"bitcoin\""), "http://127.0.0.1:8332");
        assert_eq!(url("[chain]\nnetwork = \"signet\"\n[chain.bitcoind]\nuser = \"a\""), "http://127.0.0.1:38332");
        assert_eq!(url("[chain.bitcoind]\nurl = \"http://node:1\""), "http://node:1");
    }

    #[test]
    fn what_is_printed_holds_no_secret() {
        let text = "[store]\nurl = \"postgres://u:hunter2@h/d\"\n[chain.bitcoind]\nuser = \"u\"\npassword = \"hunter3\"\n\
             [ldk]\nseed = \"hunter4\"\n[assets]\nindexer = \"https://u:hunter5@h/api\"";
        let config = parsed(text);
        assert_eq!(config.store.url.expose(), "postgres://u:hunter2@h/d");
        let shown = format!("{}{config:?}", config.to_toml().unwrap());
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(shown.contains("password = \"***\"") && shown.contains("https://***@h/api"), "{shown}");
        assert_eq!(config.assets.indexer.as_deref(), Some("https://u:hunter5@h/api"));
    }
}
