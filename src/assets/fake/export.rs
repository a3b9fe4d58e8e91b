//! An export: the books of a wallet, sealed so that they say nothing to whoever lacks the password. Not made to keep a secret.

use bitcoin::hashes::{Hash, HashEngine, sha256};

use super::wallet::Wallet;

/// How every export begins.
const MARK: &[u8] = b"fake RGB export\n";
const CHECK_LEN: usize = 32;

/// What is under way stays behind.
pub(super) fn seal(wallet: &Wallet, password: &str) -> Vec<u8> {
    // proof: numbers and texts, with names for keys
    let plain = serde_json::to_vec(wallet).expect("it has a form in JSON");
    let check = sha256::Hash::hash(&plain).to_byte_array();
    [MARK, &check, &mixed(&plain, &check, password)].concat()
}

/// Nothing when it is no export, or of another password.
pub(super) fn open(sealed: &[u8], password: &str) -> Option<Wallet> {
    let (check, mixed_up) = sealed.strip_prefix(MARK)?.split_at_checked(CHECK_LEN)?;
    let plain = mixed(mixed_up, check, password);
    if sha256::Hash::hash(&plain).to_byte_array() != check {
        return None;
    }
    serde_json::from_slice(&plain).ok()
}

/// Twice is not at all.
fn mixed(bytes: &[u8], salt: &[u8], password: &str) -> Vec<u8> {
    let block = |number: u64| {
        let mut engine = sha256::Hash::engine();
        for part in [salt, password.as_bytes(), &number.to_be_bytes()] {
            engine.input(part);
        }
        sha256::Hash::from_engine(engine).to_byte_array()
    };
    let stream = (0..).flat_map(block);
    bytes.iter().zip(stream).map(|(byte, other)| byte ^ other).collect()
}
