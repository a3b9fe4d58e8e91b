//! Holding a role for the whole gateway: taking it, saying that we live, giving it back.
//!
//! This is a task of its own, so that a node that hangs does not cost us the role.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use uuid::Uuid;

use super::supervise::{Next, Worker};
use crate::crash;
use crate::flows::{Error, Flows};
use crate::store::owners::{self, Acquire, LEASE, Ownership, Renew, Resign, Role};
use crate::store::{Engine, StoreError};

/// Two renewals may fail before the lease is over.
const RENEW_EVERY: Duration = match LEASE.checked_div(3) {
    Some(third) => third,
    None => LEASE,
};
/// How often a role that another process holds is asked for.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What the role's workers see: the proof of ownership, as long as we have it.
pub(super) type Held = watch::Receiver<Option<Ownership>>;

pub(super) struct Keeper {
    flows: Flows,
    role: Role,
    holder: String,
    ownership: watch::Sender<Option<Ownership>>,
    is_first_round: bool,
}

impl Keeper {
    pub(super) fn new(flows: &Flows, role: Role) -> Self {
        let holder = Uuid::new_v4().to_string();
        Self { flows: flows.clone(), role, holder, ownership: watch::channel(None).0, is_first_round: true }
    }

    pub(super) fn held(&self) -> Held {
        self.ownership.subscribe()
    }

    /// On SQLite the file's lock proves that no other process lives, so a lease that a killed one left need not be waited out.
    async fn clear_a_dead_holder(&self) -> Result<(), StoreError> {
        match self.flows.store().engine() {
            Engine::Postgres => Ok(()),
            Engine::Sqlite => {
                let mut conn = self.flows.store().read().await?;
                let dead = owners::current(&mut conn, self.role).await?;
                drop(conn);
                match dead {
                    Some(dead) => self.flows.store().write(Resign(dead)).await,
                    None => Ok(()),
                }
            }
        }
    }
}

#[async_trait]
impl Worker for Keeper {
    fn name(&self) -> &'static str {
        match self.role {
            Role::Chain => "role.chain",
            Role::Sequencer => "role.sequencer",
            Role::Node => "role.node",
        }
    }

    async fn round(&mut self) -> Result<Next, Error> {
        if self.is_first_round {
            self.clear_a_dead_holder().await?;
            self.is_first_round = false;
        }
        let held = self.ownership.borrow().clone();
        if let Some(ownership) = held {
            self.flows.store().write(Renew(ownership)).await?;
            return Ok(Next::After(RENEW_EVERY));
        }
        let acquire = Acquire { role: self.role, holder: self.holder.clone() };
        let Some(ownership) = self.flows.store().write(acquire).await? else { return Ok(Next::After(ASK_EVERY)) };
        crash::point("role.acquired");
        tracing::info!(role = self.role.as_str(), epoch = ownership.epoch, "this process holds the role now");
        self.ownership.send_replace(Some(ownership));
        Ok(Next::After(RENEW_EVERY))
    }

    async fn leave(&mut self) {
        let Some(ownership) = self.ownership.send_replace(None) else { return };
        if let Err(error) = self.flows.store().write(Resign(ownership)).await {
            tracing::warn!(%error, role = self.role.as_str(), "the role could not be given back; it will lapse");
        }
    }
}

/// The ownership, once there is one; waits at most so long.
pub(super) async fn wait(held: &mut Held, span: Duration) -> Option<Ownership> {
    match tokio::time::timeout(span, held.wait_for(Option::is_some)).await {
        Ok(Ok(ownership)) => ownership.clone(),
        // Not in time, or the keeper has left.
        Ok(Err(_)) | Err(_) => None,
    }
}
