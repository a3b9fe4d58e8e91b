//! An offline signer for the PSBTs that a Sluice gateway hands out.
//!
//! In reading order: [`keys`] derives the two BIP86 accounts of a wallet, [`mod@describe`] says what a PSBT does and why
//! it must not be signed, [`authorization`] reads the BIP-322 message of an off-chain spend, [`grant`] that of a key that may spend,
//! [`export`] that of leaving with the state of one's assets, [`limits`] holds what the
//! user expects, [`sign`] signs, [`wallet_file`] keeps the mnemonic, [`text`] reads what a gateway answered.
//!
//! Absent on purpose: network access, a clock, script-path spends, and any key outside `/0` of the two accounts. Were
//! more keys signed, a gateway that strays would work here and fail with the signers that its users have.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::string_slice, clippy::let_underscore_must_use))]

pub mod authorization;
pub mod describe;
pub mod error;
pub mod export;
pub mod grant;
pub mod keys;
pub mod limits;
pub mod sign;
pub mod text;
pub mod wallet_file;

#[cfg(test)]
mod fixtures;

pub use authorization::{Authorization, Quantity, SpendKind};
pub use describe::{Kind, Owner, Summary, describe};
pub use error::{Claim, Error, Place};
pub use export::Export;
pub use grant::{Expected, Grant, SpendingLimit};
pub use keys::{Account, KeyPath, Signer, WalletXpubs};
pub use limits::{Limits, MaxAmount};
pub use sign::Signed;
pub use text::parse_psbt;
pub use wallet_file::WalletFile;
