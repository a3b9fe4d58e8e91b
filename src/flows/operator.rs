//! What only an operator does: looking at all wallets, freeing one's keys, and letting payouts go on.

use async_trait::async_trait;

use super::operator_call::{Change, change};
use super::{Code, Error, Flows, Idempotency};
use crate::domain::Fact;
use crate::domain::event::payloads::{HaltCleared, HaltRaised, WalletReleased};
use crate::ids::WalletId;
use crate::store::halts::{self, Halt, Scope};
use crate::store::wallets::{self, WalletRow};
use crate::store::{StoreError, Tx};

/// What a halt may be called.
const NAME_MAX: usize = 32;
/// What it is called unless the operator says otherwise.
pub const HALT_NAME: &str = halts::OPERATOR;

/// A page of all wallets, in the order of their ids.
///
/// # Errors
/// When the store can't be used.
pub async fn wallets_after(flows: &Flows, after: Option<&WalletId>, limit: u32) -> Result<Vec<WalletRow>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(wallets::list(&mut conn, after.map_or("", WalletId::as_str), limit).await?)
}

/// Frees a wallet's keys for another registration. It is no longer watched; what was recorded of it stays.
///
/// # Errors
/// `wallet_not_registered` when there is no such wallet; refused while a send or a deposit of it is not finished; and what becomes of
/// an idempotency key.
pub async fn release_wallet(
    flows: &Flows,
    wallet: WalletId,
    by: String,
    idempotency: Option<Idempotency>,
) -> Result<(), Error> {
    match change(flows, idempotency, Release { wallet, by }).await {
        Err(Error::Store(StoreError::Conflict(_))) => Err(Error::refused(
            Code::InvalidRequest,
            "a send or a deposit of this wallet is not finished; a wallet is released when nothing of it is under way",
        )),
        done => done.map(drop),
    }
}

/// The reasons for which no money goes out: that of everybody, or of one wallet.
///
/// # Errors
/// When the store can't be used.
pub async fn halts(flows: &Flows) -> Result<Vec<Halt>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(halts::all_in_force(&mut conn).await?)
}

/// What an operator wants to be stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Whose payouts.
    pub scope: Scope,
    pub name: String,
    /// A sentence, for whoever is to clear it.
    pub reason: String,
}

/// Stops payouts until somebody clears the halt. One of this name that is in force stays as it is.
///
/// # Errors
/// When the name is an alarm's or can't be one, when there is no such wallet, and what becomes of an idempotency key.
pub async fn halt(flows: &Flows, stop: Stop, by: String, idempotency: Option<Idempotency>) -> Result<(), Error> {
    let name = &stop.name;
    if halts::ALARMS.contains(&name.as_str()) {
        return Err(Error::field("name", format!("{name} is an alarm, which is raised by itself; use another name")));
    }
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !(1..=NAME_MAX).contains(&name.len()) || !name.bytes().all(is_word) {
        return Err(Error::field("name", format!("must be 1 to {NAME_MAX} of a to z, 0 to 9 and _")));
    }
    change(flows, idempotency, Raise { stop, by }).await.map(drop)
}

/// Clears the halt with this id or name.
///
/// # Errors
/// When no such halt is in force, and what becomes of an idempotency key.
pub async fn resume(
    flows: &Flows,
    halt: String,
    reason: Option<String>,
    by: String,
    idempotency: Option<Idempotency>,
) -> Result<(), Error> {
    change(flows, idempotency, Resume { halt, reason, by }).await.map(drop)
}

struct Release {
    wallet: WalletId,
    by: String,
}

#[async_trait]
impl Change for Release {
    type Done = ();

    async fn make(&self, tx: &mut Tx<'_>) -> Result<((), Option<Fact>), Error> {
        let known = wallets::find(tx.conn(), &self.wallet).await?;
        if known.is_none_or(|row| row.released_at.is_some()) {
            let detail = format!("no wallet {} is registered", self.wallet);
            return Err(Error::refused(Code::WalletNotRegistered, detail));
        }
        wallets::release(tx, &self.wallet).await?;
        let released = WalletReleased { wallet: self.wallet.clone(), by: self.by.clone() };
        Ok(((), Some(Fact::WalletReleased(released))))
    }
}

struct Raise {
    stop: Stop,
    by: String,
}

#[async_trait]
impl Change for Raise {
    type Done = ();

    async fn make(&self, tx: &mut Tx<'_>) -> Result<((), Option<Fact>), Error> {
        let Stop { scope, name, reason } = &self.stop;
        if let Scope::Wallet(wallet) = scope
            && wallets::find(tx.conn(), wallet).await?.is_none()
        {
            return Err(Error::field("wallet", format!("{wallet} is not registered")));
        }
        if !halts::raise_for(tx, scope, name, reason).await? {
            return Ok(((), None));
        }
        let (of, subject) = spelt(scope);
        let raised =
            HaltRaised { reason: name.clone(), detail: reason.clone(), by: self.by.clone(), scope: of, subject };
        Ok(((), Some(Fact::HaltRaised(raised))))
    }
}

/// Who is stopped: all, or whom.
fn spelt(scope: &Scope) -> (String, Option<String>) {
    let (of, subject) = scope.parts();
    (of.to_owned(), (!subject.is_empty()).then(|| subject.to_owned()))
}

struct Resume {
    halt: String,
    reason: Option<String>,
    by: String,
}

#[async_trait]
impl Change for Resume {
    type Done = ();

    async fn make(&self, tx: &mut Tx<'_>) -> Result<((), Option<Fact>), Error> {
        let halt = self.find(tx).await?;
        if !halts::clear_for(tx, &halt.scope, &halt.reason).await? {
            return Err(self.unknown());
        }
        let (scope, subject) = spelt(&halt.scope);
        let cleared = HaltCleared {
            reason: halt.reason.clone(),
            detail: self.reason.clone(),
            since: halt.created_at.into(),
            by: self.by.clone(),
            scope,
            subject,
        };
        Ok(((), Some(Fact::HaltCleared(cleared))))
    }
}

impl Resume {
    fn unknown(&self) -> Error {
        Error::refused(Code::NotFound, format!("nothing is stopped by {}", self.halt))
    }

    /// The one with this id; else the one of everybody with this name; else the only one of a wallet.
    async fn find(&self, tx: &mut Tx<'_>) -> Result<Halt, Error> {
        let mut all = halts::all_in_force(tx.conn()).await?;
        if let Some(at) = all.iter().position(|halt| halt.id == self.halt) {
            return Ok(all.swap_remove(at));
        }
        all.retain(|halt| halt.reason == self.halt);
        if let Some(at) = all.iter().position(|halt| halt.scope == Scope::Everybody) {
            return Ok(all.swap_remove(at));
        }
        let only = all.pop().ok_or_else(|| self.unknown())?;
        if all.is_empty() {
            return Ok(only);
        }
        let detail = format!("several wallets are stopped by {}; clear each by its id", self.halt);
        Err(Error::refused(Code::InvalidRequest, detail))
    }
}
