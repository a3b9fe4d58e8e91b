//! Fee rates for LDK: it asks at any time and can't wait, so the answers are kept here and refreshed beside it.

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

/// For each target: within how many blocks, and what is taken while nobody knows, in satoshis per 1,000 units of weight.
const TARGETS: [(ConfirmationTarget, u16, u32); 8] = [
    (ConfirmationTarget::MaximumFeeEstimate, 1, 8_000),
    (ConfirmationTarget::UrgentOnChainSweep, 2, 5_000),
    (ConfirmationTarget::MinAllowedAnchorChannelRemoteFee, 1_008, FEERATE_FLOOR_SATS_PER_KW),
    (ConfirmationTarget::MinAllowedNonAnchorChannelRemoteFee, 144, FEERATE_FLOOR_SATS_PER_KW),
    (ConfirmationTarget::AnchorChannelFee, 1_008, 500),
    (ConfirmationTarget::NonAnchorChannelFee, 12, 1_000),
    (ConfirmationTarget::ChannelCloseMinimum, 144, 500),
    (ConfirmationTarget::OutputSpendingFee, 12, 1_000),
];

/// What a channel's funding and other payments of the wallet are confirmed within.
const FUNDING: ConfirmationTarget = ConfirmationTarget::OutputSpendingFee;

pub struct Fees {
    rates: [AtomicU32; TARGETS.len()],
}

impl Default for Fees {
    fn default() -> Self {
        Self { rates: TARGETS.map(|(_, _, fallback)| AtomicU32::new(fallback)) }
    }
}

impl Fees {
    /// Asks for every rate. What the backend doesn't know stays as it was.
    ///
    /// # Errors
    /// When the backend can't be asked.
    pub async fn refresh(&self, chain: &Arc<dyn ChainBackend>) -> Result<(), PortError> {
        let mut asked: Vec<(u16, Option<FeeRate>)> = Vec::new();
        for ((target, blocks, _), rate) in TARGETS.iter().zip(&self.rates) {
            let known = match asked.iter().find(|(within, _)| within == blocks) {
                Some((_, known)) => *known,
                None => {
                    let answer = chain.fee_rate(*blocks).await?;
                    asked.push((*blocks, answer));
                    answer
                }
            };
            if let Some(known) = known {
                rate.store(adjusted(*target, per_kw(known)), Ordering::Relaxed);
            }
        }
        Ok(())
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

    #[test]
    fn every_target_has_an_answer_before_anybody_was_asked() {
        let fees = Fees::default();
        for (target, _, fallback) in TARGETS {
            assert_eq!(fees.get_est_sat_per_1000_weight(target), fallback);
        }
    }
}
