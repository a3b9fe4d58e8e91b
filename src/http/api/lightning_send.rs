//! Paying over Lightning: what it would cost, begin, end, how it stands, and the signed proof.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::lightning_receive::BTC;
use super::wire::{AssetAmount, LightningAsset, SendAssetEndRequestModel};
use super::{begun, destination, examples};
use crate::clock::Timestamp;
use crate::flows::pay_invoice::{self, BeginPay};
use crate::flows::values::{Authorization, Machine, Pay, PayDoor, PayFailure, PayState, Request, has_simple_form};
use crate::flows::{Code, estimate};
use crate::http::HttpState;
use crate::http::auth::{ToRead, ToSend, Wallet};
use crate::http::extract::{AnyId, Id, Posted};
use crate::http::problem::Problem;
use crate::money::{Amount, Sat};

/// A payment that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "invoice": examples::INVOICE, "max_fee_sats": 50, "amount_sats": null, "expires_in_seconds": 600, "reference": "payout-93",
}))]
pub struct PayLightningInvoiceRequestModel {
    /// A BOLT 11 invoice or a BOLT 12 offer.
    pub invoice: String,
    /// What routing may cost at most, in satoshis. Unless given, what is left of the balance, and at most 3000.
    #[schema(value_type = Option<u64>, maximum = 2_100_000_000_000_000_u64)]
    pub max_fee_sats: Option<Sat>,
    /// Needed where the invoice names no amount, else left out or equal.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 2_100_000_000_000_000_u64)]
    pub amount_sats: Option<Sat>,
    /// How long the signature is waited for, 60 s to 7 days; 600 unless given, and never longer than the invoice can be paid.
    #[schema(minimum = 60, maximum = 604_800)]
    pub expires_in_seconds: Option<u64>,
    /// The caller's own word for it.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    pub reference: Option<String>,
}

/// Begin to pay a Lightning invoice
///
/// Sets the amount and the fee ceiling aside, and hands out an authorisation as a PSBT for the wallet's first key to sign. It is no
/// transaction and moves nothing by itself; its message says exactly what is consented to. An invoice of this gateway is paid in its
/// books, without a fee.
#[utoipa::path(post, path = "/lightning/pay-invoice-begin", operation_id = "payInvoiceBegin", tag = "lightning",
    request_body = PayLightningInvoiceRequestModel,
    responses((status = 200, description = "The authorisation to sign", body = String, example = json!(examples::AUTHORIZATION))))]
pub async fn begin(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    asked: HeaderMap,
    body: Posted<PayLightningInvoiceRequestModel>,
) -> Result<Response, Problem> {
    state.limits.begin(&wallet.id)?;
    let wanted = terms(body.value)?;
    let begun = pay_invoice::begin(&state.flows, &wallet.keys, wanted, body.idempotency).await?;
    Ok(begun::answer(begun, &asked))
}

fn terms(asked: PayLightningInvoiceRequestModel) -> Result<BeginPay, Problem> {
    Ok(BeginPay {
        amount: super::above_zero("amount_sats", asked.amount_sats)?,
        max_fee: asked.max_fee_sats.map(Amount::from_sat),
        expires_in_seconds: asked.expires_in_seconds,
        reference: super::reference(asked.reference)?,
        door: PayDoor::PayInvoice,
        to_field: "invoice",
        to: destination::without_lightning(&asked.invoice).to_owned(),
    })
}

/// End paying a Lightning invoice
///
/// Takes the signed authorisation, checks that it is the one that was handed out and that the signature is valid, and pays. The same
/// PSBT again answers how the same payment stands.
#[utoipa::path(post, path = "/lightning/pay-invoice-end", operation_id = "payInvoiceEnd", tag = "lightning",
    request_body = SendAssetEndRequestModel,
    responses((status = 200, description = "The payment", body = LightningSendRequest)))]
pub async fn end(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    body: Posted<SendAssetEndRequestModel>,
) -> Result<Json<LightningSendRequest>, Problem> {
    let paid = pay_invoice::end(&state.flows, &wallet.keys, PayDoor::PayInvoice, &body.value.signed_psbt).await?;
    Ok(Json(LightningSendRequest::from(&paid)))
}

/// How far a Lightning payment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schema(example = json!("SUCCEEDED"))]
pub enum LightningSendStatus {
    /// It waits for the client's signature, or is on its way. What is not known is not failed.
    Pending,
    /// The payee has it.
    Succeeded,
    /// Nothing of it is out or will go out, and what was held is free again.
    Failed,
}

impl LightningSendStatus {
    #[must_use]
    pub const fn of(state: &PayState) -> Self {
        match state {
            PayState::AwaitingSignature | PayState::Paying => Self::Pending,
            PayState::Succeeded { .. } => Self::Succeeded,
            PayState::Failed { .. } | PayState::Expired => Self::Failed,
        }
    }
}

/// A Lightning payment, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": examples::ID, "status": "SUCCEEDED", "payment_type": "BTC", "amount_sats": 5_000, "asset": null, "fee_sats": 3,
    "created_at": examples::TIME, "amount_msat": 5_000_000, "fee_msat": 2_500, "max_fee_msat": 50_000,
    "payment_hash": examples::HASH, "preimage": examples::PREIMAGE, "payee_pubkey": examples::NODE, "paid_by": "channel",
    "error_code": null, "error_message": null, "retryable": false, "state": "succeeded", "reference": "payout-93",
    "updated_at": examples::TIME, "expires_at": examples::TIME,
}))]
pub struct LightningSendRequest {
    pub id: String,
    pub status: LightningSendStatus,
    /// BTC or ASSET.
    pub payment_type: &'static str,
    /// What the payee gets, rounded up.
    pub amount_sats: Option<u64>,
    pub asset: Option<AssetAmount>,
    /// What routing has cost, rounded up. Empty until it succeeded.
    pub fee_sats: Option<u64>,
    pub created_at: String,
    /// The same as `amount_sats`, exactly.
    pub amount_msat: u64,
    /// The same as `fee_sats`, exactly.
    pub fee_msat: Option<u64>,
    /// What routing may cost at most.
    pub max_fee_msat: u64,
    pub payment_hash: String,
    /// The proof of payment. Empty until it succeeded.
    pub preimage: Option<String>,
    /// The payee's node, where the invoice tells.
    pub payee_pubkey: Option<String>,
    /// channel: over the Lightning network; book: to another wallet of this gateway.
    pub paid_by: Option<&'static str>,
    /// Why it failed: no_liquidity, fee_limit_too_low, rejected_by_payee, invoice_expired, not_payable, never_sent or request_expired.
    pub error_code: Option<&'static str>,
    /// The same for a person.
    pub error_message: Option<&'static str>,
    /// Whether beginning again with the same invoice may succeed.
    pub retryable: bool,
    /// The state in the words of the gateway, which say more than `status`.
    pub state: &'static str,
    pub reference: Option<String>,
    pub updated_at: String,
    /// Until when the signature is waited for.
    pub expires_at: Option<String>,
}

/// What a payment that failed is told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failure {
    code: &'static str,
    message: &'static str,
    retryable: bool,
}

const fn failure(state: &PayState) -> Option<Failure> {
    let (code, message, retryable) = match state {
        PayState::AwaitingSignature | PayState::Paying | PayState::Succeeded { .. } => return None,
        PayState::Expired => ("request_expired", "no signature arrived in time", true),
        PayState::Failed { why } => match why {
            PayFailure::NoLiquidity => ("no_liquidity", "no way to the payee was found with enough liquidity", true),
            PayFailure::FeeTooHigh => {
                ("fee_limit_too_low", "every way to the payee costs more than the ceiling", false)
            }
            PayFailure::Rejected => ("rejected_by_payee", "the payee did not take the payment", false),
            PayFailure::InvoiceExpired => ("invoice_expired", "the invoice expired before it was paid", false),
            PayFailure::NotPayable => ("not_payable", "the invoice asks for what this gateway can't do", false),
            PayFailure::NeverSent => ("never_sent", "the payment never left the node", true),
        },
    };
    Some(Failure { code, message, retryable })
}

impl From<&Request<Pay>> for LightningSendRequest {
    fn from(request: &Request<Pay>) -> Self {
        let Pay { terms, state, .. } = &request.machine;
        let failure = failure(state);
        let (fee, preimage, paid_by) = match state {
            // What the wallet was charged: a node that spent more has spent the operator's.
            PayState::Succeeded { fee, preimage, by } => {
                (Some((*fee).min(terms.max_fee)), Some(preimage.to_string()), Some(by.as_str()))
            }
            PayState::AwaitingSignature | PayState::Paying | PayState::Failed { .. } | PayState::Expired => {
                (None, None, None)
            }
        };
        Self {
            id: request.id.to_string(),
            status: LightningSendStatus::of(state),
            payment_type: BTC,
            amount_sats: Some(terms.amount.sat_ceil()),
            asset: None,
            fee_sats: fee.map(Amount::sat_ceil),
            created_at: request.created_at.rfc3339(),
            amount_msat: terms.amount.base_units(),
            fee_msat: fee.map(Amount::base_units),
            max_fee_msat: terms.max_fee.base_units(),
            payment_hash: terms.hash.to_string(),
            preimage,
            payee_pubkey: terms.payee.clone(),
            paid_by,
            error_code: failure.map(|failure| failure.code),
            error_message: failure.map(|failure| failure.message),
            retryable: failure.is_some_and(|failure| failure.retryable),
            state: request.machine.state(),
            reference: request.reference.clone(),
            updated_at: request.updated_at.rfc3339(),
            expires_at: request.expires_at.map(Timestamp::rfc3339),
        }
    }
}

/// One Lightning payment
///
/// The authority on what became of a payment. An id that names no payment of this wallet is answered `null`.
#[utoipa::path(get, path = "/lightning/send-request/{request_id}", operation_id = "sendRequest", tag = "lightning",
    params(("request_id" = String, Path, description = "The id that pay-invoice-end answered", example = json!(examples::ID))),
    responses((status = 200, description = "The payment, or null", body = Option<LightningSendRequest>)))]
pub async fn get(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    id: Result<AnyId, Problem>,
) -> Result<Json<Option<LightningSendRequest>>, Problem> {
    // What can't be an id names nothing, either.
    let Some(id) = id.ok().and_then(|id| id.request()) else { return Ok(Json(None)) };
    let found = pay_invoice::find(&state.flows, &wallet.id, id).await?;
    Ok(Json(found.as_ref().map(Into::into)))
}

/// What a wallet's owner was asked to consent to, and the signature: anybody can check it with BIP-322.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "request_id": examples::ID, "message": examples::MESSAGE, "address": examples::ADDRESS, "psbt": examples::AUTHORIZATION,
    "signature": examples::SIGNATURE, "signed_transaction": examples::SIGNED_AUTHORIZATION, "signed_at": examples::TIME,
    "expires_at": examples::TIME,
}))]
pub struct AuthorizationResponse {
    pub request_id: String,
    /// What is consented to, to the byte.
    pub message: String,
    /// Whose signature it is: the wallet's first address.
    pub address: String,
    /// As it was handed out.
    pub psbt: String,
    /// The signature in the simple form of BIP-322. Empty until it was given, and where the signer has put version 2 on what it signed: then
    /// `signed_transaction` is the proof, in the full form.
    pub signature: Option<String>,
    /// The signed transaction of BIP-322, as hex. Empty until it was given.
    pub signed_transaction: Option<String>,
    pub signed_at: Option<String>,
    /// Until when the signature is waited for.
    pub expires_at: String,
}

impl AuthorizationResponse {
    fn of(asked: Authorization, address: &bitcoin::Address) -> Self {
        Self {
            request_id: asked.request.to_string(),
            message: asked.message,
            address: address.to_string(),
            psbt: asked.psbt,
            signature: asked.signed_tx.as_ref().and_then(simple_signature),
            signed_transaction: asked.signed_tx.as_ref().map(bitcoin::consensus::encode::serialize_hex),
            signed_at: asked.signed_at.map(Timestamp::rfc3339),
            expires_at: asked.expires_at.rfc3339(),
        }
    }
}

/// The signature in the simple form of BIP-322: the witness, and nothing around it. Empty where only the whole transaction proves it.
pub(super) fn simple_signature(signed: &bitcoin::Transaction) -> Option<String> {
    if !has_simple_form(signed) {
        return None;
    }
    let witness = &signed.input.first()?.witness;
    Some(BASE64_STANDARD.encode(bitcoin::consensus::encode::serialize(witness)))
}

/// The signed proof of a payment
///
/// The message that the payment's owner signed, and the signature. It proves the consent to anybody who knows the wallet's address. Of a
/// payment that a key made, it is the grant of the key.
#[utoipa::path(get, path = "/lightning/send-request/{request_id}/authorization", operation_id = "sendRequestAuthorization",
    tag = "lightning",
    params(("request_id" = String, Path, description = "The id that pay-invoice-end answered", example = json!(examples::ID))),
    responses((status = 200, description = "The proof", body = AuthorizationResponse)))]
pub async fn authorization(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    Id(id): Id,
) -> Result<Json<AuthorizationResponse>, Problem> {
    let unknown = || Problem::new(Code::NotFound, "this wallet has no payment with this id");
    let asked = pay_invoice::consent(&state.flows, &wallet.id, id).await?.ok_or_else(unknown)?;
    let address = pay_invoice::consenting_address(&wallet.keys)?;
    Ok(Json(AuthorizationResponse::of(asked, &address)))
}

/// An invoice whose fee is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "invoice": examples::INVOICE, "amount_sats": null, "asset": null }))]
pub struct GetLightningSendFeeEstimateRequestModel {
    /// A BOLT 11 invoice.
    pub invoice: String,
    /// Needed where the invoice names no amount.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 2_100_000_000_000_000_u64)]
    pub amount_sats: Option<Sat>,
    /// The node of this gateway carries no assets.
    pub asset: Option<LightningAsset>,
}

/// Estimate the fee of a Lightning payment
///
/// What the cheapest way to the payee costs now, in whole satoshis, rounded up. An invoice of this gateway costs nothing.
/// A way is searched for, so each wallet may ask as often as it may begin sends. For some seconds the answer is that for about the same amount.
#[utoipa::path(post, path = "/lightning/fee-estimate", operation_id = "feeEstimate", tag = "lightning",
    request_body = GetLightningSendFeeEstimateRequestModel,
    responses((status = 200, description = "Satoshis", body = u64, example = json!(3))))]
pub async fn fee_estimate(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    body: Posted<GetLightningSendFeeEstimateRequestModel>,
) -> Result<Json<u64>, Problem> {
    state.limits.search(&wallet.id)?;
    let GetLightningSendFeeEstimateRequestModel { invoice, amount_sats, asset } = body.value;
    if asset.is_some() {
        return Err(Problem::plain(Code::AssetLightningUnavailable));
    }
    let amount = super::above_zero("amount_sats", amount_sats)?;
    let text = destination::without_lightning(&invoice);
    if pay_invoice::is_offer(text) {
        let detail = "invoice: this is an offer; what it costs is known when its payee has given an invoice, which begin asks for";
        return Err(Problem::field(Code::InvalidInvoice, "invoice", detail));
    }
    let fee = estimate::estimate(&state.flows, "invoice", text, amount).await?;
    Ok(Json(fee.sat_ceil()))
}

#[cfg(test)]
mod tests;
