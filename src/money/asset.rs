use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Amount, OutOfRange};

/// What an amount is an amount of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum AssetId {
    Btc,
    /// An RGB contract id, as its issuer writes it.
    Rgb(String),
}

const BTC: &str = "btc";

impl fmt::Display for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Btc => f.write_str(BTC),
            Self::Rgb(contract) => f.write_str(contract),
        }
    }
}

impl FromStr for AssetId {
    type Err = OutOfRange;
    fn from_str(text: &str) -> Result<Self, OutOfRange> {
        match text {
            BTC => Ok(Self::Btc),
            rgb if rgb.starts_with("rgb:") => Ok(Self::Rgb(rgb.to_owned())),
            _ => Err(OutOfRange),
        }
    }
}

impl From<AssetId> for String {
    fn from(asset: AssetId) -> Self {
        asset.to_string()
    }
}

impl TryFrom<String> for AssetId {
    type Error = OutOfRange;
    fn try_from(text: String) -> Result<Self, OutOfRange> {
        text.parse()
    }
}

/// An amount that says what it is an amount of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    pub asset: AssetId,
    pub amount: Amount,
}

impl Money {
    #[must_use]
    pub const fn btc(amount: Amount) -> Self {
        Self { asset: AssetId::Btc, amount }
    }
}
