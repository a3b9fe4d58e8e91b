//! `/wallet`: registering, what a wallet has, and the older pair of calls that sends bitcoin.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::begun::{self, NEXT_CURSOR};
use super::examples;
use super::wire::{BtcBalanceResponse, PageParams, SendAssetEndRequestModel, Transaction};
use crate::flows::send::BeginSend;
use crate::flows::sync::{self, Reached};
use crate::flows::values::{Account, Allocation, Coin, Door};
use crate::flows::{address, assets, balance, fees, history, register, send};
use crate::http::HttpState;
use crate::http::auth::{Registrant, ToRead, ToReceive, ToSend, Wallet};
use crate::http::extract::{Params, Posted, limit, read_cursor};
use crate::http::problem::Problem;
use crate::money::Sat;

/// A wallet that is registered now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "address": examples::ADDRESS,
    "btc_balance": {
        "vanilla": { "settled": 0, "future": 0, "spendable": 0 },
        "colored": { "settled": 0, "future": 0, "spendable": 0 },
        "offchain_balance": null, "scanning": true,
    },
}))]
pub struct RegisterResponse {
    /// An address to receive bitcoin on.
    pub address: String,
    pub btc_balance: BtcBalanceResponse,
}

/// Register a wallet
///
/// Makes a wallet known by its two public keys and its fingerprint, and starts a search for coins that it has already.
/// Doing it again changes nothing and answers the same. With API keys, the wallet is bound to the key that registers it.
#[utoipa::path(post, path = "/wallet/register", operation_id = "walletRegister", tag = "wallet",
    responses((status = 200, description = "The wallet is registered", body = RegisterResponse)))]
pub async fn register(State(state): State<HttpState>, who: Registrant) -> Result<Json<RegisterResponse>, Problem> {
    let registered = register::register(&state.flows, &who.keys, who.key).await?;
    let btc_balance = BtcBalanceResponse::onchain(registered.balances);
    Ok(Json(RegisterResponse { address: registered.address, btc_balance }))
}

/// The current address
///
/// An unused address of the wallet: the same one until it is paid to or expires. For one address per customer use
/// POST /lightning/onchain-receive.
#[utoipa::path(post, path = "/wallet/address", operation_id = "walletAddress", tag = "wallet",
    responses((status = 200, description = "The address", body = String, example = json!(examples::ADDRESS))))]
pub async fn address(State(state): State<HttpState>, wallet: Wallet<ToReceive>) -> Result<Json<String>, Problem> {
    Ok(Json(address::current(&state.flows, &wallet.keys).await?.machine.address))
}

/// The bitcoin of the wallet
///
/// What the wallet has on-chain, by account: confirmed, expected, and usable now.
#[utoipa::path(post, path = "/wallet/btcbalance", operation_id = "walletBtcBalance", tag = "wallet",
    responses((status = 200, description = "The balances", body = BtcBalanceResponse)))]
pub async fn btcbalance(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
) -> Result<Json<BtcBalanceResponse>, Problem> {
    Ok(Json(BtcBalanceResponse::onchain(balance::balances(&state.flows, &wallet.id).await?)))
}

/// A coin of the wallet, and the assets on it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "utxo": {
        "outpoint": { "txid": examples::TXID, "vout": 0 }, "btc_amount": 100_000, "colorable": false, "exists": true,
        "confirmed": true, "leased_by": null,
    },
    "rgb_allocations": [],
}))]
pub struct Unspent {
    pub utxo: Utxo,
    /// What is on it; empty where the gateway has no RGB engine.
    pub rgb_allocations: Vec<RgbAllocation>,
}

/// An unspent output.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "outpoint": { "txid": examples::TXID, "vout": 0 }, "btc_amount": 100_000, "colorable": false, "exists": true,
    "confirmed": true, "leased_by": null,
}))]
pub struct Utxo {
    pub outpoint: Outpoint,
    #[schema(value_type = u64)]
    pub btc_amount: Sat,
    /// It belongs to the account whose coins may carry assets.
    pub colorable: bool,
    /// Its transaction is in a block or in the mempool.
    pub exists: bool,
    /// Its transaction is in a block.
    pub confirmed: bool,
    /// The request that has set it aside.
    pub leased_by: Option<String>,
}

/// Where a coin was made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "txid": examples::TXID, "vout": 0 }))]
pub struct Outpoint {
    pub txid: String,
    pub vout: u32,
}

/// An asset on a coin.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "asset_id": examples::RGB, "amount": 10, "amount_str": "10", "settled": true }))]
pub struct RgbAllocation {
    pub asset_id: Option<String>,
    pub amount: u64,
    pub amount_str: String,
    pub settled: bool,
}

impl From<&Coin> for Unspent {
    fn from(coin: &Coin) -> Self {
        let outpoint = Outpoint { txid: coin.outpoint.txid.to_string(), vout: coin.outpoint.vout };
        let utxo = Utxo {
            outpoint,
            btc_amount: coin.amount,
            colorable: coin.account == Account::Colored,
            exists: coin.height.is_some() || coin.in_mempool,
            confirmed: coin.height.is_some(),
            leased_by: coin.leased_by.map(|request| request.to_string()),
        };
        Self { utxo, rgb_allocations: Vec::new() }
    }
}

impl From<&Allocation> for RgbAllocation {
    fn from(of: &Allocation) -> Self {
        let amount = of.amount;
        Self {
            asset_id: of.asset.clone(),
            amount: amount.base_units(),
            amount_str: amount.to_string(),
            settled: of.settled,
        }
    }
}

/// The unspent coins
///
/// Every unspent coin of the wallet, those that wait for a block or are set aside for a request included. At most 500 a
/// page; the header `Sluice-Next-Cursor` says where the next one begins.
#[utoipa::path(post, path = "/wallet/listunspents", operation_id = "walletListUnspents", tag = "wallet",
    params(PageParams),
    responses((status = 200, description = "The coins", body = Vec<Unspent>)))]
pub async fn listunspents(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    Params(page): Params<PageParams>,
) -> Result<Response, Problem> {
    let most = limit(page.limit, history::PAGE_MAX)? as usize;
    // The list is ordered by the text of the outpoint: that is what a cursor compares.
    let after = page.cursor.unwrap_or_default();
    let mut coins: Vec<(String, Coin)> = balance::coins(&state.flows, &wallet.id)
        .await?
        .into_iter()
        .map(|coin| (coin.outpoint.to_string(), coin))
        .filter(|(outpoint, _)| *outpoint > after)
        .collect();
    coins.sort_by(|(a, _), (b, _)| a.cmp(b));
    let more = coins.len() > most;
    coins.truncate(most);
    let next = coins.last().filter(|_| more).map(|(outpoint, _)| outpoint.clone());
    let on_coins = assets::allocations(&state.flows, &wallet.keys).await?;
    let shown = |coin: &Coin| {
        let there = on_coins.get(&coin.outpoint).into_iter().flatten();
        Unspent { rgb_allocations: there.map(RgbAllocation::from).collect(), ..Unspent::from(coin) }
    };
    let body: Vec<Unspent> = coins.iter().map(|(_, coin)| shown(coin)).collect();
    Ok(page_answer(next, Json(body)))
}

/// The transactions
///
/// What touched the wallet, newest first. At most 500 a page; the header `Sluice-Next-Cursor` says where the next one begins.
#[utoipa::path(post, path = "/wallet/listtransactions", operation_id = "walletListTransactions", tag = "wallet",
    params(PageParams),
    responses((status = 200, description = "The transactions", body = Vec<Transaction>)))]
pub async fn listtransactions(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    Params(page): Params<PageParams>,
) -> Result<Response, Problem> {
    let most = limit(page.limit, history::PAGE_MAX)?;
    let (transactions, next) = transactions(&state, &wallet, page.cursor.as_deref(), most).await?;
    Ok(page_answer(next, Json(transactions)))
}

/// A page of transactions, and where the next one begins.
pub(super) async fn transactions(
    state: &HttpState,
    wallet: &Wallet<ToRead>,
    cursor: Option<&str>,
    most: u32,
) -> Result<(Vec<Transaction>, Option<String>), Problem> {
    let before = read_cursor(cursor)?;
    let rows = history::transactions(&state.flows, &wallet.id, before, most).await?;
    let next = super::next_cursor(&rows, most, |row| (row.first_seen_at, row.txid.to_string()));
    Ok((rows.iter().map(Transaction::from).collect(), next))
}

pub(super) fn page_answer(next: Option<String>, body: impl IntoResponse) -> Response {
    let mut headers = HeaderMap::new();
    if let Some(value) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        headers.insert(NEXT_CURSOR, value);
    }
    (headers, body).into_response()
}

/// A payment to a bitcoin address.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "address": examples::ADDRESS, "amount": 50_000, "fee_rate": 3, "skip_sync": false }))]
pub struct SendBtcBeginRequestModel {
    pub address: String,
    /// Satoshis that the address gets.
    #[schema(value_type = u64, minimum = 1, maximum = 2_100_000_000_000_000_u64)]
    pub amount: Sat,
    /// Whole satoshis per virtual byte; 3 unless given.
    #[schema(minimum = 1)]
    pub fee_rate: Option<u32>,
    /// Accepted for older clients. The chain is followed all the time, so nothing depends on it.
    pub skip_sync: Option<bool>,
    /// How long the signature is waited for, 60 s to 7 days; 600 unless given.
    #[schema(minimum = 60, maximum = 604_800)]
    pub expires_in_seconds: Option<u64>,
    /// The caller's own word for it.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    pub reference: Option<String>,
}

/// Begin a payment
///
/// Chooses coins of the wallet, sets them aside, and hands out the transaction as a PSBT for the wallet's keys to sign.
#[utoipa::path(post, path = "/wallet/sendbtcbegin", operation_id = "walletSendBtcBegin", tag = "wallet",
    request_body = SendBtcBeginRequestModel,
    responses((status = 200, description = "The PSBT to sign", body = String, example = json!(examples::PSBT))))]
pub async fn sendbtcbegin(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    asked: HeaderMap,
    body: Posted<SendBtcBeginRequestModel>,
) -> Result<Response, Problem> {
    const FEE_RATE: u32 = 3;
    state.limits.begin(&wallet.id)?;
    let wanted = body.value;
    let begin = BeginSend {
        to: wanted.address,
        amount: wanted.amount,
        fee_rate: wanted.fee_rate.unwrap_or(FEE_RATE),
        deduct_fee: false,
        expires_in_seconds: wanted.expires_in_seconds,
        reference: super::reference(wanted.reference)?,
        door: Door::WalletSend,
        min_confirmations: None,
        to_field: "address",
        amount_field: "amount",
    };
    let begun = send::begin(&state.flows, &wallet.keys, begin, body.idempotency).await?;
    Ok(begun::answer(begun, &asked))
}

/// End a payment
///
/// Takes the signed PSBT, checks that it is the one that was handed out and that every signature is valid, and broadcasts it.
/// The same PSBT again answers the same.
#[utoipa::path(post, path = "/wallet/sendbtcend", operation_id = "walletSendBtcEnd", tag = "wallet",
    request_body = SendAssetEndRequestModel,
    responses((status = 200, description = "The transaction id", body = String, example = json!(examples::TXID))))]
pub async fn sendbtcend(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    body: Posted<SendAssetEndRequestModel>,
) -> Result<Json<String>, Problem> {
    let sent = send::end(&state.flows, &wallet.id, Door::WalletSend, &body.value.signed_psbt).await?;
    let version = sent.current_version().map(|version| version.unsigned_txid);
    let txid = sent.request.machine.txid().or(version);
    Ok(Json(txid.map(|txid| txid.to_string()).unwrap_or_default()))
}

/// How soon a transaction is to confirm.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "blocks": 6 }))]
pub struct FeeEstimationRequestModel {
    /// Blocks until it is to be in one, 1 to 1008.
    #[schema(minimum = 1, maximum = 1008)]
    pub blocks: u16,
}

/// A fee rate for a target
///
/// What the node estimates for confirmation within so many blocks, within the bounds that the operator allows.
#[utoipa::path(post, path = "/wallet/get_fee_estimation", operation_id = "walletFeeEstimation", tag = "wallet",
    request_body = FeeEstimationRequestModel,
    responses((status = 200, description = "Satoshis per virtual byte", body = f64, example = json!(5.0))))]
pub async fn get_fee_estimation(
    State(state): State<HttpState>,
    _wallet: Wallet<ToRead>,
    body: Posted<FeeEstimationRequestModel>,
) -> Result<Json<f64>, Problem> {
    Ok(Json(fees::estimate(&state.flows, body.value.blocks).await?.sat_per_vb()))
}

/// What is known of transfers that changed. Always empty: listtransfers says how they stand.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({}))]
pub struct RefreshResponse {}

/// Wait for the chain
///
/// Returns once the gateway has seen every block that the node had when the call came in, and the wallet's assets were looked at.
#[utoipa::path(post, path = "/wallet/refresh", operation_id = "walletRefresh", tag = "wallet",
    responses((status = 200, description = "Nothing to report", body = RefreshResponse)))]
pub async fn refresh(State(state): State<HttpState>, wallet: Wallet<ToRead>) -> Result<Json<RefreshResponse>, Problem> {
    sync::wait_for_tip(&state.flows).await?;
    assets::refresh(&state.flows, &wallet.id).await?;
    Ok(Json(RefreshResponse {}))
}

/// Which block was reached.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "message": "synced to block 812 (0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206)",
}))]
pub struct SyncResponse {
    /// Names the block's height and hash: the node's tip, or what was followed since. After a reorganisation the node may have fewer blocks
    /// than before for a while; then it names also the last block that still counts here.
    pub message: String,
}

/// Wait for the chain, and say where it is
///
/// Returns once the gateway has seen every block that the node had when the call came in.
#[utoipa::path(post, path = "/wallet/sync", operation_id = "walletSync", tag = "wallet",
    responses((status = 200, description = "The block that was reached", body = SyncResponse)))]
pub async fn sync(State(state): State<HttpState>, _wallet: Wallet<ToRead>) -> Result<Json<SyncResponse>, Problem> {
    let Reached { at, shorter } = sync::wait_for_tip(&state.flows).await?;
    let message = match shorter {
        None => format!("synced to block {} ({})", at.height, at.hash),
        Some(tip) => format!(
            "synced to block {} ({}), the node's tip; it has given up the blocks above, which count here up to block {} ({}) until it has \
             others in their place",
            tip.height, tip.hash, at.height, at.hash
        ),
    };
    Ok(Json(SyncResponse { message }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{RequestId, WalletId};

    #[test]
    fn a_coin_says_whether_it_is_there_and_who_has_it() {
        let request = RequestId::fresh();
        let coin = Coin {
            outpoint: bitcoin::OutPoint::null(),
            wallet: WalletId::of_triple("a", "b", "c"),
            account: Account::Colored,
            index: 0,
            script: bitcoin::ScriptBuf::new(),
            amount: Sat::literal(7),
            own: true,
            coinbase: false,
            live: true,
            in_mempool: false,
            height: None,
            spent_by: None,
            spent_height: None,
            leased_by: Some(request),
        };
        let offered = Unspent::from(&coin).utxo;
        assert!(!offered.exists && !offered.confirmed && offered.colorable);
        assert_eq!(offered.leased_by, Some(request.to_string()));
        let mined = Unspent::from(&Coin { height: Some(5), account: Account::Vanilla, ..coin }).utxo;
        assert!(mined.exists && mined.confirmed && !mined.colorable);
    }
}
