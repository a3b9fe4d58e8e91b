//! The consent to hand out what the engine for assets knows of a wallet: a BIP-322 signature by the wallet's first key, made and
//! checked as an authorisation of a payment is (`authorization.rs`).

use bitcoin::Network;

use super::authorization::chain_name;
use crate::clock::Timestamp;
use crate::ids::{GatewayId, RequestId, WalletId};

/// The first line of every such message: no authorisation and no grant begins like it.
pub const TITLE: &str = "Sluice RGB state export v1";

/// Everything that is consented to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    pub gateway: GatewayId,
    pub network: Network,
    /// Whose state leaves the gateway.
    pub wallet: WalletId,
    /// Makes every consent one of its own.
    pub id: RequestId,
    /// Until when it can be fetched.
    pub expires: Timestamp,
}

impl Export {
    /// The text that is signed: one spelling, one order. The signer reads the same grammar and refuses any other.
    #[must_use]
    pub fn message(&self) -> String {
        [
            TITLE.to_owned(),
            format!("gateway: {}", self.gateway.0),
            format!("chain: {}", chain_name(self.network)),
            format!("wallet: {}", self.wallet),
            format!("export: {}", self.id.to_string().replace('-', "")),
            format!("expires: {}", self.expires.rfc3339()),
        ]
        .join("\n")
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use bitcoin::Psbt;
    use sluice_signer::{Error, Limits, Signer};

    use super::*;
    use crate::domain::authorization;
    use crate::domain::wallet::WalletKeys;

    const MNEMONIC: &str = "split capable text loop dream live outside suspect eight carry fine relax";

    #[test]
    fn the_signer_reads_what_is_asked_by_a_command_of_its_own_and_its_signature_is_taken() {
        let signer = Signer::from_mnemonic(Network::Regtest, MNEMONIC, "").unwrap();
        let xpubs = signer.wallet_xpubs();
        let (van, col) = (xpubs.xpub_van.to_string(), xpubs.xpub_col.to_string());
        let keys = WalletKeys::parse(&van, &col, &xpubs.master_fingerprint.to_string(), Network::Regtest).unwrap();
        let export = Export {
            gateway: GatewayId("00112233445566aa".to_owned()),
            network: Network::Regtest,
            wallet: keys.id(),
            id: RequestId::from_bytes([1; 16]),
            expires: Timestamp::from_millis(1_769_860_800_000),
        };
        let message = export.message();
        let mut psbt = Psbt::from_str(&authorization::to_sign(&keys, &message).unwrap().to_string()).unwrap();
        assert!(matches!(signer.sign_within(&mut psbt, &Limits::default()), Err(Error::IsAnExport)));
        signer.export(&mut psbt, None).unwrap();
        authorization::verify(&keys, &message, &psbt).unwrap();
        let another = Export { id: RequestId::from_bytes([2; 16]), ..export }.message();
        assert!(authorization::verify(&keys, &another, &psbt).is_err());
    }
}
