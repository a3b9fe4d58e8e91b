//! Signs the wallet's own key-path inputs, and hands them back as the known SDK's signer does.

use bitcoin::key::TapTweak;
use bitcoin::psbt::{Input, Psbt};
use bitcoin::secp256k1::Message;
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::{TapSighashType, TxOut, Witness, taproot};

use crate::describe::{Kind, Owner, Summary};
use crate::error::Error;
use crate::grant::Expected;
use crate::keys::{KeyPath, Signer};
use crate::limits::Limits;

/// What a successful signing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// Never 0: a PSBT without a signable input is an error.
    pub inputs_signed: usize,
}

impl Signer {
    /// Signs and finalizes every own input, under the default limits. On an error the PSBT is untouched.
    pub fn sign(&self, psbt: &mut Psbt) -> Result<Signed, Error> {
        self.sign_within(psbt, &Limits::default())
    }

    /// Signs and finalizes every own input of a PSBT that keeps to the limits. On an error the PSBT is untouched.
    pub fn sign_within(&self, psbt: &mut Psbt, limits: &Limits) -> Result<Signed, Error> {
        let mut summary = self.describe(psbt);
        if !summary.refusals.is_empty() {
            return Err(summary.refusals.swap_remove(0));
        }
        limits.check(&summary)?;
        self.sign_described(psbt, &summary)
    }

    /// Signs a spending grant, and nothing else. On an error the PSBT is untouched.
    pub fn grant(&self, psbt: &mut Psbt, expected: &Expected) -> Result<Signed, Error> {
        let mut summary = self.describe(psbt);
        if !summary.refusals.is_empty() {
            return Err(summary.refusals.swap_remove(0));
        }
        let Kind::Grant(grant) = &summary.kind else { return Err(Error::IsNoGrant) };
        expected.check(grant)?;
        self.sign_described(psbt, &summary)
    }

    /// Signs the consent to an export, and nothing else; for a certain gateway if one is named. On an error the PSBT is untouched.
    pub fn export(&self, psbt: &mut Psbt, gateway: Option<&str>) -> Result<Signed, Error> {
        let mut summary = self.describe(psbt);
        if !summary.refusals.is_empty() {
            return Err(summary.refusals.swap_remove(0));
        }
        let Kind::Export(export) = &summary.kind else { return Err(Error::IsNoExport) };
        if let Some(expected) = gateway.filter(|expected| !expected.eq_ignore_ascii_case(&export.gateway)) {
            return Err(Error::UnexpectedGateway { found: export.gateway.clone(), expected: expected.to_owned() });
        }
        self.sign_described(psbt, &summary)
    }

    fn sign_described(&self, psbt: &mut Psbt, summary: &Summary) -> Result<Signed, Error> {
        let witnesses = self.witnesses(psbt, summary)?;
        let inputs_signed = witnesses.len();
        for (index, witness) in witnesses {
            finalize(&mut psbt.inputs[index], witness);
        }
        for output in &mut psbt.outputs {
            output.bip32_derivation.clear();
            output.tap_key_origins.clear();
        }
        Ok(Signed { inputs_signed })
    }

    fn witnesses(&self, psbt: &Psbt, summary: &Summary) -> Result<Vec<(usize, Witness)>, Error> {
        let coins = coins(psbt)?;
        let mut cache = SighashCache::new(&psbt.unsigned_tx);
        let mut witnesses = Vec::new();
        for (index, input) in summary.inputs.iter().enumerate() {
            let Owner::Own(key) = input.owner else {
                continue;
            };
            if input.finalized {
                continue;
            }
            let sighash_type = psbt.inputs[index].taproot_hash_ty().map_err(|_| Error::SighashType { input: index })?;
            let hash = cache.taproot_key_spend_signature_hash(index, &Prevouts::All(&coins), sighash_type)?;
            witnesses.push((index, self.witness(key, Message::from(hash), sighash_type)?));
        }
        Ok(witnesses)
    }

    /// Without auxiliary randomness: the same PSBT has the same signature, so a repeated `end` is the same call.
    fn witness(&self, key: KeyPath, message: Message, sighash_type: TapSighashType) -> Result<Witness, Error> {
        let output_key = self.keypair(key)?.tap_tweak(&self.secp, None).to_keypair();
        let signature = self.secp.sign_schnorr_no_aux_rand(&message, &output_key);
        Ok(Witness::p2tr_key_spend(&taproot::Signature { signature, sighash_type }))
    }
}

/// Every input's coin: a taproot signature commits to all of them, so a lie about one makes it worthless.
fn coins(psbt: &Psbt) -> Result<Vec<TxOut>, Error> {
    let coin =
        |(index, input): (usize, &Input)| input.witness_utxo.clone().ok_or(Error::MissingWitnessUtxo { input: index });
    psbt.inputs.iter().enumerate().map(coin).collect()
}

/// As BIP174's finalizer: keeps the coin, and what it does not know.
fn finalize(input: &mut Input, witness: Witness) {
    let signed = std::mem::take(input);
    *input = Input {
        witness_utxo: signed.witness_utxo,
        non_witness_utxo: signed.non_witness_utxo,
        final_script_witness: Some(witness),
        proprietary: signed.proprietary,
        unknown: signed.unknown,
        ..Input::default()
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Claim, Place};
    use crate::fixtures::{
        MNEMONIC, authorization, authorization_by, claim_own, message, own, payment, payment_with, signer, to_other,
        to_own,
    };
    use crate::keys::Account;
    use bip322::Verification;
    use bitcoin::psbt::{PsbtSighashType, raw};
    use bitcoin::secp256k1::{Secp256k1, XOnlyPublicKey};
    use bitcoin::{Amount, Network, ScriptBuf};

    fn refusal(psbt: &Psbt) -> Error {
        refusal_of(&signer(), psbt)
    }

    fn refusal_of(signer: &Signer, psbt: &Psbt) -> Error {
        let mut tried = psbt.clone();
        let error = signer.sign(&mut tried).expect_err("it was signed");
        assert_eq!(tried, *psbt, "a refused PSBT was changed");
        error
    }

    /// Checks a signature against the output key that stands in the coin's script, not against our own derivation.
    fn verifies(psbt: &Psbt, index: usize) -> bool {
        let coins = coins(psbt).unwrap();
        let witness = psbt.inputs[index].final_script_witness.as_ref().unwrap();
        assert_eq!(witness.len(), 1);
        let signature = taproot::Signature::from_slice(&witness[0]).unwrap();
        let hash = SighashCache::new(&psbt.unsigned_tx)
            .taproot_key_spend_signature_hash(index, &Prevouts::All(&coins), signature.sighash_type)
            .unwrap();
        let key = XOnlyPublicKey::from_slice(&coins[index].script_pubkey.as_bytes()[2..]).unwrap();
        Secp256k1::new().verify_schnorr(&signature.signature, &Message::from(hash), &key).is_ok()
    }

    #[test]
    fn every_own_input_gets_a_valid_64_byte_signature() {
        let colored = |index| crate::KeyPath { account: Account::Colored, index };
        let mut psbt =
            payment_with(&[own(0), colored(5), own(12)], vec![to_other(250_000), to_own(49_000, colored(6))]);
        assert_eq!(signer().sign(&mut psbt).unwrap(), Signed { inputs_signed: 3 });
        for index in 0..3 {
            assert!(verifies(&psbt, index), "input {index}");
            assert_eq!(psbt.inputs[index].final_script_witness.as_ref().unwrap()[0].len(), 64);
        }
        psbt.inputs[1].witness_utxo.as_mut().unwrap().value = Amount::from_sat(99_999);
        assert!(!verifies(&psbt, 0), "the signature does not commit to the other coins");
    }

    #[test]
    fn sighash_all_is_signed_when_asked_for() {
        let mut psbt = payment();
        psbt.inputs[0].sighash_type = Some(TapSighashType::All.into());
        signer().sign(&mut psbt).unwrap();
        assert_eq!(psbt.inputs[0].final_script_witness.as_ref().unwrap()[0].len(), 65);
        assert!(verifies(&psbt, 0));
    }

    #[test]
    fn a_signed_psbt_is_stripped_and_keeps_what_is_unknown() {
        let mut psbt = payment();
        let unknown = raw::Key { type_value: 0x77, key: vec![1] };
        psbt.inputs[0].unknown.insert(unknown.clone(), vec![2]);
        psbt.unknown.insert(unknown.clone(), vec![3]);
        let proprietary = raw::ProprietaryKey { prefix: b"rgb".to_vec(), subtype: 1, key: Vec::new() };
        psbt.inputs[0].proprietary.insert(proprietary.clone(), vec![4]);
        let before = psbt.clone();
        signer().sign(&mut psbt).unwrap();
        let input = &psbt.inputs[0];
        assert!(input.tap_key_origins.is_empty() && input.tap_internal_key.is_none() && input.tap_key_sig.is_none());
        assert_eq!(input.witness_utxo, before.inputs[0].witness_utxo);
        assert_eq!(input.unknown[&unknown], [2]);
        assert_eq!(input.proprietary[&proprietary], [4]);
        assert_eq!(psbt.unknown[&unknown], [3]);
        assert!(psbt.outputs.iter().all(|output| output.tap_key_origins.is_empty()));
        assert_eq!(psbt.unsigned_tx, before.unsigned_tx);
    }

    #[test]
    fn the_same_psbt_has_the_same_signature() {
        let (mut one, mut two) = (payment(), payment());
        signer().sign(&mut one).unwrap();
        signer().sign(&mut two).unwrap();
        assert_eq!(one, two);
    }

    #[test]
    fn an_authorisation_verifies_as_bip322() {
        let mut psbt = authorization(&message());
        signer().sign(&mut psbt).unwrap();
        let address = signer().address(own(0)).unwrap();
        let witness = psbt.inputs[0].final_script_witness.clone().unwrap();
        let verdict = bip322::verify_simple(&address, message(), witness.clone());
        assert!(matches!(verdict, Ok(Verification::Valid { .. })), "{verdict:?}");
        let other = message().replace("123456 msat", "123457 msat");
        assert!(bip322::verify_simple(&address, other, witness).is_err());
    }

    #[test]
    fn a_tampered_message_is_refused() {
        let shown = message().replace("123456 msat", "1 msat");
        let mut psbt = authorization(&message());
        let key = raw::Key { type_value: 9, key: Vec::new() };
        psbt.unknown.insert(key.clone(), shown.into_bytes());
        assert!(matches!(refusal(&psbt), Error::MessageMismatch));
        // Without its message it would be a signature over nobody knows what.
        psbt.unknown.remove(&key);
        assert!(matches!(refusal(&psbt), Error::ZeroValueInput { input: 0 }));
    }

    #[test]
    fn an_authorisation_must_have_exactly_the_form_of_to_sign() {
        let changes: [fn(&mut Psbt); 7] = [
            |psbt| psbt.unsigned_tx.version = bitcoin::transaction::Version::TWO,
            |psbt| psbt.unsigned_tx.lock_time = bitcoin::absolute::LockTime::from_consensus(1),
            |psbt| psbt.unsigned_tx.input[0].sequence = bitcoin::Sequence(1),
            |psbt| psbt.unsigned_tx.output[0].value = Amount::ONE_SAT,
            |psbt| psbt.unsigned_tx.output[0].script_pubkey = ScriptBuf::new_op_return([0]),
            |psbt| {
                psbt.unsigned_tx.output.push(psbt.unsigned_tx.output[0].clone());
                psbt.outputs.push(Default::default());
            },
            |psbt| {
                let coin = payment();
                psbt.unsigned_tx.input.push(coin.unsigned_tx.input[0].clone());
                psbt.inputs.push(coin.inputs[0].clone());
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut psbt = authorization(&message());
            change(&mut psbt);
            let error = refusal(&psbt);
            assert!(matches!(error, Error::NotToSign), "change {number}: {error}");
        }
        let mut psbt = authorization(&message());
        psbt.unsigned_tx.input[0].previous_output.vout = 1;
        psbt.inputs[0].non_witness_utxo = None;
        assert!(matches!(refusal(&psbt), Error::MessageMismatch));
    }

    #[test]
    fn a_real_transaction_with_a_message_on_top_is_refused() {
        let mut psbt = payment();
        psbt.unknown.insert(raw::Key { type_value: 9, key: Vec::new() }, message().into_bytes());
        assert!(matches!(refusal(&psbt), Error::UtxoMismatch { .. } | Error::NotToSign));
    }

    #[test]
    fn an_authorisation_takes_key_vanilla_0_and_no_other() {
        for key in [own(1), KeyPath { account: Account::Colored, index: 0 }] {
            let psbt = authorization_by(&signer(), key, &message());
            assert!(matches!(refusal(&psbt), Error::AuthorizationKey(_)));
        }
        let mut worth = authorization(&message());
        worth.inputs[0].non_witness_utxo = None;
        worth.inputs[0].witness_utxo.as_mut().unwrap().value = Amount::ONE_SAT;
        assert!(matches!(refusal(&worth), Error::UtxoMismatch { input: 0 }));
    }

    #[test]
    fn a_message_that_is_signed_but_not_understood_is_refused() {
        for text in ["hello", "Sluice spend grant v1", "", "Sluice spend authorization v1\n\u{e9}"] {
            let error = refusal(&authorization(text));
            assert!(matches!(error, Error::Message(_)), "{text:?}: {error}");
        }
    }

    #[test]
    fn another_network_is_refused() {
        let testnet = Signer::from_mnemonic(Network::Testnet, MNEMONIC, "").unwrap();
        assert!(matches!(refusal_of(&testnet, &authorization(&message())), Error::WrongChain { .. }));
        let mainnet = Signer::from_mnemonic(Network::Bitcoin, MNEMONIC, "").unwrap();
        let error = refusal_of(&mainnet, &payment());
        assert!(matches!(error, Error::FalseClaim { claim: Claim::Network { .. }, .. }), "{error}");
    }

    #[test]
    fn a_foreign_psbt_is_refused() {
        let other = Signer::from_mnemonic(Network::Regtest, MNEMONIC, "another wallet").unwrap();
        for psbt in [payment(), authorization(&message())] {
            let error = refusal_of(&other, &psbt);
            assert!(matches!(error, Error::NothingToSign { .. }), "{error}");
        }
        let mut bare = payment();
        bare.inputs[0].tap_key_origins.clear();
        assert!(matches!(refusal(&bare), Error::NothingToSign { .. }));
        let mut signed = payment();
        signer().sign(&mut signed).unwrap();
        assert!(refusal(&signed).to_string().contains("signed already"));
    }

    #[test]
    fn a_foreign_input_beside_an_own_one_is_left_alone() {
        let other = Signer::from_mnemonic(Network::Regtest, MNEMONIC, "another wallet").unwrap();
        let mut psbt = payment_with(&[own(0), own(1)], vec![to_other(199_000)]);
        let stranger = crate::fixtures::input_of(&other, own(1));
        psbt.inputs[1] = stranger.clone();
        assert_eq!(signer().sign(&mut psbt).unwrap().inputs_signed, 1);
        assert!(verifies(&psbt, 0));
        assert_eq!(psbt.inputs[1], stranger);
    }

    #[test]
    fn a_psbt_that_lies_about_its_inputs_is_refused() {
        let claim = |change: fn(&mut Input)| {
            let mut psbt = payment();
            change(&mut psbt.inputs[0]);
            match refusal(&psbt) {
                Error::FalseClaim { place: Place::Input(0), claim } => claim,
                error => panic!("{error}"),
            }
        };
        assert!(matches!(
            claim(|input| input.witness_utxo.as_mut().unwrap().script_pubkey = to_other(0).0.script_pubkey),
            Claim::Script(_)
        ));
        assert!(matches!(
            claim(|input| {
                input.tap_key_origins.clear();
                claim_own(&mut input.tap_key_origins, own(8));
            }),
            Claim::Script(_)
        ));
        assert!(matches!(
            claim(|input| input.tap_key_origins.values_mut().for_each(|(_, source)| source.0 = [1, 2, 3, 4].into())),
            Claim::Fingerprint(..)
        ));
        assert!(matches!(
            claim(|input| input
                .tap_key_origins
                .values_mut()
                .for_each(|(_, source)| source.1 = "m/86'/1'/0'/1/0".parse().unwrap())),
            Claim::Path(_)
        ));
        assert!(matches!(claim(|input| input.tap_internal_key = None), Claim::InternalKey));
        assert!(matches!(
            claim(|input| input.tap_key_origins.values_mut().for_each(|(leaves, _)| {
                use bitcoin::hashes::Hash;
                leaves.push(taproot::TapLeafHash::all_zeros());
            })),
            Claim::LeafHashes
        ));
    }

    #[test]
    fn dangerous_inputs_are_refused() {
        let mut psbt = payment();
        psbt.inputs[0].witness_utxo = None;
        assert!(matches!(refusal(&psbt), Error::MissingWitnessUtxo { input: 0 }));

        for dangerous in [TapSighashType::None, TapSighashType::AllPlusAnyoneCanPay, TapSighashType::Single] {
            let mut psbt = payment();
            psbt.inputs[0].sighash_type = Some(dangerous.into());
            assert!(matches!(refusal(&psbt), Error::SighashType { input: 0 }));
        }
        let mut psbt = payment();
        psbt.inputs[0].sighash_type = Some(PsbtSighashType::from_u32(0x55));
        assert!(matches!(refusal(&psbt), Error::SighashType { input: 0 }));

        let mut psbt = payment_with(&[own(0), own(0)], vec![to_other(199_000)]);
        psbt.unsigned_tx.input[1] = psbt.unsigned_tx.input[0].clone();
        assert!(matches!(refusal(&psbt), Error::DuplicateInput { input: 1, .. }));
    }

    /// A payment whose PSBT carries the transaction that made its coin.
    fn payment_with_previous_transaction() -> Psbt {
        let mut psbt = payment();
        let mut previous = psbt.unsigned_tx.clone();
        previous.output = vec![psbt.inputs[0].witness_utxo.clone().unwrap()];
        psbt.unsigned_tx.input[0].previous_output.txid = previous.compute_txid();
        psbt.inputs[0].non_witness_utxo = Some(previous);
        psbt
    }

    #[test]
    fn a_previous_transaction_must_be_the_one_that_made_the_coin() {
        let mut psbt = payment_with_previous_transaction();
        signer().sign(&mut psbt).unwrap();
        assert!(psbt.inputs[0].non_witness_utxo.is_some());

        let changes: [fn(&mut Psbt); 3] = [
            |psbt| psbt.unsigned_tx.input[0].previous_output.txid = payment().unsigned_tx.compute_txid(),
            |psbt| psbt.unsigned_tx.input[0].previous_output.vout = 1,
            |psbt| psbt.inputs[0].witness_utxo.as_mut().unwrap().value += Amount::ONE_SAT,
        ];
        for change in changes {
            let mut psbt = payment_with_previous_transaction();
            change(&mut psbt);
            assert!(matches!(refusal(&psbt), Error::UtxoMismatch { input: 0 }));
        }
    }

    #[test]
    fn an_input_that_is_final_already_is_left_alone() {
        let mut psbt = payment_with(&[own(0), own(1)], vec![to_other(199_000)]);
        psbt.inputs[0].final_script_witness = Some(Witness::from_slice(&[[1; 64]]));
        let before = psbt.inputs[0].clone();
        assert_eq!(signer().sign(&mut psbt).unwrap().inputs_signed, 1);
        assert_eq!(psbt.inputs[0], before);
        assert!(verifies(&psbt, 1));
    }

    #[test]
    fn impossible_amounts_are_refused() {
        let psbt = payment_with(&[own(0)], vec![to_other(100_001)]);
        assert!(matches!(refusal(&psbt), Error::OutputsExceedInputs { .. }));
        let psbt = payment_with(&[own(0)], vec![to_other(u64::MAX), to_other(2)]);
        assert!(matches!(refusal(&psbt), Error::AmountOutOfRange("outputs")));
        let mut psbt = payment();
        psbt.inputs[0].witness_utxo.as_mut().unwrap().value = Amount::from_sat(u64::MAX);
        assert!(matches!(refusal(&psbt), Error::AmountOutOfRange("inputs")));
    }

    #[test]
    fn a_psbt_that_does_not_fit_its_transaction_is_an_error_not_a_panic() {
        let changes: [fn(&mut Psbt); 4] = [
            |psbt| psbt.inputs.clear(),
            |psbt| psbt.outputs.clear(),
            |psbt| psbt.unsigned_tx.input.clear(),
            |psbt| psbt.inputs.push(Input::default()),
        ];
        for change in changes {
            let mut psbt = payment();
            change(&mut psbt);
            assert!(matches!(refusal(&psbt), Error::MalformedPsbt(_)));
        }
    }
}
