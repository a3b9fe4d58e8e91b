//! What a test asks of it.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use lightning::ln::channelmanager::{Bolt11InvoiceParameters, OptionalBolt11PaymentParams};
use lightning::ln::outbound_payment::Retry;
use lightning_invoice::Bolt11Invoice;
use serde_json::{Value, json};

use crate::node::Hostile;
use crate::offers;

type Answer = Result<Value, Box<dyn Error>>;

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
        _ => Err(format!("{method}?").into()),
    }
}

fn number(params: &Value, name: &str) -> Result<u64, Box<dyn Error>> {
    Ok(params[name].as_u64().ok_or_else(|| format!("{name} is no number"))?)
}

fn text<'a>(params: &'a Value, name: &str) -> Result<&'a str, Box<dyn Error>> {
    Ok(params[name].as_str().ok_or_else(|| format!("{name} is no text"))?)
}

async fn connect(hostile: &Arc<Hostile>, params: &Value) -> Answer {
    let node: PublicKey = text(params, "node")?.parse()?;
    let address: SocketAddr = text(params, "address")?.parse()?;
    let connection = lightning_net_tokio::connect_outbound(Arc::clone(&hostile.peers), node, address).await;
    tokio::spawn(connection.ok_or("nobody is there")?);
    let connected = async {
        while hostile.peers.peer_by_node_id(&node).is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(CONNECT_WITHIN, connected).await?;
    Ok(Value::Null)
}

fn channel(channel: &lightning::ln::channel_state::ChannelDetails) -> Value {
    json!({
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
