//! Offers: making ours, and asking others for an invoice of theirs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::hex::DisplayHex as _;
use lightning::blinded_path::message::OffersContext;
use lightning::ln::channelmanager::{OptionalOfferPaymentParams, PaymentId as LdkPaymentId};
use lightning::offers::invoice::Bolt12Invoice;
use lightning::offers::invoice_error::InvoiceError;
use lightning::offers::offer::{Offer, OfferId};
use lightning::onion_message::messenger::{MessageSendInstructions, Responder, ResponseInstruction};
use lightning::onion_message::offers::{OffersMessage, OffersMessageHandler};
use lightning::routing::router::RouteParametersConfig;
use lightning::util::ser::Writeable as _;
use tokio::sync::oneshot;

use super::events::amount as amount_of;
use super::node::{Node, refused};
use super::start::put;
use super::types::{Manager, lock};
use crate::domain::lightning::PaymentHash;
use crate::money::Amount;
use crate::ports::PortError;
use crate::ports::lightning::{Fetched, NewOffer};

/// Texts of our offers, by the name that LDK gives back when one is paid.
pub const OFFERS: &str = "offer";

pub fn id_text(id: &OfferId) -> String {
    id.0.to_lower_hex_string()
}

impl Node {
    pub async fn make_offer(&self, offer: &NewOffer) -> Result<String, PortError> {
        let cant = |error| refused(format!("no offer could be made: {error:?}"));
        let mut builder = self.manager.create_offer_builder().map_err(cant)?.description(offer.description.clone());
        if let Some(amount) = offer.amount {
            builder = builder.amount_msats(amount.base_units());
        }
        if let Some(expires_in) = offer.expires_in {
            builder = builder.absolute_expiry(self.since_epoch().saturating_add(expires_in));
        }
        let made = builder.build().map_err(cant)?;
        self.stage.push(put(OFFERS, &id_text(&made.id()), made.to_string().into_bytes()));
        self.committed().await?;
        Ok(made.to_string())
    }

    /// LDK asks as if it were to pay; the answer is taken from it, and the payment is let go of.
    pub async fn fetch(
        self: Arc<Self>,
        offer: String,
        amount: Option<Amount>,
        note: Option<String>,
    ) -> Result<Fetched, PortError> {
        let Ok(offer) = offer.parse::<Offer>() else { return Ok(no("that is no offer")) };
        let id = LdkPaymentId(rand::random());
        let answer = self.fetching.ask(id);
        let params = OptionalOfferPaymentParams {
            payer_note: note,
            // It is only a question: whatever LDK makes of an answer, it has nothing to spend on a way.
            route_params_config: RouteParametersConfig::default().with_max_total_routing_fee_msat(0),
            ..OptionalOfferPaymentParams::default()
        };
        let asked = self.manager.pay_for_offer(&offer, amount.map(Amount::base_units), id, params);
        if let Err(error) = asked {
            self.fetching.take(id);
            return Ok(no(format!("the payee can't be asked: {error:?}")));
        }
        let answer = tokio::time::timeout(self.config.offer_deadline(), answer).await;
        if self.fetching.take(id).is_some() {
            self.manager.abandon_payment(id);
        }
        match answer {
            Ok(Ok(Ok(invoice))) => Ok(self.fetched(&invoice)),
            Ok(Ok(Err(why))) => Ok(no(why)),
            Ok(Err(_)) | Err(_) => Ok(no("the payee did not answer in time")),
        }
    }

    fn fetched(&self, invoice: &Bolt12Invoice) -> Fetched {
        let ends = invoice.created_at().saturating_add(invoice.relative_expiry());
        Fetched::Invoice {
            invoice: invoice.encode().to_lower_hex_string(),
            hash: PaymentHash(invoice.payment_hash().0),
            amount: amount_of(invoice.amount_msats()),
            expires_in: Duration::from_secs(ends.saturating_sub(self.since_epoch()).as_secs()),
        }
    }
}

type Answer = Result<Bolt12Invoice, String>;

/// Callers who wait for an invoice, by the payment that LDK made of their question.
#[derive(Default)]
pub struct Fetching(Mutex<HashMap<LdkPaymentId, oneshot::Sender<Answer>>>);

impl Fetching {
    fn ask(&self, id: LdkPaymentId) -> oneshot::Receiver<Answer> {
        let (sender, answer) = oneshot::channel();
        lock(&self.0).insert(id, sender);
        answer
    }

    fn take(&self, id: LdkPaymentId) -> Option<oneshot::Sender<Answer>> {
        lock(&self.0).remove(&id)
    }

    /// Whether somebody waits for what this payment asked for.
    pub fn answer(&self, id: LdkPaymentId, answer: Answer) -> bool {
        let waiting = self.take(id);
        let found = waiting.is_some();
        if let Some(waiting) = waiting {
            // Who waited may have gone away.
            drop(waiting.send(answer));
        }
        found
    }
}

/// What of offers comes as an onion message. LDK would pay a static invoice by itself, and whom it was to ask for an invoice decides
/// whether it gets one: none of them reaches LDK.
pub struct Offers {
    manager: Arc<Manager>,
    fetching: Arc<Fetching>,
}

const NO_STATIC: &str = "its payee is away, and this node pays no static invoices";

impl Offers {
    #[must_use]
    pub const fn new(manager: Arc<Manager>, fetching: Arc<Fetching>) -> Self {
        Self { manager, fetching }
    }

    fn refuse(
        &self,
        context: Option<&OffersContext>,
        responder: Option<Responder>,
    ) -> Option<(OffersMessage, ResponseInstruction)> {
        if let Some(OffersContext::OutboundPaymentForOffer { payment_id, .. }) = context {
            self.fetching.answer(*payment_id, Err(NO_STATIC.to_owned()));
            self.manager.abandon_payment(*payment_id);
        }
        let error = InvoiceError::from_string(NO_STATIC.to_owned());
        Some((OffersMessage::InvoiceError(error), responder?.respond()))
    }
}

impl OffersMessageHandler for Offers {
    fn handle_message(
        &self,
        message: OffersMessage,
        context: Option<OffersContext>,
        responder: Option<Responder>,
    ) -> Option<(OffersMessage, ResponseInstruction)> {
        match message {
            OffersMessage::StaticInvoice(_) => self.refuse(context.as_ref(), responder),
            OffersMessage::InvoiceRequest(_) | OffersMessage::Invoice(_) | OffersMessage::InvoiceError(_) => {
                self.manager.handle_message(message, context, responder)
            }
        }
    }

    fn release_pending_messages(&self) -> Vec<(OffersMessage, MessageSendInstructions)> {
        OffersMessageHandler::release_pending_messages(&*self.manager)
    }
}

fn no(reason: impl Into<String>) -> Fetched {
    Fetched::Refused { reason: reason.into() }
}
