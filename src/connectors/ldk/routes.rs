//! Reading what is to be paid, finding a way, and giving it to LDK.

use std::time::Duration;

use bitcoin::Network;
use bitcoin::hex::FromHex as _;
use bitcoin::secp256k1::{PublicKey, Secp256k1};
use lightning::blinded_path::payment::BlindedPaymentPath;
use lightning::blinded_path::{IntroductionNode, NodeIdLookUp as _};
use lightning::ln::channelmanager::{
    MIN_FINAL_CLTV_EXPIRY_DELTA, OptionalBolt11PaymentParams, PaymentId as LdkPaymentId,
};
use lightning::ln::outbound_payment::{Bolt11PaymentError, RecipientOnionFields, Retry, RetryableSendFailure};
use lightning::offers::invoice::Bolt12Invoice;
use lightning::routing::router::{Payee, PaymentParameters, Route, RouteParameters, RouteParametersConfig};
use lightning::types::payment::{PaymentHash as LdkHash, PaymentPreimage};
use lightning_invoice::Bolt11Invoice;

use super::node::Node;
use crate::domain::lightning::{PaymentHash, Preimage};
use crate::money::Amount;
use crate::ports::lightning::{Destination, PayFailure, Payment};

/// How long LDK looks for other ways by itself.
const RETRY_FOR: Duration = Duration::from_secs(10);

/// A destination that has been read.
pub enum Parsed {
    Bolt11(Box<Bolt11Invoice>),
    Bolt12(Box<Bolt12Invoice>),
    Keysend { to: PublicKey, preimage: Preimage },
}

/// Why LDK did not take a payment.
pub enum SendError {
    NoRoute,
    /// It has one with this id.
    Duplicate,
    Definite(PayFailure),
}

impl Parsed {
    /// # Errors
    /// When it can't be paid by anybody, or not with this hash.
    pub fn read(payment: &Payment, network: Network) -> Result<Self, PayFailure> {
        let parsed = Self::of(&payment.destination, network)?;
        if parsed.hash() == payment.hash { Ok(parsed) } else { Err(PayFailure::NotPayable) }
    }

    /// # Errors
    /// When it can't be read or belongs to another network.
    pub fn of(destination: &Destination, network: Network) -> Result<Self, PayFailure> {
        match destination {
            Destination::Bolt11(text) => {
                let invoice: Bolt11Invoice = text.parse().map_err(|_| PayFailure::NotPayable)?;
                let ours = invoice.network() == network;
                if ours { Ok(Self::Bolt11(Box::new(invoice))) } else { Err(PayFailure::NotPayable) }
            }
            Destination::Bolt12(hex) => {
                let bytes = Vec::<u8>::from_hex(hex).map_err(|_| PayFailure::NotPayable)?;
                let invoice = Bolt12Invoice::try_from(bytes).map_err(|_| PayFailure::NotPayable)?;
                let ours = invoice.chain() == bitcoin::constants::ChainHash::using_genesis_block(network);
                if ours { Ok(Self::Bolt12(Box::new(invoice))) } else { Err(PayFailure::NotPayable) }
            }
            Destination::Keysend { to, preimage } => Ok(Self::Keysend { to: *to, preimage: *preimage }),
        }
    }

    fn hash(&self) -> PaymentHash {
        match self {
            Self::Bolt11(invoice) => PaymentHash(invoice.payment_hash().0),
            Self::Bolt12(invoice) => PaymentHash(invoice.payment_hash().0),
            Self::Keysend { preimage, .. } => preimage.hash(),
        }
    }
}

impl Node {
    /// Gives a payment to LDK. It never pays more than the ceiling.
    ///
    /// # Errors
    /// When LDK did not take it: nothing of it is out.
    pub fn send(&self, payment: &Payment, parsed: &Parsed) -> Result<(), SendError> {
        let id = LdkPaymentId(payment.id.0);
        let msat = payment.amount.base_units();
        let retry = Retry::Timeout(RETRY_FOR);
        match parsed {
            Parsed::Bolt11(invoice) => {
                let route_params_config =
                    RouteParametersConfig::default().with_max_total_routing_fee_msat(payment.max_fee.base_units());
                let params = OptionalBolt11PaymentParams {
                    route_params_config,
                    retry_strategy: retry,
                    ..OptionalBolt11PaymentParams::default()
                };
                let sent = self.manager.pay_for_bolt11_invoice(invoice, id, Some(msat), params);
                sent.map_err(|error| match error {
                    Bolt11PaymentError::InvalidAmount => SendError::Definite(PayFailure::NotPayable),
                    Bolt11PaymentError::SendingFailed(why) => send_error(why),
                })
            }
            Parsed::Bolt12(invoice) if msat < invoice.amount_msats() => {
                Err(SendError::Definite(PayFailure::NotPayable))
            }
            Parsed::Bolt12(invoice) => {
                let Some(params) = self.route_parameters(parsed, payment.amount, Some(payment.max_fee)) else {
                    return Err(SendError::NoRoute);
                };
                let onion = RecipientOnionFields::spontaneous_empty(msat);
                let hash = LdkHash(invoice.payment_hash().0);
                self.manager.send_payment(hash, onion, id, params, retry).map_err(send_error)
            }
            Parsed::Keysend { preimage, .. } => {
                let Some(params) = self.route_parameters(parsed, payment.amount, Some(payment.max_fee)) else {
                    return Err(SendError::NoRoute);
                };
                let onion = RecipientOnionFields::spontaneous_empty(msat);
                let preimage = Some(PaymentPreimage(preimage.0));
                let sent = self.manager.send_spontaneous_payment(preimage, onion, id, params, retry);
                sent.map(drop).map_err(send_error)
            }
        }
    }

    /// What no way would make payable.
    ///
    /// # Errors
    /// Why it can't be paid.
    pub fn payable(&self, payment: &Payment, parsed: Parsed) -> Result<Parsed, PayFailure> {
        let (asked, expires) = match &parsed {
            Parsed::Bolt11(invoice) => (invoice.amount_milli_satoshis().unwrap_or(0), invoice.expires_at()),
            Parsed::Bolt12(invoice) => {
                (invoice.amount_msats(), Some(invoice.created_at().saturating_add(invoice.relative_expiry())))
            }
            Parsed::Keysend { .. } => (0, None),
        };
        if payment.amount.base_units() < asked {
            return Err(PayFailure::NotPayable);
        }
        let is_late = expires.is_some_and(|at| at <= self.since_epoch());
        if is_late { Err(PayFailure::InvoiceExpired) } else { Ok(parsed) }
    }

    /// The best way now, over what our channels can send; the same search as a payment's. It takes long where the network is large:
    /// [`Node::search`] is where it runs.
    ///
    /// # Errors
    /// When there is none.
    pub fn route(&self, parsed: &Parsed, amount: Amount, max_fee: Option<Amount>) -> Result<Route, &'static str> {
        let params = self.route_parameters(parsed, amount, max_fee).ok_or("no way into its blinded paths")?;
        let channels = self.manager.list_usable_channels();
        let first_hops: Vec<_> = channels.iter().collect();
        let in_flight = self.manager.compute_inflight_htlcs();
        self.router.look(&self.id, &params, &first_hops, in_flight)
    }

    fn route_parameters(&self, parsed: &Parsed, amount: Amount, max_fee: Option<Amount>) -> Option<RouteParameters> {
        let payee = match parsed {
            Parsed::Bolt11(invoice) => PaymentParameters::from_bolt11_invoice(invoice),
            Parsed::Bolt12(invoice) => self.enter_paths(PaymentParameters::from_bolt12_invoice(invoice))?,
            Parsed::Keysend { to, .. } => {
                PaymentParameters::for_keysend(*to, u32::from(MIN_FINAL_CLTV_EXPIRY_DELTA), false)
            }
        };
        let mut params = RouteParameters::from_payment_params_and_value(payee, amount.base_units());
        params.max_total_routing_fee_msat = max_fee.map(Amount::base_units);
        Some(params)
    }

    /// A blinded path that begins at this node begins at its second hop for us.
    fn enter_paths(&self, mut params: PaymentParameters) -> Option<PaymentParameters> {
        let Payee::Blinded { route_hints, .. } = &mut params.payee else { return Some(params) };
        let secp = Secp256k1::new();
        route_hints.retain_mut(|path| {
            if !self.begins_here(path) {
                return true;
            }
            self.take_off_our_fee(path);
            path.advance_path_by_one(&self.keys, &self.manager, &secp).is_ok()
        });
        (!route_hints.is_empty()).then_some(params)
    }

    /// Its price has ours in it. Where it is only ours, nobody else asks for anything; else the payee gets a little more.
    fn take_off_our_fee(&self, path: &mut BlindedPaymentPath) {
        let asked = (path.payinfo.fee_base_msat, path.payinfo.fee_proportional_millionths);
        let ours = self.manager.list_usable_channels().into_iter().filter_map(|channel| channel.config);
        let mut ours =
            ours.map(|config| (config.forwarding_fee_base_msat, config.forwarding_fee_proportional_millionths));
        if ours.any(|fee| fee == asked) {
            path.payinfo.fee_base_msat = 0;
            path.payinfo.fee_proportional_millionths = 0;
        }
    }

    fn begins_here(&self, path: &BlindedPaymentPath) -> bool {
        match path.introduction_node() {
            IntroductionNode::NodeId(id) => *id == self.id,
            IntroductionNode::DirectedShortChannelId(direction, channel) => self
                .manager
                .next_node_id(*channel)
                .is_some_and(|next| *direction.select_pubkey(&self.id, &next) == self.id),
        }
    }
}

fn send_error(why: RetryableSendFailure) -> SendError {
    match why {
        RetryableSendFailure::PaymentExpired => SendError::Definite(PayFailure::InvoiceExpired),
        RetryableSendFailure::RouteNotFound => SendError::NoRoute,
        RetryableSendFailure::DuplicatePayment => SendError::Duplicate,
        RetryableSendFailure::OnionPacketSizeExceeded => SendError::Definite(PayFailure::NotPayable),
    }
}
