//! Putting the layers together: whose word counts, and where a word came from when it can't be right.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use toml::{Table, Value};

use super::{Config, default_bitcoind_url};

/// `SLUICE__SECTION__KEY`. One underscore is for what is no configuration, such as `SLUICE_CONFIG`.
const PREFIX: &str = "SLUICE__";
/// How unlike a known name may be that is still offered.
const FARTHEST_NAME: usize = 3;
/// What was written for these is not repeated in an error.
const SECRET_KEYS: [&str; 4] = ["store.url", "chain.bitcoind.password", "ldk.seed", "assets.indexer"];

/// Everything that a configuration is made of, weakest first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// What a command presets; everything else outweighs it.
    pub presets: Vec<Override>,
    pub file: Option<PathBuf>,
    /// Names and values as the process found them; only those with the prefix count.
    pub environment: Vec<(String, String)>,
    pub flags: Vec<Override>,
}

/// One key, set to a value by somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    pub key: String,
    pub value: String,
    /// Who said so, for errors: `--listen`, `SLUICE__STORE__URL`.
    pub origin: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("can't read the configuration file {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{origin} is not TOML: {reason}")]
    Syntax { origin: String, reason: String },
    #[error("{origin}: there is no key {key}{}", suggestion(nearest))]
    UnknownKey { key: String, origin: String, nearest: Option<String> },
    #[error("{origin}: {key}: {reason}")]
    BadValue { key: String, origin: String, reason: String },
    #[error("{origin}: {key} is a section; set one of its keys, such as {key}.{example}")]
    Section { key: String, origin: String, example: String },
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map_or_else(|| "; `sluice config` shows them all".to_owned(), |name| format!("; do you mean {name}?"))
}

impl Override {
    /// What `--set section.key=value` says.
    ///
    /// # Errors
    /// When there is no `=`.
    pub fn parse_flag(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("write it as section.key=value")?;
        Ok(Self { key: key.trim().to_owned(), value: value.trim().to_owned(), origin: "--set".to_owned() })
    }

    #[must_use]
    pub fn new(key: &str, value: impl Into<String>, origin: &str) -> Self {
        Self { key: key.to_owned(), value: value.into(), origin: origin.to_owned() }
    }
}

pub(super) fn load(sources: &Sources) -> Result<Config, ConfigError> {
    let mut layers = Layers::new();
    for preset in &sources.presets {
        layers.set(preset)?;
    }
    if let Some(path) = &sources.file {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        layers.add_file(&text, &shown(path))?;
    }
    for (name, value) in &sources.environment {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let key = rest.to_ascii_lowercase().replace("__", ".");
        layers.set(&Override { key, value: value.clone(), origin: name.clone() })?;
    }
    for flag in &sources.flags {
        layers.set(flag)?;
    }
    layers.build()
}

#[cfg(test)]
pub(super) fn from_text(text: &str) -> Result<Config, ConfigError> {
    let mut layers = Layers::new();
    layers.add_file(text, "the test")?;
    layers.build()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

struct Layers {
    /// Every key there is, with its default; a missing default is null.
    known: Json,
    merged: Table,
    /// Who set a key last.
    origins: BTreeMap<String, String>,
    /// The words of the environment and of flags, for keys whose value turns out to be meant as text.
    words: BTreeMap<String, String>,
}

impl Layers {
    fn new() -> Self {
        // A default that can't be shown would fail the tests; here it only means that no key is known.
        let known = serde_json::to_value(Config::default()).unwrap_or(Json::Null);
        Self { known, merged: Table::new(), origins: BTreeMap::new(), words: BTreeMap::new() }
    }

    fn add_file(&mut self, text: &str, origin: &str) -> Result<(), ConfigError> {
        let table = text.parse::<Table>().map_err(|error| ConfigError::Syntax {
            origin: origin.to_owned(),
            reason: without_secrets(&error.to_string()),
        })?;
        self.add_table(&table, "", origin)
    }

    fn add_table(&mut self, table: &Table, above: &str, origin: &str) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
            match (self.known_at(&key), value) {
                (None, _) => return Err(self.unknown(&key, origin)),
                (Some(Json::Object(_)), Value::Table(inner)) => self.add_table(inner, &key, origin)?,
                (Some(_), _) => self.put(&key, value.clone(), origin)?,
            }
        }
        Ok(())
    }

    fn set(&mut self, one: &Override) -> Result<(), ConfigError> {
        if self.known_at(&one.key).is_none() {
            return Err(self.unknown(&one.key, &one.origin));
        }
        self.put(&one.key, scalar(&one.value), &one.origin)?;
        self.words.insert(one.key.clone(), one.value.clone());
        Ok(())
    }

    fn put(&mut self, key: &str, value: Value, origin: &str) -> Result<(), ConfigError> {
        if let Some(Json::Object(keys)) = self.known_at(key) {
            let example = keys.keys().next().cloned().unwrap_or_default();
            return Err(ConfigError::Section { key: key.to_owned(), origin: origin.to_owned(), example });
        }
        insert(&mut self.merged, key, value);
        self.words.remove(key);
        self.origins.insert(key.to_owned(), origin.to_owned());
        Ok(())
    }

    fn build(mut self) -> Result<Config, ConfigError> {
        loop {
            let mut table = self.merged.clone();
            add_default_url(&mut table);
            let error = match serde_path_to_error::deserialize::<_, Config>(Value::Table(table)) {
                Ok(config) => return self.checked(config),
                Err(error) => error,
            };
            let key = error.path().to_string();
            // `SLUICE__CHAIN__BITCOIND__PASSWORD=1234` looks like a number and is a password.
            match self.words.remove(&key) {
                Some(word) => insert(&mut self.merged, &key, Value::String(word)),
                None => return Err(self.bad_value(&key, error.inner())),
            }
        }
    }

    /// What a value means beside others is known once all are there.
    fn checked(&self, config: Config) -> Result<Config, ConfigError> {
        if let Err(bad) = config.liquidity.check() {
            return Err(self.bad(&format!("liquidity.{}", bad.key), bad.reason));
        }
        if let Err((key, reason)) = config.proxy.check() {
            return Err(self.bad(&format!("proxy.{key}"), reason));
        }
        if let Err((key, reason)) = config.assets.courier.check() {
            return Err(self.bad(&format!("assets.courier.{key}"), reason));
        }
        Ok(config)
    }

    fn bad_value(&self, key: &str, error: &toml::de::Error) -> ConfigError {
        let reason = if SECRET_KEYS.contains(&key) { "it has to be text" } else { error.message() };
        self.bad(key, reason.to_owned())
    }

    fn bad(&self, key: &str, reason: String) -> ConfigError {
        let origin = self.origins.iter().find(|(known, _)| key.starts_with(known.as_str()));
        let origin = origin.map_or_else(|| "the configuration".to_owned(), |(_, origin)| origin.clone());
        ConfigError::BadValue { key: key.to_owned(), origin, reason }
    }

    fn known_at(&self, key: &str) -> Option<&Json> {
        key.split('.').try_fold(&self.known, |at, name| at.as_object()?.get(name))
    }

    fn unknown(&self, key: &str, origin: &str) -> ConfigError {
        let nearest = nearest(key, &self.known);
        ConfigError::UnknownKey { key: key.to_owned(), origin: origin.to_owned(), nearest }
    }
}

/// The first line of TOML's own error says where; the lines below quote the file, which may hold a password.
fn without_secrets(error: &str) -> String {
    error.lines().filter(|line| !line.contains('|')).collect::<Vec<_>>().join(": ")
}

/// A word of a flag or the environment: a TOML value where it is one, else text.
fn scalar(word: &str) -> Value {
    let parsed = if word.contains('\n') { None } else { format!("value = {word}").parse::<Table>().ok() };
    match parsed.and_then(|mut table| table.remove("value")) {
        Some(
            value @ (Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Array(_)),
        ) => value,
        Some(Value::Datetime(_) | Value::Table(_)) | None => Value::String(word.to_owned()),
    }
}

fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// The node's port depends on the network, which no default of a room can know.
fn add_default_url(table: &mut Table) {
    let chain = table.get("chain").and_then(Value::as_table);
    let network = chain.and_then(|chain| chain.get("network")).and_then(Value::as_str).unwrap_or("regtest");
    let is_set = chain.and_then(|chain| chain.get("bitcoind")).is_some_and(|node| node.get("url").is_some());
    if let (false, Ok(network)) = (is_set, network.parse()) {
        insert(table, "chain.bitcoind.url", Value::String(default_bitcoind_url(network)));
    }
}

/// The dotted names of all keys that hold a value.
#[cfg(test)]
pub(super) fn leaves(known: &Json) -> Vec<String> {
    names(known).into_iter().filter(|(_, is_section)| !is_section).map(|(name, _)| name).collect()
}

fn names(known: &Json) -> Vec<(String, bool)> {
    let Json::Object(keys) = known else { return Vec::new() };
    let mut all = Vec::new();
    for (name, value) in keys {
        all.push((name.clone(), value.is_object()));
        all.extend(names(value).into_iter().map(|(inner, is_section)| (format!("{name}.{inner}"), is_section)));
    }
    all
}

fn nearest(key: &str, known: &Json) -> Option<String> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |name: &str| {
        let whole = strsim::damerau_levenshtein(key, name);
        // The right key in the wrong section is as near as one wrong letter, unless another section is nearer.
        (if last(name) == last(key) { whole.min(1) } else { whole }, whole)
    };
    let candidates = names(known).into_iter().map(|(name, _)| (distance(&name), name));
    let ((distance, _), name) = candidates.min()?;
    (distance <= FARTHEST_NAME).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(environment: &[(&str, &str)], flags: &[&str]) -> Sources {
        Sources {
            environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            flags: flags.iter().map(|flag| Override::parse_flag(flag).unwrap()).collect(),
            ..Sources::default()
        }
    }

    fn error(environment: &[(&str, &str)], flags: &[&str]) -> String {
        load(&sources(environment, flags)).unwrap_err().to_string()
    }

    #[test]
    fn flags_outweigh_the_environment_which_outweighs_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sluice.toml");
        std::fs::write(&file, "[store]\nconnections = 3\nwait_ms = 3\n[policy]\nlookahead = 3\nreorg_max = 3").unwrap();
        let mut all = sources(
            &[("SLUICE__STORE__CONNECTIONS", "4"), ("SLUICE__STORE__WAIT_MS", "4"), ("SLUICE_CRASH_AT", "x")],
            &["store.connections=5"],
        );
        all.file = Some(file);
        all.presets =
            vec![Override::new("policy.reorg_max", "2", "regtest"), Override::new("log.level", "warn", "regtest")];
        let config = load(&all).unwrap();
        assert_eq!((config.store.connections, config.store.wait_ms, config.policy.lookahead), (5, 4, 3));
        assert_eq!((config.policy.reorg_max, config.log.level.as_str()), (3, "warn"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_name_and_its_source() {
        let file = from_text("[stor]\nurl = \"x\"").unwrap_err().to_string();
        assert_eq!(file, "the test: there is no key stor; do you mean store?");
        let environment = error(&[("SLUICE__STORE__CONECTIONS", "4")], &[]);
        assert_eq!(
            environment,
            "SLUICE__STORE__CONECTIONS: there is no key store.conections; do you mean store.connections?"
        );
        assert_eq!(error(&[], &["htp.listen=1"]), "--set: there is no key htp.listen; do you mean http.listen?");
        assert_eq!(
            error(&[], &["bitcoind.cookie_file=x"]),
            "--set: there is no key bitcoind.cookie_file; do you mean chain.bitcoind.cookie_file?"
        );
        assert!(error(&[], &["nothing_like_it.at_all=1"]).ends_with("`sluice config` shows them all"));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_source() {
        let file = from_text("[store]\nconnections = \"many\"").unwrap_err().to_string();
        assert!(file.starts_with("the test: store.connections: invalid type"), "{file}");
        let flag = error(&[], &["policy.lookahead=-1"]);
        assert!(flag.starts_with("--set: policy.lookahead: "), "{flag}");
        let enumeration = error(&[], &["auth.mode=open"]);
        assert!(enumeration.contains("auth.mode") && enumeration.contains("`key`"), "{enumeration}");
        assert!(error(&[("SLUICE__STORE", "1")], &[]).contains("store is a section"));
        assert!(from_text("store = 1").unwrap_err().to_string().contains("store is a section"));
    }

    #[test]
    fn a_value_that_makes_no_sense_beside_another_is_named_with_its_source() {
        let peer = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798@peer.example:9735";
        let named = format!("liquidity.peers=[\"{peer}\"]");
        let wanted = "liquidity.want_outbound_sats=2000000";
        let config = load(&sources(&[], &[&named, wanted])).unwrap();
        assert_eq!(config.liquidity.peers[0].to_string(), peer);
        let small = error(&[("SLUICE__LIQUIDITY__CHANNEL_SATS", "100000")], &[&named, wanted]);
        assert_eq!(
            small,
            "SLUICE__LIQUIDITY__CHANNEL_SATS: liquidity.channel_sats: must be at least min_channel_sats, 200000"
        );
        let nothing = error(&[], &["proxy.max_media_bytes=0"]);
        assert_eq!(nothing, "--set: proxy.max_media_bytes: must be from 1 to 134217728");
        assert!(error(&[], &[&named]).contains("liquidity.want_outbound_sats: peers are named"));
        assert!(error(&[], &[wanted]).contains("liquidity.peers: is empty"));
        let unreadable = error(&[], &["liquidity.peers=[\"peer.example:9735\"]", wanted]);
        assert!(
            unreadable.starts_with("--set: liquidity.peers[0]: `peer.example:9735` is not <node id>"),
            "{unreadable}"
        );
    }

    #[test]
    fn words_that_look_like_numbers_may_be_text() {
        let config = load(&sources(&[("SLUICE__CHAIN__BITCOIND__PASSWORD", "123456")], &[])).unwrap();
        assert_eq!(config.chain.bitcoind.password.unwrap().expose(), "123456");
        let config = load(&sources(&[], &["http.listen=127.0.0.1:0", "policy.confirmations=6"])).unwrap();
        assert_eq!(config.policy.confirmations, Some(6));
        assert_eq!(config.http.listen.port(), 0);
    }

    #[test]
    fn errors_repeat_no_secret() {
        let typed = from_text("[chain.bitcoind]\npassword = 31337").unwrap_err().to_string();
        assert!(typed.contains("chain.bitcoind.password") && !typed.contains("31337"), "{typed}");
        for key in SECRET_KEYS {
            let (section, name) = key.rsplit_once('.').unwrap();
            let typed = from_text(&format!("[{section}]\n{name} = 31337")).unwrap_err().to_string();
            assert!(typed.contains(key) && !typed.contains("31337"), "{typed}");
        }
        let syntax = from_text("[store]\nurl = \"postgres://u:hunter2@h/d\" oops").unwrap_err().to_string();
        assert!(syntax.contains("line 2") && !syntax.contains("hunter2"), "{syntax}");
    }
}
