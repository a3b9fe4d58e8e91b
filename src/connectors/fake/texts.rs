//! Invoices and offers as texts: made with the keys of a node, and read as anybody reads them.

use std::str::FromStr;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::secp256k1::{PublicKey, Secp256k1};
use lightning::blinded_path::payment::{
    BlindedPaymentPath, Bolt12OfferContext, PaymentConstraints, PaymentContext, ReceiveTlvs,
};
use lightning::offers::invoice::{Bolt12Invoice, UnsignedBolt12Invoice};
use lightning::offers::invoice_request::{InvoiceRequest, InvoiceRequestFields};
use lightning::offers::nonce::Nonce;
use lightning::offers::offer::{Amount as OfferAmount, Offer, OfferBuilder};
use lightning::sign::{KeysManager, NodeSigner};
use lightning::types::payment::{PaymentHash as LdkHash, PaymentSecret};
use lightning::types::string::UntrustedString;
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder};

use super::state::State;
use crate::clock::Clock;
use crate::money::Amount;
use crate::ports::lightning::{Description, Fetched, NewInvoice, NewOffer, PaymentHash, Preimage};

const MIN_FINAL_BLOCKS: u16 = 144;
/// What an invoice that was fetched for an offer is good for.
const FETCHED_EXPIRES_IN: Duration = Duration::from_secs(7_200);

/// What an invoice says, of either kind.
pub(super) struct Invoice {
    pub payee: PublicKey,
    pub hash: PaymentHash,
    pub amount: Option<u64>,
    pub expires_at: Duration,
}

pub(super) fn since_epoch(clock: &Clock) -> Duration {
    Duration::from_millis(u64::try_from(clock.now().millis()).unwrap_or_default())
}

pub(super) fn make_bolt11(state: &State, payee: usize, new: &NewInvoice) -> Result<String, String> {
    let builder = InvoiceBuilder::new(Currency::Regtest)
        .payment_hash(LdkHash(new.hash.0))
        .payment_secret(PaymentSecret(sha256::Hash::hash(&new.hash.0).to_byte_array()))
        .duration_since_epoch(since_epoch(&state.clock))
        .min_final_cltv_expiry_delta(MIN_FINAL_BLOCKS.into())
        .expiry_time(new.expires_in)
        .basic_mpp();
    let builder = match new.amount {
        Some(amount) => builder.amount_milli_satoshis(amount.base_units()),
        None => builder,
    };
    let key = state.nodes[payee].keys.get_node_secret_key();
    let sign = |message: &_| Secp256k1::new().sign_ecdsa_recoverable(message, &key);
    let invoice = match &new.description {
        Description::Text(text) => builder.description(text.clone()).build_signed(sign),
        Description::Hash(hash) => builder.description_hash(sha256::Hash::from_byte_array(*hash)).build_signed(sign),
    };
    invoice.map(|invoice| invoice.to_string()).map_err(|error| error.to_string())
}

pub(super) fn read_bolt11(text: &str) -> Option<Invoice> {
    let invoice = Bolt11Invoice::from_str(text).ok().filter(|invoice| invoice.currency() == Currency::Regtest)?;
    Some(Invoice {
        payee: invoice.get_payee_pub_key(),
        hash: PaymentHash(invoice.payment_hash().0),
        amount: invoice.amount_milli_satoshis(),
        expires_at: invoice.duration_since_epoch().saturating_add(invoice.expiry_time()),
    })
}

pub(super) fn read_bolt12(hex: &str) -> Option<Invoice> {
    let invoice = Bolt12Invoice::try_from(Vec::from_hex(hex).ok()?).ok()?;
    Some(Invoice {
        payee: invoice.signing_pubkey(),
        hash: PaymentHash(invoice.payment_hash().0),
        amount: Some(invoice.amount_msats()),
        expires_at: invoice.created_at().saturating_add(invoice.relative_expiry()),
    })
}

pub(super) fn make_offer(state: &State, payee: usize, new: &NewOffer) -> Result<String, String> {
    let builder = OfferBuilder::new(state.nodes[payee].id)
        .chain(Network::Regtest)
        .description(new.description.clone())
        // Else two that ask for the same would be the same.
        .issuer(state.nodes[payee].offers.len().to_string());
    let builder = match new.amount {
        Some(amount) => builder.amount_msats(amount.base_units()),
        None => builder,
    };
    let builder = match new.expires_in {
        Some(span) => builder.absolute_expiry(since_epoch(&state.clock).saturating_add(span)),
        None => builder,
    };
    builder.build().map(|offer| offer.to_string()).map_err(|error| format!("{error:?}"))
}

/// What a payee answers: the invoice, and what it has to remember for it.
pub(super) struct Answered {
    pub payee: usize,
    pub preimage: Preimage,
    pub offer: String,
    pub fetched: Fetched,
}

/// An error is what the payee says instead, or that there is nobody.
pub(super) fn fetch(
    state: &mut State,
    payer: usize,
    text: &str,
    msat: Option<Amount>,
    note: Option<&str>,
) -> Result<Answered, String> {
    let offer = Offer::from_str(text).map_err(|error| format!("{error:?}"))?;
    let payee = offer.issuer_signing_pubkey().and_then(|id| state.index_of(id)).ok_or("nobody knows the payee")?;
    let text = offer.to_string();
    if !state.is_up(payee) || !state.nodes[payee].offers.contains(&text) {
        return Err("the payee does not answer".to_owned());
    }
    if offer.absolute_expiry().is_some_and(|at| at <= since_epoch(&state.clock)) {
        return Err("the offer has expired".to_owned());
    }
    let number = state.fresh_number();
    let preimage = Preimage(sha256::Hash::hash(format!("preimage {payee} {number}").as_bytes()).to_byte_array());
    let ageless = without_expiry(&offer)?;
    let request = ask(&state.nodes[payer].keys, &ageless, number, msat, note)?;
    let invoice = answer(state, payee, &request, preimage.hash(), &offer)?;
    let fetched = Fetched::Invoice {
        invoice: encode(&invoice),
        hash: preimage.hash(),
        amount: super::amount(invoice.amount_msats()),
        expires_in: FETCHED_EXPIRES_IN,
    };
    Ok(Answered { payee, preimage, offer: text, fetched })
}

/// The library asks the machine's clock whether an offer has expired, and a test has a clock of its own, which was asked above.
fn without_expiry(offer: &Offer) -> Result<Offer, String> {
    let issuer = offer.issuer_signing_pubkey().ok_or("the offer names nobody")?;
    let builder = OfferBuilder::new(issuer).chain(Network::Regtest);
    let builder = match offer.description() {
        Some(text) => builder.description(text.to_string()),
        None => builder,
    };
    let builder = match offer.amount() {
        Some(OfferAmount::Bitcoin { amount_msats }) => builder.amount_msats(amount_msats),
        Some(OfferAmount::Currency { .. }) | None => builder,
    };
    builder.build().map_err(|error| format!("{error:?}"))
}

fn ask(
    keys: &KeysManager,
    offer: &Offer,
    number: u64,
    msat: Option<Amount>,
    note: Option<&str>,
) -> Result<InvoiceRequest, String> {
    let secp = Secp256k1::new();
    let payment = sha256::Hash::hash(&number.to_be_bytes()).to_byte_array();
    let id = lightning::ln::channelmanager::PaymentId(payment);
    let said = |error| format!("{error:?}");
    let nonce = Nonce::from_entropy_source(keys);
    let mut builder = offer
        .request_invoice(&keys.get_expanded_key(), nonce, &secp, id)
        .and_then(|builder| builder.chain(Network::Regtest))
        .map_err(said)?;
    if let Some(msat) = msat {
        builder = builder.amount_msats(msat.base_units()).map_err(said)?;
    }
    if let Some(note) = note {
        builder = builder.payer_note(note.to_owned());
    }
    builder.build_and_sign().map_err(said)
}

fn answer(
    state: &State,
    payee: usize,
    request: &InvoiceRequest,
    hash: PaymentHash,
    offer: &Offer,
) -> Result<Bolt12Invoice, String> {
    let said = |error| format!("{error:?}");
    let created_at = since_epoch(&state.clock);
    let expires_in = u32::try_from(FETCHED_EXPIRES_IN.as_secs()).unwrap_or(u32::MAX);
    let path = path_to(state, payee, request, offer).ok_or("no path can be made")?;
    let unsigned = request
        .respond_with_no_std(vec![path], LdkHash(hash.0), created_at)
        .map_err(said)?
        .relative_expiry(expires_in)
        .allow_mpp()
        .build()
        .map_err(said)?;
    let keys = &state.nodes[payee].keys;
    let sign = |message: &UnsignedBolt12Invoice| keys.sign_bolt12_invoice(message);
    unsigned.sign(sign).map_err(|error| format!("{error:?}"))
}

/// Nobody follows it here: payments find the payee by the key that signed.
fn path_to(state: &State, payee: usize, request: &InvoiceRequest, offer: &Offer) -> Option<BlindedPaymentPath> {
    let node = &state.nodes[payee];
    let invoice_request = InvoiceRequestFields {
        payer_signing_pubkey: request.payer_signing_pubkey(),
        quantity: request.quantity(),
        payer_note_truncated: request.payer_note().map(|note| UntrustedString(note.to_string())),
        human_readable_name: None,
    };
    let context = PaymentContext::Bolt12Offer(Bolt12OfferContext {
        offer_id: offer.id(),
        invoice_request,
        payment_metadata: None,
    });
    let constraints = PaymentConstraints { max_cltv_expiry: u32::MAX, htlc_minimum_msat: 1 };
    let tlvs = ReceiveTlvs {
        payment_secret: PaymentSecret([0; 32]),
        payment_constraints: constraints,
        payment_context: context,
    };
    let key = node.keys.get_receive_auth_key();
    BlindedPaymentPath::one_hop(node.id, key, tlvs, MIN_FINAL_BLOCKS, &node.keys, &Secp256k1::new()).ok()
}

fn encode(invoice: &Bolt12Invoice) -> String {
    let mut bytes = Vec::new();
    // proof: a vector takes everything
    lightning::util::ser::Writeable::write(invoice, &mut bytes).expect("a vector");
    bytes.to_lower_hex_string()
}
