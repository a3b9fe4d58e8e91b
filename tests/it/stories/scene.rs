//! What every story needs: a gateway, who it has channels with, and a wallet with money off-chain.

use std::future::Future;

use bitcoin::secp256k1::PublicKey;
use serde_json::{Value, json};
use sluice::app::{self, LoneNode};
use sluice::config::Config;
use sluice::connectors::ldk::LdkNode;
use sluice::domain::lightning::{Destination, PaymentHash, Preimage};
use sluice::flows::audit;
use sluice::money::{Amount, Sat};
use sluice::ports::lightning::{Asked, LightningNode, Quote};
use sluice::secret::Secret;

use crate::harness::bitcoind::Bitcoind;
use crate::harness::lightning::sat;
use crate::harness::peer::{LdkPeer, Opening, PeerPayment, Ported, eventually, eventually_shown};
use crate::harness::ports::free_address;
use crate::harness::process::{Answer, Call, Gateway, Site};
use crate::harness::rig::{Client, Database, stranger};

/// What a channel holds, and what of it its other end begins with.
pub const CAPACITY: u64 = 2_000_000;
pub const PUSHED: u64 = 1_000_000;
/// What the wallet has off-chain to begin with.
pub const PURSE: u64 = 500_000;
/// What the gateway's node has on-chain: enough to bump a closing, and to open a channel.
pub const RESERVE: u64 = 2_000_000;
/// The same where little of it may go out: about as much as the wallet has.
pub const SMALL_RESERVE: u64 = 300_000;
/// So deep a coin has to be before it is off-chain money, where stories cross the rails.
pub const SETTLED_AFTER: u32 = 3;
/// What the peer has on-chain before it opens a channel.
pub const PEER_COINS: u64 = 6_000_000;

/// What the peer takes for passing a payment on: base in millisatoshi, and millionths.
const FEES: &str = "1000:500";

/// So often it is asked whether word has come around, before it is taken for lost.
pub const PATIENCE: u32 = 40;

pub const CHANNEL: Opening =
    Opening { amount: Sat::literal(CAPACITY), push: Amount::from_sat(Sat::literal(PUSHED)), announced: false };

/// Who is there when the story begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// The peer, which has a channel with the gateway's node. There is money on both sides of it.
    Pair,
    /// The same, and the operator lets a channel be closed for a withdrawal.
    Closing,
    /// A pair, beside a small reserve, and coins are settled after some blocks.
    Rails,
    /// A pair, and a far node behind the peer, which takes a fee for it.
    Line,
    /// The peer, connected, without a channel. The gateway's node waits for three blocks before it uses one.
    Strangers,
}

impl Set {
    const fn reserve(self) -> u64 {
        match self {
            Self::Rails => SMALL_RESERVE,
            Self::Pair | Self::Closing | Self::Line | Self::Strangers => RESERVE,
        }
    }
}

pub struct Scene {
    pub chain: Bitcoind,
    pub peer: LdkPeer,
    pub far: Option<LdkPeer>,
    pub gateway: Gateway,
    pub client: Client,
    /// The gateway's node, and where it listens.
    pub node: PublicKey,
    pub listens: String,
    /// A key for the operator's calls.
    pub operator: String,
    config: Config,
}

/// A payment that the wallet has consented to, and that its payee holds.
pub struct Paying {
    pub id: String,
    pub signed: String,
    pub preimage: Preimage,
    pub hash: PaymentHash,
}

/// Tells one story on one database; skips it loudly where something is missing.
pub async fn tell<F: Future<Output = ()>>(database: Database, set: Set, story: impl FnOnce(Scene) -> F) {
    if let Some(scene) = Scene::prepare(database, set).await {
        story(scene).await;
    }
}

impl Scene {
    async fn prepare(database: Database, set: Set) -> Option<Self> {
        let chain = Bitcoind::start().await?;
        let peer = LdkPeer::start_with(&chain, &["--alias", "peer", "--sloppy-fees", FEES]).await?;
        let far = if set == Set::Line { Some(LdkPeer::start(&chain, "far").await?) } else { None };
        let site = site(database, set, &chain).await?;
        let config = config(&site, &chain);
        let listens = site.setting("ldk.listen").expect("it was set").to_owned();
        let lone = LoneNode::start(&config).await.expect("the node starts");
        let node = lone.node.id();
        // Whoever has connected remembers where: else, after a restart, the node waits for the peer to come to it.
        assert_eq!(lone.node.connect(peer.id(), peer.listens()).await, Ok(Asked::Done(())));
        chain.pay(&lone.node.onchain_address().await.expect("an address"), Sat::literal(set.reserve())).await;
        peer.fund(&chain, Sat::literal(PEER_COINS)).await;
        let opening = Opening { announced: far.is_some(), ..CHANNEL };
        if set != Set::Strangers {
            peer.open_channel(&chain, &Ported(lone.node.as_ref()), &listens, opening).await;
        }
        if let Some(far) = &far {
            peer.open_channel(&chain, far, far.listens(), opening).await;
            hear_of(&lone, &listens, &peer, far).await;
            grow_up(&chain, far).await;
        }
        lone.stop().await;
        let operator = site.said(&["keys", "create", "--name", "operator", "--scope", "admin"]).await;
        let scene = Self {
            chain,
            peer,
            far,
            gateway: Gateway::start(&site).await,
            client: Client::number(1),
            node,
            listens,
            operator,
            config,
        };
        scene.gateway.until("it registers", &Call::post("/wallet/register", &scene.client), Answer::is_ok).await;
        scene.wait_for_node().await;
        if set != Set::Strangers {
            scene.usable().await;
            scene.is_paid(PURSE).await;
        }
        Some(scene)
    }

    /// Waits until the gateway is where the chain is, and pays.
    pub async fn wait_for_node(&self) {
        self.gateway.wait_health("it runs its node", |answer| answer.body["rails"]["lightning"]["ready"] == true).await;
        self.gateway.wait_synced(&self.chain).await;
    }

    /// Waits until the peer uses its only channel with the gateway's node, which it reaches for.
    pub async fn usable(&self) {
        eventually_shown("the channel is in use", async || {
            self.peer.sync().await;
            let channels = self.peer.channels_with(self.node).await;
            if let [channel] = &channels[..]
                && channel.usable
            {
                return Ok(());
            }
            // It tries again by itself, but takes its time.
            drop(self.peer.try_call("connect", self.whereabouts()).await);
            Err(channels)
        })
        .await;
    }

    pub fn whereabouts(&self) -> Value {
        json!({ "node": self.node.to_string(), "address": self.listens })
    }

    /// The gateway dies as in a power cut, and comes back.
    pub async fn die_and_return(&self) {
        self.gateway.kill();
        self.gateway.restart(None).await;
        self.wait_for_node().await;
    }

    /// The peer pays an invoice of the wallet, which is credited.
    pub async fn is_paid(&self, sats: u64) {
        let before = self.offchain().await.0;
        let order = Call::post("/lightning/create-invoice", &self.client).json(json!({ "amount_sats": sats }));
        let invoice = self.gateway.until("it makes an invoice", &order, Answer::is_ok).await;
        let text = invoice.text("invoice");
        let sent = eventually("the peer can send", async || self.peer.pay(text, None).await.ok()).await;
        eventually("the payment arrives", async || match self.peer.payment(&sent).await {
            Some(PeerPayment::Succeeded { .. }) => Some(()),
            Some(PeerPayment::Failed { reason }) => panic!("the payment failed: {reason}\n{}", self.gateway.log()),
            Some(PeerPayment::Pending) | None => None,
        })
        .await;
        self.has(before + sats * 1_000, 0).await;
    }

    /// What the wallet has off-chain, and what of it is held, in millisatoshi.
    pub async fn offchain(&self) -> (u64, u64) {
        let answer = self.gateway.answer(&Call::get("/lightning/balance", &self.client)).await;
        purse(&answer)
    }

    /// The wallet has so much, and so much of it is held: at once, or soon.
    pub async fn has(&self, total: u64, held: u64) {
        let read = Call::get("/lightning/balance", &self.client);
        let what = format!("the wallet has {total} and holds {held}");
        self.gateway.until(&what, &read, |answer| answer.is_ok() && purse(answer) == (total, held)).await;
    }

    pub async fn begin(&self, invoice: &str, max_fee_sats: u64) -> Answer {
        let wanted = json!({ "invoice": invoice, "max_fee_sats": max_fee_sats });
        self.gateway.answer(&Call::post("/lightning/pay-invoice-begin", &self.client).json(wanted)).await
    }

    /// The authorisation of a payment, signed.
    pub async fn consent(&self, invoice: &str, max_fee_sats: u64) -> String {
        let begun = self.begin(invoice, max_fee_sats).await.ok();
        self.client.sign(begun.as_str().expect("a PSBT"))
    }

    pub async fn end(&self, signed: &str) -> Value {
        let end = Call::post("/lightning/pay-invoice-end", &self.client).json(json!({ "signed_psbt": signed }));
        self.gateway.answer(&end).await.ok()
    }

    /// Pays, and answers how it ended.
    pub async fn pay(&self, invoice: &str, max_fee_sats: u64) -> Value {
        let ended = self.end(&self.consent(invoice, max_fee_sats).await).await;
        self.outcome(ended["id"].as_str().expect("an id")).await
    }

    /// Pays the peer, which keeps it waiting.
    pub async fn pays_and_waits(&self, sats: u64, max_fee_sats: u64) -> Paying {
        let preimage = Preimage::fresh();
        let hash = preimage.hash();
        let invoice = self.peer.hold_invoice(Some(sat(sats)), hash).await;
        let signed = self.consent(&invoice, max_fee_sats).await;
        let ended = self.end(&signed).await;
        let id = ended["id"].as_str().expect("an id").to_owned();
        eventually("the peer holds it", async || self.peer.claimable(hash).await).await;
        Paying { id, signed, preimage, hash }
    }

    /// What a payment is said to cost in routing.
    pub async fn estimate(&self, invoice: &str) -> Answer {
        let asked = json!({ "invoice": invoice });
        self.gateway.answer(&Call::post("/lightning/fee-estimate", &self.client).json(asked)).await
    }

    /// What the gateway says of a payment.
    pub async fn status(&self, id: &str) -> Value {
        let read = Call::get(format!("/lightning/send-request/{id}"), &self.client);
        self.gateway.answer(&read).await.ok()
    }

    /// How a payment ends.
    pub async fn outcome(&self, id: &str) -> Value {
        let read = Call::get(format!("/lightning/send-request/{id}"), &self.client);
        self.gateway
            .until("the payment ends", &read, |answer| answer.is_ok() && answer.body["status"] != "PENDING")
            .await
            .ok()
    }

    /// Mines, and lets both sides take it in.
    pub async fn mine(&self, blocks: u32) {
        self.chain.mine_to(blocks, &stranger()).await;
        self.gateway.wait_synced(&self.chain).await;
        self.peer.sync().await;
    }

    /// Looks at the node itself, while no gateway runs it.
    pub async fn at_the_node<T>(&self, look: impl AsyncFnOnce(&LdkNode) -> T) -> T {
        self.gateway.terminate().await;
        let lone = LoneNode::start(&self.config).await.expect("the node starts");
        let seen = look(lone.node.as_ref()).await;
        lone.stop().await;
        seen
    }

    /// The end of every story.
    pub async fn audit(&self) {
        if self.gateway.exit_status().is_none() {
            self.gateway.terminate().await;
        }
        assert_eq!(self.gateway.site.audit().await, 0, "the audit could not check everything");
    }

    /// The same where nothing is under way: a gateway in this process takes over, and its books say of the node's money exactly what the
    /// node says.
    pub async fn audit_exactly(&self) {
        self.gateway.terminate().await;
        let running = app::start(&self.config).await.expect("the gateway starts");
        eventually_shown("nothing is under way", async || {
            let report = audit::audit(&running.flows).await.expect("the audit runs");
            assert_eq!(report.drifts, [], "the audit found drift");
            if report.pending.is_empty() && report.skipped.is_empty() { Ok(()) } else { Err(report) }
        })
        .await;
        running.stop().await;
        self.audit().await;
    }
}

/// Waits until the node knows the way to the far one. A word that overtakes the one it is about is dropped, and nobody says it again for
/// an hour: then they meet again.
async fn hear_of(lone: &LoneNode, listens: &str, peer: &LdkPeer, far: &LdkPeer) {
    // No invoice: a young channel's is in it as a hint, and would be found whether anybody has heard of it or not.
    let way = Destination::Keysend { to: far.id(), preimage: Preimage::fresh() };
    let mut asked = 0;
    eventually_shown("there is a way to the far node", async || {
        let quote = lone.node.quote(&way, sat(1_000)).await.expect("an answer");
        if matches!(quote, Quote::Fee(_)) {
            return Ok(());
        }
        asked += 1;
        if asked % PATIENCE == 0 {
            peer.meet_again(far.id(), far.listens()).await;
            peer.meet_again(lone.node.id(), listens).await;
        }
        Err(quote)
    })
    .await;
}

/// A public channel that is younger than seven blocks is in invoices as a hint, with terms that may be old.
async fn grow_up(chain: &Bitcoind, far: &LdkPeer) {
    chain.mine_to(1, &stranger()).await;
    eventually("the channel needs no hint", async || {
        far.sync().await;
        far.channels().await.iter().all(|channel| channel.confirmations > 6).then_some(())
    })
    .await;
}

fn purse(answer: &Answer) -> (u64, u64) {
    let balance = &answer.body["balance"]["offchain_balance"];
    let msat = |field: &str| balance[field].as_u64().unwrap_or_else(|| panic!("{field} is no number in {answer:?}"));
    (msat("total_msat"), msat("held_msat"))
}

async fn site(database: Database, set: Set, chain: &Bitcoind) -> Option<Site> {
    let site = Site::new(database, chain).await?;
    let seed = site.folder().join("node.seed").display().to_string();
    let site = site
        .with("ldk.enabled", "true")
        .with("ldk.seed_file", seed)
        .with("ldk.listen", free_address().to_string())
        // As long as a test may take: a payment that waits for a peer does not give up.
        .with("ldk.wait_for_peers_seconds", "600")
        .with("ldk.poll_ms", "100");
    Some(match set {
        Set::Pair | Set::Line => site,
        Set::Closing => site.with("withdraw.close_channels", "cooperative"),
        Set::Rails => site.with("settle.confirmations", SETTLED_AFTER.to_string()),
        Set::Strangers => site.with("ldk.channels.minimum_depth", "3"),
    })
}

/// The same as the site's settings, for a node in this process.
fn config(site: &Site, chain: &Bitcoind) -> Config {
    let mut config = Config::default();
    config.store.url = Secret::new(site.store_url().to_owned());
    config.chain.bitcoind = chain.config();
    config.ldk.enabled = true;
    config.ldk.seed_file = site.folder().join("node.seed");
    config.ldk.listen = site.setting("ldk.listen").and_then(|text| text.parse().ok());
    config.ldk.poll_ms = 100;
    config.chain.poll_ms = 100;
    config.http.listen = ([127, 0, 0, 1], 0).into();
    config.operator.listen = config.http.listen;
    config.policy.lookahead = 25;
    config.policy.settle.confirmations = site.setting("settle.confirmations").and_then(|text| text.parse().ok());
    config
}
