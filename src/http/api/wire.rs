//! Shapes that several groups of endpoints share.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::flows::Code;
use crate::flows::assets::send::{Fields, NewPayee};
use crate::flows::balance::{self, Balances, Offchain};
use crate::flows::values::{Door, WalletTx};
use crate::http::problem::Problem;
use crate::money::{Amount, Sat};

/// What an account has, in satoshis.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "settled": 150_000, "future": 170_000, "spendable": 120_000 }))]
pub struct Balance {
    /// In blocks.
    #[schema(value_type = u64)]
    pub settled: Sat,
    /// What it will be once everything that waits has confirmed.
    #[schema(value_type = u64)]
    pub future: Sat,
    /// What a begin could use now.
    #[schema(value_type = u64)]
    pub spendable: Sat,
}

impl From<balance::Balance> for Balance {
    fn from(balance: balance::Balance) -> Self {
        let balance::Balance { settled, future, spendable } = balance;
        Self { settled, future, spendable }
    }
}

/// The off-chain balance: what the operator owes the wallet.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "total": 25_000, "details": [], "total_msat": 25_000_400, "held_msat": 5_050_000, "available_msat": 19_950_400,
    "debt_msat": 0,
}))]
pub struct OffchainBalance {
    /// Satoshis, holds included, rounded down.
    pub total: u64,
    /// Always empty: nothing off-chain expires here.
    pub details: Vec<OffchainBalanceDetail>,
    /// The same as `total`, exactly.
    pub total_msat: u64,
    /// What payments that were begun have set aside.
    pub held_msat: u64,
    /// What a payment could use now, its fee included.
    pub available_msat: u64,
    /// What the wallet owes since a reorganisation took back coins that it had spent. What comes in pays it first.
    pub debt_msat: u64,
}

impl From<Offchain> for OffchainBalance {
    fn from(balance: Offchain) -> Self {
        Self {
            total: balance.total.sat_floor(),
            details: Vec::new(),
            total_msat: balance.total.base_units(),
            held_msat: balance.held.base_units(),
            available_msat: balance.available.base_units(),
            debt_msat: balance.debt.base_units(),
        }
    }
}

/// A part of an off-chain balance with a time limit. This gateway has none.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "expiry_time": "2026-01-01T00:00:00Z", "amount": 0 }))]
pub struct OffchainBalanceDetail {
    pub expiry_time: String,
    pub amount: u64,
}

/// The bitcoin of a wallet, by account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "vanilla": { "settled": 150_000, "future": 170_000, "spendable": 120_000 },
    "colored": { "settled": 0, "future": 0, "spendable": 0 },
    "offchain_balance": null, "scanning": false,
}))]
pub struct BtcBalanceResponse {
    pub vanilla: Balance,
    /// Coins that carry RGB assets, counted as bitcoin.
    pub colored: Balance,
    /// Only where the endpoint is about both rails.
    pub offchain_balance: Option<OffchainBalance>,
    /// The chain is still being searched for coins from before the registration: balances may grow.
    pub scanning: bool,
}

impl BtcBalanceResponse {
    #[must_use]
    pub fn onchain(balances: Balances) -> Self {
        let Balances { vanilla, colored, scanning } = balances;
        Self { vanilla: vanilla.into(), colored: colored.into(), offchain_balance: None, scanning }
    }

    /// With the other rail beside it.
    #[must_use]
    pub fn both_rails(balances: Balances, offchain: Offchain) -> Self {
        Self { offchain_balance: Some(offchain.into()), ..Self::onchain(balances) }
    }
}

/// An amount of an RGB asset, as answers tell it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "asset_id": "rgb:2dkSTbr-jFhznbPmo-TQafzswCN-av4gTsJjX-ttx6CNou5-M98k8Zd", "amount": 10, "amount_str": "10",
}))]
pub struct AssetAmount {
    pub asset_id: String,
    /// Base units.
    pub amount: u64,
    /// The same as text: readers that keep numbers as floating-point ones lose digits of large amounts.
    pub amount_str: String,
}

impl AssetAmount {
    #[must_use]
    pub fn new(asset_id: String, amount: Amount) -> Self {
        Self { asset_id, amount: amount.base_units(), amount_str: amount.to_string() }
    }
}

/// An amount of an RGB asset, as calls ask for it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({ "asset_id": "rgb:2dkSTbr-jFhznbPmo-TQafzswCN-av4gTsJjX-ttx6CNou5-M98k8Zd", "amount": 10 }))]
pub struct LightningAsset {
    pub asset_id: String,
    /// Base units.
    pub amount: u64,
}

/// Only from an object: a derived reading would take an array, too, by position, which no document says.
impl<'de> Deserialize<'de> for LightningAsset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            asset_id: String,
            amount: u64,
        }
        struct FromObject;
        impl<'de> Visitor<'de> for FromObject {
            type Value = LightningAsset;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LightningAsset, A::Error> {
                let Fields { asset_id, amount } = Fields::deserialize(MapAccessDeserializer::new(map))?;
                Ok(LightningAsset { asset_id, amount })
            }
        }
        deserializer.deserialize_map(FromObject)
    }
}

/// A payee of an asset, as calls name it that pay bitcoin, too.
///
/// # Errors
/// When the amount is more than any wallet counts.
pub(super) fn asset_payee(
    invoice: String,
    asset: Option<LightningAsset>,
    witness: Option<Sat>,
) -> Result<NewPayee, Problem> {
    let amount = asset.as_ref().map(|asset| Amount::from_asset_units(asset.amount)).transpose();
    let amount = amount.map_err(|_| {
        let detail = format!("asset.amount: at most {}", Amount::MAX);
        Problem::field(Code::InvalidRequest, "asset.amount", detail)
    })?;
    Ok(NewPayee { invoice, asset: asset.map(|asset| asset.asset_id), amount, witness })
}

/// How [`asset_payee`] is written, where it can be wrong.
pub(super) const fn asset_fields(invoice: &'static str) -> Fields {
    Fields { invoice, asset: "asset.asset_id", amount: "asset.amount", witness: "amount_sats" }
}

/// The signed form of what a begin handed out. Nothing else is needed to find the request: the PSBT names it.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "signed_psbt": super::examples::PSBT }))]
pub struct SendAssetEndRequestModel {
    /// Version 0, base64, every own input signed.
    pub signed_psbt: String,
}

/// A transaction as this wallet sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "transaction_type": 3, "txid": super::examples::TXID, "received": 41_200, "sent": 100_000, "fee": 420,
    "confirmation_time": { "height": 812, "timestamp": 1_763_683_200 },
}))]
pub struct Transaction {
    /// 0 a send of assets, 2 coins made for assets, 3 everything else; 1 is never said.
    pub transaction_type: u8,
    pub txid: String,
    /// Satoshis that it pays to scripts of this wallet, change included.
    #[schema(value_type = u64)]
    pub received: Sat,
    /// Satoshis of this wallet that it spends, change included.
    #[schema(value_type = u64)]
    pub sent: Sat,
    /// Satoshis; 0 where it can't be known, which is when others paid for the transaction too.
    #[schema(value_type = u64)]
    pub fee: Sat,
    /// Empty while it waits for a block.
    pub confirmation_time: Option<ConfirmationTime>,
}

/// The block of a transaction.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "height": 812, "timestamp": 1_763_683_200 }))]
pub struct ConfirmationTime {
    pub height: u32,
    /// The time that the block says, in unix seconds.
    pub timestamp: i64,
}

fn transaction_type(tx: &WalletTx) -> u8 {
    const RGB_SEND: u8 = 0;
    const CREATE_UTXOS: u8 = 2;
    const USER: u8 = 3;
    match &tx.send {
        Some(send) if send.terms.assets.is_some() => RGB_SEND,
        Some(send) if send.terms.door == Door::AssetCoins => CREATE_UTXOS,
        Some(_) | None => USER,
    }
}

impl From<&WalletTx> for Transaction {
    fn from(tx: &WalletTx) -> Self {
        Self {
            transaction_type: transaction_type(tx),
            txid: tx.txid.to_string(),
            received: tx.received,
            sent: tx.sent,
            fee: tx.fee.unwrap_or_default(),
            confirmation_time: tx
                .height
                .map(|height| ConfirmationTime { height, timestamp: tx.mined_at.unwrap_or_default() }),
        }
    }
}

/// What a list is narrowed to, and where its page begins.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// How many to answer, 1 to 500; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Only those in this state; empty is any.
    pub state: Option<String>,
    /// Only those with this reference.
    pub reference: Option<String>,
    /// Only those created at or after this time, in unix seconds.
    pub since: Option<i64>,
    /// Only those created before this time, in unix seconds.
    pub until: Option<i64>,
}

/// Where a page of a list begins.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// How many to answer, 1 to 500.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}
