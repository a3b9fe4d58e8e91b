//! Carries out what an operator asks for, once for an idempotency key, and notes that it was done.
//!
//! The key is written before anything is done. If the answer is lost after that, nobody can say whether it was done, and the
//! key says so for ever; the operator looks, and asks again under another key.

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{BodyHash, Code, Error, Flows, Idempotency};
use crate::domain::Fact;
use crate::ids::RequestId;
use crate::store::operator_calls::{self, Call};
use crate::store::{StoreError, Tx, Write, events};

/// # Errors
/// What `act` answers; that the key was used for something else; that nobody knows how the first call with it ended.
pub(super) async fn once<T: Serialize + DeserializeOwned>(
    flows: &Flows,
    idempotency: Option<Idempotency>,
    note: impl FnOnce(&T) -> Fact,
    act: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let id = idempotency.as_ref().map(|given| RequestId::from_operator_key(&given.key));
    if let (Some(id), Some(given)) = (id, idempotency) {
        let begun = flows.store().write(Begin { id, body_hash: given.body_hash.clone() }).await?;
        if let Some(before) = begun {
            return said_before(&before, &given.body_hash);
        }
    }
    match act.await {
        Ok(done) => {
            let answer = serde_json::to_string(&done).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            let note = note(&done);
            flows.store().write(Finish { id, answer, note }).await?;
            Ok(done)
        }
        Err(error) => {
            if let (Some(id), true) = (id, was_not_done(&error)) {
                flows.store().write(Forget(id)).await?;
            }
            Err(error)
        }
    }
}

/// What an operator changes in the database and nowhere else: it is done, noted and remembered in one transaction, or not at all.
#[async_trait]
pub(super) trait Change: Send + Sync + 'static {
    /// What is remembered with an idempotency key. No secret may be in it.
    type Done: Serialize + DeserializeOwned + Send + 'static;

    async fn make(&self, tx: &mut Tx<'_>) -> Result<(Self::Done, Option<Fact>), Error>;
}

/// What a change came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<T> {
    pub done: T,
    /// It was made now, and not by an earlier call with the same idempotency key.
    pub is_new: bool,
}

/// Makes a change, once for an idempotency key.
///
/// # Errors
/// What the change refuses, and that the key was used for something else.
pub(super) async fn change<C: Change>(
    flows: &Flows,
    idempotency: Option<Idempotency>,
    change: C,
) -> Result<Changed<C::Done>, Error> {
    flows.store().write(MakeOnce { idempotency, change }).await
}

struct MakeOnce<C> {
    idempotency: Option<Idempotency>,
    change: C,
}

#[async_trait]
impl<C: Change> Write for MakeOnce<C> {
    type Output = Changed<C::Done>;
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Changed<C::Done>, Error> {
        let id = self.idempotency.as_ref().map(|given| RequestId::from_operator_key(&given.key));
        if let (Some(id), Some(given)) = (id, &self.idempotency)
            && !operator_calls::begin(tx, id, &given.body_hash).await?
        {
            let before = operator_calls::find(tx.conn(), id).await?;
            let before = before.ok_or(StoreError::Conflict("an idempotency key"))?;
            return Ok(Changed { done: said_before(&before, &given.body_hash)?, is_new: false });
        }
        let (done, note) = self.change.make(tx).await?;
        if let Some(id) = id {
            let answer = serde_json::to_string(&done).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            operator_calls::finish(tx, id, &answer).await?;
        }
        if let Some(note) = note {
            events::append(tx, None, None, &note).await?;
        }
        Ok(Changed { done, is_new: true })
    }
}

fn said_before<T: DeserializeOwned>(before: &Call, body_hash: &BodyHash) -> Result<T, Error> {
    if !before.body_hash.is_of_same_call(body_hash) {
        let detail = "this idempotency key was used for another call";
        return Err(Error::refused(Code::IdempotencyMismatch, detail));
    }
    match &before.answer {
        Some(answer) => Ok(serde_json::from_str(answer).map_err(|error| StoreError::Corrupt(error.to_string()))?),
        None => Err(Error::refused(
            Code::OutcomeUnknown,
            "a call with this key was begun, and its answer was lost or is still to come",
        )),
    }
}

/// A refusal is definite; a node or a database that does not answer may have done it all the same.
fn was_not_done(error: &Error) -> bool {
    match error {
        Error::Field { .. }
        | Error::Refused { .. }
        | Error::Later { .. }
        | Error::Psbt(_)
        | Error::Fee(_)
        | Error::SignatureTime(_)
        | Error::Keys(_) => true,
        Error::Chain(_) | Error::Node(_) | Error::Assets(_) | Error::Store(_) | Error::Internal(_) => false,
    }
}

struct Begin {
    id: RequestId,
    body_hash: BodyHash,
}

#[async_trait]
impl Write for Begin {
    /// The call before it, if there was one.
    type Output = Option<Call>;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Option<Call>, StoreError> {
        if operator_calls::begin(tx, self.id, &self.body_hash).await? {
            return Ok(None);
        }
        operator_calls::find(tx.conn(), self.id).await
    }
}

struct Finish {
    id: Option<RequestId>,
    answer: String,
    note: Fact,
}

#[async_trait]
impl Write for Finish {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        if let Some(id) = self.id {
            operator_calls::finish(tx, id, &self.answer).await?;
        }
        events::append(tx, None, None, &self.note).await
    }
}

struct Forget(RequestId);

#[async_trait]
impl Write for Forget {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        operator_calls::forget(tx, self.0).await
    }
}
