//! Paying in one step: a key consents in the place of the wallet's owner, within what the owner granted to it.
//!
//! It is the same request as the one of `pay_invoice.rs`, with the same checks. The hold and the key's limits are one transaction.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout};

use super::pay_invoice::{self, BeginPay, USUAL_MAX_FEE};
use super::{Code, Error, Flows, Idempotency, address, balance, fetches, node, own_invoice, send};
use crate::clock::Timestamp;
use crate::crash;
use crate::domain::pay::{Event, Pay, State, Terms};
use crate::domain::receive::Receive;
use crate::domain::wallet::WalletKeys;
use crate::domain::{Machine, Request};
use crate::ids::{KeyId, RequestId, WalletId};
use crate::money::Amount;
use crate::store::grants::{self, GrantRow};
use crate::store::idempotency::{self, Remembered};
use crate::store::spending::{self, Budget};
use crate::store::{Conn, StoreError, Tx, Write, apply, keys, ledger, requests};

/// How often a waiting call looks for itself: of several gateways, only the one with the node hears of an end.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Pays, and answers how the payment stands when the node has been asked. The same idempotency key again is the same payment.
///
/// # Errors
/// Every reason for which this key can't make such a payment, each with its own code. Nothing is held then.
pub async fn pay(
    flows: &Flows,
    wallet: &WalletKeys,
    key: &KeyId,
    wanted: BeginPay,
    idempotency: Option<Idempotency>,
) -> Result<Request<Pay>, Error> {
    let id = wallet.id();
    let mut conn = flows.store().read().await?;
    let allowance = Allowance::of(&mut conn, key, &id, flows.store().clock().now()).await?;
    drop(conn);
    if let Some(known) = answered_before(flows, &id, idempotency.as_ref()).await? {
        return Ok(known);
    }
    send::refuse_while_halted(flows, &id).await?;
    let terms = match decide(flows, &id, key, &wanted, &allowance).await {
        Ok(terms) => terms,
        // What is in the way may be the very payment that this idempotency key stands for, made a moment ago by the same caller.
        Err(error) => return answered_before(flows, &id, idempotency.as_ref()).await?.ok_or(error),
    };
    let pay_now = PayNow { flows: flows.clone(), wallet: id.clone(), terms, reference: wanted.reference, idempotency };
    let paid = flows.store().write(pay_now).await?;
    crash::point("pay_with_key.committed");
    flows.tell_ended(paid.id, paid.machine.is_over());
    match &paid.machine.terms.book {
        Some(book) => flows.tell_ended(book.receive, true),
        None => node::pay(flows, paid.id).await.or_else(pay_invoice::later)?,
    }
    found(flows, &id, paid.id).await
}

/// Waits until a payment is over, at most so long, and answers how it stands. Whoever waits may leave: the payment goes on.
///
/// # Errors
/// When the store can't be used.
pub async fn wait(flows: &Flows, wallet: &WalletId, id: RequestId, patience: Duration) -> Result<Request<Pay>, Error> {
    let mut endings = flows.endings();
    let deadline = Instant::now() + patience;
    loop {
        let request = found(flows, wallet, id).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        if request.machine.is_over() || left.is_zero() {
            return Ok(request);
        }
        // Heard or not: it is looked up either way.
        drop(timeout(left.min(LOOK_AGAIN), told(&mut endings, id)).await);
    }
}

async fn told(endings: &mut Receiver<RequestId>, id: RequestId) {
    loop {
        match endings.recv().await {
            Ok(ended) if ended != id => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

async fn found(flows: &Flows, wallet: &WalletId, id: RequestId) -> Result<Request<Pay>, Error> {
    let found = pay_invoice::find(flows, wallet, id).await?;
    found.ok_or_else(|| StoreError::Corrupt(format!("request {id} is gone")).into())
}

async fn answered_before(
    flows: &Flows,
    wallet: &WalletId,
    key: Option<&Idempotency>,
) -> Result<Option<Request<Pay>>, Error> {
    let Some(key) = key else { return Ok(None) };
    let mut conn = flows.store().read().await?;
    remembered(&mut conn, RequestId::from_idempotency_key(wallet, &key.key), key).await
}

async fn remembered(conn: &mut Conn, id: RequestId, key: &Idempotency) -> Result<Option<Request<Pay>>, Error> {
    let Some(known) = idempotency::find(conn, id).await? else { return Ok(None) };
    address::check_same_body(&known, key)?;
    let request = requests::load::<Pay>(conn, known.request).await?;
    let request = request.ok_or_else(|| StoreError::Corrupt(format!("{id} paid nothing")))?;
    Ok(Some(request))
}

/// All that can be decided before the transaction that decides it.
async fn decide(
    flows: &Flows,
    wallet: &WalletId,
    key: &KeyId,
    wanted: &BeginPay,
    allowance: &Allowance,
) -> Result<Terms, Error> {
    let to = wanted.to.trim();
    if let Some(least) = pay_invoice::is_offer(to).then(|| fetches::offered(flows, wanted, to)).flatten() {
        // No stranger is asked for what this key may not spend.
        allowance.check(least)?;
    }
    let payee = pay_invoice::payee(flows, wallet, wanted).await?;
    if !flows.node().is_configured() {
        return Err(Error::refused(Code::LightningUnavailable, "this gateway has no Lightning node"));
    }
    let amount = pay_invoice::agreed(wanted.amount, payee.amount)?;
    let mut conn = flows.store().read().await?;
    // That it was paid says more than that a limit is too small to pay it again.
    pay_invoice::refuse_second(&mut conn, wallet, payee.hash, None).await?;
    allowance.check(amount)?;
    let available = ledger::available(&mut conn, wallet).await?;
    drop(conn);
    let mut wanted = wanted.clone();
    if wanted.max_fee.is_none() {
        let left = available.min(allowance.left()).checked_sub(amount);
        wanted.max_fee = left.map(|left| left.min(USUAL_MAX_FEE));
    }
    let terms = pay_invoice::terms(flows, wallet, &wanted, &payee).await?;
    Ok(Terms { key: Some(key.clone()), ..terms })
}

/// What a key may spend now.
struct Allowance {
    grant: GrantRow,
    budgets: Vec<Budget>,
    now: Timestamp,
}

impl Allowance {
    async fn of(conn: &mut Conn, key: &KeyId, wallet: &WalletId, now: Timestamp) -> Result<Self, Error> {
        let not_granted = || {
            let detail = "this key has no spending limit for this wallet; the operator makes one that has with `sluice keys create --limit`, \
                          and the wallet's owner signs its grant";
            Error::refused(Code::SpendingNotGranted, detail)
        };
        let given = |grant: &GrantRow| grant.signed_at.is_some() && grant.wallet == *wallet;
        let grant = grants::of_key(conn, key).await?.filter(given).ok_or_else(not_granted)?;
        let budgets = spending::budgets(conn, key, now).await?;
        Ok(Self { grant, budgets, now })
    }

    /// Refuses what is above a limit, or above what is left of one.
    fn check(&self, needed: Amount) -> Result<(), Error> {
        let most =
            self.grant.per_payment.filter(|most| needed > *most).map(|most| format!("{most} msat in one payment"));
        let never = |budget: &&Budget| needed > budget.limit.money.amount;
        let in_a = |budget: &Budget| format!("{} msat in a {}", budget.limit.money.amount, budget.limit.period);
        if let Some(most) = most.or_else(|| self.budgets.iter().find(never).map(in_a)) {
            let detail =
                format!("{needed} msat are needed, amount and fee ceiling together, and this key may spend {most}");
            return Err(Error::refused(Code::PaymentAboveLimit, detail));
        }
        let short = self.budgets.iter().filter(|budget| needed > budget.left());
        match short.max_by_key(|budget| budget.window.ends) {
            None => Ok(()),
            Some(budget) => Err(self.exceeded(budget, needed)),
        }
    }

    fn exceeded(&self, budget: &Budget, needed: Amount) -> Error {
        let Budget { limit, window, .. } = budget;
        let seconds = window.ends.millis().saturating_sub(self.now.millis()) / 1_000 + 1;
        Error::Later {
            code: Code::SpendingLimitExceeded,
            detail: format!(
                "{needed} msat are needed, amount and fee ceiling together; of {} msat a {} this key has {} msat left, and it renews at {}",
                limit.money.amount,
                limit.period,
                budget.left(),
                window.ends
            ),
            seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
        }
    }

    /// The most that one payment can come to now.
    fn left(&self) -> Amount {
        let left = self.budgets.iter().map(Budget::left).chain(self.grant.per_payment).min();
        left.unwrap_or(Amount::ZERO)
    }
}

struct PayNow {
    flows: Flows,
    wallet: WalletId,
    terms: Terms,
    reference: Option<String>,
    idempotency: Option<Idempotency>,
}

#[async_trait]
impl Write for PayNow {
    type Output = Request<Pay>;
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Request<Pay>, Error> {
        let id = self.id();
        if let Some(key) = &self.idempotency {
            if let Some(known) = remembered(tx.conn(), id, key).await? {
                return Ok(known);
            }
            let what = Remembered { body_hash: key.body_hash.clone(), request: id, unsigned_txid: None };
            idempotency::remember(tx, id, &self.wallet, &what).await?;
        }
        send::require_room(tx, &self.flows, &self.wallet).await?;
        pay_invoice::refuse_second(tx.conn(), &self.wallet, self.terms.hash, Some(id)).await?;
        let (state, terms) = (State::AwaitingSignature, self.terms.clone());
        let machine = Pay { request: id, wallet: self.wallet.clone(), terms, state };
        let too_much = || Error::field("destination", "asks for more than there is");
        let held = machine.held().ok_or_else(too_much)?;
        self.require_granted(tx, held).await?;
        let available = ledger::available(tx.conn(), &self.wallet).await?;
        if available < held {
            return Err(balance::too_little(tx.conn(), &self.wallet, held, available).await);
        }
        let first = machine.begin().ok_or_else(too_much)?;
        let begun = apply::create(tx, self.request(machine, tx.now()), first).await?;
        self.consent(tx, begun).await
    }
}

impl PayNow {
    fn id(&self) -> RequestId {
        let key = self.idempotency.as_ref();
        key.map_or_else(RequestId::fresh, |key| RequestId::from_idempotency_key(&self.wallet, &key.key))
    }

    /// The key is in force and its limits have room, and neither changes before this is committed.
    async fn require_granted(&self, tx: &mut Tx<'_>, held: Amount) -> Result<(), Error> {
        let key = self.terms.key.as_ref().ok_or_else(|| StoreError::Corrupt("no key pays".to_owned()))?;
        if !keys::lock_in_force(tx, key).await? {
            return Err(Error::refused(Code::Unauthorized, "this API key is not in force"));
        }
        let now = tx.now();
        Allowance::of(tx.conn(), key, &self.wallet, now).await?.check(held)
    }

    /// What `end` does with a signature, by the grant.
    async fn consent(&self, tx: &mut Tx<'_>, begun: Request<Pay>) -> Result<Request<Pay>, Error> {
        let now = tx.now();
        let Some(book) = begun.machine.terms.book.clone() else {
            // Before the money is promised: a gateway without a node has nobody to pay with.
            self.flows.node().ready()?;
            let transition = begun.machine.apply(&Event::Signed, now).map_err(StoreError::from)?;
            return Ok(apply::apply(tx, begun, transition).await?);
        };
        let gone = || StoreError::Corrupt(format!("request {} is gone", book.receive));
        let theirs = requests::load::<Receive>(tx.conn(), book.receive).await?.ok_or_else(gone)?;
        own_invoice::takes_money(&theirs, &own_invoice::Asked::of(&begun.machine.terms), now)?;
        Ok(own_invoice::transfer(tx, begun, theirs).await?)
    }

    fn request(&self, machine: Pay, now: Timestamp) -> Request<Pay> {
        Request {
            id: machine.request,
            wallet: self.wallet.clone(),
            reference: self.reference.clone(),
            label: None,
            created_at: now,
            updated_at: now,
            // Nobody's signature is waited for.
            expires_at: None,
            version: 1,
            machine,
        }
    }
}
