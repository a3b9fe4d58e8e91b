//! Reading a payment request. What is read here was checked against its signature; whether it can be paid is for flows to say.

use std::str::FromStr;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use lightning_invoice::{
    Bolt11Invoice, Bolt11InvoiceDescriptionRef, Bolt11ParseError, Currency, ParseOrSemanticError, RawTaggedField,
};

use super::lightning::PaymentHash;
use crate::clock::Timestamp;
use crate::money::Amount;

/// What a BOLT 11 invoice says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// In its one spelling: lower case, without a scheme.
    pub text: String,
    pub hash: PaymentHash,
    /// Empty: the payer says how much.
    pub amount: Option<Amount>,
    pub payee: PublicKey,
    pub description: Option<String>,
    pub description_hash: Option<String>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// The asset that it asks for, beside the bitcoin that carries it. Paid as bitcoin it would be paid with nothing.
    pub asset: Option<NamedAsset>,
}

/// An RGB asset as nodes that carry them name it, in two tagged fields that BOLT 11 leaves open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedAsset {
    pub contract: Option<String>,
    /// In its smallest unit. Empty: the payer says how much, or it is more than anybody can count.
    pub amount: Option<u64>,
}

/// The tag of how much, an integer.
const RGB_AMOUNT: u8 = 30;
/// The tag of which asset, a text.
const RGB_CONTRACT: u8 = 31;
/// A field begins with its tag and two groups of length.
const FIELD_HEAD: usize = 3;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadInvoice {
    #[error("this is not a Lightning invoice: {0}")]
    Unreadable(String),
    #[error("this invoice is of another network than {0}")]
    WrongNetwork(Network),
    #[error("this invoice asks for more than there is")]
    TooLarge,
}

/// The scheme in front of invoices in links and QR codes.
const SCHEME: &str = "lightning:";

/// Longer texts are no invoice that a QR code could carry; reading one costs a signature check.
pub const LONGEST: usize = 4_096;

/// # Errors
/// When the text is no invoice, its signature does not fit, or it is of another network.
pub fn read(text: &str, network: Network) -> Result<Invoice, BadInvoice> {
    let text = text.trim();
    if text.len() > LONGEST {
        return Err(BadInvoice::Unreadable(format!("it is longer than {LONGEST} characters")));
    }
    let bare = match text.split_at_checked(SCHEME.len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => rest,
        Some(_) | None => text,
    };
    let invoice = Bolt11Invoice::from_str(bare).map_err(|error| BadInvoice::Unreadable(explain(&error)))?;
    if !is_of(invoice.currency(), network) {
        return Err(BadInvoice::WrongNetwork(network));
    }
    let amount = match invoice.amount_milli_satoshis() {
        Some(msat) => Some(Amount::from_msat(msat).map_err(|_| BadInvoice::TooLarge)?),
        None => None,
    };
    let (description, description_hash) = match invoice.description() {
        Bolt11InvoiceDescriptionRef::Direct(text) => (Some(text.to_string()), None),
        Bolt11InvoiceDescriptionRef::Hash(hash) => (None, Some(hash.0.to_string())),
    };
    let created_at = Timestamp::from_millis(0).after(invoice.duration_since_epoch());
    Ok(Invoice {
        text: invoice.to_string(),
        hash: PaymentHash(invoice.payment_hash().0),
        amount,
        payee: invoice.get_payee_pub_key(),
        description,
        description_hash,
        created_at,
        expires_at: created_at.after(invoice.expiry_time().min(LONGEST_EXPIRY)),
        asset: named_asset(invoice),
    })
}

/// The library keeps fields that it does not know as they are: groups of five bits.
fn named_asset(invoice: Bolt11Invoice) -> Option<NamedAsset> {
    let signed = invoice.into_signed_raw();
    let mut asset = None;
    for field in &signed.raw_invoice().data.tagged_fields {
        let RawTaggedField::UnknownSemantics(groups) = field else { continue };
        let groups: Vec<u8> = groups.iter().map(|group| group.to_u8()).collect();
        let (Some(tag), Some(said)) = (groups.first(), groups.get(FIELD_HEAD..)) else { continue };
        if *tag == RGB_AMOUNT {
            asset.get_or_insert_with(NamedAsset::default).amount = number(said);
        } else if *tag == RGB_CONTRACT {
            let text = String::from_utf8_lossy(&bytes(said)).into_owned();
            asset.get_or_insert_with(NamedAsset::default).contract = Some(text);
        }
    }
    asset
}

fn number(groups: &[u8]) -> Option<u64> {
    groups.iter().try_fold(0_u64, |sum, group| sum.checked_mul(32)?.checked_add(u64::from(*group)))
}

/// Eight bits after the other; what is left over fills the last group up.
fn bytes(groups: &[u8]) -> Vec<u8> {
    let bits: Vec<bool> = groups.iter().flat_map(|group| (0..5).rev().map(move |bit| group >> bit & 1 == 1)).collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit))).collect()
}

/// A hundred years: beyond what a time stamp can be asked to hold lies only mischief.
pub(super) const LONGEST_EXPIRY: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

fn is_of(currency: Currency, network: Network) -> bool {
    match currency {
        Currency::Bitcoin => network == Network::Bitcoin,
        Currency::BitcoinTestnet => matches!(network, Network::Testnet | Network::Testnet4),
        Currency::Regtest => network == Network::Regtest,
        Currency::Signet => network == Network::Signet,
        Currency::Simnet => false,
    }
}

/// What a person can do something with; the library's own words are for its developers.
fn explain(error: &ParseOrSemanticError) -> String {
    match error {
        ParseOrSemanticError::ParseError(Bolt11ParseError::Bech32Error(_)) => {
            "its checksum does not fit; a character may be missing or mistyped".to_owned()
        }
        ParseOrSemanticError::ParseError(error) => error.to_string(),
        ParseOrSemanticError::SemanticError(error) => error.to_string(),
    }
}
