//! Two gateways, each with a node and a wallet, and a channel between them.

use std::time::Instant;

use serde_json::{Value, json};
use sluice::app::LoneNode;
use sluice::config::Config;
use sluice::domain::lightning::{Destination, PaymentHash, PaymentId};
use sluice::money::Sat;
use sluice::ports::lightning::{Asked, LightningNode, NewChannel, Outgoing, PayOutcome, Payment};

use crate::harness::bitcoind::Bitcoind;
use crate::harness::lightning::{msat, sat};
use crate::harness::ports::free_address;
use crate::harness::process::{Answer, Call, DEADLINE, Gateway, POLL, Site, died_at_its_point};
use crate::harness::rig::{Client, Database, stranger};

pub const CHANNEL: Sat = Sat::literal(10_000_000);
/// What each wallet has off-chain to begin with, in satoshis.
pub const PURSE: u64 = 2_000_000;

/// A gateway with a node, and a wallet of it.
pub struct Side {
    pub name: &'static str,
    pub gateway: Gateway,
    pub client: Client,
    config: Config,
    /// What its end of the channel had to begin with, in millisatoshi.
    channel_before: u64,
}

pub struct Pair {
    pub node: Bitcoind,
    pub sides: [Side; 2],
    funding: bitcoin::OutPoint,
}

impl Pair {
    /// `None` after a loud skip where there is no bitcoind. Both gateways run.
    pub async fn prepare() -> Option<Self> {
        Self::prepare_on(Database::Sqlite, |site| site, None).await
    }

    /// The same, the first of them on this database, set up otherwise, and dying once, at this point of its first start.
    pub async fn prepare_on(
        database: Database,
        set_up: impl FnOnce(Site) -> Site,
        dies_at: Option<&str>,
    ) -> Option<Self> {
        let node = Bitcoind::start().await?;
        node.mine_to(101, &stranger()).await;
        let one = set_up(settings(Site::new(database, &node).await?));
        let other = settings(Site::at(None, &node));
        let configs = [&one, &other].map(|site| config(site, &node));
        let lone =
            [LoneNode::start(&configs[0]).await.expect("a node"), LoneNode::start(&configs[1]).await.expect("a node")];
        let funding = open(&node, &lone).await;
        let [first, second] = lone;
        first.stop().await;
        // Each wallet is paid by the node of the other side, while no gateway runs it.
        let one = Side::new("A", one, configs[0].clone(), 1);
        if let Some(point) = dies_at {
            one.gateway.restart(Some(point)).await;
            let status = one.gateway.wait_exit().await;
            assert!(died_at_its_point(status), "it ended otherwise: {status}\n{}", one.gateway.log());
            one.gateway.site.audit().await;
            one.gateway.free_roles().await;
        }
        fund(&one, &second).await;
        second.stop().await;
        one.gateway.terminate().await;
        let payer = LoneNode::start(&configs[0]).await.expect("a node");
        let other = Side::new("B", other, configs[1].clone(), 2);
        fund(&other, &payer).await;
        payer.stop().await;
        other.gateway.terminate().await;
        let mut sides = [one, other];
        for (side, balance) in sides.iter_mut().zip(balances(&configs).await) {
            side.channel_before = balance;
            side.gateway.restart(None).await;
        }
        Some(Self { node, sides, funding })
    }

    /// The chain is the witness: as long as nobody has closed the channel, its output is unspent, in blocks and in the mempool.
    pub async fn require_open(&self) {
        let unspent = self.node.rpc("gettxout", json!([self.funding.txid, self.funding.vout, true])).await;
        let logs = || self.sides.each_ref().map(|side| side.gateway.log()).join("\n----\n");
        assert!(!unspent.is_null(), "the channel was closed\n{}", logs());
    }

    /// What the books of each side say that came and went is what its end of the channel has gained or lost. Stops both gateways.
    pub async fn compare_with_channels(&self) {
        let mut gained = Vec::new();
        for side in &self.sides {
            let total = side.offchain().await["total_msat"].as_i64().expect("a number");
            gained.push(total - i64::try_from(PURSE * 1_000).expect("it fits"));
            side.gateway.terminate().await;
            assert_eq!(side.gateway.site.audit().await, 0, "{}: the audit could not check everything", side.name);
        }
        let configs = self.sides.each_ref().map(|side| side.config.clone());
        for ((side, now), gained) in self.sides.iter().zip(balances(&configs).await).zip(gained) {
            let moved = i64::try_from(now).expect("it fits") - i64::try_from(side.channel_before).expect("it fits");
            assert_eq!(moved, gained, "{}: the channel and the books differ", side.name);
        }
    }
}

impl Side {
    fn new(name: &'static str, site: Site, config: Config, wallet: u32) -> Self {
        Self { name, gateway: Gateway::stopped(&site), client: Client::number(wallet), config, channel_before: 0 }
    }

    pub async fn offchain(&self) -> Value {
        let balance = self.gateway.answer(&Call::get("/lightning/balance", &self.client)).await.ok();
        balance["balance"]["offchain_balance"].clone()
    }
}

fn settings(site: Site) -> Site {
    site.with("ldk.enabled", "true")
        .with("ldk.seed_file", "node.seed")
        .with("ldk.listen", free_address().to_string())
        .with("ldk.poll_ms", "200")
        .with("policy.max_waiting_sends", "10000")
        // The nodes have paid each other before the gateways came, which no book knows: a running gateway would notice after a minute.
        .with("audit.every_minutes", "0")
}

/// The same as the site's settings, for a node in this process.
fn config(site: &Site, node: &Bitcoind) -> Config {
    let mut config = Config::default();
    config.store.url = sluice::secret::Secret::new(site.store_url());
    config.chain.bitcoind = node.config();
    config.ldk.enabled = true;
    config.ldk.seed_file = site.folder().join("node.seed");
    config.ldk.listen = site.setting("ldk.listen").and_then(|text| text.parse().ok());
    config.ldk.poll_ms = 200;
    config
}

/// Opens a channel from the first node to the second, and gives half of it away.
async fn open(chain: &Bitcoind, lone: &[LoneNode; 2]) -> bitcoin::OutPoint {
    let [one, other] = [&lone[0].node, &lone[1].node];
    let address = one.onchain_address().await.expect("an address");
    chain.pay(&address, Sat::literal(30_000_000)).await;
    chain.mine(1).await;
    eventually("the coins are there", async || one.balance().await.expect("a balance").onchain_confirmed > CHANNEL)
        .await;
    let peer = other.id();
    let listens = other.listen_addr().expect("it listens").to_string();
    assert_eq!(one.connect(peer, &listens).await, Ok(Asked::Done(())));
    let wanted = NewChannel { peer, amount: CHANNEL, push: sat(5_000_000), announced: false };
    let asked = one.open_channel(&wanted).await.expect("an answer");
    assert!(matches!(asked, Asked::Done(_)), "{asked:?}");
    eventually("the funding is known", async || {
        one.channels().await.expect("channels").first().is_some_and(|channel| channel.funding.is_some())
    })
    .await;
    let funding = one.channels().await.expect("channels")[0].funding.expect("it is known");
    // It is known before the node has told the network of it.
    eventually("the funding is in the mempool", async || {
        chain.try_rpc("getmempoolentry", json!([funding.txid])).await.is_ok()
    })
    .await;
    chain.mine(6).await;
    for side in [one, other] {
        eventually("the channel is usable", async || {
            side.channels().await.expect("channels").first().is_some_and(|channel| channel.usable)
        })
        .await;
    }
    funding
}

/// The wallet's first money, from the node at the other end.
async fn fund(side: &Side, payer: &LoneNode) {
    side.gateway.restart(None).await;
    side.gateway.until("it registers", &Call::post("/wallet/register", &side.client), Answer::is_ok).await;
    let order = Call::post("/lightning/create-invoice", &side.client).json(json!({ "amount_sats": PURSE }));
    let invoice = side.gateway.until("the node runs", &order, Answer::is_ok).await;
    let hash: PaymentHash = invoice.text("payment_hash").parse().expect("a hash");
    let payment = Payment {
        id: PaymentId(rand::random()),
        hash,
        destination: Destination::Bolt11(invoice.text("invoice").to_owned()),
        amount: msat(PURSE * 1_000),
        max_fee: msat(0),
    };
    payer.node.pay(&payment).await;
    eventually("the wallet is paid", async || {
        let outcome = payer.node.outgoing(payment.id, hash).await.expect("an answer");
        assert!(!matches!(outcome, Outgoing::Known(PayOutcome::Failed(_))), "{outcome:?}");
        matches!(outcome, Outgoing::Known(PayOutcome::Succeeded(_)))
    })
    .await;
    let read = Call::get("/lightning/balance", &side.client);
    side.gateway
        .until("it is credited", &read, |answer| {
            answer.body["balance"]["offchain_balance"]["total_msat"] == PURSE * 1_000
        })
        .await;
}

/// What each end of the channel has, with nothing on its way.
async fn balances(configs: &[Config; 2]) -> [u64; 2] {
    let mut all = [0; 2];
    let lone =
        [LoneNode::start(&configs[0]).await.expect("a node"), LoneNode::start(&configs[1]).await.expect("a node")];
    for (side, end) in lone.iter().zip(&mut all) {
        eventually("the channel is quiet", async || {
            let usable = side.node.channels().await.expect("channels").first().is_some_and(|channel| channel.usable);
            usable && side.node.balance().await.expect("a balance").in_flight.is_zero()
        })
        .await;
        *end = side.node.balance().await.expect("a balance").channels.base_units();
    }
    for side in lone {
        side.stop().await;
    }
    all
}

async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(POLL).await;
    }
}
