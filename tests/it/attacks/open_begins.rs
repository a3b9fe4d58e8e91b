//! Somebody begins more than a wallet may have open: what is never signed holds money, and each transaction that is handed out is watched.

use std::sync::Arc;

use futures::future::join_all;
use sluice::assets::fake::{FakeEngine, World};
use sluice::flows::assets::export;
use sluice::flows::{Code, Policy};

use crate::harness::assets::side;
use crate::harness::lightning::sat;
use crate::harness::rig::{Client, Rig, on_both, policy};

fn four() -> Policy {
    Policy { max_waiting_sends: 4, ..policy() }
}

on_both!(more_is_begun_at_once_than_a_wallet_may_have_open, four(), async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    rig.funded_offchain(&client, sat(100_000)).await;
    let mut invoices = Vec::new();
    for _ in 0..24 {
        invoices.push(rig.lightning.shop_invoice(Some(sat(100))).0);
    }
    let begun = join_all(invoices.iter().map(|invoice| rig.begin_pay(&client, invoice, Some(sat(0))))).await;
    assert_eq!(begun.iter().filter(|begun| begun.is_ok()).count(), 4);
    for refused in begun.into_iter().filter_map(Result::err) {
        assert_eq!(refused.code(), Code::TooManyOpenRequests);
    }
    rig.wait(3_600).await;
    assert_eq!(rig.available(&client).await, 100_000_000);
    rig.audit().await;
});

on_both!(further_versions_and_exports_are_begun_without_end, four(), async |rig: Rig| {
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    rig.flows.use_assets(side(FakeEngine::new(World::new(rig.clock.clone()), Arc::clone(&rig.chain) as _)));
    let sent = rig.sent(&client, 10_000).await.request;
    for rate in [10, 20] {
        rig.bump(&client, sent, rate, false).await.expect("there is room for it");
        export::begin(&rig.flows, &client.keys, None, None).await.expect("and for it");
    }
    let code = |error: sluice::flows::Error| error.code();
    assert_eq!(rig.bump(&client, sent, 30, false).await.map_err(code), Err(Code::TooManyOpenRequests));
    let fifth = export::begin(&rig.flows, &client.keys, None, None).await;
    assert_eq!(fifth.map(drop).map_err(code), Err(Code::TooManyOpenRequests));
    rig.wait(3_600).await;
    let bump = rig.bump(&client, sent, 30, false).await.expect("their time is over");
    rig.end_bump(&client, &bump).await.expect("it ends");
    export::begin(&rig.flows, &client.keys, None, None).await.expect("there is room again");
    rig.mine(6).await;
    rig.audit().await;
});
