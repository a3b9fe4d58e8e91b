//! Choosing coins and building the PSBT, with a watch-only BDK wallet that lives for one plan.
//!
//! The wallet is handed the stored coins as foreign outputs, so that nothing is derived again, and the change script always,
//! so that it never picks an address that a customer may hold.

use std::ops::Range;

use bdk_wallet::coin_selection::{
    CoinSelectionAlgorithm, CoinSelectionResult, InsufficientFunds, LargestFirstCoinSelection,
};
use bdk_wallet::error::CreateTxError;
use bdk_wallet::{TxBuilder, Wallet, WeightedUtxo};
use bitcoin::absolute::LockTime;
use bitcoin::{Psbt, Script, ScriptBuf, Sequence, TxOut, Weight, psbt};
use rand_core::RngCore;

use super::{Code, Error};
use crate::domain::wallet::{Account, WalletKeys};
use crate::money::{FeeRate, Sat};
use crate::store::chain::Coin;

/// Inputs of one transaction. More would make it larger than nodes relay.
pub const MAX_INPUTS: usize = 1_000;
/// A key-path signature with a sighash byte, and its length.
const SATISFACTION: Weight = Weight::from_wu(66);
/// On every input: a fee that turns out too low can be raised.
const RBF: Sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;

/// What is to be built.
pub(super) struct Plan<'a> {
    pub keys: &'a WalletKeys,
    /// Coins that may be spent, largest first, at most `MAX_INPUTS`.
    pub coins: &'a [Coin],
    /// Whom it pays, and how much. With a deducted fee there is one.
    pub pays: &'a [TxOut],
    pub fee_rate: FeeRate,
    pub deduct_fee: bool,
    pub change: &'a Script,
    pub change_index: u32,
    pub lock_time: LockTime,
}

/// What was built.
pub(super) struct Planned {
    pub psbt: Psbt,
    pub fee: Sat,
    pub amount_sent: Sat,
    pub has_change: bool,
}

/// Why nothing could be built.
pub(super) enum Unplannable {
    /// The coins do not suffice: so much would be needed.
    Short {
        needed: Sat,
    },
    Refused(Error),
}

impl From<Error> for Unplannable {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

pub(super) fn plan(plan: &Plan<'_>) -> Result<Planned, Unplannable> {
    let psbt = if plan.deduct_fee { deducted(plan)? } else { added(plan)? };
    finish(plan, psbt)
}

/// The sequence is said for each coin: what the builder is told for all of them does not reach foreign ones.
fn add_coin<C>(builder: &mut TxBuilder<'_, C>, keys: &WalletKeys, coin: &Coin) -> Result<(), Error> {
    builder
        .add_foreign_utxo_with_sequence(coin.outpoint, input_of(keys, coin), SATISFACTION, RBF)
        .map_err(unexpected)?;
    Ok(())
}

/// The recipient gets the amount, the fee comes on top.
fn added(plan: &Plan<'_>) -> Result<Psbt, Unplannable> {
    let mut wallet = watch_only(plan.keys)?;
    let mut builder = wallet.build_tx().coin_selection(AmongForeign);
    for coin in plan.coins {
        add_coin(&mut builder, plan.keys, coin)?;
    }
    for pay in plan.pays {
        builder.add_recipient(pay.script_pubkey.clone(), pay.value);
    }
    builder
        .manually_selected_only()
        .drain_to(plan.change.to_owned())
        .fee_rate(rate(plan.fee_rate))
        .nlocktime(plan.lock_time);
    builder.finish().map_err(explain)
}

/// The recipient pays the fee: coins for the amount are chosen, what exceeds it comes back, the rest less the fee goes out.
fn deducted(plan: &Plan<'_>) -> Result<Psbt, Unplannable> {
    let [pay] = plan.pays else { return Err(unexpected("a fee is deducted from one amount").into()) };
    let amount = Sat::try_from(pay.value).map_err(|_| unexpected("the amount is out of range"))?;
    let mut chosen = Vec::new();
    let mut sum = Sat::ZERO;
    for coin in plan.coins {
        if sum >= amount {
            break;
        }
        sum = sum.checked_add(coin.amount).ok_or_else(|| Error::field("amount", "out of range"))?;
        chosen.push(coin);
    }
    let over = sum.checked_sub(amount).ok_or(Unplannable::Short { needed: amount })?;
    let has_change = over.to_bitcoin() >= plan.change.minimal_non_dust();
    let mut wallet = watch_only(plan.keys)?;
    let mut builder = wallet.build_tx();
    for coin in &chosen {
        add_coin(&mut builder, plan.keys, coin)?;
    }
    builder.manually_selected_only().nlocktime(plan.lock_time);
    if has_change {
        builder
            .add_recipient(plan.change.to_owned(), over.to_bitcoin())
            .drain_to(pay.script_pubkey.clone())
            .fee_rate(rate(plan.fee_rate));
    } else {
        // What is too little for change goes to the fee: the recipient never gets more than was asked for.
        let fee = fee_without_change(plan.fee_rate, pay, chosen.len())?.max(over);
        let rest = sum.checked_sub(fee).filter(|rest| *rest > Sat::ZERO).ok_or_else(below_dust)?;
        builder.add_recipient(pay.script_pubkey.clone(), rest.to_bitcoin()).fee_absolute(fee.to_bitcoin());
    }
    builder.finish().map_err(|error| match error {
        CreateTxError::CoinSelection(_) | CreateTxError::OutputBelowDustLimit(_) => below_dust().into(),
        other => explain(other),
    })
}

fn fee_without_change(fee_rate: FeeRate, output: &TxOut, inputs: usize) -> Result<Sat, Error> {
    /// Version, lock time, counts and the segwit marker.
    const OVERHEAD_WU: usize = 42;
    /// Outpoint, empty script, sequence and the witness of a key-path spend.
    const INPUT_WU: usize = 41 * 4 + 1 + 66;
    let weight = OVERHEAD_WU + inputs * INPUT_WU + output.size() * 4;
    fee_rate.fee(weight.div_ceil(4) as u64).ok_or_else(|| Error::field("fee_rate", "the fee is out of range"))
}

fn finish(plan: &Plan<'_>, mut psbt: Psbt) -> Result<Planned, Unplannable> {
    let fee = psbt.fee().map_err(unexpected)?;
    let fee = Sat::try_from(fee).map_err(|_| unexpected("the fee is out of range"))?;
    let mut amount_sent = Sat::ZERO;
    for pay in plan.pays {
        let paid = psbt.unsigned_tx.output.iter().find(|out| out.script_pubkey == pay.script_pubkey);
        // What the recipient would get was too little for an output, and went to the fee.
        let paid = Sat::try_from(paid.ok_or_else(below_dust)?.value).ok();
        let sum = paid.and_then(|paid| amount_sent.checked_add(paid));
        amount_sent = sum.ok_or_else(|| unexpected("the amount is out of range"))?;
    }
    let has_change = describe_change(plan, &mut psbt);
    Ok(Planned { psbt, fee, amount_sent, has_change })
}

/// Says on the change output which key it belongs to; answers whether there is one.
fn describe_change(plan: &Plan<'_>, psbt: &mut Psbt) -> bool {
    let place = psbt.unsigned_tx.output.iter().position(|out| *out.script_pubkey == *plan.change);
    describe_outputs(psbt, plan.keys, Account::Vanilla, plan.change_index..plan.change_index + 1);
    place.is_some()
}

/// Says on the outputs to these scripts of the wallet which keys they belong to, so that a signer can show them as its own.
pub(super) fn describe_outputs(psbt: &mut Psbt, keys: &WalletKeys, account: Account, indexes: Range<u32>) {
    for derived in keys.scripts(account, indexes) {
        let place = psbt.unsigned_tx.output.iter().position(|out| out.script_pubkey == derived.script);
        let Some(output) = place.and_then(|place| psbt.outputs.get_mut(place)) else { continue };
        let origin = (keys.master_fingerprint(), keys.path(account, derived.index));
        output.tap_internal_key = Some(derived.internal_key);
        output.tap_key_origins.insert(derived.internal_key, (Vec::new(), origin));
    }
}

/// What a signer needs to know of one of our coins.
pub(super) fn input_of(keys: &WalletKeys, coin: &Coin) -> psbt::Input {
    let mut input = psbt::Input {
        witness_utxo: Some(TxOut { value: coin.amount.to_bitcoin(), script_pubkey: coin.script.clone() }),
        ..psbt::Input::default()
    };
    if let Some(derived) = keys.scripts(coin.account, coin.index..coin.index.saturating_add(1)).pop() {
        let path = keys.path(coin.account, coin.index);
        input.tap_internal_key = Some(derived.internal_key);
        input.tap_key_origins.insert(derived.internal_key, (Vec::new(), (keys.master_fingerprint(), path)));
    }
    input
}

fn watch_only(keys: &WalletKeys) -> Result<Wallet, Error> {
    Wallet::create_single(keys.descriptor(Account::Vanilla))
        .network(keys.network())
        .lookahead(1)
        .create_wallet_no_persist()
        .map_err(unexpected)
}

fn rate(rate: FeeRate) -> bitcoin::FeeRate {
    // 1 sat/vB is 250 sat per 1,000 weight units; our unit is a thousandth of a sat/vB.
    bitcoin::FeeRate::from_sat_per_kwu(rate.milli_sat_per_vb().div_ceil(4))
}

fn explain(error: CreateTxError) -> Unplannable {
    match error {
        CreateTxError::CoinSelection(short) => {
            Unplannable::Short { needed: Sat::try_from(short.needed).unwrap_or(Sat::MAX) }
        }
        CreateTxError::NoUtxosSelected => Unplannable::Short { needed: Sat::MAX },
        CreateTxError::OutputBelowDustLimit(_) => below_dust().into(),
        other => unexpected(other).into(),
    }
}

fn below_dust() -> Error {
    Error::refused(Code::AmountBelowDust, "what the recipient would get is too little for the network to relay")
}

fn unexpected(reason: impl std::fmt::Display) -> Error {
    Error::Internal(format!("a transaction could not be built: {reason}"))
}

/// BDK counts foreign outputs as required. Here they are the ones to choose among: largest first, so that a payment
/// spends few coins, links few addresses and costs little.
#[derive(Debug)]
struct AmongForeign;

impl CoinSelectionAlgorithm for AmongForeign {
    fn coin_select<R: RngCore>(
        &self,
        offered: Vec<WeightedUtxo>,
        _none: Vec<WeightedUtxo>,
        fee_rate: bitcoin::FeeRate,
        target: bitcoin::Amount,
        drain_script: &Script,
        rand: &mut R,
    ) -> Result<CoinSelectionResult, InsufficientFunds> {
        LargestFirstCoinSelection.coin_select(Vec::new(), offered, fee_rate, target, drain_script, rand)
    }
}

/// Rebuilds the PSBT of a transaction whose outputs were changed by hand: a bump keeps inputs and recipients.
pub(super) fn rebuilt(issued: &Psbt, outputs: Vec<TxOut>) -> Result<Psbt, Error> {
    let mut transaction = issued.unsigned_tx.clone();
    transaction.output = outputs;
    let mut psbt = Psbt::from_unsigned_tx(transaction).map_err(unexpected)?;
    psbt.inputs.clone_from(&issued.inputs);
    let known: Vec<(ScriptBuf, psbt::Output)> =
        issued.unsigned_tx.output.iter().map(|out| out.script_pubkey.clone()).zip(issued.outputs.clone()).collect();
    for (output, out) in psbt.outputs.iter_mut().zip(&psbt.unsigned_tx.output) {
        if let Some((_, described)) = known.iter().find(|(script, _)| *script == out.script_pubkey) {
            output.clone_from(described);
        }
    }
    Ok(psbt)
}

/// The virtual size that a transaction of ours will have once every input carries a key-path signature.
pub(super) fn signed_vsize(psbt: &Psbt) -> u64 {
    let unsigned = psbt.unsigned_tx.weight().to_wu();
    let witnesses = 2 + psbt.inputs.len() as u64 * (1 + SATISFACTION.to_wu());
    (unsigned + witnesses).div_ceil(4)
}
