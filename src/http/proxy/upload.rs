//! Reading a form with a file. Its fields come in any order, so the file may come before it is known what it is: it is read as far as
//! any may be long. One that is longer is read to its end and not kept, within bounds: only then does its sender hear why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::multipart::Field;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use serde_json::Value;

use super::fault::{self, Fault};
use super::request::{Call, Fields, File, Refused};
use super::room::Room;
use crate::http::config::BODY_MAX;

const FORM: &str = "multipart/form-data";
/// How many times as long as the largest file a form may be until it is not even read.
const READ_AND_FORGOTTEN: u64 = 4;
/// Fields of a form. Five are known.
const FIELDS_MAX: usize = 32;

#[must_use]
pub fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.get(..FORM.len()).is_some_and(|start| start.eq_ignore_ascii_case(FORM))
}

/// # Errors
/// When it is no call, or longer than is read at all.
pub async fn read(request: Request, gate: &impl Gatekeeper, largest: u64) -> Result<Call, Refused> {
    let most = largest.saturating_mul(READ_AND_FORGOTTEN).saturating_add(BODY_MAX as u64);
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|text| text.parse::<u64>().ok()).is_some_and(|length| length > most) {
        return Err(fault::too_large("a file", largest).into());
    }
    let was_longer = Arc::new(AtomicBool::new(false));
    let mut form = open(request, most, Arc::clone(&was_longer)).await?;
    let room = gate.for_anything();
    let mut read = Read { texts: Texts::default(), file: File::None, room, largest, was_longer };
    for _ in 0..=FIELDS_MAX {
        match form.next_field().await {
            Ok(Some(field)) => read.take(field, gate).await?,
            Ok(None) => return read.call(),
            Err(_) => return Err(read.broken()),
        }
    }
    Err(fault::NOT_JSON.into())
}

/// The form, of which no more is read than that. Whether there was more is noted.
async fn open(mut request: Request, most: u64, was_longer: Arc<AtomicBool>) -> Result<Multipart, Fault> {
    DefaultBodyLimit::disable().apply(&mut request);
    let (parts, body) = request.into_parts();
    let mut left = most;
    let bounded = body.into_data_stream().map(move |chunk| {
        let chunk = chunk.map_err(|error| error.to_string())?;
        let Some(rest) = left.checked_sub(chunk.len() as u64) else {
            was_longer.store(true, Ordering::Relaxed);
            return Err("too long".to_owned());
        };
        left = rest;
        Ok::<_, String>(chunk)
    });
    let request = Request::from_parts(parts, Body::from_stream(bounded));
    Multipart::from_request(request, &()).await.map_err(|_| fault::NOT_JSON)
}

/// Who looks at what is brought before its file is read.
pub trait Gatekeeper {
    /// Room for the file of this call, or why it is not even read.
    async fn admit(&self, method: &str, params: &Value) -> Result<Room, Fault>;

    /// Room for a file that comes before it is known what it is.
    fn for_anything(&self) -> Room;
}

fn said(text: &str) -> bool {
    !matches!(text.trim(), "" | "null")
}

/// The known texts of a form.
#[derive(Default)]
struct Texts {
    jsonrpc: Option<String>,
    id: Option<String>,
    method: Option<String>,
    params: Option<String>,
}

impl Texts {
    fn place(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "jsonrpc" => Some(&mut self.jsonrpc),
            "id" => Some(&mut self.id),
            "method" => Some(&mut self.method),
            "params" => Some(&mut self.params),
            _ => None,
        }
    }

    /// What is asked, where that came before the file.
    fn call(&self) -> Option<(&str, Value)> {
        Some((self.method.as_deref()?, serde_json::from_str(self.params.as_deref()?).ok()?))
    }

    /// A form has no other way to say null.
    fn id(&self) -> Value {
        self.id.clone().filter(|id| said(id)).map_or(Value::Null, Value::String)
    }
}

struct Read {
    texts: Texts,
    file: File,
    room: Room,
    largest: u64,
    was_longer: Arc<AtomicBool>,
}

impl Read {
    async fn take(&mut self, field: Field<'_>, gate: &impl Gatekeeper) -> Result<(), Refused> {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            if self.file != File::None {
                return Err(fault::TWICE.into());
            }
            if let Some((method, params)) = self.texts.call() {
                self.room =
                    gate.admit(method, &params).await.map_err(|fault| Refused { id: self.texts.id(), fault })?;
            }
            return self.take_file(field).await;
        }
        if self.texts.place(&name).is_some_and(|place| place.is_some()) {
            return Err(fault::TWICE.into());
        }
        let text = self.text(field).await?;
        if let Some(place) = self.texts.place(&name) {
            *place = Some(String::from_utf8(text).map_err(|_| fault::NOT_JSON)?);
        }
        Ok(())
    }

    async fn take_file(&mut self, mut field: Field<'_>) -> Result<(), Refused> {
        let mut bytes = Vec::new();
        self.file = File::Whole(Vec::new());
        loop {
            let chunk = match field.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(_) => return Err(self.broken()),
            };
            let length = bytes.len().saturating_add(chunk.len());
            if let File::TooLarge | File::NoRoom = self.file {
                continue;
            }
            if length as u64 > self.largest {
                self.file = File::TooLarge;
            } else if !self.room.grow(length) {
                self.file = File::NoRoom;
            } else {
                bytes.extend_from_slice(&chunk);
                continue;
            }
            bytes = Vec::new();
            self.room.leave();
        }
        if let File::Whole(whole) = &mut self.file {
            *whole = bytes;
        }
        Ok(())
    }

    async fn text(&self, mut field: Field<'_>) -> Result<Vec<u8>, Refused> {
        let mut read = Vec::new();
        while let Some(chunk) = field.chunk().await.map_err(|_| self.broken())? {
            if read.len().saturating_add(chunk.len()) > BODY_MAX {
                return Err(fault::too_large("a text of a form", BODY_MAX as u64).into());
            }
            read.extend_from_slice(&chunk);
        }
        Ok(read)
    }

    /// It broke off, or is no form. That it was too long is why, if it was.
    fn broken(&self) -> Refused {
        if self.file == File::TooLarge || self.was_longer.load(Ordering::Relaxed) {
            return fault::too_large("a file", self.largest).into();
        }
        fault::NOT_JSON.into()
    }

    fn call(self) -> Result<Call, Refused> {
        let id = self.texts.id();
        let Texts { jsonrpc, method, params, id: _ } = self.texts;
        let text = |text: Option<String>| text.map_or(Value::Null, Value::String);
        let params = match params.filter(|params| said(params)) {
            None => Value::Null,
            Some(json) => match serde_json::from_str(&json) {
                Ok(params) => params,
                Err(_) => return Err(Refused { id, fault: fault::NO_PARAMS_JSON }),
            },
        };
        Fields { jsonrpc: text(jsonrpc), id, method: text(method), params }.call(self.file, self.room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::proxy::room::Rooms;

    /// Reads no file of one method.
    struct Gate(Rooms);

    impl Gate {
        fn new() -> Self {
            Self(Rooms::new(LARGEST))
        }
    }

    impl Gatekeeper for Gate {
        async fn admit(&self, method: &str, _params: &Value) -> Result<Room, Fault> {
            if method == "no" { Err(fault::CLOSED) } else { Ok(self.0.for_our_own()) }
        }

        fn for_anything(&self) -> Room {
            self.0.for_strangers()
        }
    }

    #[tokio::test]
    async fn what_is_not_wanted_is_refused_before_its_file_is_read() {
        let (no, id, params, version) = (("method", "no"), ("id", "5"), ("params", "{}"), ("jsonrpc", "2.0"));
        let refused = of(&[no, id, params, version, ("file", &"x".repeat(1_000))]).await.err().unwrap();
        assert_eq!(refused, Refused { id: Value::from("5"), fault: fault::CLOSED }, "else it would be too long");
        assert!(of(&[("file", "x"), no, id, params, version]).await.is_ok(), "what it is was not known yet");
    }

    const LARGEST: u64 = 100;

    fn part(name: &str, value: &str) -> String {
        let file = if name == "file" { "; filename=\"f\"\r\nContent-Type: application/octet-stream" } else { "" };
        format!("--xx\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n")
    }

    async fn of(parts: &[(&str, &str)]) -> Result<Call, Refused> {
        let body: String = parts.iter().map(|(name, value)| part(name, value)).collect();
        of_body(format!("{body}--xx--\r\n")).await
    }

    async fn of_body(body: String) -> Result<Call, Refused> {
        let request = Request::builder().header("content-type", "Multipart/form-data; boundary=xx");
        let request = request.body(Body::from(body)).unwrap();
        assert!(is_form(request.headers()));
        read(request, &Gate::new(), LARGEST).await
    }

    #[tokio::test]
    async fn fields_come_in_any_order_and_null_is_a_word() {
        let file = ("file", "the bytes");
        let others = [("params", r#"{"a":1}"#), ("id", "null"), ("method", "consignment.post"), ("jsonrpc", "2.0")];
        for at in 0..=others.len() {
            let mut parts = others.to_vec();
            parts.insert(at, file);
            parts.insert(0, ("something else", "x"));
            let call = of(&parts).await.ok().unwrap();
            assert_eq!((call.id, call.method.as_str()), (Value::Null, "consignment.post"));
            assert_eq!(call.params["a"], 1);
            assert_eq!(call.file, File::Whole(b"the bytes".to_vec()));
        }
        let call = of(&[("jsonrpc", "2.0"), ("id", "17"), ("method", "m"), ("params", "null")]).await.ok().unwrap();
        assert_eq!((call.id, call.params.len(), call.file), (Value::from("17"), 0, File::None));
    }

    #[tokio::test]
    async fn a_file_that_is_too_long_is_read_and_not_kept() {
        let whole = ("jsonrpc", "2.0");
        let fits = "x".repeat(100);
        let call = of(&[("file", &fits), whole, ("method", "m")]).await.ok().unwrap();
        assert_eq!(call.file, File::Whole(fits.into_bytes()));
        let call = of(&[("file", &"x".repeat(101)), whole, ("id", "5"), ("method", "m")]).await.ok().unwrap();
        assert_eq!((call.file, call.id), (File::TooLarge, Value::from("5")));
        let endless = of(&[("file", &"x".repeat(100_000))]).await.err().unwrap();
        assert!(endless.fault.code == fault::TOO_LARGE && endless.fault.message.contains("100 bytes"), "{endless:?}");
    }

    #[tokio::test]
    async fn what_is_no_form_is_refused() {
        let refused = async |parts: &[(&str, &str)]| of(parts).await.err().unwrap().fault.code;
        let (version, method) = (("jsonrpc", "2.0"), ("method", "m"));
        assert_eq!(refused(&[version, version, method]).await, -32_600);
        assert_eq!(refused(&[("file", "a"), ("file", "b"), version, method]).await, -32_600);
        assert_eq!(refused(&[version]).await, -32_600);
        assert_eq!(refused(&[version, method, ("params", "{")]).await, -32_700);
        assert_eq!(refused(&[version, method, ("params", "[1]")]).await, -32_602);
        assert_eq!(refused(&[("a", ""); 40]).await, -32_700);
        for body in
            ["", "--xx", "--xx--", "nothing", "--xx\r\nContent-Disposition: form-data; name=\"id\"\r\n\r\nbroken"]
        {
            let code = of_body(body.to_owned()).await.err().unwrap().fault.code;
            assert!([-32_700, -32_600].contains(&code), "{body}: {code}");
        }
        let request = Request::builder().header("content-type", "multipart/form-data").body(Body::empty()).unwrap();
        let refused = read(request, &Gate::new(), LARGEST).await.err().unwrap();
        assert_eq!(refused.fault.code, -32_700);
    }
}
