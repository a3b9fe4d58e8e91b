//! Receiving over Lightning: making an invoice, and how it stands.

use std::time::Duration;

use async_trait::async_trait;

use super::{Code, Error, Flows, Idempotency, address};
use crate::crash;
use crate::domain::Request;
use crate::domain::lightning::Preimage;
use crate::domain::receive::{Receive, State};
use crate::domain::wallet::WalletKeys;
use crate::domain::{invoice, offer};
use crate::ids::{RequestId, WalletId};
use crate::money::{Amount, Sat};
use crate::ports::lightning::{Description, NewInvoice};
use crate::store::idempotency::{self, Remembered};
use crate::store::{StoreError, Tx, Write, apply, requests};

/// How long an invoice is open unless the caller says otherwise.
const USUAL_EXPIRY_SECONDS: u64 = 420;
/// An invoice promises a price; nobody keeps one for longer than a month.
pub const LONGEST_EXPIRY_SECONDS: u64 = 31 * 24 * 60 * 60;
/// BOLT 11 has room for so many bytes of description.
pub const DESCRIPTION_MAX: usize = 639;

/// What a caller asks for.
#[derive(Clone, Debug, Default)]
pub struct WantedInvoice {
    /// Empty: the payer says how much.
    pub amount: Option<Amount>,
    pub description: Option<String>,
    /// The SHA-256 of a text that the payer gets elsewhere, instead of a description.
    pub description_hash: Option<[u8; 32]>,
    pub expiry_seconds: Option<u64>,
    pub reference: Option<String>,
}

/// An invoice, and whether the node could receive it as its channels stand.
#[derive(Clone, Debug)]
pub struct Invoiced {
    pub request: Request<Receive>,
    pub is_inbound_low: bool,
}

/// Makes an invoice of this wallet.
///
/// # Errors
/// Every reason for which there can be none, each with its own code. Nothing is written then.
pub async fn create(
    flows: &Flows,
    keys: &WalletKeys,
    wanted: WantedInvoice,
    idempotency: Option<Idempotency>,
) -> Result<Invoiced, Error> {
    let wallet = keys.id();
    check(&wanted)?;
    if let Some(known) = answered_before(flows, &wallet, idempotency.as_ref()).await? {
        return Ok(Invoiced { request: known, is_inbound_low: false });
    }
    let node = flows.node().node()?;
    let preimage = Preimage::fresh();
    let expires_in = Duration::from_secs(wanted.expiry_seconds.unwrap_or(USUAL_EXPIRY_SECONDS));
    let description = match wanted.description_hash {
        Some(hash) => Description::Hash(hash),
        None => Description::Text(wanted.description.clone().unwrap_or_default()),
    };
    let asked = NewInvoice { hash: preimage.hash(), amount: wanted.amount, description, expires_in };
    let text = node.create_invoice(&asked).await.map_err(Error::Node)?;
    crash::point("invoice.made");
    let id =
        idempotency.as_ref().map_or_else(RequestId::fresh, |key| RequestId::from_idempotency_key(&wallet, &key.key));
    let create = Create { id, wallet, wanted: wanted.clone(), text, preimage, expires_in, idempotency };
    let request = flows.store().write(create).await?;
    crash::point("invoice.committed");
    let can_receive = node.balance().await.map_err(Error::Node)?.can_receive;
    let is_inbound_low = can_receive < wanted.amount.unwrap_or(Amount::from_sat(Sat::literal(1)));
    Ok(Invoiced { request, is_inbound_low })
}

fn check(wanted: &WantedInvoice) -> Result<(), Error> {
    if wanted.amount.is_some_and(Amount::is_zero) {
        return Err(Error::field("amount_sats", "must be at least 1"));
    }
    if wanted.amount.is_some_and(|amount| amount > Amount::from_sat(Sat::MAX)) {
        return Err(Error::field("amount_sats", "is more than there is"));
    }
    if wanted.description.as_ref().is_some_and(|text| text.len() > DESCRIPTION_MAX) {
        return Err(Error::field("description", format!("at most {DESCRIPTION_MAX} bytes")));
    }
    if wanted.description.is_some() && wanted.description_hash.is_some() {
        return Err(Error::field("description_hash", "an invoice has a description or its hash, not both"));
    }
    let seconds = wanted.expiry_seconds.unwrap_or(USUAL_EXPIRY_SECONDS);
    if !(1..=LONGEST_EXPIRY_SECONDS).contains(&seconds) {
        return Err(Error::field("expiry_seconds", format!("must be 1 to {LONGEST_EXPIRY_SECONDS}")));
    }
    Ok(())
}

async fn answered_before(
    flows: &Flows,
    wallet: &WalletId,
    key: Option<&Idempotency>,
) -> Result<Option<Request<Receive>>, Error> {
    let Some(key) = key else { return Ok(None) };
    let mut conn = flows.store().read().await?;
    let id = RequestId::from_idempotency_key(wallet, &key.key);
    let Some(known) = idempotency::find(&mut conn, id).await? else { return Ok(None) };
    address::check_same_body(&known, key)?;
    Ok(requests::load(&mut conn, known.request).await?)
}

struct Create {
    id: RequestId,
    wallet: WalletId,
    wanted: WantedInvoice,
    text: String,
    preimage: Preimage,
    expires_in: Duration,
    idempotency: Option<Idempotency>,
}

#[async_trait]
impl Write for Create {
    type Output = Request<Receive>;
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Request<Receive>, Error> {
        if let Some(key) = &self.idempotency {
            // Somebody asked with the same key meanwhile: that invoice is the answer, and this one was never handed out.
            if let Some(known) = idempotency::find(tx.conn(), self.id).await? {
                address::check_same_body(&known, key)?;
                let first = requests::load(tx.conn(), known.request).await?;
                return first.ok_or_else(|| StoreError::Corrupt(format!("request {} is gone", known.request)).into());
            }
            let what = Remembered { body_hash: key.body_hash.clone(), request: self.id, unsigned_txid: None };
            idempotency::remember(tx, self.id, &self.wallet, &what).await?;
        }
        let now = tx.now();
        let machine = Receive {
            request: self.id,
            wallet: self.wallet.clone(),
            invoice: self.text.clone(),
            hash: self.preimage.hash(),
            preimage: self.preimage,
            amount: self.wanted.amount,
            description: self.wanted.description.clone(),
            attempts: 0,
            surplus: Amount::ZERO,
            state: State::Open,
        };
        let first = machine.announce();
        let request = Request {
            id: self.id,
            wallet: self.wallet.clone(),
            reference: self.wanted.reference.clone(),
            label: None,
            created_at: now,
            updated_at: now,
            expires_at: Some(now.after(self.expires_in)),
            version: 1,
            machine,
        };
        Ok(apply::create(tx, request, first).await?)
    }
}

/// A receive of this wallet; another wallet's is as unknown as one that never was.
///
/// # Errors
/// When the store can't be used.
pub async fn find(flows: &Flows, wallet: &WalletId, id: RequestId) -> Result<Option<Request<Receive>>, Error> {
    let mut conn = flows.store().read().await?;
    let request = requests::load::<Receive>(&mut conn, id).await?;
    Ok(request.filter(|request| request.wallet == *wallet))
}

/// What an invoice says, and whether it is one of this gateway.
#[derive(Clone, Debug)]
pub struct Decoded {
    pub invoice: invoice::Invoice,
    pub is_expired: bool,
    pub is_own: bool,
    /// It has the payment hash of an invoice of this gateway and is not that invoice: nobody here pays it.
    pub is_forged: bool,
}

/// # Errors
/// When the text is no invoice of this network.
pub async fn decode(flows: &Flows, field: &'static str, text: &str) -> Result<Decoded, Error> {
    let invoice = read(flows, field, text)?;
    let mut conn = flows.store().read().await?;
    let theirs = requests::receive_of(&mut conn, invoice.hash).await?;
    let is_own = theirs.as_ref().is_some_and(|theirs| theirs.machine.invoice == invoice.text);
    let is_expired = invoice.expires_at <= flows.now();
    Ok(Decoded { invoice, is_expired, is_own, is_forged: theirs.is_some() && !is_own })
}

/// What an invoice says, for whoever has no gateway at hand.
///
/// # Errors
/// When the text is no invoice of this network.
pub fn read_text(text: &str, network: bitcoin::Network) -> Result<invoice::Invoice, invoice::BadInvoice> {
    invoice::read(text, network)
}

/// What an offer says, and whether its time is over.
///
/// # Errors
/// When the text is no offer of this network.
pub fn decode_offer(flows: &Flows, field: &'static str, text: &str) -> Result<(offer::Offer, bool), Error> {
    let offer = offer::read(text, flows.network()).map_err(|bad| refused(field, &bad))?;
    let is_expired = offer.expires_at.is_some_and(|at| at <= flows.now());
    Ok((offer, is_expired))
}

pub(super) fn read(flows: &Flows, field: &'static str, text: &str) -> Result<invoice::Invoice, Error> {
    invoice::read(text, flows.network()).map_err(|bad| refused(field, &bad))
}

/// An invoice that asks for an asset is never paid as bitcoin: its payee would be paid the carrier, and ship nothing.
///
/// # Errors
/// `asset_invoice` when it does.
pub(super) fn require_bitcoin(invoice: &invoice::Invoice, field: &'static str) -> Result<(), Error> {
    let Some(asset) = &invoice.asset else { return Ok(()) };
    let which = asset.contract.as_deref().unwrap_or("an asset");
    let reason = format!("this invoice asks for {which}; the node of this gateway carries bitcoin only");
    Err(Error::Field { code: Code::AssetInvoice, field, reason })
}

fn refused(field: &'static str, bad: &invoice::BadInvoice) -> Error {
    let code = match bad {
        invoice::BadInvoice::Unreadable(_) | invoice::BadInvoice::TooLarge => Code::InvalidInvoice,
        invoice::BadInvoice::WrongNetwork(_) => Code::WrongNetwork,
    };
    Error::Field { code, field, reason: bad.to_string() }
}
