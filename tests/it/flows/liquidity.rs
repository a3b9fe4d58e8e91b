//! Channels that are opened by the operator's policy: within its bounds, once, and not at all while something else comes first.

use std::sync::Arc;
use std::time::Duration;

use sluice::clock::{Clock, Timestamp};
use sluice::connectors::fake::{FakeNetwork, FakeNode, Fault};
use sluice::domain::liquidity::PeerAddress;
use sluice::flows::liquidity::{self, Overview};
use sluice::flows::send::Source;
use sluice::flows::{LiquidityPolicy, Policy, node_admin, settle, withdraw};
use sluice::money::{FeeRate, Sat};
use sluice::ports::lightning::{CloseHow, LightningNode};
use sluice::store::halts;
use sqlx::Row;

use crate::harness::lightning::{CHANNEL_SIDE, sat};
use crate::harness::rig::{self, Client, Rig, on_both, parse_address, stranger, wanted as to_send};

/// Blocks until a channel of the network in memory is in use.
const BURIED: u32 = 6;
const A_DAY: u64 = 24 * 60 * 60;
const AN_HOUR: u64 = 60 * 60;
/// Longer than any channel takes to show.
const COMES_WITHIN: u64 = 10 * 60;
/// What an opening is reckoned to cost where the chain has no estimate.
const FEE: u64 = 2_000;

/// Where the nodes after the gateway's and the shop's will be: they follow from their number.
fn peers(count: usize) -> Vec<PeerAddress> {
    let network = FakeNetwork::new(Clock::manual(Timestamp::from_millis(0)));
    let all: Vec<_> = (0..count + 2).map(|_| network.add_node()).collect();
    let address = |node: &Arc<FakeNode>| format!("{}@{}", node.id(), node.address()).parse().expect("a peer");
    all.iter().skip(2).map(address).collect()
}

/// The channel of the rig holds five million; half a million more is wanted, or a million.
fn wants(outbound: u64, change: impl FnOnce(&mut LiquidityPolicy)) -> Policy {
    let mut liquidity = LiquidityPolicy {
        peers: peers(2),
        want_outbound_sats: Sat::literal(CHANNEL_SIDE.to_u64() + outbound),
        channel_sats: Sat::literal(500_000),
        ..LiquidityPolicy::default()
    };
    change(&mut liquidity);
    Policy { liquidity, ..rig::policy() }
}

/// The peers of the policy, and coins of the operator's own.
async fn start(rig: &Rig, coins: u64) -> Vec<Arc<FakeNode>> {
    let named = &rig.flows.policy().liquidity.peers;
    let nodes: Vec<_> = named.iter().map(|_| rig.lightning.network.add_node()).collect();
    assert!(named.iter().zip(&nodes).all(|(peer, node)| peer.id == node.id() && peer.address == node.address()));
    let address = parse_address(&node_admin::reserve(&rig.flows).await.expect("a reserve").address);
    rig.lightning.node.fund_address(&address, Sat::literal(coins));
    rig.lightning.network.mine(1);
    rig.settle().await;
    nodes
}

async fn look(rig: &Rig) {
    assert!(liquidity::look(&rig.flows).await.expect("it looks"), "there is a node to look at");
}

/// Looks after the channels are in use.
async fn look_later(rig: &Rig) {
    rig.lightning.network.mine(BURIED);
    rig.settle().await;
    look(rig).await;
}

async fn overview(rig: &Rig) -> Overview {
    liquidity::overview(&rig.flows).await.expect("the store answers")
}

async fn last(rig: &Rig) -> String {
    overview(rig).await.decision.expect("it was looked at").word
}

/// How each opening stands, the oldest first.
async fn states(rig: &Rig) -> Vec<&'static str> {
    let mut openings = overview(rig).await.openings;
    openings.reverse();
    openings.iter().map(|opening| opening.state.as_str()).collect()
}

/// The capacities of the channels that were opened beside the first.
async fn opened(rig: &Rig) -> Vec<u64> {
    let channels = rig.lightning.node.channels().await.expect("channels");
    channels.iter().skip(1).map(|channel| channel.capacity.to_u64()).collect()
}

/// What was said, in order: the kind without its first word, and why, where something is held back.
async fn said(rig: &Rig) -> Vec<String> {
    let mut conn = rig.flows.store().read().await.expect("a connection");
    let sql = "SELECT kind, data, wallet_id FROM events WHERE kind LIKE 'liquidity.%' ORDER BY id";
    let rows = sqlx::query(sql).fetch_all(&mut *conn).await.expect("events");
    let text = |row: &sqlx::any::AnyRow| {
        assert_eq!(row.get::<Option<String>, _>("wallet_id"), None, "it is no wallet's");
        let data: serde_json::Value = serde_json::from_str(&row.get::<String, _>("data")).expect("JSON");
        let kind = row.get::<String, _>("kind").replace("liquidity.", "");
        data["why"].as_str().map_or(kind.clone(), |why| format!("{kind}: {why}"))
    };
    rows.iter().map(text).collect()
}

on_both!(channels_are_opened_one_after_the_other_until_there_is_enough, wants(1_000_000, |_| ()), async |rig: Rig| {
    let nodes = start(&rig, 3_000_000).await;
    look(&rig).await;
    assert_eq!(opened(&rig).await, [500_000]);
    look(&rig).await;
    look(&rig).await;
    assert_eq!((opened(&rig).await, states(&rig).await), (vec![500_000], vec!["opening"]), "one at a time");
    look_later(&rig).await;
    assert_eq!(opened(&rig).await, [500_000, 500_000]);
    look_later(&rig).await;
    look_later(&rig).await;
    assert_eq!((states(&rig).await, last(&rig).await.as_str()), (vec!["opened"; 2], "enough"));
    let channels = rig.lightning.node.channels().await.expect("channels");
    let with: Vec<_> = channels.iter().skip(1).map(|channel| channel.peer).collect();
    assert_eq!(with, [nodes[0].id(), nodes[1].id()], "they take turns");
    assert!(channels.iter().skip(1).all(|channel| !channel.announced && channel.can_receive.is_zero()));
    assert_eq!(said(&rig).await, ["opening", "opened", "opening", "opened"]);
    assert_eq!(overview(&rig).await.spent_today.to_u64(), 2 * FEE);
    rig.audit_exactly().await;
});

on_both!(
    the_budget_is_of_the_day,
    wants(1_000_000, |p| p.daily_fee_sats = Sat::literal(2 * FEE - 1)),
    async |rig: Rig| {
        start(&rig, 3_000_000).await;
        look(&rig).await;
        look_later(&rig).await;
        look(&rig).await;
        assert_eq!((opened(&rig).await.len(), last(&rig).await.as_str()), (1, "budget_spent"));
        rig.wait(A_DAY).await;
        assert_eq!(overview(&rig).await.spent_today, Sat::ZERO);
        look(&rig).await;
        assert_eq!(opened(&rig).await.len(), 2);
        look_later(&rig).await;
        assert_eq!(said(&rig).await, ["opening", "opened", "held_back: budget_spent", "opening", "opened"]);
        rig.audit_exactly().await;
    }
);

on_both!(above_the_cap_nothing_is_opened, wants(500_000, |_| ()), async |rig: Rig| {
    start(&rig, 3_000_000).await;
    rig.chain.set_fee_rate(Some(FeeRate::from_milli_sat_per_vb(20_001)));
    look(&rig).await;
    look(&rig).await;
    assert_eq!((opened(&rig).await.len(), last(&rig).await.as_str()), (0, "fee_rate_too_high"));
    rig.chain.set_fee_rate(Some(FeeRate::from_sat_per_vb(20)));
    look(&rig).await;
    assert_eq!((opened(&rig).await.len(), overview(&rig).await.spent_today.to_u64()), (1, 8_000));
    look_later(&rig).await;
    assert_eq!(said(&rig).await, ["held_back: fee_rate_too_high", "opening", "opened"]);
    rig.audit_exactly().await;
});

on_both!(
    what_is_kept_on_chain_stays,
    wants(500_000, |p| p.keep_onchain_sats = Sat::literal(100_000)),
    async |rig: Rig| {
        let reserve = 30_000;
        rig.lightning.node.set_reserve(Sat::literal(reserve));
        // One more channel needs as much again as the one that is there.
        let stays = 2 * reserve + 100_000 + FEE;
        start(&rig, stays + 199_999).await;
        look(&rig).await;
        assert_eq!((opened(&rig).await.len(), last(&rig).await.as_str()), (0, "coins_short"));
        start_with_more(&rig, 1).await;
        look(&rig).await;
        assert_eq!(opened(&rig).await, [200_000], "the least, where there is no more");
        let coins = rig.lightning.node.balance().await.expect("a balance").onchain_confirmed.to_u64();
        assert_eq!(coins, stays);
        look_later(&rig).await;
        rig.audit_exactly().await;
    }
);

async fn start_with_more(rig: &Rig, sats: u64) {
    let address = parse_address(&node_admin::reserve(&rig.flows).await.expect("a reserve").address);
    rig.lightning.node.fund_address(&address, Sat::literal(sats));
    rig.lightning.network.mine(1);
    rig.settle().await;
}

on_both!(an_alarm_comes_first, wants(500_000, |_| ()), async |rig: Rig| {
    start(&rig, 3_000_000).await;
    let raise = "INSERT INTO halts (id, reason, detail, created_at) VALUES ('h', 'insolvent', 'a test', 0)";
    rig.sql(raise).await;
    look(&rig).await;
    assert_eq!((opened(&rig).await.len(), last(&rig).await.as_str()), (0, "payouts_halted"));
    assert!(rig.clear_halt(halts::INSOLVENT).await);
    look(&rig).await;
    look_later(&rig).await;
    assert_eq!(said(&rig).await, ["held_back: payouts_halted", "opening", "opened"]);
    rig.audit_exactly().await;
});

on_both!(a_chain_that_is_not_synced_is_waited_for, wants(500_000, |_| ()), async |rig: Rig| {
    start(&rig, 3_000_000).await;
    rig.chain.set_syncing(true);
    look(&rig).await;
    assert_eq!(last(&rig).await, "chain_not_synced");
    rig.chain.set_syncing(false);
    rig.chain.mine(2);
    look(&rig).await;
    assert_eq!(
        (opened(&rig).await.len(), last(&rig).await.as_str()),
        (0, "chain_not_synced"),
        "two blocks are not taken in"
    );
    rig.settle().await;
    look(&rig).await;
    assert_eq!(opened(&rig).await.len(), 1);
    look_later(&rig).await;
    rig.audit_exactly().await;
});

on_both!(a_withdrawal_that_waits_comes_first, wants(500_000, |_| ()), async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    rig.funded_offchain(&client, sat(200_000)).await;
    start(&rig, 800_000).await;
    let chain = Arc::clone(&rig.chain);
    rig.lightning.node.send_through(move |script, amount| chain.pay(script, amount).expect("the fake pays"));
    let offchain = Some(Source::Offchain);
    let begun = withdraw::begin_either(&rig.flows, &client.keys, offchain, to_send(&stranger(), 100_000), None);
    let begun = begun.await.expect("it begins");
    // What is set aside for it meanwhile leaves too little.
    rig.lightning.node.set_reserve(Sat::literal(790_000));
    withdraw::end(&rig.flows, &client.keys, &client.sign(&begun.psbt)).await.expect("it is queued");
    rig.lightning.node.set_reserve(Sat::ZERO);
    look(&rig).await;
    assert_eq!((opened(&rig).await.len(), last(&rig).await.as_str()), (0, "withdrawals_wait"));
    rig.mine(1).await;
    look(&rig).await;
    assert_eq!(opened(&rig).await, [500_000]);
    look_later(&rig).await;
    rig.mine(1).await;
    rig.audit_exactly().await;
});

on_both!(a_lost_answer_is_not_asked_for_again, wants(1_000_000, |p| p.peers.truncate(1)), async |rig: Rig| {
    let nodes = start(&rig, 3_000_000).await;
    rig.lightning.node.connect(nodes[0].id(), &nodes[0].address()).await.expect("it connects");
    rig.lightning.node.set_fault(Fault::AnswerLost);
    look(&rig).await;
    rig.lightning.node.set_fault(None);
    assert_eq!((opened(&rig).await, states(&rig).await), (vec![500_000], vec!["asking"]));
    look(&rig).await;
    rig.wait(COMES_WITHIN).await;
    look(&rig).await;
    assert_eq!(opened(&rig).await.len(), 1, "it was opened, once");
    look_later(&rig).await;
    assert_eq!(states(&rig).await, ["opened", "opening"], "the next one is another");
    look_later(&rig).await;
    assert_eq!(said(&rig).await, ["opening", "opened", "opening", "opened"]);
    rig.audit_exactly().await;
});

on_both!(a_death_before_the_node_is_asked_is_found, wants(500_000, |p| p.peers.truncate(1)), async |mut rig: Rig| {
    start(&rig, 3_000_000).await;
    let planned = liquidity::decide(&rig.flows).await.expect("it decides").expect("one is to be opened");
    drop(planned);
    rig.restart();
    rig.settle().await;
    look(&rig).await;
    rig.wait(COMES_WITHIN - 1).await;
    look(&rig).await;
    assert_eq!((opened(&rig).await.len(), states(&rig).await), (0, vec!["asking"]), "it may still come");
    rig.wait(1).await;
    look(&rig).await;
    assert_eq!(
        (opened(&rig).await.len(), states(&rig).await),
        (1, vec!["gone", "opening"]),
        "the peer is not to blame"
    );
    assert_eq!(overview(&rig).await.spent_today.to_u64(), 2 * FEE, "the first one may have been spent");
    look_later(&rig).await;
    assert_eq!(said(&rig).await, ["opening", "refused", "opening", "opened"]);
    rig.audit_exactly().await;
});

on_both!(a_channel_that_is_gone_before_it_was_used, wants(500_000, |p| p.peers.truncate(1)), async |rig: Rig| {
    start(&rig, 3_000_000).await;
    look(&rig).await;
    // It is in a block, and not deep enough.
    rig.lightning.network.mine(1);
    let channels = rig.lightning.node.channels().await.expect("channels");
    rig.lightning.node.close_channel(&channels[1].id, CloseHow::Cooperative).await.expect("it closes");
    rig.lightning.network.mine(1);
    rig.wait(COMES_WITHIN).await;
    look(&rig).await;
    assert_eq!((states(&rig).await, last(&rig).await.as_str()), (vec!["gone"], "peers_refused"));
    assert_eq!(overview(&rig).await.spent_today.to_u64(), FEE);
    rig.wait(AN_HOUR).await;
    look(&rig).await;
    look_later(&rig).await;
    assert_eq!(said(&rig).await, ["opening", "refused", "held_back: peers_refused", "opening", "opened"]);
    rig.audit_exactly().await;
});

on_both!(a_death_after_the_node_was_asked_is_found, wants(500_000, |_| ()), async |mut rig: Rig| {
    let nodes = start(&rig, 3_000_000).await;
    let planned = liquidity::decide(&rig.flows).await.expect("it decides").expect("one is to be opened");
    rig.lightning.node.connect(nodes[0].id(), &nodes[0].address()).await.expect("it connects");
    rig.lightning.node.set_fault(Fault::AnswerLost);
    liquidity::carry_out(&rig.flows, planned).await.expect("nobody knows");
    rig.lightning.node.set_fault(None);
    rig.restart();
    rig.settle().await;
    look(&rig).await;
    look_later(&rig).await;
    assert_eq!((opened(&rig).await.len(), states(&rig).await), (1, vec!["opened"]));
    rig.audit_exactly().await;
});

on_both!(two_looks_at_once_open_one_channel, wants(500_000, |_| ()), async |rig: Rig| {
    start(&rig, 3_000_000).await;
    let (one, other) = tokio::join!(liquidity::look(&rig.flows), liquidity::look(&rig.flows));
    assert!(one.expect("it looks") && other.expect("it looks"));
    assert_eq!((opened(&rig).await.len(), said(&rig).await), (1, vec!["opening".to_owned()]));
    look_later(&rig).await;
    rig.audit_exactly().await;
});

on_both!(a_peer_that_is_away_is_left_alone_for_the_next, wants(500_000, |_| ()), async |rig: Rig| {
    let nodes = start(&rig, 3_000_000).await;
    nodes[0].set_fault(Fault::Down);
    look(&rig).await;
    assert_eq!((opened(&rig).await.len(), states(&rig).await), (0, vec!["refused"]));
    let refused = overview(&rig).await;
    assert!(refused.openings[0].reason.as_deref().is_some_and(|reason| reason.contains("nobody answers there")));
    assert_eq!(refused.spent_today, Sat::ZERO, "it has cost nothing");
    look(&rig).await;
    let channels = rig.lightning.node.channels().await.expect("channels");
    assert_eq!(channels.iter().skip(1).map(|channel| channel.peer).collect::<Vec<_>>(), [nodes[1].id()]);
    look_later(&rig).await;
    assert_eq!(said(&rig).await, ["opening", "refused", "opening", "opened"]);
    rig.audit_exactly().await;
});

on_both!(
    a_channel_whose_peer_is_away_is_not_replaced,
    wants(0, |p| p.want_outbound_sats = CHANNEL_SIDE),
    async |rig: Rig| {
        start(&rig, 3_000_000).await;
        rig.lightning.shop.set_fault(Fault::Down);
        assert!(rig.lightning.node.balance().await.expect("a balance").can_send.is_zero());
        look(&rig).await;
        assert_eq!((opened(&rig).await.len(), last(&rig).await.as_str()), (0, "enough"));
        assert_eq!(said(&rig).await, [""; 0]);
        rig.lightning.shop.set_fault(None);
        rig.audit_exactly().await;
    }
);

on_both!(
    too_little_to_receive_is_said_once,
    wants(0, |p| p.want_inbound_sats = Sat::literal(5_500_000)),
    async |rig: Rig| {
        let nodes = start(&rig, 3_000_000).await;
        look(&rig).await;
        look(&rig).await;
        assert_eq!((opened(&rig).await.len(), said(&rig).await), (0, vec!["inbound_low".to_owned()]));
        assert!(overview(&rig).await.inbound_low_since.is_some());
        rig.lightning.network.open(&nodes[0], &rig.lightning.node, Sat::literal(500_000), Sat::ZERO);
        rig.settle().await;
        look(&rig).await;
        assert_eq!((overview(&rig).await.inbound_low_since, said(&rig).await.len()), (None, 1));
        rig.audit_exactly().await;
    }
);

on_both!(settle_wakes_it_and_opens_nothing_itself, wants(500_000, |_| ()), async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    start(&rig, 3_000_000).await;
    let is_woken = || tokio::time::timeout(Duration::from_millis(20), rig.flows.liquidity_is_woken());
    assert!(is_woken().await.is_err(), "nobody has called");
    settle::finish(&rig.flows, &client.keys.id()).await.expect("it settles");
    assert_eq!(opened(&rig).await.len(), 0);
    assert!(is_woken().await.is_ok());
    assert!(is_woken().await.is_err(), "once");
    look(&rig).await;
    assert_eq!(opened(&rig).await.len(), 1);
    look_later(&rig).await;
    rig.audit_exactly().await;
});

on_both!(whoever_does_not_run_the_node_says_nothing, wants(500_000, |_| ()), async |rig: Rig| {
    start(&rig, 3_000_000).await;
    rig.flows.node().leave();
    assert!(!liquidity::look(&rig.flows).await.expect("there is nothing to look at"));
    assert_eq!((overview(&rig).await.decision, said(&rig).await.len()), (None, 0));
    rig.flows.node().arrive(rig.lightning.node.clone());
    assert!(!liquidity::look(&rig.flows).await.expect("it catches up"));
    rig.settle().await;
    look(&rig).await;
    look_later(&rig).await;
    assert_eq!(opened(&rig).await.len(), 1);
    rig.audit_exactly().await;
});

on_both!(without_peers_all_of_it_is_off, async |rig: Rig| {
    assert!(!liquidity::look(&rig.flows).await.expect("it is off"));
    assert_eq!(overview(&rig).await.decision, None);
    rig.audit_exactly().await;
});
