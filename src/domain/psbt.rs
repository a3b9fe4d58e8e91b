//! Takes a signed PSBT and believes nothing in it but the signatures, which it checks.
//!
//! The transaction that goes out is the one that was issued, with the client's witnesses added; no other field of the
//! client's PSBT is looked at.

use std::str::FromStr;
use std::sync::LazyLock;

use bitcoin::hashes::Hash;
use bitcoin::psbt::Input;
use bitcoin::secp256k1::{Message, Secp256k1, VerifyOnly, schnorr};
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::{Psbt, ScriptBuf, Transaction, TxOut, Witness, XOnlyPublicKey};

static SECP: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PsbtProblem {
    #[error("this is not a PSBT of version 0 in base64: {0}")]
    NotAPsbt(String),
    #[error("input {0} is not signed; the PSBT came back as it was handed out. Sign it with the wallet's keys first")]
    NotSigned(usize),
    #[error("the transaction inside is not the one that was issued")]
    Altered,
    #[error("input {0} is signed with a sighash type other than DEFAULT or ALL")]
    BadSighash(usize),
    #[error("the signature of input {0} is not valid")]
    BadSignature(usize),
    #[error("the stored PSBT lacks the output spent by input {0}")]
    Incomplete(usize),
}

/// # Errors
/// When the text is no base64 PSBT of version 0.
pub fn parse(text: &str) -> Result<Psbt, PsbtProblem> {
    Psbt::from_str(text.trim()).map_err(|e| PsbtProblem::NotAPsbt(e.to_string()))
}

/// Puts the client's witnesses on the issued transaction, after checking every one of them.
///
/// # Errors
/// When the transaction differs, an input lacks a signature, or one does not verify.
pub fn finish(issued: &Psbt, signed: &Psbt) -> Result<Transaction, PsbtProblem> {
    if signed.unsigned_tx != issued.unsigned_tx || signed.inputs.len() != issued.inputs.len() {
        return Err(PsbtProblem::Altered);
    }
    let prevouts = spent_outputs(issued)?;
    let mut transaction = issued.unsigned_tx.clone();
    let mut hashes = SighashCache::new(&issued.unsigned_tx);
    for (index, input) in signed.inputs.iter().enumerate() {
        let signature = key_spend_signature(index, input)?;
        let hash = hashes
            .taproot_key_spend_signature_hash(index, &Prevouts::All(&prevouts), signature.sighash_type)
            .map_err(|_| PsbtProblem::BadSighash(index))?;
        let key = output_key(&prevouts[index].script_pubkey).ok_or(PsbtProblem::Incomplete(index))?;
        SECP.verify_schnorr(&signature.signature, &Message::from_digest(hash.to_byte_array()), &key)
            .map_err(|_| PsbtProblem::BadSignature(index))?;
        transaction.input[index].witness = Witness::p2tr_key_spend(&signature);
    }
    Ok(transaction)
}

fn spent_outputs(issued: &Psbt) -> Result<Vec<TxOut>, PsbtProblem> {
    let of = |(index, input): (usize, &Input)| input.witness_utxo.clone().ok_or(PsbtProblem::Incomplete(index));
    issued.inputs.iter().enumerate().map(of).collect()
}

/// A signer leaves its signature in one of two places: the finished witness, or the field for a key-path signature.
fn key_spend_signature(index: usize, input: &Input) -> Result<bitcoin::taproot::Signature, PsbtProblem> {
    let signature = match (&input.final_script_witness, &input.tap_key_sig) {
        (Some(witness), _) if !witness.is_empty() => parse_witness(index, witness)?,
        (_, Some(signature)) => *signature,
        (_, None) => return Err(PsbtProblem::NotSigned(index)),
    };
    match signature.sighash_type {
        TapSighashType::Default | TapSighashType::All => Ok(signature),
        TapSighashType::None
        | TapSighashType::Single
        | TapSighashType::AllPlusAnyoneCanPay
        | TapSighashType::NonePlusAnyoneCanPay
        | TapSighashType::SinglePlusAnyoneCanPay => Err(PsbtProblem::BadSighash(index)),
    }
}

fn parse_witness(index: usize, witness: &Witness) -> Result<bitcoin::taproot::Signature, PsbtProblem> {
    let (1, Some(item)) = (witness.len(), witness.nth(0)) else { return Err(PsbtProblem::BadSignature(index)) };
    let (signature, sighash_type) = match item.len() {
        64 => (item, TapSighashType::Default),
        65 => {
            let kind = TapSighashType::from_consensus_u8(item[64]).map_err(|_| PsbtProblem::BadSighash(index))?;
            // A 65-byte signature that names DEFAULT is not valid by consensus: DEFAULT has no byte of its own.
            if kind == TapSighashType::Default {
                return Err(PsbtProblem::BadSighash(index));
            }
            (&item[..64], kind)
        }
        _ => return Err(PsbtProblem::BadSignature(index)),
    };
    let signature = schnorr::Signature::from_slice(signature).map_err(|_| PsbtProblem::BadSignature(index))?;
    Ok(bitcoin::taproot::Signature { signature, sighash_type })
}

/// The key in a taproot output script.
fn output_key(script: &ScriptBuf) -> Option<XOnlyPublicKey> {
    if !script.is_p2tr() {
        return None;
    }
    XOnlyPublicKey::from_slice(&script.as_bytes()[2..34]).ok()
}
