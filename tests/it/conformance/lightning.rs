//! What every Lightning node behind the port has to do, in the company of two others: one at the far end of its channel, and one
//! that only the first reaches, which takes a fee for it.
//!
//! Amounts are looked at as they change, so that the functions may run one after the other in the same world.

mod books;
mod channels;
mod fake;
mod ldk;
mod offers;
mod paying;
mod receiving;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};
use sluice::money::{Amount, Sat};
use sluice::ports::lightning::{
    Description, Destination, Held, LightningNode, NewInvoice, Outgoing, PayOutcome, Payment, PaymentHash, PaymentId,
    Preimage,
};

use crate::harness::peer::{eventually, eventually_shown};

/// No whole number of satoshis: what is paid is exact.
const AMOUNT: Amount = msat(12_345_678);
/// Enough for any route here, and for the smallest ceiling that libraries take seriously.
const ANY_FEE: Amount = msat(1_000_000);
const EXPIRES_IN: Duration = Duration::from_secs(3_600);

const fn msat(msat: u64) -> Amount {
    match Amount::from_msat(msat) {
        Ok(amount) => amount,
        Err(_) => panic!("a literal that fits"),
    }
}

/// The world around the node that is tested. There is money on both sides of its channel, and of the one behind it.
#[async_trait(?Send)]
trait Rig {
    /// As it runs now: after a restart it is another one.
    fn node(&self) -> Arc<dyn LightningNode>;
    fn near(&self) -> &dyn Counterpart;
    fn far(&self) -> &dyn Counterpart;
    /// Ends the node, and starts it on what it has written down. Returns when its channel is in use.
    async fn restart(&self);
    async fn mine(&self, blocks: u32);
    /// Returns when a transaction waits for the next block.
    async fn something_waits(&self);
    /// Gives the node's own wallet this much, confirmed.
    async fn fund(&self, sat: Sat);
}

/// What became of a payment that a counterpart sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    OnItsWay,
    Arrived { preimage: Option<Preimage> },
    Failed,
}

/// Another node, of whatever make.
#[async_trait]
trait Counterpart: Send + Sync {
    fn id(&self) -> PublicKey;
    fn address(&self) -> String;
    /// An invoice that it claims by itself.
    async fn invoice(&self, amount: Option<Amount>) -> String;
    /// An invoice whose payment waits to be claimed or failed.
    async fn hold_invoice(&self, amount: Option<Amount>, hash: PaymentHash) -> String;
    async fn holds(&self, hash: PaymentHash) -> bool;
    async fn claim(&self, preimage: Preimage);
    async fn fail(&self, hash: PaymentHash);
    /// Answers the name under which `sent` finds it.
    async fn pay(&self, invoice: &str, amount: Option<Amount>) -> String;
    async fn keysend(&self, to: PublicKey, amount: Amount, preimage: Preimage) -> String;
    async fn offer(&self, amount: Option<Amount>) -> String;
    async fn pay_offer(&self, offer: &str, amount: Option<Amount>) -> String;
    async fn sent(&self, name: &str) -> Sent;
    /// Begins a channel, of which no block has the funding when this returns.
    async fn begin_channel(&self, to: PublicKey, address: &str, amount: Sat, push: Amount);
    /// From now on it says nothing, and hears nothing, until it goes on.
    fn freeze(&self);
    fn go_on(&self);
}

struct World {
    rig: Box<dyn Rig>,
}

impl World {
    fn node(&self) -> Arc<dyn LightningNode> {
        self.rig.node()
    }

    fn near(&self) -> &dyn Counterpart {
        self.rig.near()
    }

    fn far(&self) -> &dyn Counterpart {
        self.rig.far()
    }

    /// An invoice of the node that is tested.
    async fn invoice(&self, amount: Option<Amount>) -> (String, Preimage) {
        let preimage = Preimage::fresh();
        let invoice = self.node().create_invoice(&new_invoice(preimage.hash(), amount)).await.expect("an invoice");
        (invoice, preimage)
    }

    async fn held(&self, hash: PaymentHash) -> Held {
        eventually("it is held", async || self.node().incoming(hash).await.expect("an answer").held).await
    }

    async fn nothing_is_held(&self, hash: PaymentHash) {
        eventually("it is not held any more", async || {
            let is_listed = self.node().held().await.expect("an answer").contains(&hash);
            let held = self.node().incoming(hash).await.expect("an answer").held;
            (held.is_none() && !is_listed).then_some(())
        })
        .await;
    }

    async fn claimed(&self, hash: PaymentHash) -> Amount {
        eventually("it is claimed", async || self.node().incoming(hash).await.expect("an answer").claimed).await
    }

    /// What the node's channels hold, and what is on its way.
    async fn money(&self) -> (Amount, Amount) {
        let balance = self.node().balance().await.expect("an answer");
        (balance.channels, balance.in_flight)
    }

    /// Its channels hold this much, and nothing is on its way: at once, or soon.
    async fn has(&self, channels: Amount) {
        eventually_shown(&format!("the channels hold {channels} and nothing is on its way"), async || {
            let now = self.money().await;
            if now == (channels, Amount::ZERO) { Ok(()) } else { Err(now) }
        })
        .await;
    }

    /// Where the payment is in the node's records; it has to be there.
    async fn standing(&self, payment: &Payment) -> PayOutcome {
        match self.node().outgoing(payment.id, payment.hash).await.expect("an answer") {
            Outgoing::Known(outcome) => outcome,
            Outgoing::Nothing => panic!("there is no trace of it"),
        }
    }

    /// How a payment that was ordered ends.
    async fn outcome(&self, payment: &Payment) -> PayOutcome {
        eventually("the payment is settled", async || {
            let outcome = self.standing(payment).await;
            assert!(!matches!(outcome, PayOutcome::Unknown { .. }), "a node knows its payments: {outcome:?}");
            (outcome != PayOutcome::Pending).then_some(outcome)
        })
        .await
    }

    /// Orders a payment, and says how it ends.
    async fn pay(&self, payment: &Payment) -> PayOutcome {
        let ordered = self.node().pay(payment).await;
        assert!(!matches!(ordered, PayOutcome::Unknown { .. }), "{ordered:?}");
        self.outcome(payment).await
    }
}

/// Whatever the sender says in the end.
async fn end_of(sender: &dyn Counterpart, name: &str) -> Sent {
    eventually("the sender knows how it ended", async || {
        let sent = sender.sent(name).await;
        (sent != Sent::OnItsWay).then_some(sent)
    })
    .await
}

fn new_invoice(hash: PaymentHash, amount: Option<Amount>) -> NewInvoice {
    NewInvoice { hash, amount, description: Description::Text("a test".to_owned()), expires_in: EXPIRES_IN }
}

fn hash_of(invoice: &str) -> PaymentHash {
    let invoice: lightning_invoice::Bolt11Invoice = invoice.parse().expect("an invoice");
    PaymentHash(invoice.payment_hash().0)
}

fn fresh_id() -> PaymentId {
    PaymentId(rand::random())
}

/// A payment of an invoice, with any fee.
fn payment(invoice: &str, amount: Amount) -> Payment {
    let (hash, destination) = (hash_of(invoice), Destination::Bolt11(invoice.to_owned()));
    Payment { id: fresh_id(), hash, destination, amount, max_fee: ANY_FEE }
}

fn plus(one: Amount, other: Amount) -> Amount {
    one.checked_add(other).expect("no overflow")
}

fn minus(one: Amount, other: Amount) -> Amount {
    one.checked_sub(other).expect("there is more")
}

/// An invoice of somebody whom no channel reaches.
pub fn invoice_of_nobody(currency: Currency, age: Duration) -> String {
    let key = SecretKey::from_slice(&rand::random::<[u8; 32]>()).expect("a key");
    let now = sluice::clock::Clock::System.now().unix_seconds();
    let made_at = UNIX_EPOCH + Duration::from_secs(u64::try_from(now).expect("after 1970")) - age;
    let invoice = InvoiceBuilder::new(currency)
        .description("nobody's".to_owned())
        .amount_milli_satoshis(AMOUNT.base_units())
        .payment_hash(lightning::types::payment::PaymentHash(
            sha256::Hash::hash(&rand::random::<[u8; 32]>()).to_byte_array(),
        ))
        .payment_secret(PaymentSecret(rand::random()))
        .timestamp(made_at)
        .min_final_cltv_expiry_delta(144)
        .expiry_time(EXPIRES_IN)
        .basic_mpp()
        .build_signed(|message| Secp256k1::new().sign_ecdsa_recoverable(message, &key));
    invoice.expect("an invoice").to_string()
}

/// Every function of the suite, for whoever runs them all.
macro_rules! suite {
    ($run:ident) => {
        $run! {
            receiving: [
                an_invoice_says_what_was_asked_for,
                the_same_hash_may_be_asked_for_again,
                what_arrives_is_held_until_it_is_claimed,
                an_invoice_without_an_amount_takes_what_comes,
                what_is_failed_goes_back_to_the_payer,
                a_cancelled_invoice_takes_nothing_any_more,
                a_second_payment_for_a_claimed_hash_is_held_again,
                what_comes_from_afar_is_held_as_well,
                orders_may_be_repeated_and_a_claim_stays,
                nothing_is_known_of_what_never_came,
                a_payment_without_an_invoice_is_held,
                what_is_held_and_what_was_claimed_outlive_a_restart,
                what_is_held_for_too_long_goes_back,
                a_hint_comes_with_what_arrives,
            ],
            paying: [
                a_payment_ends_with_its_preimage_and_its_fee,
                the_payer_says_how_much_where_the_invoice_does_not,
                the_same_id_is_one_payment,
                other_ids_are_other_payments,
                a_failed_payment_stays_failed,
                nobody_reaches_a_stranger,
                more_than_there_is_is_not_sent,
                what_can_not_be_paid_is_refused_for_good,
                the_fee_is_what_was_quoted,
                the_ceiling_is_kept_to_the_last_unit,
                a_payee_that_does_not_want_it,
                a_payee_that_takes_its_time,
                what_is_on_its_way_outlives_a_restart,
                a_payment_without_an_invoice_arrives,
                a_hint_comes_when_a_payment_ends,
            ],
            offers: [
                an_offer_is_paid_and_held_and_claimed_without_its_preimage,
                an_offer_without_an_amount_takes_what_comes,
                an_invoice_is_fetched_for_an_offer_and_paid,
                the_amount_is_said_where_the_offer_says_none,
            ],
            channels: [
                a_channel_shows_what_it_can_do,
                the_node_knows_its_peers_and_itself,
                a_channel_is_opened_and_closed_and_the_coins_come_back,
                a_channel_is_closed_by_force,
                what_can_not_be_opened_is_refused,
                coins_are_sent_and_the_reserve_is_kept,
                what_waits_for_a_block_is_replaced_and_sent_once,
                what_it_tells_adds_up_to_what_it_has,
            ],
            books: [
                what_a_peer_only_begins_is_nothing,
                what_was_told_is_known_at_every_step,
                a_payment_that_is_claimed_in_a_channel_that_is_closed_by_force,
            ],
        }
    };
}
use suite;
