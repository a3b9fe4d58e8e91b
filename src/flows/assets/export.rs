//! What the engine knows of a wallet's assets, for its owner to leave with. An asset's history is in no chain: with the keys alone
//! nobody can move it.
//!
//! Whoever has it knows all that the wallet ever held. So the wallet's first key consents to each export, and the owner's password seals it.

use async_trait::async_trait;
use bitcoin::{Psbt, Transaction};

use super::engine;
use crate::clock::Timestamp;
use crate::domain::event::payloads::AssetsExported;
use crate::domain::export::Export as Consent;
use crate::domain::wallet::WalletKeys;
use crate::domain::{Fact, authorization, psbt};
use crate::flows::address::check_same_body;
use crate::flows::send::require_room;
use crate::flows::{Code, Error, Flows, Idempotency, register};
use crate::ids::RequestId;
use crate::secret::Secret;
use crate::store::asset_exports::{self, Export};
use crate::store::idempotency::{self, Remembered};
use crate::store::{StoreError, Tx, Write, events};

/// Characters of the password: fewer are guessed, and nobody types more.
pub const PASSWORD_MIN: usize = 12;
pub const PASSWORD_MAX: usize = 256;

/// An export that waits for the signature of the wallet's owner.
#[derive(Clone, Debug)]
pub struct Begun {
    pub id: RequestId,
    pub psbt: String,
    pub message: String,
    pub expires_at: Timestamp,
}

/// Writes down what the owner has to sign, and hands it out. With a key that was used before it hands out the same.
///
/// # Errors
/// When there is no engine, the time for the signature is not one that is given, the key was used for something else, or too much waits
/// for a signature already.
pub async fn begin(
    flows: &Flows,
    keys: &WalletKeys,
    expires_in_seconds: Option<u64>,
    idempotency: Option<Idempotency>,
) -> Result<Begun, Error> {
    let time = flows.policy().signature.choose(expires_in_seconds)?;
    engine(flows)?;
    let wallet = keys.id();
    let from_key = |key: &Idempotency| RequestId::from_idempotency_key(&wallet, &key.key);
    let id = idempotency.as_ref().map_or_else(RequestId::fresh, from_key);
    let expires_at = flows.now().after(time);
    let consent = Consent {
        gateway: flows.store().gateway().clone(),
        network: flows.network(),
        wallet: wallet.clone(),
        id,
        expires: expires_at,
    };
    let message = consent.message();
    let unsigned_txid = to_sign(keys, &message)?.unsigned_tx.compute_txid();
    let body_hash = idempotency.as_ref().map(|key| key.body_hash.clone());
    let export = Export { id, wallet, unsigned_txid, message, expires_at, signed_at: None, body_hash };
    let export = flows.store().write(Begin { flows: flows.clone(), export, idempotency }).await?;
    let psbt = to_sign(keys, &export.message)?.to_string();
    Ok(Begun { id: export.id, psbt, message: export.message, expires_at: export.expires_at })
}

fn to_sign(keys: &WalletKeys, message: &str) -> Result<Psbt, StoreError> {
    authorization::to_sign(keys, message).map_err(|error| StoreError::Corrupt(error.to_string()))
}

struct Begin {
    flows: Flows,
    export: Export,
    idempotency: Option<Idempotency>,
}

#[async_trait]
impl Write for Begin {
    type Output = Export;
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Export, Error> {
        let Export { id, wallet, .. } = &self.export;
        if let Some(key) = &self.idempotency {
            // A key that stands for something else, or for this: its row is that of the export.
            if let Some(known) = idempotency::find(tx.conn(), *id).await? {
                check_same_body(&known, key)?;
            }
            if let Some(begun) = asset_exports::by_id(tx.conn(), *id).await? {
                let body_hash = begun.body_hash.clone().unwrap_or_default();
                check_same_body(&Remembered { body_hash, request: *id, unsigned_txid: None }, key)?;
                return Ok(begun);
            }
        }
        asset_exports::forget_overdue(tx, wallet).await?;
        require_room(tx, &self.flows, wallet).await?;
        asset_exports::insert(tx, &self.export).await?;
        Ok(self.export.clone())
    }
}

/// Takes the signature, and hands out the state, sealed with the password. One signature is good for one export; a call that
/// fails has not used it up.
///
/// # Errors
/// When nothing of this wallet's waits for this PSBT, it is not signed by the wallet's first key, came too late or was used before,
/// or the engine can't do it now.
pub async fn end(flows: &Flows, keys: &WalletKeys, signed_psbt: &str, password: &Secret) -> Result<Vec<u8>, Error> {
    check_password(password)?;
    let engine = engine(flows)?;
    let signed = psbt::parse(signed_psbt)?;
    let asked = asked(flows, keys, &signed).await?;
    register::require(flows, keys).await?;
    let proof = authorization::verify(keys, &asked.message, &signed)?;
    // One at a time for each wallet: sealing takes a second, and much memory.
    let lock = flows.queue_up(&keys.id())?;
    let _one_at_a_time = lock.lock().await;
    // Somebody else may have used it while this call waited.
    let asked = self::asked(flows, keys, &signed).await?;
    let sealed = engine.export(keys, password).await?;
    flows.store().write(End { asked, proof }).await?;
    Ok(sealed)
}

fn check_password(password: &Secret) -> Result<(), Error> {
    if (PASSWORD_MIN..=PASSWORD_MAX).contains(&password.expose().chars().count()) {
        return Ok(());
    }
    Err(Error::field("password", format!("{PASSWORD_MIN} to {PASSWORD_MAX} characters")))
}

/// What waits for this signature.
async fn asked(flows: &Flows, keys: &WalletKeys, signed: &Psbt) -> Result<Export, Error> {
    let unknown = || Error::Field {
        code: Code::PsbtUnknown,
        field: "signed_psbt",
        reason: "no export of this wallet waits for this PSBT; POST /wallet/export-begin hands one out".to_owned(),
    };
    let txid = authorization::issued_txid(signed).ok_or_else(unknown)?;
    let mut conn = flows.store().read().await?;
    let asked = asset_exports::by_txid(&mut conn, txid).await?;
    let asked = asked.filter(|asked| asked.wallet == keys.id()).ok_or_else(unknown)?;
    require_usable(&asked, flows.now())?;
    Ok(asked)
}

fn require_usable(asked: &Export, now: Timestamp) -> Result<(), Error> {
    let over = |detail: String| Err(Error::refused(Code::RequestExpired, detail));
    match asked.signed_at {
        Some(at) => over(format!("this export was fetched at {at}; a signature is good for one, begin again")),
        None if asked.expires_at <= now => {
            over(format!("the time to sign was over at {}; begin again", asked.expires_at))
        }
        None => Ok(()),
    }
}

struct End {
    asked: Export,
    proof: Transaction,
}

#[async_trait]
impl Write for End {
    type Output = ();
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Error> {
        let (Export { id, wallet, .. }, now) = (&self.asked, tx.now());
        if !asset_exports::keep_signed(tx, *id, &self.proof).await? {
            return require_usable(&Export { signed_at: Some(now), ..self.asked.clone() }, now);
        }
        let exported = Fact::AssetsExported(AssetsExported { export_id: id.to_string() });
        Ok(events::append(tx, Some(wallet), None, &exported).await?)
    }
}
