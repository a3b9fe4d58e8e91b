use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::Timestamp;
use crate::ports::lightning::{
    Capabilities, Description, Destination, Fetched, LightningNode, NewInvoice, NewOffer, NodeEvent, Outgoing, Paid,
    PayFailure, PayOutcome, Payment, PaymentHash, PaymentId, Preimage,
};

const START: Timestamp = Timestamp::from_millis(1_760_000_000_000);
const SIDE: Sat = Sat::literal(100_000);
const MUCH: Amount = Amount::from_sat(Sat::literal(1_000));

/// Alice and Bob with a channel of the same size for each.
struct Pair {
    network: Arc<FakeNetwork>,
    clock: Clock,
    alice: Arc<FakeNode>,
    bob: Arc<FakeNode>,
}

fn pair() -> Pair {
    let clock = Clock::manual(START);
    let network = FakeNetwork::new(clock.clone());
    let (alice, bob) = (network.add_node(), network.add_node());
    network.open(&alice, &bob, SIDE, SIDE);
    Pair { network, clock, alice, bob }
}

fn msat(msat: u64) -> Amount {
    Amount::from_msat(msat).unwrap()
}

fn to(invoice: &str, hash: PaymentHash) -> Payment {
    let destination = Destination::Bolt11(invoice.to_owned());
    Payment { id: PaymentId(rand::random()), hash, destination, amount: MUCH, max_fee: Amount::ZERO }
}

async fn outcome(node: &FakeNode, payment: &Payment) -> PayOutcome {
    match node.outgoing(payment.id, payment.hash).await.unwrap() {
        Outgoing::Known(outcome) => outcome,
        Outgoing::Nothing => panic!("no trace of it"),
    }
}

/// What the channels of a node hold for it.
async fn has(node: &FakeNode) -> u64 {
    node.balance().await.unwrap().channels.base_units()
}

impl Pair {
    /// Nothing that is in the channels was made or lost.
    fn balances_add_up(&self) {
        assert_eq!(self.network.unaccounted(), Amount::ZERO);
    }
}

#[tokio::test]
async fn a_lost_answer_is_not_a_lost_payment() {
    let it = pair();
    it.bob.claim_by_itself(true);
    let (invoice, preimage) = it.bob.invoice(Some(MUCH), "");
    let payment = to(&invoice, preimage.hash());
    it.alice.set_fault(Fault::AnswerLost);
    assert!(matches!(it.alice.pay(&payment).await, PayOutcome::Unknown { .. }));
    it.alice.set_fault(None);
    let paid = PayOutcome::Succeeded(Paid { preimage, fee: Amount::ZERO });
    assert_eq!(outcome(&it.alice, &payment).await, paid);
    assert_eq!(it.alice.pay(&payment).await, paid);
    assert_eq!(it.alice.paid(), (1, 1));
    it.balances_add_up();
}

#[tokio::test]
async fn a_lost_payment_leaves_no_trace() {
    let it = pair();
    let (invoice, preimage) = it.bob.invoice(Some(MUCH), "");
    let payment = to(&invoice, preimage.hash());
    it.alice.set_fault(Fault::PaymentLost);
    assert!(matches!(it.alice.pay(&payment).await, PayOutcome::Unknown { .. }));
    assert_eq!(it.alice.outgoing(payment.id, payment.hash).await, Ok(Outgoing::Nothing));
    assert!(!it.bob.is_holding(payment.hash));
}

#[tokio::test]
async fn what_is_only_in_memory_is_gone_after_a_restart() {
    let it = pair();
    let (invoice, preimage) = it.bob.invoice(Some(MUCH), "");
    let payment = to(&invoice, preimage.hash());
    it.alice.set_fault(Fault::PaymentOnlyInMemory);
    for restarted in [true, false] {
        assert!(matches!(it.alice.pay(&payment).await, PayOutcome::Unknown { .. }));
        assert_eq!(outcome(&it.alice, &payment).await, PayOutcome::Pending);
        assert!(!it.bob.is_holding(payment.hash));
        if restarted {
            it.alice.restart();
            assert_eq!(it.alice.outgoing(payment.id, payment.hash).await, Ok(Outgoing::Nothing));
        }
    }
    it.alice.release_payments();
    assert!(it.bob.is_holding(payment.hash));
    it.balances_add_up();
}

#[tokio::test]
async fn a_payment_that_is_held_back_arrives_or_fails_when_told() {
    let it = pair();
    it.alice.hold_payments();
    it.bob.claim_by_itself(true);
    for arrives in [true, false] {
        let (invoice, preimage) = it.bob.invoice(Some(MUCH), "");
        let payment = to(&invoice, preimage.hash());
        let before = has(&it.alice).await;
        assert_eq!(it.alice.pay(&payment).await, PayOutcome::Pending);
        let balance = it.alice.balance().await.unwrap();
        assert_eq!(balance.channels.base_units(), before - MUCH.base_units());
        assert_eq!(balance.in_flight, MUCH);
        if arrives {
            it.alice.release_payments();
            it.alice.hold_payments();
            assert!(matches!(outcome(&it.alice, &payment).await, PayOutcome::Succeeded(_)));
        } else {
            it.alice.fail_payments(PayFailure::NoLiquidity);
            assert_eq!(outcome(&it.alice, &payment).await, PayOutcome::Failed(PayFailure::NoLiquidity));
            assert_eq!(has(&it.alice).await, before);
        }
        it.balances_add_up();
    }
}

#[tokio::test]
async fn what_is_held_goes_back_at_its_height() {
    let it = pair();
    let (invoice, preimage) = it.bob.invoice(Some(MUCH), "");
    let payment = to(&invoice, preimage.hash());
    assert_eq!(it.alice.pay(&payment).await, PayOutcome::Pending);
    let held = it.bob.incoming(payment.hash).await.unwrap().held.unwrap();
    assert_eq!(held.claim_before, Some(it.network.height() + HOLD_BLOCKS));
    it.network.mine(HOLD_BLOCKS - 1);
    assert_eq!(outcome(&it.alice, &payment).await, PayOutcome::Pending);
    it.network.mine(1);
    assert_eq!(outcome(&it.alice, &payment).await, PayOutcome::Failed(PayFailure::Rejected));
    assert_eq!(it.bob.incoming(payment.hash).await.unwrap().held, None);
    it.balances_add_up();
}

#[tokio::test]
async fn a_slow_claim_is_certain_only_later_and_blocks_do_not_undo_it() {
    let it = pair();
    it.bob.slow_claims();
    let (invoice, preimage) = it.bob.invoice(Some(MUCH), "");
    let payment = to(&invoice, preimage.hash());
    it.alice.pay(&payment).await;
    it.bob.claim(payment.hash, Some(preimage)).await.unwrap();
    it.network.mine(2 * HOLD_BLOCKS);
    it.bob.fail(payment.hash).await.unwrap();
    let incoming = it.bob.incoming(payment.hash).await.unwrap();
    assert_eq!((incoming.held, incoming.claimed), (None, None));
    assert_eq!(it.bob.claim(payment.hash, Some(preimage)).await, Ok(crate::ports::lightning::ClaimOutcome::Claiming));
    it.bob.release_claims();
    assert_eq!(it.bob.incoming(payment.hash).await.unwrap().claimed, Some(MUCH));
    it.balances_add_up();
}

#[tokio::test]
async fn a_node_that_overspends_says_so_afterwards() {
    let it = pair();
    it.bob.claim_by_itself(true);
    it.alice.overspend(msat(7));
    let (invoice, preimage) = it.bob.invoice(Some(MUCH), "");
    let payment = to(&invoice, preimage.hash());
    let before = has(&it.alice).await;
    assert_eq!(it.alice.pay(&payment).await, PayOutcome::Succeeded(Paid { preimage, fee: msat(7) }));
    assert_eq!(before - has(&it.alice).await, MUCH.base_units() + 7);
    assert_eq!(it.bob.incoming(payment.hash).await.unwrap().claimed, Some(MUCH));
    it.balances_add_up();
}

#[tokio::test]
async fn the_way_that_costs_least_is_taken_and_not_the_shortest() {
    let it = pair();
    let (dear, cheap, cheaper) = (it.network.add_node(), it.network.add_node(), it.network.add_node());
    let payee = it.network.add_node();
    payee.claim_by_itself(true);
    dear.set_fees(msat(900), 0);
    cheap.set_fees(msat(100), 1_000);
    cheaper.set_fees(msat(0), 2_000);
    it.network.open(&it.alice, &dear, SIDE, SIDE);
    it.network.open(&dear, &payee, SIDE, SIDE);
    for (one, other) in [(&it.alice, &cheap), (&cheap, &cheaper), (&cheaper, &payee)] {
        it.network.open(one, other, SIDE, SIDE);
    }
    let (invoice, preimage) = payee.invoice(None, "");
    let mut payment = to(&invoice, preimage.hash());
    payment.amount = msat(100_000);
    payment.max_fee = msat(400);
    // 200 for the second, and of what it forwards 100.2 for the first, beside its base.
    let fee = 200 + 100 + 100;
    assert_eq!(it.alice.pay(&payment).await, PayOutcome::Succeeded(Paid { preimage, fee: msat(fee) }));
    assert_eq!(has(&cheap).await - 2 * SIDE.to_u64() * 1_000, 200);
    assert_eq!(has(&cheaper).await - 2 * SIDE.to_u64() * 1_000, 200);
    it.balances_add_up();
}

#[tokio::test]
async fn an_expired_invoice_is_not_paid_but_what_came_in_time_stays_held() {
    let it = pair();
    let preimage = Preimage::fresh();
    let new = NewInvoice {
        hash: preimage.hash(),
        amount: None,
        description: Description::Text(String::new()),
        expires_in: Duration::from_secs(60),
    };
    let invoice = it.bob.create_invoice(&new).await.unwrap();
    let payment = to(&invoice, preimage.hash());
    assert_eq!(it.alice.pay(&payment).await, PayOutcome::Pending);
    it.clock.advance(Duration::from_secs(60));
    assert!(it.bob.is_holding(payment.hash));
    let late = to(&invoice, preimage.hash());
    assert_eq!(it.alice.pay(&late).await, PayOutcome::Failed(PayFailure::InvoiceExpired));
}

#[tokio::test]
async fn an_offer_expires_by_the_clock_of_the_test() {
    let it = pair();
    let new =
        NewOffer { amount: Some(MUCH), description: "long past".to_owned(), expires_in: Some(Duration::from_secs(60)) };
    let offer = it.bob.create_offer(&new).await.unwrap();
    let fetched = it.alice.fetch_invoice(&offer, None, None).await.unwrap();
    assert!(matches!(fetched, Fetched::Invoice { amount: MUCH, .. }), "{fetched:?}");
    it.clock.advance(Duration::from_secs(60));
    let fetched = it.alice.fetch_invoice(&offer, None, None).await.unwrap();
    assert!(matches!(fetched, Fetched::Refused { .. }), "{fetched:?}");
}

#[tokio::test]
async fn events_are_lost_and_doubled_when_told() {
    let it = pair();
    let mut events = it.bob.events();
    let hash = Preimage::fresh().hash();
    for (fault, times) in [(None, 1), (Some(Fault::EventsLost), 0), (Some(Fault::EventsTwice), 2)] {
        it.bob.set_fault(fault);
        it.bob.emit(NodeEvent::Incoming(hash));
        for _ in 0..times {
            assert_eq!(events.try_recv(), Ok(NodeEvent::Incoming(hash)));
        }
        assert!(events.try_recv().is_err());
    }
    it.bob.restart();
    assert!(matches!(events.try_recv(), Err(tokio::sync::broadcast::error::TryRecvError::Closed)));
}

#[tokio::test]
async fn a_node_that_is_down_answers_nothing_and_nobody_pays_through_it() {
    let it = pair();
    let (invoice, preimage) = it.bob.invoice(Some(MUCH), "");
    let payment = to(&invoice, preimage.hash());
    it.alice.set_fault(Fault::Down);
    assert!(matches!(it.alice.pay(&payment).await, PayOutcome::Unknown { .. }));
    assert!(it.alice.outgoing(payment.id, payment.hash).await.is_err());
    it.alice.set_fault(None);
    it.bob.set_fault(Fault::Down);
    assert_eq!(it.alice.pay(&payment).await, PayOutcome::Failed(PayFailure::NoLiquidity));
    assert!(!it.alice.channels().await.unwrap()[0].usable);
    it.alice.set_fault(Fault::Hang(Duration::from_millis(1)));
    assert!(matches!(it.alice.info().await, Err(PortError::Unreachable { .. })));
}

#[tokio::test]
async fn what_a_node_can_not_do_it_refuses_as_misconfigured() {
    let it = pair();
    it.alice.set_capabilities(Capabilities { quotes: false, bolt12: false, channels: false, onchain: false });
    let refused = |error: PortError| matches!(error, PortError::Misconfigured { .. });
    assert!(refused(it.alice.channels().await.unwrap_err()));
    assert!(refused(it.alice.onchain_address().await.unwrap_err()));
    assert!(refused(it.alice.fetch_invoice("lno1", None, None).await.unwrap_err()));
}
