//! Spending grants: the consent to a key of a gateway that pays without asking again, up to its limits.
//!
//! Signed as an authorisation is, over a message with another first line. It is worth more than one, so it has a command of its
//! own: whoever signs authorisations by a script does not sign a grant by accident.

use std::fmt;

use bitcoin::Network;

use crate::authorization::{Quantity, parse_amount, parse_time, require_chain, require_hex, split_text, unclear};
use crate::error::Error;

/// The first line of every grant.
pub const TITLE: &str = "Sluice spending grant v1";
/// In characters, line ends included.
pub const MAX_MESSAGE_LEN: usize = 500;
/// One limit for each period at most, shortest first.
const PERIODS: [&str; 4] = ["hour", "day", "week", "month"];
const LIMIT: &str = "limit: ";

/// A grant's message, every line understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The text that is signed, byte for byte.
    pub message: String,
    /// The gateway's random id, 16 hex.
    pub gateway: String,
    /// 16 hex of the hash of the wallet's triple.
    pub wallet: String,
    /// The key's public half, 12 hex.
    pub key: String,
    /// The first 32 hex of the key's SHA-256.
    pub key_hash: String,
    pub limits: Vec<SpendingLimit>,
    /// Amount and fee ceiling of one payment together.
    pub per_payment: Option<Quantity>,
    /// RFC 3339, UTC, whole seconds: until when the key may spend.
    pub expires: String,
    pub expires_unix: u64,
}

/// How much in a period of the calendar, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendingLimit {
    pub amount: Quantity,
    /// hour, day, week or month.
    pub period: &'static str,
}

impl fmt::Display for SpendingLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {}", self.amount, self.period)
    }
}

impl Grant {
    /// Reads a message, and refuses one that is for another chain than `network`'s.
    pub fn parse(message: &str, network: Network) -> Result<Self, Error> {
        let mut lines = split_text(message, TITLE, MAX_MESSAGE_LEN)?.peekable();
        let mut value = |key: &str| -> Result<&str, Error> {
            let line = lines.next().ok_or_else(|| unclear(format!("the line `{key}: ...` is missing")))?;
            let (found, value) = line.split_once(": ").unwrap_or((line, ""));
            if found == key { Ok(value) } else { Err(unclear(format!("the line `{key}: ...` is missing"))) }
        };
        let [gateway, chain, wallet, key, key_hash] =
            [value("gateway")?, value("chain")?, value("wallet")?, value("key")?, value("key_hash")?];
        let mut limits = vec![parse_limit(value("limit")?)?];
        let next = |limits: &Vec<SpendingLimit>| limits.last().map(|limit| limit.period);
        while let Some(line) = lines.next_if(|line| line.starts_with(LIMIT)) {
            let limit = parse_limit(line.strip_prefix(LIMIT).unwrap_or_default())?;
            if place(limit.period) <= next(&limits).and_then(place) {
                return Err(unclear("the limits are not in order, or two are for the same period"));
            }
            limits.push(limit);
        }
        let mut value = |key: &str| -> Result<&str, Error> {
            let line = lines.next().and_then(|line| line.strip_prefix(key)?.strip_prefix(": "));
            line.ok_or_else(|| unclear(format!("the line `{key}: ...` is missing")))
        };
        let (per_payment, expires) = (value("per_payment")?, value("expires")?);
        if lines.next().is_some() {
            return Err(unclear("there are lines after the last one"));
        }
        for (name, value, digits) in [
            ("gateway", gateway, 16),
            ("chain", chain, 16),
            ("wallet", wallet, 16),
            ("key", key, 12),
            ("key_hash", key_hash, 32),
        ] {
            require_hex(name, value, digits)?;
        }
        require_chain(chain, network)?;
        let per_payment = if per_payment == "none" { None } else { Some(parse_amount(per_payment)?) };
        let expires_unix = parse_time(expires)
            .ok_or_else(|| unclear(format!("expires {expires:?} is not a time like 2026-01-31T12:00:00Z")))?;
        Ok(Grant {
            message: message.to_owned(),
            gateway: gateway.to_owned(),
            wallet: wallet.to_owned(),
            key: key.to_owned(),
            key_hash: key_hash.to_owned(),
            limits,
            per_payment,
            expires: expires.to_owned(),
            expires_unix,
        })
    }
}

fn place(period: &str) -> Option<usize> {
    PERIODS.iter().position(|known| *known == period)
}

fn parse_limit(text: &str) -> Result<SpendingLimit, Error> {
    let bad = || unclear(format!("limit {text:?} is not `<number> msat per <hour | day | week | month>`"));
    let (amount, period) = text.rsplit_once(" per ").ok_or_else(bad)?;
    let period = PERIODS.iter().find(|known| **known == period).ok_or_else(bad)?;
    Ok(SpendingLimit { amount: parse_amount(amount)?, period })
}

/// What the user expects of a grant. The default accepts any, after it was shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// The gateway's id.
    pub gateway: Option<String>,
    /// The key's id.
    pub key: Option<String>,
    /// One of the limits is this one or less, in the same period; in millisatoshi.
    pub at_most: Option<(u64, &'static str)>,
}

impl Expected {
    pub(crate) fn check(&self, grant: &Grant) -> Result<(), Error> {
        if let Some(expected) = &self.gateway
            && !expected.eq_ignore_ascii_case(&grant.gateway)
        {
            return Err(Error::UnexpectedGateway { found: grant.gateway.clone(), expected: expected.clone() });
        }
        if let Some(expected) = &self.key
            && !expected.eq_ignore_ascii_case(&grant.key)
        {
            return Err(Error::UnexpectedKey { found: grant.key.clone(), expected: expected.clone() });
        }
        let Some((most, period)) = self.at_most else { return Ok(()) };
        let within = |limit: &SpendingLimit| {
            limit.period == period && matches!(limit.amount, Quantity::Msat(amount) if amount <= most)
        };
        if grant.limits.iter().any(within) {
            return Ok(());
        }
        let found: Vec<String> = grant.limits.iter().map(ToString::to_string).collect();
        let limit = format!("{} per {period}", Quantity::Msat(most));
        Err(Error::AmountTooHigh { amount: found.join(" and "), limit })
    }
}

/// Reads what `--max-limit` takes: `1000000/day`, in satoshis.
pub fn parse_at_most(text: &str) -> Result<(u64, &'static str), String> {
    let bad = || format!("{text:?} is not a limit like 1000000/day, in satoshis");
    let (number, period) = text.split_once('/').ok_or_else(bad)?;
    let sat = crate::authorization::parse_number(number).ok_or_else(bad)?;
    let period = PERIODS.iter().find(|known| **known == period).ok_or_else(bad)?;
    Ok((crate::authorization::msat(bitcoin::Amount::from_sat(sat)), period))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{authorization, authorization_by, grant_message, message, signer};
    use crate::keys::{Account, KeyPath};
    use crate::limits::Limits;

    fn parse(message: &str) -> Result<Grant, Error> {
        Grant::parse(message, Network::Regtest)
    }

    #[test]
    fn a_grant_is_read_line_by_line() {
        let read = parse(&grant_message()).unwrap();
        assert_eq!((read.gateway.as_str(), read.key.as_str()), ("00112233445566aa", "0123456789ab"));
        let limits: Vec<String> = read.limits.iter().map(ToString::to_string).collect();
        assert_eq!(limits, ["1000000 sat per day", "5000000 sat per month"]);
        assert_eq!(read.per_payment, Some(Quantity::Msat(50_000_000)));
        assert_eq!(read.expires_unix, 1_769_860_800);
        let without = grant_message().replace("per_payment: 50000000 msat", "per_payment: none");
        assert_eq!(parse(&without).unwrap().per_payment, None);
    }

    /// Every line of the table breaks one rule; a parser that forgot the rule would accept it.
    #[test]
    fn any_other_spelling_is_refused() {
        for (from, to) in [
            ("Sluice spending grant v1", "Sluice spending grant v2"),
            ("Sluice spending grant v1", "Sluice spend authorization v1"),
            ("gateway: 00112233445566aa", "gateway: 00112233445566AA"),
            ("key: 0123456789ab", "key: 0123456789abcd"),
            ("key_hash: ", "hash: "),
            ("limit: 1000000000 msat per day\nlimit: 5000000000 msat per month\n", ""),
            ("limit: 1000000000 msat per day", "limit: 1000000000 msat per year"),
            ("limit: 1000000000 msat per day", "limit: 1000000000 msat"),
            ("limit: 1000000000 msat per day", "limit: 0 msat per day"),
            ("limit: 1000000000 msat per day", "limit: 1000000000 msat per month"),
            ("limit: 1000000000 msat per day", "limit: limit: 1000000000 msat per day"),
            ("msat per day\nlimit: 5000000000 msat per month", "msat per month\nlimit: 5000000000 msat per day"),
            ("limit: 5000000000 msat per month", "limit: limit: 5000000000 msat per month"),
            ("per_payment: 50000000 msat", "per_payment: 0 msat"),
            ("per_payment: 50000000 msat", "per_payment: None"),
            ("per_payment: 50000000 msat\n", ""),
            ("2026-01-31T12:00:00Z", "2026-02-31T12:00:00Z"),
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z\nlimit: 1 msat per hour"),
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z\n"),
            ("limit: 1000000000 msat per day", "limit: 1000000000 msat per day\r"),
        ] {
            let text = grant_message().replacen(from, to, 1);
            assert_ne!(text, grant_message(), "{from:?} is not in the message");
            assert!(matches!(parse(&text), Err(Error::Message(_))), "{from:?} -> {to:?} was accepted");
        }
        assert!(matches!(Grant::parse(&grant_message(), Network::Signet), Err(Error::WrongChain { .. })));
    }

    #[test]
    fn a_grant_is_signed_by_its_own_command_only() {
        let psbt = authorization(&grant_message());
        assert!(matches!(signer().sign(&mut psbt.clone()), Err(Error::IsAGrant)));
        assert!(matches!(signer().sign_within(&mut psbt.clone(), &Limits::default()), Err(Error::IsAGrant)));
        let mut signed = psbt.clone();
        signer().grant(&mut signed, &Expected::default()).unwrap();
        let witness = signed.inputs[0].final_script_witness.clone().unwrap();
        let address = signer().address(KeyPath::AUTHORIZATION).unwrap();
        assert!(matches!(
            bip322::verify_simple(&address, grant_message(), witness),
            Ok(bip322::Verification::Valid { .. })
        ));
        let spend = authorization(&message());
        assert!(matches!(signer().grant(&mut spend.clone(), &Expected::default()), Err(Error::IsNoGrant)));
        let payment = crate::fixtures::payment();
        assert!(matches!(signer().grant(&mut payment.clone(), &Expected::default()), Err(Error::IsNoGrant)));
        let wrong_key = authorization_by(&signer(), KeyPath { account: Account::Vanilla, index: 1 }, &grant_message());
        assert!(matches!(
            signer().grant(&mut wrong_key.clone(), &Expected::default()),
            Err(Error::AuthorizationKey(_))
        ));
    }

    #[test]
    fn a_grant_must_be_what_you_expect() {
        let check = |expected: Expected| signer().grant(&mut authorization(&grant_message()), &expected).map(drop);
        let of = |text: &str| Expected { at_most: Some(parse_at_most(text).unwrap()), ..Expected::default() };
        check(of("1000000/day")).unwrap();
        assert!(matches!(check(of("999999/day")), Err(Error::AmountTooHigh { .. })));
        assert!(matches!(check(of("1000000/hour")), Err(Error::AmountTooHigh { .. })));
        let gateway = |id: &str| Expected { gateway: Some(id.to_owned()), ..Expected::default() };
        check(gateway("00112233445566aa")).unwrap();
        assert!(matches!(check(gateway("00112233445566ab")), Err(Error::UnexpectedGateway { .. })));
        let key = |id: &str| Expected { key: Some(id.to_owned()), ..Expected::default() };
        check(key("0123456789ab")).unwrap();
        assert!(matches!(check(key("0123456789ac")), Err(Error::UnexpectedKey { .. })));
        for bad in ["", "1", "1/year", "-1/day", "01/day"] {
            assert!(parse_at_most(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_grant_that_was_tampered_with_is_not_shown() {
        let mut psbt = authorization(&grant_message());
        let shown = grant_message().replace("1000000000", "1000");
        psbt.unknown.insert(bitcoin::psbt::raw::Key { type_value: 9, key: Vec::new() }, shown.into_bytes());
        assert!(matches!(signer().grant(&mut psbt.clone(), &Expected::default()), Err(Error::MessageMismatch)));
        assert!(!signer().describe(&psbt).to_string().contains("per day"));
        let text = signer().describe(&authorization(&grant_message())).to_string();
        assert!(text.contains("without asking you") && text.contains("  limit: 1000000000 msat per day"), "{text}");
    }
}
