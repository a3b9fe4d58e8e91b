//! `bitcoin:` URIs (BIP 21, and BIP 321 as far as it is about Lightning): an address, perhaps an amount, perhaps an invoice.

use std::borrow::Cow;

use crate::money::Sat;

const SCHEME: &str = "bitcoin:";
const DECIMALS: usize = 8;

/// What a destination asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// Empty only where there is another way to pay.
    pub address: Option<String>,
    pub amount: Option<Sat>,
    /// An invoice or an offer, as it is written.
    pub lightning: Option<String>,
    pub label: Option<String>,
    pub message: Option<String>,
    pub is_uri: bool,
}

/// Reads a plain address or a URI; answers in words what is wrong with it.
///
/// # Errors
/// When a URI has an amount that is none, or demands something that we don't know.
pub fn read(text: &str) -> Result<Destination, Cow<'static, str>> {
    let text = text.trim();
    let scheme = text.split_at_checked(SCHEME.len()).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME));
    let Some((_, rest)) = scheme else {
        return Ok(Destination { address: Some(text.to_owned()), ..Destination::default() });
    };
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut read = Destination {
        address: (!address.is_empty()).then(|| address.to_owned()),
        is_uri: true,
        ..Destination::default()
    };
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if name.eq_ignore_ascii_case("amount") {
            let amount =
                decimal_bitcoin(&value).ok_or("the URI's amount is not a number of bitcoins with up to 8 decimals")?;
            if read.amount.replace(amount).is_some_and(|before| before != amount) {
                return Err("the URI has two amounts".into());
            }
        } else if let Some(known) = read.text(&name) {
            // Of two the first one counts.
            known.get_or_insert_with(|| value.into_owned());
        } else if name.to_ascii_lowercase().starts_with("req-") {
            return Err(format!("the URI demands {name}, which is not known here").into());
        }
    }
    if read.address.is_none() && read.lightning.is_none() {
        return Err("the URI names no address".into());
    }
    Ok(read)
}

impl Destination {
    /// Where a parameter of this name is kept.
    fn text(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name.to_ascii_lowercase().as_str() {
            "lightning" | "lno" => Some(&mut self.lightning),
            "label" => Some(&mut self.label),
            "message" => Some(&mut self.message),
            _ => None,
        }
    }
}

/// Exactly: no floating point ever holds an amount.
fn decimal_bitcoin(text: &str) -> Option<Sat> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
    let is_number = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    if !is_number || fraction.len() > DECIMALS || whole.len() > DECIMALS {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: u64 = format!("{fraction:0<DECIMALS$}").parse().ok()?;
    Sat::new(whole.checked_mul(100_000_000)?.checked_add(fraction)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_an_address_and_perhaps_an_exact_amount() {
        let read = |text| read(text).unwrap();
        let plain = Destination { address: Some("bc1q".to_owned()), ..Destination::default() };
        assert_eq!(read(" bc1q "), plain);
        let uri = read("BITCOIN:BC1Q?amount=0.1&label=a");
        assert_eq!((uri.address.as_deref(), uri.amount), (Some("BC1Q"), Some(Sat::literal(10_000_000))));
        assert_eq!((uri.label.as_deref(), uri.lightning), (Some("a"), None));
        assert_eq!(read("bitcoin:x?AMOUNT=20.30000000").amount, Some(Sat::literal(2_030_000_000)));
        assert_eq!(read("bitcoin:x?amount=.00000001").amount, Some(Sat::literal(1)));
    }

    #[test]
    fn a_uri_may_name_an_invoice_beside_the_address_or_instead() {
        let both = read("bitcoin:x?amount=0.1&lightning=LNBC1&lightning=other").unwrap();
        assert_eq!((both.address.as_deref(), both.lightning.as_deref()), (Some("x"), Some("LNBC1")));
        let offer = read("bitcoin:?lno=lno1abc").unwrap();
        assert_eq!((offer.address, offer.lightning.as_deref()), (None, Some("lno1abc")));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for wrong in [
            "bitcoin:",
            "bitcoin:?amount=1",
            "bitcoin:x?amount=",
            "bitcoin:x?amount=.",
            "bitcoin:x?amount=1e3",
            "bitcoin:x?amount=-1",
            "bitcoin:x?amount=0.000000001",
            "bitcoin:x?amount=99999999",
            "bitcoin:x?amount=1&amount=2",
            "bitcoin:x?req-something=1",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
