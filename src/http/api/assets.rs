//! `/wallet`: RGB assets on-chain. Coins that carry them, what the wallet has of them, and issuing one.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::wire::SendAssetEndRequestModel;
use super::{begun, examples};
use crate::flows::assets::coins::{self, NewCoins};
use crate::flows::assets::{self, issue};
use crate::flows::values::{Asset, AssetBalance, NewAsset, Onto, RgbInvoice, Schema};
use crate::http::HttpState;
use crate::http::auth::{ToRead, ToSend, Wallet};
use crate::http::extract::{MaybePosted, Posted};
use crate::http::problem::Problem;
use crate::money::{Amount, Sat};

/// Coins to be made for assets.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({ "up_to": false, "num": 5, "size": 1_000, "fee_rate": 5 }))]
pub struct CreateUtxosBeginRequestModel {
    /// `num` free coins in all, instead of `num` more; false unless given.
    pub up_to: Option<bool>,
    /// How many; 5 unless given.
    #[schema(minimum = 1, maximum = 100)]
    pub num: Option<u32>,
    /// Satoshis that each of them holds; 1000 unless given. What a coin holds pays the fees of sends from it.
    #[schema(value_type = Option<u64>, minimum = 330, maximum = 2_100_000_000_000_000_u64)]
    pub size: Option<Sat>,
    /// Whole satoshis per virtual byte; 5 unless given.
    #[schema(minimum = 1)]
    pub fee_rate: Option<u32>,
    /// How long the signature is waited for, 60 s to 7 days; 600 unless given.
    #[schema(minimum = 60, maximum = 604_800)]
    pub expires_in_seconds: Option<u64>,
}

/// Begin to make coins for assets
///
/// An asset lives on a coin of the colored account. This hands out a transaction that makes such coins out of the wallet's bitcoin,
/// for the wallet's keys to sign. They can carry assets once the transaction is in a block.
#[utoipa::path(post, path = "/wallet/createutxosbegin", operation_id = "walletCreateUtxosBegin", tag = "assets",
    request_body = Option<CreateUtxosBeginRequestModel>,
    responses((status = 200, description = "The PSBT to sign", body = String, example = json!(examples::PSBT))))]
pub async fn createutxosbegin(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    asked: HeaderMap,
    body: MaybePosted<CreateUtxosBeginRequestModel>,
) -> Result<Response, Problem> {
    const NUMBER: u32 = 5;
    const SIZE: Sat = Sat::literal(1_000);
    const FEE_RATE: u32 = 5;
    state.limits.begin(&wallet.id)?;
    let wanted = body.value;
    let wanted = NewCoins {
        number: wanted.num.unwrap_or(NUMBER),
        size: wanted.size.unwrap_or(SIZE),
        up_to: wanted.up_to.unwrap_or(false),
        fee_rate: wanted.fee_rate.unwrap_or(FEE_RATE),
        expires_in_seconds: wanted.expires_in_seconds,
    };
    let begun = coins::begin(&state.flows, &wallet.keys, wanted, body.idempotency).await?;
    Ok(begun::answer(begun, &asked))
}

/// End making coins for assets
///
/// Takes the signed PSBT, checks it and broadcasts it. Answers how many coins it makes. The same PSBT again answers the same.
#[utoipa::path(post, path = "/wallet/createutxosend", operation_id = "walletCreateUtxosEnd", tag = "assets",
    request_body = SendAssetEndRequestModel,
    responses((status = 200, description = "How many coins it makes", body = u32, example = json!(5))))]
pub async fn createutxosend(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    body: Posted<SendAssetEndRequestModel>,
) -> Result<Json<u32>, Problem> {
    Ok(Json(coins::end(&state.flows, &wallet.id, &body.value.signed_psbt).await?))
}

/// Base units of an asset, as numbers and as text for languages whose numbers end at 2^53.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "settled": 1_000, "future": 1_000, "spendable": 1_000,
    "settled_str": "1000", "future_str": "1000", "spendable_str": "1000",
}))]
pub struct AssetAmounts {
    /// On coins of the wallet, confirmed.
    pub settled: u64,
    /// What it will be once everything that is under way has ended well.
    pub future: u64,
    /// What a send could use now.
    pub spendable: u64,
    pub settled_str: String,
    pub future_str: String,
    pub spendable_str: String,
}

impl From<AssetBalance> for AssetAmounts {
    fn from(of: AssetBalance) -> Self {
        Self {
            settled: of.settled.base_units(),
            future: of.future.base_units(),
            spendable: of.spendable.base_units(),
            settled_str: of.settled.to_string(),
            future_str: of.future.to_string(),
            spendable_str: of.spendable.to_string(),
        }
    }
}

/// An asset that the wallet knows.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "asset_id": examples::RGB, "ticker": "GOLD", "name": "Gold", "details": null, "precision": 0,
    "issued_supply": 1_000, "issued_supply_str": "1000", "timestamp": 1_763_683_800, "added_at": 1_763_683_800,
    "balance": {
        "settled": 1_000, "future": 1_000, "spendable": 1_000,
        "settled_str": "1000", "future_str": "1000", "spendable_str": "1000",
    },
    "media": null,
}))]
pub struct AssetItem {
    pub asset_id: String,
    /// Empty for a kind of asset that has none.
    pub ticker: Option<String>,
    pub name: String,
    pub details: Option<String>,
    /// Digits behind the point that wallets show.
    pub precision: u8,
    pub issued_supply: u64,
    pub issued_supply_str: String,
    /// When it was issued: seconds since 1970.
    pub timestamp: i64,
    /// When this wallet learnt of it: seconds since 1970.
    pub added_at: i64,
    pub balance: AssetAmounts,
    /// Always empty: media are not kept here.
    pub media: Option<String>,
}

impl From<Asset> for AssetItem {
    fn from(of: Asset) -> Self {
        Self {
            asset_id: of.id,
            ticker: of.ticker,
            name: of.name,
            details: of.details,
            precision: of.precision,
            issued_supply: of.issued_supply.base_units(),
            issued_supply_str: of.issued_supply.to_string(),
            timestamp: of.issued_at,
            added_at: of.added_at,
            balance: of.balance.into(),
            media: None,
        }
    }
}

/// The assets of a wallet, by kind.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(example = json!({ "nia": [], "uda": [], "cfa": [], "ifa": [] }))]
pub struct ListAssetsResponse {
    /// Fungible, of a fixed supply.
    pub nia: Vec<AssetItem>,
    /// Always empty: single tokens are not taken here.
    pub uda: Vec<AssetItem>,
    /// Fungible, of a fixed supply, without a ticker.
    pub cfa: Vec<AssetItem>,
    /// Always empty: assets that can be inflated are not taken here.
    pub ifa: Vec<AssetItem>,
}

/// The assets of the wallet
///
/// Every asset that the wallet has issued or received, with its balance.
#[utoipa::path(post, path = "/wallet/listassets", operation_id = "walletListAssets", tag = "assets",
    responses((status = 200, description = "The assets", body = ListAssetsResponse)))]
pub async fn listassets(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
) -> Result<Json<ListAssetsResponse>, Problem> {
    let mut list = ListAssetsResponse::default();
    for asset in assets::assets(&state.flows, &wallet.keys).await? {
        let of_kind = match asset.schema {
            Schema::Nia => &mut list.nia,
            Schema::Uda => &mut list.uda,
            Schema::Cfa => &mut list.cfa,
            Schema::Ifa => &mut list.ifa,
        };
        of_kind.push(asset.into());
    }
    Ok(Json(list))
}

/// Which asset.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "asset_id": examples::RGB }))]
pub struct AssetBalanceRequestModel {
    pub asset_id: String,
}

/// What the wallet has of an asset
///
/// In the asset's smallest unit.
#[utoipa::path(post, path = "/wallet/assetbalance", operation_id = "walletAssetBalance", tag = "assets",
    request_body = AssetBalanceRequestModel,
    responses((status = 200, description = "The balance", body = AssetAmounts)))]
pub async fn assetbalance(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    body: Posted<AssetBalanceRequestModel>,
) -> Result<Json<AssetAmounts>, Problem> {
    let asset = assets::asset(&state.flows, &wallet.keys, &body.value.asset_id).await?;
    Ok(Json(asset.balance.into()))
}

/// An asset to be issued.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "ticker": "GOLD", "name": "Gold", "precision": 0, "amounts": [1_000] }))]
pub struct IssueAssetNiaRequestModel {
    /// 1 to 8 characters: capital letters and digits, a letter first.
    #[schema(min_length = 1, max_length = 8, pattern = "^[A-Z][A-Z0-9]*$")]
    pub ticker: String,
    /// 1 to 40 printable ASCII characters.
    #[schema(min_length = 1, max_length = 40, pattern = "^[ -~]+$")]
    pub name: String,
    /// Digits behind the point that wallets show; 0 unless given.
    #[schema(maximum = 18)]
    pub precision: Option<u8>,
    /// In the smallest unit. Each goes to a free coin of its own.
    #[schema(min_items = 1, max_items = 100)]
    pub amounts: Vec<AssetUnits>,
}

/// A whole number of an asset's smallest units.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(try_from = "u64")]
#[schema(value_type = u64, minimum = 1, maximum = 9_223_372_036_854_775_807_u64, example = 1_000)]
pub struct AssetUnits(Amount);

impl AssetUnits {
    #[must_use]
    pub const fn amount(self) -> Amount {
        self.0
    }
}

impl TryFrom<u64> for AssetUnits {
    type Error = String;

    fn try_from(units: u64) -> Result<Self, String> {
        Amount::from_asset_units(units).map(Self).map_err(|_| format!("must be at most {}", Amount::MAX))
    }
}

/// Issue an asset
///
/// Makes a fungible asset of a fixed supply, all of it on free coins of the wallet. No transaction is needed. An asset can't be taken
/// back: send an `Idempotency-Key`, so that a repeated call does not issue another one.
#[utoipa::path(post, path = "/wallet/issueassetnia", operation_id = "walletIssueAssetNia", tag = "assets",
    request_body = IssueAssetNiaRequestModel,
    responses((status = 200, description = "The asset", body = AssetItem)))]
pub async fn issueassetnia(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    body: Posted<IssueAssetNiaRequestModel>,
) -> Result<Json<AssetItem>, Problem> {
    state.limits.begin(&wallet.id)?;
    let wanted = body.value;
    let new = NewAsset {
        ticker: wanted.ticker,
        name: wanted.name,
        precision: wanted.precision.unwrap_or(0),
        amounts: wanted.amounts.into_iter().map(|units| units.0).collect(),
    };
    Ok(Json(issue::nia(&state.flows, &wallet.keys, new, body.idempotency).await?.into()))
}

/// An RGB invoice to be read.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "invoice": examples::RGB_INVOICE }))]
pub struct DecodeRgbInvoiceRequestModel {
    #[schema(min_length = 1, max_length = 4096)]
    pub invoice: String,
}

/// What an RGB invoice says.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "recipient_id": examples::RECIPIENT, "asset_schema": null, "asset_id": null, "network": "regtest", "assignment": null,
    "assignment_str": null, "assignment_name": null, "expiration_timestamp": null, "kind": "blind",
    "transport_endpoints": ["rpcs://gateway.example/json-rpc"],
}))]
pub struct DecodeRgbInvoiceResponse {
    /// Under this name consignment and acknowledgement are exchanged.
    pub recipient_id: String,
    pub asset_schema: Option<&'static str>,
    /// Empty: any asset.
    pub asset_id: Option<String>,
    pub network: String,
    /// How much, in the smallest unit. Empty: the payer says it.
    pub assignment: Option<u64>,
    pub assignment_str: Option<String>,
    pub assignment_name: Option<String>,
    /// Seconds since 1970.
    pub expiration_timestamp: Option<u64>,
    /// `blind`: onto a coin of the payee's; `witness`: onto a new one that the payer makes.
    pub kind: &'static str,
    pub transport_endpoints: Vec<String>,
}

impl From<RgbInvoice> for DecodeRgbInvoiceResponse {
    fn from(of: RgbInvoice) -> Self {
        Self {
            recipient_id: of.recipient,
            asset_schema: of.schema.map(schema_name),
            asset_id: of.asset,
            network: of.network.to_string(),
            assignment: of.amount.map(Amount::base_units),
            assignment_str: of.amount.map(|amount| amount.to_string()),
            assignment_name: of.assignment,
            expiration_timestamp: of.expires_at,
            kind: match of.onto {
                Onto::OwnCoin => "blind",
                Onto::NewCoin => "witness",
            },
            transport_endpoints: of.endpoints,
        }
    }
}

const fn schema_name(of: Schema) -> &'static str {
    match of {
        Schema::Nia => "Nia",
        Schema::Uda => "Uda",
        Schema::Cfa => "Cfa",
        Schema::Ifa => "Ifa",
    }
}

/// Read an RGB invoice
///
/// Says what an invoice asks for. Nothing is looked up.
#[utoipa::path(post, path = "/wallet/decodergbinvoice", operation_id = "walletDecodeRgbInvoice", tag = "assets",
    request_body = DecodeRgbInvoiceRequestModel,
    responses((status = 200, description = "What it says", body = DecodeRgbInvoiceResponse)))]
pub async fn decodergbinvoice(
    State(state): State<HttpState>,
    _wallet: Wallet<ToRead>,
    body: Posted<DecodeRgbInvoiceRequestModel>,
) -> Result<Json<DecodeRgbInvoiceResponse>, Problem> {
    Ok(Json(assets::read_invoice(&state.flows, &body.value.invoice)?.into()))
}
