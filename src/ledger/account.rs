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
    /// What comes back from channels that are closing.
    Closing,
    /// The node's own coins on the chain.
    Onchain,
    /// Coins between the node and a wallet: here and not credited yet, or debited and not in a block yet.
    Crossing,
    /// The operator's own money.
    Capital,
    /// Fees paid to others for routing, less what others paid us.
    RoutingFees,
    /// Fees of opening channels and of bumping, which the operator bears.
    OnchainFees,
    /// Fees of closing channels, and what is lost in it.
    ClosingFees,
    /// Fractions of a satoshi that the chain can't hold.
    Rounding,
    /// Money without an owner, until somebody resolves it.
    Suspense,
}

impl Account {
    /// A wallet's account never goes below zero, holds included. The operator's accounts may.
    #[must_use]
    pub const fn is_guarded(&self) -> bool {
        match self {
            Self::Wallet(_) => true,
            Self::Debt(_)
            | Self::Channels
            | Self::InFlight
            | Self::Closing
            | Self::Onchain
            | Self::Crossing
            | Self::Capital
            | Self::RoutingFees
            | Self::OnchainFees
            | Self::ClosingFees
            | Self::Rounding
            | Self::Suspense => false,
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
            Self::Closing => f.write_str("node:closing"),
            Self::Onchain => f.write_str("node:onchain"),
            Self::Crossing => f.write_str("node:crossing"),
            Self::Capital => f.write_str("operator:capital"),
            Self::RoutingFees => f.write_str("operator:routing_fees"),
            Self::OnchainFees => f.write_str("operator:onchain_fees"),
            Self::ClosingFees => f.write_str("operator:closing_fees"),
            Self::Rounding => f.write_str("operator:rounding"),
            Self::Suspense => f.write_str("operator:suspense"),
        }
    }
}
