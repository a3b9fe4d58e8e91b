//! Coins for assets: a transaction of the vanilla account with outputs to the colored one, which the client signs.

use bitcoin::TxOut;

use super::engine;
use crate::crash;
use crate::domain::onchain_send::Door;
use crate::domain::wallet::{Account, WalletKeys, address_of};
use crate::flows::send::{self, Begin, BeginSend, Begun, CHOICES, Stale};
use crate::flows::{Code, Error, Flows, Idempotency};
use crate::ids::WalletId;
use crate::money::Sat;
use crate::store::wallets;

/// More make a transaction that is hard to pay for at once.
pub const MOST: u32 = 100;

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct NewCoins {
    pub number: u32,
    /// What each of them holds.
    pub size: Sat,
    /// So many free ones in all, instead of so many more.
    pub up_to: bool,
    pub fee_rate: u32,
    pub expires_in_seconds: Option<u64>,
}

/// Chooses coins of the vanilla account, sets them aside, and hands out the transaction to sign.
///
/// # Errors
/// As for a send, and when there are enough free coins already.
pub async fn begin(
    flows: &Flows,
    keys: &WalletKeys,
    wanted: NewCoins,
    idempotency: Option<Idempotency>,
) -> Result<Begun, Error> {
    send::check_wishes(flows, wanted.fee_rate, wanted.expires_in_seconds, None)?;
    check_size(&wanted, keys)?;
    let engine = engine(flows)?;
    if let Some(begun) = send::answered_before(flows, &keys.id(), idempotency.as_ref()).await? {
        return Ok(begun);
    }
    send::refuse_while_halted(flows, &keys.id()).await?;
    let number = missing(flows, keys, &wanted).await?;
    let lock = flows.queue_up(&keys.id())?;
    let _one_at_a_time = lock.lock().await;
    for _ in 0..CHOICES {
        if let Some(begun) = send::answered_before(flows, &keys.id(), idempotency.as_ref()).await? {
            return Ok(begun);
        }
        let given_away = engine.next_index(keys).await?;
        let first = next_index(flows, &keys.id()).await?.max(given_away);
        let indexes = first..first.saturating_add(number);
        let scripts = keys.scripts(Account::Colored, indexes.clone());
        let pay = |script| TxOut { value: wanted.size.to_bitcoin(), script_pubkey: script };
        let pays: Vec<TxOut> = scripts.into_iter().map(|derived| pay(derived.script)).collect();
        let order = order(&wanted, keys, &pays)?;
        let mut choice = send::choose(flows, keys, &order, pays).await?;
        choice.describe(keys, Account::Colored, indexes.clone());
        let begin = Begin {
            flows: flows.clone(),
            keys: keys.clone(),
            wanted: order,
            choice,
            idempotency: idempotency.clone(),
            asset_scripts: indexes,
        };
        match flows.store().write(begin).await {
            Ok(begun) => {
                crash::point("begin.committed");
                return Ok(begun);
            }
            Err(Stale::ChooseAgain) => {}
            Err(Stale::Other(error)) => return Err(error),
        }
    }
    Err(send::coins_keep_going())
}

/// Checks the signatures and broadcasts; answers how many coins it makes.
///
/// # Errors
/// As for the end of a send.
pub async fn end(flows: &Flows, wallet: &WalletId, signed_psbt: &str) -> Result<u32, Error> {
    let sent = send::end(flows, wallet, Door::AssetCoins, signed_psbt).await?;
    let mut conn = flows.store().read().await?;
    Ok(wallets::count_issued(&mut conn, wallet, Account::Colored, sent.request.id).await?)
}

async fn next_index(flows: &Flows, wallet: &WalletId) -> Result<u32, Error> {
    let mut conn = flows.store().read().await?;
    Ok(wallets::keychain(&mut conn, wallet, Account::Colored).await?.next_index)
}

fn check_size(wanted: &NewCoins, keys: &WalletKeys) -> Result<(), Error> {
    if !(1..=MOST).contains(&wanted.number) {
        return Err(Error::field("num", format!("from 1 to {MOST}")));
    }
    let script = keys.first_script().map(|derived| derived.script.clone()).unwrap_or_default();
    let dust = script.minimal_non_dust();
    if wanted.size.to_bitcoin() < dust {
        let reason = format!("the network does not relay a coin of less than {} sat", dust.to_sat());
        return Err(Error::Field { code: Code::AmountBelowDust, field: "size", reason });
    }
    Ok(())
}

/// How many are to be made.
async fn missing(flows: &Flows, keys: &WalletKeys, wanted: &NewCoins) -> Result<u32, Error> {
    if !wanted.up_to {
        return Ok(wanted.number);
    }
    let coins = super::engine_with_coins(flows, keys).await?.coins(keys).await?;
    let free = coins.iter().filter(|coin| coin.allocations.is_empty() && coin.promised == 0).count();
    let missing = wanted.number.saturating_sub(u32::try_from(free).unwrap_or(u32::MAX));
    if missing == 0 {
        return Err(Error::refused(
            Code::ColorableUtxosThere,
            format!("{free} coins are free to carry assets already"),
        ));
    }
    Ok(missing)
}

/// The same as a send to the first of them, with the sum of all.
fn order(wanted: &NewCoins, keys: &WalletKeys, pays: &[TxOut]) -> Result<BeginSend, Error> {
    let to = pays.first().map(|pay| address_of(&pay.script_pubkey, keys.network())).unwrap_or_default();
    let sum = Sat::sum(pays.iter().map(|_| wanted.size)).ok_or_else(|| Error::field("size", "out of range"))?;
    Ok(BeginSend {
        to,
        amount: sum,
        fee_rate: wanted.fee_rate,
        deduct_fee: false,
        expires_in_seconds: wanted.expires_in_seconds,
        reference: None,
        door: Door::AssetCoins,
        min_confirmations: None,
        to_field: "num",
        amount_field: "size",
    })
}
