//! Sending assets: the engine builds the transaction and the client signs it, as for bitcoin. It goes out only when every payee has
//! accepted, because what a payee would refuse would be lost.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::{OutPoint, Psbt, ScriptBuf};

use super::receive::{count_together, depth, indexes_given_away};
use super::{engine_with_coins, mirror, require_not_spent, side, turn};
use crate::clock::Timestamp;
use crate::crash;
use crate::domain::event::payloads::{AssetPayee, SendBegun};
use crate::domain::onchain_send::{AssetTerms, Door, OnchainSend, Payee, Role, Terms};
use crate::domain::wallet::{Account, WalletKeys};
use crate::domain::{Fact, Request, Transition};
use crate::flows::send::{
    Begun, answered_before, check_wishes, coins_keep_going, issue, refuse_while_halted, require_room,
};
use crate::flows::{AssetSide, Code, Error, Flows, Idempotency};
use crate::ids::{RequestId, WalletId};
use crate::money::{Amount, FeeRate, Sat};
use crate::ports::assets::{AssetError, BegunTransfer, NewTransfer, Onto, Recipient, Refusal, RgbInvoice};
use crate::store::asset_transfers::Payment;
use crate::store::idempotency::{self, Remembered};
use crate::store::issued::{self, IssuedTx};
use crate::store::{StoreError, Tx, Write, apply, asset_transfers, chain, consignments, leases};

/// Payees of one transaction.
pub const PAYEES_MAX: usize = 50;
/// What a new coin for a payee holds unless somebody says otherwise: enough for the payee to send it on.
const WITNESS: Sat = Sat::literal(1_000);
/// How long payees have to accept when their invoices don't say.
const ACCEPT_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);
/// The engine would give up by itself, too; the gateway does it first, and says so.
const ENGINE_WAITS_LONGER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// One payee, as a caller names it.
#[derive(Clone, Debug)]
pub struct NewPayee {
    pub invoice: String,
    /// Needed when the invoice leaves it open.
    pub asset: Option<String>,
    pub amount: Option<Amount>,
    /// What a new coin for the payee holds.
    pub witness: Option<Sat>,
}

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct NewSend {
    pub payees: Vec<NewPayee>,
    pub fee_rate: u32,
    pub min_confirmations: Option<u32>,
    pub expires_in_seconds: Option<u64>,
    pub reference: Option<String>,
    pub door: Door,
    pub fields: Fields,
}

/// The wire names of what may be wrong.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    pub invoice: &'static str,
    pub asset: &'static str,
    pub amount: &'static str,
    /// The bitcoin that a new coin of the payee gets.
    pub witness: &'static str,
}

/// Has the engine choose coins, and hands out the transaction to sign.
///
/// # Errors
/// Every reason for which such a send can't begin, each with its own code. Nothing is set aside then.
pub async fn begin(
    flows: &Flows,
    keys: &WalletKeys,
    wanted: NewSend,
    idempotency: Option<Idempotency>,
) -> Result<Begun, Error> {
    if let Some(begun) = answered_before(flows, &keys.id(), idempotency.as_ref()).await? {
        return Ok(begun);
    }
    check_wishes(flows, wanted.fee_rate, wanted.expires_in_seconds, wanted.reference.as_deref())?;
    depth(wanted.min_confirmations, flows.confirmations())?;
    if wanted.payees.iter().any(|payee| payee.amount.is_some_and(Amount::is_zero)) {
        return Err(Error::field(wanted.fields.amount, "at least 1"));
    }
    side(flows)?;
    refuse_while_halted(flows, &keys.id()).await?;
    let payees = read_payees(flows, keys, &wanted).await?;
    let (flows, keys) = (flows.clone(), keys.clone());
    turn::to_the_end(async move { begin_to_the_end(&flows, &keys, wanted, payees, idempotency).await }).await
}

/// A payee whose invoice was read.
#[derive(Clone, Debug)]
struct Known {
    invoice: RgbInvoice,
    asset: String,
    amount: Amount,
    witness: Option<Sat>,
}

async fn read_payees(flows: &Flows, keys: &WalletKeys, wanted: &NewSend) -> Result<Vec<Known>, Error> {
    if !(1..=PAYEES_MAX).contains(&wanted.payees.len()) {
        return Err(Error::field(wanted.fields.invoice, format!("from 1 to {PAYEES_MAX} payees")));
    }
    let mut known = Vec::with_capacity(wanted.payees.len());
    let mut recipients = HashSet::new();
    for payee in &wanted.payees {
        let place = known.len();
        let one = read_payee(flows, wanted.fields, payee).map_err(|error| of_payee(place, error))?;
        if !recipients.insert(one.invoice.recipient.clone()) {
            return Err(of_payee(place, bad_invoice(wanted.fields, "it is there twice: an invoice is paid once")));
        }
        require_way(flows, keys, wanted.fields, &one.invoice).await.map_err(|error| of_payee(place, error))?;
        known.push(one);
    }
    Ok(known)
}

/// Says which payee is meant, after the first.
fn of_payee(place: usize, error: Error) -> Error {
    match error {
        Error::Field { code, field, reason } if place > 0 => {
            Error::Field { code, field, reason: format!("payee {}: {reason}", place.saturating_add(1)) }
        }
        error => error,
    }
}

fn bad_invoice(fields: Fields, reason: impl Into<String>) -> Error {
    Error::Field { code: Code::InvalidInvoice, field: fields.invoice, reason: reason.into() }
}

/// Somebody else asks for it, and can be told of it.
async fn require_way(flows: &Flows, keys: &WalletKeys, fields: Fields, invoice: &RgbInvoice) -> Result<(), Error> {
    let mut conn = flows.store().read().await?;
    match consignments::owner(&mut conn, &invoice.recipient).await? {
        Some(owner) if owner == keys.id() => Err(Error::Field {
            code: Code::SelfPayment,
            field: fields.invoice,
            reason: "this invoice is the wallet's own".to_owned(),
        }),
        // Told here, whatever the gateway was called when it made the invoice.
        Some(_other) => Ok(()),
        None => require_endpoint(flows, fields, invoice),
    }
}

fn read_payee(flows: &Flows, fields: Fields, payee: &NewPayee) -> Result<Known, Error> {
    let invoice = match super::read_invoice(flows, &payee.invoice) {
        Err(Error::Field { code, reason, .. }) => {
            return Err(Error::Field { code, field: fields.invoice, reason });
        }
        read => read?,
    };
    if invoice.network != flows.network() {
        let reason = format!("it is of {}, and this gateway is on {}", invoice.network, flows.network());
        return Err(Error::Field { code: Code::WrongNetwork, field: fields.invoice, reason });
    }
    let now = u64::try_from(flows.now().unix_seconds()).unwrap_or(0);
    if invoice.expires_at.is_some_and(|at| at <= now) {
        let reason = "the invoice has expired; ask the payee for another one".to_owned();
        return Err(Error::Field { code: Code::InvoiceExpired, field: fields.invoice, reason });
    }
    let asset = agreed(fields.asset, invoice.asset.clone(), payee.asset.clone())?;
    let amount = agreed(fields.amount, invoice.amount, payee.amount)?;
    let witness = witness(fields.witness, &invoice, payee.witness)?;
    Ok(Known { invoice, asset, amount, witness })
}

/// What the invoice says and what the caller says have to be the same; one of them is enough.
fn agreed<T: PartialEq + std::fmt::Display>(
    field: &'static str,
    asked: Option<T>,
    said: Option<T>,
) -> Result<T, Error> {
    match (asked, said) {
        (Some(asked), Some(said)) if asked != said => Err(Error::field(field, format!("the invoice asks for {asked}"))),
        (Some(agreed), _) | (None, Some(agreed)) => Ok(agreed),
        (None, None) => Err(Error::field(field, "the invoice leaves it open, so it has to be said")),
    }
}

fn witness(field: &'static str, invoice: &RgbInvoice, said: Option<Sat>) -> Result<Option<Sat>, Error> {
    match (invoice.onto, said) {
        (Onto::OwnCoin, None) => Ok(None),
        (Onto::OwnCoin, Some(_)) => Err(Error::field(field, "the payee has a coin for it, and gets no bitcoin")),
        (Onto::NewCoin, said) => {
            let dust = invoice.script.as_ref().map_or(bitcoin::Amount::ZERO, |script| script.minimal_non_dust());
            let holds = said.unwrap_or(WITNESS);
            if holds.to_bitcoin() < dust {
                let reason = format!("the network does not relay a coin of less than {} sat", dust.to_sat());
                return Err(Error::Field { code: Code::AmountBelowDust, field, reason });
            }
            Ok(Some(holds))
        }
    }
}

/// At least one place where the consignment may be brought.
fn require_endpoint(flows: &Flows, fields: Fields, invoice: &RgbInvoice) -> Result<(), Error> {
    let side = side(flows)?;
    let mut why = "it names no place where its payee is told of the payment".to_owned();
    for endpoint in &invoice.endpoints {
        if side.endpoints.contains(endpoint) {
            return Ok(());
        }
        match side.courier.check(endpoint) {
            Ok(()) => return Ok(()),
            Err(reason) => why = format!("{endpoint} can't be called: {reason}"),
        }
    }
    Err(bad_invoice(fields, why))
}

async fn begin_to_the_end(
    flows: &Flows,
    keys: &WalletKeys,
    wanted: NewSend,
    payees: Vec<Known>,
    idempotency: Option<Idempotency>,
) -> Result<Begun, Error> {
    let wallet = keys.id();
    let side = side(flows)?;
    let lock = flows.queue_up(&wallet)?;
    let _one_at_a_time = lock.lock().await;
    turn::tidy_up(flows, keys, &side.engine).await?;
    if let Some(begun) = answered_before(flows, &wallet, idempotency.as_ref()).await? {
        return Ok(begun);
    }
    require_unpaid(flows, &wallet, &wanted, &payees).await?;
    engine_with_coins(flows, keys).await?;
    count_together(flows, keys, &side.engine).await?;
    look_at_what_waits(flows, keys, side).await?;
    let accept_by = accept_by(flows, &payees);
    let order = order(flows, &wanted, &payees, accept_by)?;
    turn::intend(flows, &wallet).await?;
    let begun = match side.engine.begin_transfer(keys, order).await {
        Ok(begun) => begun,
        Err(AssetError::Port(error)) => return Err(Error::Assets(error)),
        Err(AssetError::Refused(refusal)) => {
            turn::nothing_came(flows, &wallet).await?;
            return Err(refused(keys, side, &wanted, &payees, refusal).await);
        }
    };
    crash::point("asset_send.made");
    let batch = begun.batch;
    match write_down(flows, keys, side, Made { wanted, payees, accept_by, begun }, idempotency).await {
        Err(error) if !turn::is_in_doubt(&error) => {
            turn::give_up(&side.engine, keys, batch).await?;
            turn::nothing_came(flows, &wallet).await?;
            Err(chosen_twice(error))
        }
        written => {
            crash::point("asset_send.committed");
            written
        }
    }
}

/// Names what the engine does not like, where that is one thing.
async fn refused(keys: &WalletKeys, side: &AssetSide, wanted: &NewSend, payees: &[Known], refusal: Refusal) -> Error {
    let (code, field) = match refusal {
        Refusal::UnknownAsset(_) => (Code::AssetUnknown, wanted.fields.asset),
        Refusal::NotEnough { .. } => match will_be_enough(keys, side, payees).await {
            Ok(true) => {
                let detail = format!("{refusal}; the rest is on its way, or set aside for another send: try again");
                return Error::refused(Code::CoinsUnconfirmed, detail);
            }
            Ok(false) => (Code::InsufficientAssets, wanted.fields.amount),
            Err(error) => return error.into(),
        },
        refusal => return refusal.into(),
    };
    Error::Field { code, field, reason: refusal.to_string() }
}

/// Whether the wallet has enough of each asset once everything that is under way has ended well.
async fn will_be_enough(keys: &WalletKeys, side: &AssetSide, payees: &[Known]) -> Result<bool, AssetError> {
    let all = side.engine.assets(keys).await?;
    let covers = |payee: &Known| {
        let mut sent = payees.iter().filter(|other| other.asset == payee.asset);
        let sum = sent.try_fold(Amount::ZERO, |sum, other| sum.checked_add(other.amount));
        let future = all.iter().find(|asset| asset.id == payee.asset).map(|asset| asset.balance.future);
        sum.zip(future).is_some_and(|(sum, future)| sum <= future)
    };
    Ok(payees.iter().all(covers))
}

/// The engine sets aside what carries an asset, and not the other coins that pay the fee: it may choose one that another send has.
fn chosen_twice(error: Error) -> Error {
    match error {
        Error::Store(StoreError::Conflict(_)) => coins_keep_going(),
        error => error,
    }
}

/// The payee's word names the invoice and not the payment: with two of them under way it could let the wrong one out. What was given
/// up may be tried again.
async fn require_unpaid(flows: &Flows, wallet: &WalletId, wanted: &NewSend, payees: &[Known]) -> Result<(), Error> {
    let mut conn = flows.store().read().await?;
    for (place, payee) in payees.iter().enumerate() {
        let payment = asset_transfers::payment_to(&mut conn, wallet, &payee.invoice.recipient).await?;
        let (code, reason) = match payment {
            None => continue,
            Some(Payment::Waiting) => (
                Code::PaymentInProgress,
                "this wallet is about to pay it already: end that send, or give it up with POST /wallet/failtransfers",
            ),
            Some(Payment::Out) => (Code::AlreadyPaid, "this wallet has paid it already"),
        };
        let field = wanted.fields.invoice;
        return Err(of_payee(place, Error::Field { code, field, reason: reason.to_owned() }));
    }
    Ok(())
}

/// What is in a block may be spent, also when the worker has not told the engine yet.
async fn look_at_what_waits(flows: &Flows, keys: &WalletKeys, side: &AssetSide) -> Result<(), Error> {
    let mut conn = flows.store().read().await?;
    let waits = asset_transfers::is_waiting(&mut conn, &keys.id()).await?;
    drop(conn);
    if waits {
        side.engine.refresh(keys).await?;
    }
    Ok(())
}

fn order(flows: &Flows, wanted: &NewSend, payees: &[Known], accept_by: Timestamp) -> Result<NewTransfer, Error> {
    let recipient = |known: &Known| Recipient {
        asset: known.asset.clone(),
        id: known.invoice.recipient.clone(),
        amount: known.amount,
        witness: known.witness,
    };
    Ok(NewTransfer {
        recipients: payees.iter().map(recipient).collect(),
        fee_rate: FeeRate::from_sat_per_vb(wanted.fee_rate),
        min_confirmations: depth(wanted.min_confirmations, flows.confirmations())?,
        expires_at: u64::try_from(accept_by.after(ENGINE_WAITS_LONGER).unix_seconds()).unwrap_or(0),
    })
}

/// The first of the invoices to expire says how long payees have.
fn accept_by(flows: &Flows, payees: &[Known]) -> Timestamp {
    let latest = flows.now().after(ACCEPT_WITHIN);
    let invoices = payees.iter().filter_map(|known| known.invoice.expires_at);
    let in_millis = |seconds: u64| i64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1_000));
    let first = invoices.min().and_then(in_millis).map(Timestamp::from_millis);
    first.map_or(latest, |first| first.min(latest))
}

/// What the engine has made of an order.
struct Made {
    wanted: NewSend,
    payees: Vec<Known>,
    accept_by: Timestamp,
    begun: BegunTransfer,
}

async fn write_down(
    flows: &Flows,
    keys: &WalletKeys,
    side: &AssetSide,
    made: Made,
    idempotency: Option<Idempotency>,
) -> Result<Begun, Error> {
    let psbt = &made.begun.psbt;
    let inputs: Vec<OutPoint> = psbt.unsigned_tx.input.iter().map(|input| input.previous_output).collect();
    require_settled(flows, keys, &inputs).await?;
    let fee = psbt.fee().ok().and_then(|fee| Sat::try_from(fee).ok());
    let fee = fee.ok_or_else(|| StoreError::Corrupt("the engine's transaction has no fee".to_owned()))?;
    flows.policy().fees.check_absolute(fee)?;
    let id = match &idempotency {
        Some(key) => RequestId::from_idempotency_key(&keys.id(), &key.key),
        None => RequestId::fresh(),
    };
    let to = |known: &Known| (known.invoice.recipient.clone(), known.invoice.endpoints.clone());
    let endpoints = made.payees.iter().map(to).collect();
    let of = mirror::Made { batch: made.begun.batch, request: id, endpoints };
    let told = mirror::read(flows, keys, &side.engine, Some(of)).await?;
    require_not_spent(flows, &told.change_coins()).await?;
    let scripts = indexes_given_away(flows, keys, &side.engine).await?;
    let begin = Begin { id, flows: flows.clone(), keys: keys.clone(), made, inputs, fee, scripts, told, idempotency };
    flows.store().write(begin).await
}

/// Every coin is in a block, and so is what is on it: an asset whose block was undone waits until it is in one again.
async fn require_settled(flows: &Flows, keys: &WalletKeys, inputs: &[OutPoint]) -> Result<(), Error> {
    let mut conn = flows.store().read().await?;
    let coins = chain::coins_among(&mut conn, inputs).await?;
    let unsettled = asset_transfers::unsettled_coins(&mut conn, &keys.id()).await?;
    if inputs.iter().any(|input| unsettled.contains(input)) {
        return Err(Error::refused(
            Code::CoinsUnconfirmed,
            "the block that had brought the asset is no longer part of the chain; wait until it is in one again",
        ));
    }
    let there = |coin: &&chain::Coin| coin.live && coin.height.is_some() && coin.spent_by.is_none();
    if coins.iter().filter(there).count() == inputs.len() {
        return Ok(());
    }
    Err(Error::refused(Code::CoinsUnconfirmed, "the coins that carry the asset wait for a block"))
}

struct Begin {
    id: RequestId,
    flows: Flows,
    keys: WalletKeys,
    made: Made,
    inputs: Vec<OutPoint>,
    fee: Sat,
    scripts: Range<u32>,
    told: mirror::Told,
    idempotency: Option<Idempotency>,
}

#[async_trait]
impl Write for Begin {
    type Output = Begun;
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Begun, Error> {
        let wallet = self.keys.id();
        require_room(tx, &self.flows, &wallet).await?;
        let issued = self.issued(tx.now())?;
        let request = self.request(&issued, tx.now());
        let payees = self.payees();
        let payees = payees.iter().map(|payee| AssetPayee {
            asset_id: payee.asset.clone(),
            amount: payee.amount,
            amount_str: payee.amount.base_units().to_string(),
            recipient_id: payee.recipient.clone(),
        });
        let begun = SendBegun {
            to: request.machine.terms.to.clone(),
            amount_sats: None,
            amount_msat: None,
            fee_sats: self.fee,
            fee_msat: Amount::from_sat(self.fee),
            assets: Some(payees.collect()),
            unsigned_txid: issued.unsigned_txid,
            expires_at: issued.expires_at.into(),
        };
        let first = Transition::to(request.machine.clone()).event(Fact::SendBegun(begun));
        apply::create(tx, request, first).await?;
        leases::take(tx, self.id, &wallet, &self.inputs).await?;
        let lookahead = self.flows.policy().lookahead;
        for index in self.scripts.clone() {
            issue(tx, &self.keys, Account::Colored, index, self.id, lookahead).await?;
        }
        issued::insert(tx.conn(), &issued).await?;
        self.told.write(tx).await?;
        if let Some(key) = &self.idempotency {
            let what = Remembered {
                body_hash: key.body_hash.clone(),
                request: self.id,
                unsigned_txid: Some(issued.unsigned_txid),
            };
            idempotency::remember(tx, self.id, &wallet, &what).await?;
        }
        asset_transfers::intended(tx, &wallet).await?;
        Ok(Begun::of(&issued))
    }
}

impl Begin {
    fn issued(&self, now: Timestamp) -> Result<IssuedTx, Error> {
        let wanted = &self.made.wanted;
        let time = self.flows.policy().signature.choose(wanted.expires_in_seconds)?;
        let psbt = &self.made.begun.psbt;
        Ok(IssuedTx {
            unsigned_txid: psbt.unsigned_tx.compute_txid(),
            request: self.id,
            wallet: self.keys.id(),
            role: Role::Original,
            psbt: psbt.to_string(),
            fee: self.fee,
            fee_rate: FeeRate::from_sat_per_vb(wanted.fee_rate),
            created_at: now,
            expires_at: now.after(time).min(self.made.accept_by),
            signed_tx: None,
        })
    }

    fn payees(&self) -> Vec<Payee> {
        let psbt = &self.made.begun.psbt;
        let payee = |known: &Known| Payee {
            asset: known.asset.clone(),
            amount: known.amount,
            recipient: known.invoice.recipient.clone(),
            endpoints: known.invoice.endpoints.clone(),
            vout: known.invoice.script.as_ref().and_then(|script| place_of(psbt, script)),
        };
        self.made.payees.iter().map(payee).collect()
    }

    fn request(&self, issued: &IssuedTx, now: Timestamp) -> Request<OnchainSend> {
        let wanted = &self.made.wanted;
        let bitcoin = Sat::sum(self.made.payees.iter().filter_map(|known| known.witness)).unwrap_or(Sat::ZERO);
        let terms = Terms {
            to: wanted.payees.first().map(|payee| payee.invoice.clone()).unwrap_or_default(),
            amount_requested: bitcoin,
            amount_sent: bitcoin,
            fee_rate: issued.fee_rate,
            deduct_fee: false,
            door: wanted.door,
            assets: Some(AssetTerms {
                request: self.id,
                batch: self.made.begun.batch,
                accept_by: self.made.accept_by,
                payees: self.payees(),
            }),
        };
        Request {
            id: self.id,
            wallet: self.keys.id(),
            reference: wanted.reference.clone(),
            label: None,
            created_at: now,
            updated_at: now,
            expires_at: Some(issued.expires_at),
            version: 1,
            machine: OnchainSend::begun(terms),
        }
    }
}

fn place_of(psbt: &Psbt, script: &ScriptBuf) -> Option<u32> {
    let found = psbt.unsigned_tx.output.iter().position(|output| output.script_pubkey == *script);
    found.and_then(|vout| u32::try_from(vout).ok())
}
