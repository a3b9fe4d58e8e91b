//! Off-chain money that leaves on-chain: `begin` holds the amount and the fee ceiling, the client consents, the node sends its own coins.

use async_trait::async_trait;
use bitcoin::Psbt;

use super::history::PAGE_MAX;
use super::send::{self, BeginSend, Begun, Source};
use super::{Code, Error, Flows, Idempotency, address, balance, register};
use crate::clock::Timestamp;
use crate::crash;
use crate::domain::authorization::{self, Consent, Kind};
use crate::domain::wallet::WalletKeys;
use crate::domain::withdraw::{Event, State, Terms, Withdraw};
use crate::domain::{Effect, Machine, Request, psbt};
use crate::ids::{RequestId, WalletId};
use crate::money::{Amount, FeeRate, Money, Sat};
use crate::ports::lightning::OnchainQuote;
use crate::store::authorizations::{self, Authorization};
use crate::store::idempotency::{self, Remembered};
use crate::store::requests::{Filter, PageAfter};
use crate::store::{StoreError, Tx, Write, apply, chain, credits, effects, ledger, requests};

mod closing;
mod sending;

pub use closing::{CloseChannels, WithdrawPolicy};
pub(super) use sending::{bump, note_sent, push};

/// The ceiling is so many times what it would cost at begin: by the time it is signed the node may need more coins for it.
const CEILING: u64 = 2;
/// About what a send takes whose coins are still in a channel: two inputs, two outputs.
const ROUGH_VBYTES: u64 = 210;

/// Begins a send of the wallet's own coins, or of its off-chain money. Unless the caller says which, off-chain money is taken only
/// when everything on-chain, leased and unconfirmed coins included, could not cover it.
///
/// # Errors
/// As the one that is chosen.
pub async fn begin_either(
    flows: &Flows,
    keys: &WalletKeys,
    source: Option<Source>,
    wanted: BeginSend,
    idempotency: Option<Idempotency>,
) -> Result<Begun, Error> {
    match source {
        Some(Source::Onchain) => return send::begin(flows, keys, wanted, idempotency).await,
        Some(Source::Offchain) => return begin(flows, keys, wanted, idempotency).await,
        None => {}
    }
    if let Some(begun) = answered_before(flows, &keys.id(), idempotency.as_ref()).await? {
        return Ok(begun);
    }
    match send::begin(flows, keys, wanted.clone(), idempotency.clone()).await {
        Err(error) if error.code() == Code::InsufficientFunds && covers(flows, keys, wanted.amount).await? => {
            begin(flows, keys, wanted, idempotency).await
        }
        begun_or_not => begun_or_not,
    }
}

async fn covers(flows: &Flows, keys: &WalletKeys, amount: Sat) -> Result<bool, Error> {
    let mut conn = flows.store().read().await?;
    let available = ledger::available(&mut conn, &keys.id()).await?;
    Ok(flows.node().is_configured() && available >= Amount::from_sat(amount))
}

/// Holds the money and hands out the authorisation to sign.
///
/// # Errors
/// Every reason for which such a withdrawal can't begin, each with its own code. Nothing is held then.
pub async fn begin(
    flows: &Flows,
    keys: &WalletKeys,
    wanted: BeginSend,
    idempotency: Option<Idempotency>,
) -> Result<Begun, Error> {
    if let Some(begun) = answered_before(flows, &keys.id(), idempotency.as_ref()).await? {
        return Ok(begun);
    }
    send::check_terms(flows, &wanted)?;
    send::refuse_while_halted(flows, &keys.id()).await?;
    let time = flows.policy().signature.choose(wanted.expires_in_seconds)?;
    let terms = terms(flows, &wanted).await?;
    let expires_at = flows.now().after(time);
    let (flows_, keys, reference) = (flows.clone(), keys.clone(), wanted.reference);
    let begin = Begin { flows: flows_, keys, terms, reference, expires_at, idempotency };
    let begun = flows.store().write(begin).await?;
    crash::point("withdraw_begin.committed");
    Ok(begun)
}

/// What an idempotency key has begun, if that was a withdrawal.
///
/// # Errors
/// When the key was used for something else, or its time is over.
pub async fn answered_before(
    flows: &Flows,
    wallet: &WalletId,
    key: Option<&Idempotency>,
) -> Result<Option<Begun>, Error> {
    let Some(key) = key else { return Ok(None) };
    let mut conn = flows.store().read().await?;
    let id = RequestId::from_idempotency_key(wallet, &key.key);
    let Some(known) = idempotency::find(&mut conn, id).await? else { return Ok(None) };
    let Some(request) = requests::load::<Withdraw>(&mut conn, known.request).await? else { return Ok(None) };
    address::check_same_body(&known, key)?;
    let asked = authorizations::of_request(&mut conn, known.request).await?;
    let asked = asked.ok_or_else(|| StoreError::Corrupt(format!("{id} asked for nothing")))?;
    let lapsed = asked.signed_tx.is_none() && asked.expires_at <= flows.now();
    if request.machine.state == State::Expired || lapsed {
        return Err(expired_error());
    }
    Ok(Some(begun(asked, &request.machine.terms)))
}

fn begun(asked: Authorization, terms: &Terms) -> Begun {
    Begun {
        psbt: asked.psbt,
        request: asked.request,
        fee: terms.max_fee,
        expires_at: asked.expires_at,
        source: Source::Offchain,
        message: Some(asked.message),
    }
}

fn expired_error() -> Error {
    Error::refused(Code::RequestExpired, "no signature came in time and what was held is free again; begin again")
}

async fn terms(flows: &Flows, wanted: &BeginSend) -> Result<Terms, Error> {
    let to = send::read_address(flows, wanted.to_field, &wanted.to)?;
    let own = || Error::Field {
        code: Code::InvalidAddress,
        field: wanted.to_field,
        reason: "this is an address of the gateway's own node; off-chain money is there already".to_owned(),
    };
    let mut conn = flows.store().read().await?;
    if !credits::bound_among(&mut conn, &[to.script_pubkey()]).await?.is_empty() {
        return Err(own());
    }
    drop(conn);
    let rate = FeeRate::from_sat_per_vb(wanted.fee_rate);
    let quoted = flows.node().ready()?.onchain_quote(&to, wanted.amount, rate).await.map_err(Error::Node)?;
    let fee = match quoted {
        OnchainQuote::Fee(fee) => fee,
        OnchainQuote::OwnAddress => return Err(own()),
        OnchainQuote::Short { reason } => {
            let cost = rate.fee(ROUGH_VBYTES).unwrap_or(Sat::MAX);
            if !closing::would_cover(flows, wanted.amount, cost).await? {
                return Err(reserve_low(&reason));
            }
            cost
        }
    };
    let max_fee = Sat::new(fee.to_u64().saturating_mul(CEILING)).unwrap_or(Sat::MAX);
    flows.policy().fees.check_fee(max_fee, wanted.amount)?;
    let amount_sent = if wanted.deduct_fee { wanted.amount.checked_sub(max_fee) } else { Some(wanted.amount) };
    let dust = to.script_pubkey().minimal_non_dust();
    let amount_sent = amount_sent.filter(|left| left.to_bitcoin() >= dust).ok_or_else(|| Error::Field {
        code: Code::AmountBelowDust,
        field: wanted.amount_field,
        reason: format!("less the fee of up to {max_fee} sat, the network does not relay what is left"),
    })?;
    Ok(Terms {
        to: wanted.to.trim().to_owned(),
        amount_requested: wanted.amount,
        amount_sent,
        fee_rate: rate,
        max_fee,
        deduct_fee: wanted.deduct_fee,
    })
}

fn reserve_low(reason: &str) -> Error {
    Error::refused(Code::ReserveLow, format!("the operator's coins on-chain do not reach for this now: {reason}"))
}

struct Begin {
    flows: Flows,
    keys: WalletKeys,
    terms: Terms,
    reference: Option<String>,
    expires_at: Timestamp,
    idempotency: Option<Idempotency>,
}

#[async_trait]
impl Write for Begin {
    type Output = Begun;
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Begun, Error> {
        let wallet = self.keys.id();
        if let Some(again) = self.remember(tx, &wallet).await? {
            return Ok(again);
        }
        send::require_room(tx, &self.flows, &wallet).await?;
        let available = ledger::available(tx.conn(), &wallet).await?;
        let request = self.id(&wallet);
        let machine = Withdraw {
            request,
            wallet,
            terms: self.terms.clone(),
            closes: Vec::new(),
            attempts: 0,
            state: State::AwaitingSignature,
        };
        let too_much = || Error::field("amount_sats", "asks for more than there is");
        let held = machine.held().ok_or_else(too_much)?;
        if available < held {
            return Err(balance::too_little(tx.conn(), &machine.wallet, held, available).await);
        }
        let asked = self.authorization(&machine)?;
        let first = machine.begin().ok_or_else(too_much)?;
        apply::create_asked(tx, self.request(machine, tx.now()), first, &asked).await?;
        Ok(begun(asked, &self.terms))
    }
}

impl Begin {
    fn id(&self, wallet: &WalletId) -> RequestId {
        let key = self.idempotency.as_ref();
        key.map_or_else(RequestId::fresh, |key| RequestId::from_idempotency_key(wallet, &key.key))
    }

    async fn remember(&self, tx: &mut Tx<'_>, wallet: &WalletId) -> Result<Option<Begun>, Error> {
        let Some(key) = &self.idempotency else { return Ok(None) };
        let id = self.id(wallet);
        if let Some(known) = idempotency::find(tx.conn(), id).await? {
            address::check_same_body(&known, key)?;
            let asked = authorizations::of_request(tx.conn(), id).await?;
            let request = requests::load::<Withdraw>(tx.conn(), id).await?;
            let (Some(asked), Some(request)) = (asked, request) else {
                return Err(StoreError::Conflict("the idempotency key").into());
            };
            return Ok(Some(begun(asked, &request.machine.terms)));
        }
        let what = Remembered { body_hash: key.body_hash.clone(), request: id, unsigned_txid: None };
        idempotency::remember(tx, id, wallet, &what).await?;
        Ok(None)
    }

    fn authorization(&self, machine: &Withdraw) -> Result<Authorization, Error> {
        let consent = Consent {
            gateway: self.flows.store().gateway().clone(),
            network: self.flows.network(),
            wallet: machine.wallet.clone(),
            request: machine.request,
            kind: Kind::OnchainSend,
            to: self.terms.to.clone(),
            amount: Money::btc(Amount::from_sat(self.terms.amount_sent)),
            max_fee: Money::btc(Amount::from_sat(self.terms.max_fee)),
            expires: self.expires_at,
        };
        let message = consent.message();
        let psbt = authorization::to_sign(&self.keys, &message)
            .map_err(|error| Error::Store(StoreError::Corrupt(error.to_string())))?;
        Ok(Authorization {
            request: machine.request,
            unsigned_txid: psbt.unsigned_tx.compute_txid(),
            wallet: machine.wallet.clone(),
            psbt: psbt.to_string(),
            message,
            expires_at: self.expires_at,
            signed_tx: None,
            signed_at: None,
        })
    }

    fn request(&self, machine: Withdraw, now: Timestamp) -> Request<Withdraw> {
        Request {
            id: machine.request,
            wallet: machine.wallet.clone(),
            reference: self.reference.clone(),
            label: None,
            created_at: now,
            updated_at: now,
            expires_at: Some(self.expires_at),
            version: 1,
            machine,
        }
    }
}

// ---- end ----

/// Checks the consent and has the node send. `None` when the PSBT is no withdrawal of this wallet's.
///
/// # Errors
/// Every reason for which this PSBT is not accepted, each with its own code. Nothing is sent then.
pub async fn end(flows: &Flows, keys: &WalletKeys, signed_psbt: &str) -> Result<Option<Request<Withdraw>>, Error> {
    let wallet = keys.id();
    let signed = psbt::parse(signed_psbt)?;
    let Some(asked) = find_asked(flows, &wallet, &signed).await? else { return Ok(None) };
    register::require(flows, keys).await?;
    let proof = authorization::verify(keys, &asked.message, &signed)?;
    if asked.signed_tx.is_none() {
        // What was consented to before is only answered: no halt makes it unsaid.
        send::refuse_while_halted(flows, &wallet).await?;
    }
    let request = asked.request;
    flows.store().write(End { flows: flows.clone(), asked, proof }).await?;
    crash::point("withdraw_end.committed");
    push(flows, request).await.or_else(later)?;
    let now = find(flows, &wallet, request).await?;
    now.map(Some).ok_or_else(|| StoreError::Corrupt(format!("request {request} is gone")).into())
}

/// The consent is written down: a node that can't be asked now is asked by the effect.
fn later(error: Error) -> Result<(), Error> {
    match error.code() {
        Code::LightningNotReady | Code::LightningUnavailable | Code::ChainUnavailable | Code::PayoutsHalted => {
            tracing::warn!(%error, "a withdrawal waits for the node");
            Ok(())
        }
        _ => Err(error),
    }
}

async fn find_asked(flows: &Flows, wallet: &WalletId, signed: &Psbt) -> Result<Option<Authorization>, Error> {
    let Some(txid) = authorization::issued_txid(signed) else { return Ok(None) };
    let mut conn = flows.store().read().await?;
    let Some(asked) = authorizations::by_txid(&mut conn, txid).await? else { return Ok(None) };
    let is_one = requests::load::<Withdraw>(&mut conn, asked.request).await?.is_some();
    Ok((asked.wallet == *wallet && is_one).then_some(asked))
}

struct End {
    flows: Flows,
    asked: Authorization,
    proof: bitcoin::Transaction,
}

#[async_trait]
impl Write for End {
    type Output = ();
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Error> {
        let before = load(tx, self.asked.request).await?;
        match before.machine.state {
            State::AwaitingSignature => {}
            State::Expired => return Err(expired_error()),
            State::Requested { .. }
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled => return Ok(()),
        }
        if self.asked.expires_at <= tx.now() {
            return Err(expired_error());
        }
        // Before the money is promised: a gateway without a node has nobody to send with.
        self.flows.node().ready()?;
        let now = tx.now();
        authorizations::keep_signed(tx.conn(), before.id, &self.proof, now).await?;
        let height = height(tx).await?;
        let transition = before.machine.apply(&Event::Signed { height }, now).map_err(StoreError::from)?;
        apply::apply(tx, before, transition).await?;
        Ok(())
    }
}

async fn load(tx: &mut Tx<'_>, id: RequestId) -> Result<Request<Withdraw>, StoreError> {
    let request = requests::load::<Withdraw>(tx.conn(), id).await?;
    request.ok_or_else(|| StoreError::Corrupt(format!("request {id} is gone")))
}

async fn height(tx: &mut Tx<'_>) -> Result<u32, StoreError> {
    Ok(chain::cursor(tx.conn()).await?.map_or(0, |tip| tip.height))
}

// ---- taking back ----

/// Takes back what the node has not sent. `None` when this wallet has no such withdrawal.
///
/// # Errors
/// When it is on its way, or being given to the node at this moment.
pub async fn cancel(flows: &Flows, wallet: &WalletId, id: RequestId) -> Result<Option<Request<Withdraw>>, Error> {
    let Some(_) = find(flows, wallet, id).await? else { return Ok(None) };
    let cancelled = flows.store().write(Cancel(id)).await?;
    crash::point("withdraw.cancelled");
    flows.tell_ended(id, true);
    Ok(Some(cancelled))
}

struct Cancel(RequestId);

#[async_trait]
impl Write for Cancel {
    type Output = Request<Withdraw>;
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Request<Withdraw>, Error> {
        let before = load(tx, self.0).await?;
        let state = before.machine.state();
        let Ok(transition) = before.machine.apply(&Event::Cancelled, tx.now()) else {
            let detail =
                format!("it is {state}: only what waits for a signature or for the operator's coins can be cancelled");
            return Err(Error::refused(Code::NotCancellable, detail));
        };
        let after = apply::apply(tx, before, transition).await?;
        effects::done(tx, &Effect::Withdraw(self.0)).await?;
        Ok(after)
    }
}

// ---- reading back ----

/// A withdrawal of this wallet; another wallet's is as unknown as one that never was.
///
/// # Errors
/// When the store can't be used.
pub async fn find(flows: &Flows, wallet: &WalletId, id: RequestId) -> Result<Option<Request<Withdraw>>, Error> {
    let mut conn = flows.store().read().await?;
    let request = requests::load::<Withdraw>(&mut conn, id).await?;
    Ok(request.filter(|request| request.wallet == *wallet))
}

/// A page of them, newest first.
///
/// # Errors
/// When the store can't be used.
pub async fn page(
    flows: &Flows,
    wallet: &WalletId,
    filter: &Filter,
    after: Option<PageAfter>,
    limit: u32,
) -> Result<Vec<Request<Withdraw>>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(requests::page(&mut conn, wallet, filter, after, limit.min(PAGE_MAX)).await?)
}
