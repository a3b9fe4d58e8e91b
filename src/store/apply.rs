//! The one door: every change of a request's state, and every movement of money, is written here.

use super::{StoreError, Tx, effects, events, leases, ledger, payments, requests, spending};
use crate::clock::Timestamp;
use crate::domain::{Leases, Machine, Request, Transition};

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
    compare_and_swap(tx, &after).await?;
    payments::update(tx, &after).await?;
    write_around(tx, &after, &postings, &events, &effects, leases).await?;
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
    let Transition { next, postings, events, effects, leases } = first;
    let request = Request { machine: next, ..request };
    requests::insert(tx.conn(), &request).await?;
    payments::insert(tx, &request).await?;
    write_around(tx, &request, &postings, &events, &effects, leases).await?;
    Ok(request)
}

async fn write_around<M: Machine>(
    tx: &mut Tx<'_>,
    request: &Request<M>,
    postings: &[crate::ledger::Posting],
    notes: &[crate::domain::EventNote],
    wanted: &[crate::domain::Effect],
    change: Leases,
) -> Result<(), StoreError> {
    if let Some(foreign) = postings.iter().find(|posting| posting.request != request.id) {
        return Err(StoreError::Corrupt(format!("{} is posted for another request", foreign.id)));
    }
    ledger::post(tx, postings).await?;
    spending::follow(tx, request, postings).await?;
    match change {
        Leases::Keep => {}
        Leases::Release => leases::release(tx.conn(), request.id).await?,
        Leases::Retake => leases::retake(tx, request.id, &request.wallet).await?,
    }
    for effect in wanted {
        effects::arm(tx, request.id, effect).await?;
    }
    for note in notes {
        events::append(tx, Some(&request.wallet), Some(request.id), note).await?;
    }
    Ok(())
}

async fn compare_and_swap<M: Machine>(tx: &mut Tx<'_>, after: &Request<M>) -> Result<(), StoreError> {
    let written = sqlx::query(
        "UPDATE requests SET state = $1, is_open = $2, data = $3, updated_at = $4, version = $5 \
         WHERE id = $6 AND version = $7 AND kind = $8",
    )
    .bind(after.machine.state())
    .bind(i64::from(after.machine.is_open()))
    .bind(requests::encode(&after.machine)?)
    .bind(after.updated_at.millis())
    .bind(after.version)
    .bind(after.id.to_string())
    .bind(after.version - 1)
    .bind(M::KIND)
    .execute(tx.conn())
    .await?
    .rows_affected();
    if written == 1 { Ok(()) } else { Err(StoreError::Conflict("the request")) }
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
