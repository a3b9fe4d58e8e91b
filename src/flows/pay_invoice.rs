//! Paying over Lightning: `begin` checks everything and holds the money, the client consents, `end` pays.

use async_trait::async_trait;
use bitcoin::Psbt;

use super::send::{self, Begun, Source};
use super::{Code, Error, Flows, Idempotency, address, balance, fetches, invoice, node, own_invoice, register};
use crate::clock::Timestamp;
use crate::crash;
use crate::domain::authorization::{self, Consent, Kind};
use crate::domain::lightning::{Destination, PayFailure, PaymentHash};
use crate::domain::pay::{Book, Door, Event, Pay, State, Terms};
use crate::domain::receive::Receive;
use crate::domain::wallet::WalletKeys;
use crate::domain::{LineStatus, Machine, Request, psbt};
use crate::ids::{RequestId, WalletId};
use crate::ledger::model::Refusal;
use crate::money::{Amount, Money, Sat};
use crate::ports::lightning::{Fetched, Quote};
use crate::store::authorizations::{self, Authorization};
use crate::store::idempotency::{self, Remembered};
use crate::store::{StoreError, Tx, Write, apply, grants, ledger, payments, requests};

/// What routing may cost where the caller names no ceiling, as far as the balance reaches.
pub const USUAL_MAX_FEE: Amount = Amount::from_sat(Sat::literal(3_000));

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct BeginPay {
    /// A BOLT 11 invoice or a BOLT 12 offer.
    pub to: String,
    /// Needed where the invoice names no amount; else absent or equal.
    pub amount: Option<Amount>,
    pub max_fee: Option<Amount>,
    pub expires_in_seconds: Option<u64>,
    pub reference: Option<String>,
    pub door: Door,
    /// The wire name of the field that holds the destination, to name it in answers.
    pub to_field: &'static str,
}

/// Checks everything that can be checked, holds the amount and the ceiling, and hands out the authorisation to sign.
///
/// # Errors
/// Every reason for which such a payment can't begin, each with its own code. Nothing is held then.
pub async fn begin(
    flows: &Flows,
    keys: &WalletKeys,
    wanted: BeginPay,
    idempotency: Option<Idempotency>,
) -> Result<Begun, Error> {
    if let Some(begun) = answered_before(flows, &keys.id(), idempotency.as_ref()).await? {
        return Ok(begun);
    }
    send::refuse_while_halted(flows, &keys.id()).await?;
    let time = flows.policy().signature.choose(wanted.expires_in_seconds)?;
    let payee = payee(flows, &keys.id(), &wanted).await?;
    if !flows.node().is_configured() {
        return Err(Error::refused(Code::LightningUnavailable, "this gateway has no Lightning node"));
    }
    let terms = match terms(flows, &keys.id(), &wanted, &payee).await {
        Ok(terms) => terms,
        // What is in the way may be the very request that this key stands for, begun a moment ago by the same caller.
        Err(error) => {
            return answered_before(flows, &keys.id(), idempotency.as_ref()).await?.ok_or(error);
        }
    };
    let now = flows.now();
    let expires_at = now.after(time).min(payee.expires_at);
    let wallet = keys.id();
    let id =
        idempotency.as_ref().map_or_else(RequestId::fresh, |key| RequestId::from_idempotency_key(&wallet, &key.key));
    let asked = authorization(flows, keys, id, &terms, expires_at)?;
    let flows_of_write = flows.clone();
    let (reference, to_field) = (wanted.reference, wanted.to_field);
    let begin = Begin { flows: flows_of_write, id, wallet, terms, asked, reference, to_field, idempotency };
    let begun = flows.store().write(begin).await?;
    crash::point("pay_begin.committed");
    Ok(begun)
}

async fn answered_before(flows: &Flows, wallet: &WalletId, key: Option<&Idempotency>) -> Result<Option<Begun>, Error> {
    let Some(key) = key else { return Ok(None) };
    let mut conn = flows.store().read().await?;
    let id = RequestId::from_idempotency_key(wallet, &key.key);
    let Some(known) = idempotency::find(&mut conn, id).await? else { return Ok(None) };
    address::check_same_body(&known, key)?;
    let gone = || StoreError::Corrupt(format!("{id} began nothing"));
    let asked = authorizations::of_request(&mut conn, known.request).await?.ok_or_else(gone)?;
    let request = requests::load::<Pay>(&mut conn, known.request).await?.ok_or_else(gone)?;
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
        fee: sat_ceil(terms.max_fee),
        expires_at: asked.expires_at,
        source: Source::Offchain,
        message: Some(asked.message),
    }
}

fn sat_ceil(amount: Amount) -> Sat {
    Sat::new(amount.sat_ceil()).unwrap_or(Sat::MAX)
}

fn expired_error() -> Error {
    Error::refused(
        Code::RequestExpired,
        "no signature came in time, or it was taken back, and what was held is free again; begin again",
    )
}

/// Who is paid, as the invoice says.
pub(super) struct Payee {
    destination: Destination,
    pub(super) hash: PaymentHash,
    pub(super) amount: Option<Amount>,
    node: Option<String>,
    expires_at: Timestamp,
}

pub(super) async fn payee(flows: &Flows, wallet: &WalletId, wanted: &BeginPay) -> Result<Payee, Error> {
    let to = wanted.to.trim();
    if is_offer(to) {
        return fetch(flows, wallet, wanted, to).await;
    }
    let read = invoice::read(flows, wanted.to_field, to)?;
    invoice::require_bitcoin(&read, wanted.to_field)?;
    if read.expires_at <= flows.now() {
        return Err(Error::Field {
            code: Code::InvoiceExpired,
            field: wanted.to_field,
            reason: format!("this invoice expired at {}; ask the payee for another", read.expires_at),
        });
    }
    Ok(Payee {
        destination: Destination::Bolt11(read.text),
        hash: read.hash,
        amount: read.amount,
        node: Some(read.payee.to_string()),
        expires_at: read.expires_at,
    })
}

/// Whether a text is a BOLT 12 offer, by how it begins.
#[must_use]
pub fn is_offer(text: &str) -> bool {
    const OFFER: &str = "lno1";
    text.get(..OFFER.len()).is_some_and(|start| start.eq_ignore_ascii_case(OFFER))
}

/// An offer has no hash to consent to: the payee is asked for an invoice first, and that is what is paid.
async fn fetch(flows: &Flows, wallet: &WalletId, wanted: &BeginPay, offer: &str) -> Result<Payee, Error> {
    let node = flows.node().ready()?;
    if !node.capabilities().bolt12 {
        return Err(Error::refused(Code::LightningUnavailable, "the Lightning node of this gateway knows no offers"));
    }
    let _place = fetches::begin(flows, wallet, wanted, offer).await?;
    match node.fetch_invoice(offer, wanted.amount, None).await.map_err(Error::Node)? {
        Fetched::Invoice { invoice, hash, amount, expires_in } => Ok(Payee {
            destination: Destination::Bolt12(invoice),
            hash,
            amount: Some(amount),
            node: None,
            expires_at: flows.now().after(expires_in),
        }),
        Fetched::Refused { reason } => Err(Error::Field {
            code: Code::InvalidInvoice,
            field: wanted.to_field,
            reason: format!("the payee of this offer gave no invoice: {reason}"),
        }),
    }
}

pub(super) async fn terms(flows: &Flows, wallet: &WalletId, wanted: &BeginPay, payee: &Payee) -> Result<Terms, Error> {
    let amount = agreed(wanted.amount, payee.amount)?;
    let mut conn = flows.store().read().await?;
    refuse_second(&mut conn, wallet, payee.hash, None).await?;
    let (destination, hash) = (payee.destination.clone(), payee.hash);
    let asked = own_invoice::Asked { destination: &destination, hash, amount };
    let book = own_invoice::book(&mut conn, wallet, &asked, wanted.to_field, flows.now()).await?;
    let available = ledger::available(&mut conn, wallet).await?;
    let Some(left) = available.checked_sub(amount) else {
        return Err(balance::too_little(&mut conn, wallet, amount, available).await);
    };
    drop(conn);
    let max_fee = match &book {
        Some(_) => Amount::ZERO,
        None => wanted.max_fee.unwrap_or_else(|| left.min(USUAL_MAX_FEE)),
    };
    let estimate = match &book {
        Some(_) => Some(Amount::ZERO),
        None => check_ceiling(flows, &destination, amount, max_fee).await?,
    };
    Ok(Terms {
        destination,
        hash,
        amount,
        max_fee,
        estimate,
        payee: payee.node.clone(),
        book,
        door: wanted.door,
        key: None,
    })
}

pub(super) fn agreed(asked: Option<Amount>, in_invoice: Option<Amount>) -> Result<Amount, Error> {
    match (asked, in_invoice) {
        (Some(asked), Some(in_invoice)) if asked != in_invoice => Err(Error::field(
            "amount_sats",
            format!("is {asked} msat, and the invoice asks for {in_invoice} msat; leave it out"),
        )),
        (Some(amount), _) if amount.is_zero() => Err(Error::field("amount_sats", "must be at least 1")),
        (Some(amount), _) | (None, Some(amount)) => Ok(amount),
        (None, None) => Err(Error::field("amount_sats", "is needed, for the invoice names no amount")),
    }
}

/// Over all wallets, a hash is paid by one request at a time, and never again once it was paid. Who only began has no right to it: the
/// first who consents pays. Whose payment it is is told to its owner alone.
pub(super) async fn refuse_second(
    conn: &mut crate::store::Conn,
    wallet: &WalletId,
    hash: PaymentHash,
    own: Option<RequestId>,
) -> Result<(), Error> {
    let Some(other) = payments::consented_pay_of(conn, hash).await? else { return Ok(()) };
    if own == Some(other.request) {
        // The same call, made twice, was quicker: its row has changed, and whoever writes to it finds that out.
        return Ok(());
    }
    let by = if other.wallet == *wallet { format!(" by request {}", other.request) } else { String::new() };
    match other.line.status {
        LineStatus::Succeeded => Err(Error::refused(Code::AlreadyPaid, format!("this invoice was paid{by}"))),
        LineStatus::Waiting | LineStatus::Pending => {
            Err(Error::refused(Code::PaymentInProgress, format!("this invoice is being paid{by}")))
        }
        LineStatus::Failed | LineStatus::Void => Ok(()),
    }
}

/// A ceiling below the cheapest way can't work. That there is no way now is no reason: there may be one when it is signed.
/// Answers what the cheapest way costs now.
async fn check_ceiling(
    flows: &Flows,
    to: &Destination,
    amount: Amount,
    max_fee: Amount,
) -> Result<Option<Amount>, Error> {
    let node = flows.node().ready()?;
    if !node.capabilities().quotes {
        return Ok(None);
    }
    match node.quote(to, amount).await.map_err(Error::Node)? {
        Quote::Fee(fee) if fee > max_fee => Err(Error::Field {
            code: Code::FeeLimitTooLow,
            field: "max_fee_sats",
            reason: format!(
                "the cheapest way found costs {} sat ({fee} msat), and the ceiling is {max_fee} msat",
                fee.sat_ceil()
            ),
        }),
        Quote::Fee(fee) => Ok(Some(fee)),
        Quote::NoRoute { .. } => Ok(None),
    }
}

struct Begin {
    flows: Flows,
    id: RequestId,
    wallet: WalletId,
    terms: Terms,
    /// What is to be signed. Made before the write, which others wait for.
    asked: Authorization,
    reference: Option<String>,
    to_field: &'static str,
    idempotency: Option<Idempotency>,
}

#[async_trait]
impl Write for Begin {
    type Output = Begun;
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Begun, Error> {
        if let Some(again) = self.remember(tx).await? {
            return Ok(again);
        }
        send::require_room(tx, &self.flows, &self.wallet).await?;
        let (wallet, terms) = (self.wallet.clone(), self.terms.clone());
        let machine = Pay { request: self.id, wallet, terms, state: State::AwaitingSignature };
        let too_much = || Error::field(self.to_field, "asks for more than there is");
        let held = machine.held().ok_or_else(too_much)?;
        let first = machine.begin().ok_or_else(too_much)?;
        match apply::create_asked(tx, self.request(machine, tx.now()), first, &self.asked).await {
            Ok(_) => Ok(begun(self.asked.clone(), &self.terms)),
            Err(error) => Err(self.why_not(tx, held, error).await),
        }
    }
}

impl Begin {
    /// The rows themselves refuse a second payment and an overdraft. What the caller is told is looked up only then.
    async fn why_not(&self, tx: &mut Tx<'_>, held: Amount, error: StoreError) -> Error {
        let reason = match &error {
            StoreError::Conflict(_) => {
                refuse_second(tx.conn(), &self.wallet, self.terms.hash, Some(self.id)).await.err()
            }
            StoreError::Ledger(Refusal::Insufficient) => match ledger::available(tx.conn(), &self.wallet).await {
                Ok(available) if available < held => {
                    Some(balance::too_little(tx.conn(), &self.wallet, held, available).await)
                }
                // There is enough by now: it is decided again.
                Ok(_) => Some(StoreError::Conflict("the balance").into()),
                Err(error) => Some(error.into()),
            },
            _ => None,
        };
        reason.unwrap_or_else(|| error.into())
    }

    async fn remember(&self, tx: &mut Tx<'_>) -> Result<Option<Begun>, Error> {
        let Some(key) = &self.idempotency else { return Ok(None) };
        let id = self.id;
        if let Some(known) = idempotency::find(tx.conn(), id).await? {
            address::check_same_body(&known, key)?;
            let asked = authorizations::of_request(tx.conn(), id).await?;
            let request = requests::load::<Pay>(tx.conn(), id).await?;
            let (Some(asked), Some(request)) = (asked, request) else {
                return Err(StoreError::Corrupt(format!("{id} began nothing")).into());
            };
            return Ok(Some(begun(asked, &request.machine.terms)));
        }
        let what = Remembered { body_hash: key.body_hash.clone(), request: id, unsigned_txid: None };
        idempotency::remember(tx, id, &self.wallet, &what).await?;
        Ok(None)
    }

    fn request(&self, machine: Pay, now: Timestamp) -> Request<Pay> {
        Request {
            id: machine.request,
            wallet: machine.wallet.clone(),
            reference: self.reference.clone(),
            label: None,
            created_at: now,
            updated_at: now,
            expires_at: Some(self.asked.expires_at),
            version: 1,
            machine,
        }
    }
}

fn authorization(
    flows: &Flows,
    keys: &WalletKeys,
    request: RequestId,
    terms: &Terms,
    expires_at: Timestamp,
) -> Result<Authorization, Error> {
    let consent = Consent {
        gateway: flows.store().gateway().clone(),
        network: flows.network(),
        wallet: keys.id(),
        request,
        kind: Kind::Pay,
        to: terms.hash.to_string(),
        amount: Money::btc(terms.amount),
        max_fee: Money::btc(terms.max_fee),
        expires: expires_at,
    };
    let message = consent.message();
    let psbt =
        authorization::to_sign(keys, &message).map_err(|error| Error::Store(StoreError::Corrupt(error.to_string())))?;
    Ok(Authorization {
        request,
        unsigned_txid: psbt.unsigned_tx.compute_txid(),
        wallet: keys.id(),
        psbt: psbt.to_string(),
        message,
        expires_at,
        signed_tx: None,
        signed_at: None,
    })
}

// ---- end ----

/// Checks the consent and pays. The same signed PSBT again answers how the same payment stands.
///
/// # Errors
/// Every reason for which this PSBT is not accepted, each with its own code. Nothing is paid then.
pub async fn end(flows: &Flows, keys: &WalletKeys, door: Door, signed_psbt: &str) -> Result<Request<Pay>, Error> {
    let wallet = keys.id();
    let signed = psbt::parse(signed_psbt)?;
    let asked = find_asked(flows, &wallet, door, &signed).await?;
    register::require(flows, keys).await?;
    let proof = authorization::verify(keys, &asked.message, &signed)?;
    if asked.signed_tx.is_none() {
        // What was consented to before is only answered: no halt makes it unsaid.
        send::refuse_while_halted(flows, &wallet).await?;
    }
    let ended = flows.store().write(End { flows: flows.clone(), asked, proof }).await?;
    crash::point("pay_end.committed");
    match ended {
        Ended::Refused(error) => Err(error),
        Ended::As(request) => {
            flows.tell_ended(request.id, request.machine.is_over());
            match &request.machine.terms.book {
                Some(book) => flows.tell_ended(book.receive, true),
                None if request.machine.state == State::Paying => node::pay(flows, request.id).await.or_else(later)?,
                None => {}
            }
            if request.machine.is_over() {
                return Ok(*request);
            }
            let now = find(flows, &wallet, request.id).await?;
            now.ok_or_else(|| StoreError::Corrupt(format!("request {} is gone", request.id)).into())
        }
    }
}

/// The consent is written down: a node that can't be asked now is asked by the effect.
pub(super) fn later(error: Error) -> Result<(), Error> {
    match error.code() {
        Code::LightningNotReady | Code::LightningUnavailable | Code::ChainUnavailable | Code::PayoutsHalted => {
            tracing::warn!(%error, "a payment waits for the node");
            Ok(())
        }
        _ => Err(error),
    }
}

async fn find_asked(flows: &Flows, wallet: &WalletId, door: Door, signed: &Psbt) -> Result<Authorization, Error> {
    let unknown = || Error::Field {
        code: Code::PsbtUnknown,
        field: "signed_psbt",
        reason: "no authorisation of this wallet that this endpoint could end was asked for with this message"
            .to_owned(),
    };
    let txid = authorization::issued_txid(signed).ok_or_else(unknown)?;
    let mut conn = flows.store().read().await?;
    let asked = authorizations::by_txid(&mut conn, txid).await?.ok_or_else(unknown)?;
    let request = requests::load::<Pay>(&mut conn, asked.request).await?.ok_or_else(unknown)?;
    if asked.wallet == *wallet && request.machine.terms.door == door { Ok(asked) } else { Err(unknown()) }
}

/// What an end came to. A refusal that gives back what was held is written, and so is no error of the transaction.
enum Ended {
    As(Box<Request<Pay>>),
    Refused(Error),
}

struct End {
    flows: Flows,
    asked: Authorization,
    proof: bitcoin::Transaction,
}

#[async_trait]
impl Write for End {
    type Output = Ended;
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Ended, Error> {
        let before = requests::load::<Pay>(tx.conn(), self.asked.request)
            .await?
            .ok_or_else(|| StoreError::Corrupt(format!("request {} is gone", self.asked.request)))?;
        match before.machine.state {
            State::Paying | State::Succeeded { .. } | State::Failed { .. } => return Ok(Ended::As(Box::new(before))),
            State::Expired => return Err(expired_error()),
            State::AwaitingSignature => {}
        }
        if self.asked.expires_at <= tx.now() {
            return Err(expired_error());
        }
        let now = tx.now();
        if let Err(error) = refuse_second(tx.conn(), &before.wallet, before.machine.terms.hash, Some(before.id)).await {
            return refused(tx, before, error).await;
        }
        match before.machine.terms.book.clone() {
            Some(book) => self.transfer(tx, before, &book).await,
            None => {
                // Before the money is promised: a gateway without a node has nobody to pay with.
                self.flows.node().ready()?;
                authorizations::keep_signed(tx.conn(), before.id, &self.proof, now).await?;
                let transition = before.machine.apply(&Event::Signed, now).map_err(StoreError::from)?;
                Ok(Ended::As(Box::new(apply::apply(tx, before, transition).await?)))
            }
        }
    }
}

impl End {
    /// Both sides of a transfer in the books, or neither.
    async fn transfer(&self, tx: &mut Tx<'_>, before: Request<Pay>, book: &Book) -> Result<Ended, Error> {
        let now = tx.now();
        let gone = || StoreError::Corrupt(format!("request {} is gone", book.receive));
        let theirs = requests::load::<Receive>(tx.conn(), book.receive).await?.ok_or_else(gone)?;
        if let Err(error) = own_invoice::takes_money(&theirs, &own_invoice::Asked::of(&before.machine.terms), now) {
            return refused(tx, before, error).await;
        }
        authorizations::keep_signed(tx.conn(), before.id, &self.proof, now).await?;
        Ok(Ended::As(Box::new(own_invoice::transfer(tx, before, theirs).await?)))
    }
}

/// What can be paid no more gives back what it holds. Whoever pays it now may yet give up: then the consent stays good.
async fn refused(tx: &mut Tx<'_>, before: Request<Pay>, error: Error) -> Result<Ended, Error> {
    if !matches!(error.code(), Code::AlreadyPaid | Code::InvoiceExpired | Code::InvalidInvoice) {
        return Err(error);
    }
    let event = Event::Failed { why: PayFailure::Rejected };
    let transition = before.machine.apply(&event, tx.now()).map_err(StoreError::from)?;
    apply::apply(tx, before, transition).await?;
    Ok(Ended::Refused(error))
}

// ---- reading back ----

/// A payment of this wallet; another wallet's is as unknown as one that never was.
///
/// # Errors
/// When the store can't be used.
pub async fn find(flows: &Flows, wallet: &WalletId, id: RequestId) -> Result<Option<Request<Pay>>, Error> {
    let mut conn = flows.store().read().await?;
    let request = requests::load::<Pay>(&mut conn, id).await?;
    Ok(request.filter(|request| request.wallet == *wallet))
}

/// Whose signature a consent bears: the address of the wallet's first key.
///
/// # Errors
/// When the wallet's keys have none, which no valid keys do.
pub fn consenting_address(keys: &WalletKeys) -> Result<bitcoin::Address, Error> {
    authorization::address(keys).map_err(|error| StoreError::Corrupt(error.to_string()).into())
}

/// What a payment's owner was asked to consent to, and the signature, once it was given. Of a payment by a key: the grant of the key.
///
/// # Errors
/// When the store can't be used.
pub async fn consent(flows: &Flows, wallet: &WalletId, id: RequestId) -> Result<Option<Authorization>, Error> {
    let mut conn = flows.store().read().await?;
    if let Some(asked) = authorizations::of_request(&mut conn, id).await? {
        return Ok(Some(asked).filter(|asked| asked.wallet == *wallet));
    }
    let paid = requests::load::<Pay>(&mut conn, id).await?.filter(|request| request.wallet == *wallet);
    let Some(key) = paid.and_then(|request| request.machine.terms.key) else { return Ok(None) };
    Ok(grants::of_key(&mut conn, &key).await?.map(|grant| grant.proof_of(id)))
}
