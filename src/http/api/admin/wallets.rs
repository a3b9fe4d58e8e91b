//! Every wallet that was ever registered, and freeing one's keys.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::flows::{Code, operator};
use crate::http::HttpState;
use crate::http::api::examples;
use crate::http::api::wire::PageParams;
use crate::http::auth::{Operator, ToAdminister, ToLook};
use crate::http::extract::{AnyId, MaybePosted, PAGE_USUAL, Params, limit};
use crate::http::problem::Problem;
use crate::ids::WalletId;

/// A wallet, as it was registered.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "0922385b88fd67ab", "xpub_van": "tpub...", "xpub_col": "tpub...", "master_fingerprint": "1f5bd7df",
    "registered_at": examples::TIME, "scanned_at": examples::TIME, "released_at": null,
}))]
pub struct WalletView {
    pub id: String,
    pub xpub_van: String,
    pub xpub_col: String,
    pub master_fingerprint: String,
    pub registered_at: String,
    /// When the search for what it had before was done. Empty: it is being searched for.
    pub scanned_at: Option<String>,
    /// When it was released. It is not watched since.
    pub released_at: Option<String>,
}

/// Wallets, in the order of their ids.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "wallets": [{
        "id": "0922385b88fd67ab", "xpub_van": "tpub...", "xpub_col": "tpub...", "master_fingerprint": "1f5bd7df",
        "registered_at": examples::TIME, "scanned_at": examples::TIME, "released_at": null,
    }],
    "next_cursor": null,
}))]
pub struct WalletsResponse {
    pub wallets: Vec<WalletView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// The id of a wallet, as a cursor of lists that are in the order of ids.
pub fn read_wallet_cursor(cursor: Option<&str>) -> Result<Option<WalletId>, Problem> {
    let Some(cursor) = cursor.filter(|cursor| !cursor.is_empty()) else { return Ok(None) };
    let wrong = "cursor: use the next_cursor of the page before, as it is";
    cursor.parse().map(Some).map_err(|_| Problem::field(Code::InvalidRequest, "cursor", wrong))
}

pub const LIST: &[Code] = &[];

/// Wallets
///
/// Every wallet that was ever registered, those too that were released.
#[utoipa::path(get, path = "/admin/wallets", operation_id = "adminWallets", tag = "operator",
    params(PageParams),
    responses((status = 200, description = "The wallets", body = WalletsResponse)))]
pub async fn list(
    State(state): State<HttpState>,
    _operator: Operator<ToLook>,
    Params(page): Params<PageParams>,
) -> Result<Json<WalletsResponse>, Problem> {
    let most = limit(page.limit, PAGE_USUAL)?;
    let after = read_wallet_cursor(page.cursor.as_deref())?;
    let rows = operator::wallets_after(&state.flows, after.as_ref(), most).await?;
    let full = rows.len() >= most as usize;
    let next_cursor = rows.last().filter(|_| full).map(|row| row.id.to_string());
    let wallets = rows
        .into_iter()
        .map(|row| WalletView {
            id: row.id.to_string(),
            xpub_van: row.xpub_van,
            xpub_col: row.xpub_col,
            master_fingerprint: row.fingerprint,
            registered_at: row.created_at.rfc3339(),
            scanned_at: row.scanned_at.map(Timestamp::rfc3339),
            released_at: row.released_at.map(Timestamp::rfc3339),
        })
        .collect();
    Ok(Json(WalletsResponse { wallets, next_cursor }))
}

/// Nothing.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({}))]
pub struct ReleaseRequestModel {}

/// It is done.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "wallet": "0922385b88fd67ab" }))]
pub struct ReleasedResponse {
    pub wallet: String,
}

pub const RELEASE: &[Code] = &[Code::InvalidRequest, Code::WalletNotRegistered];

/// Release a wallet
///
/// Stops watching it and frees its keys for another registration. Refused while a send or a deposit is under way. What was recorded of its requests
/// stays. Money that arrives at its addresses later is not seen until the same keys are registered again.
#[utoipa::path(post, path = "/admin/wallets/{id}/release", operation_id = "adminReleaseWallet", tag = "operator",
    params(("id" = String, Path, description = "The wallet", example = json!("0922385b88fd67ab"))),
    request_body = ReleaseRequestModel,
    responses((status = 200, description = "It is released", body = ReleasedResponse)))]
pub async fn release(
    State(state): State<HttpState>,
    operator: Operator<ToAdminister>,
    id: AnyId,
    posted: MaybePosted<ReleaseRequestModel>,
) -> Result<Json<ReleasedResponse>, Problem> {
    let unknown = |_| Problem::new(Code::WalletNotRegistered, format!("no wallet {} is registered", id.0));
    let wallet: WalletId = id.0.parse().map_err(unknown)?;
    operator::release_wallet(&state.flows, wallet.clone(), operator.by, posted.idempotency).await?;
    Ok(Json(ReleasedResponse { wallet: wallet.to_string() }))
}
