//! Fee rates by target: what the node estimates, within what the operator allows.

use super::{Error, Flows};
use crate::money::FeeRate;

/// Targets that nodes estimate for.
pub const TARGETS: std::ops::RangeInclusive<u16> = 1..=1_008;

/// The fee rate for confirmation within so many blocks. The operator's fallback stands in where the node can't tell.
///
/// # Errors
/// When the target is out of range.
pub async fn estimate(flows: &Flows, target_blocks: u16) -> Result<FeeRate, Error> {
    if !TARGETS.contains(&target_blocks) {
        return Err(Error::field("blocks", "a target is from 1 to 1008 blocks"));
    }
    let policy = flows.policy();
    let fallback = FeeRate::from_sat_per_vb(policy.fallback_fee_rate);
    let rate = match flows.chain().fee_rate(target_blocks).await {
        Ok(Some(rate)) => rate,
        Ok(None) => fallback,
        Err(error) => {
            tracing::warn!(%error, "the fee estimate is not to be had; the fallback stands in");
            fallback
        }
    };
    let most = FeeRate::from_sat_per_vb(policy.fees.max_rate_sat_per_vb);
    Ok(rate.clamp(FeeRate::RELAY_MINIMUM, most))
}
