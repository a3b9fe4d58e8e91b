//! Moving the client's coins off-chain: what needs no signature, begin, end, look.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::send_view::{self, GetOnchainSendResponse};
use super::wire::{AssetAmount, LightningAsset, SendAssetEndRequestModel};
use super::{begun, examples};
use crate::flows::Code;
use crate::flows::assets::pockets::{self, Pocket};
use crate::flows::settle::{self, BeginSettle, CreditView, Found, Settle};
use crate::flows::values::{Machine, SendState};
use crate::http::HttpState;
use crate::http::auth::{ToRead, ToReceive, ToSend, Wallet};
use crate::http::extract::{Id, Posted};
use crate::http::problem::Problem;
use crate::money::Sat;

/// What was found or done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "result": "success", "total_channels_opened": 0,
    "results": [
        { "type": "btc", "asset_id": null, "amount": 50_000, "amount_str": null, "result": "pending", "confirmations_left": 2,
          "next": "wait for blocks; it is credited by itself", "error": null },
        { "type": "btc", "asset_id": null, "amount": 120_000, "amount_str": null, "result": "needs_signature",
          "confirmations_left": null, "next": "POST /lightning/settle-begin", "error": null },
    ],
}))]
pub struct SettleResponse {
    /// Always `success`: what went wrong with one row is said in it.
    pub result: &'static str,
    pub results: Vec<SettleRow>,
    /// Channels are the operator's: none is opened by a wallet's call.
    pub total_channels_opened: u32,
}

/// One pocket, or one payment on its way.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "type": "btc", "asset_id": null, "amount": 50_000, "amount_str": null, "result": "pending", "confirmations_left": 2,
    "next": "wait for blocks; it is credited by itself", "error": null,
}))]
pub struct SettleRow {
    /// btc or asset.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub asset_id: Option<String>,
    /// Satoshis, or base units of the asset.
    pub amount: Option<u64>,
    /// The amount of an asset once more, as text.
    pub amount_str: Option<String>,
    /// nothing_to_do, credited, pending or needs_signature.
    pub result: &'static str,
    /// Blocks until it is credited.
    pub confirmations_left: Option<u32>,
    /// What to do, if anything.
    pub next: Option<&'static str>,
    pub error: Option<String>,
}

impl From<Found> for SettleRow {
    fn from(found: Found) -> Self {
        let row = |result, amount: Option<Sat>, confirmations_left, next| Self {
            kind: "btc",
            asset_id: None,
            amount: amount.map(Sat::to_u64),
            amount_str: None,
            result,
            confirmations_left,
            next,
            error: None,
        };
        match found {
            Found::NothingToDo => row("nothing_to_do", None, None, None),
            Found::Credited(amount) => row("credited", Some(amount), Some(0), None),
            Found::Pending { amount, confirmations_left } => {
                let next = "wait for blocks; it is credited by itself";
                row("pending", Some(amount), Some(confirmations_left), Some(next))
            }
            Found::NeedsSignature(amount) => {
                row("needs_signature", Some(amount), None, Some("POST /lightning/settle-begin"))
            }
        }
    }
}

impl From<Pocket> for SettleRow {
    fn from(pocket: Pocket) -> Self {
        let waits = pocket.future > pocket.settled;
        let amount = pocket.future.max(pocket.settled).base_units();
        Self {
            kind: "asset",
            asset_id: Some(pocket.asset),
            amount: Some(amount),
            amount_str: Some(amount.to_string()),
            result: if waits { "pending" } else { "nothing_to_do" },
            confirmations_left: None,
            next: waits.then_some("wait for blocks; it is settled by itself"),
            error: None,
        }
    }
}

impl SettleRow {
    /// The engine can't tell what there is.
    fn unknown() -> Self {
        Self {
            kind: "asset",
            asset_id: None,
            amount: None,
            amount_str: None,
            result: "nothing_to_do",
            confirmations_left: None,
            next: Some("ask again"),
            error: Some("the RGB engine can't be asked now".to_owned()),
        }
    }
}

/// Finish what needs no signature
///
/// Takes in the chain up to the node's tip and credits what became final with it; has the RGB engine look at what waits for a block, and
/// tells what there is of each asset. Coins that only the wallet's keys can move are
/// named: moving them off-chain begins with settle-begin. It may be called at any time; credits come without it too.
#[utoipa::path(post, path = "/lightning/settle", operation_id = "settle", tag = "settle",
    responses((status = 200, description = "What was found or done", body = SettleResponse)))]
pub async fn finish(
    State(state): State<HttpState>,
    wallet: Wallet<ToReceive>,
) -> Result<Json<SettleResponse>, Problem> {
    let found = settle::finish(&state.flows, &wallet.id).await?;
    let mut results: Vec<SettleRow> = found.into_iter().map(SettleRow::from).collect();
    match pockets::pockets(&state.flows, &wallet.keys).await? {
        Some(pockets) => results.extend(pockets.into_iter().map(SettleRow::from)),
        None => results.push(SettleRow::unknown()),
    }
    Ok(Json(SettleResponse { result: "success", results, total_channels_opened: 0 }))
}

/// Coins to move off-chain.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "amount_sats": 50_000, "fee_rate": 5, "asset": null, "expires_in_seconds": 600, "reference": "top-up-7",
}))]
pub struct SettleBeginRequestModel {
    /// What is to be credited. Empty: everything that can be spent now, less the fee.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 2_100_000_000_000_000_u64)]
    pub amount_sats: Option<Sat>,
    /// Whole satoshis per virtual byte.
    #[schema(minimum = 1)]
    pub fee_rate: u32,
    /// Assets have no off-chain rail here: refused.
    pub asset: Option<LightningAsset>,
    /// How long the signature is waited for, 60 s to 7 days; 600 unless given.
    #[schema(minimum = 60, maximum = 604_800)]
    pub expires_in_seconds: Option<u64>,
    /// The caller's own word for it.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    pub reference: Option<String>,
}

/// Begin to move coins off-chain
///
/// Chooses coins of the wallet and hands out a payment to an address of the gateway's node that is bound to this wallet, as a PSBT
/// for the wallet's keys to sign. What arrives there is credited after `settle.confirmations` blocks, whoever paid it.
#[utoipa::path(post, path = "/lightning/settle-begin", operation_id = "settleBegin", tag = "settle",
    request_body = SettleBeginRequestModel,
    responses((status = 200, description = "The PSBT to sign", body = String, example = json!(examples::PSBT))))]
pub async fn begin(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    asked: HeaderMap,
    body: Posted<SettleBeginRequestModel>,
) -> Result<Response, Problem> {
    state.limits.begin(&wallet.id)?;
    let SettleBeginRequestModel { amount_sats, fee_rate, asset, expires_in_seconds, reference } = body.value;
    if asset.is_some() {
        return Err(Problem::plain(Code::AssetLightningUnavailable));
    }
    super::above_zero("amount_sats", amount_sats)?;
    let reference = super::reference(reference)?;
    let wanted = BeginSettle { amount: amount_sats, fee_rate, expires_in_seconds, reference };
    let begun = settle::begin(&state.flows, &wallet.keys, wanted, body.idempotency).await?;
    Ok(begun::answer(begun, &asked))
}

/// How far a move of coins is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(example = json!("BROADCASTED"))]
pub enum SettleStatus {
    /// It waits for the client's signature.
    Requested,
    /// A signed version is out, and not deep enough.
    Broadcasted,
    /// In a block that is deep enough for a send, and not yet for a credit.
    Confirmed,
    /// The books owe it to the wallet. A reorganisation takes it back.
    Credited,
    /// No signed version that reached the gateway can still go through.
    Failed,
}

impl SettleStatus {
    fn of(settle: &Settle) -> Self {
        if settle.credited().is_some() {
            return Self::Credited;
        }
        match &settle.send.request.machine.state {
            SendState::AwaitingSignature | SendState::WaitingAck { .. } => Self::Requested,
            SendState::Broadcast { .. } | SendState::Seen { .. } => Self::Broadcasted,
            SendState::Confirmed { .. } => Self::Confirmed,
            SendState::Cancelled { .. }
            | SendState::Conflicted { .. }
            | SendState::Expired
            | SendState::Failed { .. } => Self::Failed,
        }
    }
}

/// A move of coins off-chain.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": examples::ID, "status": "BROADCASTED", "amount_sats": 50_000, "credited_sats": null, "confirmations_left": 3,
    "fee_sats": 420, "txid": examples::TXID, "address": examples::ADDRESS, "asset": null, "created_at": examples::TIME,
    "updated_at": examples::TIME, "expires_at": examples::TIME, "reference": "top-up-7", "error_code": null,
    "error_message": null, "credits": [],
}))]
pub struct SettleView {
    pub id: String,
    pub status: SettleStatus,
    /// What is paid to the node.
    #[schema(value_type = u64)]
    pub amount_sats: Sat,
    /// What was credited. Empty until it was.
    #[schema(value_type = Option<u64>)]
    pub credited_sats: Option<Sat>,
    /// Blocks until it is credited. Empty until the network has seen it.
    pub confirmations_left: Option<u32>,
    /// What the current version pays to miners.
    #[schema(value_type = Option<u64>)]
    pub fee_sats: Option<Sat>,
    pub txid: Option<String>,
    /// The address of the node that is bound to this wallet.
    pub address: String,
    pub asset: Option<AssetAmount>,
    pub created_at: String,
    pub updated_at: String,
    /// Until when the signature is waited for.
    pub expires_at: Option<String>,
    pub reference: Option<String>,
    /// Why it failed.
    pub error_code: Option<&'static str>,
    pub error_message: Option<String>,
    /// What arrived at the node by it.
    pub credits: Vec<SettleCredit>,
}

/// An output to an address of the node that is bound to the wallet.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": examples::ID, "txid": examples::TXID, "vout": 0, "address": examples::ADDRESS, "amount_sats": 50_000,
    "state": "mined", "height": 120, "confirmations_left": 1,
}))]
pub struct SettleCredit {
    /// The request of the credit; its timeline is at GET /requests/{id}.
    pub id: String,
    pub txid: String,
    pub vout: u32,
    pub address: String,
    #[schema(value_type = u64)]
    pub amount_sats: Sat,
    /// seen, mined, credited, replaced, evicted or reorged.
    pub state: &'static str,
    pub height: Option<u32>,
    pub confirmations_left: u32,
}

impl From<&CreditView> for SettleCredit {
    fn from(view: &CreditView) -> Self {
        let credit = &view.request.machine;
        Self {
            id: view.request.id.to_string(),
            txid: credit.outpoint.txid.to_string(),
            vout: credit.outpoint.vout,
            address: credit.address.clone(),
            amount_sats: credit.amount,
            state: Machine::state(credit),
            height: credit.height(),
            confirmations_left: view.confirmations_left,
        }
    }
}

impl From<&Settle> for SettleView {
    fn from(settle: &Settle) -> Self {
        let send = GetOnchainSendResponse::from(&settle.send);
        let request = &settle.send.request;
        let failure = send_view::failure(&request.machine.state);
        Self {
            id: send.send_id,
            status: SettleStatus::of(settle),
            amount_sats: request.machine.terms.amount_sent,
            credited_sats: settle.credited(),
            confirmations_left: settle.credits.iter().map(|credit| credit.confirmations_left).max(),
            fee_sats: send.fee_sats,
            txid: send.txid,
            address: request.machine.terms.to.clone(),
            asset: None,
            created_at: request.created_at.rfc3339(),
            updated_at: request.updated_at.rfc3339(),
            expires_at: send.expires_at,
            reference: send.reference,
            error_code: failure.as_ref().map(|failure| failure.code),
            error_message: failure.map(|failure| failure.message),
            credits: settle.credits.iter().map(SettleCredit::from).collect(),
        }
    }
}

/// End moving coins off-chain
///
/// Takes the signed PSBT, checks it, and broadcasts it. The same PSBT again answers how it stands.
#[utoipa::path(post, path = "/lightning/settle-end", operation_id = "settleEnd", tag = "settle",
    request_body = SendAssetEndRequestModel,
    responses((status = 200, description = "How it stands", body = SettleView)))]
pub async fn end(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    body: Posted<SendAssetEndRequestModel>,
) -> Result<Json<SettleView>, Problem> {
    let settle = settle::end(&state.flows, &wallet.id, &body.value.signed_psbt).await?;
    Ok(Json(SettleView::from(&settle)))
}

/// One move of coins off-chain
///
/// How it stands, and what was credited. Its fee can be raised as for any send, with POST /onchain-send/{id}/bump-begin.
#[utoipa::path(get, path = "/lightning/settle/{id}", operation_id = "settleGet", tag = "settle",
    params(("id" = String, Path, description = "The id that begin answered", example = json!(examples::ID))),
    responses((status = 200, description = "How it stands", body = SettleView)))]
pub async fn get(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    Id(id): Id,
) -> Result<Json<SettleView>, Problem> {
    let found = settle::get(&state.flows, &wallet.id, id).await?;
    let settle = found.ok_or_else(|| Problem::new(Code::NotFound, "this wallet has begun no settle with this id"))?;
    Ok(Json(SettleView::from(&settle)))
}
