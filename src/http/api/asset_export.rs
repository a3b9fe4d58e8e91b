//! Leaving with what the gateway knows of a wallet's RGB assets.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::examples;
use crate::flows::assets::export;
use crate::http::HttpState;
use crate::http::auth::{ToSend, Wallet};
use crate::http::extract::{MaybePosted, Posted};
use crate::http::problem::Problem;
use crate::secret::Secret;

/// An export to be begun.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({}))]
pub struct ExportBeginRequestModel {
    /// How long the signature is waited for, 60 s to 7 days; 600 unless given.
    #[schema(minimum = 60, maximum = 604_800)]
    pub expires_in_seconds: Option<u64>,
}

/// What the owner of a wallet signs for an export.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "psbt": examples::EXPORT_PSBT, "message": examples::EXPORT, "export_id": examples::ID, "expires_at": examples::TIME,
}))]
pub struct ExportBeginResponse {
    /// The message as BIP-322 signs it: version 0, base64, one line. It can't be broadcast.
    pub psbt: String,
    /// What is consented to, to the byte.
    pub message: String,
    pub export_id: String,
    /// Until when the signature is waited for.
    pub expires_at: String,
}

/// Begin to export the state of the wallet's assets
///
/// What RGB assets are, and how the wallet came by them, is in no chain: without it the keys move nothing. This hands out a message,
/// as a PSBT that can't be broadcast, by which the owner of the wallet consents to an export of all of it.
#[utoipa::path(post, path = "/wallet/export-begin", operation_id = "walletBeginExport", tag = "assets",
    request_body = Option<ExportBeginRequestModel>,
    responses((status = 200, description = "What to sign", body = ExportBeginResponse)))]
pub async fn begin(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    body: MaybePosted<ExportBeginRequestModel>,
) -> Result<Json<ExportBeginResponse>, Problem> {
    state.limits.begin(&wallet.id)?;
    let begun = export::begin(&state.flows, &wallet.keys, body.value.expires_in_seconds, body.idempotency).await?;
    Ok(Json(ExportBeginResponse {
        psbt: begun.psbt,
        message: begun.message,
        export_id: begun.id.to_string(),
        expires_at: begun.expires_at.rfc3339(),
    }))
}

/// The signature for an export, and what seals it.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "signed_psbt": examples::EXPORT_PSBT, "password": "correct horse battery staple" }))]
pub struct ExportEndRequestModel {
    pub signed_psbt: String,
    /// Seals the export, and is kept nowhere: who loses it has lost the export.
    #[schema(value_type = String, min_length = 12, max_length = 256)]
    pub password: Secret,
}

/// Export the state of the wallet's assets
///
/// Takes the signed PSBT, and answers a file that rgb-lib's `restore_backup` reads with the password. It is true at this moment: never
/// use it while this gateway still works for the wallet, and don't come back with it. One signature is good for one export.
#[utoipa::path(post, path = "/wallet/export-end", operation_id = "walletEndExport", tag = "assets",
    request_body = ExportEndRequestModel,
    responses((status = 200, description = "The export", body = String, content_type = "application/octet-stream",
        example = json!("PK"))))]
pub async fn end(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    body: Posted<ExportEndRequestModel>,
) -> Result<Response, Problem> {
    let ExportEndRequestModel { signed_psbt, password } = body.value;
    let sealed = export::end(&state.flows, &wallet.keys, &signed_psbt, &password).await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"rgb-state.backup\"")),
    ];
    Ok((headers, sealed).into_response())
}

#[cfg(test)]
mod tests {
    use bitcoin::Network;
    use sluice_signer::Signer;

    use super::*;
    use crate::domain::authorization;
    use crate::domain::wallet::WalletKeys;

    #[test]
    fn the_example_is_what_that_wallet_would_sign() {
        let words = "split capable text loop dream live outside suspect eight carry fine relax";
        let xpubs = Signer::from_mnemonic(Network::Regtest, words, "").unwrap().wallet_xpubs();
        let (van, col) = (xpubs.xpub_van.to_string(), xpubs.xpub_col.to_string());
        let keys = WalletKeys::parse(&van, &col, &xpubs.master_fingerprint.to_string(), Network::Regtest).unwrap();
        assert_eq!(authorization::address(&keys).unwrap().to_string(), examples::ADDRESS);
        assert!(examples::EXPORT.contains(&format!("wallet: {}", keys.id())));
        assert_eq!(authorization::to_sign(&keys, examples::EXPORT).unwrap().to_string(), examples::EXPORT_PSBT);
    }
}
