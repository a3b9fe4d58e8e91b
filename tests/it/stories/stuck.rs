//! A payee that is gone in the middle of a payment: what is not known is not failed, and ends when there is somebody to ask.

use super::on_both;
use super::scene::{PURSE, Paying, Scene, Set};
use crate::harness::lightning::sat;

/// What each payment may cost beyond its amount; the peer is next door and takes nothing.
const CEILING: u64 = 7;
const CLAIMED: u64 = 20_000;
const REFUSED: u64 = 30_000;
const ADDED: u64 = 40_000;

/// Nothing has moved: both read the same again, whoever asks and however often.
async fn all_wait(scene: &Scene, payments: &[&Paying], held_sats: u64) {
    for payment in payments {
        let status = scene.status(&payment.id).await;
        assert_eq!((&status["status"], &status["state"]), (&"PENDING".into(), &"paying".into()), "{status}");
        assert_eq!(scene.end(&payment.signed).await, status, "ended again");
    }
    assert_eq!(scene.offchain().await.1, held_sats * 1_000);
}

on_both!(a_payment_waits_for_a_payee_that_is_gone, Set::Pair, async |scene: Scene| {
    let claimed = scene.pays_and_waits(CLAIMED, CEILING).await;
    let refused = scene.pays_and_waits(REFUSED, CEILING).await;
    let both = CLAIMED + REFUSED + 2 * CEILING;
    all_wait(&scene, &[&claimed, &refused], both).await;

    // It stands still; then the gateway dies as well.
    scene.peer.freeze();
    all_wait(&scene, &[&claimed, &refused], both).await;
    scene.die_and_return().await;
    all_wait(&scene, &[&claimed, &refused], both).await;
    scene.peer.thaw();
    scene.usable().await;
    all_wait(&scene, &[&claimed, &refused], both).await;
    scene.peer.claim(claimed.preimage).await;
    let ended = scene.outcome(&claimed.id).await;
    assert_eq!((&ended["status"], &ended["fee_msat"]), (&"SUCCEEDED".into(), &0.into()), "{ended}");
    assert_eq!(ended["preimage"], claimed.preimage.to_string());
    scene.has((PURSE - CLAIMED) * 1_000, (REFUSED + CEILING) * 1_000).await;

    // It goes away while it holds the other one. In order: a peer of this make that is killed may forget its channel.
    scene.peer.stop().await;
    all_wait(&scene, &[&refused], REFUSED + CEILING).await;
    scene.gateway.terminate().await;
    scene.gateway.restart(None).await;
    scene.wait_for_node().await;
    all_wait(&scene, &[&refused], REFUSED + CEILING).await;
    scene.peer.launch().await;
    scene.usable().await;
    all_wait(&scene, &[&refused], REFUSED + CEILING).await;
    scene.peer.fail(refused.hash).await;
    let ended = scene.outcome(&refused.id).await;
    assert_eq!((&ended["status"], &ended["error_code"]), (&"FAILED".into(), &"rejected_by_payee".into()), "{ended}");
    scene.has((PURSE - CLAIMED) * 1_000, 0).await;
    assert_eq!(scene.end(&refused.signed).await, scene.status(&refused.id).await, "ended again");
    scene.audit().await;
});

// What is sent to a peer that stands still lies in a pipe that nobody reads. What is begun while it is away waits for it.
on_both!(a_payment_to_a_peer_that_does_not_answer_arrives_when_it_does, Set::Pair, async |scene: Scene| {
    let mut had = PURSE;
    for away in [false, true] {
        let invoice = scene.peer.invoice(Some(sat(ADDED)), "goods").await;
        let signed = scene.consent(&invoice, CEILING).await;
        if away {
            scene.peer.stop().await;
        } else {
            scene.peer.freeze();
        }
        let sent = scene.end(&signed).await;
        assert_eq!(sent["status"], "PENDING", "{sent}");
        scene.die_and_return().await;
        assert_eq!(scene.end(&signed).await, sent, "ended again");
        assert_eq!(scene.offchain().await, (had * 1_000, (ADDED + CEILING) * 1_000));
        if away {
            scene.peer.launch().await;
        } else {
            scene.peer.thaw();
        }
        scene.usable().await;
        let ended = scene.outcome(sent["id"].as_str().expect("an id")).await;
        assert_eq!((&ended["status"], &ended["fee_msat"]), (&"SUCCEEDED".into(), &0.into()), "{ended}");
        had -= ADDED;
    }
    scene.has(had * 1_000, 0).await;
    scene.audit().await;
});
