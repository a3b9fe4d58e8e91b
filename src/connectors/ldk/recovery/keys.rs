//! What peers pay to the seed when they close, whatever the channel was: LDK keeps to a thousand keys for it, each in two forms of
//! script, so that a lost database loses none of them. And the two scripts that a closing by agreement may have named.

use std::collections::HashMap;

use bitcoin::bip32::{ChildNumber, Xpriv};
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{CompressedPublicKey, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, ecdsa};
use lightning::ln::chan_utils::get_to_countersigner_keyed_anchor_redeemscript;
use lightning::sign::{KeysManager, STATIC_PAYMENT_KEY_COUNT};

use super::super::error::LdkError;
use super::super::seed::Seed;

/// Below the seed, as LDK derives them.
const DESTINATION: u32 = 1;
const SHUTDOWN: u32 = 2;
const STATIC_PAYMENT: u32 = 8;

enum Form {
    KeyHash,
    /// A channel with anchors: the output waits for one block.
    AfterOneBlock,
}

struct PaymentKey {
    secret: SecretKey,
    public: PublicKey,
    form: Form,
}

/// A coin that one of the keys can spend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coin {
    pub outpoint: OutPoint,
    pub output: TxOut,
}

pub struct PaymentKeys {
    secp: Secp256k1<All>,
    by_script: HashMap<ScriptBuf, PaymentKey>,
}

impl PaymentKeys {
    /// # Errors
    /// When LDK names other scripts than these: then its way of deriving them has changed.
    pub fn derive(seed: &Seed, ldk: &KeysManager) -> Result<Self, LdkError> {
        let secp = Secp256k1::new();
        // The network is no part of the keys.
        let master = Xpriv::new_master(Network::Testnet, &seed.0).map_err(cant)?;
        let child = |parent: &Xpriv, index| {
            parent.derive_priv(&secp, &ChildNumber::from_hardened_idx(index).map_err(cant)?).map_err(cant)
        };
        let mut by_script = HashMap::new();
        let mut add = |secret: SecretKey, form: Form| {
            let public = PublicKey::from_secret_key(&secp, &secret);
            let key = PaymentKey { secret, public, form };
            by_script.insert(key.script(), key);
        };
        let payment = child(&master, STATIC_PAYMENT)?;
        for index in 0..u32::from(STATIC_PAYMENT_KEY_COUNT) {
            let secret = child(&payment, index)?.private_key;
            add(secret, Form::KeyHash);
            add(secret, Form::AfterOneBlock);
        }
        for named in ldk.possible_v2_counterparty_closed_balance_spks(&Secp256k1::new()) {
            if !by_script.contains_key(&named) {
                return Err(LdkError::Corrupt("LDK pays to other scripts than those that are known here".to_owned()));
            }
        }
        for index in [DESTINATION, SHUTDOWN] {
            let secret = child(&master, index)?.private_key;
            let key = PaymentKey { secret, public: PublicKey::from_secret_key(&secp, &secret), form: Form::KeyHash };
            by_script.insert(key.script(), key);
        }
        Ok(Self { secp, by_script })
    }

    pub fn scripts(&self) -> impl Iterator<Item = &ScriptBuf> {
        self.by_script.keys()
    }

    pub fn owns(&self, script: &ScriptBuf) -> bool {
        self.by_script.contains_key(script)
    }

    /// A signed transaction that pays these coins, less the fee, to one script. `None`: they are not worth the fee.
    ///
    /// # Errors
    /// When one of the coins belongs to no key here.
    pub fn sweep(&self, coins: &[Coin], to: &ScriptBuf, sat_per_kw: u32) -> Result<Option<Transaction>, LdkError> {
        let total: bitcoin::Amount = coins.iter().map(|coin| coin.output.value).sum();
        let unpriced = self.signed(coins, to, total)?;
        // The length of a signature differs by a byte: one more for each is on the safe side.
        let weight = unpriced.weight().to_wu().saturating_add(u64::try_from(coins.len()).unwrap_or(u64::MAX));
        let fee = bitcoin::Amount::from_sat(weight.saturating_mul(u64::from(sat_per_kw)).div_ceil(1_000));
        match total.checked_sub(fee) {
            Some(left) if left >= to.minimal_non_dust() => Ok(Some(self.signed(coins, to, left)?)),
            Some(_) | None => Ok(None),
        }
    }

    fn signed(&self, coins: &[Coin], to: &ScriptBuf, value: bitcoin::Amount) -> Result<Transaction, LdkError> {
        let input = |coin: &Coin| TxIn {
            previous_output: coin.outpoint,
            script_sig: ScriptBuf::new(),
            // One block after the output; also says that the fee may be raised.
            sequence: Sequence::from_height(1),
            witness: Witness::new(),
        };
        let mut transaction = Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: coins.iter().map(input).collect(),
            output: vec![TxOut { value, script_pubkey: to.clone() }],
        };
        let mut witnesses = Vec::with_capacity(coins.len());
        for (at, coin) in coins.iter().enumerate() {
            let key = self.by_script.get(&coin.output.script_pubkey);
            let key =
                key.ok_or_else(|| LdkError::Corrupt(format!("{} belongs to no key of the seed", coin.outpoint)))?;
            witnesses.push(key.sign(&self.secp, &transaction, at, coin.output.value)?);
        }
        for (input, witness) in transaction.input.iter_mut().zip(witnesses) {
            input.witness = witness;
        }
        Ok(transaction)
    }
}

impl PaymentKey {
    fn script(&self) -> ScriptBuf {
        match self.form {
            Form::KeyHash => ScriptBuf::new_p2wpkh(&CompressedPublicKey(self.public).wpubkey_hash()),
            Form::AfterOneBlock => get_to_countersigner_keyed_anchor_redeemscript(&self.public).to_p2wsh(),
        }
    }

    fn sign(
        &self,
        secp: &Secp256k1<All>,
        transaction: &Transaction,
        at: usize,
        value: bitcoin::Amount,
    ) -> Result<Witness, LdkError> {
        let mut cache = SighashCache::new(transaction);
        let all = EcdsaSighashType::All;
        let sign = |message: Message| ecdsa::Signature {
            signature: secp.sign_ecdsa(&message, &self.secret),
            sighash_type: all,
        };
        match self.form {
            Form::KeyHash => {
                let hash = cache.p2wpkh_signature_hash(at, &self.script(), value, all).map_err(cant)?;
                Ok(Witness::p2wpkh(&sign(hash.into()), &self.public))
            }
            Form::AfterOneBlock => {
                let script = get_to_countersigner_keyed_anchor_redeemscript(&self.public);
                let hash = cache.p2wsh_signature_hash(at, &script, value, all).map_err(cant)?;
                Ok(Witness::from_slice(&[sign(hash.into()).to_vec(), script.into_bytes()]))
            }
        }
    }
}

fn cant(error: impl ToString) -> LdkError {
    LdkError::Corrupt(format!("the keys of the seed: {}", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_are_those_that_ldk_names_and_two_more() {
        let seed = Seed([7; 32]);
        let ldk = KeysManager::new(&seed.0, 1, 1, true);
        let keys = PaymentKeys::derive(&seed, &ldk).unwrap();
        assert_eq!(keys.scripts().count(), 2 * usize::from(STATIC_PAYMENT_KEY_COUNT) + 2);
        let shutdown = lightning::sign::SignerProvider::get_shutdown_scriptpubkey(&ldk).unwrap().into_inner();
        let destination = lightning::sign::SignerProvider::get_destination_script(&ldk, [0; 32]).unwrap();
        assert!(keys.owns(&shutdown) && keys.owns(&destination));
    }

    #[test]
    fn dust_is_left_where_it_is() {
        let seed = Seed([7; 32]);
        let keys = PaymentKeys::derive(&seed, &KeysManager::new(&seed.0, 1, 1, true)).unwrap();
        let script = keys.scripts().next().unwrap().clone();
        let coin = |sat| Coin {
            outpoint: OutPoint::null(),
            output: TxOut { value: bitcoin::Amount::from_sat(sat), script_pubkey: script.clone() },
        };
        assert_eq!(keys.sweep(&[coin(400)], &script, 1_000).unwrap(), None);
        let swept = keys.sweep(&[coin(10_000)], &script, 1_000).unwrap().unwrap();
        let paid = 10_000 - swept.output[0].value.to_sat();
        assert!(paid >= swept.weight().to_wu() && paid < swept.weight().to_wu() + 5, "{paid}");
    }
}
