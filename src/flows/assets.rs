//! RGB assets: what a wallet has of them, and the engine's view of the chain brought up to the gateway's.

pub mod accept;
pub mod coins;
pub mod deliver;
pub mod export;
pub mod give_up;
pub mod issue;
pub mod learn;
mod look_back;
mod mirror;
pub mod pockets;
pub mod receive;
pub mod send;
mod turn;

use std::collections::HashMap;
use std::sync::Arc;

use bitcoin::OutPoint;

use super::{AssetSide, Code, Error, Flows};
use crate::domain::wallet::{Account, WalletKeys};
use crate::ids::WalletId;
use crate::ports::assets::{Allocation, Asset, AssetEngine, ColoredCoin, RgbInvoice};
use crate::store::asset_transfers::{self, TransferRow};
use crate::store::{chain, wallets};

/// Longer is no invoice that anybody writes.
const INVOICE_MAX: usize = 4_096;

pub(super) use give_up::keys;

/// What there is for assets, where there are any.
fn side(flows: &Flows) -> Result<&AssetSide, Error> {
    let none = || Error::refused(Code::AssetsUnavailable, "this gateway has no RGB engine");
    flows.asset_side().ok_or_else(none)
}

/// The engine, where there is one.
fn engine(flows: &Flows) -> Result<&Arc<dyn AssetEngine>, Error> {
    Ok(&side(flows)?.engine)
}

/// The engine, which knows every coin of the wallet that is in a block.
///
/// It is told of them when something is done with them, and not when they are made: what it knows is read back from it, so nothing is
/// forgotten when a process dies in between. A coin that only waits for its block is not told: an asset on it would be lost with it.
async fn engine_with_coins<'a>(flows: &'a Flows, keys: &WalletKeys) -> Result<&'a Arc<dyn AssetEngine>, Error> {
    learn::now(flows, keys).await?;
    engine(flows)
}

/// The engine for a call that only reads: it answers from what it knows, and no network is waited for.
async fn engine_to_read<'a>(flows: &'a Flows, keys: &WalletKeys) -> Result<&'a Arc<dyn AssetEngine>, Error> {
    learn::later(flows, keys).await?;
    engine(flows)
}

/// Refuses while the engine knows a free coin that is in no block, or that a send under way pays its fee with, which the engine does not
/// set aside: it may choose any of them, and an asset on a coin that is replaced or spent is lost with it.
async fn require_coins_in_blocks(flows: &Flows, keys: &WalletKeys, engine: &dyn AssetEngine) -> Result<(), Error> {
    let known = engine.coins(keys).await?;
    let free: Vec<OutPoint> =
        known.iter().filter(|coin| coin.allocations.is_empty()).map(|coin| coin.outpoint).collect();
    require_not_spent(flows, &free).await?;
    let mut conn = flows.store().read().await?;
    let in_blocks =
        chain::coins_among(&mut conn, &free).await?.into_iter().filter(|coin| coin.height.is_some()).count();
    if in_blocks == free.len() {
        return Ok(());
    }
    let waiting = free.len() - in_blocks;
    Err(Error::refused(
        Code::CoinsUnconfirmed,
        format!(
            "{waiting} coins that could carry an asset are in no block yet; an asset on one that is replaced would be lost"
        ),
    ))
}

/// Refuses when a transaction that is out, or may go out, spends one of these coins.
async fn require_not_spent(flows: &Flows, coins: &[OutPoint]) -> Result<(), Error> {
    let mut conn = flows.store().read().await?;
    let coins = chain::coins_among(&mut conn, coins).await?;
    if coins.iter().all(|coin| coin.leased_by.is_none() && coin.spent_by.is_none()) {
        return Ok(());
    }
    let detail = "a coin that could carry an asset pays the fee of a send that is under way, and an asset on it would be lost: \
                  end that send, or wait until it has expired or is in a block";
    Err(Error::refused(Code::CoinsUnconfirmed, detail))
}

/// # Errors
/// When there is no engine here but there was one, or it can't answer. Where there was never any, nobody has assets.
pub async fn assets(flows: &Flows, keys: &WalletKeys) -> Result<Vec<Asset>, Error> {
    if flows.asset_engine().is_none() && !flows.store().has_asset_folder().await? {
        return Ok(Vec::new());
    }
    Ok(engine_to_read(flows, keys).await?.assets(keys).await?)
}

/// The asset with this id.
///
/// # Errors
/// When the wallet has never had any of it.
pub async fn asset(flows: &Flows, keys: &WalletKeys, id: &str) -> Result<Asset, Error> {
    require_engine(flows)?;
    let known = assets(flows, keys).await?.into_iter().find(|asset| asset.id == id);
    known.ok_or_else(|| Error::Field {
        code: Code::AssetUnknown,
        field: "asset_id",
        reason: "this wallet has never had any of this asset".to_owned(),
    })
}

/// # Errors
/// When there is no engine.
pub fn require_engine(flows: &Flows) -> Result<(), Error> {
    side(flows).map(drop)
}

/// A page of a wallet's transfers, newest first: of one asset, or of all. What was transferred is known without an engine.
///
/// # Errors
/// When the store can't be used.
pub async fn transfers(
    flows: &Flows,
    wallet: &WalletId,
    asset: Option<&str>,
    before: Option<i32>,
    limit: u32,
) -> Result<Vec<TransferRow>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(asset_transfers::page(&mut conn, wallet, asset, before, limit).await?)
}

/// Has the engine look at the chain for a wallet, where something waits for a block.
///
/// # Errors
/// When the engine or the store can't be used.
pub async fn refresh(flows: &Flows, wallet: &WalletId) -> Result<(), Error> {
    if flows.asset_engine().is_none() {
        return Ok(());
    }
    let mut conn = flows.store().read().await?;
    let waits = asset_transfers::is_waiting(&mut conn, wallet).await?;
    drop(conn);
    if waits { accept::refresh(flows, wallet).await } else { Ok(()) }
}

/// Whether there may be assets: most wallets never have any, and the engine need not open a folder to tell.
async fn may_have_some(flows: &Flows, wallet: &WalletId) -> Result<bool, Error> {
    if flows.asset_engine().is_none() {
        return Ok(false);
    }
    let mut conn = flows.store().read().await?;
    // A script was given away for one, or is known to have been paid.
    Ok(wallets::keychain(&mut conn, wallet, Account::Colored).await?.next_index > 0)
}

/// The assets of a wallet for its balance: none where there is no engine. Nothing when the engine can't tell now: what a wallet has in
/// bitcoin is told all the same.
///
/// # Errors
/// When the store can't be used.
pub async fn for_balance(flows: &Flows, keys: &WalletKeys) -> Result<Option<Vec<Asset>>, Error> {
    if !may_have_some(flows, &keys.id()).await? {
        return Ok(Some(Vec::new()));
    }
    match assets(flows, keys).await {
        Err(error) if error.code() == Code::AssetsNotReady => {
            tracing::warn!(wallet = %keys.id(), %error, "a balance is told without its assets");
            Ok(None)
        }
        told => told.map(Some),
    }
}

/// What is on the coins of a wallet: nothing where there is no engine.
///
/// # Errors
/// When the engine can't answer.
pub async fn allocations(flows: &Flows, keys: &WalletKeys) -> Result<HashMap<OutPoint, Vec<Allocation>>, Error> {
    if !may_have_some(flows, &keys.id()).await? {
        return Ok(HashMap::new());
    }
    let coins: Vec<ColoredCoin> = engine_to_read(flows, keys).await?.coins(keys).await?;
    Ok(coins.into_iter().map(|coin| (coin.outpoint, coin.allocations)).collect())
}

/// What an invoice says.
///
/// # Errors
/// When there is no engine, or the text is no invoice.
pub fn read_invoice(flows: &Flows, text: &str) -> Result<RgbInvoice, Error> {
    if !(1..=INVOICE_MAX).contains(&text.len()) {
        let reason = format!("1 to {INVOICE_MAX} characters");
        return Err(Error::Field { code: Code::InvalidInvoice, field: "invoice", reason });
    }
    Ok(engine(flows)?.read_invoice(text)?)
}
