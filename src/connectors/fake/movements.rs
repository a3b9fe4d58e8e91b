//! What a node in memory tells of its own money.

use std::collections::HashSet;

use bitcoin::{OutPoint, Transaction, TxOut};

use super::amount;
use super::state::{Flight, Stage, State, Wallet};
use crate::money::{Amount, Sat};
use crate::ports::lightning::{Movement, NodeEvent, Told};

const MSAT: u64 = 1_000;

impl Wallet {
    fn is_last_version(&self, movement: &Movement) -> bool {
        match movement {
            Movement::Sent { txid, order: Some(order), .. } => {
                self.sent.get(order).is_some_and(|sent| sent.txid == *txid)
            }
            _ => true,
        }
    }

    /// One of them is in a block, and cost what it cost.
    fn forget_other_versions(&mut self, movement: &Movement) {
        let Movement::Sent { order: Some(id), fee, .. } = movement else { return };
        self.leaving.retain(|(_, other)| !matches!(other, Movement::Sent { order: Some(order), .. } if order == id));
        let back = self.sent.get(id).and_then(|last| last.fee.checked_sub(*fee)).unwrap_or(Sat::ZERO);
        self.confirmed = self.confirmed.checked_add(back).unwrap_or(Sat::MAX);
    }
}

impl State {
    pub fn moved(&mut self, node: usize, movement: Movement) {
        self.nodes[node].movements.push(movement);
        self.tell(node, NodeEvent::Channels);
    }

    /// Something of this node's waits for a block.
    pub fn is_moving(&self, node: usize) -> bool {
        let wallet = &self.nodes[node].wallet;
        let opening =
            self.channels.iter().any(|channel| channel.ends[0] == node && channel.stage == Stage::Unconfirmed);
        opening || !wallet.closing.is_empty() || !wallet.leaving.is_empty() || wallet.unconfirmed != Sat::ZERO
    }

    /// What was told of this node's money, as it stands now.
    pub fn told_of(&self, node: usize) -> Told {
        let balance = self.balance_of(node);
        // What is in no block is in no channel, and still among the opener's coins.
        let opening = self.channels.iter().filter(|channel| channel.stage == Stage::Unconfirmed);
        let (mut untold, mut set_aside) = (0, 0);
        for channel in opening {
            untold += if channel.side_of(node) == Some(0) { channel.balances[0] } else { 0 };
            set_aside += if channel.side_of(node) == Some(0) { channel.capacity } else { 0 };
        }
        let wallet = &self.nodes[node].wallet;
        let leaving = wallet.leaving.iter().map(|(_, movement)| match movement {
            Movement::Sent { amount, fee, .. } => {
                Amount::from_sat(*amount).as_bigint() + Amount::from_sat(*fee).as_bigint()
            }
            _ => 0,
        });
        Told {
            channels: balance.channels.as_bigint() + balance.in_flight.as_bigint() - amount(untold).as_bigint(),
            unresolved: 0,
            closing: Amount::from_sat(balance.closing).as_bigint(),
            onchain: Amount::from_sat(balance.onchain_confirmed).as_bigint()
                + amount(set_aside).as_bigint()
                + leaving.sum::<i64>(),
            is_behind: false,
        }
    }

    /// A channel is in a block: its opener has put something into it, and the other end has perhaps been given something.
    pub fn tell_opened(&mut self, index: usize) {
        let channel = &self.channels[index];
        let ([opener, other], given, id) = (channel.ends, amount(channel.given), channel.id.clone());
        let (txid, sat) = (channel.funding.txid, Sat::new(channel.capacity / MSAT).unwrap_or(Sat::MAX));
        self.moved(opener, Movement::Funded { txid, amount: sat, given, fee: Sat::ZERO });
        if !given.is_zero() {
            self.moved(other, Movement::Given { channel: id, amount: given });
        }
    }

    /// Before the coins that wait are put to the others.
    pub fn tell_arrived(&mut self) {
        for node in 0..self.nodes.len() {
            for (script, sat) in std::mem::take(&mut self.nodes[node].wallet.arriving) {
                let outpoint = OutPoint { txid: self.fresh_txid(), vout: 0 };
                self.moved(node, Movement::Arrived { outpoint, script, amount: sat });
            }
        }
    }

    /// What was sent is in a block, unless it was sent through a chain that tells this itself.
    pub fn tell_left(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].wallet.through.is_none() {
                for (_, movement) in std::mem::take(&mut self.nodes[node].wallet.leaving) {
                    // Of several versions the last is mined.
                    if self.nodes[node].wallet.is_last_version(&movement) {
                        self.moved(node, movement);
                    }
                }
            }
        }
    }

    /// What a chain has brought to this node, what it has taken back, and what of the node's is in its blocks.
    pub fn see_chain(&mut self, node: usize, height: u32, confirmed: &[Transaction]) {
        self.nodes[node].wallet.height = Some(height);
        let mut there = HashSet::new();
        for transaction in confirmed {
            let txid = transaction.compute_txid();
            for (vout, output) in (0..).zip(&transaction.output) {
                if self.nodes[node].wallet.scripts.contains(&output.script_pubkey) {
                    there.insert(OutPoint { txid, vout });
                    self.brought(node, OutPoint { txid, vout }, output);
                }
            }
            let leaving = &mut self.nodes[node].wallet.leaving;
            let left: Vec<_> = leaving.extract_if(.., |(sent, _)| *sent == txid).collect();
            for (_, movement) in left {
                self.nodes[node].wallet.forget_other_versions(&movement);
                self.moved(node, movement);
            }
        }
        self.take_back(node, &there);
    }

    fn brought(&mut self, node: usize, outpoint: OutPoint, output: &TxOut) {
        let amount = Sat::new(output.value.to_sat()).unwrap_or(Sat::MAX);
        let arrived = Movement::Arrived { outpoint, script: output.script_pubkey.to_hex_string(), amount };
        let wallet = &mut self.nodes[node].wallet;
        let (_, _, times) = wallet.brought.entry(outpoint).or_insert((arrived.clone(), amount, 0));
        if !times.is_multiple_of(2) {
            return;
        }
        *times += 1;
        let again = *times / 2;
        wallet.confirmed = wallet.confirmed.checked_add(amount).unwrap_or(Sat::MAX);
        let movement = if again == 0 { arrived } else { Movement::Again { what: Box::new(arrived), times: again } };
        self.moved(node, movement);
    }

    /// Of what the chain has brought, what is not there any more.
    fn take_back(&mut self, node: usize, there: &HashSet<OutPoint>) {
        let wallet = &mut self.nodes[node].wallet;
        let mut undone = Vec::new();
        for (outpoint, (what, amount, times)) in &mut wallet.brought {
            if !times.is_multiple_of(2) && !there.contains(outpoint) {
                undone.push(Movement::Undone { what: Box::new(what.clone()), times: times.div_ceil(2) });
                *times += 1;
                wallet.confirmed = wallet.confirmed.checked_sub(*amount).unwrap_or(Sat::ZERO);
            }
        }
        undone.into_iter().for_each(|movement| self.moved(node, movement));
    }

    /// Before what is ripe is put to the others.
    pub fn tell_swept(&mut self) {
        for node in 0..self.nodes.len() {
            let ripe: Vec<Sat> = self.nodes[node]
                .wallet
                .closing
                .iter()
                .filter(|(_, at)| *at <= self.height)
                .map(|(sat, _)| *sat)
                .collect();
            for back in ripe {
                let txid = self.fresh_txid();
                self.moved(node, Movement::Swept { txid, back, fee: Sat::ZERO });
            }
        }
    }

    pub fn tell_closed(&mut self, node: usize, index: usize, msat: u64) {
        let channel = self.channels[index].id.clone();
        self.moved(node, Movement::Closed { channel: channel.clone(), amount: amount(msat) });
        let resolved = Movement::Resolved {
            channel,
            paid: Amount::ZERO,
            claimed: Amount::ZERO,
            fee: Sat::ZERO,
            fraction: amount(msat % MSAT),
            excess: Amount::ZERO,
        };
        self.moved(node, resolved);
    }

    /// Whoever stands between two hops keeps what the second is smaller by.
    pub fn tell_forwarded(&mut self, number: u64, flight: &Flight) {
        for (hop, next) in flight.hops.iter().zip(flight.hops.iter().skip(1)) {
            let node = self.channels[next.channel].ends[next.sender];
            let fee = amount(hop.amount.saturating_sub(next.amount));
            self.moved(node, Movement::Forwarded { name: number.to_string(), fee });
        }
    }
}
