//! Saying what a text that is to be paid is, before anybody pays it.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::destination::{self, Kind};
use super::{bip21, examples};
use crate::clock::Timestamp;
use crate::flows::{Code, Error, Flows, assets, invoice, send};
use crate::http::HttpState;
use crate::http::auth::{ToRead, Wallet};
use crate::http::extract::Posted;
use crate::http::problem::Problem;
use crate::money::{Amount, Sat};

const FIELD: &str = "input";

/// A text that somebody wants to be paid by.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "input": examples::INVOICE }))]
pub struct DecodeRequestModel {
    /// An address, a `bitcoin:` URI, a BOLT 11 invoice, a BOLT 12 offer or an RGB invoice.
    pub input: String,
}

/// What a text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = json!("bolt11"))]
pub enum InputKind {
    #[default]
    Address,
    /// A `bitcoin:` URI.
    Bip21,
    Bolt11,
    Bolt12Offer,
    RgbInvoice,
}

/// What a text says. What its kind does not have is empty.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(example = json!({
    "kind": "bolt11", "text": examples::INVOICE, "address": null, "amount_sats": 5_000, "amount_msat": 5_000_000,
    "currency": null, "description": "order 7", "description_hash": null, "label": null, "issuer": null,
    "payment_hash": examples::HASH, "payee_pubkey": examples::NODE, "created_at": examples::TIME, "expires_at": examples::TIME,
    "is_expired": false, "is_own": false, "lightning": null, "asset_id": null, "asset_amount": null, "asset_amount_str": null,
    "recipient_id": null,
}))]
pub struct DecodeResponse {
    pub kind: InputKind,
    /// The text in its one spelling.
    pub text: String,
    pub address: Option<String>,
    /// What is asked for, rounded up. Empty: the payer says how much.
    pub amount_sats: Option<u64>,
    /// The same, exactly.
    pub amount_msat: Option<u64>,
    /// What an offer's price is in, where that is not bitcoin: its payee tells the amount with the invoice.
    pub currency: Option<String>,
    pub description: Option<String>,
    /// The SHA-256 of a description that is found elsewhere.
    pub description_hash: Option<String>,
    pub label: Option<String>,
    pub issuer: Option<String>,
    pub payment_hash: Option<String>,
    pub payee_pubkey: Option<String>,
    pub created_at: Option<String>,
    pub expires_at: Option<String>,
    pub is_expired: Option<bool>,
    /// An invoice of this gateway, by its very text: it is paid in the books.
    pub is_own: Option<bool>,
    /// The invoice or offer that a URI names beside the address.
    pub lightning: Option<String>,
    /// The asset that an RGB invoice asks for; empty where it leaves that open. Of a BOLT 11 invoice, the asset that it names: then it
    /// can't be paid here, for it is no invoice in bitcoin.
    pub asset_id: Option<String>,
    /// How much of it, in the smallest unit.
    pub asset_amount: Option<u64>,
    pub asset_amount_str: Option<String>,
    pub recipient_id: Option<String>,
}

/// Say what a text is
///
/// Reads an address, a `bitcoin:` URI, a BOLT 11 invoice, a BOLT 12 offer or an RGB invoice. What it says was checked against its own signature or
/// checksum; whether it can be paid is found out by paying it.
#[utoipa::path(post, path = "/lightning/decode", operation_id = "decode", tag = "lightning",
    request_body = DecodeRequestModel,
    responses((status = 200, description = "What it says", body = DecodeResponse)))]
pub async fn decode(
    State(state): State<HttpState>,
    _wallet: Wallet<ToRead>,
    body: Posted<DecodeRequestModel>,
) -> Result<Json<DecodeResponse>, Problem> {
    let (kind, text) = destination::kind(&body.value.input);
    let read = match kind {
        Kind::Onchain => onchain(&state.flows, text)?,
        Kind::Invoice => bolt11(&state.flows, text).await?,
        Kind::Offer => offer(&state.flows, text)?,
        Kind::Rgb => rgb(&state.flows, text)?,
        Kind::Name => return Err(names_are_not_read(FIELD)),
    };
    Ok(Json(read))
}

/// LNURL and names are looked up at a server that the payee names; this gateway calls none.
#[must_use]
pub fn names_are_not_read(field: &'static str) -> Problem {
    let detail =
        format!("{field}: LNURL and names are not supported here; send the invoice or the offer that they stand for");
    Problem::field(Code::InvalidRequest, field, detail)
}

fn onchain(flows: &Flows, text: &str) -> Result<DecodeResponse, Problem> {
    let bad = |why| Problem::field(Code::InvalidAddress, FIELD, format!("{FIELD}: {why}"));
    let uri = bip21::read(text).map_err(bad)?;
    let address = uri.address.map(|address| send::read_address(flows, FIELD, &address)).transpose()?;
    let amount = uri.amount.map(Amount::from_sat);
    Ok(DecodeResponse {
        kind: if uri.is_uri { InputKind::Bip21 } else { InputKind::Address },
        text: if uri.is_uri { text.to_owned() } else { address.as_ref().map(ToString::to_string).unwrap_or_default() },
        address: address.map(|address| address.to_string()),
        amount_sats: uri.amount.map(Sat::to_u64),
        amount_msat: amount.map(Amount::base_units),
        description: uri.message,
        label: uri.label,
        lightning: uri.lightning,
        ..DecodeResponse::default()
    })
}

fn rgb(flows: &Flows, text: &str) -> Result<DecodeResponse, Problem> {
    let said = assets::read_invoice(flows, text).map_err(|error| match error {
        Error::Field { code, reason, .. } => Problem::field(code, FIELD, format!("{FIELD}: {reason}")),
        other => other.into(),
    })?;
    let seconds = |at: u64| Timestamp::from_millis(i64::try_from(at).unwrap_or(i64::MAX).saturating_mul(1_000));
    let expires_at = said.expires_at.map(seconds);
    Ok(DecodeResponse {
        kind: InputKind::RgbInvoice,
        text: text.to_owned(),
        expires_at: expires_at.map(Timestamp::rfc3339),
        is_expired: expires_at.map(|at| at <= flows.store().clock().now()),
        asset_id: said.asset,
        asset_amount: said.amount.map(Amount::base_units),
        asset_amount_str: said.amount.map(|amount| amount.to_string()),
        recipient_id: Some(said.recipient),
        ..DecodeResponse::default()
    })
}

async fn bolt11(flows: &Flows, text: &str) -> Result<DecodeResponse, Problem> {
    let decoded = invoice::decode(flows, FIELD, text).await?;
    let said = decoded.invoice;
    Ok(DecodeResponse {
        kind: InputKind::Bolt11,
        text: said.text,
        amount_sats: said.amount.map(Amount::sat_ceil),
        amount_msat: said.amount.map(Amount::base_units),
        description: said.description,
        description_hash: said.description_hash,
        payment_hash: Some(said.hash.to_string()),
        payee_pubkey: Some(said.payee.to_string()),
        created_at: Some(said.created_at.rfc3339()),
        expires_at: Some(said.expires_at.rfc3339()),
        is_expired: Some(decoded.is_expired),
        is_own: Some(decoded.is_own),
        asset_amount: said.asset.as_ref().and_then(|asset| asset.amount),
        asset_id: said.asset.and_then(|asset| asset.contract),
        ..DecodeResponse::default()
    })
}

fn offer(flows: &Flows, text: &str) -> Result<DecodeResponse, Problem> {
    let (said, is_expired) = invoice::decode_offer(flows, FIELD, text)?;
    Ok(DecodeResponse {
        kind: InputKind::Bolt12Offer,
        text: said.text,
        amount_sats: said.amount.map(Amount::sat_ceil),
        amount_msat: said.amount.map(Amount::base_units),
        currency: said.currency,
        description: said.description,
        issuer: said.issuer,
        payee_pubkey: said.payee.map(|payee| payee.to_string()),
        expires_at: said.expires_at.map(Timestamp::rfc3339),
        is_expired: Some(is_expired),
        ..DecodeResponse::default()
    })
}
