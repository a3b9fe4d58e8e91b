//! A node that is given an old state of its channels: its peers may take everything that is in them.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::Network;
use sluice::chain::bitcoind;
use sluice::clock::Clock;
use sluice::connectors::ldk::{Config, LdkError, LdkNode, Rpc};
use sluice::ports::lightning::LightningNode;
use sluice::secret::Secret;
use sluice::store::node::{Commit, Step};
use sluice::store::owners::{Acquire, Ownership, Resign, Role};
use sluice::store::{self, Store, StoreError, Tx, Write};

use crate::harness::bitcoind::Bitcoind;
use crate::harness::postgres;

/// What holds the state of the node and of its channels.
const TABLES: [&str; 4] = ["node_state", "node_updates", "node_wallet", "node_commits"];

struct Sql(Vec<String>);

#[async_trait]
impl Write for Sql {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        for statement in &self.0 {
            sqlx::query(sqlx::AssertSqlSafe(statement.clone())).execute(tx.conn()).await?;
        }
        Ok(())
    }
}

async fn sql(store: &Store, statement: impl Fn(&str) -> Vec<String>) {
    store.write(Sql(TABLES.iter().flat_map(|table| statement(table)).collect())).await.expect("it is written");
}

async fn open(url: &str) -> (Store, Ownership) {
    let config = store::Config { url: Secret::new(url.to_owned()), ..store::Config::default() };
    let store = Store::open(&config, Clock::System).await.expect("a store");
    let acquire = Acquire { role: Role::Node, holder: "node".to_owned() };
    let owner = store.write(acquire).await.expect("written").expect("nobody has it");
    (store, owner)
}

async fn start(folder: &Path, bitcoind: &Bitcoind, store: &Store, owner: Ownership) -> Result<Arc<LdkNode>, LdkError> {
    let config = Config { enabled: true, seed_file: folder.join("node.seed"), poll_ms: 100, ..Config::default() };
    let chain = Arc::new(bitcoind::Bitcoind::new(&bitcoind.config()).expect("a backend"));
    let rpc = Rpc { url: bitcoind.url(), cookie_file: Some(bitcoind.cookie_file()), user: None, password: None };
    LdkNode::start(&config, Network::Regtest, rpc, chain, store.clone(), owner).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_lost_the_last_second_is_not_taken_for_the_one_it_replaces() {
    let (Some(bitcoind), Some(url)) = (Bitcoind::start().await, postgres::database().await) else { return };
    let folder = tempfile::TempDir::with_prefix("sluice-old-").expect("a folder");
    let generation = folder.path().join("node.generation");

    let (store, owner) = open(&url).await;
    let node = start(folder.path(), &bitcoind, &store, owner.clone()).await.expect("a node");
    node.onchain_address().await.expect("an address");
    // A standby has got so much. What comes after it is committed, and told to others.
    sql(&store, |table| vec![format!("CREATE TABLE old_{table} AS SELECT * FROM {table}")]).await;
    let minute = std::fs::read(&generation).expect("its generation");
    node.onchain_address().await.expect("another address");
    node.stop().await;
    sql(&store, |table| vec![format!("DELETE FROM {table}"), format!("INSERT INTO {table} SELECT * FROM old_{table}")])
        .await;
    // A process that was killed has not raised the generation at its end.
    std::fs::write(&generation, minute).expect("written");
    store.write(Resign(owner)).await.expect("written");
    store.close().await;

    let (store, owner) = open(&url).await;
    let refused = start(folder.path(), &bitcoind, &store, owner.clone()).await;
    assert!(matches!(refused, Err(LdkError::OldDatabase { .. })), "{:?}", refused.err());
    // A node that runs finds out with its next commit.
    let lost = Commit { owner, steps: Arc::new(vec![Step::Counted { from: 1_000, to: 1_001 }]) };
    let lost = store.write(lost).await.expect_err("the commits before it are gone");
    assert!(lost.to_string().contains("last commits"), "{lost}");
    store.close().await;
}
