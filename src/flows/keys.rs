//! API keys: making, showing, revoking and recognising them. A key is shown once, when it is made.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use bitcoin::hashes::{Hash, sha256};
use subtle::ConstantTimeEq;

use super::{Error, Flows};
use crate::clock::Timestamp;
use crate::domain::Fact;
use crate::domain::event::payloads::GrantRevoked;
use crate::ids::{KeyId, WalletId};
use crate::secret::Secret;
use crate::store::keys::{self, KeyRow};
use crate::store::{StoreError, Tx, Write, events, grants};

/// What a key may do. One says nothing about another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    Read,
    Receive,
    Send,
    Register,
    /// Everything that an operator may do. Keys of today have one of the two below, or both.
    Admin,
    AdminRead,
    AdminWrite,
}

impl Scope {
    pub const ALL: [Self; 7] =
        [Self::Read, Self::Receive, Self::Send, Self::Register, Self::Admin, Self::AdminRead, Self::AdminWrite];
    /// Those with which an operator changes something.
    pub const OF_ADMINS: [Self; 2] = [Self::Admin, Self::AdminWrite];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Receive => "receive",
            Self::Send => "send",
            Self::Register => "register",
            Self::Admin => "admin",
            Self::AdminRead => "admin:read",
            Self::AdminWrite => "admin:write",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| {
            format!("{text} is no scope; there are read, receive, send, register, admin:read, admin:write, admin")
        })
    }
}

/// A key that was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub key: KeyId,
    pub scopes: Vec<Scope>,
}

impl Caller {
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        let is_admins = matches!(scope, Scope::AdminRead | Scope::AdminWrite);
        self.scopes.contains(&scope) || (is_admins && self.scopes.contains(&Scope::Admin))
    }
}

#[derive(Clone, Debug)]
pub struct NewKey {
    pub name: String,
    pub scopes: Vec<Scope>,
    pub wallets: Vec<WalletId>,
    pub expires_at: Option<Timestamp>,
}

/// Begins every key, so that a leaked one is recognised by scanners.
const PREFIX: &str = "sluice";

/// Whether a text has the shape of a key: `sluice_`, 12 digits of its id, `_`, and 64 digits that are the secret.
#[must_use]
pub fn could_be_key(text: &str) -> bool {
    let are_digits = |part: Option<&str>, count: usize| {
        part.is_some_and(|part| {
            part.len() == count && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let mut parts = text.split('_');
    parts.next() == Some(PREFIX)
        && are_digits(parts.next(), 12)
        && are_digits(parts.next(), 64)
        && parts.next().is_none()
}

/// Makes a key. The secret is answered here and nowhere else.
///
/// # Errors
/// When a wallet is not registered or the store can't be used.
pub async fn create(flows: &Flows, wanted: NewKey) -> Result<(KeyId, Secret), Error> {
    let wallets = wanted.wallets.clone();
    let (row, secret) = draw(flows, wanted);
    let id = row.id.clone();
    flows.store().write(Create { row, wallets }).await?;
    Ok((id, secret))
}

/// A key that nobody has seen yet, and its row.
pub(super) fn draw(flows: &Flows, wanted: NewKey) -> (KeyRow, Secret) {
    let id = KeyId(format!("{:012x}", rand::random::<u64>() >> 16));
    let secret = format!("{PREFIX}_{id}_{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
    let row = KeyRow {
        id,
        hash: hash(&secret),
        name: wanted.name,
        scopes: wanted.scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        created_at: flows.now(),
        expires_at: wanted.expires_at,
        revoked_at: None,
    };
    (row, Secret::new(secret))
}

/// # Errors
/// When the store can't be used.
pub async fn list(flows: &Flows) -> Result<Vec<(KeyRow, Vec<WalletId>)>, Error> {
    let mut conn = flows.store().read().await?;
    let mut all = Vec::new();
    for row in keys::list(&mut conn).await? {
        let wallets = keys::wallets_of(&mut conn, &row.id).await?;
        all.push((row, wallets));
    }
    Ok(all)
}

/// Ends a key, or takes back what was asked for one. Answers whether there was such a key.
///
/// # Errors
/// When the store can't be used.
pub async fn revoke(flows: &Flows, id: KeyId) -> Result<bool, Error> {
    Ok(flows.store().write(Revoke(id)).await?)
}

/// Who a key belongs to; `None` for one that is unknown, revoked or expired. All three are answered alike.
///
/// # Errors
/// When the store can't be used.
pub async fn authenticate(flows: &Flows, presented: &str) -> Result<Option<Caller>, Error> {
    let hash = hash(presented);
    let mut conn = flows.store().read().await?;
    let Some(row) = keys::by_hash(&mut conn, &hash).await? else { return Ok(None) };
    let same: bool = row.hash.as_bytes().ct_eq(hash.as_bytes()).into();
    let in_force = row.revoked_at.is_none() && row.expires_at.is_none_or(|at| at > flows.now());
    if !(same && in_force) {
        return Ok(None);
    }
    let scopes = row.scopes.split(',').filter(|text| !text.is_empty()).map(Scope::from_str).collect::<Result<_, _>>();
    let scopes = scopes.map_err(StoreError::Corrupt)?;
    Ok(Some(Caller { key: row.id, scopes }))
}

/// Whether a key may act for a wallet.
///
/// # Errors
/// When the store can't be used.
pub async fn is_bound(flows: &Flows, key: &KeyId, wallet: &WalletId) -> Result<bool, Error> {
    let mut conn = flows.store().read().await?;
    Ok(keys::is_bound(&mut conn, key, wallet).await?)
}

fn hash(secret: &str) -> String {
    sha256::Hash::hash(secret.as_bytes()).to_string()
}

struct Create {
    row: KeyRow,
    wallets: Vec<WalletId>,
}

#[async_trait]
impl Write for Create {
    type Output = ();
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Error> {
        keys::insert(tx, &self.row).await?;
        bind(tx, &self.row.id, &self.wallets, "wallet").await
    }
}

/// Lets a key act for registered wallets.
pub(super) async fn bind(tx: &mut Tx<'_>, key: &KeyId, wallets: &[WalletId], field: &'static str) -> Result<(), Error> {
    for wallet in wallets {
        if crate::store::wallets::find(tx.conn(), wallet).await?.is_none() {
            return Err(Error::field(field, format!("{wallet} is not registered")));
        }
        keys::bind_wallet(tx, key, wallet).await?;
    }
    Ok(())
}

struct Revoke(KeyId);

#[async_trait]
impl Write for Revoke {
    type Output = bool;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        end(tx, &self.0).await
    }
}

/// Ends a key, or takes back what was asked for one, and tells the owner of the wallet that it could spend for.
pub(super) async fn end(tx: &mut Tx<'_>, key: &KeyId) -> Result<bool, StoreError> {
    if !keys::revoke(tx, key).await? {
        return grants::withdraw(tx, key).await;
    }
    let Some(grant) = grants::of_key(tx.conn(), key).await? else { return Ok(true) };
    let revoked = GrantRevoked { key_id: grant.key, name: grant.name };
    events::append(tx, Some(&grant.wallet), None, &Fact::GrantRevoked(revoked)).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_the_shape_of_a_key_is_none() {
        let good = format!("sluice_{}_{}", "0a".repeat(6), "0f".repeat(32));
        assert!(could_be_key(&good));
        let longer = format!("{good}0");
        for bad in ["", "sluice", "sluice_0_0", "Sluice_000000000000_0", &good.to_uppercase(), &longer, &longer[1..]] {
            assert!(!could_be_key(bad), "{bad}");
        }
        assert!(!could_be_key(&format!("{good}_")) && !could_be_key(&good.replace('f', "g")));
    }
}
