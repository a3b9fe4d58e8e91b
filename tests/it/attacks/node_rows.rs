//! What the node says it has paid, and what its rows say it should have.

use sluice::domain::lightning::{PaymentId, Preimage};
use sluice::domain::movement::Movement;
use sluice::money::Amount;
use sluice::store::node::{self, Commit, NewPayment, Step};
use sluice::store::owners::{Acquire, Role};
use sluice::store::{halts, node_parts};

use crate::harness::lightning::msat;
use crate::harness::rig::{Rig, on_both};

const ID: PaymentId = PaymentId([5; 32]);
const ASKED: Amount = msat_literal(1_000_000);
const CEILING: Amount = msat_literal(3_000);

const fn msat_literal(msat: u64) -> Amount {
    match Amount::from_msat(msat) {
        Ok(amount) => amount,
        Err(_) => panic!("a literal that fits"),
    }
}

/// The node's own commits, as it makes them.
async fn commit(rig: &Rig, rounds: Vec<Vec<Step>>) {
    let acquire = Acquire { role: Role::Node, holder: "a test".to_owned() };
    let owner = rig.flows.store().write(acquire).await.expect("it answers").expect("nobody else has it");
    for steps in rounds {
        let commit = Commit { owner: owner.clone(), steps: std::sync::Arc::new(steps) };
        rig.flows.store().write(commit).await.expect("it is written");
    }
}

fn begun() -> Step {
    Step::Payment(NewPayment {
        id: ID,
        hash: Preimage([6; 32]).hash(),
        state: "pending",
        destination: "bolt11:".to_owned(),
        amount: ASKED,
        max_fee: CEILING,
    })
}

fn sent(cost: Option<Amount>) -> Step {
    Step::PaymentSent { id: ID, preimage: Preimage([6; 32]), cost }
}

async fn halts_of(rig: &Rig) -> Vec<(String, String)> {
    let mut conn = rig.flows.store().read().await.expect("it answers");
    let halts = halts::in_force(&mut conn).await.expect("it answers");
    halts.into_iter().map(|halt| (halt.reason, halt.detail)).collect()
}

async fn told(rig: &Rig) -> Vec<Movement> {
    let mut conn = rig.flows.store().read().await.expect("it answers");
    let movements = node::movements(&mut conn, 0, 10).await.expect("it answers");
    movements.into_iter().map(|(_, movement)| movement).collect()
}

async fn fee(rig: &Rig) -> Option<Amount> {
    let mut conn = rig.flows.store().read().await.expect("it answers");
    let row = node::payment(&mut conn, ID).await.expect("it answers").expect("its row");
    assert_eq!(row.state, "sent");
    row.fee
}

on_both!(a_payment_without_a_row_is_an_alarm_and_waits_in_suspense, async |rig: Rig| {
    // Told twice, as LDK may.
    commit(&rig, vec![vec![sent(Some(msat(2_000_000)))], vec![sent(Some(msat(2_000_000)))]]).await;
    let [(reason, detail)] = &halts_of(&rig).await[..] else { panic!("one halt") };
    assert_eq!(reason, halts::NODE_OVERSPENT);
    assert!(detail.contains(&ID.to_string()) && detail.contains("2000000 msat"), "{detail}");
    assert_eq!(told(&rig).await, [Movement::Unasked { payment: ID.to_string(), amount: msat(2_000_000) }]);
    rig.audit().await;
});

on_both!(what_a_payee_gets_beyond_what_it_asked_for_is_its_payers_fee, async |rig: Rig| {
    // Three times the amount, and a little for the way: all of it left the node.
    commit(&rig, vec![vec![begun()], vec![sent(Some(msat(3_000_010)))]]).await;
    assert_eq!(fee(&rig).await, Some(msat(2_000_010)));
    assert_eq!(told(&rig).await, []);
    rig.audit().await;
});

on_both!(a_cost_that_the_node_cant_say_is_the_ceiling_and_an_alarm, async |rig: Rig| {
    commit(&rig, vec![vec![begun()], vec![sent(None)]]).await;
    assert_eq!(fee(&rig).await, Some(CEILING));
    let [(reason, _)] = &halts_of(&rig).await[..] else { panic!("one halt") };
    assert_eq!(reason, halts::NODE_OVERSPENT);
    rig.audit().await;
});

on_both!(a_part_that_its_payee_lets_go_waits_in_suspense_and_stops_nobody, async |rig: Rig| {
    let part = Step::PartClaimed { id: ID, part: "1".to_owned(), cost: msat(400_005) };
    let rounds =
        vec![vec![begun(), Step::Parts(ID)], vec![sent(Some(msat(1_000_010))), part], vec![Step::PartsOver(ID)]];
    commit(&rig, rounds).await;
    assert_eq!(fee(&rig).await, Some(msat(10)));
    assert_eq!(told(&rig).await, [Movement::Unclaimed { payment: ID.to_string(), amount: msat(600_005) }]);
    assert_eq!(halts_of(&rig).await, []);
    let mut conn = rig.flows.store().read().await.expect("it answers");
    assert_eq!(node_parts::open(&mut conn).await.expect("it answers"), []);
    drop(conn);
    rig.audit().await;
});

on_both!(parts_that_are_all_claimed_leave_nothing, async |rig: Rig| {
    let part = |name: &str, cost| Step::PartClaimed { id: ID, part: name.to_owned(), cost };
    let rounds = vec![
        vec![begun(), Step::Parts(ID), Step::Parts(ID)],
        vec![sent(Some(msat(1_000_010))), part("1", msat(400_005))],
        vec![part("1", msat(400_005)), part("2", msat(600_005)), Step::PartsOver(ID)],
        // As after a commit of which nobody knew whether it was made.
        vec![part("1", msat(400_005)), part("2", msat(600_005)), Step::PartsOver(ID)],
    ];
    commit(&rig, rounds).await;
    assert_eq!((told(&rig).await, halts_of(&rig).await), (vec![], vec![]));
    rig.audit().await;
});
