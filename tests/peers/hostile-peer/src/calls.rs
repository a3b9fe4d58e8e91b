//! What a test asks of it.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bitcoin::hex::FromHex as _;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Txid, consensus};
use lightning::ln::channelmanager::{Bolt11InvoiceParameters, OptionalBolt11PaymentParams};
use lightning::ln::outbound_payment::Retry;
use lightning::ln::types::ChannelId;
use lightning_invoice::Bolt11Invoice;
use serde_json::{Value, json};

use crate::node::Hostile;
use crate::types::Log;
use crate::{crowd, offers};

pub type Answer = Result<Value, Box<dyn Error>>;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);

pub async fn call(hostile: &Arc<Hostile>, method: &str, params: &Value) -> Answer {
    match method {
        "info" => {
            let height = hostile.manager.current_best_block().height;
            Ok(json!({ "id": hostile.id.to_string(), "listen": hostile.listen.to_string(), "height": height }))
        }
        "connect" => connect(hostile, params).await,
        "channels" => Ok(hostile.manager.list_channels().iter().map(channel).collect()),
        "invoice" => invoice(hostile, params),
        "claimed" => Ok(json!(*hostile.claimed.lock().unwrap_or_else(PoisonError::into_inner))),
        "ended" => Ok(json!(*hostile.ended.lock().unwrap_or_else(PoisonError::into_inner))),
        // An offer that is answered with a static invoice, and how often it was asked for and would have been paid.
        "offer_static" => Ok(json!(hostile.lure.offer()?)),
        "lured" => Ok(json!({
            "asked": hostile.lure.asked.load(Ordering::Relaxed),
            "held": hostile.lure.held.load(Ordering::Relaxed),
        })),
        "pay_part" => pay_part(hostile, params),
        // Commitments of now, and their broadcast when they are revoked.
        "remember" => Ok(json!(remember(hostile))),
        "cheat" => cheat(hostile).await,
        // Of this channel nobody hears any more that a payment was claimed.
        "silence" => {
            let channel: [u8; 32] = hex(text(params, "channel")?)?;
            hostile.muffled.silence(ChannelId(channel));
            Ok(Value::Null)
        }
        // Nodes that offer channels and fund none, and how those stand.
        "flood" => crowd::flood(hostile, params).await,
        "crowd" => Ok(crowd::stands(hostile)),
        // They say of all of them that they are broken.
        "abandon" => {
            crowd::abandon(hostile);
            Ok(Value::Null)
        }
        _ => Err(format!("{method}?").into()),
    }
}

pub fn number(params: &Value, name: &str) -> Result<u64, Box<dyn Error>> {
    Ok(params[name].as_u64().ok_or_else(|| format!("{name} is no number"))?)
}

pub fn text<'a>(params: &'a Value, name: &str) -> Result<&'a str, Box<dyn Error>> {
    Ok(params[name].as_str().ok_or_else(|| format!("{name} is no text"))?)
}

async fn connect(hostile: &Arc<Hostile>, params: &Value) -> Answer {
    connect_to(hostile, text(params, "node")?.parse()?, text(params, "address")?.parse()?).await?;
    Ok(Value::Null)
}

pub async fn connect_to(hostile: &Arc<Hostile>, node: PublicKey, address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let connection = lightning_net_tokio::connect_outbound(Arc::clone(&hostile.peers), node, address).await;
    tokio::spawn(connection.ok_or("nobody is there")?);
    let connected = async {
        while hostile.peers.peer_by_node_id(&node).is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(CONNECT_WITHIN, connected).await?;
    Ok(())
}

fn hex<const N: usize>(text: &str) -> Result<[u8; N], Box<dyn Error>> {
    Ok(<[u8; N]>::from_hex(text).map_err(|error| error.to_string())?)
}

/// Answers how many.
fn remember(hostile: &Hostile) -> usize {
    let all =
        hostile.monitors.list_monitors().into_iter().filter_map(|channel| hostile.monitors.get_monitor(channel).ok());
    let all =
        all.filter_map(|monitor| monitor.unsafe_get_latest_holder_commitment_txn(&Arc::new(Log)).into_iter().next());
    let mut remembered = hostile.remembered.lock().unwrap_or_else(PoisonError::into_inner);
    *remembered = all.collect();
    remembered.len()
}

async fn cheat(hostile: &Hostile) -> Answer {
    let all = hostile.remembered.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut sent = Vec::new();
    for commitment in all {
        let hex = json!(consensus::encode::serialize_hex(&commitment));
        let txid: Txid =
            hostile.source.call_method("sendrawtransaction", &[hex]).await.map_err(|error| format!("{error:?}"))?;
        sent.push(txid.to_string());
    }
    Ok(json!(sent))
}

fn channel(channel: &lightning::ln::channel_state::ChannelDetails) -> Value {
    json!({
        "id": channel.channel_id.to_string(),
        "with": channel.counterparty.node_id.to_string(),
        "usable": channel.is_usable,
        "out_msat": channel.outbound_capacity_msat,
        "in_msat": channel.inbound_capacity_msat,
        "coming": channel.pending_inbound_htlcs.len(),
        "leaving": channel.pending_outbound_htlcs.len(),
    })
}

fn invoice(hostile: &Hostile, params: &Value) -> Answer {
    let made = hostile.manager.create_bolt11_invoice(Bolt11InvoiceParameters {
        amount_msats: params["msat"].as_u64(),
        ..Bolt11InvoiceParameters::default()
    });
    Ok(json!(made.map_err(|error| format!("{error:?}"))?.to_string()))
}

/// Pays a part of an invoice, and says that the rest comes, too.
fn pay_part(hostile: &Hostile, params: &Value) -> Answer {
    let invoice = text(params, "invoice")?.parse::<Bolt11Invoice>().map_err(|error| format!("{error:?}"))?;
    let options = OptionalBolt11PaymentParams {
        retry_strategy: Retry::Attempts(0),
        declared_total_mpp_value_msat_override: Some(number(params, "total_msat")?),
        ..OptionalBolt11PaymentParams::default()
    };
    let id = offers::fresh(&hostile.keys);
    let sent = hostile.manager.pay_for_bolt11_invoice(&invoice, id, Some(number(params, "msat")?), options);
    sent.map_err(|error| format!("{error:?}"))?;
    Ok(Value::Null)
}
