//! Between LDK's words, the port's, and those that are stored.

use bitcoin::hex::{DisplayHex as _, FromHex as _};
use lightning::events::PaymentFailureReason;
use lightning::ln::channel_state::ChannelShutdownState;
use lightning::ln::types::ChannelId;

use crate::ports::lightning::{Destination, Paid, PayFailure, PayOutcome};
use crate::store::node::PaymentRow;

/// Every failure and its name in the table.
const FAILURES: [(PayFailure, &str); 6] = [
    (PayFailure::NoLiquidity, "no_liquidity"),
    (PayFailure::FeeTooHigh, "fee_too_high"),
    (PayFailure::Rejected, "rejected"),
    (PayFailure::InvoiceExpired, "invoice_expired"),
    (PayFailure::NotPayable, "not_payable"),
    (PayFailure::NeverSent, "never_sent"),
];

pub fn failure_name(failure: PayFailure) -> &'static str {
    FAILURES.iter().find(|(known, _)| *known == failure).map_or("no_liquidity", |(_, name)| name)
}

pub fn failure(reason: Option<PaymentFailureReason>) -> PayFailure {
    use PaymentFailureReason as Why;
    match reason {
        Some(Why::RecipientRejected) => PayFailure::Rejected,
        Some(Why::PaymentExpired | Why::InvoiceRequestExpired) => PayFailure::InvoiceExpired,
        Some(Why::UnknownRequiredFeatures | Why::InvoiceRequestRejected) => PayFailure::NotPayable,
        _ => PayFailure::NoLiquidity,
    }
}

/// What a row says of a payment.
pub fn outcome(row: &PaymentRow) -> PayOutcome {
    match (row.state.as_str(), row.preimage, row.fee) {
        ("sent", Some(preimage), fee) => PayOutcome::Succeeded(Paid { preimage, fee: fee.unwrap_or_default() }),
        ("failed", ..) => {
            let known = FAILURES.iter().find(|(_, name)| row.failure.as_deref() == Some(name));
            match known {
                Some((failure, _)) => PayOutcome::Failed(*failure),
                None => PayOutcome::Unknown { reason: format!("its row says {:?}", row.failure) },
            }
        }
        ("queued" | "pending", ..) => PayOutcome::Pending,
        (other, ..) => PayOutcome::Unknown { reason: format!("its row says {other}") },
    }
}

pub fn write_destination(destination: &Destination) -> String {
    match destination {
        Destination::Bolt11(invoice) => format!("bolt11:{invoice}"),
        Destination::Bolt12(invoice) => format!("bolt12:{invoice}"),
        Destination::Keysend { to, preimage } => format!("keysend:{to}:{preimage}"),
    }
}

pub fn read_destination(text: &str) -> Option<Destination> {
    let (kind, rest) = text.split_once(':')?;
    match kind {
        "bolt11" => Some(Destination::Bolt11(rest.to_owned())),
        "bolt12" => Some(Destination::Bolt12(rest.to_owned())),
        "keysend" => {
            let (to, preimage) = rest.split_once(':')?;
            Some(Destination::Keysend { to: to.parse().ok()?, preimage: preimage.parse().ok()? })
        }
        _ => None,
    }
}

/// Nobody has begun to close it.
pub fn is_open(state: &ChannelShutdownState) -> bool {
    *state == ChannelShutdownState::NotShuttingDown
}

pub fn channel_text(id: ChannelId) -> String {
    id.0.to_lower_hex_string()
}

pub fn read_channel(text: &str) -> Option<ChannelId> {
    <[u8; 32]>::from_hex(text).ok().map(ChannelId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::domain::lightning::{PaymentHash, PaymentId, Preimage};
    use crate::money::Amount;

    #[test]
    fn a_destination_is_read_as_it_was_written() {
        let to = "02531fe6068134503d2723133227c867ac8fa6c83c537e9a44c3c5bdbdcb1fe337".parse().unwrap();
        for destination in [
            Destination::Bolt11("lnbcrt1".to_owned()),
            Destination::Bolt12("0011".to_owned()),
            Destination::Keysend { to, preimage: Preimage([7; 32]) },
        ] {
            assert_eq!(read_destination(&write_destination(&destination)), Some(destination));
        }
        assert_eq!(read_destination("keysend:abc"), None);
    }

    #[test]
    fn every_failure_is_read_as_it_was_written() {
        let mut row = PaymentRow {
            id: PaymentId([1; 32]),
            hash: PaymentHash([2; 32]),
            state: "failed".to_owned(),
            destination: String::new(),
            amount: Amount::ZERO,
            max_fee: Amount::ZERO,
            created_at: Timestamp::from_millis(0),
            preimage: None,
            fee: None,
            failure: None,
        };
        for (failure, _) in FAILURES {
            row.failure = Some(failure_name(failure).to_owned());
            assert_eq!(outcome(&row), PayOutcome::Failed(failure));
        }
        row.failure = Some("made up".to_owned());
        assert!(matches!(outcome(&row), PayOutcome::Unknown { .. }));
    }
}
