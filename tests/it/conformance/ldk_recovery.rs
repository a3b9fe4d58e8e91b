//! A node whose database is gone: what its seed and the file of its channels bring back.

use std::sync::Arc;

use bitcoin::Network;
use sluice::chain::bitcoind;
use sluice::connectors::ldk::{LdkError, Progress, Recovery, RecoveryFile, recovery_file};
use sluice::money::Sat;
use sluice::ports::lightning::LightningNode as _;
use sluice::store::Store;

use super::lightning_ldk_smoke::{Place, pair, rpc, wait};
use crate::harness::bitcoind::Bitcoind;

/// What the first node has in the channel once it has given the other 40 % of a million.
const IN_THE_CHANNEL: u64 = 600_000;
/// The opener pays for the commitment and its anchors, and the sweep for itself.
const COSTS_AT_MOST: u64 = 20_000;

async fn begin(place: &Place, bitcoind: &Bitcoind, file: RecoveryFile) -> (Result<Recovery, LdkError>, Store) {
    let (store, owner) = place.own().await;
    let chain = Arc::new(bitcoind::Bitcoind::new(&bitcoind.config()).expect("a backend"));
    let config = place.config();
    let started = Recovery::start(&config, Network::Regtest, rpc(bitcoind), chain, store.clone(), owner, file).await;
    (started, store)
}

async fn recovered_until(
    recovery: &mut Recovery,
    bitcoind: &Bitcoind,
    is_there: impl Fn(&Progress) -> bool,
) -> Progress {
    for _ in 0..60 {
        let now = recovery.step().await.expect("a look");
        if is_there(&now) {
            return now;
        }
        bitcoind.mine(1).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    panic!("it does not come to that: {:?}", recovery.step().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_database_is_gone_has_its_channels_closed_and_brings_home_what_they_pay() {
    let Some(bitcoind) = Bitcoind::start().await else { return };
    let places = [Place::new("alice"), Place::new("bob")];
    let (alice, bob) = pair(&bitcoind, &places).await;
    // The other side pays for its own closing.
    bitcoind.pay(&bob.node.onchain_address().await.expect("an address"), Sat::literal(1_000_000)).await;
    bitcoind.mine(1).await;
    let path = recovery_file(&places[0].config());
    wait("the file names the channel", || async {
        RecoveryFile::read(&path).is_ok_and(|file| file.channels.len() == 1 && file.peers.len() == 1)
    })
    .await;
    let file = RecoveryFile::read(&path).expect("a file");
    let wallet = alice.node.balance().await.expect("a balance").onchain_confirmed;
    alice.stop().await;

    // What has channels is no case for a recovery, and another node's file is none for this seed.
    let (refused, store) = begin(&places[0], &bitcoind, file.clone()).await;
    assert!(matches!(refused.map(drop), Err(LdkError::Misconfigured(_))));
    store.close().await;
    for name in ["node.db", "node.db-wal", "node.db-shm"] {
        drop(std::fs::remove_file(places[0].path().join(name)));
    }
    let foreign = RecoveryFile { node_id: bob.node.id(), ..file.clone() };
    let (refused, store) = begin(&places[0], &bitcoind, foreign).await;
    assert!(matches!(refused.map(drop), Err(LdkError::WrongSeed { .. })));
    store.close().await;

    // Asked to close, then stopped; begun again, it finds in the chain how far it was.
    let (recovery, store) = begin(&places[0], &bitcoind, file.clone()).await;
    let mut recovery = recovery.expect("it starts");
    let closed = recovered_until(&mut recovery, &bitcoind, |now| now.closed == 1).await;
    assert_eq!(closed.away, []);
    recovery.stop().await;
    store.close().await;
    let (not_served, store) = places[0].try_start(&bitcoind, places[0].config()).await;
    assert!(matches!(not_served.map(drop), Err(LdkError::Misconfigured(_))), "it is not served before the end");
    store.close().await;

    let (recovery, store) = begin(&places[0], &bitcoind, file).await;
    let mut recovery = recovery.expect("it starts again");
    let enough = wallet.to_u64() + IN_THE_CHANNEL - COSTS_AT_MOST;
    let over = recovered_until(&mut recovery, &bitcoind, |now| now.is_over() && now.wallet.to_u64() >= enough).await;
    assert!(over.wallet.to_u64() <= wallet.to_u64() + IN_THE_CHANNEL, "{over:?}");
    recovery.finish().await.expect("it ends");
    store.close().await;

    // A node like any other from then on, with the coins and without the channel.
    let alice = places[0].start(&bitcoind).await;
    let balance = alice.node.balance().await.expect("a balance");
    assert_eq!(balance.onchain_confirmed, over.wallet);
    assert_eq!(alice.node.channels().await.expect("channels"), []);
    alice.stop().await;
    bob.stop().await;
}
