//! What every account has, from what happened: no postings, no holds to close.

use std::collections::{BTreeMap, HashMap};

use bitcoin::{Transaction, Txid};
use sluice::ids::RequestId;
use sluice::ledger::Account;
use sluice::ledger::model::Balance;

use super::{ONCHAIN, OPENED, PUSHED, SETTLED_AFTER, SIDE};
use crate::harness::lightning::sat;
use crate::harness::rig::Client;

/// What a wallet owns, less what it owes, without coins that a reorganisation may take back; and what of it is held. Millisatoshi.
#[derive(Clone, Copy, Debug, Default)]
pub struct Purse {
    pub owns: i64,
    pub held: i64,
}

/// What a wallet's coins are about that pay to the node.
pub struct Settle {
    pub who: usize,
    pub txid: Txid,
    pub msat: i64,
}

/// What was sent, or waits for coins.
pub struct Withdrawal {
    pub who: usize,
    pub id: RequestId,
    pub msat: i64,
    pub sent: Option<Transaction>,
    /// It has been in a block: the node has told so.
    pub is_told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Second {
    None,
    Opening,
    Open,
    Closing,
}

pub struct Model {
    pub purses: [Purse; 2],
    pub settles: Vec<Settle>,
    pub withdrawals: Vec<Withdrawal>,
    pub second: Second,
    /// What the node has in channels, to come out of them, and in coins that were never a wallet's.
    pub channels: i64,
    pub closing: i64,
    pub coins: i64,
    pub capital: i64,
    pub rounding: i64,
    /// Where each transaction stands.
    pub heights: HashMap<Txid, u32>,
    pub tip: u32,
}

impl Model {
    pub fn new() -> Self {
        Self {
            purses: [Purse::default(); 2],
            settles: Vec::new(),
            withdrawals: Vec::new(),
            second: Second::None,
            channels: SIDE,
            closing: 0,
            coins: 0,
            capital: 0,
            rounding: 0,
            heights: HashMap::new(),
            tip: 0,
        }
    }

    fn is_mined(&self, settle: &Settle) -> bool {
        self.heights.contains_key(&settle.txid)
    }

    pub fn is_credited(&self, settle: &Settle) -> bool {
        self.heights.get(&settle.txid).is_some_and(|height| self.tip + 1 - height >= SETTLED_AFTER)
    }

    /// What a wallet owns with all that is credited to it now.
    pub fn owns(&self, who: usize) -> i64 {
        let credited = self.settles.iter().filter(|settle| settle.who == who && self.is_credited(settle));
        self.purses[who].owns + credited.map(|settle| settle.msat).sum::<i64>()
    }

    pub fn free(&self, who: usize) -> i64 {
        (self.owns(who) - self.purses[who].held).max(0)
    }

    /// Every account that there may be.
    pub fn balances(&self, clients: &[Client; 2]) -> BTreeMap<Account, Balance> {
        let mined = self.settles.iter().filter(|settle| self.is_mined(settle)).map(|settle| settle.msat).sum::<i64>();
        let credited: i64 =
            self.settles.iter().filter(|settle| self.is_credited(settle)).map(|settle| settle.msat).sum();
        let cost = |withdrawal: &Withdrawal| withdrawal.msat + ONCHAIN;
        let sent = || self.withdrawals.iter().filter(|withdrawal| withdrawal.sent.is_some());
        let out: i64 = sent().map(cost).sum();
        let told: i64 = sent().filter(|withdrawal| withdrawal.is_told).map(cost).sum();
        let plain = |total| Balance { total, held: 0 };
        let mut all = BTreeMap::from([
            (Account::Channels, plain(-self.channels)),
            (Account::InFlight, plain(0)),
            (Account::Closing, plain(-self.closing)),
            (Account::Onchain, plain(told - mined - self.coins)),
            (Account::Crossing, plain(mined - credited + out - told)),
            (Account::Capital, plain(self.capital)),
            (Account::RoutingFees, plain(0)),
            (Account::OnchainFees, plain(0)),
            (Account::ClosingFees, plain(0)),
            (Account::Rounding, plain(self.rounding)),
            (Account::Suspense, plain(SIDE)),
        ]);
        for (who, client) in clients.iter().enumerate() {
            let (owns, held) = (self.owns(who), self.purses[who].held);
            all.insert(Account::Wallet(client.keys.id()), Balance { total: owns.max(held), held });
            all.insert(Account::Debt(client.keys.id()), plain((owns - held).min(0)));
        }
        all
    }

    pub fn topped_up(&mut self, sats: u64) {
        self.coins += msat_of(sats);
        self.capital += msat_of(sats);
        self.network_mined();
    }

    /// The second channel's transaction, if one waits, is in a block.
    pub fn network_mined(&mut self) {
        match self.second {
            Second::Opening => {
                self.coins -= OPENED;
                self.channels += OPENED - PUSHED;
                self.capital -= PUSHED;
                self.second = Second::Open;
            }
            Second::Closing => self.second = Second::None,
            Second::None | Second::Open => {}
        }
        self.coins += std::mem::take(&mut self.closing);
    }
}

pub fn msat_of(sats: u64) -> i64 {
    sat(sats).as_bigint()
}
