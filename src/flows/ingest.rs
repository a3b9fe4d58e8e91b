//! What one transaction means to the wallets it touches: coins made and spent, deposits, and the requests it moves.
//!
//! A transaction is taken in by the same steps wherever it was seen: offered by a client, in the mempool, in a block.

use std::collections::{BTreeSet, HashMap};

use bitcoin::{OutPoint, Transaction, Txid};

use super::Policy;
use super::address::extend_lookahead;
use crate::domain::Request;
use crate::domain::address::{self, ReceiveAddress};
use crate::domain::credit::{self, Credit};
use crate::domain::deposit::{self, Deposit};
use crate::domain::onchain_send::{self, OnchainSend};
use crate::domain::wallet::{WalletKeys, address_of};
use crate::ids::{RequestId, WalletId};
use crate::money::Sat;
use crate::store::chain::{self, Coin, Status, TxRow};
use crate::store::credits::{self, BoundAddress};
use crate::store::issued::{self, IssuedTx};
use crate::store::wallets::{self, KnownScript};
use crate::store::{Conn, StoreError, Tx, apply, leases, requests};

/// Where and how a transaction was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    pub status: Status,
    pub mined_at: Option<i64>,
    pub coinbase: bool,
}

impl Sighting {
    pub(super) const fn offered() -> Self {
        Self { status: Status::Offered, mined_at: None, coinbase: false }
    }

    pub(super) const fn mempool() -> Self {
        Self { status: Status::Mempool, mined_at: None, coinbase: false }
    }

    pub(super) const fn mined(height: u32, mined_at: i64, coinbase: bool) -> Self {
        Self { status: Status::Mined { height }, mined_at: Some(mined_at), coinbase }
    }
}

/// Whether more scripts are watched than before: what was read already may hold payments to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Watched {
    Same,
    More,
}

impl Watched {
    pub(super) fn or(self, other: Self) -> Self {
        if self == Self::More { self } else { other }
    }
}

/// What a transaction touches of ours.
pub(super) struct Touched {
    outputs: Vec<(OutPoint, Sat, KnownScript)>,
    /// Outputs to addresses of the node that are bound to a wallet.
    bound: Vec<(OutPoint, Sat, BoundAddress)>,
    inputs: Vec<Coin>,
    issued: Option<IssuedTx>,
}

/// Writes down a transaction's coins, spends and status. Nothing when it touches no wallet.
pub(super) async fn record(
    tx: &mut Tx<'_>,
    transaction: &Transaction,
    sighting: Sighting,
) -> Result<Option<Touched>, StoreError> {
    let txid = transaction.compute_txid();
    let touched = touched(tx, transaction, txid).await?;
    if touched.outputs.is_empty() && touched.bound.is_empty() && touched.inputs.is_empty() {
        return Ok(None);
    }
    let is_beaten = |coin: &Coin| coin.spent_height.is_some() && coin.spent_by != Some(txid);
    if sighting.status.height().is_none() && touched.inputs.iter().any(is_beaten) {
        // A block has spent its coins: whoever saw it waiting saw that before.
        return Ok(None);
    }
    // Writing comes before reading: it keeps others from changing the row in between.
    chain::insert_tx(tx, &row_of(transaction, txid, sighting, tx.now())).await?;
    if is_known_better(tx, txid, sighting.status).await? {
        return Ok(Some(touched));
    }
    let mut concerned = BTreeSet::new();
    for coin in &touched.inputs {
        chain::insert_spend(tx, &coin.outpoint, txid).await?;
        concerned.insert(coin.wallet.clone());
    }
    void_own_deposits(tx, txid, &touched.inputs).await?;
    for (outpoint, amount, script) in &touched.outputs {
        let own = touched.issued.as_ref().is_some_and(|issued| issued.wallet == script.wallet);
        chain::insert_coin(tx, &coin_of(*outpoint, *amount, script, own, sighting.coinbase), sighting.status).await?;
        concerned.insert(script.wallet.clone());
    }
    for wallet in &concerned {
        chain::insert_wallet_tx(tx, wallet, txid).await?;
    }
    chain::set_status(tx, txid, sighting.status, sighting.mined_at).await?;
    Ok(Some(touched))
}

/// A coin may be found after the transaction that spends it: what that one pays to the same wallet was taken for money from outside.
async fn void_own_deposits(tx: &mut Tx<'_>, txid: Txid, inputs: &[Coin]) -> Result<(), StoreError> {
    if inputs.is_empty() {
        return Ok(());
    }
    for id in chain::deposits_of(tx.conn(), txid).await? {
        let deposit = requests::load::<Deposit>(tx.conn(), id).await?;
        if deposit.is_some_and(|deposit| inputs.iter().any(|coin| coin.wallet == deposit.wallet)) {
            apply::advance::<Deposit>(tx, id, &deposit::Event::FromItself).await?;
        }
    }
    Ok(())
}

/// A weaker sighting does not take back a stronger one: offering again what is in a block moves nothing.
async fn is_known_better(tx: &mut Tx<'_>, txid: Txid, status: Status) -> Result<bool, StoreError> {
    let rank = |status: Status| match status {
        Status::Evicted | Status::Replaced { .. } => 0,
        Status::Offered => 1,
        Status::Mempool => 2,
        Status::Mined { .. } => 3,
    };
    Ok(chain::find_tx(tx.conn(), txid).await?.is_some_and(|known| rank(known.status) > rank(status)))
}

async fn touched(tx: &mut Tx<'_>, transaction: &Transaction, txid: Txid) -> Result<Touched, StoreError> {
    let scripts: Vec<_> = transaction.output.iter().map(|out| out.script_pubkey.clone()).collect();
    let known: HashMap<_, _> = wallets::scripts_among(tx.conn(), &scripts)
        .await?
        .into_iter()
        .map(|known| (known.script.clone(), known))
        .collect();
    let spent: Vec<OutPoint> = transaction.input.iter().map(|input| input.previous_output).collect();
    let inputs = chain::coins_among(tx.conn(), &spent).await?;
    let bound: HashMap<_, _> = credits::bound_among(tx.conn(), &scripts)
        .await?
        .into_iter()
        .map(|bound| (bound.script.clone(), bound))
        .collect();
    let mut touched = Touched { outputs: Vec::new(), bound: Vec::new(), inputs, issued: None };
    for (vout, out) in (0u32..).zip(&transaction.output) {
        let outpoint = OutPoint { txid, vout };
        let amount = || Sat::try_from(out.value).map_err(|_| StoreError::Corrupt(format!("{outpoint} is too large")));
        if let Some(script) = known.get(&out.script_pubkey) {
            touched.outputs.push((outpoint, amount()?, script.clone()));
        }
        if let Some(address) = bound.get(&out.script_pubkey) {
            touched.bound.push((outpoint, amount()?, address.clone()));
        }
    }
    if !touched.inputs.is_empty() {
        touched.issued = issued::by_txid(tx.conn(), txid).await?;
    }
    Ok(touched)
}

fn row_of(transaction: &Transaction, txid: Txid, sighting: Sighting, now: crate::clock::Timestamp) -> TxRow {
    TxRow {
        txid,
        raw: Some(transaction.clone()),
        status: sighting.status,
        mined_at: sighting.mined_at,
        coinbase: sighting.coinbase,
        first_seen_at: now,
    }
}

pub(super) fn coin_of(outpoint: OutPoint, amount: Sat, script: &KnownScript, own: bool, coinbase: bool) -> Coin {
    Coin {
        outpoint,
        wallet: script.wallet.clone(),
        account: script.account,
        index: script.index,
        script: script.script.clone(),
        amount,
        own,
        coinbase,
        live: true,
        in_mempool: false,
        height: None,
        spent_by: None,
        spent_height: None,
        leased_by: None,
    }
}

/// Takes in a transaction that the network shows: its facts, and everything that follows from them.
pub(super) async fn take_in(
    tx: &mut Tx<'_>,
    policy: &Policy,
    network: bitcoin::Network,
    transaction: &Transaction,
    sighting: Sighting,
) -> Result<Watched, StoreError> {
    let Some(touched) = record(tx, transaction, sighting).await? else { return Ok(Watched::Same) };
    let txid = transaction.compute_txid();
    let watched = skip_used_indexes(tx, policy, network, &touched).await?;
    displace_rivals(tx, txid, sighting.status, &touched).await?;
    move_own_request(tx, transaction, sighting.status, &touched).await?;
    note_deposits(tx, network, sighting.status, &touched).await?;
    note_credits(tx, sighting.status, &touched).await?;
    Ok(watched)
}

/// An index that was not issued here and is used all the same is never handed out; what lies beyond it is watched too.
async fn skip_used_indexes(
    tx: &mut Tx<'_>,
    policy: &Policy,
    network: bitcoin::Network,
    touched: &Touched,
) -> Result<Watched, StoreError> {
    let mut watched = Watched::Same;
    for (_, _, script) in &touched.outputs {
        let before = wallets::keychain(tx.conn(), &script.wallet, script.account).await?;
        if script.index < before.next_index {
            continue;
        }
        wallets::skip_to(tx, &script.wallet, script.account, script.index).await?;
        let keys = keys_of(tx, &script.wallet, network).await?;
        extend_lookahead(tx, &keys, script.account, script.index.saturating_add(1), policy.lookahead).await?;
        let after = wallets::keychain(tx.conn(), &script.wallet, script.account).await?;
        if after.derived_to > before.derived_to {
            watched = Watched::More;
        }
    }
    Ok(watched)
}

pub(super) async fn keys_of(
    tx: &mut Tx<'_>,
    wallet: &WalletId,
    network: bitcoin::Network,
) -> Result<WalletKeys, StoreError> {
    keys_among(tx.conn(), wallet, network).await
}

/// The keys of a wallet that is named somewhere, so that it must be there.
pub(super) async fn keys_among(
    conn: &mut Conn,
    wallet: &WalletId,
    network: bitcoin::Network,
) -> Result<WalletKeys, StoreError> {
    let row = wallets::find(conn, wallet).await?;
    let row = row.ok_or_else(|| StoreError::Corrupt(format!("wallet {wallet} is named but not there")))?;
    WalletKeys::parse(&row.xpub_van, &row.xpub_col, &row.fingerprint, network)
        .map_err(|e| StoreError::Corrupt(format!("keys of wallet {wallet}: {e}")))
}

/// Whatever else spends one of its coins is replaced, as long as the network shows this one. A block replaces for good, and
/// takes along what builds on the replaced.
async fn displace_rivals(tx: &mut Tx<'_>, txid: Txid, status: Status, touched: &Touched) -> Result<(), StoreError> {
    let own_request = touched.issued.as_ref().map(|issued| issued.request);
    let mined = status.height().is_some();
    let mut harmed: BTreeSet<RequestId> = BTreeSet::new();
    for coin in &touched.inputs {
        harmed.extend(leases::holder(tx.conn(), &coin.outpoint).await?);
    }
    let rivals = chain::rivals(tx.conn(), txid).await?;
    let mut doomed = Vec::new();
    for rival in &rivals {
        if let Some(version) = issued::by_txid(tx.conn(), rival.txid).await? {
            harmed.insert(version.request);
        }
        if rival.status.height().is_none() {
            doomed.push(rival.txid);
        }
    }
    if mined {
        harmed.extend(doom(tx, doomed, txid).await?);
    } else {
        displace_live(tx, &doomed, txid).await?;
    }
    for id in harmed {
        if Some(id) != own_request {
            let event = onchain_send::Event::InputSpent { by: txid, mined };
            apply::advance::<OnchainSend>(tx, id, &event).await?;
        }
    }
    Ok(())
}

/// A block has taken the place of these: they are gone, and so is all that builds on them. Answers the requests that suffer.
pub(super) async fn doom(tx: &mut Tx<'_>, roots: Vec<Txid>, by: Txid) -> Result<BTreeSet<RequestId>, StoreError> {
    let doomed = with_descendants(tx, roots).await?;
    let mut harmed: BTreeSet<RequestId> =
        issued::among(tx.conn(), &doomed).await?.iter().map(|version| version.request).collect();
    for dead in &doomed {
        harmed.extend(chain::coins_made_by(tx.conn(), *dead).await?.iter().filter_map(|coin| coin.leased_by));
    }
    displace_live(tx, &doomed, by).await?;
    Ok(harmed)
}

async fn displace_live(tx: &mut Tx<'_>, doomed: &[Txid], by: Txid) -> Result<(), StoreError> {
    for dead in doomed {
        if chain::find_tx(tx.conn(), *dead).await?.is_some_and(|row| row.status.is_live()) {
            displace(tx, *dead, by).await?;
        }
    }
    Ok(())
}

/// Writes a transaction down that touches no wallet.
pub(super) async fn keep(tx: &mut Tx<'_>, transaction: &Transaction, sighting: Sighting) -> Result<(), StoreError> {
    let txid = transaction.compute_txid();
    let row = row_of(transaction, txid, sighting, tx.now());
    chain::insert_tx(tx, &row).await?;
    chain::set_status(tx, txid, sighting.status, sighting.mined_at).await
}

/// Another transaction has taken the place of this one.
pub(super) async fn displace(tx: &mut Tx<'_>, txid: Txid, by: Txid) -> Result<(), StoreError> {
    chain::set_status(tx, txid, Status::Replaced { by }, None).await?;
    for id in chain::deposits_of(tx.conn(), txid).await? {
        apply::advance::<Deposit>(tx, id, &deposit::Event::Replaced { by }).await?;
    }
    for id in credits::of_transaction(tx.conn(), txid).await? {
        apply::advance::<Credit>(tx, id, &credit::Event::Replaced { by }).await?;
    }
    Ok(())
}

/// These transactions and everything of ours that spends what they make, whatever became of it.
pub(super) async fn with_descendants(tx: &mut Tx<'_>, roots: Vec<Txid>) -> Result<Vec<Txid>, StoreError> {
    let mut known: BTreeSet<Txid> = roots.iter().copied().collect();
    let mut all = roots;
    let mut next = 0;
    while let Some(txid) = all.get(next).copied() {
        next += 1;
        for child in chain::children(tx.conn(), txid).await? {
            if known.insert(child) {
                all.push(child);
            }
        }
    }
    Ok(all)
}

async fn move_own_request(
    tx: &mut Tx<'_>,
    transaction: &Transaction,
    status: Status,
    touched: &Touched,
) -> Result<(), StoreError> {
    let Some(issued) = &touched.issued else { return Ok(()) };
    let txid = issued.unsigned_txid;
    let event = match status {
        Status::Mempool if is_outbid(tx, issued).await? => return Ok(()),
        Status::Mempool => onchain_send::Event::InMempool { txid },
        Status::Mined { height } => onchain_send::Event::Mined { txid, height, role: issued.role },
        Status::Offered | Status::Evicted | Status::Replaced { .. } => return Ok(()),
    };
    // The network has shown the signatures: from now on it is ours to offer again, whoever sent it out first.
    let now = tx.now();
    issued::keep_signed(tx.conn(), txid, transaction, now).await?;
    apply::advance::<OnchainSend>(tx, issued.request, &event).await.map(drop)
}

/// Whether its request stands on a version that the client signed and that pays more: that one is offered until the network
/// takes it in the place of this one.
async fn is_outbid(tx: &mut Tx<'_>, seen: &IssuedTx) -> Result<bool, StoreError> {
    let Some(request) = requests::load::<OnchainSend>(tx.conn(), seen.request).await? else { return Ok(false) };
    let onchain_send::State::Broadcast { txid: current, .. } = request.machine.state else { return Ok(false) };
    let current = issued::by_txid(tx.conn(), current).await?;
    Ok(current.is_some_and(|current| current.signed_tx.is_some() && current.fee > seen.fee))
}

/// A deposit is an output to an address that was handed out for receiving, in a transaction that spends no coin of the same wallet.
async fn note_deposits(
    tx: &mut Tx<'_>,
    network: bitcoin::Network,
    status: Status,
    touched: &Touched,
) -> Result<(), StoreError> {
    let event = match status {
        Status::Mempool => deposit::Event::InMempool,
        Status::Mined { height } => deposit::Event::Mined { height },
        Status::Offered | Status::Evicted | Status::Replaced { .. } => return Ok(()),
    };
    for (outpoint, amount, script) in &touched.outputs {
        let from_itself = touched.inputs.iter().any(|coin| coin.wallet == script.wallet);
        if !script.is_receive {
            continue;
        }
        if from_itself {
            // No deposit, and yet the address has been seen by the world: it is not offered any more.
            if let Some(id) = script.request {
                apply::advance::<ReceiveAddress>(tx, id, &address::Event::Paid { outpoint: *outpoint }).await?;
            }
            continue;
        }
        let id = RequestId::of_deposit(&script.wallet, outpoint);
        if requests::load::<Deposit>(tx.conn(), id).await?.is_some() {
            apply::advance::<Deposit>(tx, id, &event).await?;
        } else {
            announce(tx, id, *outpoint, *amount, script, network, status).await?;
        }
    }
    Ok(())
}

async fn announce(
    tx: &mut Tx<'_>,
    id: RequestId,
    outpoint: OutPoint,
    amount: Sat,
    script: &KnownScript,
    network: bitcoin::Network,
    status: Status,
) -> Result<(), StoreError> {
    let state = match status {
        Status::Mined { height } => deposit::State::Mined { height },
        Status::Offered | Status::Mempool | Status::Evicted | Status::Replaced { .. } => deposit::State::Seen,
    };
    let address = address_of(&script.script, network);
    let machine = Deposit { outpoint, address, amount, address_request: script.request, state };
    let asked = match script.request {
        Some(id) => requests::load::<ReceiveAddress>(tx.conn(), id).await?,
        None => None,
    };
    let now = tx.now();
    let request = Request {
        id,
        wallet: script.wallet.clone(),
        reference: asked.as_ref().and_then(|asked| asked.reference.clone()),
        label: asked.as_ref().and_then(|asked| asked.label.clone()),
        created_at: now,
        updated_at: now,
        expires_at: None,
        version: 1,
        machine,
    };
    let first = request.machine.announce();
    apply::create(tx, request, first).await?;
    chain::insert_deposit(tx, &outpoint, id, &script.wallet, amount).await?;
    if let Some(asked) = asked {
        apply::advance::<ReceiveAddress>(tx, asked.id, &address::Event::Paid { outpoint }).await?;
    }
    Ok(())
}

/// Whoever paid an address of the node that is bound to a wallet: it is on its way to that wallet's off-chain money.
async fn note_credits(tx: &mut Tx<'_>, status: Status, touched: &Touched) -> Result<(), StoreError> {
    let event = match status {
        Status::Mempool => credit::Event::InMempool,
        Status::Mined { height } => credit::Event::Mined { height },
        Status::Offered | Status::Evicted | Status::Replaced { .. } => return Ok(()),
    };
    for (outpoint, amount, to) in &touched.bound {
        let id = RequestId::of_credit(&to.wallet, outpoint);
        if requests::load::<Credit>(tx.conn(), id).await?.is_some() {
            apply::advance::<Credit>(tx, id, &event).await?;
        } else {
            announce_credit(tx, id, *outpoint, *amount, to, status).await?;
        }
    }
    Ok(())
}

async fn announce_credit(
    tx: &mut Tx<'_>,
    id: RequestId,
    outpoint: OutPoint,
    amount: Sat,
    to: &BoundAddress,
    status: Status,
) -> Result<(), StoreError> {
    let state = match status {
        Status::Mined { height } => credit::State::Mined { height },
        Status::Offered | Status::Mempool | Status::Evicted | Status::Replaced { .. } => credit::State::Seen,
    };
    let (wallet, address) = (to.wallet.clone(), to.address.clone());
    let machine = Credit { request: id, wallet: wallet.clone(), outpoint, address, amount, times: 0, state };
    let now = tx.now();
    let (created_at, updated_at) = (now, now);
    let (reference, label, expires_at) = (None, None, None);
    let request = Request { id, wallet, reference, label, created_at, updated_at, expires_at, version: 1, machine };
    let first = request.machine.announce();
    apply::create(tx, request, first).await?;
    credits::insert(tx, &outpoint, id, to, amount).await
}
