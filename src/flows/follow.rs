//! Following the chain: one stream of blocks and mempool for all wallets. One block is one transaction.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::{Block, OutPoint, ScriptBuf, Transaction, Txid};

use super::ingest::{self, Sighting};
use super::{Error, Flows, Policy};
use crate::crash;
use crate::domain::Effect;
use crate::domain::deposit::{self, Deposit};
use crate::domain::onchain_send::{self, OnchainSend, State};
use crate::ids::RequestId;
use crate::ports::PortError;
use crate::ports::chain::{BlockRef, ChainInfo};
use crate::store::chain::{self, Status, TxRow};
use crate::store::owners::{self, Ownership};
use crate::store::requests::{self, AnyRequest};
use crate::store::{Conn, StoreError, Tx, Write, apply, effects, halts, issued, wallets};

/// Transactions of the mempool that are fetched with one call.
const FETCH: usize = 500;
/// Blocks that are remembered at least, to find where a reorganisation began.
const REMEMBER_AT_LEAST: u32 = 1_000;

/// What one step of the follower did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There may be more to do at once.
    Moved,
    /// The follower has seen what the node has; wait a little.
    CaughtUp,
    /// An operator has to decide first; see the halt that was raised.
    Halted,
}

/// Takes one step: connects or disconnects one block, or looks at the mempool.
///
/// # Errors
/// When the node or the store can't be used; `Fenced` when this process is no longer the owner.
pub async fn step(flows: &Flows, owner: &Ownership) -> Result<Progress, Error> {
    let info = flows.chain().info().await?;
    require_network(flows, &info)?;
    let mut conn = flows.store().read().await?;
    let cursor = chain::cursor(&mut conn).await?;
    drop(conn);
    let progress = match cursor {
        None => begin_at(flows, owner, info.tip).await?,
        Some(at) => match flows.chain().block_hash(at.height).await? {
            Some(hash) if hash == at.hash => forward(flows, owner, at, &info).await?,
            // A node that is still fetching blocks has not disagreed with us; it is only behind.
            None if info.syncing => Progress::CaughtUp,
            Some(_) | None => backward(flows, owner, at).await?,
        },
    };
    flows.inner.moved.notify_waiters();
    Ok(progress)
}

fn require_network(flows: &Flows, info: &ChainInfo) -> Result<(), PortError> {
    let expected = bitcoin::constants::genesis_block(flows.network()).block_hash();
    if info.genesis == expected {
        return Ok(());
    }
    let reason = format!("it is on the chain with genesis {}, not on {}", info.genesis, flows.network());
    Err(PortError::Misconfigured { service: "the Bitcoin node", reason })
}

fn remembered(policy: &Policy) -> u32 {
    policy.reorg_max.saturating_mul(2).max(REMEMBER_AT_LEAST)
}

// ---- the first block ----

/// A new database begins at the tip: nobody is registered yet, and a registration searches what was before. The blocks below
/// it are remembered all the same, because the tip may turn out not to be part of the chain.
async fn begin_at(flows: &Flows, owner: &Ownership, tip: BlockRef) -> Result<Progress, Error> {
    let mut below = Vec::new();
    for height in tip.height.saturating_sub(flows.policy().reorg_max)..tip.height {
        let Some(hash) = flows.chain().block_hash(height).await? else { return Ok(Progress::Moved) };
        below.push(BlockRef { height, hash });
    }
    let block = flows.chain().block(tip.hash).await?;
    if flows.chain().block_hash(tip.height).await? != Some(tip.hash) {
        // The chain changed between two questions: look again.
        return Ok(Progress::Moved);
    }
    let mined_at = i64::from(block.header.time);
    let keep = remembered(flows.policy());
    flows.store().write(BeginAt { owner: owner.clone(), tip, below, mined_at, keep }).await?;
    crash::point("follow.first_block_committed");
    Ok(Progress::Moved)
}

struct BeginAt {
    owner: Ownership,
    tip: BlockRef,
    below: Vec<BlockRef>,
    mined_at: i64,
    keep: u32,
}

#[async_trait]
impl Write for BeginAt {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        owners::fence(tx, &self.owner).await?;
        chain::move_cursor(tx, None, self.tip).await?;
        for block in &self.below {
            // Their times are not known and nobody asks for them: what happened in them is found by a search.
            chain::insert_block(tx.conn(), *block, 0, self.keep).await?;
        }
        chain::insert_block(tx.conn(), self.tip, self.mined_at, self.keep).await
    }
}

// ---- forward ----

async fn forward(flows: &Flows, owner: &Ownership, at: BlockRef, info: &ChainInfo) -> Result<Progress, Error> {
    if info.tip.height <= at.height {
        return if info.syncing { Ok(Progress::CaughtUp) } else { look_at_mempool(flows, owner, at).await };
    }
    let height = at.height + 1;
    let Some(hash) = flows.chain().block_hash(height).await? else { return Ok(Progress::Moved) };
    let block = flows.chain().block(hash).await?;
    if block.header.prev_blockhash != at.hash {
        // The chain changed between two questions: look again.
        return Ok(Progress::Moved);
    }
    let connect =
        Connect { flows: flows.clone(), owner: owner.clone(), from: at, to: BlockRef { height, hash }, block };
    flows.store().write(connect).await?;
    crash::point("follow.block_committed");
    Ok(Progress::Moved)
}

struct Connect {
    flows: Flows,
    owner: Ownership,
    from: BlockRef,
    to: BlockRef,
    block: Block,
}

#[async_trait]
impl Write for Connect {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        owners::fence(tx, &self.owner).await?;
        chain::move_cursor(tx, Some(self.from), self.to).await?;
        let mined_at = i64::from(self.block.header.time);
        let policy = self.flows.policy();
        chain::insert_block(tx.conn(), self.to, mined_at, remembered(policy)).await?;
        let relevant = relevant(tx.conn(), &self.block.txdata).await?;
        for place in relevant {
            let Some(transaction) = self.block.txdata.get(place) else { continue };
            let sighting = Sighting::mined(self.to.height, mined_at, transaction.is_coinbase());
            ingest::take_in(tx, policy, self.flows.network(), transaction, sighting).await?;
        }
        confirm_deep(tx, self.to.height, self.flows.confirmations()).await?;
        let now = tx.now();
        effects::wake_all(tx.conn(), now).await
    }
}

/// The places of the transactions that touch a wallet, found with a few look-ups for all of them, whatever the number of wallets.
async fn relevant(conn: &mut Conn, transactions: &[Transaction]) -> Result<Vec<usize>, StoreError> {
    let scripts: HashSet<ScriptBuf> =
        transactions.iter().flat_map(|tx| tx.output.iter().map(|out| out.script_pubkey.clone())).collect();
    let scripts: Vec<ScriptBuf> = scripts.into_iter().filter(|script| script.is_p2tr()).collect();
    let ours: HashSet<ScriptBuf> =
        wallets::scripts_among(conn, &scripts).await?.into_iter().map(|known| known.script).collect();
    let spent: Vec<OutPoint> =
        transactions.iter().flat_map(|tx| tx.input.iter().map(|input| input.previous_output)).collect();
    let mut coins: HashSet<OutPoint> =
        chain::coins_among(conn, &spent).await?.into_iter().map(|coin| coin.outpoint).collect();
    let mut places = Vec::new();
    for (place, transaction) in transactions.iter().enumerate() {
        let txid = transaction.compute_txid();
        let mut touches = transaction.input.iter().any(|input| coins.contains(&input.previous_output));
        for (vout, out) in (0u32..).zip(&transaction.output) {
            if ours.contains(&out.script_pubkey) {
                touches = true;
                // A later transaction of the same block may spend it.
                coins.insert(OutPoint { txid, vout });
            }
        }
        if touches {
            places.push(place);
        }
    }
    Ok(places)
}

/// Moves on what is buried deep enough now.
async fn confirm_deep(tx: &mut Tx<'_>, tip: u32, confirmations: u32) -> Result<(), StoreError> {
    let is_deep = |height: u32| tip.saturating_add(1).saturating_sub(height) >= confirmations;
    for request in requests::not_yet_deep(tx.conn()).await? {
        match request {
            AnyRequest::Send(request) => {
                if matches!(request.machine.state, State::Seen { height, .. } if is_deep(height)) {
                    apply::advance::<OnchainSend>(tx, request.id, &onchain_send::Event::Deep).await?;
                }
            }
            AnyRequest::Deposit(request) => {
                if matches!(request.machine.state, deposit::State::Mined { height } if is_deep(height)) {
                    apply::advance::<Deposit>(tx, request.id, &deposit::Event::Deep).await?;
                }
            }
            AnyRequest::Address(_) => {}
        }
    }
    Ok(())
}

// ---- backward ----

async fn backward(flows: &Flows, owner: &Ownership, at: BlockRef) -> Result<Progress, Error> {
    let fork = find_fork(flows, at).await?;
    let depth = fork.map(|fork| at.height - fork.height);
    if depth.is_none_or(|depth| depth > flows.policy().reorg_max) {
        let detail = match fork {
            Some(fork) => format!("block {} {} and everything after {} are gone", at.height, at.hash, fork.height),
            None => format!("block {} {} is gone, and so is every block that is remembered", at.height, at.hash),
        };
        let may_go_on = flows.store().write(RaiseHalt { owner: owner.clone(), detail }).await?;
        if fork.is_none() || !may_go_on {
            return Ok(Progress::Halted);
        }
    }
    flows.store().write(Disconnect { owner: owner.clone(), block: at }).await?;
    crash::point("follow.block_disconnected");
    Ok(Progress::Moved)
}

/// The last remembered block that the node still has in its chain.
async fn find_fork(flows: &Flows, at: BlockRef) -> Result<Option<BlockRef>, Error> {
    for height in (0..at.height).rev() {
        let mut conn = flows.store().read().await?;
        let Some(known) = chain::block_at(&mut conn, height).await? else { return Ok(None) };
        drop(conn);
        if flows.chain().block_hash(height).await? == Some(known.hash) {
            return Ok(Some(known));
        }
    }
    Ok(None)
}

/// Stops payouts for a reorganisation that is too deep. Answers whether an operator has just allowed it.
struct RaiseHalt {
    owner: Ownership,
    detail: String,
}

#[async_trait]
impl Write for RaiseHalt {
    type Output = bool;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        owners::fence(tx, &self.owner).await?;
        if halts::was_cleared_lately(tx, halts::DEEP_REORG).await? {
            return Ok(true);
        }
        halts::raise(tx, halts::DEEP_REORG, &self.detail).await?;
        Ok(false)
    }
}

struct Disconnect {
    owner: Ownership,
    block: BlockRef,
}

#[async_trait]
impl Write for Disconnect {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        owners::fence(tx, &self.owner).await?;
        let height = self.block.height;
        let previous = chain::block_at(tx.conn(), height.saturating_sub(1)).await?;
        let previous =
            previous.ok_or_else(|| StoreError::Corrupt(format!("the block before {height} is not remembered")))?;
        chain::move_cursor(tx, Some(self.block), previous).await?;
        chain::remove_block(tx.conn(), height).await?;
        for row in chain::mined_at(tx.conn(), height).await? {
            unmine(tx, &row).await?;
        }
        Ok(())
    }
}

/// Takes a transaction out of its block. It is presumed to wait for another; the mempool will tell.
async fn unmine(tx: &mut Tx<'_>, row: &TxRow) -> Result<(), StoreError> {
    let status = if row.coinbase { Status::Evicted } else { Status::Mempool };
    chain::set_status(tx, row.txid, status, None).await?;
    for id in chain::deposits_of(tx.conn(), row.txid).await? {
        apply::advance::<Deposit>(tx, id, &deposit::Event::Unmined).await?;
    }
    if let Some(version) = issued::by_txid(tx.conn(), row.txid).await? {
        apply::advance::<OnchainSend>(tx, version.request, &onchain_send::Event::Unmined { txid: row.txid }).await?;
    }
    free_rivals(tx, row.txid).await
}

/// Requests that this transaction had displaced from the chain may go through again.
async fn free_rivals(tx: &mut Tx<'_>, txid: Txid) -> Result<(), StoreError> {
    for id in rival_requests(tx, txid).await? {
        apply::advance::<OnchainSend>(tx, id, &onchain_send::Event::InputFreed { by: txid }).await?;
    }
    Ok(())
}

async fn rival_requests(tx: &mut Tx<'_>, txid: Txid) -> Result<Vec<RequestId>, StoreError> {
    let rivals: Vec<Txid> = chain::rivals(tx.conn(), txid).await?.iter().map(|rival| rival.txid).collect();
    Ok(issued::among(tx.conn(), &rivals).await?.iter().map(|version| version.request).collect())
}

// ---- mempool ----

async fn look_at_mempool(flows: &Flows, owner: &Ownership, at: BlockRef) -> Result<Progress, Error> {
    let mempool = flows.chain().mempool().await?;
    if mempool.tip != at {
        return Ok(Progress::Moved);
    }
    let seen = flows.mempool_seen();
    let fresh: Vec<Txid> = mempool.txids.iter().filter(|txid| !seen.contains(*txid)).copied().collect();
    let fresh = fetch_relevant(flows, &fresh).await?;
    let present = Arc::new(mempool.txids);
    if !fresh.is_empty() || any_status_differs(flows, &present).await? {
        let look =
            LookAtMempool { flows: flows.clone(), owner: owner.clone(), at, fresh, present: Arc::clone(&present) };
        flows.store().write(look).await?;
        crash::point("follow.mempool_committed");
    }
    flows.remember_mempool(&seen, present);
    Ok(Progress::CaughtUp)
}

/// Of these, the transactions that touch a wallet, parents first.
async fn fetch_relevant(flows: &Flows, fresh: &[Txid]) -> Result<Vec<Transaction>, Error> {
    let mut fetched = Vec::new();
    for chunk in fresh.chunks(FETCH) {
        fetched.extend(flows.chain().mempool_transactions(chunk).await?.into_iter().flatten());
    }
    let mut ordered = parents_first(fetched);
    let mut conn = flows.store().read().await?;
    let places: HashSet<usize> = relevant(&mut conn, &ordered).await?.into_iter().collect();
    let mut place = 0;
    ordered.retain(|_| {
        place += 1;
        places.contains(&(place - 1))
    });
    Ok(ordered)
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

/// Whether a transaction of ours has entered or left the mempool without being new to us.
async fn any_status_differs(flows: &Flows, present: &HashSet<Txid>) -> Result<bool, Error> {
    let mut conn = flows.store().read().await?;
    Ok(chain::unmined(&mut conn)
        .await?
        .iter()
        .any(|row| (row.status == Status::Mempool) != present.contains(&row.txid)))
}

struct LookAtMempool {
    flows: Flows,
    owner: Ownership,
    at: BlockRef,
    fresh: Vec<Transaction>,
    present: Arc<HashSet<Txid>>,
}

#[async_trait]
impl Write for LookAtMempool {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        owners::fence(tx, &self.owner).await?;
        chain::hold_cursor(tx, self.at).await?;
        for row in chain::unmined(tx.conn()).await? {
            match (row.status == Status::Mempool, self.present.contains(&row.txid)) {
                (true, false) => leave_mempool(tx, &row).await?,
                (false, true) => self.take_in(tx, row.raw.as_ref()).await?,
                (true, true) | (false, false) => {}
            }
        }
        for transaction in &self.fresh {
            self.take_in(tx, Some(transaction)).await?;
        }
        Ok(())
    }
}

impl LookAtMempool {
    async fn take_in(&self, tx: &mut Tx<'_>, transaction: Option<&Transaction>) -> Result<(), StoreError> {
        let Some(transaction) = transaction else { return Ok(()) };
        ingest::take_in(tx, self.flows.policy(), self.flows.network(), transaction, Sighting::mempool()).await
    }
}

/// A transaction has left the mempool and is in no block. One that a client signed here is offered again; another is gone.
async fn leave_mempool(tx: &mut Tx<'_>, row: &TxRow) -> Result<(), StoreError> {
    if let Some(version) = issued::by_txid(tx.conn(), row.txid).await? {
        let request = requests::load::<OnchainSend>(tx.conn(), version.request).await?;
        let wanted = request
            .is_some_and(|request| matches!(request.machine.state, State::Broadcast { txid, .. } if txid == row.txid));
        if wanted && version.signed_tx.is_some() {
            chain::set_status(tx, row.txid, Status::Offered, None).await?;
            return effects::undo(tx, &Effect::Broadcast(row.txid)).await;
        }
    }
    chain::set_status(tx, row.txid, Status::Evicted, None).await?;
    for id in chain::deposits_of(tx.conn(), row.txid).await? {
        apply::advance::<Deposit>(tx, id, &deposit::Event::Evicted).await?;
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
            effects::undo(tx, &Effect::Broadcast(rival.txid)).await?;
        }
    }
    free_rivals(tx, gone).await
}
