//! Offers: making ours, and asking others for an invoice of theirs.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::hex::DisplayHex as _;
use lightning::ln::channelmanager::{OptionalOfferPaymentParams, PaymentId as LdkPaymentId};
use lightning::offers::invoice::Bolt12Invoice;
use lightning::offers::offer::{Offer, OfferId};
use lightning::util::ser::Writeable as _;
use tokio::sync::oneshot;

use super::events::amount as amount_of;
use super::node::{Node, refused};
use super::start::put;
use super::types::lock;
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
        let (sender, answer) = oneshot::channel();
        lock(&self.fetching).insert(id, sender);
        let params = OptionalOfferPaymentParams { payer_note: note, ..OptionalOfferPaymentParams::default() };
        let asked = self.manager.pay_for_offer(&offer, amount.map(Amount::base_units), id, params);
        if let Err(error) = asked {
            lock(&self.fetching).remove(&id);
            return Ok(no(format!("the payee can't be asked: {error:?}")));
        }
        let answer = tokio::time::timeout(self.config.offer_deadline(), answer).await;
        if lock(&self.fetching).remove(&id).is_some() {
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

    /// Whether somebody waits for what this payment asked for.
    pub fn answer_fetch(&self, id: LdkPaymentId, answer: Result<Bolt12Invoice, String>) -> bool {
        let waiting = lock(&self.fetching).remove(&id);
        let found = waiting.is_some();
        if let Some(waiting) = waiting {
            // Who waited may have gone away.
            drop(waiting.send(answer));
        }
        found
    }
}

fn no(reason: impl Into<String>) -> Fetched {
    Fetched::Refused { reason: reason.into() }
}
