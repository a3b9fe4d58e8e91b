//! Opening and closing channels, and the coins of a node's own wallet.

use bitcoin::hashes::Hash;
use bitcoin::{Address, Network, ScriptBuf, WPubkeyHash};

use super::state::{ChannelState, Flight, Place, Stage, State};
use super::{FORCE_CLOSE_BLOCKS, amount};
use crate::ids::RequestId;
use crate::money::{Amount, FeeRate, Sat};
use crate::ports::lightning::{
    Asked, Channel, CloseHow, ForwardingFees, Movement, NewChannel, NodeBalance, NodeEvent, OnchainOrder, OnchainQuote,
    PayFailure, SentOnchain,
};

const MSAT: u64 = 1_000;
const SHORT: &str = "there is not that much beside the reserve";
/// One input and two outputs.
const SEND_VBYTES: u64 = 141;

impl State {
    pub fn open(&mut self, opener: usize, new: &NewChannel) -> Asked<String> {
        let Some(peer) = self.index_of(new.peer).filter(|peer| self.are_connected(opener, *peer)) else {
            return refused("the peer is not connected");
        };
        let capacity = Amount::from_sat(new.amount);
        let (Some(left), Some(ours)) = (self.spendable(opener, new.amount), capacity.checked_sub(new.push)) else {
            return refused("there is not that much to put into it");
        };
        self.nodes[opener].wallet.confirmed = left;
        let balances = [ours.base_units(), new.push.base_units()];
        let funding = self.fresh_outpoint();
        let channel = ChannelState::new(funding, [opener, peer], balances, new.announced, Stage::Unconfirmed);
        let channel = ChannelState { given: new.push.base_units(), ..channel };
        let id = channel.id.clone();
        self.channels.push(channel);
        self.tell(opener, NodeEvent::Channels);
        self.tell(peer, NodeEvent::Channels);
        Asked::Done(id)
    }

    pub fn close(&mut self, closer: usize, id: &str, how: CloseHow) -> Asked<()> {
        let is_it = |channel: &ChannelState| {
            channel.id == id && channel.stage != Stage::Closed && channel.side_of(closer).is_some()
        };
        let Some(index) = self.channels.iter().position(is_it) else { return refused("there is no such channel") };
        let ends = self.channels[index].ends;
        let passes = |flight: &Flight| flight.hops.iter().any(|hop| hop.channel == index);
        let passing: Vec<u64> =
            self.flights.iter().filter(|(_, flight)| passes(flight)).map(|(number, _)| *number).collect();
        let lock = match how {
            CloseHow::Cooperative if !self.are_connected(ends[0], ends[1]) => {
                return refused("the peer is not connected");
            }
            CloseHow::Cooperative if !passing.is_empty() => return refused("payments are on their way through it"),
            CloseHow::Cooperative => 1,
            CloseHow::Force => FORCE_CLOSE_BLOCKS,
        };
        for number in passing {
            match self.flights.get(&number).map(|flight| flight.place) {
                Some(Place::Claiming { preimage }) => self.settle(number, preimage),
                Some(Place::OnItsWay | Place::Held { .. }) | None => self.send_back(number, PayFailure::Rejected),
            }
        }
        self.channels[index].stage = Stage::Closed;
        for (end, msat) in ends.into_iter().zip(self.channels[index].balances) {
            let blocks = if end == closer { lock } else { 1 };
            // What is less than a satoshi goes to the miners.
            let sat = Sat::new(msat / MSAT).unwrap_or(Sat::MAX);
            self.nodes[end].wallet.closing.push((sat, self.height + blocks));
            self.tell_closed(end, index, msat);
            self.tell(end, NodeEvent::Channels);
        }
        Asked::Done(())
    }

    pub fn set_fees(&mut self, node: usize, id: &str, fees: ForwardingFees) -> Asked<()> {
        let is_open = |channel: &&mut ChannelState| channel.id == id && channel.stage != Stage::Closed;
        let Some(channel) = self.channels.iter_mut().find(is_open) else { return refused("there is no such channel") };
        let Some(side) = channel.side_of(node) else { return refused("there is no such channel") };
        channel.fees[side] = Some((fees.base.base_units(), u64::from(fees.parts_per_million)));
        Asked::Done(())
    }

    pub fn channels_of(&self, node: usize) -> Vec<Channel> {
        let usual = self.nodes[node].fees;
        let ours = self.channels.iter().filter(|channel| channel.stage != Stage::Closed);
        let ours = ours.filter_map(|channel| channel.side_of(node).map(|side| (channel, side)));
        ours.map(|(channel, side)| Channel {
            id: channel.id.clone(),
            peer: self.nodes[channel.ends[1 - side]].id,
            funding: Some(channel.funding),
            capacity: Sat::new(channel.capacity / MSAT).unwrap_or(Sat::MAX),
            can_send: amount(channel.balances[side]),
            can_receive: amount(channel.balances[1 - side]),
            usable: self.is_usable(channel),
            announced: channel.announced,
            is_outbound: side == 0,
            fees: Some(forwarding_fees(channel.fees[side].unwrap_or(usual))),
        })
        .collect()
    }

    pub fn balance_of(&self, node: usize) -> NodeBalance {
        let (mut channels, mut in_flight, mut can_send, mut can_receive) = (0, 0, 0, 0);
        for channel in self.channels.iter().filter(|channel| channel.stage != Stage::Closed) {
            let Some(side) = channel.side_of(node) else { continue };
            // What its opener announces is nothing before a block has it.
            if side == 0 || channel.stage != Stage::Unconfirmed {
                channels += channel.balances[side];
            }
            if self.is_usable(channel) {
                can_send += channel.balances[side];
                can_receive += channel.balances[1 - side];
            }
        }
        let mut coming = 0;
        for flight in self.flights.values() {
            let theirs = flight.hops.iter().filter(|hop| self.channels[hop.channel].ends[1 - hop.sender] == node);
            coming += theirs.map(|hop| hop.amount).sum::<u64>();
            let ours = flight.hops.iter().filter(|hop| self.channels[hop.channel].ends[hop.sender] == node);
            in_flight += ours.map(|hop| hop.amount).sum::<u64>();
            in_flight += if flight.payer == node { flight.extra } else { 0 };
        }
        let wallet = &self.nodes[node].wallet;
        NodeBalance {
            channels: amount(channels),
            in_flight: amount(in_flight),
            closing: Sat::sum(wallet.closing.iter().map(|(sat, _)| *sat)).unwrap_or(Sat::MAX),
            onchain_confirmed: wallet.confirmed,
            onchain_unconfirmed: wallet.unconfirmed,
            reserve: wallet.reserve,
            can_send: amount(can_send),
            can_receive: amount(can_receive),
            coming: amount(coming),
            is_moving: self.is_moving(node),
        }
    }

    /// A new address each time. Nothing watches it: `FakeNode::fund` gives a node its coins.
    pub fn fresh_address(&mut self, node: usize) -> Address {
        let wallet = &mut self.nodes[node].wallet;
        wallet.addresses += 1;
        let name = format!("address {node} {}", wallet.addresses);
        let script = ScriptBuf::new_p2wpkh(&WPubkeyHash::hash(name.as_bytes()));
        wallet.scripts.insert(script.clone());
        // proof: a P2WPKH script has an address
        Address::from_script(&script, Network::Regtest).expect("an address")
    }

    pub fn quote_coins(&self, node: usize, to: &Address, sat: Sat, rate: FeeRate) -> OnchainQuote {
        if self.nodes[node].wallet.scripts.contains(&to.script_pubkey()) {
            return OnchainQuote::OwnAddress;
        }
        match self.cost_of(node, sat, rate) {
            Some((fee, _)) => OnchainQuote::Fee(fee),
            None => OnchainQuote::Short { reason: SHORT.to_owned() },
        }
    }

    pub fn send_coins(&mut self, node: usize, order: &OnchainOrder) -> Asked<SentOnchain> {
        if let Some(sent) = self.nodes[node].wallet.sent.get(&order.id) {
            return Asked::Done(*sent);
        }
        let Some((fee, left)) = self.cost_of(node, order.amount, order.fee_rate) else { return refused(SHORT) };
        if fee > order.max_fee {
            return refused("it would cost more than it may");
        }
        let through = self.nodes[node].wallet.through.clone();
        let txid = match through {
            Some(chain) => chain(&order.to.script_pubkey(), order.amount),
            None => self.fresh_txid(),
        };
        let sent = SentOnchain { txid, fee };
        let wallet = &mut self.nodes[node].wallet;
        wallet.confirmed = left;
        wallet.sent.insert(order.id, sent);
        wallet.leaving.push((txid, Movement::Sent { txid, order: Some(order.id), amount: order.amount, fee }));
        Asked::Done(sent)
    }

    pub fn bump_coins(&mut self, node: usize, id: RequestId, rate: FeeRate) -> Asked<SentOnchain> {
        let is_it = |movement: &Movement| matches!(movement, Movement::Sent { order, .. } if *order == Some(id));
        let wallet = &self.nodes[node].wallet;
        let Some(before) = wallet.sent.get(&id).copied() else { return refused("nothing was sent for it") };
        let Some(amount) = wallet.leaving.iter().find_map(|(_, movement)| match movement {
            Movement::Sent { amount, .. } if is_it(movement) => Some(*amount),
            _ => None,
        }) else {
            return refused("it is in a block");
        };
        let Some(fee) = rate.fee(SEND_VBYTES).filter(|fee| *fee > before.fee) else {
            return refused("that is not more than it pays now");
        };
        let more = fee.checked_sub(before.fee).unwrap_or(Sat::ZERO);
        let Some(left) = self.spendable(node, more) else { return refused(SHORT) };
        let replaces = self.nodes[node].wallet.replaces.clone();
        let txid = replaces.map_or_else(|| self.fresh_txid(), |replace| replace(before.txid));
        let sent = SentOnchain { txid, fee };
        let wallet = &mut self.nodes[node].wallet;
        wallet.confirmed = left;
        wallet.sent.insert(id, sent);
        wallet.leaving.push((txid, Movement::Sent { txid, order: Some(id), amount, fee }));
        Asked::Done(sent)
    }

    /// What sending so much costs, and what is left then; if the reserve allows it.
    fn cost_of(&self, node: usize, sat: Sat, rate: FeeRate) -> Option<(Sat, Sat)> {
        let fee = rate.fee(SEND_VBYTES)?;
        Some((fee, self.spendable(node, fee.checked_add(sat)?)?))
    }

    /// What is left when this much is taken out, if the reserve allows it.
    fn spendable(&self, node: usize, sat: Sat) -> Option<Sat> {
        let wallet = &self.nodes[node].wallet;
        wallet.confirmed.checked_sub(sat).filter(|left| *left >= wallet.reserve)
    }
}

fn refused<T>(reason: &str) -> Asked<T> {
    Asked::Refused { reason: reason.to_owned() }
}

fn forwarding_fees((base, ppm): (u64, u64)) -> ForwardingFees {
    ForwardingFees { base: amount(base), parts_per_million: u32::try_from(ppm).unwrap_or(u32::MAX) }
}
