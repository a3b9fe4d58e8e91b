//! Another version of a send at a higher fee, or back to the wallet.

use sluice::domain::onchain_send::State;
use sluice::flows::{Code, Policy, follow};
use sluice::money::Sat;

use crate::harness::restless::Restless;
use crate::harness::rig::{Client, amount, inputs_of, on_both, policy, stranger, unsigned, wanted};

fn three_confirmations() -> Policy {
    Policy { confirmations: Some(3), ..policy() }
}

on_both!(a_bump_keeps_everything_but_the_change, |rig| async move {
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    let begun = rig.sent(&client, 30_000).await;
    let bump = rig.bump(&client, begun.request, 10, false).await.expect("it bumps");
    let (old, new) = (unsigned(&begun.psbt), unsigned(&bump.psbt));
    assert_eq!(bump.request, begun.request);
    assert_eq!(inputs_of(&old), inputs_of(&new));
    assert!(new.input.iter().all(|input| input.sequence.is_rbf()));
    let to = stranger().script_pubkey();
    let paid = |tx: &bitcoin::Transaction| tx.output.iter().find(|out| out.script_pubkey == to).map(|out| out.value);
    assert_eq!(paid(&new), Some(amount(30_000).to_bitcoin()));
    let vsize = client.signed_tx(&bump.psbt).vsize() as u64;
    assert!((vsize * 10..vsize * 10 + 20).contains(&bump.fee.to_u64()), "{} for {vsize}", bump.fee);
    rig.end_bump(&client, &bump).await.expect("it ends");
    rig.settle().await;
    let txid = new.compute_txid();
    assert_eq!(rig.state(&client, begun.request).await, State::Broadcast { txid, last_error: None });
    assert_eq!(rig.chain.mempool_ids(), [txid].into());
    assert_eq!(rig.spendable(&client).await, 70_000 - bump.fee.to_u64());
    rig.end_bump(&client, &bump).await.expect("the same again");
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, begun.request).await, State::Confirmed { txid: t, .. } if t == txid));
    rig.audit().await;
});

on_both!(a_mempool_from_before_a_bump_takes_nothing_back, |rig| async move {
    let mut rig = rig;
    let client = Client::number(9);
    rig.funded(&client, 100_000).await;
    let begun = rig.sent(&client, 30_000).await;
    let bump = rig.bump(&client, begun.request, 10, false).await.expect("it bumps");
    let (chain, paused) = Restless::after_mempool(&rig.chain);
    rig.restart_with(chain);
    let bumped_meanwhile = async {
        paused.given.await.expect("the follower looks");
        rig.end_bump(&client, &bump).await.expect("it ends");
        paused.go_on.send(()).expect("the follower waits");
    };
    let (looked, ()) = tokio::join!(follow::step(&rig.flows, &rig.owner), bumped_meanwhile);
    looked.expect("it looks");
    assert_eq!(rig.spendable(&client).await, 70_000 - bump.fee.to_u64(), "what the node has accepted stands");
    rig.settle().await;
    assert_eq!(rig.spendable(&client).await, 70_000 - bump.fee.to_u64());
    rig.mine(1).await;
    let new = unsigned(&bump.psbt).compute_txid();
    assert!(matches!(rig.state(&client, begun.request).await, State::Confirmed { txid, .. } if txid == new));
    rig.audit().await;
});

on_both!(the_old_version_confirms_after_all, |rig| async move {
    let client = Client::number(2);
    rig.funded(&client, 100_000).await;
    let begun = rig.sent(&client, 30_000).await;
    let bump = rig.bump(&client, begun.request, 10, false).await.expect("it bumps");
    rig.end_bump(&client, &bump).await.expect("it ends");
    rig.settle().await;
    rig.mine_with(vec![client.signed_tx(&begun.psbt)]).await;
    let old = unsigned(&begun.psbt).compute_txid();
    assert!(matches!(rig.state(&client, begun.request).await, State::Confirmed { txid, .. } if txid == old));
    assert_eq!(rig.spendable(&client).await, 70_000 - begun.fee.to_u64());
    rig.audit().await;
    // Another branch has the new one.
    rig.chain.reorg(1, 1, sluice::chain::fake::Reorged::Gone).expect("a reorganisation");
    rig.mine_with(vec![client.signed_tx(&bump.psbt)]).await;
    let new = unsigned(&bump.psbt).compute_txid();
    assert!(matches!(rig.state(&client, begun.request).await, State::Confirmed { txid, .. } if txid == new));
    assert_eq!(rig.spendable(&client).await, 70_000 - bump.fee.to_u64());
    rig.audit().await;
});

on_both!(the_rules_of_replacement, |rig| async move {
    let client = Client::number(3);
    rig.funded(&client, 2_000_000).await;
    let begun = rig.sent(&client, 30_000).await;
    for rate in [1, 2] {
        let refused = rig.bump(&client, begun.request, rate, false).await.expect_err("not above the old one");
        assert_eq!(refused.code(), Code::BumpTooSmall, "{refused}");
        let least = begun.fee.to_u64() + client.signed_tx(&begun.psbt).vsize() as u64;
        assert!((least..least + 3).any(|least| refused.to_string().contains(&format!("{least} sat"))), "{refused}");
    }
    let refused = |error: sluice::flows::Error| error.code();
    assert_eq!(refused(rig.bump(&client, begun.request, 0, false).await.expect_err("0")), Code::FeeRateOutOfRange);
    assert_eq!(
        refused(rig.bump(&client, begun.request, 1_001, false).await.expect_err("1001")),
        Code::FeeRateOutOfRange
    );
    assert_eq!(refused(rig.bump(&client, begun.request, 900, false).await.expect_err("a blunder")), Code::FeeTooHigh);
    let unknown = sluice::ids::RequestId::fresh();
    assert_eq!(refused(rig.bump(&client, unknown, 5, false).await.expect_err("unknown")), Code::NotFound);
    let other = Client::number(4);
    rig.register(&other).await;
    assert_eq!(refused(rig.bump(&other, begun.request, 5, false).await.expect_err("not his")), Code::NotFound);
    rig.audit().await;
});

on_both!(a_send_without_enough_change_says_so, |rig| async move {
    let client = Client::number(5);
    rig.funded_with(&client, &[50_000, 31_000]).await;
    // Change of a few hundred satoshis: a small raise drops it, a large one can't be paid.
    let begun = rig.sent(&client, 30_000 + 50_000).await;
    let change = unsigned(&begun.psbt).output.len() == 2;
    assert!(change, "there is a little change");
    let refused = rig.bump(&client, begun.request, 40, false).await.expect_err("too costly");
    assert_eq!(refused.code(), Code::InsufficientFunds);
    let bump = rig.bump(&client, begun.request, 5, false).await.expect("the change pays for it");
    assert_eq!(unsigned(&bump.psbt).output.len(), 1, "what is left of the change is dust");
    rig.end_bump(&client, &bump).await.expect("it ends");
    rig.settle().await;
    assert_eq!(rig.chain.mempool_ids(), [unsigned(&bump.psbt).compute_txid()].into());
    let refused = rig.bump(&client, begun.request, 9, false).await.expect_err("nothing is left to pay from");
    assert_eq!(refused.code(), Code::InsufficientFunds);
    rig.mine(1).await;
    rig.audit().await;
});

on_both!(a_send_without_change_can_be_cancelled, |rig| async move {
    let client = Client::number(6);
    rig.funded(&client, 50_000).await;
    let all = sluice::flows::send::BeginSend { deduct_fee: true, ..wanted(&stranger(), 50_000) };
    let begun = rig.begin_with(&client, all).await.expect("it begins");
    rig.end(&client, &begun.psbt).await.expect("it ends");
    assert_eq!(
        rig.bump(&client, begun.request, 9, false).await.expect_err("no change").code(),
        Code::InsufficientFunds
    );
    let cancel = rig.bump(&client, begun.request, 9, true).await.expect("it cancels");
    rig.end_bump(&client, &cancel).await.expect("it ends");
    rig.settle().await;
    assert_eq!(rig.spendable(&client).await, 50_000 - cancel.fee.to_u64());
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, begun.request).await, State::Cancelled { .. }));
    assert_eq!(rig.balance(&client).await.settled, amount(50_000 - cancel.fee.to_u64()));
    assert_eq!(rig.deposits(&client).await.len(), 1, "what comes back is no deposit");
    rig.chain.reorg(1, 2, sluice::chain::fake::Reorged::MinedAgain).expect("a reorganisation");
    rig.settle().await;
    assert!(matches!(rig.state(&client, begun.request).await, State::Cancelled { .. }));
    rig.audit().await;
});

on_both!(a_bump_of_a_bump, |rig| async move {
    let client = Client::number(7);
    rig.funded(&client, 100_000).await;
    let begun = rig.sent(&client, 30_000).await;
    let mut last = begun.clone();
    for rate in [4, 8, 16] {
        last = rig.bump(&client, begun.request, rate, false).await.expect("it bumps");
        rig.end_bump(&client, &last).await.expect("it ends");
        rig.settle().await;
    }
    let txid = unsigned(&last.psbt).compute_txid();
    assert_eq!(rig.chain.mempool_ids(), [txid].into());
    assert!(matches!(rig.state(&client, begun.request).await, State::Broadcast { txid: t, .. } if t == txid));
    rig.mine(1).await;
    assert_eq!(rig.spendable(&client).await, 70_000 - last.fee.to_u64());
    rig.audit().await;
});

on_both!(of_two_bumps_the_smaller_does_not_come_back, |rig| async move {
    let client = Client::number(8);
    rig.funded(&client, 100_000).await;
    let begun = rig.sent(&client, 30_000).await;
    let small = rig.bump(&client, begun.request, 5, false).await.expect("it bumps");
    let large = rig.bump(&client, begun.request, 10, false).await.expect("it bumps twice");
    rig.end_bump(&client, &large).await.expect("it ends");
    let refused = rig.end_bump(&client, &small).await.expect_err("the larger one is out");
    assert_eq!(refused.code(), Code::BumpTooSmall);
    rig.settle().await;
    let txid = unsigned(&large.psbt).compute_txid();
    assert_eq!(rig.state(&client, begun.request).await, State::Broadcast { txid, last_error: None });
    rig.mine(1).await;
    rig.audit().await;
});

on_both!(change_that_is_used_is_not_undone, |rig| async move {
    let client = Client::number(9);
    rig.funded(&client, 100_000).await;
    let begun = rig.sent(&client, 30_000).await;
    let bump = rig.bump(&client, begun.request, 9, false).await.expect("it bumps");
    let waiting = rig.begin(&client, &stranger(), 20_000).await.expect("it begins on the change");
    assert_eq!(rig.bump(&client, begun.request, 9, false).await.expect_err("set aside").code(), Code::ChangeSpent);
    assert_eq!(rig.end_bump(&client, &bump).await.expect_err("set aside since").code(), Code::ChangeSpent);
    rig.end(&client, &waiting.psbt).await.expect("it ends");
    assert_eq!(rig.bump(&client, begun.request, 9, false).await.expect_err("spent").code(), Code::ChangeSpent);
    assert_eq!(rig.end_bump(&client, &bump).await.expect_err("spent since").code(), Code::ChangeSpent);
    rig.settle().await;
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, waiting.request).await, State::Confirmed { .. }));
    rig.audit().await;
});

on_both!(change_of_a_bumped_send_is_not_chosen, |rig| async move {
    let client = Client::number(10);
    rig.funded(&client, 100_000).await;
    let begun = rig.sent(&client, 30_000).await;
    let bump = rig.bump(&client, begun.request, 9, false).await.expect("it bumps");
    rig.chain.refuse_broadcast(Some("not now"));
    rig.end_bump(&client, &bump).await.expect("it is promised");
    let refused = rig.begin(&client, &stranger(), 5_000).await.expect_err("the old change is about to vanish");
    assert_eq!(refused.code(), Code::CoinsLeased, "{refused}");
    rig.chain.refuse_broadcast(None);
    rig.wait(31).await;
    assert_eq!(rig.chain.mempool_ids(), [unsigned(&bump.psbt).compute_txid()].into());
    rig.begin(&client, &stranger(), 5_000).await.expect("the new change is there");
    rig.audit().await;
});

on_both!(a_refused_bump_while_the_old_version_waits, |rig| async move {
    let client = Client::number(11);
    rig.funded(&client, 100_000).await;
    let begun = rig.sent(&client, 30_000).await;
    let bump = rig.bump(&client, begun.request, 9, false).await.expect("it bumps");
    rig.chain.refuse_broadcast(Some("not that one"));
    rig.end_bump(&client, &bump).await.expect("it is promised");
    rig.settle().await;
    let txid = unsigned(&bump.psbt).compute_txid();
    let refused = State::Broadcast { txid, last_error: Some("not that one".to_owned()) };
    assert_eq!(rig.state(&client, begun.request).await, refused);
    rig.audit().await;
    rig.mine(1).await;
    let old = unsigned(&begun.psbt).compute_txid();
    assert!(matches!(rig.state(&client, begun.request).await, State::Confirmed { txid, .. } if txid == old));
    assert_eq!(rig.spendable(&client).await, 70_000 - begun.fee.to_u64());
    rig.audit().await;
});

on_both!(a_bump_comes_too_late, three_confirmations(), |rig| async move {
    let client = Client::number(12);
    rig.funded_with(&client, &[100_000, 100_000]).await;
    let begun = rig.sent(&client, 30_000).await;
    let bump = rig.bump(&client, begun.request, 9, false).await.expect("it bumps");
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, begun.request).await, State::Seen { .. }));
    assert_eq!(rig.bump(&client, begun.request, 9, false).await.expect_err("mined").code(), Code::AlreadyConfirmed);
    assert_eq!(rig.end_bump(&client, &bump).await.expect_err("mined").code(), Code::AlreadyConfirmed);
    rig.mine(2).await;
    assert_eq!(rig.bump(&client, begun.request, 9, true).await.expect_err("final").code(), Code::AlreadyConfirmed);
    let waiting = rig.begin(&client, &stranger(), 5_000).await.expect("it begins");
    assert_eq!(rig.bump(&client, waiting.request, 9, false).await.expect_err("unsigned").code(), Code::NotBroadcast);
    rig.audit().await;
});

on_both!(an_unsigned_bump_expires, |rig| async move {
    let client = Client::number(13);
    rig.funded(&client, 100_000).await;
    let begun = rig.sent(&client, 30_000).await;
    let bump = rig.bump(&client, begun.request, 9, false).await.expect("it bumps");
    rig.wait(601).await;
    assert_eq!(rig.end_bump(&client, &bump).await.expect_err("too late").code(), Code::RequestExpired);
    assert!(matches!(rig.state(&client, begun.request).await, State::Broadcast { last_error: None, .. }));
    // The client broadcasts it all the same.
    let signed = client.signed_tx(&bump.psbt);
    rig.offer(&signed).await;
    let txid = signed.compute_txid();
    assert_eq!(rig.state(&client, begun.request).await, State::Broadcast { txid, last_error: None });
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, begun.request).await, State::Confirmed { txid: t, .. } if t == txid));
    rig.audit().await;
});

on_both!(many_bumps_begun_and_never_signed, |rig| async move {
    let client = Client::number(14);
    rig.funded(&client, 100_000).await;
    let begun = rig.sent(&client, 30_000).await;
    let mut fees: Vec<Sat> = Vec::new();
    for _ in 0..14 {
        fees.push(rig.bump(&client, begun.request, 9, false).await.expect("each is another transaction").fee);
    }
    assert!(fees.iter().all(|fee| *fee == fees[0]));
    rig.audit().await;
});
