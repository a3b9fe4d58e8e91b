//! Why the signer refused, in sentences for the person in front of it. No variant ever carries key material.

use std::fmt;

use bitcoin::bip32::DerivationPath;
use bitcoin::{Network, OutPoint};

use crate::keys::network_name;

/// Every refusal and failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the mnemonic is not a valid English BIP39 phrase: {0}")]
    Mnemonic(bip39::Error),
    #[error("a key can't be derived: {0}")]
    Derivation(#[from] bitcoin::bip32::Error),

    #[error("the wallet file {path}: {source}")]
    WalletFileIo { path: String, source: std::io::Error },
    #[error("the wallet file already exists, and it may hold the only copy of a key: {0}. Name another file")]
    WalletFileExists(String),
    #[error("line {line} of the wallet file is not understood; expected network, fingerprint and mnemonic, each once")]
    WalletFileLine { line: usize },
    #[error("the wallet file has no line `{0}: ...`")]
    WalletFileMissing(&'static str),
    #[error(
        "this mnemonic and passphrase make the wallet {found}, not {expected} of the wallet file: is the passphrase right?"
    )]
    WalletFileFingerprint { expected: String, found: String },

    #[error("the input is empty; a PSBT was expected on standard input")]
    EmptyInput,
    #[error(
        "the input is a JSON object, not a PSBT. Is it the gateway's error answer? A PSBT is a bare base64 string or a JSON string"
    )]
    JsonObject,
    #[error("the input is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("the input is not a version 0 PSBT: {0}")]
    Psbt(#[from] bitcoin::psbt::Error),
    #[error("the PSBT does not fit its own transaction: {0}")]
    MalformedPsbt(&'static str),

    #[error("no input of this PSBT can be signed by wallet {fingerprint}. {hint}")]
    NothingToSign { fingerprint: String, hint: &'static str },
    #[error("{place}: {claim}")]
    FalseClaim { place: Place, claim: Claim },
    #[error("input {input} has no witness_utxo, so its amount and script are unknown")]
    MissingWitnessUtxo { input: usize },
    #[error("input {input}: witness_utxo and non_witness_utxo disagree about the coin")]
    UtxoMismatch { input: usize },
    #[error("input {input} spends {outpoint} a second time")]
    DuplicateInput { input: usize, outpoint: OutPoint },
    #[error(
        "input {input} asks for another signature hash type than DEFAULT or ALL, which would let others change the transaction"
    )]
    SighashType { input: usize },
    #[error(
        "input {input} is worth 0 sat: that is a signed message, not a coin, and the PSBT does not carry a message"
    )]
    ZeroValueInput { input: usize },
    #[error("the amounts of the {0} add up to more than there are bitcoins")]
    AmountOutOfRange(&'static str),
    #[error("the outputs ({outputs}) are worth more than the inputs ({inputs})")]
    OutputsExceedInputs { inputs: String, outputs: String },
    #[error("the signature hash can't be computed: {0}")]
    Sighash(#[from] bitcoin::sighash::TaprootError),

    #[error("the authorisation's message is not understood: {0}")]
    Message(String),
    #[error("the authorisation is for the chain {found}, this wallet is on {}, whose chain is {expected}", network_name(*network))]
    WrongChain { found: String, expected: String, network: Network },
    #[error(
        "the authorisation is not the to_sign transaction of BIP-322: version 0, lock time 0, one input with sequence 0, one empty OP_RETURN output of value 0"
    )]
    NotToSign,
    #[error("the message does not hash to the authorisation's input: what you were shown is not what you would sign")]
    MessageMismatch,
    #[error("the authorisation must be signed by the key vanilla /0/0 of this wallet, but asks for {0}")]
    AuthorizationKey(String),
    #[error(
        "this is a spending grant: it lets a key spend without asking again. If that is what you want, sign it with the command grant"
    )]
    IsAGrant,
    #[error("this is no spending grant; sign it with the command sign")]
    IsNoGrant,
    #[error(
        "this is an export: it lets whoever holds it and its password see every asset of the wallet. If that is what you want, sign it with the command export"
    )]
    IsAnExport,
    #[error("this is no export; sign it with the command sign")]
    IsNoExport,
    #[error("the grant is for the key {found}, you expected {expected}")]
    UnexpectedKey { found: String, expected: String },
    #[error("the BIP-322 transactions can't be built: {0}")]
    Bip322(String),

    #[error("{name}: {reason}")]
    BadLimit { name: &'static str, reason: String },
    #[error("the authorisation is for the gateway {found}, you expected {expected}")]
    UnexpectedGateway { found: String, expected: String },
    #[error("you expected a certain gateway, but this is an on-chain transaction, which names none")]
    NoGateway,
    #[error("it pays {found}, you expected {expected}")]
    UnexpectedRecipient { found: String, expected: String },
    #[error("no output pays {0}, which you expected")]
    RecipientNotPaid(String),
    #[error("it spends {amount}, more than the {limit} you allow")]
    AmountTooHigh { amount: String, limit: String },
    #[error("it spends {amount}, which can't be compared with the limit of {limit}")]
    AmountNotComparable { amount: String, limit: String },
    #[error("the fee of {fee} is more than {limit}. If that is what you want, allow it with a higher fee limit")]
    FeeTooHigh { fee: String, limit: String },
}

/// Which part of a PSBT is meant; counted from 0 as in other PSBT tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Input(usize),
    Output(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Input(index) => write!(f, "input {index}"),
            Place::Output(index) => write!(f, "output {index}"),
        }
    }
}

/// How a PSBT was wrong when it said that a script is ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Claim {
    #[error("says to be the wallet's key {0}, but its script is another one")]
    Script(DerivationPath),
    #[error("names the key {0} of this wallet under the foreign master fingerprint {1}")]
    Fingerprint(DerivationPath, bitcoin::bip32::Fingerprint),
    #[error("has a derivation path of another network ({path}); this wallet is on {}", network_name(*network))]
    Network { path: DerivationPath, network: Network },
    #[error("has the derivation path {0}; only keychain 0 of the vanilla and the colored account is signed")]
    Path(DerivationPath),
    #[error("wants a script-path signature; only the key path is signed")]
    LeafHashes,
    #[error("has no tap_internal_key, or one that is not the key of its derivation path")]
    InternalKey,
}
