//! Three nodes in a line: what a payment costs is what was said before, and never more than was consented to.

use std::time::Duration;

use lightning_invoice::Currency;

use super::on_both;
use super::scene::{PATIENCE, PURSE, Scene, Set};
use crate::conformance::lightning::invoice_of_nobody;
use crate::harness::lightning::sat;
use crate::harness::peer::{LdkPeer, eventually_shown};

const AMOUNT: u64 = 100_000;
/// What the node between takes of it: 1,000 millisatoshi and 500 millionths.
const FEE: u64 = 51;
/// What it takes later: 99 %.
const DEAR_PPM: u32 = 990_000;
const DEAR: u64 = 99_000;

/// Waits until the gateway has heard what the way to the far node costs.
async fn estimated(scene: &Scene, far: &LdkPeer, invoice: &str, fee: u64) {
    let mut asked = 0;
    eventually_shown(&format!("the way costs {fee} sat"), async || {
        let answer = scene.estimate(invoice).await;
        if answer.is_ok() && answer.body == fee {
            return Ok(());
        }
        asked += 1;
        if asked % PATIENCE == 0 {
            scene.peer.meet_again(far.id(), far.listens()).await;
            scene.peer.meet_again(scene.node, &scene.listens).await;
        }
        Err(answer)
    })
    .await;
}

on_both!(a_payment_over_another_node_costs_what_was_estimated, Set::Line, async |scene: Scene| {
    let far = scene.far.as_ref().expect("there is one in a line");
    let mut left = PURSE * 1_000;
    // Next door: nothing.
    let invoice = scene.peer.invoice(Some(sat(AMOUNT)), "near").await;
    estimated(&scene, far, &invoice, 0).await;
    let ended = scene.pay(&invoice, 0).await;
    assert_eq!((&ended["status"], &ended["fee_msat"]), (&"SUCCEEDED".into(), &0.into()), "{ended}");
    left -= AMOUNT * 1_000;
    scene.has(left, 0).await;

    // The ceiling is the estimate: there is nothing to spare.
    let invoice = far.invoice(Some(sat(AMOUNT)), "far").await;
    estimated(&scene, far, &invoice, FEE).await;
    let refused = scene.begin(&invoice, FEE - 1).await;
    assert_eq!((refused.status, refused.text("error")), (400, "fee_limit_too_low"), "{refused:?}");
    let ended = scene.pay(&invoice, FEE).await;
    assert_eq!((&ended["status"], &ended["fee_msat"]), (&"SUCCEEDED".into(), &(FEE * 1_000).into()), "{ended}");
    left -= (AMOUNT + FEE) * 1_000;
    scene.has(left, 0).await;

    // Nobody leads to a stranger.
    let invoice = invoice_of_nobody(Currency::Regtest, Duration::ZERO);
    let refused = scene.estimate(&invoice).await;
    assert_eq!(refused.text("error"), "no_liquidity", "{refused:?}");
    let ended = scene.pay(&invoice, FEE).await;
    assert_eq!((&ended["status"], &ended["error_code"]), (&"FAILED".into(), &"no_liquidity".into()), "{ended}");
    scene.has(left, 0).await;

    // Consented to while it was cheap: what has become dear is not paid.
    let invoice = far.invoice(Some(sat(AMOUNT)), "far").await;
    let signed = scene.consent(&invoice, FEE).await;
    scene.peer.set_fees(0, DEAR_PPM).await;
    estimated(&scene, far, &invoice, DEAR).await;
    let ended = scene.outcome(scene.end(&signed).await["id"].as_str().expect("an id")).await;
    assert_eq!((&ended["status"], &ended["error_code"]), (&"FAILED".into(), &"fee_limit_too_low".into()), "{ended}");
    scene.has(left, 0).await;
    let refused = scene.begin(&invoice, FEE).await;
    assert_eq!((refused.status, refused.text("error")), (400, "fee_limit_too_low"), "{refused:?}");
    // Who consents to 99 % pays them.
    let ended = scene.pay(&invoice, DEAR).await;
    assert_eq!((&ended["status"], &ended["fee_msat"]), (&"SUCCEEDED".into(), &(DEAR * 1_000).into()), "{ended}");
    left -= (AMOUNT + DEAR) * 1_000;
    scene.has(left, 0).await;
    scene.audit().await;
});
