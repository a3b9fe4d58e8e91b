//! A signer as the contract describes it, and nothing more: it reads of a PSBT only what the contract promises, signs the first keychain
//! of both accounts by key path, and gives back the signed inputs stripped of everything else.

use std::str::FromStr;

use bitcoin::bip32::{DerivationPath, Xpriv};
use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::secp256k1::{Message, Secp256k1};
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::{Network, Psbt, TapSighashType, TxOut, Witness};

/// The accounts of the contract on every network but mainnet, each with its only keychain.
const KEYCHAINS: [&str; 2] = ["86'/1'/0'/0", "86'/827167'/0'/0"];

/// The wallet that the contract names for tests.
pub const PUBLIC: &str = "split capable text loop dream live outside suspect eight carry fine relax";

/// Signs for the public wallet, as text in and text out.
pub fn sign(psbt: &str) -> String {
    let secp = Secp256k1::new();
    let seed = bip39::Mnemonic::parse(PUBLIC).expect("a mnemonic").to_seed("");
    let master = Xpriv::new_master(Network::Regtest, &seed).expect("a seed");
    let given = Psbt::from_str(psbt).expect("a PSBT");
    let mut bare = Psbt::from_unsigned_tx(given.unsigned_tx.clone()).expect("an unsigned transaction");
    let coins: Vec<TxOut> =
        given.inputs.iter().map(|input| input.witness_utxo.clone().expect("each input has its coin")).collect();
    for (place, input) in given.inputs.iter().enumerate() {
        let key = input.tap_internal_key.expect("each input has its internal key");
        let (leaves, (fingerprint, path)) = input.tap_key_origins.get(&key).expect("and where that comes from");
        assert!(leaves.is_empty(), "a key of a script is not signed for");
        assert_eq!(*fingerprint, master.fingerprint(&secp), "another wallet's");
        require_known(path);
        let derived = master.derive_priv(&secp, path).expect("a key");
        let pair = Keypair::from_secret_key(&secp, &derived.private_key);
        assert_eq!(pair.x_only_public_key().0, key, "the path leads to the key");
        let mut cache = SighashCache::new(&given.unsigned_tx);
        let hash = cache
            .taproot_key_spend_signature_hash(place, &Prevouts::All(&coins), TapSighashType::Default)
            .expect("a hash to sign");
        let tweaked = pair.tap_tweak(&secp, None).to_keypair();
        let signature = secp.sign_schnorr_no_aux_rand(&Message::from_digest(hash.to_byte_array()), &tweaked);
        let signed = &mut bare.inputs[place];
        signed.witness_utxo = input.witness_utxo.clone();
        signed.final_script_witness = Some(Witness::from_slice(&[signature.serialize()]));
    }
    bare.to_string()
}

fn require_known(path: &DerivationPath) {
    let text = path.to_string();
    let known = KEYCHAINS.iter().any(|keychain| {
        text.strip_prefix(keychain).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| !rest.contains('/'))
    });
    assert!(known, "{text} is of no keychain that the signer signs");
}
