use std::fmt;

use crate::ids::WalletId;

/// The chart of accounts. A balance is credits less debits, so what the operator owes a wallet is positive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Account {
    /// What the operator owes a wallet.
    Wallet(WalletId),
    /// What a wallet owes the operator after a reorganisation took back money that was already spent.
    Debt(WalletId),
    /// What the node's channels hold.
    Channels,
    /// Payments that have left and not arrived.
    InFlight,
    /// The operator's own money.
    Capital,
    /// Fees paid to others for routing.
    RoutingFees,
    /// Money without an owner, until somebody resolves it.
    Suspense,
}

impl Account {
    /// A wallet's account never goes below zero, holds included. The operator's accounts may.
    #[must_use]
    pub const fn is_guarded(&self) -> bool {
        match self {
            Self::Wallet(_) => true,
            Self::Debt(_) | Self::Channels | Self::InFlight | Self::Capital | Self::RoutingFees | Self::Suspense => {
                false
            }
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wallet(wallet) => write!(f, "wallet:{wallet}"),
            Self::Debt(wallet) => write!(f, "debt:{wallet}"),
            Self::Channels => f.write_str("node:channels"),
            Self::InFlight => f.write_str("node:in_flight"),
            Self::Capital => f.write_str("operator:capital"),
            Self::RoutingFees => f.write_str("operator:routing_fees"),
            Self::Suspense => f.write_str("operator:suspense"),
        }
    }
}
