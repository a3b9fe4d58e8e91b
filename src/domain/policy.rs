//! What the operator allows: fees that are not blunders, and times that are neither too short nor for ever.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::money::{FeeRate, Sat};

/// Caps on what a transaction may pay to miners. A fee must pass all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeeCaps {
    /// The highest rate a caller may ask for, in sat/vB.
    pub max_rate_sat_per_vb: u32,
    /// The highest fee of one transaction, in sat.
    pub max_fee_sat: u64,
    /// The highest fee as a share of what the transaction pays, in percent.
    pub max_fee_percent: u64,
    /// Fees up to this many sat need not pass the share: small payments are allowed to be costly.
    pub percent_applies_above_sat: u64,
}

impl Default for FeeCaps {
    fn default() -> Self {
        Self {
            max_rate_sat_per_vb: 1_000,
            max_fee_sat: 1_000_000,
            max_fee_percent: 25,
            percent_applies_above_sat: 20_000,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeeRefusal {
    #[error("the lowest fee rate is 1 sat/vB")]
    RateTooLow,
    #[error("the highest fee rate allowed here is {0} sat/vB")]
    RateTooHigh(u32),
    #[error("the fee would be {fee} sat; the most allowed here is {most} sat")]
    FeeTooHigh { fee: Sat, most: u64 },
    #[error("the fee would be {fee} sat, more than {percent} percent of the {amount} sat that are paid")]
    ShareTooHigh { fee: Sat, amount: Sat, percent: u64 },
}

impl FeeCaps {
    /// # Errors
    /// When the rate is outside what is allowed.
    pub fn check_rate(&self, rate: FeeRate) -> Result<(), FeeRefusal> {
        if rate < FeeRate::RELAY_MINIMUM {
            return Err(FeeRefusal::RateTooLow);
        }
        if rate > FeeRate::from_sat_per_vb(self.max_rate_sat_per_vb) {
            return Err(FeeRefusal::RateTooHigh(self.max_rate_sat_per_vb));
        }
        Ok(())
    }

    /// For what moves something else than bitcoin, of which a fee is no share.
    ///
    /// # Errors
    /// When the fee is above the absolute cap.
    pub fn check_absolute(&self, fee: Sat) -> Result<(), FeeRefusal> {
        if fee.to_u64() > self.max_fee_sat {
            return Err(FeeRefusal::FeeTooHigh { fee, most: self.max_fee_sat });
        }
        Ok(())
    }

    /// # Errors
    /// When the fee is above the absolute cap or, for fees that matter, above the relative one.
    pub fn check_fee(&self, fee: Sat, amount: Sat) -> Result<(), FeeRefusal> {
        self.check_absolute(fee)?;
        let share_matters = fee.to_u64() > self.percent_applies_above_sat;
        if share_matters && fee.to_u64().saturating_mul(100) > amount.to_u64().saturating_mul(self.max_fee_percent) {
            return Err(FeeRefusal::ShareTooHigh { fee, amount, percent: self.max_fee_percent });
        }
        Ok(())
    }
}

/// How long a begun request waits for its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignatureTime {
    pub default_seconds: u64,
    pub max_seconds: u64,
}

impl Default for SignatureTime {
    fn default() -> Self {
        Self { default_seconds: 600, max_seconds: Self::LONGEST }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a signature may be waited for from {least} to {most} seconds here")]
pub struct BadSignatureTime {
    pub least: u64,
    pub most: u64,
}

impl SignatureTime {
    /// A hot signer needs less; nobody types faster.
    pub const SHORTEST: u64 = 60;
    /// Seven days: the longest key ceremony we know of fits.
    pub const LONGEST: u64 = 7 * 24 * 60 * 60;

    /// # Errors
    /// When the caller asks for less or more than is allowed.
    pub fn choose(&self, asked_seconds: Option<u64>) -> Result<Duration, BadSignatureTime> {
        let most = self.max_seconds.min(Self::LONGEST);
        let seconds = asked_seconds.unwrap_or(self.default_seconds.min(most));
        if (Self::SHORTEST..=most).contains(&seconds) {
            Ok(Duration::from_secs(seconds))
        } else {
            Err(BadSignatureTime { least: Self::SHORTEST, most })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fee_blunder_is_refused_whichever_way_it_is_made() {
        let caps = FeeCaps::default();
        let sat = |n| Sat::new(n).unwrap();
        assert_eq!(caps.check_rate(FeeRate::from_sat_per_vb(0)), Err(FeeRefusal::RateTooLow));
        assert_eq!(caps.check_rate(FeeRate::from_sat_per_vb(1_001)), Err(FeeRefusal::RateTooHigh(1_000)));
        assert!(matches!(caps.check_fee(sat(1_000_001), sat(100_000_000)), Err(FeeRefusal::FeeTooHigh { .. })));
        assert!(matches!(caps.check_fee(sat(30_000), sat(100_000)), Err(FeeRefusal::ShareTooHigh { .. })));
        assert_eq!(caps.check_fee(sat(20_000), sat(1_000)), Ok(()));
        assert_eq!(caps.check_fee(sat(25_000), sat(100_000)), Ok(()));
    }

    #[test]
    fn the_time_for_a_signature_has_bounds() {
        let time = SignatureTime { default_seconds: 600, max_seconds: 3_600 };
        assert_eq!(time.choose(None), Ok(Duration::from_secs(600)));
        assert_eq!(time.choose(Some(60)), Ok(Duration::from_secs(60)));
        assert_eq!(time.choose(Some(59)), Err(BadSignatureTime { least: 60, most: 3_600 }));
        assert_eq!(time.choose(Some(3_601)), Err(BadSignatureTime { least: 60, most: 3_600 }));
        let generous = SignatureTime { default_seconds: 600, max_seconds: u64::MAX };
        assert!(generous.choose(Some(SignatureTime::LONGEST + 1)).is_err());
    }
}
