//! Reading an offer (BOLT 12): a payment request without a hash. Who wants to pay it asks the payee for an invoice first.

use std::time::Duration;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning::offers::offer::{Amount as OfferAmount, Offer as Parsed};

use super::invoice::{BadInvoice, LONGEST, LONGEST_EXPIRY};
use crate::clock::Timestamp;
use crate::money::Amount;

/// What an offer says. Its text is for people and proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// In its one spelling: lower case, in one piece.
    pub text: String,
    /// Empty: the payer says how much, or the price is in another currency.
    pub amount: Option<Amount>,
    /// What a price in another currency is in, as ISO 4217 has it.
    pub currency: Option<String>,
    pub description: Option<String>,
    pub issuer: Option<String>,
    /// Empty where the payee can only be reached by a blinded path.
    pub payee: Option<PublicKey>,
    /// Empty: for ever.
    pub expires_at: Option<Timestamp>,
}

/// # Errors
/// When the text is no offer, or none of this network.
pub fn read(text: &str, network: Network) -> Result<Offer, BadInvoice> {
    let text = text.trim();
    if text.len() > LONGEST {
        return Err(BadInvoice::Unreadable(format!("it is longer than {LONGEST} characters")));
    }
    // The library's own words are for its developers.
    let broken = "it begins like an offer, and a character may be missing or mistyped";
    let offer: Parsed = text.parse().map_err(|_| BadInvoice::Unreadable(broken.to_owned()))?;
    if !offer.supports_chain(ChainHash::using_genesis_block(network)) {
        return Err(BadInvoice::WrongNetwork(network));
    }
    let (amount, currency) = match offer.amount() {
        Some(OfferAmount::Bitcoin { amount_msats }) => {
            (Some(Amount::from_msat(amount_msats).map_err(|_| BadInvoice::TooLarge)?), None)
        }
        Some(OfferAmount::Currency { iso4217_code, amount: _ }) => (None, Some(iso4217_code.as_str().to_owned())),
        None => (None, None),
    };
    let expires_at = offer.absolute_expiry().map(|at: Duration| Timestamp::from_millis(0).after(at.min(LATEST)));
    Ok(Offer {
        text: offer.to_string(),
        amount,
        currency,
        description: offer.description().map(|text| text.to_string()),
        issuer: offer.issuer().map(|text| text.to_string()),
        payee: offer.issuer_signing_pubkey(),
        expires_at,
    })
}

/// The latest end that an offer may name: an invoice of that age would have the same.
const LATEST: Duration = LONGEST_EXPIRY.saturating_mul(2);

#[cfg(test)]
mod tests {
    use super::*;

    /// From the test vectors of BOLT 12: the least that an offer can be, on mainnet.
    const MINIMAL: &str = "lno1zcss9mk8y3wkklfvevcrszlmu23kfrxh49px20665dqwmn4p72pksese";

    #[test]
    fn the_least_offer_is_read_and_belongs_to_its_network() {
        let offer = read(MINIMAL, Network::Bitcoin).unwrap();
        assert_eq!((offer.amount, offer.description, offer.expires_at), (None, None, None));
        assert!(offer.payee.is_some());
        assert_eq!(read(&MINIMAL.to_uppercase(), Network::Bitcoin).unwrap().text, MINIMAL);
        assert_eq!(read(MINIMAL, Network::Regtest), Err(BadInvoice::WrongNetwork(Network::Regtest)));
    }

    #[test]
    fn what_is_no_offer_is_refused() {
        for wrong in ["", "lno1", "lno1zcss9mk8y3", "lnbc1", &format!("{MINIMAL}q"), &"lno1".repeat(2_000)] {
            assert!(matches!(read(wrong, Network::Bitcoin), Err(BadInvoice::Unreadable(_))), "{wrong}");
        }
    }
}
