//! The file that keeps a mnemonic: three lines of text that a person can read and copy.
//!
//! A passphrase is never in it. The fingerprint is, so that a wrong passphrase is an error and not another, empty
//! wallet.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bip39::{Language, Mnemonic};
use bitcoin::Network;
use bitcoin::secp256k1::rand::{RngCore as _, rngs::OsRng};

use crate::error::Error;
use crate::keys::{Signer, network_from_name, network_name};

const HEADER: &str = "# A sluice-signer wallet. Whoever reads this file can spend its coins.";
/// 128 bits make 12 words.
const ENTROPY_LEN: usize = 16;

/// A wallet file on disk. Holds no secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletFile {
    path: PathBuf,
}

impl WalletFile {
    pub fn at(path: impl Into<PathBuf>) -> Self {
        WalletFile { path: path.into() }
    }

    /// Makes a wallet, with new words from the system's randomness unless some are given. Never overwrites a file.
    pub fn create(&self, network: Network, mnemonic: Option<&str>, passphrase: &str) -> Result<Signer, Error> {
        let words = match mnemonic {
            Some(words) => words.split_whitespace().collect::<Vec<_>>().join(" "),
            None => generate_mnemonic()?,
        };
        let signer = Signer::from_mnemonic(network, &words, passphrase)?;
        let text = format!(
            "{HEADER}\nnetwork: {}\nfingerprint: {}\nmnemonic: {words}\n",
            network_name(network),
            signer.fingerprint()
        );
        self.write_new(&text)?;
        Ok(signer)
    }

    pub fn open(&self, passphrase: &str) -> Result<Signer, Error> {
        let text = fs::read_to_string(&self.path).map_err(|source| self.io_error(source))?;
        let wallet = parse(&text)?;
        let signer = Signer::from_mnemonic(wallet.network, wallet.mnemonic, passphrase)?;
        let found = signer.fingerprint().to_string();
        if found != wallet.fingerprint {
            return Err(Error::WalletFileFingerprint { expected: wallet.fingerprint.to_owned(), found });
        }
        Ok(signer)
    }

    /// Whether others on this machine can read the file; unknown counts as no.
    pub fn is_exposed(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| readable_by_others(&metadata))
    }

    fn write_new(&self, text: &str) -> Result<(), Error> {
        let mut file = private_options().open(&self.path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => Error::WalletFileExists(self.path.display().to_string()),
            _ => self.io_error(source),
        })?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(|source| {
            // Half a wallet must not stand in the way of the next try; it was made a moment ago and by us.
            drop(fs::remove_file(&self.path));
            self.io_error(source)
        })
    }

    fn io_error(&self, source: io::Error) -> Error {
        Error::WalletFileIo { path: self.path.display().to_string(), source }
    }
}

impl AsRef<Path> for WalletFile {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

struct Parsed<'a> {
    network: Network,
    fingerprint: &'a str,
    mnemonic: &'a str,
}

/// Errors name a line by its number, never by its text: it may be the secret one.
fn parse(text: &str) -> Result<Parsed<'_>, Error> {
    let (mut network, mut fingerprint, mut mnemonic) = (None, None, None);
    for (index, line) in text.lines().enumerate() {
        let unclear = || Error::WalletFileLine { line: index + 1 };
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once(": ").ok_or_else(unclear)?;
        let earlier = match key {
            "network" => network.replace(network_from_name(value).ok_or_else(unclear)?).is_some(),
            "fingerprint" => fingerprint.replace(value).is_some(),
            "mnemonic" => mnemonic.replace(value).is_some(),
            _ => true,
        };
        if earlier {
            return Err(unclear());
        }
    }
    Ok(Parsed {
        network: network.ok_or(Error::WalletFileMissing("network"))?,
        fingerprint: fingerprint.ok_or(Error::WalletFileMissing("fingerprint"))?,
        mnemonic: mnemonic.ok_or(Error::WalletFileMissing("mnemonic"))?,
    })
}

fn generate_mnemonic() -> Result<String, Error> {
    let mut entropy = [0; ENTROPY_LEN];
    OsRng.fill_bytes(&mut entropy);
    let mnemonic = Mnemonic::from_entropy_in(Language::English, &entropy).map_err(Error::Mnemonic)?;
    Ok(mnemonic.to_string())
}

/// The mode is given at creation, so that the file is never readable by others, not even for a moment.
fn private_options() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(unix)]
fn readable_by_others(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0
}

#[cfg(not(unix))]
fn readable_by_others(_: &fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{MNEMONIC, signer};

    fn place() -> (tempfile::TempDir, WalletFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = WalletFile::at(folder.path().join("wallet"));
        (folder, file)
    }

    #[test]
    fn a_wallet_comes_back_from_its_file() {
        let (_folder, file) = place();
        let spaced = MNEMONIC.replace(' ', "  ") + "\n";
        file.create(Network::Regtest, Some(&spaced), "").unwrap();
        assert_eq!(file.open("").unwrap().wallet_xpubs(), signer().wallet_xpubs());
        assert!(matches!(file.open("wrong"), Err(Error::WalletFileFingerprint { .. })));
    }

    #[test]
    fn new_wallets_differ() {
        let (_one, one) = place();
        let (_two, two) = place();
        let first = one.create(Network::Signet, None, "").unwrap();
        let second = two.create(Network::Signet, None, "").unwrap();
        assert_ne!(first.wallet_xpubs(), second.wallet_xpubs());
        assert_eq!(one.open("").unwrap().network(), Network::Signet);
    }

    #[test]
    fn a_file_is_never_overwritten() {
        let (_folder, file) = place();
        fs::write(&file, "precious").unwrap();
        assert!(matches!(file.create(Network::Regtest, None, ""), Err(Error::WalletFileExists(_))));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_can_read_a_new_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_folder, file) = place();
        file.create(Network::Regtest, None, "").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!file.is_exposed());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(file.is_exposed());
    }

    #[test]
    fn a_broken_file_is_an_error_that_does_not_quote_it() {
        let good = format!("network: regtest\nfingerprint: 1f5bd7df\nmnemonic: {MNEMONIC}\n");
        assert!(parse(&good).is_ok());
        for (from, to) in [
            ("mnemonic: ", "mnemonic "),
            ("mnemonic: ", "words: "),
            ("network: regtest", "network: dogecoin"),
            ("network: regtest\n", ""),
            ("fingerprint: 1f5bd7df\n", ""),
            ("network: regtest", "network: regtest\nnetwork: regtest"),
        ] {
            let error = parse(&good.replacen(from, to, 1)).map(|_| ()).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("capable"), "{shown}");
        }
    }
}
