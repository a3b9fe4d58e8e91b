//! The suite on the network in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use sluice::clock::Clock;
use sluice::connectors::fake::{FakeNetwork, FakeNode};
use sluice::money::{Amount, Sat};
use sluice::ports::lightning::{
    Asked, Destination, Fetched, LightningNode, NewChannel, NewOffer, Outgoing, PayOutcome, Payment, PaymentHash,
    PaymentId, Preimage,
};

use super::{ANY_FEE, Counterpart, EXPIRES_IN, Rig, Sent, World, fresh_id, hash_of, msat, new_invoice, suite};

const SIDE: Sat = Sat::literal(1_000_000);

struct FakeRig {
    network: Arc<FakeNetwork>,
    node: Arc<FakeNode>,
    near: FakeCounterpart,
    far: FakeCounterpart,
}

struct FakeCounterpart {
    network: Arc<FakeNetwork>,
    node: Arc<FakeNode>,
    sent: Mutex<HashMap<String, (PaymentId, PaymentHash)>>,
}

fn world() -> World {
    let network = FakeNetwork::new(Clock::System);
    let node = network.add_node();
    let (near, far) = (FakeCounterpart::new(&network), FakeCounterpart::new(&network));
    near.node.set_fees(msat(1_000), 500);
    node.set_reserve(Sat::literal(25_000));
    network.open(&node, &near.node, SIDE, SIDE);
    network.open(&near.node, &far.node, SIDE, SIDE);
    World { rig: Box::new(FakeRig { network, node, near, far }) }
}

#[async_trait(?Send)]
impl Rig for FakeRig {
    fn node(&self) -> Arc<dyn LightningNode> {
        Arc::clone(&self.node) as Arc<dyn LightningNode>
    }
    fn near(&self) -> &dyn Counterpart {
        &self.near
    }
    fn far(&self) -> &dyn Counterpart {
        &self.far
    }
    async fn restart(&self) {
        self.node.restart();
    }
    async fn mine(&self, blocks: u32) {
        self.network.mine(blocks);
    }
    async fn something_waits(&self) {}
    async fn fund(&self, sat: Sat) {
        self.node.fund(sat);
        self.network.mine(1);
    }
}

impl Drop for FakeRig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.network.unaccounted(), Amount::ZERO, "the books of the channels do not add up");
        }
    }
}

impl FakeCounterpart {
    fn new(network: &Arc<FakeNetwork>) -> Self {
        let node = network.add_node();
        node.claim_by_itself(true);
        Self { network: Arc::clone(network), node, sent: Mutex::new(HashMap::new()) }
    }

    async fn send(&self, hash: PaymentHash, destination: Destination, amount: Amount) -> String {
        let id = fresh_id();
        self.node.pay(&Payment { id, hash, destination, amount, max_fee: ANY_FEE }).await;
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_string(), (id, hash));
        id.to_string()
    }
}

#[async_trait]
impl Counterpart for FakeCounterpart {
    fn id(&self) -> PublicKey {
        self.node.id()
    }
    fn address(&self) -> String {
        self.node.address()
    }
    async fn invoice(&self, amount: Option<Amount>) -> String {
        self.node.invoice(amount, "").0
    }
    async fn hold_invoice(&self, amount: Option<Amount>, hash: PaymentHash) -> String {
        self.node.create_invoice(&new_invoice(hash, amount)).await.unwrap()
    }
    async fn holds(&self, hash: PaymentHash) -> bool {
        self.node.is_holding(hash)
    }
    async fn claim(&self, preimage: Preimage) {
        self.node.claim(preimage.hash(), Some(preimage)).await.unwrap();
    }
    async fn fail(&self, hash: PaymentHash) {
        self.node.fail(hash).await.unwrap();
    }
    async fn pay(&self, invoice: &str, amount: Option<Amount>) -> String {
        let read: lightning_invoice::Bolt11Invoice = invoice.parse().unwrap();
        let asked = read.amount_milli_satoshis().map(msat);
        let amount = amount.or(asked).expect("an amount");
        self.send(hash_of(invoice), Destination::Bolt11(invoice.to_owned()), amount).await
    }
    async fn keysend(&self, to: PublicKey, amount: Amount, preimage: Preimage) -> String {
        self.send(preimage.hash(), Destination::Keysend { to, preimage }, amount).await
    }
    async fn offer(&self, amount: Option<Amount>) -> String {
        let new = NewOffer { amount, description: "an offer".to_owned(), expires_in: Some(EXPIRES_IN) };
        self.node.create_offer(&new).await.unwrap()
    }
    async fn pay_offer(&self, offer: &str, amount: Option<Amount>) -> String {
        let fetched = self.node.fetch_invoice(offer, amount, None).await.unwrap();
        let Fetched::Invoice { invoice, hash, amount, .. } = fetched else { panic!("{fetched:?}") };
        self.send(hash, Destination::Bolt12(invoice), amount).await
    }
    async fn begin_channel(&self, to: PublicKey, address: &str, amount: Sat, push: Amount) {
        self.node.fund(amount);
        self.network.mine(1);
        self.node.connect(to, address).await.unwrap();
        let new = NewChannel { peer: to, amount, push, announced: false };
        assert!(matches!(self.node.open_channel(&new).await, Ok(Asked::Done(_))));
    }
    // Nothing is said between two calls in this network.
    fn freeze(&self) {}
    fn go_on(&self) {}
    async fn sent(&self, name: &str) -> Sent {
        let (id, hash) = self.sent.lock().unwrap_or_else(PoisonError::into_inner)[name];
        match self.node.outgoing(id, hash).await.unwrap() {
            Outgoing::Known(PayOutcome::Succeeded(paid)) => Sent::Arrived { preimage: Some(paid.preimage) },
            Outgoing::Known(PayOutcome::Failed(_)) => Sent::Failed,
            Outgoing::Known(PayOutcome::Pending | PayOutcome::Unknown { .. }) | Outgoing::Nothing => Sent::OnItsWay,
        }
    }
}

macro_rules! on_the_fake {
    ($($group:ident: [$($name:ident),+ $(,)?]),+ $(,)?) => {
        $(mod $group {
            $(#[tokio::test] async fn $name() {
                super::super::$group::$name(&super::world()).await;
            })+
        })+
    };
}

suite!(on_the_fake);
