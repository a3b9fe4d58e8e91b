//! What paying an invoice would cost, and the list of payments.

use super::{Code, Error, Flows, invoice, own_invoice};
use crate::domain::lightning::Destination;
use crate::ids::WalletId;
use crate::money::Amount;
use crate::ports::lightning::Quote;
use crate::store::payments::{self, Listed, PaymentFilter};
use crate::store::requests::PageAfter;

/// The fee of the way that would be taken now; nothing for an invoice of this gateway.
///
/// # Errors
/// When the text is no invoice that can be paid, or there is no way now.
pub async fn estimate(flows: &Flows, field: &'static str, text: &str, amount: Option<Amount>) -> Result<Amount, Error> {
    let decoded = invoice::decode(flows, field, text).await?;
    invoice::require_bitcoin(&decoded.invoice, field)?;
    if decoded.is_own {
        return Ok(Amount::ZERO);
    }
    if decoded.is_forged {
        return Err(Error::Field { code: Code::InvalidInvoice, field, reason: own_invoice::NOT_THEIRS.to_owned() });
    }
    if decoded.is_expired {
        let reason = format!("this invoice expired at {}", decoded.invoice.expires_at);
        return Err(Error::Field { code: Code::InvoiceExpired, field, reason });
    }
    let amount = amount.or(decoded.invoice.amount);
    let Some(amount) = amount else {
        return Err(Error::field("amount_sats", "is needed, for the invoice names no amount"));
    };
    let node = flows.node().node()?;
    match node.quote(&Destination::Bolt11(decoded.invoice.text), amount).await.map_err(Error::Node)? {
        Quote::Fee(fee) => Ok(fee),
        Quote::NoRoute { reason } => {
            Err(Error::refused(Code::NoLiquidity, format!("no way to the payee was found: {reason}")))
        }
    }
}

/// A page of a wallet's Lightning payments, newest first.
///
/// # Errors
/// When the store can't be used.
pub async fn payments(
    flows: &Flows,
    wallet: &WalletId,
    filter: &PaymentFilter,
    after: Option<PageAfter>,
    limit: u32,
) -> Result<Vec<Listed>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(payments::page(&mut conn, wallet, filter, after, limit.min(super::history::PAGE_MAX)).await?)
}
