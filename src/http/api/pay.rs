//! The older calls that receive by every way there is, and pay by what a string is.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Network};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::destination::{self, Kind};
use super::lightning_receive::{ASSET, BTC};
use super::lightning_send::{LightningSendRequest, LightningSendStatus};
use super::send_view::{Status, amount_sent, asset as asset_of};
use super::wire::{self, AssetAmount, LightningAsset, SendAssetEndRequestModel};
use super::{begun, bip21, decode, examples, onchain_receive};
use crate::clock::Timestamp;
use crate::flows::address::{self, NewAddress};
use crate::flows::assets;
use crate::flows::assets::receive::{self as asset_receive, NewInvoice, Where};
use crate::flows::assets::send::{self as asset_send, NewSend};
use crate::flows::history::Send;
use crate::flows::invoice::{self, WantedInvoice};
use crate::flows::pay_invoice::{self, BeginPay};
use crate::flows::send::{self, BeginSend};
use crate::flows::values::{AssetReceive, Door, PayDoor, Receive, ReceiveAddress, Request, WalletKeys};
use crate::flows::{Code, Idempotency};
use crate::http::HttpState;
use crate::http::auth::{ToReceive, ToSend, Wallet};
use crate::http::extract::{MaybePosted, Posted};
use crate::http::problem::Problem;
use crate::money::{Amount, Sat};

/// What is to be received.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({ "amount_sat": 50_000, "asset": null, "asset_invoice": false }))]
#[serde(default)]
pub struct ReceiveRequestModel {
    /// Satoshis that the invoice asks for; 0 or left out: the payer says how much. An address takes any amount.
    #[schema(value_type = Option<u64>)]
    pub amount_sat: Option<Sat>,
    /// An asset instead of bitcoin: there is an RGB invoice for it then, and none for Lightning.
    pub asset: Option<LightningAsset>,
    /// With an RGB invoice for any asset, where there is an RGB engine. The call waits for the engine then, for some seconds.
    pub asset_invoice: Option<bool>,
}

/// Ways to be paid. Those that this gateway does not offer are empty.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "btc_address": examples::ADDRESS, "asset_invoice": "", "expires_at": examples::TIME, "ln_invoice": examples::INVOICE,
    "request_id": examples::ID, "ln_request_id": examples::ID, "asset_request_id": null,
}))]
pub struct ReceiveResponse {
    pub btc_address: String,
    pub asset_invoice: String,
    pub expires_at: Option<String>,
    /// Empty while there is no Lightning node.
    pub ln_invoice: String,
    /// Names the request of the address.
    pub request_id: Option<String>,
    /// Names the request of the invoice.
    pub ln_request_id: Option<String>,
    /// Names the request of the RGB invoice.
    pub asset_request_id: Option<String>,
}

/// Receive by any way
///
/// Answers a new address, a Lightning invoice where there is a node, and an RGB invoice where the body names an asset or says
/// `asset_invoice`. An asset that the wallet has never had can't be named in an RGB invoice: its payer names it.
#[utoipa::path(post, path = "/lightning/receive", operation_id = "receive", tag = "receive",
    request_body = Option<ReceiveRequestModel>,
    responses((status = 200, description = "Ways to be paid", body = ReceiveResponse)))]
pub async fn receive(
    State(state): State<HttpState>,
    wallet: Wallet<ToReceive>,
    body: MaybePosted<ReceiveRequestModel>,
) -> Result<Json<ReceiveResponse>, Problem> {
    let asset = body.value.asset;
    if asset.is_some() {
        assets::require_engine(&state.flows)?;
    }
    let wanted = asset.map(|asset| wire::asset_payee(String::new(), Some(asset), None)).transpose()?;
    let invoice_key = body.idempotency.as_ref().map(for_invoice);
    let asset_key = body.idempotency.as_ref().map(for_asset);
    let request = address::new(&state.flows, &wallet.keys, NewAddress::default(), body.idempotency).await?;
    let (invoice, rgb) = match wanted {
        None => {
            let is_wanted = body.value.asset_invoice;
            let rgb =
                onchain_receive::asset_invoice(&state, &wallet.keys, &request, is_wanted, asset_key.is_some()).await?;
            (invoice(&state, &wallet.keys, body.value.amount_sat, invoice_key).await?, rgb)
        }
        Some(wanted) => {
            let rgb = receive_asset(&state, &wallet.keys, &request, wanted.asset, wanted.amount, asset_key).await?;
            (None, Some(rgb))
        }
    };
    let (asset_invoice, asset_request_id) =
        rgb.map_or_else(Default::default, |made| (made.machine.invoice, Some(made.id.to_string())));
    let (ln_invoice, ln_request_id) =
        invoice.map_or_else(Default::default, |made| (made.machine.invoice, Some(made.id.to_string())));
    Ok(Json(ReceiveResponse {
        btc_address: request.machine.address,
        asset_invoice,
        expires_at: request.expires_at.map(Timestamp::rfc3339),
        ln_invoice,
        request_id: Some(request.id.to_string()),
        ln_request_id,
        asset_request_id,
    }))
}

/// The RGB invoice is a request of its own, too.
fn for_asset(key: &Idempotency) -> Idempotency {
    Idempotency { key: format!("{}\nasset", key.key), body_hash: key.body_hash.clone() }
}

/// An invoice for so much of an asset, which lives as long as the address. The engine names only what the wallet knows.
async fn receive_asset(
    state: &HttpState,
    keys: &WalletKeys,
    address: &Request<ReceiveAddress>,
    asset: Option<String>,
    amount: Option<Amount>,
    key: Option<Idempotency>,
) -> Result<Request<AssetReceive>, Problem> {
    let wanted = |asset| NewInvoice {
        at: Where::Either,
        asset,
        amount,
        min_confirmations: None,
        lifetime: asset_receive::lifetime(&state.flows, address.expires_at),
        address: Some(address.id),
    };
    match asset_receive::open(&state.flows, keys, wanted(asset), key.clone()).await {
        Err(error) if error.code() == Code::AssetUnknown => {
            Ok(asset_receive::open(&state.flows, keys, wanted(None), key).await?)
        }
        opened => Ok(opened?),
    }
}

/// The invoice is a request of its own, with a key that no caller can send.
fn for_invoice(key: &Idempotency) -> Idempotency {
    Idempotency { key: format!("{}\ninvoice", key.key), body_hash: key.body_hash.clone() }
}

/// The invoice beside the address. A node that is not there now leaves the address as the one way.
async fn invoice(
    state: &HttpState,
    keys: &WalletKeys,
    amount: Option<Sat>,
    key: Option<Idempotency>,
) -> Result<Option<Request<Receive>>, Problem> {
    let amount = amount.filter(|sat| *sat != Sat::ZERO).map(Amount::from_sat);
    let wanted = WantedInvoice { amount, ..WantedInvoice::default() };
    match invoice::create(&state.flows, keys, wanted, key).await {
        Ok(made) => Ok(Some(made.request)),
        Err(error) if matches!(error.code(), Code::LightningUnavailable | Code::LightningNotReady) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A payment to whatever the string is.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "address_or_invoice": format!("bitcoin:{}?amount=0.0005", examples::ADDRESS), "amount_sats": 50_000, "asset": null,
    "max_fee_sats": null, "fee_rate": 5, "min_confirmations": 3,
}))]
pub struct PayBeginRequestModel {
    /// A bitcoin address, a `bitcoin:` URI, a BOLT 11 invoice, a BOLT 12 offer or an RGB invoice.
    pub address_or_invoice: String,
    /// Needed unless the URI or the invoice has an amount; both must agree.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 2_100_000_000_000_000_u64)]
    pub amount_sats: Option<Sat>,
    /// For an RGB invoice, which may name both itself.
    pub asset: Option<LightningAsset>,
    /// What routing may cost at most, in satoshis, where Lightning is the way. Unless given, what is left of the balance, and at most 3000.
    #[schema(value_type = Option<u64>, maximum = 2_100_000_000_000_000_u64)]
    pub max_fee_sats: Option<Sat>,
    /// Whole satoshis per virtual byte; 5 unless given. Lightning does not look at it.
    #[schema(minimum = 1)]
    pub fee_rate: Option<u32>,
    /// How deep coins from others must be; 3 unless given. Change of one's own needs none. Lightning does not look at it.
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
/// An address or a `bitcoin:` URI is paid on-chain, an invoice or an offer over Lightning. A URI that names both is paid over Lightning
/// if the node is ready, else on-chain. `Sluice-Source` says which it is. An RGB invoice is paid in its asset, on-chain.
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
    let begun = match way(body.value, state.flows.network(), state.flows.node().is_ready())? {
        Way::Onchain(wanted) => send::begin(&state.flows, &wallet.keys, wanted, body.idempotency).await?,
        Way::Asset(wanted) => asset_send::begin(&state.flows, &wallet.keys, wanted, body.idempotency).await?,
        Way::Lightning(wanted) => pay_invoice::begin(&state.flows, &wallet.keys, wanted, body.idempotency).await?,
    };
    Ok(begun::answer(begun, &asked))
}

/// By which rail a payment goes.
#[derive(Debug)]
enum Way {
    Onchain(BeginSend),
    Asset(NewSend),
    Lightning(BeginPay),
}

fn way(asked: PayBeginRequestModel, network: Network, node_is_ready: bool) -> Result<Way, Problem> {
    let text = asked.address_or_invoice.clone();
    let (kind, bare) = destination::kind(&text);
    match (kind, asked.asset.is_some()) {
        (Kind::Invoice | Kind::Offer, false) => Ok(Way::Lightning(lightning(asked, bare, None)?)),
        (Kind::Invoice | Kind::Offer, true) => Err(Problem::plain(Code::AssetLightningUnavailable)),
        (Kind::Rgb, _) => Ok(Way::Asset(asset(asked)?)),
        (Kind::Onchain, true) => {
            let detail = "asset: goes with an RGB invoice, and this is an address";
            Err(Problem::field(Code::InvalidRequest, "asset", detail))
        }
        (Kind::Name, _) => Err(decode::names_are_not_read(TO_FIELD)),
        (Kind::Onchain, false) => way_of_uri(asked, network, node_is_ready),
    }
}

const TO_FIELD: &str = "address_or_invoice";
const FEE_RATE: u32 = 5;
const MIN_CONFIRMATIONS: u32 = 3;

fn way_of_uri(asked: PayBeginRequestModel, network: Network, node_is_ready: bool) -> Result<Way, Problem> {
    let bad = |why: &str| Problem::field(Code::InvalidAddress, TO_FIELD, format!("{TO_FIELD}: {why}"));
    let uri = bip21::read(&asked.address_or_invoice).map_err(|why| bad(&why))?;
    match (uri.lightning, uri.address) {
        (Some(invoice), address) if node_is_ready || address.is_none() => {
            let bare = destination::without_lightning(&invoice);
            // The URI says in satoshis what the invoice says exactly, so the invoice has the word.
            let read = invoice::read_text(bare, network).ok();
            let names_amount = read.is_some_and(|invoice| invoice.amount.is_some());
            let in_uri = if names_amount { None } else { uri.amount };
            Ok(Way::Lightning(lightning(asked, bare, in_uri)?))
        }
        (_, Some(address)) => Ok(Way::Onchain(onchain(asked, address, uri.amount)?)),
        (_, None) => Err(bad("the URI names no address")),
    }
}

fn lightning(asked: PayBeginRequestModel, to: &str, in_uri: Option<Sat>) -> Result<BeginPay, Problem> {
    let amount = match (asked.amount_sats, in_uri) {
        (None, None) => None,
        (asked, in_uri) => super::above_zero("amount_sats", Some(agreed(asked, in_uri)?))?,
    };
    Ok(BeginPay {
        to: to.to_owned(),
        amount,
        max_fee: asked.max_fee_sats.map(Amount::from_sat),
        expires_in_seconds: asked.expires_in_seconds,
        reference: super::reference(asked.reference)?,
        door: PayDoor::Pay,
        to_field: TO_FIELD,
    })
}

fn onchain(asked: PayBeginRequestModel, to: String, in_uri: Option<Sat>) -> Result<BeginSend, Problem> {
    // Of a text that is nothing at all, the amount is the least that is wrong.
    let amount = agreed(asked.amount_sats, in_uri).map_err(|wrong| no_address(&to).unwrap_or(wrong))?;
    Ok(BeginSend {
        amount,
        to,
        fee_rate: asked.fee_rate.unwrap_or(FEE_RATE),
        deduct_fee: false,
        expires_in_seconds: asked.expires_in_seconds,
        reference: super::reference(asked.reference)?,
        door: Door::Pay,
        min_confirmations: Some(asked.min_confirmations.unwrap_or(MIN_CONFIRMATIONS)),
        to_field: TO_FIELD,
        amount_field: "amount_sats",
    })
}

fn no_address(text: &str) -> Option<Problem> {
    let error = text.parse::<Address<NetworkUnchecked>>().err()?;
    let detail = format!("{TO_FIELD}: this is no address, no URI, no invoice and no offer: {error}");
    Some(Problem::field(Code::InvalidAddress, TO_FIELD, detail))
}

fn asset(asked: PayBeginRequestModel) -> Result<NewSend, Problem> {
    Ok(NewSend {
        payees: vec![wire::asset_payee(asked.address_or_invoice, asked.asset, asked.amount_sats)?],
        fee_rate: asked.fee_rate.unwrap_or(FEE_RATE),
        min_confirmations: Some(asked.min_confirmations.unwrap_or(MIN_CONFIRMATIONS)),
        expires_in_seconds: asked.expires_in_seconds,
        reference: super::reference(asked.reference)?,
        door: Door::Pay,
        fields: wire::asset_fields(TO_FIELD),
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

impl From<LightningSendStatus> for PayStatus {
    fn from(status: LightningSendStatus) -> Self {
        match status {
            LightningSendStatus::Pending => Self::Pending,
            LightningSendStatus::Succeeded => Self::Succeeded,
            LightningSendStatus::Failed => Self::Failed,
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
    pub amount_sats: Option<u64>,
    pub asset: Option<AssetAmount>,
    pub fee_sats: Option<u64>,
    /// Empty for Lightning.
    pub txid: Option<String>,
    pub created_at: String,
}

impl From<LightningSendRequest> for PayEndResponse {
    fn from(paid: LightningSendRequest) -> Self {
        Self {
            id: paid.id,
            status: paid.status.into(),
            payment_type: paid.payment_type,
            amount_sats: paid.amount_sats,
            asset: paid.asset,
            fee_sats: paid.fee_sats,
            txid: None,
            created_at: paid.created_at,
        }
    }
}

impl From<&Send> for PayEndResponse {
    fn from(send: &Send) -> Self {
        let terms = &send.request.machine.terms;
        Self {
            id: send.request.id.to_string(),
            status: Status::of(&send.request.machine.state).into(),
            payment_type: if terms.assets.is_some() { ASSET } else { BTC },
            amount_sats: amount_sent(send).filter(|_| terms.assets.is_none()).map(Sat::to_u64),
            asset: asset_of(terms),
            fee_sats: send.current_version().map(|version| version.fee.to_u64()),
            txid: send.request.machine.txid().map(|txid| txid.to_string()),
            created_at: send.request.created_at.rfc3339(),
        }
    }
}

/// End a payment
///
/// Takes the signed PSBT of paybegin, checks it, and broadcasts it or pays over Lightning. The same PSBT again answers the state of the
/// same payment.
#[utoipa::path(post, path = "/lightning/payend", operation_id = "payEnd", tag = "send",
    request_body = SendAssetEndRequestModel,
    responses((status = 200, description = "The payment", body = PayEndResponse)))]
pub async fn end(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    body: Posted<SendAssetEndRequestModel>,
) -> Result<Json<PayEndResponse>, Problem> {
    let signed = &body.value.signed_psbt;
    match send::end(&state.flows, &wallet.id, Door::Pay, signed).await {
        Ok(sent) => Ok(Json(PayEndResponse::from(&sent))),
        // It may be the authorisation of a Lightning payment.
        Err(error) if error.code() == Code::PsbtUnknown => {
            let paid = pay_invoice::end(&state.flows, &wallet.keys, PayDoor::Pay, signed).await?;
            Ok(Json(LightningSendRequest::from(&paid).into()))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
