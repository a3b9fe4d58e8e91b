//! A gateway that is asked to stop finishes what it was asked to do before, and gives its roles back.

use std::time::{Duration, Instant};

use super::{begin, end, fund, say};
use crate::harness::bitcoind::Bitcoind;
use crate::harness::process::{Call, DEADLINE, Gateway, POLL, Site};
use crate::harness::rig::{Client, Database};

/// Far below the lease, which is what a take-over from a dead process costs.
const AT_ONCE: Duration = Duration::from_secs(6);

/// An `end` waits for a node that does not answer; the gateway is asked to stop meanwhile.
async fn in_flight(database: Database) {
    let Some(node) = Bitcoind::start().await else { return };
    let Some(site) = Site::new(database, &node).await else { return };
    let gateway = Gateway::start(&site).await;
    let client = Client::number(1);
    fund(&gateway, &node, &client, 1, 100_000).await;
    let begun = gateway.answer(&begin(&client, "send", 50_000)).await;
    let id = begun.request_id.clone().expect("a request id");
    let ending = end(&client, begun.ok().as_str().expect("a PSBT"));
    node.freeze();
    let called = gateway.call(&ending);
    let stopped = async {
        let send = Call::get(format!("/onchain-send/{id}"), &client);
        gateway.until("the end is committed", &send, |answer| answer.body["state"] == "broadcast").await;
        gateway.terminate().await
    };
    let (answer, (status, took)) = tokio::join!(called, stopped);
    node.thaw();
    let answer = answer.unwrap_or_else(|error| panic!("the call in flight was cut: {error}\n{}", gateway.log()));
    assert_eq!(answer.text("status"), "BROADCASTED");
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
    assert!(took < Duration::from_secs(12), "it took {took:?} to stop\n{}", gateway.log());
    say(&format!("SIGTERM on {database:?} with a call in flight and a frozen node: stopped in {took:.1?}"));
    assert_eq!(site.audit().await, 0);
    // What it promised goes out at the next start.
    gateway.restart(None).await;
    let begun = Instant::now();
    while node.try_rpc("getmempoolentry", serde_json::json!([answer.text("txid")])).await.is_err() {
        assert!(begun.elapsed() < DEADLINE, "the send does not go out\n{}", gateway.log());
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test]
async fn calls_in_flight_are_answered_sqlite() {
    in_flight(Database::Sqlite).await;
}

#[tokio::test]
async fn calls_in_flight_are_answered_postgres() {
    in_flight(Database::Postgres).await;
}

/// Callers hammer a gateway that stops: each is answered, or was never let in.
#[tokio::test]
async fn nobody_who_was_let_in_is_cut_off() {
    let Some(node) = Bitcoind::start().await else { return };
    let site = Site::at(None, &node);
    let gateway = Gateway::start(&site).await;
    let client = Client::number(1);
    fund(&gateway, &node, &client, 1, 100_000).await;
    let caller = |number: u32| {
        let (gateway, client) = (&gateway, &client);
        async move {
            let mut answered = 0u32;
            loop {
                let call = Call::post("/lightning/onchain-receive", client).key(format!("{number}-{answered}"));
                match gateway.call(&call).await {
                    Ok(answer) if answer.is_ok() => answered += 1,
                    Ok(answer) => panic!("a stopping gateway answers {answer:?}"),
                    // Refused, or reset before it was accepted: the first call of all that failed ends the caller.
                    Err(_) => return answered,
                }
            }
        }
    };
    let callers = futures::future::join_all((0..8).map(caller));
    let stop = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        gateway.terminate().await
    };
    let (answered, (status, took)) = tokio::join!(callers, stop);
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
    assert!(took < AT_ONCE, "it took {took:?} to stop\n{}", gateway.log());
    let log = gateway.whole_log();
    let done = u32::try_from(log.matches("\"/lightning/onchain-receive\"").count()).expect("a small number");
    let received: u32 = answered.iter().sum::<u32>() + 1;
    assert_eq!(done, received, "calls that were done and never answered");
    assert_eq!(site.audit().await, 0);
    say(&format!("SIGTERM under load: {received} calls answered, stopped in {took:.1?}"));
}

#[tokio::test]
async fn the_next_gateway_takes_the_roles_at_once() {
    let Some(node) = Bitcoind::start().await else { return };
    let Some(site) = Site::new(Database::Postgres, &node).await else { return };
    let first = Gateway::start(&site).await;
    first.wait_synced(&node).await;
    let second = Gateway::start(&site).await;
    second.wait_ready().await;
    assert!(!second.whole_log().contains("this process holds the role"), "{}", second.log());
    let begun = Instant::now();
    let (status, took) = first.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", first.log());
    node.mine(1).await;
    second.wait_synced(&node).await;
    assert!(begun.elapsed() < AT_ONCE, "the roles were not given back: {:?}\n{}", begun.elapsed(), second.log());
    say(&format!("SIGTERM of the owner: stopped in {took:.1?}, the other follows {:.1?} after", begun.elapsed()));
}
