//! PSBTs of the public test wallet, shaped like a gateway's.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::psbt::{Input, Output, Psbt, raw};
use bitcoin::transaction::Version;
use bitcoin::{Amount, Network, OutPoint, Sequence, Transaction, TxIn, TxOut, Txid};

use crate::keys::{Account, Derivations, KeyPath, Signer};

/// The public test wallet: never send money to it.
pub const MNEMONIC: &str = "split capable text loop dream live outside suspect eight carry fine relax";
pub const OTHER_ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const COIN: Amount = Amount::from_sat(100_000);

pub fn signer() -> Signer {
    Signer::from_mnemonic(Network::Regtest, MNEMONIC, "").unwrap()
}

pub fn own(index: u32) -> KeyPath {
    KeyPath { account: Account::Vanilla, index }
}

/// Says, truly or not, that something belongs to a key of the test wallet.
pub fn claim_own(derivations: &mut Derivations, key: KeyPath) {
    derive_into(&signer(), derivations, key);
}

fn derive_into(signer: &Signer, derivations: &mut Derivations, key: KeyPath) {
    let account = match key.account {
        Account::Vanilla => 1,
        Account::Colored => 827_167,
    };
    let path = format!("m/86'/{account}'/0'/0/{}", key.index).parse().unwrap();
    derivations.insert(signer.derive(key).unwrap().0, (Vec::new(), (signer.fingerprint(), path)));
}

pub fn input_of(signer: &Signer, key: KeyPath) -> Input {
    let (internal, script_pubkey) = signer.derive(key).unwrap();
    let mut input = Input {
        witness_utxo: Some(TxOut { value: COIN, script_pubkey }),
        tap_internal_key: Some(internal),
        ..Input::default()
    };
    derive_into(signer, &mut input.tap_key_origins, key);
    input
}

pub fn to_other(sat: u64) -> (TxOut, Option<KeyPath>) {
    let address = crate::authorization::parse_address(OTHER_ADDRESS, Network::Regtest).unwrap();
    (TxOut { value: Amount::from_sat(sat), script_pubkey: address.script_pubkey() }, None)
}

pub fn to_own(sat: u64, key: KeyPath) -> (TxOut, Option<KeyPath>) {
    let script_pubkey = signer().derive(key).unwrap().1;
    (TxOut { value: Amount::from_sat(sat), script_pubkey }, Some(key))
}

/// One coin of 100,000 sat; 60,000 to a stranger, 39,000 change.
pub fn payment() -> Psbt {
    payment_with(&[own(0)], vec![to_other(60_000), to_own(39_000, own(1))])
}

/// Spends one coin of 100,000 sat for each key.
pub fn payment_with(keys: &[KeyPath], outputs: Vec<(TxOut, Option<KeyPath>)>) -> Psbt {
    let signer = signer();
    let txin = |vout| TxIn {
        previous_output: OutPoint { txid: Txid::from_byte_array([7; 32]), vout },
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        ..TxIn::default()
    };
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: (0..).take(keys.len()).map(txin).collect(),
        output: outputs.iter().map(|(txout, _)| txout.clone()).collect(),
    };
    let mut psbt = Psbt::from_unsigned_tx(transaction).unwrap();
    psbt.inputs = keys.iter().map(|key| input_of(&signer, *key)).collect();
    for (output, key) in psbt.outputs.iter_mut().zip(outputs.iter().map(|(_, key)| key)) {
        if let Some(key) = key {
            *output = Output { tap_internal_key: Some(signer.derive(*key).unwrap().0), ..Output::default() };
            derive_into(&signer, &mut output.tap_key_origins, *key);
        }
    }
    psbt
}

pub fn message() -> String {
    [
        "Sluice spend authorization v1",
        "gateway: 00112233445566aa",
        "chain: 0f9188f13cb7b2c7",
        "wallet: 1122334455667788",
        "request: 0123456789abcdef0123456789abcdef",
        "kind: pay",
        &format!("to: {}", "ab".repeat(32)),
        "amount: 123456 msat",
        "max_fee: 3000 msat",
        "expires: 2026-01-31T12:00:00Z",
    ]
    .join("\n")
}

pub fn grant_message() -> String {
    format!(
        "Sluice spending grant v1\ngateway: 00112233445566aa\nchain: 0f9188f13cb7b2c7\nwallet: 1122334455667788\n\
         key: 0123456789ab\nkey_hash: {}\nlimit: 1000000000 msat per day\nlimit: 5000000000 msat per month\n\
         per_payment: 50000000 msat\nexpires: 2026-01-31T12:00:00Z",
        "cd".repeat(16)
    )
}

pub fn export_message() -> String {
    "Sluice RGB state export v1\ngateway: 00112233445566aa\nchain: 0f9188f13cb7b2c7\nwallet: 1122334455667788\n\
     export: 0123456789abcdef0123456789abcdef\nexpires: 2026-01-31T12:00:00Z"
        .to_owned()
}

pub fn authorization(message: &str) -> Psbt {
    authorization_by(&signer(), KeyPath::AUTHORIZATION, message)
}

pub fn authorization_by(signer: &Signer, key: KeyPath, message: &str) -> Psbt {
    let to_spend = bip322::create_to_spend(&signer.address(key).unwrap(), message).unwrap();
    let mut psbt = bip322::create_to_sign(&to_spend, None, bip322::LockParams::default()).unwrap();
    psbt.inputs[0] = Input {
        witness_utxo: Some(to_spend.output[0].clone()),
        non_witness_utxo: Some(to_spend),
        ..input_of(signer, key)
    };
    psbt.unknown.insert(raw::Key { type_value: 9, key: Vec::new() }, message.as_bytes().to_vec());
    psbt
}
