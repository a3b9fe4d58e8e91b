//! Handing out addresses. Each index is issued once, as one thing, and an address that was handed out is never handed out again.

use std::time::Duration;

use async_trait::async_trait;
use bitcoin::ScriptBuf;

use super::{Code, Error, Flows, Idempotency};
use crate::clock::Timestamp;
use crate::crash;
use crate::domain::address::{ReceiveAddress, State};
use crate::domain::event::payloads::AddressIssued;
use crate::domain::wallet::{Account, DerivedScript, WalletKeys, address_of};
use crate::domain::{Fact, Request, Transition};
use crate::ids::{RequestId, WalletId};
use crate::store::idempotency::{self, Remembered};
use crate::store::requests::{self, Filter, PageAfter};
use crate::store::wallets::{self, Purpose};
use crate::store::{StoreError, Tx, Write, apply};

/// Scripts that are derived at once when the lookahead has shrunk by one: one write in so many issues a whole run of them.
const DERIVE_AT_ONCE: u32 = 100;

#[derive(Clone, Debug, Default)]
pub struct NewAddress {
    pub label: Option<String>,
    pub reference: Option<String>,
}

/// The current unused address: the same until it is used or expires.
///
/// # Errors
/// When the store can't be used.
pub async fn current(flows: &Flows, keys: &WalletKeys) -> Result<Request<ReceiveAddress>, Error> {
    let mut conn = flows.store().read().await?;
    let current = requests::current_address(&mut conn, &keys.id(), flows.now()).await?;
    drop(conn);
    match current {
        Some(request) => Ok(request),
        None => issue(flows, keys, NewAddress::default(), None, OnlyIf::NoneIsCurrent).await,
    }
}

/// A new address, always.
///
/// # Errors
/// When the store can't be used, or an idempotency key was used for something else.
pub async fn new(
    flows: &Flows,
    keys: &WalletKeys,
    wanted: NewAddress,
    idempotency: Option<Idempotency>,
) -> Result<Request<ReceiveAddress>, Error> {
    issue(flows, keys, wanted, idempotency, OnlyIf::Always).await
}

/// Addresses that were handed out and have not been paid to, newest first.
///
/// # Errors
/// When the store can't be used.
pub async fn unused(
    flows: &Flows,
    wallet: &WalletId,
    after: Option<PageAfter>,
    limit: u32,
) -> Result<Vec<Request<ReceiveAddress>>, Error> {
    let mut conn = flows.store().read().await?;
    let filter = Filter { state: Some("open".to_owned()), ..Filter::default() };
    Ok(requests::page(&mut conn, wallet, &filter, after, limit).await?)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnlyIf {
    Always,
    NoneIsCurrent,
}

async fn issue(
    flows: &Flows,
    keys: &WalletKeys,
    wanted: NewAddress,
    idempotency: Option<Idempotency>,
    only_if: OnlyIf,
) -> Result<Request<ReceiveAddress>, Error> {
    let id =
        idempotency.as_ref().map_or_else(RequestId::fresh, |key| RequestId::from_idempotency_key(&keys.id(), &key.key));
    let issue = IssueAddress {
        id,
        keys: keys.clone(),
        wanted,
        idempotency,
        only_if,
        lifetime: Duration::from_secs(flows.policy().address_seconds),
        lookahead: flows.policy().lookahead,
    };
    let issued = flows.store().write(issue).await?;
    crash::point("address.committed");
    Ok(issued)
}

struct IssueAddress {
    id: RequestId,
    keys: WalletKeys,
    wanted: NewAddress,
    idempotency: Option<Idempotency>,
    only_if: OnlyIf,
    lifetime: Duration,
    lookahead: u32,
}

#[async_trait]
impl Write for IssueAddress {
    type Output = Request<ReceiveAddress>;
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Output, Error> {
        let wallet = self.keys.id();
        // Many askers of one wallet stand in line here, rather than to lose a race each.
        wallets::lock_keychain(tx, &wallet, Account::Vanilla).await?;
        if let Some(known) = self.already_answered(tx).await? {
            return Ok(known);
        }
        let now = tx.now();
        if self.only_if == OnlyIf::NoneIsCurrent
            && let Some(current) = requests::current_address(tx.conn(), &wallet, now).await?
        {
            return Ok(current);
        }
        let (index, address) =
            next_script(tx, &self.keys, Account::Vanilla, Purpose::Receive, self.id, self.lookahead).await?;
        self.remember(tx, &wallet).await?;
        let machine = ReceiveAddress { address, index, state: State::Open };
        let request = self.request(&wallet, machine, now);
        let issued = AddressIssued {
            address: request.machine.address.clone(),
            label: request.label.clone(),
            reference: request.reference.clone(),
        };
        let first = Transition::to(request.machine.clone()).event(Fact::AddressIssued(issued));
        Ok(apply::create(tx, request, first).await?)
    }
}

impl IssueAddress {
    fn request(&self, wallet: &WalletId, machine: ReceiveAddress, now: Timestamp) -> Request<ReceiveAddress> {
        Request {
            id: self.id,
            wallet: wallet.clone(),
            reference: self.wanted.reference.clone(),
            label: self.wanted.label.clone(),
            created_at: now,
            updated_at: now,
            expires_at: Some(now.after(self.lifetime)),
            version: 1,
            machine,
        }
    }

    async fn already_answered(&self, tx: &mut Tx<'_>) -> Result<Option<Request<ReceiveAddress>>, Error> {
        let Some(key) = &self.idempotency else { return Ok(None) };
        let Some(known) = idempotency::find(tx.conn(), self.id).await? else { return Ok(None) };
        check_same_body(&known, key)?;
        Ok(requests::load(tx.conn(), known.request).await?)
    }

    async fn remember(&self, tx: &mut Tx<'_>, wallet: &WalletId) -> Result<(), Error> {
        let Some(key) = &self.idempotency else { return Ok(()) };
        let what = Remembered { body_hash: key.body_hash.clone(), request: self.id, unsigned_txid: None };
        Ok(idempotency::remember(tx, self.id, wallet, &what).await?)
    }
}

/// The same key with another body is a mistake of the caller's, never a second request.
pub(super) fn check_same_body(known: &Remembered, key: &Idempotency) -> Result<(), Error> {
    if known.body_hash.is_of_same_call(&key.body_hash) {
        return Ok(());
    }
    Err(Error::Field {
        code: Code::IdempotencyMismatch,
        field: "Idempotency-Key",
        reason: "this key was used for another request of this wallet; use a new key".to_owned(),
    })
}

/// Issues the next index of a keychain and keeps the lookahead full; answers the index and its address.
pub(super) async fn next_script(
    tx: &mut Tx<'_>,
    keys: &WalletKeys,
    account: Account,
    purpose: Purpose,
    request: RequestId,
    lookahead: u32,
) -> Result<(u32, String), StoreError> {
    let wallet = keys.id();
    let index = wallets::keychain(tx.conn(), &wallet, account).await?.next_index;
    extend_lookahead(tx, keys, account, index.saturating_add(1), lookahead).await?;
    wallets::issue_index(tx, &wallet, account, index, purpose, request).await?;
    let script = wallets::script_at(tx.conn(), &wallet, account, index)
        .await?
        .ok_or_else(|| StoreError::Corrupt(format!("index {index} of {wallet} has no script")))?;
    Ok((index, address_of(&script.script, keys.network())))
}

/// A client may pay an address of his own that was never handed out here: its index is used up then, and is not taken for change.
pub(super) async fn skip_if_unissued(flows: &Flows, keys: &WalletKeys, script: &ScriptBuf) -> Result<(), Error> {
    let mut conn = flows.store().read().await?;
    let wallet = keys.id();
    let known = wallets::scripts_among(&mut conn, std::slice::from_ref(script)).await?.pop();
    let Some(known) = known.filter(|known| known.wallet == wallet) else { return Ok(()) };
    let next = wallets::keychain(&mut conn, &wallet, known.account).await?.next_index;
    drop(conn);
    if known.index < next {
        return Ok(());
    }
    let (keys, lookahead) = (keys.clone(), flows.policy().lookahead);
    Ok(flows.store().write(Skip { keys, account: known.account, index: known.index, lookahead }).await?)
}

struct Skip {
    keys: WalletKeys,
    account: Account,
    index: u32,
    lookahead: u32,
}

#[async_trait]
impl Write for Skip {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        wallets::skip_to(tx, &self.keys.id(), self.account, self.index).await?;
        extend_lookahead(tx, &self.keys, self.account, self.index.saturating_add(1), self.lookahead).await
    }
}

/// Derives more scripts when fewer than the lookahead are left beyond an index.
pub(super) async fn extend_lookahead(
    tx: &mut Tx<'_>,
    keys: &WalletKeys,
    account: Account,
    beyond: u32,
    lookahead: u32,
) -> Result<(), StoreError> {
    let wallet = keys.id();
    let derived_to = wallets::keychain(tx.conn(), &wallet, account).await?.derived_to;
    let needed = beyond.saturating_add(lookahead);
    if derived_to >= needed {
        return Ok(());
    }
    let scripts: Vec<DerivedScript> = keys.scripts(account, derived_to..needed.saturating_add(DERIVE_AT_ONCE));
    wallets::add_scripts(tx, &wallet, account, &scripts).await
}
