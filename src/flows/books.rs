//! The books of the node's own money: entering what the node tells, and what an operator reads from them and resolves.

use async_trait::async_trait;
use serde_json::json;

use super::operator_call::once;
use super::{Code, Error, Flows, Idempotency, withdraw};
use crate::clock::Timestamp;
use crate::domain::Fact;
pub use crate::domain::event::payloads::Resolution;
use crate::domain::event::payloads::SuspenseResolved;
use crate::domain::movement::{Movement, Owner, Subject};
use crate::domain::withdraw::Withdraw;
use crate::ids::{RequestId, WalletId};
use crate::ledger::{Account, Kind, Posting, PostingId};
use crate::money::{Amount, AssetId, Money, Sat};
use crate::ports::lightning::SentOnchain;
use crate::store::books::{self, BookEntry, Line, Suspended};
use crate::store::{StoreError, Tx, Write, apply, requests, wallets};

/// Movements that one question to the node is about.
const PAGE: u32 = 200;

/// Enters everything that the node has told since the last entry; answers how much that was.
///
/// # Errors
/// When the store or the node can't be used. What was entered stays, and the rest is entered the next time.
pub async fn enter_movements(flows: &Flows) -> Result<usize, Error> {
    let hand = flows.node().hand()?;
    let node = &hand.node;
    let mut entered = 0;
    loop {
        let mut conn = flows.store().read().await?;
        let after = books::cursor(&mut conn).await?;
        drop(conn);
        let told = node.movements(after, PAGE).await.map_err(Error::Node)?;
        if told.is_empty() {
            return Ok(entered);
        }
        for (number, movement) in told {
            if let Movement::Sent { txid, order: Some(order), fee, .. } = &movement {
                withdraw::note_sent(flows, &hand, *order, SentOnchain { txid: *txid, fee: *fee }).await?;
            }
            flows.store().write(Enter { number, movement }).await?;
            entered += 1;
        }
    }
}

struct Enter {
    number: i64,
    movement: Movement,
}

#[async_trait]
impl Write for Enter {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let owner = owner_of(tx, &self.movement).await?;
        let id = RequestId::of_movement(&self.movement.key());
        let data = serde_json::to_value(&self.movement).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let entry = BookEntry {
            id,
            number: Some(self.number),
            resolves: None,
            kind: self.movement.kind(),
            data: data.to_string(),
        };
        let postings = self.movement.postings(id, owner);
        apply::enter(tx, &entry, &postings, None, &Fact::from(&self.movement)).await.map(drop)
    }
}

async fn owner_of(tx: &mut Tx<'_>, movement: &Movement) -> Result<Owner, StoreError> {
    let Some(subject) = movement.subject() else { return Ok(Owner::Suspense) };
    if books::is_of_a_wallet(tx.conn(), subject).await? {
        return Ok(Owner::Wallet { fee: fee_paid(tx, subject).await? });
    }
    match subject {
        Subject::Paid { script } if books::is_of_reserve(tx.conn(), script).await? => Ok(Owner::Capital),
        Subject::Paid { .. } | Subject::Ordered(_) => Ok(Owner::Suspense),
    }
}

/// What the wallet has paid of the fee. All of it, when it has not been told yet that it was sent: then this is the transaction it is told of.
async fn fee_paid(tx: &mut Tx<'_>, subject: Subject<'_>) -> Result<Sat, StoreError> {
    let Subject::Ordered(order) = subject else { return Ok(Sat::ZERO) };
    let request = requests::load::<Withdraw>(tx.conn(), order).await?;
    Ok(request.and_then(|request| request.machine.fee()).unwrap_or(Sat::MAX))
}

/// Every account, those of wallets as one line.
///
/// # Errors
/// When the store can't be used.
pub async fn trial_balance(flows: &Flows) -> Result<(Timestamp, Vec<Line>), Error> {
    let mut conn = flows.store().read().await?;
    Ok((flows.now(), books::trial_balance(&mut conn).await?))
}

/// What the operator has earned and paid within a time, by account.
///
/// # Errors
/// When the store can't be used.
pub async fn gains(flows: &Flows, from: Timestamp, to: Timestamp) -> Result<Vec<(String, i64)>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(books::gains(&mut conn, from, to).await?)
}

/// The moment after everything that was posted until now.
#[must_use]
pub fn from_now_on(flows: &Flows) -> Timestamp {
    Timestamp::from_millis(flows.now().millis().saturating_add(1))
}

/// A page of what waits in suspense, oldest first.
///
/// # Errors
/// When the store can't be used.
pub async fn suspended(flows: &Flows, after: Option<(Timestamp, String)>, limit: u32) -> Result<Vec<Suspended>, Error> {
    let mut conn = flows.store().read().await?;
    let after = after.as_ref().map(|(at, id)| (*at, id.as_str()));
    Ok(books::suspended(&mut conn, after, limit).await?)
}

/// Whose it is after all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimant {
    Wallet(WalletId),
    Capital,
}

/// Moves an item out of suspense, whole, to whom it belongs.
///
/// # Errors
/// When there is no such item in suspense, when a loss is to be borne by a wallet, when there is no such wallet, and what becomes
/// of an idempotency key.
pub async fn resolve(
    flows: &Flows,
    item: String,
    claimant: Claimant,
    reason: String,
    by: String,
    idempotency: Option<Idempotency>,
) -> Result<Resolution, Error> {
    let note = |done: &Resolution| Fact::SuspenseResolutionAnswered(done.clone());
    let act = async { flows.store().write(Resolve { item, claimant, reason, by }).await };
    once(flows, idempotency, note, act).await
}

struct Resolve {
    item: String,
    claimant: Claimant,
    reason: String,
    /// The key of who decides.
    by: String,
}

#[async_trait]
impl Write for Resolve {
    type Output = Resolution;
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Resolution, Error> {
        let found = books::suspended_by_id(tx.conn(), &self.item).await?;
        let found = found.ok_or_else(|| Error::refused(Code::NotFound, "nothing of this id waits in suspense"))?;
        let account = self.account(tx, &found).await?;
        let id = RequestId::of_movement(&format!("resolved:{}", found.id));
        let resolution = Resolution {
            id: id.to_string(),
            item: found.id.clone(),
            account: account.to_string(),
            amount_msat: found.amount,
            reason: self.reason.clone(),
        };
        let resolved = SuspenseResolved { resolution: resolution.clone(), by: self.by.clone() };
        let entry = BookEntry {
            id,
            number: None,
            resolves: Some(found.id.clone()),
            kind: "resolution",
            data: json!(resolved).to_string(),
        };
        let amount =
            Amount::from_msat(found.amount.unsigned_abs()).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let (debit, credit) =
            if found.amount > 0 { (Account::Suspense, account) } else { (account, Account::Suspense) };
        let posting = Posting {
            id: PostingId::of(id, "resolution"),
            request: id,
            debit,
            credit,
            money: Money { asset: AssetId::Btc, amount },
            kind: Kind::Post,
        };
        let wallet = match &self.claimant {
            Claimant::Wallet(wallet) => Some(wallet),
            Claimant::Capital => None,
        };
        let note = Fact::SuspenseResolved(resolved);
        if apply::enter(tx, &entry, &[posting], wallet, &note).await? {
            return Ok(resolution);
        }
        Err(StoreError::Conflict("the item in suspense").into())
    }
}

impl Resolve {
    async fn account(&self, tx: &mut Tx<'_>, found: &Suspended) -> Result<Account, Error> {
        match &self.claimant {
            Claimant::Capital => Ok(Account::Capital),
            Claimant::Wallet(_) if found.amount < 0 => {
                Err(Error::field("to", "this is a loss, and no wallet bears the operator's losses; it must be capital"))
            }
            Claimant::Wallet(wallet) => {
                let known = wallets::find(tx.conn(), wallet).await?;
                if known.is_none_or(|row| row.released_at.is_some()) {
                    return Err(Error::refused(Code::WalletNotRegistered, format!("no wallet {wallet} is registered")));
                }
                Ok(Account::Wallet(wallet.clone()))
            }
        }
    }
}
