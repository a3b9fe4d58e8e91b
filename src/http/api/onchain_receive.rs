//! Addresses to receive bitcoin on.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::examples;
use super::wire::PageParams;
use crate::clock::Timestamp;
use crate::flows::address::{self, NewAddress};
use crate::flows::assets::receive;
use crate::flows::values::{AssetReceive, ReceiveAddress, Request, WalletKeys};
use crate::http::HttpState;
use crate::http::auth::{ToRead, ToReceive, Wallet};
use crate::http::extract::{MaybePosted, PAGE_USUAL, Params, limit, read_page};
use crate::http::problem::Problem;

/// An address that was handed out once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "btc_address": examples::ADDRESS, "asset_invoice": "", "expires_at": examples::TIME, "request_id": examples::ID,
    "label": "customer 7", "reference": null,
}))]
pub struct SingleUseDepositAddressResponse {
    pub btc_address: String,
    /// An RGB invoice for any asset, which lives as long as the address; its payer makes the coin that carries the asset. Empty where
    /// none was asked for, where there is no RGB engine, and while the engine has not made it: an address does not wait for that.
    pub asset_invoice: String,
    /// Until when it is offered as the current one. It is watched for ever all the same.
    pub expires_at: Option<String>,
    /// Names the request that handed it out.
    pub request_id: String,
    pub label: Option<String>,
    pub reference: Option<String>,
}

impl SingleUseDepositAddressResponse {
    /// With the invoice that was handed out with it.
    #[must_use]
    pub fn of(request: Request<ReceiveAddress>, asset_invoice: Option<String>) -> Self {
        Self {
            btc_address: request.machine.address,
            asset_invoice: asset_invoice.unwrap_or_default(),
            expires_at: request.expires_at.map(Timestamp::rfc3339),
            request_id: request.id.to_string(),
            label: request.label,
            reference: request.reference,
        }
    }
}

/// How long the current address waits for its RGB invoice.
const CURRENT_WAITS: Duration = Duration::from_millis(250);
/// How long a call waits that has asked for one.
const ASKED_WAITS: Duration = Duration::from_secs(10);

/// The RGB invoice that goes with an address, for a call that has asked for one. A call that is made again with its idempotency key shows what
/// there is already, as gateways did that made one for every address.
pub(super) async fn asset_invoice(
    state: &HttpState,
    keys: &WalletKeys,
    address: &Request<ReceiveAddress>,
    is_wanted: Option<bool>,
    may_be_repeated: bool,
) -> Result<Option<Request<AssetReceive>>, Problem> {
    Ok(match is_wanted {
        Some(true) => receive::for_address(&state.flows, keys, address, ASKED_WAITS).await?,
        Some(false) | None if may_be_repeated => receive::open_of(&state.flows, address.id).await?,
        Some(false) | None => None,
    })
}

/// The current deposit address
///
/// An unused address of the wallet: the same one until it is paid to or expires. Where there is an RGB engine, an RGB invoice goes with
/// it; when it is not there in a quarter of a second, it is empty, and there at the next call.
#[utoipa::path(get, path = "/lightning/onchain-receive", operation_id = "onchainReceive", tag = "receive",
    responses((status = 200, description = "The address", body = SingleUseDepositAddressResponse)))]
pub async fn current(
    State(state): State<HttpState>,
    wallet: Wallet<ToReceive>,
) -> Result<Json<SingleUseDepositAddressResponse>, Problem> {
    let address = address::current(&state.flows, &wallet.keys).await?;
    let invoice = receive::for_address(&state.flows, &wallet.keys, &address, CURRENT_WAITS).await?;
    Ok(Json(SingleUseDepositAddressResponse::of(address, invoice.map(|made| made.machine.invoice))))
}

/// What a new address is for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({ "label": "customer 7", "reference": "order-1842", "asset_invoice": false }))]
#[serde(default)]
pub struct NewAddressRequestModel {
    /// For people. It comes back with the deposits.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    pub label: Option<String>,
    /// For programs: lists can be narrowed to it.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    pub reference: Option<String>,
    /// With an RGB invoice beside it, where there is an RGB engine. The call waits for the engine then, for some seconds.
    pub asset_invoice: Option<bool>,
}

/// A new deposit address
///
/// Always a new one, so each customer can have an address of his own. The body may be left out. With an Idempotency-Key the
/// same key answers the same address. An RGB invoice is made only where the body says `asset_invoice`.
#[utoipa::path(post, path = "/lightning/onchain-receive", operation_id = "onchainReceiveNew", tag = "receive",
    request_body = Option<NewAddressRequestModel>,
    responses((status = 200, description = "The address", body = SingleUseDepositAddressResponse)))]
pub async fn new(
    State(state): State<HttpState>,
    wallet: Wallet<ToReceive>,
    body: MaybePosted<NewAddressRequestModel>,
) -> Result<Json<SingleUseDepositAddressResponse>, Problem> {
    let NewAddressRequestModel { label, reference, asset_invoice: wants_invoice } = body.value;
    let wanted = NewAddress { label: super::own_word("label", label)?, reference: super::reference(reference)? };
    let may_be_repeated = body.idempotency.is_some();
    let address = address::new(&state.flows, &wallet.keys, wanted, body.idempotency).await?;
    let invoice = asset_invoice(&state, &wallet.keys, &address, wants_invoice, may_be_repeated).await?;
    Ok(Json(SingleUseDepositAddressResponse::of(address, invoice.map(|made| made.machine.invoice))))
}

/// Addresses that wait for a payment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "addresses": [{
        "btc_address": examples::ADDRESS, "asset_invoice": "", "expires_at": examples::TIME, "request_id": examples::ID,
        "label": null, "reference": null,
    }],
    "next_cursor": null,
}))]
pub struct UnusedDepositAddressesResponse {
    pub addresses: Vec<SingleUseDepositAddressResponse>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// Unused deposit addresses
///
/// Addresses that were handed out, have not expired and have not been paid to, newest first; with the RGB invoices that were made for
/// them. None is made here.
#[utoipa::path(get, path = "/lightning/unused-addresses", operation_id = "unusedAddresses", tag = "receive",
    params(PageParams),
    responses((status = 200, description = "The addresses", body = UnusedDepositAddressesResponse)))]
pub async fn unused(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    Params(page): Params<PageParams>,
) -> Result<Json<UnusedDepositAddressesResponse>, Problem> {
    let most = limit(page.limit, PAGE_USUAL)?;
    let after = read_page(page.cursor.as_deref())?;
    let rows = address::unused(&state.flows, &wallet.id, after, most).await?;
    let next_cursor = super::next_cursor(&rows, most, super::place);
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let mut invoices = receive::open_for(&state.flows, &ids).await?;
    let with_invoice = |row: Request<ReceiveAddress>| {
        let invoice = invoices.remove(&row.id);
        SingleUseDepositAddressResponse::of(row, invoice)
    };
    let addresses = rows.into_iter().map(with_invoice).collect();
    Ok(Json(UnusedDepositAddressesResponse { addresses, next_cursor }))
}
