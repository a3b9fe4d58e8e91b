//! BIP-322 authorisations: the consent to an off-chain spend, as a transaction that can never be broadcast.
//!
//! The signature covers the message only through a hash in the input's txid. So the message is shown to nobody before
//! that hash was rebuilt from it, and it is read strictly: one spelling, one order, nothing left over, so that a
//! person and a gateway can't read two things in one text.

use std::fmt;

use bitcoin::constants::ChainHash;
use bitcoin::psbt::{Psbt, raw};
use bitcoin::{Address, Amount, Network, Script};

use crate::error::Error;
use crate::export::{self, Export};
use crate::grant::{self, Grant};
use crate::keys::network_name;

/// The first line of every message.
pub const TITLE: &str = "Sluice spend authorization v1";
/// In characters, line ends included.
pub const MAX_MESSAGE_LEN: usize = 330;
/// The lines after the title, in their only order.
const KEYS: [&str; 9] = ["gateway", "chain", "wallet", "request", "kind", "to", "amount", "max_fee", "expires"];
/// PSBT_GLOBAL_GENERIC_SIGNED_MESSAGE.
const GLOBAL_SIGNED_MESSAGE: u8 = bip322::PSBT_GLOBAL_GENERIC_SIGNED_MESSAGE;
const MSAT_PER_SAT: u64 = 1_000;

/// An authorisation's message, every line understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// The text that is signed, byte for byte.
    pub message: String,
    /// The gateway's random id, 16 hex.
    pub gateway: String,
    /// The first 8 bytes of the genesis block's hash, 16 hex, as block explorers write it.
    pub chain: String,
    /// 16 hex of the hash of the wallet's triple.
    pub wallet: String,
    /// The request's id, 32 hex.
    pub request: String,
    pub kind: SpendKind,
    /// A payment hash (64 hex) of a `pay`, an address of an `onchain_send`.
    pub to: String,
    pub amount: Quantity,
    pub max_fee_msat: u64,
    /// RFC 3339, UTC, whole seconds: `2026-01-31T12:00:00Z`.
    pub expires: String,
    pub expires_unix: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpendKind {
    Pay,
    OnchainSend,
}

/// An amount with its asset: `123456 msat`, or base units of an RGB asset, `5000 rgb:...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quantity {
    Msat(u64),
    Asset { units: u64, asset_id: String },
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quantity::Msat(msat) if msat % MSAT_PER_SAT == 0 => {
                write!(f, "{} sat", msat / MSAT_PER_SAT)
            }
            Quantity::Msat(msat) => write!(f, "{msat} msat"),
            Quantity::Asset { units, asset_id } => write!(f, "{units} {asset_id}"),
        }
    }
}

impl Authorization {
    /// Reads a message, and refuses one that is for another chain than `network`'s.
    pub fn parse(message: &str, network: Network) -> Result<Self, Error> {
        let values = split_lines(message)?;
        let [gateway, chain, wallet, request, kind, to, amount, max_fee, expires] = values;
        for (key, value, digits) in
            [("gateway", gateway, 16), ("chain", chain, 16), ("wallet", wallet, 16), ("request", request, 32)]
        {
            require_hex(key, value, digits)?;
        }
        require_chain(chain, network)?;
        let kind = match kind {
            "pay" => SpendKind::Pay,
            "onchain_send" => SpendKind::OnchainSend,
            other => {
                return Err(unclear(format!("kind {other:?} is neither pay nor onchain_send")));
            }
        };
        match kind {
            SpendKind::Pay => require_hex("to", to, 64)?,
            SpendKind::OnchainSend => {
                parse_address(to, network).map_err(|reason| unclear(format!("to: {reason}")))?;
            }
        }
        Ok(Authorization {
            message: message.to_owned(),
            gateway: gateway.to_owned(),
            chain: chain.to_owned(),
            wallet: wallet.to_owned(),
            request: request.to_owned(),
            kind,
            to: to.to_owned(),
            amount: parse_amount(amount)?,
            max_fee_msat: parse_max_fee(max_fee)?,
            expires: expires.to_owned(),
            expires_unix: parse_time(expires)
                .ok_or_else(|| unclear(format!("expires {expires:?} is not a time like 2026-01-31T12:00:00Z")))?,
        })
    }
}

pub(crate) fn require_chain(chain: &str, network: Network) -> Result<(), Error> {
    let expected = chain_id(network);
    if chain == expected { Ok(()) } else { Err(Error::WrongChain { found: chain.to_owned(), expected, network }) }
}

/// How messages name a chain: the first 8 bytes of the genesis block's hash, in the order that people write it.
pub fn chain_id(network: Network) -> String {
    let hash = ChainHash::using_genesis_block_const(network).to_bytes();
    hash.iter().rev().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The message that a PSBT carries; a PSBT that carries one is an authorisation and nothing else.
pub(crate) fn message_of(psbt: &Psbt) -> Option<&[u8]> {
    let key = raw::Key { type_value: GLOBAL_SIGNED_MESSAGE, key: Vec::new() };
    psbt.unknown.get(&key).map(Vec::as_slice)
}

/// What was understood of a message that a wallet's first key is to sign.
pub(crate) enum Read {
    Authorization(Authorization),
    Grant(Grant),
    Export(Export),
}

/// Reads an authorisation, a grant or an export that the key behind `script` is to sign, and proves that the message is what is signed.
pub(crate) fn verify(psbt: &Psbt, message: &[u8], script: &Script, network: Network) -> Result<Read, Error> {
    let to_sign = expected_to_sign(message, script, network)?;
    let mut same_shape = to_sign.clone();
    // Two errors for two mistakes: a transaction that is no to_sign at all, and one for another message.
    if let ([expected], [given]) = (&mut same_shape.input[..], &psbt.unsigned_tx.input[..]) {
        expected.previous_output = given.previous_output;
    }
    if psbt.unsigned_tx != same_shape {
        return Err(Error::NotToSign);
    }
    if psbt.unsigned_tx != to_sign {
        return Err(Error::MessageMismatch);
    }
    let message = std::str::from_utf8(message).map_err(|_| unclear("it is not ASCII text"))?;
    if message.split('\n').next() == Some(grant::TITLE) {
        return Grant::parse(message, network).map(Read::Grant);
    }
    if message.split('\n').next() == Some(export::TITLE) {
        return Export::parse(message, network).map(Read::Export);
    }
    Authorization::parse(message, network).map(Read::Authorization)
}

fn expected_to_sign(message: &[u8], script: &Script, network: Network) -> Result<bitcoin::Transaction, Error> {
    let address = Address::from_script(script, network).map_err(|error| Error::Bip322(error.to_string()))?;
    let to_spend = bip322::create_to_spend(&address, message).map_err(|error| Error::Bip322(error.to_string()))?;
    let to_sign = bip322::create_to_sign(&to_spend, None, bip322::LockParams::default())
        .map_err(|error| Error::Bip322(error.to_string()))?;
    Ok(to_sign.unsigned_tx)
}

/// The lines after the title of a message that is plain text and not too long.
pub(crate) fn split_text<'a>(message: &'a str, title: &str, most: usize) -> Result<std::str::Split<'a, char>, Error> {
    if message.len() > most {
        return Err(unclear(format!("it has {} characters, at most {most} are allowed", message.len())));
    }
    if !message.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)) {
        return Err(unclear("it holds other characters than printable ASCII"));
    }
    let mut lines = message.split('\n');
    if lines.next() != Some(title) {
        return Err(unclear(format!("its first line is not {title:?}")));
    }
    Ok(lines)
}

fn split_lines(message: &str) -> Result<[&str; KEYS.len()], Error> {
    let mut lines = split_text(message, TITLE, MAX_MESSAGE_LEN)?;
    let mut values = [""; KEYS.len()];
    for (key, value) in KEYS.into_iter().zip(&mut values) {
        let line = lines.next().ok_or_else(|| unclear(format!("the line `{key}: ...` is missing")))?;
        *value = line
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix(": "))
            .ok_or_else(|| unclear(format!("{line:?} stands where the line `{key}: ...` belongs")))?;
    }
    match lines.next() {
        None => Ok(values),
        Some(line) => Err(unclear(format!("{line:?} follows after the last line"))),
    }
}

pub(crate) fn require_hex(key: &str, value: &str, digits: usize) -> Result<(), Error> {
    let hex = value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if hex && value.len() == digits {
        return Ok(());
    }
    Err(unclear(format!("{key} {value:?} is not {digits} lower-case hexadecimal digits")))
}

pub(crate) fn parse_address(text: &str, network: Network) -> Result<Address, String> {
    let address: Address<_> = text.parse().map_err(|error| format!("{text:?} is not an address: {error}"))?;
    address.require_network(network).map_err(|_| format!("the address {text} is not one of {}", network_name(network)))
}

pub(crate) fn parse_amount(text: &str) -> Result<Quantity, Error> {
    let amount = match text.split_once(' ') {
        Some((number, "msat")) => parse_number(number).map(Quantity::Msat),
        Some((number, asset)) if is_asset_id(asset) => {
            parse_number(number).map(|units| Quantity::Asset { units, asset_id: asset.to_owned() })
        }
        _ => None,
    };
    match amount {
        Some(Quantity::Msat(0) | Quantity::Asset { units: 0, .. }) => Err(unclear("the amount is zero")),
        Some(amount) => Ok(amount),
        None => Err(unclear(format!("amount {text:?} is neither `<number> msat` nor `<number> rgb:<asset>`"))),
    }
}

fn parse_max_fee(text: &str) -> Result<u64, Error> {
    text.strip_suffix(" msat")
        .and_then(parse_number)
        .ok_or_else(|| unclear(format!("max_fee {text:?} is not `<number> msat`")))
}

pub(crate) fn is_asset_id(text: &str) -> bool {
    text.strip_prefix("rgb:").is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// Decimal digits without sign, space or leading zero, so that a number has one spelling; at most the bitcoins there
/// are when it counts bitcoin is for the caller to say.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (canonical && digits).then(|| text.parse().ok()).flatten()
}

/// Whole satoshis as millisatoshi; saturates, because what exceeds u64 exceeds every limit too.
pub(crate) fn msat(amount: Amount) -> u64 {
    amount.to_sat().saturating_mul(MSAT_PER_SAT)
}

/// `YYYY-MM-DDTHH:MM:SSZ` as unix seconds.
pub(crate) fn parse_time(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let punctuation = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
    if bytes.len() != 20 || punctuation.iter().any(|&(at, byte)| bytes[at] != byte) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| -> Option<u64> {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let in_range = year >= 1970 && (1..=12).contains(&month) && hour < 24 && minute < 60 && second < 60;
    if !in_range || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let days = (1970..year).map(days_in_year).sum::<u64>()
        + (1..month).map(|month| days_in_month(year, month)).sum::<u64>()
        + (day - 1);
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn days_in_year(year: u64) -> u64 {
    (1..=12).map(|month| days_in_month(year, month)).sum()
}

fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

pub(crate) fn unclear(reason: impl Into<String>) -> Error {
    Error::Message(reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{OTHER_ADDRESS, message};

    fn parse(message: &str) -> Result<Authorization, Error> {
        Authorization::parse(message, Network::Regtest)
    }

    #[test]
    fn a_message_is_read_line_by_line() {
        let read = parse(&message()).unwrap();
        assert_eq!(read.gateway, "00112233445566aa");
        assert_eq!(read.kind, SpendKind::Pay);
        assert_eq!(read.to, "ab".repeat(32));
        assert_eq!(read.amount, Quantity::Msat(123_456));
        assert_eq!(read.max_fee_msat, 3_000);
        assert_eq!(read.expires_unix, 1_769_860_800);
        assert_eq!(read.message, message());
    }

    #[test]
    fn an_asset_and_a_withdrawal_are_read() {
        let text = message().replace("123456 msat", "5000 rgb:2dkSTbr-jFhznbP");
        assert_eq!(
            parse(&text).unwrap().amount,
            Quantity::Asset { units: 5_000, asset_id: "rgb:2dkSTbr-jFhznbP".into() }
        );
        let text = message().replace("kind: pay", "kind: onchain_send").replace(&"ab".repeat(32), OTHER_ADDRESS);
        assert_eq!(parse(&text).unwrap().to, OTHER_ADDRESS);
    }

    /// Every line of the table breaks one rule; a parser that forgot the rule would accept it.
    #[test]
    fn any_other_spelling_is_refused() {
        let hash = "ab".repeat(32);
        let changes = [
            ("Sluice spend authorization v1", "Sluice spend authorization v2"),
            ("gateway: 00112233445566aa", "gateway: 00112233445566AA"),
            ("gateway: 00112233445566aa", "gateway: 00112233445566"),
            ("gateway: ", "gateway:"),
            ("gateway: ", "gateway:  "),
            ("wallet: 1122334455667788\n", ""),
            ("wallet: 1122334455667788\n", "wallet: 1122334455667788\nwallet: 1122334455667788\n"),
            ("wallet: ", "note: "),
            ("kind: pay", "kind: keysend"),
            ("kind: pay", "kind: onchain_send"),
            (&hash, OTHER_ADDRESS),
            ("123456 msat", "123456"),
            ("123456 msat", "123456 sat"),
            ("123456 msat", "0123456 msat"),
            ("123456 msat", "+123456 msat"),
            ("123456 msat", "0 msat"),
            ("123456 msat", "1 rgb:"),
            ("123456 msat", "99999999999999999999 msat"),
            ("max_fee: 3000 msat", "max_fee: 3000"),
            ("max_fee: 3000 msat", "max_fee: -3000 msat"),
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00+01:00"),
            ("2026-01-31T12:00:00Z", "2026-02-29T12:00:00Z"),
            ("2026-01-31T12:00:00Z", "2026-01-31T24:00:00Z"),
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z\n"),
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z\nnote: x"),
            ("kind: pay", "kind: p\u{1b}[2Jay"),
            ("kind: pay", "kind: pay\r"),
        ];
        for (from, to) in changes {
            let text = message().replacen(from, to, 1);
            assert_ne!(text, message(), "{from:?} is not in the message");
            assert!(matches!(parse(&text), Err(Error::Message(_))), "{from:?} -> {to:?} was accepted");
        }
    }

    /// Before any other error may quote a line to a terminal.
    #[test]
    fn control_characters_are_refused_first() {
        for strange in ["\u{1b}[2J", "\r", "\u{e9}", "\u{7f}", "\0"] {
            let error = parse(&format!("{strange}{}", message())).unwrap_err().to_string();
            assert!(error.contains("printable ASCII"), "{error}");
        }
    }

    #[test]
    fn a_message_has_at_most_330_characters() {
        let room = MAX_MESSAGE_LEN - message().len();
        let padded = |extra: usize| {
            let asset = format!("123456 rgb:{}", "a".repeat("msat".len() - "rgb:".len() + extra));
            message().replace("123456 msat", &asset)
        };
        assert_eq!(padded(room).len(), 330);
        assert!(parse(&padded(room)).is_ok());
        assert!(parse(&padded(room + 1)).is_err());
    }

    #[test]
    fn chains_are_told_apart() {
        assert_eq!(chain_id(Network::Bitcoin), "000000000019d668");
        assert_eq!(chain_id(Network::Regtest), "0f9188f13cb7b2c7");
        let error = Authorization::parse(&message(), Network::Signet).unwrap_err();
        assert!(matches!(error, Error::WrongChain { .. }), "{error}");
    }

    #[test]
    fn times_are_unix_seconds() {
        assert_eq!(parse_time("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_time("2000-02-29T23:59:59Z"), Some(951_868_799));
        assert_eq!(parse_time("2100-02-29T00:00:00Z"), None);
        assert_eq!(parse_time("2026-01-31T12:00:0\u{e9}"), None);
    }
}
