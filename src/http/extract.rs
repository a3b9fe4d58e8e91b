//! Reading what a caller sent: bodies, queries, ids, idempotency keys. Everything is strict, and every refusal names what is wrong.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::api::problems::WITH_BODY;
use super::config::{BODY_MAX, BODY_TIMEOUT, SIGNED_BODY_MAX};
use super::endpoint::{About, Documented};
use super::problem::Problem;
use crate::clock::Timestamp;
use crate::flows::history::PAGE_MAX;
use crate::flows::values::PageAfter;
use crate::flows::{BodyHash, Code, Idempotency};
use crate::ids::RequestId;

pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";
/// What a page of a list holds unless asked otherwise.
pub const PAGE_USUAL: u32 = 50;
const IDEMPOTENCY_KEY_MAX: usize = 255;
/// A message about a wrong value repeats the value, which may be long.
const DETAIL_MAX: usize = 300;
/// Ids that this gateway hands out are shorter; older ones may not be ours.
const ID_MAX: usize = 128;

/// A JSON body, and the idempotency key that came with it.
pub struct Posted<T> {
    pub value: T,
    pub idempotency: Option<Idempotency>,
}

/// The same where no body, or `null`, means an empty one.
pub struct MaybePosted<T> {
    pub value: T,
    pub idempotency: Option<Idempotency>,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Posted<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (raw, idempotency) = read(request).await?;
        Ok(Self { value: parse_json(&raw)?, idempotency })
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for MaybePosted<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (raw, idempotency) = read(request).await?;
        let value = if matches!(raw.trim_ascii(), b"" | b"null") { T::default() } else { parse_json(&raw)? };
        Ok(Self { value, idempotency })
    }
}

impl<T> Documented for Posted<T> {
    fn describe(about: &mut About) {
        about.takes_idempotency_key = true;
        about.may_answer(WITH_BODY);
        about.may_answer(&[Code::IdempotencyMismatch]);
    }
}

impl<T> Documented for MaybePosted<T> {
    fn describe(about: &mut About) {
        Posted::<T>::describe(about);
        about.body_may_be_left_out = true;
    }
}

impl<T> Documented for State<T> {
    fn describe(_about: &mut About) {}
}

impl<T> Documented for Params<T> {
    fn describe(about: &mut About) {
        about.may_answer(&[Code::InvalidRequest]);
    }
}

impl Documented for Id {
    fn describe(about: &mut About) {
        AnyId::describe(about);
    }
}

impl Documented for AnyId {
    fn describe(about: &mut About) {
        about.may_answer(&[Code::NotFound]);
    }
}

async fn read(request: Request) -> Result<(Bytes, Option<Idempotency>), Problem> {
    read_within(request, BODY_TIMEOUT).await
}

async fn read_within(request: Request, patience: Duration) -> Result<(Bytes, Option<Idempotency>), Problem> {
    let (parts, body) = request.into_parts();
    let key = idempotency_key(&parts.headers)?;
    let most = body_max(parts.uri.path());
    let raw = tokio::time::timeout(patience, read_at_most(&parts.headers, body, most))
        .await
        .map_err(|_| Problem::new(Code::InvalidRequest, "the body did not arrive in time"))??;
    let idempotency =
        key.map(|key| Idempotency { key, body_hash: body_hash(parts.method.as_str(), parts.uri.path(), &raw) });
    Ok((raw, idempotency))
}

/// How large the body of a call may be: those that bring back a signed PSBT are longer.
fn body_max(path: &str) -> usize {
    const SIGNED: [&str; 4] = ["sendbtcend", "sendend", "createutxosend", "payend"];
    let last = path.rsplit('/').next().unwrap_or_default();
    if last.ends_with("-end") || SIGNED.contains(&last) { SIGNED_BODY_MAX } else { BODY_MAX }
}

/// A body that is not longer than that.
///
/// # Errors
/// When it is, or breaks off.
pub async fn read_at_most(headers: &HeaderMap, body: axum::body::Body, most: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Code::BodyTooLarge, format!("this call takes a body of at most {most} bytes"));
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most as u64) {
        return Err(too_large());
    }
    let mut read = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::new(Code::InvalidRequest, "the body broke off"))?;
        if read.len() + chunk.len() > most {
            return Err(too_large());
        }
        read.extend_from_slice(&chunk);
    }
    Ok(Bytes::from(read))
}

/// What a caller's idempotency key is tied to. The path is in it: the same body means different things at different doors.
fn body_hash(method: &str, path: &str, raw: &[u8]) -> BodyHash {
    let hash = |body: &[u8]| {
        let mut engine = sha256::Hash::engine();
        for part in [method.as_bytes(), b"\n", path.as_bytes(), b"\n", body] {
            engine.input(part);
        }
        sha256::Hash::from_engine(engine).to_string()
    };
    let value = serde_json::from_slice::<Value>(raw).ok();
    BodyHash { bytes: hash(raw), value: value.map(|value| hash(sorted(value).to_string().as_bytes())) }
}

/// The one form of a value that is hashed, for ever: its fields in the order of their names, without spaces.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> =
                fields.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(all) => Value::Array(all.into_iter().map(sorted).collect()),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain,
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let refuse = |why| Err(Problem::field(Code::InvalidRequest, "Idempotency-Key", why));
    let mut all = headers.get_all(IDEMPOTENCY_HEADER).iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return refuse("Idempotency-Key: sent more than once");
    }
    let bytes = value.as_bytes();
    if !(1..=IDEMPOTENCY_KEY_MAX).contains(&bytes.len()) || !bytes.iter().all(|b| (b' '..=b'~').contains(b)) {
        return refuse("Idempotency-Key: must be 1 to 255 printable ASCII characters");
    }
    Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
}

/// Reads a JSON object. The kind of content that was announced is not looked at: many clients announce the wrong one.
///
/// # Errors
/// Naming the field that is wrong.
pub fn parse_json<T: DeserializeOwned>(raw: &[u8]) -> Result<T, Problem> {
    // The parser does not look at texts that it skips.
    if std::str::from_utf8(raw).is_err() {
        return Err(Problem::new(Code::InvalidRequest, "the body is not UTF-8"));
    }
    let first = raw.iter().find(|byte| !byte.is_ascii_whitespace());
    // A struct could also be read from an array, by position; that would be a second, undocumented form.
    if first != Some(&b'{') {
        return Err(Problem::new(Code::InvalidRequest, "the body must be a JSON object"));
    }
    let raw = whole_numbers(raw);
    let mut json = serde_json::Deserializer::from_slice(&raw);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        bad_json(Some(&path), error.inner())
    })?;
    json.end().map_err(|error| bad_json(None, &error))?;
    Ok(value)
}

/// Writes `80.0` as `80`: a number without a fraction is an integer, however it is spelt. Texts are left as they are.
fn whole_numbers(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.windows(2).any(|pair| pair == b".0") {
        return Cow::Borrowed(raw);
    }
    let mut said = Vec::with_capacity(raw.len());
    let (mut rest, mut in_text) = (raw, false);
    while let Some((first, after)) = rest.split_first() {
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte)).count();
        let token = match first {
            b'\\' if in_text => rest.get(..2).unwrap_or(rest),
            b'0'..=b'9' | b'-' if !in_text => rest.get(..length).unwrap_or(rest),
            _ => rest.get(..1).unwrap_or(rest),
        };
        in_text ^= token == b"\"";
        said.extend_from_slice(if in_text { token } else { whole(token) });
        rest = rest.get(token.len()..).unwrap_or(after);
    }
    if said.len() == raw.len() { Cow::Borrowed(raw) } else { Cow::Owned(said) }
}

/// A number without the zeros behind its point.
fn whole(token: &[u8]) -> &[u8] {
    let Some(point) = token.iter().position(|byte| *byte == b'.') else { return token };
    let (integer, fraction) = token.split_at(point);
    let zeros = fraction.get(1..).unwrap_or_default();
    let is_whole = !zeros.is_empty()
        && zeros.iter().all(|byte| *byte == b'0')
        && integer.last().is_some_and(u8::is_ascii_digit)
        && !integer.contains(&b'e')
        && !integer.contains(&b'E');
    if is_whole { integer } else { token }
}

fn bad_json(path: Option<&str>, error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    let path = path.filter(|path| *path != ".");
    if !error.is_data() {
        let detail = shortened(&format!("the body is not valid JSON: {reason}"));
        return match path {
            Some(path) => Problem::field(Code::InvalidRequest, path.to_owned(), detail),
            None => Problem::new(Code::InvalidRequest, detail),
        };
    }
    let field = path.or_else(|| quoted(reason));
    let Some(field) = field else { return Problem::new(Code::InvalidRequest, shortened(reason)) };
    let reason = if reason.starts_with("missing field") { "is missing" } else { reason };
    Problem::field(Code::InvalidRequest, field.to_owned(), shortened(&format!("{field}: {reason}")))
}

/// The name in "missing field `name`" or "duplicate field `name`", which concern the object and not a value of it.
fn quoted(reason: &str) -> Option<&str> {
    let names_a_field = reason.starts_with("missing field") || reason.starts_with("duplicate field");
    reason.split('`').nth(1).filter(|_| names_a_field)
}

fn shortened(text: &str) -> Cow<'static, str> {
    let mut short: String = text.chars().take(DETAIL_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    Cow::Owned(short)
}

/// Parameters of the query.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parse_query(&parts.uri).map(Self)
    }
}

fn parse_query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    Query::try_from_uri(uri).map(|Query(value)| value).map_err(|refusal| {
        let text = refusal.body_text();
        let reason = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
        let field = quoted(reason).or_else(|| reason.split_once(": ").map(|(field, _)| field));
        let detail = shortened(&format!("the query is not valid: {reason}"));
        match field {
            Some(field) => Problem::field(Code::InvalidRequest, field.to_owned(), detail),
            None => Problem::new(Code::InvalidRequest, detail),
        }
    })
}

/// The id of a request in the path. One that no request can have is answered like one that none has.
pub struct Id(pub RequestId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let AnyId(text) = AnyId::from_request_parts(parts, state).await?;
        request_id(&text).map(Self).ok_or_else(unknown_id)
    }
}

/// The id of something that another gateway may have made: any word that is safe in a path.
pub struct AnyId(pub String);

impl AnyId {
    /// The request that it names, if it is an id of this gateway.
    #[must_use]
    pub fn request(&self) -> Option<RequestId> {
        request_id(&self.0)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AnyId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Ok(Path(text)) = Path::<String>::from_request_parts(parts, state).await else { return Err(unknown_id()) };
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte);
        if (1..=ID_MAX).contains(&text.len()) && text.bytes().all(safe) { Ok(Self(text)) } else { Err(unknown_id()) }
    }
}

fn unknown_id() -> Problem {
    Problem::new(Code::NotFound, "this wallet has nothing with this id")
}

/// Only the form that we hand out: one id has one spelling.
fn request_id(text: &str) -> Option<RequestId> {
    let id: RequestId = text.parse().ok()?;
    (id.to_string() == text).then_some(id)
}

/// How long a page is to be.
///
/// # Errors
/// When it is 0 or more than a page may hold.
pub fn limit(asked: Option<u32>, usual: u32) -> Result<u32, Problem> {
    let limit = asked.unwrap_or(usual);
    if (1..=PAGE_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::field(Code::InvalidRequest, "limit", format!("limit: must be from 1 to {PAGE_MAX}")))
}

/// Where a page ended, as an opaque word.
#[must_use]
pub fn cursor(at: Timestamp, id: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{}.{id}", at.millis()))
}

/// Reads a cursor back.
///
/// # Errors
/// When it is not one of ours.
pub fn read_cursor<T: std::str::FromStr>(cursor: Option<&str>) -> Result<Option<(Timestamp, T)>, Problem> {
    let Some(cursor) = cursor.filter(|cursor| !cursor.is_empty()) else { return Ok(None) };
    let read = || {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (millis, id) = text.split_once('.')?;
        Some((Timestamp::from_millis(millis.parse().ok()?), id.parse().ok()?))
    };
    read().map(Some).ok_or_else(|| {
        Problem::field(Code::InvalidRequest, "cursor", "cursor: use the next_cursor of the page before, as it is")
    })
}

/// A cursor of a list of requests.
///
/// # Errors
/// When it is not one of ours.
pub fn read_page(cursor: Option<&str>) -> Result<Option<PageAfter>, Problem> {
    Ok(read_cursor::<RequestId>(cursor)?.map(|(created_at, id)| PageAfter { created_at, id }))
}

#[cfg(test)]
mod tests;
