//! The rig's Lightning side: a node of the gateway, a shop with a node of its own, and a channel between them.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};
use sluice::clock::Timestamp;
use sluice::connectors::fake::{FakeNetwork, FakeNode};
use sluice::domain::Request;
use sluice::domain::lightning::{Destination, PaymentHash, PaymentId, Preimage};
use sluice::domain::pay::{Door, Pay};
use sluice::domain::receive::Receive;
use sluice::flows::balance::{self, Offchain};
use sluice::flows::invoice::{self, WantedInvoice};
use sluice::flows::pay_invoice::{self, BeginPay};
use sluice::flows::send::Begun;
use sluice::flows::{Error, node};
use sluice::ids::RequestId;
use sluice::money::{Amount, Sat};
use sluice::ports::lightning::{ClaimOutcome, LightningNode, PayOutcome, Payment};

use super::rig::{Client, Rig};

/// What each end of the first channel has.
pub const CHANNEL_SIDE: Sat = Sat::literal(5_000_000);

pub fn sat(n: u64) -> Amount {
    Amount::from_sat(Sat::new(n).expect("so many bitcoins exist"))
}

pub fn msat(n: u64) -> Amount {
    Amount::from_msat(n).expect("it fits")
}

/// An invoice that a stranger's key signs over a hash which is not its own.
pub fn forged_invoice(hash: PaymentHash, amount: Option<Amount>, now: Timestamp) -> String {
    let key = SecretKey::from_slice(&[0x42; 32]).expect("a key");
    let seconds = u64::try_from(now.unix_seconds()).expect("after 1970");
    let builder = InvoiceBuilder::new(Currency::Regtest)
        .description("cheap".to_owned())
        .payment_hash(lightning::types::payment::PaymentHash(hash.0))
        .payment_secret(PaymentSecret(sha256::Hash::hash(b"secret").to_byte_array()))
        .duration_since_epoch(Duration::from_secs(seconds))
        .min_final_cltv_expiry_delta(144)
        .expiry_time(Duration::from_secs(3_600))
        .basic_mpp();
    let builder = match amount {
        Some(amount) => builder.amount_milli_satoshis(amount.base_units()),
        None => builder,
    };
    let signed = builder.build_signed(|message| Secp256k1::new().sign_ecdsa_recoverable(message, &key));
    signed.expect("an invoice").to_string()
}

/// The nodes of a rig.
pub struct Lightning {
    pub network: Arc<FakeNetwork>,
    /// The gateway's.
    pub node: Arc<FakeNode>,
    /// A stranger's.
    pub shop: Arc<FakeNode>,
    pub channel: String,
}

impl Lightning {
    pub fn new(clock: sluice::clock::Clock) -> Self {
        let network = FakeNetwork::new(clock);
        let (node, shop) = (network.add_node(), network.add_node());
        let channel = network.open(&node, &shop, CHANNEL_SIDE, CHANNEL_SIDE);
        Self { network, node, shop, channel }
    }

    /// A stranger's invoice, and what claims what arrives for it.
    pub fn shop_invoice(&self, amount: Option<Amount>) -> (String, Preimage) {
        self.shop.invoice(amount, "goods")
    }

    /// The shop takes what is held for it.
    pub async fn shop_claims(&self, preimage: Preimage) {
        let claimed = self.shop.claim(preimage.hash(), Some(preimage)).await.expect("the shop claims");
        assert_eq!(claimed, ClaimOutcome::Claiming, "nothing has arrived at the shop");
    }

    /// A stranger pays an invoice: it is held by the payee when this returns.
    pub async fn shop_pays(&self, invoice: &str, hash: PaymentHash, amount: Amount) -> PayOutcome {
        let payment = Payment {
            id: PaymentId(rand::random()),
            hash,
            destination: Destination::Bolt11(invoice.to_owned()),
            amount,
            max_fee: sat(100),
        };
        self.shop.pay(&payment).await
    }
}

impl Rig {
    /// Reacts to everything that the node has to say, as the worker does.
    pub async fn follow_node(&self) {
        if self.flows.node().is_configured() && self.flows.node().node().is_ok() {
            let failed = node::look_at_everything(&self.flows).await;
            if matches!(failed, Ok(0)) {
                self.flows.node().accept_spends();
            }
        }
    }

    pub async fn invoice(&self, client: &Client, amount: Option<Amount>) -> Request<Receive> {
        let wanted = WantedInvoice { amount, ..WantedInvoice::default() };
        invoice::create(&self.flows, &client.keys, wanted, None).await.expect("an invoice").request
    }

    /// Gives a wallet money off-chain, as a stranger's payment.
    pub async fn funded_offchain(&self, client: &Client, amount: Amount) {
        let receive = self.invoice(client, Some(amount)).await;
        self.lightning.shop_pays(&receive.machine.invoice, receive.machine.hash, amount).await;
        self.settle().await;
        assert_eq!(self.receive_state(client, receive.id).await, "settled");
    }

    pub async fn receive(&self, client: &Client, id: RequestId) -> Receive {
        let found = invoice::find(&self.flows, &client.keys.id(), id).await.expect("the store answers");
        found.expect("the receive is known").machine
    }

    pub async fn receive_state(&self, client: &Client, id: RequestId) -> &'static str {
        self.receive(client, id).await.payment_state()
    }

    pub async fn payment(&self, client: &Client, id: RequestId) -> Pay {
        let found = pay_invoice::find(&self.flows, &client.keys.id(), id).await.expect("the store answers");
        found.expect("the payment is known").machine
    }

    pub async fn payment_state(&self, client: &Client, id: RequestId) -> &'static str {
        self.payment(client, id).await.payment_state()
    }

    pub async fn begin_pay(&self, client: &Client, invoice: &str, max_fee: Option<Amount>) -> Result<Begun, Error> {
        pay_invoice::begin(&self.flows, &client.keys, paying(invoice, max_fee), None).await
    }

    pub async fn end_pay(&self, client: &Client, begun: &Begun) -> Result<Request<Pay>, Error> {
        self.end_pay_signed(client, &client.sign(&begun.psbt)).await
    }

    pub async fn end_pay_signed(&self, client: &Client, signed: &str) -> Result<Request<Pay>, Error> {
        pay_invoice::end(&self.flows, &client.keys, Door::PayInvoice, signed).await
    }

    pub async fn offchain(&self, client: &Client) -> Offchain {
        balance::offchain(&self.flows, &client.keys.id()).await.expect("a balance")
    }

    /// What a wallet could spend off-chain now, in millisatoshi.
    pub async fn available(&self, client: &Client) -> u64 {
        self.offchain(client).await.available.base_units()
    }
}

pub fn paying(invoice: &str, max_fee: Option<Amount>) -> BeginPay {
    BeginPay {
        to: invoice.to_owned(),
        amount: None,
        max_fee,
        expires_in_seconds: None,
        reference: None,
        door: Door::PayInvoice,
        to_field: "invoice",
    }
}
