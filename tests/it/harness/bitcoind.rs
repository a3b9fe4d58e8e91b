//! A real bitcoind on a regtest of its own, in a temporary folder, gone when it is dropped.
//!
//! The environment's `BITCOIND` names the program; `scripts/ensure-bitcoind` finds or fetches one.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::{Address, BlockHash, Network, ScriptBuf, Transaction, Txid, Witness};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluice::chain::bitcoind::Config;
use sluice::money::Sat;
use sluice::ports::chain::BlockRef;
use sluice::secret::Secret;
use tempfile::TempDir;

use super::ports::free_address;

/// Enough blocks for some twenty coins to be mature. Reorganisations should stay above it.
/// Above 120: now and then a wallet sets a lock time up to 99 blocks back, and Knots refuses what has lock time 21.
pub const START_HEIGHT: u32 = 125;
/// The account beside the cookie, for what is said of passwords.
pub const USER: &str = "sluice";
pub const PASSWORD: &str = "correct-horse-battery-staple";

const READY_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// Somebody else may take a free port between our look and bitcoind's bind.
const START_ATTEMPTS: usize = 5;
/// What the gateway's adapter waits for an answer in tests: long for a busy machine, short for a frozen node.
const ADAPTER_TIMEOUT: Duration = Duration::from_millis(3_000);

pub struct Bitcoind {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    options: Vec<String>,
    child: Mutex<Option<Child>>,
    http: reqwest::Client,
}

/// A chain as text, for another node to begin with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptChain {
    /// From the first after genesis, in hexadecimal digits.
    pub blocks: Vec<String>,
    pub mempool: Vec<String>,
    /// Of the wallet that has mined it, with its private keys.
    pub descriptors: Value,
}

/// Says loudly that a test did not run; where everything has to run, fails instead.
pub fn skip(what: &str) {
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI=true, and {what}");
    // Past the test runner, which swallows what a test that passes prints. Nothing to do when nobody reads it.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

impl Bitcoind {
    /// A node with a wallet and 125 blocks; `None`, after saying so, when there is no bitcoind on this machine.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// The same with more options, such as `-txindex=1`.
    pub async fn start_with(options: &[&str]) -> Option<Self> {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let node = Self::start_bare(&options).await?;
        node.rpc("createwallet", json!(["faucet"])).await;
        node.mine(START_HEIGHT).await;
        Some(node)
    }

    /// A node without a wallet and without blocks.
    async fn start_bare(options: &[String]) -> Option<Self> {
        let Some(program) = program() else {
            skip("BITCOIND names no bitcoind (see scripts/ensure-bitcoind)");
            return None;
        };
        let mut node = Self {
            program,
            folder: TempDir::with_prefix("sluice-bitcoind-").expect("a temporary folder"),
            port: 0,
            options: options.to_vec(),
            child: Mutex::new(None),
            http: reqwest::Client::builder().no_proxy().build().expect("an HTTP client"),
        };
        node.find_a_port().await;
        Some(node)
    }

    /// A node whose time stands still. `None` after a loud skip, as for [`Self::start`].
    pub async fn start_at(unix_seconds: i64) -> Option<Self> {
        let node = Self::start_bare(&at(unix_seconds)).await?;
        node.rpc("createwallet", json!(["faucet"])).await;
        node.mine(START_HEIGHT).await;
        Some(node)
    }

    /// A node that has this chain: its blocks, what waited in its mempool, and the wallet that has mined it.
    pub async fn start_on(kept: &KeptChain, unix_seconds: i64) -> Option<Self> {
        let node = Self::start_bare(&at(unix_seconds)).await?;
        node.rpc("createwallet", json!(["faucet", false, true])).await;
        let imported = node.rpc("importdescriptors", json!([kept.descriptors])).await;
        assert!(imported.as_array().is_some_and(|all| all.iter().all(|one| one["success"] == true)), "{imported}");
        for block in &kept.blocks {
            assert_eq!(node.rpc("submitblock", json!([block])).await, Value::Null, "the chain takes its block");
        }
        for transaction in &kept.mempool {
            node.rpc("sendrawtransaction", json!([transaction])).await;
        }
        Some(node)
    }

    /// Everything that [`Self::start_on`] needs to be where this node is.
    pub async fn keep(&self) -> KeptChain {
        let mut blocks = Vec::new();
        for height in 1..=self.tip().await.height {
            blocks.push(hex(&self.rpc("getblock", json!([self.block_hash(height).await, 0])).await));
        }
        // Oldest first, so that each finds what it spends.
        let waiting = self.rpc("getrawmempool", json!([true])).await;
        let mut waiting: Vec<_> = waiting.as_object().expect("a table").iter().collect();
        waiting.sort_by_key(|(_, entry)| entry["ancestorcount"].as_u64());
        let mut mempool = Vec::new();
        for (txid, _) in waiting {
            mempool.push(hex(&self.rpc("getrawtransaction", json!([txid])).await));
        }
        let descriptors = self.rpc("listdescriptors", json!([true])).await["descriptors"].take();
        KeptChain { blocks, mempool, descriptors }
    }

    async fn find_a_port(&mut self) {
        for _ in 0..START_ATTEMPTS {
            self.port = free_address().port();
            if self.try_launch().await {
                return;
            }
        }
        panic!("bitcoind does not start: {}", self.log());
    }

    /// Starts it again on the same folder and port after [`Self::stop`] or [`Self::kill`].
    pub async fn launch(&self) {
        assert!(self.try_launch().await, "bitcoind does not start again: {}", self.log());
        let wallet = self.try_rpc("loadwallet", json!(["faucet"])).await;
        assert!(wallet.is_ok() || wallet.is_err_and(|no| no.contains("already loaded")));
    }

    /// A clean stop: the mempool is kept, the cookie is removed.
    pub async fn stop(&self) {
        self.rpc("stop", json!([])).await;
        let deadline = Instant::now() + STOP_DEADLINE;
        while self.is_running() {
            assert!(Instant::now() < deadline, "bitcoind does not stop");
            tokio::time::sleep(POLL).await;
        }
        self.kill();
    }

    pub async fn restart(&self) {
        self.stop().await;
        self.launch().await;
    }

    /// As a power cut does. bitcoind writes its blocks' index seldom: a young chain is back at genesis afterwards.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Both fail only when it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it from running at all: the kernel takes connections, and nothing answers.
    pub fn freeze(&self) {
        let pid = self.signal(Signal::STOP);
        // The signal is only on its way when it was sent; this waits until every thread stands still.
        let waited = waitpid(Some(pid), WaitOptions::UNTRACED).expect("bitcoind is our child");
        assert!(waited.is_some_and(|(_, status)| status.stopped()), "bitcoind does not stand still");
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// How the gateway logs in with the cookie.
    pub fn config(&self) -> Config {
        Config {
            url: self.url(),
            cookie_file: Some(self.cookie_file()),
            timeout_ms: u64::try_from(ADAPTER_TIMEOUT.as_millis()).expect("milliseconds"),
            ..Config::default()
        }
    }

    /// How the gateway logs in as [`USER`]; [`PASSWORD`] is the right password.
    pub fn password_config(&self, password: &str) -> Config {
        Config {
            cookie_file: None,
            user: Some(USER.to_owned()),
            password: Some(Secret::new(password.to_owned())),
            ..self.config()
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn cookie_file(&self) -> PathBuf {
        self.folder.path().join("regtest/.cookie")
    }

    /// Mines these many blocks with the mempool's transactions.
    pub async fn mine(&self, blocks: u32) -> BlockRef {
        let address = self.new_address().await;
        self.mine_to(blocks, &address).await
    }

    pub async fn mine_to(&self, blocks: u32, address: &Address) -> BlockRef {
        self.rpc("generatetoaddress", json!([blocks, address])).await;
        self.tip().await
    }

    /// Mines one block of exactly these, which need not be in the mempool.
    pub async fn mine_with(&self, txs: &[Transaction]) -> BlockRef {
        let address = self.new_address().await;
        let txs: Vec<String> = txs.iter().map(serialize_hex).collect();
        self.rpc("generateblock", json!([address, txs])).await;
        self.tip().await
    }

    /// Mines blocks that leave the mempool waiting.
    pub async fn mine_empty(&self, blocks: u32) -> BlockRef {
        for _ in 0..blocks {
            self.mine_with(&[]).await;
        }
        self.tip().await
    }

    pub async fn tip(&self) -> BlockRef {
        let info = self.rpc("getblockchaininfo", json!([])).await;
        let height = info["blocks"].as_u64().and_then(|height| u32::try_from(height).ok()).expect("a height");
        BlockRef { height, hash: parse(&info["bestblockhash"]) }
    }

    pub async fn block_hash(&self, height: u32) -> BlockHash {
        parse(&self.rpc("getblockhash", json!([height])).await)
    }

    pub async fn new_address(&self) -> Address {
        let address: Address<_> = parse(&self.rpc("getnewaddress", json!([])).await);
        address.assume_checked()
    }

    /// Pays from the wallet into the mempool. The change may be before or after the payment.
    pub async fn pay(&self, address: &Address, sat: Sat) -> Txid {
        let txid = self.rpc("sendtoaddress", json!([address, bitcoin_text(sat)])).await;
        // The wallet answers with an id also when the mempool has refused its transaction. Offered again, it is in or we hear why.
        if !self.rpc("getrawmempool", json!([])).await.as_array().expect("a list").contains(&txid) {
            let sent = self.rpc("gettransaction", json!([txid])).await;
            self.rpc("sendrawtransaction", json!([sent["hex"]])).await;
        }
        parse(&txid)
    }

    /// Replaces a payment of the wallet's by one with a higher fee.
    pub async fn bump(&self, txid: Txid) -> Txid {
        parse(&self.rpc("bumpfee", json!([txid])).await["txid"])
    }

    /// A signed payment of the wallet's that nobody has seen yet. Its output 0 is the payment.
    pub async fn unsent_payment(&self, address: &Address, sat: Sat) -> Transaction {
        let mut outputs = serde_json::Map::new();
        outputs.insert(address.to_string(), json!(bitcoin_text(sat)));
        let bare = self.rpc("createrawtransaction", json!([[], outputs])).await;
        let funded = self.rpc("fundrawtransaction", json!([bare, { "lockUnspents": true, "changePosition": 1 }])).await;
        self.sign(funded["hex"].clone()).await
    }

    /// A signed transaction with the same inputs, amounts and fee as one of the wallet's; its output 0 pays another script.
    pub async fn rival(&self, tx: &Transaction, script: &ScriptBuf) -> Transaction {
        let mut rival = tx.clone();
        for input in &mut rival.input {
            input.witness = Witness::new();
        }
        rival.output[0].script_pubkey = script.clone();
        self.sign(json!(serialize_hex(&rival))).await
    }

    async fn sign(&self, hex: Value) -> Transaction {
        let signed = self.rpc("signrawtransactionwithwallet", json!([hex])).await;
        assert_eq!(signed["complete"], json!(true), "{signed}");
        deserialize_hex(signed["hex"].as_str().expect("hex")).expect("a transaction")
    }

    pub async fn invalidate_block(&self, hash: BlockHash) {
        self.rpc("invalidateblock", json!([hash])).await;
    }

    pub async fn reconsider_block(&self, hash: BlockHash) {
        self.rpc("reconsiderblock", json!([hash])).await;
    }

    /// Replaces the last `depth` blocks by `depth + 1` others. The transactions of the old ones wait again in the mempool;
    /// `mined_again` says whether the new blocks take them, and all else that waits.
    pub async fn reorg(&self, depth: u32, mined_again: bool) -> BlockRef {
        let first_lost = self.tip().await.height + 1 - depth;
        self.invalidate_block(self.block_hash(first_lost).await).await;
        if mined_again { self.mine(depth + 1).await } else { self.mine_empty(depth + 1).await }
    }

    /// Calls, and takes no no for an answer.
    pub async fn rpc(&self, method: &str, params: Value) -> Value {
        match self.try_rpc(method, params).await {
            Ok(result) => result,
            Err(no) => panic!("{method}: {no}"),
        }
    }

    pub async fn try_rpc(&self, method: &str, params: Value) -> Result<Value, String> {
        let request = json!({ "id": 0, "method": method, "params": params });
        let sent = self.http.post(self.url()).basic_auth(USER, Some(PASSWORD)).json(&request).send().await;
        let mut answer: Value = sent.map_err(text)?.json().await.map_err(text)?;
        if answer["error"].is_null() { Ok(answer["result"].take()) } else { Err(answer["error"].to_string()) }
    }

    /// False when the process ended before it could answer, as when its port is taken.
    async fn try_launch(&self) -> bool {
        let child = self.command().spawn().expect("BITCOIND runs");
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            // A cookie of ours, so that it isn't somebody else's bitcoind that answers on this port.
            if self.cookie_file().exists() && self.try_rpc("getblockcount", json!([])).await.is_ok() {
                return self.is_running();
            }
            if !self.is_running() {
                return false;
            }
            assert!(Instant::now() < deadline, "bitcoind does not answer: {}", self.log());
            tokio::time::sleep(POLL).await;
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg(format!("-datadir={}", self.folder.path().display()))
            .arg(format!("-rpcport={}", self.port))
            .arg(format!("-rpcauth={}", rpcauth()))
            .args(["-regtest", "-server", "-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1", "-rpcthreads=4"])
            .args(["-listen=0", "-dnsseed=0", "-fixedseeds=0", "-discover=0", "-natpmp=0", "-connect=0"])
            .args([
                "-dbcache=4",
                "-maxmempool=5",
                "-par=1",
                "-keypool=5",
                "-addresstype=bech32",
                "-fallbackfee=0.0001",
                "-printtoconsole=0",
            ])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn is_running(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn signal(&self, signal: Signal) -> Pid {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = Pid::from_child(child.as_ref().expect("a running bitcoind"));
        kill_process(pid, signal).expect("the signal was sent");
        pid
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("regtest/debug.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> Option<PathBuf> {
    std::env::var_os("BITCOIND").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Stops its time. One make of bitcoind does not run after a date of its own unless it is told to.
fn at(unix_seconds: i64) -> Vec<String> {
    let mut options = vec![format!("-mocktime={unix_seconds}")];
    let help =
        program().map(|program| Command::new(program).args(["-help", "-help-debug"]).output().expect("BITCOIND runs"));
    if help.is_some_and(|help| String::from_utf8_lossy(&help.stdout).contains("-softwareexpiry")) {
        options.push("-softwareexpiry=0".to_owned());
    }
    options
}

/// The address of a script on regtest.
pub fn address(script: &ScriptBuf) -> Address {
    Address::from_script(script, Network::Regtest).expect("a script that has an address")
}

fn hex(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}

fn bitcoin_text(sat: Sat) -> String {
    sat.to_bitcoin().to_string_in(bitcoin::Denomination::Bitcoin)
}

fn parse<T: FromStr>(value: &Value) -> T {
    let text = value.as_str().unwrap_or_else(|| panic!("not a text: {value}"));
    text.parse().unwrap_or_else(|_| panic!("not of that form: {text}"))
}

/// What bitcoind's own `rpcauth.py` would print for [`USER`] and [`PASSWORD`].
fn rpcauth() -> String {
    let salt = "00112233445566778899aabbccddeeff";
    let mut engine = HmacEngine::<sha256::Hash>::new(salt.as_bytes());
    engine.input(PASSWORD.as_bytes());
    format!("{USER}:{salt}${}", Hmac::from_engine(engine))
}

fn text(error: reqwest::Error) -> String {
    error.to_string()
}
