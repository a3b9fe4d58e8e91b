//! A node that refuses, is down, loses its answer or its memory; a gateway that starts again.

use std::time::Duration;

use sluice::chain::fake::Fault;
use sluice::domain::onchain_send::State;
use sluice::flows::{Code, effects, fees, follow};
use sluice::money::FeeRate;

use crate::harness::rig::{Client, on_both, stranger, unsigned};

on_both!(a_refused_broadcast_is_offered_at_each_block_and_after_a_restart, |rig| async move {
    let mut rig = rig;
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    rig.chain.refuse_broadcast(Some("mempool full"));
    let begun = rig.sent(&client, 30_000).await;
    let refused = |reason: &str| State::Broadcast {
        txid: unsigned(&begun.psbt).compute_txid(),
        last_error: Some(reason.to_owned()),
    };
    assert_eq!(rig.state(&client, begun.request).await, refused("mempool full"));
    assert_eq!(rig.spendable(&client).await, 0, "its coins stay set aside");
    rig.chain.refuse_broadcast(Some("still full"));
    rig.mine(1).await;
    assert_eq!(rig.state(&client, begun.request).await, refused("still full"), "offered at the new block");
    rig.wait(3_600).await;
    assert_eq!(rig.state(&client, begun.request).await, refused("still full"), "time does not fail it");
    rig.restart();
    rig.chain.refuse_broadcast(None);
    rig.wait(31).await;
    assert!(matches!(rig.state(&client, begun.request).await, State::Broadcast { last_error: None, .. }));
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, begun.request).await, State::Confirmed { .. }));
    rig.audit().await;
});

on_both!(a_node_that_is_down_at_end_fails_nothing, |rig| async move {
    let client = Client::number(2);
    rig.funded(&client, 100_000).await;
    let begun = rig.begin(&client, &stranger(), 30_000).await.expect("it begins");
    for fault in [Fault::Down, Fault::Error500, Fault::Hang(Duration::from_millis(1))] {
        rig.chain.set_fault(fault);
        let ended = rig.end(&client, &begun.psbt).await.expect("it is promised");
        assert!(matches!(ended.request.machine.state, State::Broadcast { last_error: Some(_), .. }));
        let error = follow::step(&rig.flows, &rig.owner).await.expect_err("the follower can't go on");
        assert_eq!(error.code(), Code::ChainUnavailable);
        effects::run_due(&rig.flows).await.expect("an effect that fails is no fault of the worker");
    }
    rig.chain.set_fault(None);
    rig.wait(31).await;
    assert!(rig.chain.mempool_ids().contains(&unsigned(&begun.psbt).compute_txid()));
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, begun.request).await, State::Confirmed { .. }));
    rig.audit().await;
});

on_both!(an_answer_that_is_lost_is_not_a_refusal, |rig| async move {
    let client = Client::number(3);
    rig.funded(&client, 100_000).await;
    let begun = rig.begin(&client, &stranger(), 30_000).await.expect("it begins");
    rig.chain.set_fault(Fault::AnswerLost);
    rig.end(&client, &begun.psbt).await.expect("it is promised");
    rig.chain.set_fault(None);
    rig.settle().await;
    assert!(matches!(rig.state(&client, begun.request).await, State::Broadcast { last_error: None, .. }));
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, begun.request).await, State::Confirmed { .. }));
    rig.audit().await;
});

on_both!(a_send_is_mined_while_its_answer_is_lost, |rig| async move {
    let client = Client::number(4);
    rig.funded(&client, 100_000).await;
    let begun = rig.begin(&client, &stranger(), 30_000).await.expect("it begins");
    rig.chain.set_fault(Fault::AnswerLost);
    rig.end(&client, &begun.psbt).await.expect("it is promised");
    rig.chain.set_fault(None);
    // The node has it in a block that the follower has not read; it is offered once more, and the block is lost again.
    rig.chain.mine(1);
    rig.end(&client, &begun.psbt).await.expect("again");
    rig.chain.reorg(1, 2, sluice::chain::fake::Reorged::Gone).expect("a reorganisation");
    rig.settle().await;
    rig.wait(31).await;
    assert!(rig.chain.mempool_ids().contains(&unsigned(&begun.psbt).compute_txid()), "it is offered until it is read");
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, begun.request).await, State::Confirmed { .. }));
    rig.audit().await;
});

on_both!(a_wiped_mempool_is_filled_again, |rig| async move {
    let mut rig = rig;
    let client = Client::number(5);
    rig.funded(&client, 100_000).await;
    let parent = rig.sent(&client, 30_000).await;
    let child = rig.sent(&client, 10_000).await;
    rig.chain.wipe_mempool();
    rig.restart();
    rig.settle().await;
    rig.wait(31).await;
    for begun in [&parent, &child] {
        assert!(rig.chain.mempool_ids().contains(&unsigned(&begun.psbt).compute_txid()));
    }
    rig.mine(1).await;
    assert!(matches!(rig.state(&client, child.request).await, State::Confirmed { .. }));
    rig.audit().await;
});

on_both!(a_node_of_another_network_is_not_followed, |rig| async move {
    let client = Client::number(6);
    rig.funded(&client, 100_000).await;
    rig.chain.set_fault(Fault::WrongNetwork);
    let error = follow::step(&rig.flows, &rig.owner).await.expect_err("it is another chain");
    assert_eq!(error.code(), Code::ChainUnavailable);
    rig.chain.set_fault(None);
    assert_eq!(rig.spendable(&client).await, 100_000);
    rig.audit().await;
});

on_both!(absurd_estimates_are_not_believed, |rig| async move {
    let fallback = FeeRate::from_sat_per_vb(rig.flows.policy().fallback_fee_rate);
    let most = FeeRate::from_sat_per_vb(rig.flows.policy().fees.max_rate_sat_per_vb);
    assert_eq!(fees::estimate(&rig.flows, 6).await.expect("the fallback"), fallback);
    for nonsense in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
        rig.chain.set_fault(Fault::FeeRate(nonsense));
        assert_eq!(fees::estimate(&rig.flows, 6).await.expect("the fallback"), fallback, "{nonsense}");
    }
    rig.chain.set_fault(Fault::FeeRate(9.0));
    let rate = fees::estimate(&rig.flows, 6).await.expect("a rate");
    assert!(rate == most || rate == fallback, "{rate}");
    rig.chain.set_fault(None);
    assert_eq!(fees::estimate(&rig.flows, 0).await.expect_err("no such target").code(), Code::InvalidRequest);
});
