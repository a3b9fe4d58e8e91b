//! Reads a PSBT as a gateway answers it and a shell passes it on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bitcoin::psbt::Psbt;

use crate::error::Error;

/// Reads a version 0 PSBT: base64, bare or as a JSON string, with any white space around it.
pub fn parse_psbt(text: &str) -> Result<Psbt, Error> {
    let text = text.trim();
    if text.starts_with('{') {
        return Err(Error::JsonObject);
    }
    let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    if bare.is_empty() {
        return Err(Error::EmptyInput);
    }
    // Some JSON writers escape the slash, the only character of base64 that may be.
    let bytes = STANDARD.decode(bare.replace("\\/", "/"))?;
    Ok(Psbt::deserialize(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::payment;

    #[test]
    fn a_psbt_is_read_bare_and_as_a_json_string() {
        let bare = payment().to_string();
        assert!(bare.contains('/'), "the test needs a slash to escape");
        let escaped = format!("\"{}\"", bare.replace('/', "\\/"));
        for text in [bare.clone(), format!("  {bare}\r\n"), format!("\n\"{bare}\"\n"), escaped] {
            assert_eq!(parse_psbt(&text).unwrap(), payment(), "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_an_error_that_says_what_it_is() {
        let bare = payment().to_string();
        assert!(matches!(parse_psbt(" \n"), Err(Error::EmptyInput)));
        assert!(matches!(parse_psbt("\"\""), Err(Error::EmptyInput)));
        assert!(matches!(parse_psbt("{\"error\": \"x\"}"), Err(Error::JsonObject)));
        assert!(matches!(parse_psbt("null"), Err(Error::Psbt(_))));
        assert!(matches!(parse_psbt(&format!("\"{bare}")), Err(Error::Base64(_))));
        assert!(matches!(parse_psbt(&bare[..bare.len() - 8]), Err(Error::Psbt(_))));
    }
}
