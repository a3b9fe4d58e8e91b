//! A gateway with an engine for assets, on a chain with an indexer, and wallets that have bitcoin.

use serde_json::{Value, json};
use sluice::money::Sat;

use crate::harness::bitcoind::Bitcoind;
use crate::harness::esplora::Esplora;
use crate::harness::process::{Answer, Call, Gateway, Site};
use crate::harness::rig::{Client, Database, parse_address};

const COINS: u64 = 200_000;

pub struct Scene {
    pub node: Bitcoind,
    pub esplora: Option<Esplora>,
    pub gateway: Gateway,
    /// The wallet that is spoken of unless another one is named.
    pub client: Client,
}

/// A scene with one wallet.
pub async fn scene(database: Database) -> Option<Scene> {
    scene_with(database, &[]).await
}

/// The same with further settings of the gateway.
pub async fn scene_with(database: Database, settings: &[(&str, &str)]) -> Option<Scene> {
    let node = Bitcoind::start().await?;
    let esplora = Esplora::start(&node).await;
    let site =
        Site::new(database, &node).await?.with("assets.indexer", esplora.url()).with("assets.data_dir", "assets");
    let site = settings.iter().fold(site, |site, (key, value)| site.with(key, *value));
    let gateway = Gateway::start(&site).await;
    gateway.wait_synced(&node).await;
    let scene = Scene { node, esplora: Some(esplora), gateway, client: Client::number(1) };
    scene.join(&scene.client).await;
    Some(scene)
}

impl Scene {
    /// Registers a wallet and gives it bitcoin.
    pub async fn join(&self, client: &Client) {
        self.ok(&Call::post("/wallet/register", client)).await;
        let address = self.ok(&Call::post("/wallet/address", client)).await;
        let coins = Sat::new(COINS).expect("an amount");
        self.node.pay(&parse_address(address.as_str().expect("an address")), coins).await;
        self.mine().await;
    }

    pub fn post(&self, path: &str, body: Value) -> Call {
        Call::post(path, &self.client).json(body)
    }

    pub async fn ok(&self, call: &Call) -> Value {
        self.gateway.answer(call).await.ok()
    }

    pub async fn mine(&self) {
        self.node.mine(1).await;
        self.gateway.wait_synced(&self.node).await;
    }

    pub async fn refused(&self, call: &Call, status: u16, code: &str) -> Value {
        let answer = self.gateway.answer(call).await;
        assert_eq!((answer.status, answer.body["error"].as_str()), (status, Some(code)), "{:?}", answer.body);
        answer.body
    }

    pub async fn make_coins(&self, body: Value) -> u64 {
        self.make_coins_for(&self.client, body).await
    }

    pub async fn make_coins_for(&self, client: &Client, body: Value) -> u64 {
        let begun = self.ok(&Call::post("/wallet/createutxosbegin", client).json(body)).await;
        let signed = json!({ "signed_psbt": client.sign(begun.as_str().expect("a PSBT")) });
        let made = self.ok(&Call::post("/wallet/createutxosend", client).json(signed.clone())).await;
        assert_eq!(made, self.ok(&Call::post("/wallet/createutxosend", client).json(signed)).await);
        self.mine().await;
        made.as_u64().expect("a number")
    }

    /// Asks until the answer is as it should be.
    pub async fn until(&self, what: &str, call: &Call, is_so: impl Fn(&Value) -> bool) -> Value {
        self.gateway.until(what, call, |answer: &Answer| answer.is_ok() && is_so(&answer.body)).await.ok()
    }

    pub async fn end(self) {
        self.gateway.terminate().await;
        self.gateway.site.audit().await;
    }
}
