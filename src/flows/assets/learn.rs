//! Telling the engine of coins that have come since it looked last. It needs its indexer for that, so a call that only reads leaves it to
//! the worker.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{give_up, side};
use crate::clock::Timestamp;
use crate::domain::wallet::{Account, WalletKeys};
use crate::flows::{AssetSide, Error, Flows};
use crate::ids::WalletId;
use crate::ports::assets::AssetError;
use crate::store::{StoreError, chain, wallets};

/// How long an indexer that has failed is left alone: each try may take as long as its timeout, and there are few threads for all wallets.
const REST: Duration = Duration::from_secs(30);

/// Wallets with coins that the engine does not know. Kept in memory: what it knows is read back from it.
#[derive(Debug, Default)]
pub struct Learning {
    wanted: Mutex<HashSet<WalletId>>,
    rests_until: Mutex<Option<Timestamp>>,
}

impl Learning {
    /// Answers whether nobody had asked for it before.
    fn want(&self, wallet: &WalletId) -> bool {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).insert(wallet.clone())
    }

    fn wanted(&self) -> Vec<WalletId> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn forget(&self, wallet: &WalletId) {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).remove(wallet);
    }

    fn rests(&self, now: Timestamp) -> bool {
        self.rests_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }

    fn rest_until(&self, until: Option<Timestamp>) {
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// Whether the indexer has failed a moment ago.
#[must_use]
pub fn indexer_rests(flows: &Flows) -> bool {
    flows.asset_side().is_some_and(|side| side.learning.rests(flows.now()))
}

/// Up to which index the engine has to look; nothing when it knows every coin of the wallet that is in a block.
async fn below(flows: &Flows, side: &AssetSide, keys: &WalletKeys) -> Result<Option<u32>, Error> {
    let wallet = keys.id();
    let mut conn = flows.store().read().await?;
    let unspent = chain::unspent(&mut conn, &wallet).await?;
    let next = wallets::keychain(&mut conn, &wallet, Account::Colored).await?.next_index;
    drop(conn);
    let is_there = |coin: &&chain::Coin| coin.account == Account::Colored && coin.height.is_some();
    let there: Vec<&chain::Coin> = unspent.iter().filter(is_there).collect();
    if there.is_empty() {
        return Ok(None);
    }
    let known = side.engine.coins(keys).await?;
    let is_new = |coin: &&&chain::Coin| known.iter().all(|known| known.outpoint != coin.outpoint);
    let highest = there.iter().map(|coin| coin.index).max().unwrap_or(0);
    Ok(there.iter().any(|coin| is_new(&coin)).then(|| next.max(highest.saturating_add(1))))
}

/// Has the engine learn of new coins before something is done with them. Without its indexer it knows what is on the others all the same.
pub(super) async fn now(flows: &Flows, keys: &WalletKeys) -> Result<(), Error> {
    let side = side(flows)?;
    match below(flows, side, keys).await? {
        Some(below) => learn(flows, side, keys, below).await.map(drop),
        None => Ok(()),
    }
}

/// Has the worker see to it.
pub(super) async fn later(flows: &Flows, keys: &WalletKeys) -> Result<(), Error> {
    let side = side(flows)?;
    if below(flows, side, keys).await?.is_some() && side.learning.want(&keys.id()) {
        flows.wake_assets();
    }
    Ok(())
}

/// Answers whether it has.
async fn learn(flows: &Flows, side: &AssetSide, keys: &WalletKeys, below: u32) -> Result<bool, Error> {
    if side.learning.rests(flows.now()) {
        return Ok(false);
    }
    match side.engine.learn_coins(keys, below).await {
        Err(AssetError::Port(error)) => {
            tracing::warn!(wallet = %keys.id(), %error, "the RGB engine did not learn of new coins");
            side.learning.rest_until(Some(flows.now().after(REST)));
            Ok(false)
        }
        learnt => {
            side.learning.rest_until(None);
            learnt?;
            Ok(true)
        }
    }
}

/// What readers have left to the worker.
///
/// # Errors
/// When the store can't be used.
pub async fn learn_of_coins(flows: &Flows) -> Result<(), Error> {
    let side = side(flows)?;
    for wallet in side.learning.wanted() {
        if side.learning.rests(flows.now()) {
            return Ok(());
        }
        match learn_one(flows, side, &wallet).await {
            Ok(true) => side.learning.forget(&wallet),
            Ok(false) => {}
            Err(Error::Store(error)) if !matches!(error, StoreError::Corrupt(_)) => return Err(error.into()),
            Err(error) => {
                // Whoever reads next asks again.
                tracing::warn!(%wallet, %error, "the RGB engine does not learn of a wallet's coins");
                side.learning.forget(&wallet);
            }
        }
    }
    Ok(())
}

async fn learn_one(flows: &Flows, side: &AssetSide, wallet: &WalletId) -> Result<bool, Error> {
    let keys = give_up::keys(flows, wallet).await?;
    match below(flows, side, &keys).await? {
        Some(below) => learn(flows, side, &keys, below).await,
        None => Ok(true),
    }
}
