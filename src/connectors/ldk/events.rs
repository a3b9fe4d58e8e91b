//! What LDK tells us. Each event leads to rows that are in the same commit as the manager that has forgotten it. Any of them
//! may come twice.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lightning::events::{
    Event, FundingInfo, HTLCHandlingFailureType, InboundChannelFunds, PathFailure, PaymentPurpose, ReplayEvent,
};
use lightning::ln::channelmanager::PaymentId as LdkPaymentId;
use lightning::routing::router::Path;
use lightning::routing::scoring::{LockableScore as _, ScoreUpdate as _};

use super::closes::Forward;
use super::node::Node;
use super::peers;
use super::types::lock;
use crate::domain::lightning::{PaymentHash, PaymentId, Preimage};
use crate::money::Amount;
use crate::ports::lightning::NodeEvent;
use crate::store::node::{Arrival, Step};

impl Node {
    /// # Errors
    /// When the event has to come again.
    pub fn handle(self: &Arc<Self>, event: Event) -> Result<(), ReplayEvent> {
        self.learn(&event);
        match event {
            Event::PaymentClaimable { .. } | Event::PaymentClaimed { .. } => self.handle_incoming(event),
            Event::HTLCHandlingFailed { failure_type: HTLCHandlingFailureType::Receive { payment_hash }, .. } => {
                lock(&self.suspects).insert(PaymentHash(payment_hash.0));
            }
            Event::PaymentSent { .. } | Event::PaymentFailed { .. } => self.handle_outgoing(event),
            Event::PaymentPathFailed { payment_id, failure, .. } => {
                if let (Some(id), PathFailure::InitialSend { .. }) = (payment_id, failure) {
                    self.note_lost_race(PaymentId(id.0));
                }
                self.tries_again.store(true, Ordering::Relaxed);
                lock(&self.paying).room = true;
            }
            Event::PaymentForwarded {
                prev_htlcs,
                next_htlcs,
                total_fee_earned_msat,
                outbound_amount_forwarded_msat,
                ..
            } => {
                let forward = Forward::of(&prev_htlcs, &next_htlcs, outbound_amount_forwarded_msat);
                self.note_forwarded(forward, total_fee_earned_msat);
            }
            // Nothing is forwarded unless the operator wants it: all that would be comes here and goes back.
            Event::HTLCIntercepted { intercept_id, .. } => {
                if let Err(error) = self.manager.fail_intercepted_htlc(intercept_id) {
                    tracing::debug!(?error, "a payment of others is gone already");
                }
            }
            Event::PaymentPathSuccessful { payment_id, payment_hash, path, .. } => {
                self.note_part(PaymentId(payment_id.0), payment_hash.map(|hash| PaymentHash(hash.0)), &path);
                lock(&self.paying).room = true;
            }
            Event::InvoiceReceived { payment_id, invoice, .. } => {
                self.fetching.answer(payment_id, Ok(invoice));
                self.manager.abandon_payment(payment_id);
            }
            Event::SpendableOutputs { outputs, channel_id, counterparty_node_id } => {
                self.note_outputs(&outputs, channel_id);
                let tracked =
                    self.sweeper.track_spendable_outputs(outputs, channel_id, counterparty_node_id, false, None);
                tracked.map_err(|()| ReplayEvent())?;
                // At once: the chore comes every half minute, and until then the money is in a channel that is no more.
                if self.sweeper.regenerate_and_broadcast_spend_if_necessary().is_err() {
                    tracing::warn!("what came out of a channel can't be swept now; it is tried again");
                }
            }
            Event::BumpTransaction(bump) => {
                if self.is_worth_hurrying(&bump) {
                    self.bumper.handle_event(&bump);
                }
            }
            Event::ConnectionNeeded { node_id, addresses } => {
                drop(tokio::spawn(peers::reach(Arc::clone(self), node_id, addresses)));
            }
            Event::FundingGenerationReady { .. }
            | Event::OpenChannelRequest { .. }
            | Event::ChannelPending { .. }
            | Event::ChannelReady { .. }
            | Event::ChannelClosed { .. }
            | Event::DiscardFunding { .. } => self.handle_channel(event),
            other => tracing::trace!(event = ?other, "an event that asks for nothing"),
        }
        Ok(())
    }

    /// What a payment's way says of the graph and of the channels on it.
    fn learn(&self, event: &Event) {
        let now = self.since_epoch();
        if let Event::PaymentPathFailed { failure: PathFailure::OnPath { network_update: Some(update) }, .. } = event {
            self.graph.handle_network_update(update);
        }
        match event {
            Event::PaymentPathFailed { path, short_channel_id: Some(channel), .. } => {
                self.scorer.write_lock().payment_path_failed(path, *channel, now);
            }
            // It arrived, and was not wanted: the way is good.
            Event::PaymentPathFailed { path, payment_failed_permanently: true, .. } => {
                self.scorer.write_lock().probe_successful(path, now);
            }
            Event::PaymentPathSuccessful { path, .. } => self.scorer.write_lock().payment_path_successful(path, now),
            Event::ProbeSuccessful { path, .. } => self.scorer.write_lock().probe_successful(path, now),
            Event::ProbeFailed { path, short_channel_id: Some(channel), .. } => {
                self.scorer.write_lock().probe_failed(path, *channel, now);
            }
            _ => {}
        }
    }

    fn handle_incoming(&self, event: Event) {
        match event {
            Event::PaymentClaimable { payment_hash, amount_msat, purpose, claim_deadline, payment_id, .. } => {
                let hash = PaymentHash(payment_hash.0);
                if lock(&self.cancelled).contains(&hash) {
                    self.manager.fail_htlc_backwards(&payment_hash);
                    return;
                }
                let offer = match &purpose {
                    PaymentPurpose::Bolt12OfferPayment { payment_context, .. } => {
                        Some(super::offers::id_text(&payment_context.offer_id))
                    }
                    _ => None,
                };
                self.stage.push(Step::Arrived(Arrival {
                    hash,
                    part: part(payment_id),
                    amount: amount(amount_msat),
                    claim_before: claim_deadline,
                    preimage: purpose.preimage().map(|preimage| Preimage(preimage.0)),
                    offer,
                }));
                self.stage.hint(NodeEvent::Incoming(hash));
                self.stage.note_claimable();
            }
            Event::PaymentClaimed { payment_hash, amount_msat, payment_id, .. } => {
                let hash = PaymentHash(payment_hash.0);
                self.stage.push(Step::Claimed { hash, part: part(payment_id), amount: amount(amount_msat) });
                self.stage.hint(NodeEvent::Incoming(hash));
                self.stage.note_claimed();
            }
            _ => {}
        }
    }

    fn handle_outgoing(self: &Arc<Self>, event: Event) {
        match event {
            Event::PaymentSent { payment_id, payment_preimage, payment_hash, amount_msat, fee_paid_msat, .. } => {
                // Very old state names no payment: then its hash is a name that no row of ours has.
                let id = PaymentId(payment_id.map_or(payment_hash.0, |id| id.0));
                // The amount is what the payee was given, and may be more than it had asked for.
                let cost = amount_msat.zip(fee_paid_msat).map(|(given, fee)| amount(given.saturating_add(fee)));
                self.stage.push(Step::PaymentSent { id, preimage: Preimage(payment_preimage.0), cost });
                self.router.forget(id);
                self.stage.ended(id);
                self.stage.hint(NodeEvent::Outgoing(id));
                lock(&self.paying).room = true;
            }
            Event::PaymentFailed { payment_id, reason, .. } => {
                lock(&self.paying).room = true;
                let why = reason.map_or_else(|| "nobody answered".to_owned(), |reason| format!("{reason:?}"));
                if !self.fetching.answer(payment_id, Err(why)) {
                    self.payment_failed(PaymentId(payment_id.0), reason);
                }
            }
            _ => {}
        }
    }

    /// What one part of a payment came to. The payee may claim it and let another go, which nobody tells.
    fn note_part(&self, id: PaymentId, hash: Option<PaymentHash>, path: &Path) {
        let msat = path.final_value_msat().saturating_add(path.fee_msat());
        if self.router.is_parted(id) && !hash.is_some_and(|hash| self.is_booked_with_its_channel(hash, msat)) {
            let cost = amount(msat);
            // LDK gives parts no names that could be seen here; each is told in one commit, with the manager that has forgotten it.
            let part = format!("{:016x}", rand::random::<u64>());
            self.stage.push(Step::PartClaimed { id, part, cost });
        }
    }

    fn handle_channel(&self, event: Event) {
        match event {
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                ..
            } => {
                let value = bitcoin::Amount::from_sat(channel_value_satoshis);
                self.fund(temporary_channel_id, counterparty_node_id, value, output_script);
            }
            Event::OpenChannelRequest {
                temporary_channel_id,
                counterparty_node_id,
                funding_satoshis,
                channel_negotiation_type,
                ..
            } => {
                let given = match channel_negotiation_type {
                    InboundChannelFunds::PushMsat(msat) => msat,
                    InboundChannelFunds::DualFunded => 0,
                };
                self.consider(temporary_channel_id, counterparty_node_id, funding_satoshis, given);
            }
            Event::DiscardFunding { funding_info: FundingInfo::Tx { transaction }, .. } => {
                self.wallet.let_go(&transaction);
            }
            Event::ChannelClosed { channel_id, reason, counterparty_node_id, last_local_balance_msat, .. } => {
                self.note_closed(channel_id, last_local_balance_msat.unwrap_or(0));
                tracing::info!(channel = %channel_id, peer = ?counterparty_node_id, %reason, "a channel is closed");
                self.stage.hint(NodeEvent::Channels);
            }
            Event::ChannelPending { channel_id, counterparty_node_id, funding_txo, user_channel_id, .. } => {
                self.note_channel(channel_id, funding_txo, user_channel_id);
                tracing::info!(channel = %channel_id, peer = %counterparty_node_id, funding = %funding_txo, "a channel waits for its confirmation");
                self.stage.hint(NodeEvent::Channels);
            }
            Event::ChannelReady { channel_id, counterparty_node_id, .. } => {
                self.note_given(channel_id);
                tracing::info!(channel = %channel_id, peer = %counterparty_node_id, "a channel can be used");
                lock(&self.paying).room = true;
                self.stage.hint(NodeEvent::Channels);
            }
            _ => {}
        }
    }
}

/// LDK's name of one arrival. Only very old state has none.
fn part(id: Option<LdkPaymentId>) -> String {
    id.map_or_else(String::new, |id| PaymentId(id.0).to_string())
}

/// No channel has more than fits.
pub fn amount(msat: u64) -> Amount {
    Amount::from_msat(msat).unwrap_or(Amount::MAX)
}
