//! Sending the client's own coins: `begin` chooses and sets aside, the client signs, `end` checks and broadcasts.

use crate::clock::Timestamp;
use crate::domain::onchain_send::Door;
use crate::domain::wallet::WalletKeys;
use crate::ids::RequestId;
use crate::money::Sat;

use super::{Error, Flows, Idempotency};

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct BeginSend {
    /// The destination as written.
    pub to: String,
    pub amount: Sat,
    /// Whole satoshis per virtual byte.
    pub fee_rate: u32,
    pub deduct_fee: bool,
    pub expires_in_seconds: Option<u64>,
    pub reference: Option<String>,
    pub door: Door,
    /// How deep strangers' coins must be buried; never less than the operator's policy.
    pub min_confirmations: Option<u32>,
    /// The wire name of the field that holds the destination, to name it in answers.
    pub to_field: &'static str,
    /// The wire name of the field that holds the amount.
    pub amount_field: &'static str,
}

/// What a begin hands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    pub psbt: String,
    pub request: RequestId,
    pub fee: Sat,
    pub expires_at: Timestamp,
}

pub async fn begin(
    _flows: &Flows,
    _keys: &WalletKeys,
    _wanted: BeginSend,
    _idempotency: Option<Idempotency>,
) -> Result<Begun, Error> {
    todo!()
}

pub async fn end(
    _flows: &Flows,
    _wallet: &crate::ids::WalletId,
    _door: Door,
    _signed_psbt: &str,
) -> Result<super::history::Send, Error> {
    todo!()
}
