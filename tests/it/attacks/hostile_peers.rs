//! Peers and payees that break what a payer trusts in, on LDK and a real chain, and the built-in node between them.

use serde_json::json;
use sluice::app::LoneNode;
use sluice::config::Config;
use sluice::money::{Amount, Sat};
use sluice::ports::lightning::{
    Asked, ClaimOutcome, Description, Destination, Fetched, LightningNode, NewChannel, NewInvoice, PayFailure,
    PayOutcome, Payment, PaymentHash, PaymentId, Preimage, Quote,
};
use sluice::secret::Secret;
use tempfile::TempDir;

use crate::harness::bitcoind::Bitcoind;
use crate::harness::lightning::{msat, sat};
use crate::harness::peer::{LdkPeer, eventually, stays};
use crate::harness::ports::free_address;
use crate::harness::rig::stranger;

const CAPACITY: Sat = Sat::literal(2_000_000);
const PUSHED: Amount = Amount::from_sat(Sat::literal(500_000));
const BURIED: u32 = 6;

/// A node, and a channel from it to somebody who means it ill.
struct Scene {
    bitcoind: Bitcoind,
    lone: LoneNode,
    hostile: LdkPeer,
    _folder: TempDir,
}

impl Scene {
    /// `None` after a loud skip where something is missing.
    async fn set(options: &[&str]) -> Option<Self> {
        Self::ticking(options, Config::default().ldk.tick_seconds).await
    }

    /// Where LDK's clock goes at another pace: what it would give up within half a minute it gives up sooner.
    async fn ticking(options: &[&str], tick_seconds: u64) -> Option<Self> {
        let bitcoind = Bitcoind::start().await?;
        let hostile = LdkPeer::start_hostile(&bitcoind, options).await?;
        let folder = TempDir::with_prefix("sluice-hostile-").expect("a temporary folder");
        let mut config = Config::default();
        config.store.url = Secret::new(format!("sqlite:{}", folder.path().join("node.db").display()));
        config.chain.bitcoind = bitcoind.config();
        config.ldk.enabled = true;
        config.ldk.listen = Some(free_address());
        config.ldk.seed_file = folder.path().join("node.seed");
        config.ldk.poll_ms = 100;
        config.ldk.tick_seconds = tick_seconds;
        let lone = LoneNode::start(&config).await.expect("the node starts");
        let scene = Self { bitcoind, lone, hostile, _folder: folder };
        scene.open().await;
        Some(scene)
    }

    fn node(&self) -> &dyn LightningNode {
        &*self.lone.node
    }

    async fn mine(&self, blocks: u32) {
        self.bitcoind.mine_to(blocks, &stranger()).await;
    }

    async fn open(&self) {
        let address = self.node().onchain_address().await.expect("an address");
        self.bitcoind.pay(&address, Sat::literal(3_000_000)).await;
        self.mine(1).await;
        eventually("the coins are there", async || {
            (self.node().balance().await.expect("an answer").onchain_confirmed > Sat::ZERO).then_some(())
        })
        .await;
        let peer = self.hostile.id();
        assert_eq!(self.node().connect(peer, self.hostile.listens()).await, Ok(Asked::Done(())));
        let new = NewChannel { peer, amount: CAPACITY, push: PUSHED, announced: false };
        let opened = self.node().open_channel(&new).await.expect("an answer");
        assert!(matches!(opened, Asked::Done(_)), "{opened:?}");
        eventually("the funding waits", async || {
            let waiting = self.bitcoind.rpc("getrawmempool", json!([])).await;
            waiting.as_array().is_some_and(|all| !all.is_empty()).then_some(())
        })
        .await;
        self.mine(BURIED).await;
        eventually("both ends use the channel", async || {
            let ours = self.node().channels().await.expect("an answer").iter().any(|channel| channel.usable);
            let theirs = self.hostile.call("channels", json!({})).await;
            (ours && theirs[0]["usable"] == true).then_some(())
        })
        .await;
    }

    /// What is ours in channels, and what of it is on its way.
    async fn money(&self) -> (Amount, Amount) {
        let balance = self.node().balance().await.expect("an answer");
        (balance.channels, balance.in_flight)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_that_is_answered_with_a_static_invoice_is_not_paid() {
    let Some(scene) = Scene::set(&[]).await else { return };
    let before = scene.money().await;
    let offer = scene.hostile.call("offer_static", json!({})).await;
    let offer = offer.as_str().expect("a text");
    let fetched = scene.node().fetch_invoice(offer, Some(sat(100_000)), None).await.expect("an answer");
    let Fetched::Refused { reason } = fetched else { panic!("{fetched:?}") };
    assert!(reason.contains("static"), "{reason}");
    let lured = scene.hostile.call("lured", json!({})).await;
    // LDK may ask over more than one path.
    assert!(lured["asked"].as_u64() >= Some(1), "it was asked, and answered: {lured}");
    // It would tell us to pay as soon as it hears that something is held for it.
    stays("nothing is paid", std::time::Duration::from_secs(2), async || {
        let lured = scene.hostile.call("lured", json!({})).await;
        lured["held"] == 0 && scene.money().await == before
    })
    .await;
    scene.lone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payee_that_takes_only_three_times_the_amount_gets_nothing() {
    let asked = sat(10_000);
    let Some(scene) = Scene::set(&["--htlc-minimum-msat", "30000000"]).await else { return };
    let before = scene.money().await;
    let invoice = scene.hostile.call("invoice", json!({ "msat": asked.base_units() })).await;
    let invoice = invoice.as_str().expect("a text").to_owned();
    let hash = invoice.parse::<lightning_invoice::Bolt11Invoice>().expect("an invoice").payment_hash().0;
    let destination = Destination::Bolt11(invoice);
    let quote = scene.node().quote(&destination, asked).await.expect("an answer");
    assert!(matches!(quote, Quote::NoRoute { .. }), "{quote:?}");
    let payment = Payment {
        id: PaymentId(rand::random()),
        hash: PaymentHash(hash),
        destination,
        amount: asked,
        max_fee: sat(20_000),
    };
    let outcome = scene.node().pay(&payment).await;
    assert_eq!(outcome, PayOutcome::Failed(PayFailure::NoLiquidity));
    assert_eq!(scene.hostile.call("claimed", json!({})).await, json!({}));
    assert_eq!(scene.money().await, before);
    scene.lone.stop().await;
}

/// Eight seconds are more than three ticks here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payer_whose_second_part_is_late_is_waited_for() {
    let Some(scene) = Scene::ticking(&[], 2).await else { return };
    let preimage = Preimage::fresh();
    let new = NewInvoice {
        hash: preimage.hash(),
        amount: Some(sat(20_000)),
        description: Description::Text("in two parts".to_owned()),
        expires_in: std::time::Duration::from_secs(600),
    };
    let invoice = scene.node().create_invoice(&new).await.expect("an invoice");
    let part = json!({ "invoice": invoice, "msat": 10_000_000, "total_msat": 20_000_000 });
    scene.hostile.call("pay_part", part.clone()).await;
    stays("the first part waits", std::time::Duration::from_secs(8), async || {
        scene.hostile.call("ended", json!({})).await == json!({})
    })
    .await;
    scene.hostile.call("pay_part", part).await;
    let held = eventually("both parts are there", async || {
        scene.node().incoming(preimage.hash()).await.expect("an answer").held
    })
    .await;
    assert_eq!(held.amount, sat(20_000));
    assert_eq!(scene.node().claim(preimage.hash(), Some(preimage)).await, Ok(ClaimOutcome::Claiming));
    eventually("it is claimed", async || scene.node().incoming(preimage.hash()).await.expect("an answer").claimed)
        .await;
    assert!(scene.money().await.0 >= msat(1));
    scene.lone.stop().await;
}
