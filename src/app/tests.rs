//! Whole gateways in this process, on a chain in memory.

use std::path::Path;
use std::time::Duration;

use bitcoin::Address;

use super::*;
use crate::chain::fake::{FakeChain, Fault};
use crate::config::{Override, Sources};
use crate::domain::wallet::WalletKeys;
use crate::flows::health::Rails;
use crate::flows::keys::{self, NewKey, Scope};
use crate::flows::{balance, register};
use crate::money::Sat;
use crate::store::owners::{Acquire, Role};

const PATIENCE: Duration = Duration::from_secs(30);
/// The all-zero test vector of BIP39: keys that anybody can check.
const MNEMONIC: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

fn config(folder: &Path, more: &[&str]) -> Config {
    let store = format!("store.url=sqlite:{}", folder.join("sluice.db").display());
    let usual = [
        store.as_str(),
        "http.listen=127.0.0.1:0",
        "operator.listen=127.0.0.1:0",
        "chain.poll_ms=20",
        "policy.lookahead=5",
    ];
    let flags = usual.iter().chain(more).map(|flag| Override::parse_flag(flag).unwrap()).collect();
    Config::load(&Sources { flags, ..Sources::default() }).unwrap()
}

async fn start_on(config: &Config, chain: &Arc<FakeChain>) -> Result<Running, StartError> {
    let chain: Arc<dyn ChainBackend> = Arc::<FakeChain>::clone(chain);
    start_with(config, chain, Clock::System).await
}

async fn until(health: &Health, what: impl Fn(&Rails) -> bool) -> Rails {
    let seen = tokio::time::timeout(PATIENCE, async {
        loop {
            let rails = health.rails();
            if what(&rails) {
                return rails;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    seen.await.unwrap_or_else(|_| panic!("it did not come to that: {:?}", health.rails()))
}

fn wallet() -> WalletKeys {
    let signer = sluice_signer::Signer::from_mnemonic(bitcoin::Network::Regtest, MNEMONIC, "").unwrap();
    let xpubs = signer.wallet_xpubs();
    let (van, col) = (xpubs.xpub_van.to_string(), xpubs.xpub_col.to_string());
    WalletKeys::parse(&van, &col, &xpubs.master_fingerprint.to_string(), bitcoin::Network::Regtest).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_follows_scans_and_goes_on_after_a_restart() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Arc::new(FakeChain::new()));
    let config = config(folder.path(), &[]);
    let running = start_on(&config, &chain).await.unwrap();
    let rails = until(&running.health, Rails::are_ready).await;
    assert_eq!(rails.lag(), Some(0));

    let keys = wallet();
    let registered = register::register(&running.flows, &keys, None).await.unwrap();
    let script = registered.address.parse::<Address<_>>().unwrap().assume_checked().script_pubkey();
    chain.pay(&script, Sat::literal(70_000)).unwrap();
    chain.mine(1);
    let arrived = tokio::time::timeout(PATIENCE, async {
        loop {
            let balances = balance::balances(&running.flows, &keys.id()).await.unwrap();
            if balances.vanilla.settled == Sat::literal(70_000) && !balances.scanning {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    arrived.await.unwrap();
    running.stop().await;

    chain.mine(3);
    let again = start_on(&config, &chain).await.unwrap();
    // A gateway is ready a block or two before it has caught up.
    let rails = until(&again.health, |rails| rails.are_ready() && rails.lag() == Some(0)).await;
    assert_eq!(rails.chain.cursor.map(|cursor| cursor.height), Some(chain.tip().height));
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_a_killed_process_held_is_taken_at_once_on_sqlite() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Arc::new(FakeChain::new()));
    let config = config(folder.path(), &[]);
    let killed = open(&config).await.unwrap();
    let held = Acquire { role: Role::Chain, holder: "the killed one".to_owned() };
    assert!(killed.store().write(held).await.unwrap().is_some());
    killed.store().close().await;
    drop(killed);
    let started = std::time::Instant::now();
    let running = start_on(&config, &chain).await.unwrap();
    until(&running.health, Rails::are_ready).await;
    assert!(started.elapsed() < store::owners::LEASE, "the lease was waited out");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_down_is_no_reason_not_to_start() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Arc::new(FakeChain::new()));
    chain.set_fault(Fault::Down);
    let running = start_on(&config(folder.path(), &[]), &chain).await.unwrap();
    let rails = until(&running.health, |rails| rails.store.ok && rails.chain.reason.is_some()).await;
    assert!(!rails.are_ready() && !rails.chain.connected);
    chain.set_fault(None);
    until(&running.health, Rails::are_ready).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_network_is_refused_at_start_and_not_followed_later() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Arc::new(FakeChain::new()));
    chain.set_fault(Fault::WrongNetwork);
    let config = config(folder.path(), &[]);
    assert!(matches!(start_on(&config, &chain).await, Err(StartError::WrongNetwork { .. })));

    chain.set_fault(None);
    let running = start_on(&config, &chain).await.unwrap();
    let before = until(&running.health, Rails::are_ready).await.chain.cursor;
    chain.set_fault(Fault::WrongNetwork);
    // Two workers find out, each in its own round.
    let says_why = |rails: &Rails| rails.chain.reason.as_ref().is_some_and(|why| why.contains("another network"));
    until(&running.health, |rails| !rails.chain.connected && says_why(rails)).await;
    // Past the time for which the node's last word is believed.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    chain.mine(2);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(running.health.rails().chain.cursor, before);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_stays_with_its_network_and_with_one_process() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Arc::new(FakeChain::new()));
    let running = start_on(&config(folder.path(), &[]), &chain).await.unwrap();
    let second = open(&config(folder.path(), &[])).await.map(drop).unwrap_err();
    assert!(matches!(second, StartError::InUse(_)), "{second}");
    running.stop().await;
    let other = start_on(&config(folder.path(), &["chain.network=signet", "auth.mode=key"]), &chain)
        .await
        .map(drop)
        .unwrap_err();
    assert!(matches!(other, StartError::Store(StoreError::WrongNetwork { .. })), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listens_to_the_world_without_keys() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Arc::new(FakeChain::new()));
    let config = config(folder.path(), &["http.listen=0.0.0.0:0"]);
    let refused = start_on(&config, &chain).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("sluice keys create"), "{refused}");

    let flows = open(&config).await.unwrap();
    let key = NewKey { name: "first".to_owned(), scopes: vec![Scope::Read], wallets: Vec::new(), expires_at: None };
    keys::create(&flows, key).await.unwrap();
    flows.store().close().await;
    drop(flows);
    start_on(&config, &chain).await.unwrap().stop().await;
}
