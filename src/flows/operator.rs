//! What only an operator does: looking at all wallets, freeing one's keys, and letting payouts go on.

use async_trait::async_trait;

use super::{Code, Error, Flows};
use crate::ids::WalletId;
use crate::store::halts::{self, Halt};
use crate::store::wallets::{self, WalletRow};
use crate::store::{StoreError, Tx, Write};

/// A page of all wallets, in the order of their ids.
///
/// # Errors
/// When the store can't be used.
pub async fn wallets_after(flows: &Flows, after: Option<&WalletId>, limit: u32) -> Result<Vec<WalletRow>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(wallets::list(&mut conn, after.map_or("", WalletId::as_str), limit).await?)
}

/// Frees a wallet's keys for another registration. It is no longer watched; what was recorded of it stays.
///
/// # Errors
/// `wallet_not_registered` when there is no such wallet; refused while a send or a deposit of it is not finished.
pub async fn release_wallet(flows: &Flows, wallet: WalletId) -> Result<(), Error> {
    match flows.store().write(Release(wallet)).await {
        Err(Error::Store(StoreError::Conflict(_))) => Err(Error::refused(
            Code::InvalidRequest,
            "a send or a deposit of this wallet is not finished; a wallet is released when nothing of it is under way",
        )),
        done => done,
    }
}

/// The reasons for which no money goes out.
///
/// # Errors
/// When the store can't be used.
pub async fn halts(flows: &Flows) -> Result<Vec<Halt>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(halts::in_force(&mut conn).await?)
}

/// Clears one of them; answers whether it was in force.
///
/// # Errors
/// When the store can't be used.
pub async fn resume(flows: &Flows, reason: &str) -> Result<bool, Error> {
    Ok(flows.store().write(Resume(reason.to_owned())).await?)
}

struct Release(WalletId);

#[async_trait]
impl Write for Release {
    type Output = ();
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Error> {
        let known = wallets::find(tx.conn(), &self.0).await?;
        if known.is_none_or(|row| row.released_at.is_some()) {
            return Err(Error::refused(Code::WalletNotRegistered, format!("no wallet {} is registered", self.0)));
        }
        Ok(wallets::release(tx, &self.0).await?)
    }
}

struct Resume(String);

#[async_trait]
impl Write for Resume {
    type Output = bool;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        halts::clear(tx, &self.0).await
    }
}
