//! RGB assets on the move: invoices, sends to many payees, and the list of transfers.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::assets::AssetUnits;
use super::send_view::Status;
use super::wallet::page_answer;
use super::wire::{PageParams, SendAssetEndRequestModel};
use super::{begun, examples};
use crate::clock::Timestamp;
use crate::flows::assets::receive::{self, NewInvoice, Where};
use crate::flows::assets::send::{self as asset_send, Fields, NewPayee, NewSend};
use crate::flows::assets::{self, give_up};
use crate::flows::values::{AssetReceive, Door, Request, TransferRow};
use crate::flows::{Code, history, send};
use crate::http::HttpState;
use crate::http::auth::{ToRead, ToReceive, ToSend, Wallet};
use crate::http::extract::{MaybePosted, Params, Posted, limit};
use crate::http::problem::Problem;
use crate::money::{Amount, Sat};

/// What is to be received.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({ "asset_id": null, "amount": 10, "min_confirmations": 1, "duration_seconds": 3_600 }))]
#[serde(default)]
pub struct RgbReceiveRequestModel {
    /// Left out: any asset. An asset that the wallet has never had can't be named.
    pub asset_id: Option<String>,
    /// In the smallest unit. Left out: the payer says how much.
    pub amount: Option<AssetUnits>,
    /// Blocks until it counts as settled; 1 unless given.
    #[schema(maximum = 100)]
    pub min_confirmations: Option<u32>,
    /// How long it may be paid, 60 s to 30 days; 3600 unless given.
    #[schema(minimum = 60, maximum = 2_592_000)]
    pub duration_seconds: Option<u64>,
}

/// An invoice for an asset.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "invoice": examples::RGB_INVOICE, "recipient_id": examples::RECIPIENT, "expiration_timestamp": 1_763_687_400,
    "batch_transfer_idx": 1, "request_id": examples::ID,
}))]
pub struct RgbReceiveResponse {
    pub invoice: String,
    pub recipient_id: String,
    /// Seconds since 1970.
    pub expiration_timestamp: Option<i64>,
    pub batch_transfer_idx: i32,
    /// The request, which GET /requests/{id} follows.
    pub request_id: String,
}

impl From<Request<AssetReceive>> for RgbReceiveResponse {
    fn from(request: Request<AssetReceive>) -> Self {
        Self {
            invoice: request.machine.invoice,
            recipient_id: request.machine.recipient,
            expiration_timestamp: request.expires_at.map(Timestamp::unix_seconds),
            batch_transfer_idx: request.machine.batch,
            request_id: request.id.to_string(),
        }
    }
}

/// An asset that is received, as far as it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "invoice": examples::RGB_INVOICE, "recipient_id": examples::RECIPIENT, "batch_transfer_idx": 1, "asked_asset_id": null,
    "asked_amount": 10, "asked_amount_str": "10", "asset_id": examples::RGB, "amount": 10, "amount_str": "10", "txid": examples::TXID,
    "address_request_id": null,
}))]
pub struct AssetReceiveView {
    pub invoice: String,
    pub recipient_id: String,
    pub batch_transfer_idx: i32,
    /// What the invoice asks for; empty where it leaves that open.
    pub asked_asset_id: Option<String>,
    pub asked_amount: Option<u64>,
    pub asked_amount_str: Option<String>,
    /// What has come; empty until a payment was accepted.
    pub asset_id: Option<String>,
    pub amount: Option<u64>,
    pub amount_str: Option<String>,
    pub txid: Option<String>,
    /// The request of the address that it was handed out with.
    pub address_request_id: Option<String>,
}

impl From<Request<AssetReceive>> for AssetReceiveView {
    fn from(request: Request<AssetReceive>) -> Self {
        let arrival = request.machine.arrival().cloned();
        let machine = request.machine;
        Self {
            invoice: machine.invoice,
            recipient_id: machine.recipient,
            batch_transfer_idx: machine.batch,
            asked_asset_id: machine.asset,
            asked_amount: machine.amount.map(Amount::base_units),
            asked_amount_str: machine.amount.map(|amount| amount.to_string()),
            amount: arrival.as_ref().map(|arrival| arrival.amount.base_units()),
            amount_str: arrival.as_ref().map(|arrival| arrival.amount.to_string()),
            txid: arrival.as_ref().map(|arrival| arrival.txid.to_string()),
            asset_id: arrival.map(|arrival| arrival.asset),
            address_request_id: machine.address_request.map(|id| id.to_string()),
        }
    }
}

/// Receive an asset on a coin of the wallet
///
/// Answers an invoice whose payer does not learn on which coin the asset will be. A coin has to be free for it: createutxosbegin makes
/// some.
#[utoipa::path(post, path = "/wallet/blindreceive", operation_id = "walletBlindReceive", tag = "assets",
    request_body = Option<RgbReceiveRequestModel>,
    responses((status = 200, description = "The invoice", body = RgbReceiveResponse)))]
pub async fn blindreceive(
    State(state): State<HttpState>,
    wallet: Wallet<ToReceive>,
    body: MaybePosted<RgbReceiveRequestModel>,
) -> Result<Json<RgbReceiveResponse>, Problem> {
    receive_at(&state, &wallet, Where::Blind, body).await
}

/// Receive an asset on a new coin
///
/// Answers an invoice whose payer makes the coin that carries the asset, and pays for it. No coin is needed beforehand.
#[utoipa::path(post, path = "/wallet/witnessreceive", operation_id = "walletWitnessReceive", tag = "assets",
    request_body = Option<RgbReceiveRequestModel>,
    responses((status = 200, description = "The invoice", body = RgbReceiveResponse)))]
pub async fn witnessreceive(
    State(state): State<HttpState>,
    wallet: Wallet<ToReceive>,
    body: MaybePosted<RgbReceiveRequestModel>,
) -> Result<Json<RgbReceiveResponse>, Problem> {
    receive_at(&state, &wallet, Where::Witness, body).await
}

async fn receive_at(
    state: &HttpState,
    wallet: &Wallet<ToReceive>,
    at: Where,
    body: MaybePosted<RgbReceiveRequestModel>,
) -> Result<Json<RgbReceiveResponse>, Problem> {
    const SECONDS: u64 = 3_600;
    const CONFIRMATIONS: u32 = 1;
    state.limits.begin(&wallet.id)?;
    let wanted = body.value;
    let wanted = NewInvoice {
        at,
        asset: wanted.asset_id,
        amount: wanted.amount.map(AssetUnits::amount),
        min_confirmations: Some(wanted.min_confirmations.unwrap_or(CONFIRMATIONS)),
        lifetime: std::time::Duration::from_secs(wanted.duration_seconds.unwrap_or(SECONDS)),
        address: None,
    };
    Ok(Json(receive::open(&state.flows, &wallet.keys, wanted, body.idempotency).await?.into()))
}

/// What a new coin for a payee holds.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "amount_sat": 1_000 }))]
pub struct WitnessData {
    /// Satoshis, which go to the payee.
    #[schema(value_type = u64, minimum = 330, maximum = 2_100_000_000_000_000_u64)]
    pub amount_sat: Sat,
}

/// One more payee of the same transaction.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "invoice": examples::RGB_INVOICE, "asset_id": examples::RGB, "amount": 10, "witness_data": null,
}))]
pub struct RgbPayee {
    #[schema(min_length = 1, max_length = 4096)]
    pub invoice: String,
    /// Needed when the invoice names none.
    pub asset_id: Option<String>,
    /// Needed when the invoice names none.
    pub amount: Option<AssetUnits>,
    /// What the payee's new coin holds; 1000 sat unless given. Only for an invoice that asks for a new coin.
    pub witness_data: Option<WitnessData>,
}

/// A payment in an asset.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "invoice": examples::RGB_INVOICE, "asset_id": examples::RGB, "amount": 10, "witness_data": null, "more": null, "fee_rate": 5,
    "min_confirmations": 3, "expires_in_seconds": 600, "reference": "payout-93",
}))]
pub struct SendBeginRequestModel {
    /// An RGB invoice. It names where its payee is told of the payment.
    #[schema(min_length = 1, max_length = 4096)]
    pub invoice: String,
    /// Needed when the invoice names none.
    pub asset_id: Option<String>,
    /// In the smallest unit; needed when the invoice names none.
    pub amount: Option<AssetUnits>,
    /// What the payee's new coin holds; 1000 sat unless given. Only for an invoice that asks for a new coin.
    pub witness_data: Option<WitnessData>,
    /// Further payees of the same transaction, 49 at most.
    pub more: Option<Vec<RgbPayee>>,
    /// Whole satoshis per virtual byte; 5 unless given. The coins that carry assets pay it.
    #[schema(minimum = 1)]
    pub fee_rate: Option<u32>,
    /// Blocks until it counts as settled; 3 unless given.
    #[schema(maximum = 100)]
    pub min_confirmations: Option<u32>,
    /// How long the signature is waited for, 60 s to 7 days; 600 unless given, and not longer than the invoice can be paid.
    #[schema(minimum = 60, maximum = 604_800)]
    pub expires_in_seconds: Option<u64>,
    /// The caller's own word for it.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    pub reference: Option<String>,
}

/// Begin to send an asset
///
/// Hands out a transaction that moves the asset, for the wallet's keys to sign. Once it is signed the payees are told, and it goes
/// out when all of them have accepted. The payee may be paid only once with the same invoice.
#[utoipa::path(post, path = "/wallet/sendbegin", operation_id = "walletSendBegin", tag = "assets",
    request_body = SendBeginRequestModel,
    responses((status = 200, description = "The PSBT to sign", body = String, example = json!(examples::PSBT))))]
pub async fn sendbegin(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    asked: HeaderMap,
    body: Posted<SendBeginRequestModel>,
) -> Result<Response, Problem> {
    const FEE_RATE: u32 = 5;
    const CONFIRMATIONS: u32 = 3;
    state.limits.begin(&wallet.id)?;
    let wanted = body.value;
    let first = RgbPayee {
        invoice: wanted.invoice,
        asset_id: wanted.asset_id,
        amount: wanted.amount,
        witness_data: wanted.witness_data,
    };
    let payees = std::iter::once(first).chain(wanted.more.into_iter().flatten());
    let wanted = NewSend {
        payees: payees.map(NewPayee::from).collect(),
        fee_rate: wanted.fee_rate.unwrap_or(FEE_RATE),
        min_confirmations: Some(wanted.min_confirmations.unwrap_or(CONFIRMATIONS)),
        expires_in_seconds: wanted.expires_in_seconds,
        reference: super::reference(wanted.reference)?,
        door: Door::AssetSend,
        fields: Fields { invoice: "invoice", asset: "asset_id", amount: "amount", witness: "witness_data" },
    };
    let begun = asset_send::begin(&state.flows, &wallet.keys, wanted, body.idempotency).await?;
    Ok(begun::answer(begun, &asked))
}

impl From<RgbPayee> for NewPayee {
    fn from(of: RgbPayee) -> Self {
        Self {
            invoice: of.invoice,
            asset: of.asset_id,
            amount: of.amount.map(AssetUnits::amount),
            witness: of.witness_data.map(|data| data.amount_sat),
        }
    }
}

/// A send of assets that was ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "txid": examples::TXID, "batch_transfer_idx": 1, "send_id": examples::ID, "status": "REQUESTED",
}))]
pub struct SendEndResponse {
    pub txid: String,
    pub batch_transfer_idx: i32,
    /// The request, which GET /onchain-send/{send_id} follows.
    pub send_id: String,
    /// REQUESTED while not all payees have accepted.
    pub status: Status,
}

/// End sending an asset
///
/// Takes the signed PSBT and checks it. The payees are told at once; the transaction goes out when all have accepted, and is given up
/// when one refuses or time is over. The same PSBT again answers how it stands.
#[utoipa::path(post, path = "/wallet/sendend", operation_id = "walletSendEnd", tag = "assets",
    request_body = SendAssetEndRequestModel,
    responses((status = 200, description = "The send", body = SendEndResponse)))]
pub async fn sendend(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    body: Posted<SendAssetEndRequestModel>,
) -> Result<Json<SendEndResponse>, Problem> {
    let sent = send::end(&state.flows, &wallet.id, Door::AssetSend, &body.value.signed_psbt).await?;
    let version = sent.current_version().map(|version| version.unsigned_txid);
    let txid = sent.request.machine.txid().or(version);
    Ok(Json(SendEndResponse {
        txid: txid.map(|txid| txid.to_string()).unwrap_or_default(),
        batch_transfer_idx: sent.request.machine.terms.assets.as_ref().map_or(0, |assets| assets.batch),
        send_id: sent.request.id.to_string(),
        status: Status::of(&sent.request.machine.state),
    }))
}

/// Which transfers.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({ "asset_id": examples::RGB }))]
#[serde(default)]
pub struct ListTransfersRequestModel {
    /// Left out: of every asset, and those whose asset is not known yet.
    pub asset_id: Option<String>,
}

/// A coin by the transaction that made it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "txid": examples::TXID, "vout": 1 }))]
pub struct TransferCoin {
    pub txid: String,
    pub vout: u32,
}

impl From<bitcoin::OutPoint> for TransferCoin {
    fn from(of: bitcoin::OutPoint) -> Self {
        Self { txid: of.txid.to_string(), vout: of.vout }
    }
}

/// Where a payee is told of a payment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "endpoint": "rpc://127.0.0.1:8080/json-rpc", "transport_type": 0, "used": true }))]
pub struct TransportEndpoint {
    pub endpoint: String,
    /// Always 0: JSON-RPC.
    pub transport_type: u8,
    /// Whether a consignment went that way.
    pub used: bool,
}

/// An amount of a transfer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "amount": 10, "amount_str": "10" }))]
pub struct TransferAmount {
    pub amount: u64,
    pub amount_str: String,
}

impl From<Amount> for TransferAmount {
    fn from(of: Amount) -> Self {
        Self { amount: of.base_units(), amount_str: of.to_string() }
    }
}

/// A transfer of an asset.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "idx": 2, "batch_transfer_idx": 2, "created_at": 1_763_683_200, "updated_at": 1_763_683_260, "status": 2, "amount": 10,
    "amount_str": "10", "kind": 1, "txid": examples::TXID, "recipient_id": examples::RECIPIENT,
    "receive_utxo": { "txid": examples::TXID, "vout": 1 }, "change_utxo": null, "expiration": 1_763_687_400,
    "transport_endpoints": [{ "endpoint": "rpc://127.0.0.1:8080/json-rpc", "transport_type": 0, "used": true }],
    "requested_assignment": { "amount": 10, "amount_str": "10" }, "assignments": [{ "amount": 10, "amount_str": "10" }],
    "state": "settled", "asset_id": examples::RGB, "height": 812, "request_id": examples::ID,
}))]
pub struct RgbTransfer {
    pub idx: i32,
    pub batch_transfer_idx: i32,
    /// Seconds since 1970.
    pub created_at: i64,
    pub updated_at: i64,
    /// 0 waiting for the counterparty, 1 waiting for confirmations, 2 settled, 3 failed.
    pub status: u8,
    pub amount: u64,
    pub amount_str: String,
    /// 0 issuance, 1 receive blind, 2 receive witness, 3 send, 4 inflation.
    pub kind: u8,
    pub txid: Option<String>,
    pub recipient_id: Option<String>,
    pub receive_utxo: Option<TransferCoin>,
    pub change_utxo: Option<TransferCoin>,
    /// Seconds since 1970.
    pub expiration: Option<i64>,
    pub transport_endpoints: Vec<TransportEndpoint>,
    pub requested_assignment: Option<TransferAmount>,
    /// What this wallet gets by it: for a send, the change.
    pub assignments: Vec<TransferAmount>,
    /// initiated, waiting_counterparty, waiting_confirmations, settled or failed; reorged when the block that it was in is undone.
    pub state: String,
    pub asset_id: Option<String>,
    /// The block that it is in, as far as the gateway has seen it.
    pub height: Option<u32>,
    /// The request that it belongs to.
    pub request_id: Option<String>,
}

impl From<TransferRow> for RgbTransfer {
    fn from(of: TransferRow) -> Self {
        let moved = of.amounts.iter().try_fold(Amount::ZERO, |sum, amount| sum.checked_add(*amount));
        let moved = moved.filter(|sum| !sum.is_zero());
        // What a send has moved for its own wallet is the change.
        let amount = if of.kind == "send" { of.requested.or(moved) } else { moved.or(of.requested) };
        let amount = amount.unwrap_or(Amount::ZERO);
        let used = of.txid.is_some();
        let endpoint = |endpoint| TransportEndpoint { endpoint, transport_type: 0, used };
        Self {
            idx: of.index,
            batch_transfer_idx: of.batch,
            created_at: of.created_at,
            updated_at: of.updated_at,
            status: status(&of),
            amount: amount.base_units(),
            amount_str: amount.to_string(),
            kind: kind(&of.kind),
            txid: of.txid.map(|txid| txid.to_string()),
            recipient_id: of.recipient,
            receive_utxo: of.receive_coin.map(Into::into),
            change_utxo: of.change_coin.map(Into::into),
            expiration: of.expires_at,
            transport_endpoints: of.endpoints.into_iter().map(endpoint).collect(),
            requested_assignment: of.requested.map(Into::into),
            assignments: of.amounts.into_iter().map(Into::into).collect(),
            state: if of.reorged { "reorged".to_owned() } else { of.status },
            asset_id: of.asset,
            height: of.height,
            request_id: of.request.map(|id| id.to_string()),
        }
    }
}

/// A transfer whose block is undone waits for another.
fn status(of: &TransferRow) -> u8 {
    match of.status.as_str() {
        "settled" if of.reorged => 1,
        "settled" => 2,
        "waiting_confirmations" => 1,
        "failed" => 3,
        _ => 0,
    }
}

fn kind(of: &str) -> u8 {
    match of {
        "issuance" => 0,
        "receive_blind" => 1,
        "receive_witness" => 2,
        "send" => 3,
        _ => 4,
    }
}

async fn transfers(
    state: &HttpState,
    wallet: &Wallet<ToRead>,
    page: PageParams,
    asked: ListTransfersRequestModel,
) -> Result<Response, Problem> {
    let most = limit(page.limit, history::PAGE_MAX)?;
    let before = page.cursor.map(|cursor| cursor.parse::<i32>()).transpose();
    let before = before.map_err(|_| Problem::field(Code::InvalidRequest, "cursor", "cursor: is none of this list"))?;
    let rows = assets::transfers(&state.flows, &wallet.id, asked.asset_id.as_deref(), before, most).await?;
    let next = rows.last().filter(|_| rows.len() >= most as usize).map(|row| row.index.to_string());
    Ok(page_answer(next, Json(rows.into_iter().map(RgbTransfer::from).collect::<Vec<_>>())))
}

/// The transfers of an asset
///
/// Newest first, at most 500 a page; the header `Sluice-Next-Cursor` says where the next one begins.
#[utoipa::path(post, path = "/lightning/listtransfers", operation_id = "listLightningTransfers", tag = "assets",
    params(PageParams), request_body = Option<ListTransfersRequestModel>,
    responses((status = 200, description = "The transfers", body = Vec<RgbTransfer>)))]
pub async fn lightning_listtransfers(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    Params(page): Params<PageParams>,
    body: MaybePosted<ListTransfersRequestModel>,
) -> Result<Response, Problem> {
    transfers(&state, &wallet, page, body.value).await
}

/// The transfers of an asset, by the wallet's path
///
/// The same as POST /lightning/listtransfers.
#[utoipa::path(post, path = "/wallet/listtransfers", operation_id = "walletListTransfers", tag = "assets",
    params(PageParams), request_body = Option<ListTransfersRequestModel>,
    responses((status = 200, description = "The transfers", body = Vec<RgbTransfer>)))]
pub async fn listtransfers(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    Params(page): Params<PageParams>,
    body: MaybePosted<ListTransfersRequestModel>,
) -> Result<Response, Problem> {
    transfers(&state, &wallet, page, body.value).await
}

/// Which transfer is to be given up.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({ "batch_transfer_idx": 1, "no_asset_only": false, "skip_sync": false }))]
#[serde(default)]
pub struct FailTransfersRequestModel {
    /// Left out: nothing is done, for what has expired is given up without being asked.
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    pub batch_transfer_idx: Option<u32>,
    /// Only if its asset is not known yet.
    pub no_asset_only: Option<bool>,
    /// Accepted for older clients.
    pub skip_sync: Option<bool>,
}

/// What became of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "failed": true }))]
pub struct FailTransfersResponse {
    /// Whether it was given up by this call.
    pub failed: bool,
}

/// Give up a transfer that waits
///
/// Takes back an invoice that nobody has paid, or a send that has not gone out. Its coins are free again.
#[utoipa::path(post, path = "/wallet/failtransfers", operation_id = "walletFailTransfers", tag = "assets",
    request_body = Option<FailTransfersRequestModel>,
    responses((status = 200, description = "What became of it", body = FailTransfersResponse)))]
pub async fn failtransfers(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    body: MaybePosted<FailTransfersRequestModel>,
) -> Result<Json<FailTransfersResponse>, Problem> {
    let asked = body.value;
    assets::require_engine(&state.flows)?;
    let failed = match asked.batch_transfer_idx {
        Some(batch) => {
            // The engine counts no further.
            let batch = i32::try_from(batch).unwrap_or(i32::MAX);
            give_up::batch(&state.flows, &wallet.keys, batch, asked.no_asset_only.unwrap_or(false)).await?
        }
        None => false,
    };
    Ok(Json(FailTransfersResponse { failed }))
}
