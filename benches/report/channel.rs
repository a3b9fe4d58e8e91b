//! Payments over a channel between two of our nodes, on a real bitcoind: the nodes driven by themselves, and through their gateways.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::Address;
use bitcoin::address::NetworkUnchecked;
use sluice::app::{self, LoneNode, Running};
use sluice::config::Config;
use sluice::ids::RequestId;
use sluice::money::{Amount, Sat};
use sluice::ports::lightning::{
    Asked, Description, Destination, LightningNode, NewChannel, NewInvoice, NodeEvent, Outgoing, PayOutcome, Payment,
    PaymentHash, PaymentId, Preimage,
};
use sluice::secret::Secret;
use tempfile::TempDir;
use tokio::sync::{Semaphore, oneshot};

use super::RUNS;
use super::api::Wallet;
use super::bitcoind::Bitcoind;
use super::ports::free_address;
use super::table::Table;

const CHANNEL: Sat = Sat::literal(100_000_000);
const PAID: Sat = Sat::literal(1_000);
const PURSE: u64 = 20_000_000;
/// Blocks after which any amount is credited.
const DEEP: u32 = 12;
/// How many payments are in flight, and how many are made of them in a run.
const LOADS: [(usize, usize); 2] = [(1, 200), (32, 1_000)];
const WITHIN: Duration = Duration::from_secs(120);

pub async fn measure(table: &mut Table) {
    let Some(bitcoind) = Bitcoind::start().await else { return };
    let bare = bare(&bitcoind).await;
    let driven = through_gateways(&bitcoind).await;
    for ((in_flight, payments), (bare, driven)) in LOADS.into_iter().zip(bare.into_iter().zip(driven)) {
        let ratios = driven.rates.iter().zip(&bare.rates).map(|(driven, bare)| driven / bare * 100.0).collect();
        let goal = if in_flight == 1 { "goal: 50/s" } else { "goal: 300/s" };
        table.row(
            format!("{payments} payments over a channel, {in_flight} in flight, nodes alone"),
            "/s",
            bare.rates,
            "",
        );
        table.row(
            format!("the same through both gateways, from end to the outcome, {in_flight} in flight"),
            "/s",
            driven.rates,
            goal,
        );
        table.row(
            format!("its median time, {in_flight} in flight"),
            "ms",
            driven.medians,
            if in_flight == 1 { "goal: 20 ms" } else { "" },
        );
        table.row(format!("gateways against nodes alone, {in_flight} in flight"), "%", ratios, "goal: 90 %");
    }
}

#[derive(Default)]
struct Measured {
    rates: Vec<f64>,
    medians: Vec<f64>,
}

struct Place {
    config: Config,
    _folder: TempDir,
}

impl Place {
    fn new(bitcoind: &Bitcoind) -> Self {
        let folder = TempDir::with_prefix("sluice-bench-").expect("a temporary folder");
        let mut config = Config::default();
        config.store.url = Secret::new(format!("sqlite:{}", folder.path().join("sluice.db").display()));
        config.http.listen = ([127, 0, 0, 1], 0).into();
        config.http.limits.enabled = false;
        config.operator.listen = ([127, 0, 0, 1], 0).into();
        config.policy.max_waiting_sends = 1_000_000;
        config.chain.bitcoind = bitcoind.config();
        config.ldk.enabled = true;
        config.ldk.listen = Some(free_address());
        config.ldk.seed_file = folder.path().join("node.seed");
        config.ldk.poll_ms = 200;
        Self { config, _folder: folder }
    }
}

/// Who waits for what to end.
struct Waiting<K> {
    all: Mutex<HashMap<K, oneshot::Sender<()>>>,
}

impl<K: Hash + Eq> Waiting<K> {
    fn new() -> Arc<Self> {
        Arc::new(Self { all: Mutex::default() })
    }

    fn on(&self, key: K) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.all.lock().unwrap_or_else(PoisonError::into_inner).insert(key, sender);
        receiver
    }

    fn ended(&self, key: &K) {
        if let Some(sender) = self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(key) {
            // Who waits may have given up.
            let _gone = sender.send(());
        }
    }
}

/// Runs these, a fixed number at the same time.
async fn timed<F: Future<Output = ()> + Send + 'static>(in_flight: usize, jobs: Vec<F>, measured: &mut Measured) {
    let slots = Arc::new(Semaphore::new(in_flight));
    let count = f64::from(u32::try_from(jobs.len()).expect("not that many"));
    let begun = Instant::now();
    let tasks: Vec<_> = jobs
        .into_iter()
        .map(|job| {
            let slots = Arc::clone(&slots);
            tokio::spawn(async move {
                let _slot = slots.acquire().await.expect("it stays open");
                let begun = Instant::now();
                tokio::time::timeout(WITHIN, job).await.expect("it ends in time");
                begun.elapsed()
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.push(task.await.expect("it is paid"));
    }
    measured.rates.push(count / begun.elapsed().as_secs_f64());
    times.sort_unstable();
    measured.medians.push(times[times.len() / 2].as_secs_f64() * 1_000.0);
}

// ---- the nodes alone ----

async fn bare(bitcoind: &Bitcoind) -> Vec<Measured> {
    let places = [Place::new(bitcoind), Place::new(bitcoind)];
    let [payer, payee] = joined(bitcoind, &places).await;
    let known: Arc<Mutex<HashMap<PaymentHash, Preimage>>> = Arc::default();
    let claims = tokio::spawn(claim_all(payee.node.clone(), Arc::clone(&known)));
    let waiting = Waiting::new();
    let told = tokio::spawn(follow(payer.node.clone(), Arc::clone(&waiting)));
    let mut all = Vec::new();
    for (in_flight, payments) in LOADS {
        let mut measured = Measured::default();
        for _ in 0..RUNS {
            let mut jobs = Vec::new();
            for _ in 0..payments {
                let payment = bill(payee.node.as_ref(), &known).await;
                jobs.push(pay(payer.node.clone(), payment, Arc::clone(&waiting)));
            }
            timed(in_flight, jobs, &mut measured).await;
        }
        all.push(measured);
    }
    claims.abort();
    told.abort();
    payer.stop().await;
    payee.stop().await;
    all
}

async fn bill(payee: &dyn LightningNode, known: &Mutex<HashMap<PaymentHash, Preimage>>) -> Payment {
    let preimage = Preimage::fresh();
    let hash = preimage.hash();
    let wanted = NewInvoice {
        hash,
        amount: Some(Amount::from_sat(PAID)),
        description: Description::Text(String::new()),
        expires_in: Duration::from_secs(3_600),
    };
    known.lock().unwrap_or_else(PoisonError::into_inner).insert(hash, preimage);
    let destination = Destination::Bolt11(payee.create_invoice(&wanted).await.expect("an invoice"));
    Payment { id: PaymentId(rand::random()), hash, destination, amount: Amount::from_sat(PAID), max_fee: Amount::ZERO }
}

async fn pay(payer: Arc<dyn LightningNode>, payment: Payment, waiting: Arc<Waiting<PaymentId>>) {
    let ended = waiting.on(payment.id);
    assert_eq!(payer.pay(&payment).await, PayOutcome::Pending);
    ended.await.expect("somebody tells");
    let outcome = payer.outgoing(payment.id, payment.hash).await;
    assert!(matches!(outcome, Ok(Outgoing::Known(PayOutcome::Succeeded(_)))), "{outcome:?}");
}

async fn follow(payer: Arc<dyn LightningNode>, waiting: Arc<Waiting<PaymentId>>) {
    let mut hints = payer.events();
    while let Ok(hint) = hints.recv().await {
        if let NodeEvent::Outgoing(id) = hint {
            waiting.ended(&id);
        }
    }
}

async fn claim_all(payee: Arc<dyn LightningNode>, known: Arc<Mutex<HashMap<PaymentHash, Preimage>>>) {
    let mut hints = payee.events();
    while let Ok(hint) = hints.recv().await {
        let NodeEvent::Incoming(hash) = hint else { continue };
        let preimage = known.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash);
        if let Some(preimage) = preimage {
            let payee = Arc::clone(&payee);
            drop(tokio::spawn(async move { payee.claim(hash, Some(preimage)).await.expect("it claims") }));
        }
    }
}

/// Two nodes with a channel.
async fn joined(bitcoind: &Bitcoind, places: &[Place; 2]) -> [LoneNode; 2] {
    let payer = LoneNode::start(&places[0].config).await.expect("a node");
    let payee = LoneNode::start(&places[1].config).await.expect("a node");
    open(bitcoind, &payer, &payee).await;
    [payer, payee]
}

async fn open(bitcoind: &Bitcoind, payer: &LoneNode, payee: &LoneNode) {
    let address = payer.node.onchain_address().await.expect("an address");
    bitcoind.pay(&address, Sat::literal(300_000_000)).await;
    bitcoind.mine(1).await;
    until(async || payer.node.balance().await.expect("a balance").onchain_confirmed > CHANNEL).await;
    let listens = payee.node.listen_addr().expect("it listens").to_string();
    assert_eq!(payer.node.connect(payee.node.id(), &listens).await, Ok(Asked::Done(())));
    let half = Amount::from_sat(Sat::literal(50_000_000));
    let wanted = NewChannel { peer: payee.node.id(), amount: CHANNEL, push: half, announced: false };
    let asked = payer.node.open_channel(&wanted).await.expect("an answer");
    assert!(matches!(asked, Asked::Done(_)), "{asked:?}");
    let channels = async || payer.node.channels().await.expect("channels");
    until(async || channels().await.first().is_some_and(|channel| channel.funding.is_some())).await;
    bitcoind.mine(6).await;
    usable(payer.node.as_ref()).await;
    usable(payee.node.as_ref()).await;
}

async fn usable(node: &dyn LightningNode) {
    until(async || node.channels().await.expect("channels").first().is_some_and(|channel| channel.usable)).await;
}

async fn until(holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

// ---- through the gateways ----

/// Their nodes have paid nothing that is not in their books: the audit would stop them.
async fn through_gateways(bitcoind: &Bitcoind) -> Vec<Measured> {
    let places = [Place::new(bitcoind), Place::new(bitcoind)];
    for node in joined(bitcoind, &places).await {
        node.stop().await;
    }
    let payer = app::start(&places[0].config).await.expect("a gateway");
    let payee = app::start(&places[1].config).await.expect("a gateway");
    for running in [&payer, &payee] {
        until(async || running.flows.node().is_ready()).await;
        usable(running.flows.node().node().expect("it runs").as_ref()).await;
    }
    let http = reqwest::Client::builder().tcp_nodelay(true).pool_max_idle_per_host(128).build().expect("a client");
    let wallet =
        |number, running: &Running| Arc::new(Wallet::number(number, &http, &format!("http://{}", running.api_addr)));
    let (from, to) = (wallet(1, &payer), wallet(2, &payee));
    from.post("/wallet/register", String::new()).await;
    to.post("/wallet/register", String::new()).await;
    fund(&from, bitcoind).await;
    let waiting = Waiting::new();
    let told = tokio::spawn(follow_endings(payer.flows.endings(), Arc::clone(&waiting)));
    let mut all = Vec::new();
    for (in_flight, payments) in LOADS {
        let mut measured = Measured::default();
        for _ in 0..RUNS {
            let mut jobs = Vec::new();
            for _ in 0..payments {
                jobs.push(end(Arc::clone(&from), begun(&from, &to).await, Arc::clone(&waiting)));
            }
            timed(in_flight, jobs, &mut measured).await;
        }
        all.push(measured);
    }
    told.abort();
    payer.stop().await;
    payee.stop().await;
    all
}

/// The wallet's money, which it moves off-chain itself.
async fn fund(wallet: &Wallet, bitcoind: &Bitcoind) {
    let address = wallet.post("/wallet/address", String::new()).await;
    let address: Address<NetworkUnchecked> = address.as_str().expect("an address").parse().expect("an address");
    bitcoind.pay(&address.assume_checked(), Sat::literal(PURSE * 2)).await;
    bitcoind.mine(1).await;
    until(async || wallet.get("/lightning/balance").await["balance"]["vanilla"]["settled"] == PURSE * 2).await;
    let begun = wallet.post("/lightning/settle-begin", format!(r#"{{"amount_sats":{PURSE},"fee_rate":2}}"#)).await;
    let signed = signed(wallet, &begun);
    wallet.post("/lightning/settle-end", format!(r#"{{"signed_psbt":"{signed}"}}"#)).await;
    bitcoind.mine(DEEP).await;
    until(async || wallet.get("/lightning/balance").await["balance"]["offchain_balance"]["total"] == PURSE).await;
}

fn signed(wallet: &Wallet, psbt: &serde_json::Value) -> String {
    let mut psbt: bitcoin::Psbt = psbt.as_str().expect("a PSBT").parse().expect("a PSBT");
    wallet.signer.sign(&mut psbt).expect("it signs");
    psbt.to_string()
}

/// An invoice, begun and signed: what is left is the end.
async fn begun(from: &Wallet, to: &Wallet) -> String {
    let invoice = to.post("/lightning/create-invoice", format!(r#"{{"amount_sats":{PAID}}}"#)).await;
    let body = format!(r#"{{"invoice":{},"max_fee_sats":1}}"#, invoice["invoice"]);
    let psbt = from.post("/lightning/pay-invoice-begin", body).await;
    signed(from, &psbt)
}

async fn end(from: Arc<Wallet>, signed: String, waiting: Arc<Waiting<RequestId>>) {
    let ended = from.post("/lightning/pay-invoice-end", format!(r#"{{"signed_psbt":"{signed}"}}"#)).await;
    let id = ended["id"].as_str().expect("an id");
    let told = waiting.on(id.parse().expect("an id"));
    let read = format!("/lightning/send-request/{id}");
    // It may have ended before somebody waited for it.
    if from.get(&read).await["status"] == "PENDING" {
        told.await.expect("somebody tells");
    }
    assert_eq!(from.get(&read).await["status"], "SUCCEEDED");
}

async fn follow_endings(mut endings: tokio::sync::broadcast::Receiver<RequestId>, waiting: Arc<Waiting<RequestId>>) {
    while let Ok(id) = endings.recv().await {
        waiting.ended(&id);
    }
}
