//! The merchant of the demo: another Lightning node, with channels to and from the gateway's, that sells and pays over two plain calls.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::super::failure::{Failure, print};
use super::node::Node;
use super::{step, usual_or_free};
use crate::app::LoneNode;
use crate::config::Config;
use crate::flows::{Flows, node_admin};
use crate::ids::RequestId;
use crate::money::{Amount, Sat};
use crate::ports::lightning::{
    Asked, Description, Destination, LightningNode, NewChannel, NewInvoice, Outgoing, PayOutcome, Payment, PaymentHash,
    PaymentId, Preimage,
};

const USUAL_PORT: u16 = 8_090;
/// What each end puts into the channel that it opens, and into its own wallet before.
const CHANNEL: Sat = Sat::literal(5_000_000);
const FUNDS: &str = "0.2";
const CONFIRMATIONS: u32 = 6;
const READY_WITHIN: Duration = Duration::from_secs(60);
const PAID_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
const INVOICE_EXPIRES_IN: Duration = Duration::from_secs(3_600);

pub(super) struct Merchant {
    lone: LoneNode,
    pub(super) url: String,
    tasks: Vec<JoinHandle<()>>,
}

/// What its calls need.
#[derive(Clone)]
struct Shop {
    node: Arc<dyn LightningNode>,
    /// What opens the invoices of this run.
    preimages: Arc<Mutex<HashMap<PaymentHash, Preimage>>>,
}

impl Merchant {
    pub(super) async fn start(folder: &Path, gateway: &Config) -> Result<Self, Failure> {
        let mut config = gateway.clone();
        std::fs::create_dir_all(folder)?;
        config.store.url = crate::secret::Secret::new(format!("sqlite:{}", folder.join("merchant.db").display()));
        config.ldk.enabled = true;
        config.ldk.alias = "merchant".to_owned();
        config.ldk.seed = None;
        config.ldk.seed_file = folder.join("node.seed");
        config.ldk.listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let lone = LoneNode::start(&config).await?;
        let shop = Shop { node: lone.node.clone(), preimages: Arc::default() };
        let listener = TcpListener::bind(usual_or_free(USUAL_PORT)?).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let router = Router::new().route("/invoice", post(invoice)).route("/pay", post(pay)).with_state(shop.clone());
        let serve = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the merchant's listener has failed");
            }
        });
        Ok(Self { lone, url, tasks: vec![serve, tokio::spawn(shop.claim_what_arrives())] })
    }

    /// A channel from each side, so that money can go either way from the start.
    pub(super) async fn connect(&self, node: &Node, ours: &dyn LightningNode, flows: &Flows) -> Result<(), Failure> {
        let theirs: &dyn LightningNode = self.lone.node.as_ref();
        if usable_channels(ours).await? >= 2 {
            return Ok(());
        }
        wait_for("the merchant's node", async || Ok(theirs.info().await.map_err(said)?.ready)).await?;
        let address = self.lone.node.listen_addr().ok_or_else(|| Failure::new("the merchant does not listen"))?;
        let merchant = theirs.info().await.map_err(said)?.id;
        let asked = ours.connect(merchant, &address.to_string()).await.map_err(said)?;
        done(asked, "connect to the merchant")?;
        if !ours.channels().await.map_err(said)?.is_empty() {
            step("Waiting for the channels of last time")?;
            return wait_for("the channels", async || Ok(usable_channels(ours).await? >= 2)).await;
        }
        step("Giving both Lightning nodes 0.2 BTC")?;
        // As an operator does: what comes to this address is the operator's capital in the books.
        let reserve = node_admin::reserve(flows).await.map_err(|error| Failure::new(error.to_string()))?;
        let theirs_at = theirs.onchain_address().await.map_err(said)?.to_string();
        for address in [&reserve.address, &theirs_at] {
            node.pay(address, FUNDS).await?;
        }
        node.mine(1).await?;
        let funded = async || {
            let balances = [ours.balance().await.map_err(said)?, theirs.balance().await.map_err(said)?];
            Ok(balances.iter().all(|balance| balance.onchain_confirmed > CHANNEL))
        };
        wait_for("the nodes' coins", funded).await?;
        step(&format!("Opening a channel of {CHANNEL} sat in each direction"))?;
        let us = ours.info().await.map_err(said)?.id;
        for (from, to) in [(ours, merchant), (theirs, us)] {
            let wanted = NewChannel { peer: to, amount: CHANNEL, push: Amount::ZERO, announced: true };
            done(from.open_channel(&wanted).await.map_err(said)?, "open a channel")?;
        }
        let funding_known = async || {
            let channels = ours.channels().await.map_err(said)?;
            Ok(channels.len() >= 2 && channels.iter().all(|channel| channel.funding.is_some()))
        };
        wait_for("the channels' transactions", funding_known).await?;
        for block in 1..=CONFIRMATIONS {
            node.mine(1).await?;
            print(&format!("    block {block} of {CONFIRMATIONS} over the channels"))?;
            sleep(POLL).await;
        }
        wait_for("the channels", async || Ok(usable_channels(ours).await? >= 2)).await
    }

    pub(super) async fn stop(self) {
        for task in self.tasks {
            task.abort();
        }
        self.lone.stop().await;
    }
}

fn said(error: crate::ports::PortError) -> Failure {
    Failure::new(error.to_string())
}

fn done<T>(asked: Asked<T>, what: &str) -> Result<T, Failure> {
    match asked {
        Asked::Done(value) => Ok(value),
        Asked::Refused { reason } => Err(Failure::new(format!("can't {what}: {reason}"))),
    }
}

async fn usable_channels(node: &dyn LightningNode) -> Result<usize, Failure> {
    Ok(node.channels().await.map_err(said)?.iter().filter(|channel| channel.usable).count())
}

async fn wait_for(what: &str, is_there: impl AsyncFn() -> Result<bool, Failure>) -> Result<(), Failure> {
    let deadline = Instant::now() + READY_WITHIN;
    while !is_there().await? {
        if Instant::now() > deadline {
            return Err(Failure::new(format!("{what} did not show within {READY_WITHIN:?}")));
        }
        sleep(POLL).await;
    }
    Ok(())
}

// ---- its two calls ----

#[derive(Deserialize)]
struct Order {
    amount_sats: Sat,
}

#[derive(Serialize, Deserialize)]
struct Bill {
    invoice: String,
}

#[derive(Serialize)]
struct Receipt {
    paid: bool,
    fee_msat: u64,
}

type Refused = (StatusCode, String);

fn refused(why: impl ToString) -> Refused {
    (StatusCode::BAD_GATEWAY, why.to_string())
}

async fn invoice(State(shop): State<Shop>, Json(order): Json<Order>) -> Result<Json<Bill>, Refused> {
    let preimage = Preimage::fresh();
    let wanted = NewInvoice {
        hash: preimage.hash(),
        amount: Some(Amount::from_sat(order.amount_sats)),
        description: Description::Text("goods of the merchant".to_owned()),
        expires_in: INVOICE_EXPIRES_IN,
    };
    shop.preimages.lock().unwrap_or_else(PoisonError::into_inner).insert(preimage.hash(), preimage);
    Ok(Json(Bill { invoice: shop.node.create_invoice(&wanted).await.map_err(refused)? }))
}

async fn pay(State(shop): State<Shop>, Json(bill): Json<Bill>) -> Result<Json<Receipt>, Refused> {
    let read = crate::flows::invoice::read_text(&bill.invoice, bitcoin::Network::Regtest).map_err(refused)?;
    let amount = read.amount.ok_or_else(|| refused("this invoice names no amount"))?;
    let payment = Payment {
        id: PaymentId::of_request(RequestId::fresh()),
        hash: read.hash,
        destination: Destination::Bolt11(read.text),
        amount,
        max_fee: amount,
    };
    let mut outcome = shop.node.pay(&payment).await;
    let deadline = Instant::now() + PAID_WITHIN;
    while outcome == PayOutcome::Pending && Instant::now() < deadline {
        sleep(POLL).await;
        if let Outgoing::Known(known) = shop.node.outgoing(payment.id, payment.hash).await.map_err(refused)? {
            outcome = known;
        }
    }
    match outcome {
        PayOutcome::Succeeded(paid) => Ok(Json(Receipt { paid: true, fee_msat: paid.fee.base_units() })),
        PayOutcome::Failed(why) => Err(refused(format!("the payment failed: {why:?}"))),
        PayOutcome::Pending => Err(refused("the payment is still on its way")),
        PayOutcome::Unknown { reason } => Err(refused(reason)),
    }
}

impl Shop {
    /// Claims what it can open, and sends the rest back.
    async fn claim_what_arrives(self) {
        loop {
            match self.node.held().await {
                Ok(held) => {
                    for hash in held {
                        self.take(hash).await;
                    }
                }
                Err(error) => tracing::warn!(%error, "the merchant can't see what it is paid"),
            }
            sleep(POLL).await;
        }
    }

    async fn take(&self, hash: PaymentHash) {
        let known = self.preimages.lock().unwrap_or_else(PoisonError::into_inner).get(&hash).copied();
        let taken = match known {
            Some(preimage) => self.node.claim(hash, Some(preimage)).await.map(drop),
            None => self.node.fail(hash).await,
        };
        if let Err(error) = taken {
            tracing::warn!(%error, %hash, "the merchant could not take a payment");
        }
    }
}
