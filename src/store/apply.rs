//! The one door: every change of a request's state, and every movement of money, is written here.

use super::authorizations::{self, Authorization};
use super::batch::Batch;
use super::books::{self, BookEntry};
use super::{StoreError, Tx, effects, events, leases, ledger, payments, requests, spending};
use crate::clock::Timestamp;
use crate::domain::{Effect, Fact, Leases, Machine, Request, Transition};
use crate::ids::WalletId;
use crate::ledger::Posting;

/// Writes a transition: the request's row (only if nobody wrote it since it was read), postings, leases, effects and events.
///
/// Answers the request as it is now. A transition that changes nothing writes nothing.
///
/// # Errors
/// `Conflict` when the row has changed since; what the ledger refuses; what the database can't do.
pub async fn apply<M: Machine>(
    tx: &mut Tx<'_>,
    before: Request<M>,
    transition: Transition<M>,
) -> Result<Request<M>, StoreError> {
    if transition.is_unchanged(&before.machine) {
        return Ok(before);
    }
    let Transition { next, postings, events, effects, leases } = transition;
    let now = tx.now();
    let after = Request { machine: next, version: before.version + 1, updated_at: now, ..before };
    let mut batch = Batch::default();
    requests::compare_and_swap(&mut batch, &after)?;
    payments::update(&mut batch, &after);
    write(tx, batch, &after, Around { postings, events, effects, leases }).await?;
    Ok(after)
}

/// Writes a request for the first time, with what its first transition asks for.
///
/// # Errors
/// `Conflict` when a request of this id, or one for this payment hash, exists; what the ledger refuses; what the database can't do.
pub async fn create<M: Machine>(
    tx: &mut Tx<'_>,
    request: Request<M>,
    first: Transition<M>,
) -> Result<Request<M>, StoreError> {
    create_with(tx, request, first, None).await
}

/// Writes a request for the first time, and what its owner is asked to consent to.
///
/// # Errors
/// As `create`; `Conflict` when it was asked for before.
pub async fn create_asked<M: Machine>(
    tx: &mut Tx<'_>,
    request: Request<M>,
    first: Transition<M>,
    asked: &Authorization,
) -> Result<Request<M>, StoreError> {
    create_with(tx, request, first, Some(asked)).await
}

async fn create_with<M: Machine>(
    tx: &mut Tx<'_>,
    request: Request<M>,
    first: Transition<M>,
    asked: Option<&Authorization>,
) -> Result<Request<M>, StoreError> {
    let Transition { next, postings, events, effects, leases } = first;
    let request = Request { machine: next, ..request };
    let mut batch = Batch::default();
    requests::insert(&mut batch, &request)?;
    payments::insert(&mut batch, &request);
    if let Some(asked) = asked {
        authorizations::insert(&mut batch, asked);
    }
    write(tx, batch, &request, Around { postings, events, effects, leases }).await?;
    Ok(request)
}

/// What a transition writes beside its request.
struct Around {
    postings: Vec<Posting>,
    events: Vec<Fact>,
    effects: Vec<Effect>,
    leases: Leases,
}

/// The batch begins with the request's row: nothing else is looked at when somebody else has written that.
async fn write<M: Machine>(
    tx: &mut Tx<'_>,
    mut batch: Batch,
    request: &Request<M>,
    around: Around,
) -> Result<(), StoreError> {
    let Around { postings, events: facts, effects: wanted, leases: change } = around;
    if let Some(foreign) = postings.iter().find(|posting| posting.request != request.id) {
        return Err(StoreError::Corrupt(format!("{} is posted for another request", foreign.id)));
    }
    for effect in &wanted {
        effects::arm(tx, &mut batch, request.id, effect);
    }
    for fact in &facts {
        events::add(tx, &mut batch, Some(&request.wallet), Some(request.id), fact);
    }
    batch.run(tx).await.map_err(taken)?;
    ledger::post(tx, &postings).await?;
    spending::follow(tx, request, &postings).await?;
    match change {
        Leases::Keep => Ok(()),
        Leases::Release => leases::release(tx.conn(), request.id).await,
        Leases::Retake => leases::retake(tx, request.id, &request.wallet).await,
    }
}

/// A line of a payment that only one may have, and another request was first: decided again, this one finds it.
fn taken(error: StoreError) -> StoreError {
    let is_taken = match &error {
        StoreError::Sql(inner) => inner.as_database_error().is_some_and(|inner| inner.is_unique_violation()),
        _ => false,
    };
    if is_taken { StoreError::Conflict("what one request may have") } else { error }
}

/// Enters what belongs to no wallet's request: the node's own money, and an operator's word about suspense. Answers whether it was
/// new; what was entered before changes nothing.
///
/// # Errors
/// What the ledger refuses; what the database can't do.
pub async fn enter(
    tx: &mut Tx<'_>,
    entry: &BookEntry,
    postings: &[Posting],
    wallet: Option<&WalletId>,
    fact: &Fact,
) -> Result<bool, StoreError> {
    if let Some(foreign) = postings.iter().find(|posting| posting.request != entry.id) {
        return Err(StoreError::Corrupt(format!("{} is posted for another entry", foreign.id)));
    }
    if !books::insert(tx, entry).await? {
        return Ok(false);
    }
    ledger::post(tx, postings).await?;
    events::append(tx, wallet, None, fact).await?;
    Ok(true)
}

/// Loads, decides, writes: the usual way to move a request from inside a transaction.
///
/// # Errors
/// When there is no such request of this kind, and what `apply` refuses.
pub async fn advance<M: Machine>(
    tx: &mut Tx<'_>,
    id: crate::ids::RequestId,
    event: &M::Event,
) -> Result<Request<M>, StoreError> {
    let now: Timestamp = tx.now();
    let before = requests::load::<M>(tx.conn(), id)
        .await?
        .ok_or_else(|| StoreError::Corrupt(format!("request {id} is named but not there")))?;
    let transition = before.machine.apply(event, now)?;
    apply(tx, before, transition).await
}
