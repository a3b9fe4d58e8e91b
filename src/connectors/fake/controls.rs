//! What a test does to one node.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Address;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{ScriptBuf, Transaction, Txid};
use tokio::sync::{broadcast, oneshot};

use super::state::{Door, Receive, State};
use super::{FakeNode, Fault, texts};
use crate::money::{Amount, Sat};
use crate::ports::lightning::{
    Capabilities, Description, NewInvoice, NodeEvent, PayFailure, PayOutcome, PaymentHash, Preimage,
};

const FIRST_PORT: usize = 9_735;
const EXPIRES_IN: Duration = Duration::from_secs(3_600);
/// As many as the channel of a new node holds.
const EVENTS: usize = 1_024;

/// Where an answer of a node is held back.
pub struct Gate {
    is_reached: oneshot::Receiver<()>,
    open: oneshot::Sender<()>,
}

impl Gate {
    /// Comes back when an answer waits here.
    ///
    /// # Panics
    /// When the node is gone.
    pub async fn reached(&mut self) {
        // proof: a node keeps its gates until somebody has come
        (&mut self.is_reached).await.expect("the node is there");
    }

    pub fn open(self) {
        // Nobody may have come.
        let _nobody = self.open.send(());
    }
}

impl FakeNode {
    #[must_use]
    pub fn id(&self) -> PublicKey {
        self.id
    }

    /// Where the others connect to.
    #[must_use]
    pub fn address(&self) -> String {
        address_of(self.index)
    }

    /// `None` mends it.
    pub fn set_fault(&self, fault: impl Into<Option<Fault>>) {
        self.lock().nodes[self.index].fault = fault.into();
    }

    /// Ends and begins again: who listens to events has to ask anew, and what was only in memory is gone.
    pub fn restart(&self) {
        let mut state = self.lock();
        let node = &mut state.nodes[self.index];
        node.events = broadcast::channel(EVENTS).0;
        node.connected.clear();
        for payment in std::mem::take(&mut node.only_in_memory) {
            node.sent.remove(&payment.id);
        }
    }

    /// What it can do; all of it, at first.
    pub fn set_capabilities(&self, capabilities: Capabilities) {
        self.lock().nodes[self.index].capabilities = capabilities;
    }

    /// What it takes for forwarding. Nothing, at first.
    pub fn set_fees(&self, base: Amount, parts_per_million: u64) {
        self.lock().nodes[self.index].fees = (base.base_units(), parts_per_million);
    }

    /// Pays this much more than the route asks for, whatever the ceiling is.
    pub fn overspend(&self, extra: Amount) {
        self.lock().nodes[self.index].overspends = extra.base_units();
    }

    /// Claims on arrival whatever it knows the preimage of, as most nodes do. At first it holds everything.
    pub fn claim_by_itself(&self, does: bool) {
        self.lock().nodes[self.index].claims_by_itself = does;
    }

    /// From now on its payments leave, and do not arrive before they are released.
    pub fn hold_payments(&self) {
        self.lock().nodes[self.index].holds_payments = true;
    }

    /// Lets go what was held back, and what was only in memory.
    pub fn release_payments(&self) {
        let mut state = self.lock();
        let node = &mut state.nodes[self.index];
        node.holds_payments = false;
        for payment in std::mem::take(&mut node.only_in_memory) {
            state.nodes[self.index].sent.remove(&payment.id);
            state.pay(self.index, &payment);
        }
        for number in state.on_their_way(self.index) {
            state.arrive(number);
        }
    }

    /// What is held back fails on its way.
    pub fn fail_payments(&self, why: PayFailure) {
        let mut state = self.lock();
        for number in state.on_their_way(self.index) {
            state.send_back(number, why);
        }
    }

    /// From now on an order to claim is taken, and what it is about becomes certain only when it is released.
    pub fn slow_claims(&self) {
        self.lock().nodes[self.index].slow_claims = true;
    }

    /// Claims what is held, whatever was claimed for the same hash before.
    pub fn claim_anyway(&self, hash: PaymentHash, preimage: Preimage) {
        let mut state = self.lock();
        if let Some(number) = state.held_number(self.index, hash) {
            state.settle(number, preimage);
        }
    }

    pub fn release_claims(&self) {
        let mut state = self.lock();
        state.nodes[self.index].slow_claims = false;
        for (number, preimage) in state.being_claimed(self.index) {
            state.settle(number, preimage);
        }
    }

    /// From now on it sends its coins and answers that it has not.
    pub fn deny_sends(&self, does: bool) {
        self.lock().nodes[self.index].denies_sends = does;
    }

    /// What it does for the next order to send coins is done, and its answer waits at the gate. One gate is for one order.
    #[must_use]
    pub fn gate(&self) -> Gate {
        let ((reached, is_reached), (open, opened)) = (oneshot::channel(), oneshot::channel());
        self.lock().nodes[self.index].gates.push_back(Door { reached, opened });
        Gate { is_reached, open }
    }

    /// How often it was asked to send coins.
    #[must_use]
    pub fn sends_asked(&self) -> usize {
        self.lock().nodes[self.index].sends_asked
    }

    /// Tells whoever listens, whether there is a reason or not.
    pub fn emit(&self, event: NodeEvent) {
        self.lock().tell(self.index, event);
    }

    /// Coins into its own wallet; confirmed with the next block.
    pub fn fund(&self, sat: Sat) {
        self.fund_script(String::new(), sat);
    }

    /// The same, to one of its addresses.
    pub fn fund_address(&self, address: &Address, sat: Sat) {
        self.fund_script(address.script_pubkey().to_hex_string(), sat);
    }

    fn fund_script(&self, script: String, sat: Sat) {
        let wallet = &mut self.lock().nodes[self.index].wallet;
        wallet.unconfirmed = wallet.unconfirmed.checked_add(sat).unwrap_or(Sat::MAX);
        wallet.arriving.push((script, sat));
    }

    /// What it sends on-chain is paid by this from now on, so that whoever follows that chain sees it.
    pub fn send_through(&self, pays: impl Fn(&ScriptBuf, Sat) -> Txid + Send + Sync + 'static) {
        self.lock().nodes[self.index].wallet.through = Some(Arc::new(pays));
    }

    /// What it bumps is replaced by this from now on.
    pub fn replace_through(&self, replaces: impl Fn(Txid) -> Txid + Send + Sync + 'static) {
        self.lock().nodes[self.index].wallet.replaces = Some(Arc::new(replaces));
    }

    /// Shows it a chain: its height, and every transaction in its blocks. Where nothing of the node's is, nothing happens.
    pub fn see_chain(&self, height: u32, confirmed: impl FnOnce() -> Vec<Transaction>) {
        let mut state = self.lock();
        let wallet = &mut state.nodes[self.index].wallet;
        if wallet.scripts.is_empty() && wallet.leaving.is_empty() {
            wallet.height = Some(height);
        } else {
            state.see_chain(self.index, height, &confirmed());
        }
    }

    /// What its own wallet keeps for bumping.
    pub fn set_reserve(&self, sat: Sat) {
        self.lock().nodes[self.index].wallet.reserve = sat;
    }

    /// An invoice whose preimage the node knows, good for an hour.
    ///
    /// # Panics
    /// When the text is longer than an invoice can have it.
    pub fn invoice(&self, amount: Option<Amount>, text: &str) -> (String, Preimage) {
        let preimage = Preimage::fresh();
        let description = Description::Text(text.to_owned());
        let new = NewInvoice { hash: preimage.hash(), amount, description, expires_in: EXPIRES_IN };
        // proof: of a test's own making
        let invoice = self.register(&mut self.lock(), &new, Some(preimage)).expect("a short text");
        (invoice, preimage)
    }

    pub(super) fn register(
        &self,
        state: &mut State,
        new: &NewInvoice,
        preimage: Option<Preimage>,
    ) -> Result<String, String> {
        let text = texts::make_bolt11(state, self.index, new)?;
        let receive = Receive { preimage, offer: None, cancelled: false };
        state.nodes[self.index].receives.insert(new.hash, receive);
        Ok(text)
    }

    /// How it thinks a payment for this hash of another node stands.
    #[must_use]
    pub fn is_holding(&self, hash: PaymentHash) -> bool {
        self.lock().held_hashes(self.index).contains(&hash)
    }

    /// How many payments it has in its records, and how many of them have succeeded.
    #[must_use]
    pub fn paid(&self) -> (usize, usize) {
        let state = self.lock();
        let sent = &state.nodes[self.index].sent;
        (sent.len(), sent.values().filter(|outcome| matches!(outcome, PayOutcome::Succeeded(_))).count())
    }

    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.lock().nodes[self.index].fault
    }
}

pub(super) fn address_of(index: usize) -> String {
    format!("127.0.0.1:{}", FIRST_PORT + index)
}
