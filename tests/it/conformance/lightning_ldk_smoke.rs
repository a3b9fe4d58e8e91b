//! Two built-in nodes on one bitcoind: what the node does of itself, before the suite of its port is run over it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::Network;
use sluice::chain::bitcoind;
use sluice::clock::Clock;
use sluice::connectors::ldk::{Config, LdkNode, Rpc};
use sluice::domain::lightning::{PaymentHash, PaymentId, Preimage};
use sluice::money::{Amount, Sat};
use sluice::ports::lightning::{
    Asked, ClaimOutcome, Description, Destination, LightningNode, NewChannel, NewInvoice, Outgoing, Paid, PayOutcome,
    Payment,
};
use sluice::secret::Secret;
use sluice::store::owners::{Acquire, Role};
use sluice::store::{self, Store};
use tempfile::TempDir;

use crate::harness::bitcoind::Bitcoind;

const PATIENCE: Duration = Duration::from_secs(60);

fn msat(msat: u64) -> Amount {
    Amount::from_msat(msat).expect("an amount")
}

struct Place {
    folder: TempDir,
    name: &'static str,
}

struct Running {
    node: Arc<LdkNode>,
    store: Store,
}

impl Place {
    fn new(name: &'static str) -> Self {
        Self { folder: TempDir::with_prefix("sluice-ldk-").expect("a folder"), name }
    }

    fn config(&self) -> Config {
        Config {
            enabled: true,
            listen: Some("127.0.0.1:0".parse().expect("an address")),
            alias: self.name.to_owned(),
            seed_file: self.path().join("node.seed"),
            poll_ms: 100,
            ..Config::default()
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn start(&self, bitcoind: &Bitcoind) -> Running {
        self.start_with(bitcoind, self.config()).await
    }

    async fn start_with(&self, bitcoind: &Bitcoind, config: Config) -> Running {
        let url = Secret::new(format!("sqlite:{}", self.path().join("node.db").display()));
        let store =
            Store::open(&store::Config { url, ..store::Config::default() }, Clock::System).await.expect("a store");
        let holder = self.name.to_owned();
        let owner = store.write(Acquire { role: Role::Node, holder }).await.expect("written").expect("nobody has it");
        let chain = Arc::new(bitcoind::Bitcoind::new(&bitcoind.config()).expect("a backend"));
        let rpc = Rpc { url: bitcoind.url(), cookie_file: Some(bitcoind.cookie_file()), user: None, password: None };
        let node = LdkNode::start(&config, Network::Regtest, rpc, chain, store.clone(), owner).await.expect("a node");
        Running { node, store }
    }
}

impl Running {
    async fn stop(self) {
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

async fn wait<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) {
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
async fn pair(bitcoind: &Bitcoind, places: &[Place; 2]) -> (Running, Running) {
    let (alice, bob) = (places[0].start(bitcoind).await, places[1].start(bitcoind).await);
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
    usable(&alice).await;
    usable(&bob).await;
    (alice, bob)
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
