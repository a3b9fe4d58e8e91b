//! Giving a transfer up: the engine frees what it keeps for it, and the request says so.

use async_trait::async_trait;
use bitcoin::Txid;

use super::{engine, mirror, turn};
use crate::domain::Effect;
use crate::domain::asset_receive::{self, AssetReceive};
use crate::domain::onchain_send::{self, OnchainSend, State};
use crate::domain::wallet::WalletKeys;
use crate::flows::{Code, Error, Flows, ingest};
use crate::ids::{RequestId, WalletId};
use crate::store::requests::{self, AnyRequest};
use crate::store::{Conn, StoreError, Tx, Write, apply, asset_transfers, effects};

/// Frees what the engine keeps for a request that has ended. One that goes on after all keeps it: its transaction has shown up, or
/// its payment was accepted.
///
/// # Errors
/// When the engine or the store can't be used.
pub async fn finish(flows: &Flows, request: RequestId) -> Result<(), Error> {
    let wallet = place(flows, request).await?.wallet;
    let keys = keys(flows, &wallet).await?;
    let engine = engine(flows)?.clone();
    let lock = flows.choosing(&wallet);
    let _one_at_a_time = lock.lock().await;
    let place = place(flows, request).await?;
    if place.standing == Standing::Ended {
        turn::give_up(&engine, &keys, place.batch).await?;
        mirror::copy(flows, &keys, &engine).await?;
    }
    flows.store().write(Finished { request, standing: place.standing }).await
}

/// A request that moves assets, as far as giving it up goes.
struct Place {
    wallet: WalletId,
    batch: i32,
    /// The asset is named, or will be sent for certain.
    knows_asset: bool,
    standing: Standing,
    /// The transaction that moves them, once it is signed.
    txid: Option<Txid>,
}

/// Whether a transfer can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nobody was promised anything.
    Waits,
    /// Somebody counts on it: it is out, or it was accepted.
    GoesOn,
    /// Nothing will come of it.
    Ended,
}

impl Standing {
    const fn of_send(state: &State) -> Self {
        match state {
            State::AwaitingSignature | State::WaitingAck { .. } => Self::Waits,
            State::Broadcast { .. } | State::Seen { .. } | State::Confirmed { .. } | State::Cancelled { .. } => {
                Self::GoesOn
            }
            State::Conflicted { .. } | State::Expired | State::Failed { .. } => Self::Ended,
        }
    }

    const fn of_receive(state: &asset_receive::State) -> Self {
        match state {
            asset_receive::State::Open => Self::Waits,
            asset_receive::State::Arriving(_)
            | asset_receive::State::Seen { .. }
            | asset_receive::State::Settled { .. }
            | asset_receive::State::Reorged(_) => Self::GoesOn,
            asset_receive::State::Expired | asset_receive::State::Cancelled => Self::Ended,
        }
    }
}

async fn place(flows: &Flows, request: RequestId) -> Result<Place, Error> {
    let mut conn = flows.store().read().await?;
    Ok(find(&mut conn, request).await?)
}

async fn find(conn: &mut Conn, request: RequestId) -> Result<Place, StoreError> {
    let corrupt = || StoreError::Corrupt(format!("request {request} has no transfer of assets"));
    match requests::load_any(conn, request).await? {
        Some(AnyRequest::AssetReceive(of)) => Ok(Place {
            wallet: of.wallet,
            batch: of.machine.batch,
            knows_asset: of.machine.asset.is_some(),
            standing: Standing::of_receive(&of.machine.state),
            txid: None,
        }),
        Some(AnyRequest::Send(of)) => Ok(Place {
            wallet: of.wallet,
            batch: of.machine.terms.assets.as_ref().ok_or_else(corrupt)?.batch,
            knows_asset: true,
            standing: Standing::of_send(&of.machine.state),
            txid: of.machine.txid(),
        }),
        Some(
            AnyRequest::Address(_)
            | AnyRequest::Deposit(_)
            | AnyRequest::Receive(_)
            | AnyRequest::Pay(_)
            | AnyRequest::Credit(_)
            | AnyRequest::Withdraw(_),
        )
        | None => Err(corrupt()),
    }
}

/// The keys of a wallet that a worker looks at.
pub(in crate::flows) async fn keys(flows: &Flows, wallet: &WalletId) -> Result<WalletKeys, Error> {
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
    let lock = flows.queue_up(&keys.id())?;
    let _one_at_a_time = lock.lock().await;
    let mut conn = flows.store().read().await?;
    let request = asset_transfers::request_of_batch(&mut conn, &keys.id(), batch).await?;
    drop(conn);
    let request = request.ok_or_else(|| unknown(batch))?;
    let place = place(flows, request).await?;
    let gone_too_far = || Error::refused(Code::NotCancellable, "the transfer has gone too far to be given up");
    match place.standing {
        Standing::Ended => return Ok(false),
        Standing::Waits if only_without_asset && place.knows_asset => return Ok(false),
        Standing::GoesOn => return Err(gone_too_far()),
        Standing::Waits => {}
    }
    let may_be_out = match place.txid {
        Some(txid) => turn::may_be_out(flows, txid).await?,
        None => false,
    };
    if may_be_out || !turn::give_up(&engine, keys, batch).await? {
        return Err(gone_too_far());
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

/// Done with what was found. When the request has ended since then, it is still to be freed.
struct Finished {
    request: RequestId,
    standing: Standing,
}

#[async_trait]
impl Write for Finished {
    type Output = ();
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Error> {
        if self.standing != Standing::Ended && find(tx.conn(), self.request).await?.standing == Standing::Ended {
            return Ok(());
        }
        Ok(effects::done(tx, &Effect::GiveUp(self.request)).await?)
    }
}
