//! Raising the fee of a send, or cancelling it, while it is in no block. Inputs and recipients stay; only the change shrinks.

use async_trait::async_trait;
use bitcoin::{Psbt, ScriptBuf, TxOut};

use super::history::{self, Send};
use super::send::{self, Begun, Stale};
use super::{Code, Error, Flows, Idempotency, end, spend};
use crate::crash;
use crate::domain::Fact;
use crate::domain::event::payloads::BumpBegun;
use crate::domain::onchain_send::{Door, OnchainSend, Role, State};
use crate::domain::wallet::{Account, WalletKeys};
use crate::ids::{RequestId, WalletId};
use crate::money::{Amount, FeeRate, Sat};
use crate::store::chain::{self, Coin};
use crate::store::idempotency::{self, Remembered};
use crate::store::issued::{self, IssuedTx};
use crate::store::{StoreError, Tx, Write, events, requests, wallets};

/// How often a version is rebuilt when somebody moved the wallet meanwhile.
const ATTEMPTS: u32 = 12;

#[derive(Clone, Debug)]
pub struct BeginBump {
    pub send: RequestId,
    pub fee_rate: u32,
    /// Pay everything back to the wallet instead.
    pub cancel: bool,
    pub expires_in_seconds: Option<u64>,
}

/// Hands out another version of a send that is out and not in a block.
///
/// # Errors
/// Every reason for which it can't be bumped, each with its own code.
pub async fn begin(
    flows: &Flows,
    keys: &WalletKeys,
    wanted: BeginBump,
    idempotency: Option<Idempotency>,
) -> Result<Begun, Error> {
    flows.policy().fees.check_rate(FeeRate::from_sat_per_vb(wanted.fee_rate))?;
    flows.policy().signature.choose(wanted.expires_in_seconds)?;
    send::refuse_while_halted(flows, &keys.id()).await?;
    for _ in 0..ATTEMPTS {
        if let Some(begun) = send::answered_before(flows, &keys.id(), idempotency.as_ref()).await? {
            return Ok(begun);
        }
        let version = build(flows, keys, &wanted).await?;
        let begin = Begin {
            flows: flows.clone(),
            keys: keys.clone(),
            wanted: wanted.clone(),
            version,
            idempotency: idempotency.clone(),
        };
        match flows.store().write(begin).await {
            Ok(begun) => {
                crash::point("bump.committed");
                return Ok(begun);
            }
            Err(Stale::ChooseAgain) => {}
            Err(Stale::Other(error)) => return Err(error),
        }
    }
    Err(Error::Store(StoreError::Conflict("this send")))
}

/// Checks the signatures of a bump and broadcasts it.
///
/// # Errors
/// As for the end of a send.
pub async fn end(flows: &Flows, wallet: &WalletId, send: RequestId, signed_psbt: &str) -> Result<Send, Error> {
    let right = |issued: &IssuedTx, _: &_| issued.request == send && issued.role != Role::Original;
    end::version(flows, wallet, signed_psbt, right).await
}

/// A version that was built and is not written yet.
struct Version {
    replaces: IssuedTx,
    psbt: Psbt,
    fee: Sat,
    /// Set when a cancelling version needs a change script that the send did not have.
    new_change_index: Option<u32>,
}

async fn build(flows: &Flows, keys: &WalletKeys, wanted: &BeginBump) -> Result<Version, Error> {
    let known = history::send(flows, &keys.id(), wanted.send).await?;
    let known = known.ok_or_else(|| Error::refused(Code::NotFound, "this wallet has no such send"))?;
    let replaces = replaceable(&known)?.clone();
    let mut conn = flows.store().read().await?;
    for coin in chain::coins_made_by(&mut conn, replaces.unsigned_txid).await? {
        require_untouched(&coin, wanted.send)?;
    }
    let tip = chain::cursor(&mut conn).await?.map_or(0, |tip| tip.height);
    let issued_psbt = replaces.parse_psbt()?;
    let scripts: Vec<ScriptBuf> = issued_psbt.unsigned_tx.output.iter().map(|out| out.script_pubkey.clone()).collect();
    let change = wallets::scripts_among(&mut conn, &scripts).await?.into_iter();
    let change =
        change.filter(|known| !known.is_receive && known.request == Some(wanted.send)).map(|known| known.script).next();
    let next = wallets::keychain(&mut conn, &keys.id(), Account::Vanilla).await?.next_index;
    let fresh = wallets::script_at(&mut conn, &keys.id(), Account::Vanilla, next).await?;
    drop(conn);
    let (back, new_change_index) = match (wanted.cancel, change, fresh) {
        (_, Some(change), _) => (change, None),
        (true, None, Some(fresh)) => (fresh.script, Some(next)),
        (true, None, None) => return Err(StoreError::Corrupt("no script is left for change".to_owned()).into()),
        (false, None, _) => {
            return Err(Error::refused(Code::InsufficientFunds, "this send has no change to pay a higher fee from"));
        }
    };
    let (mut psbt, fee) = reshape(flows, wanted, &replaces, &issued_psbt, &back)?;
    send::make_new(flows, &mut psbt, tip).await?;
    Ok(Version { replaces, psbt, fee, new_change_index })
}

/// A coin that a version made may be undone as long as nothing builds on it.
pub(super) fn require_untouched(coin: &Coin, send: RequestId) -> Result<(), Error> {
    if coin.spent_by.is_none() && coin.leased_by.is_none_or(|by| by == send) {
        return Ok(());
    }
    Err(Error::refused(Code::ChangeSpent, "another request spends the change of this send; bump that one"))
}

/// The version to replace, if the send is where a replacement still makes sense.
fn replaceable(send: &Send) -> Result<&IssuedTx, Error> {
    let terms = &send.request.machine.terms;
    if terms.assets.is_some() || terms.door == Door::AssetCoins {
        // What is on the coins of a transaction is bound to that very transaction.
        return Err(Error::refused(
            Code::NotBumpable,
            "a transaction that moves assets, or makes coins for them, can't be replaced",
        ));
    }
    match send.request.machine.state {
        State::Broadcast { txid, .. } => send
            .versions
            .iter()
            .find(|version| version.unsigned_txid == txid)
            .ok_or_else(|| StoreError::Corrupt(format!("{txid} stands for a request and was not issued")).into()),
        State::WaitingAck { .. } => Err(Error::refused(Code::NotBroadcast, "this send waits for its payees")),
        State::AwaitingSignature => Err(Error::refused(
            Code::NotBroadcast,
            "this send is not signed yet; sign it, or take it back with POST /requests/{id}/cancel",
        )),
        State::Seen { .. } | State::Confirmed { .. } | State::Cancelled { .. } => {
            Err(Error::refused(Code::AlreadyConfirmed, "this send is in a block already"))
        }
        State::Conflicted { .. } => {
            Err(Error::refused(Code::InputsSpent, "another transaction has spent the coins of this send"))
        }
        State::Expired => Err(Error::refused(Code::RequestExpired, "this send was never signed and has expired")),
        State::Failed { .. } => Err(Error::refused(Code::RequestExpired, "this send was given up before it went out")),
    }
}

/// Pays the higher fee from the change; a cancelling version pays all of it back.
fn reshape(
    flows: &Flows,
    wanted: &BeginBump,
    replaces: &IssuedTx,
    issued: &Psbt,
    back: &ScriptBuf,
) -> Result<(Psbt, Sat), Error> {
    let broken = || Error::Store(StoreError::Corrupt(format!("amounts of {}", replaces.unsigned_txid)));
    let coins = issued.inputs.iter().filter_map(|input| input.witness_utxo.as_ref());
    let total = Sat::sum(coins.filter_map(|out| Sat::try_from(out.value).ok())).ok_or_else(broken)?;
    let kept: Vec<TxOut> = if wanted.cancel {
        Vec::new()
    } else {
        issued.unsigned_tx.output.iter().filter(|out| out.script_pubkey != *back).cloned().collect()
    };
    let paid = Sat::sum(kept.iter().filter_map(|out| Sat::try_from(out.value).ok())).ok_or_else(broken)?;
    let rate = FeeRate::from_sat_per_vb(wanted.fee_rate);
    let with = |change: Option<Sat>| {
        let mut outputs = kept.clone();
        outputs.extend(change.map(|value| TxOut { value: value.to_bitcoin(), script_pubkey: back.clone() }));
        spend::rebuilt(issued, outputs)
    };
    let fee = rate.fee(spend::signed_vsize(&with(Some(Sat::ZERO))?)).ok_or_else(broken)?;
    require_raise(rate, fee, replaces)?;
    let left = total.checked_sub(paid).and_then(|rest| rest.checked_sub(fee));
    let psbt = match left {
        Some(change) if change.to_bitcoin() >= back.minimal_non_dust() => with(Some(change))?,
        Some(_) if !kept.is_empty() => with(None)?,
        Some(_) | None => return Err(too_costly(total, paid)),
    };
    let fee = psbt.fee().ok().and_then(|fee| Sat::try_from(fee).ok()).ok_or_else(broken)?;
    flows.policy().fees.check_fee(fee, if wanted.cancel { total } else { paid })?;
    Ok((psbt, fee))
}

fn too_costly(total: Sat, paid: Sat) -> Error {
    let most = total.checked_sub(paid).unwrap_or(Sat::ZERO);
    Error::refused(
        Code::InsufficientFunds,
        format!("the coins of this send leave {most} sat for the fee, and this rate needs more"),
    )
}

/// What nodes ask of a replacement: a higher rate, and a fee that pays for relaying it too.
fn require_raise(rate: FeeRate, fee: Sat, replaces: &IssuedTx) -> Result<(), Error> {
    let psbt = replaces.parse_psbt()?;
    let relay = FeeRate::RELAY_MINIMUM.fee(spend::signed_vsize(&psbt)).unwrap_or(Sat::MAX);
    let least = replaces.fee.checked_add(relay).unwrap_or(Sat::MAX);
    if rate > replaces.fee_rate && fee >= least {
        return Ok(());
    }
    Err(Error::Field {
        code: Code::BumpTooSmall,
        field: "fee_rate",
        reason: format!(
            "must be above {} and pay at least {least} sat in all; this rate pays {fee} sat",
            replaces.fee_rate
        ),
    })
}

struct Begin {
    flows: Flows,
    keys: WalletKeys,
    wanted: BeginBump,
    version: Version,
    idempotency: Option<Idempotency>,
}

#[async_trait]
impl Write for Begin {
    type Output = Begun;
    type Error = Stale;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Begun, Stale> {
        let wallet = self.keys.id();
        let request = requests::load::<OnchainSend>(tx.conn(), self.wanted.send).await?;
        let still = request.is_some_and(|request| {
            matches!(request.machine.state, State::Broadcast { txid, .. } if txid == self.version.replaces.unsigned_txid)
        });
        if !still {
            return Err(Stale::ChooseAgain);
        }
        send::require_room(tx, &self.flows, &wallet).await?;
        if let Some(index) = self.version.new_change_index {
            let lookahead = self.flows.policy().lookahead;
            send::issue(tx, &self.keys, Account::Vanilla, index, self.wanted.send, lookahead).await?;
        }
        let now = tx.now();
        let time = self.flows.policy().signature.choose(self.wanted.expires_in_seconds).map_err(Error::from)?;
        let issued = IssuedTx {
            unsigned_txid: self.version.psbt.unsigned_tx.compute_txid(),
            request: self.wanted.send,
            wallet: wallet.clone(),
            role: if self.wanted.cancel { Role::Cancel } else { Role::Bump },
            psbt: self.version.psbt.to_string(),
            fee: self.version.fee,
            fee_rate: FeeRate::from_sat_per_vb(self.wanted.fee_rate),
            created_at: now,
            expires_at: now.after(time),
            signed_tx: None,
        };
        issued::insert(tx.conn(), &issued).await?;
        if let Some(key) = &self.idempotency {
            let what = Remembered {
                body_hash: key.body_hash.clone(),
                request: issued.request,
                unsigned_txid: Some(issued.unsigned_txid),
            };
            idempotency::remember(tx, RequestId::from_idempotency_key(&wallet, &key.key), &wallet, &what).await?;
        }
        let begun = BumpBegun {
            unsigned_txid: issued.unsigned_txid,
            replaces: self.version.replaces.unsigned_txid,
            fee_sats: issued.fee,
            fee_msat: Amount::from_sat(issued.fee),
            role: issued.role,
            expires_at: issued.expires_at.into(),
        };
        events::append(tx, Some(&wallet), Some(issued.request), &Fact::SendBumpBegun(begun)).await?;
        Ok(Begun::of(&issued))
    }
}
