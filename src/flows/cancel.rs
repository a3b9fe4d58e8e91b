//! Taking back what a wallet has begun and not signed: what it holds and sets aside is free at once, as if its time were over.
//!
//! A transaction that was handed out stays watched: its owner may sign it and send it out without asking anybody.

use async_trait::async_trait;

use super::{Code, Error, Flows, history};
use crate::domain::onchain_send::{self, OnchainSend};
use crate::domain::pay::{self, Pay};
use crate::domain::withdraw::{self, Withdraw};
use crate::domain::{Machine, Request};
use crate::ids::{RequestId, WalletId};
use crate::store::requests::{self, AnyRequest};
use crate::store::{StoreError, Tx, Write, apply};

/// Takes a request back; answers whether this wallet has it. One that was taken back before, or has expired, stays as it is.
///
/// # Errors
/// `not_cancellable` when it was signed, or is of a kind that nobody signs for.
pub async fn cancel(flows: &Flows, wallet: &WalletId, id: RequestId) -> Result<bool, Error> {
    let Some((request, _)) = history::request(flows, wallet, id).await? else { return Ok(false) };
    match request {
        AnyRequest::Send(_) => take_back::<OnchainSend>(flows, id, onchain_send::Event::TimedOut).await?,
        AnyRequest::Pay(_) => take_back::<Pay>(flows, id, pay::Event::TimedOut).await?,
        AnyRequest::Withdraw(_) => take_back::<Withdraw>(flows, id, withdraw::Event::Cancelled).await?,
        AnyRequest::Address(_)
        | AnyRequest::Deposit(_)
        | AnyRequest::Receive(_)
        | AnyRequest::Credit(_)
        | AnyRequest::AssetReceive(_) => {
            return Err(Error::refused(Code::NotCancellable, "it waits for nobody's signature"));
        }
    }
    // Whoever waits for the payment, and the engine that has set an asset aside for the send.
    flows.tell_ended(id, true);
    flows.wake_assets();
    Ok(true)
}

async fn take_back<M: Machine<Event: Send + Sync + 'static>>(
    flows: &Flows,
    id: RequestId,
    event: M::Event,
) -> Result<(), Error> {
    flows.store().write(TakeBack::<M> { id, event }).await.map(drop)
}

struct TakeBack<M: Machine> {
    id: RequestId,
    event: M::Event,
}

#[async_trait]
impl<M: Machine<Event: Send + Sync + 'static>> Write for TakeBack<M> {
    type Output = Request<M>;
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Request<M>, Error> {
        let gone = || StoreError::Corrupt(format!("request {} is gone", self.id));
        let before = requests::load::<M>(tx.conn(), self.id).await?.ok_or_else(gone)?;
        match before.machine.state() {
            "awaiting_signature" => {
                let transition = before.machine.apply(&self.event, tx.now()).map_err(StoreError::from)?;
                Ok(apply::apply(tx, before, transition).await?)
            }
            "expired" | "cancelled" => Ok(before),
            state => {
                let detail = format!("it is {state}: only what was not signed is taken back here");
                Err(Error::refused(Code::NotCancellable, detail))
            }
        }
    }
}
