//! Withdrawals that are sent and taken back at the same time.

use std::sync::Arc;
use std::time::Duration;

use sluice::domain::withdraw::{State, Withdraw};
use sluice::flows::send::{Begun, Source};
use sluice::flows::{Code, Error, Flows, NodeSlot, node_admin, withdraw};
use sluice::ids::RequestId;
use sluice::money::{FeeRate, Sat};
use sluice::store::halts;
use sluice::store::owners::{Acquire, Ownership, Resign, Role};
use tokio::task::JoinHandle;

use crate::harness::lightning::sat;
use crate::harness::rig::{Client, Rig, on_both, stranger, wanted};

/// Within this time somebody who is not held back has asked a node in memory.
const LONG_ENOUGH: Duration = Duration::from_millis(500);

async fn start(rig: &Rig, reserve: u64) -> Client {
    let client = Client::number(1);
    rig.register(&client).await;
    rig.funded_offchain(&client, sat(200_000)).await;
    let chain = Arc::clone(&rig.chain);
    rig.lightning.node.send_through(move |script, amount| chain.pay(script, amount).expect("the fake pays"));
    refill(rig, reserve);
    client
}

fn refill(rig: &Rig, sats: u64) {
    rig.lightning.node.fund(Sat::new(sats).expect("so many bitcoins exist"));
    rig.lightning.network.mine(1);
}

async fn begin(rig: &Rig, client: &Client) -> Begun {
    let begun =
        withdraw::begin_either(&rig.flows, &client.keys, Some(Source::Offchain), wanted(&stranger(), 50_000), None);
    begun.await.expect("it begins")
}

/// Two withdrawals of which the node's coins reach for one, which is sent.
async fn one_too_many(rig: &Rig, client: &Client) -> Begun {
    let (first, second) = (begin(rig, client).await, begin(rig, client).await);
    let sent = withdraw::end(&rig.flows, &client.keys, &client.sign(&first.psbt)).await.expect("it ends");
    assert!(sent.expect("it is a withdrawal").machine.txid().is_some());
    second
}

/// Somebody ends it, beside whatever else happens.
fn end(flows: &Flows, client: &Client, begun: &Begun) -> JoinHandle<Result<Withdraw, Error>> {
    let (flows, keys, signed) = (flows.clone(), client.keys.clone(), client.sign(&begun.psbt));
    tokio::spawn(async move {
        let ended = withdraw::end(&flows, &keys, &signed).await?;
        Ok(ended.expect("it is a withdrawal").machine)
    })
}

async fn look(rig: &Rig, client: &Client, id: RequestId) -> Withdraw {
    let found = withdraw::find(&rig.flows, &client.keys.id(), id).await.expect("the store answers");
    found.expect("it is known").machine
}

async fn cancel(rig: &Rig, client: &Client, id: RequestId) -> Result<(), Error> {
    withdraw::cancel(&rig.flows, &client.keys.id(), id).await.map(|found| assert!(found.is_some()))
}

async fn halted(rig: &Rig) -> Vec<String> {
    let mut conn = rig.flows.store().read().await.expect("the store answers");
    halts::in_force(&mut conn).await.expect("a list").into_iter().map(|halt| halt.reason).collect()
}

async fn own_the_node(rig: &Rig, holder: &str) -> Ownership {
    let acquire = Acquire { role: Role::Node, holder: holder.to_owned() };
    rig.flows.store().write(acquire).await.expect("a role").expect("nobody holds it")
}

on_both!(a_withdrawal_that_one_hand_finds_short_is_not_sent_by_another_and_taken_back, async |rig: Rig| {
    let client = start(&rig, 60_000).await;
    let second = one_too_many(&rig, &client).await;
    let before = rig.lightning.node.sends_asked();
    let mut found_short = rig.lightning.node.gate();
    let first_hand = end(&rig.flows, &client, &second);
    found_short.reached().await;
    // The coins are there now, and somebody else would like to send them while the first still has "short" in its hand.
    refill(&rig, 500_000);
    let mut sent = rig.lightning.node.gate();
    let second_hand = end(&rig.flows, &client, &second);
    let was_asked = tokio::time::timeout(LONG_ENOUGH, sent.reached()).await;
    found_short.open();
    first_hand.await.expect("no panic").expect("it is accepted");
    let cancelled = cancel(&rig, &client, second.request).await;
    sent.open();
    let ended = second_hand.await.expect("no panic").expect("it is answered");
    assert!(was_asked.is_err(), "one hand at a time asks the node");
    assert_eq!(rig.lightning.node.sends_asked() - before, 1);
    cancelled.expect("nothing was sent");
    assert_eq!(ended.txid(), None);
    assert_eq!(look(&rig, &client, second.request).await.state, State::Cancelled);
    assert_eq!(halted(&rig).await, [""; 0]);
    rig.mine(1).await;
    rig.wait(31).await;
    assert_eq!(look(&rig, &client, second.request).await.state, State::Cancelled);
    rig.audit_exactly().await;
});

on_both!(what_a_process_that_was_replaced_heard_from_its_node_moves_no_withdrawal, async |rig: Rig| {
    let client = start(&rig, 60_000).await;
    let gateway = |owner: Ownership| {
        let slot = NodeSlot::expected();
        slot.arrive_owned(rig.lightning.node.clone(), owner);
        slot.accept_spends();
        let policy = rig.flows.policy().clone();
        Flows::with_node(rig.flows.store().clone(), rig.chain.clone(), slot, rig.flows.network(), policy)
    };
    let owner = own_the_node(&rig, "one").await;
    let one = gateway(owner.clone());
    let second = one_too_many(&rig, &client).await;
    let mut found_short = rig.lightning.node.gate();
    let old = end(&one, &client, &second);
    found_short.reached().await;
    // The node is another process's by now, and its coins reach.
    rig.flows.store().write(Resign(owner)).await.expect("it is written");
    let other = gateway(own_the_node(&rig, "two").await);
    refill(&rig, 500_000);
    let sent = end(&other, &client, &second).await.expect("no panic").expect("it ends");
    assert!(sent.txid().is_some(), "{sent:?}");
    found_short.open();
    let late = old.await.expect("no panic").expect_err("it does not own the node");
    assert!(late.to_string().contains("no longer owns"), "{late}");
    assert_eq!(look(&rig, &client, second.request).await, sent, "what it had heard is not written");
    let late = cancel(&rig, &client, second.request).await.expect_err("it is out");
    assert_eq!(late.code(), Code::NotCancellable);
    rig.mine(1).await;
    rig.mine(1).await;
    rig.audit_exactly().await;
});

on_both!(a_short_of_an_earlier_attempt_does_not_make_a_later_one_cancellable, async |rig: Rig| {
    let client = start(&rig, 60_000).await;
    let second = one_too_many(&rig, &client).await;
    // Two gateways with one node that nobody protects: the worst that can be.
    let mut found_short = rig.lightning.node.gate();
    let early = end(&rig.flows, &client, &second);
    found_short.reached().await;
    refill(&rig, 500_000);
    let slot = NodeSlot::expected();
    slot.arrive(rig.lightning.node.clone());
    slot.accept_spends();
    let policy = rig.flows.policy().clone();
    let other = Flows::with_node(rig.flows.store().clone(), rig.chain.clone(), slot, rig.flows.network(), policy);
    let mut sent = rig.lightning.node.gate();
    let late = end(&other, &client, &second);
    sent.reached().await;
    found_short.open();
    let queued = early.await.expect("no panic").expect("it is answered");
    assert!(matches!(queued.state, State::Requested { .. }), "the node is being asked: {queued:?}");
    let refused = cancel(&rig, &client, second.request).await.expect_err("it may be on its way");
    assert_eq!(refused.code(), Code::NotCancellable);
    sent.open();
    let ended = late.await.expect("no panic").expect("it ends");
    assert!(ended.txid().is_some(), "{ended:?}");
    rig.mine(1).await;
    rig.mine(1).await;
    rig.audit_exactly().await;
});

on_both!(a_withdrawal_that_nobody_mines_is_hurried_at_the_cost_of_the_operator, async |rig: Rig| {
    let client = start(&rig, 500_000).await;
    let chain = Arc::clone(&rig.chain);
    rig.lightning.node.replace_through(move |txid| {
        chain.replace(txid, &[(stranger().script_pubkey(), Sat::literal(50_000))]).expect("the fake replaces")
    });
    for _round in 0..2 {
        let begun = begin(&rig, &client).await;
        let sent = end(&rig.flows, &client, &begun).await.expect("no panic").expect("it ends");
        let (first, paid) = (sent.txid().expect("it is out"), sent.fee().expect("it is out"));
        let before = rig.available(&client).await;
        let bumped = node_admin::bump(&rig.flows, begun.request, FeeRate::from_sat_per_vb(20), None)
            .await
            .expect("it is bumped");
        assert!(bumped.txid != first && bumped.fee > paid, "{bumped:?}");
        let lower = node_admin::bump(&rig.flows, begun.request, FeeRate::from_sat_per_vb(3), None).await;
        assert_eq!(lower.expect_err("it pays more already").code(), Code::NodeRefused);
        assert_eq!(look(&rig, &client, begun.request).await.txid(), Some(bumped.txid));
        rig.mine(1).await;
        let confirmed = look(&rig, &client, begun.request).await;
        assert!(matches!(confirmed.state, State::Confirmed { .. }), "{confirmed:?}");
        assert_eq!(confirmed.fee(), Some(paid), "the wallet has paid what it agreed to");
        assert_eq!(rig.available(&client).await, before);
        let late = node_admin::bump(&rig.flows, begun.request, FeeRate::from_sat_per_vb(50), None).await;
        assert_eq!(late.expect_err("it is in a block").code(), Code::NotBumpable);
    }
    rig.mine(1).await;
    rig.audit_exactly().await;
});

on_both!(coins_that_a_node_sends_and_denies_are_found_in_the_books, async |rig: Rig| {
    let client = start(&rig, 500_000).await;
    let begun = begin(&rig, &client).await;
    rig.lightning.node.deny_sends(true);
    let queued = end(&rig.flows, &client, &begun).await.expect("no panic").expect("it is accepted");
    assert!(matches!(queued.state, State::Queued { .. }), "{queued:?}");
    cancel(&rig, &client, begun.request).await.expect("the node says that nothing was sent");
    assert_eq!(rig.available(&client).await, 200_000_000);
    // Its transaction is in a block.
    rig.mine(1).await;
    rig.mine(1).await;
    let found = look(&rig, &client, begun.request).await;
    assert!(matches!(found.state, State::Confirmed { .. }), "{found:?}");
    assert_eq!(rig.available(&client).await, 200_000_000, "its owner was told that it is back");
    assert_eq!(halted(&rig).await, ["node_overspent"], "somebody has to look at a node that lies");
    rig.audit_exactly().await;
});
