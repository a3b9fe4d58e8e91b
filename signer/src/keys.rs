//! The keys of a wallet: two BIP86 accounts, of each only keychain 0.

use std::collections::BTreeMap;
use std::fmt;

use bip39::{Language, Mnemonic};
use bitcoin::bip32::{ChildNumber, DerivationPath, Fingerprint, KeySource, Xpriv, Xpub};
use bitcoin::key::Keypair;
use bitcoin::secp256k1::{All, Secp256k1};
use bitcoin::taproot::TapLeafHash;
use bitcoin::{Address, Network, NetworkKind, Script, ScriptBuf, XOnlyPublicKey};

use crate::error::{Claim, Error};

const PURPOSE: u32 = 86;
/// Receive and change share it: with a colored input, known signers sign nothing else.
const KEYCHAIN: ChildNumber = ChildNumber::Normal { index: 0 };

/// Networks by the names that people use; bitcoin's own calls mainnet "bitcoin".
const NETWORKS: [(&str, Network); 4] = [
    ("mainnet", Network::Bitcoin),
    ("testnet", Network::Testnet),
    ("signet", Network::Signet),
    ("regtest", Network::Regtest),
];

/// Which of a wallet's two accounts a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Account {
    /// Bitcoin; receive and change.
    Vanilla,
    /// RGB assets and the bitcoin that carries them.
    Colored,
}

impl Account {
    const ALL: [Account; 2] = [Account::Vanilla, Account::Colored];

    fn coin_type(self, kind: NetworkKind) -> u32 {
        match (self, kind) {
            (Account::Vanilla, NetworkKind::Main) => 0,
            (Account::Vanilla, NetworkKind::Test) => 1,
            (Account::Colored, NetworkKind::Main) => 827_166,
            (Account::Colored, NetworkKind::Test) => 827_167,
        }
    }
}

/// A key of a wallet: keychain 0 of an account, and its index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyPath {
    pub account: Account,
    pub index: u32,
}

impl KeyPath {
    /// The key that signs every authorisation.
    pub const AUTHORIZATION: KeyPath = KeyPath { account: Account::Vanilla, index: 0 };
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let account = match self.account {
            Account::Vanilla => "vanilla",
            Account::Colored => "colored",
        };
        write!(f, "{account} /0/{}", self.index)
    }
}

/// A key of ours that a PSBT names, after its script was derived and found right.
pub(crate) struct OwnKey {
    pub path: KeyPath,
    pub internal: XOnlyPublicKey,
}

/// The triple that names a wallet to a gateway. Public.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalletXpubs {
    pub xpub_van: Xpub,
    pub xpub_col: Xpub,
    pub master_fingerprint: Fingerprint,
}

impl WalletXpubs {
    /// The three wallet headers of every call to the gateway.
    pub fn headers(&self) -> [(&'static str, String); 3] {
        [
            ("xpub-van", self.xpub_van.to_string()),
            ("xpub-col", self.xpub_col.to_string()),
            ("master-fingerprint", self.master_fingerprint.to_string()),
        ]
    }
}

/// Holds a wallet's private keys. Cheap to sign with, costly (PBKDF2) to make: make one and keep it.
pub struct Signer {
    pub(crate) secp: Secp256k1<All>,
    network: Network,
    xpubs: WalletXpubs,
    vanilla: Keychain,
    colored: Keychain,
}

/// Keychain 0 of an account. The public half is enough, and faster, for all but signing.
struct Keychain {
    public: Xpub,
    private: Xpriv,
}

/// Names the wallet, never a key.
impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("network", &self.network)
            .field("master_fingerprint", &self.xpubs.master_fingerprint)
            .finish_non_exhaustive()
    }
}

impl Signer {
    pub fn from_mnemonic(network: Network, mnemonic: &str, passphrase: &str) -> Result<Self, Error> {
        let mnemonic = Mnemonic::parse_in(Language::English, mnemonic).map_err(Error::Mnemonic)?;
        let secp = Secp256k1::new();
        let master = Xpriv::new_master(network, &mnemonic.to_seed(passphrase))?;
        let account = |account: Account| master.derive_priv(&secp, &account_path(account, network)?);
        let (vanilla, colored) = (account(Account::Vanilla)?, account(Account::Colored)?);
        Ok(Signer {
            network,
            xpubs: WalletXpubs {
                xpub_van: Xpub::from_priv(&secp, &vanilla),
                xpub_col: Xpub::from_priv(&secp, &colored),
                master_fingerprint: master.fingerprint(&secp),
            },
            vanilla: Keychain::of(&vanilla, &secp)?,
            colored: Keychain::of(&colored, &secp)?,
            secp,
        })
    }

    pub fn network(&self) -> Network {
        self.network
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.xpubs.master_fingerprint
    }

    pub fn wallet_xpubs(&self) -> WalletXpubs {
        self.xpubs
    }

    pub fn address(&self, key: KeyPath) -> Result<Address, Error> {
        let (internal, _) = self.derive(key)?;
        Ok(Address::p2tr(&self.secp, internal, None, self.network))
    }

    /// The untweaked key pair; its taproot output key commits to no scripts.
    pub(crate) fn keypair(&self, key: KeyPath) -> Result<Keypair, Error> {
        let child = ChildNumber::from_normal_idx(key.index)?;
        Ok(self.keychain(key.account).private.derive_priv(&self.secp, &[child])?.to_keypair(&self.secp))
    }

    /// The internal key, and the script of its taproot output.
    pub(crate) fn derive(&self, key: KeyPath) -> Result<(XOnlyPublicKey, ScriptBuf), Error> {
        let child = ChildNumber::from_normal_idx(key.index)?;
        let internal = self.keychain(key.account).public.derive_pub(&self.secp, &[child])?.to_x_only_pub();
        Ok((internal, ScriptBuf::new_p2tr(&self.secp, internal, None)))
    }

    fn keychain(&self, account: Account) -> &Keychain {
        match account {
            Account::Vanilla => &self.vanilla,
            Account::Colored => &self.colored,
        }
    }

    /// Whose script this is, as far as the PSBT's derivations say so *and* deriving the script confirms it.
    /// A derivation is a hint from whoever made the PSBT; a wrong one about our own keys is an error, not a "no".
    pub(crate) fn owner(&self, derivations: &Derivations, script: &Script) -> Result<Option<OwnKey>, Claim> {
        for (public_key, (leaf_hashes, (fingerprint, path))) in derivations {
            let ours = *fingerprint == self.fingerprint();
            let key = match self.locate(path) {
                Ok(key) => key,
                Err(claim) if ours => return Err(claim),
                Err(_) => continue,
            };
            let (derived, derived_script) = self.derive(key).map_err(|_| Claim::Path(path.clone()))?;
            match (ours, derived == *public_key) {
                (false, true) => return Err(Claim::Fingerprint(path.clone(), *fingerprint)),
                (false, false) => continue,
                (true, _) if !leaf_hashes.is_empty() => return Err(Claim::LeafHashes),
                (true, true) if *derived_script == *script => return Ok(Some(OwnKey { path: key, internal: derived })),
                (true, _) => return Err(Claim::Script(path.clone())),
            }
        }
        Ok(None)
    }

    fn locate(&self, path: &DerivationPath) -> Result<KeyPath, Claim> {
        let numbers: &[ChildNumber] = path.as_ref();
        let foreign_network = match NetworkKind::from(self.network) {
            NetworkKind::Main => NetworkKind::Test,
            NetworkKind::Test => NetworkKind::Main,
        };
        for account in Account::ALL {
            if let Some(index) = index_below(account, self.network.into(), numbers) {
                return Ok(KeyPath { account, index });
            }
            if index_below(account, foreign_network, numbers).is_some() {
                return Err(Claim::Network { path: path.clone(), network: self.network });
            }
        }
        Err(Claim::Path(path.clone()))
    }
}

/// The name of a network in wallet files, options and descriptions.
pub fn network_name(network: Network) -> &'static str {
    NETWORKS.iter().find(|(_, known)| *known == network).map_or("another network", |(name, _)| name)
}

/// The network of a name that [`network_name`] gives.
pub fn network_from_name(name: &str) -> Option<Network> {
    NETWORKS.iter().find(|(known, _)| *known == name).map(|(_, network)| *network)
}

impl Keychain {
    fn of(account: &Xpriv, secp: &Secp256k1<All>) -> Result<Self, bitcoin::bip32::Error> {
        let private = account.derive_priv(secp, &[KEYCHAIN])?;
        Ok(Keychain { public: Xpub::from_priv(secp, &private), private })
    }
}

/// The field `tap_key_origins` of a PSBT's input or output.
pub(crate) type Derivations = BTreeMap<XOnlyPublicKey, (Vec<TapLeafHash>, KeySource)>;

fn account_path(account: Account, kind: impl Into<NetworkKind>) -> Result<[ChildNumber; 3], bitcoin::bip32::Error> {
    Ok([
        ChildNumber::from_hardened_idx(PURPOSE)?,
        ChildNumber::from_hardened_idx(account.coin_type(kind.into()))?,
        ChildNumber::from_hardened_idx(0)?,
    ])
}

fn index_below(account: Account, kind: NetworkKind, numbers: &[ChildNumber]) -> Option<u32> {
    let rest = numbers.strip_prefix(&account_path(account, kind).ok()?)?;
    match rest {
        [KEYCHAIN, ChildNumber::Normal { index }] => Some(*index),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{MNEMONIC, signer};

    #[test]
    fn the_public_test_wallet_has_the_addresses_of_the_spec() {
        let signer = signer();
        assert_eq!(signer.fingerprint().to_string(), "1f5bd7df");
        assert_eq!(
            signer.address(KeyPath { account: Account::Vanilla, index: 0 }).unwrap().to_string(),
            "bcrt1pvpmd0cuvyha2sjylhr57kd6t8x9jrju8f063mdvkmk4c5uq464qqjpeapm"
        );
        assert_eq!(
            signer.address(KeyPath { account: Account::Colored, index: 0 }).unwrap().to_string(),
            "bcrt1pv2fgz4w4ld6sxjlg9gt2lyxcgau877n7paya2l5jtvuaek4djjds4jqc7y"
        );
    }

    /// The first receive address of the test vectors in BIP86 itself: an anchor outside this project.
    #[test]
    fn mainnet_derives_as_bip86_says() {
        let mnemonic = format!("{}about", "abandon ".repeat(11));
        let signer = Signer::from_mnemonic(Network::Bitcoin, &mnemonic, "").unwrap();
        assert_eq!(
            signer.address(KeyPath { account: Account::Vanilla, index: 0 }).unwrap().to_string(),
            "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"
        );
        assert_eq!(
            signer.wallet_xpubs().xpub_van.to_string(),
            "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ"
        );
    }

    #[test]
    fn account_xpubs_carry_the_network_and_depth_3() {
        for (network, prefix) in [(Network::Bitcoin, "xpub"), (Network::Signet, "tpub"), (Network::Regtest, "tpub")] {
            let xpubs = Signer::from_mnemonic(network, MNEMONIC, "").unwrap().wallet_xpubs();
            assert!(xpubs.xpub_van.to_string().starts_with(prefix));
            assert!(xpubs.xpub_col.to_string().starts_with(prefix));
            assert_eq!((xpubs.xpub_van.depth, xpubs.xpub_col.depth), (3, 3));
            assert_ne!(xpubs.xpub_van, xpubs.xpub_col);
        }
    }

    #[test]
    fn a_passphrase_makes_another_wallet() {
        let other = Signer::from_mnemonic(Network::Regtest, MNEMONIC, "x").unwrap();
        assert_ne!(other.wallet_xpubs(), signer().wallet_xpubs());
    }

    #[test]
    fn neither_debug_nor_errors_say_a_secret() {
        let shown = format!("{:?}", signer());
        for word in MNEMONIC.split(' ') {
            assert!(!shown.contains(word), "{shown}");
        }
        assert!(!shown.contains("prv") && !shown.contains("private"), "{shown}");
        let error = Signer::from_mnemonic(Network::Regtest, "split capable hunter2", "").unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("capable"), "{shown}");
    }

    #[test]
    fn only_keychain_0_of_the_two_accounts_is_ours() {
        let signer = signer();
        let locate = |path: &str| signer.locate(&path.parse().unwrap());
        assert_eq!(locate("m/86'/1'/0'/0/7"), Ok(KeyPath { account: Account::Vanilla, index: 7 }));
        assert_eq!(locate("m/86'/827167'/0'/0/3"), Ok(KeyPath { account: Account::Colored, index: 3 }));
        for path in ["m/86'/0'/0'/0/0", "m/86'/827166'/0'/0/0"] {
            assert!(matches!(locate(path), Err(Claim::Network { .. })), "{path}");
        }
        for path in ["m/86'/1'/0'/1/0", "m/86'/1'/1'/0/0", "m/84'/1'/0'/0/0", "m/86'/1'/0'/0/0'", "m/86'/1'/0'/0", "m"]
        {
            assert!(matches!(locate(path), Err(Claim::Path(_))), "{path}");
        }
    }
}
