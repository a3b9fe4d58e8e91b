//! What an operator does with the node: peers, channels, and the coins that it keeps for closing them.

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Txid};
use serde::{Deserialize, Serialize};

use super::operator_call::once;
use super::{Code, Error, Flows, Idempotency, withdraw};
use crate::domain::Fact;
use crate::domain::event::payloads::{
    BumpAsked, ChannelClosing, ChannelOpening, ForwardingFeesSet, NodeSendBumped, PeerConnected,
};
use crate::ids::RequestId;
use crate::money::{Amount, FeeRate, Sat};
use crate::ports::lightning::{
    Asked, Capabilities, Channel, CloseHow, ForwardingFees, NewChannel, NodeBalance, NodeInfo, Peer, SentOnchain,
};
use crate::store::halts::{self, Halt};
use crate::store::{StoreError, Tx, Write, operator_calls};

/// The node, and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    pub info: NodeInfo,
    pub capabilities: Capabilities,
    pub balance: NodeBalance,
    /// New payments are accepted.
    pub accepts_spends: bool,
    pub halts: Vec<Halt>,
}

/// # Errors
/// When there is no node here or it does not answer.
pub async fn overview(flows: &Flows) -> Result<Overview, Error> {
    let node = flows.node().node()?;
    let info = node.info().await.map_err(Error::Node)?;
    let balance = node.balance().await.map_err(Error::Node)?;
    let mut conn = flows.store().read().await?;
    let halts = halts::in_force(&mut conn).await?;
    let accepts_spends = flows.node().is_ready();
    Ok(Overview { info, capabilities: node.capabilities(), balance, accepts_spends, halts })
}

/// # Errors
/// As `overview`.
pub async fn peers(flows: &Flows) -> Result<Vec<Peer>, Error> {
    flows.node().node()?.peers().await.map_err(Error::Node)
}

/// # Errors
/// As `overview`, and when nobody answers there.
pub async fn connect(flows: &Flows, id: PublicKey, address: &str) -> Result<(), Error> {
    let node = flows.node().node()?;
    let note = |(): &()| Fact::PeerConnected(PeerConnected { peer: id.to_string(), address: address.to_owned() });
    once(flows, None, note, async { done(node.connect(id, address).await.map_err(Error::Node)?) }).await
}

/// # Errors
/// As `overview`.
pub async fn channels(flows: &Flows) -> Result<Vec<Channel>, Error> {
    flows.node().node()?.channels().await.map_err(Error::Node)
}

/// A channel that the node has begun to open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// The id that it has now; it gets another one once the peer has agreed.
    pub id: String,
}

/// # Errors
/// As `overview`, when the node refuses, and what becomes of an idempotency key.
pub async fn open(flows: &Flows, new: NewChannel, idempotency: Option<Idempotency>) -> Result<Opening, Error> {
    let node = flows.node().node()?;
    let note = |opening: &Opening| {
        Fact::ChannelOpening(ChannelOpening {
            channel: opening.id.clone(),
            peer: new.peer.to_string(),
            amount_sats: new.amount,
            amount_msat: Amount::from_sat(new.amount),
            push_msat: new.push.base_units(),
            announced: new.announced,
        })
    };
    let act = async { Ok(Opening { id: done(node.open_channel(&new).await.map_err(Error::Node)?)? }) };
    once(flows, idempotency, note, act).await
}

/// # Errors
/// As `overview`, when there is no such channel, and when the node refuses.
pub async fn close(flows: &Flows, id: &str, how: CloseHow) -> Result<(), Error> {
    let node = flows.node().node()?;
    require_channel(flows, id).await?;
    let how_text = match how {
        CloseHow::Cooperative => "cooperative",
        CloseHow::Force => "force",
    };
    let closing = ChannelClosing { channel: id.to_owned(), how: how_text.to_owned() };
    let note = |(): &()| Fact::ChannelClosing(closing);
    once(flows, None, note, async { done(node.close_channel(id, how).await.map_err(Error::Node)?) }).await
}

/// # Errors
/// As `close`.
pub async fn set_fees(flows: &Flows, id: &str, fees: ForwardingFees) -> Result<(), Error> {
    let node = flows.node().node()?;
    require_channel(flows, id).await?;
    let set = ForwardingFeesSet {
        channel: id.to_owned(),
        base_msat: fees.base.base_units(),
        parts_per_million: fees.parts_per_million,
    };
    let note = |(): &()| Fact::ForwardingFeesSet(set);
    once(flows, None, note, async { done(node.set_fees(id, fees).await.map_err(Error::Node)?) }).await
}

/// Another version of what the node has sent for a withdrawal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bumped {
    pub txid: Txid,
    pub fee: Sat,
}

/// Replaces what the node has sent for a withdrawal by a version that pays more. The operator pays what that costs beyond the first.
///
/// # Errors
/// As `overview`, when no withdrawal of this id waits for a block, and when the node refuses.
pub async fn bump(
    flows: &Flows,
    id: RequestId,
    fee_rate: FeeRate,
    idempotency: Option<Idempotency>,
) -> Result<Bumped, Error> {
    let asked = BumpAsked { request: id, milli_sat_per_vb: fee_rate.milli_sat_per_vb() };
    let note = |bumped: &Bumped| {
        Fact::NodeSendBumped(NodeSendBumped {
            asked,
            txid: bumped.txid,
            fee_sats: bumped.fee,
            fee_msat: Amount::from_sat(bumped.fee),
        })
    };
    let act = async {
        flows.policy().fees.check_rate(fee_rate)?;
        let asked = withdraw::bump(flows, id, fee_rate).await?;
        done(asked).map(|SentOnchain { txid, fee }| Bumped { txid, fee })
    };
    once(flows, idempotency, note, act).await
}

/// The node's own coins, and what of them must stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// What is paid to it is the operator's money.
    pub address: String,
    pub confirmed: Sat,
    pub unconfirmed: Sat,
    pub required: Sat,
    /// What is missing to what must stay.
    pub missing: Sat,
}

/// The reserve, with the address that was handed out last.
///
/// # Errors
/// As `overview`.
pub async fn reserve(flows: &Flows) -> Result<Reserve, Error> {
    let mut conn = flows.store().read().await?;
    let known = operator_calls::reserve_address(&mut conn).await?;
    drop(conn);
    let address = match known {
        Some(address) => address,
        None => fresh_reserve_address(flows).await?,
    };
    reserve_at(flows, address).await
}

/// The reserve, with an address that nobody was told before.
///
/// # Errors
/// As `overview`.
pub async fn reserve_with_new_address(flows: &Flows) -> Result<Reserve, Error> {
    let address = fresh_reserve_address(flows).await?;
    reserve_at(flows, address).await
}

async fn reserve_at(flows: &Flows, address: String) -> Result<Reserve, Error> {
    let balance = flows.node().node()?.balance().await.map_err(Error::Node)?;
    let has = balance.onchain_confirmed.checked_add(balance.onchain_unconfirmed).unwrap_or(Sat::MAX);
    Ok(Reserve {
        address,
        confirmed: balance.onchain_confirmed,
        unconfirmed: balance.onchain_unconfirmed,
        required: balance.reserve,
        missing: balance.reserve.checked_sub(has).unwrap_or(Sat::ZERO),
    })
}

async fn fresh_reserve_address(flows: &Flows) -> Result<String, Error> {
    let address = flows.node().node()?.onchain_address().await.map_err(Error::Node)?;
    let text = address.to_string();
    flows.store().write(KeepAddress(address)).await?;
    Ok(text)
}

struct KeepAddress(Address);

#[async_trait]
impl Write for KeepAddress {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        operator_calls::keep_reserve_address(tx, &self.0.script_pubkey(), &self.0.to_string()).await
    }
}

async fn require_channel(flows: &Flows, id: &str) -> Result<(), Error> {
    let known = channels(flows).await?.iter().any(|channel| channel.id == id);
    if known { Ok(()) } else { Err(Error::refused(Code::NotFound, "the node has no such channel")) }
}

fn done<T>(asked: Asked<T>) -> Result<T, Error> {
    match asked {
        Asked::Done(done) => Ok(done),
        Asked::Refused { reason } => Err(Error::refused(Code::NodeRefused, reason)),
    }
}
