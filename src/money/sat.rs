use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::OutOfRange;

/// Satoshis, as the chain counts them. Never more than there can ever be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Sat(u64);

impl Sat {
    pub const ZERO: Self = Self(0);
    pub const MAX: Self = Self(21_000_000 * 100_000_000);

    /// # Errors
    /// When there can't be that many.
    pub const fn new(sat: u64) -> Result<Self, OutOfRange> {
        if sat > Self::MAX.0 { Err(OutOfRange) } else { Ok(Self(sat)) }
    }

    /// For constants: refuses to compile when out of range.
    #[must_use]
    pub const fn literal(sat: u64) -> Self {
        assert!(sat <= Self::MAX.0, "more satoshis than there can be");
        Self(sat)
    }

    #[must_use]
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    #[must_use]
    #[expect(clippy::cast_possible_wrap, reason = "no number of satoshis is above 2.1e15")]
    pub const fn as_bigint(self) -> i64 {
        self.0 as i64
    }

    /// # Errors
    /// When the stored number is negative or too large.
    pub fn from_bigint(stored: i64) -> Result<Self, OutOfRange> {
        u64::try_from(stored).map_err(|_| OutOfRange).and_then(Self::new)
    }

    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).and_then(|sum| Self::new(sum).ok())
    }

    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// Adds up; `None` when the sum can't exist.
    #[must_use]
    pub fn sum(all: impl IntoIterator<Item = Self>) -> Option<Self> {
        all.into_iter().try_fold(Self::ZERO, Self::checked_add)
    }

    #[must_use]
    pub const fn to_bitcoin(self) -> bitcoin::Amount {
        bitcoin::Amount::from_sat(self.0)
    }
}

impl TryFrom<bitcoin::Amount> for Sat {
    type Error = OutOfRange;
    fn try_from(amount: bitcoin::Amount) -> Result<Self, OutOfRange> {
        Self::new(amount.to_sat())
    }
}

impl fmt::Display for Sat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl<'de> Deserialize<'de> for Sat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let sat = u64::deserialize(deserializer)?;
        Self::new(sat).map_err(|_| serde::de::Error::custom("more satoshis than there can be"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_than_exist() {
        assert_eq!(Sat::new(Sat::MAX.to_u64() + 1), Err(OutOfRange));
        assert_eq!(Sat::MAX.checked_add(Sat::literal(1)), None);
        assert_eq!(Sat::sum([Sat::literal(1), Sat::literal(2)]), Some(Sat::literal(3)));
        assert!(serde_json::from_str::<Sat>("2100000000000001").is_err());
    }
}
