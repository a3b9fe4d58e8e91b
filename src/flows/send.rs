//! Sending the client's own coins: `begin` chooses and sets aside, the client signs, `end` checks and broadcasts.

use std::ops::Range;
use std::str::FromStr;

use async_trait::async_trait;
use bitcoin::absolute::LockTime;
use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Psbt, ScriptBuf, TxOut};

use super::balance::is_ripe;
use super::history::Send;
use super::spend::{self, MAX_INPUTS, Plan, Planned, Unplannable};
use super::{Code, Error, Flows, Idempotency, address, end};
use crate::clock::Timestamp;
use crate::crash;
use crate::domain::event::payloads::SendBegun;
use crate::domain::onchain_send::{Door, OnchainSend, Role, State, Terms};
use crate::domain::wallet::{Account, WalletKeys};
use crate::domain::{Fact, Request, Transition};
use crate::ids::{RequestId, WalletId};
use crate::money::{Amount, FeeRate, Sat};
use crate::ports::chain::BlockRef;
use crate::store::chain::{self, Coin};
use crate::store::halts::Scope;
use crate::store::idempotency::{self, Remembered};
use crate::store::issued::{self, IssuedTx};
use crate::store::requests;
use crate::store::wallets::{self, Purpose};
use crate::store::{Retryable, StoreError, Tx, Write, apply, halts, leases};

/// How often coins are chosen anew when somebody else took one meanwhile.
pub(super) const CHOICES: u32 = 12;
/// Characters of a caller's own reference or label.
pub const REFERENCE_MAX: usize = 256;

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct BeginSend {
    /// The destination as written.
    pub to: String,
    pub amount: Sat,
    /// Whole satoshis per virtual byte.
    pub fee_rate: u32,
    pub deduct_fee: bool,
    pub expires_in_seconds: Option<u64>,
    pub reference: Option<String>,
    pub door: Door,
    /// How deep strangers' coins must be buried; never less than the operator's policy.
    pub min_confirmations: Option<u32>,
    /// The wire name of the field that holds the destination, to name it in answers.
    pub to_field: &'static str,
    /// The wire name of the field that holds the amount.
    pub amount_field: &'static str,
}

/// What a begin hands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    pub psbt: String,
    pub request: RequestId,
    /// What the transaction pays to miners, or the most that routing may cost.
    pub fee: Sat,
    pub expires_at: Timestamp,
    pub source: Source,
    /// What an authorisation says in words.
    pub message: Option<String>,
}

/// Whose money a begun request moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The client's own coins.
    Onchain,
    /// What the operator owes the wallet.
    Offchain,
}

impl Begun {
    pub(super) fn of(issued: &IssuedTx) -> Self {
        Self {
            psbt: issued.psbt.clone(),
            request: issued.request,
            fee: issued.fee,
            expires_at: issued.expires_at,
            source: Source::Onchain,
            message: None,
        }
    }
}

// ---- begin ----

/// Chooses coins, sets them aside and hands out the transaction to sign.
///
/// # Errors
/// Every reason for which such a send can't begin, each with its own code. Nothing is set aside then.
pub async fn begin(
    flows: &Flows,
    keys: &WalletKeys,
    wanted: BeginSend,
    idempotency: Option<Idempotency>,
) -> Result<Begun, Error> {
    if let Some(begun) = answered_before(flows, &keys.id(), idempotency.as_ref()).await? {
        return Ok(begun);
    }
    let to = destination(flows, &wanted)?;
    let pays = vec![TxOut { value: wanted.amount.to_bitcoin(), script_pubkey: to.clone() }];
    check_terms(flows, &wanted)?;
    refuse_while_halted(flows, &keys.id()).await?;
    let lock = flows.queue_up(&keys.id())?;
    let _one_at_a_time = lock.lock().await;
    address::skip_if_unissued(flows, keys, &to).await?;
    for _ in 0..CHOICES {
        if let Some(begun) = answered_before(flows, &keys.id(), idempotency.as_ref()).await? {
            return Ok(begun);
        }
        let choice = choose(flows, keys, &wanted, pays.clone()).await?;
        let begin = Begin {
            keys: keys.clone(),
            wanted: wanted.clone(),
            choice,
            idempotency: idempotency.clone(),
            flows: flows.clone(),
            asset_scripts: 0..0,
        };
        match flows.store().write(begin).await {
            Ok(begun) => {
                crash::point("begin.committed");
                return Ok(begun);
            }
            Err(Stale::ChooseAgain) => {}
            Err(Stale::Other(error)) => return Err(error),
        }
    }
    Err(coins_keep_going())
}

pub(super) fn coins_keep_going() -> Error {
    Error::refused(Code::CoinsLeased, "other requests keep taking this wallet's coins; try again")
}

/// What an idempotency key was answered with, to the byte.
pub(super) async fn answered_before(
    flows: &Flows,
    wallet: &WalletId,
    key: Option<&Idempotency>,
) -> Result<Option<Begun>, Error> {
    let Some(key) = key else { return Ok(None) };
    let mut conn = flows.store().read().await?;
    let id = RequestId::from_idempotency_key(wallet, &key.key);
    let Some(known) = idempotency::find(&mut conn, id).await? else { return Ok(None) };
    address::check_same_body(&known, key)?;
    // The same call may have begun a withdrawal of off-chain money.
    let Some(txid) = known.unsigned_txid else { return Ok(None) };
    let issued = issued::by_txid(&mut conn, txid).await?;
    let issued = issued.ok_or_else(|| StoreError::Corrupt(format!("{txid} is named but was not issued")))?;
    let request = requests::load::<OnchainSend>(&mut conn, issued.request).await?;
    let expired = request.is_some_and(|request| request.machine.state == State::Expired);
    let lapsed = issued.signed_tx.is_none() && issued.expires_at <= flows.now();
    if expired || lapsed {
        return Err(expired_error());
    }
    Ok(Some(Begun::of(&issued)))
}

pub(super) fn expired_error() -> Error {
    Error::refused(
        Code::RequestExpired,
        "no signature came in time, or it was taken back, and its coins are free again; begin again",
    )
}

fn destination(flows: &Flows, wanted: &BeginSend) -> Result<ScriptBuf, Error> {
    Ok(read_address(flows, wanted.to_field, &wanted.to)?.script_pubkey())
}

/// An address of this network.
///
/// # Errors
/// When the text is none.
pub fn read_address(flows: &Flows, field: &'static str, text: &str) -> Result<Address, Error> {
    let bad = |code, reason: String| Error::Field { code, field, reason };
    let address = Address::<NetworkUnchecked>::from_str(text.trim())
        .map_err(|e| bad(Code::InvalidAddress, format!("not a Bitcoin address: {e}")))?;
    address
        .require_network(flows.network())
        .map_err(|_| bad(Code::WrongNetwork, format!("this address is not one of {}", flows.network())))
}

/// What can be said of a send without a look at anybody's coins.
pub(super) fn check_terms(flows: &Flows, wanted: &BeginSend) -> Result<(), Error> {
    let to = destination(flows, wanted)?;
    check_wishes(flows, wanted.fee_rate, wanted.expires_in_seconds, wanted.reference.as_deref())?;
    let dust = to.minimal_non_dust();
    if wanted.amount.to_bitcoin() < dust {
        return Err(Error::Field {
            code: Code::AmountBelowDust,
            field: wanted.amount_field,
            reason: format!("the network does not relay less than {} sat to this address", dust.to_sat()),
        });
    }
    Ok(())
}

/// What can be said without knowing where it goes.
pub(super) fn check_wishes(
    flows: &Flows,
    fee_rate: u32,
    expires_in_seconds: Option<u64>,
    reference: Option<&str>,
) -> Result<(), Error> {
    flows.policy().fees.check_rate(FeeRate::from_sat_per_vb(fee_rate))?;
    flows.policy().signature.choose(expires_in_seconds)?;
    if reference.is_some_and(|text| text.chars().count() > REFERENCE_MAX) {
        return Err(Error::field("reference", format!("at most {REFERENCE_MAX} characters")));
    }
    Ok(())
}

/// No money of a wallet goes out while a halt of everybody or of this wallet is in force.
pub(super) async fn refuse_while_halted(flows: &Flows, wallet: &WalletId) -> Result<(), Error> {
    let mut conn = flows.store().read().await?;
    let Some(halt) = halts::stopping(&mut conn, wallet).await? else { return Ok(()) };
    let whose = match halt.scope {
        Scope::Wallet(_) => "payouts of this wallet are stopped",
        Scope::Everybody => "payouts are stopped",
    };
    Err(Error::refused(Code::PayoutsHalted, format!("{whose}: {}", halt.reason)))
}

/// Everything decided before the transaction that writes it.
pub(super) struct Choice {
    planned: Planned,
    change_index: u32,
    /// How deep strangers' coins had to be.
    depth: u32,
}

impl Choice {
    /// Says on the outputs to these scripts of the wallet that they are its own.
    pub(super) fn describe(&mut self, keys: &WalletKeys, account: Account, indexes: Range<u32>) {
        spend::describe_outputs(&mut self.planned.psbt, keys, account, indexes);
    }
}

/// Finds coins for these outputs, and builds the transaction.
pub(super) async fn choose(
    flows: &Flows,
    keys: &WalletKeys,
    wanted: &BeginSend,
    pays: Vec<TxOut>,
) -> Result<Choice, Error> {
    let wallet = keys.id();
    let mut conn = flows.store().read().await?;
    let tip = chain::cursor(&mut conn).await?.ok_or_else(not_synced)?;
    let all: Vec<Coin> = chain::unspent(&mut conn, &wallet).await?;
    let all: Vec<Coin> =
        all.into_iter().filter(|coin| coin.account == Account::Vanilla && coin.spent_by.is_none()).collect();
    let change_index = wallets::keychain(&mut conn, &wallet, Account::Vanilla).await?.next_index;
    let change = wallets::script_at(&mut conn, &wallet, Account::Vanilla, change_index).await?;
    drop(conn);
    let change = change.ok_or_else(|| StoreError::Corrupt(format!("{wallet} has no script left for change")))?.script;
    let depth = flows.policy().min_confirmations.max(wanted.min_confirmations.unwrap_or(0));
    let (ripe, rest): (Vec<Coin>, Vec<Coin>) =
        all.into_iter().partition(|coin| coin.leased_by.is_none() && is_ripe(coin, tip.height, depth));
    let job = PlanJob {
        keys: keys.clone(),
        pays,
        amount: wanted.amount,
        fee_rate: FeeRate::from_sat_per_vb(wanted.fee_rate),
        deduct_fee: wanted.deduct_fee,
        change,
        change_index,
        lock_time: LockTime::from_height(tip.height).unwrap_or(LockTime::ZERO),
    };
    let most = flows.policy().fees.clone();
    let mut planned = tokio::task::spawn_blocking(move || job.run(ripe, &rest, tip, depth))
        .await
        .map_err(|error| Error::panicked("choosing coins", &error))??;
    most.check_fee(planned.fee, planned.amount_sent)?;
    make_new(flows, &mut planned.psbt, tip.height).await?;
    Ok(Choice { planned, change_index, depth })
}

/// The lock time is the tip's height, so that nobody gains by mining the transaction into an older block. One that was issued
/// before gets a lower one, until it is new.
pub(super) async fn make_new(flows: &Flows, psbt: &mut Psbt, tip: u32) -> Result<(), Error> {
    let mut conn = flows.store().read().await?;
    for height in (0..=tip).rev() {
        psbt.unsigned_tx.lock_time = LockTime::from_height(height).unwrap_or(LockTime::ZERO);
        if issued::by_txid(&mut conn, psbt.unsigned_tx.compute_txid()).await?.is_none() {
            return Ok(());
        }
    }
    Err(Error::refused(Code::TooManyOpenRequests, "this very transaction was issued too often; choose another amount"))
}

fn not_synced() -> Error {
    Error::refused(Code::ChainNotSynced, "the chain has not been followed yet; try again shortly")
}

/// Choosing coins, as a value that can be sent to a thread of its own.
struct PlanJob {
    keys: WalletKeys,
    pays: Vec<TxOut>,
    /// What they add up to.
    amount: Sat,
    fee_rate: FeeRate,
    deduct_fee: bool,
    change: ScriptBuf,
    change_index: u32,
    lock_time: LockTime,
}

impl PlanJob {
    fn run(self, mut ripe: Vec<Coin>, rest: &[Coin], tip: BlockRef, depth: u32) -> Result<Planned, Error> {
        ripe.sort_by(|a, b| b.amount.cmp(&a.amount).then_with(|| a.outpoint.cmp(&b.outpoint)));
        let usable = &ripe[..ripe.len().min(MAX_INPUTS)];
        let plan = Plan {
            keys: &self.keys,
            coins: usable,
            pays: &self.pays,
            fee_rate: self.fee_rate,
            deduct_fee: self.deduct_fee,
            change: &self.change,
            change_index: self.change_index,
            lock_time: self.lock_time,
        };
        match spend::plan(&plan) {
            Ok(planned) => Ok(planned),
            Err(Unplannable::Refused(error)) => Err(error),
            Err(Unplannable::Short { needed }) => Err(self.why_short(needed.max(self.amount), &ripe, rest, tip, depth)),
        }
    }

    /// Tells money that is not there from money that is only not free now.
    fn why_short(&self, needed: Sat, ripe: &[Coin], rest: &[Coin], tip: BlockRef, depth: u32) -> Error {
        let sum = |coins: &mut dyn Iterator<Item = &Coin>| Sat::sum(coins.map(|coin| coin.amount)).unwrap_or(Sat::MAX);
        let free = sum(&mut ripe.iter());
        let needed = if needed == Sat::MAX { self.amount } else { needed };
        if free >= needed && ripe.len() > MAX_INPUTS {
            let largest = sum(&mut ripe.iter().take(MAX_INPUTS));
            let fee = self.fee_rate.fee(MAX_INPUTS as u64 * 58 + 100).unwrap_or(Sat::MAX);
            let possible = largest.checked_sub(fee).unwrap_or(Sat::ZERO);
            return Error::refused(
                Code::TooManyInputs,
                format!(
                    "more than {MAX_INPUTS} coins would be needed; the largest amount possible now is {possible} sat"
                ),
            );
        }
        let leased = sum(&mut rest.iter().filter(|coin| coin.leased_by.is_some() && is_ripe(coin, tip.height, depth)));
        let unleased = free.checked_add(leased).unwrap_or(Sat::MAX);
        let everything = unleased
            .checked_add(sum(&mut rest.iter().filter(|coin| !is_ripe(coin, tip.height, depth))))
            .unwrap_or(Sat::MAX);
        if unleased >= needed {
            return Error::refused(
                Code::CoinsLeased,
                format!(
                    "{needed} sat are needed and {free} sat are free; the rest is set aside by requests that wait for a signature"
                ),
            );
        }
        if everything >= needed {
            return Error::refused(
                Code::CoinsUnconfirmed,
                format!("{needed} sat are needed and {free} sat are free; the rest waits for confirmations"),
            );
        }
        Error::insufficient(needed, everything)
    }
}

/// The choice no longer fits what is stored.
pub(super) enum Stale {
    ChooseAgain,
    Other(Error),
}

impl From<StoreError> for Stale {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(_) => Self::ChooseAgain,
            other => Self::Other(other.into()),
        }
    }
}

impl From<Error> for Stale {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            other => Self::Other(other),
        }
    }
}

impl Retryable for Stale {
    fn is_retryable(&self) -> bool {
        match self {
            Self::ChooseAgain => false,
            Self::Other(error) => error.is_retryable(),
        }
    }
}

/// One wallet can't set aside without end what it may never spend, nor have transactions watched that it may never sign.
pub(super) async fn require_room(tx: &mut Tx<'_>, flows: &Flows, wallet: &WalletId) -> Result<(), Error> {
    let waiting = leases::waiting(tx, wallet).await?;
    room_beside(flows, waiting)
}

/// The same, before anything is written.
pub(super) async fn look_for_room(
    conn: &mut crate::store::Conn,
    flows: &Flows,
    wallet: &WalletId,
) -> Result<(), Error> {
    let waiting = leases::count_waiting(conn, wallet, flows.now()).await?;
    room_beside(flows, waiting)
}

fn room_beside(flows: &Flows, waiting: i64) -> Result<(), Error> {
    if waiting < i64::from(flows.policy().max_waiting_sends) {
        return Ok(());
    }
    let detail = format!(
        "{waiting} begun calls of this wallet wait for a signature already; end them, cancel them with POST /requests/{{id}}/cancel, or let them expire"
    );
    Err(Error::refused(Code::TooManyOpenRequests, detail))
}

pub(super) struct Begin {
    pub flows: Flows,
    pub keys: WalletKeys,
    pub wanted: BeginSend,
    pub choice: Choice,
    pub idempotency: Option<Idempotency>,
    /// Indexes of the colored account that it makes coins on, and that nobody else may be given.
    pub asset_scripts: Range<u32>,
}

#[async_trait]
impl Write for Begin {
    type Output = Begun;
    type Error = Stale;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Begun, Stale> {
        let wallet = self.keys.id();
        let policy = self.flows.policy();
        require_room(tx, &self.flows, &wallet).await?;
        let issued = self.issued(tx.now())?;
        let psbt = &self.choice.planned.psbt;
        let inputs: Vec<_> = psbt.unsigned_tx.input.iter().map(|input| input.previous_output).collect();
        require_free(tx, &inputs, self.choice.depth).await?;
        let request = self.request(&issued, tx.now());
        let sent = request.machine.terms.amount_sent;
        let begun = SendBegun {
            to: self.wanted.to.clone(),
            amount_sats: Some(sent),
            amount_msat: Some(Amount::from_sat(sent)),
            fee_sats: issued.fee,
            fee_msat: Amount::from_sat(issued.fee),
            assets: None,
            unsigned_txid: issued.unsigned_txid,
            expires_at: issued.expires_at.into(),
        };
        let first = Transition::to(request.machine.clone()).event(Fact::SendBegun(begun));
        apply::create(tx, request, first).await?;
        leases::take(tx, issued.request, &wallet, &inputs).await?;
        if self.choice.planned.has_change {
            let index = self.choice.change_index;
            issue(tx, &self.keys, Account::Vanilla, index, issued.request, policy.lookahead).await?;
        }
        // Scripts before the first one are the engine's, also where a process died before that was written down.
        if let Some(given) = self.asset_scripts.clone().next().and_then(|first| first.checked_sub(1)) {
            wallets::skip_to(tx, &wallet, Account::Colored, given).await?;
        }
        for index in self.asset_scripts.clone() {
            issue(tx, &self.keys, Account::Colored, index, issued.request, policy.lookahead).await?;
        }
        issued::insert(tx.conn(), &issued).await?;
        if let Some(key) = &self.idempotency {
            let what = Remembered {
                body_hash: key.body_hash.clone(),
                request: issued.request,
                unsigned_txid: Some(issued.unsigned_txid),
            };
            idempotency::remember(tx, RequestId::from_idempotency_key(&wallet, &key.key), &wallet, &what).await?;
        }
        Ok(Begun::of(&issued))
    }
}

impl Begin {
    fn issued(&self, now: Timestamp) -> Result<IssuedTx, Error> {
        let wallet = self.keys.id();
        let id = self
            .idempotency
            .as_ref()
            .map_or_else(RequestId::fresh, |key| RequestId::from_idempotency_key(&wallet, &key.key));
        let time = self.flows.policy().signature.choose(self.wanted.expires_in_seconds)?;
        let psbt = &self.choice.planned.psbt;
        Ok(IssuedTx {
            unsigned_txid: psbt.unsigned_tx.compute_txid(),
            request: id,
            wallet,
            role: Role::Original,
            psbt: psbt.to_string(),
            fee: self.choice.planned.fee,
            fee_rate: FeeRate::from_sat_per_vb(self.wanted.fee_rate),
            created_at: now,
            expires_at: now.after(time),
            signed_tx: None,
        })
    }

    fn request(&self, issued: &IssuedTx, now: Timestamp) -> Request<OnchainSend> {
        let terms = Terms {
            to: self.wanted.to.clone(),
            amount_requested: self.wanted.amount,
            amount_sent: self.choice.planned.amount_sent,
            fee_rate: issued.fee_rate,
            deduct_fee: self.wanted.deduct_fee,
            door: self.wanted.door,
            assets: None,
        };
        Request {
            id: issued.request,
            wallet: issued.wallet.clone(),
            reference: self.wanted.reference.clone(),
            label: None,
            created_at: now,
            updated_at: now,
            expires_at: Some(issued.expires_at),
            version: 1,
            machine: OnchainSend::begun(terms),
        }
    }
}

/// The coins are as they were when they were chosen: there, deep enough, and spent by nobody.
async fn require_free(tx: &mut Tx<'_>, inputs: &[bitcoin::OutPoint], depth: u32) -> Result<(), Stale> {
    let tip = chain::cursor(tx.conn()).await?.map_or(0, |tip| tip.height);
    let coins = chain::coins_among(tx.conn(), inputs).await?;
    let is_free = |coin: &&Coin| coin.live && coin.leased_by.is_none() && is_ripe(coin, tip, depth);
    if coins.iter().filter(is_free).count() == inputs.len() { Ok(()) } else { Err(Stale::ChooseAgain) }
}

/// Issues an index for an output to the wallet itself, and keeps the lookahead full.
pub(super) async fn issue(
    tx: &mut Tx<'_>,
    keys: &WalletKeys,
    account: Account,
    index: u32,
    request: RequestId,
    lookahead: u32,
) -> Result<(), StoreError> {
    address::extend_lookahead(tx, keys, account, index.saturating_add(1), lookahead).await?;
    wallets::issue_index(tx, &keys.id(), account, index, Purpose::Change, request).await
}

// ---- end ----

/// Checks the signatures and broadcasts. The same signed PSBT again answers the state of the same request.
///
/// # Errors
/// Every reason for which this PSBT is not accepted, each with its own code. Nothing goes out then.
pub async fn end(flows: &Flows, wallet: &WalletId, door: Door, signed_psbt: &str) -> Result<Send, Error> {
    let right = |issued: &IssuedTx, request: &Request<OnchainSend>| {
        issued.role == Role::Original && request.machine.terms.door == door
    };
    end::version(flows, wallet, signed_psbt, right).await
}
