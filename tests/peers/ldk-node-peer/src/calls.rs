//! The methods about the node, its channels and its coins; `payments` has the others.

use std::error::Error;
use std::str::FromStr;

use ldk_node::bitcoin::secp256k1::PublicKey;
use ldk_node::lightning::ln::msgs::SocketAddress;
use ldk_node::{BalanceDetails, ChannelDetails};
use serde_json::{Value, json};

use crate::node::Peer;
use crate::payments;

pub type Answer = Result<Value, Box<dyn Error>>;

pub fn call(peer: &Peer, method: &str, params: &Value) -> Answer {
    match method {
        "info" => Ok(info(peer)),
        "address" => Ok(json!(peer.node.onchain_payment().new_address()?.to_string())),
        "balances" => Ok(balances(&peer.node.list_balances())),
        "sync_wallets" => Ok(json!(peer.node.sync_wallets()?)),
        "events" => Ok(json!(peer.take_events())),
        "connect" => {
            peer.node.connect(public_key(params, "node")?, address(params)?, true)?;
            Ok(Value::Null)
        }
        "disconnect" => Ok(json!(peer.node.disconnect(public_key(params, "node")?)?)),
        "peers" => Ok(peers(peer)),
        "open_channel" => open_channel(peer, params),
        "channels" => Ok(peer.node.list_channels().iter().map(channel).collect()),
        "graph" => Ok(graph(peer)),
        "close" => close(peer, params),
        "set_channel_fees" => Ok(json!(peer.set_fees(parsed(params, "base")?, parsed(params, "ppm")?)?)),
        _ => payments::call(peer, method, params),
    }
}

fn info(peer: &Peer) -> Value {
    let height = peer.node.status().current_best_block.height;
    json!({ "id": peer.node.node_id().to_string(), "listen": peer.listen.to_string(), "height": height })
}

fn balances(all: &BalanceDetails) -> Value {
    json!({
        "onchain_sat": all.total_onchain_balance_sats,
        "spendable_sat": all.spendable_onchain_balance_sats,
        "lightning_sat": all.total_lightning_balance_sats,
        "sweeps": all.pending_balances_from_channel_closures.len(),
    })
}

fn peers(peer: &Peer) -> Value {
    let peers = peer.node.list_peers();
    peers.iter().map(|one| json!({ "node": one.node_id.to_string(), "connected": one.is_connected })).collect()
}

fn open_channel(peer: &Peer, params: &Value) -> Answer {
    let (node, address) = (public_key(params, "node")?, address(params)?);
    let (sat, push) = (parsed(params, "sat")?, optional(params, "push_msat")?);
    let announced = params["announced"].as_bool().unwrap_or(false);
    let id = if announced {
        peer.node.open_announced_channel(node, address, sat, push, None)?
    } else {
        peer.node.open_channel(node, address, sat, push, None)?
    };
    Ok(json!(id.0.to_string()))
}

fn channel(details: &ChannelDetails) -> Value {
    json!({
        "id": details.channel_id.to_string(),
        "user_id": details.user_channel_id.0.to_string(),
        "node": details.counterparty_node_id.to_string(),
        "funding": details.funding_txo.map(|outpoint| outpoint.to_string()),
        "capacity_sat": details.channel_value_sats,
        "local_msat": details.outbound_capacity_msat,
        "remote_msat": details.inbound_capacity_msat,
        "next_limit_msat": details.next_outbound_htlc_limit_msat,
        "ready": details.is_channel_ready,
        "usable": details.is_usable,
        "announced": details.is_announced,
        "outbound": details.is_outbound,
        "confirmations": details.confirmations.unwrap_or_default(),
    })
}

/// The channels that this node has heard of, and how many of their two sides have told their terms.
fn graph(peer: &Peer) -> Value {
    let graph = peer.node.network_graph();
    let known = graph.list_channels().into_iter().filter_map(|scid| graph.channel(scid));
    known
        .map(|channel| {
            let sides = [&channel.one_to_two, &channel.two_to_one];
            json!({
                "one": channel.node_one.to_string(),
                "two": channel.node_two.to_string(),
                "sides": sides.iter().filter(|side| side.is_some()).count(),
            })
        })
        .collect()
}

fn close(peer: &Peer, params: &Value) -> Answer {
    let id = text(params, "channel")?;
    let channels = peer.node.list_channels();
    let channel = channels.iter().find(|channel| channel.channel_id.to_string() == id).ok_or("no such channel")?;
    let (user_id, node) = (&channel.user_channel_id, channel.counterparty_node_id);
    if params["force"].as_bool().unwrap_or(false) {
        peer.node.force_close_channel(user_id, node, None)?;
    } else {
        peer.node.close_channel(user_id, node)?;
    }
    Ok(Value::Null)
}

pub fn text<'a>(params: &'a Value, name: &str) -> Result<&'a str, Box<dyn Error>> {
    params[name].as_str().ok_or_else(|| format!("`{name}` has to be a text").into())
}

/// A number, or nothing.
pub fn optional<T: TryFrom<u64>>(params: &Value, name: &str) -> Result<Option<T>, Box<dyn Error>> {
    if params[name].is_null() {
        return Ok(None);
    }
    let number = params[name].as_u64().and_then(|number| T::try_from(number).ok());
    number.map(Some).ok_or_else(|| format!("`{name}` has to be a number").into())
}

pub fn parsed<T: TryFrom<u64>>(params: &Value, name: &str) -> Result<T, Box<dyn Error>> {
    optional(params, name)?.ok_or_else(|| format!("`{name}` is needed").into())
}

pub fn public_key(params: &Value, name: &str) -> Result<PublicKey, Box<dyn Error>> {
    Ok(PublicKey::from_str(text(params, name)?)?)
}

fn address(params: &Value) -> Result<SocketAddress, Box<dyn Error>> {
    SocketAddress::from_str(text(params, "address")?).map_err(|error| format!("`address`: {error:?}").into())
}
