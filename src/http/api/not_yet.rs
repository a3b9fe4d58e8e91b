//! Endpoints of rails that this gateway does not have yet. They are in the document and answer 501 with a code that says which
//! rail is missing, so that a client can tell "not here" from "wrong".

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post as post_to;
use serde_json::Value;
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ObjectBuilder, SchemaType};
use utoipa::openapi::{ContentBuilder, Required, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;

use crate::flows::Code;
use crate::flows::keys::Scope;
use crate::http::HttpState;
use crate::http::auth;
use crate::http::problem::{Problem, entry};

/// How the operations are marked in the document.
pub const TAG: &str = "not offered yet";

/// An endpoint that answers 501.
pub struct NotYet {
    path: &'static str,
    pub operation_id: &'static str,
    summary: &'static str,
    scope: Scope,
    pub code: Code,
    /// Examples as JSON; empty where there is no body.
    request: &'static str,
    response: &'static str,
}

const fn post(
    path: &'static str,
    operation_id: &'static str,
    summary: &'static str,
    needs: (Scope, Code),
    request: &'static str,
    response: &'static str,
) -> NotYet {
    NotYet { path, operation_id, summary, scope: needs.0, code: needs.1, request, response }
}

const RGB_READ: (Scope, Code) = (Scope::Read, Code::AssetsUnavailable);
const RGB_RECEIVE: (Scope, Code) = (Scope::Receive, Code::AssetsUnavailable);
const RGB_SEND: (Scope, Code) = (Scope::Send, Code::AssetsUnavailable);

const SIGNED: &str = r#"{"signed_psbt":"cHNidP8BAF4CAAAA"}"#;
const PSBT: &str = r#""cHNidP8BAF4CAAAA""#;
const RGB_INVOICE: &str = r#"{"invoice":"rgb:~/~/bcrt:utxob:2fgs9...","recipient_id":"bcrt:utxob:2fgs9...","expiration_timestamp":1763687400,"batch_transfer_idx":1}"#;
const RGB_RECEIVE_BODY: &str = r#"{"asset_id":null,"amount":10,"min_confirmations":1,"duration_seconds":3600}"#;

/// Every one of them.
pub const ALL: [NotYet; 7] = [
    post(
        "/lightning/listtransfers",
        "listLightningTransfers",
        "The transfers of an asset",
        RGB_READ,
        r#"{"asset_id":"rgb:2dkSTbr-jFhznbPmo"}"#,
        "[]",
    ),
    post(
        "/wallet/blindreceive",
        "walletBlindReceive",
        "Receive an asset on a coin of the wallet",
        RGB_RECEIVE,
        RGB_RECEIVE_BODY,
        RGB_INVOICE,
    ),
    post(
        "/wallet/witnessreceive",
        "walletWitnessReceive",
        "Receive an asset on a new coin",
        RGB_RECEIVE,
        RGB_RECEIVE_BODY,
        RGB_INVOICE,
    ),
    post(
        "/wallet/sendbegin",
        "walletSendBegin",
        "Begin to send an asset",
        RGB_SEND,
        r#"{"invoice":"rgb:~/~/bcrt:utxob:2fgs9...","asset_id":null,"amount":10,"fee_rate":5,"min_confirmations":3}"#,
        PSBT,
    ),
    post(
        "/wallet/sendend",
        "walletSendEnd",
        "End sending an asset",
        RGB_SEND,
        SIGNED,
        r#"{"txid":"6e0ca579","batch_transfer_idx":1}"#,
    ),
    post(
        "/wallet/listtransfers",
        "walletListTransfers",
        "The transfers of an asset",
        RGB_READ,
        r#"{"asset_id":"rgb:2dkSTbr-jFhznbPmo"}"#,
        "[]",
    ),
    post(
        "/wallet/failtransfers",
        "walletFailTransfers",
        "Give up transfers that wait",
        RGB_SEND,
        r#"{"batch_transfer_idx":1,"no_asset_only":false,"skip_sync":false}"#,
        r#"{"failed":true}"#,
    ),
];

/// Adds them to the router and to the document.
#[must_use]
pub fn add_to(mut router: OpenApiRouter<HttpState>) -> OpenApiRouter<HttpState> {
    for endpoint in ALL {
        let NotYet { path, scope, code, .. } = endpoint;
        let operation = endpoint.operation();
        router.get_openapi_mut().paths.add_path_operation(path, vec![HttpMethod::Post], operation);
        let handler = async move |State(state): State<HttpState>, headers: HeaderMap| -> Problem {
            match auth::admit(&state, &headers, scope).await {
                Ok(_) => Problem::plain(code),
                Err(problem) => problem,
            }
        };
        router = router.route(path, post_to(handler));
    }
    router
}

impl NotYet {
    fn operation(&self) -> Operation {
        let example = |text: &str| serde_json::from_str::<Value>(text).ok();
        let description = format!("Not offered by this gateway yet: it answers 501 `{}`.", entry(self.code).name);
        let any = || ObjectBuilder::new().schema_type(SchemaType::AnyValue).build();
        let body = ContentBuilder::new().schema(Some(any())).example(example(self.response)).build();
        let answer = ResponseBuilder::new()
            .description("What it will answer once the rail is there")
            .content("application/json", body)
            .build();
        let builder = OperationBuilder::new()
            .operation_id(Some(self.operation_id))
            .summary(Some(self.summary))
            .description(Some(description))
            .tag(TAG)
            .response("200", answer);
        if self.request.is_empty() {
            return builder.build();
        }
        let body = ContentBuilder::new().schema(Some(any())).example(example(self.request)).build();
        let request =
            RequestBodyBuilder::new().content("application/json", body).required(Some(Required::False)).build();
        builder.request_body(Some(request)).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_are_json_and_the_codes_say_not_here() {
        for endpoint in ALL {
            assert!(serde_json::from_str::<Value>(endpoint.response).is_ok(), "{}", endpoint.path);
            assert!(
                endpoint.request.is_empty() || serde_json::from_str::<Value>(endpoint.request).is_ok(),
                "{}",
                endpoint.path
            );
            assert_eq!(entry(endpoint.code).status, 501);
        }
    }
}
