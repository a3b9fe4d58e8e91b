//! Two wallets that are nobody's customers pay each other an asset. All that they share is the gateway's consignment proxy and the
//! project's own indexer, so both serve wallets that were made elsewhere.

use serde_json::json;
use sluice::flows::consignments;

use crate::harness::bitcoind::Bitcoind;
use crate::harness::esplora::Esplora;
use crate::harness::gateway::Gateway;
use crate::harness::rgb_wallet::{Asked, Held, RgbWallet, carry};
use crate::harness::rig::Database;

const SUPPLY: u64 = 1_000;

struct Scene {
    node: Bitcoind,
    gateway: Gateway,
    alice: RgbWallet,
    bob: RgbWallet,
    endpoint: String,
    asset: String,
    _esplora: Esplora,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Onto {
    OwnCoin,
    NewCoin,
}

async fn scene() -> Option<Scene> {
    let node = Bitcoind::start().await?;
    let esplora = Esplora::start(&node).await;
    let alice = RgbWallet::start(&node, &esplora).await?;
    let bob = RgbWallet::start(&node, &esplora).await?;
    let gateway = Gateway::start(&node, Database::Sqlite, &["auth.mode=key", "proxy.enabled=true"]).await?;
    let endpoint = format!("{}/json-rpc", gateway.url.replace("http://", "rpc://"));
    let asset = alice.issue_nia("TEST", "Test asset", 2, &[SUPPLY]).await;
    Some(Scene { node, gateway, alice, bob, endpoint, asset, _esplora: esplora })
}

impl Scene {
    /// One pays the other, from the invoice to the block.
    async fn pay(&self, payer: &RgbWallet, payee: &RgbWallet, onto: Onto, amount: u64) {
        // A payee that has never had the asset can't name it.
        let knows = payee.assets().await.contains(&self.asset);
        let endpoints = [self.endpoint.as_str()];
        let asset = knows.then_some(self.asset.as_str());
        let asked = Asked { asset, amount: Some(amount), endpoints: &endpoints, ..Asked::default() };
        let invoice = match onto {
            Onto::OwnCoin => payee.blind_receive(asked).await,
            Onto::NewCoin => payee.witness_receive(asked).await,
        };
        let read = payer.read_invoice(&invoice.invoice).await;
        assert_eq!((&read.recipient, read.amount), (&invoice.recipient, Some(amount)));
        assert_eq!(read.endpoints, endpoints);
        let kind = if onto == Onto::NewCoin { "RECEIVE_WITNESS" } else { "RECEIVE_BLIND" };
        let sent = payer.pay(&invoice.invoice, &self.asset, amount).await;
        assert_eq!(self.word(&invoice.recipient).await, None, "the payee has not looked yet");
        carry(&self.node, payer, payee).await;
        assert_eq!(self.word(&invoice.recipient).await, Some(true));
        for (wallet, kind) in [(payer, "SEND"), (payee, kind)] {
            let transfer = wallet.transfer_of(&self.asset, &invoice.recipient).await;
            assert_eq!((transfer.status.as_str(), transfer.kind.as_str()), ("SETTLED", kind));
            assert_eq!(transfer.txid, Some(sent.txid));
        }
    }

    /// What the proxy knows the recipient to have said of the consignment that it keeps.
    async fn word(&self, recipient: &str) -> Option<bool> {
        let kept = consignments::find(self.gateway.flows(), recipient).await.expect("the store answers");
        kept.expect("the consignment went through the gateway").ack
    }

    async fn hold(&self, alice: u64, bob: u64) {
        assert_eq!(alice + bob, SUPPLY);
        for (wallet, amount) in [(&self.alice, alice), (&self.bob, bob)] {
            let all = Held { settled: amount, future: amount, spendable: amount };
            assert_eq!(wallet.balance(&self.asset).await, all);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wallets_of_others_pay_each_other_through_the_gateways_proxy() {
    let Some(scene) = scene().await else { return };
    let Scene { alice, bob, .. } = &scene;
    scene.pay(alice, bob, Onto::OwnCoin, 300).await;
    scene.hold(700, 300).await;
    scene.pay(bob, alice, Onto::NewCoin, 120).await;
    scene.hold(820, 180).await;
    scene.pay(alice, bob, Onto::NewCoin, 400).await;
    scene.hold(420, 580).await;
    scene.pay(bob, alice, Onto::OwnCoin, 580).await;
    scene.hold(1_000, 0).await;
    scene.gateway.stop().await;
}

/// A payee whose word was not asked for: the proxy keeps a no, and the payer broadcasts nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_that_is_declined_is_given_up() {
    let Some(scene) = scene().await else { return };
    let Scene { gateway, alice, bob, asset, endpoint, .. } = &scene;
    let endpoints = [endpoint.as_str()];
    let invoice = bob.blind_receive(Asked { amount: Some(300), endpoints: &endpoints, ..Asked::default() }).await;
    alice.pay(&invoice.invoice, asset, 300).await;
    let params = json!({ "recipient_id": invoice.recipient, "ack": false });
    let no = json!({ "jsonrpc": "2.0", "id": "1", "method": "ack.post", "params": params });
    gateway.caller(1).without_wallet().post("/json-rpc", no).await.ok();
    assert_eq!(scene.word(&invoice.recipient).await, Some(false));
    alice.refresh().await;
    assert_eq!(alice.transfer_of(asset, &invoice.recipient).await.status, "FAILED");
    scene.node.mine(1).await;
    assert_eq!(alice.balance(asset).await, Held { settled: SUPPLY, future: SUPPLY, spendable: SUPPLY });
    assert_eq!(bob.assets().await, Vec::<String>::new());
    scene.gateway.stop().await;
}
