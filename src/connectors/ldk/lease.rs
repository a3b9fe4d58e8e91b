//! Whether this process still is the one that runs the node. Two that run it lose its channels.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::counter::Counter;
use super::types::lock;
use crate::clock::Timestamp;
use crate::store::node::{Commit, Step};
use crate::store::owners::Ownership;
use crate::store::{Store, StoreError};

/// How old the last proof may be for a connection to a peer to be made on it.
const FRESH: Duration = Duration::from_millis(500);
/// How old it becomes before it is renewed.
const RENEW_AFTER: Duration = Duration::from_secs(2);
/// How long a connection waits for a new proof.
const PROVE_WITHIN: Duration = Duration::from_secs(5);
/// How long after a failed commit it is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How often the same steps are given to a database that answers and refuses them: half a minute, and what each try takes.
const REFUSALS: u32 = 300;

pub struct Lease {
    store: Store,
    owner: Ownership,
    /// Where the database is a server: it may be replaced by an older copy of itself.
    counter: Option<Counter>,
    /// When the last write began that found us the owner, by a clock that never jumps and by the one others judge us by.
    proven: Mutex<(Instant, Timestamp)>,
}

impl Lease {
    #[must_use]
    pub fn new(store: Store, owner: Ownership, counter: Option<Counter>) -> Self {
        let proven = Mutex::new((Instant::now(), store.clock().now()));
        Self { store, owner, counter, proven }
    }

    /// Makes these steps durable, however long the database is away: nothing that depends on them happens meanwhile. Ends
    /// the process when somebody else runs the node by now, or the database can't hold it or has lost what it held.
    pub async fn commit(&self, mut steps: Vec<Step>) {
        let counter = self.counter.as_ref().filter(|_| !steps.is_empty());
        steps.extend(self.counter.as_ref().map(|all| if counter.is_some() { all.step() } else { all.proof() }));
        let steps = Arc::new(steps);
        let mut refused: u32 = 0;
        while let Err(error) = self.write(Arc::clone(&steps)).await {
            refused = refused.saturating_add(u32::from(matches!(error, StoreError::Sql(_))));
            if !is_worth_another_try(&error, refused) {
                die(&format!("the node's state can't be stored: {error}"));
            }
            tracing::warn!(%error, "the node's state could not be stored: it waits");
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        if let Some(counter) = counter {
            counter.counted().await;
        }
    }

    /// # Errors
    /// When the database did not take it, or says that we are not the owner.
    pub async fn write(&self, steps: Arc<Vec<Step>>) -> Result<(), StoreError> {
        let began = (Instant::now(), self.store.clock().now());
        match self.store.write(Commit { owner: self.owner.clone(), steps }).await {
            Ok(()) => {
                *lock(&self.proven) = began;
                Ok(())
            }
            Err(StoreError::Fenced { .. }) => die("another process runs the node"),
            Err(StoreError::Corrupt(why)) => die(&why),
            Err(error) => Err(error),
        }
    }

    #[must_use]
    pub fn is_due(&self) -> bool {
        self.age() >= RENEW_AFTER
    }

    /// Whether we are certainly the owner now. Asked before a connection is made or taken: the first thing said on it is how
    /// our channels stand, and an old answer closes them.
    pub async fn holds(&self) -> bool {
        if self.age() < FRESH {
            return true;
        }
        let proof = self.write(Arc::new(self.counter.iter().map(Counter::proof).collect()));
        matches!(tokio::time::timeout(PROVE_WITHIN, proof).await, Ok(Ok(())))
    }

    /// The larger of both clocks' answers: one of them stands still while the machine is suspended.
    fn age(&self) -> Duration {
        let (instant, time) = *lock(&self.proven);
        let millis = self.store.clock().now().millis().saturating_sub(time.millis());
        let by_wall = u64::try_from(millis).map_or(Duration::MAX, Duration::from_millis);
        instant.elapsed().max(by_wall)
    }
}

/// What a busy database refuses (a deadlock, a statement that took too long) it takes later. What it refuses again and again it never takes,
/// and a new process may have something else to write.
fn is_worth_another_try(error: &StoreError, refused: u32) -> bool {
    match error {
        StoreError::Unavailable(_) | StoreError::InDoubt(_) | StoreError::Conflict(_) => true,
        StoreError::Sql(_) => refused < REFUSALS,
        StoreError::Fenced { .. }
        | StoreError::Ledger(_)
        | StoreError::Corrupt(_)
        | StoreError::Illegal(_)
        | StoreError::WrongNetwork { .. }
        | StoreError::Locked(_)
        | StoreError::Misconfigured(_) => false,
    }
}

/// Ends the process at once: what it does next could only be wrong.
pub fn die(why: &str) -> ! {
    tracing::error!("the Lightning node ends the process: {why}");
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_absent_database_does_not_take_is_tried_again_and_what_is_wrong_is_not() {
        assert!(is_worth_another_try(&StoreError::Unavailable(String::new()), REFUSALS));
        assert!(!is_worth_another_try(&StoreError::Fenced { role: "node" }, 0));
        assert!(!is_worth_another_try(&StoreError::Corrupt(String::new()), 0));
    }
}
