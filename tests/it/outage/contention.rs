//! Calls and workers that write the same rows at the same time, on a server that lets them.

use serde_json::{Value, json};
use sluice::money::Sat;
use sqlx::{Connection, Row};

use crate::harness::bitcoind::Bitcoind;
use crate::harness::client::Caller;
use crate::harness::gateway::{Gateway, eventually};
use crate::harness::rig::{Database, parse_address, stranger};

/// How many blocks there are between the sends of each wallet.
const BLOCKS: u32 = 3;
/// How often each wallet sends and replaces before a block: bitcoind takes no longer chains of transactions than 25.
const UNTIL_MINED: u32 = 10;

/// Begins and ends a call of a send; answers what the end says.
async fn begin_and_end(owner: &Caller, begin: &str, end: &str, wanted: Value) -> Value {
    let begun = owner.post(begin, wanted).await.ok();
    owner.post(end, json!({ "signed_psbt": owner.sign(&begun) })).await.ok()
}

/// Sends from what the send before has left, and replaces each send while the follower takes in what it sees of them.
async fn sends_and_replaces(owner: &Caller) {
    let to = stranger().to_string();
    for _ in 0..UNTIL_MINED {
        let wanted = json!({ "address_or_rgbinvoice": to, "amount_sats": 1_000, "fee_rate": 2 });
        let (begin, end) = ("/lightning/onchain-send-begin", "/lightning/onchain-send-end");
        let sent = begin_and_end(owner, begin, end, wanted).await;
        let bump = |what: &str| format!("/onchain-send/{}/bump-{what}", sent["send_id"].as_str().expect("an id"));
        let bumped = begin_and_end(owner, &bump("begin"), &bump("end"), json!({ "fee_rate": 4 })).await;
        assert_eq!(bumped["status"], "BROADCASTED", "{bumped}");
    }
}

/// What a server has counted on a database once nobody else is connected: a connection tells what it has counted when it ends.
async fn deadlocks(url: &str) -> i64 {
    let conn = sqlx::PgConnection::connect(url).await.expect("the server answers");
    let conn = tokio::sync::Mutex::new(conn);
    let ask = async |sql: &'static str| -> i64 {
        sqlx::query(sql).fetch_one(&mut *conn.lock().await).await.expect("the server answers").get(0)
    };
    eventually("nobody else is connected", async || {
        let others =
            ask("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()");
        (others.await == 0).then_some(())
    })
    .await;
    ask("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_that_are_replaced_while_the_follower_looks_never_lock_each_other() {
    let Some(node) = Bitcoind::start().await else { return };
    let Some(gateway) = Gateway::start(&node, Database::Postgres, &["chain.poll_ms=5"]).await else { return };
    let owners = [gateway.registered(1).await, gateway.registered(2).await];
    for owner in &owners {
        let address = owner.post_empty("/lightning/onchain-receive").await.ok();
        let address = parse_address(address["btc_address"].as_str().expect("an address"));
        node.pay(&address, Sat::literal(1_000_000)).await;
    }
    node.mine(1).await;
    for owner in &owners {
        eventually("the money is there", async || {
            let balance = owner.post_empty("/wallet/btcbalance").await.ok();
            (balance["vanilla"]["settled"] == 1_000_000).then_some(())
        })
        .await;
    }
    let url = gateway.config.store.url.expose().to_owned();
    for _ in 0..BLOCKS {
        tokio::join!(sends_and_replaces(&owners[0]), sends_and_replaces(&owners[1]));
        node.mine(1).await;
        gateway.at_tip().await;
    }
    gateway.stop().await;
    assert_eq!(deadlocks(&url).await, 0, "transactions waited for each other until the server gave one up");
}
