//! What happens to a payment: it is read, sent, held, and settled or sent back.

use super::route;
use super::state::{Flight, Hop, NodeState, Place, State};
use super::texts::{self, Invoice};
use super::{HOLD_BLOCKS, amount};
use crate::money::Amount;
use crate::ports::lightning::{
    ClaimOutcome, Destination, Held, Incoming, NodeEvent, Paid, PayFailure, PayOutcome, Payment, PaymentHash,
    PaymentId, Preimage,
};

/// Who is paid, and how.
struct Reading {
    payee: usize,
    preimage: Option<Preimage>,
}

impl State {
    /// Takes a payment into the records of its payer, and sends it.
    pub fn pay(&mut self, payer: usize, payment: &Payment) -> PayOutcome {
        if let Some(outcome) = self.nodes[payer].sent.get(&payment.id) {
            return outcome.clone();
        }
        match self.prepare(payer, payment) {
            Err(why) => self.resolve(payer, payment.id, PayOutcome::Failed(why)),
            Ok(flight) => {
                self.nodes[payer].sent.insert(payment.id, PayOutcome::Pending);
                let number = self.fresh_number();
                self.debit(&flight);
                self.flights.insert(number, flight);
                if !self.nodes[payer].holds_payments {
                    self.arrive(number);
                }
            }
        }
        self.nodes[payer].sent.get(&payment.id).cloned().unwrap_or(PayOutcome::Pending)
    }

    fn prepare(&self, payer: usize, payment: &Payment) -> Result<Flight, PayFailure> {
        let msat = payment.amount.base_units();
        let reading = self.read(&payment.destination, payment.hash, msat)?;
        let hops = route::cheapest(self, payer, reading.payee, msat).ok_or(PayFailure::NoLiquidity)?;
        let fee = fee_of(&hops, msat);
        let overspends = self.nodes[payer].overspends;
        if fee > payment.max_fee.base_units() && overspends == 0 {
            return Err(PayFailure::FeeTooHigh);
        }
        let left = hops.first().map_or(0, |hop| self.channels[hop.channel].balances[hop.sender] - hop.amount);
        Ok(Flight {
            payer,
            payee: reading.payee,
            payment: payment.id,
            hash: payment.hash,
            amount: msat,
            fee,
            extra: overspends.min(left),
            hops,
            preimage: reading.preimage,
            place: Place::OnItsWay,
        })
    }

    fn read(&self, destination: &Destination, hash: PaymentHash, msat: u64) -> Result<Reading, PayFailure> {
        let invoice = match destination {
            Destination::Keysend { to, preimage } => {
                let payee = self.index_of(*to).ok_or(PayFailure::NoLiquidity)?;
                let fits = preimage.hash() == hash && msat > 0;
                let reading = Reading { payee, preimage: Some(*preimage) };
                return if fits { Ok(reading) } else { Err(PayFailure::NotPayable) };
            }
            Destination::Bolt11(text) => texts::read_bolt11(text),
            Destination::Bolt12(hex) => texts::read_bolt12(hex),
        };
        let Some(Invoice { payee, hash: of_invoice, amount, expires_at }) = invoice else {
            return Err(PayFailure::NotPayable);
        };
        if of_invoice != hash || msat == 0 || amount.is_some_and(|asked| msat < asked) {
            return Err(PayFailure::NotPayable);
        }
        if texts::since_epoch(&self.clock) >= expires_at {
            return Err(PayFailure::InvoiceExpired);
        }
        let payee = self.index_of(payee).ok_or(PayFailure::NoLiquidity)?;
        Ok(Reading { payee, preimage: None })
    }

    /// The fee of the cheapest way, or why there is none.
    pub fn quote(&self, payer: usize, destination: &Destination, msat: u64) -> Result<Amount, String> {
        let hash = match destination {
            Destination::Keysend { preimage, .. } => Some(preimage.hash()),
            Destination::Bolt11(text) => texts::read_bolt11(text).map(|invoice| invoice.hash),
            Destination::Bolt12(hex) => texts::read_bolt12(hex).map(|invoice| invoice.hash),
        };
        let hash = hash.ok_or("the invoice can't be read")?;
        let reading = self.read(destination, hash, msat).map_err(|why| format!("{why:?}"))?;
        let hops = route::cheapest(self, payer, reading.payee, msat).ok_or("no way with what the channels can send")?;
        Ok(amount(fee_of(&hops, msat)))
    }

    /// At its end it is held or refused, and claimed where the payee does that by itself.
    pub fn arrive(&mut self, number: u64) {
        let Some(flight) = self.flights.get(&number) else { return };
        let (payee, hash) = (flight.payee, flight.hash);
        let is_keysend = flight.preimage.is_some();
        let another = self
            .flights
            .values()
            .any(|other| other.payee == payee && other.hash == hash && other.place != Place::OnItsWay);
        let receive = self.nodes[payee].receives.get(&hash);
        let is_welcome = match receive {
            Some(receive) => !receive.cancelled,
            None => is_keysend,
        };
        if another || !is_welcome || !self.is_up(payee) {
            return self.send_back(number, PayFailure::Rejected);
        }
        let known = flight.preimage.or_else(|| receive.and_then(|receive| receive.preimage));
        let claim_before = self.height + HOLD_BLOCKS;
        if let Some(flight) = self.flights.get_mut(&number) {
            flight.place = Place::Held { claim_before };
        }
        self.tell(payee, NodeEvent::Incoming(hash));
        if let Some(preimage) = known.filter(|_| self.nodes[payee].claims_by_itself) {
            self.settle(number, preimage);
        }
    }

    fn debit(&mut self, flight: &Flight) {
        for hop in &flight.hops {
            self.channels[hop.channel].balances[hop.sender] -= hop.amount;
        }
        if let Some(first) = flight.hops.first() {
            self.channels[first.channel].balances[first.sender] -= flight.extra;
        }
    }

    pub fn settle(&mut self, number: u64, preimage: Preimage) {
        let Some(flight) = self.flights.remove(&number) else { return };
        for hop in &flight.hops {
            self.channels[hop.channel].balances[1 - hop.sender] += hop.amount;
        }
        if let Some(first) = flight.hops.first() {
            self.channels[first.channel].balances[1 - first.sender] += flight.extra;
        }
        self.tell_forwarded(number, &flight);
        *self.nodes[flight.payee].claimed.entry(flight.hash).or_default() += flight.amount;
        self.tell(flight.payee, NodeEvent::Incoming(flight.hash));
        let paid = Paid { preimage, fee: amount(flight.fee + flight.extra) };
        self.resolve(flight.payer, flight.payment, PayOutcome::Succeeded(paid));
    }

    pub fn send_back(&mut self, number: u64, why: PayFailure) {
        let Some(flight) = self.flights.remove(&number) else { return };
        for hop in &flight.hops {
            self.channels[hop.channel].balances[hop.sender] += hop.amount;
        }
        if let Some(first) = flight.hops.first() {
            self.channels[first.channel].balances[first.sender] += flight.extra;
        }
        if flight.place != Place::OnItsWay {
            self.tell(flight.payee, NodeEvent::Incoming(flight.hash));
        }
        self.resolve(flight.payer, flight.payment, PayOutcome::Failed(why));
    }

    fn resolve(&mut self, payer: usize, payment: PaymentId, outcome: PayOutcome) {
        self.nodes[payer].sent.insert(payment, outcome);
        self.tell(payer, NodeEvent::Outgoing(payment));
    }

    /// What has come to its end at this node, and is neither settled nor sent back.
    fn arrived_at(&self, payee: usize) -> impl Iterator<Item = (u64, &Flight)> {
        let arrived = move |flight: &Flight| flight.payee == payee && flight.place != Place::OnItsWay;
        self.flights.iter().filter(move |(_, flight)| arrived(flight)).map(|(number, flight)| (*number, flight))
    }

    /// Of that, what waits to be claimed or failed, and until when.
    fn held_at(&self, payee: usize) -> impl Iterator<Item = (u64, &Flight, u32)> {
        self.arrived_at(payee).filter_map(|(number, flight)| match flight.place {
            Place::Held { claim_before } => Some((number, flight, claim_before)),
            Place::OnItsWay | Place::Claiming { .. } => None,
        })
    }

    pub fn held_hashes(&self, payee: usize) -> Vec<PaymentHash> {
        self.held_at(payee).map(|(_, flight, _)| flight.hash).collect()
    }

    pub fn held_number(&self, payee: usize, hash: PaymentHash) -> Option<u64> {
        self.held_at(payee).find(|(_, flight, _)| flight.hash == hash).map(|(number, ..)| number)
    }

    pub fn incoming(&self, payee: usize, hash: PaymentHash) -> Incoming {
        let NodeState { claimed, receives, .. } = &self.nodes[payee];
        let held = self.held_at(payee).find(|(_, flight, _)| flight.hash == hash).map(|(_, flight, until)| Held {
            amount: amount(flight.amount),
            claim_before: Some(until),
            offer: receives.get(&hash).and_then(|receive| receive.offer.clone()),
        });
        Incoming { held, claimed: claimed.get(&hash).map(|msat| amount(*msat)) }
    }

    /// An error when the preimage is missing or opens something else.
    pub fn claim(&mut self, payee: usize, hash: PaymentHash, given: Option<Preimage>) -> Result<ClaimOutcome, String> {
        let found = self.arrived_at(payee).find(|(_, flight)| flight.hash == hash);
        let Some((number, flight)) = found else {
            let was_claimed = self.nodes[payee].claimed.contains_key(&hash);
            return Ok(if was_claimed { ClaimOutcome::Claiming } else { ClaimOutcome::NothingHeld });
        };
        if self.nodes[payee].claimed.contains_key(&hash) && matches!(flight.place, Place::Held { .. }) {
            // An invoice is paid once: who pays it again gets it back.
            self.send_back(number, PayFailure::Rejected);
            return Ok(ClaimOutcome::Claiming);
        }
        let known = self.nodes[payee].receives.get(&hash).and_then(|receive| receive.preimage);
        let preimage = given.or(flight.preimage).or(known).ok_or("the preimage is not known here")?;
        if preimage.hash() != hash {
            return Err("the preimage opens another hash".to_owned());
        }
        if self.nodes[payee].slow_claims {
            if let Some(flight) = self.flights.get_mut(&number) {
                flight.place = Place::Claiming { preimage };
            }
        } else {
            self.settle(number, preimage);
        }
        Ok(ClaimOutcome::Claiming)
    }

    /// Fails what is held; what is being claimed is not held any more.
    pub fn fail(&mut self, payee: usize, hash: PaymentHash) {
        if let Some(number) = self.held_number(payee, hash) {
            self.send_back(number, PayFailure::Rejected);
        }
    }

    /// Of this node's payments, those that have left and are nowhere yet.
    pub fn on_their_way(&self, payer: usize) -> Vec<u64> {
        let is_ours = |flight: &Flight| flight.payer == payer && flight.place == Place::OnItsWay;
        self.flights.iter().filter(|(_, flight)| is_ours(flight)).map(|(number, _)| *number).collect()
    }

    /// What is being claimed here, with what opens it.
    pub fn being_claimed(&self, payee: usize) -> Vec<(u64, Preimage)> {
        let claims = self.arrived_at(payee).filter_map(|(number, flight)| match flight.place {
            Place::Claiming { preimage } => Some((number, preimage)),
            Place::OnItsWay | Place::Held { .. } => None,
        });
        claims.collect()
    }
}

fn fee_of(hops: &[Hop], msat: u64) -> u64 {
    hops.first().map_or(0, |first| first.amount - msat)
}
