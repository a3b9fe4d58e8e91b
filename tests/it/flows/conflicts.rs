//! Somebody else spends the coins; the client broadcasts what expired, or never ends; `end` meets every state.

use sluice::domain::Machine;
use sluice::domain::onchain_send::{Door, State};
use sluice::flows::{Code, send};

use crate::harness::rig::{Client, amount, inputs_of, on_both, spend_elsewhere, stranger, unsigned};

on_both!(a_theft_in_the_mempool_before_end, |rig| async move {
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    let begun = rig.begin(&client, &stranger(), 30_000).await.expect("it begins");
    let theft = spend_elsewhere(&inputs_of(&unsigned(&begun.psbt)), &stranger(), 90_000);
    rig.offer(&theft).await;
    let conflicted = State::Conflicted { by: theft.compute_txid(), signed: None };
    assert_eq!(rig.state(&client, begun.request).await, conflicted);
    assert_eq!(rig.end(&client, &begun.psbt).await.expect_err("too late").code(), Code::InputsSpent);
    rig.mine(1).await;
    assert_eq!(rig.end(&client, &begun.psbt).await.expect_err("too late").code(), Code::InputsSpent);
    rig.audit().await;
});

on_both!(a_theft_in_the_mempool_after_end_is_not_the_last_word, |rig| async move {
    let client = Client::number(2);
    rig.funded(&client, 100_000).await;
    rig.chain.refuse_broadcast(Some("not now"));
    let begun = rig.begin(&client, &stranger(), 30_000).await.expect("it begins");
    rig.end(&client, &begun.psbt).await.expect("it ends");
    rig.chain.refuse_broadcast(None);
    let coins = inputs_of(&unsigned(&begun.psbt));
    let theft = spend_elsewhere(&coins, &stranger(), 90_000);
    rig.offer(&theft).await;
    rig.wait(31).await;
    let state = rig.state(&client, begun.request).await;
    assert!(matches!(&state, State::Broadcast { last_error: Some(_), .. }), "{state:?}");
    assert_eq!(rig.spendable(&client).await, 0);
    rig.chain.evict(theft.compute_txid());
    rig.settle().await;
    assert!(rig.chain.mempool_ids().contains(&unsigned(&begun.psbt).compute_txid()), "the thief is gone, ours is in");
    assert!(matches!(rig.state(&client, begun.request).await, State::Broadcast { last_error: None, .. }));
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, begun.request).await, State::Confirmed { .. }));
    rig.audit().await;
});

on_both!(a_theft_replaces_what_was_sent_and_is_mined, |rig| async move {
    let client = Client::number(3);
    rig.funded_with(&client, &[50_000, 40_000]).await;
    let begun = rig.sent(&client, 80_000).await;
    let coins = inputs_of(&unsigned(&begun.psbt));
    let signed = unsigned(&begun.psbt).compute_txid();
    let theft = spend_elsewhere(&coins[..1], &stranger(), 10_000);
    rig.offer(&theft).await;
    let state = rig.state(&client, begun.request).await;
    assert!(matches!(state, State::Broadcast { .. }), "only a block is final: {state:?}");
    assert_eq!(rig.spendable(&client).await, 0, "its coins stay set aside");
    rig.mine(1).await;
    let conflicted = State::Conflicted { by: theft.compute_txid(), signed: Some(signed) };
    assert_eq!(rig.state(&client, begun.request).await, conflicted);
    assert!(rig.spendable(&client).await > 0, "the other coin is free again");
    let answer = rig.end(&client, &begun.psbt).await.expect("what was ended answers its state");
    assert_eq!(answer.request.machine.state(), "conflicted");
    rig.audit().await;
});

on_both!(what_builds_on_a_conflicted_send_fails_with_it, |rig| async move {
    let client = Client::number(4);
    rig.funded_with(&client, &[100_000, 20_000]).await;
    let parent = rig.sent(&client, 30_000).await;
    let child = rig.sent(&client, 80_000).await;
    let waiting = rig.begin(&client, &stranger(), 5_000).await.expect("it begins on the child's change");
    let stolen = inputs_of(&unsigned(&parent.psbt));
    let theft = spend_elsewhere(&stolen, &stranger(), 20_000);
    let by = theft.compute_txid();
    rig.mine_with(vec![theft]).await;
    assert!(matches!(rig.state(&client, parent.request).await, State::Conflicted { by: b, .. } if b == by));
    assert!(matches!(rig.state(&client, child.request).await, State::Conflicted { by: b, .. } if b == by));
    assert!(matches!(rig.state(&client, waiting.request).await, State::Conflicted { by: b, .. } if b == by));
    assert_eq!(rig.end(&client, &waiting.psbt).await.expect_err("its coin is gone").code(), Code::InputsSpent);
    assert_eq!(rig.spendable(&client).await, 20_000, "the child's other coin is not lost with it");
    rig.audit().await;
    rig.chain.reorg(1, 2, sluice::chain::fake::Reorged::Gone).expect("a reorganisation");
    rig.settle().await;
    rig.wait(31).await;
    rig.wait(31).await;
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, parent.request).await, State::Confirmed { .. }));
    assert!(matches!(rig.state(&client, child.request).await, State::Confirmed { .. }));
    rig.audit().await;
});

on_both!(an_expired_send_is_broadcast_by_its_client, |rig| async move {
    let client = Client::number(5);
    rig.funded(&client, 100_000).await;
    let expired = rig.begin(&client, &stranger(), 30_000).await.expect("it begins");
    rig.wait(601).await;
    assert_eq!(rig.state(&client, expired.request).await, State::Expired);
    assert_eq!(rig.end(&client, &expired.psbt).await.expect_err("too late").code(), Code::RequestExpired);
    let other = rig.begin(&client, &stranger(), 40_000).await.expect("the coins are free again");
    let signed = client.signed_tx(&expired.psbt);
    rig.offer(&signed).await;
    let txid = signed.compute_txid();
    assert_eq!(rig.state(&client, expired.request).await, State::Broadcast { txid, last_error: None });
    assert_eq!(rig.state(&client, other.request).await, State::Conflicted { by: txid, signed: None });
    assert_eq!(rig.end(&client, &other.psbt).await.expect_err("the coin is spent").code(), Code::InputsSpent);
    // From now on it is ours to care for.
    rig.chain.wipe_mempool();
    rig.settle().await;
    assert!(rig.chain.mempool_ids().contains(&txid), "offered again, though it was never ended here");
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, expired.request).await, State::Confirmed { .. }));
    rig.audit().await;
});

on_both!(an_expired_send_turns_up_in_a_block_and_beats_a_signed_one, |rig| async move {
    let client = Client::number(6);
    rig.funded(&client, 100_000).await;
    let expired = rig.begin(&client, &stranger(), 30_000).await.expect("it begins");
    rig.wait(601).await;
    let other = rig.sent(&client, 40_000).await;
    let signed = client.signed_tx(&expired.psbt);
    rig.mine_with(vec![signed.clone()]).await;
    assert!(matches!(rig.state(&client, expired.request).await, State::Confirmed { .. }));
    let state = rig.state(&client, other.request).await;
    assert!(matches!(state, State::Conflicted { by, signed: Some(_) } if by == signed.compute_txid()), "{state:?}");
    rig.audit().await;
});

on_both!(a_client_broadcasts_and_never_ends, |rig| async move {
    let client = Client::number(7);
    rig.funded(&client, 100_000).await;
    let begun = rig.begin(&client, &stranger(), 30_000).await.expect("it begins");
    let signed = client.signed_tx(&begun.psbt);
    rig.offer(&signed).await;
    let txid = signed.compute_txid();
    assert_eq!(rig.state(&client, begun.request).await, State::Broadcast { txid, last_error: None });
    rig.wait(601).await;
    assert_eq!(rig.state(&client, begun.request).await, State::Broadcast { txid, last_error: None });
    assert_eq!(rig.spendable(&client).await, 70_000 - begun.fee.to_u64(), "its change is own");
    let ended = rig.end(&client, &begun.psbt).await.expect("late, and welcome");
    assert_eq!(ended.request.machine.state(), "broadcast");
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, begun.request).await, State::Confirmed { .. }));
    rig.audit().await;
});

on_both!(sixteen_ends_at_once_are_one, |rig| async move {
    let client = Client::number(8);
    rig.funded(&client, 100_000).await;
    let begun = rig.begin(&client, &stranger(), 30_000).await.expect("it begins");
    let ends = (0..16).map(|_| rig.end(&client, &begun.psbt));
    for ended in futures::future::join_all(ends).await {
        let ended = ended.expect("each of them is answered");
        assert_eq!((ended.request.id, ended.request.machine.state()), (begun.request, "broadcast"));
    }
    assert_eq!(rig.chain.mempool_ids().len(), 1);
    rig.mine(1).await;
    let again = rig.end(&client, &begun.psbt).await.expect("and later too");
    assert_eq!(again.request.machine.state(), "confirmed");
    rig.audit().await;
});

on_both!(an_end_is_for_its_wallet_and_its_door, |rig| async move {
    let (client, other) = (Client::number(9), Client::number(10));
    rig.funded(&client, 100_000).await;
    rig.register(&other).await;
    let begun = rig.begin(&client, &stranger(), 30_000).await.expect("it begins");
    let signed = client.sign(&begun.psbt);
    assert_eq!(rig.end_signed(&other, &signed).await.expect_err("not his").code(), Code::PsbtUnknown);
    for door in [Door::WalletSend, Door::Pay] {
        let refused = send::end(&rig.flows, &client.keys.id(), door, &signed).await.expect_err("another door");
        assert_eq!(refused.code(), Code::PsbtUnknown);
    }
    assert_eq!(rig.end_signed(&client, &begun.psbt).await.expect_err("unsigned").code(), Code::PsbtNotSigned);
    assert_eq!(rig.end_signed(&client, "cHNidP8=").await.expect_err("nothing in it").code(), Code::InvalidPsbt);
    assert!(rig.chain.mempool_ids().is_empty());
    rig.end_signed(&client, &signed).await.expect("the right one at the right door");
    rig.audit().await;
});

on_both!(a_sighting_that_comes_late_moves_nothing_back, |rig| async move {
    let client = Client::number(11);
    rig.funded(&client, 100_000).await;
    let begun = rig.sent(&client, 30_000).await;
    let theft = spend_elsewhere(&inputs_of(&unsigned(&begun.psbt)), &stranger(), 10_000);
    // The follower has read the block of the thief; the node's answer to an earlier offer is written only now.
    rig.chain.mine_with(vec![theft.clone()]).expect("a valid block");
    rig.follow().await;
    let conflicted = rig.state(&client, begun.request).await;
    assert!(matches!(conflicted, State::Conflicted { .. }));
    rig.end(&client, &begun.psbt).await.expect("it answers the state");
    assert_eq!(rig.state(&client, begun.request).await, conflicted);
    assert_eq!(rig.balance(&client).await.future, amount(0));
    rig.audit().await;
});
