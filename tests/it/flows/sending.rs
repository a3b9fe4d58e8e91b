//! Begin, sign, end, confirm; and everything that may come between.

use sluice::domain::Machine;
use sluice::domain::onchain_send::State;
use sluice::flows::Code;

use crate::harness::rig::{Client, on_both, stranger};

on_both!(a_send_goes_out_and_confirms, |rig| async move {
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    let begun = rig.begin(&client, &stranger(), 30_000).await.expect("it begins");
    assert_eq!(rig.spendable(&client).await, 0, "the coin is set aside");
    let issued: bitcoin::Psbt = begun.psbt.parse().expect("a PSBT");
    assert!(issued.unsigned_tx.input.iter().all(|input| input.sequence.is_rbf()), "a fee can be raised");
    let sent = rig.end(&client, &begun.psbt).await.expect("it ends");
    assert_eq!(sent.request.machine.state(), "broadcast");
    rig.settle().await;
    assert_eq!(rig.spendable(&client).await, 100_000 - 30_000 - begun.fee.to_u64(), "own change is spendable at once");
    rig.chain.mine(1);
    rig.settle().await;
    let again = rig.end(&client, &begun.psbt).await.expect("the same again answers the state");
    assert!(matches!(again.request.machine.state, State::Confirmed { .. }), "{:?}", again.request.machine.state);
    rig.audit().await;
});

on_both!(two_begins_never_share_a_coin, |rig| async move {
    let client = Client::number(2);
    rig.funded(&client, 100_000).await;
    rig.begin(&client, &stranger(), 30_000).await.expect("it begins");
    let refused = rig.begin(&client, &stranger(), 30_000).await.expect_err("the only coin is taken");
    assert_eq!(refused.code(), Code::CoinsLeased);
    let refused = rig.begin(&client, &stranger(), 300_000).await.expect_err("there is not that much");
    assert_eq!(refused.code(), Code::InsufficientFunds);
    rig.audit().await;
});
