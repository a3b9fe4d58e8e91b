//! Giving a transfer up: the engine frees what it keeps for it, and the request says so.

use async_trait::async_trait;

use super::{engine, mirror, turn};
use crate::domain::asset_receive::{self, AssetReceive};
use crate::domain::onchain_send::{self, OnchainSend, State};
use crate::domain::wallet::WalletKeys;
use crate::domain::{Effect, Machine};
use crate::flows::{Code, Error, Flows, ingest};
use crate::ids::{RequestId, WalletId};
use crate::store::requests::{self, AnyRequest};
use crate::store::{StoreError, Tx, Write, apply, asset_transfers, effects};

/// Frees what the engine keeps for a request that has ended.
///
/// # Errors
/// When the engine or the store can't be used.
pub async fn finish(flows: &Flows, request: RequestId) -> Result<(), Error> {
    let (wallet, batch) = place(flows, request).await?;
    let keys = keys(flows, &wallet).await?;
    let engine = engine(flows)?.clone();
    let lock = flows.choosing(&wallet);
    let _one_at_a_time = lock.lock().await;
    turn::give_up(&engine, &keys, batch).await?;
    mirror::copy(flows, &keys, &engine).await?;
    Ok(flows.store().write(Done(Effect::GiveUp(request))).await?)
}

async fn place(flows: &Flows, request: RequestId) -> Result<(WalletId, i32), Error> {
    let corrupt = || StoreError::Corrupt(format!("request {request} has no transfer of assets"));
    let mut conn = flows.store().read().await?;
    match requests::load_any(&mut conn, request).await? {
        Some(AnyRequest::AssetReceive(of)) => Ok((of.wallet, of.machine.batch)),
        Some(AnyRequest::Send(of)) => match of.machine.terms.assets {
            Some(assets) => Ok((of.wallet, assets.batch)),
            None => Err(corrupt().into()),
        },
        Some(
            AnyRequest::Address(_)
            | AnyRequest::Deposit(_)
            | AnyRequest::Receive(_)
            | AnyRequest::Pay(_)
            | AnyRequest::Credit(_)
            | AnyRequest::Withdraw(_),
        )
        | None => Err(corrupt().into()),
    }
}

/// The keys of a wallet that a worker looks at.
pub(super) async fn keys(flows: &Flows, wallet: &WalletId) -> Result<WalletKeys, Error> {
    let mut conn = flows.store().read().await?;
    Ok(ingest::keys_among(&mut conn, wallet, flows.network()).await?)
}

/// Takes a transfer of the wallet's back, as long as nobody was promised it. Answers whether it was open.
///
/// # Errors
/// When there is no such transfer, or it has gone too far.
pub async fn batch(flows: &Flows, keys: &WalletKeys, batch: i32, only_without_asset: bool) -> Result<bool, Error> {
    let (flows, keys) = (flows.clone(), keys.clone());
    turn::to_the_end(async move { batch_to_the_end(&flows, &keys, batch, only_without_asset).await }).await
}

async fn batch_to_the_end(
    flows: &Flows,
    keys: &WalletKeys,
    batch: i32,
    only_without_asset: bool,
) -> Result<bool, Error> {
    let engine = engine(flows)?.clone();
    let lock = flows.choosing(&keys.id());
    let _one_at_a_time = lock.lock().await;
    let mut conn = flows.store().read().await?;
    let request = asset_transfers::request_of_batch(&mut conn, &keys.id(), batch).await?;
    let request = request.ok_or_else(|| unknown(batch))?;
    let found = requests::load_any(&mut conn, request).await?.ok_or_else(|| unknown(batch))?;
    drop(conn);
    let spared = match &found {
        AnyRequest::AssetReceive(of) => !of.machine.is_open() || (only_without_asset && of.machine.asset.is_some()),
        AnyRequest::Send(of) => !of.machine.is_open() || only_without_asset,
        AnyRequest::Address(_)
        | AnyRequest::Deposit(_)
        | AnyRequest::Receive(_)
        | AnyRequest::Pay(_)
        | AnyRequest::Credit(_)
        | AnyRequest::Withdraw(_) => return Err(unknown(batch)),
    };
    if spared {
        return Ok(false);
    }
    if !turn::give_up(&engine, keys, batch).await? {
        return Err(Error::refused(Code::NotCancellable, "the transfer has gone too far to be given up"));
    }
    let told = mirror::read(flows, keys, &engine, None).await?;
    flows.store().write(GivenUp { request, told, reason: "its owner gave it up".to_owned() }).await?;
    Ok(true)
}

fn unknown(batch: i32) -> Error {
    Error::Field {
        code: Code::NotFound,
        field: "batch_transfer_idx",
        reason: format!("this wallet has no transfer {batch} that could be given up"),
    }
}

/// Writes down that the engine has given a request up.
pub(super) struct GivenUp {
    pub request: RequestId,
    pub told: mirror::Told,
    pub reason: String,
}

#[async_trait]
impl Write for GivenUp {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        self.told.write(tx).await?;
        match requests::load_any(tx.conn(), self.request).await? {
            Some(AnyRequest::AssetReceive(_)) => {
                let event = asset_receive::Event::Cancelled;
                apply::advance::<AssetReceive>(tx, self.request, &event).await.map(drop)
            }
            Some(AnyRequest::Send(before)) => {
                let waits = matches!(before.machine.state, State::AwaitingSignature | State::WaitingAck { .. });
                if !waits {
                    return Ok(());
                }
                let event = onchain_send::Event::GivenUp { reason: self.reason.clone() };
                apply::advance::<OnchainSend>(tx, self.request, &event).await.map(drop)
            }
            Some(
                AnyRequest::Address(_)
                | AnyRequest::Deposit(_)
                | AnyRequest::Receive(_)
                | AnyRequest::Pay(_)
                | AnyRequest::Credit(_)
                | AnyRequest::Withdraw(_),
            )
            | None => Err(StoreError::Corrupt(format!("request {} moves no assets", self.request))),
        }
    }
}

struct Done(Effect);

#[async_trait]
impl Write for Done {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        effects::done(tx, &self.0).await
    }
}
