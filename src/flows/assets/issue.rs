//! Issuing an asset. The engine makes one for each time that it is asked, so the order is written first and never asked for twice.

use async_trait::async_trait;

use super::{engine_with_coins, mirror, require_coins_in_blocks, turn};
use crate::crash;
use crate::domain::wallet::WalletKeys;
use crate::flows::{Code, Error, Flows, Idempotency, address};
use crate::ids::RequestId;
use crate::money::Amount;
use crate::ports::assets::{Asset, AssetEngine, AssetError, NewAsset};
use crate::store::asset_issues::{self, End, Order, Terms};
use crate::store::idempotency::{self, Remembered};
use crate::store::{StoreError, Tx, Write};

/// Issues an asset of a fixed supply onto coins of the wallet's.
///
/// # Errors
/// When the terms are not allowed, or no coin is free.
pub async fn nia(
    flows: &Flows,
    keys: &WalletKeys,
    new: NewAsset,
    idempotency: Option<Idempotency>,
) -> Result<Asset, Error> {
    check(&new)?;
    let (flows, keys) = (flows.clone(), keys.clone());
    turn::to_the_end(async move { nia_to_the_end(&flows, &keys, new, idempotency).await }).await
}

async fn nia_to_the_end(
    flows: &Flows,
    keys: &WalletKeys,
    new: NewAsset,
    idempotency: Option<Idempotency>,
) -> Result<Asset, Error> {
    let engine = engine_with_coins(flows, keys).await?;
    let lock = flows.queue_up(&keys.id())?;
    let _one_at_a_time = lock.lock().await;
    settle_what_was_begun(flows, keys, engine.as_ref()).await?;
    let id = match &idempotency {
        Some(key) => RequestId::from_idempotency_key(&keys.id(), &key.key),
        None => RequestId::fresh(),
    };
    if let Some(asset) = issued_before(flows, keys, idempotency.as_ref(), id).await? {
        return Ok(asset);
    }
    require_coins_in_blocks(flows, keys, engine.as_ref()).await?;
    let order = Order {
        id,
        wallet: keys.id(),
        terms: terms(&new),
        known: engine.assets(keys).await?.into_iter().map(|asset| asset.id).collect(),
        end: None,
    };
    flows.store().write(Begin { order, idempotency }).await?;
    crash::point("issue.committed");
    match engine.issue(keys, new).await {
        Ok(asset) => {
            crash::point("issue.done");
            flows.store().write(Finish { id, end: End::Issued(asset.id.clone()) }).await?;
            if let Err(error) = mirror::copy(flows, keys, engine).await {
                // It is issued, and who is told otherwise issues another one. The list has it with the next call.
                tracing::warn!(%error, asset = asset.id, "the list of transfers lacks an asset that was issued");
            }
            Ok(asset)
        }
        Err(AssetError::Refused(refusal)) => {
            flows.store().write(Finish { id, end: End::Void }).await?;
            Err(AssetError::Refused(refusal).into())
        }
        // Nobody knows: the next call looks.
        Err(unknown) => Err(unknown.into()),
    }
}

fn terms(new: &NewAsset) -> Terms {
    Terms {
        ticker: new.ticker.clone(),
        name: new.name.clone(),
        precision: new.precision,
        amounts: new.amounts.iter().map(|amount| amount.base_units()).collect(),
    }
}

/// Characters of a ticker, and of a name: what the protocol has room for.
const TICKER_MAX: usize = 8;
const NAME_MAX: usize = 40;
const PRECISION_MAX: u8 = 18;
const AMOUNTS_MAX: usize = 100;

fn check(new: &NewAsset) -> Result<(), Error> {
    let starts_with_letter = new.ticker.starts_with(|c: char| c.is_ascii_uppercase());
    let is_plain = new.ticker.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    if new.ticker.len() > TICKER_MAX || !starts_with_letter || !is_plain {
        return Err(Error::field("ticker", format!("1 to {TICKER_MAX} capital letters and digits, a letter first")));
    }
    let is_printable = new.name.chars().all(|c| (' '..='~').contains(&c));
    if !(1..=NAME_MAX).contains(&new.name.len()) || !is_printable {
        return Err(Error::field("name", format!("1 to {NAME_MAX} printable ASCII characters")));
    }
    if new.precision > PRECISION_MAX {
        return Err(Error::field("precision", format!("at most {PRECISION_MAX}")));
    }
    if !(1..=AMOUNTS_MAX).contains(&new.amounts.len()) || new.amounts.iter().any(|amount| amount.is_zero()) {
        return Err(Error::field("amounts", format!("1 to {AMOUNTS_MAX} of them, and each at least 1")));
    }
    let sum = new.amounts.iter().try_fold(Amount::ZERO, |sum, amount| sum.checked_add(*amount));
    if sum.is_none() {
        return Err(Error::field("amounts", format!("together at most {}", Amount::MAX)));
    }
    Ok(())
}

/// What a caller's key was answered with. An order under it that came to nothing may be given again with another key.
async fn issued_before(
    flows: &Flows,
    keys: &WalletKeys,
    key: Option<&Idempotency>,
    id: RequestId,
) -> Result<Option<Asset>, Error> {
    let Some(key) = key else { return Ok(None) };
    let mut conn = flows.store().read().await?;
    let Some(known) = idempotency::find(&mut conn, id).await? else { return Ok(None) };
    address::check_same_body(&known, key)?;
    let order = asset_issues::find(&mut conn, known.request).await?;
    drop(conn);
    match order.and_then(|order| order.end) {
        Some(End::Issued(asset)) => super::asset(flows, keys, &asset).await.map(Some),
        Some(End::Void) | None => Err(Error::refused(
            Code::NotIssued,
            "the call with this key did not issue an asset; correct it, and use a new key",
        )),
    }
}

/// Finds what became of orders that a process died over: the engine either made that asset, or it never will.
async fn settle_what_was_begun(flows: &Flows, keys: &WalletKeys, engine: &dyn AssetEngine) -> Result<(), Error> {
    let mut conn = flows.store().read().await?;
    let begun = asset_issues::begun(&mut conn, &keys.id()).await?;
    drop(conn);
    if begun.is_empty() {
        return Ok(());
    }
    let there = engine.assets(keys).await?;
    for order in begun {
        let made = there.iter().find(|asset| is_of(&order, asset));
        let end = made.map_or(End::Void, |asset| End::Issued(asset.id.clone()));
        flows.store().write(Finish { id: order.id, end }).await?;
    }
    Ok(())
}

fn is_of(order: &Order, asset: &Asset) -> bool {
    let supply = order.terms.amounts.iter().try_fold(0_u64, |sum, amount| sum.checked_add(*amount));
    asset.ticker.as_ref() == Some(&order.terms.ticker)
        && asset.name == order.terms.name
        && asset.precision == order.terms.precision
        && Some(asset.issued_supply.base_units()) == supply
        && !order.known.contains(&asset.id)
}

struct Begin {
    order: Order,
    idempotency: Option<Idempotency>,
}

#[async_trait]
impl Write for Begin {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        asset_issues::insert(tx, &self.order).await?;
        let Some(key) = &self.idempotency else { return Ok(()) };
        let what = Remembered { body_hash: key.body_hash.clone(), request: self.order.id, unsigned_txid: None };
        idempotency::remember(tx, self.order.id, &self.order.wallet, &what).await
    }
}

struct Finish {
    id: RequestId,
    end: End,
}

#[async_trait]
impl Write for Finish {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        asset_issues::end(tx, self.id, &self.end).await
    }
}
