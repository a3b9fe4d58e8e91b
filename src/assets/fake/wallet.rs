//! The books of one wallet: its coins, what is on them, and its transfers.

use std::collections::HashMap;

use bitcoin::{OutPoint, Psbt, ScriptBuf, Transaction, Txid};
use serde::{Deserialize, Serialize};

use super::seen::Seen;
use super::texts::{self, Contract};
use super::{invalid, sum};
use crate::ids::WalletId;
use crate::money::{Amount, Sat};
use crate::ports::assets::{
    Account, Allocation, Asset, AssetBalance, ColoredCoin, Consignment, NewAsset, NewReceive, Onto, Receive, Refusal,
    Schema, Transfer, TransferKind, TransferStatus, WalletKeys,
};

/// Assets and promises that may share a coin.
const MOST_ON_A_COIN: usize = 1;
const TICKER_MAX: usize = 8;
const NAME_MAX: usize = 40;
const PRECISION_MAX: u8 = 18;

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Wallet {
    pub next_index: u32,
    pub coins: Vec<Coin>,
    pub known: Vec<Known>,
    pub held: Vec<Held>,
    /// What is under way is of this engine only.
    #[serde(skip)]
    pub batches: Vec<Batch>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Coin {
    pub outpoint: OutPoint,
    pub index: u32,
    pub sat: Sat,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Known {
    pub contract: Contract,
    pub added_at: i64,
}

/// So much of an asset on a coin.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Held {
    pub coin: OutPoint,
    pub asset: String,
    pub amount: Amount,
    pub settled: bool,
    /// The transaction that brought it; none has brought what was issued here.
    pub from: Option<Txid>,
    /// The transfer that brought it, and the one that takes it away.
    pub brought_by: i32,
    pub spent_by: Option<i32>,
}

/// What happens with one transaction, or with one invoice.
pub(super) struct Batch {
    pub number: i32,
    pub kind: TransferKind,
    pub status: TransferStatus,
    pub legs: Vec<Leg>,
    pub change: Option<Coin>,
    /// What was handed out for a signature, and what came back.
    pub psbt: Option<Psbt>,
    pub signed: Option<Transaction>,
    pub consignments: Vec<Consignment>,
    pub txid: Option<Txid>,
    pub min_confirmations: u8,
    pub created_at: i64,
    pub updated_at: i64,
    pub expires_at: Option<u64>,
}

/// One of those whom a batch pays, or what an invoice asks for.
#[derive(Default)]
pub(super) struct Leg {
    pub index: i32,
    pub asset: Option<String>,
    pub requested: Option<Amount>,
    pub amounts: Vec<Amount>,
    pub recipient: Option<String>,
    pub coin: Option<OutPoint>,
    pub acknowledged: bool,
}

impl Batch {
    pub(super) const fn is_waiting(&self) -> bool {
        matches!(self.status, TransferStatus::Initiated | TransferStatus::WaitingCounterparty)
    }

    pub(super) fn leg_of(&self, recipient: &str) -> Option<usize> {
        self.legs.iter().position(|leg| leg.recipient.as_deref() == Some(recipient))
    }

    pub(super) fn is_receive(&self) -> bool {
        matches!(self.kind, TransferKind::ReceiveBlind | TransferKind::ReceiveWitness)
    }
}

impl Wallet {
    /// Takes in the coins on scripts below this index, or on those that were given away before, and forgets those that are spent.
    pub(super) fn take_in_coins(&mut self, keys: &WalletKeys, below: u32, seen: &Seen) {
        self.next_index = self.next_index.max(below);
        let scripts = keys.scripts(Account::Colored, 0..self.next_index).into_iter();
        let scripts: HashMap<ScriptBuf, u32> = scripts.map(|derived| (derived.script, derived.index)).collect();
        let there = seen.unspent(&scripts);
        // A coin that a transfer of ours spends is spent with its broadcast, and its change is there from then on.
        let under_way = |batch: &&Batch| batch.status == TransferStatus::WaitingConfirmations;
        let (mut made, mut spent) = (Vec::new(), Vec::new());
        for batch in self.batches.iter().filter(under_way) {
            made.extend(batch.change.clone().map(|coin| coin.outpoint));
            let inputs = batch.signed.iter().flat_map(|tx| &tx.input);
            spent.extend(inputs.map(|input| input.previous_output));
        }
        let is_there = |coin: &Coin| there.iter().any(|(outpoint, ..)| *outpoint == coin.outpoint);
        self.coins.retain(|coin| made.contains(&coin.outpoint) || is_there(coin));
        for (outpoint, index, sat) in there {
            if !spent.contains(&outpoint) && self.coins.iter().all(|coin| coin.outpoint != outpoint) {
                self.coins.push(Coin { outpoint, index, sat });
            }
        }
    }

    pub(super) fn colored_coins(&self) -> Vec<ColoredCoin> {
        let on = |coin: &Coin| self.held.iter().filter(|held| held.coin == coin.outpoint).cloned().collect::<Vec<_>>();
        let allocation =
            |held: Held| Allocation { asset: Some(held.asset), amount: held.amount, settled: held.settled };
        let told = |coin: &Coin| ColoredCoin {
            outpoint: coin.outpoint,
            allocations: on(coin).into_iter().map(allocation).collect(),
            promised: u32::try_from(self.promised(coin.outpoint)).unwrap_or(u32::MAX),
        };
        self.coins.iter().map(told).collect()
    }

    /// Open invoices that name a coin.
    pub(super) fn promised(&self, coin: OutPoint) -> usize {
        let names = |batch: &&Batch| {
            batch.is_waiting() && batch.is_receive() && batch.legs.iter().any(|leg| leg.coin == Some(coin))
        };
        self.batches.iter().filter(names).count()
    }

    fn load(&self, coin: OutPoint) -> usize {
        self.promised(coin).saturating_add(self.held.iter().filter(|held| held.coin == coin).count())
    }

    /// The coin with the least on it that is not being spent.
    fn free_coin(&self) -> Result<OutPoint, Refusal> {
        let coins = self.coins.iter().map(|coin| coin.outpoint).filter(|coin| !self.is_set_aside(*coin));
        let least = coins.map(|coin| (self.load(coin), coin)).min_by_key(|(load, _)| *load);
        let free = least.filter(|(load, _)| *load < MOST_ON_A_COIN);
        free.map(|(_, coin)| coin).ok_or(Refusal::NoFreeCoin)
    }

    /// Whether a transfer that was begun spends the coin.
    pub(super) fn is_set_aside(&self, coin: OutPoint) -> bool {
        let begun = self.batches.iter().filter(|batch| batch.is_waiting()).filter_map(|batch| batch.psbt.as_ref());
        begun.flat_map(|psbt| &psbt.unsigned_tx.input).any(|input| input.previous_output == coin)
    }

    pub(super) fn issue(&mut self, id: &WalletId, new: &NewAsset, now: i64) -> Result<Asset, Refusal> {
        check(new)?;
        let mut batch = self.new_batch(TransferKind::Issuance, TransferStatus::Settled, now);
        let contract = Contract {
            id: texts::asset_id(&format!("asset {id} {}", batch.number)),
            ticker: new.ticker.clone(),
            name: new.name.clone(),
            precision: new.precision,
            supply: sum(new.amounts.iter().copied()),
            issued_at: now,
        };
        let before = self.held.len();
        for amount in &new.amounts {
            let coin = self.free_coin().inspect_err(|_| self.held.truncate(before))?;
            self.held.push(Held {
                coin,
                asset: contract.id.clone(),
                amount: *amount,
                settled: true,
                from: None,
                brought_by: batch.number,
                spent_by: None,
            });
        }
        let (asset, amounts) = (Some(contract.id.clone()), new.amounts.clone());
        batch.legs.push(Leg { index: self.next_leg(0), asset, amounts, ..Leg::default() });
        self.batches.push(batch);
        let known = Known { contract, added_at: now };
        let asset = self.asset(&known);
        self.known.push(known);
        Ok(asset)
    }

    pub(super) fn assets(&self) -> Vec<Asset> {
        self.known.iter().map(|known| self.asset(known)).collect()
    }

    fn asset(&self, Known { contract, added_at }: &Known) -> Asset {
        let of_it = || self.held.iter().filter(|held| held.asset == contract.id);
        let settled = of_it().filter(|held| held.settled).map(|held| held.amount);
        let future = of_it().filter(|held| held.spent_by.is_none()).map(|held| held.amount);
        let spendable = self.spendable(&contract.id).map(|held| held.amount);
        Asset {
            id: contract.id.clone(),
            schema: Schema::Nia,
            ticker: Some(contract.ticker.clone()),
            name: contract.name.clone(),
            details: None,
            precision: contract.precision,
            issued_supply: contract.supply,
            issued_at: contract.issued_at,
            added_at: *added_at,
            balance: AssetBalance { settled: sum(settled), future: sum(future), spendable: sum(spendable) },
        }
    }

    /// What a transfer can move: nothing else that is on the coin, or will come to it, may be lost with it.
    pub(super) fn spendable<'a>(&'a self, asset: &'a str) -> impl Iterator<Item = &'a Held> {
        self.held.iter().filter(move |held| held.asset == asset && self.can_be_spent(held.coin))
    }

    pub(super) fn can_be_spent(&self, coin: OutPoint) -> bool {
        let is_at_rest = |held: &Held| held.settled && held.spent_by.is_none();
        self.coins.iter().any(|known| known.outpoint == coin)
            && self.promised(coin) == 0
            && !self.is_set_aside(coin)
            && self.held.iter().filter(|held| held.coin == coin).all(is_at_rest)
    }

    pub(super) fn receive(&mut self, keys: &WalletKeys, new: &NewReceive, now: i64) -> Result<Receive, Refusal> {
        require_time(new.expires_at, now)?;
        if let Some(asset) = new.asset.as_ref().filter(|asset| !self.knows(asset)) {
            return Err(Refusal::UnknownAsset(asset.clone()));
        }
        let (kind, coin) = match new.onto {
            Onto::OwnCoin => (TransferKind::ReceiveBlind, Some(self.free_coin()?)),
            Onto::NewCoin => (TransferKind::ReceiveWitness, None),
        };
        let mut batch = self.new_batch(kind, TransferStatus::WaitingCounterparty, now);
        let recipient = match coin {
            Some(_) => texts::blind_recipient(keys.network(), &format!("recipient {} {}", keys.id(), batch.number)),
            None => texts::witness_recipient(keys.network(), &self.new_script(keys)?.1),
        };
        let invoice = texts::write_invoice(&recipient, new)?;
        batch.min_confirmations = new.min_confirmations;
        batch.expires_at = Some(new.expires_at);
        batch.legs.push(Leg {
            index: self.next_leg(0),
            asset: new.asset.clone(),
            requested: new.amount,
            recipient: Some(recipient.clone()),
            coin,
            ..Leg::default()
        });
        let number = batch.number;
        let transfers = told_of(&batch).next();
        let transfer = transfers.ok_or(Refusal::NoSuchTransfer)?;
        self.batches.push(batch);
        Ok(Receive { invoice, recipient, batch: number, transfer })
    }

    pub(super) fn knows(&self, asset: &str) -> bool {
        self.known.iter().any(|known| known.contract.id == asset)
    }

    /// Gives the next script away.
    pub(super) fn new_script(&mut self, keys: &WalletKeys) -> Result<(u32, ScriptBuf), Refusal> {
        let index = self.next_index;
        let derived =
            keys.scripts(Account::Colored, index..index.saturating_add(1)).pop().ok_or(Refusal::NoFreeCoin)?;
        self.next_index = index.saturating_add(1);
        Ok((index, derived.script))
    }

    /// One that is not in the books yet.
    pub(super) fn new_batch(&self, kind: TransferKind, status: TransferStatus, now: i64) -> Batch {
        Batch {
            number: i32::try_from(self.batches.len()).unwrap_or(i32::MAX).saturating_add(1),
            kind,
            status,
            legs: Vec::new(),
            change: None,
            psbt: None,
            signed: None,
            consignments: Vec::new(),
            txid: None,
            min_confirmations: 1,
            created_at: now,
            updated_at: now,
            expires_at: None,
        }
    }

    /// The index of the next transfer, after so many that are not in the books yet.
    pub(super) fn next_leg(&self, more: usize) -> i32 {
        let there: usize = self.batches.iter().map(|batch| batch.legs.len()).sum();
        i32::try_from(there.saturating_add(more)).unwrap_or(i32::MAX).saturating_add(1)
    }

    pub(super) fn transfers(&self) -> Vec<Transfer> {
        self.batches.iter().flat_map(told_of).collect()
    }
}

fn told_of(batch: &Batch) -> impl Iterator<Item = Transfer> {
    batch.legs.iter().map(|leg| Transfer {
        index: leg.index,
        batch: batch.number,
        status: batch.status,
        kind: batch.kind,
        asset: leg.asset.clone(),
        requested: leg.requested,
        amounts: leg.amounts.clone(),
        txid: batch.txid,
        recipient: leg.recipient.clone(),
        receive_coin: leg.coin,
        change_coin: batch.change.as_ref().map(|coin| coin.outpoint),
        created_at: batch.created_at,
        updated_at: batch.updated_at,
        expires_at: batch.expires_at,
    })
}

pub(super) fn require_time(expires_at: u64, now: i64) -> Result<(), Refusal> {
    let is_to_come = i64::try_from(expires_at).is_ok_and(|at| at > now);
    if is_to_come { Ok(()) } else { Err(invalid("expires_at", "it is over")) }
}

fn check(new: &NewAsset) -> Result<(), Refusal> {
    let is_capital = |c: char| c.is_ascii_uppercase();
    let ticker = new.ticker.chars().all(|c| is_capital(c) || c.is_ascii_digit());
    if !ticker || !new.ticker.starts_with(is_capital) || new.ticker.len() > TICKER_MAX {
        return Err(invalid("ticker", "1 to 8 capital letters and digits, a letter first"));
    }
    let is_printable = |c: char| c.is_ascii_graphic() || c == ' ';
    if !(1..=NAME_MAX).contains(&new.name.len()) || !new.name.chars().all(is_printable) {
        return Err(invalid("name", "1 to 40 printable ASCII characters"));
    }
    if new.precision > PRECISION_MAX {
        return Err(invalid("precision", "at most 18"));
    }
    let supply = new.amounts.iter().try_fold(Amount::ZERO, |sum, one| sum.checked_add(*one));
    if new.amounts.iter().any(|amount| amount.is_zero()) || supply.is_none_or(Amount::is_zero) {
        return Err(invalid("amounts", "at least one, none of zero, and not more than there can be together"));
    }
    Ok(())
}
