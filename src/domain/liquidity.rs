//! The operator's policy for channels that the gateway opens by itself, and what follows from it for what is seen. Pure: asking the
//! node is the business of `flows/liquidity.rs`.

mod policy;

use std::fmt;

pub use policy::{BadPeer, BadPolicy, LiquidityPolicy, PeerAddress};

use bitcoin::secp256k1::PublicKey;

use crate::money::{FeeRate, Sat};

/// The transaction that funds a channel is reckoned as this large, in virtual bytes: a few inputs, two outputs, and some to spare.
pub const FUNDING_VBYTES: u64 = 400;
/// Within how many blocks that transaction is to be confirmed: the rate for this target is held against the cap.
pub const FUNDING_TARGET: u16 = 12;

/// Everything that a decision rests on, of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub payouts_halted: bool,
    pub node_ready: bool,
    /// The gateway and the node have seen the chain's newest blocks.
    pub chain_synced: bool,
    /// A channel that was begun before is not in use yet, or nobody knows what became of it.
    pub opening_under_way: bool,
    /// A withdrawal waits for coins of the node.
    pub withdrawals_wait: bool,
    /// What the channels hold for us to send and to receive, whether their peers are connected now or not.
    pub outbound: Sat,
    pub inbound: Sat,
    pub coins: Sat,
    /// What must stay on-chain once there is one more channel.
    pub reserve: Sat,
    pub fee_rate: FeeRate,
    pub spent_today: Sat,
    /// The peer of each channel that we have opened.
    pub channels: Vec<PublicKey>,
    /// Peers with whom an opening came to nothing a short while ago.
    pub refused_lately: Vec<PublicKey>,
}

/// What must stay once there is one more channel, when each needs the same.
#[must_use]
pub fn reserve_with_one_more(reserve: Sat, channels: usize) -> Sat {
    let channels = u64::try_from(channels).unwrap_or(u64::MAX);
    let each = if channels == 0 { 0 } else { reserve.to_u64().div_ceil(channels) };
    Sat::new(reserve.to_u64().saturating_add(each)).unwrap_or(Sat::MAX)
}

/// A channel that is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub peer: PeerAddress,
    pub amount: Sat,
    /// What its transaction is reckoned to cost.
    pub fee: Sat,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is as much to send as is wanted.
    Enough,
    Open(Opening),
    HeldBack(Why),
}

/// Why no channel is opened although one is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    NodeNotReady,
    ChainNotSynced,
    PayoutsHalted,
    OpeningUnderWay,
    WithdrawalsWait,
    FeeRateTooHigh {
        rate: FeeRate,
        most: u32,
    },
    BudgetSpent {
        spent: Sat,
        fee: Sat,
        most: Sat,
    },
    /// Each has as many channels as it may have.
    PeersFull,
    /// Of those that may have one more, each has refused a short while ago.
    PeersRefused,
    CoinsShort {
        free: Sat,
        least: Sat,
    },
}

impl Why {
    /// One word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NodeNotReady => "node_not_ready",
            Self::ChainNotSynced => "chain_not_synced",
            Self::PayoutsHalted => "payouts_halted",
            Self::OpeningUnderWay => "opening_under_way",
            Self::WithdrawalsWait => "withdrawals_wait",
            Self::FeeRateTooHigh { .. } => "fee_rate_too_high",
            Self::BudgetSpent { .. } => "budget_spent",
            Self::PeersFull => "peers_full",
            Self::PeersRefused => "peers_refused",
            Self::CoinsShort { .. } => "coins_short",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeNotReady => f.write_str("the node has not caught up"),
            Self::ChainNotSynced => f.write_str("the chain's newest blocks have not been taken in"),
            Self::PayoutsHalted => f.write_str("payouts are stopped by an alarm"),
            Self::OpeningUnderWay => f.write_str("a channel is being opened"),
            Self::WithdrawalsWait => f.write_str("withdrawals wait for coins of the node"),
            Self::FeeRateTooHigh { rate, most } => {
                write!(f, "the fee rate is {rate}, and liquidity.max_fee_rate is {most} sat/vB")
            }
            Self::BudgetSpent { spent, fee, most } => write!(
                f,
                "{spent} sat of the day's {most} sat (liquidity.daily_fee_sats) are spent, and this one may cost {fee} sat"
            ),
            Self::PeersFull => f.write_str("every peer has liquidity.max_channels_per_peer channels"),
            Self::PeersRefused => f.write_str("no peer that may have one more channel took one lately"),
            Self::CoinsShort { free, least } => write!(
                f,
                "{free} sat are free beyond the reserve, liquidity.keep_onchain_sats and the fee, and the least for a channel is {least} sat"
            ),
        }
    }
}

impl LiquidityPolicy {
    /// What to do about what is seen. Whatever is opened stays within the cap, the budget and the coins that are free.
    #[must_use]
    pub fn decide(&self, seen: &Seen) -> Decision {
        if !seen.node_ready {
            return Decision::HeldBack(Why::NodeNotReady);
        }
        if seen.outbound >= self.want_outbound_sats {
            return Decision::Enough;
        }
        match self.wait_for(seen).map_or_else(|| self.choose(seen), Err) {
            Ok(opening) => Decision::Open(opening),
            Err(why) => Decision::HeldBack(why),
        }
    }

    /// What is missing to what is wanted to be received. Nothing can be done about it from here.
    #[must_use]
    pub fn inbound_short(&self, seen: &Seen) -> Sat {
        self.want_inbound_sats.checked_sub(seen.inbound).unwrap_or(Sat::ZERO)
    }

    /// What is missing to what is wanted to be sent.
    #[must_use]
    pub fn outbound_short(&self, seen: &Seen) -> Sat {
        self.want_outbound_sats.checked_sub(seen.outbound).unwrap_or(Sat::ZERO)
    }

    /// What has to pass before anything is opened, whatever there is to open.
    fn wait_for(&self, seen: &Seen) -> Option<Why> {
        if seen.opening_under_way {
            return Some(Why::OpeningUnderWay);
        }
        if !seen.chain_synced {
            return Some(Why::ChainNotSynced);
        }
        if seen.payouts_halted {
            return Some(Why::PayoutsHalted);
        }
        if seen.withdrawals_wait {
            return Some(Why::WithdrawalsWait);
        }
        let too_high = seen.fee_rate > FeeRate::from_sat_per_vb(self.max_fee_rate);
        too_high.then_some(Why::FeeRateTooHigh { rate: seen.fee_rate, most: self.max_fee_rate })
    }

    fn choose(&self, seen: &Seen) -> Result<Opening, Why> {
        let fee = seen.fee_rate.fee(FUNDING_VBYTES).unwrap_or(Sat::MAX);
        let (spent, most) = (seen.spent_today, self.daily_fee_sats);
        if spent.checked_add(fee).is_none_or(|then| then > most) {
            return Err(Why::BudgetSpent { spent, fee, most });
        }
        let peer = self.choose_peer(seen)?;
        let kept = Sat::sum([seen.reserve, self.keep_onchain_sats, fee]).unwrap_or(Sat::MAX);
        let free = seen.coins.checked_sub(kept).unwrap_or(Sat::ZERO);
        let amount = free.min(self.channel_sats);
        if amount < self.min_channel_sats {
            return Err(Why::CoinsShort { free, least: self.min_channel_sats });
        }
        Ok(Opening { peer: peer.clone(), amount, fee })
    }

    /// The one with the fewest channels, and of those the first that is named.
    fn choose_peer(&self, seen: &Seen) -> Result<&PeerAddress, Why> {
        let has = |peer: &PeerAddress| seen.channels.iter().filter(|of| **of == peer.id).count();
        let most = usize::try_from(self.max_channels_per_peer).unwrap_or(usize::MAX);
        let mut may_have_more = self.peers.iter().filter(|peer| has(peer) < most).peekable();
        if may_have_more.peek().is_none() {
            return Err(Why::PeersFull);
        }
        let willing = may_have_more.filter(|peer| !seen.refused_lately.contains(&peer.id));
        willing.min_by_key(|peer| has(peer)).ok_or(Why::PeersRefused)
    }
}

#[cfg(test)]
mod tests;
