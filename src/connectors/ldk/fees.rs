//! Fee rates for LDK: it asks at any time and can't wait, so the answers are kept here and refreshed beside it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lightning::chain::chaininterface::{ConfirmationTarget, FEERATE_FLOOR_SATS_PER_KW, FeeEstimator};

use crate::money::FeeRate;
use crate::ports::PortError;
use crate::ports::chain::ChainBackend;

/// How often the rates are asked for.
pub const REFRESH: Duration = Duration::from_secs(60);
/// Above this no estimate is believed: 500 sat/vB.
const CEILING: u32 = 125_000;

/// Where a rate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// What gets a transaction into one of so many blocks.
    Within(u16),
    /// What the mempool takes at least.
    Floor,
}

/// For each target: where it comes from, and what is taken while nobody knows, in satoshis per 1,000 units of weight.
/// What a peer pays for a commitment with anchors is only asked to be relayed: its closing is bumped when it is needed. An estimate there,
/// however far, closes channels with peers that pay less on purpose, as soon as fees are high.
const TARGETS: [(ConfirmationTarget, Source, u32); 8] = [
    (ConfirmationTarget::MaximumFeeEstimate, Source::Within(1), 8_000),
    (ConfirmationTarget::UrgentOnChainSweep, Source::Within(2), 5_000),
    (ConfirmationTarget::MinAllowedAnchorChannelRemoteFee, Source::Floor, FEERATE_FLOOR_SATS_PER_KW),
    (ConfirmationTarget::MinAllowedNonAnchorChannelRemoteFee, Source::Within(144), FEERATE_FLOOR_SATS_PER_KW),
    (ConfirmationTarget::AnchorChannelFee, Source::Within(1_008), 500),
    (ConfirmationTarget::NonAnchorChannelFee, Source::Within(12), 1_000),
    (ConfirmationTarget::ChannelCloseMinimum, Source::Within(144), 500),
    (ConfirmationTarget::OutputSpendingFee, Source::Within(12), 1_000),
];

/// Whatever the caller says, coins of the node's are sent for what gets them into one of so many blocks: what is not mined keeps its change
/// from everybody else.
const SENDS_WITHIN: u16 = 144;

/// What a channel's funding and other payments of the wallet are confirmed within.
const FUNDING: ConfirmationTarget = ConfirmationTarget::OutputSpendingFee;

pub struct Fees {
    rates: [AtomicU32; TARGETS.len()],
    sends: AtomicU32,
}

impl Default for Fees {
    fn default() -> Self {
        Self { rates: TARGETS.map(|(_, _, fallback)| AtomicU32::new(fallback)), sends: AtomicU32::new(0) }
    }
}

/// What the backend says now.
#[derive(Default)]
struct Said {
    floor: Option<FeeRate>,
    within: HashMap<u16, FeeRate>,
}

impl Said {
    async fn by(chain: &Arc<dyn ChainBackend>) -> Result<Self, PortError> {
        let mut said = Self { floor: Some(chain.fee_floor().await?), within: HashMap::new() };
        let blocks = TARGETS.iter().filter_map(|(_, source, _)| match source {
            Source::Within(blocks) => Some(*blocks),
            Source::Floor => None,
        });
        for blocks in blocks.chain([SENDS_WITHIN]).collect::<BTreeSet<u16>>() {
            if let Some(rate) = chain.fee_rate(blocks).await? {
                said.within.insert(blocks, rate);
            }
        }
        Ok(said)
    }

    fn of(&self, source: Source) -> Option<u32> {
        match source {
            Source::Within(blocks) => self.within.get(&blocks).copied(),
            Source::Floor => self.floor,
        }
        .map(per_kw)
    }
}

impl Fees {
    /// Asks for every rate. What the backend doesn't know stays as it was.
    ///
    /// # Errors
    /// When the backend can't be asked.
    pub async fn refresh(&self, chain: &Arc<dyn ChainBackend>) -> Result<(), PortError> {
        self.take(&Said::by(chain).await?);
        Ok(())
    }

    fn take(&self, said: &Said) {
        for ((target, source, _), rate) in TARGETS.iter().zip(&self.rates) {
            if let Some(known) = said.of(*source) {
                rate.store(adjusted(*target, known), Ordering::Relaxed);
            }
        }
        let least = [said.floor, said.within.get(&SENDS_WITHIN).copied()].into_iter().flatten().max();
        if let Some(least) = least {
            // The mempool's own floor may be below what LDK goes down to.
            let least = u32::try_from(least.milli_sat_per_vb().div_ceil(4)).unwrap_or(u32::MAX);
            self.sends.store(least.min(CEILING), Ordering::Relaxed);
        }
    }

    /// What sending coins of the node's costs at least, whatever the caller says.
    #[must_use]
    pub fn least_for_sends(&self) -> u32 {
        self.sends.load(Ordering::Relaxed)
    }

    /// For transactions of the node's own wallet.
    #[must_use]
    pub fn funding(&self) -> u32 {
        self.get_est_sat_per_1000_weight(FUNDING)
    }
}

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, target: ConfirmationTarget) -> u32 {
        let at = TARGETS.iter().position(|(known, _, _)| *known == target);
        at.and_then(|at| self.rates.get(at)).map_or(FEERATE_FLOOR_SATS_PER_KW, |rate| rate.load(Ordering::Relaxed))
    }
}

/// A thousandth of a satoshi per virtual byte is a quarter of a satoshi per 1,000 units of weight.
fn per_kw(rate: FeeRate) -> u32 {
    u32::try_from(rate.milli_sat_per_vb().div_ceil(4)).unwrap_or(u32::MAX).clamp(FEERATE_FLOOR_SATS_PER_KW, CEILING)
}

/// The highest rate that may ever be right is more than the next block's; the least that we let peers pay is less than an estimate.
fn adjusted(target: ConfirmationTarget, rate: u32) -> u32 {
    match target {
        ConfirmationTarget::MaximumFeeEstimate => rate.saturating_mul(2).min(CEILING),
        ConfirmationTarget::MinAllowedNonAnchorChannelRemoteFee => (rate / 2).max(FEERATE_FLOOR_SATS_PER_KW),
        ConfirmationTarget::UrgentOnChainSweep
        | ConfirmationTarget::MinAllowedAnchorChannelRemoteFee
        | ConfirmationTarget::AnchorChannelFee
        | ConfirmationTarget::NonAnchorChannelFee
        | ConfirmationTarget::ChannelCloseMinimum
        | ConfirmationTarget::OutputSpendingFee => rate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_never_below_the_floor_nor_absurd() {
        assert_eq!(per_kw(FeeRate::from_sat_per_vb(4)), 1_000);
        assert_eq!(per_kw(FeeRate::from_milli_sat_per_vb(1)), FEERATE_FLOOR_SATS_PER_KW);
        assert_eq!(per_kw(FeeRate::ABSURD), CEILING);
    }

    /// With fees at 50 sat/vB for a week ahead, a peer that pays 10 sat/vB for its commitment, as many do on purpose, keeps its channel.
    #[test]
    fn a_peer_that_pays_what_is_relayed_keeps_its_channel_when_fees_are_high() {
        let fees = Fees::default();
        let high = FeeRate::from_sat_per_vb(50);
        let within = [1, 2, 12, 144, 1_008].map(|blocks| (blocks, high)).into();
        fees.take(&Said { floor: Some(FeeRate::from_sat_per_vb(5)), within });
        let least = fees.get_est_sat_per_1000_weight(ConfirmationTarget::MinAllowedAnchorChannelRemoteFee);
        assert_eq!(least, per_kw(FeeRate::from_sat_per_vb(5)));
        assert!(least <= per_kw(FeeRate::from_sat_per_vb(10)));
        assert_eq!(fees.get_est_sat_per_1000_weight(ConfirmationTarget::AnchorChannelFee), per_kw(high));
        fees.take(&Said { floor: Some(FeeRate::from_milli_sat_per_vb(100)), ..Said::default() });
        let least = fees.get_est_sat_per_1000_weight(ConfirmationTarget::MinAllowedAnchorChannelRemoteFee);
        assert_eq!(least, FEERATE_FLOOR_SATS_PER_KW);
    }

    #[test]
    fn coins_are_never_sent_for_what_is_not_mined() {
        let fees = Fees::default();
        assert_eq!(fees.least_for_sends(), 0);
        let within = [(144, FeeRate::from_sat_per_vb(8))].into();
        fees.take(&Said { floor: Some(FeeRate::from_sat_per_vb(1)), within });
        assert_eq!(fees.least_for_sends(), 2_000);
        fees.take(&Said { floor: Some(FeeRate::from_sat_per_vb(20)), ..Said::default() });
        assert_eq!(fees.least_for_sends(), 5_000, "a full mempool asks for more than an estimate");
    }

    #[test]
    fn every_target_has_an_answer_before_anybody_was_asked() {
        let fees = Fees::default();
        for (target, _, fallback) in TARGETS {
            assert_eq!(fees.get_est_sat_per_1000_weight(target), fallback);
        }
    }
}
