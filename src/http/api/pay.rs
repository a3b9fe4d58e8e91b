//! The older calls that receive and pay by what a string is. Addresses work; the rest waits for its rail.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::send_view::{Status, amount_sent};
use super::wire::{LightningAsset, SendAssetEndRequestModel};
use super::{begun, bip21, examples};
use crate::clock::Timestamp;
use crate::flows::Code;
use crate::flows::address::{self, NewAddress};
use crate::flows::history::Send;
use crate::flows::send::{self, BeginSend};
use crate::flows::values::Door;
use crate::http::HttpState;
use crate::http::auth::{ToReceive, ToSend, Wallet};
use crate::http::extract::{MaybePosted, Posted};
use crate::http::problem::Problem;
use crate::money::Sat;

/// What is to be received.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({ "amount_sat": 50_000, "asset": null }))]
#[serde(default)]
pub struct ReceiveRequestModel {
    /// Satoshis. An address takes any amount, so this is only checked.
    #[schema(value_type = Option<u64>)]
    pub amount_sat: Option<Sat>,
    /// This gateway has no RGB engine.
    pub asset: Option<LightningAsset>,
}

/// Ways to be paid. Those that this gateway does not offer are empty.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "btc_address": examples::ADDRESS, "asset_invoice": "", "expires_at": examples::TIME, "ln_invoice": "",
    "request_id": examples::ID,
}))]
pub struct ReceiveResponse {
    pub btc_address: String,
    pub asset_invoice: String,
    pub expires_at: Option<String>,
    pub ln_invoice: String,
    pub request_id: Option<String>,
}

/// Receive by any way
///
/// Answers a new address. There is no Lightning node and no RGB engine yet, so both invoices are empty.
#[utoipa::path(post, path = "/lightning/receive", operation_id = "receive", tag = "receive",
    request_body = Option<ReceiveRequestModel>,
    responses((status = 200, description = "Ways to be paid", body = ReceiveResponse)))]
pub async fn receive(
    State(state): State<HttpState>,
    wallet: Wallet<ToReceive>,
    body: MaybePosted<ReceiveRequestModel>,
) -> Result<Json<ReceiveResponse>, Problem> {
    if body.value.asset.is_some() {
        return Err(Problem::plain(Code::AssetsUnavailable));
    }
    let request = address::new(&state.flows, &wallet.keys, NewAddress::default(), body.idempotency).await?;
    Ok(Json(ReceiveResponse {
        btc_address: request.machine.address,
        asset_invoice: String::new(),
        expires_at: request.expires_at.map(Timestamp::rfc3339),
        ln_invoice: String::new(),
        request_id: Some(request.id.to_string()),
    }))
}

/// A payment to whatever the string is.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "address_or_invoice": format!("bitcoin:{}?amount=0.0005", examples::ADDRESS), "amount_sats": 50_000, "asset": null,
    "fee_rate": 5, "min_confirmations": 3,
}))]
pub struct PayBeginRequestModel {
    /// A bitcoin address or a `bitcoin:` URI.
    pub address_or_invoice: String,
    /// Needed unless the URI has an amount; both must agree.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 2_100_000_000_000_000_u64)]
    pub amount_sats: Option<Sat>,
    /// This gateway has no RGB engine.
    pub asset: Option<LightningAsset>,
    /// Whole satoshis per virtual byte; 5 unless given.
    #[schema(minimum = 1)]
    pub fee_rate: Option<u32>,
    /// How deep coins from others must be; 3 unless given. Change of one's own needs none.
    pub min_confirmations: Option<u32>,
    /// How long the signature is waited for, 60 s to 7 days; 600 unless given.
    #[schema(minimum = 60, maximum = 604_800)]
    pub expires_in_seconds: Option<u64>,
    /// The caller's own word for it.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    pub reference: Option<String>,
}

/// Begin a payment to whatever the string is
///
/// A bitcoin address or a `bitcoin:` URI is paid on-chain. Lightning invoices and RGB invoices are recognised, and are not
/// offered yet.
#[utoipa::path(post, path = "/lightning/paybegin", operation_id = "payBegin", tag = "send",
    request_body = PayBeginRequestModel,
    responses((status = 200, description = "The PSBT to sign", body = String, example = json!(examples::PSBT))))]
pub async fn begin(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    asked: HeaderMap,
    body: Posted<PayBeginRequestModel>,
) -> Result<Response, Problem> {
    state.limits.begin(&wallet.id)?;
    let wanted = terms(body.value)?;
    let begun = send::begin(&state.flows, &wallet.keys, wanted, body.idempotency).await?;
    Ok(begun::answer(begun, &asked))
}

/// What a destination is, by how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rail {
    Onchain,
    Lightning,
    Rgb,
}

/// How destinations of Lightning begin: BOLT 11 on each network, offers, LNURL.
const LIGHTNING: [&str; 8] = ["lightning:", "lnbcrt", "lnbc", "lntbs", "lntb", "lnsb", "lno1", "lnurl"];

fn rail(destination: &str) -> Rail {
    let begins = |prefix: &str| super::starts_with_ignoring_case(destination.trim(), prefix);
    if LIGHTNING.into_iter().any(begins) {
        Rail::Lightning
    } else if begins("rgb:") {
        Rail::Rgb
    } else {
        Rail::Onchain
    }
}

fn terms(asked: PayBeginRequestModel) -> Result<BeginSend, Problem> {
    const FEE_RATE: u32 = 5;
    const MIN_CONFIRMATIONS: u32 = 3;
    match (rail(&asked.address_or_invoice), asked.asset.is_some()) {
        (Rail::Onchain, false) => {}
        (Rail::Lightning, false) => return Err(Problem::plain(Code::LightningUnavailable)),
        (Rail::Lightning, true) => return Err(Problem::plain(Code::AssetLightningUnavailable)),
        (Rail::Rgb, _) | (Rail::Onchain, true) => return Err(Problem::plain(Code::AssetsUnavailable)),
    }
    let destination = bip21::read(&asked.address_or_invoice).map_err(|why| {
        Problem::field(Code::InvalidAddress, "address_or_invoice", format!("address_or_invoice: {why}"))
    })?;
    Ok(BeginSend {
        amount: agreed(asked.amount_sats, destination.amount)?,
        to: destination.address,
        fee_rate: asked.fee_rate.unwrap_or(FEE_RATE),
        deduct_fee: false,
        expires_in_seconds: asked.expires_in_seconds,
        reference: super::reference(asked.reference)?,
        door: Door::Pay,
        min_confirmations: Some(asked.min_confirmations.unwrap_or(MIN_CONFIRMATIONS)),
        to_field: "address_or_invoice",
        amount_field: "amount_sats",
    })
}

/// The amount that the call and the URI agree on.
fn agreed(asked: Option<Sat>, in_uri: Option<Sat>) -> Result<Sat, Problem> {
    let refuse = |why: String| Err(Problem::field(Code::InvalidRequest, "amount_sats", why));
    match (asked, in_uri) {
        (Some(asked), Some(in_uri)) if asked != in_uri => {
            refuse(format!("amount_sats: is {asked}, and the URI asks for {in_uri}"))
        }
        (Some(amount), _) | (None, Some(amount)) => Ok(amount),
        (None, None) => refuse("amount_sats: is needed, for neither the call nor the URI has an amount".to_owned()),
    }
}

/// How far a payment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schema(example = json!("PENDING"))]
pub enum PayStatus {
    Pending,
    Succeeded,
    Failed,
}

impl From<Status> for PayStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Requested
            | Status::ClosingChannels
            | Status::WaitingCloseConfirmations
            | Status::WaitingBalanceUpdate
            | Status::SweepingOutputs
            | Status::Broadcasted => Self::Pending,
            Status::Confirmed => Self::Succeeded,
            Status::Failed => Self::Failed,
        }
    }
}

/// A payment that was ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": examples::ID, "status": "PENDING", "payment_type": "BTC", "amount_sats": 50_000, "asset": null, "fee_sats": 420,
    "txid": examples::TXID, "created_at": examples::TIME,
}))]
pub struct PayEndResponse {
    pub id: String,
    pub status: PayStatus,
    /// BTC or ASSET.
    pub payment_type: &'static str,
    #[schema(value_type = Option<u64>)]
    pub amount_sats: Option<Sat>,
    pub asset: Option<LightningAsset>,
    #[schema(value_type = Option<u64>)]
    pub fee_sats: Option<Sat>,
    pub txid: Option<String>,
    pub created_at: String,
}

impl From<&Send> for PayEndResponse {
    fn from(send: &Send) -> Self {
        Self {
            id: send.request.id.to_string(),
            status: Status::of(&send.request.machine.state).into(),
            payment_type: "BTC",
            amount_sats: amount_sent(send),
            asset: None,
            fee_sats: send.current_version().map(|version| version.fee),
            txid: send.request.machine.txid().map(|txid| txid.to_string()),
            created_at: send.request.created_at.rfc3339(),
        }
    }
}

/// End a payment
///
/// Takes the signed PSBT of paybegin, checks it and broadcasts it. The same PSBT again answers the state of the same payment.
#[utoipa::path(post, path = "/lightning/payend", operation_id = "payEnd", tag = "send",
    request_body = SendAssetEndRequestModel,
    responses((status = 200, description = "The payment", body = PayEndResponse)))]
pub async fn end(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    body: Posted<SendAssetEndRequestModel>,
) -> Result<Json<PayEndResponse>, Problem> {
    let sent = send::end(&state.flows, &wallet.id, Door::Pay, &body.value.signed_psbt).await?;
    Ok(Json(PayEndResponse::from(&sent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(to: &str, amount: Option<u64>, asset: bool) -> Result<BeginSend, Problem> {
        terms(PayBeginRequestModel {
            address_or_invoice: to.to_owned(),
            amount_sats: amount.map(|sat| Sat::new(sat).unwrap()),
            asset: asset.then(|| LightningAsset { asset_id: "rgb:x".to_owned(), amount: 1 }),
            fee_rate: None,
            min_confirmations: None,
            expires_in_seconds: None,
            reference: None,
        })
    }

    #[test]
    fn the_string_says_which_rail() {
        let code = |to, asset| asked(to, Some(1), asset).unwrap_err().code;
        assert_eq!(code("lnbcrt1p", false), Code::LightningUnavailable);
        assert_eq!(code("LIGHTNING:LNBC1", false), Code::LightningUnavailable);
        assert_eq!(code("lnbc1", true), Code::AssetLightningUnavailable);
        assert_eq!(code("rgb:x", false), Code::AssetsUnavailable);
        assert_eq!(code("bcrt1q", true), Code::AssetsUnavailable);
        let begin = asked("bcrt1q", Some(7), false).unwrap();
        assert_eq!((begin.fee_rate, begin.min_confirmations, begin.door), (5, Some(3), Door::Pay));
    }

    #[test]
    fn the_call_and_the_uri_must_agree() {
        let sat = |begin: Result<BeginSend, Problem>| begin.map(|b| b.amount.to_u64()).map_err(|p| p.code);
        assert_eq!(sat(asked("bitcoin:x?amount=0.00000007", None, false)), Ok(7));
        assert_eq!(sat(asked("bitcoin:x?amount=0.00000007", Some(7), false)), Ok(7));
        assert_eq!(sat(asked("bitcoin:x?amount=0.00000007", Some(8), false)), Err(Code::InvalidRequest));
        assert_eq!(sat(asked("bitcoin:x", None, false)), Err(Code::InvalidRequest));
        assert_eq!(sat(asked("bitcoin:x?amount=a", None, false)), Err(Code::InvalidAddress));
    }
}
