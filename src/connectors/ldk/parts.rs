//! Payments in parts: those that went out, until none of them is out any more, and those that come in, until they are all there.

use std::collections::{HashMap, HashSet};

use lightning::ln::channel_state::InboundHTLCStateDetails;
use lightning::ln::channelmanager::RecentPaymentDetails;
use lightning::types::payment::PaymentHash as LdkHash;

use super::node::Node;
use crate::domain::lightning::{PaymentHash, PaymentId};
use crate::store::node::Step;

impl Node {
    /// Adds up what became of payments in parts, once none of them is out.
    pub fn look_at_parts(&self) {
        let parted = self.router.parted();
        if parted.is_empty() {
            return;
        }
        let out = self.payments_out();
        for id in parted {
            if self.router.parts_are_over(id, out.contains(&id)) {
                self.stage.push(Step::PartsOver(id));
            }
        }
    }

    /// Payments of which something is out, or may be. A part that its payee lets go of after it has claimed another is told by nobody:
    /// it is looked for in the channels. Of a closed channel only LDK knows when nothing is left, and says so by forgetting the payment.
    fn payments_out(&self) -> HashSet<PaymentId> {
        let channels = self.manager.list_channels();
        let open: HashSet<_> = channels.iter().map(|channel| channel.channel_id).collect();
        let is_closing = self.monitors.list_monitors().iter().any(|channel| !open.contains(channel));
        let htlcs = channels.iter().flat_map(|channel| &channel.pending_outbound_htlcs);
        let hashes: HashSet<LdkHash> = htlcs.map(|htlc| htlc.payment_hash).collect();
        let known = self.manager.list_recent_payments().into_iter().filter_map(|payment| match payment {
            RecentPaymentDetails::Fulfilled { payment_id, payment_hash, .. } => {
                let is_out = is_closing || payment_hash.is_none_or(|hash| hashes.contains(&hash));
                is_out.then_some(payment_id)
            }
            RecentPaymentDetails::AwaitingInvoice { payment_id }
            | RecentPaymentDetails::Pending { payment_id, .. }
            | RecentPaymentDetails::Abandoned { payment_id, .. } => Some(payment_id),
        });
        known.map(|id| PaymentId(id.0)).collect()
    }

    /// Payments in parts that LDK knows of.
    pub fn parted_payments(&self) -> HashMap<PaymentHash, PaymentId> {
        let known = self.manager.list_recent_payments().into_iter().filter_map(|payment| match payment {
            RecentPaymentDetails::Fulfilled { payment_id, payment_hash, .. } => Some((payment_hash?, payment_id)),
            RecentPaymentDetails::Pending { payment_id, payment_hash, .. }
            | RecentPaymentDetails::Abandoned { payment_id, payment_hash, .. } => Some((payment_hash, payment_id)),
            RecentPaymentDetails::AwaitingInvoice { .. } => None,
        });
        let known = known.map(|(hash, id)| (PaymentHash(hash.0), PaymentId(id.0)));
        known.filter(|(_, id)| self.router.is_parted(*id)).collect()
    }

    /// What is in a channel towards us and goes nowhere else: the first parts of a payment whose others are still on their way.
    pub fn parts_that_wait(&self) -> HashSet<LdkHash> {
        let channels = self.manager.list_channels();
        let passed_on: HashSet<LdkHash> =
            channels.iter().flat_map(|channel| &channel.pending_outbound_htlcs).map(|htlc| htlc.payment_hash).collect();
        let inbound = channels.iter().flat_map(|channel| &channel.pending_inbound_htlcs);
        let committed = inbound.filter(|htlc| htlc.state == Some(InboundHTLCStateDetails::Committed));
        committed.map(|htlc| htlc.payment_hash).filter(|hash| !passed_on.contains(hash)).collect()
    }
}
