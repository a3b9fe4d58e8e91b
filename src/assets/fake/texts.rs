//! What engines hand to others: names of assets and recipients, invoices and consignments.

use std::str::FromStr;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::DisplayHex;
use bitcoin::{Network, ScriptBuf, Txid};
use serde::{Deserialize, Serialize};

use super::invalid;
use crate::money::Amount;
use crate::ports::assets::{NewReceive, Onto, Refusal, RgbInvoice};

/// What stands where an invoice leaves something open.
const OPEN: &str = "~";
/// Characters of endpoints that would end them in an invoice.
const SEPARATORS: [char; 3] = [',', '&', '?'];
const BLIND: &str = "utxob";
const WITNESS: &str = "wvout";

/// What an asset is, as its issuer said it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contract {
    pub id: String,
    pub ticker: String,
    pub name: String,
    pub precision: u8,
    pub supply: Amount,
    pub issued_at: i64,
}

/// A consignment that was read.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Consigned {
    pub contract: Contract,
    pub txid: Txid,
    /// The transactions that brought what is spent here.
    pub history: Vec<Txid>,
    pub paid: Vec<Paid>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Paid {
    pub recipient: String,
    pub amount: Amount,
    /// Empty when it goes onto a coin of the payee's.
    pub vout: Option<u32>,
}

impl Consigned {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub(super) fn write(&self) -> Vec<u8> {
        // proof: numbers and texts, with names for keys
        serde_json::to_vec(self).expect("it has a form in JSON")
    }
}

pub(super) fn name_of(bytes: &[u8]) -> [u8; 32] {
    sha256::Hash::hash(bytes).to_byte_array()
}

/// As long and as grouped as real ones.
pub(super) fn asset_id(seed: &str) -> String {
    let hex = name_of(seed.as_bytes()).to_lower_hex_string();
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default().to_owned();
    let parts = [part(0..8), part(8..15), part(15..22), part(22..29), part(29..36), part(36..43)];
    format!("rgb:{}", parts.join("-"))
}

/// A recipient whose coin nobody but the payee can tell.
pub(super) fn blind_recipient(network: Network, seed: &str) -> String {
    format!("{network}:{BLIND}:{}", name_of(seed.as_bytes()).to_lower_hex_string())
}

/// A recipient that is the script of a coin to be made.
pub(super) fn witness_recipient(network: Network, script: &ScriptBuf) -> String {
    format!("{network}:{WITNESS}:{}", script.to_hex_string())
}

/// What a recipient's name says: its network, and the script of the coin to be made, if one is.
pub(super) fn read_recipient(text: &str) -> Option<(Network, Option<ScriptBuf>)> {
    let mut parts = text.split(':');
    let (network, kind, rest, end) = (parts.next()?, parts.next()?, parts.next()?, parts.next());
    let network = Network::from_str(network).ok()?;
    match (kind, end) {
        (BLIND, None) if rest.len() == 64 => Some((network, None)),
        (WITNESS, None) => ScriptBuf::from_hex(rest).ok().map(|script| (network, Some(script))),
        _ => None,
    }
}

pub(super) fn write_invoice(recipient: &str, new: &NewReceive) -> Result<String, Refusal> {
    if new.endpoints.iter().any(|endpoint| endpoint.is_empty() || endpoint.contains(SEPARATORS)) {
        return Err(invalid("endpoints", "payers would read them as others"));
    }
    let asset = new.asset.as_deref().and_then(|id| id.strip_prefix("rgb:")).unwrap_or(OPEN);
    let amount = new.amount.map_or_else(|| OPEN.to_owned(), |amount| amount.to_string());
    let endpoints = new.endpoints.join(",");
    Ok(format!("rgb:{asset}/{amount}/{recipient}?expiry={}&endpoints={endpoints}", new.expires_at))
}

pub(super) fn read_invoice(text: &str) -> Result<RgbInvoice, Refusal> {
    parts_of(text.trim()).ok_or_else(|| invalid("invoice", "it is none that this engine writes"))
}

fn parts_of(text: &str) -> Option<RgbInvoice> {
    let (order, terms) = text.strip_prefix("rgb:")?.split_once('?')?;
    let mut order = order.splitn(3, '/');
    let (asset, amount, recipient) = (order.next()?, order.next()?, order.next()?);
    let (expiry, endpoints) = terms.strip_prefix("expiry=")?.split_once("&endpoints=")?;
    let units = |text: &str| Amount::from_asset_units(text.parse().ok()?).ok();
    let (network, script) = read_recipient(recipient)?;
    Some(RgbInvoice {
        recipient: recipient.to_owned(),
        onto: if script.is_some() { Onto::NewCoin } else { Onto::OwnCoin },
        script,
        asset: (asset != OPEN).then(|| format!("rgb:{asset}")),
        schema: None,
        amount: if amount == OPEN { None } else { Some(units(amount)?) },
        assignment: None,
        network,
        expires_at: Some(expiry.parse().ok()?),
        endpoints: endpoints.split(',').filter(|endpoint| !endpoint.is_empty()).map(str::to_owned).collect(),
    })
}
