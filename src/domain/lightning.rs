//! Names of Lightning things, and what a payment request says when it is read.

use std::fmt;
use std::str::FromStr;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::secp256k1::PublicKey;
use serde::{Deserialize, Serialize};

use crate::ids::RequestId;
use crate::money::Amount;

/// What a payment is locked to, and what one invoice stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PaymentHash(pub [u8; 32]);

/// What opens a payment hash. Whoever has it can claim, and whoever paid got it as the proof.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Preimage(pub [u8; 32]);

/// The name under which a node knows one of our payments, for ever: one request is one payment, however often it is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PaymentId(pub [u8; 32]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("64 hexadecimal digits are needed")]
pub struct Not32Bytes;

impl Preimage {
    #[must_use]
    pub fn fresh() -> Self {
        Self(rand::random())
    }

    #[must_use]
    pub fn hash(&self) -> PaymentHash {
        PaymentHash(sha256::Hash::hash(&self.0).to_byte_array())
    }
}

impl PaymentId {
    /// The request's id, and a hash of it behind: what another program has paid with the same node is told from ours.
    #[must_use]
    pub fn of_request(request: RequestId) -> Self {
        let id = request.to_bytes();
        let mut name = [0; 32];
        let (front, back) = name.split_at_mut(id.len());
        front.copy_from_slice(&id);
        for (to, from) in back.iter_mut().zip(sha256::Hash::hash(&id).to_byte_array()) {
            *to = from;
        }
        Self(name)
    }

    /// The request whose payment this is; `None` for a payment that is not ours.
    #[must_use]
    pub fn request(&self) -> Option<RequestId> {
        let request = RequestId::from_bytes(*self.0.first_chunk()?);
        (Self::of_request(request) == *self).then_some(request)
    }
}

macro_rules! thirty_two_bytes {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.as_hex(), f)
            }
        }
        impl FromStr for $name {
            type Err = Not32Bytes;
            fn from_str(text: &str) -> Result<Self, Not32Bytes> {
                <[u8; 32]>::from_hex(text).map(Self).map_err(|_| Not32Bytes)
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
        impl TryFrom<String> for $name {
            type Error = Not32Bytes;
            fn try_from(text: String) -> Result<Self, Not32Bytes> {
                text.parse()
            }
        }
    };
}

thirty_two_bytes!(PaymentHash);
thirty_two_bytes!(Preimage);
thirty_two_bytes!(PaymentId);

impl fmt::Debug for PaymentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PaymentHash({self})")
    }
}

impl fmt::Debug for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PaymentId({self})")
    }
}

/// A preimage is worth the money behind its hash until that is claimed: it is never in a log.
impl fmt::Debug for Preimage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Preimage(***)")
    }
}

/// What is paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    Bolt11(String),
    /// An invoice that was fetched for an offer, as hex.
    Bolt12(String),
    /// No invoice: the payee takes what comes with the preimage.
    Keysend {
        to: PublicKey,
        preimage: Preimage,
    },
}

/// How a payment that arrived was paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paid {
    pub preimage: Preimage,
    pub fee: Amount,
}

/// Why a payment failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayFailure {
    /// No way to the payee with what our channels can send now.
    NoLiquidity,
    /// There is a way, and it costs more than the ceiling.
    FeeTooHigh,
    /// The payee did not want it.
    Rejected,
    /// The invoice is over.
    InvoiceExpired,
    /// The invoice asks for what this node can't do.
    NotPayable,
    /// The node never sent it, and has let go of it.
    NeverSent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_hex_and_read_back() {
        let preimage = Preimage([0xab; 32]);
        assert_eq!(preimage.to_string().parse(), Ok(preimage));
        assert_eq!("ab".parse::<PaymentHash>(), Err(Not32Bytes));
        let json = serde_json::to_string(&preimage.hash()).unwrap();
        assert_eq!(serde_json::from_str::<PaymentHash>(&json).unwrap(), preimage.hash());
    }

    #[test]
    fn a_preimage_does_not_print() {
        assert_eq!(format!("{:?}", Preimage([0xab; 32])), "Preimage(***)");
    }

    #[test]
    fn a_request_is_one_payment() {
        let (a, b) = (RequestId::fresh(), RequestId::fresh());
        assert_eq!(PaymentId::of_request(a), PaymentId::of_request(a));
        assert_ne!(PaymentId::of_request(a), PaymentId::of_request(b));
        assert_eq!(PaymentId::of_request(a).request(), Some(a));
        assert_eq!(PaymentId([7; 32]).request(), None);
    }
}
