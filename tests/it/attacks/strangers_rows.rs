//! Rows that strangers make the node write: they are forgotten, and nothing else is.

use std::sync::Arc;
use std::time::Duration;

use sluice::clock::Timestamp;
use sluice::domain::lightning::{PaymentHash, Preimage};
use sluice::store::node::{self, Arrival, Commit, Step};
use sluice::store::owners::{Acquire, Role};

use crate::harness::lightning::sat;
use crate::harness::rig::{Client, Rig, on_both};

fn arrived(hash: PaymentHash) -> Step {
    let part = "part".to_owned();
    Step::Arrived(Arrival { hash, part, amount: sat(1), claim_before: None, preimage: None, offer: None })
}

on_both!(payments_for_no_invoice_that_went_back_are_forgotten_a_day_later, async |rig: Rig| {
    let wallet = Client::number(1);
    rig.register(&wallet).await;
    let ours = rig.invoice(&wallet, Some(sat(1_000))).await.machine.hash;
    let (unknown, held, young) = (Preimage::fresh().hash(), Preimage::fresh().hash(), Preimage::fresh().hash());
    let acquire = Acquire { role: Role::Node, holder: "test".to_owned() };
    let owner = rig.flows.store().write(acquire).await.expect("a role").expect("nobody holds it");
    let commit = async |steps: Vec<Step>| {
        let commit = Commit { owner: owner.clone(), steps: Arc::new(steps) };
        rig.flows.store().write(commit).await.expect("it is written");
    };
    let went_back = |hash| [arrived(hash), Step::Failing(hash), Step::Failed(hash)];
    commit([went_back(ours), went_back(unknown)].concat()).await;
    commit(vec![arrived(held)]).await;
    rig.clock.advance(Duration::from_secs(24 * 60 * 60));
    commit(went_back(young).to_vec()).await;
    let before = Timestamp::from_millis(rig.clock.now().millis() - 60_000);
    commit(vec![Step::ForgetReceipts(before)]).await;
    let mut conn = rig.flows.store().read().await.expect("a connection");
    let mut known = Vec::new();
    for hash in [ours, unknown, held, young] {
        known.push(node::receipts(&mut conn, hash).await.expect("the store answers").len());
    }
    assert_eq!(known, [1, 0, 1, 1]);
    drop(conn);
    rig.audit().await;
});
