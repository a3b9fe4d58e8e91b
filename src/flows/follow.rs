//! Following the chain: one stream of blocks and mempool for all wallets. One block is one transaction.

use std::collections::{BTreeSet, HashSet};

use async_trait::async_trait;
use bitcoin::{Block, OutPoint, ScriptBuf, Transaction, Txid};

use super::ingest::{self, Sighting, Watched};
use super::{Error, Flows, Policy, mempool};
use crate::crash;
use crate::domain::Effect;
use crate::domain::asset_receive::{self, AssetReceive};
use crate::domain::credit::{self, Credit};
use crate::domain::deposit::{self, Deposit};
use crate::domain::onchain_send::{self, OnchainSend, State};
use crate::domain::withdraw::{self, Withdraw};
use crate::ids::RequestId;
use crate::ports::PortError;
use crate::ports::chain::{BlockRef, ChainInfo};
use crate::store::asset_transfers::{self, InBlock};
use crate::store::chain::{self, Status, TxRow};
use crate::store::owners::{self, Ownership};
use crate::store::requests::{self, AnyRequest};
use crate::store::{Conn, StoreError, Tx, Write, apply, credits, effects, halts, issued, ledger, wallets, withdrawals};

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
            None if info.syncing || is_known(flows, info.tip).await? => Progress::CaughtUp,
            Some(_) | None => backward(flows, owner, at).await?,
        },
    };
    flows.inner.moved.notify_waiters();
    Ok(progress)
}

/// Whether this is a block that we have followed: a node whose tip it is has lost its last blocks, or put none in their place yet.
async fn is_known(flows: &Flows, block: BlockRef) -> Result<bool, Error> {
    let mut conn = flows.store().read().await?;
    Ok(chain::block_at(&mut conn, block.height).await? == Some(block))
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
    let furthest = flows.policy().reorg_max.saturating_mul(2);
    for height in tip.height.saturating_sub(furthest)..tip.height {
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
        return if info.syncing { Ok(Progress::CaughtUp) } else { mempool::look(flows, owner, at).await };
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
        chain::write_alone(tx).await?;
        chain::move_cursor(tx, Some(self.from), self.to).await?;
        let mined_at = i64::from(self.block.header.time);
        let policy = self.flows.policy();
        chain::insert_block(tx.conn(), self.to, mined_at, remembered(policy)).await?;
        // What is taken in may widen what is watched, and so make more of the same block ours.
        while self.take_in_relevant(tx, mined_at).await? == Watched::More {}
        self.displace_waiting(tx).await?;
        self.note_withdrawals(tx).await?;
        self.note_transfers(tx).await?;
        confirm_deep(tx, self.to.height, &self.flows).await?;
        let now = tx.now();
        effects::wake_all(tx.conn(), now).await
    }
}

impl Connect {
    async fn take_in_relevant(&self, tx: &mut Tx<'_>, mined_at: i64) -> Result<Watched, StoreError> {
        let mut watched = Watched::Same;
        for place in relevant(tx.conn(), &self.block.txdata).await? {
            let Some(transaction) = self.block.txdata.get(place) else { continue };
            let sighting = Sighting::mined(self.to.height, mined_at, transaction.is_coinbase());
            let (policy, network) = (self.flows.policy(), self.flows.network());
            watched = watched.or(ingest::take_in(tx, policy, network, transaction, sighting).await?);
        }
        Ok(watched)
    }

    /// What the node has sent for a wallet is in the block.
    async fn note_withdrawals(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let waiting = withdrawals::unmined(tx.conn()).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        for transaction in &self.block.txdata {
            let txid = transaction.compute_txid();
            if let Some(id) = waiting.get(&txid) {
                // Whichever version it is.
                let moved = apply::advance::<Withdraw>(tx, *id, &withdraw::Event::Replaced { txid }).await?;
                withdrawals::stand(tx, txid, *id, &moved.wallet).await?;
                withdrawals::set_height(tx.conn(), *id, Some(self.to.height)).await?;
                apply::advance::<Withdraw>(tx, *id, &withdraw::Event::Mined { height: self.to.height }).await?;
            }
        }
        Ok(())
    }

    /// Transfers of assets that the block holds. One that pays a coin which its payee has touches no wallet that could be seen.
    async fn note_transfers(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let waiting = asset_transfers::unmined(tx.conn()).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        let here: HashSet<Txid> = self.block.txdata.iter().map(Transaction::compute_txid).collect();
        for transfer in waiting.iter().filter(|transfer| here.contains(&transfer.txid)) {
            note_transfer(tx, transfer, self.to.height).await?;
        }
        Ok(())
    }

    /// What waits and spends what the block spends, whoever owns that, can't be mined any more.
    async fn displace_waiting(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let waiting = chain::unmined(tx.conn()).await?;
        let replaced = mempool::replaced_by(&waiting, &self.block.txdata);
        for (txid, by) in replaced {
            let Some(rival) = self.block.txdata.iter().find(|rival| rival.compute_txid() == by) else { continue };
            // Kept although it touches no wallet: should its block be lost, what it displaced is free again.
            let sighting = Sighting::mined(self.to.height, i64::from(self.block.header.time), false);
            ingest::keep(tx, rival, sighting).await?;
            for id in ingest::doom(tx, vec![txid], by).await? {
                apply::advance::<OnchainSend>(tx, id, &onchain_send::Event::InputSpent { by, mined: true }).await?;
            }
        }
        Ok(())
    }
}

/// A block holds a transfer of assets.
pub(super) async fn note_transfer(tx: &mut Tx<'_>, transfer: &InBlock, height: u32) -> Result<(), StoreError> {
    asset_transfers::set_mined(tx, transfer.txid, height).await?;
    if let (Some(id), true) = (transfer.request, transfer.is_receive) {
        apply::advance::<AssetReceive>(tx, id, &asset_receive::Event::Mined { height }).await?;
    }
    Ok(())
}

/// The places of the transactions that touch a wallet, found with a few look-ups for all of them, whatever the number of wallets.
pub(super) async fn relevant(conn: &mut Conn, transactions: &[Transaction]) -> Result<Vec<usize>, StoreError> {
    let scripts: HashSet<ScriptBuf> =
        transactions.iter().flat_map(|tx| tx.output.iter().map(|out| out.script_pubkey.clone())).collect();
    let scripts: Vec<ScriptBuf> = scripts.into_iter().collect();
    let mut ours: HashSet<ScriptBuf> = HashSet::new();
    if credits::any_bound(conn).await? {
        ours.extend(credits::bound_among(conn, &scripts).await?.into_iter().map(|bound| bound.script));
    }
    let scripts: Vec<ScriptBuf> = scripts.into_iter().filter(|script| script.is_p2tr()).collect();
    ours.extend(wallets::scripts_among(conn, &scripts).await?.into_iter().map(|known| known.script));
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
async fn confirm_deep(tx: &mut Tx<'_>, tip: u32, flows: &Flows) -> Result<(), StoreError> {
    let depth = |height: u32| tip.saturating_add(1).saturating_sub(height);
    let is_deep = |height: u32| depth(height) >= flows.confirmations();
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
            AnyRequest::Credit(request) => {
                let needed = flows.settle_confirmations(request.machine.amount);
                if request.machine.height().is_some_and(|height| depth(height) >= needed) {
                    apply::advance::<Credit>(tx, request.id, &credit::Event::Deep).await?;
                }
            }
            AnyRequest::Withdraw(request) => {
                if request.machine.height().is_some_and(is_deep) {
                    apply::advance::<Withdraw>(tx, request.id, &withdraw::Event::Deep).await?;
                }
            }
            AnyRequest::Address(_) | AnyRequest::Receive(_) | AnyRequest::Pay(_) | AnyRequest::AssetReceive(_) => {}
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
    // What the block had displaced may wait again without ever having been seen to leave.
    flows.forget_mempool();
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
        chain::write_alone(tx).await?;
        let height = self.block.height;
        let previous = chain::block_at(tx.conn(), height.saturating_sub(1)).await?;
        let previous =
            previous.ok_or_else(|| StoreError::Corrupt(format!("the block before {height} is not remembered")))?;
        chain::move_cursor(tx, Some(self.block), previous).await?;
        chain::remove_block(tx.conn(), height).await?;
        for row in chain::mined_at(tx.conn(), height).await? {
            unmine(tx, &row).await?;
        }
        for transfer in asset_transfers::mined_at(tx.conn(), height).await? {
            if let (Some(id), true) = (transfer.request, transfer.is_receive) {
                apply::advance::<AssetReceive>(tx, id, &asset_receive::Event::Unmined).await?;
            }
        }
        asset_transfers::set_reorged(tx, height).await?;
        for id in withdrawals::mined_at(tx.conn(), height).await? {
            withdrawals::set_height(tx.conn(), id, None).await?;
            apply::advance::<Withdraw>(tx, id, &withdraw::Event::Unmined).await?;
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
        if row.coinbase {
            // It belongs to its block, and can be in no other.
            apply::advance::<Deposit>(tx, id, &deposit::Event::Evicted).await?;
        }
    }
    for id in credits::of_transaction(tx.conn(), row.txid).await? {
        take_back(tx, id, row.coinbase).await?;
    }
    if let Some(version) = issued::by_txid(tx.conn(), row.txid).await? {
        apply::advance::<OnchainSend>(tx, version.request, &onchain_send::Event::Unmined { txid: row.txid }).await?;
        // No call is offering it, as the effect's lease presumes: the worker may, at once.
        effects::undo(tx, &Effect::Broadcast(row.txid)).await?;
    }
    free_rivals(tx, row.txid).await
}

/// The block that had brought a credit is gone: the wallet gives back what it has, and owes the rest.
async fn take_back(tx: &mut Tx<'_>, id: RequestId, is_coinbase: bool) -> Result<(), StoreError> {
    let Some(request) = requests::load::<Credit>(tx.conn(), id).await? else { return Ok(()) };
    // Nobody gives the wallet anything between this look and what follows from it.
    ledger::lock_wallet(tx, &request.wallet).await?;
    let available = ledger::available(tx.conn(), &request.wallet).await?;
    apply::advance::<Credit>(tx, id, &credit::Event::Unmined { available }).await?;
    if is_coinbase {
        apply::advance::<Credit>(tx, id, &credit::Event::Evicted).await?;
    }
    Ok(())
}

/// Requests that this transaction had displaced from the chain may go through again, and those that build on them.
pub(super) async fn free_rivals(tx: &mut Tx<'_>, txid: Txid) -> Result<(), StoreError> {
    let mut rivals: Vec<Txid> = chain::rivals(tx.conn(), txid).await?.into_iter().map(|rival| rival.txid).collect();
    rivals.extend(chain::replaced_by(tx.conn(), txid).await?);
    let displaced = ingest::with_descendants(tx, rivals).await?;
    let requests: BTreeSet<RequestId> =
        issued::among(tx.conn(), &displaced).await?.iter().map(|version| version.request).collect();
    for id in requests {
        apply::advance::<OnchainSend>(tx, id, &onchain_send::Event::InputFreed { by: txid }).await?;
    }
    Ok(())
}
