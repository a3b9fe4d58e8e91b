//! The methods that make and pay invoices and offers.

use std::error::Error;
use std::str::FromStr;

use ldk_node::bitcoin::hex::FromHex;
use ldk_node::lightning::ln::channelmanager::PaymentId;
use ldk_node::lightning::offers::offer::Offer;
use ldk_node::lightning::routing::router::RouteParametersConfig;
use ldk_node::lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description, Sha256};
use ldk_node::lightning_types::payment::{PaymentHash, PaymentPreimage};
use ldk_node::payment::{PaymentDetails, PaymentKind};
use serde_json::{Value, json};

use crate::calls::{Answer, optional, parsed, public_key, text};
use crate::node::Peer;

const DEFAULT_EXPIRY_SECONDS: u32 = 3_600;

pub fn call(peer: &Peer, method: &str, params: &Value) -> Answer {
    match method {
        "invoice" => invoice(peer, params, None),
        "hold_invoice" => invoice(peer, params, Some(PaymentHash(bytes(params, "hash")?))),
        "claimable" => Ok(claimable(peer)),
        "claim_for_hash" => claim(peer, params),
        "fail_for_hash" => fail(peer, params),
        "pay" => pay(peer, params),
        "offer" => offer(peer, params),
        "pay_offer" => pay_offer(peer, params),
        "keysend" => keysend(peer, params),
        "payment" => Ok(payment(peer, text(params, "id")?)),
        _ => Err(format!("no method `{method}`").into()),
    }
}

fn invoice(peer: &Peer, params: &Value, hash: Option<PaymentHash>) -> Answer {
    let description = Bolt11InvoiceDescription::Direct(Description::new(
        params["description"].as_str().unwrap_or_default().to_owned(),
    )?);
    let description = match params["description_hash"].as_str() {
        Some(hash) => Bolt11InvoiceDescription::Hash(Sha256(hash.parse()?)),
        None => description,
    };
    let expiry = optional(params, "expiry")?.unwrap_or(DEFAULT_EXPIRY_SECONDS);
    let bolt11 = peer.node.bolt11_payment();
    let invoice = match (optional(params, "msat")?, hash) {
        (Some(msat), None) => bolt11.receive(msat, &description, expiry)?,
        (None, None) => bolt11.receive_variable_amount(&description, expiry)?,
        (Some(msat), Some(hash)) => bolt11.receive_for_hash(msat, &description, expiry, hash)?,
        (None, Some(hash)) => bolt11.receive_variable_amount_for_hash(&description, expiry, hash)?,
    };
    Ok(json!(invoice.to_string()))
}

fn claimable(peer: &Peer) -> Value {
    let all = peer.all_claimable();
    all.iter()
        .map(|(hash, msat, deadline)| json!({ "hash": hash.to_string(), "msat": msat, "deadline": deadline }))
        .collect()
}

fn claim(peer: &Peer, params: &Value) -> Answer {
    let preimage = PaymentPreimage(bytes(params, "preimage")?);
    let hash = PaymentHash::from(preimage);
    let (msat, _) = peer.claimable(hash).ok_or("nothing can be claimed for it")?;
    peer.node.bolt11_payment().claim_for_hash(hash, msat, preimage)?;
    Ok(json!(msat))
}

fn fail(peer: &Peer, params: &Value) -> Answer {
    let hash = PaymentHash(bytes(params, "hash")?);
    peer.node.bolt11_payment().fail_for_hash(hash)?;
    peer.forget_claimable(hash);
    Ok(Value::Null)
}

/// Answers the id under which `payment` finds it.
fn pay(peer: &Peer, params: &Value) -> Answer {
    let invoice = Bolt11Invoice::from_str(text(params, "invoice")?).map_err(|error| format!("{error:?}"))?;
    let bolt11 = peer.node.bolt11_payment();
    let id = match optional(params, "msat")? {
        Some(msat) => bolt11.send_using_amount(&invoice, msat, limits(params)?)?,
        None => bolt11.send(&invoice, limits(params)?)?,
    };
    Ok(json!(id.to_string()))
}

fn offer(peer: &Peer, params: &Value) -> Answer {
    let description = params["description"].as_str().unwrap_or_default();
    let expiry = optional(params, "expiry")?;
    let bolt12 = peer.node.bolt12_payment();
    let offer = match optional(params, "msat")? {
        Some(msat) => bolt12.receive(msat, description, expiry, None)?,
        None => bolt12.receive_variable_amount(description, expiry)?,
    };
    Ok(json!(offer.to_string()))
}

fn pay_offer(peer: &Peer, params: &Value) -> Answer {
    let offer = Offer::from_str(text(params, "offer")?).map_err(|error| format!("{error:?}"))?;
    let note = params["note"].as_str().map(str::to_owned);
    let bolt12 = peer.node.bolt12_payment();
    let id = match optional(params, "msat")? {
        Some(msat) => bolt12.send_using_amount(&offer, msat, None, note, limits(params)?)?,
        None => bolt12.send(&offer, None, note, limits(params)?)?,
    };
    Ok(json!(id.to_string()))
}

fn keysend(peer: &Peer, params: &Value) -> Answer {
    let (msat, to) = (parsed(params, "msat")?, public_key(params, "node")?);
    let spontaneous = peer.node.spontaneous_payment();
    let id = match params["preimage"].as_str() {
        None => spontaneous.send(msat, to, limits(params)?)?,
        Some(_) => {
            let preimage = PaymentPreimage(bytes(params, "preimage")?);
            spontaneous.send_with_preimage(msat, to, preimage, limits(params)?)?
        }
    };
    Ok(json!(id.to_string()))
}

fn limits(params: &Value) -> Result<Option<RouteParametersConfig>, Box<dyn Error>> {
    let ceiling = optional(params, "max_fee_msat")?;
    Ok(ceiling.map(|msat| RouteParametersConfig { max_total_routing_fee_msat: Some(msat), ..Default::default() }))
}

/// A payment by its id, or by its hash. Both directions; null when there is none.
fn payment(peer: &Peer, id: &str) -> Value {
    let wanted = |details: &&PaymentDetails| {
        let PaymentId(bytes) = details.id;
        PaymentHash(bytes).to_string() == id || secrets(&details.kind).0.is_some_and(|hash| hash.to_string() == id)
    };
    let found = peer.node.list_payments_with_filter(wanted);
    let Some(details) = found.first() else { return Value::Null };
    let (hash, preimage) = secrets(&details.kind);
    json!({
        "hash": hash.map(|hash| hash.to_string()),
        "preimage": preimage.map(|preimage| preimage.to_string()),
        "status": format!("{:?}", details.status),
        "direction": format!("{:?}", details.direction),
        "msat": details.amount_msat,
        "fee_msat": details.fee_paid_msat,
        "reason": peer.failure(&details.id.to_string()),
    })
}

fn secrets(kind: &PaymentKind) -> (Option<PaymentHash>, Option<PaymentPreimage>) {
    match kind {
        PaymentKind::Bolt11 { hash, preimage, .. }
        | PaymentKind::Bolt11Jit { hash, preimage, .. }
        | PaymentKind::Spontaneous { hash, preimage } => (Some(*hash), *preimage),
        PaymentKind::Bolt12Offer { hash, preimage, .. } | PaymentKind::Bolt12Refund { hash, preimage, .. } => {
            (*hash, *preimage)
        }
        PaymentKind::Onchain { .. } => (None, None),
    }
}

fn bytes(params: &Value, name: &str) -> Result<[u8; 32], Box<dyn Error>> {
    <[u8; 32]>::from_hex(text(params, name)?).map_err(|error| format!("`{name}`: {error}").into())
}
