//! What peers and payers do that neither hides a loss from the audit nor stops the payouts of anybody.

use std::sync::Arc;

use sluice::connectors::fake::FakeNode;
use sluice::flows::alarms::{LOOKS, Watch};
use sluice::flows::differences::{self, Against, DifferenceBooking, Direction, NodeAccount};
use sluice::flows::{audit, books, operator};
use sluice::ids::RequestId;
use sluice::money::{FeeRate, Sat};
use sluice::ports::lightning::{Asked, CloseHow, LightningNode, NewChannel, OnchainOrder};
use sluice::store::halts::INSOLVENT;

use crate::harness::lightning::{CHANNEL_SIDE, msat, sat};
use crate::harness::rig::{Client, Rig, on_both, stranger};

/// A stranger's node offers a channel with a fortune for us in it, and no block will ever have its funding.
async fn announce(rig: &Rig) -> Arc<FakeNode> {
    let peer = rig.lightning.network.add_node();
    peer.fund(Sat::literal(20_000_000_000));
    rig.lightning.network.mine(1);
    peer.connect(rig.lightning.node.id(), &rig.lightning.node.address()).await.expect("it connects");
    let (amount, push) = (Sat::literal(10_000_000_000), sat(9_000_000_000));
    let new = NewChannel { peer: rig.lightning.node.id(), amount, push, announced: false };
    assert!(matches!(peer.open_channel(&new).await, Ok(Asked::Done(_))));
    peer
}

async fn look(rig: &Rig, watch: &mut Watch) -> audit::Report {
    let report = audit::audit(&rig.flows).await.expect("the audit runs");
    watch.react(&rig.flows, &report).await.expect("the store is there");
    report
}

async fn halted(rig: &Rig) -> Vec<String> {
    operator::halts(&rig.flows).await.expect("the store answers").into_iter().map(|halt| halt.reason).collect()
}

on_both!(a_channel_that_is_only_announced_is_no_money_and_keeps_nothing_from_being_compared, async |rig: Rig| {
    let before = audit::audit(&rig.flows).await.expect("the audit runs").solvency;
    announce(&rig).await;
    rig.audit_exactly().await;
    let after = audit::audit(&rig.flows).await.expect("the audit runs").solvency;
    assert_eq!(after, before, "an announcement covers no claim");
    let mut watch = Watch::default();
    for _ in 0..=LOOKS {
        look(&rig, &mut watch).await;
    }
    assert_eq!(halted(&rig).await, [""; 0]);
});

on_both!(an_announced_fortune_hides_no_insolvency_and_one_look_alone_stops_nobody, async |rig: Rig| {
    let wallet = Client::number(1);
    rig.register(&wallet).await;
    rig.funded_offchain(&wallet, sat(20_000)).await;
    rig.lightning.node.close_channel(&rig.lightning.channel, CloseHow::Cooperative).await.expect("it closes");
    rig.lightning.network.mine(1);
    let (amount, fee_rate, max_fee) = (CHANNEL_SIDE, FeeRate::from_sat_per_vb(1), Sat::literal(1_000));
    let order = OnchainOrder { id: RequestId::fresh(), to: stranger(), amount, fee_rate, max_fee };
    assert!(matches!(rig.lightning.node.onchain_send(&order).await, Ok(Asked::Done(_))));
    rig.lightning.network.mine(1);
    announce(&rig).await;
    rig.settle().await;
    let mut watch = Watch::default();
    for n in 1..LOOKS {
        let report = look(&rig, &mut watch).await;
        assert_eq!(report.drifts.len(), 1, "it is found: {report:?}");
        assert_eq!(halted(&rig).await, [""; 0], "after {n} looks");
    }
    look(&rig, &mut watch).await;
    assert_eq!(halted(&rig).await, [INSOLVENT]);
});

on_both!(a_look_that_finds_it_covered_again_begins_the_count_anew, async |rig: Rig| {
    let wallet = Client::number(1);
    rig.register(&wallet).await;
    rig.funded_offchain(&wallet, sat(20_000)).await;
    let mut watch = Watch::default();
    let honest = audit::audit(&rig.flows).await.expect("the audit runs");
    let mut poor = honest.clone();
    poor.drifts.push(audit::Drift::new("what_is_owed_is_covered", "for a moment".to_owned()));
    for _ in 0..LOOKS {
        for report in [&poor, &poor, &honest] {
            watch.react(&rig.flows, report).await.expect("the store is there");
        }
    }
    assert_eq!(halted(&rig).await, [""; 0]);
    rig.audit_exactly().await;
});

on_both!(what_the_node_has_more_waits_in_suspense_and_stops_nobody, async |rig: Rig| {
    let less = DifferenceBooking {
        account: NodeAccount::Channels,
        against: Against::Capital,
        amount: msat(7_001),
        direction: Direction::Less,
        reason: "ticket 3: by mistake".to_owned(),
        by: "key".to_owned(),
    };
    differences::book(&rig.flows, less, None).await.expect("it is booked");
    let known = books::suspended(&rig.flows, None, 10).await.expect("a list").len();
    let mut watch = Watch::default();
    for n in 1..LOOKS {
        assert_eq!(look(&rig, &mut watch).await.surplus.len(), 1);
        let waits = books::suspended(&rig.flows, None, 10).await.expect("a list").len();
        assert_eq!(waits, known, "after {n} looks");
    }
    look(&rig, &mut watch).await;
    let items = books::suspended(&rig.flows, None, 10).await.expect("a list");
    assert_eq!(items.iter().filter(|item| item.amount == 7_001).count(), 1);
    assert_eq!(halted(&rig).await, [""; 0]);
    rig.audit_exactly().await;
});

on_both!(what_one_wallet_brings_about_stops_that_wallet, async |rig: Rig| {
    let (odd, other) = (Client::number(1), Client::number(2));
    for client in [&odd, &other] {
        rig.funded(client, 100_000).await;
    }
    rig.sql(&format!(
        "UPDATE requests SET state = 'reorged' WHERE kind = 'deposit' AND wallet_id = '{}'",
        odd.keys.id()
    ))
    .await;
    let mut watch = Watch::default();
    look(&rig, &mut watch).await;
    let all = operator::halts(&rig.flows).await.expect("the store answers");
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].scope, sluice::flows::values::HaltScope::Wallet(odd.keys.id()));
    assert!(rig.begin(&odd, &stranger(), 10_000).await.is_err());
    rig.sent(&other, 10_000).await;
    rig.sql(&format!(
        "UPDATE requests SET state = 'confirmed' WHERE kind = 'deposit' AND wallet_id = '{}'",
        odd.keys.id()
    ))
    .await;
    rig.audit().await;
});
