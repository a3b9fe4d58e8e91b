//! What a wallet has, on every rail.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::examples;
use super::wire::BtcBalanceResponse;
use crate::flows::values::Asset;
use crate::flows::{assets, balance};
use crate::http::HttpState;
use crate::http::auth::{ToRead, Wallet};
use crate::http::problem::Problem;

/// What a wallet has.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "balance": {
        "vanilla": { "settled": 150_000, "future": 170_000, "spendable": 120_000 },
        "colored": { "settled": 0, "future": 0, "spendable": 0 },
        "offchain_balance": {
            "total": 25_000, "details": [], "total_msat": 25_000_400, "held_msat": 5_050_000, "available_msat": 19_950_400,
            "debt_msat": 0,
        },
        "scanning": false,
    },
    "asset_balances": [], "asset_balances_known": true,
}))]
pub struct WalletBalanceResponse {
    pub balance: BtcBalanceResponse,
    /// Empty where the gateway has no RGB engine.
    pub asset_balances: Vec<AssetBalance>,
    /// False while the RGB engine can't be asked: the list is empty then, whatever the wallet has.
    pub asset_balances_known: bool,
}

/// What a wallet has of an asset.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "asset_id": examples::RGB, "ticker": "USDT", "precision": 6,
    "balance": { "settled": 0, "future": 0, "spendable": 0, "offchain_outbound": null,
    "settled_str": "0", "future_str": "0", "spendable_str": "0", "offchain_outbound_str": null, },
}))]
pub struct AssetBalance {
    pub asset_id: String,
    pub ticker: Option<String>,
    pub precision: u8,
    pub balance: AssetBalanceDetails,
}

/// Base units of an asset.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "settled": 0, "future": 0, "spendable": 0, "offchain_outbound": null,
    "settled_str": "0", "future_str": "0", "spendable_str": "0", "offchain_outbound_str": null, }))]
pub struct AssetBalanceDetails {
    pub settled: u64,
    pub future: u64,
    pub spendable: u64,
    pub offchain_outbound: Option<u64>,
    pub settled_str: String,
    pub future_str: String,
    pub spendable_str: String,
    pub offchain_outbound_str: Option<String>,
}

impl From<Asset> for AssetBalance {
    fn from(of: Asset) -> Self {
        let balance = AssetBalanceDetails {
            settled: of.balance.settled.base_units(),
            future: of.balance.future.base_units(),
            spendable: of.balance.spendable.base_units(),
            offchain_outbound: None,
            settled_str: of.balance.settled.to_string(),
            future_str: of.balance.future.to_string(),
            spendable_str: of.balance.spendable.to_string(),
            offchain_outbound_str: None,
        };
        Self { asset_id: of.id, ticker: of.ticker, precision: of.precision, balance }
    }
}

/// All balances
///
/// What the wallet has on-chain, what the operator owes it off-chain, and its assets where the gateway has an RGB engine.
#[utoipa::path(get, path = "/lightning/balance", operation_id = "balance", tag = "history",
    responses((status = 200, description = "The balances", body = WalletBalanceResponse)))]
pub async fn balance(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
) -> Result<Json<WalletBalanceResponse>, Problem> {
    let balances = balance::balances(&state.flows, &wallet.id).await?;
    let offchain = balance::offchain(&state.flows, &wallet.id).await?;
    let balance = BtcBalanceResponse::both_rails(balances, offchain);
    let assets = assets::for_balance(&state.flows, &wallet.keys).await?;
    let asset_balances_known = assets.is_some();
    let asset_balances = assets.into_iter().flatten().map(AssetBalance::from).collect();
    Ok(Json(WalletBalanceResponse { balance, asset_balances, asset_balances_known }))
}
