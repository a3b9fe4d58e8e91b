//! Keys that may spend: asking a wallet's owner for the grant, taking the signed one, and showing what of it is used.
//!
//! The key is drawn when the grant is asked for, because the grant names it, and comes into force with the owner's signature.

use async_trait::async_trait;
use bitcoin::Psbt;

use super::keys::{self, NewKey, Scope};
use super::{Code, Error, Flows};
use crate::clock::Timestamp;
use crate::domain::event::payloads::GrantGiven;
use crate::domain::grant::{self, Grant, Limit};
use crate::domain::psbt::{self, PsbtProblem};
use crate::domain::wallet::WalletKeys;
use crate::domain::{Fact, authorization};
use crate::ids::{KeyId, WalletId};
use crate::money::Money;
use crate::secret::Secret;
use crate::store::grants::{self, GrantRow};
use crate::store::keys::KeyRow;
use crate::store::spending::{self, Budget};
use crate::store::{Conn, StoreError, Tx, Write, events, wallets};

/// Grants of a wallet that are shown.
pub const SHOWN: u32 = 100;
const FIELD: &str = "grant";

/// What a key is to be allowed.
#[derive(Clone, Debug)]
pub struct WantedGrant {
    pub name: String,
    pub scopes: Vec<Scope>,
    pub wallet: WalletId,
    pub limits: Vec<Limit>,
    pub per_payment: Option<Money>,
    pub expires_at: Timestamp,
}

/// A key in the making, and what its wallet's owner has to sign.
#[derive(Debug)]
pub struct Asked {
    pub key: KeyId,
    pub secret: Secret,
    pub message: String,
    pub psbt: String,
}

/// Draws a key and writes down what is asked for it. The key is in force when the grant is given, and not before.
///
/// # Errors
/// When the wallet is not registered, or this is no limit.
pub async fn ask(flows: &Flows, wanted: WantedGrant) -> Result<Asked, Error> {
    check(flows, &wanted)?;
    let WantedGrant { name, scopes, wallet, limits, per_payment, expires_at } = wanted;
    let mut conn = flows.store().read().await?;
    let owner = owner(flows, &mut conn, &wallet).await?;
    drop(conn);
    let (drawn, secret) = keys::draw(flows, NewKey { name, scopes, wallets: Vec::new(), expires_at: Some(expires_at) });
    let asked = Grant {
        gateway: flows.store().gateway().clone(),
        network: flows.network(),
        wallet: wallet.clone(),
        key: drawn.id.clone(),
        key_hash: drawn.hash.clone(),
        limits: limits.clone(),
        per_payment: per_payment.clone(),
        expires: expires_at,
    };
    let message = asked.message();
    let psbt = authorization::to_sign(&owner, &message).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let row = GrantRow {
        key: drawn.id.clone(),
        wallet,
        unsigned_txid: psbt.unsigned_tx.compute_txid(),
        psbt: psbt.to_string(),
        message: message.clone(),
        key_hash: drawn.hash,
        name: drawn.name,
        scopes: drawn.scopes,
        per_payment: per_payment.map(|money| money.amount),
        created_at: drawn.created_at,
        expires_at,
        signed_tx: None,
        signed_at: None,
    };
    let answer = Asked { key: drawn.id, secret, message, psbt: row.psbt.clone() };
    flows.store().write(Ask { row, limits }).await?;
    Ok(answer)
}

fn check(flows: &Flows, wanted: &WantedGrant) -> Result<(), Error> {
    if !wanted.scopes.contains(&Scope::Send) {
        return Err(Error::field("scope", "a key that may spend needs the scope send"));
    }
    let is_of_one_wallet = |scope: &Scope| matches!(scope, Scope::Read | Scope::Receive | Scope::Send);
    if !wanted.scopes.iter().all(is_of_one_wallet) {
        return Err(Error::field(
            "scope",
            "a key that may spend is for one wallet: it can have read, receive and send",
        ));
    }
    if wanted.limits.is_empty() {
        return Err(Error::field("limit", "a key that may spend needs a limit"));
    }
    for (at, limit) in wanted.limits.iter().enumerate() {
        let is_again = |other: &Limit| other.period == limit.period && other.money.asset == limit.money.asset;
        if wanted.limits.iter().skip(at.saturating_add(1)).any(is_again) {
            return Err(Error::field("limit", format!("there are two for a {}; name one", limit.period)));
        }
    }
    if wanted.expires_at <= flows.now() {
        return Err(Error::field("expires_in_days", "must be at least 1"));
    }
    Ok(())
}

/// The keys of a wallet that is registered.
async fn owner(flows: &Flows, conn: &mut Conn, wallet: &WalletId) -> Result<WalletKeys, Error> {
    let row = wallets::find(conn, wallet).await?.filter(|row| row.released_at.is_none());
    let row = row.ok_or_else(|| Error::field("wallet", format!("{wallet} is not registered")))?;
    Ok(WalletKeys::parse(&row.xpub_van, &row.xpub_col, &row.fingerprint, flows.network())?)
}

struct Ask {
    row: GrantRow,
    limits: Vec<Limit>,
}

#[async_trait]
impl Write for Ask {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        grants::insert(tx, &self.row, &self.limits).await
    }
}

/// What was asked for a key, signed or not.
///
/// # Errors
/// When nothing was.
pub async fn asked(flows: &Flows, key: &KeyId) -> Result<GrantRow, Error> {
    let mut conn = flows.store().read().await?;
    grants::of_key(&mut conn, key).await?.ok_or_else(|| unknown(key))
}

fn unknown(key: &KeyId) -> Error {
    Error::Field {
        code: Code::PsbtUnknown,
        field: FIELD,
        reason: format!("no key {key} waits for a grant; see `sluice keys list`"),
    }
}

/// Takes the signed grant of a key: from now on it may spend within its limits.
///
/// # Errors
/// When it is not the grant that was asked for this key, is not signed by the wallet's first key, came too late or was given before. Each says which.
pub async fn give(flows: &Flows, key: &KeyId, signed_psbt: &str) -> Result<GrantRow, Error> {
    let row = asked(flows, key).await?;
    let signed = psbt::parse(signed_psbt)?;
    require_same(&row, &signed)?;
    let mut conn = flows.store().read().await?;
    let owner = owner(flows, &mut conn, &row.wallet).await?;
    drop(conn);
    let proof = authorization::verify(&owner, &row.message, &signed)?;
    flows.store().write(Give { key: key.clone(), proof }).await?;
    asked(flows, key).await
}

/// What was signed is exactly what was asked for. If not, the first line that differs tells why.
fn require_same(row: &GrantRow, signed: &Psbt) -> Result<(), Error> {
    if authorization::issued_txid(signed) == Some(row.unsigned_txid) {
        return Ok(());
    }
    let claimed = authorization::claimed_message(signed).and_then(|claimed| grant::difference(&row.message, claimed));
    let Some(difference) = claimed else { return Err(PsbtProblem::Altered.into()) };
    let reason = format!("this is not the grant that the key {} waits for: {difference}", row.key);
    Err(Error::Field { code: Code::PsbtAltered, field: FIELD, reason })
}

struct Give {
    key: KeyId,
    proof: bitcoin::Transaction,
}

#[async_trait]
impl Write for Give {
    type Output = ();
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Error> {
        let now = tx.now();
        let row = grants::of_key(tx.conn(), &self.key).await?.ok_or_else(|| unknown(&self.key))?;
        if let Some(at) = row.signed_at {
            return Err(Error::field(FIELD, format!("this grant was given at {at}; a grant makes one key, once")));
        }
        if row.expires_at <= now {
            let detail = format!("this grant ended at {} and was never given; ask for another", row.expires_at);
            return Err(Error::refused(Code::RequestExpired, detail));
        }
        grants::keep_signed(tx, &self.key, &self.proof).await?;
        let GrantRow { key, wallet, key_hash, name, scopes, expires_at, .. } = row;
        let key = KeyRow {
            id: key,
            hash: key_hash,
            name,
            scopes,
            created_at: now,
            expires_at: Some(expires_at),
            revoked_at: None,
        };
        crate::store::keys::insert(tx, &key).await?;
        crate::store::keys::bind_wallet(tx, &key.id, &wallet).await?;
        let given = GrantGiven { key_id: key.id.clone(), name: key.name.clone(), expires_at: expires_at.into() };
        Ok(events::append(tx, Some(&wallet), None, &Fact::GrantGiven(given)).await?)
    }
}

/// A grant, and how its limits stand.
#[derive(Clone, Debug)]
pub struct Granted {
    pub grant: GrantRow,
    pub budgets: Vec<Budget>,
    pub revoked_at: Option<Timestamp>,
}

/// Every grant that was asked for, oldest first.
///
/// # Errors
/// When the store can't be used.
pub async fn list(flows: &Flows) -> Result<Vec<Granted>, Error> {
    let mut conn = flows.store().read().await?;
    let rows = grants::all(&mut conn).await?;
    with_budgets(flows, &mut conn, rows).await
}

/// The newest grants of a wallet, newest first.
///
/// # Errors
/// When the store can't be used.
pub async fn of_wallet(flows: &Flows, wallet: &WalletId) -> Result<Vec<Granted>, Error> {
    let mut conn = flows.store().read().await?;
    let rows = grants::of_wallet(&mut conn, wallet, SHOWN).await?;
    with_budgets(flows, &mut conn, rows).await
}

/// A grant that a wallet was asked for, or has given.
///
/// # Errors
/// When the store can't be used.
pub async fn of_key(flows: &Flows, wallet: &WalletId, key: &KeyId) -> Result<Option<Granted>, Error> {
    let mut conn = flows.store().read().await?;
    let row = grants::of_key(&mut conn, key).await?.filter(|row| row.wallet == *wallet);
    Ok(with_budgets(flows, &mut conn, row.into_iter().collect()).await?.pop())
}

async fn with_budgets(flows: &Flows, conn: &mut Conn, rows: Vec<GrantRow>) -> Result<Vec<Granted>, Error> {
    let now = flows.now();
    let mut all = Vec::with_capacity(rows.len());
    for grant in rows {
        let budgets = spending::budgets(conn, &grant.key, now).await?;
        let revoked_at = crate::store::keys::revoked_at(conn, &grant.key).await?;
        all.push(Granted { grant, budgets, revoked_at });
    }
    Ok(all)
}
