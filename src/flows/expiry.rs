//! What happens when time is up: addresses and invoices expire, and what nobody signed for gives back what it held.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{Error, Flows};
use crate::clock::Timestamp;
use crate::crash;
use crate::domain::Machine;
use crate::domain::address::{self, ReceiveAddress};
use crate::domain::asset_receive::{self, AssetReceive};
use crate::domain::credit::Credit;
use crate::domain::deposit::Deposit;
use crate::domain::onchain_send::{self, OnchainSend};
use crate::domain::pay::{self, Pay};
use crate::domain::receive::{self, Receive};
use crate::domain::withdraw::{self, Withdraw};
use crate::ids::RequestId;
use crate::store::{StoreError, Tx, Write, apply, requests};

/// Requests that one transaction expires.
const BATCH: u32 = 100;
/// How long a request that can't be expired rests at first, and at most.
const FIRST_REST: Duration = Duration::from_secs(10);
const LONGEST_REST: Duration = Duration::from_secs(3_600);

/// Requests that could not be expired: how often, and until when they are left alone.
#[derive(Default)]
pub(super) struct Stuck {
    all: Mutex<HashMap<RequestId, (u32, Timestamp)>>,
}

impl Stuck {
    fn resting(&self, now: Timestamp) -> HashSet<RequestId> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(_, (_, until))| *until > now).map(|(id, _)| *id).collect()
    }

    fn rest(&self, id: RequestId, now: Timestamp) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let (times, until) = all.entry(id).or_insert((0, now));
        *until = now.after(FIRST_REST.saturating_mul(1 << (*times).min(16)).min(LONGEST_REST));
        *times = times.saturating_add(1);
    }

    fn forget(&self, id: RequestId) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// Expires what is overdue; answers how many there were. One that can't be expired is left for later, and the others have their turn.
///
/// # Errors
/// When the store can't be used.
pub async fn expire_overdue(flows: &Flows) -> Result<usize, Error> {
    let resting = flows.stuck().resting(flows.now());
    let most = BATCH.saturating_add(u32::try_from(resting.len()).unwrap_or(u32::MAX));
    let mut conn = flows.store().read().await?;
    let mut overdue = requests::overdue(&mut conn, flows.now(), most).await?;
    drop(conn);
    overdue.retain(|(id, _)| !resting.contains(id));
    if overdue.is_empty() {
        return Ok(0);
    }
    let expired = match flows.store().write(Expire(overdue.clone())).await {
        Ok(()) => overdue.len(),
        Err(error) if is_of_a_row(&error) => one_by_one(flows, overdue).await?,
        Err(error) => return Err(error.into()),
    };
    if expired > 0 {
        crash::point("expiry.committed");
    }
    Ok(expired)
}

async fn one_by_one(flows: &Flows, overdue: Vec<(RequestId, String)>) -> Result<usize, Error> {
    let mut expired = 0_usize;
    for (id, kind) in overdue {
        match flows.store().write(Expire(vec![(id, kind)])).await {
            Ok(()) => {
                flows.stuck().forget(id);
                expired = expired.saturating_add(1);
            }
            Err(error) if is_of_a_row(&error) => {
                metrics::counter!("sluice_expiry_failures_total").increment(1);
                tracing::error!(%id, %error, "a request could not be expired; it is left for later");
                flows.stuck().rest(id, flows.now());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(expired)
}

/// Whether the fault may be that of one row, and another one goes through.
const fn is_of_a_row(error: &StoreError) -> bool {
    match error {
        StoreError::Ledger(_) | StoreError::Corrupt(_) | StoreError::Illegal(_) | StoreError::Sql(_) => true,
        StoreError::Unavailable(_)
        | StoreError::InDoubt(_)
        | StoreError::Conflict(_)
        | StoreError::Fenced { .. }
        | StoreError::WrongNetwork { .. }
        | StoreError::Locked(_)
        | StoreError::Misconfigured(_) => false,
    }
}

struct Expire(Vec<(RequestId, String)>);

#[async_trait]
impl Write for Expire {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        for (id, kind) in &self.0 {
            expire(tx, *id, kind).await?;
        }
        Ok(())
    }
}

/// An event that comes late changes nothing: what was signed or paid meanwhile stays as it is.
async fn expire(tx: &mut Tx<'_>, id: RequestId, kind: &str) -> Result<(), StoreError> {
    match kind {
        ReceiveAddress::KIND => apply::advance::<ReceiveAddress>(tx, id, &address::Event::TimedOut).await.map(drop),
        OnchainSend::KIND => apply::advance::<OnchainSend>(tx, id, &onchain_send::Event::TimedOut).await.map(drop),
        Receive::KIND => apply::advance::<Receive>(tx, id, &receive::Event::TimedOut).await.map(drop),
        Pay::KIND => apply::advance::<Pay>(tx, id, &pay::Event::TimedOut).await.map(drop),
        Withdraw::KIND => apply::advance::<Withdraw>(tx, id, &withdraw::Event::TimedOut).await.map(drop),
        AssetReceive::KIND => apply::advance::<AssetReceive>(tx, id, &asset_receive::Event::TimedOut).await.map(drop),
        // They wait for nobody, and have no time limit.
        Deposit::KIND | Credit::KIND => Ok(()),
        other => Err(StoreError::Corrupt(format!("a request has the unknown kind {other}"))),
    }
}
