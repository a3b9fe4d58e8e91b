//! One call of the engine for a wallet, from the word that it is asked to the row that says what it did.
//!
//! The engine keeps files of its own: what it has done and what is written here can't be one transaction. So an intent is written
//! first. Whatever a process that died has made the engine do, and nobody wrote down, is given up before the next call.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::{OutPoint, Txid};
use tracing::Instrument;

use super::mirror;
use crate::domain::wallet::WalletKeys;
use crate::flows::{Error, Flows};
use crate::ids::{RequestId, WalletId};
use crate::ports::assets::{AssetEngine, AssetError, Transfer, TransferKind, TransferStatus};
use crate::store::{StoreError, Tx, Write, asset_transfers, issued};

/// Runs a call to its end, whatever becomes of the caller: half of it would be an asset that nobody knows of.
pub(super) async fn to_the_end<T, F>(call: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let task = tokio::spawn(call.in_current_span());
    task.await.map_err(|error| Error::panicked("a call of the engine for assets", &error))?
}

/// Says that the engine is about to be asked for something that can't be asked for twice.
pub(super) async fn intend(flows: &Flows, wallet: &WalletId) -> Result<(), Error> {
    Ok(flows.store().write(Intend { id: RequestId::fresh(), wallet: wallet.clone() }).await?)
}

/// Nothing came of the call, and the engine keeps nothing of it.
pub(super) async fn nothing_came(flows: &Flows, wallet: &WalletId) -> Result<(), Error> {
    Ok(flows.store().write(Intended { wallet: wallet.clone() }).await?)
}

/// Whether it may have been done all the same: the answer of the engine, or of the database to a commit, did not arrive. The intent
/// stays then, and what is there is found before the next call.
pub(super) const fn is_in_doubt(error: &Error) -> bool {
    match error {
        Error::Assets(_)
        | Error::Internal(_)
        | Error::Store(StoreError::Unavailable(_) | StoreError::InDoubt(_) | StoreError::Sql(_)) => true,
        Error::Store(_)
        | Error::Field { .. }
        | Error::Refused { .. }
        | Error::Later { .. }
        | Error::Psbt(_)
        | Error::Fee(_)
        | Error::SignatureTime(_)
        | Error::Keys(_)
        | Error::Chain(_)
        | Error::Node(_) => false,
    }
}

/// Gives up what an earlier process had the engine make and did not write down. Only under the wallet's lock.
pub(super) async fn tidy_up(flows: &Flows, keys: &WalletKeys, engine: &Arc<dyn AssetEngine>) -> Result<(), Error> {
    let wallet = keys.id();
    let mut conn = flows.store().read().await?;
    if !asset_transfers::has_intents(&mut conn, &wallet).await? {
        return Ok(());
    }
    let mut known = HashMap::new();
    let told = engine.transfers(keys).await?;
    for transfer in told.iter().filter(|transfer| can_be_given_up(transfer)) {
        let request = asset_transfers::request_of_batch(&mut conn, &wallet, transfer.batch).await?;
        known.insert(transfer.batch, request.is_some());
    }
    drop(conn);
    for (batch, is_known) in known {
        if !is_known {
            tracing::warn!(%wallet, batch, "an asset's transfer that nobody wrote down is given up");
            give_up(engine, keys, batch).await?;
        }
    }
    let written = mirror::read(flows, keys, engine, None).await?;
    flows.store().write(Tidied { written }).await
}

/// Frees what the engine keeps for a batch. One that has gone too far stays.
pub(super) async fn give_up(engine: &Arc<dyn AssetEngine>, keys: &WalletKeys, batch: i32) -> Result<bool, Error> {
    match engine.give_up(keys, batch).await {
        Ok(()) => Ok(true),
        Err(AssetError::Refused(refusal)) => {
            tracing::info!(batch, %refusal, "a transfer is not given up");
            Ok(false)
        }
        Err(AssetError::Port(error)) => Err(Error::Assets(error)),
    }
}

/// Whether the network may have a transaction that the engine does not know to be out: a process died between the two, and the engine
/// is as it was before. Its coins must not be freed then.
pub(super) async fn may_be_out(flows: &Flows, txid: Txid) -> Result<bool, Error> {
    let mut conn = flows.store().read().await?;
    let signed = issued::by_txid(&mut conn, txid).await?.and_then(|version| version.signed_tx);
    drop(conn);
    let Some(signed) = signed else { return Ok(false) };
    if flows.chain().mempool_transactions(&[txid]).await?.iter().any(Option::is_some) {
        return Ok(true);
    }
    let inputs: Vec<OutPoint> = signed.input.iter().map(|input| input.previous_output).collect();
    let (_, unspent) = flows.chain().still_unspent(&inputs).await?;
    Ok(inputs.iter().any(|input| !unspent.contains(input)))
}

fn can_be_given_up(transfer: &Transfer) -> bool {
    let waits = matches!(transfer.status, TransferStatus::Initiated | TransferStatus::WaitingCounterparty);
    let moves = matches!(transfer.kind, TransferKind::Send | TransferKind::ReceiveBlind | TransferKind::ReceiveWitness);
    waits && moves
}

struct Intend {
    id: RequestId,
    wallet: WalletId,
}

#[async_trait]
impl Write for Intend {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        asset_transfers::intend(tx, self.id, &self.wallet).await
    }
}

struct Intended {
    wallet: WalletId,
}

#[async_trait]
impl Write for Intended {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        asset_transfers::intended(tx, &self.wallet).await
    }
}

struct Tidied {
    written: mirror::Told,
}

#[async_trait]
impl Write for Tidied {
    type Output = ();
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Error> {
        self.written.write(tx).await?;
        Ok(asset_transfers::intended(tx, &self.written.wallet).await?)
    }
}
