//! Reading invoices, and putting the gateway's endpoints into its own.

use rgb_lib::BitcoinNetwork;
use rgb_lib::utils::script_buf_from_recipient_id;
use rgb_lib::wallet::{Invoice, RecipientInfo, RecipientType};

use super::map;
use crate::ports::assets::{Onto, Refusal, RgbInvoice};

fn invalid(reason: impl Into<String>) -> Refusal {
    Refusal::Invalid { what: "invoice", reason: reason.into() }
}

pub(super) fn read(text: &str) -> Result<RgbInvoice, Refusal> {
    let read = Invoice::new(text.trim().to_owned()).map_err(|e| invalid(e.to_string()))?;
    let data = read.invoice_data();
    let recipient = RecipientInfo::new(data.recipient_id.clone()).map_err(|e| invalid(e.to_string()))?;
    let onto = match recipient.recipient_type {
        RecipientType::Blind => Onto::OwnCoin,
        RecipientType::Witness => Onto::NewCoin,
    };
    let script = script_buf_from_recipient_id(data.recipient_id.clone()).map_err(|e| invalid(e.to_string()))?;
    Ok(RgbInvoice {
        recipient: data.recipient_id,
        onto,
        script,
        asset: data.asset_id,
        schema: data.asset_schema.map(map::schema),
        amount: map::fungible(&data.assignment).map_err(|_| invalid("the amount is out of range"))?,
        assignment: data.assignment_name,
        network: network(data.network)?,
        expires_at: data.expiration_timestamp,
        endpoints: data.transport_endpoints,
    })
}

fn network(of: BitcoinNetwork) -> Result<bitcoin::Network, Refusal> {
    match of {
        BitcoinNetwork::Mainnet => Ok(bitcoin::Network::Bitcoin),
        BitcoinNetwork::Testnet => Ok(bitcoin::Network::Testnet),
        BitcoinNetwork::Testnet4 => Ok(bitcoin::Network::Testnet4),
        BitcoinNetwork::Signet => Ok(bitcoin::Network::Signet),
        BitcoinNetwork::Regtest => Ok(bitcoin::Network::Regtest),
        BitcoinNetwork::SignetCustom => Err(invalid("of a signet that nobody else knows")),
    }
}

/// The library makes an invoice without endpoints, because the gateway receives what payers bring.
pub(super) fn with_endpoints(invoice: &str, endpoints: &[String]) -> Result<String, Refusal> {
    if endpoints.is_empty() {
        return Ok(invoice.to_owned());
    }
    let mark = if invoice.contains('?') { '&' } else { '?' };
    let listed = endpoints.join(",").replace('[', "%5B").replace(']', "%5D");
    let whole = format!("{invoice}{mark}endpoints={listed}");
    let said = read(&whole)?.endpoints;
    if said == endpoints {
        return Ok(whole);
    }
    Err(Refusal::Invalid { what: "endpoints", reason: format!("payers would read them as {said:?}") })
}
