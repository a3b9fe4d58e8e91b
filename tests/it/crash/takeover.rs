//! A gateway that runs the node and is paused: another one takes the node over, and the paused one ends before it says anything to a peer.

use std::time::Instant;

use bitcoin::secp256k1::PublicKey;
use serde_json::json;
use sluice::app::LoneNode;
use sluice::config::Config;
use sluice::money::Sat;
use sluice::ports::lightning::LightningNode;
use sluice::secret::Secret;

use super::say;
use crate::harness::bitcoind::Bitcoind;
use crate::harness::lightning::sat;
use crate::harness::peer::{LdkPeer, Opening, PeerPayment, Ported, eventually};
use crate::harness::ports::free_address;
use crate::harness::process::{Answer, Call, Gateway, Site, died_at_its_point};
use crate::harness::rig::{Client, Database};

const CHANNEL: Opening = Opening { amount: Sat::literal(2_000_000), push: sat_of(1_000_000), announced: false };

const fn sat_of(n: u64) -> sluice::money::Amount {
    sluice::money::Amount::from_sat(Sat::literal(n))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_gateway_loses_the_node_and_the_channel_lives_on() {
    let Some(bitcoind) = Bitcoind::start().await else { return };
    let Some(peer) = LdkPeer::start(&bitcoind, "peer").await else { return };
    let Some(site) = Site::new(Database::Postgres, &bitcoind).await else { return };
    let seed = site.folder().join("node.seed");
    let site =
        site.with("ldk.enabled", "true").with("ldk.seed_file", seed.display().to_string()).with("ldk.poll_ms", "200");
    // Two on one machine can't listen at the same address, as two machines would.
    let (first, second) = (
        site.clone().with("ldk.listen", free_address().to_string()),
        site.clone().with("ldk.listen", free_address().to_string()),
    );
    let node = prepare(&bitcoind, &first, &peer).await;

    let first = Gateway::start(&first).await;
    first.wait_health("it runs the node", |answer| answer.body["rails"]["lightning"]["ready"] == true).await;
    let second = Gateway::start(&second).await;
    second.wait_ready().await;
    let client = Client::number(1);
    first.until("it registers", &Call::post("/wallet/register", &client), Answer::is_ok).await;
    let mut had = paid_by(&peer, &first, &client, 0).await;
    let refused = second.answer(&invoice(&client)).await;
    assert_eq!((refused.status, refused.text("error")), (503, "lightning_not_ready"), "only one has the node");

    first.freeze();
    let paused = Instant::now();
    second.wait_health("it takes the node over", |answer| answer.body["rails"]["lightning"]["ready"] == true).await;
    say(&format!("a paused gateway lost its node after {:.1?}", paused.elapsed()));
    usable(&peer, node).await;
    had = paid_by(&peer, &second, &client, had).await;

    first.thaw();
    let status = first.wait_exit().await;
    assert!(died_at_its_point(status), "it did not abort: {status}\n{}", first.log());
    had = paid_by(&peer, &second, &client, had).await;
    assert_eq!(had, 3 * 5_000_000);
    let channels = peer.channels_with(node).await;
    assert!(channels.len() == 1 && channels[0].usable, "{channels:?}");
    second.terminate().await;
    assert_eq!(site.audit().await, 0);
}

/// A channel with the peer, before any gateway runs.
async fn prepare(bitcoind: &Bitcoind, site: &Site, peer: &LdkPeer) -> PublicKey {
    let mut config = Config::default();
    config.store.url = Secret::new(site.store_url());
    config.chain.bitcoind = bitcoind.config();
    config.ldk.enabled = true;
    config.ldk.seed_file = site.folder().join("node.seed");
    config.ldk.listen = site.setting("ldk.listen").and_then(|text| text.parse().ok());
    config.ldk.poll_ms = 100;
    let lone = LoneNode::start(&config).await.expect("the node starts");
    let id = lone.node.id();
    peer.fund(bitcoind, Sat::literal(5_000_000)).await;
    // From our side, so that we know where the peer is.
    let connected = lone.node.connect(peer.id(), peer.listens()).await.expect("an answer");
    assert!(matches!(connected, sluice::ports::lightning::Asked::Done(())), "{connected:?}");
    let listens = lone.node.listen_addr().expect("it listens").to_string();
    peer.open_channel(bitcoind, &Ported(lone.node.as_ref()), &listens, CHANNEL).await;
    lone.stop().await;
    id
}

fn invoice(client: &Client) -> Call {
    Call::post("/lightning/create-invoice", client).json(json!({ "amount_sats": 5_000 }))
}

async fn usable(peer: &LdkPeer, node: PublicKey) {
    eventually("the peer uses the channel", async || {
        peer.channels_with(node).await.iter().any(|channel| channel.usable).then_some(())
    })
    .await;
}

/// The peer pays an invoice of this gateway; answers what the wallet has then, in millisatoshi.
async fn paid_by(peer: &LdkPeer, gateway: &Gateway, client: &Client, had: u64) -> u64 {
    let order = gateway.until("it makes an invoice", &invoice(client), Answer::is_ok).await;
    let sent = eventually("the peer can send", async || peer.pay(order.text("invoice"), None).await.ok()).await;
    eventually("the payment arrives", async || match peer.payment(&sent).await {
        Some(PeerPayment::Succeeded { .. }) => Some(()),
        Some(PeerPayment::Failed { reason }) => panic!("the payment failed: {reason}\n{}", gateway.log()),
        Some(PeerPayment::Pending) | None => None,
    })
    .await;
    let has = had + sat(5_000).base_units();
    let read = Call::get("/lightning/balance", client);
    gateway
        .until("it is credited", &read, |answer| answer.body["balance"]["offchain_balance"]["total_msat"] == has)
        .await;
    has
}
