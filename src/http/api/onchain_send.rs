//! Sending the client's own bitcoin: begin, end, look, bump.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::send_view::{AnySend, GetOnchainSendResponse, SEND_STATES, Status};
use super::wire::{LightningAsset, ListParams, SendAssetEndRequestModel};
use super::{List, begun, examples};
use crate::flows::Code;
use crate::flows::assets::send::{self as asset_send, NewSend};
use crate::flows::bump::{self, BeginBump};
use crate::flows::history::{self, Send};
use crate::flows::send::{self, BeginSend};
use crate::flows::values::{Door, Request, Withdraw};
use crate::flows::withdraw;
use crate::http::HttpState;
use crate::http::auth::{ToRead, ToSend, Wallet};
use crate::http::extract::{Id, Params, Posted};
use crate::http::problem::Problem;
use crate::money::Sat;

/// Whose money a send moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(example = json!("onchain"))]
pub enum Source {
    /// The client's own coins.
    Onchain,
    /// What the operator owes the client.
    Offchain,
}

/// A send of bitcoin to an address, or of an asset to an RGB invoice.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "address_or_rgbinvoice": examples::ADDRESS, "amount_sats": 50_000, "fee_rate": 5, "asset": null,
    "deduct_fee_from_amount": false, "source": "onchain", "expires_in_seconds": 600, "reference": "payout-93",
}))]
pub struct OnchainSendRequestModel {
    pub address_or_rgbinvoice: String,
    /// Satoshis; needed for bitcoin. For an RGB invoice that asks for a new coin, what that holds: 1000 unless given.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 2_100_000_000_000_000_u64)]
    pub amount_sats: Option<Sat>,
    /// Whole satoshis per virtual byte.
    #[schema(minimum = 1)]
    pub fee_rate: u32,
    /// For an RGB invoice, which may name both itself.
    pub asset: Option<LightningAsset>,
    /// The recipient gets the amount less the fee; with the whole spendable balance as the amount this empties the wallet. Of off-chain
    /// money he gets the amount less the fee ceiling, twice what a transaction costs now, for that is signed before the fee is known: what
    /// the fee is less than that stays in the wallet.
    pub deduct_fee_from_amount: Option<bool>,
    /// Unless given, off-chain money is taken only when everything the wallet has on-chain could not cover it.
    pub source: Option<Source>,
    /// How long the signature is waited for, 60 s to 7 days; 600 unless given.
    #[schema(minimum = 60, maximum = 604_800)]
    pub expires_in_seconds: Option<u64>,
    /// The caller's own word for it; lists can be narrowed to it.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    pub reference: Option<String>,
}

/// Begin a send
///
/// Chooses coins of the wallet, sets them aside, and hands out the transaction as a PSBT for the wallet's keys to sign. For off-chain
/// money it holds the amount and a fee ceiling, and hands out an authorisation; the header `Sluice-Source` says which it is. An RGB
/// invoice is paid from coins that carry its asset, and goes out when its payee has accepted. With `Accept: application/json; profile=object` the answer is an object instead of a bare string.
#[utoipa::path(post, path = "/lightning/onchain-send-begin", operation_id = "onchainSendBegin", tag = "send",
    request_body = OnchainSendRequestModel,
    responses((status = 200, description = "The PSBT to sign", body = String, example = json!(examples::PSBT))))]
pub async fn begin(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    asked: HeaderMap,
    body: Posted<OnchainSendRequestModel>,
) -> Result<Response, Problem> {
    state.limits.begin(&wallet.id)?;
    let source = body.value.source.map(|source| match source {
        Source::Onchain => send::Source::Onchain,
        Source::Offchain => send::Source::Offchain,
    });
    if super::starts_with_ignoring_case(&body.value.address_or_rgbinvoice, "rgb:") {
        let wanted = asset_terms(body.value)?;
        let begun = asset_send::begin(&state.flows, &wallet.keys, wanted, body.idempotency).await?;
        return Ok(begun::answer(begun, &asked));
    }
    let wanted = terms(body.value)?;
    let begun = withdraw::begin_either(&state.flows, &wallet.keys, source, wanted, body.idempotency).await?;
    Ok(begun::answer(begun, &asked))
}

fn terms(asked: OnchainSendRequestModel) -> Result<BeginSend, Problem> {
    if asked.asset.is_some() {
        let detail = "asset: goes with an RGB invoice, and this is an address";
        return Err(Problem::field(Code::InvalidRequest, "asset", detail));
    }
    let amount = asked
        .amount_sats
        .ok_or_else(|| Problem::field(Code::InvalidRequest, "amount_sats", "amount_sats: is needed to send bitcoin"))?;
    Ok(BeginSend {
        to: asked.address_or_rgbinvoice,
        amount,
        fee_rate: asked.fee_rate,
        deduct_fee: asked.deduct_fee_from_amount.unwrap_or(false),
        expires_in_seconds: asked.expires_in_seconds,
        reference: super::reference(asked.reference)?,
        door: Door::OnchainSend,
        min_confirmations: None,
        to_field: "address_or_rgbinvoice",
        amount_field: "amount_sats",
    })
}

/// An asset is paid by coins of the wallet, whole and from nowhere else.
fn asset_terms(asked: OnchainSendRequestModel) -> Result<NewSend, Problem> {
    let refuse = |field, why: &str| Err(Problem::field(Code::InvalidRequest, field, format!("{field}: {why}")));
    if asked.source == Some(Source::Offchain) {
        return refuse("source", "an asset is on the wallet's own coins");
    }
    if asked.deduct_fee_from_amount == Some(true) {
        return refuse("deduct_fee_from_amount", "an asset pays no fee");
    }
    Ok(NewSend {
        payees: vec![super::wire::asset_payee(asked.address_or_rgbinvoice, asked.asset, asked.amount_sats)?],
        fee_rate: asked.fee_rate,
        min_confirmations: None,
        expires_in_seconds: asked.expires_in_seconds,
        reference: super::reference(asked.reference)?,
        door: Door::OnchainSend,
        fields: super::wire::asset_fields("address_or_rgbinvoice"),
    })
}

/// A send that was ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "send_id": examples::ID, "withdrawal_id": examples::ID, "status": "BROADCASTED", "txid": examples::TXID,
}))]
pub struct OnchainSendResponse {
    pub send_id: String,
    /// The same as `send_id`.
    pub withdrawal_id: String,
    pub status: Status,
    pub txid: Option<String>,
}

impl From<&Request<Withdraw>> for OnchainSendResponse {
    fn from(request: &Request<Withdraw>) -> Self {
        let id = request.id.to_string();
        Self {
            send_id: id.clone(),
            withdrawal_id: id,
            status: Status::of_withdraw(&request.machine.state),
            txid: request.machine.txid().map(|txid| txid.to_string()),
        }
    }
}

impl From<&Send> for OnchainSendResponse {
    fn from(send: &Send) -> Self {
        let id = send.request.id.to_string();
        Self {
            send_id: id.clone(),
            withdrawal_id: id,
            status: Status::of(&send.request.machine.state),
            txid: send.request.machine.txid().map(|txid| txid.to_string()),
        }
    }
}

/// End a send
///
/// Takes the signed PSBT, checks that it is the one that was handed out and that every signature is valid, and broadcasts it, or has
/// the operator's node send. The same PSBT again answers the state of the same send.
#[utoipa::path(post, path = "/lightning/onchain-send-end", operation_id = "onchainSendEnd", tag = "send",
    request_body = SendAssetEndRequestModel,
    responses((status = 200, description = "The send", body = OnchainSendResponse)))]
pub async fn end(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    body: Posted<SendAssetEndRequestModel>,
) -> Result<Json<OnchainSendResponse>, Problem> {
    let signed = &body.value.signed_psbt;
    match send::end(&state.flows, &wallet.id, Door::OnchainSend, signed).await {
        Ok(sent) => Ok(Json(OnchainSendResponse::from(&sent))),
        // It may be the authorisation of a withdrawal.
        Err(error) if error.code() == Code::PsbtUnknown => {
            let sent = withdraw::end(&state.flows, &wallet.keys, signed).await?.ok_or(error)?;
            Ok(Json(OnchainSendResponse::from(&sent)))
        }
        Err(error) => Err(error.into()),
    }
}

/// One send
///
/// The state of a send of this wallet, with every version of its transaction.
#[utoipa::path(get, path = "/onchain-send/{send_id}", operation_id = "onchainSendGet", tag = "send",
    params(("send_id" = String, Path, description = "The id that begin answered", example = json!(examples::ID))),
    responses((status = 200, description = "The send", body = GetOnchainSendResponse)))]
pub async fn get(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    Id(id): Id,
) -> Result<Json<GetOnchainSendResponse>, Problem> {
    if let Some(send) = history::send(&state.flows, &wallet.id, id).await? {
        return Ok(Json(GetOnchainSendResponse::from(&send)));
    }
    let found = withdraw::find(&state.flows, &wallet.id, id).await?;
    let request = found.ok_or_else(unknown)?;
    Ok(Json(GetOnchainSendResponse::from(&request)))
}

fn unknown() -> Problem {
    Problem::new(Code::NotFound, "this wallet has no send with this id")
}

/// Cancel a withdrawal
///
/// Takes back a send of off-chain money that waits for its signature or for the operator's coins, and frees what it held. Once the
/// node has been given it, it can't be cancelled. A send of the wallet's own coins is cancelled with bump-begin.
#[utoipa::path(post, path = "/onchain-send/{send_id}/cancel", operation_id = "onchainSendCancel", tag = "send",
    params(("send_id" = String, Path, description = "The send", example = json!(examples::ID))),
    responses((status = 200, description = "The send", body = GetOnchainSendResponse)))]
pub async fn cancel(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    Id(id): Id,
) -> Result<Json<GetOnchainSendResponse>, Problem> {
    if let Some(request) = withdraw::cancel(&state.flows, &wallet.id, id).await? {
        return Ok(Json(GetOnchainSendResponse::from(&request)));
    }
    match history::send(&state.flows, &wallet.id, id).await? {
        Some(_) => Err(Problem::new(
            Code::NotCancellable,
            "it sends the wallet's own coins: take it back with POST /requests/{id}/cancel before it is signed, or cancel it with bump-begin once it is out",
        )),
        None => Err(unknown()),
    }
}

/// One send, by its other path
///
/// The same as GET /onchain-send/{send_id}.
#[utoipa::path(get, path = "/lightning/onchain-send/{send_id}", operation_id = "lightningOnchainSendGet", tag = "send",
    params(("send_id" = String, Path, description = "The id that begin answered", example = json!(examples::ID))),
    responses((status = 200, description = "The send", body = GetOnchainSendResponse)))]
pub async fn get_alias(
    state: State<HttpState>,
    wallet: Wallet<ToRead>,
    id: Id,
) -> Result<Json<GetOnchainSendResponse>, Problem> {
    get(state, wallet, id).await
}

/// A page of sends.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "sends": [], "next_cursor": null }))]
pub struct OnchainSendsResponse {
    pub sends: Vec<GetOnchainSendResponse>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// The sends
///
/// The sends of this wallet, newest first. `state` is one of awaiting_signature, waiting_ack, requested, queued, broadcast, seen,
/// confirmed, cancelled, conflicted, expired, failed.
#[utoipa::path(get, path = "/onchain-send", operation_id = "onchainSendList", tag = "send",
    params(ListParams),
    responses((status = 200, description = "The sends", body = OnchainSendsResponse)))]
pub async fn list(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    Params(params): Params<ListParams>,
) -> Result<Json<OnchainSendsResponse>, Problem> {
    let list = List::read(params, &SEND_STATES)?;
    let coins = history::sends(&state.flows, &wallet.id, &list.filter, list.after, list.limit).await?;
    let offchain = withdraw::page(&state.flows, &wallet.id, &list.filter, list.after, list.limit).await?;
    let mut rows: Vec<AnySend> = coins.into_iter().map(AnySend::Coins).collect();
    rows.extend(offchain.into_iter().map(AnySend::Offchain));
    rows.sort_by_key(|row| std::cmp::Reverse(row.place()));
    rows.truncate(list.limit as usize);
    let next_cursor = super::next_cursor(&rows, list.limit, AnySend::place);
    Ok(Json(OnchainSendsResponse { sends: rows.iter().map(Into::into).collect(), next_cursor }))
}

/// A higher fee for a send that waits for a block.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "fee_rate": 20, "cancel": false, "expires_in_seconds": 600 }))]
pub struct BumpRequestModel {
    /// Whole satoshis per virtual byte.
    #[schema(minimum = 1)]
    pub fee_rate: u32,
    /// Pay everything back to the wallet instead.
    pub cancel: Option<bool>,
    /// How long the signature is waited for, 60 s to 7 days; 600 unless given.
    #[schema(minimum = 60, maximum = 604_800)]
    pub expires_in_seconds: Option<u64>,
}

/// Begin to raise a fee
///
/// Hands out a new version of the transaction with a higher fee, or one that pays everything back to the wallet. The version
/// that gets into a block gives the send its transaction id.
#[utoipa::path(post, path = "/onchain-send/{send_id}/bump-begin", operation_id = "onchainSendBumpBegin", tag = "send",
    params(("send_id" = String, Path, description = "The send", example = json!(examples::ID))),
    request_body = BumpRequestModel,
    responses((status = 200, description = "The PSBT to sign", body = String, example = json!(examples::PSBT))))]
pub async fn bump_begin(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    Id(send): Id,
    asked: HeaderMap,
    body: Posted<BumpRequestModel>,
) -> Result<Response, Problem> {
    state.limits.begin(&wallet.id)?;
    let BumpRequestModel { fee_rate, cancel, expires_in_seconds } = body.value;
    let wanted = BeginBump { send, fee_rate, cancel: cancel.unwrap_or(false), expires_in_seconds };
    let begun = bump::begin(&state.flows, &wallet.keys, wanted, body.idempotency).await?;
    Ok(begun::answer(begun, &asked))
}

/// End raising a fee
///
/// Takes the signed new version and broadcasts it. The same PSBT again answers the state of the same send.
#[utoipa::path(post, path = "/onchain-send/{send_id}/bump-end", operation_id = "onchainSendBumpEnd", tag = "send",
    params(("send_id" = String, Path, description = "The send", example = json!(examples::ID))),
    request_body = SendAssetEndRequestModel,
    responses((status = 200, description = "The send", body = OnchainSendResponse)))]
pub async fn bump_end(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    Id(send): Id,
    body: Posted<SendAssetEndRequestModel>,
) -> Result<Json<OnchainSendResponse>, Problem> {
    let sent = bump::end(&state.flows, &wallet.id, send, &body.value.signed_psbt).await?;
    Ok(Json(OnchainSendResponse::from(&sent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &str) -> Result<BeginSend, Problem> {
        terms(crate::http::extract::parse_json(body.as_bytes()).unwrap())
    }

    #[test]
    fn what_an_asset_needs_is_said() {
        let code = |body| asked(body).unwrap_err().code;
        let with_asset = r#"{"address_or_rgbinvoice":"x","fee_rate":1,"asset":{"asset_id":"rgb:a","amount":1}}"#;
        assert_eq!(code(with_asset), Code::InvalidRequest);
        let rgb = |more: &str| {
            let body = format!(r#"{{"address_or_rgbinvoice":"RGB:x","fee_rate":1{more}}}"#);
            asset_terms(crate::http::extract::parse_json(body.as_bytes()).unwrap())
        };
        assert!(rgb("").is_ok());
        assert_eq!(rgb(r#","source":"offchain""#).unwrap_err().field.as_deref(), Some("source"));
        assert_eq!(
            rgb(r#","deduct_fee_from_amount":true"#).unwrap_err().field.as_deref(),
            Some("deduct_fee_from_amount")
        );
        let too_much = rgb(r#","asset":{"asset_id":"rgb:a","amount":9223372036854775808}"#).unwrap_err();
        assert_eq!((too_much.code, too_much.field.as_deref()), (Code::InvalidRequest, Some("asset.amount")));
    }

    #[test]
    fn bitcoin_needs_an_amount() {
        let problem = asked(r#"{"address_or_rgbinvoice":"x","fee_rate":1}"#).unwrap_err();
        assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidRequest, Some("amount_sats")));
        let begin = asked(r#"{"address_or_rgbinvoice":"x","amount_sats":5,"fee_rate":1,"source":null}"#).unwrap();
        assert!(!begin.deduct_fee && begin.door == Door::OnchainSend);
    }
}
