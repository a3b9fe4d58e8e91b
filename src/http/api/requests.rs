//! Any request by its id, with everything that happened to it.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::asset_transfers::AssetReceiveView;
use super::deposits::DepositView;
use super::events::EventView;
use super::examples;
use super::lightning_receive::LightningReceiveRequest;
use super::lightning_send::LightningSendRequest;
use super::onchain_receive::SingleUseDepositAddressResponse;
use super::send_view::GetOnchainSendResponse;
use super::settle::SettleCredit;
use crate::clock::Timestamp;
use crate::flows::assets::receive as asset_receive;
use crate::flows::values::{AnyRequest, Event, Machine, Request};
use crate::flows::{Code, Flows, cancel, history, settle};
use crate::http::HttpState;
use crate::http::auth::{ToRead, ToSend, Wallet};
use crate::http::extract::Id;
use crate::http::problem::Problem;
use crate::ids::{RequestId, WalletId};

/// A request of any kind. The part that its kind names is there, the others are empty.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": examples::ID, "kind": "onchain_receive", "state": "open", "label": "customer 7", "reference": null,
    "created_at": examples::TIME, "updated_at": examples::TIME, "expires_at": examples::TIME,
    "receive": {
        "btc_address": examples::ADDRESS, "asset_invoice": "", "expires_at": examples::TIME, "request_id": examples::ID,
        "label": "customer 7", "reference": null,
    },
    "send": null, "deposit": null, "lightning_receive": null, "lightning_send": null, "settle_credit": null, "asset_receive": null,
    "timeline": [{
        "seq": 3, "kind": "onchain_receive.issued", "wallet_id": examples::WALLET, "request_id": examples::ID,
        "reference": null, "label": "customer 7", "created_at": examples::TIME,
        "data": { "address": examples::ADDRESS, "label": "customer 7", "reference": null },
    }],
}))]
pub struct RequestResponse {
    pub id: String,
    /// onchain_receive, onchain_send, deposit, lightning_receive, lightning_pay, settle_credit, withdraw or asset_receive.
    pub kind: &'static str,
    pub state: &'static str,
    pub label: Option<String>,
    pub reference: Option<String>,
    pub created_at: String,
    pub updated_at: String,
    pub expires_at: Option<String>,
    pub receive: Option<SingleUseDepositAddressResponse>,
    pub send: Option<GetOnchainSendResponse>,
    pub deposit: Option<DepositView>,
    pub lightning_receive: Option<LightningReceiveRequest>,
    pub lightning_send: Option<LightningSendRequest>,
    /// What came to an address of the node that is bound to this wallet.
    pub settle_credit: Option<SettleCredit>,
    pub asset_receive: Option<AssetReceiveView>,
    /// Oldest first.
    pub timeline: Vec<EventView>,
}

impl RequestResponse {
    fn of<M: Machine>(request: &Request<M>, timeline: Vec<Event>) -> Self {
        Self {
            id: request.id.to_string(),
            kind: M::KIND,
            state: request.machine.state(),
            label: request.label.clone(),
            reference: request.reference.clone(),
            created_at: request.created_at.rfc3339(),
            updated_at: request.updated_at.rfc3339(),
            expires_at: request.expires_at.map(Timestamp::rfc3339),
            receive: None,
            send: None,
            deposit: None,
            lightning_receive: None,
            lightning_send: None,
            settle_credit: None,
            asset_receive: None,
            timeline: timeline.into_iter().map(Into::into).collect(),
        }
    }
}

/// One request
///
/// Any address, send, deposit, invoice, asset's receipt or Lightning payment of this wallet by its id, with its timeline.
#[utoipa::path(get, path = "/requests/{id}", operation_id = "requestGet", tag = "history",
    params(("id" = String, Path, description = "The request", example = json!(examples::ID))),
    responses((status = 200, description = "The request", body = RequestResponse)))]
pub async fn get(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    Id(id): Id,
) -> Result<Json<RequestResponse>, Problem> {
    look(&state.flows, &wallet.id, id).await
}

/// Take back what was begun and not signed
///
/// An on-chain send, a payment, a withdrawal, a move off-chain, coins for assets or a send of assets that waits for its signature: what it
/// holds and sets aside is free at once, and its PSBT can be ended no more. Its state is `expired`, or `cancelled` for a withdrawal. What was
/// signed is refused, and so is what nobody signs for. A transaction that was handed out stays watched, for its owner may send it out
/// without this gateway. Again, it answers the same.
#[utoipa::path(post, path = "/requests/{id}/cancel", operation_id = "requestCancel", tag = "history",
    params(("id" = String, Path, description = "The request that a begin named", example = json!(examples::ID))),
    responses((status = 200, description = "The request as it is now", body = RequestResponse)))]
pub async fn cancel(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    Id(id): Id,
) -> Result<Json<RequestResponse>, Problem> {
    if !cancel::cancel(&state.flows, &wallet.id, id).await? {
        return Err(unknown());
    }
    look(&state.flows, &wallet.id, id).await
}

fn unknown() -> Problem {
    Problem::new(Code::NotFound, "this wallet has no request with this id")
}

async fn look(flows: &Flows, wallet: &WalletId, id: RequestId) -> Result<Json<RequestResponse>, Problem> {
    let (request, timeline) = history::request(flows, wallet, id).await?.ok_or_else(unknown)?;
    let response = match request {
        AnyRequest::Address(request) => {
            let common = RequestResponse::of(&request, timeline);
            let invoice = asset_receive::open_for(flows, &[id]).await?.remove(&id);
            RequestResponse { receive: Some(SingleUseDepositAddressResponse::of(request, invoice)), ..common }
        }
        AnyRequest::Deposit(request) => {
            let tip = history::tip_height(flows).await?;
            let deposit = Some(DepositView::of(&request, tip));
            RequestResponse { deposit, ..RequestResponse::of(&request, timeline) }
        }
        AnyRequest::Receive(request) => {
            let common = RequestResponse::of(&request, timeline);
            RequestResponse { lightning_receive: Some(request.into()), ..common }
        }
        AnyRequest::Pay(request) => {
            let lightning_send = Some(LightningSendRequest::from(&request));
            RequestResponse { lightning_send, ..RequestResponse::of(&request, timeline) }
        }
        AnyRequest::Withdraw(request) => {
            let send = Some(GetOnchainSendResponse::from(&request));
            RequestResponse { send, ..RequestResponse::of(&request, timeline) }
        }
        AnyRequest::AssetReceive(request) => {
            let common = RequestResponse::of(&request, timeline);
            RequestResponse { asset_receive: Some(AssetReceiveView::from(request)), ..common }
        }
        AnyRequest::Credit(request) => {
            let view = settle::credit(flows, id).await?.ok_or_else(unknown)?;
            let settle_credit = Some(SettleCredit::from(&view));
            RequestResponse { settle_credit, ..RequestResponse::of(&request, timeline) }
        }
        AnyRequest::Send(request) => {
            let send = history::send(flows, wallet, id).await?.ok_or_else(unknown)?;
            let common = RequestResponse::of(&request, timeline);
            RequestResponse { send: Some(GetOnchainSendResponse::from(&send)), ..common }
        }
    };
    Ok(Json(response))
}
