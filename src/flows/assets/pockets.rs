//! What of a wallet's assets waits for a block, for whoever asks that everything be finished that needs no signature.

use std::time::Duration;

use super::{for_balance, refresh};
use crate::domain::wallet::WalletKeys;
use crate::flows::{Error, Flows};
use crate::money::Amount;

/// Longer is nobody kept waiting whose bitcoin is settled.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a wallet has of one asset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pocket {
    pub asset: String,
    pub settled: Amount,
    /// What it will be once everything that is under way has ended well.
    pub future: Amount,
}

/// Has the engine look at the chain, and tells what there is then. Nothing when the engine can't tell now.
///
/// # Errors
/// When the store can't be used.
pub async fn pockets(flows: &Flows, keys: &WalletKeys) -> Result<Option<Vec<Pocket>>, Error> {
    match tokio::time::timeout(PATIENCE, refresh(flows, &keys.id())).await {
        Ok(Ok(())) => {}
        Ok(Err(Error::Store(error))) => return Err(error.into()),
        Ok(Err(error)) => {
            tracing::warn!(wallet = %keys.id(), %error, "the RGB engine can't look at the chain");
            return Ok(None);
        }
        Err(_elapsed) => return Ok(None),
    }
    let pocket = |asset: crate::ports::assets::Asset| Pocket {
        asset: asset.id,
        settled: asset.balance.settled,
        future: asset.balance.future,
    };
    Ok(for_balance(flows, keys).await?.map(|assets| assets.into_iter().map(pocket).collect()))
}
