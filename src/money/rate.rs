use std::fmt;

use serde::{Deserialize, Serialize};

use super::{OutOfRange, Sat};

/// A fee rate in thousandths of a satoshi per virtual byte: fine enough for any estimate, and still an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FeeRate(u64);

impl FeeRate {
    /// The least that nodes relay by default: one satoshi per virtual byte.
    pub const RELAY_MINIMUM: Self = Self(1_000);
    /// No honest estimate is above this; a larger answer is a fault of the source.
    pub const ABSURD: Self = Self(100_000_000);

    #[must_use]
    #[expect(clippy::arithmetic_side_effects, reason = "1,000 times a u32 fits a u64")]
    pub const fn from_sat_per_vb(rate: u32) -> Self {
        Self(rate as u64 * 1_000)
    }

    #[must_use]
    pub const fn from_milli_sat_per_vb(rate: u64) -> Self {
        Self(rate)
    }

    /// Reads what a node calls a fee rate: bitcoin per 1,000 virtual bytes, as a floating-point number.
    ///
    /// # Errors
    /// When it isn't a finite number above zero, or is absurd.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is cast was checked to be between 1 and ABSURD, where a float is exact"
    )]
    pub fn from_btc_per_kvb(rate: f64) -> Result<Self, OutOfRange> {
        // 1 BTC/kvB = 100,000 sat/vB = 100,000,000 of our unit.
        let milli = rate * 100_000_000.0;
        if !milli.is_finite() || milli < 1.0 || milli > Self::ABSURD.0 as f64 {
            return Err(OutOfRange);
        }
        Ok(Self(milli.round() as u64))
    }

    #[must_use]
    pub const fn milli_sat_per_vb(self) -> u64 {
        self.0
    }

    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "for show; fees are computed from the integer")]
    pub fn sat_per_vb(self) -> f64 {
        self.0 as f64 / 1_000.0
    }

    /// The fee of a transaction of this many virtual bytes, rounded up.
    #[must_use]
    pub fn fee(self, vbytes: u64) -> Option<Sat> {
        let milli = self.0.checked_mul(vbytes)?;
        Sat::new(milli.div_ceil(1_000)).ok()
    }
}

impl fmt::Display for FeeRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sat/vB", self.sat_per_vb())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_answers_nonsense_is_not_believed() {
        for nonsense in [f64::NAN, f64::INFINITY, 0.0, -1.0, 5.0] {
            assert_eq!(FeeRate::from_btc_per_kvb(nonsense), Err(OutOfRange), "{nonsense}");
        }
        assert_eq!(FeeRate::from_btc_per_kvb(0.00001), Ok(FeeRate::RELAY_MINIMUM));
    }

    #[test]
    fn fees_are_rounded_up() {
        assert_eq!(FeeRate::from_milli_sat_per_vb(1_001).fee(141), Some(Sat::literal(142)));
        assert_eq!(FeeRate::from_milli_sat_per_vb(u64::MAX).fee(2), None);
    }
}
