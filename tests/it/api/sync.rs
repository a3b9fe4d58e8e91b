//! What refresh and sync wait for, with a follower that moves only when it is told to.

use sluice::chain::fake::Reorged;
use sluice::flows::{Code, Policy, sync};

use crate::harness::rig::{Database, Rig};

#[tokio::test]
async fn a_block_as_high_as_the_tip_is_not_the_tip() {
    let policy = Policy { sync_seconds: 1, ..Policy::default() };
    let rig = Rig::with(Database::Sqlite, policy).await.expect("SQLite is always there");
    rig.chain.mine(3);
    rig.settle().await;
    let before = sync::wait_for_tip(&rig.flows).await.expect("it is there already");
    let tip = rig.chain.reorg(1, 1, Reorged::BackInMempool).expect("the fake turns");
    assert!(tip.height == before.height && tip != before);
    let early = sync::wait_for_tip(&rig.flows).await.expect_err("the follower has not moved");
    assert_eq!(early.code(), Code::SyncTimeout);
    rig.settle().await;
    assert_eq!(sync::wait_for_tip(&rig.flows).await.expect("now it has"), tip);
    rig.audit().await;
}
