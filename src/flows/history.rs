//! Reading back: requests, sends, deposits, transactions, events. All lists are newest first, but events.

use bitcoin::Txid;

use super::{Error, Flows};
use crate::clock::Timestamp;
use crate::domain::deposit::Deposit;
use crate::domain::onchain_send::{OnchainSend, State};
use crate::domain::{BlockRef, Machine, Request};
use crate::ids::{RequestId, WalletId};
use crate::store::Conn;
use crate::store::chain::{self, Status, WalletTx};
use crate::store::events::{self, Event};
use crate::store::issued::{self, IssuedTx};
use crate::store::requests::{self, AnyRequest, Filter, PageAfter};

/// The most that one page of a list holds.
pub const PAGE_MAX: u32 = 500;

/// A send, and every version of it that was issued.
#[derive(Clone, Debug)]
pub struct Send {
    pub request: Request<OnchainSend>,
    pub versions: Vec<IssuedTx>,
    /// What stands for it is signed and promised to go out, and no node has it.
    pub is_with_no_node: bool,
}

impl Send {
    /// The fee of the version that stands for the request now, else of the first one.
    #[must_use]
    pub fn current_version(&self) -> Option<&IssuedTx> {
        let txid = self.request.machine.txid();
        self.versions.iter().find(|version| Some(version.unsigned_txid) == txid).or_else(|| self.versions.first())
    }
}

/// A send of this wallet; another wallet's is as unknown as one that never was.
///
/// # Errors
/// When the store can't be used.
pub async fn send(flows: &Flows, wallet: &WalletId, id: RequestId) -> Result<Option<Send>, Error> {
    let mut conn = flows.store().read().await?;
    let Some(request) = requests::load::<OnchainSend>(&mut conn, id).await? else { return Ok(None) };
    if request.wallet != *wallet {
        return Ok(None);
    }
    Ok(Some(with_versions(&mut conn, request).await?))
}

async fn with_versions(conn: &mut Conn, request: Request<OnchainSend>) -> Result<Send, Error> {
    let versions = issued::of_request(conn, request.id).await?;
    let is_with_no_node = match request.machine.state {
        // Assets go out by their engine, which says when.
        State::Broadcast { txid, .. } if request.machine.terms.assets.is_none() => {
            chain::find_tx(conn, txid).await?.is_none_or(|row| row.status == Status::Offered)
        }
        State::Broadcast { .. }
        | State::AwaitingSignature
        | State::WaitingAck { .. }
        | State::Seen { .. }
        | State::Confirmed { .. }
        | State::Cancelled { .. }
        | State::Conflicted { .. }
        | State::Expired
        | State::Failed { .. } => false,
    };
    Ok(Send { request, versions, is_with_no_node })
}

/// Any request of this wallet with everything that happened to it.
///
/// # Errors
/// When the store can't be used.
pub async fn request(
    flows: &Flows,
    wallet: &WalletId,
    id: RequestId,
) -> Result<Option<(AnyRequest, Vec<Event>)>, Error> {
    let mut conn = flows.store().read().await?;
    let Some(request) = requests::load_any(&mut conn, id).await? else { return Ok(None) };
    let owner = match &request {
        AnyRequest::Address(request) => &request.wallet,
        AnyRequest::Send(request) => &request.wallet,
        AnyRequest::Deposit(request) => &request.wallet,
        AnyRequest::Receive(request) => &request.wallet,
        AnyRequest::Pay(request) => &request.wallet,
        AnyRequest::Credit(request) => &request.wallet,
        AnyRequest::Withdraw(request) => &request.wallet,
        AnyRequest::AssetReceive(request) => &request.wallet,
    };
    if owner != wallet {
        return Ok(None);
    }
    let timeline = events::timeline(&mut conn, id).await?;
    Ok(Some((request, timeline)))
}

/// # Errors
/// When the store can't be used.
pub async fn sends(
    flows: &Flows,
    wallet: &WalletId,
    filter: &Filter,
    after: Option<PageAfter>,
    limit: u32,
) -> Result<Vec<Send>, Error> {
    let requests = page::<OnchainSend>(flows, wallet, filter, after, limit).await?;
    let mut conn = flows.store().read().await?;
    let mut sends = Vec::with_capacity(requests.len());
    for request in requests {
        sends.push(with_versions(&mut conn, request).await?);
    }
    Ok(sends)
}

/// # Errors
/// When the store can't be used.
pub async fn deposits(
    flows: &Flows,
    wallet: &WalletId,
    filter: &Filter,
    after: Option<PageAfter>,
    limit: u32,
) -> Result<Vec<Request<Deposit>>, Error> {
    page(flows, wallet, filter, after, limit).await
}

async fn page<M: Machine>(
    flows: &Flows,
    wallet: &WalletId,
    filter: &Filter,
    after: Option<PageAfter>,
    limit: u32,
) -> Result<Vec<Request<M>>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(requests::page(&mut conn, wallet, filter, after, limit.min(PAGE_MAX)).await?)
}

/// # Errors
/// When the store can't be used.
pub async fn transactions(
    flows: &Flows,
    wallet: &WalletId,
    before: Option<(Timestamp, Txid)>,
    limit: u32,
) -> Result<Vec<WalletTx>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(chain::wallet_txs(&mut conn, wallet, before, limit.min(PAGE_MAX)).await?)
}

/// A wallet's events after a number, oldest first.
///
/// # Errors
/// When the store can't be used.
pub async fn events(flows: &Flows, wallet: &WalletId, after: i64, limit: u32) -> Result<Vec<Event>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(events::after(&mut conn, wallet, after, limit.min(PAGE_MAX)).await?)
}

/// The gateway's own events after a number, oldest first: what happened to its node, what it did by itself, what its operator did.
///
/// # Errors
/// When the store can't be used.
pub async fn gateway_events(flows: &Flows, after: i64, limit: u32) -> Result<Vec<Event>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(events::of_the_gateway(&mut conn, after, limit.min(PAGE_MAX)).await?)
}

/// How deep a height is buried, from the follower's point of view.
///
/// # Errors
/// When the store can't be used.
pub async fn tip_height(flows: &Flows) -> Result<u32, Error> {
    Ok(tip(flows).await?.map_or(0, |tip| tip.height))
}

/// The last block that was taken in; empty before the first.
///
/// # Errors
/// When the store can't be used.
pub async fn tip(flows: &Flows) -> Result<Option<BlockRef>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(chain::cursor(&mut conn).await?)
}
