//! Two built-in nodes on one bitcoind: what the node does of itself, before the suite of its port is run over it.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::Network;
use sluice::chain::bitcoind;
use sluice::clock::{Clock, Timestamp};
use sluice::connectors::ldk::{ChannelConfig, Config, LdkError, LdkNode, Rpc};
use sluice::domain::lightning::{PaymentHash, PaymentId, Preimage};
use sluice::domain::movement::Movement;
use sluice::ids::RequestId;
use sluice::money::{Amount, FeeRate, Sat};
use sluice::ports::lightning::{
    Asked, ClaimOutcome, CloseHow, Description, Destination, Fetched, LightningNode, NewChannel, NewInvoice, NewOffer,
    NodeEvent, OnchainOrder, Outgoing, Paid, PayFailure, PayOutcome, Payment, Quote,
};
use sluice::secret::Secret;
use sluice::store::node::{self, Arrival, Commit, NewPayment, Step};
use sluice::store::owners::{Acquire, Ownership, Role};
use sluice::store::{self, Store, StoreError};
use tempfile::TempDir;

use crate::harness::bitcoind::Bitcoind;
use crate::harness::postgres;

const PATIENCE: Duration = Duration::from_secs(60);

fn msat(msat: u64) -> Amount {
    Amount::from_msat(msat).expect("an amount")
}

pub(super) struct Place {
    folder: TempDir,
    name: &'static str,
}

pub(super) struct Running {
    pub(super) node: Arc<LdkNode>,
    store: Store,
}

impl Place {
    pub(super) fn new(name: &'static str) -> Self {
        Self { folder: TempDir::with_prefix("sluice-ldk-").expect("a folder"), name }
    }

    /// Of one that also forwards for others.
    pub(super) fn config(&self) -> Config {
        let mut config = Config {
            enabled: true,
            listen: Some("127.0.0.1:0".parse().expect("an address")),
            alias: self.name.to_owned(),
            seed_file: self.path().join("node.seed"),
            poll_ms: 100,
            ..Config::default()
        };
        config.routing.forward = true;
        config
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) async fn start(&self, bitcoind: &Bitcoind) -> Running {
        self.start_with(bitcoind, self.config()).await
    }

    async fn start_with(&self, bitcoind: &Bitcoind, config: Config) -> Running {
        let (node, store) = self.try_start(bitcoind, config).await;
        Running { node: node.expect("a node"), store }
    }

    pub(super) async fn try_start(
        &self,
        bitcoind: &Bitcoind,
        config: Config,
    ) -> (Result<Arc<LdkNode>, LdkError>, Store) {
        let (store, owner) = self.own().await;
        let chain = Arc::new(bitcoind::Bitcoind::new(&bitcoind.config()).expect("a backend"));
        (LdkNode::start(&config, Network::Regtest, rpc(bitcoind), chain, store.clone(), owner).await, store)
    }

    /// Its database, with the role of the node taken.
    pub(super) async fn own(&self) -> (Store, Ownership) {
        let url = Secret::new(format!("sqlite:{}", self.path().join("node.db").display()));
        let store =
            Store::open(&store::Config { url, ..store::Config::default() }, Clock::System).await.expect("a store");
        let holder = self.name.to_owned();
        let owner = store.write(Acquire { role: Role::Node, holder }).await.expect("written").expect("nobody has it");
        (store, owner)
    }
}

pub(super) fn rpc(bitcoind: &Bitcoind) -> Rpc {
    Rpc { url: bitcoind.url(), cookie_file: Some(bitcoind.cookie_file()), user: None, password: None }
}

impl Running {
    pub(super) async fn stop(self) {
        self.node.stop().await;
        self.store.close().await;
    }

    async fn invoice(&self, amount: Amount) -> (Preimage, String) {
        let preimage = Preimage::fresh();
        let invoice = NewInvoice {
            hash: preimage.hash(),
            amount: Some(amount),
            description: Description::Text("a coffee".to_owned()),
            expires_in: Duration::from_secs(600),
        };
        (preimage, self.node.create_invoice(&invoice).await.expect("an invoice"))
    }

    async fn held(&self, hash: PaymentHash) {
        wait("it is held", || async { self.node.incoming(hash).await.expect("an answer").held.is_some() }).await;
    }

    async fn claimed(&self, hash: PaymentHash) -> Amount {
        wait("it is claimed", || async { self.node.incoming(hash).await.expect("an answer").claimed.is_some() }).await;
        self.node.incoming(hash).await.expect("an answer").claimed.expect("claimed")
    }

    async fn ended(&self, payment: &Payment) -> PayOutcome {
        let begun = Instant::now();
        loop {
            match self.node.outgoing(payment.id, payment.hash).await.expect("an answer") {
                Outgoing::Known(PayOutcome::Pending) => {}
                Outgoing::Known(ended) => return ended,
                Outgoing::Nothing => panic!("the node does not know {}", payment.id),
            }
            assert!(begun.elapsed() < PATIENCE, "the payment does not end");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

pub(super) async fn wait<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) {
    let begun = Instant::now();
    while !is().await {
        assert!(begun.elapsed() < PATIENCE, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn payment(destination: Destination, hash: PaymentHash, amount: Amount) -> Payment {
    Payment { id: PaymentId(rand::random()), hash, destination, amount, max_fee: msat(10_000) }
}

/// Two nodes with a channel of a million satoshis from the first to the second, 40 % of it given to the second.
pub(super) async fn pair(bitcoind: &Bitcoind, places: &[Place; 2]) -> (Running, Running) {
    let (alice, bob) = (places[0].start(bitcoind).await, places[1].start(bitcoind).await);
    connected(bitcoind, &alice, &bob).await;
    (alice, bob)
}

async fn connected(bitcoind: &Bitcoind, alice: &Running, bob: &Running) {
    let address = alice.node.onchain_address().await.expect("an address");
    bitcoind.pay(&address, Sat::literal(5_000_000)).await;
    bitcoind.mine(1).await;
    wait("the wallet has its coin", || async {
        alice.node.balance().await.expect("a balance").onchain_confirmed == Sat::literal(5_000_000)
    })
    .await;
    let at = bob.node.listen_addr().expect("it listens").to_string();
    assert_eq!(alice.node.connect(bob.node.id(), &at).await, Ok(Asked::Done(())));
    let channel =
        NewChannel { peer: bob.node.id(), amount: Sat::literal(1_000_000), push: msat(400_000_000), announced: false };
    let asked = alice.node.open_channel(&channel).await.expect("an answer");
    assert!(matches!(asked, Asked::Done(_)), "{asked:?}");
    wait("the funding is sent", || async {
        let waiting = bitcoind.rpc("getrawmempool", serde_json::json!([])).await;
        waiting.as_array().is_some_and(|all| !all.is_empty())
    })
    .await;
    bitcoind.mine(3).await;
    usable(alice).await;
    usable(bob).await;
}

async fn usable(running: &Running) {
    wait("the channel can be used", || async {
        running.node.channels().await.expect("channels").iter().any(|channel| channel.usable)
    })
    .await;
}

async fn pay(from: &Running, to: &Running, amount: Amount) -> PayOutcome {
    let (preimage, invoice) = to.invoice(amount).await;
    let payment = payment(Destination::Bolt11(invoice), preimage.hash(), amount);
    assert_eq!(from.node.pay(&payment).await, PayOutcome::Pending);
    to.held(preimage.hash()).await;
    assert_eq!(to.node.claim(preimage.hash(), Some(preimage)).await, Ok(ClaimOutcome::Claiming));
    assert_eq!(to.claimed(preimage.hash()).await, amount);
    from.ended(&payment).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lightning_ldk_opens_a_channel_and_pays_both_ways() {
    let Some(bitcoind) = Bitcoind::start().await else { return };
    let places = [Place::new("alice"), Place::new("bob")];
    let (alice, bob) = pair(&bitcoind, &places).await;
    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        let outcome = pay(from, to, msat(1_000_000)).await;
        assert!(matches!(outcome, PayOutcome::Succeeded(Paid { fee, .. }) if fee.is_zero()), "{outcome:?}");
    }
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lightning_ldk_holds_until_it_is_told() {
    let Some(bitcoind) = Bitcoind::start().await else { return };
    let places = [Place::new("alice"), Place::new("bob")];
    let (alice, bob) = pair(&bitcoind, &places).await;
    let amount = msat(2_000_000);

    // Failed back, and asked for again by another payment, which is claimed.
    let (preimage, invoice) = bob.invoice(amount).await;
    let hash = preimage.hash();
    let destination = Destination::Bolt11(invoice);
    assert_eq!(alice.node.quote(&destination, amount).await, Ok(Quote::Fee(Amount::ZERO)));
    let first = payment(destination.clone(), hash, amount);
    assert_eq!(alice.node.pay(&first).await, PayOutcome::Pending);
    bob.held(hash).await;
    assert_eq!(bob.node.held().await, Ok(vec![hash]));
    assert_eq!(alice.node.balance().await.expect("a balance").in_flight, amount);
    bob.node.fail(hash).await.expect("failed");
    assert_eq!(alice.ended(&first).await, PayOutcome::Failed(PayFailure::Rejected));
    assert_eq!(bob.node.held().await, Ok(Vec::new()));
    assert_eq!(bob.node.claim(hash, Some(preimage)).await, Ok(ClaimOutcome::NothingHeld));

    let second = payment(destination.clone(), hash, amount);
    alice.node.pay(&second).await;
    bob.held(hash).await;
    assert_eq!(bob.node.claim(hash, Some(preimage)).await, Ok(ClaimOutcome::Claiming));
    assert_eq!(bob.claimed(hash).await, amount);
    assert!(matches!(alice.ended(&second).await, PayOutcome::Succeeded(_)));
    // The same id is the same payment.
    assert!(matches!(alice.node.pay(&second).await, PayOutcome::Succeeded(_)));

    // A second payment for a claimed hash is seen, and can be failed; what was claimed stays.
    let third = payment(destination, hash, amount);
    alice.node.pay(&third).await;
    bob.held(hash).await;
    bob.node.fail(hash).await.expect("failed");
    assert_eq!(alice.ended(&third).await, PayOutcome::Failed(PayFailure::Rejected));
    let incoming = bob.node.incoming(hash).await.expect("an answer");
    assert_eq!((incoming.held, incoming.claimed), (None, Some(amount)));

    // A cancelled invoice is not taken any more.
    let (preimage, invoice) = bob.invoice(amount).await;
    bob.node.cancel_invoice(preimage.hash()).await.expect("cancelled");
    let late = payment(Destination::Bolt11(invoice), preimage.hash(), amount);
    alice.node.pay(&late).await;
    assert_eq!(alice.ended(&late).await, PayOutcome::Failed(PayFailure::Rejected));

    alice.stop().await;
    bob.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lightning_ldk_pays_without_an_invoice_and_for_an_offer() {
    let Some(bitcoind) = Bitcoind::start().await else { return };
    let places = [Place::new("alice"), Place::new("bob")];
    let (alice, bob) = pair(&bitcoind, &places).await;

    let (preimage, amount) = (Preimage::fresh(), msat(700_000));
    let keysend = payment(Destination::Keysend { to: bob.node.id(), preimage }, preimage.hash(), amount);
    assert_eq!(alice.node.quote(&keysend.destination, amount).await, Ok(Quote::Fee(Amount::ZERO)));
    alice.node.pay(&keysend).await;
    bob.held(preimage.hash()).await;
    assert_eq!(bob.node.claim(preimage.hash(), None).await, Ok(ClaimOutcome::Claiming));
    assert_eq!(bob.claimed(preimage.hash()).await, amount);
    assert!(matches!(alice.ended(&keysend).await, PayOutcome::Succeeded(_)));

    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        let new = NewOffer { amount: Some(msat(300_000)), description: "tea".to_owned(), expires_in: None };
        let offer = to.node.create_offer(&new).await.expect("an offer");
        let fetched = from.node.fetch_invoice(&offer, None, Some("with milk")).await.expect("an answer");
        let Fetched::Invoice { invoice, hash, amount, .. } = fetched else { panic!("{fetched:?}") };
        assert_eq!(amount, msat(300_000));
        let destination = Destination::Bolt12(invoice);
        assert_eq!(from.node.quote(&destination, amount).await, Ok(Quote::Fee(Amount::ZERO)));
        let pays = payment(destination, hash, amount);
        assert_eq!(from.node.pay(&pays).await, PayOutcome::Pending);
        to.held(hash).await;
        let held = to.node.incoming(hash).await.expect("an answer").held.expect("held");
        assert_eq!(held.offer, Some(offer));
        assert_eq!(to.node.claim(hash, None).await, Ok(ClaimOutcome::Claiming));
        assert_eq!(to.claimed(hash).await, amount);
        assert!(matches!(from.ended(&pays).await, PayOutcome::Succeeded(_)));
    }
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lightning_ldk_goes_on_after_a_restart() {
    let Some(bitcoind) = Bitcoind::start().await else { return };
    let places = [Place::new("alice"), Place::new("bob")];
    let (alice, bob) = pair(&bitcoind, &places).await;
    let amount = msat(5_000_000);
    let (preimage, invoice) = bob.invoice(amount).await;
    let pays = payment(Destination::Bolt11(invoice), preimage.hash(), amount);
    alice.node.pay(&pays).await;
    bob.held(preimage.hash()).await;
    let before = alice.node.balance().await.expect("a balance");
    let (at, bob_id) = (bob.node.listen_addr(), bob.node.id());
    bob.stop().await;

    // While the payee is away, a payment waits.
    let away = Preimage::fresh();
    let waits = payment(Destination::Keysend { to: bob_id, preimage: away }, away.hash(), amount);
    assert_eq!(alice.node.pay(&waits).await, PayOutcome::Pending);
    bitcoind.mine(2).await;
    let bob = places[1].start_with(&bitcoind, Config { listen: at, ..places[1].config() }).await;
    assert_eq!(bob.node.held().await, Ok(vec![preimage.hash()]));
    assert_eq!(alice.node.balance().await.expect("a balance").channels, before.channels);
    usable(&alice).await;
    assert_eq!(bob.node.claim(preimage.hash(), Some(preimage)).await, Ok(ClaimOutcome::Claiming));
    assert!(matches!(alice.ended(&pays).await, PayOutcome::Succeeded(_)));
    bob.held(away.hash()).await;
    bob.node.claim(away.hash(), None).await.expect("claimed");
    assert!(matches!(alice.ended(&waits).await, PayOutcome::Succeeded(_)));

    alice.stop().await;
    let alice = places[0].start(&bitcoind).await;
    let known = alice.node.outgoing(pays.id, pays.hash).await;
    assert!(matches!(known, Ok(Outgoing::Known(PayOutcome::Succeeded(_)))), "{known:?}");
    usable(&alice).await;
    assert!(matches!(pay(&alice, &bob, amount).await, PayOutcome::Succeeded(_)));

    // Closed by both, and swept into the wallet.
    let balance = bob.node.balance().await.expect("a balance");
    assert_eq!(balance.channels, msat(415_000_000));
    let channel = bob.node.channels().await.expect("channels").remove(0);
    assert_eq!(bob.node.close_channel(&channel.id, CloseHow::Cooperative).await, Ok(Asked::Done(())));
    wait("the channel is closed", || async { bob.node.channels().await.expect("channels").is_empty() }).await;
    wait("the close is sent", || async {
        let waiting = bitcoind.rpc("getrawmempool", serde_json::json!([])).await;
        waiting.as_array().is_some_and(|all| !all.is_empty())
    })
    .await;
    wait("it is swept", || async {
        bitcoind.mine(1).await;
        bob.node.balance().await.expect("a balance").onchain_confirmed > Sat::literal(400_000)
    })
    .await;
    let order = |to, sats| OnchainOrder {
        id: RequestId::fresh(),
        to,
        amount: Sat::literal(sats),
        fee_rate: FeeRate::from_sat_per_vb(2),
        max_fee: Sat::literal(10_000),
    };
    let sent = alice.node.onchain_send(&order(bitcoind.new_address().await, 50_000)).await;
    assert!(matches!(sent, Ok(Asked::Done(_))), "{sent:?}");
    let too_much = alice.node.onchain_send(&order(bitcoind.new_address().await, 50_000_000)).await;
    assert!(matches!(too_much, Ok(Asked::Refused { .. })), "{too_much:?}");
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lightning_ldk_refuses_another_seed_and_an_old_database() {
    let Some(bitcoind) = Bitcoind::start().await else { return };
    let place = Place::new("alice");
    place.start(&bitcoind).await.stop().await;
    let copy = place.path().join("copy.db");
    std::fs::copy(place.path().join("node.db"), &copy).expect("copied");

    let other = Config { seed: Some(Secret::new("11".repeat(32))), ..place.config() };
    let (refused, store) = place.try_start(&bitcoind, other).await;
    assert!(matches!(refused, Err(LdkError::WrongSeed { .. })), "{:?}", refused.err());
    store.close().await;

    place.start(&bitcoind).await.stop().await;
    std::fs::copy(&copy, place.path().join("node.db")).expect("copied back");
    let (refused, store) = place.try_start(&bitcoind, place.config()).await;
    assert!(matches!(refused, Err(LdkError::OldDatabase { .. })), "{:?}", refused.err());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lightning_ldk_queues_what_has_no_slot_and_refuses_what_has_no_money() {
    let Some(bitcoind) = Bitcoind::start().await else { return };
    let places = [Place::new("alice"), Place::new("bob")];
    let channels = ChannelConfig { max_accepted_htlcs: 3, ..ChannelConfig::default() };
    let bob = places[1].start_with(&bitcoind, Config { channels, ..places[1].config() }).await;
    let alice = places[0].start(&bitcoind).await;
    connected(&bitcoind, &alice, &bob).await;

    let amount = msat(1_000_000);
    let mut all = Vec::new();
    for _ in 0..8 {
        let (preimage, invoice) = bob.invoice(amount).await;
        let pays = payment(Destination::Bolt11(invoice), preimage.hash(), amount);
        assert_eq!(alice.node.pay(&pays).await, PayOutcome::Pending);
        all.push((preimage, pays));
    }
    for (preimage, pays) in &all {
        bob.held(preimage.hash()).await;
        bob.node.claim(preimage.hash(), Some(*preimage)).await.expect("claimed");
        assert!(matches!(alice.ended(pays).await, PayOutcome::Succeeded(_)));
    }
    let (preimage, invoice) = bob.invoice(msat(900_000_000)).await;
    let too_much = payment(Destination::Bolt11(invoice.clone()), preimage.hash(), msat(900_000_000));
    assert_eq!(alice.node.pay(&too_much).await, PayOutcome::Failed(PayFailure::NoLiquidity));
    let quote = alice.node.quote(&Destination::Bolt11(invoice), msat(900_000_000)).await;
    assert!(matches!(quote, Ok(Quote::NoRoute { .. })), "{quote:?}");
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lightning_ldk_pays_over_another_what_it_quoted() {
    let Some(bitcoind) = Bitcoind::start().await else { return };
    let places = [Place::new("alice"), Place::new("bob")];
    let (alice, bob) = pair(&bitcoind, &places).await;
    let place = Place::new("carol");
    let carol = place.start(&bitcoind).await;
    connected(&bitcoind, &bob, &carol).await;
    let amount = msat(20_000_000);
    // The channel is not public: its price is in the invoice, once carol has heard it from bob.
    let begun = Instant::now();
    let (preimage, destination, fee) = loop {
        let (preimage, invoice) = carol.invoice(amount).await;
        let destination = Destination::Bolt11(invoice);
        match alice.node.quote(&destination, amount).await.expect("an answer") {
            Quote::Fee(fee) => break (preimage, destination, fee),
            no => assert!(begun.elapsed() < PATIENCE, "{no:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(fee, msat(1_000 + 2_000));
    let cheap = Payment { max_fee: msat(2_999), ..payment(destination.clone(), preimage.hash(), amount) };
    assert_eq!(alice.node.pay(&cheap).await, PayOutcome::Failed(PayFailure::FeeTooHigh));
    let pays = Payment { max_fee: fee, ..payment(destination, preimage.hash(), amount) };
    assert_eq!(alice.node.pay(&pays).await, PayOutcome::Pending);
    carol.held(preimage.hash()).await;
    carol.node.claim(preimage.hash(), Some(preimage)).await.expect("claimed");
    assert_eq!(carol.claimed(preimage.hash()).await, amount);
    assert_eq!(alice.ended(&pays).await, PayOutcome::Succeeded(Paid { preimage, fee }));
    for running in [alice, bob, carol] {
        running.stop().await;
    }
}

/// How many payments a second go through one channel, by how many are in flight. `SLUICE_LDK_PAYMENTS` makes it longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lightning_ldk_pays_many_at_once() {
    let Some(bitcoind) = Bitcoind::start().await else { return };
    let places = [Place::new("alice"), Place::new("bob")];
    let (alice, bob) = pair(&bitcoind, &places).await;
    let count: usize = std::env::var("SLUICE_LDK_PAYMENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(64);
    let (alice, bob) = (Arc::new(alice), Arc::new(bob));
    let claimer = tokio::spawn(claim_all(Arc::clone(&bob)));
    for in_flight in [1, 32] {
        let count = if in_flight == 1 { count / 4 } else { count };
        let begun = Instant::now();
        let slots = Arc::new(tokio::sync::Semaphore::new(in_flight));
        let mut payers = Vec::new();
        for _ in 0..count {
            let slot = Arc::clone(&slots).acquire_owned().await.expect("open");
            let (alice, bob_id) = (Arc::clone(&alice), bob.node.id());
            payers.push(tokio::spawn(async move {
                let preimage = Preimage::fresh();
                let keysend = Destination::Keysend { to: bob_id, preimage };
                let pays = payment(keysend, preimage.hash(), msat(1_000));
                let mut events = alice.node.events();
                assert_eq!(alice.node.pay(&pays).await, PayOutcome::Pending);
                loop {
                    let known = alice.node.outgoing(pays.id, pays.hash).await.expect("an answer");
                    if let Outgoing::Known(PayOutcome::Succeeded(_)) = known {
                        break;
                    }
                    assert_eq!(known, Outgoing::Known(PayOutcome::Pending));
                    // A hint that it is over, or that some were missed.
                    while !matches!(events.recv().await, Ok(NodeEvent::Outgoing(id)) if id == pays.id) {}
                }
                drop(slot);
            }));
        }
        for payer in payers {
            payer.await.expect("paid");
        }
        let rate = f64::from(u32::try_from(count).expect("few")) / begun.elapsed().as_secs_f64();
        let _ = writeln!(std::io::stderr(), "{count} payments, {in_flight} in flight: {rate:.0} a second");
    }
    claimer.abort();
    alice.node.stop().await;
    bob.node.stop().await;
}

async fn claim_all(bob: Arc<Running>) {
    let mut events = bob.node.events();
    while let Ok(event) = events.recv().await {
        if let NodeEvent::Incoming(hash) = event {
            let bob = Arc::clone(&bob);
            tokio::spawn(async move { bob.node.claim(hash, None).await });
        }
    }
}

/// Every kind of step but the last of a monitor.
fn steps(preimage: Preimage, id: PaymentId, lost: PaymentId) -> Vec<Step> {
    let hash = preimage.hash();
    let new = |id, state| NewPayment {
        id,
        hash,
        state,
        destination: "bolt11:x".to_owned(),
        amount: msat(5),
        max_fee: msat(1),
    };
    let arrival = |part: &str| {
        Step::Arrived(Arrival {
            hash,
            part: part.to_owned(),
            amount: msat(5),
            claim_before: Some(7),
            preimage: None,
            offer: None,
        })
    };
    let monitor = || "m".to_owned();
    vec![
        Step::Put { space: "meta", name: "a".to_owned(), value: vec![0, 255] },
        Step::PutMonitor { monitor: monitor(), value: vec![1], through: 1 },
        Step::PutUpdate { monitor: monitor(), number: 2, value: vec![2] },
        Step::PutUpdate { monitor: monitor(), number: 3, value: vec![3] },
        Step::PutMonitor { monitor: monitor(), value: vec![4], through: 2 },
        Step::Wallet { number: 1, value: "{}".to_owned() },
        Step::Wallet { number: 2, value: "{}".to_owned() },
        Step::WalletCompacted { number: 2, value: "{\"a\":1}".to_owned() },
        Step::Payment(new(id, "pending")),
        Step::Payment(new(lost, "queued")),
        Step::PaymentPending(lost),
        Step::PaymentFailed { id: lost, failure: "never_sent" },
        Step::Parts(id),
        Step::PaymentSent { id, preimage, cost: Some(msat(6)) },
        Step::PartClaimed { id, part: "1".to_owned(), cost: msat(4) },
        Step::PartsOver(id),
        Step::PaymentFailed { id, failure: "no_liquidity" },
        arrival("1"),
        Step::Claiming { hash, preimage },
        Step::Claimed { hash, part: "1".to_owned(), amount: msat(5) },
        arrival("2"),
        Step::Failing(hash),
        Step::Failed(hash),
        Step::Cancelled(hash),
        Step::Peer { id: "p".to_owned(), address: "a:1".to_owned() },
    ]
}

/// Every step twice, as after a commit of which nobody knows whether it was made.
async fn walk_rows(url: String) {
    let url = Secret::new(url);
    let store = Store::open(&store::Config { url, ..store::Config::default() }, Clock::System).await.expect("a store");
    let holder = "rows".to_owned();
    let owner = store.write(Acquire { role: Role::Node, holder }).await.expect("written").expect("nobody has it");
    let (preimage, id) = (Preimage::fresh(), PaymentId(rand::random()));
    let (hash, lost) = (preimage.hash(), PaymentId(rand::random()));
    let monitor = || "m".to_owned();
    let steps = Arc::new(steps(preimage, id, lost));
    for _ in 0..2 {
        store.write(Commit { owner: owner.clone(), steps: Arc::clone(&steps) }).await.expect("written");
    }
    let mut conn = store.read().await.expect("a connection");
    assert_eq!(node::value(&mut conn, "meta", "a").await.expect("read"), Some(vec![0, 255]));
    assert_eq!(node::monitors(&mut conn).await.expect("read"), [(monitor(), vec![4])]);
    assert_eq!(node::updates(&mut conn, "m").await.expect("read"), [vec![3]]);
    assert_eq!(node::wallet(&mut conn).await.expect("read"), [(2, "{\"a\":1}".to_owned())]);
    assert_eq!(node::peers(&mut conn).await.expect("read").len(), 1);
    assert!(node::open_payments(&mut conn).await.expect("read").is_empty());
    let sent = node::payment(&mut conn, id).await.expect("read").expect("there");
    assert_eq!((sent.state.as_str(), sent.preimage, sent.fee), ("sent", Some(preimage), Some(msat(1))));
    let unclaimed = Movement::Unclaimed { payment: id.to_string(), amount: msat(2) };
    assert_eq!(node::movements(&mut conn, 0, 10).await.expect("read"), [(1, unclaimed)]);
    let receipts = node::receipts(&mut conn, hash).await.expect("read");
    assert_eq!(receipts.iter().map(|row| row.state.as_str()).collect::<Vec<_>>(), ["claimed", "failed"]);
    assert!(node::open_receipts(&mut conn).await.expect("read").is_empty());
    assert_eq!(node::cancelled(&mut conn, Timestamp::from_millis(0)).await.expect("read"), [hash]);
    drop(conn);
    let archived = Arc::new(vec![Step::ArchiveMonitor { monitor: monitor() }]);
    store.write(Commit { owner: owner.clone(), steps: Arc::clone(&archived) }).await.expect("written");
    store.write(Commit { owner: owner.clone(), steps: archived }).await.expect("written");
    assert!(node::monitors(&mut store.read().await.expect("a connection")).await.expect("read").is_empty());
    let fenced = Ownership { epoch: owner.epoch - 1, ..owner };
    let refused = store.write(Commit { owner: fenced, steps: Arc::new(Vec::new()) }).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lightning_ldk_rows_are_the_same_on_both_databases() {
    let folder = TempDir::with_prefix("sluice-rows-").expect("a folder");
    walk_rows(format!("sqlite:{}", folder.path().join("node.db").display())).await;
    if let Some(url) = postgres::database().await {
        walk_rows(url).await;
    }
}
