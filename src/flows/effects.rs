//! Doing what has to be done outside, once more where a flow could not.

use std::panic::AssertUnwindSafe;

use async_trait::async_trait;
use bitcoin::{Transaction, Txid};
use futures::FutureExt;

use super::assets::give_up;
use super::ingest::{self, Watched};
use super::{Code, Error, Flows, node, withdraw};
use crate::crash;
use crate::domain::Effect;
use crate::domain::onchain_send::{Event, OnchainSend, State};
use crate::ids::RequestId;
use crate::ports::PortError;
use crate::ports::chain::BroadcastOutcome;

use crate::store::chain;
use crate::store::effects::{self, Able, Due};
use crate::store::{StoreError, Tx, Write, apply, halts, issued, requests};

/// Effects that one call takes on.
const BATCH: u32 = 20;

/// Does what is due; answers how many effects that were. One that can't be carried out is left for later, and the others have their turn.
///
/// # Errors
/// When the store can't be used, or this process has lost its role. A node that does not answer is no error here: the effect stays due.
pub async fn run_due(flows: &Flows) -> Result<usize, Error> {
    let able = Able { node: flows.node().node().is_ok(), assets: flows.asset_engine().is_some() };
    let due = flows.store().write(ClaimDue { able }).await?;
    if !due.is_empty() {
        crash::point("effects.claimed");
    }
    for item in &due {
        let kind = item.key.split_once(':').map_or("", |(kind, _)| kind).to_owned();
        let done = AssertUnwindSafe(carry_out(flows, item)).catch_unwind().await;
        let outcome = if matches!(done, Ok(Ok(()))) { "done" } else { "failed" };
        metrics::counter!("sluice_effects_attempts_total", "kind" => kind, "outcome" => outcome).increment(1);
        let why = match done {
            Ok(Ok(())) => continue,
            Ok(Err(error @ Error::Store(StoreError::Fenced { .. }))) => return Err(error),
            Ok(Err(error)) => error.to_string(),
            Err(_panic) => "it panicked, which is a fault of this program".to_owned(),
        };
        tracing::error!(
            effect = item.key,
            attempts = item.attempts,
            why,
            "an effect could not be carried out; it is left for later"
        );
        flows.store().write(BackOff { due: item.clone(), why }).await?;
    }
    Ok(due.len())
}

async fn carry_out(flows: &Flows, item: &Due) -> Result<(), Error> {
    let Some((request, effect)) = &item.what else {
        return Err(StoreError::Corrupt(format!("the effect {}", item.key)).into());
    };
    match *effect {
        Effect::Broadcast(txid) => match still_wanted(flows, *request, txid).await? {
            Some(transaction) => offer(flows, *request, &transaction).await,
            None => Ok(flows.store().write(Finish(effect.clone())).await?),
        },
        Effect::Pay(request) => node::pay(flows, request).await.or_else(is_left_due),
        Effect::Withdraw(request) => withdraw::push(flows, request).await.or_else(is_left_due),
        Effect::GiveUp(request) => give_up::finish(flows, request).await.or_else(is_left_due),
        Effect::Claim(hash) => node::claim_of(flows, hash, *request).await.or_else(is_left_due),
    }
}

struct BackOff {
    due: Due,
    why: String,
}

#[async_trait]
impl Write for BackOff {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        effects::back_off(tx, &self.due, &self.why).await
    }
}

/// A node that can't be asked now is asked when the effect's lease is over.
fn is_left_due(error: Error) -> Result<(), Error> {
    match error {
        Error::Node(why) => {
            tracing::warn!(%why, "the node can't be asked now; it is asked again");
            Ok(())
        }
        Error::Assets(why) => {
            tracing::warn!(%why, "the engine for assets can't be asked now; it is asked again");
            Ok(())
        }
        Error::Refused { code: Code::LightningNotReady | Code::LightningUnavailable | Code::PayoutsHalted, .. } => {
            Ok(())
        }
        other => Err(other),
    }
}

/// Makes due what an earlier process had begun: what was promised goes out at the next start, not when its lease is over.
///
/// # Errors
/// When the store can't be used.
pub async fn take_over(flows: &Flows) -> Result<(), Error> {
    Ok(flows.store().write(TakeOver).await?)
}

struct TakeOver;

#[async_trait]
impl Write for TakeOver {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        effects::take_over(tx).await
    }
}

/// The signed transaction, as long as it is the version that stands for its request and is in no block.
async fn still_wanted(flows: &Flows, request: RequestId, txid: Txid) -> Result<Option<Transaction>, Error> {
    let mut conn = flows.store().read().await?;
    let Some(request) = requests::load::<OnchainSend>(&mut conn, request).await? else { return Ok(None) };
    if !matches!(request.machine.state, State::Broadcast { txid: current, .. } if current == txid) {
        return Ok(None);
    }
    Ok(issued::by_txid(&mut conn, txid).await?.and_then(|version| version.signed_tx))
}

/// Offers a transaction to the network and writes down what the node said. What it said moves no money: only a block does. While payouts
/// are stopped, what is in no mempool and no block stays here.
///
/// # Errors
/// When the store can't be used. The effect's row stays due then.
pub(super) async fn offer(flows: &Flows, request: RequestId, transaction: &Transaction) -> Result<(), Error> {
    let said = match why_it_waits(flows, request).await? {
        Some(reason) => Ok(BroadcastOutcome::Refused { reason }),
        None => flows.chain().broadcast(transaction).await,
    };
    crash::point("end.broadcast");
    let offered = Offered { flows: flows.clone(), request, transaction: transaction.clone(), said };
    if flows.store().write(offered).await? == Watched::More {
        flows.forget_mempool();
    }
    crash::point("effects.offered");
    Ok(())
}

/// A halt that was raised since the client signed holds it back, also what has left the mempool since: others may have it, and nothing is
/// lost when it waits.
async fn why_it_waits(flows: &Flows, request: RequestId) -> Result<Option<String>, Error> {
    let mut conn = flows.store().read().await?;
    let Some(request) = requests::load::<OnchainSend>(&mut conn, request).await? else { return Ok(None) };
    let halt = halts::stopping(&mut conn, &request.wallet).await?;
    Ok(halt.map(|halt| format!("payouts are stopped: {}", halt.reason)))
}

struct Offered {
    flows: Flows,
    request: RequestId,
    transaction: Transaction,
    said: Result<BroadcastOutcome, PortError>,
}

#[async_trait]
impl Write for Offered {
    type Output = Watched;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Watched, StoreError> {
        chain::write_beside_others(tx).await?;
        let mut watched = Watched::Same;
        let txid = self.transaction.compute_txid();
        let effect = Effect::Broadcast(txid);
        match &self.said {
            Ok(BroadcastOutcome::InMempool) => {
                let (policy, network) = (self.flows.policy(), self.flows.network());
                watched = ingest::take_in(tx, policy, network, &self.transaction, ingest::Sighting::mempool()).await?;
                self.tell(tx, Event::Accepted { txid }).await?;
                effects::done(tx, &effect).await?;
            }
            // The follower will read that block, unless it is gone before: only what was read ends the effect.
            Ok(BroadcastOutcome::InChain) => effects::postpone(tx, &effect, "in a block that is not read yet").await?,
            Ok(BroadcastOutcome::Refused { reason }) => {
                self.tell(tx, Event::Refused { txid, reason: reason.clone() }).await?;
                effects::postpone(tx, &effect, reason).await?;
            }
            Err(error) => {
                self.tell(tx, Event::Refused { txid, reason: error.to_string() }).await?;
                effects::postpone(tx, &effect, &error.to_string()).await?;
            }
        }
        Ok(watched)
    }
}

impl Offered {
    async fn tell(&self, tx: &mut Tx<'_>, event: Event) -> Result<(), StoreError> {
        apply::advance::<OnchainSend>(tx, self.request, &event).await.map(drop)
    }
}

struct ClaimDue {
    able: Able,
}

#[async_trait]
impl Write for ClaimDue {
    type Output = Vec<Due>;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Vec<Due>, StoreError> {
        effects::claim_due(tx, BATCH, self.able).await
    }
}

struct Finish(Effect);

#[async_trait]
impl Write for Finish {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        effects::done(tx, &self.0).await
    }
}
