//! LDK's own configuration, made from ours.

use bitcoin::Network;
use lightning::util::config::{HTLCInterceptionFlags, MaxDustHTLCExposure, UserConfig};

use super::config::Config;

/// LDK refuses more than this.
const MOST_HTLCS: u16 = 483;

#[must_use]
pub fn user_config(config: &Config, network: Network) -> UserConfig {
    let mut user = UserConfig::default();
    let depth = config.channels.minimum_depth.unwrap_or(if network == Network::Regtest { 1 } else { 3 });
    user.channel_handshake_config.minimum_depth = depth.max(1);
    user.channel_handshake_config.our_max_accepted_htlcs = config.channels.max_accepted_htlcs.clamp(1, MOST_HTLCS);
    user.channel_handshake_config.negotiate_anchors_zero_fee_htlc_tx = true;
    user.channel_handshake_config.announced_channel_max_inbound_htlc_value_in_flight_percentage = 100;
    user.channel_handshake_config.unannounced_channel_max_inbound_htlc_value_in_flight_percentage = 100;
    // The peer says whether it is public; we go along.
    user.channel_handshake_limits.force_announced_channel_preference = false;
    user.channel_handshake_limits.min_funding_satoshis = config.channels.accept_min_sat;
    user.channel_config.forwarding_fee_base_msat = config.routing.base_msat;
    user.channel_config.forwarding_fee_proportional_millionths = config.routing.proportional_millionths;
    user.channel_config.cltv_expiry_delta = config.routing.cltv_delta;
    user.channel_config.max_dust_htlc_exposure = MaxDustHTLCExposure::FixedLimitMsat(config.channels.max_dust_msat);
    user.accept_inbound_channels = config.channels.accept;
    user.accept_forwards_to_priv_channels = config.routing.forward && config.routing.to_private_channels;
    if !config.routing.forward {
        // LDK asks us for each of them, and is told no.
        user.htlc_interception_flags = HTLCInterceptionFlags::AllValidHTLCs.into();
    }
    // An offer's invoice is first shown to the caller, who says what it may cost.
    user.manually_handle_bolt12_invoices = true;
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payment_of_others_is_asked_about_unless_forwarding_is_wanted() {
        let mut config = Config::default();
        let off = user_config(&config, Network::Bitcoin);
        assert_eq!((off.htlc_interception_flags, off.accept_forwards_to_priv_channels), (u8::MAX, false));
        config.routing.forward = true;
        let on = user_config(&config, Network::Bitcoin);
        assert_eq!((on.htlc_interception_flags, on.accept_forwards_to_priv_channels), (0, true));
    }
}
