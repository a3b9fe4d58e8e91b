//! What the operator decides about the listener.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::HeaderValue;
use serde::{Deserialize, Serialize};

/// The largest body of an ordinary call.
pub const BODY_MAX: usize = 64 * 1024;
/// The largest body of a call that carries a signed PSBT.
pub const SIGNED_BODY_MAX: usize = 1024 * 1024;
/// How long a client may take for the head of a request: since its first byte, or where it has never asked for anything, since it connected.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is kept on which nothing is asked any more: longer than proxies keep theirs, or they would send calls into
/// connections that are being closed. Whoever needs its place gets it earlier.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a client may take for a body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a client may refuse to read an answer.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a call may take. Refresh and sync wait up to 30 s for the chain.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long calls in flight may go on after a stop was asked for.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Web pages from these origins may call the API; `*` is any. Empty: none.
    pub cors_origins: Vec<String>,
    /// Connections at the same time. Further ones are answered 503 at once.
    pub max_connections: u32,
    /// Connections of one address (of IPv6, of one /64) at the same time. Loopback, where a proxy may be, has no such limit.
    pub max_connections_per_address: u32,
    /// Whether a proxy in front of the gateway says in X-Forwarded-For who calls.
    pub forwarded_for: bool,
    pub limits: RateLimits,
    /// A section of its own in the file, `[auth]`: whoever composes the configuration puts it here.
    #[serde(skip)]
    pub auth: AuthConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            cors_origins: Vec::new(),
            max_connections: 1_024,
            max_connections_per_address: 256,
            forwarded_for: false,
            limits: RateLimits::default(),
            auth: AuthConfig::default(),
        }
    }
}

/// How often one caller may call. Limits are never shared between wallets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimits {
    /// Off for load tests only.
    pub enabled: bool,
    pub per_key_per_second: NonZeroU32,
    pub per_wallet_per_second: NonZeroU32,
    /// Calls that set coins aside.
    pub begins_per_wallet_per_minute: NonZeroU32,
    /// Wallets that one key makes known; without keys, one client.
    pub registrations_per_key_per_minute: NonZeroU32,
    /// The same over all of them: each costs thousands of rows and a share of a search of the whole chain.
    pub registrations_per_minute: NonZeroU32,
    /// Keys that are not in force which one client shows. Whoever has shown one that is goes on.
    pub failed_keys_per_client_per_minute: NonZeroU32,
}

impl Default for RateLimits {
    fn default() -> Self {
        let literal = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            enabled: true,
            per_key_per_second: literal(200),
            per_wallet_per_second: literal(50),
            begins_per_wallet_per_minute: literal(60),
            registrations_per_key_per_minute: literal(60),
            registrations_per_minute: literal(300),
            failed_keys_per_client_per_minute: literal(30),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// Has to be said everywhere but on regtest. Empty there: `wallet` on a loopback listener, `key` on any other.
    pub mode: Option<Mode>,
}

/// Who is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Whoever has an API key that is bound to the wallet.
    Key,
    /// Whoever knows the wallet's public keys. For one's own machine only.
    Wallet,
}

impl Config {
    /// The mode in force.
    #[must_use]
    pub fn mode(&self) -> Mode {
        let usual = if self.listen.ip().is_loopback() { Mode::Wallet } else { Mode::Key };
        self.auth.mode.unwrap_or(usual)
    }

    /// # Errors
    /// In words for the operator, when a value can't be used.
    pub fn check(&self) -> Result<(), String> {
        if self.max_connections == 0 {
            return Err("http.max_connections is 0: nobody could connect".to_owned());
        }
        if self.max_connections_per_address == 0 {
            return Err("http.max_connections_per_address is 0: nobody but this machine could connect".to_owned());
        }
        if self.mode() == Mode::Wallet {
            if !self.listen.ip().is_loopback() {
                return Err(format!(
                    "auth.mode is \"wallet\" and http.listen is {}, which other machines reach: wallet headers are no secret. \
                     Write auth.mode = \"key\", or listen on 127.0.0.1",
                    self.listen
                ));
            }
            if self.cors_origins.iter().any(|origin| origin == "*") {
                return Err(
                    "http.cors_origins is \"*\" and auth.mode is \"wallet\": any web page could act for any wallet. \
                            Name the origins, or write auth.mode = \"key\""
                        .to_owned(),
                );
            }
        }
        for origin in &self.cors_origins {
            let looks_right = origin == "*"
                || ((origin.starts_with("https://") || origin.starts_with("http://")) && !origin.ends_with('/'));
            if !looks_right || HeaderValue::from_str(origin).is_err() {
                return Err(format!(
                    "http.cors_origins: {origin} is no origin; write https://shop.example without a path"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_listener_wants_keys_unless_told_otherwise() {
        let mut config = Config::default();
        assert_eq!(config.mode(), Mode::Wallet);
        config.listen = SocketAddr::from(([0, 0, 0, 0], 8080));
        assert_eq!(config.mode(), Mode::Key);
        config.auth.mode = Some(Mode::Wallet);
        assert_eq!(config.mode(), Mode::Wallet);
    }

    #[test]
    fn an_origin_has_a_scheme_and_no_path() {
        let with = |origin: &str| Config { cors_origins: vec![origin.to_owned()], ..Config::default() };
        assert!(with("https://shop.example").check().is_ok());
        let auth = AuthConfig { mode: Some(Mode::Key) };
        assert!(Config { auth, ..with("*") }.check().is_ok());
        assert!(with("shop.example").check().is_err());
        assert!(with("https://shop.example/").check().is_err());
    }

    #[test]
    fn wallet_headers_alone_are_not_believed_from_everywhere() {
        let auth = AuthConfig { mode: Some(Mode::Wallet) };
        let open = |listen, origin: &str| Config {
            listen: SocketAddr::from((listen, 8080)),
            cors_origins: vec![origin.to_owned()],
            auth: auth.clone(),
            ..Config::default()
        };
        assert!(open([127, 0, 0, 1], "https://shop.example").check().is_ok());
        assert!(open([127, 0, 0, 1], "*").check().unwrap_err().contains("any web page"));
        for public in [[0, 0, 0, 0], [192, 168, 1, 1], [203, 0, 113, 9]] {
            assert!(open(public, "https://shop.example").check().unwrap_err().contains("auth.mode = \"key\""));
        }
    }

    #[test]
    fn unknown_settings_are_refused() {
        assert!(toml::from_str::<Config>("lissten = \"127.0.0.1:1\"").is_err());
        assert!(toml::from_str::<Config>("[limits]\nper_key_per_second = 0").is_err());
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    }
}
