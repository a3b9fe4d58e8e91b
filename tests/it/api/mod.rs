//! Stories over HTTP: a whole gateway, a real node, both databases.

mod admin;
mod asset_exports;
mod auth;
mod bad_input;
mod idempotency;
mod lightning;
mod limits;
mod liquidity;
mod lists;
mod mutated;
mod not_offered;
mod operator_desk;
mod proxy;
mod secrets;
mod sends;
mod spellings;
mod spending_keys;
mod sync;
mod versions;

use bitcoin::{Address, Txid};
use serde_json::{Value, json};
use sluice::chain::fake::FakeChain;
use sluice::money::Sat;

use crate::harness::bitcoind::Bitcoind;
use crate::harness::client::{Call, Caller};
use crate::harness::gateway::{Gateway, eventually};
use crate::harness::rig::{Database, parse_address};

/// Runs stories on both databases.
macro_rules! on_both {
    ($($(#[$with:meta])* $story:ident),+ $(,)?) => {$(
        mod $story {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                $crate::api::tell($crate::harness::rig::Database::Sqlite, super::$story).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                $crate::api::tell($crate::harness::rig::Database::Postgres, super::$story).await;
            }
        }
    )+};
}
use on_both;

/// Where a story takes place: a node and a gateway that follows it.
struct Scene {
    node: Bitcoind,
    gateway: Gateway,
}

/// Tells a story, and then looks at the books.
async fn tell(database: Database, story: impl AsyncFnOnce(&Scene)) {
    let Some(scene) = Scene::start(database, &[]).await else { return };
    story(&scene).await;
    scene.gateway.stop().await;
}

impl Scene {
    async fn start(database: Database, overrides: &[&str]) -> Option<Self> {
        let node = Bitcoind::start().await?;
        let gateway = Gateway::start(&node, database, overrides).await?;
        Some(Self { node, gateway })
    }

    /// A registered wallet with coins of these amounts in a block.
    async fn funded(&self, wallet: u32, coins: &[u64]) -> Caller {
        let caller = self.gateway.registered(wallet).await;
        for sat in coins {
            let made = caller.post_empty("/lightning/onchain-receive").await.ok();
            self.pay(&made["btc_address"], *sat).await;
        }
        self.mine(1).await;
        caller
    }

    async fn pay(&self, address: &Value, sat: u64) -> Txid {
        let address = parse_address(address.as_str().expect("an address"));
        self.node.pay(&address, Sat::new(sat).expect("an amount")).await
    }

    /// Mines what waits, and lets the gateway see it.
    async fn mine(&self, blocks: u32) {
        self.node.mine(blocks).await;
        self.gateway.at_tip().await;
    }

    async fn stranger(&self) -> Address {
        self.node.new_address().await
    }

    /// Until the node's mempool has a transaction.
    async fn in_mempool(&self, txid: &str) {
        eventually("the node has the transaction", async || {
            self.node.try_rpc("getmempoolentry", json!([txid])).await.ok().map(drop)
        })
        .await;
    }

    /// What a transaction of the last block pays to an address.
    async fn paid_to_in_block(&self, txid: &str, address: &Address) -> u64 {
        let raw = self.node.rpc("getrawtransaction", json!([txid, false, self.node.tip().await.hash])).await;
        paid(&raw, address)
    }

    /// What a transaction of the mempool pays to an address, in satoshis, as the node sees it.
    async fn paid_to(&self, txid: &str, address: &Address) -> u64 {
        let raw = self.node.rpc("getrawtransaction", json!([txid, false])).await;
        paid(&raw, address)
    }
}

fn paid(raw: &Value, address: &Address) -> u64 {
    let tx: bitcoin::Transaction =
        bitcoin::consensus::encode::deserialize_hex(raw.as_str().expect("hex")).expect("a transaction");
    let script = address.script_pubkey();
    tx.output.iter().filter(|out| out.script_pubkey == script).map(|out| out.value.to_sat()).sum()
}

/// A wallet with coins of these amounts in blocks of a chain in memory.
pub async fn funded_on_fake(gateway: &Gateway, chain: &FakeChain, caller: Caller, coins: &[u64]) -> Caller {
    for sat in coins {
        let made = caller.post_empty("/lightning/onchain-receive").await.ok();
        let address = parse_address(made["btc_address"].as_str().expect("an address"));
        let sat = Sat::new(*sat).expect("an amount");
        chain.fund_confirmed(&address.script_pubkey(), sat).expect("the fake pays");
    }
    gateway.at_tip().await;
    caller
}

/// A send as `onchain-send-begin` takes it.
fn send_of(to: &Address, sat: u64) -> Value {
    json!({ "address_or_rgbinvoice": to.to_string(), "amount_sats": sat, "fee_rate": 2 })
}

/// Begins and ends a send; its id and its transaction.
async fn sent(caller: &Caller, to: &Address, sat: u64) -> (String, String) {
    let begun = caller.call(Call::post("/lightning/onchain-send-begin", &send_of(to, sat)).for_object()).await.ok();
    let ended = caller.post("/lightning/onchain-send-end", json!({ "signed_psbt": caller.sign(&begun) })).await.ok();
    assert_eq!(ended["status"], "BROADCASTED");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    (text(&begun["request_id"]), text(&ended["txid"]))
}

/// The names of an object's fields, in the order of the alphabet.
fn fields(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}
