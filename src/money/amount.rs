use std::fmt;

use serde::{Deserialize, Serialize};

use super::{OutOfRange, Sat};

/// Base units of an asset as the ledger keeps them. Of bitcoin these are millisatoshis.
///
/// At most `i64::MAX`, so that every amount fits a BIGINT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Amount(u64);

const MSAT_PER_SAT: u64 = 1_000;

impl Amount {
    pub const ZERO: Self = Self(0);
    pub const MAX: Self = Self(i64::MAX as u64);

    /// # Errors
    /// When the amount does not fit a BIGINT.
    pub const fn from_msat(msat: u64) -> Result<Self, OutOfRange> {
        if msat > Self::MAX.0 { Err(OutOfRange) } else { Ok(Self(msat)) }
    }

    /// # Errors
    /// When the amount does not fit a BIGINT.
    pub const fn from_asset_units(units: u64) -> Result<Self, OutOfRange> {
        Self::from_msat(units)
    }

    /// A whole number of satoshis always fits: there are 2.1 quadrillion of them.
    #[must_use]
    #[expect(clippy::arithmetic_side_effects, reason = "the largest Sat is 2.1e15, and 2.1e18 msat fit")]
    pub const fn from_sat(sat: Sat) -> Self {
        Self(sat.to_u64() * MSAT_PER_SAT)
    }

    #[must_use]
    pub const fn base_units(self) -> u64 {
        self.0
    }

    /// The amount as a database keeps it.
    #[must_use]
    #[expect(clippy::cast_possible_wrap, reason = "no amount is above i64::MAX")]
    pub const fn as_bigint(self) -> i64 {
        self.0 as i64
    }

    /// # Errors
    /// When the stored number is negative.
    pub fn from_bigint(stored: i64) -> Result<Self, OutOfRange> {
        u64::try_from(stored).map(Self).map_err(|_| OutOfRange)
    }

    /// What a user has or receives, in whole satoshis.
    #[must_use]
    pub const fn sat_floor(self) -> u64 {
        self.0 / MSAT_PER_SAT
    }

    /// What a user pays or owes, in whole satoshis.
    #[must_use]
    pub const fn sat_ceil(self) -> u64 {
        self.0.div_ceil(MSAT_PER_SAT)
    }

    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).filter(|sum| *sum <= Self::MAX.0).map(Self)
    }

    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_is_rounded_up_and_what_is_had_down() {
        let amount = Amount::from_msat(1_001).unwrap();
        assert_eq!((amount.sat_floor(), amount.sat_ceil()), (1, 2));
    }

    #[test]
    fn nothing_exceeds_a_bigint() {
        assert_eq!(Amount::from_msat(1 << 63), Err(OutOfRange));
        assert_eq!(Amount::MAX.checked_add(Amount::from_msat(1).unwrap()), None);
        assert_eq!(Amount::ZERO.checked_sub(Amount::from_msat(1).unwrap()), None);
        assert_eq!(Amount::from_sat(Sat::MAX).sat_floor(), Sat::MAX.to_u64());
    }
}
