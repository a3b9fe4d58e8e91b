//! The node that is built in: LDK, with its state in the gateway's store.
//!
//! `start.rs` makes it, `run.rs` makes it go round, `stage.rs` is what one commit writes. Nothing is said to a peer, sent to the chain or
//! answered to a caller before the state that led to it is durable, and all state is written under the epoch of the role `node`.
//!
//! What is not here: a decision about money. Which payment is made or claimed is the gateway's business.

mod books;
mod broadcast;
mod channels;
mod closes;
mod config;
mod counter;
mod earned;
mod error;
mod events;
mod fees;
mod gossip;
mod inbound;
mod incoming;
mod lease;
mod logger;
mod map;
mod node;
mod offers;
mod parts;
mod payments;
mod peers;
mod policy;
mod quotes;
mod rapid;
mod recovery;
mod router;
mod routes;
mod run;
mod seed;
mod source;
mod stage;
mod start;
mod told;
mod types;
mod wallet;

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Network};
use tokio::net::TcpListener;

pub use config::{ChannelConfig, Config, RoutingConfig, Rpc};
pub use error::LdkError;
pub use recovery::{Progress, Recovery, RecoveryChannel, RecoveryFile, RecoveryPeer, path as recovery_file};

use self::node::{Node, Phase, unreachable};
use self::types::lock;
use crate::domain::lightning::{PaymentHash, PaymentId, Preimage};
use crate::ids::RequestId;
use crate::money::{Amount, FeeRate, Sat};
use crate::ports::PortError;
use crate::ports::chain::ChainBackend;
use crate::ports::lightning::{
    Asked, Capabilities, Channel, ClaimOutcome, CloseHow, Destination, Fetched, ForwardingFees, Incoming,
    LightningNode, Movement, NewChannel, NewInvoice, NewOffer, NodeBalance, NodeEvent, NodeInfo, OnchainOrder,
    OnchainQuote, Outgoing, PayOutcome, Payment, Peer, Quote, SentOnchain, Told,
};
use crate::store::Store;
use crate::store::owners::Ownership;

/// The built-in node. It stops when it is told to, not when it is dropped: its tasks hold it.
pub struct LdkNode {
    node: Arc<Node>,
    listens: Option<SocketAddr>,
}

impl LdkNode {
    /// Starts the node, from what is stored or anew. `owner` is the proof that no other process runs it.
    ///
    /// # Errors
    /// When something is missing, makes no sense, or must not be started.
    pub async fn start(
        config: &Config,
        network: Network,
        rpc: Rpc,
        chain: Arc<dyn ChainBackend>,
        store: Store,
        owner: Ownership,
    ) -> Result<Arc<Self>, LdkError> {
        Self::start_as(config, network, rpc, chain, store, owner, false).await
    }

    /// As `start`; or, after the database was lost, with an empty one and to recover only.
    async fn start_as(
        config: &Config,
        network: Network,
        rpc: Rpc,
        chain: Arc<dyn ChainBackend>,
        store: Store,
        owner: Ownership,
        recovering: bool,
    ) -> Result<Arc<Self>, LdkError> {
        let listener = match config.listen {
            Some(address) => {
                let cant = |error| LdkError::Misconfigured(format!("can't listen on {address}: {error}"));
                Some(TcpListener::bind(address).await.map_err(cant)?)
            }
            None => None,
        };
        let listens = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let parts = start::Parts { config: config.clone(), network, rpc, chain, store, owner, recovering };
        let started = start::start(parts).await?;
        let node = Arc::clone(&started.node);
        run::run(started, listener);
        if !recovering {
            node.spawn("recovery file", recovery::keep(Arc::clone(&node)));
        }
        tracing::info!(id = %node.id, listens = ?listens, "the Lightning node runs");
        Ok(Arc::new(Self { node, listens }))
    }

    /// Takes no more payments, leaves its peers, and stores the last of its state.
    pub async fn stop(&self) {
        let stopping = self.node.phase.send_if_modified(|phase| {
            let was_running = *phase == Phase::Running;
            *phase = (*phase).max(Phase::Draining);
            was_running
        });
        if stopping {
            self.node.stage.wake();
        }
        let mut phase = self.node.phase.subscribe();
        // An error says that the node is gone, and so stopped.
        drop(phase.wait_for(|phase| *phase == Phase::Stopped).await);
        let tasks = std::mem::take(&mut *lock(&self.node.tasks));
        for task in tasks {
            // A panic of one has ended the process already.
            drop(task.await);
        }
    }

    #[must_use]
    pub const fn listen_addr(&self) -> Option<SocketAddr> {
        self.listens
    }

    #[must_use]
    pub fn id(&self) -> PublicKey {
        self.node.id
    }

    /// Runs to its end even when the caller goes away in the middle of it.
    async fn finish<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, PortError>> + Send + 'static,
    ) -> Result<T, PortError> {
        tokio::spawn(task).await.map_err(|_| unreachable("the call ended without an answer"))?
    }
}

#[async_trait]
impl LightningNode for LdkNode {
    fn capabilities(&self) -> Capabilities {
        Capabilities { quotes: true, bolt12: true, channels: true, onchain: true }
    }

    async fn info(&self) -> Result<NodeInfo, PortError> {
        let listens = self.node.config.announce_addresses.clone();
        let listens = if listens.is_empty() { self.listens.iter().map(ToString::to_string).collect() } else { listens };
        let height = self.node.manager.current_best_block().height;
        Ok(NodeInfo { id: self.node.id, height, ready: self.node.is_running(), listens })
    }

    fn events(&self) -> tokio::sync::broadcast::Receiver<NodeEvent> {
        self.node.hints.subscribe()
    }

    async fn create_invoice(&self, invoice: &NewInvoice) -> Result<String, PortError> {
        self.node.make_invoice(invoice)
    }

    async fn cancel_invoice(&self, hash: PaymentHash) -> Result<(), PortError> {
        let node = Arc::clone(&self.node);
        self.finish(async move { node.cancel(hash).await }).await
    }

    async fn incoming(&self, hash: PaymentHash) -> Result<Incoming, PortError> {
        self.node.what_arrived(hash).await
    }

    async fn held(&self) -> Result<Vec<PaymentHash>, PortError> {
        self.node.all_held().await
    }

    async fn claim(&self, hash: PaymentHash, preimage: Option<Preimage>) -> Result<ClaimOutcome, PortError> {
        let node = Arc::clone(&self.node);
        self.finish(async move { node.claim_held(hash, preimage).await }).await
    }

    async fn fail(&self, hash: PaymentHash) -> Result<(), PortError> {
        let node = Arc::clone(&self.node);
        self.finish(async move { node.fail_held(hash).await }).await
    }

    async fn pay(&self, payment: &Payment) -> PayOutcome {
        let (node, payment) = (Arc::clone(&self.node), payment.clone());
        let paid = self.finish(async move { Ok(node.take_payment(payment).await) }).await;
        paid.unwrap_or_else(|error| PayOutcome::Unknown { reason: error.to_string() })
    }

    async fn outgoing(&self, id: PaymentId, hash: PaymentHash) -> Result<Outgoing, PortError> {
        self.node.look_up(id, hash).await
    }

    async fn quote(&self, destination: &Destination, amount: Amount) -> Result<Quote, PortError> {
        self.node.quote(destination, amount).await
    }

    async fn create_offer(&self, offer: &NewOffer) -> Result<String, PortError> {
        self.node.make_offer(offer).await
    }

    async fn fetch_invoice(
        &self,
        offer: &str,
        amount: Option<Amount>,
        note: Option<&str>,
    ) -> Result<Fetched, PortError> {
        let node = Arc::clone(&self.node);
        self.finish(node.fetch(offer.to_owned(), amount, note.map(str::to_owned))).await
    }

    async fn balance(&self) -> Result<NodeBalance, PortError> {
        Ok(self.node.money())
    }

    async fn told(&self) -> Result<Told, PortError> {
        // What is told by now is there to be read.
        self.node.committed().await?;
        Ok(self.node.told())
    }

    async fn movements(&self, after: i64, most: u32) -> Result<Vec<(i64, Movement)>, PortError> {
        // What was told a moment ago is there, too.
        self.node.committed().await?;
        let mut conn = self.node.store.read().await?;
        Ok(crate::store::node::movements(&mut conn, after, most).await?)
    }

    async fn channels(&self) -> Result<Vec<Channel>, PortError> {
        Ok(self.node.list())
    }

    async fn open_channel(&self, channel: &NewChannel) -> Result<Asked<String>, PortError> {
        self.node.open(channel).await
    }

    async fn close_channel(&self, id: &str, how: CloseHow) -> Result<Asked<()>, PortError> {
        self.node.close(id, how).await
    }

    async fn set_fees(&self, id: &str, fees: ForwardingFees) -> Result<Asked<()>, PortError> {
        self.node.set_fees(id, fees).await
    }

    async fn peers(&self) -> Result<Vec<Peer>, PortError> {
        Ok(self.node.list_peers())
    }

    async fn connect(&self, id: PublicKey, address: &str) -> Result<Asked<()>, PortError> {
        let (node, address) = (Arc::clone(&self.node), address.to_owned());
        self.finish(async move { Ok(node.dial(id, address).await) }).await
    }

    async fn onchain_address(&self) -> Result<Address, PortError> {
        let address = self.node.wallet.new_address();
        self.node.committed().await?;
        Ok(address)
    }

    async fn onchain_quote(&self, to: &Address, amount: Sat, fee_rate: FeeRate) -> Result<OnchainQuote, PortError> {
        self.node.quote_onchain(to, amount, fee_rate)
    }

    async fn onchain_send(&self, order: &OnchainOrder) -> Result<Asked<SentOnchain>, PortError> {
        let (node, order) = (Arc::clone(&self.node), order.clone());
        self.finish(async move { node.send_onchain(&order).await }).await
    }

    async fn onchain_bump(&self, id: RequestId, fee_rate: FeeRate) -> Result<Asked<SentOnchain>, PortError> {
        let node = Arc::clone(&self.node);
        self.finish(async move { node.bump_onchain(id, fee_rate).await }).await
    }
}
