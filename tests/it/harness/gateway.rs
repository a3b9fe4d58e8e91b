//! A whole gateway in this process: every room, both listeners, every worker, on a database of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluice::app::{self, Running, World};
use sluice::chain::fake::FakeChain;
use sluice::clock::{Clock, Timestamp};
use sluice::config::{Config, Override, Sources};
use sluice::connectors::fake::FakeNode;
use sluice::flows::health::Rails;
use sluice::flows::keys::{self, NewKey, Scope};
use sluice::flows::{Flows, audit, sync};
use sluice::ids::{KeyId, WalletId};
use sluice::ports::chain::ChainBackend;
use sluice::ports::lightning::LightningNode;
use sluice::store::owners::Ownership;
use sluice::workers::{NodeFailure, NodeHost};
use sqlx::{AssertSqlSafe, Row};

use super::bitcoind::Bitcoind;
use super::client::Caller;
use super::lightning::Lightning;
use super::postgres;
use super::rig::{Client, Database, Sql};

/// What a machine with two busy cores may need for anything that comes by itself.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How often an audit is tried while the chain moves under it.
const AUDITS: usize = 20;

/// Every table, in the order of the migrations.
const TABLES: [&str; 53] = [
    "asset_exports",
    "asset_intents",
    "asset_invoices",
    "asset_issues",
    "asset_transfers",
    "meta",
    "wallets",
    "keychains",
    "scripts",
    "requests",
    "request_txs",
    "leases",
    "idempotency",
    "postings",
    "balances",
    "holds",
    "events",
    "event_order",
    "events_unnumbered",
    "chain_cursor",
    "chain_blocks",
    "txs",
    "coins",
    "spends",
    "wallet_txs",
    "deposits",
    "effects",
    "halts",
    "scoped_halts",
    "api_keys",
    "api_key_successors",
    "audit_runs",
    "payments",
    "authorizations",
    "spending_grants",
    "spending_limits",
    "spending_budgets",
    "key_payments",
    "node_addresses",
    "credits",
    "withdrawals",
    "operator_calls",
    "reserve_addresses",
    "node_movements",
    "node_forwards",
    "book_entries",
    "close_budget",
    "liquidity_openings",
    "liquidity_words",
    "consignment_recipients",
    "consignments",
    "consignment_media",
    "consignment_usage",
];

pub struct Gateway {
    pub url: String,
    pub operator_url: String,
    /// How it was started, for a start that goes on from there.
    pub config: Config,
    running: Running,
    _folder: tempfile::TempDir,
}

impl Gateway {
    /// On a real node. `None` after a loud skip where there is no such database.
    pub async fn start(node: &Bitcoind, database: Database, overrides: &[&str]) -> Option<Self> {
        let (mut config, folder) = config(database, overrides).await?;
        config.chain.bitcoind = node.config();
        let running = app::start(&config).await.expect("the gateway starts");
        Some(Self::of(running, config, folder).await)
    }

    /// On SQLite and a chain in memory: for everything that is about calls and not about money.
    pub async fn start_fake(overrides: &[&str]) -> (Self, Arc<FakeChain>) {
        Self::start_fake_on(Database::Sqlite, overrides).await.expect("SQLite is always there")
    }

    /// The same on either database.
    pub async fn start_fake_on(database: Database, overrides: &[&str]) -> Option<(Self, Arc<FakeChain>)> {
        let (config, folder) = config(database, overrides).await?;
        let chain = Arc::new(FakeChain::new());
        chain.mine(101);
        let backend: Arc<dyn ChainBackend> = Arc::<FakeChain>::clone(&chain);
        let running = app::start_with(&config, backend, Clock::System).await.expect("the gateway starts");
        Some((Self::of(running, config, folder).await, chain))
    }

    /// Why a gateway does not start, on a chain in memory.
    pub async fn refused_fake(overrides: &[&str]) -> String {
        let (config, _folder) = config(Database::Sqlite, overrides).await.expect("SQLite is always there");
        let started = app::start_with(&config, Arc::new(FakeChain::new()), Clock::System).await;
        started.map(drop).expect_err("it starts").to_string()
    }

    /// Stops, and starts again on the same database: nothing but that is remembered.
    pub async fn again(self, chain: &Arc<FakeChain>) -> Self {
        let Self { config, running, _folder: folder, .. } = self;
        running.stop().await;
        let backend: Arc<dyn ChainBackend> = Arc::<FakeChain>::clone(chain);
        let running = app::start_with(&config, backend, Clock::System).await.expect("the gateway starts again");
        Self::of(running, config, folder).await
    }

    /// The same with a Lightning node, and a shop with another.
    pub async fn start_lightning(database: Database, overrides: &[&str]) -> Option<(Self, Arc<FakeChain>, Lightning)> {
        let (config, folder) = config(database, overrides).await?;
        let chain = Arc::new(FakeChain::new());
        chain.mine(101);
        let lightning = Lightning::new(Clock::System);
        let world = World {
            chain: Arc::<FakeChain>::clone(&chain),
            node: Some(Arc::new(Host(Arc::clone(&lightning.node)))),
            clock: Clock::System,
        };
        let running = app::start_in(&config, world).await.expect("the gateway starts");
        let gateway = Self::of(running, config, folder).await;
        eventually("the node is ready", async || gateway.flows().node().is_ready().then_some(())).await;
        Some((gateway, chain, lightning))
    }

    /// A second gateway on the database of another, that looks at the same chain. The node stays with the first one.
    pub async fn start_beside(other: &Self, chain: &Arc<FakeChain>, lightning: &Lightning) -> Self {
        let world = World {
            chain: Arc::<FakeChain>::clone(chain),
            node: Some(Arc::new(Host(Arc::clone(&lightning.node)))),
            clock: Clock::System,
        };
        let running = app::start_in(&other.config, world).await.expect("the gateway starts");
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::of(running, other.config.clone(), folder).await
    }

    async fn of(running: Running, config: Config, folder: tempfile::TempDir) -> Self {
        let url = format!("http://{}", running.api_addr);
        let operator_url = format!("http://{}", running.operator_addr);
        let gateway = Self { url, operator_url, config, running, _folder: folder };
        eventually("the gateway is ready", async || gateway.running.health.rails().are_ready().then_some(())).await;
        gateway
    }

    pub fn flows(&self) -> &Flows {
        &self.running.flows
    }

    /// Somebody with a wallet, who calls over HTTP.
    pub fn caller(&self, wallet: u32) -> Caller {
        Caller::new(&self.url, Client::number(wallet))
    }

    /// The same, registered, and searched for what it had before.
    pub async fn registered(&self, wallet: u32) -> Caller {
        let caller = self.caller(wallet);
        self.register(&caller).await;
        caller
    }

    /// Registers, and waits until the search for coins is done: afterwards nothing moves by itself.
    pub async fn register(&self, caller: &Caller) {
        caller.post_empty("/wallet/register").await.ok();
        eventually("the scan is done", async || {
            let balance = caller.post_empty("/wallet/btcbalance").await.ok();
            (balance["scanning"] == false).then_some(())
        })
        .await;
    }

    /// An API key that is in force.
    pub async fn key(&self, scopes: &[Scope], wallets: &[WalletId]) -> String {
        self.make_key(scopes, wallets, None).await.1
    }

    pub async fn make_key(
        &self,
        scopes: &[Scope],
        wallets: &[WalletId],
        expires_at: Option<Timestamp>,
    ) -> (KeyId, String) {
        let (scopes, wallets) = (scopes.to_vec(), wallets.to_vec());
        let wanted = NewKey { name: "a story's".to_owned(), scopes, wallets, expires_at };
        let (id, secret) = keys::create(self.flows(), wanted).await.expect("a key can be made");
        (id, secret.expose().to_owned())
    }

    /// What the probes are told, once it is as wanted.
    pub async fn health_until(&self, wanted: impl Fn(&Rails) -> bool) -> Rails {
        eventually("the probes are told", async || Some(self.running.health.rails()).filter(&wanted)).await
    }

    /// Until the follower has seen every block that the node has.
    pub async fn at_tip(&self) {
        sync::wait_for_tip(self.flows()).await.expect("the follower reaches the tip");
    }

    /// How many rows each table has. What the follower and the roles write by themselves is left out.
    pub async fn row_counts(&self) -> Vec<(&'static str, i64)> {
        let mut conn = self.flows().store().read().await.expect("a connection");
        let mut counts = Vec::new();
        for table in TABLES.into_iter().filter(|table| !matches!(*table, "event_order" | "events_unnumbered")) {
            let sql = AssertSqlSafe(format!("SELECT COUNT(*) AS n FROM {table}"));
            let row = sqlx::query(sql).fetch_one(&mut *conn).await.expect("a table can be counted");
            counts.push((table, row.get::<i64, _>("n")));
        }
        counts
    }

    /// Every row that belongs to a wallet, as text. On SQLite.
    pub async fn rows_of(&self, wallet: &WalletId) -> Vec<String> {
        let mut conn = self.flows().store().read().await.expect("a connection");
        let mut rows = Vec::new();
        for table in TABLES {
            let sql = AssertSqlSafe(format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid"));
            let columns = sqlx::query(sql).fetch_all(&mut *conn).await.expect("the columns of a table");
            let columns: Vec<String> = columns.iter().map(|row| row.get::<String, _>("name")).collect();
            let key = if table == "wallets" { "id" } else { "wallet_id" };
            if !columns.iter().any(|name| name == key) {
                continue;
            }
            let all = columns.iter().map(|name| format!("quote({name})")).collect::<Vec<_>>().join(" || ',' || ");
            let sql = AssertSqlSafe(format!("SELECT {all} AS line FROM {table} WHERE {key} = $1 ORDER BY 1"));
            let found =
                sqlx::query(sql).bind(wallet.to_string()).fetch_all(&mut *conn).await.expect("the rows of a wallet");
            rows.extend(found.iter().map(|row| format!("{table}: {}", row.get::<String, _>("line"))));
        }
        rows
    }

    /// Changes the database behind the gateway's back.
    pub async fn sql(&self, sql: &str) {
        self.flows().store().write(Sql(sql.to_owned())).await.expect("the statement runs");
    }

    /// Stops, after the books were found to balance and to agree with the chain.
    pub async fn stop(self) {
        self.at_tip().await;
        self.audit().await;
        self.running.stop().await;
    }

    pub async fn audit(&self) {
        for _ in 0..AUDITS {
            let report = audit::audit(self.flows()).await.expect("the audit runs");
            assert_eq!(report.drifts, [], "the audit found drift");
            if report.skipped.is_empty() {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        panic!("the audit could never check everything");
    }
}

/// A node that is always there.
struct Host(Arc<FakeNode>);

#[async_trait]
impl NodeHost for Host {
    async fn start(&self, _owner: Ownership) -> Result<Arc<dyn LightningNode>, NodeFailure> {
        let node: Arc<dyn LightningNode> = Arc::<FakeNode>::clone(&self.0);
        Ok(node)
    }

    async fn stop(&self) {}
}

/// Looks until something has come about by itself; fails when it does not.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("it never came to this: {what}"))
}

async fn config(database: Database, overrides: &[&str]) -> Option<(Config, tempfile::TempDir)> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = match database {
        Database::Sqlite => format!("sqlite:{}", folder.path().join("sluice.db").display()),
        Database::Postgres => postgres::database().await?,
    };
    let store = format!("store.url={url}");
    let consignments = format!("proxy.data_dir={}", folder.path().join("consignments").display());
    // On PostgreSQL it would be in the folder that all tests share.
    let socket = format!("admin.socket={}", folder.path().join("sluice.sock").display());
    let usual = [
        store.as_str(),
        consignments.as_str(),
        socket.as_str(),
        "http.listen=127.0.0.1:0",
        "operator.listen=127.0.0.1:0",
        "http.limits.enabled=false",
        "chain.poll_ms=40",
        "policy.lookahead=30",
        "audit.every_minutes=0",
    ];
    let flags = usual.iter().chain(overrides).map(|flag| Override::parse_flag(flag).expect("key=value")).collect();
    let config = Config::load(&Sources { flags, ..Sources::default() }).expect("a configuration");
    Some((config, folder))
}
