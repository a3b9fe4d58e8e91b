//! A bitcoind that lives and dies with this process, and the few calls that the demo makes to it.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::super::failure::Failure;
use crate::ports::root_cause;

const PROGRAM_VARIABLE: &str = "BITCOIND";
const WALLET: &str = "faucet";
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(30);
const CALL_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// Codes of bitcoind: the wallet is there already, or is loaded already.
const WALLET_EXISTS: i64 = -4;
const WALLET_LOADED: i64 = -35;

/// Runs a program until it ends or standard input does. The pipe closes however we end, kill -9 included, and then the node
/// is told to stop: it would otherwise live on and keep its folder locked.
const LEASH: &str = r#"exec 3<&0 </dev/null
"$@" 3<&- &
node=$!
( cat <&3 >/dev/null; kill "$node" 2>/dev/null ) &
exec 3<&-
wait "$node""#;

pub(super) struct Node {
    child: Mutex<Child>,
    /// Apart from the child: waiting for a child closes the pipe it still has.
    leash: Option<ChildStdin>,
    http: reqwest::Client,
    folder: PathBuf,
    port: u16,
}

#[derive(Deserialize)]
struct Answer {
    result: Option<Value>,
    error: Option<RpcError>,
}

#[derive(Debug, Deserialize)]
struct RpcError {
    code: i64,
    message: String,
}

impl Node {
    pub(super) fn start(folder: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let program = find_program()?;
        let port = remembered_port(&folder)?;
        // Kept, because bitcoind explains itself there when it can't start.
        let complaints = File::create(folder.join("stderr.log"))?;
        let mut child = Command::new("/bin/sh")
            .args(["-c", LEASH, "leash"])
            .arg(&program)
            .args(["-regtest", "-server", "-listen=0", "-txindex=0", "-fallbackfee=0.0001", "-printtoconsole=0"])
            .arg(format!("-datadir={}", folder.display()))
            .arg(format!("-rpcport={port}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(complaints)
            // Ctrl-C is for us; we stop the node when the gateway no longer needs it.
            .process_group(0)
            .spawn()
            .map_err(|error| Failure::new(format!("can't start {}: {error}", program.display())))?;
        let leash = child.stdin.take();
        let http = reqwest::Client::builder()
            .timeout(CALL_WITHIN)
            .no_proxy()
            .build()
            .map_err(|error| Failure::new(format!("no HTTP client: {}", root_cause(&error))))?;
        Ok(Self { child: Mutex::new(child), leash, http, folder, port })
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn cookie_file(&self) -> PathBuf {
        self.folder.join("regtest").join(".cookie")
    }

    /// Ends when bitcoind does.
    pub(super) async fn died(&self) {
        // Only a child that is not ours can't be waited for.
        drop(self.child.lock().await.wait().await);
    }

    pub(super) fn obituary(&self) -> Failure {
        let said = std::fs::read_to_string(self.folder.join("stderr.log")).unwrap_or_default();
        let log = self.folder.join("regtest").join("debug.log");
        Failure::new(format!("bitcoind has stopped: {}\nIts log is {}", said.trim(), log.display()))
    }

    pub(super) async fn wait_until_ready(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            match self.call::<Value>("getblockchaininfo", json!([])).await {
                Ok(_) => return Ok(()),
                Err(last) if Instant::now() > deadline => {
                    return Err(Failure::new(format!("bitcoind is not ready after {READY_WITHIN:?}: {last}")));
                }
                Err(_not_yet) => sleep(POLL).await,
            }
        }
    }

    /// The wallet that mining pays and the demo is funded from.
    pub(super) async fn open_wallet(&self) -> Result<(), Failure> {
        for (method, already) in [("createwallet", WALLET_EXISTS), ("loadwallet", WALLET_LOADED)] {
            match self.call::<Value>(method, json!([WALLET])).await {
                Ok(_) => return Ok(()),
                Err(CallError::Refused(error)) if error.code == already => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(super) async fn height(&self) -> Result<u32, Failure> {
        Ok(self.call("getblockcount", json!([])).await?)
    }

    pub(super) async fn new_address(&self) -> Result<String, Failure> {
        Ok(self.call("getnewaddress", json!(["", "bech32m"])).await?)
    }

    pub(super) async fn mine(&self, blocks: u32) -> Result<(), Failure> {
        let address = self.new_address().await?;
        let _hashes: Vec<String> = self.call("generatetoaddress", json!([blocks, address])).await?;
        Ok(())
    }

    pub(super) async fn pay(&self, address: &str, bitcoin: &str) -> Result<(), Failure> {
        let _txid: String = self.call("sendtoaddress", json!([address, bitcoin])).await?;
        Ok(())
    }

    /// Lets it write its chain down. Whatever happens, it ends with us.
    pub(super) async fn stop(self) {
        if let Err(error) = self.call::<Value>("stop", json!([])).await {
            tracing::debug!(%error, "bitcoind could not be asked to stop; it is told by its leash");
        }
        let Self { child, leash, .. } = self;
        if timeout(STOP_WITHIN, child.lock().await.wait()).await.is_err() {
            tracing::warn!("bitcoind does not stop; it is told by its leash");
        }
        drop(leash);
    }

    async fn call<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T, CallError> {
        let cookie =
            std::fs::read_to_string(self.cookie_file()).map_err(|error| CallError::NoAnswer(error.to_string()))?;
        let (user, password) = cookie.trim().split_once(':').unwrap_or_default();
        let body = json!({ "jsonrpc": "1.0", "id": 0, "method": method, "params": params });
        let no_answer = |error: reqwest::Error| CallError::NoAnswer(error.to_string());
        let request = self.http.post(self.url()).basic_auth(user, Some(password)).json(&body);
        let answer: Answer = request.send().await.map_err(no_answer)?.json().await.map_err(no_answer)?;
        if let Some(error) = answer.error {
            return Err(CallError::Refused(error));
        }
        serde_json::from_value(answer.result.unwrap_or_default())
            .map_err(|error| CallError::NoAnswer(error.to_string()))
    }
}

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("{0}")]
    NoAnswer(String),
    #[error("{} (code {})", .0.message, .0.code)]
    Refused(RpcError),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::new(format!("bitcoind: {error}"))
    }
}

fn find_program() -> Result<PathBuf, Failure> {
    if let Some(named) = std::env::var_os(PROGRAM_VARIABLE).filter(|name| !name.is_empty()) {
        return Ok(PathBuf::from(named));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("bitcoind")).find(|program| program.is_file());
    found.ok_or_else(|| {
        Failure::new(
            "there is no bitcoind: set BITCOIND to one, put one on the PATH, or use `make run`, which fetches one",
        )
    })
}

/// The same port at each start, so that notes a user made stay true, unless somebody else has taken it.
fn remembered_port(folder: &Path) -> Result<u16, Failure> {
    let file = folder.join("rpcport");
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let remembered = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
    if let Some(port) = remembered.filter(is_free) {
        return Ok(port);
    }
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    std::fs::write(&file, format!("{port}\n"))?;
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_remembered_while_it_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let port = remembered_port(folder.path()).unwrap();
        assert_eq!(remembered_port(folder.path()).unwrap(), port);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_ne!(remembered_port(folder.path()).unwrap(), port);
    }

    #[tokio::test]
    async fn the_leash_ends_the_program_when_we_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let marker = folder.path().join("ended");
        let program = format!("trap 'touch {}; exit 0' TERM; while :; do sleep 0.05; done", marker.display());
        let mut child = Command::new("/bin/sh")
            .args(["-c", LEASH, "leash", "/bin/sh", "-c", &program])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        sleep(Duration::from_millis(300)).await;
        assert!(child.try_wait().unwrap().is_none(), "it runs as long as we hold the leash");
        drop(child.stdin.take());
        timeout(Duration::from_secs(10), child.wait()).await.unwrap().unwrap();
        assert!(marker.exists());
    }
}
