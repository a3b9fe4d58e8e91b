//! `bitcoin:` URIs (BIP 21): an address, and perhaps an amount.

use std::borrow::Cow;

use crate::money::Sat;

const SCHEME: &str = "bitcoin:";
const DECIMALS: usize = 8;

/// What a destination asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Destination {
    pub address: String,
    pub amount: Option<Sat>,
}

/// Reads a plain address or a URI; answers in words what is wrong with it.
///
/// # Errors
/// When a URI has an amount that is none, or demands something that we don't know.
pub fn read(text: &str) -> Result<Destination, Cow<'static, str>> {
    let text = text.trim();
    let scheme = text.split_at_checked(SCHEME.len()).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME));
    let Some((_, rest)) = scheme else {
        return Ok(Destination { address: text.to_owned(), amount: None });
    };
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    if address.is_empty() {
        return Err("the URI names no address".into());
    }
    let mut amount = None;
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if name.eq_ignore_ascii_case("amount") {
            let read =
                decimal_bitcoin(&value).ok_or("the URI's amount is not a number of bitcoins with up to 8 decimals")?;
            if amount.replace(read).is_some_and(|before| before != read) {
                return Err("the URI has two amounts".into());
            }
        } else if name.to_ascii_lowercase().starts_with("req-") {
            return Err(format!("the URI demands {name}, which is not known here").into());
        }
    }
    Ok(Destination { address: address.to_owned(), amount })
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
        assert_eq!(read(" bc1q "), Destination { address: "bc1q".to_owned(), amount: None });
        assert_eq!(
            read("BITCOIN:BC1Q?amount=0.1&label=a"),
            Destination { address: "BC1Q".to_owned(), amount: Some(Sat::literal(10_000_000)) }
        );
        assert_eq!(read("bitcoin:x?AMOUNT=20.30000000").amount, Some(Sat::literal(2_030_000_000)));
        assert_eq!(read("bitcoin:x?amount=.00000001").amount, Some(Sat::literal(1)));
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
