//! What an operator does with API keys while the gateway runs: making, binding, replacing and ending them.
//!
//! A key's secret is in the first answer and nowhere else: it is not remembered with the idempotency key either.

use std::time::Duration;

use async_trait::async_trait;

use super::grants::{self, Granted, WantedGrant};
use super::keys::{self, NewKey, Scope};
use super::operator_call::{Change, Changed, change, once};
use super::{Code, Error, Flows, Idempotency};
use crate::clock::Timestamp;
use crate::domain::Fact;
use crate::domain::event::payloads::{GrantAsked, GrantHandedIn, KeyBound, KeyCreated, KeyRevoked, KeyRotated};
use crate::domain::event::shape::Moment;
use crate::ids::{KeyId, WalletId};
use crate::secret::Secret;
use crate::store::keys::{self as rows, KeyRow};
use crate::store::{StoreError, Tx};

/// What a key may be called.
pub const NAME_MAX: usize = 100;
/// How long the old key stays in force at most when another takes its place.
pub const GRACE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A key with what an operator wants to know of it.
#[derive(Clone, Debug)]
pub struct Known {
    pub row: KeyRow,
    /// How many wallets it may act for.
    pub wallets: i64,
    /// What it may spend without a signature, if anything.
    pub granted: Option<Granted>,
}

/// A page of all keys, oldest first.
///
/// # Errors
/// When the store can't be used.
pub async fn page(flows: &Flows, after: Option<(Timestamp, String)>, limit: u32) -> Result<Vec<Known>, Error> {
    let mut conn = flows.store().read().await?;
    let page = rows::page(&mut conn, after.as_ref(), limit).await?;
    drop(conn);
    let mut granted = grants::list(flows).await?;
    let mut all = Vec::with_capacity(page.len());
    for (row, wallets) in page {
        let at = granted.iter().position(|granted| granted.grant.key == row.id);
        all.push(Known { granted: at.map(|at| granted.swap_remove(at)), row, wallets });
    }
    Ok(all)
}

/// What was asked for keys that wait for their grant, or never got one.
///
/// # Errors
/// When the store can't be used.
pub async fn waiting(flows: &Flows) -> Result<Vec<Granted>, Error> {
    let all = grants::list(flows).await?;
    Ok(all.into_iter().filter(|granted| granted.grant.signed_at.is_none()).collect())
}

/// # Errors
/// When there is no such key.
pub async fn one(flows: &Flows, id: &KeyId) -> Result<Known, Error> {
    let mut conn = flows.store().read().await?;
    let row = rows::by_id(&mut conn, id).await?.ok_or_else(|| unknown(id))?;
    let wallets = rows::count_wallets(&mut conn, id).await?;
    drop(conn);
    let granted = grants::list(flows).await?.into_iter().find(|granted| granted.grant.key == *id);
    Ok(Known { row, wallets, granted })
}

/// A page of the wallets that a key may act for, in the order of their ids.
///
/// # Errors
/// When there is no such key.
pub async fn wallets_of(
    flows: &Flows,
    id: &KeyId,
    after: Option<&WalletId>,
    limit: u32,
) -> Result<Vec<WalletId>, Error> {
    let mut conn = flows.store().read().await?;
    rows::by_id(&mut conn, id).await?.ok_or_else(|| unknown(id))?;
    Ok(rows::wallets_after(&mut conn, id, after.map_or("", WalletId::as_str), limit).await?)
}

fn unknown(id: &KeyId) -> Error {
    Error::refused(Code::NotFound, format!("there is no key {id}"))
}

/// A key that was made, and its secret unless it was shown before.
pub type Made = (KeyId, Option<Secret>);

/// Makes a key; with `like`, one that may act for the wallets of another, those too which are bound to that one later.
///
/// # Errors
/// When a wallet or the other key is unknown, and what becomes of an idempotency key.
pub async fn create(
    flows: &Flows,
    wanted: NewKey,
    like: Option<KeyId>,
    by: String,
    idempotency: Option<Idempotency>,
) -> Result<Made, Error> {
    check(flows, &wanted)?;
    let wallets = wanted.wallets.clone();
    let (row, secret) = keys::draw(flows, wanted);
    let made = change(flows, idempotency, Create { row, wallets, like, by }).await?;
    Ok(shown_once(made, secret))
}

fn check(flows: &Flows, wanted: &NewKey) -> Result<(), Error> {
    let length = wanted.name.chars().count();
    if !(1..=NAME_MAX).contains(&length) || wanted.name.chars().any(char::is_control) {
        return Err(Error::field("name", format!("must be 1 to {NAME_MAX} characters without control characters")));
    }
    if wanted.scopes.is_empty() {
        return Err(Error::field("scopes", "a key without a scope may do nothing; name at least one"));
    }
    if wanted.expires_at.is_some_and(|at| at <= flows.now()) {
        return Err(Error::field("expires_in_days", "must be at least 1"));
    }
    Ok(())
}

fn shown_once(made: Changed<KeyId>, secret: Secret) -> Made {
    (made.done, made.is_new.then_some(secret))
}

struct Create {
    row: KeyRow,
    wallets: Vec<WalletId>,
    like: Option<KeyId>,
    by: String,
}

#[async_trait]
impl Change for Create {
    type Done = KeyId;

    async fn make(&self, tx: &mut Tx<'_>) -> Result<(KeyId, Option<Fact>), Error> {
        let KeyRow { id, name, scopes, expires_at, .. } = &self.row;
        rows::insert(tx, &self.row).await?;
        keys::bind(tx, id, &self.wallets, "wallets").await?;
        if let Some(other) = &self.like {
            let known = rows::by_id(tx.conn(), other).await?;
            known.ok_or_else(|| Error::field("like", format!("there is no key {other}")))?;
            rows::succeed(tx, other, id, None).await?;
        }
        let created = KeyCreated {
            key_id: id.clone(),
            name: name.clone(),
            scopes: scopes.clone(),
            wallets: Some(self.wallets.clone()),
            like: self.like.clone(),
            expires_at: expires_at.map(Moment::from),
            by: self.by.clone(),
        };
        Ok((id.clone(), Some(Fact::KeyCreated(created))))
    }
}

/// Lets a key act for more wallets.
///
/// # Errors
/// When the key or a wallet is unknown, and what becomes of an idempotency key.
pub async fn bind(
    flows: &Flows,
    id: KeyId,
    wallets: Vec<WalletId>,
    by: String,
    idempotency: Option<Idempotency>,
) -> Result<(), Error> {
    change(flows, idempotency, Bind { id, wallets, by }).await.map(drop)
}

struct Bind {
    id: KeyId,
    wallets: Vec<WalletId>,
    by: String,
}

#[async_trait]
impl Change for Bind {
    type Done = ();

    async fn make(&self, tx: &mut Tx<'_>) -> Result<((), Option<Fact>), Error> {
        in_force(tx, &self.id).await?;
        keys::bind(tx, &self.id, &self.wallets, "wallets").await?;
        let bound = KeyBound { key_id: self.id.clone(), wallets: self.wallets.clone(), by: self.by.clone() };
        Ok(((), Some(Fact::KeyBound(bound))))
    }
}

/// The key, which is in force and spends nothing by itself.
async fn in_force(tx: &mut Tx<'_>, id: &KeyId) -> Result<KeyRow, Error> {
    let now = tx.now();
    let row = rows::by_id(tx.conn(), id).await?.ok_or_else(|| unknown(id))?;
    if row.revoked_at.is_some() || row.expires_at.is_some_and(|at| at <= now) {
        return Err(Error::refused(Code::NotFound, format!("the key {id} is not in force")));
    }
    if crate::store::grants::of_key(tx.conn(), id).await?.is_some() {
        let detail = "this key spends for one wallet by a grant that names it; make another one with a limit, \
                      and have its grant signed";
        return Err(Error::refused(Code::InvalidRequest, detail));
    }
    Ok(row)
}

/// Ends a key at once, or takes back what was asked for one.
///
/// # Errors
/// When no such key is in force, and what becomes of an idempotency key.
pub async fn revoke(flows: &Flows, id: KeyId, by: String, idempotency: Option<Idempotency>) -> Result<(), Error> {
    change(flows, idempotency, Revoke { id, by }).await.map(drop)
}

struct Revoke {
    id: KeyId,
    by: String,
}

#[async_trait]
impl Change for Revoke {
    type Done = ();

    async fn make(&self, tx: &mut Tx<'_>) -> Result<((), Option<Fact>), Error> {
        if !keys::end(tx, &self.id).await? {
            return Err(Error::refused(Code::NotFound, format!("no key {} is in force", self.id)));
        }
        let revoked = KeyRevoked { key_id: self.id.clone(), by: self.by.clone() };
        Ok(((), Some(Fact::KeyRevoked(revoked))))
    }
}

/// Makes a key that takes the place of another, which stays in force for a while: long enough to tell whoever has it.
///
/// # Errors
/// When no such key is in force, and what becomes of an idempotency key.
pub async fn rotate(
    flows: &Flows,
    id: KeyId,
    grace: Duration,
    by: String,
    idempotency: Option<Idempotency>,
) -> Result<Made, Error> {
    // What it may do is the other one's, as it stands in the transaction.
    let blank = NewKey { name: String::new(), scopes: Vec::new(), wallets: Vec::new(), expires_at: None };
    let (drawn, secret) = keys::draw(flows, blank);
    let made = change(flows, idempotency, Rotate { id, drawn, grace, by }).await?;
    Ok(shown_once(made, secret))
}

struct Rotate {
    id: KeyId,
    drawn: KeyRow,
    grace: Duration,
    by: String,
}

#[async_trait]
impl Change for Rotate {
    type Done = KeyId;

    async fn make(&self, tx: &mut Tx<'_>) -> Result<(KeyId, Option<Fact>), Error> {
        let now = tx.now();
        let old = in_force(tx, &self.id).await?;
        if let Some(other) = rows::replaced_by(tx.conn(), &old.id).await? {
            let detail = format!("the key {other} has taken its place already; replace that one, or revoke this one");
            return Err(Error::refused(Code::InvalidRequest, detail));
        }
        // As long as the old one was made for.
        let life = old.expires_at.map(|at| at.millis().saturating_sub(old.created_at.millis()));
        let expires_at = life.map(|millis| Timestamp::from_millis(now.millis().saturating_add(millis)));
        let (name, scopes) = (old.name.clone(), old.scopes.clone());
        let new = KeyRow { name, scopes, created_at: now, expires_at, ..self.drawn.clone() };
        rows::insert(tx, &new).await?;
        let ends = now.after(self.grace);
        rows::succeed(tx, &old.id, &new.id, Some(ends)).await?;
        rows::end_at(tx, &old.id, ends).await?;
        let rotated = KeyRotated {
            key_id: old.id,
            successor: new.id.clone(),
            name: new.name,
            ends_at: ends.into(),
            by: self.by.clone(),
        };
        Ok((new.id, Some(Fact::KeyRotated(rotated))))
    }
}

/// Draws the first key of an operator and hands its secret out to be kept, before the key comes into force. Nothing is done where a
/// key for operators was ever made. Answers the key's id.
///
/// # Errors
/// When the secret can't be kept or the store can't be used. No key is in force then.
pub async fn make_first<E: From<Error>>(
    flows: &Flows,
    keep: impl FnOnce(&Secret) -> Result<(), E>,
) -> Result<Option<KeyId>, E> {
    let mut conn = flows.store().read().await.map_err(Error::from)?;
    let was_any = rows::was_any_with(&mut conn, &Scope::OF_ADMINS.map(Scope::as_str)).await.map_err(Error::from)?;
    drop(conn);
    if was_any {
        return Ok(None);
    }
    let scopes = vec![Scope::AdminRead, Scope::AdminWrite];
    let wanted = NewKey { name: "first".to_owned(), scopes, wallets: Vec::new(), expires_at: None };
    let (row, secret) = keys::draw(flows, wanted);
    keep(&secret)?;
    let made = change(flows, None, First { row }).await?;
    Ok(made.done)
}

struct First {
    row: KeyRow,
}

#[async_trait]
impl Change for First {
    /// Empty: somebody else was first.
    type Done = Option<KeyId>;

    async fn make(&self, tx: &mut Tx<'_>) -> Result<(Option<KeyId>, Option<Fact>), Error> {
        if rows::was_any_with(tx.conn(), &Scope::OF_ADMINS.map(Scope::as_str)).await? {
            return Ok((None, None));
        }
        rows::insert(tx, &self.row).await?;
        let created = KeyCreated {
            key_id: self.row.id.clone(),
            name: self.row.name.clone(),
            scopes: self.row.scopes.clone(),
            wallets: None,
            like: None,
            expires_at: None,
            by: "serve".to_owned(),
        };
        Ok((Some(self.row.id.clone()), Some(Fact::KeyCreated(created))))
    }
}

/// Asks the owner of a wallet for a key that may spend. It is no key before the grant is given.
///
/// # Errors
/// What `grants::ask` refuses, and what becomes of an idempotency key.
pub async fn ask(
    flows: &Flows,
    wanted: WantedGrant,
    by: String,
    idempotency: Option<Idempotency>,
) -> Result<Made, Error> {
    let blank =
        NewKey { name: wanted.name.clone(), scopes: wanted.scopes.clone(), wallets: Vec::new(), expires_at: None };
    check(flows, &blank)?;
    let (name, wallet, by) = (wanted.name.clone(), wanted.wallet.clone(), by.to_owned());
    let note = |id: &KeyId| Fact::GrantAsked(GrantAsked { key_id: id.clone(), name, wallet, by });
    let mut secret = None;
    let act = async {
        let asked = grants::ask(flows, wanted).await?;
        secret = Some(asked.secret);
        Ok(asked.key)
    };
    let id = once(flows, idempotency, note, act).await?;
    Ok((id, secret))
}

/// What was asked for a key, and how its limits stand.
///
/// # Errors
/// When nothing was.
pub async fn asked(flows: &Flows, id: &KeyId) -> Result<Granted, Error> {
    let all = grants::list(flows).await?;
    all.into_iter().find(|granted| granted.grant.key == *id).ok_or_else(|| unknown(id))
}

/// Takes the signed grant of a key.
///
/// # Errors
/// What `grants::give` refuses, and what becomes of an idempotency key.
pub async fn give(
    flows: &Flows,
    id: &KeyId,
    signed_psbt: &str,
    by: String,
    idempotency: Option<Idempotency>,
) -> Result<(), Error> {
    let handed_in = GrantHandedIn { key_id: id.clone(), by: by.to_owned() };
    let note = |(): &()| Fact::GrantHandedIn(handed_in);
    once(flows, idempotency, note, async { grants::give(flows, id, signed_psbt).await.map(drop) }).await
}

/// Reads scopes as they are written, each once.
///
/// # Errors
/// Naming the field, when one is unknown.
pub fn read_scopes(texts: &[String]) -> Result<Vec<Scope>, Error> {
    let read = |text: &String| text.parse::<Scope>().map_err(|why| Error::field("scopes", why));
    let mut scopes = texts.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    scopes.sort_unstable();
    scopes.dedup();
    Ok(scopes)
}

/// The scopes of a key, for one that is to be like it.
///
/// # Errors
/// When there is no such key.
pub async fn scopes_of(flows: &Flows, id: &KeyId) -> Result<Vec<Scope>, Error> {
    let mut conn = flows.store().read().await?;
    let row = rows::by_id(&mut conn, id).await?;
    let row = row.ok_or_else(|| Error::field("like", format!("there is no key {id}")))?;
    let scopes = row.scopes.split(',').filter(|text| !text.is_empty()).map(str::parse).collect::<Result<_, _>>();
    Ok(scopes.map_err(StoreError::Corrupt)?)
}
