//! Reading a call: an object in the body, or the fields of a form beside a file. And its parameters, one by one.

use axum::extract::Request;
use serde_json::{Map, Value};

use super::fault::{self, Fault};
use super::room::Room;
use super::upload::{self, Gatekeeper};
use crate::flows::Code;
use crate::flows::values::Label;
use crate::http::config::BODY_MAX;
use crate::http::extract;

/// An id is sent back as it came: it must not be long.
const ID_MAX: usize = 255;
/// Names are keys of the database.
const NAME_MAX: usize = 255;
const TXID_LENGTH: usize = 64;

/// A call that was understood.
pub struct Call {
    /// Null, a number or a text.
    pub id: Value,
    pub method: String,
    pub params: Map<String, Value>,
    pub file: File,
    /// What the file takes while it is here.
    pub room: Room,
}

/// The file of a form.
#[derive(Debug, PartialEq, Eq)]
pub enum File {
    None,
    Whole(Vec<u8>),
    /// Longer than any may be: not kept.
    TooLarge,
    /// There was no room for it: not kept.
    NoRoom,
}

/// A call that was not understood, and its id if that was.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    pub id: Value,
    pub fault: Fault,
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self { id: Value::Null, fault }
    }
}

/// The fields of a call, whatever brought them. What was not sent is null.
#[derive(Debug, Default)]
pub struct Fields {
    pub jsonrpc: Value,
    pub id: Value,
    pub method: Value,
    pub params: Value,
}

/// # Errors
/// When it is no call, or too long for one.
pub async fn read(request: Request, gate: &impl Gatekeeper, largest: u64) -> Result<Call, Refused> {
    if upload::is_form(request.headers()) {
        return upload::read(request, gate, largest).await;
    }
    let (parts, body) = request.into_parts();
    let raw = extract::read_at_most(&parts.headers, body, BODY_MAX).await.map_err(|problem| match problem.code {
        Code::BodyTooLarge => fault::too_large("a body without a form", BODY_MAX as u64),
        _ => fault::NOT_JSON,
    })?;
    let sent: Value = serde_json::from_slice(&raw).map_err(|_| fault::NOT_JSON)?;
    let Value::Object(mut sent) = sent else { return Err(fault::NO_REQUEST.into()) };
    let mut take = |name: &str| sent.remove(name).unwrap_or_default();
    let fields = Fields { jsonrpc: take("jsonrpc"), id: take("id"), method: take("method"), params: take("params") };
    fields.call(File::None, gate.for_anything())
}

impl Fields {
    /// # Errors
    /// When these are no fields of a call.
    pub fn call(self, file: File, room: Room) -> Result<Call, Refused> {
        let id_is_one = match &self.id {
            Value::Null => true,
            Value::Number(number) => number.is_i64() || number.is_u64(),
            Value::String(text) => text.chars().count() <= ID_MAX,
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
        };
        if !id_is_one {
            return Err(fault::BAD_ID.into());
        }
        let id = self.id;
        if self.jsonrpc != "2.0" {
            return Err(Refused { id, fault: fault::NO_REQUEST });
        }
        let Value::String(method) = self.method else { return Err(Refused { id, fault: fault::NO_REQUEST }) };
        let params = match self.params {
            Value::Object(params) => params,
            Value::Null => Map::new(),
            _ => return Err(Refused { id, fault: fault::BAD_PARAMS }),
        };
        Ok(Call { id, method, params, file, room })
    }
}

/// # Errors
/// When it is missing or no name.
pub fn recipient_id(params: &Map<String, Value>) -> Result<String, Fault> {
    name(params.get("recipient_id").ok_or(fault::MISSING_RECIPIENT_ID)?).ok_or(fault::INVALID_RECIPIENT_ID)
}

/// # Errors
/// When it is missing or no name.
pub fn attachment_id(params: &Map<String, Value>) -> Result<String, Fault> {
    name(params.get("attachment_id").ok_or(fault::MISSING_ATTACHMENT_ID)?).ok_or(fault::INVALID_ATTACHMENT_ID)
}

/// # Errors
/// When it is missing or not a truth value.
pub fn ack(params: &Map<String, Value>) -> Result<bool, Fault> {
    params.get("ack").ok_or(fault::MISSING_ACK)?.as_bool().ok_or(fault::INVALID_ACK)
}

/// Which consignment is brought.
///
/// # Errors
/// When something is missing or is not what it should be.
pub fn label(params: &Map<String, Value>) -> Result<Label, Fault> {
    Ok(Label { recipient_id: recipient_id(params)?, txid: txid(params)?, vout: vout(params)? })
}

/// In small letters: one transaction has one spelling.
fn txid(params: &Map<String, Value>) -> Result<String, Fault> {
    let text = params.get("txid").ok_or(fault::MISSING_TXID)?.as_str().ok_or(fault::INVALID_TXID)?;
    let is_one = text.len() == TXID_LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_one { Ok(text.to_ascii_lowercase()) } else { Err(fault::INVALID_TXID) }
}

fn vout(params: &Map<String, Value>) -> Result<Option<u32>, Fault> {
    let Some(value) = params.get("vout") else { return Ok(None) };
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.map(Some).ok_or(fault::INVALID_VOUT)
}

fn name(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let is_one = (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    is_one.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use serde_json::json;

    use crate::http::proxy::room::Rooms;

    const ROOM: u64 = 1_000_000;

    /// Takes whatever comes.
    struct Anything(Rooms);

    impl Gatekeeper for Anything {
        async fn admit(&self, _method: &str, _params: &Value) -> Result<Room, Fault> {
            Ok(self.for_anything())
        }

        fn for_anything(&self) -> Room {
            self.0.for_strangers()
        }
    }

    async fn of_body(body: impl Into<Body>) -> Result<Call, Refused> {
        read(Request::new(body.into()), &Anything(Rooms::new(ROOM)), ROOM).await
    }

    async fn code(body: &str) -> (i32, Value) {
        let refused = of_body(body.to_owned()).await.err().unwrap();
        (refused.fault.code, refused.id)
    }

    #[tokio::test]
    async fn an_id_may_be_null_and_is_null_where_none_was_understood() {
        let call = of_body(r#"{"jsonrpc":"2.0","id":null,"method":"server.info","params":null}"#).await.ok().unwrap();
        assert_eq!((call.id, call.method.as_str(), call.params.len()), (Value::Null, "server.info", 0));
        for id in [json!("7"), json!(7), json!(-7), json!("x".repeat(255))] {
            let body = json!({ "jsonrpc": "2.0", "id": id, "method": "m", "params": { "a": 1 } });
            assert_eq!(of_body(body.to_string()).await.ok().unwrap().id, id);
            let body = json!({ "jsonrpc": "2.0", "id": id, "method": 5 });
            assert_eq!(code(&body.to_string()).await, (-32_600, id));
        }
        for id in [json!([]), json!({}), json!(true), json!(1.5), json!("x".repeat(256))] {
            let body = json!({ "jsonrpc": "2.0", "id": id, "method": "m" });
            assert_eq!(code(&body.to_string()).await, (-32_600, Value::Null));
        }
    }

    #[tokio::test]
    async fn what_is_no_call_is_refused_by_the_code_of_json_rpc() {
        for text in ["", "{", "nonsense", "{}{}", "\u{0}"] {
            assert_eq!(code(text).await.0, -32_700, "{text}");
        }
        for text in ["[]", "7", "null", "\"x\"", "{}", r#"{"jsonrpc":"1.0","method":"m"}"#, r#"{"method":"m"}"#] {
            assert_eq!(code(text).await.0, -32_600, "{text}");
        }
        for params in ["[]", "7", "\"x\"", "true"] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":"1","method":"m","params":{params}}}"#);
            assert_eq!(code(&text).await, (-32_602, json!("1")));
        }
        assert_eq!(of_body(vec![0xff; 9]).await.err().unwrap().fault.code, -32_700);
        let deep = of_body("[".repeat(60_000)).await.err().unwrap();
        assert_eq!(deep.fault.code, -32_700);
        let long = of_body(" ".repeat(BODY_MAX + 1)).await.err().unwrap();
        assert!(long.fault.code == fault::TOO_LARGE && long.fault.message.contains("65536"), "{long:?}");
    }

    #[test]
    fn every_parameter_is_missing_or_invalid_by_its_own_code() {
        let params = |value: Value| value.as_object().unwrap().clone();
        let right =
            json!({ "recipient_id": "r", "txid": "AB".repeat(32), "vout": 7, "ack": false, "attachment_id": "a b" });
        let with = |name: &str, value: Value| {
            let mut all = params(right.clone());
            all.insert(name.to_owned(), value);
            all
        };
        let without = |name: &str| {
            let mut all = params(right.clone());
            all.remove(name);
            all
        };
        let all = params(right.clone());
        let read = label(&all).unwrap();
        assert_eq!((read.txid.as_str(), read.vout), ("ab".repeat(32).as_str(), Some(7)));
        assert_eq!((ack(&all), attachment_id(&all)), (Ok(false), Ok("a b".to_owned())));
        assert_eq!(label(&without("vout")).unwrap().vout, None);
        assert_eq!(label(&without("recipient_id")), Err(fault::MISSING_RECIPIENT_ID));
        assert_eq!(label(&without("txid")), Err(fault::MISSING_TXID));
        assert_eq!(ack(&without("ack")), Err(fault::MISSING_ACK));
        assert_eq!(attachment_id(&without("attachment_id")), Err(fault::MISSING_ATTACHMENT_ID));
        for wrong in
            [json!(""), json!(null), json!(5), json!("x".repeat(256)), json!("a\nb"), json!("\u{e9}"), json!([])]
        {
            assert_eq!(label(&with("recipient_id", wrong.clone())), Err(fault::INVALID_RECIPIENT_ID));
            assert_eq!(attachment_id(&with("attachment_id", wrong.clone())), Err(fault::INVALID_ATTACHMENT_ID));
            assert_eq!(label(&with("txid", wrong)), Err(fault::INVALID_TXID));
        }
        assert_eq!(label(&with("txid", json!("g".repeat(64)))), Err(fault::INVALID_TXID));
        for wrong in [json!(null), json!(-1), json!(1.5), json!("1"), json!(4_294_967_296_u64)] {
            assert_eq!(label(&with("vout", wrong)), Err(fault::INVALID_VOUT));
        }
        for wrong in [json!(null), json!(1), json!("true")] {
            assert_eq!(ack(&with("ack", wrong)), Err(fault::INVALID_ACK));
        }
    }
}
