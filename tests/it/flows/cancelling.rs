//! What was begun and not signed is taken back by its owner: what it held and set aside is free at once.

use std::sync::Arc;

use sluice::assets::fake::{FakeEngine, World};
use sluice::domain::onchain_send::State;
use sluice::flows::assets::coins::{self, NewCoins};
use sluice::flows::send::{Begun, Source};
use sluice::flows::settle::{self, BeginSettle};
use sluice::flows::{BodyHash, Code, Idempotency, cancel, pay_invoice, withdraw};
use sluice::ids::RequestId;
use sluice::money::Sat;

use crate::harness::assets::side;
use crate::harness::lightning::{paying, sat};
use crate::harness::rig::{Client, Rig, amount, on_both, stranger, wanted};

async fn take_back(rig: &Rig, client: &Client, id: RequestId) {
    assert!(cancel::cancel(&rig.flows, &client.keys.id(), id).await.expect("it is taken back"));
    assert!(cancel::cancel(&rig.flows, &client.keys.id(), id).await.expect("again it is the same"));
}

async fn refused(rig: &Rig, client: &Client, id: RequestId) -> Code {
    cancel::cancel(&rig.flows, &client.keys.id(), id).await.expect_err("it can't be taken back").code()
}

/// Nobody but its owner takes it back, and then it can't be ended.
async fn by_its_owner_alone(rig: &Rig, owner: &Client, begun: &Begun) {
    let other = Client::number(9);
    rig.register(&other).await;
    let theirs = cancel::cancel(&rig.flows, &other.keys.id(), begun.request).await.expect("the store answers");
    assert!(!theirs, "to another wallet it is unknown");
    take_back(rig, owner, begun.request).await;
}

on_both!(a_send_gives_its_coins_back, async |rig: Rig| {
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    let begun = rig.begin(&client, &stranger(), 50_000).await.expect("it begins");
    assert_eq!(
        rig.begin(&client, &stranger(), 50_000).await.expect_err("its coin is set aside").code(),
        Code::CoinsLeased
    );
    by_its_owner_alone(&rig, &client, &begun).await;
    assert_eq!(rig.state(&client, begun.request).await, State::Expired);
    assert_eq!(rig.end(&client, &begun.psbt).await.expect_err("it is over").code(), Code::RequestExpired);
    let again = rig.sent(&client, 50_000).await;
    assert_eq!(refused(&rig, &client, again.request).await, Code::NotCancellable);
    rig.mine(6).await;
    rig.audit().await;
});

// The transaction was handed out: whoever has it may send it out, and it is found.
on_both!(a_send_that_was_taken_back_goes_out_elsewhere, async |rig: Rig| {
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    let begun = rig.begin(&client, &stranger(), 50_000).await.expect("it begins");
    take_back(&rig, &client, begun.request).await;
    rig.offer(&client.signed_tx(&begun.psbt)).await;
    assert!(matches!(rig.state(&client, begun.request).await, State::Broadcast { .. }));
    assert_eq!(refused(&rig, &client, begun.request).await, Code::NotCancellable);
    rig.mine(6).await;
    rig.audit().await;
});

on_both!(a_payment_gives_its_hold_back, async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    rig.funded_offchain(&client, sat(20_000)).await;
    let (invoice, preimage) = rig.lightning.shop_invoice(Some(sat(15_000)));
    let key = || Some(Idempotency { key: "k".to_owned(), body_hash: BodyHash::of_bytes("b") });
    let begin = || pay_invoice::begin(&rig.flows, &client.keys, paying(&invoice, None), key());
    let begun = begin().await.expect("it begins");
    by_its_owner_alone(&rig, &client, &begun).await;
    assert_eq!(rig.available(&client).await, 20_000_000);
    assert_eq!(rig.end_pay(&client, &begun).await.expect_err("it is over").code(), Code::RequestExpired);
    assert_eq!(begin().await.expect_err("its key stands for what is over").code(), Code::RequestExpired);
    let again = rig.begin_pay(&client, &invoice, None).await.expect("it begins anew");
    rig.end_pay(&client, &again).await.expect("it ends");
    assert_eq!(refused(&rig, &client, again.request).await, Code::NotCancellable);
    rig.lightning.shop_claims(preimage).await;
    rig.settle().await;
    assert_eq!(refused(&rig, &client, again.request).await, Code::NotCancellable);
    rig.audit().await;
});

on_both!(a_withdrawal_gives_its_hold_back, async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    rig.funded_offchain(&client, sat(200_000)).await;
    let chain = Arc::clone(&rig.chain);
    rig.lightning.node.send_through(move |script, amount| chain.pay(script, amount).expect("the fake pays"));
    rig.lightning.node.fund(Sat::literal(500_000));
    rig.lightning.network.mine(1);
    let out = wanted(&stranger(), 50_000);
    let begun = withdraw::begin_either(&rig.flows, &client.keys, Some(Source::Offchain), out, None).await;
    let begun = begun.expect("it begins");
    by_its_owner_alone(&rig, &client, &begun).await;
    assert_eq!(rig.available(&client).await, 200_000_000);
    withdraw::end(&rig.flows, &client.keys, &client.sign(&begun.psbt)).await.expect("it only answers how it stands");
    rig.settle().await;
    assert_eq!(rig.available(&client).await, 200_000_000, "nothing was sent");
    rig.audit().await;
});

on_both!(a_move_off_chain_and_coins_for_assets_give_their_coins_back, async |rig: Rig| {
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    let all = BeginSettle { amount: None, fee_rate: 2, expires_in_seconds: None, reference: None };
    let begun = settle::begin(&rig.flows, &client.keys, all, None).await.expect("it begins");
    by_its_owner_alone(&rig, &client, &begun).await;
    let ended = settle::end(&rig.flows, &client.keys.id(), &client.sign(&begun.psbt)).await;
    assert_eq!(ended.expect_err("it is over").code(), Code::RequestExpired);
    rig.flows.use_assets(side(FakeEngine::new(World::new(rig.clock.clone()), Arc::clone(&rig.chain) as _)));
    let some = NewCoins { number: 3, size: amount(2_000), up_to: false, fee_rate: 2, expires_in_seconds: None };
    let begun = coins::begin(&rig.flows, &client.keys, some.clone(), None).await.expect("it begins");
    by_its_owner_alone(&rig, &client, &begun).await;
    let ended = coins::end(&rig.flows, &client.keys.id(), &client.sign(&begun.psbt)).await;
    assert_eq!(ended.expect_err("it is over").code(), Code::RequestExpired);
    let again = coins::begin(&rig.flows, &client.keys, some, None).await.expect("the coin is free");
    coins::end(&rig.flows, &client.keys.id(), &client.sign(&again.psbt)).await.expect("it ends");
    rig.mine(6).await;
    rig.audit().await;
});

on_both!(what_nobody_signs_for_can_not_be_taken_back, async |rig: Rig| {
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    let receive = rig.invoice(&client, Some(sat(1_000))).await;
    assert_eq!(refused(&rig, &client, receive.id).await, Code::NotCancellable);
    let deposit = rig.deposits(&client).await.remove(0);
    assert_eq!(refused(&rig, &client, deposit.id).await, Code::NotCancellable);
    let unknown = cancel::cancel(&rig.flows, &client.keys.id(), RequestId::fresh()).await;
    assert!(!unknown.expect("the store answers"));
    rig.audit().await;
});
