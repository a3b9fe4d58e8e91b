//! kill -9 on both sides of a channel, under payments in both directions: no channel is closed by force, no payment is lost or made
//! twice, and the books of both gateways agree with their channels to the millisatoshi.
//!
//! `SLUICE_CHANNEL_KILL_SECONDS` says for how long (240 in CI, 30 elsewhere), `SLUICE_SEED` names the sequence of what is done.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sluice::app::LoneNode;
use sluice::config::Config;
use sluice::domain::lightning::{Destination, PaymentHash, PaymentId};
use sluice::money::Sat;
use sluice::ports::lightning::{Asked, LightningNode, NewChannel, Outgoing, PayOutcome, Payment};

use super::random::number_from;
use super::say;
use crate::harness::bitcoind::Bitcoind;
use crate::harness::lightning::{msat, sat};
use crate::harness::process::{Answer, Call, DEADLINE, Gateway, POLL, Site};
use crate::harness::rig::Client;

const USUAL_SECONDS: u64 = 30;
const CI_SECONDS: u64 = 240;
/// What four minutes have to bring.
const KILLS_IN_CI: usize = 25;
const SOAK_KILLS: usize = 200;
const PAYERS: u64 = 12;
const CHANNEL: Sat = Sat::literal(10_000_000);
/// What each wallet has off-chain before the killing begins.
const PURSE: u64 = 2_000_000;
const ENOUGH: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_on_either_side_closes_a_channel_or_moves_money_twice() {
    let usual = if std::env::var("CI").as_deref() == Ok("true") { CI_SECONDS } else { USUAL_SECONDS };
    let seconds = number_from("SLUICE_CHANNEL_KILL_SECONDS").unwrap_or(usual);
    let kills = Field::run(Until::Elapsed(Duration::from_secs(seconds))).await;
    if let Some(kills) = kills.filter(|_| seconds >= CI_SECONDS) {
        assert!(kills >= KILLS_IN_CI, "{kills} kills are too few to prove anything");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_kills_on_both_sides_of_a_channel() {
    match number_from("SLUICE_SOAK_SECONDS") {
        Some(_) => drop(Field::run(Until::Kills(SOAK_KILLS)).await),
        None => say("soak_kills_on_both_sides_of_a_channel: SLUICE_SOAK_SECONDS is not set (see `make soak`)"),
    }
}

#[derive(Clone, Copy)]
enum Until {
    Elapsed(Duration),
    Kills(usize),
}

/// A gateway with a node, and a wallet of it.
struct Side {
    name: &'static str,
    gateway: Gateway,
    client: Client,
    config: Config,
    /// What its end of the channel had before, in millisatoshi.
    channel_before: u64,
}

/// A payment that a client has begun, and goes on with until it is told how it ended.
struct Paid {
    from: usize,
    send: String,
    receive: String,
    msat: u64,
}

struct Field {
    node: Bitcoind,
    sides: [Side; 2],
    funding: bitcoin::OutPoint,
    over: AtomicBool,
    numbers: AtomicU64,
    retries: AtomicU64,
    paid: Mutex<Vec<Paid>>,
}

impl Field {
    async fn run(until: Until) -> Option<usize> {
        let node = Bitcoind::start().await?;
        let field = Self::prepare(node).await;
        let begun = Instant::now();
        let (kills, ..) = tokio::join!(
            field.keep_killing(until),
            futures::future::join_all((0..PAYERS).map(|payer| field.keep_paying(payer))),
        );
        let mended = Instant::now();
        let ended = field.account_for_all().await;
        say(&format!(
            "kills on a channel: {kills} in {:.0?}, none closed it; {ended}; {} calls made again; all ended {:.1?} after the last kill",
            begun.elapsed(),
            field.retries.load(Ordering::SeqCst),
            mended.elapsed(),
        ));
        field.compare_with_channels().await;
        Some(kills)
    }

    /// Two gateways with a channel, and a wallet with money on each.
    async fn prepare(node: Bitcoind) -> Self {
        node.mine_to(101, &crate::harness::rig::stranger()).await;
        let [one, other] = [1, 2].map(|_| site(&node));
        let configs = [&one, &other].map(|site| config(site, &node));
        let lone =
            [LoneNode::start(&configs[0]).await.expect("a node"), LoneNode::start(&configs[1]).await.expect("a node")];
        let funding = open(&node, &lone).await;
        let [first, second] = lone;
        first.stop().await;
        // Each wallet is paid by the node of the other side, while no gateway runs it.
        let one = Side::new("A", one, configs[0].clone(), 1);
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
        let (over, zero) = (AtomicBool::new(false), || AtomicU64::new(0));
        Self { node, sides, funding, over, numbers: zero(), retries: zero(), paid: Mutex::default() }
    }

    async fn keep_killing(&self, until: Until) -> usize {
        let seed = number_from("SLUICE_SEED").unwrap_or(1);
        let mut dice = StdRng::seed_from_u64(seed);
        let begun = Instant::now();
        let mut kills = 0;
        let is_over = |kills: usize| match until {
            Until::Elapsed(span) => begun.elapsed() >= span,
            Until::Kills(most) => kills >= most,
        };
        while !is_over(kills) {
            tokio::time::sleep(Duration::from_millis(dice.random_range(300..3_500))).await;
            let victims: &[usize] = [&[0][..], &[1], &[0, 1]][dice.random_range(0..3)];
            for victim in victims {
                self.sides[*victim].gateway.kill();
            }
            kills += victims.len();
            tokio::time::sleep(Duration::from_millis(dice.random_range(0..300))).await;
            for victim in victims {
                self.sides[*victim].gateway.restart(None).await;
            }
            self.require_open().await;
        }
        self.over.store(true, Ordering::SeqCst);
        kills
    }

    /// The chain is the witness: as long as nobody has closed the channel, its output is unspent, in blocks and in the mempool.
    async fn require_open(&self) {
        let unspent = self.node.rpc("gettxout", json!([self.funding.txid, self.funding.vout, true])).await;
        assert!(!unspent.is_null(), "the channel was closed\nA: {}\nB: {}", self.log(0), self.log(1));
    }

    fn log(&self, side: usize) -> String {
        self.sides[side].gateway.log()
    }

    /// Pays from one wallet to the other, again and again, through the calls that clients use.
    async fn keep_paying(&self, payer: u64) {
        let mut dice = StdRng::seed_from_u64(payer + 100);
        while !self.over.load(Ordering::SeqCst) {
            let from = usize::from(dice.random_bool(0.5));
            let amount = dice.random_range(1..1_500);
            self.pay(from, amount).await;
        }
    }

    async fn pay(&self, from: usize, amount: u64) {
        let (payer, payee) = (&self.sides[from], &self.sides[1 - from]);
        let number = self.numbers.fetch_add(1, Ordering::SeqCst);
        let order = Call::post("/lightning/create-invoice", &payee.client).key(format!("invoice-{number}"));
        let order = order.json(json!({ "amount_sats": amount, "expiry_seconds": 86_400 }));
        let Some(invoice) = self.insist(payee, &order).await else { return };
        let begin = Call::post("/lightning/pay-invoice-begin", &payer.client).key(format!("pay-{number}"));
        let begin = begin.json(json!({ "invoice": invoice.body["invoice"], "max_fee_sats": 10 }));
        let Some(begun) = self.insist(payer, &begin).await else { return };
        let signed = payer.client.sign(begun.body.as_str().expect("a PSBT"));
        let send = begun.request_id.clone().expect("the begin names its request");
        // From here on the payment counts: a client that was not answered asks again until it is.
        let receive = invoice.text("id").to_owned();
        let paid = Paid { from, send, receive, msat: amount * 1_000 };
        self.paid.lock().unwrap_or_else(PoisonError::into_inner).push(paid);
        let end = Call::post("/lightning/pay-invoice-end", &payer.client).json(json!({ "signed_psbt": signed }));
        self.insist(payer, &end).await;
    }

    /// Makes a call until it is answered for good; `None` for an answer that says no, or when it is over before there was one.
    async fn insist(&self, side: &Side, call: &Call) -> Option<Answer> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match side.gateway.call(call).await {
                Ok(answer) if answer.is_ok() => return Some(answer),
                Ok(answer) if answer.body["retryable"] == true => {}
                // A wallet may be empty for a while, and a request that was begun may have expired.
                Ok(answer) if answer.body["error"] == "insufficient_funds" => return None,
                Ok(answer) => panic!("{}: {call:?} was answered {answer:?}", side.name),
                Err(_nobody_there) => {}
            }
            self.retries.fetch_add(1, Ordering::SeqCst);
            assert!(Instant::now() < deadline, "{}: {call:?} is not answered\n{}", side.name, side.gateway.log());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Every payment has ended, the same on both sides, and the wallets have what that makes.
    async fn account_for_all(&self) -> String {
        let all = std::mem::take(&mut *self.paid.lock().unwrap_or_else(PoisonError::into_inner));
        let mut purses = [PURSE * 1_000; 2];
        let mut ends: BTreeMap<String, u32> = BTreeMap::new();
        let deadline = Instant::now() + ENOUGH;
        for paid in &all {
            let status = self.end_of(paid, deadline).await;
            let (payer, payee) = (&self.sides[paid.from], &self.sides[1 - paid.from]);
            let receive = Call::get(format!("/lightning/receive-request/{}", paid.receive), &payee.client);
            let receive = payee.gateway.answer(&receive).await;
            let was_paid = receive.body["status"] == "SETTLED";
            assert_eq!(was_paid, status["status"] == "SUCCEEDED", "{}: {status} and {receive:?}", payer.name);
            if was_paid {
                purses[paid.from] -= paid.msat + status["fee_msat"].as_u64().expect("a fee");
                purses[1 - paid.from] += paid.msat;
            }
            let end = status["error_code"].as_str().unwrap_or("succeeded").to_owned();
            *ends.entry(end).or_default() += 1;
        }
        for (side, purse) in self.sides.iter().zip(purses) {
            let balance = side.offchain().await;
            assert_eq!(
                (balance["total_msat"].as_u64(), balance["held_msat"].as_u64()),
                (Some(purse), Some(0)),
                "{}",
                side.name
            );
        }
        self.require_open().await;
        format!("{} payments: {ends:?}", all.len())
    }

    async fn end_of(&self, paid: &Paid, deadline: Instant) -> Value {
        let side = &self.sides[paid.from];
        let read = Call::get(format!("/lightning/send-request/{}", paid.send), &side.client);
        loop {
            let status = side.gateway.answer(&read).await.ok();
            if status["status"] != "PENDING" {
                return status;
            }
            assert!(Instant::now() < deadline, "{}: {status} does not end\n{}", side.name, side.gateway.log());
            tokio::time::sleep(POLL).await;
        }
    }

    /// What the books of each side say that came and went is what its end of the channel has gained or lost.
    async fn compare_with_channels(&self) {
        let mut gained = Vec::new();
        for side in &self.sides {
            let total = side.offchain().await["total_msat"].as_i64().expect("a number");
            gained.push(total - i64::try_from(PURSE * 1_000).expect("it fits"));
            side.gateway.terminate().await;
            assert_eq!(side.gateway.site.audit().await, 0, "{}: the audit could not check everything", side.name);
        }
        let configs = [self.sides[0].config.clone(), self.sides[1].config.clone()];
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

    async fn offchain(&self) -> Value {
        let balance = self.gateway.answer(&Call::get("/lightning/balance", &self.client)).await.ok();
        balance["balance"]["offchain_balance"].clone()
    }
}

fn site(node: &Bitcoind) -> Site {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = listener.local_addr().expect("an address").to_string();
    Site::at(None, node)
        .with("ldk.enabled", "true")
        .with("ldk.seed_file", "node.seed")
        .with("ldk.listen", listen)
        .with("ldk.poll_ms", "200")
        .with("policy.max_waiting_sends", "10000")
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
    chain.mine(6).await;
    for side in [one, other] {
        eventually("the channel is usable", async || {
            side.channels().await.expect("channels").first().is_some_and(|channel| channel.usable)
        })
        .await;
    }
    one.channels().await.expect("channels")[0].funding.expect("it is known")
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
