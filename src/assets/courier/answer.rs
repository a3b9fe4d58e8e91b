//! What a proxy answers: JSON-RPC, read no further than it may be long, and quoted no more than is needed.

use reqwest::{Response, StatusCode};
use serde_json::{Map, Value};

use super::{nonsense, transport};
use crate::ports::PortError;

/// How much of what a stranger said is repeated in an error.
const QUOTED: usize = 200;

/// A result, or the proxy's own no.
pub(super) type Reply = Result<Value, No>;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct No {
    pub(super) code: i64,
    /// Cleaned.
    pub(super) message: String,
}

impl No {
    /// There is no consignment for this recipient.
    const NOTHING_THERE: i64 = -400;
    const CANNOT_CHANGE: i64 = -101;
    /// What a proxy of our own kind says, among other things of its own, of a file that is too large.
    const TOO_LARGE: i64 = -32_000;

    pub(super) fn is_nothing_there(&self) -> bool {
        self.code == Self::NOTHING_THERE
    }

    /// Whether the same parcel would be refused each time.
    pub(super) fn is_about_the_parcel(&self) -> bool {
        let is_too_large = self.code == Self::TOO_LARGE && self.message.starts_with("Too large");
        self.code == Self::CANNOT_CHANGE || (-303..=-200).contains(&self.code) || is_too_large
    }

    /// Why, also when the proxy has said nothing but a number.
    pub(super) fn words(self) -> String {
        if self.message.is_empty() { format!("error {}", self.code) } else { self.message }
    }

    /// For what nobody expects.
    pub(super) fn nonsense(&self) -> PortError {
        nonsense(format!("error {}: {}", self.code, self.message))
    }
}

/// # Errors
/// When it breaks off, is too long or is no answer of JSON-RPC.
pub(super) async fn read(response: Response, most: usize) -> Result<Reply, PortError> {
    let status = response.status();
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        let message = "it is larger than what the proxy takes (HTTP 413)".to_owned();
        return Ok(Err(No { code: No::CANNOT_CHANGE, message }));
    }
    if status != StatusCode::OK {
        return Err(nonsense(format!("HTTP {}", status.as_u16())));
    }
    reply(&bounded(response, most).await?)
}

async fn bounded(mut response: Response, most: usize) -> Result<Vec<u8>, PortError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| transport(&error))? {
        if bytes.len().saturating_add(chunk.len()) > most {
            return Err(nonsense(format!("the answer is larger than {most} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn reply(bytes: &[u8]) -> Result<Reply, PortError> {
    let not_rpc = || nonsense(format!("no answer of JSON-RPC: {}", cleaned(&String::from_utf8_lossy(bytes))));
    let mut answer: Map<String, Value> = serde_json::from_slice(bytes).map_err(|_| not_rpc())?;
    match (answer.remove("error"), answer.remove("result")) {
        (None | Some(Value::Null), Some(result)) => Ok(Ok(result)),
        (Some(Value::Object(error)), None | Some(Value::Null)) => {
            let code = error.get("code").and_then(Value::as_i64).ok_or_else(not_rpc)?;
            let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
            Ok(Err(No { code, message: cleaned(message) }))
        }
        _ => Err(not_rpc()),
    }
}

/// A stranger's words, short and without what could change how a log looks.
pub(super) fn cleaned(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(QUOTED).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn no(code: i64, message: &str) -> No {
        No { code, message: message.to_owned() }
    }

    #[test]
    fn an_answer_is_a_result_or_an_error() {
        let of = |text: &str| reply(text.as_bytes()).unwrap();
        assert_eq!(of(r#"{"jsonrpc":"2.0","id":"1","result":true}"#), Ok(json!(true)));
        assert_eq!(of(r#"{"result":null}"#), Ok(Value::Null));
        assert_eq!(of(r#"{"result":false,"error":null}"#), Ok(json!(false)));
        assert_eq!(of(r#"{"id":null,"error":{"code":-101,"message":"no"}}"#), Err(no(-101, "no")));
        assert_eq!(of(r#"{"result":null,"error":{"code":-400}}"#), Err(no(-400, "")));
        for text in
            ["", "<html>", "[]", "7", "{}", r#"{"error":"x"}"#, r#"{"error":{"code":"x"}}"#, r#"{"error":null}"#]
        {
            assert!(matches!(reply(text.as_bytes()), Err(PortError::Nonsense { .. })), "{text}");
        }
        let both = br#"{"result":true,"error":{"code":1}}"#;
        assert!(reply(both).is_err());
    }

    #[test]
    fn little_of_what_a_stranger_says_is_repeated() {
        assert_eq!(cleaned("a\u{1b}[31m\r\nb\u{7f}\u{9b}c\0"), "a[31mbc");
        assert_eq!(cleaned(&"\u{e9}".repeat(500)).chars().count(), 200);
        let said = reply("\u{7}x".repeat(9_000).as_bytes()).unwrap_err().to_string();
        assert!(said.len() < 400 && said.ends_with("xxx"), "{said}");
    }

    #[test]
    fn some_errors_are_about_the_parcel() {
        for code in [-101, -200, -202, -203, -204, -300, -303] {
            assert!(no(code, "").is_about_the_parcel(), "{code}");
        }
        for code in [-100, -199, -304, -400, -32_000, -32_001, -32_002, -32_003, -32_603, -32_700, 0, 101] {
            assert!(!no(code, "").is_about_the_parcel(), "{code}");
        }
        assert!(no(-32_000, "Too large: a consignment has at most 5 bytes here").is_about_the_parcel());
        assert!(no(-400, "").is_nothing_there() && !no(-401, "").is_nothing_there());
        assert_eq!((no(-101, "why").words().as_str(), no(-101, "").words().as_str()), ("why", "error -101"));
    }
}
