//! Addresses and balances of a gateway whose engine for assets is stuck or broken, and invoices that take a wallet's coins away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitcoin::Psbt;
use serde_json::json;
use sluice::assets::fake::{FakeEngine, World};
use sluice::chain::fake::FakeChain;
use sluice::clock::Clock;
use sluice::flows::assets::learn;
use sluice::ports::PortError;
use sluice::ports::assets::{
    Asset, AssetEngine, AssetError, BegunTransfer, ColoredCoin, Consignment, NewAsset, NewReceive, NewTransfer,
    Receive, Refusal, RgbInvoice, Transfer, TransferKind, Verdict, WalletKeys,
};
use sluice::secret::Secret;

use crate::api::funded_on_fake;
use crate::harness::assets::side;
use crate::harness::client::Caller;
use crate::harness::gateway::Gateway;

/// An engine that may be stuck or broken, and counts what it is asked.
struct Moody {
    engine: Arc<FakeEngine>,
    is_stuck: AtomicBool,
    is_broken: AtomicBool,
    calls: AtomicUsize,
    lists: AtomicUsize,
    online: AtomicUsize,
    /// Its indexer is.
    is_away: AtomicBool,
}

impl Moody {
    async fn asked(&self) -> Result<(), AssetError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        while self.is_stuck.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(PortError::Unreachable { service: "the engine of a test", reason: "broken".to_owned() }.into());
        }
        Ok(())
    }
}

#[async_trait]
impl AssetEngine for Moody {
    fn read_invoice(&self, text: &str) -> Result<RgbInvoice, Refusal> {
        self.engine.read_invoice(text)
    }

    async fn learn_coins(&self, wallet: &WalletKeys, below: u32) -> Result<(), AssetError> {
        self.online.fetch_add(1, Ordering::SeqCst);
        self.asked().await?;
        if self.is_away.load(Ordering::SeqCst) {
            return Err(PortError::Unreachable { service: "the indexer of a test", reason: "away".to_owned() }.into());
        }
        self.engine.learn_coins(wallet, below).await
    }

    async fn next_index(&self, wallet: &WalletKeys) -> Result<u32, AssetError> {
        self.asked().await?;
        self.engine.next_index(wallet).await
    }

    async fn coins(&self, wallet: &WalletKeys) -> Result<Vec<ColoredCoin>, AssetError> {
        self.asked().await?;
        self.engine.coins(wallet).await
    }

    async fn issue(&self, wallet: &WalletKeys, new: NewAsset) -> Result<Asset, AssetError> {
        self.asked().await?;
        self.engine.issue(wallet, new).await
    }

    async fn assets(&self, wallet: &WalletKeys) -> Result<Vec<Asset>, AssetError> {
        self.asked().await?;
        self.engine.assets(wallet).await
    }

    async fn receive(&self, wallet: &WalletKeys, new: NewReceive) -> Result<Receive, AssetError> {
        self.asked().await?;
        self.engine.receive(wallet, new).await
    }

    async fn accept(&self, wallet: &WalletKeys, recipient: &str, bytes: Vec<u8>) -> Result<Verdict, AssetError> {
        self.asked().await?;
        self.engine.accept(wallet, recipient, bytes).await
    }

    async fn begin_transfer(&self, wallet: &WalletKeys, new: NewTransfer) -> Result<BegunTransfer, AssetError> {
        self.asked().await?;
        self.engine.begin_transfer(wallet, new).await
    }

    async fn end_transfer(&self, wallet: &WalletKeys, signed: &Psbt) -> Result<Vec<Consignment>, AssetError> {
        self.asked().await?;
        self.engine.end_transfer(wallet, signed).await
    }

    async fn acknowledged(&self, wallet: &WalletKeys, recipient: &str) -> Result<(), AssetError> {
        self.asked().await?;
        self.engine.acknowledged(wallet, recipient).await
    }

    async fn give_up(&self, wallet: &WalletKeys, batch: i32) -> Result<(), AssetError> {
        self.asked().await?;
        self.engine.give_up(wallet, batch).await
    }

    async fn refresh(&self, wallet: &WalletKeys) -> Result<(), AssetError> {
        self.asked().await?;
        self.engine.refresh(wallet).await
    }

    async fn transfers(&self, wallet: &WalletKeys) -> Result<Vec<Transfer>, AssetError> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.asked().await?;
        self.engine.transfers(wallet).await
    }

    async fn export(&self, wallet: &WalletKeys, password: &Secret) -> Result<Vec<u8>, AssetError> {
        self.asked().await?;
        self.engine.export(wallet, password).await
    }

    async fn try_out(&self, wallet: &WalletKeys) -> Result<(), AssetError> {
        self.asked().await?;
        self.engine.try_out(wallet).await
    }
}

async fn gateway() -> (Gateway, Arc<FakeChain>, Arc<Moody>, Caller) {
    let (gateway, chain) = Gateway::start_fake(&[]).await;
    let engine = FakeEngine::new(World::new(Clock::System), Arc::<FakeChain>::clone(&chain));
    let engine = Arc::new(Moody {
        engine,
        is_stuck: AtomicBool::new(false),
        is_broken: AtomicBool::new(false),
        calls: AtomicUsize::new(0),
        lists: AtomicUsize::new(0),
        online: AtomicUsize::new(0),
        is_away: AtomicBool::new(false),
    });
    gateway.flows().use_assets(side(Arc::clone(&engine) as _));
    let caller = gateway.registered(1).await;
    (gateway, chain, engine, caller)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_for_each_customer_while_the_engine_is_stuck() {
    let (_gateway, _chain, engine, caller) = gateway().await;
    engine.is_stuck.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    for customer in 0..30 {
        let body = json!({ "label": format!("customer {customer}") });
        let made = caller.post("/lightning/onchain-receive", body).await.ok();
        assert_eq!(made["asset_invoice"], "");
        caller.post("/lightning/receive", json!({ "asset_invoice": false })).await.ok();
    }
    assert_eq!(engine.calls.load(Ordering::SeqCst), 0, "nobody has asked for an asset");
    let shown = caller.get("/lightning/unused-addresses").await.ok();
    assert!(shown["addresses"].as_array().expect("a list").iter().all(|one| one["asset_invoice"] == ""));
    assert_eq!(engine.calls.load(Ordering::SeqCst), 0, "a list makes nothing");
    for _ in 0..3 {
        let current = caller.get("/lightning/onchain-receive").await.ok();
        assert_eq!(current["asset_invoice"], "", "it is not there yet");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}: an address waits for no engine", begun.elapsed());
    engine.is_stuck.store(false, Ordering::SeqCst);
    let current = caller.until("/lightning/onchain-receive", |current| current["asset_invoice"] != "").await;
    let again = caller.get("/lightning/onchain-receive").await.ok();
    assert_eq!(again["asset_invoice"], current["asset_invoice"], "made once");
    let made = engine.engine.transfers(&caller.wallet.keys).await.expect("the engine answers");
    assert_eq!(made.iter().map(|one| one.kind).collect::<Vec<_>>(), [TransferKind::ReceiveWitness]);
    assert_eq!(engine.lists.load(Ordering::SeqCst), 0, "no list of all transfers for the one that was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invoices_for_addresses_until_no_coin_is_left_for_assets() {
    let (_gateway, _chain, engine, caller) = gateway().await;
    for _ in 0..10 {
        let made = caller.post("/lightning/onchain-receive", json!({ "asset_invoice": true })).await.ok();
        assert_ne!(made["asset_invoice"], "");
    }
    let made = engine.engine.transfers(&caller.wallet.keys).await.expect("the engine answers");
    assert_eq!(made.len(), 10);
    assert!(made.iter().all(|one| one.kind == TransferKind::ReceiveWitness), "none takes a coin of the wallet's");
    assert_eq!(engine.lists.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balance_while_the_engine_is_broken() {
    let (_gateway, _chain, engine, caller) = gateway().await;
    let current = caller.until("/lightning/onchain-receive", |current| current["asset_invoice"] != "").await;
    assert_ne!(current["btc_address"], "");
    let told = caller.get("/lightning/balance").await.ok();
    assert_eq!((&told["asset_balances"], &told["asset_balances_known"]), (&json!([]), &json!(true)));
    engine.is_broken.store(true, Ordering::SeqCst);
    let told = caller.get("/lightning/balance").await.ok();
    assert_eq!((&told["asset_balances"], &told["asset_balances_known"]), (&json!([]), &json!(false)));
    assert_eq!(told["balance"]["vanilla"]["settled"], 0);
    let settled = caller.post_empty("/lightning/settle").await.ok();
    let rows = settled["results"].as_array().expect("a list");
    assert!(rows.iter().any(|row| row["type"] == "asset" && row["error"].is_string()), "{settled}");
    let made = caller.post("/lightning/onchain-receive", json!({ "asset_invoice": true })).await.ok();
    assert_eq!(made["asset_invoice"], "", "the address is there, and no invoice");
}

/// Each look would have waited for the indexer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_who_poll_when_there_are_new_coins() {
    let (gateway, chain, engine, caller) = gateway().await;
    let caller = funded_on_fake(&gateway, &chain, caller, &[100_000]).await;
    let begun = caller.post("/wallet/createutxosbegin", json!({ "num": 3, "size": 3_000, "fee_rate": 2 })).await.ok();
    caller.post("/wallet/createutxosend", json!({ "signed_psbt": caller.sign(&begun) })).await.ok();
    chain.mine(1);
    gateway.at_tip().await;
    assert_eq!(engine.online.load(Ordering::SeqCst), 0);
    engine.is_away.store(true, Ordering::SeqCst);
    for _ in 0..10 {
        let told = caller.get("/lightning/balance").await.ok();
        assert_eq!(told["asset_balances_known"], true, "what is known needs no indexer");
    }
    for _ in 0..3 {
        learn::learn_of_coins(gateway.flows()).await.expect("the worker's round");
    }
    assert_eq!(engine.online.load(Ordering::SeqCst), 1, "an indexer that has failed is left alone for a while");
    let known = engine.engine.coins(&caller.wallet.keys).await.expect("the engine answers");
    assert_eq!(known, Vec::new());
}
