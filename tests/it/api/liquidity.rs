//! What the gateway does about its channels by itself, as an operator reads it. The worker runs.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice::clock::Clock;
use sluice::connectors::fake::{FakeNetwork, FakeNode};
use sluice::flows::keys::Scope;
use sluice::money::Sat;
use sluice::ports::lightning::LightningNode;

use crate::harness::client::{Call, Caller};
use crate::harness::gateway::{Gateway, eventually};
use crate::harness::lightning::{CHANNEL_SIDE, Lightning};
use crate::harness::rig::Database;

const BURIED: u32 = 6;
const WANTED: u64 = CHANNEL_SIDE.to_u64() + 300_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite() {
    tell(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    tell(Database::Postgres).await;
}

/// The node that comes after the gateway's and the shop's: it follows from its number.
fn third() -> String {
    let network = FakeNetwork::new(Clock::System);
    let all: Vec<Arc<FakeNode>> = (0..3).map(|_| network.add_node()).collect();
    format!("{}@{}", all[2].id(), all[2].address())
}

async fn tell(database: Database) {
    let peer = third();
    let overrides = [
        format!("liquidity.peers=[\"{peer}\"]"),
        format!("liquidity.want_outbound_sats={WANTED}"),
        "liquidity.want_inbound_sats=6000000".to_owned(),
        "liquidity.channel_sats=400000".to_owned(),
        // What happens within the test happens because something wakes the worker.
        "liquidity.every_seconds=86400".to_owned(),
    ];
    let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
    let Some((gateway, _chain, lightning)) = Gateway::start_lightning(database, &overrides).await else { return };
    let key = gateway.key(&[Scope::Admin], &[]).await;
    let operator = gateway.caller(1).without_wallet().with_key(&key);
    let wallet = gateway.registered(2).await;

    let first = eventually("it has looked", async || last(&operator, "coins_short").await).await;
    assert_eq!(first["policy"]["peers"], json!([peer]));
    assert_eq!(
        (&first["policy"]["want_outbound_sats"], &first["policy"]["every_seconds"]),
        (&json!(WANTED), &json!(86_400))
    );
    assert_eq!((&first["spent_today_sats"], &first["openings"]), (&json!(0), &json!([])));
    assert!(
        first["inbound_low_since"].is_string()
            && first["last"]["detail"].as_str().is_some_and(|text| text.contains("free"))
    );

    let other = lightning.network.add_node();
    lightning.node.fund(Sat::literal(1_000_000));
    lightning.network.mine(1);
    wake_until(&operator, &wallet, "opening").await;
    let opening = opened_with(&operator, &other, "opening").await;
    assert_eq!((&opening["amount_sats"], &opening["fee_sats"]), (&json!(400_000), &json!(2_000)));
    lightning.network.mine(BURIED);
    let done = wake_until(&operator, &wallet, "enough").await;
    assert_eq!(done["spent_today_sats"], 2_000);
    opened_with(&operator, &other, "opened").await;
    assert_eq!(count(&lightning).await, 2, "the first, and this one");
    gateway.stop().await;
}

/// What is decided, once it is this.
async fn last(operator: &Caller, wanted: &str) -> Option<Value> {
    let shown = operator.get("/admin/liquidity").await.ok();
    (shown["last"]["decision"] == wanted).then_some(shown)
}

/// A wallet settles until the worker has come to this.
async fn wake_until(operator: &Caller, wallet: &Caller, wanted: &str) -> Value {
    eventually(wanted, async || {
        let settled = wallet.post_empty("/lightning/settle").await.ok();
        assert_eq!(settled["total_channels_opened"], 0, "it is no wallet's call");
        last(operator, wanted).await
    })
    .await
}

/// The only opening, once it has come to this state.
async fn opened_with(operator: &Caller, peer: &FakeNode, state: &str) -> Value {
    eventually(state, async || {
        let shown = operator.call(Call::get("/admin/liquidity")).await.ok();
        let [opening] = &shown["openings"].as_array().expect("a list")[..] else { panic!("one: {shown}") };
        assert_eq!(opening["peer"], peer.id().to_string());
        (opening["state"] == state).then(|| opening.clone())
    })
    .await
}

async fn count(lightning: &Lightning) -> usize {
    lightning.node.channels().await.expect("channels").len()
}
