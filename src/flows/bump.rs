//! Raising the fee of a send, or cancelling it, while it is not confirmed.

use super::history::Send;
use super::send::Begun;
use super::{Error, Flows, Idempotency};
use crate::domain::wallet::WalletKeys;
use crate::ids::{RequestId, WalletId};

#[derive(Clone, Debug)]
pub struct BeginBump {
    pub send: RequestId,
    pub fee_rate: u32,
    /// Pay everything back to the wallet instead.
    pub cancel: bool,
    pub expires_in_seconds: Option<u64>,
}

pub async fn begin(
    _flows: &Flows,
    _keys: &WalletKeys,
    _wanted: BeginBump,
    _idempotency: Option<Idempotency>,
) -> Result<Begun, Error> {
    todo!()
}

pub async fn end(_flows: &Flows, _wallet: &WalletId, _send: RequestId, _signed_psbt: &str) -> Result<Send, Error> {
    todo!()
}
