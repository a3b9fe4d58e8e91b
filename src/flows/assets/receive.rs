//! Invoices for assets: on a coin that the wallet has, or on a new one that the payer makes.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{engine_with_coins, mirror, require_coins_in_blocks, turn};
use crate::clock::Timestamp;
use crate::crash;
use crate::domain::Request;
use crate::domain::address::ReceiveAddress;
use crate::domain::asset_receive::{self, AssetReceive, State};
use crate::domain::wallet::{Account, WalletKeys};
use crate::flows::{AssetSide, Code, Error, Flows, Idempotency, address, send};
use crate::ids::RequestId;
use crate::money::Amount;
use crate::ports::assets::{AssetEngine, AssetError, NewReceive, Onto, Receive, Refusal};
use crate::store::idempotency::{self, Remembered};
use crate::store::{StoreError, Tx, Write, apply, asset_transfers, consignments, requests, wallets};

/// How long an invoice may be open.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Where the asset is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    Blind,
    Witness,
    /// On a coin that is free, else on a new one.
    Either,
}

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct NewInvoice {
    pub at: Where,
    pub asset: Option<String>,
    pub amount: Option<Amount>,
    pub min_confirmations: Option<u32>,
    pub lifetime: Duration,
    /// The address that is handed out together with it.
    pub address: Option<RequestId>,
}

/// Makes an invoice.
///
/// # Errors
/// When there is no engine, no coin is free, or the terms are not allowed.
pub async fn open(
    flows: &Flows,
    keys: &WalletKeys,
    wanted: NewInvoice,
    idempotency: Option<Idempotency>,
) -> Result<Request<AssetReceive>, Error> {
    check(&wanted)?;
    let (flows, keys) = (flows.clone(), keys.clone());
    turn::to_the_end(async move { open_to_the_end(&flows, &keys, &wanted, idempotency).await }).await
}

/// Invoices for addresses that are being made. Kept in memory: what a process that died had begun is made by the next call.
#[derive(Debug, Default)]
pub struct Making {
    of: Mutex<HashMap<RequestId, watch::Receiver<bool>>>,
}

impl Making {
    /// Says when the invoice for this address is there; makes it unless somebody else does.
    fn of(&self, flows: &Flows, keys: &WalletKeys, address: &Request<ReceiveAddress>) -> watch::Receiver<bool> {
        let mut all = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(is_done) = all.get(&address.id) {
            return is_done.clone();
        }
        let (done, is_done) = watch::channel(false);
        all.insert(address.id, is_done.clone());
        let (flows, keys, address) = (flows.clone(), keys.clone(), address.clone());
        tokio::spawn(async move {
            if let Err(error) = make_for(&flows, &keys, &address).await {
                tracing::warn!(wallet = %keys.id(), address = %address.id, %error, "an address has no RGB invoice yet");
            }
            if let Ok(side) = super::side(&flows) {
                side.making.of.lock().unwrap_or_else(PoisonError::into_inner).remove(&address.id);
            }
            // Nobody may be waiting any more.
            done.send_replace(true);
        });
        is_done
    }
}

/// The invoice that goes with an address: the one that is open, or a new one. Nothing where there is no engine, or it has not made one
/// within the time: it is made all the same, and is there at the next call.
///
/// # Errors
/// When the store can't be used.
pub async fn for_address(
    flows: &Flows,
    keys: &WalletKeys,
    address: &Request<ReceiveAddress>,
    patience: Duration,
) -> Result<Option<Request<AssetReceive>>, Error> {
    let Ok(side) = super::side(flows) else { return Ok(None) };
    if let Some(known) = open_of(flows, address.id).await? {
        return Ok(Some(known));
    }
    let mut is_done = side.making.of(flows, keys, address);
    drop(tokio::time::timeout(patience, is_done.wait_for(|is_done| *is_done)).await);
    open_of(flows, address.id).await
}

/// The invoice that is open for an address. None is made.
///
/// # Errors
/// When the store can't be used.
pub async fn open_of(flows: &Flows, address: RequestId) -> Result<Option<Request<AssetReceive>>, Error> {
    let mut conn = flows.store().read().await?;
    let Some(id) = asset_transfers::invoice_of(&mut conn, address).await? else { return Ok(None) };
    let known = requests::load::<AssetReceive>(&mut conn, id).await?;
    let now = flows.now();
    let is_open = |known: &Request<AssetReceive>| {
        known.machine.state == State::Open && known.expires_at.is_none_or(|at| at > now)
    };
    Ok(known.filter(is_open))
}

/// On a new coin: one that the wallet has would be promised to every payer of an address.
async fn make_for(flows: &Flows, keys: &WalletKeys, address: &Request<ReceiveAddress>) -> Result<(), Error> {
    let wanted = NewInvoice {
        at: Where::Witness,
        asset: None,
        amount: None,
        min_confirmations: None,
        lifetime: lifetime(flows, address.expires_at),
        address: Some(address.id),
    };
    open(flows, keys, wanted, None).await.map(drop)
}

/// How long an invoice lives that goes with an address.
#[must_use]
pub fn lifetime(flows: &Flows, until: Option<Timestamp>) -> Duration {
    let left = until.map_or(flows.policy().address_seconds, |until| {
        u64::try_from(until.millis().saturating_sub(flows.now().millis()) / 1_000).unwrap_or(0)
    });
    Duration::from_secs(left).clamp(SHORTEST, LONGEST)
}

/// What is open of the invoices that were handed out with these addresses.
///
/// # Errors
/// When the store can't be used.
pub async fn open_for(flows: &Flows, addresses: &[RequestId]) -> Result<HashMap<RequestId, String>, Error> {
    let mut open = HashMap::new();
    let mut conn = flows.store().read().await?;
    for address in addresses {
        if let Some(id) = asset_transfers::invoice_of(&mut conn, *address).await?
            && let Some(known) = requests::load::<AssetReceive>(&mut conn, id).await?
            && known.machine.state == State::Open
        {
            open.insert(*address, known.machine.invoice);
        }
    }
    Ok(open)
}

fn check(wanted: &NewInvoice) -> Result<(), Error> {
    if !(SHORTEST..=LONGEST).contains(&wanted.lifetime) {
        let bounds = format!("from {} to {}", SHORTEST.as_secs(), LONGEST.as_secs());
        return Err(Error::field("duration_seconds", bounds));
    }
    if wanted.amount.is_some_and(Amount::is_zero) {
        return Err(Error::field("amount", "at least 1; leave it out for any amount"));
    }
    depth(wanted.min_confirmations, 1).map(drop)
}

/// The library counts confirmations in one byte.
pub(super) fn depth(wanted: Option<u32>, usual: u32) -> Result<u8, Error> {
    let depth = u8::try_from(wanted.unwrap_or(usual)).ok().filter(|depth| *depth <= 100);
    depth.ok_or_else(|| Error::field("min_confirmations", "at most 100"))
}

async fn open_to_the_end(
    flows: &Flows,
    keys: &WalletKeys,
    wanted: &NewInvoice,
    idempotency: Option<Idempotency>,
) -> Result<Request<AssetReceive>, Error> {
    let wallet = keys.id();
    let side = super::side(flows)?;
    let lock = flows.queue_up(&wallet)?;
    let _one_at_a_time = lock.lock().await;
    turn::tidy_up(flows, keys, &side.engine).await?;
    let id =
        idempotency.as_ref().map_or_else(RequestId::fresh, |key| RequestId::from_idempotency_key(&wallet, &key.key));
    if let Some(known) = answered_before(flows, idempotency.as_ref(), id).await? {
        return Ok(known);
    }
    if let Some(address) = wanted.address
        && let Some(known) = open_of(flows, address).await?
    {
        return Ok(known);
    }
    if wanted.at != Where::Witness {
        engine_with_coins(flows, keys).await?;
    }
    let expires_at = flows.now().after(wanted.lifetime);
    turn::intend(flows, &wallet).await?;
    let made = match ask(flows, keys, side, wanted, expires_at).await {
        Ok(made) => made,
        Err(error) if turn::is_in_doubt(&error) => return Err(error),
        Err(error) => {
            turn::nothing_came(flows, &wallet).await?;
            return Err(error);
        }
    };
    crash::point("asset_receive.made");
    let (onto, made) = made;
    let endpoints = [(made.recipient.clone(), side.endpoints.clone())].into();
    let of = mirror::Made { batch: made.batch, request: id, endpoints };
    // Only the list says which coin a blinded invoice names.
    let told = if onto == asset_receive::Onto::Witness && mirror::is_next(flows, &wallet, &made.transfer).await? {
        mirror::of_one(&wallet, made.transfer, of)
    } else {
        mirror::read(flows, keys, &side.engine, Some(of)).await?
    };
    let scripts = indexes_given_away(flows, keys, &side.engine).await?;
    let machine = AssetReceive {
        request: id,
        invoice: made.invoice,
        recipient: made.recipient,
        batch: made.batch,
        onto,
        asset: wanted.asset.clone(),
        amount: wanted.amount,
        min_confirmations: u32::from(depth(wanted.min_confirmations, flows.confirmations())?),
        address_request: wanted.address,
        state: State::Open,
    };
    let open = Open { flows: flows.clone(), keys: keys.clone(), machine, expires_at, scripts, told, idempotency };
    let opened = flows.store().write(open).await?;
    crash::point("asset_receive.committed");
    Ok(opened)
}

async fn answered_before(
    flows: &Flows,
    key: Option<&Idempotency>,
    id: RequestId,
) -> Result<Option<Request<AssetReceive>>, Error> {
    let Some(key) = key else { return Ok(None) };
    let mut conn = flows.store().read().await?;
    let Some(known) = idempotency::find(&mut conn, id).await? else { return Ok(None) };
    address::check_same_body(&known, key)?;
    Ok(requests::load(&mut conn, known.request).await?)
}

async fn ask(
    flows: &Flows,
    keys: &WalletKeys,
    side: &AssetSide,
    wanted: &NewInvoice,
    expires_at: Timestamp,
) -> Result<(asset_receive::Onto, Receive), Error> {
    let new = |onto| NewReceive {
        onto,
        asset: wanted.asset.clone(),
        amount: wanted.amount,
        expires_at: u64::try_from(expires_at.unix_seconds()).unwrap_or(0),
        min_confirmations: depth(wanted.min_confirmations, flows.confirmations()).unwrap_or(1),
        endpoints: side.endpoints.clone(),
    };
    if wanted.at != Where::Witness {
        match blind(flows, keys, side, new(Onto::OwnCoin)).await {
            Err(Error::Refused { code: Code::ColorableUtxosNeeded | Code::CoinsUnconfirmed, .. })
                if wanted.at == Where::Either => {}
            other => return Ok((asset_receive::Onto::Blind, other?)),
        }
    }
    count_together(flows, keys, &side.engine).await?;
    let made = side.engine.receive(keys, new(Onto::NewCoin)).await.map_err(of_an_invoice)?;
    Ok((asset_receive::Onto::Witness, made))
}

async fn blind(flows: &Flows, keys: &WalletKeys, side: &AssetSide, new: NewReceive) -> Result<Receive, Error> {
    require_coins_in_blocks(flows, keys, side.engine.as_ref()).await?;
    side.engine.receive(keys, new).await.map_err(of_an_invoice)
}

fn of_an_invoice(error: AssetError) -> Error {
    match error {
        AssetError::Refused(Refusal::UnknownAsset(asset)) => Error::Field {
            code: Code::AssetUnknown,
            field: "asset_id",
            reason: format!("this wallet has never had any of {asset}; leave it out, and the payer says what it sends"),
        },
        other => other.into(),
    }
}

/// Has the engine give away no script that was given away here.
pub(super) async fn count_together(
    flows: &Flows,
    keys: &WalletKeys,
    engine: &Arc<dyn AssetEngine>,
) -> Result<(), Error> {
    let mut conn = flows.store().read().await?;
    let next = wallets::keychain(&mut conn, &keys.id(), Account::Colored).await?.next_index;
    drop(conn);
    if engine.next_index(keys).await? < next {
        engine.learn_coins(keys, next).await?;
    }
    Ok(())
}

/// Scripts that the engine has given away and that are not written down yet.
pub(super) async fn indexes_given_away(
    flows: &Flows,
    keys: &WalletKeys,
    engine: &Arc<dyn AssetEngine>,
) -> Result<Range<u32>, Error> {
    let given = engine.next_index(keys).await?;
    let mut conn = flows.store().read().await?;
    let next = wallets::keychain(&mut conn, &keys.id(), Account::Colored).await?.next_index;
    Ok(next..given.max(next))
}

struct Open {
    flows: Flows,
    keys: WalletKeys,
    machine: AssetReceive,
    expires_at: Timestamp,
    scripts: Range<u32>,
    told: mirror::Told,
    idempotency: Option<Idempotency>,
}

#[async_trait]
impl Write for Open {
    type Output = Request<AssetReceive>;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Output, StoreError> {
        let (wallet, now) = (self.keys.id(), tx.now());
        let id = self.machine.request;
        let request = Request {
            id,
            wallet: wallet.clone(),
            reference: None,
            label: None,
            created_at: now,
            updated_at: now,
            expires_at: Some(self.expires_at),
            version: 1,
            machine: self.machine.clone(),
        };
        let opened = apply::create(tx, request, self.machine.announce()).await?;
        if !consignments::keep(tx, &self.machine.recipient, &wallet).await? {
            return Err(StoreError::Corrupt(format!("{} is another wallet's recipient", self.machine.recipient)));
        }
        let lookahead = self.flows.policy().lookahead;
        for index in self.scripts.clone() {
            send::issue(tx, &self.keys, Account::Colored, index, id, lookahead).await?;
        }
        self.told.write(tx).await?;
        if let Some(address) = self.machine.address_request {
            asset_transfers::bind_invoice(tx, address, id).await?;
        }
        if let Some(key) = &self.idempotency {
            let what = Remembered { body_hash: key.body_hash.clone(), request: id, unsigned_txid: None };
            idempotency::remember(tx, id, &wallet, &what).await?;
        }
        asset_transfers::intended(tx, &wallet).await?;
        Ok(opened)
    }
}
