//! Names of things that outlive a process: wallets, requests, API keys, this gateway.

use std::fmt;
use std::str::FromStr;

use bitcoin::hashes::{Hash, sha256};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Every send, receive and deposit has one, whatever its rail or asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(Uuid);

impl RequestId {
    /// A new id that sorts by the time it was made.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id that a caller's idempotency key stands for: the same key in the same wallet is the same request, for ever.
    #[must_use]
    pub fn from_idempotency_key(wallet: &WalletId, key: &str) -> Self {
        Self(Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{wallet}/{key}").as_bytes()))
    }

    /// The same for an operator, who has no wallet.
    #[must_use]
    pub fn from_operator_key(key: &str) -> Self {
        Self(Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("operator/{key}").as_bytes()))
    }

    /// The id of an entry that belongs to no wallet's request: the same thing is entered under the same id.
    #[must_use]
    pub fn of_movement(key: &str) -> Self {
        Self(Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("movement:{key}").as_bytes()))
    }

    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        *self.0.as_bytes()
    }

    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The id of the credit that one output to an address of the node stands for.
    #[must_use]
    pub fn of_credit(wallet: &WalletId, outpoint: &bitcoin::OutPoint) -> Self {
        Self(Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("credit:{wallet}:{outpoint}").as_bytes()))
    }

    /// The id of the deposit made by one output: seeing the output again names the same deposit.
    #[must_use]
    pub fn of_deposit(wallet: &WalletId, outpoint: &bitcoin::OutPoint) -> Self {
        Self(Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("deposit:{wallet}:{outpoint}").as_bytes()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_hyphenated())
    }
}

impl FromStr for RequestId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        Uuid::parse_str(text).map(Self).map_err(|_| BadId)
    }
}

/// 16 hexadecimal characters: the start of the hash of a wallet's two keys and fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WalletId(String);

impl WalletId {
    const LENGTH: usize = 16;

    /// Derives the id from the triple that names a wallet on the wire.
    #[must_use]
    pub fn of_triple(xpub_van: &str, xpub_col: &str, fingerprint: &str) -> Self {
        let hash = sha256::Hash::hash(format!("{xpub_van}\n{xpub_col}\n{fingerprint}").as_bytes());
        let mut text = hash.to_string();
        text.truncate(Self::LENGTH);
        Self(text)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WalletId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for WalletId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let lower_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if text.len() == Self::LENGTH && text.chars().all(lower_hex) { Ok(Self(text.to_owned())) } else { Err(BadId) }
    }
}

/// The public half of an API key: it names the key in lists and logs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 16 hexadecimal characters drawn when a database is first used; an authorisation names it, so that it can't be shown to another gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayId(pub String);

impl GatewayId {
    #[must_use]
    pub fn fresh() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of this kind")]
pub struct BadId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_names_the_same_request_in_one_wallet_only() {
        let a = WalletId::of_triple("a", "b", "c");
        let b = WalletId::of_triple("a", "b", "d");
        assert_eq!(RequestId::from_idempotency_key(&a, "k"), RequestId::from_idempotency_key(&a, "k"));
        assert_ne!(RequestId::from_idempotency_key(&a, "k"), RequestId::from_idempotency_key(&b, "k"));
        assert_ne!(RequestId::from_idempotency_key(&a, "k"), RequestId::from_idempotency_key(&a, "l"));
    }

    #[test]
    fn a_wallet_id_is_sixteen_lower_case_hex() {
        let id = WalletId::of_triple("a", "b", "c");
        assert_eq!(id.to_string().parse::<WalletId>(), Ok(id));
        assert_eq!("../../../etc/pass".parse::<WalletId>(), Err(BadId));
        assert_eq!("ABCDEF0123456789".parse::<WalletId>(), Err(BadId));
    }
}
