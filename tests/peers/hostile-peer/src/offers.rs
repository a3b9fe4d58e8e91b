//! An offer whose payee answers every question with a static invoice, and every held payment with its release.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::Secp256k1;
use lightning::blinded_path::message::{
    AsyncPaymentsContext, BlindedMessagePath, MessageContext, MessageForwardNode, OffersContext,
};
use lightning::ln::channelmanager::PaymentId;
use lightning::offers::flow::OffersMessageFlow;
use lightning::offers::nonce::Nonce;
use lightning::offers::offer::Offer;
use lightning::onion_message::async_payments::{
    AsyncPaymentsMessageHandler, HeldHtlcAvailable, OfferPaths, OfferPathsRequest, ReleaseHeldHtlc, ServeStaticInvoice,
    StaticInvoicePersisted,
};
use lightning::onion_message::messenger::{MessageSendInstructions, Responder, ResponseInstruction};
use lightning::onion_message::offers::{OffersMessage, OffersMessageHandler};
use lightning::sign::{EntropySource as _, KeysManager, NodeSigner as _, Recipient};

use crate::types::{Logs, Manager, MessageRouter, Router};

type Flow = OffersMessageFlow<Arc<MessageRouter>, Logs>;

pub struct Lure {
    manager: Arc<Manager>,
    router: Arc<Router>,
    keys: Arc<KeysManager>,
    flow: Flow,
    bait: Mutex<Option<(Offer, Nonce)>>,
    pub asked: AtomicU32,
    pub held: AtomicU32,
}

impl Lure {
    pub fn new(
        manager: Arc<Manager>,
        router: Arc<Router>,
        messages: Arc<MessageRouter>,
        keys: Arc<KeysManager>,
        logs: Logs,
    ) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let flow = Flow::new(
            ChainHash::using_genesis_block(Network::Regtest),
            manager.current_best_block(),
            keys.get_node_id(Recipient::Node).expect("a key"),
            u32::try_from(now).unwrap_or(u32::MAX),
            keys.get_expanded_key(),
            keys.get_receive_auth_key(),
            Secp256k1::new(),
            messages,
            logs,
        );
        Self { manager, router, keys, flow, bait: Mutex::default(), asked: AtomicU32::new(0), held: AtomicU32::new(0) }
    }

    /// An offer without an amount.
    pub fn offer(&self) -> Result<String, Box<dyn Error>> {
        let secp = Secp256k1::new();
        let context =
            OffersContext::InvoiceRequest { nonce: Nonce::from_entropy_source(&self.keys), payment_metadata: None };
        let path = BlindedMessagePath::one_hop(
            self.keys.get_node_id(Recipient::Node).map_err(|()| "no key")?,
            self.keys.get_receive_auth_key(),
            MessageContext::Offers(context),
            false,
            &self.keys,
            &secp,
        );
        let made = self.flow.create_async_receive_offer_builder(&self.keys, vec![path]);
        let (builder, nonce) = made.map_err(|error| format!("{error:?}"))?;
        let offer = builder.build().map_err(|error| format!("{error:?}"))?;
        let text = offer.to_string();
        *self.bait.lock().unwrap_or_else(PoisonError::into_inner) = Some((offer, nonce));
        Ok(text)
    }

    fn answer(&self) -> Result<OffersMessage, String> {
        let bait = self.bait.lock().unwrap_or_else(PoisonError::into_inner);
        let (offer, nonce) = bait.as_ref().ok_or("nothing is offered")?;
        let (_, secret, _) = self.manager.create_inbound_payment(None, 3_600, None, None).map_err(|()| "no secret")?;
        let peers = self.manager.list_channels().into_iter().map(|channel| MessageForwardNode {
            node_id: channel.counterparty.node_id,
            short_channel_id: channel.short_channel_id,
        });
        let peers = peers.collect();
        let channels = self.manager.list_usable_channels();
        let none: Option<BTreeMap<u64, Vec<u8>>> = None;
        let built =
            self.flow.create_static_invoice_builder(&self.router, offer, *nonce, secret, 3_600, channels, peers, none);
        let built = built.map_err(|error| format!("no static invoice: {error:?}"))?;
        let invoice = built.build_and_sign(&Secp256k1::new()).map_err(|error| format!("no signature: {error:?}"))?;
        Ok(OffersMessage::StaticInvoice(invoice))
    }
}

impl OffersMessageHandler for Lure {
    fn handle_message(
        &self,
        message: OffersMessage,
        context: Option<OffersContext>,
        responder: Option<Responder>,
    ) -> Option<(OffersMessage, ResponseInstruction)> {
        match message {
            OffersMessage::InvoiceRequest(_) => {
                self.asked.fetch_add(1, Ordering::Relaxed);
                match self.answer() {
                    Ok(answer) => Some((answer, responder?.respond())),
                    Err(error) => {
                        eprintln!("{error}");
                        None
                    }
                }
            }
            other => self.manager.handle_message(other, context, responder),
        }
    }

    fn release_pending_messages(&self) -> Vec<(OffersMessage, MessageSendInstructions)> {
        OffersMessageHandler::release_pending_messages(&*self.manager)
    }
}

impl AsyncPaymentsMessageHandler for Lure {
    fn handle_offer_paths_request(
        &self,
        _message: OfferPathsRequest,
        _context: AsyncPaymentsContext,
        _responder: Option<Responder>,
    ) -> Option<(OfferPaths, ResponseInstruction)> {
        None
    }

    fn handle_offer_paths(
        &self,
        _message: OfferPaths,
        _context: AsyncPaymentsContext,
        _responder: Option<Responder>,
    ) -> Option<(ServeStaticInvoice, ResponseInstruction)> {
        None
    }

    fn handle_serve_static_invoice(
        &self,
        _message: ServeStaticInvoice,
        _context: AsyncPaymentsContext,
        _responder: Option<Responder>,
    ) {
    }

    fn handle_static_invoice_persisted(&self, _message: StaticInvoicePersisted, _context: AsyncPaymentsContext) {}

    /// Somebody would pay: he is told to do it.
    fn handle_held_htlc_available(
        &self,
        _message: HeldHtlcAvailable,
        _context: AsyncPaymentsContext,
        responder: Option<Responder>,
    ) -> Option<(ReleaseHeldHtlc, ResponseInstruction)> {
        self.held.fetch_add(1, Ordering::Relaxed);
        Some((ReleaseHeldHtlc {}, responder?.respond()))
    }

    fn handle_release_held_htlc(&self, _message: ReleaseHeldHtlc, _context: AsyncPaymentsContext) {}
}

/// A name of a payment that nobody has used.
pub fn fresh(keys: &KeysManager) -> PaymentId {
    PaymentId(keys.get_secure_random_bytes())
}
