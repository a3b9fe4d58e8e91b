//! Moving assets: building the transaction, and what becomes of it.

use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, psbt, transaction};

use super::seen::Seen;
use super::texts::{self, Consigned, Paid};
use super::wallet::{Batch, Coin, Held, Known, Leg, Wallet, require_time};
use super::{invalid, sum};
use crate::domain;
use crate::money::{Amount, Sat};
use crate::ports::assets::{
    Account, BegunTransfer, Consignment, NewTransfer, Recipient, Refusal, TransferKind, TransferStatus, Verdict,
    WalletKeys,
};

/// What nobody relays less than: of a taproot output.
const DUST: Sat = Sat::literal(330);
/// A key-path spend, an output (the commitment is as long as those to a script), and the rest; rounded up.
const INPUT_VBYTES: u64 = 58;
const OUTPUT_VBYTES: u64 = 43;
const REST_VBYTES: u64 = 11;

/// What has become of a transfer with the word of a payee.
pub(super) enum Acknowledged {
    /// Others are waited for, or it is past that.
    Noted,
    ByAll {
        batch: i32,
        tx: Transaction,
    },
}

/// What is sent of each asset.
type Wanted = BTreeMap<String, Amount>;

struct Planned {
    coins: Vec<Coin>,
    /// What a new coin of the wallet's holds; nothing when what is left is too little for one.
    change: Option<Sat>,
}

impl Wallet {
    pub(super) fn begin_transfer(
        &mut self,
        keys: &WalletKeys,
        new: &NewTransfer,
        now: i64,
    ) -> Result<BegunTransfer, Refusal> {
        require_time(new.expires_at, now)?;
        let wanted = self.check_order(keys, new)?;
        let planned = self.plan(new, &wanted)?;
        let change = match planned.change {
            Some(sat) => Some((self.new_script(keys)?, sat)),
            None => None,
        };
        let mut batch = self.new_batch(TransferKind::Send, TransferStatus::Initiated, now);
        let outputs = outputs(keys, &batch, &new.recipients, change.as_ref().map(|((_, script), sat)| (script, *sat)));
        let psbt = unsigned(keys, &planned.coins, outputs, change.as_ref().map(|((index, _), _)| *index))?;
        let txid = psbt.unsigned_tx.compute_txid();
        batch.txid = Some(txid);
        batch.min_confirmations = new.min_confirmations;
        batch.expires_at = Some(new.expires_at);
        batch.change = change.map(|((index, _), sat)| {
            let last = psbt.unsigned_tx.output.len().saturating_sub(1);
            Coin { outpoint: OutPoint { txid, vout: u32::try_from(last).unwrap_or(u32::MAX) }, index, sat }
        });
        for (place, recipient) in new.recipients.iter().enumerate() {
            batch.legs.push(Leg {
                index: self.next_leg(place),
                asset: Some(recipient.asset.clone()),
                amounts: vec![recipient.amount],
                recipient: Some(recipient.id.clone()),
                ..Leg::default()
            });
        }
        batch.psbt = Some(psbt.clone());
        self.move_out(&batch, &planned.coins, &wanted);
        let number = batch.number;
        self.batches.push(batch);
        Ok(BegunTransfer { psbt, batch: number })
    }

    /// What is asked for makes sense, and there is as much. Answers how much of each asset.
    fn check_order(&self, keys: &WalletKeys, new: &NewTransfer) -> Result<Wanted, Refusal> {
        let mut wanted = Wanted::new();
        for (place, recipient) in new.recipients.iter().enumerate() {
            let read = texts::read_recipient(&recipient.id).filter(|(network, _)| *network == keys.network());
            let Some((_, script)) = read else { return Err(invalid("recipient", "it is of no network like this")) };
            if script.is_some() != recipient.witness.is_some() {
                return Err(invalid("recipient", "a new coin needs satoshis, and only a new one"));
            }
            let is_twice = new.recipients.iter().take(place).any(|other| other.id == recipient.id);
            if is_twice {
                return Err(invalid("recipient", "it is there twice"));
            }
            if recipient.witness.is_some_and(|sat| sat < DUST) {
                return Err(invalid("witness", "it is below the dust limit"));
            }
            if recipient.amount.is_zero() {
                return Err(invalid("amounts", "none of zero"));
            }
            if !self.knows(&recipient.asset) {
                return Err(Refusal::UnknownAsset(recipient.asset.clone()));
            }
            let before = wanted.get(&recipient.asset).copied().unwrap_or(Amount::ZERO);
            wanted.insert(recipient.asset.clone(), sum([before, recipient.amount]));
        }
        if wanted.is_empty() {
            return Err(invalid("recipient", "there is none"));
        }
        for (asset, amount) in &wanted {
            let available = sum(self.spendable(asset).map(|held| held.amount));
            if *amount > available {
                return Err(Refusal::NotEnough { available });
            }
        }
        if new.recipients.iter().any(|recipient| self.sending_to(&recipient.id).is_some()) {
            return Err(invalid("recipient", "it is used already"));
        }
        Ok(wanted)
    }

    /// The transfer to a recipient that was not given up.
    fn sending_to(&self, recipient: &str) -> Option<usize> {
        let is_it = |batch: &Batch| {
            batch.kind == TransferKind::Send
                && batch.status != TransferStatus::Failed
                && batch.leg_of(recipient).is_some()
        };
        self.batches.iter().position(is_it)
    }

    /// Chooses coins that hold enough of every asset, and then others until they hold enough satoshis.
    fn plan(&self, new: &NewTransfer, wanted: &Wanted) -> Result<Planned, Refusal> {
        let mut coins: Vec<Coin> = Vec::new();
        for (asset, amount) in wanted {
            for held in self.spendable(asset) {
                if self.on_coins(&coins, asset) >= *amount {
                    break;
                }
                let coin = self.coins.iter().find(|coin| coin.outpoint == held.coin);
                coins.extend(coin.filter(|coin| coins.iter().all(|had| had.outpoint != coin.outpoint)).cloned());
            }
        }
        let is_empty = |coin: &&Coin| self.held.iter().all(|held| held.coin != coin.outpoint);
        let empty = self.coins.iter().filter(is_empty).filter(|coin| self.can_be_spent(coin.outpoint));
        let mut more = empty.cloned();
        let is_left = self.held.iter().any(|held| {
            let sent = wanted.get(&held.asset).copied().unwrap_or(Amount::ZERO);
            coins.iter().any(|coin| coin.outpoint == held.coin) && self.on_coins(&coins, &held.asset) > sent
        });
        let beyond = || invalid("fee_rate", "the fee is out of range");
        let paid = Sat::sum(new.recipients.iter().filter_map(|recipient| recipient.witness)).ok_or_else(beyond)?;
        let witnesses = new.recipients.iter().filter(|recipient| recipient.witness.is_some()).count();
        loop {
            let had = Sat::sum(coins.iter().map(|coin| coin.sat)).unwrap_or(Sat::MAX);
            // The commitment is an output too.
            let needed = |outputs: usize| {
                let vbytes = |count: usize, each: u64| u64::try_from(count).ok()?.checked_mul(each);
                let outputs = vbytes(witnesses.checked_add(outputs)?, OUTPUT_VBYTES)?;
                let all = vbytes(coins.len(), INPUT_VBYTES)?.checked_add(outputs)?.checked_add(REST_VBYTES)?;
                new.fee_rate.fee(all)?.checked_add(paid)
            };
            let (without, with) = (needed(1).ok_or_else(beyond)?, needed(2).ok_or_else(beyond)?);
            if let Some(change) = had.checked_sub(with).filter(|change| *change >= DUST) {
                return Ok(Planned { coins, change: Some(change) });
            }
            if had >= without && !is_left {
                return Ok(Planned { coins, change: None });
            }
            match more.next() {
                Some(coin) => coins.push(coin),
                None if had >= without => return Err(Refusal::NoFreeCoin),
                None => return Err(Refusal::BitcoinLow { needed: without, available: had }),
            }
        }
    }

    fn on_coins(&self, coins: &[Coin], asset: &str) -> Amount {
        let is_there = |held: &&Held| held.asset == asset && coins.iter().any(|coin| coin.outpoint == held.coin);
        sum(self.held.iter().filter(is_there).map(|held| held.amount))
    }

    /// What is on the coins leaves them; what of it is not sent comes onto the change.
    fn move_out(&mut self, batch: &Batch, coins: &[Coin], wanted: &Wanted) {
        let mut left = Wanted::new();
        for held in self.held.iter_mut().filter(|held| coins.iter().any(|coin| coin.outpoint == held.coin)) {
            held.spent_by = Some(batch.number);
            let before = left.get(&held.asset).copied().unwrap_or(Amount::ZERO);
            left.insert(held.asset.clone(), sum([before, held.amount]));
        }
        let Some(change) = &batch.change else { return };
        for (asset, there) in left {
            let sent = wanted.get(&asset).copied().unwrap_or(Amount::ZERO);
            if let Some(amount) = there.checked_sub(sent).filter(|amount| !amount.is_zero()) {
                self.held.push(Held {
                    coin: change.outpoint,
                    asset,
                    amount,
                    settled: false,
                    from: batch.txid,
                    brought_by: batch.number,
                    spent_by: None,
                });
            }
        }
    }

    pub(super) fn end_transfer(&mut self, signed: &Psbt, now: i64) -> Result<Vec<Consignment>, Refusal> {
        let txid = signed.unsigned_tx.compute_txid();
        let place = self.batches.iter().position(|batch| batch.kind == TransferKind::Send && batch.txid == Some(txid));
        let place = place.ok_or(Refusal::NoSuchTransfer)?;
        let batch = &self.batches[place];
        match (batch.status, &batch.psbt) {
            (TransferStatus::Failed, _) | (_, None) => return Err(Refusal::TooLate),
            (TransferStatus::Initiated, Some(issued)) => {
                let tx =
                    domain::psbt::finish(issued, signed).map_err(|problem| invalid("psbt", problem.to_string()))?;
                let consignments = self.consignments(batch, txid);
                let batch = &mut self.batches[place];
                (batch.signed, batch.consignments) = (Some(tx), consignments);
                (batch.status, batch.updated_at) = (TransferStatus::WaitingCounterparty, now);
            }
            (
                TransferStatus::WaitingCounterparty | TransferStatus::WaitingConfirmations | TransferStatus::Settled,
                Some(_),
            ) => {}
        }
        Ok(self.batches[place].consignments.clone())
    }

    /// One for each asset, in the order of their ids.
    fn consignments(&self, batch: &Batch, txid: Txid) -> Vec<Consignment> {
        let mut all = Vec::new();
        let outputs = batch.psbt.iter().flat_map(|psbt| &psbt.unsigned_tx.output).collect::<Vec<_>>();
        let vout_of = |recipient: &str| {
            let (_, script) = texts::read_recipient(recipient)?;
            let place = outputs.iter().position(|output| Some(&output.script_pubkey) == script.as_ref())?;
            u32::try_from(place).ok()
        };
        for Known { contract, .. } in &self.known {
            let is_of_it = |leg: &&Leg| leg.asset.as_ref() == Some(&contract.id);
            let paid = |leg: &Leg| {
                let recipient = leg.recipient.clone()?;
                let vout = vout_of(&recipient);
                Some(Paid { vout, recipient, amount: sum(leg.amounts.iter().copied()) })
            };
            let paid: Vec<Paid> = batch.legs.iter().filter(is_of_it).filter_map(paid).collect();
            if paid.is_empty() {
                continue;
            }
            let is_spent = |held: &&Held| held.spent_by == Some(batch.number) && held.asset == contract.id;
            let history = self.held.iter().filter(is_spent).filter_map(|held| held.from).collect();
            let bytes = Consigned { contract: contract.clone(), txid, history, paid }.write();
            all.push(Consignment { asset: contract.id.clone(), bytes });
        }
        all.sort_by(|one, other| one.asset.cmp(&other.asset));
        all
    }

    /// What a payee's engine says of a consignment; what can't be read, or was made by nobody, is `None`.
    pub(super) fn accept(
        &mut self,
        recipient: &str,
        consigned: Option<Consigned>,
        seen: &Seen,
        now: i64,
    ) -> Result<Verdict, Refusal> {
        let is_it = |batch: &Batch| batch.is_receive() && batch.leg_of(recipient).is_some();
        let mine = self.batches.iter_mut().find(|batch| is_it(batch)).ok_or(Refusal::NoSuchTransfer)?;
        let refused = |reason: &str| Ok(Verdict::Refused { reason: reason.to_owned() });
        match mine.status {
            TransferStatus::WaitingConfirmations | TransferStatus::Settled => return Ok(Verdict::Accepted),
            TransferStatus::Failed => return refused("the invoice is no longer open"),
            TransferStatus::Initiated | TransferStatus::WaitingCounterparty => {}
        }
        let Some(Consigned { contract, txid, history, paid }) = consigned else { return refused("it is not valid") };
        let (Some(paid), Some(leg)) =
            (paid.into_iter().find(|paid| paid.recipient == recipient), mine.legs.first_mut())
        else {
            return refused("it pays another recipient");
        };
        if leg.asset.as_ref().is_some_and(|asked| *asked != contract.id) {
            return refused("it is another asset");
        }
        if history.iter().any(|txid| seen.depth(*txid) < mine.min_confirmations.into()) {
            return Ok(Verdict::NotYet);
        }
        let Some(coin) = leg.coin.or(paid.vout.map(|vout| OutPoint { txid, vout })) else {
            return refused("it makes no coin for the recipient");
        };
        (leg.coin, leg.asset, leg.amounts) = (Some(coin), Some(contract.id.clone()), vec![paid.amount]);
        (mine.status, mine.txid, mine.updated_at) = (TransferStatus::WaitingConfirmations, Some(txid), now);
        self.held.push(Held {
            coin,
            asset: contract.id.clone(),
            amount: paid.amount,
            settled: false,
            from: Some(txid),
            brought_by: mine.number,
            spent_by: None,
        });
        if !self.knows(&contract.id) {
            self.known.push(Known { contract, added_at: now });
        }
        Ok(Verdict::Accepted)
    }

    pub(super) fn acknowledge(&mut self, recipient: &str, now: i64) -> Result<Acknowledged, Refusal> {
        let place = self.sending_to(recipient);
        let batch = place.and_then(|place| self.batches.get_mut(place)).ok_or(Refusal::NoSuchTransfer)?;
        match batch.status {
            TransferStatus::WaitingConfirmations | TransferStatus::Settled => return Ok(Acknowledged::Noted),
            TransferStatus::Initiated | TransferStatus::Failed => return Err(Refusal::TooLate),
            TransferStatus::WaitingCounterparty => {}
        }
        for leg in batch.legs.iter_mut().filter(|leg| leg.recipient.as_deref() == Some(recipient)) {
            leg.acknowledged = true;
        }
        let (number, is_by_all) = (batch.number, batch.legs.iter().all(|leg| leg.acknowledged));
        let Some(tx) = batch.signed.clone().filter(|_| is_by_all) else { return Ok(Acknowledged::Noted) };
        // The payees may have given it up.
        if batch.expires_at.is_some_and(|at| require_time(at, now).is_err()) {
            self.fail(number, now);
            return Ok(Acknowledged::Noted);
        }
        Ok(Acknowledged::ByAll { batch: number, tx })
    }

    /// The transaction is with the network: its inputs are gone, and its change is there.
    pub(super) fn went_out(&mut self, number: i32, now: i64) {
        let Some(batch) = self.batches.iter_mut().find(|batch| batch.number == number) else { return };
        (batch.status, batch.updated_at) = (TransferStatus::WaitingConfirmations, now);
        let is_spent = |coin: &Coin| {
            batch.signed.iter().flat_map(|tx| &tx.input).any(|input| input.previous_output == coin.outpoint)
        };
        self.coins.retain(|coin| !is_spent(coin));
        self.coins.extend(batch.change.clone());
    }

    pub(super) fn give_up(&mut self, number: i32, now: i64) -> Result<(), Refusal> {
        let batch = self.batches.iter().find(|batch| batch.number == number).ok_or(Refusal::NoSuchTransfer)?;
        match batch.status {
            TransferStatus::Failed => Ok(()),
            TransferStatus::WaitingConfirmations | TransferStatus::Settled => Err(Refusal::TooLate),
            TransferStatus::Initiated | TransferStatus::WaitingCounterparty => {
                self.fail(number, now);
                Ok(())
            }
        }
    }

    fn fail(&mut self, number: i32, now: i64) {
        self.held.retain(|held| held.brought_by != number);
        for held in self.held.iter_mut().filter(|held| held.spent_by == Some(number)) {
            held.spent_by = None;
        }
        for batch in self.batches.iter_mut().filter(|batch| batch.number == number) {
            (batch.status, batch.updated_at) = (TransferStatus::Failed, now);
        }
    }

    /// What is deep enough ends.
    pub(super) fn settle(&mut self, seen: &Seen, now: i64) {
        for batch in &mut self.batches {
            let depth = batch.txid.map_or(0, |txid| seen.depth(txid));
            let is_deep = depth >= usize::from(batch.min_confirmations.max(1));
            if batch.status != TransferStatus::WaitingConfirmations || !is_deep {
                continue;
            }
            (batch.status, batch.updated_at) = (TransferStatus::Settled, now);
            self.held.retain(|held| held.spent_by != Some(batch.number));
            for held in self.held.iter_mut().filter(|held| held.brought_by == batch.number) {
                held.settled = true;
            }
        }
    }
}

/// A commitment that commits to nothing but its own number, those whom it pays, and the change.
fn outputs(
    keys: &WalletKeys,
    batch: &Batch,
    recipients: &[Recipient],
    change: Option<(&ScriptBuf, Sat)>,
) -> Vec<TxOut> {
    let name = sha256::Hash::hash(format!("transfer {} {}", keys.id(), batch.number).as_bytes());
    let commitment = ScriptBuf::new_op_return(name.to_byte_array());
    let output = |script_pubkey: ScriptBuf, sat: Sat| TxOut { value: sat.to_bitcoin(), script_pubkey };
    let paid = |recipient: &Recipient| {
        let (_, script) = texts::read_recipient(&recipient.id)?;
        Some(output(script?, recipient.witness?))
    };
    let change = change.map(|(script, sat)| output(script.clone(), sat));
    [output(commitment, Sat::ZERO)].into_iter().chain(recipients.iter().filter_map(paid)).chain(change).collect()
}

/// The change is the last output.
fn unsigned(keys: &WalletKeys, coins: &[Coin], output: Vec<TxOut>, change_index: Option<u32>) -> Result<Psbt, Refusal> {
    let input = |coin: &Coin| TxIn {
        previous_output: coin.outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    };
    let tx = Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: coins.iter().map(input).collect(),
        output,
    };
    let mut psbt = Psbt::from_unsigned_tx(tx).map_err(|error| invalid("psbt", error.to_string()))?;
    let derived = |index: u32| {
        let derived = keys.scripts(Account::Colored, index..index.saturating_add(1)).pop();
        derived.ok_or_else(|| invalid("psbt", "a coin has no key"))
    };
    let origin = |index: u32| (Vec::new(), (keys.master_fingerprint(), keys.path(Account::Colored, index)));
    for (input, coin) in psbt.inputs.iter_mut().zip(coins) {
        let derived = derived(coin.index)?;
        *input = psbt::Input {
            witness_utxo: Some(TxOut { value: coin.sat.to_bitcoin(), script_pubkey: derived.script }),
            tap_internal_key: Some(derived.internal_key),
            tap_key_origins: [(derived.internal_key, origin(coin.index))].into(),
            ..psbt::Input::default()
        };
    }
    if let (Some(index), Some(output)) = (change_index, psbt.outputs.last_mut()) {
        let derived = derived(index)?;
        output.tap_internal_key = Some(derived.internal_key);
        output.tap_key_origins = [(derived.internal_key, origin(index))].into();
    }
    Ok(psbt)
}
