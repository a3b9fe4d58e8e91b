//! The demo wallet: made and kept by the signer, known to the gateway by its public keys, funded from the private chain.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::super::failure::Failure;
use super::node::Node;
use super::step;
use crate::ports::root_cause;

const SIGNER: &str = "sluice-signer";
/// Two deposits, in bitcoin, so that a send has coins to choose from.
const DEPOSITS: [&str; 2] = ["1.0", "0.5"];
const SEEN_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

pub(super) struct Demo {
    pub(super) gateway: String,
    pub(super) signer: PathBuf,
    pub(super) wallet_file: PathBuf,
    pub(super) headers_file: PathBuf,
    pub(super) folder: PathBuf,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct Balances {
    vanilla: Balance,
    #[serde(default)]
    scanning: bool,
}

#[derive(Deserialize)]
struct Balance {
    settled: u64,
    future: u64,
}

impl Demo {
    /// Makes the wallet, or finds the one of last time.
    pub(super) async fn prepare(folder: &Path, api: SocketAddr) -> Result<Self, Failure> {
        let signer = find_signer()?;
        let wallet_file = folder.join("demo.wallet");
        let headers_file = folder.join("wallet.headers");
        if !wallet_file.exists() {
            step("Making a demo wallet with sluice-signer")?;
            ask(&signer, &["init", "--network", "regtest", "--file"], &wallet_file).await?;
        }
        let for_curl = ask(&signer, &["xpubs", "--headers", "--file"], &wallet_file).await?;
        std::fs::write(&headers_file, for_curl)?;
        let headers = ask(&signer, &["xpubs", "--json", "--file"], &wallet_file).await?;
        let http = reqwest::Client::builder()
            .default_headers(parse_headers(&headers)?)
            .no_proxy()
            .build()
            .map_err(|error| Failure::new(format!("no HTTP client: {}", root_cause(&error))))?;
        Ok(Self {
            gateway: format!("http://{api}"),
            signer,
            wallet_file,
            headers_file,
            folder: folder.to_owned(),
            http,
        })
    }

    /// Everything through the gateway's own API, as any client would.
    pub(super) async fn register_and_fund(&self, node: &Node) -> Result<(), Failure> {
        step("Registering the demo wallet")?;
        self.post("/wallet/register").await?;
        let known = self.wait_for("the search for earlier coins", |balances| !balances.scanning).await?;
        if known.vanilla.future > 0 {
            return Ok(());
        }
        step("Paying the demo wallet 1 BTC and 0.5 BTC, and mining a block")?;
        for bitcoin in DEPOSITS {
            let address = self.post("/wallet/address").await?;
            let address = address.as_str().ok_or_else(|| Failure::new("POST /wallet/address answered no address"))?;
            node.pay(address, bitcoin).await?;
            // The current address is offered until the gateway has seen the payment to it.
            self.wait_for("the deposit", |balances| balances.vanilla.future > 0).await?;
        }
        node.mine(1).await?;
        self.wait_for("the deposits' block", |balances| balances.vanilla.settled > 0).await?;
        Ok(())
    }

    pub(super) async fn vanilla_balance(&self) -> Result<u64, Failure> {
        Ok(self.balances().await?.vanilla.settled)
    }

    async fn wait_for(&self, what: &str, is_there: impl Fn(&Balances) -> bool) -> Result<Balances, Failure> {
        let deadline = Instant::now() + SEEN_WITHIN;
        loop {
            let balances = self.balances().await?;
            if is_there(&balances) {
                return Ok(balances);
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("{what} did not show within {SEEN_WITHIN:?}")));
            }
            sleep(POLL).await;
        }
    }

    async fn balances(&self) -> Result<Balances, Failure> {
        let answer = self.post("/wallet/btcbalance").await?;
        serde_json::from_value(answer).map_err(|error| Failure::new(format!("POST /wallet/btcbalance: {error}")))
    }

    async fn post(&self, path: &str) -> Result<Value, Failure> {
        let failed = |error: String| Failure::new(format!("POST {path}: {error}"));
        let answer =
            self.http.post(format!("{}{path}", self.gateway)).send().await.map_err(|e| failed(e.to_string()))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|e| failed(e.to_string()))?;
        if !status.is_success() {
            let problem: Value = serde_json::from_str(&text).unwrap_or_default();
            let detail = problem.get("detail").and_then(Value::as_str).unwrap_or(&text);
            return Err(failed(format!("{status}: {detail}")));
        }
        serde_json::from_str(&text).map_err(|e| failed(e.to_string()))
    }
}

/// It is built beside this program, and may be installed elsewhere.
fn find_signer() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let beside = own.parent().map(|folder| folder.join(SIGNER)).filter(|program| program.is_file());
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .or_else(|| std::env::split_paths(&path).map(|folder| folder.join(SIGNER)).find(|program| program.is_file()))
        .ok_or_else(|| {
            Failure::new("there is no sluice-signer beside this program or on the PATH: cargo build --workspace")
        })
}

async fn ask(signer: &Path, arguments: &[&str], wallet_file: &Path) -> Result<String, Failure> {
    let output = Command::new(signer).args(arguments).arg(wallet_file).output().await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failure::new(format!("{SIGNER} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim())))
}

fn parse_headers(json: &str) -> Result<HeaderMap, Failure> {
    let bad = |reason: String| Failure::new(format!("{SIGNER} xpubs: {reason}"));
    let all: Map<String, Value> = serde_json::from_str(json).map_err(|error| bad(error.to_string()))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &all {
        let name = HeaderName::try_from(name.replace('_', "-")).map_err(|error| bad(error.to_string()))?;
        let value =
            HeaderValue::from_str(value.as_str().unwrap_or_default()).map_err(|error| bad(error.to_string()))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signers_json_becomes_headers() {
        let headers = parse_headers(r#"{"xpub_van":"a","master_fingerprint":"b"}"#).unwrap();
        assert_eq!(headers.get("xpub-van").unwrap(), "a");
        assert!(parse_headers("[]").is_err());
        assert!(parse_headers("{\"a b\":\"c\"}").is_err());
    }
}
