//! Calls over HTTP, with the load generator in the same process: addresses, balances, and sends from begin to end.

use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bitcoin::hashes::Hash;
use bitcoin::{Address, Network, Psbt, WPubkeyHash};
use sluice::app::{self, Running, World};
use sluice::assets::courier::{self, HttpCourier};
use sluice::assets::fake::{FakeEngine, World as AssetWorld};
use sluice::chain::fake::FakeChain;
use sluice::clock::Clock;
use sluice::config::Config;
use sluice::domain::wallet::WalletKeys;
use sluice::flows::AssetSide;
use sluice::money::Sat;
use sluice::ports::assets::AssetEngine;
use sluice::ports::chain::ChainBackend;
use sluice::secret::Secret;
use sluice_signer::Signer;
use tempfile::TempDir;

use super::offchain::Nodes;
use super::table::Table;
use super::{RUNS, postgres};

pub const IN_FLIGHT: u64 = 64;
const ADDRESSES: u64 = 3_000;
const BALANCES: u64 = 20_000;
const PAIRS: u64 = 400;
const WALLETS: u32 = 16;
/// Coins of each wallet: enough that no send waits for another's change.
const COINS: u32 = 20;
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// A gateway on a chain in memory, and wallets with coins.
pub struct Bench {
    running: Running,
    chain: Arc<FakeChain>,
    pub wallets: Vec<Wallet>,
    pub nodes: Nodes,
    folder: TempDir,
}

/// One wallet's way to call: its headers, its signer, connections that stay open.
pub struct Wallet {
    http: reqwest::Client,
    base: String,
    headers: reqwest::header::HeaderMap,
    pub signer: Signer,
}

pub async fn measure(table: &mut Table, bare_commits: &str) {
    let mut databases = vec![("SQLite", None)];
    if let Some(url) = postgres::database().await {
        databases.push(("PostgreSQL", Some(url)));
    }
    for (name, url) in databases {
        let bench = Arc::new(Bench::start(url).await);
        let (rates, tails) =
            runs(|| load(&bench, ADDRESSES, |bench, n| async move { bench.wallet(n).address().await })).await;
        table.row(format!("new address, {IN_FLIGHT} in flight, {name}"), "/s", rates, bare_commits);
        table.row(format!("new address, p99, {name}"), "ms", tails, "");
        let (rates, tails) =
            runs(|| load(&bench, BALANCES, |bench, n| async move { bench.wallet(n).balance().await })).await;
        table.row(format!("balance, {IN_FLIGHT} in flight, {name}"), "/s", rates, "goal: 15,000/s");
        table.row(format!("balance, p99, {name}"), "ms", tails, "goal: 5 ms");
        let (rates, _) = runs(|| load(&bench, PAIRS, |bench, n| async move { bench.wallet(n).send().await })).await;
        table.row(
            format!("begin + sign + end, {name}"),
            "pairs/s",
            rates,
            "two commits, one broadcast, one signature each",
        );
        Arc::into_inner(bench).expect("all load is over").stop().await;
    }
}

pub async fn runs<F: Future<Output = (f64, f64)>>(once: impl Fn() -> F) -> (Vec<f64>, Vec<f64>) {
    let (mut rates, mut tails) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (rate, tail) = once().await;
        rates.push(rate);
        tails.push(tail);
    }
    (rates, tails)
}

/// So many calls, a fixed number in flight: calls a second, and the 99th percentile in milliseconds.
pub async fn load<F: Future<Output = ()> + Send + 'static>(
    bench: &Arc<Bench>,
    calls: u64,
    call: impl Fn(Arc<Bench>, u64) -> F + Copy + Send + 'static,
) -> (f64, f64) {
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let workers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (bench, next) = (Arc::clone(bench), Arc::clone(&next));
            tokio::spawn(async move {
                let mut times = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= calls {
                        return times;
                    }
                    let begun = Instant::now();
                    call(Arc::clone(&bench), number).await;
                    times.push(begun.elapsed());
                }
            })
        })
        .collect();
    let mut times = Vec::new();
    for worker in workers {
        times.extend(worker.await.expect("the load runs"));
    }
    let rate = f64::from(u32::try_from(times.len()).expect("not that many")) / start.elapsed().as_secs_f64();
    times.sort_unstable();
    (rate, times[times.len() * 99 / 100].as_secs_f64() * 1_000.0)
}

impl Bench {
    pub async fn start(url: Option<String>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = Config::default();
        config.http.listen = ([127, 0, 0, 1], 0).into();
        config.http.limits.enabled = false;
        config.operator.listen = ([127, 0, 0, 1], 0).into();
        let sqlite = || format!("sqlite:{}", folder.path().join("sluice.db").display());
        config.store.url = Secret::new(url.unwrap_or_else(sqlite));
        config.chain.poll_ms = 50;
        // What waits for a signature here waits for a thousand others.
        config.policy.max_waiting_sends = 1_000_000;
        let chain = Arc::new(FakeChain::new());
        chain.mine(101);
        let backend: Arc<dyn ChainBackend> = Arc::<FakeChain>::clone(&chain);
        let nodes = Nodes::new();
        let world = World { chain: backend, node: Some(Arc::new(nodes.clone())), clock: Clock::System };
        let running = app::start_in(&config, world).await.expect("the gateway starts");
        let base = format!("http://{}", running.api_addr);
        let http = reqwest::Client::builder().tcp_nodelay(true).pool_max_idle_per_host(128).build().expect("a client");
        let wallets = (0..WALLETS).map(|number| Wallet::number(number, &http, &base)).collect();
        let bench = Self { running, chain, wallets, nodes, folder };
        bench.fund().await;
        bench
    }

    async fn fund(&self) {
        for wallet in &self.wallets {
            let registered = wallet.post("/wallet/register", String::new()).await;
            let address = registered["address"].as_str().expect("an address").to_owned();
            let script = Address::from_str(&address).expect("an address").assume_checked().script_pubkey();
            let coin = (script, Sat::literal(10_000_000));
            self.chain.pay_many(&vec![coin; COINS as usize]).expect("the fake pays");
        }
        self.chain.mine(1);
        let deadline = Instant::now() + SETTLED_WITHIN;
        for wallet in &self.wallets {
            while wallet.post("/wallet/btcbalance", String::new()).await["vanilla"]["spendable"]
                != 10_000_000 * u64::from(COINS)
            {
                assert!(Instant::now() < deadline, "the wallets were not funded in time");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Gives it an engine for assets, one in memory.
    pub fn use_assets(&self) {
        self.use_engine(FakeEngine::new(AssetWorld::new(Clock::System), Arc::<FakeChain>::clone(&self.chain)));
    }

    /// Gives it this one.
    pub fn use_engine(&self, engine: Arc<dyn AssetEngine>) {
        let courier = HttpCourier::new(&courier::Config::default()).expect("a courier");
        self.running.flows.use_assets(AssetSide::new(engine, Arc::new(courier), Vec::new()));
    }

    /// The file of the database, where it is one.
    pub fn database(&self) -> String {
        self.folder.path().join("sluice.db").display().to_string()
    }

    pub async fn stop(self) {
        self.running.stop().await;
    }

    pub fn wallet(&self, number: u64) -> &Wallet {
        &self.wallets[usize::try_from(number % u64::from(WALLETS)).expect("few wallets")]
    }
}

impl Wallet {
    pub fn number(number: u32, http: &reqwest::Client, base: &str) -> Self {
        let mut entropy = [3u8; 16];
        entropy[..4].copy_from_slice(&number.to_be_bytes());
        let words = bip39::Mnemonic::from_entropy(&entropy).expect("entropy").to_string();
        let signer = Signer::from_mnemonic(Network::Regtest, &words, "").expect("a signer");
        let mut headers = reqwest::header::HeaderMap::new();
        for (name, value) in signer.wallet_xpubs().headers() {
            headers.insert(name, value.parse().expect("a header"));
        }
        Self { http: http.clone(), base: base.to_owned(), headers, signer }
    }

    /// The wallet's id, as the gateway derives it.
    pub fn id(&self) -> String {
        self.keys().id().to_string()
    }

    pub fn keys(&self) -> WalletKeys {
        let text = |name: &str| self.headers[name].to_str().expect("text").to_owned();
        let keys =
            WalletKeys::parse(&text("xpub-van"), &text("xpub-col"), &text("master-fingerprint"), Network::Regtest);
        keys.expect("keys")
    }

    pub async fn get(&self, path: &str) -> serde_json::Value {
        let call = self.http.get(format!("{}{path}", self.base)).headers(self.headers.clone());
        let answer = call.send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a whole answer");
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    pub async fn post(&self, path: &str, body: String) -> serde_json::Value {
        let call = self.http.post(format!("{}{path}", self.base)).headers(self.headers.clone());
        let answer = call.header("content-type", "application/json").body(body).send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a whole answer");
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    pub async fn address(&self) {
        self.post("/lightning/onchain-receive", "{}".to_owned()).await;
    }

    async fn balance(&self) {
        self.post("/wallet/btcbalance", String::new()).await;
    }

    async fn send(&self) {
        let to = Address::from_script(
            &bitcoin::ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([9; 20])),
            Network::Regtest,
        )
        .expect("an address");
        let body = format!(r#"{{"address_or_rgbinvoice":"{to}","amount_sats":1000,"fee_rate":1}}"#);
        let begun = self.post("/lightning/onchain-send-begin", body).await;
        let mut psbt = Psbt::from_str(begun.as_str().expect("a PSBT")).expect("a PSBT");
        self.signer.sign(&mut psbt).expect("it signs");
        self.post("/lightning/onchain-send-end", format!(r#"{{"signed_psbt":"{psbt}"}}"#)).await;
    }
}
