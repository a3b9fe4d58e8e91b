//! Looking at the mempool: what is new in it, what has left it, and what took its place.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::{OutPoint, Transaction, Txid};

use super::follow::{Progress, free_rivals, relevant};
use super::ingest::{self, Sighting, Watched};
use super::{Error, Flows};
use crate::crash;
use crate::domain::Effect;
use crate::domain::credit::{self, Credit};
use crate::domain::deposit::{self, Deposit};
use crate::domain::onchain_send::{OnchainSend, State};
use crate::ports::chain::BlockRef;
use crate::store::chain::{self, Status, TxRow};
use crate::store::owners::{self, Ownership};
use crate::store::requests;
use crate::store::{StoreError, Tx, Write, apply, credits, effects, issued};

/// Transactions of the mempool that are fetched with one call.
const FETCH: usize = 500;

/// Takes in what has changed in the mempool since it was last looked at.
pub(super) async fn look(flows: &Flows, owner: &Ownership, at: BlockRef) -> Result<Progress, Error> {
    // Read first: what is written after this may be newer than the node's answer.
    let mut conn = flows.store().read().await?;
    let waiting = chain::unmined(&mut conn).await?;
    drop(conn);
    let mempool = flows.chain().mempool().await?;
    if mempool.tip != at {
        return Ok(Progress::Moved);
    }
    let seen = flows.mempool_seen(owner);
    let fresh: Vec<Txid> = mempool.txids.iter().filter(|txid| !seen.contains(*txid)).copied().collect();
    let mut present = mempool.txids;
    let is_leaving = |row: &&TxRow| row.status == Status::Mempool && !present.contains(&row.txid);
    let leaving: Vec<TxRow> = waiting.iter().filter(is_leaving).cloned().collect();
    let differs = waiting.iter().any(|row| (row.status == Status::Mempool) != present.contains(&row.txid));
    let fetched = fetch(flows, &fresh, &leaving).await?;
    for missed in fetched.missed {
        // It left before it could be read; should it come back it is as new as ever.
        present.remove(&missed);
    }
    let mut present = Arc::new(present);
    let mut progress = Progress::CaughtUp;
    if !fetched.relevant.is_empty() || differs {
        let look = Look {
            flows: flows.clone(),
            owner: owner.clone(),
            at,
            before: waiting.iter().map(|row| (row.txid, row.status)).collect(),
            fresh: fetched.relevant,
            replaced: fetched.replaced,
            present: Arc::clone(&present),
        };
        let (watched, too_early) = flows.store().write(look).await?;
        crash::point("follow.mempool_committed");
        if !too_early.is_empty() {
            // As if they had not been seen: the next look decides.
            progress = Progress::Moved;
            Arc::make_mut(&mut present).retain(|txid| !too_early.contains(txid));
        }
        if watched == Watched::More {
            // There may be payments to what is watched only since now.
            flows.forget_mempool();
            return Ok(Progress::Moved);
        }
    }
    flows.remember_mempool(owner, &seen, present);
    Ok(progress)
}

/// What is new in the mempool and means something here.
struct Fetched {
    /// Transactions that touch a wallet, parents first.
    relevant: Vec<Transaction>,
    /// Of those that have left: what spends their inputs now.
    replaced: HashMap<Txid, Txid>,
    missed: Vec<Txid>,
}

async fn fetch(flows: &Flows, fresh: &[Txid], leaving: &[TxRow]) -> Result<Fetched, Error> {
    let mut all = Vec::new();
    let mut missed = Vec::new();
    for chunk in fresh.chunks(FETCH) {
        let answers = flows.chain().mempool_transactions(chunk).await?;
        for (txid, answer) in chunk.iter().zip(answers) {
            match answer {
                Some(transaction) => all.push(transaction),
                None => missed.push(*txid),
            }
        }
    }
    let replaced = replaced_by(leaving, &all).into_iter().collect();
    let mut ordered = parents_first(all);
    let mut conn = flows.store().read().await?;
    let places: HashSet<usize> = relevant(&mut conn, &ordered).await?.into_iter().collect();
    let mut place = 0;
    ordered.retain(|_| {
        place += 1;
        places.contains(&(place - 1))
    });
    Ok(Fetched { relevant: ordered, replaced, missed })
}

/// Of transactions that wait or waited, those whose inputs another transaction spends: each with that other.
pub(super) fn replaced_by(waiting: &[TxRow], others: &[Transaction]) -> Vec<(Txid, Txid)> {
    if waiting.is_empty() {
        return Vec::new();
    }
    let mut wanted: HashMap<OutPoint, Vec<Txid>> = HashMap::new();
    for row in waiting {
        for input in row.raw.iter().flat_map(|raw| &raw.input) {
            wanted.entry(input.previous_output).or_default().push(row.txid);
        }
    }
    let mut replaced = Vec::new();
    for other in others {
        let losers: HashSet<Txid> =
            other.input.iter().filter_map(|input| wanted.get(&input.previous_output)).flatten().copied().collect();
        if losers.is_empty() {
            continue;
        }
        let by = other.compute_txid();
        replaced.extend(losers.into_iter().filter(|loser| *loser != by).map(|loser| (loser, by)));
    }
    replaced
}

fn parents_first(transactions: Vec<Transaction>) -> Vec<Transaction> {
    let mut waiting: HashMap<Txid, Transaction> = transactions.into_iter().map(|tx| (tx.compute_txid(), tx)).collect();
    let mut ordered = Vec::with_capacity(waiting.len());
    let mut stack: Vec<Txid> = waiting.keys().copied().collect();
    while let Some(txid) = stack.last().copied() {
        let parent = waiting.get(&txid).and_then(|tx| {
            tx.input.iter().map(|input| input.previous_output.txid).find(|parent| waiting.contains_key(parent))
        });
        match parent {
            Some(parent) => stack.push(parent),
            None => {
                stack.pop();
                ordered.extend(waiting.remove(&txid));
            }
        }
    }
    ordered
}

struct Look {
    flows: Flows,
    owner: Ownership,
    at: BlockRef,
    /// What waited before the node was asked.
    before: HashMap<Txid, Status>,
    fresh: Vec<Transaction>,
    replaced: HashMap<Txid, Txid>,
    present: Arc<HashSet<Txid>>,
}

#[async_trait]
impl Write for Look {
    /// And the new ones that were left for the next look.
    type Output = (Watched, HashSet<Txid>);
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Output, StoreError> {
        let mut watched = Watched::Same;
        owners::fence(tx, &self.owner).await?;
        chain::write_alone(tx).await?;
        chain::hold_cursor(tx, self.at).await?;
        let (known, newer): (Vec<TxRow>, Vec<TxRow>) = chain::unmined(tx.conn())
            .await?
            .into_iter()
            .partition(|row| self.before.get(&row.txid) == Some(&row.status));
        let newer: HashSet<Txid> = newer.into_iter().map(|row| row.txid).collect();
        for row in known {
            match (row.status == Status::Mempool, self.present.contains(&row.txid)) {
                (true, false) => leave_mempool(tx, &row, self.replaced.get(&row.txid).copied()).await?,
                (false, true) => watched = watched.or(self.take_in(tx, row.raw.as_ref()).await?),
                (true, true) | (false, false) => {}
            }
        }
        let mut too_early = HashSet::new();
        for transaction in &self.fresh {
            if competes_with(tx, transaction, &newer).await? {
                too_early.insert(transaction.compute_txid());
            } else {
                watched = watched.or(self.take_in(tx, Some(transaction)).await?);
            }
        }
        Ok((watched, too_early))
    }
}

/// Whether it spends what one of these spends by what was written last. A call may have had one of them accepted since the node was asked for its
/// mempool, and so this one is not there any more.
async fn competes_with(tx: &mut Tx<'_>, transaction: &Transaction, newer: &HashSet<Txid>) -> Result<bool, StoreError> {
    if newer.is_empty() {
        return Ok(false);
    }
    let txid = transaction.compute_txid();
    let spent: Vec<OutPoint> = transaction.input.iter().map(|input| input.previous_output).collect();
    let coins = chain::coins_among(tx.conn(), &spent).await?;
    Ok(coins.iter().filter_map(|coin| coin.spent_by).any(|by| by != txid && newer.contains(&by)))
}

impl Look {
    async fn take_in(&self, tx: &mut Tx<'_>, transaction: Option<&Transaction>) -> Result<Watched, StoreError> {
        let Some(transaction) = transaction else { return Ok(Watched::Same) };
        ingest::take_in(tx, self.flows.policy(), self.flows.network(), transaction, Sighting::mempool()).await
    }
}

/// A transaction has left the mempool and is in no block. One that a client signed here is offered again; another is gone.
async fn leave_mempool(tx: &mut Tx<'_>, row: &TxRow, replaced_by: Option<Txid>) -> Result<(), StoreError> {
    if let Some(version) = issued::by_txid(tx.conn(), row.txid).await? {
        let request = requests::load::<OnchainSend>(tx.conn(), version.request).await?;
        let wanted = request
            .is_some_and(|request| matches!(request.machine.state, State::Broadcast { txid, .. } if txid == row.txid));
        if wanted && version.signed_tx.is_some() {
            chain::set_status(tx, row.txid, Status::Offered, None).await?;
            return effects::undo(tx, &Effect::Broadcast(row.txid)).await;
        }
    }
    if let Some(by) = replaced_by {
        ingest::displace(tx, row.txid, by).await?;
        return revive_rivals(tx, row.txid).await;
    }
    chain::set_status(tx, row.txid, Status::Evicted, None).await?;
    for id in chain::deposits_of(tx.conn(), row.txid).await? {
        apply::advance::<Deposit>(tx, id, &deposit::Event::Evicted).await?;
    }
    for id in credits::of_transaction(tx.conn(), row.txid).await? {
        apply::advance::<Credit>(tx, id, &credit::Event::Evicted).await?;
    }
    revive_rivals(tx, row.txid).await
}

/// What it had displaced and a client signed here counts again, and is offered again.
async fn revive_rivals(tx: &mut Tx<'_>, gone: Txid) -> Result<(), StoreError> {
    for rival in chain::rivals(tx.conn(), gone).await? {
        let displaced = rival.status == Status::Replaced { by: gone };
        let signed = issued::by_txid(tx.conn(), rival.txid).await?.is_some_and(|version| version.signed_tx.is_some());
        if displaced && signed {
            chain::set_status(tx, rival.txid, Status::Offered, None).await?;
            for id in chain::deposits_of(tx.conn(), rival.txid).await? {
                apply::advance::<Deposit>(tx, id, &deposit::Event::Revived).await?;
            }
            for id in credits::of_transaction(tx.conn(), rival.txid).await? {
                apply::advance::<Credit>(tx, id, &credit::Event::Revived).await?;
            }
            effects::undo(tx, &Effect::Broadcast(rival.txid)).await?;
        }
    }
    free_rivals(tx, gone).await
}
