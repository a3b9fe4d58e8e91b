//! Stopping payouts and letting them go on: everybody's, or those of one wallet.

use async_trait::async_trait;
use serde_json::json;

use super::{Error, Flows};
use crate::domain::EventNote;
use crate::store::halts::{self, Halt, Scope};
use crate::store::{StoreError, Tx, Write, events};

/// A reason is a word that is cleared by its name; a detail is a sentence.
const REASON_MAX: usize = 64;
const DETAIL_MAX: usize = 500;

/// Every halt in force, whomever it stops.
///
/// # Errors
/// When the store can't be used.
pub async fn list(flows: &Flows) -> Result<Vec<Halt>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(halts::all_in_force(&mut conn).await?)
}

/// What an operator wants to be stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewHalt {
    pub scope: Scope,
    /// What it is cleared by: lower case letters and `_`.
    pub reason: String,
    pub detail: String,
    /// The key, or the person, that decides.
    pub by: String,
}

/// Stops payouts at once. Answers whether they were not stopped for this reason before.
///
/// # Errors
/// When the reason is no word or the detail no sentence; when the store can't be used.
pub async fn raise(flows: &Flows, new: NewHalt) -> Result<bool, Error> {
    let is_word = new.reason.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    if new.reason.is_empty() || new.reason.len() > REASON_MAX || !is_word {
        return Err(Error::field("reason", format!("must be 1 to {REASON_MAX} lower case letters and underscores")));
    }
    let length = new.detail.chars().count();
    if !(1..=DETAIL_MAX).contains(&length) || new.detail.chars().any(char::is_control) {
        return Err(Error::field("detail", format!("must be 1 to {DETAIL_MAX} characters without control characters")));
    }
    Ok(flows.store().write(Raise(new)).await?)
}

/// Lets payouts go on that this halt has stopped. Answers whether it was in force.
///
/// # Errors
/// When the store can't be used.
pub async fn clear(flows: &Flows, scope: Scope, reason: String, by: String) -> Result<bool, Error> {
    Ok(flows.store().write(Clear { scope, reason, by }).await?)
}

struct Raise(NewHalt);

#[async_trait]
impl Write for Raise {
    type Output = bool;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let NewHalt { scope, reason, detail, by } = &self.0;
        let is_new = halts::raise_for(tx, scope, reason, detail).await?;
        if is_new {
            note(tx, "operator.halt_raised", scope, json!({ "reason": reason, "detail": detail, "by": by })).await?;
        }
        Ok(is_new)
    }
}

struct Clear {
    scope: Scope,
    reason: String,
    by: String,
}

#[async_trait]
impl Write for Clear {
    type Output = bool;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let was_there = halts::clear_for(tx, &self.scope, &self.reason).await?;
        if was_there {
            let data = json!({ "reason": self.reason, "by": self.by });
            note(tx, "operator.halt_cleared", &self.scope, data).await?;
        }
        Ok(was_there)
    }
}

async fn note(
    tx: &mut Tx<'_>,
    kind: &'static str,
    scope: &Scope,
    mut data: serde_json::Value,
) -> Result<(), StoreError> {
    let (of, subject) = scope.parts();
    data["scope"] = json!(of);
    data["subject"] = json!((!subject.is_empty()).then_some(subject));
    events::append(tx, None, None, &EventNote { kind, data }).await
}
