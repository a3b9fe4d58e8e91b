//! The consent to a key that spends without asking again: a BIP-322 signature by the wallet's first key over a message that names
//! the key and every limit. It is made and checked as an authorisation of one payment is (`authorization.rs`).

use std::fmt;
use std::str::FromStr;

use bitcoin::Network;
use time::{Date, Month, OffsetDateTime};

use super::authorization::{chain_name, spelled};
use crate::clock::Timestamp;
use crate::ids::{GatewayId, KeyId, WalletId};
use crate::money::{Amount, AssetId, Money, Sat};

/// The first line of every grant. That of an authorisation is another, so that neither is taken for the other.
pub const TITLE: &str = "Sluice spending grant v1";
/// Characters of a grant at most, line ends included. With one limit it stays as short as an authorisation.
pub const MAX_MESSAGE_LEN: usize = 500;
/// Of the key's SHA-256, as hex: enough that no second key fits.
const KEY_HASH_LEN: usize = 32;

/// A period of the calendar, in UTC. A week begins on Monday.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Period {
    Hour,
    Day,
    Week,
    Month,
}

/// From when to when: the end is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub starts: Timestamp,
    pub ends: Timestamp,
}

impl Period {
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::Month];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The period that a time is in.
    #[must_use]
    pub fn window(self, at: Timestamp) -> Window {
        const HOUR: i64 = 60 * 60 * 1_000;
        const DAY: i64 = 24 * HOUR;
        /// 1970 began on a Thursday.
        const MONDAY: i64 = 3 * DAY;
        match self {
            Self::Hour => even(at, HOUR, 0),
            Self::Day => even(at, DAY, 0),
            Self::Week => even(at, 7 * DAY, MONDAY),
            // Beyond the calendar nothing begins anew.
            Self::Month => month(at)
                .unwrap_or(Window { starts: Timestamp::from_millis(0), ends: Timestamp::from_millis(i64::MAX) }),
        }
    }
}

/// Periods of one length, the first of which began so long before 1970.
fn even(at: Timestamp, length: i64, before: i64) -> Window {
    let number = at.millis().saturating_add(before).div_euclid(length);
    let starts = number.saturating_mul(length).saturating_sub(before);
    Window { starts: Timestamp::from_millis(starts), ends: Timestamp::from_millis(starts.saturating_add(length)) }
}

fn month(at: Timestamp) -> Option<Window> {
    let date = OffsetDateTime::from_unix_timestamp(at.unix_seconds()).ok()?.date();
    let first = date.replace_day(1).ok()?;
    let year = if date.month() == Month::December { date.year().checked_add(1)? } else { date.year() };
    let next = Date::from_calendar_date(year, date.month().next(), 1).ok()?;
    let midnight = |date: Date| Timestamp::from_millis(date.midnight().assume_utc().unix_timestamp() * 1_000);
    Some(Window { starts: midnight(first), ends: midnight(next) })
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Period {
    type Err = BadLimit;
    fn from_str(text: &str) -> Result<Self, BadLimit> {
        let found = Self::ALL.into_iter().find(|period| period.as_str() == text);
        found.ok_or_else(|| BadLimit(format!("{text} is no period; there are hour, day, week, month")))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadLimit(String);

/// How much a key may spend in a period: amounts and fee ceilings together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    pub money: Money,
    pub period: Period,
}

/// As an operator writes it: `btc:1000000/day`, in satoshis.
impl FromStr for Limit {
    type Err = BadLimit;
    fn from_str(text: &str) -> Result<Self, BadLimit> {
        let (sum, period) = text
            .rsplit_once('/')
            .ok_or_else(|| BadLimit(format!("{text} names no period; write for instance btc:1000000/day")))?;
        Ok(Self { money: read_sum(sum)?, period: period.parse()? })
    }
}

/// Reads `btc:50000`, in satoshis.
///
/// # Errors
/// When it is no amount, or one of what this gateway does not carry.
pub fn read_sum(text: &str) -> Result<Money, BadLimit> {
    let bad = || BadLimit(format!("{text} is no amount; write for instance btc:1000000, in satoshis"));
    let (asset, number) = text.rsplit_once(':').ok_or_else(bad)?;
    match asset.parse::<AssetId>() {
        Ok(AssetId::Btc) => {}
        Ok(AssetId::Rgb(_)) => {
            return Err(BadLimit(
                "this gateway pays no assets over Lightning; the limit of a key is one of btc".to_owned(),
            ));
        }
        Err(_) => return Err(bad()),
    }
    let sat = number.parse::<u64>().ok().and_then(|sat| Sat::new(sat).ok()).ok_or_else(bad)?;
    if sat == Sat::ZERO {
        return Err(BadLimit("a limit of nothing is a key without one".to_owned()));
    }
    Ok(Money::btc(Amount::from_sat(sat)))
}

/// Everything that is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub gateway: GatewayId,
    pub network: Network,
    pub wallet: WalletId,
    pub key: KeyId,
    /// SHA-256 of the key, as hex: the grant is for this key, whatever it is called.
    pub key_hash: String,
    pub limits: Vec<Limit>,
    pub per_payment: Option<Money>,
    /// Until when the key may spend.
    pub expires: Timestamp,
}

impl Grant {
    /// The text that is signed: one spelling, one order. The signer reads the same grammar and refuses any other.
    #[must_use]
    pub fn message(&self) -> String {
        let key_hash: String = self.key_hash.chars().take(KEY_HASH_LEN).collect();
        let mut lines = vec![
            TITLE.to_owned(),
            format!("gateway: {}", self.gateway.0),
            format!("chain: {}", chain_name(self.network)),
            format!("wallet: {}", self.wallet),
            format!("key: {}", self.key),
            format!("key_hash: {key_hash}"),
        ];
        let mut limits: Vec<&Limit> = self.limits.iter().collect();
        limits.sort_by_key(|limit| limit.period);
        lines.extend(limits.into_iter().map(|limit| format!("limit: {} per {}", spelled(&limit.money), limit.period)));
        let per_payment = self.per_payment.as_ref().map_or_else(|| "none".to_owned(), spelled);
        lines.push(format!("per_payment: {per_payment}"));
        lines.push(format!("expires: {}", self.expires.rfc3339()));
        lines.join("\n")
    }
}

/// How a message that was signed differs from the one that was asked for: the first line that is another. `None` when they are the same.
#[must_use]
pub fn difference(asked: &str, signed: &[u8]) -> Option<String> {
    let is_plain = |byte: &u8| *byte == b'\n' || (b' '..=b'~').contains(byte);
    let text = std::str::from_utf8(signed)
        .ok()
        .filter(|text| text.len() <= MAX_MESSAGE_LEN && text.bytes().all(|b| is_plain(&b)));
    let Some(text) = text else { return Some("its message is not one of this gateway".to_owned()) };
    let (mut asked, mut signed) = (asked.split('\n'), text.split('\n'));
    loop {
        match (asked.next(), signed.next()) {
            (None, None) => return None,
            (asked, signed) if asked == signed => {}
            (Some(asked), Some(signed)) => return Some(format!("it says `{signed}`, and `{asked}` was asked for")),
            (Some(asked), None) => return Some(format!("it does not say `{asked}`, which was asked for")),
            (None, Some(signed)) => return Some(format!("it says `{signed}`, which was not asked for")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn grant() -> Grant {
        Grant {
            gateway: GatewayId("00112233445566aa".to_owned()),
            network: Network::Regtest,
            wallet: WalletId::of_triple("a", "b", "c"),
            key: KeyId("0123456789ab".to_owned()),
            key_hash: "cd".repeat(32),
            limits: vec!["btc:5000000/month".parse().unwrap(), "btc:1000000/day".parse().unwrap()],
            per_payment: Some(read_sum("btc:50000").unwrap()),
            expires: at(1_769_860_800_000),
        }
    }

    #[test]
    fn periods_are_those_of_the_calendar_in_utc() {
        // 2026-01-31T12:30:00Z, a Saturday.
        let now = at(1_769_862_600_000);
        let told = |period: Period| {
            let window = period.window(now);
            (window.starts.rfc3339(), window.ends.rfc3339())
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(told(Period::Hour), pair("2026-01-31T12:00:00Z", "2026-01-31T13:00:00Z"));
        assert_eq!(told(Period::Day), pair("2026-01-31T00:00:00Z", "2026-02-01T00:00:00Z"));
        assert_eq!(told(Period::Week), pair("2026-01-26T00:00:00Z", "2026-02-02T00:00:00Z"));
        assert_eq!(told(Period::Month), pair("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"));
        let december = Period::Month.window(at(1_798_700_000_000));
        assert_eq!(
            (december.starts.rfc3339(), december.ends.rfc3339()),
            pair("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z")
        );
    }

    #[test]
    fn every_time_is_in_its_window_and_windows_follow_each_other_without_a_gap() {
        for period in Period::ALL {
            for step in 0..20_000 {
                let now = at(1_700_000_000_000 + step * 7 * HOUR + step);
                let window = period.window(now);
                assert!(window.starts <= now && now < window.ends, "{period} {now}");
                assert_eq!(period.window(window.ends).starts, window.ends, "{period} {now}");
                assert_eq!(period.window(at(window.ends.millis() - 1)), window, "{period} {now}");
            }
            let far = period.window(at(i64::MAX));
            assert!(far.starts <= far.ends);
        }
    }

    #[test]
    fn limits_have_one_spelling() {
        let limit: Limit = "btc:1000000/day".parse().unwrap();
        assert_eq!((limit.money.amount.base_units(), limit.period), (1_000_000_000, Period::Day));
        for bad in [
            "",
            "btc:1",
            "btc:1/year",
            "1/day",
            "btc:-1/day",
            "btc:0/day",
            "btc:1.5/day",
            "eth:1/day",
            "btc:2100000000000001/day",
        ] {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
        assert!("rgb:2dkSTbr:5/day".parse::<Limit>().unwrap_err().to_string().contains("no assets"));
    }

    #[test]
    fn a_grant_says_everything_in_one_order() {
        let wanted = format!(
            "Sluice spending grant v1\ngateway: 00112233445566aa\nchain: 0f9188f13cb7b2c7\nwallet: {}\nkey: 0123456789ab\n\
             key_hash: {}\nlimit: 1000000000 msat per day\nlimit: 5000000000 msat per month\nper_payment: 50000000 msat\n\
             expires: 2026-01-31T12:00:00Z",
            grant().wallet,
            "cd".repeat(16)
        );
        assert_eq!(grant().message(), wanted);
        assert!(Grant { per_payment: None, ..grant() }.message().contains("\nper_payment: none\n"));
    }

    #[test]
    fn the_longest_grant_is_short_enough_and_the_signer_reads_it() {
        let most = Money::btc(Amount::from_sat(Sat::MAX));
        let limits = Period::ALL.map(|period| Limit { money: most.clone(), period }).to_vec();
        let expires = at(253_402_300_799_000);
        let longest = Grant { limits, per_payment: Some(most), expires, ..grant() }.message();
        assert!(longest.len() <= MAX_MESSAGE_LEN, "{}", longest.len());
        assert_eq!(MAX_MESSAGE_LEN, sluice_signer::grant::MAX_MESSAGE_LEN);
        for message in [longest, grant().message()] {
            let read = sluice_signer::Grant::parse(&message, Network::Regtest).unwrap();
            assert_eq!(read.key, "0123456789ab");
        }
        let one = Grant { limits: vec!["btc:2100000000000000/month".parse().unwrap()], ..grant() }.message();
        assert!(one.len() <= sluice_signer::authorization::MAX_MESSAGE_LEN, "{}", one.len());
    }

    #[test]
    fn a_difference_is_named_by_its_line() {
        let asked = grant().message();
        assert_eq!(difference(&asked, asked.as_bytes()), None);
        let other = asked.replace("1000000000 msat per day", "9000000000 msat per day");
        let told = difference(&asked, other.as_bytes()).unwrap();
        assert_eq!(
            told,
            "it says `limit: 9000000000 msat per day`, and `limit: 1000000000 msat per day` was asked for"
        );
        assert!(difference(&asked, format!("{asked}\nnote: x").as_bytes()).unwrap().contains("not asked for"));
        let (less, _) = asked.rsplit_once('\n').unwrap();
        assert!(difference(&asked, less.as_bytes()).unwrap().contains("does not say"));
        for strange in [b"\x1b[2J".as_slice(), &[0xff], &[b'a'; MAX_MESSAGE_LEN + 1]] {
            assert_eq!(difference(&asked, strange).unwrap(), "its message is not one of this gateway");
        }
    }
}
