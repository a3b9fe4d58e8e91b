//! The consent to an off-chain spend: a BIP-322 signature by the wallet's first key over a message that says exactly what is consented to.
//!
//! What is signed spends an output that can't exist, so it can never be broadcast. It proves consent; it does not move custody.

use std::fmt::Write;

use bip322::{LockParams, PSBT_GLOBAL_GENERIC_SIGNED_MESSAGE, Verification};
use bitcoin::absolute::LockTime;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::hex::DisplayHex;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::psbt::{Input, raw};
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{Address, Amount, Network, Psbt, Sequence, Transaction, TxIn, TxOut, Txid};

use super::psbt::{self, PsbtProblem};
use super::wallet::{Account, DerivedScript, WalletKeys};
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
    OnchainSend,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pay => "pay",
            Self::OnchainSend => "onchain_send",
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
    /// A payment hash, or an address.
    pub to: String,
    pub amount: Money,
    pub max_fee: Money,
    pub expires: Timestamp,
}

impl Consent {
    /// The text that is signed: one spelling, one order. The signer reads the same grammar and refuses any other.
    #[must_use]
    pub fn message(&self) -> String {
        let lines = [
            ("gateway", self.gateway.0.clone()),
            ("chain", chain_name(self.network)),
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

/// How messages name a chain: the first bytes of its genesis block's hash, in the order that people write it.
pub(super) fn chain_name(network: Network) -> String {
    let mut chain = genesis_block(network).block_hash().to_byte_array();
    chain.reverse();
    chain.into_iter().take(CHAIN_BYTES).collect::<Vec<u8>>().to_lower_hex_string()
}

pub(super) fn spelled(money: &Money) -> String {
    match &money.asset {
        AssetId::Btc => format!("{} msat", money.amount),
        AssetId::Rgb(contract) => format!("{} {contract}", money.amount),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the authorisation can't be made: {0}")]
pub struct Unmakable(String);

fn first_script(keys: &WalletKeys) -> Result<&DerivedScript, Unmakable> {
    keys.first_script().ok_or_else(|| Unmakable("the wallet has no first script".to_owned()))
}

/// The address of the key that consents.
///
/// # Errors
/// As `to_sign`.
pub fn address(keys: &WalletKeys) -> Result<Address, Unmakable> {
    Address::from_script(&first_script(keys)?.script, keys.network()).map_err(|e| Unmakable(e.to_string()))
}

/// The PSBT that a client signs to consent to a message.
///
/// # Errors
/// When the wallet's keys have no first script, which no valid keys do.
pub fn to_sign(keys: &WalletKeys, message: &str) -> Result<Psbt, Unmakable> {
    let first = first_script(keys)?;
    let unmakable = |error: bip322::Error| Unmakable(error.to_string());
    let address = address(keys)?;
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

/// The message that a PSBT says it is signed for. It is shown, never believed.
#[must_use]
pub fn claimed_message(psbt: &Psbt) -> Option<&[u8]> {
    let key = raw::Key { type_value: PSBT_GLOBAL_GENERIC_SIGNED_MESSAGE, key: Vec::new() };
    psbt.unknown.get(&key).map(Vec::as_slice)
}

/// The transaction id of what was handed out, told from what came back: by the output that it spends, which is made of the message and the
/// address alone. Some signers write another version and sequence on what they sign.
#[must_use]
pub fn issued_txid(signed: &Psbt) -> Option<Txid> {
    let spent = signed.unsigned_tx.input.first()?.previous_output;
    let issued = Transaction {
        version: Version(0),
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: spent, sequence: Sequence::ZERO, ..TxIn::default() }],
        output: vec![TxOut { value: Amount::ZERO, script_pubkey: Builder::new().push_opcode(OP_RETURN).into_script() }],
    };
    Some(issued.compute_txid())
}

/// Puts version 2 and the last sequence on what was issued where a signer has written both. Nothing else may differ.
fn as_signed(mut issued: Psbt, signed: &Psbt) -> Psbt {
    let [input] = issued.unsigned_tx.input.as_mut_slice() else { return issued };
    let is_other = |theirs: &TxIn| signed.unsigned_tx.version == Version::TWO && theirs.sequence == Sequence::MAX;
    if signed.unsigned_tx.input.first().is_some_and(is_other) {
        input.sequence = Sequence::MAX;
        issued.unsigned_tx.version = Version::TWO;
    }
    issued
}

/// Whether the simple form of BIP-322, which is the witness alone, proves what this transaction proves: it stands for one of
/// version 0 and sequence 0.
#[must_use]
pub fn has_simple_form(signed: &Transaction) -> bool {
    let is_plain = |input: &TxIn| input.sequence == Sequence::ZERO;
    signed.version == Version(0) && signed.lock_time == LockTime::ZERO && signed.input.iter().all(is_plain)
}

/// Checks a signed authorisation against the message that is stored, and answers it as a proof for anybody with a BIP-322 verifier.
///
/// # Errors
/// When it is not signed, signed otherwise, or not by the wallet's first key.
pub fn verify(keys: &WalletKeys, message: &str, signed: &Psbt) -> Result<Transaction, PsbtProblem> {
    let rebuilt = as_signed(to_sign(keys, message).map_err(|_| PsbtProblem::Incomplete(0))?, signed);
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

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use sluice_signer::{Limits, Signer};

    use super::*;
    use crate::money::Amount;

    const MNEMONIC: &str = "split capable text loop dream live outside suspect eight carry fine relax";

    fn signer(mnemonic: &str) -> Signer {
        Signer::from_mnemonic(Network::Regtest, mnemonic, "").unwrap()
    }

    fn keys(signer: &Signer) -> WalletKeys {
        let xpubs = signer.wallet_xpubs();
        let (van, col) = (xpubs.xpub_van.to_string(), xpubs.xpub_col.to_string());
        WalletKeys::parse(&van, &col, &xpubs.master_fingerprint.to_string(), Network::Regtest).unwrap()
    }

    fn consent(keys: &WalletKeys) -> Consent {
        Consent {
            gateway: GatewayId("00112233445566aa".to_owned()),
            network: Network::Regtest,
            wallet: keys.id(),
            request: RequestId::from_bytes([1; 16]),
            kind: Kind::Pay,
            to: "ab".repeat(32),
            amount: Money::btc(Amount::from_msat(123_456).unwrap()),
            max_fee: Money::btc(Amount::from_msat(3_000).unwrap()),
            expires: Timestamp::from_millis(1_769_860_800_000),
        }
    }

    fn signed(signer: &Signer, message: &str) -> Psbt {
        let mut psbt = to_sign(&keys(signer), message).unwrap();
        let limits = Limits { max_fee: Some(bitcoin::Amount::from_sat(1_000)), ..Limits::default() };
        signer.sign_within(&mut psbt, &limits).unwrap();
        Psbt::from_str(&psbt.to_string()).unwrap()
    }

    #[test]
    fn the_signer_reads_what_is_asked_and_its_signature_is_taken() {
        let signer = signer(MNEMONIC);
        let message = consent(&keys(&signer)).message();
        let issued = to_sign(&keys(&signer), &message).unwrap();
        assert_eq!(issued_txid(&issued), Some(issued.unsigned_tx.compute_txid()));
        assert!(message.len() <= sluice_signer::authorization::MAX_MESSAGE_LEN, "{}", message.len());
        let proof = verify(&keys(&signer), &message, &signed(&signer, &message)).unwrap();
        assert_eq!((proof.version.0, proof.lock_time.to_consensus_u32(), proof.input[0].sequence.0), (0, 0, 0));
        assert!(matches!(proof.input[0].witness.nth(0).map(<[u8]>::len), Some(64 | 65)));
    }

    #[test]
    fn the_longest_message_is_short_enough() {
        let most = Money::btc(Amount::MAX);
        let expires = Timestamp::from_millis(253_402_300_799_000);
        let longest = Consent { amount: most.clone(), max_fee: most, expires, ..consent(&keys(&signer(MNEMONIC))) };
        assert!(longest.message().len() <= sluice_signer::authorization::MAX_MESSAGE_LEN);
    }

    #[test]
    fn an_unsigned_a_moved_and_a_foreign_authorisation_are_refused() {
        let signer = signer(MNEMONIC);
        let keys = keys(&signer);
        let message = consent(&keys).message();
        let unsigned = to_sign(&keys, &message).unwrap();
        assert_eq!(verify(&keys, &message, &unsigned), Err(PsbtProblem::NotSigned(0)));
        let good = signed(&signer, &message);
        for (from, to) in [
            ("amount: 123456 msat", "amount: 923456 msat"),
            ("max_fee: 3000 msat", "max_fee: 9000 msat"),
            ("gateway: 00112233445566aa", "gateway: 00112233445566ab"),
            ("to: ab", "to: ac"),
        ] {
            let other = message.replacen(from, to, 1);
            assert_ne!(other, message);
            assert_eq!(verify(&keys, &other, &good), Err(PsbtProblem::Altered), "{to}");
        }
        let words = format!("{}about", "abandon ".repeat(11));
        let stranger = self::signer(&words);
        let theirs = signed(&stranger, &message);
        assert!(verify(&keys, &message, &theirs).is_err());
    }

    #[test]
    fn a_signature_that_was_tampered_with_is_refused() {
        let signer = signer(MNEMONIC);
        let keys = keys(&signer);
        let message = consent(&keys).message();
        let mut bad = signed(&signer, &message);
        let input = &mut bad.inputs[0];
        match (&mut input.final_script_witness, &mut input.tap_key_sig) {
            (Some(witness), _) => {
                let mut item = witness.nth(0).unwrap().to_vec();
                item[10] ^= 1;
                *witness = bitcoin::Witness::from_slice(&[item]);
            }
            (None, other) => *other = None,
        }
        assert!(verify(&keys, &message, &bad).is_err());
    }
}
