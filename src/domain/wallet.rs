//! A wallet as the gateway knows it: two account keys and a fingerprint, and the scripts that follow from them.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock, OnceLock};

use bitcoin::bip32::{ChildNumber, DerivationPath, Fingerprint, Xpub};
use bitcoin::secp256k1::{Secp256k1, VerifyOnly};
use bitcoin::{Address, Network, NetworkKind, ScriptBuf, XOnlyPublicKey};

use crate::ids::WalletId;

static SECP: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);

/// Account keys sit at depth three: purpose, coin, account.
const ACCOUNT_DEPTH: u8 = 3;
/// One keychain serves receive and change: what known signers can sign.
const KEYCHAIN: ChildNumber = ChildNumber::Normal { index: 0 };

/// The two accounts of a wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Account {
    /// Bitcoin.
    Vanilla,
    /// Coins that carry RGB assets.
    Colored,
}

impl Account {
    pub const ALL: [Self; 2] = [Self::Vanilla, Self::Colored];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vanilla => "vanilla",
            Self::Colored => "colored",
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Account {
    type Err = UnknownAccount;
    fn from_str(text: &str) -> Result<Self, UnknownAccount> {
        match text {
            "vanilla" => Ok(Self::Vanilla),
            "colored" => Ok(Self::Colored),
            _ => Err(UnknownAccount),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no account of this name")]
pub struct UnknownAccount;

/// Why a triple of headers names no wallet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    #[error("{header} is not an extended public key: {reason}")]
    NotAnXpub { header: &'static str, reason: String },
    #[error(
        "{header} is a private key: take it out of what you send and of every log that has seen it, and move what it guards to other keys"
    )]
    IsPrivate { header: &'static str },
    #[error("{header} is a key of another network")]
    WrongNetwork { header: &'static str },
    #[error("{header} has depth {depth}; an account key has depth 3")]
    WrongDepth { header: &'static str, depth: u8 },
    #[error("xpub-van and xpub-col are the same key; a wallet needs two")]
    SameKey,
    #[error("master-fingerprint is not 8 hexadecimal characters")]
    BadFingerprint,
}

impl BadKeys {
    /// The header to name in the answer.
    #[must_use]
    pub const fn header(&self) -> &'static str {
        match self {
            Self::NotAnXpub { header, .. }
            | Self::IsPrivate { header }
            | Self::WrongNetwork { header }
            | Self::WrongDepth { header, .. } => header,
            Self::SameKey => "xpub-col",
            Self::BadFingerprint => "master-fingerprint",
        }
    }
}

/// A script of a wallet and what a signer needs to know to sign for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivedScript {
    pub account: Account,
    pub index: u32,
    pub script: ScriptBuf,
    pub internal_key: XOnlyPublicKey,
}

/// The triple that names a wallet, parsed and checked against this gateway's network.
#[derive(Clone, Debug)]
pub struct WalletKeys {
    van: Xpub,
    col: Xpub,
    fingerprint: Fingerprint,
    network: Network,
    derived: Arc<Derived>,
}

/// What follows from the keys and is asked for by nearly every call: worked out the first time, for all copies.
#[derive(Debug, Default)]
struct Derived {
    id: OnceLock<WalletId>,
    first: OnceLock<Option<DerivedScript>>,
}

impl PartialEq for WalletKeys {
    fn eq(&self, other: &Self) -> bool {
        let parts = |keys: &Self| (keys.van, keys.col, keys.fingerprint, keys.network);
        parts(self) == parts(other)
    }
}

impl Eq for WalletKeys {}

impl WalletKeys {
    /// # Errors
    /// When a header is malformed, of another network, or both keys are one.
    pub fn parse(xpub_van: &str, xpub_col: &str, fingerprint: &str, network: Network) -> Result<Self, BadKeys> {
        let van = parse_xpub("xpub-van", xpub_van, network)?;
        let col = parse_xpub("xpub-col", xpub_col, network)?;
        if van.public_key == col.public_key && van.chain_code == col.chain_code {
            return Err(BadKeys::SameKey);
        }
        let fingerprint = Fingerprint::from_str(fingerprint).map_err(|_| BadKeys::BadFingerprint)?;
        Ok(Self { van, col, fingerprint, network, derived: Arc::default() })
    }

    #[must_use]
    pub fn id(&self) -> WalletId {
        let derive =
            || WalletId::of_triple(&self.xpub(Account::Vanilla), &self.xpub(Account::Colored), &self.fingerprint());
        self.derived.id.get_or_init(derive).clone()
    }

    #[must_use]
    pub fn xpub(&self, account: Account) -> String {
        self.account_key(account).to_string()
    }

    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.fingerprint.to_string()
    }

    #[must_use]
    pub const fn network(&self) -> Network {
        self.network
    }

    /// What makes an account key this key, whatever an encoding says of its parent: key and chain code.
    #[must_use]
    pub fn key_material(&self, account: Account) -> String {
        let key = self.account_key(account);
        format!("{}{}", key.public_key, key.chain_code)
    }

    /// The scripts at these indexes, in order.
    #[must_use]
    pub fn scripts(&self, account: Account, indexes: std::ops::Range<u32>) -> Vec<DerivedScript> {
        let Ok(keychain) = self.account_key(account).ckd_pub(&*SECP, KEYCHAIN) else { return Vec::new() };
        indexes.filter_map(|index| derive(&keychain, account, index)).collect()
    }

    /// The first script of the bitcoin account, whose key consents to what is spent off-chain.
    #[must_use]
    pub fn first_script(&self) -> Option<&DerivedScript> {
        let derive = || self.scripts(Account::Vanilla, 0..1).into_iter().next();
        self.derived.first.get_or_init(derive).as_ref()
    }

    /// The full path of a key from the master key, as it stands in a PSBT.
    #[must_use]
    pub fn path(&self, account: Account, index: u32) -> DerivationPath {
        let hardened = |index| ChildNumber::Hardened { index };
        let mainnet = self.network == Network::Bitcoin;
        let coin = match (account, mainnet) {
            (Account::Vanilla, true) => 0,
            (Account::Vanilla, false) => 1,
            (Account::Colored, true) => 827_166,
            (Account::Colored, false) => 827_167,
        };
        DerivationPath::from(vec![hardened(86), hardened(coin), hardened(0), KEYCHAIN, ChildNumber::Normal { index }])
    }

    #[must_use]
    pub const fn master_fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The descriptor of an account, for a library that wants one.
    #[must_use]
    pub fn descriptor(&self, account: Account) -> String {
        let path = self.path(account, 0).to_string();
        let account_path = path.trim_end_matches("/0/0");
        format!("tr([{}/{account_path}]{}/0/*)", self.fingerprint, self.xpub(account))
    }

    const fn account_key(&self, account: Account) -> &Xpub {
        match account {
            Account::Vanilla => &self.van,
            Account::Colored => &self.col,
        }
    }
}

fn derive(keychain: &Xpub, account: Account, index: u32) -> Option<DerivedScript> {
    let child = ChildNumber::from_normal_idx(index).ok()?;
    let key = keychain.ckd_pub(&*SECP, child).ok()?;
    let internal_key = key.to_x_only_pub();
    let script = ScriptBuf::new_p2tr(&*SECP, internal_key, None);
    Some(DerivedScript { account, index, script, internal_key })
}

/// How private keys begin, those of the accounts of other kinds of address among them.
const PRIVATE: [&str; 8] = ["xprv", "yprv", "zprv", "tprv", "uprv", "vprv", "Yprv", "Zprv"];

fn parse_xpub(header: &'static str, text: &str, network: Network) -> Result<Xpub, BadKeys> {
    if PRIVATE.iter().any(|start| text.starts_with(start)) {
        return Err(BadKeys::IsPrivate { header });
    }
    let key = Xpub::from_str(text).map_err(|e| BadKeys::NotAnXpub { header, reason: e.to_string() })?;
    if key.network != NetworkKind::from(network) {
        return Err(BadKeys::WrongNetwork { header });
    }
    if key.depth != ACCOUNT_DEPTH {
        return Err(BadKeys::WrongDepth { header, depth: key.depth });
    }
    Ok(key)
}

/// The address of a script on a network; a script without one is shown as hex.
#[must_use]
pub fn address_of(script: &ScriptBuf, network: Network) -> String {
    Address::from_script(script, network).map_or_else(|_| script.to_hex_string(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The public test wallet of the API's documentation.
    const VAN: &str = "tpubDDfvzhdVV4unsoKt5aE6dcsNsfeWbTgmLZPi8LQDYU2xixrYemMfWJ3BaVneH3u7DBQePdTwhpybaKRU95pi6PMUtLPBJLVQRpzEnjfjZzX";
    const COL: &str = "tpubDDPLJfdVbDoGtnn6hSto3oCnm6hpfHe9uk2MxcANanxk87EuquhSVfSLQv7e5UykgzaFn41DUXaikjjVGcUSUTGNaJ9LcozfRwatKp1vTfC";

    #[test]
    fn a_wallet_needs_two_keys_of_this_network() {
        let parse = |van, col, network| WalletKeys::parse(van, col, "1f5bd7df", network);
        assert_eq!(parse(VAN, VAN, Network::Regtest).unwrap_err().header(), "xpub-col");
        assert!(matches!(parse("xpub", VAN, Network::Regtest), Err(BadKeys::NotAnXpub { header: "xpub-van", .. })));
        if Xpub::from_str(VAN).is_ok() {
            assert_eq!(parse(VAN, COL, Network::Bitcoin), Err(BadKeys::WrongNetwork { header: "xpub-van" }));
        }
    }

    #[test]
    fn a_private_key_is_called_one_and_not_said_again() {
        let private = "tprv8ZgxMBicQKsPd7Uf69XL1XwhmjHopUGep8GuEiJDZmbQz6o58LninorQAfcKZWARbtRtfnLcJ5MQ2AtHcQJCCRUcMRvmDUjyEmNUWwx8UbK";
        let refused = WalletKeys::parse(VAN, private, "1f5bd7df", Network::Regtest).unwrap_err();
        assert_eq!(refused, BadKeys::IsPrivate { header: "xpub-col" });
        assert!(refused.to_string().contains("is a private key") && !refused.to_string().contains("tprv"));
    }

    #[test]
    fn an_xpub_of_the_wrong_depth_is_refused() {
        let master = bitcoin::bip32::Xpub::from_str("tpubD6NzVbkrYhZ4XgiXtGrdW5XDAPFCL9h7we1vwNCpn8tGbBcgfVYjXyhWo4E1xkh56hjod1RhGjxbaTLV3X4FyWuejifB9jusQ46QzG87VKp").unwrap();
        assert_eq!(
            WalletKeys::parse(&master.to_string(), &master.to_string(), "1f5bd7df", Network::Regtest),
            Err(BadKeys::WrongDepth { header: "xpub-van", depth: 0 })
        );
    }
}
