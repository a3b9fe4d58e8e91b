//! What the user expects of a PSBT. A limit that can't be checked counts as exceeded.

use std::str::FromStr;

use bitcoin::{Address, Amount, Network};

use crate::authorization::{self, Authorization, Quantity, SpendKind};
use crate::describe::{Kind, Output, Owner, Summary, sats};
use crate::error::Error;

/// The fee that is accepted when no limit is given: protects from a slip, not from a large consolidation.
pub const DEFAULT_MAX_FEE: Amount = Amount::from_sat(100_000);
/// Without a limit of the user's, a fee over this share of the coins spent is refused as well...
const DEFAULT_MAX_FEE_PERCENT: u64 = 25;
/// ...unless it is small in itself: sending a few satoshis costs what it costs.
const PERCENT_APPLIES_ABOVE: Amount = Amount::from_sat(10_000);

/// The default accepts any gateway, recipient and amount, and a fee that is not absurd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// The gateway's id. An on-chain transaction names none, so it never meets this one.
    pub expect_gateway: Option<String>,
    /// An address, or the payment hash of a Lightning payment.
    pub expect_to: Option<String>,
    /// Without the fee. Of a transaction: all that leaves the wallet.
    pub max_amount: Option<MaxAmount>,
    /// Of an authorisation: its `max_fee`.
    pub max_fee: Option<Amount>,
}

/// Reads `5000` and `5000 sat` (satoshis), `5000 msat`, and `5000 rgb:...` (base units of the asset).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaxAmount(pub Quantity);

impl FromStr for MaxAmount {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadLimit {
            name: "the amount limit",
            reason: format!("{text:?} is not an amount like `5000`, `5000 sat`, `5000 msat` or `5000 rgb:...`"),
        };
        let (number, unit) = text.split_once(' ').unwrap_or((text, "sat"));
        let number = authorization::parse_number(number).ok_or_else(bad)?;
        match unit {
            "sat" => Ok(MaxAmount(Quantity::Msat(authorization::msat(Amount::from_sat(number))))),
            "msat" => Ok(MaxAmount(Quantity::Msat(number))),
            asset if authorization::is_asset_id(asset) => {
                Ok(MaxAmount(Quantity::Asset { units: number, asset_id: asset.to_owned() }))
            }
            _ => Err(bad()),
        }
    }
}

impl Limits {
    /// Refuses what the summary says if it is not what the user expects.
    pub(crate) fn check(&self, summary: &Summary) -> Result<(), Error> {
        match &summary.kind {
            Kind::Authorization(authorization) => self.check_authorization(authorization, summary.network),
            Kind::Transaction => self.check_transaction(summary),
            Kind::Grant(_) => Err(Error::IsAGrant),
            Kind::Export(_) => Err(Error::IsAnExport),
            // Refused already, for the reason that is in the summary.
            Kind::UnreadableAuthorization => Ok(()),
        }
    }

    fn check_authorization(&self, spend: &Authorization, network: Network) -> Result<(), Error> {
        if let Some(expected) = &self.expect_gateway
            && !expected.eq_ignore_ascii_case(&spend.gateway)
        {
            return Err(Error::UnexpectedGateway { found: spend.gateway.clone(), expected: expected.clone() });
        }
        if let Some(expected) = &self.expect_to
            && !same_recipient(expected, spend, network)?
        {
            return Err(Error::UnexpectedRecipient { found: spend.to.clone(), expected: expected.clone() });
        }
        self.check_amount(&spend.amount)?;
        let limit = self.max_fee.unwrap_or(DEFAULT_MAX_FEE);
        if spend.max_fee_msat > authorization::msat(limit) {
            let fee = Quantity::Msat(spend.max_fee_msat).to_string();
            return Err(Error::FeeTooHigh { fee, limit: sats(limit) });
        }
        Ok(())
    }

    fn check_transaction(&self, summary: &Summary) -> Result<(), Error> {
        if self.expect_gateway.is_some() {
            return Err(Error::NoGateway);
        }
        if let Some(expected) = &self.expect_to {
            let address = parse_expected(expected, summary.network)?;
            check_recipients(&summary.outputs, &address)?;
        }
        self.check_amount(&Quantity::Msat(authorization::msat(summary.leaves)))?;
        match summary.fee {
            Some(fee) => self.check_fee(fee, summary.spends.unwrap_or(Amount::ZERO)),
            // Only when a coin's amount is not known, which is refused by itself.
            None => Ok(()),
        }
    }

    fn check_amount(&self, amount: &Quantity) -> Result<(), Error> {
        let Some(MaxAmount(limit)) = &self.max_amount else {
            return Ok(());
        };
        let within = match (amount, limit) {
            (Quantity::Msat(amount), Quantity::Msat(limit)) => amount <= limit,
            (Quantity::Asset { units, asset_id }, Quantity::Asset { units: limit, asset_id: expected })
                if asset_id == expected =>
            {
                units <= limit
            }
            _ => {
                return Err(Error::AmountNotComparable { amount: amount.to_string(), limit: limit.to_string() });
            }
        };
        if within {
            return Ok(());
        }
        Err(Error::AmountTooHigh { amount: amount.to_string(), limit: limit.to_string() })
    }

    fn check_fee(&self, fee: Amount, spends: Amount) -> Result<(), Error> {
        let limit = self.max_fee.unwrap_or(DEFAULT_MAX_FEE);
        let too_high = |limit: String| Err(Error::FeeTooHigh { fee: sats(fee), limit });
        if fee > limit {
            return too_high(sats(limit));
        }
        let share = exceeds_percent(fee, spends, DEFAULT_MAX_FEE_PERCENT);
        if self.max_fee.is_none() && fee > PERCENT_APPLIES_ABOVE && share {
            return too_high(format!("{DEFAULT_MAX_FEE_PERCENT} % of the {} it spends", sats(spends)));
        }
        Ok(())
    }
}

pub(crate) fn exceeds_percent(part: Amount, whole: Amount, percent: u64) -> bool {
    u128::from(part.to_sat()) * 100 > u128::from(whole.to_sat()) * u128::from(percent)
}

/// Every output pays the address, is our own, or is an OP_RETURN that takes no money; and one does pay it.
fn check_recipients(outputs: &[Output], expected: &Address) -> Result<(), Error> {
    let script = expected.script_pubkey();
    for output in outputs {
        let harmless = matches!(output.owner, Owner::Own(_)) || output.carries_only_data();
        if output.script != script && !harmless {
            let found = output.recipient.clone();
            return Err(Error::UnexpectedRecipient { found, expected: expected.to_string() });
        }
    }
    if outputs.iter().any(|output| output.script == script) {
        return Ok(());
    }
    Err(Error::RecipientNotPaid(expected.to_string()))
}

fn same_recipient(expected: &str, spend: &Authorization, network: Network) -> Result<bool, Error> {
    match spend.kind {
        SpendKind::Pay => Ok(expected.eq_ignore_ascii_case(&spend.to)),
        SpendKind::OnchainSend => Ok(parse_expected(expected, network)? == parse_expected(&spend.to, network)?),
    }
}

fn parse_expected(text: &str, network: Network) -> Result<Address, Error> {
    authorization::parse_address(text, network)
        .map_err(|reason| Error::BadLimit { name: "the expected recipient", reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{
        OTHER_ADDRESS, authorization, message, own, payment, payment_with, signer, to_other, to_own,
    };
    use bitcoin::psbt::Psbt;

    fn check(psbt: &Psbt, limits: Limits) -> Result<(), Error> {
        signer().sign_within(&mut psbt.clone(), &limits).map(|_| ())
    }

    fn amount(text: &str) -> Limits {
        Limits { max_amount: Some(text.parse().unwrap()), ..Limits::default() }
    }

    fn to(text: &str) -> Limits {
        Limits { expect_to: Some(text.to_owned()), ..Limits::default() }
    }

    #[test]
    fn a_transaction_must_pay_whom_you_expect() {
        check(&payment(), to(OTHER_ADDRESS)).unwrap();
        check(&payment(), to(&OTHER_ADDRESS.to_uppercase())).unwrap();
        let change = signer().address(own(1)).unwrap().to_string();
        assert!(matches!(check(&payment(), to(&change)), Err(Error::UnexpectedRecipient { .. })));
        assert!(matches!(check(&payment(), to("bc1qxyz")), Err(Error::BadLimit { .. })));
        let to_self = payment_with(&[own(0)], vec![to_own(99_000, own(1))]);
        assert!(matches!(check(&to_self, to(OTHER_ADDRESS)), Err(Error::RecipientNotPaid(_))));
    }

    #[test]
    fn money_burnt_in_an_op_return_is_not_harmless() {
        let burns =
            bitcoin::TxOut { value: Amount::from_sat(1_000), script_pubkey: bitcoin::ScriptBuf::new_op_return([1, 2]) };
        let psbt = payment_with(&[own(0)], vec![to_other(90_000), (burns.clone(), None)]);
        assert!(matches!(check(&psbt, to(OTHER_ADDRESS)), Err(Error::UnexpectedRecipient { .. })));
        let data = bitcoin::TxOut { value: Amount::ZERO, ..burns };
        check(&payment_with(&[own(0)], vec![to_other(98_000), (data, None)]), to(OTHER_ADDRESS)).unwrap();
    }

    #[test]
    fn an_amount_limit_counts_what_leaves_the_wallet() {
        // payment() sends 60,000 sat away and 39,000 back to the wallet.
        check(&payment(), amount("60000")).unwrap();
        check(&payment(), amount("60000000 msat")).unwrap();
        assert!(matches!(check(&payment(), amount("59999 sat")), Err(Error::AmountTooHigh { .. })));
        assert!(matches!(check(&payment(), amount("60000 rgb:x")), Err(Error::AmountNotComparable { .. })));
    }

    #[test]
    fn a_transaction_names_no_gateway() {
        let limits = Limits { expect_gateway: Some("00112233445566aa".into()), ..Limits::default() };
        assert!(matches!(check(&payment(), limits), Err(Error::NoGateway)));
    }

    #[test]
    fn absurd_fees_are_refused_and_can_be_allowed() {
        // One coin of 100,000 sat.
        let fee = |fee: u64| payment_with(&[own(0)], vec![to_other(100_000 - fee)]);
        check(&fee(25_000), Limits::default()).unwrap();
        assert!(matches!(check(&fee(25_001), Limits::default()), Err(Error::FeeTooHigh { .. })));
        let allow = |sat| Limits { max_fee: Some(Amount::from_sat(sat)), ..Limits::default() };
        check(&fee(25_001), allow(25_001)).unwrap();
        assert!(matches!(check(&fee(25_001), allow(25_000)), Err(Error::FeeTooHigh { .. })));
        let large = payment_with(&[own(0); 1].repeat(20), vec![to_other(2_000_000 - 100_001)]);
        assert!(matches!(check(&large, Limits::default()), Err(Error::FeeTooHigh { .. })));
    }

    #[test]
    fn an_authorisation_must_be_what_you_expect() {
        let psbt = authorization(&message());
        let gateway = |id: &str| Limits { expect_gateway: Some(id.to_owned()), ..Limits::default() };
        check(&psbt, gateway("00112233445566aa")).unwrap();
        assert!(matches!(check(&psbt, gateway("00112233445566ab")), Err(Error::UnexpectedGateway { .. })));
        check(&psbt, to(&"AB".repeat(32))).unwrap();
        assert!(matches!(check(&psbt, to(&"ac".repeat(32))), Err(Error::UnexpectedRecipient { .. })));
        check(&psbt, amount("123456 msat")).unwrap();
        assert!(matches!(check(&psbt, amount("123455 msat")), Err(Error::AmountTooHigh { .. })));
        let fee = |sat| Limits { max_fee: Some(Amount::from_sat(sat)), ..Limits::default() };
        check(&psbt, fee(3)).unwrap();
        assert!(matches!(check(&psbt, fee(2)), Err(Error::FeeTooHigh { .. })));
    }

    #[test]
    fn an_asset_is_compared_with_its_own_kind_only() {
        let psbt = authorization(&message().replace("123456 msat", "5000 rgb:abc"));
        check(&psbt, amount("5000 rgb:abc")).unwrap();
        assert!(matches!(check(&psbt, amount("4999 rgb:abc")), Err(Error::AmountTooHigh { .. })));
        assert!(matches!(check(&psbt, amount("5000 rgb:abd")), Err(Error::AmountNotComparable { .. })));
        assert!(matches!(check(&psbt, amount("5000")), Err(Error::AmountNotComparable { .. })));
    }

    #[test]
    fn amounts_have_one_spelling() {
        assert_eq!("5".parse::<MaxAmount>().unwrap(), MaxAmount(Quantity::Msat(5_000)));
        for bad in ["", "5 btc", "-5", "5.0", " 5", "5  sat", "1e3", "05"] {
            assert!(bad.parse::<MaxAmount>().is_err(), "{bad:?}");
        }
    }
}
