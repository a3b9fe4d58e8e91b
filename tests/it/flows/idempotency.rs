//! A key is a request, for ever: the same answer to the same question, from as many askers as there are.

use std::collections::HashSet;

use sluice::domain::onchain_send::State;
use sluice::flows::bump::{self, BeginBump};
use sluice::flows::send::{self, BeginSend, Begun};
use sluice::flows::{BodyHash, Code, Error, Idempotency};

use crate::harness::rig::{Client, Rig, on_both, stranger, wanted};

fn key(key: &str, body: &str) -> Option<Idempotency> {
    Some(Idempotency { key: key.to_owned(), body_hash: BodyHash::of_bytes(body) })
}

async fn begin(rig: &Rig, client: &Client, name: &str, body: &str, sat: u64) -> Result<Begun, Error> {
    send::begin(&rig.flows, &client.keys, wanted(&stranger(), sat), key(name, body)).await
}

on_both!(the_same_key_is_the_same_request, |rig| async move {
    let client = Client::number(1);
    rig.funded_with(&client, &[100_000, 100_000]).await;
    let first = begin(&rig, &client, "k", "b", 30_000).await.expect("it begins");
    assert_eq!(begin(&rig, &client, "k", "b", 30_000).await.expect("again"), first, "byte for byte");
    let refused = begin(&rig, &client, "k", "other", 40_000).await.expect_err("another body");
    assert_eq!((refused.code(), refused.field_name()), (Code::IdempotencyMismatch, Some("Idempotency-Key")));
    rig.end(&client, &first.psbt).await.expect("it ends");
    assert_eq!(begin(&rig, &client, "k", "b", 30_000).await.expect("after the end"), first);
    rig.mine(1).await;
    rig.wait(100_000).await;
    assert_eq!(begin(&rig, &client, "k", "b", 30_000).await.expect("and for ever"), first);
    assert_ne!(begin(&rig, &client, "l", "b", 30_000).await.expect("another key").request, first.request);
    rig.audit().await;
});

on_both!(sixteen_tasks_race_with_one_key, |rig| async move {
    let client = Client::number(2);
    rig.funded_with(&client, &[100_000; 20]).await;
    let raced = futures::future::join_all((0..16).map(|_| begin(&rig, &client, "k", "b", 30_000))).await;
    let answers: HashSet<String> = raced.into_iter().map(|begun| begun.expect("an answer").psbt).collect();
    assert_eq!(answers.len(), 1);
    // A second gateway on the same database does not share the first one's locks.
    let chain: std::sync::Arc<dyn sluice::ports::chain::ChainBackend> = rig.chain.clone();
    let second = sluice::flows::Flows::new(
        rig.flows.store().clone(),
        chain,
        bitcoin::Network::Regtest,
        rig.flows.policy().clone(),
    );
    let raced = (0..16).map(|n| {
        let flows = if n % 2 == 0 { &rig.flows } else { &second };
        send::begin(flows, &client.keys, wanted(&stranger(), 30_000), key("two", "b"))
    });
    let answers: HashSet<String> =
        futures::future::join_all(raced).await.into_iter().map(|begun| begun.expect("an answer").psbt).collect();
    assert_eq!(answers.len(), 1);
    rig.audit().await;
});

on_both!(a_key_outlives_its_request, |rig| async move {
    let client = Client::number(3);
    rig.funded(&client, 100_000).await;
    let begun = begin(&rig, &client, "k", "b", 30_000).await.expect("it begins");
    rig.clock.advance(std::time::Duration::from_secs(600));
    let refused = begin(&rig, &client, "k", "b", 30_000).await.expect_err("overdue, though nobody has expired it yet");
    assert_eq!(refused.code(), Code::RequestExpired);
    rig.wait(1).await;
    assert_eq!(rig.state(&client, begun.request).await, State::Expired);
    assert_eq!(begin(&rig, &client, "k", "b", 30_000).await.expect_err("expired").code(), Code::RequestExpired);
    // The client broadcasts it: the key answers again.
    rig.offer(&client.signed_tx(&begun.psbt)).await;
    assert_eq!(begin(&rig, &client, "k", "b", 30_000).await.expect("it is out"), begun);
    rig.audit().await;
});

on_both!(keys_belong_to_wallets, |rig| async move {
    let (one, two) = (Client::number(4), Client::number(5));
    rig.funded(&one, 100_000).await;
    rig.funded(&two, 100_000).await;
    let first = begin(&rig, &one, "k", "b", 30_000).await.expect("it begins");
    let second = begin(&rig, &two, "k", "other", 40_000).await.expect("it begins");
    assert_ne!(first.request, second.request);
    rig.audit().await;
});

on_both!(a_failed_begin_uses_no_key_up, |rig| async move {
    let client = Client::number(6);
    let address = rig.register(&client).await;
    assert_eq!(begin(&rig, &client, "k", "b", 30_000).await.expect_err("no money").code(), Code::InsufficientFunds);
    rig.pay_confirmed(&address, 100_000).await;
    begin(&rig, &client, "k", "b", 30_000).await.expect("now there is");
    rig.audit().await;
});

on_both!(a_bump_has_a_key_too, |rig| async move {
    let client = Client::number(7);
    rig.funded(&client, 100_000).await;
    let sent = rig.sent(&client, 30_000).await;
    let ask = |name: &'static str, body: &'static str| {
        let wanted = BeginBump { send: sent.request, fee_rate: 9, cancel: false, expires_in_seconds: None };
        bump::begin(&rig.flows, &client.keys, wanted, key(name, body))
    };
    let first = ask("k", "b").await.expect("it bumps");
    let raced = futures::future::join_all((0..16).map(|_| ask("k", "b"))).await;
    assert!(raced.into_iter().all(|again| again.expect("the same") == first));
    assert_eq!(ask("k", "other").await.expect_err("another body").code(), Code::IdempotencyMismatch);
    rig.end_bump(&client, &first).await.expect("it ends");
    assert_eq!(ask("k", "b").await.expect("after the end"), first);
    rig.mine(1).await;
    rig.audit().await;
});

on_both!(an_unknown_field_of_time_is_named, |rig| async move {
    let client = Client::number(8);
    rig.funded(&client, 100_000).await;
    for seconds in [0, 59, 7 * 24 * 3_600 + 1] {
        let asked = BeginSend { expires_in_seconds: Some(seconds), ..wanted(&stranger(), 30_000) };
        let refused = rig.begin_with(&client, asked).await.expect_err("out of bounds");
        assert_eq!((refused.code(), refused.field_name()), (Code::InvalidRequest, Some("expires_in_seconds")));
    }
    let asked = BeginSend { expires_in_seconds: Some(3_600), ..wanted(&stranger(), 30_000) };
    let begun = rig.begin_with(&client, asked).await.expect("an hour");
    rig.wait(3_599).await;
    rig.end(&client, &begun.psbt).await.expect("in time");
    rig.audit().await;
});
