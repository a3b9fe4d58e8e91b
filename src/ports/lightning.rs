//! The port to a Lightning node: invoices, payments, channels, and the node's own money.
//!
//! Reading an invoice needs no node: that is `domain/invoice.rs`. What the node does for itself (gossip, fee bumping, sweeping, reconnecting)
//! is not asked for here.

use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, OutPoint, Txid};
use tokio::sync::broadcast;

use super::PortError;
pub use crate::domain::lightning::{Destination, Paid, PayFailure, PaymentHash, PaymentId, Preimage};
pub use crate::domain::movement::Movement;
use crate::ids::RequestId;
use crate::money::{Amount, FeeRate, Sat};

/// What a backend can do. A call that it can't do answers `PortError::Misconfigured`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Fees are computed over a route, not guessed.
    pub quotes: bool,
    pub bolt12: bool,
    pub channels: bool,
    pub onchain: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    pub id: PublicKey,
    /// The height of the chain as the node has seen it.
    pub height: u32,
    /// It takes part: it has caught up with the chain and with what its own state says is open.
    pub ready: bool,
    /// Where peers reach it.
    pub listens: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Description {
    Text(String),
    /// The SHA-256 of a text that the payer got elsewhere.
    Hash([u8; 32]),
}

/// An invoice that is claimed by its preimage, which the caller keeps: the node holds what arrives until it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewInvoice {
    pub hash: PaymentHash,
    /// Empty: the payer says how much.
    pub amount: Option<Amount>,
    pub description: Description,
    pub expires_in: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOffer {
    pub amount: Option<Amount>,
    pub description: String,
    pub expires_in: Option<Duration>,
}

/// What has arrived for a hash. Both may be there: a second payment that is held after the first was claimed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incoming {
    /// Here, all of it, and neither claimed nor failed: it waits for [`LightningNode::claim`] or [`LightningNode::fail`].
    pub held: Option<Held>,
    /// What was claimed, all payments together. It is ours and stays so.
    pub claimed: Option<Amount>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub amount: Amount,
    /// From this height on it may be gone.
    pub claim_before: Option<u32>,
    /// It pays an offer of this node, whose preimage the node knows.
    pub offer: Option<String>,
}

/// What became of an order to claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The node will claim, or has done so. `Incoming::claimed` says when it is certain.
    Claiming,
    /// Nothing is held for this hash and nothing was claimed: it never came, was failed, or went back in time.
    NothingHeld,
}

/// One payment, wholly said. The same id is the same payment: asked again, the node answers how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    pub id: PaymentId,
    pub hash: PaymentHash,
    pub destination: Destination,
    pub amount: Amount,
    /// The node never pays more than this for routing.
    pub max_fee: Amount,
}

/// How a payment stands. There is no error in it: what can't be found out is `Unknown`, and moves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PayOutcome {
    Succeeded(Paid),
    /// Definite: nothing of it is out, and nothing of it will go out.
    Failed(PayFailure),
    /// On its way, or waiting in the node for its turn.
    Pending,
    Unknown {
        reason: String,
    },
}

/// What the node remembers of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// The node has no trace of it: it was never given to it, or never reached its records.
    Nothing,
    Known(PayOutcome),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quote {
    /// What the best route costs now. It says nothing about the next moment.
    Fee(Amount),
    NoRoute {
        reason: String,
    },
}

/// An invoice that a payee made for its offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    Invoice {
        invoice: String,
        hash: PaymentHash,
        amount: Amount,
        expires_in: Duration,
    },
    /// The payee did not answer, or said no.
    Refused {
        reason: String,
    },
}

/// The node's own money, by where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeBalance {
    /// Ours in open channels, reserves included, without what is in flight.
    pub channels: Amount,
    /// Left our channels, and neither arrived nor came back.
    pub in_flight: Amount,
    /// Of channels that are closing, until it is on-chain and ours to spend.
    pub closing: Sat,
    pub onchain_confirmed: Sat,
    pub onchain_unconfirmed: Sat,
    /// What must stay on-chain to be able to bump the closing of channels.
    pub reserve: Sat,
    /// What could be sent now, and what could be received now, over all channels together.
    pub can_send: Amount,
    pub can_receive: Amount,
    /// Others' payments that have come into our channels and are neither ours nor gone.
    pub coming: Amount,
    /// A channel is opening or closing, or a transaction waits for its block: the same money may be seen in two places, or in none.
    pub is_moving: bool,
}

/// What a node's movements add up to, as its own state says it now: once all of them are entered, the books say the same. What has not
/// been told is in none of it. In millisatoshi.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// In open channels, payments that have left and not arrived included.
    pub channels: i64,
    /// Told to be in channels that are closed, and not come out: what becomes of it is not known.
    pub unresolved: i64,
    /// Come out of closed channels, and not among the node's coins.
    pub closing: i64,
    pub onchain: i64,
    /// Something has just happened that is still to be told.
    pub is_behind: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The node's own name for it, as hex.
    pub id: String,
    pub peer: PublicKey,
    pub funding: Option<OutPoint>,
    pub capacity: Sat,
    /// What it holds to be sent and to be received, also while it can't be used.
    pub can_send: Amount,
    pub can_receive: Amount,
    /// Confirmed, connected, and in use.
    pub usable: bool,
    pub announced: bool,
    pub is_outbound: bool,
    /// What is taken for forwarding over it; empty where nobody knows.
    pub fees: Option<ForwardingFees>,
}

/// What a node takes for forwarding a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardingFees {
    pub base: Amount,
    pub parts_per_million: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewChannel {
    pub peer: PublicKey,
    pub amount: Sat,
    /// Given to the peer.
    pub push: Amount,
    pub announced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseHow {
    Cooperative,
    Force,
}

/// How opening, closing or sending on-chain was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked<T> {
    Done(T),
    /// The node can't do this now; nothing was done.
    Refused {
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub id: PublicKey,
    pub address: Option<String>,
    pub connected: bool,
}

/// Coins of the node's own to be sent, wholly said. The same id is the same send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnchainOrder {
    pub id: RequestId,
    pub to: Address,
    pub amount: Sat,
    pub fee_rate: FeeRate,
    /// The transaction never costs more than this.
    pub max_fee: Sat,
}

/// A send that is signed, kept, and on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentOnchain {
    pub txid: Txid,
    pub fee: Sat,
}

/// What sending coins of the node's own would cost now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnchainQuote {
    Fee(Sat),
    /// They do not reach, beside the reserve.
    Short {
        reason: String,
    },
    /// It is an address of the node itself.
    OwnAddress,
}

/// A hint that something can be looked up anew. It may be lost or come twice: whoever acts looks up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeEvent {
    Incoming(PaymentHash),
    Outgoing(PaymentId),
    Channels,
}

/// Every call ends, with an answer or with an error after the adapter's own deadline. An answer that says something was done
/// or became certain is durable before it is given. `tests/it/conformance/lightning.rs` holds every implementation to this.
#[async_trait]
pub trait LightningNode: Send + Sync {
    fn capabilities(&self) -> Capabilities;

    async fn info(&self) -> Result<NodeInfo, PortError>;

    /// Hints from now on. A receiver that lags has lost some, and looks up everything that is open.
    fn events(&self) -> broadcast::Receiver<NodeEvent>;

    /// Makes an invoice and answers its text. The same hash may be asked for again.
    async fn create_invoice(&self, invoice: &NewInvoice) -> Result<String, PortError>;

    /// Lets go of an invoice: what is held for it is failed, and what comes later should be.
    async fn cancel_invoice(&self, hash: PaymentHash) -> Result<(), PortError>;

    async fn incoming(&self, hash: PaymentHash) -> Result<Incoming, PortError>;

    /// Every hash for which something is held now.
    async fn held(&self) -> Result<Vec<PaymentHash>, PortError>;

    /// Claims what is held. Repeatable. The preimage may be left out where the node knows it (`Held::offer`).
    async fn claim(&self, hash: PaymentHash, preimage: Option<Preimage>) -> Result<ClaimOutcome, PortError>;

    /// Fails back what is held. Repeatable. What was claimed stays claimed.
    async fn fail(&self, hash: PaymentHash) -> Result<(), PortError>;

    /// Pays, once for an id. Returns when the node has taken it into its records, not when it has arrived.
    async fn pay(&self, payment: &Payment) -> PayOutcome;

    async fn outgoing(&self, id: PaymentId, hash: PaymentHash) -> Result<Outgoing, PortError>;

    /// The cheapest way known now. No ceiling: the caller compares.
    async fn quote(&self, destination: &Destination, amount: Amount) -> Result<Quote, PortError>;

    async fn create_offer(&self, offer: &NewOffer) -> Result<String, PortError>;

    /// Asks the payee of an offer for an invoice. The amount is needed where the offer names none.
    async fn fetch_invoice(
        &self,
        offer: &str,
        amount: Option<Amount>,
        note: Option<&str>,
    ) -> Result<Fetched, PortError>;

    async fn balance(&self) -> Result<NodeBalance, PortError>;

    async fn told(&self) -> Result<Told, PortError>;

    /// What happened to the node's own money beside payments, after a number, in order. What was told once never changes.
    async fn movements(&self, after: i64, most: u32) -> Result<Vec<(i64, Movement)>, PortError>;

    async fn channels(&self) -> Result<Vec<Channel>, PortError>;

    /// Begins to open a channel; answers its temporary or final id. The peer must be connected.
    async fn open_channel(&self, channel: &NewChannel) -> Result<Asked<String>, PortError>;

    async fn close_channel(&self, id: &str, how: CloseHow) -> Result<Asked<()>, PortError>;

    /// Sets what is taken for forwarding over a channel from now on.
    async fn set_fees(&self, id: &str, fees: ForwardingFees) -> Result<Asked<()>, PortError>;

    async fn peers(&self) -> Result<Vec<Peer>, PortError>;

    /// Connects, and keeps reconnecting while there is a channel with it.
    async fn connect(&self, id: PublicKey, address: &str) -> Result<Asked<()>, PortError>;

    /// A new address of the node's own wallet.
    async fn onchain_address(&self) -> Result<Address, PortError>;

    async fn onchain_quote(&self, to: &Address, amount: Sat, fee_rate: FeeRate) -> Result<OnchainQuote, PortError>;

    /// Sends from the node's own wallet, once for an id, never touching the reserve. Asked again, it answers the same send.
    async fn onchain_send(&self, order: &OnchainOrder) -> Result<Asked<SentOnchain>, PortError>;

    /// Replaces what was sent for an id, and is in no block, by a version that pays this rate. The recipient gets the same. Which version is
    /// mined, nobody knows before; asked again for the send, it answers the last.
    async fn onchain_bump(&self, id: RequestId, fee_rate: FeeRate) -> Result<Asked<SentOnchain>, PortError>;
}
