//! What a begin answers: the bare PSBT that older clients know, or an object for whoever asks for one.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::examples;
use crate::flows::send::{Begun, Source};
use crate::money::Sat;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("sluice-request-id");
pub const EXPIRES_AT: HeaderName = HeaderName::from_static("sluice-expires-at");
pub const SOURCE: HeaderName = HeaderName::from_static("sluice-source");
pub const FEE_SATS: HeaderName = HeaderName::from_static("sluice-fee-sats");
/// Where the next page of a bare array begins.
pub const NEXT_CURSOR: HeaderName = HeaderName::from_static("sluice-next-cursor");

/// The answer of a begin to a call with `Accept: application/json; profile=object`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "psbt": examples::PSBT, "request_id": examples::ID, "expires_at": examples::TIME, "source": "onchain",
    "fee_sats": 420, "message": null,
}))]
pub struct BeginResponse {
    /// What to sign: version 0, base64, one line.
    pub psbt: String,
    /// Names the request from now on.
    pub request_id: String,
    /// Until when the signature is waited for.
    pub expires_at: String,
    /// Whose money it moves: `onchain` is the client's own coins, `offchain` what the operator owes the client.
    pub source: &'static str,
    /// What the transaction pays to miners, or what routing may cost at most.
    #[schema(value_type = u64)]
    pub fee_sats: Sat,
    /// What an authorisation says in words. Empty for a transaction.
    pub message: Option<String>,
}

/// Answers in the form that the caller asked for.
#[must_use]
pub fn answer(begun: Begun, asked: &HeaderMap) -> Response {
    let Begun { psbt, request, fee, expires_at, source, message } = begun;
    let source = match source {
        Source::Onchain => "onchain",
        Source::Offchain => "offchain",
    };
    let (request_id, expires_at) = (request.to_string(), expires_at.rfc3339());
    let mut headers = HeaderMap::new();
    headers.insert(SOURCE, HeaderValue::from_static(source));
    headers.insert(FEE_SATS, HeaderValue::from(fee.to_u64()));
    for (name, value) in [(REQUEST_ID, &request_id), (EXPIRES_AT, &expires_at)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    if wants_object(asked) {
        let body = BeginResponse { psbt, request_id, expires_at, source, fee_sats: fee, message };
        return (headers, Json(body)).into_response();
    }
    (headers, Json(psbt)).into_response()
}

/// Whether one of the accepted kinds is JSON with the parameter `profile=object`.
fn wants_object(asked: &HeaderMap) -> bool {
    let accepted = asked.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|kind| {
        let mut parts = kind.split(';').map(str::trim);
        let json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
        json && parts.any(|part| {
            let Some((name, value)) = part.split_once('=') else { return false };
            name.trim().eq_ignore_ascii_case("profile") && value.trim().trim_matches('"') == "object"
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ids::RequestId;

    fn accept(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, value.parse().unwrap());
        headers
    }

    #[test]
    fn the_object_is_for_those_who_ask_for_it() {
        assert!(wants_object(&accept("application/json; profile=object")));
        assert!(wants_object(&accept("text/plain, application/json;q=0.9; profile=\"object\"")));
        for bare in ["application/json", "*/*", "application/json; profile=other", "text/plain; profile=object"] {
            assert!(!wants_object(&accept(bare)), "{bare}");
        }
        assert!(!wants_object(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn the_bare_answer_is_a_json_string_with_headers() {
        let begun = Begun {
            psbt: "cHNidA==".to_owned(),
            request: RequestId::fresh(),
            fee: Sat::literal(420),
            expires_at: Timestamp::from_millis(0),
            source: Source::Onchain,
            message: None,
        };
        let bare = answer(begun.clone(), &HeaderMap::new());
        assert_eq!(bare.headers()[&REQUEST_ID], begun.request.to_string().as_str());
        assert_eq!(bare.headers()[&FEE_SATS], "420");
        assert_eq!(bare.headers()[&EXPIRES_AT], "1970-01-01T00:00:00Z");
        let body = axum::body::to_bytes(bare.into_body(), 999).await.unwrap();
        assert_eq!(&body[..], b"\"cHNidA==\"");
        let object = answer(begun, &accept("application/json; profile=object"));
        let body = axum::body::to_bytes(object.into_body(), 999).await.unwrap();
        let object: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(object["fee_sats"], 420);
        assert!(object["message"].is_null());
    }
}
