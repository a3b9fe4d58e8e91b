//! The suite on the node that is built in, with independent peers on the regtest of a real bitcoind. Each group has a world of its own, and
//! its functions run one after the other in it.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use sluice::app::LoneNode;
use sluice::config::Config;
use sluice::money::{Amount, Sat};
use sluice::ports::lightning::{Asked, Destination, LightningNode, PaymentHash, Preimage, Quote};
use sluice::secret::Secret;
use tempfile::TempDir;

use super::{AMOUNT, Counterpart, Rig, Sent, World, msat, suite};
use crate::harness::bitcoind::Bitcoind;
use crate::harness::peer::{DEADLINE, LdkPeer, Opening, PeerPayment, Ported, eventually};
use crate::harness::ports::free_address;
use crate::harness::rig::stranger;

const CHANNEL: Opening = Opening { amount: Sat::literal(2_000_000), push: msat(1_000_000_000), announced: true };
const FUNDS: Sat = Sat::literal(6_000_000);
/// What the peer in the middle takes: base in millisatoshi, and millionths.
const FEES: &str = "1000:500";

/// Waits for a condition. A macro, because a closure's future can't be sent between threads here.
macro_rules! wait_until {
    ($what:expr, $holds:expr) => {
        let deadline = std::time::Instant::now() + DEADLINE;
        while !$holds {
            assert!(std::time::Instant::now() < deadline, "not in time: {}", $what);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
}

/// So often it is asked whether word has come around, before it is taken for lost.
const PATIENCE: u32 = 40;

struct LdkRig {
    bitcoind: Bitcoind,
    config: Config,
    running: Mutex<Option<LoneNode>>,
    near: Peer,
    far: Peer,
    _folder: TempDir,
}

struct Peer(LdkPeer);

/// `None` after a loud skip where something is missing.
async fn world() -> Option<World> {
    let bitcoind = Bitcoind::start().await?;
    let near = LdkPeer::start_with(&bitcoind, &["--alias", "near", "--sloppy-fees", FEES]).await?;
    let far = LdkPeer::start(&bitcoind, "far").await?;
    let folder = TempDir::with_prefix("sluice-ldk-").expect("a temporary folder");
    let config = config(&bitcoind, &folder);
    let lone = LoneNode::start(&config).await.expect("the node starts");
    let node: Arc<dyn LightningNode> = lone.node.clone();
    let address = lone.node.listen_addr().expect("it listens").to_string();
    // Whoever has connected remembers where: else, after a restart, the node waits a minute for the peer to come to it.
    assert_eq!(node.connect(near.id(), near.listens()).await, Ok(Asked::Done(())));
    near.fund(&bitcoind, FUNDS).await;
    near.open_channel(&bitcoind, &Ported(node.as_ref()), &address, CHANNEL).await;
    near.open_channel(&bitcoind, &far, far.listens(), CHANNEL).await;
    hear_of_each_other(&lone, &address, &near, &far).await;
    let rig =
        LdkRig { bitcoind, config, running: Mutex::new(Some(lone)), near: Peer(near), far: Peer(far), _folder: folder };
    Some(World { rig: Box::new(rig) })
}

/// What is announced travels as gossip, in both directions. A word that overtakes the one it is about is dropped, and nobody says it
/// again for an hour: then they meet again.
async fn hear_of_each_other(lone: &LoneNode, address: &str, near: &LdkPeer, far: &LdkPeer) {
    // No invoice: a young channel's is in it as a hint, and would be found whether anybody has heard of it or not.
    let way = Destination::Keysend { to: far.id(), preimage: Preimage::fresh() };
    let mut asked = 0;
    eventually("there is a way to the far peer, and back", async || {
        let quote = lone.node.quote(&way, AMOUNT).await.expect("an answer");
        let known = far.knows_channel(lone.node.id(), near.id()).await;
        if known && matches!(quote, Quote::Fee(_)) {
            return Some(());
        }
        asked += 1;
        if asked % PATIENCE == 0 {
            near.meet_again(far.id(), far.listens()).await;
            near.meet_again(lone.node.id(), address).await;
        }
        None
    })
    .await;
}

fn config(bitcoind: &Bitcoind, folder: &TempDir) -> Config {
    let mut config = Config::default();
    config.store.url = Secret::new(format!("sqlite:{}", folder.path().join("node.db").display()));
    config.chain.bitcoind = bitcoind.config();
    config.ldk.enabled = true;
    config.ldk.listen = Some(free_address());
    config.ldk.seed_file = folder.path().join("node.seed");
    config.ldk.poll_ms = 100;
    config.ldk.wait_for_peers_seconds = 5;
    config
}

#[async_trait(?Send)]
impl Rig for LdkRig {
    fn node(&self) -> Arc<dyn LightningNode> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().expect("it runs").node.clone()
    }
    fn near(&self) -> &dyn Counterpart {
        &self.near
    }
    fn far(&self) -> &dyn Counterpart {
        &self.far
    }
    async fn restart(&self) {
        let lone = self.running.lock().unwrap_or_else(PoisonError::into_inner).take().expect("it runs");
        lone.stop().await;
        let lone = LoneNode::start(&self.config).await.expect("the node starts again");
        let node = lone.node.clone();
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(lone);
        wait_until!(
            "the channel is in use again",
            node.channels().await.expect("an answer").iter().any(|channel| channel.usable)
        );
    }
    async fn mine(&self, blocks: u32) {
        self.bitcoind.mine_to(blocks, &stranger()).await;
        let tip = self.bitcoind.tip().await.height;
        let node = self.node();
        wait_until!("the node has seen the block", node.info().await.expect("an answer").height >= tip);
        self.near.0.sync().await;
        self.far.0.sync().await;
    }
    async fn something_waits(&self) {
        wait_until!("something is in the mempool", {
            let waiting = self.bitcoind.rpc("getrawmempool", serde_json::json!([])).await;
            !waiting.as_array().expect("a list").is_empty()
        });
    }
    async fn fund(&self, sat: Sat) {
        let node = self.node();
        let address = node.onchain_address().await.expect("an address");
        self.bitcoind.pay(&address, sat).await;
        let before = node.balance().await.expect("an answer").onchain_confirmed;
        self.mine(1).await;
        wait_until!("the coins are there", node.balance().await.expect("an answer").onchain_confirmed > before);
    }
}

#[async_trait]
impl Counterpart for Peer {
    fn id(&self) -> PublicKey {
        self.0.id()
    }
    fn address(&self) -> String {
        self.0.listens().to_owned()
    }
    async fn invoice(&self, amount: Option<Amount>) -> String {
        self.0.invoice(amount, "a test").await
    }
    async fn hold_invoice(&self, amount: Option<Amount>, hash: PaymentHash) -> String {
        self.0.hold_invoice(amount, hash).await
    }
    async fn holds(&self, hash: PaymentHash) -> bool {
        self.0.claimable(hash).await.is_some()
    }
    async fn claim(&self, preimage: Preimage) {
        self.0.claim(preimage).await;
    }
    async fn fail(&self, hash: PaymentHash) {
        self.0.fail(hash).await;
    }
    async fn pay(&self, invoice: &str, amount: Option<Amount>) -> String {
        self.0.pay(invoice, amount).await.expect("it is sent")
    }
    async fn keysend(&self, to: PublicKey, amount: Amount, preimage: Preimage) -> String {
        self.0.keysend(to, amount, preimage).await.expect("it is sent")
    }
    async fn offer(&self, amount: Option<Amount>) -> String {
        self.0.offer(amount, "an offer").await
    }
    async fn pay_offer(&self, offer: &str, amount: Option<Amount>) -> String {
        self.0.pay_offer(offer, amount).await.expect("it is sent")
    }
    async fn begin_channel(&self, to: PublicKey, address: &str, amount: Sat, push: Amount) {
        let asked = serde_json::json!({
            "node": to.to_string(), "address": address, "sat": amount.to_u64(), "push_msat": push.base_units(), "announced": false,
        });
        self.0.call("open_channel", asked).await;
    }
    fn freeze(&self) {
        self.0.freeze();
    }
    fn go_on(&self) {
        self.0.thaw();
    }
    async fn sent(&self, name: &str) -> Sent {
        match self.0.payment(name).await {
            Some(PeerPayment::Succeeded { preimage, .. }) => Sent::Arrived { preimage },
            Some(PeerPayment::Failed { .. }) => Sent::Failed,
            Some(PeerPayment::Pending) | None => Sent::OnItsWay,
        }
    }
}

macro_rules! on_ldk {
    ($($group:ident: [$($name:ident),+ $(,)?]),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $group() {
            let Some(world) = world().await else { return };
            $(
                eprintln!("{}::{}", stringify!($group), stringify!($name));
                super::$group::$name(&world).await;
            )+
        })+
    };
}

suite!(on_ldk);
