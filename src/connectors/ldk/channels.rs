//! Channels, and the node's own money in them and beside them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, OutPoint, ScriptBuf, Transaction, Txid};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::types::ChannelId;
use lightning::types::features::ChannelTypeFeatures;
use lightning::util::anchor_channel_reserves::{AnchorChannelReserveContext, get_reserve_per_channel};
use lightning::util::config::ChannelConfigUpdate;
use tokio::time::Instant;

use super::books::user_id;
use super::events::amount;
use super::inbound::is_announced_only;
use super::map;
use super::node::{Node, refused};
use super::policy;
use super::start::put;
use super::wallet::Keep;
use crate::crash;
use crate::ids::RequestId;
use crate::money::{Amount, FeeRate, Sat};
use crate::ports::PortError;
use crate::ports::lightning::{
    Asked, Channel, CloseHow, ForwardingFees, NewChannel, NodeBalance, OnchainOrder, OnchainQuote, SentOnchain,
};
use crate::store::StoreError;
use crate::store::node::{self, NewSend, Step};
use crate::store::node_sends;

/// The weight of a transaction with some inputs, two outputs, and a little to spare.
const ROOMY_FUNDING_WEIGHT: u64 = 1_600;
/// Fundings that only LDK has, as they were given to it.
const FUNDINGS: &str = "funding";
/// LDK begins no closing while a change of the channel is being stored, which is for milliseconds.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);
const CLOSE_AGAIN: Duration = Duration::from_millis(10);
const MSAT_PER_SAT: u64 = 1_000;

impl Node {
    /// What must stay on-chain to bump the closing of these many channels.
    fn reserve_for(&self, channels: usize) -> Sat {
        let config = &self.config.channels;
        let each = get_reserve_per_channel(&AnchorChannelReserveContext {
            upper_bound_fee_rate: bitcoin::FeeRate::from_sat_per_vb_u32(config.reserve_fee_rate),
            expected_accepted_htlcs: config.reserve_payments,
            taproot_wallet: false,
        });
        let count = u64::try_from(channels).unwrap_or(u64::MAX);
        Sat::new(each.to_sat().saturating_mul(count)).unwrap_or(Sat::MAX)
    }

    /// Those whose closing we may have to bump, whoever closes. What a peer has only announced is none of them: there is nothing to
    /// bump before a block has its funding.
    fn anchored(&self) -> usize {
        let anchored = |channel: &ChannelDetails| {
            let kind = channel.channel_type.as_ref();
            !is_announced_only(channel) && kind.is_none_or(|kind| kind.supports_anchors_zero_fee_htlc_tx())
        };
        self.manager.list_channels().iter().filter(|channel| anchored(channel)).count()
    }

    pub fn reserve(&self) -> Sat {
        self.reserve_for(self.anchored())
    }

    /// The same, as coins.
    fn coins_kept(&self) -> Keep {
        Keep { each: self.reserve_for(1), coins: self.anchored() }
    }

    /// The same with some channels more.
    pub fn reserve_with(&self, more: usize) -> Sat {
        self.reserve_for(self.anchored().saturating_add(more))
    }

    pub async fn open(&self, new: &NewChannel) -> Result<Asked<String>, PortError> {
        if self.peers.peer_by_node_id(&new.peer).is_none() {
            return Ok(no("the peer is not connected"));
        }
        let fee = u64::from(self.fees.funding()).saturating_mul(ROOMY_FUNDING_WEIGHT).div_ceil(1_000);
        let reserve = self.reserve_with(1);
        let needed = new.amount.to_u64().saturating_add(reserve.to_u64()).saturating_add(fee);
        let has = self.wallet.coins().confirmed.to_u64();
        if has < needed {
            return Ok(no(format!(
                "the wallet has {has} sat, and {needed} sat are needed: the channel, its fee, and {reserve} sat that stay in reserve"
            )));
        }
        let mut config = policy::user_config(&self.config, self.network);
        config.channel_handshake_config.announce_for_forwarding = new.announced;
        let push = new.push.base_units();
        let made = self.manager.create_channel(new.peer, new.amount.to_u64(), push, user_id(push), None, Some(config));
        match made {
            Ok(id) => Ok(Asked::Done(map::channel_text(id))),
            Err(error) => Ok(no(format!("{error:?}"))),
        }
    }

    /// The peer has agreed to a channel, and waits for its funding.
    pub fn fund(&self, channel: ChannelId, peer: PublicKey, value: bitcoin::Amount, script: ScriptBuf) {
        let funded =
            self.wallet.pay(script, value, self.fees.funding(), self.coins_kept()).and_then(|(transaction, _)| {
                // Until the peer has signed only LDK has it, and after a start nobody would know which coins it spends.
                self.stage.push(put(FUNDINGS, &transaction.compute_txid().to_string(), serialize(&transaction)));
                let given = self.manager.funding_transaction_generated(channel, peer, transaction.clone());
                given.map_err(|error| {
                    self.wallet.let_go(&transaction);
                    format!("{error:?}")
                })
            });
        if let Err(why) = funded {
            tracing::warn!(%peer, why, "a channel could not be funded");
            // It is gone already when that fails.
            drop(self.manager.force_close_broadcasting_latest_txn(&channel, &peer, why));
        }
    }

    /// After a start: a funding that was begun by a process that died is forgotten by LDK too, unless it is under way. Then its coins stay
    /// set aside, and no others.
    ///
    /// # Errors
    /// When the database can't answer or a note is corrupt. Nothing is free then that was not.
    pub async fn let_go_of_unused_coins(&self) -> Result<(), StoreError> {
        let mut conn = self.store.read().await?;
        let noted = node::values(&mut conn, FUNDINGS).await?;
        drop(conn);
        let mut fundings = HashMap::new();
        for (name, bytes) in noted {
            let transaction: Transaction =
                deserialize(&bytes).map_err(|error| StoreError::Corrupt(format!("the funding {name}: {error}")))?;
            fundings.insert(transaction.compute_txid(), transaction);
        }
        let channels = self.manager.list_channels();
        let opened = channels.iter().filter(|channel| channel.is_outbound);
        let opened = opened.filter_map(|channel| Some(channel.funding_txo?.txid));
        match under_way(&mut fundings, opened, |txid| self.wallet.knows(txid)) {
            Ok(spent) => self.wallet.let_go_of_all_but(&spent),
            Err(txid) => {
                tracing::warn!(%txid, "nobody knows which coins a channel's funding spends: all that were set aside stay so until the next start");
                return Ok(());
            }
        }
        for txid in fundings.into_keys() {
            self.stage.push(Step::Remove { space: FUNDINGS, name: txid.to_string() });
        }
        Ok(())
    }

    pub async fn close(&self, id: &str, how: CloseHow) -> Result<Asked<()>, PortError> {
        let Some(id) = map::read_channel(id) else { return Ok(no("that is no channel's id")) };
        let channels = self.manager.list_channels();
        let Some(channel) = channels.iter().find(|channel| channel.channel_id == id) else {
            return Ok(no("there is no such channel"));
        };
        let peer = channel.counterparty.node_id;
        // Both have agreed before: that is what was asked for.
        if how == CloseHow::Cooperative
            && channel.channel_shutdown_state.as_ref().is_some_and(|state| !map::is_open(state))
        {
            return Ok(Asked::Done(()));
        }
        let ask = || match how {
            CloseHow::Cooperative => self.manager.close_channel(&id, &peer),
            CloseHow::Force => {
                self.manager.force_close_broadcasting_latest_txn(&id, &peer, "the operator closes it".to_owned())
            }
        };
        let deadline = Instant::now() + CLOSE_WITHIN;
        while let Err(error) = ask() {
            if Instant::now() > deadline || self.peers.peer_by_node_id(&peer).is_none() {
                return Ok(no(format!("{error:?}")));
            }
            tokio::time::sleep(CLOSE_AGAIN).await;
        }
        // Twice: the first commit may have begun before LDK was asked.
        self.committed().await?;
        self.committed().await?;
        Ok(Asked::Done(()))
    }

    pub async fn set_fees(&self, id: &str, fees: ForwardingFees) -> Result<Asked<()>, PortError> {
        let Some(id) = map::read_channel(id) else { return Ok(no("that is no channel's id")) };
        let channels = self.manager.list_channels();
        let Some(channel) = channels.iter().find(|channel| channel.channel_id == id) else {
            return Ok(no("there is no such channel"));
        };
        let Ok(base) = u32::try_from(fees.base.base_units()) else { return Ok(no("that base fee is absurd")) };
        let update = ChannelConfigUpdate {
            forwarding_fee_base_msat: Some(base),
            forwarding_fee_proportional_millionths: Some(fees.parts_per_million),
            ..ChannelConfigUpdate::default()
        };
        if let Err(error) = self.manager.update_partial_channel_config(&channel.counterparty.node_id, &[id], &update) {
            return Ok(no(format!("{error:?}")));
        }
        // Twice: the first commit may have begun before LDK was asked.
        self.committed().await?;
        self.committed().await?;
        Ok(Asked::Done(()))
    }

    pub fn list(&self) -> Vec<Channel> {
        self.manager.list_channels().into_iter().map(channel).collect()
    }

    pub fn money(&self) -> NodeBalance {
        let channels = self.manager.list_channels();
        let usable = || channels.iter().filter(|channel| channel.is_usable);
        let coins = self.wallet.coins();
        NodeBalance {
            channels: sum(channels.iter().filter(|channel| self.is_funded(channel)).map(ours)),
            in_flight: sum(channels
                .iter()
                .flat_map(|channel| &channel.pending_outbound_htlcs)
                .map(|htlc| htlc.amount_msat)),
            closing: self.closing(),
            onchain_confirmed: coins.confirmed,
            onchain_unconfirmed: coins.unconfirmed,
            reserve: self.reserve(),
            can_send: sum(usable().map(|channel| channel.outbound_capacity_msat)),
            can_receive: sum(usable().map(|channel| channel.inbound_capacity_msat)),
            coming: sum(channels
                .iter()
                .flat_map(|channel| &channel.pending_inbound_htlcs)
                .map(|htlc| htlc.amount_msat)),
            is_moving: self.is_money_moving(),
        }
    }

    pub fn quote_onchain(&self, to: &Address, sat: Sat, rate: FeeRate) -> Result<OnchainQuote, PortError> {
        let script = to.script_pubkey();
        if self.wallet.owns(&script) {
            return Ok(OnchainQuote::OwnAddress);
        }
        Ok(match self.wallet.quote(script, sat.to_bitcoin(), self.rate_for_sends(rate)?, self.coins_kept()) {
            Ok(fee) => OnchainQuote::Fee(fee),
            Err(reason) => OnchainQuote::Short { reason },
        })
    }

    pub async fn send_onchain(&self, order: &OnchainOrder) -> Result<Asked<SentOnchain>, PortError> {
        let _one_at_a_time = self.sending.lock().await;
        if let Some(sent) = self.sent_before(order.id).await? {
            return Ok(Asked::Done(sent));
        }
        let (script, amount) = (order.to.script_pubkey(), order.amount.to_bitcoin());
        let rate = self.rate_for_sends(order.fee_rate)?;
        let (transaction, fee) = match self.wallet.pay(script, amount, rate, self.coins_kept()) {
            Ok(paid) => paid,
            Err(why) => return Ok(no(why)),
        };
        if fee > order.max_fee {
            self.wallet.let_go(&transaction);
            return Ok(no(format!("it would cost {fee} sat, and may cost {} sat", order.max_fee)));
        }
        let txid = transaction.compute_txid();
        let (id, address, amount) = (order.id, order.to.to_string(), order.amount);
        let sent = Step::Sent(NewSend { id, txid, address, amount, fee });
        self.broadcaster.hold_for(vec![transaction], vec![sent]);
        crash::point("node.send_held");
        self.committed().await?;
        Ok(Asked::Done(SentOnchain { txid, fee }))
    }

    /// Another version of what was sent: the same recipient gets the same.
    pub async fn bump_onchain(&self, id: RequestId, rate: FeeRate) -> Result<Asked<SentOnchain>, PortError> {
        let _one_at_a_time = self.sending.lock().await;
        let Some(before) = self.sent_before(id).await? else { return Ok(no("nothing was sent for it")) };
        let (transaction, fee) = match self.wallet.bump(before.txid, self.rate_for_sends(rate)?, self.coins_kept()) {
            Ok(bumped) => bumped,
            Err(why) => return Ok(no(why)),
        };
        let txid = transaction.compute_txid();
        let bumped = Step::Bumped { id, replaces: before.txid, txid, fee };
        self.broadcaster.hold_for(vec![transaction], vec![bumped]);
        self.committed().await?;
        Ok(Asked::Done(SentOnchain { txid, fee }))
    }

    /// What was asked for, and never what would wait for weeks: its change is of no use until it is in a block.
    fn rate_for_sends(&self, asked: FeeRate) -> Result<u32, PortError> {
        Ok(per_kw(asked)?.max(self.fees.least_for_sends()))
    }

    async fn sent_before(&self, id: RequestId) -> Result<Option<SentOnchain>, PortError> {
        let mut conn = self.store.read().await?;
        Ok(node_sends::send(&mut conn, id).await?.map(|(txid, fee)| SentOnchain { txid, fee }))
    }
}

/// Of the channels that we open, the coins that their fundings spend where only LDK has them. What is left of the notes is under way no more.
///
/// # Errors
/// A funding of before there were notes: it may spend any coin.
fn under_way(
    noted: &mut HashMap<Txid, Transaction>,
    opened: impl Iterator<Item = Txid>,
    is_known: impl Fn(Txid) -> bool,
) -> Result<HashSet<OutPoint>, Txid> {
    let mut spent = HashSet::new();
    for txid in opened {
        match noted.remove(&txid) {
            _ if is_known(txid) => {}
            Some(funding) => spent.extend(funding.input.iter().map(|input| input.previous_output)),
            None => return Err(txid),
        }
    }
    Ok(spent)
}

fn per_kw(rate: FeeRate) -> Result<u32, PortError> {
    u32::try_from(rate.milli_sat_per_vb().div_ceil(4)).map_err(|_| refused("that fee rate is absurd"))
}

/// Two anchors of 330 sat, which LDK leaves out of what the opener of a channel has.
const ANCHORS_MSAT: u64 = 660_000;

/// What the opener's side of a channel is short of in what LDK says.
fn anchors(channel: &ChannelDetails) -> u64 {
    let has_anchors = channel.channel_type.as_ref().is_some_and(ChannelTypeFeatures::supports_anchors_zero_fee_htlc_tx);
    if has_anchors { ANCHORS_MSAT } else { 0 }
}

/// What is ours in a channel, to the millisatoshi. LDK says what we can send above our reserve, and what the peer can above
/// its own: one of the two is above zero, and tells. Both leave out the anchors of who has opened it.
pub(super) fn ours(channel: &ChannelDetails) -> u64 {
    let total = channel.channel_value_satoshis.saturating_mul(MSAT_PER_SAT);
    let reserve = channel.unspendable_punishment_reserve.unwrap_or(0).saturating_mul(MSAT_PER_SAT);
    let in_flight = channel.pending_outbound_htlcs.iter().map(|htlc| htlc.amount_msat);
    let coming = channel.pending_inbound_htlcs.iter().map(|htlc| htlc.amount_msat);
    let in_flight = in_flight.chain(coming).fold(0_u64, u64::saturating_add);
    if channel.outbound_capacity_msat > 0 {
        let anchors = if channel.is_outbound { anchors(channel) } else { 0 };
        return channel.outbound_capacity_msat.saturating_add(reserve).saturating_add(anchors);
    }
    let theirs = channel.counterparty.unspendable_punishment_reserve.saturating_mul(MSAT_PER_SAT);
    let anchors = if channel.is_outbound { 0 } else { anchors(channel) };
    let theirs = channel.inbound_capacity_msat.saturating_add(theirs).saturating_add(anchors);
    if channel.inbound_capacity_msat > 0 { total.saturating_sub(theirs).saturating_sub(in_flight) } else { 0 }
}

fn channel(details: ChannelDetails) -> Channel {
    Channel {
        id: map::channel_text(details.channel_id),
        peer: details.counterparty.node_id,
        funding: details.funding_txo.map(|funding| funding.into_bitcoin_outpoint()),
        capacity: Sat::new(details.channel_value_satoshis).unwrap_or(Sat::MAX),
        can_send: amount(details.outbound_capacity_msat),
        can_receive: amount(details.inbound_capacity_msat),
        usable: details.is_usable,
        announced: details.is_announced,
        is_outbound: details.is_outbound,
        fees: details.config.map(|config| ForwardingFees {
            base: amount(u64::from(config.forwarding_fee_base_msat)),
            parts_per_million: config.forwarding_fee_proportional_millionths,
        }),
    }
}

fn sum(all: impl Iterator<Item = u64>) -> Amount {
    amount(all.fold(0_u64, u64::saturating_add))
}

fn no<T>(reason: impl Into<String>) -> Asked<T> {
    Asked::Refused { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash as _;
    use bitcoin::{Sequence, TxIn, Witness, absolute, transaction};

    use super::*;

    fn coin(number: u8) -> OutPoint {
        OutPoint { txid: Txid::from_byte_array([number; 32]), vout: 0 }
    }

    fn funding(coins: &[u8]) -> Transaction {
        let input = |number: &u8| TxIn {
            previous_output: coin(*number),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        };
        let (version, lock_time) = (transaction::Version::TWO, absolute::LockTime::ZERO);
        Transaction { version, lock_time, input: coins.iter().map(input).collect(), output: Vec::new() }
    }

    #[test]
    fn one_funding_that_only_ldk_has_keeps_its_own_coins_and_no_others() {
        let [waits, sent, forgotten] = [&[1, 2][..], &[3], &[4]].map(funding);
        let ids = [&waits, &sent, &forgotten].map(Transaction::compute_txid);
        let notes = || HashMap::from([(ids[0], waits.clone()), (ids[1], sent.clone()), (ids[2], forgotten.clone())]);
        let in_a_block = Txid::from_byte_array([9; 32]);
        let is_known = |txid| txid == ids[1] || txid == in_a_block;

        let mut noted = notes();
        let kept = under_way(&mut noted, [ids[0], ids[1], in_a_block].into_iter(), is_known);
        assert_eq!(kept, Ok(HashSet::from([coin(1), coin(2)])), "what is set aside for anything else is free");
        assert_eq!(noted.into_keys().collect::<Vec<_>>(), [ids[2]], "no channel has it");
        assert_eq!(under_way(&mut notes(), std::iter::empty(), is_known), Ok(HashSet::new()));
        let unknown = Txid::from_byte_array([8; 32]);
        assert_eq!(under_way(&mut notes(), [ids[0], unknown].into_iter(), is_known), Err(unknown));
    }
}
