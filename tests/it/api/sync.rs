//! What refresh and sync wait for, with a follower that moves only when it is told to.

use sluice::chain::fake::Reorged;
use sluice::flows::{Code, Policy, sync};

use crate::harness::bitcoind::Bitcoind;
use crate::harness::gateway::Gateway;
use crate::harness::rig::{Database, Rig};

#[tokio::test]
async fn a_block_as_high_as_the_tip_is_not_the_tip() {
    let policy = Policy { sync_seconds: 1, ..Policy::default() };
    let rig = Rig::with(Database::Sqlite, policy).await.expect("SQLite is always there");
    rig.chain.mine(3);
    rig.settle().await;
    let before = sync::wait_for_tip(&rig.flows).await.expect("it is there already").at;
    let tip = rig.chain.reorg(1, 1, Reorged::BackInMempool).expect("the fake turns");
    assert!(tip.height == before.height && tip != before);
    let early = sync::wait_for_tip(&rig.flows).await.expect_err("the follower has not moved");
    assert_eq!(early.code(), Code::SyncTimeout);
    rig.settle().await;
    assert_eq!(sync::wait_for_tip(&rig.flows).await.expect("now it has").at, tip);
    rig.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_is_shorter_than_before_is_told_as_it_is() {
    let Some(node) = Bitcoind::start().await else { return };
    let gateway = Gateway::start(&node, Database::Sqlite, &[]).await.expect("SQLite is always there");
    let owner = gateway.registered(1).await;
    let top = node.mine(3).await;
    let synced = async || owner.post_empty("/wallet/sync").await.ok()["message"].as_str().expect("a text").to_owned();
    assert_eq!(synced().await, format!("synced to block {} ({})", top.height, top.hash));
    let given_up = node.block_hash(top.height - 2).await;
    node.invalidate_block(given_up).await;
    let tip = node.tip().await;
    assert_eq!(tip.height, top.height - 3);
    let message = synced().await;
    assert!(
        message.starts_with(&format!("synced to block {} ({}), the node's tip;", tip.height, tip.hash)),
        "{message}"
    );
    assert!(message.contains(&format!("up to block {} ({})", top.height, top.hash)), "{message}");
    let other = node.mine_empty(4).await;
    assert_eq!(synced().await, format!("synced to block {} ({})", other.height, other.hash));
    gateway.stop().await;
}
