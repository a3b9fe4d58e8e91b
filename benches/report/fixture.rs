//! Databases full enough to measure on.

use std::sync::Arc;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Network, ScriptBuf};
use sluice::chain::fake::FakeChain;
use sluice::clock::Clock;
use sluice::flows::{Flows, Policy};
use sluice::secret::Secret;
use sluice::store::owners::{Acquire, Ownership, Role};
use sluice::store::{Config, Store};
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};
use tempfile::TempDir;

pub struct Fixture {
    pub flows: Flows,
    pub chain: Arc<FakeChain>,
    pub owner: Ownership,
    pub folder: TempDir,
}

impl Fixture {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let chain = Arc::new(FakeChain::new());
        chain.mine(101);
        let (flows, owner) = open(&folder, &chain).await;
        Self { flows, chain, owner, folder }
    }

    /// Leaves the file to others.
    pub async fn close(self) -> TempDir {
        self.flows.store().close().await;
        self.folder
    }

    /// A direct line to the file, to fill it faster than the API would.
    pub async fn line(&self) -> SqliteConnection {
        let url = format!("sqlite://{}", self.folder.path().join("sluice.db").display());
        SqliteConnection::connect(&url).await.expect("the file opens")
    }
}

async fn open(folder: &TempDir, chain: &Arc<FakeChain>) -> (Flows, Ownership) {
    let url = format!("sqlite:{}", folder.path().join("sluice.db").display());
    let config = Config { url: Secret::new(url), ..Config::default() };
    let store = Store::open(&config, Clock::System).await.expect("the store opens");
    let acquire = Acquire { role: Role::Chain, holder: "bench".to_owned() };
    let owner = store.write(acquire).await.expect("the role").expect("nobody has it");
    (Flows::new(store, chain.clone(), Network::Regtest, Policy::default()), owner)
}

/// The script at an index of a wallet that exists only as rows: the follower does not know it from a derived one.
pub fn script(wallet: u32, index: u32) -> ScriptBuf {
    let hash = sha256::Hash::hash(format!("{wallet}/{index}").as_bytes());
    let mut bytes = vec![0x51, 0x20];
    bytes.extend_from_slice(hash.as_byte_array());
    ScriptBuf::from_bytes(bytes)
}

/// Writes wallets with so many scripts each, straight into the tables.
pub async fn fill_wallets(line: &mut SqliteConnection, wallets: u32, scripts: u32) {
    line.execute("BEGIN").await.expect("it begins");
    for wallet in 0..wallets {
        let id = format!("{wallet:016x}");
        let text = format!(
            "INSERT INTO wallets (id, xpub_van, xpub_col, fingerprint, created_at, scanned_at) VALUES ('{id}', 'v{wallet}', 'c{wallet}', 'f', 0, 0); \
             INSERT INTO keychains (wallet_id, account, key_material, next_index, derived_to) VALUES ('{id}', 'vanilla', 'v{wallet}', {scripts}, {scripts})"
        );
        line.execute(AssertSqlSafe(text)).await.expect("a wallet");
        let rows: Vec<String> = (0..scripts)
            .map(|index| format!("('{}', '{id}', 'vanilla', {index})", script(wallet, index).to_hex_string()))
            .collect();
        let text = format!("INSERT INTO scripts (script, wallet_id, account, idx) VALUES {}", rows.join(","));
        line.execute(AssertSqlSafe(text)).await.expect("its scripts");
    }
    line.execute("COMMIT").await.expect("it commits");
}
