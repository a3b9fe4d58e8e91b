//! The peer that others are tested against does itself what it is asked for.

use sluice::money::{Amount, Sat};
use sluice::ports::lightning::Preimage;

use crate::harness::bitcoind::Bitcoind;
use crate::harness::peer::{LdkPeer, Opening, PeerPayment, eventually};

const AMOUNT: Amount = Amount::from_sat(Sat::literal(2_000));
const CHANNEL: Opening =
    Opening { amount: Sat::literal(1_000_000), push: Amount::from_sat(Sat::literal(400_000)), announced: true };

async fn settled(peer: &LdkPeer, id: &str) -> PeerPayment {
    eventually("the payment is settled", async || {
        peer.payment(id).await.filter(|payment| *payment != PeerPayment::Pending)
    })
    .await
}

#[tokio::test]
async fn two_peers_pay_each_other() {
    let Some(bitcoind) = Bitcoind::start().await else { return };
    let Some(alice) = LdkPeer::start(&bitcoind, "alice").await else { return };
    let bob = LdkPeer::start(&bitcoind, "bob").await.expect("there is a program");
    alice.fund(&bitcoind, Sat::literal(2_000_000)).await;
    alice.open_channel(&bitcoind, &bob, bob.listens(), CHANNEL).await;

    let invoice = bob.invoice(Some(AMOUNT), "one").await;
    let sent = alice.pay(&invoice, None).await.unwrap();
    let PeerPayment::Succeeded { fee, .. } = settled(&alice, &sent).await else { panic!("not paid") };
    assert_eq!(fee, Some(Amount::ZERO));

    let preimage = Preimage::fresh();
    let invoice = alice.hold_invoice(None, preimage.hash()).await;
    let sent = bob.pay(&invoice, Some(AMOUNT)).await.unwrap();
    let held = eventually("it is held", async || alice.claimable(preimage.hash()).await).await;
    assert_eq!(held, AMOUNT);
    alice.claim(preimage).await;
    let PeerPayment::Succeeded { preimage: got, .. } = settled(&bob, &sent).await else { panic!("not paid") };
    assert_eq!(got, Some(preimage));

    let preimage = Preimage::fresh();
    let invoice = alice.hold_invoice(Some(AMOUNT), preimage.hash()).await;
    let sent = bob.pay(&invoice, None).await.unwrap();
    eventually("it is held", async || alice.claimable(preimage.hash()).await).await;
    alice.fail(preimage.hash()).await;
    assert!(matches!(settled(&bob, &sent).await, PeerPayment::Failed { .. }));

    let offer = bob.offer(Some(AMOUNT), "an offer").await;
    let sent = alice.pay_offer(&offer, None).await.unwrap();
    assert!(matches!(settled(&alice, &sent).await, PeerPayment::Succeeded { .. }));
    let sent = bob.keysend(alice.id(), AMOUNT, Preimage::fresh()).await.unwrap();
    assert!(matches!(settled(&bob, &sent).await, PeerPayment::Succeeded { .. }));

    bob.kill();
    bob.launch().await;
    alice.connect(bob.id(), bob.listens()).await;
    let channel = eventually("the channel is in use again", async || {
        bob.channels_with(alice.id()).await.into_iter().find(|channel| channel.usable)
    })
    .await;
    alice.close(&channel.id, false).await;
    eventually("the channel is closed", async || bob.channels().await.is_empty().then_some(())).await;
}
