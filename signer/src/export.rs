//! Exports: the consent to hand out what a gateway knows of the wallet's RGB assets.
//!
//! Signed as an authorisation is, over a message with another first line, and by a command of its own: whoever holds the export and
//! its password knows every asset of the wallet and where it came from.

use bitcoin::Network;

use crate::authorization::{parse_time, require_chain, require_hex, split_text, unclear};
use crate::error::Error;

/// The first line of every export.
pub const TITLE: &str = "Sluice RGB state export v1";
/// In characters, line ends included.
pub const MAX_MESSAGE_LEN: usize = 330;
/// The lines after the title, in their only order.
const KEYS: [&str; 5] = ["gateway", "chain", "wallet", "export", "expires"];

/// An export's message, every line understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The text that is signed, byte for byte.
    pub message: String,
    /// The gateway's random id, 16 hex.
    pub gateway: String,
    /// 16 hex of the hash of the wallet's triple.
    pub wallet: String,
    /// The export's id, 32 hex.
    pub export: String,
    /// RFC 3339, UTC, whole seconds: until when it can be fetched.
    pub expires: String,
    pub expires_unix: u64,
}

impl Export {
    /// Reads a message, and refuses one that is for another chain than `network`'s.
    pub fn parse(message: &str, network: Network) -> Result<Self, Error> {
        let mut lines = split_text(message, TITLE, MAX_MESSAGE_LEN)?;
        let mut values = [""; KEYS.len()];
        for (key, value) in KEYS.into_iter().zip(&mut values) {
            let line = lines.next().and_then(|line| line.strip_prefix(key)?.strip_prefix(": "));
            *value = line.ok_or_else(|| unclear(format!("the line `{key}: ...` is missing")))?;
        }
        if lines.next().is_some() {
            return Err(unclear("there are lines after the last one"));
        }
        let [gateway, chain, wallet, export, expires] = values;
        for (name, value, digits) in
            [("gateway", gateway, 16), ("chain", chain, 16), ("wallet", wallet, 16), ("export", export, 32)]
        {
            require_hex(name, value, digits)?;
        }
        require_chain(chain, network)?;
        let expires_unix = parse_time(expires)
            .ok_or_else(|| unclear(format!("expires {expires:?} is not a time like 2026-01-31T12:00:00Z")))?;
        Ok(Export {
            message: message.to_owned(),
            gateway: gateway.to_owned(),
            wallet: wallet.to_owned(),
            export: export.to_owned(),
            expires: expires.to_owned(),
            expires_unix,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{authorization, export_message, grant_message, message, signer};
    use crate::limits::Limits;

    fn parse(message: &str) -> Result<Export, Error> {
        Export::parse(message, Network::Regtest)
    }

    #[test]
    fn an_export_is_read_line_by_line() {
        let read = parse(&export_message()).unwrap();
        assert_eq!((read.gateway.as_str(), read.expires_unix), ("00112233445566aa", 1_769_860_800));
        assert_eq!(read.export, "0123456789abcdef0123456789abcdef");
        assert!(matches!(Export::parse(&export_message(), Network::Bitcoin), Err(Error::WrongChain { .. })));
        for (from, to) in [
            ("v1", "v2"),
            ("gateway: ", "gateway:"),
            ("wallet: 1", "wallet: A"),
            ("\nexport: 0123456789abcdef0123456789abcdef", ""),
            ("12:00:00Z", "12:00:00Z\n"),
            ("12:00:00Z", "12:00:00"),
        ] {
            let other = export_message().replacen(from, to, 1);
            assert_ne!(other, export_message());
            assert!(parse(&other).is_err(), "{other}");
        }
    }

    #[test]
    fn an_export_is_signed_by_its_own_command_and_by_no_other() {
        let mut psbt = authorization(&export_message());
        assert!(matches!(signer().sign(&mut psbt), Err(Error::IsAnExport)));
        assert!(matches!(signer().sign_within(&mut psbt, &Limits::default()), Err(Error::IsAnExport)));
        assert!(matches!(signer().grant(&mut psbt, &crate::Expected::default()), Err(Error::IsNoGrant)));
        let other = signer().export(&mut psbt, Some("ffffffffffffffff"));
        assert!(matches!(other, Err(Error::UnexpectedGateway { .. })), "{other:?}");
        assert_eq!(psbt, authorization(&export_message()), "it was touched");
        signer().export(&mut psbt, Some("00112233445566AA")).unwrap();
        assert!(psbt.inputs[0].final_script_witness.is_some());
        for message in [message(), grant_message()] {
            let refused = signer().export(&mut authorization(&message), None);
            assert!(matches!(refused, Err(Error::IsNoExport)), "{refused:?}");
        }
        let shown = signer().describe(&authorization(&export_message())).to_string();
        assert!(shown.contains("wallet: 1122334455667788"), "{shown}");
    }
}
