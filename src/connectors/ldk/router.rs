//! Which ways LDK may take. It asks here before it sends anything, at first and whenever it tries again by itself: a payment that
//! was not given to it from a row has no way, and neither has one that is larger than its row, or that gives its payee too much.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::{self, PublicKey, Secp256k1};
use lightning::blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::PaymentId as LdkPaymentId;
use lightning::routing::router::{InFlightHtlcs, Route, RouteParameters, Router as LdkRouter};
use lightning::sign::ReceiveAuthKey;
use lightning::types::payment::PaymentHash as LdkHash;

use super::stage::Stage;
use super::types::{Search, lock};
use crate::domain::lightning::PaymentId;
use crate::ports::lightning::Payment;
use crate::store::node::Step;

/// Looks that find nothing out before a payment's parts are added up. Between the first and the last of them the loop has made a whole
/// round and handled what LDK said after it, so that each part that was claimed has been told.
const LOOKS: u32 = 3;

pub struct Router {
    search: Search,
    stage: Arc<Stage>,
    wanted: Mutex<HashMap<PaymentId, Wanted>>,
    /// Payments that went out in parts, and how many looks in a row have found none of them out.
    parted: Mutex<HashMap<PaymentId, u32>>,
}

/// What a payment's row allows.
struct Wanted {
    hash: LdkHash,
    msat: u64,
    max_fee: u64,
    /// The way that was found before LDK was asked to pay, so that it need not look for one under its locks.
    way: Option<Route>,
}

impl Router {
    #[must_use]
    pub fn new(search: Search, stage: Arc<Stage>, parted: Vec<PaymentId>) -> Self {
        let parted = Mutex::new(parted.into_iter().map(|id| (id, 0)).collect());
        Self { search, stage, wanted: Mutex::default(), parted }
    }

    /// From now on LDK may pay this, as its row says.
    pub fn want(&self, payment: &Payment, way: Option<Route>) {
        let wanted = Wanted {
            hash: LdkHash(payment.hash.0),
            msat: payment.amount.base_units(),
            max_fee: payment.max_fee.base_units(),
            way,
        };
        lock(&self.wanted).insert(payment.id, wanted);
    }

    /// LDK has no more to send for this payment.
    pub fn forget(&self, id: PaymentId) {
        lock(&self.wanted).remove(&id);
    }

    /// The best way now; the same search as a payment's.
    ///
    /// # Errors
    /// When there is none that asks for no more than it should.
    pub fn look(
        &self,
        payer: &PublicKey,
        params: &RouteParameters,
        first_hops: &[&ChannelDetails],
        in_flight: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        let route = self.search.find_route(payer, params, Some(first_hops), in_flight)?;
        gives_no_more(&route, params)?;
        Ok(route)
    }

    /// Whether a payment was sent in parts, of which the payee may claim only some.
    pub fn is_parted(&self, id: PaymentId) -> bool {
        lock(&self.parted).contains_key(&id)
    }

    /// Payments in parts that LDK sends nothing more for.
    pub fn parted(&self) -> Vec<PaymentId> {
        let wanted = lock(&self.wanted);
        lock(&self.parted).keys().filter(|id| !wanted.contains_key(id)).copied().collect()
    }

    /// Whether a payment's parts are certainly over, after one more look at them.
    pub fn parts_are_over(&self, id: PaymentId, are_out: bool) -> bool {
        let mut parted = lock(&self.parted);
        let Some(quiet) = parted.get_mut(&id) else { return false };
        *quiet = if are_out { 0 } else { quiet.saturating_add(1) };
        let over = *quiet >= LOOKS;
        if over {
            parted.remove(&id);
        }
        over
    }

    fn note_parts(&self, id: PaymentId, route: &Route) {
        if route.paths.len() > 1 && lock(&self.parted).insert(id, 0).is_none() {
            self.stage.push(Step::Parts(id));
        }
    }
}

/// A payee may ask for more by a minimum of its last channel. LDK counts that as neither amount nor fee: no ceiling is about it.
fn gives_no_more(route: &Route, params: &RouteParameters) -> Result<(), &'static str> {
    if route.get_total_amount() > params.final_value_msat {
        return Err("the payee takes only more than it has asked for");
    }
    Ok(())
}

/// A way that was found for the same question. How long it may be is known only to whoever makes the onion.
fn answers(route: &Route, params: &RouteParameters) -> bool {
    let Some(asked) = &route.route_params else { return false };
    let mut asked = asked.clone();
    asked.payment_params.max_path_length = params.payment_params.max_path_length;
    let longest = usize::from(params.payment_params.max_path_length);
    let fits = |path: &lightning::routing::router::Path| {
        path.hops.len() + path.blinded_tail.as_ref().map_or(0, |tail| tail.hops.len()) <= longest
    };
    asked == *params && route.paths.iter().all(fits)
}

impl LdkRouter for Router {
    fn find_route(
        &self,
        _payer: &PublicKey,
        _params: &RouteParameters,
        _first_hops: Option<&[&ChannelDetails]>,
        _in_flight: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        Err("nothing is sent that is no payment of ours")
    }

    fn find_route_with_id(
        &self,
        payer: &PublicKey,
        params: &RouteParameters,
        first_hops: Option<&[&ChannelDetails]>,
        in_flight: InFlightHtlcs,
        hash: LdkHash,
        id: LdkPaymentId,
    ) -> Result<Route, &'static str> {
        let id = PaymentId(id.0);
        let (max_fee, way) = {
            let mut wanted = lock(&self.wanted);
            let wanted =
                wanted.get_mut(&id).filter(|wanted| wanted.hash == hash && params.final_value_msat <= wanted.msat);
            let Some(wanted) = wanted else {
                tracing::warn!(payment = %id, "LDK is kept from paying what is no payment of ours");
                return Err("this is no payment of ours");
            };
            (wanted.max_fee, wanted.way.take().filter(|way| answers(way, params)))
        };
        let mut route = match way {
            Some(way) => way,
            None => self.search.find_route(payer, params, first_hops, in_flight)?,
        };
        route.route_params = Some(params.clone());
        gives_no_more(&route, params)?;
        if route.get_total_fees() > max_fee {
            return Err("every way costs more than the payment's ceiling");
        }
        self.note_parts(id, &route);
        Ok(route)
    }

    fn create_blinded_payment_paths<T: secp256k1::Signing + secp256k1::Verification>(
        &self,
        recipient: PublicKey,
        key: ReceiveAuthKey,
        first_hops: Vec<ChannelDetails>,
        tlvs: ReceiveTlvs,
        amount_msats: Option<u64>,
        secp: &Secp256k1<T>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        self.search.create_blinded_payment_paths(recipient, key, first_hops, tlvs, amount_msats, secp)
    }
}

#[cfg(test)]
mod tests;
