//! The consent to an off-chain spend: a BIP-322 signature by the wallet's first key over a message that says exactly what is consented to.
//!
//! What is signed spends an output that can't exist, so it can never be broadcast. It proves consent; it does not move custody.

use std::fmt::Write;

use bip322::{LockParams, PSBT_GLOBAL_GENERIC_SIGNED_MESSAGE, Verification};
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::hex::DisplayHex;
use bitcoin::psbt::{Input, raw};
use bitcoin::{Address, Network, Psbt, Transaction};

use super::psbt::{self, PsbtProblem};
use super::wallet::{Account, WalletKeys};
use crate::clock::Timestamp;
use crate::ids::{GatewayId, RequestId, WalletId};
use crate::money::{AssetId, Money};

/// The key that consents: always the first of the bitcoin account.
const KEY_INDEX: u32 = 0;
/// Bytes of the genesis block's hash that name the chain.
const CHAIN_BYTES: usize = 8;

/// What a spend is of, as the message says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Pay,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pay => "pay",
        }
    }
}

/// Everything that is consented to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    pub gateway: GatewayId,
    pub network: Network,
    pub wallet: WalletId,
    pub request: RequestId,
    pub kind: Kind,
    /// A payment hash.
    pub to: String,
    pub amount: Money,
    pub max_fee: Money,
    pub expires: Timestamp,
}

impl Consent {
    /// The text that is signed: one spelling, one order. The signer reads the same grammar and refuses any other.
    #[must_use]
    pub fn message(&self) -> String {
        let mut chain = genesis_block(self.network).block_hash().to_byte_array();
        chain.reverse();
        let chain = chain.into_iter().take(CHAIN_BYTES).collect::<Vec<u8>>().to_lower_hex_string();
        let lines = [
            ("gateway", self.gateway.0.clone()),
            ("chain", chain),
            ("wallet", self.wallet.to_string()),
            ("request", self.request.to_string().replace('-', "")),
            ("kind", self.kind.as_str().to_owned()),
            ("to", self.to.clone()),
            ("amount", spelled(&self.amount)),
            ("max_fee", spelled(&self.max_fee)),
            ("expires", self.expires.rfc3339()),
        ];
        let mut message = "Sluice spend authorization v1".to_owned();
        for (key, value) in lines {
            // Writing to a String can't fail.
            let _infallible = write!(message, "\n{key}: {value}");
        }
        message
    }
}

fn spelled(money: &Money) -> String {
    match &money.asset {
        AssetId::Btc => format!("{} msat", money.amount),
        AssetId::Rgb(contract) => format!("{} {contract}", money.amount),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the authorisation can't be made: {0}")]
pub struct Unmakable(String);

/// The PSBT that a client signs to consent to a message.
///
/// # Errors
/// When the wallet's keys have no first script, which no valid keys do.
pub fn to_sign(keys: &WalletKeys, message: &str) -> Result<Psbt, Unmakable> {
    let first = keys.scripts(Account::Vanilla, KEY_INDEX..KEY_INDEX.saturating_add(1)).into_iter().next();
    let first = first.ok_or_else(|| Unmakable("the wallet has no first script".to_owned()))?;
    let unmakable = |error: bip322::Error| Unmakable(error.to_string());
    let address = Address::from_script(&first.script, keys.network()).map_err(|e| Unmakable(e.to_string()))?;
    let to_spend = bip322::create_to_spend(&address, message).map_err(unmakable)?;
    let mut psbt = bip322::create_to_sign(&to_spend, None, LockParams::default()).map_err(unmakable)?;
    let (Some(input), Some(output)) = (psbt.inputs.first_mut(), to_spend.output.first()) else {
        return Err(Unmakable("it has no input".to_owned()));
    };
    let origin = (Vec::new(), (keys.master_fingerprint(), keys.path(Account::Vanilla, KEY_INDEX)));
    *input = Input {
        witness_utxo: Some(output.clone()),
        tap_internal_key: Some(first.internal_key),
        tap_key_origins: [(first.internal_key, origin)].into(),
        ..Input::default()
    };
    input.non_witness_utxo = Some(to_spend);
    psbt.unknown.insert(
        raw::Key { type_value: PSBT_GLOBAL_GENERIC_SIGNED_MESSAGE, key: Vec::new() },
        message.as_bytes().to_vec(),
    );
    Ok(psbt)
}

/// Checks a signed authorisation against the message that is stored, and answers it as a proof for anybody with a BIP-322 verifier.
///
/// # Errors
/// When it is not signed, signed otherwise, or not by the wallet's first key.
pub fn verify(keys: &WalletKeys, message: &str, signed: &Psbt) -> Result<Transaction, PsbtProblem> {
    let rebuilt = to_sign(keys, message).map_err(|_| PsbtProblem::Incomplete(0))?;
    let transaction = psbt::finish(&rebuilt, signed)?;
    let script =
        rebuilt.inputs.first().and_then(|input| input.witness_utxo.as_ref()).map(|output| &output.script_pubkey);
    let address = script.and_then(|script| Address::from_script(script, keys.network()).ok());
    let address = address.ok_or(PsbtProblem::Incomplete(0))?;
    // The library also knows "inconclusive", which is not enough.
    match bip322::verify_full(&address, message, transaction.clone()) {
        Ok(Verification::Valid { .. }) => Ok(transaction),
        Ok(_) | Err(_) => Err(PsbtProblem::BadSignature(0)),
    }
}
