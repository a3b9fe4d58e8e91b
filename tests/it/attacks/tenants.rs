//! A tenant who has a key of his own and takes more than his share.

use std::sync::Arc;

use async_trait::async_trait;
use sluice::flows::keys::{self, NewKey, Scope};
use sluice::flows::{Code, Policy, register, send};
use sluice::ids::KeyId;
use sluice::store::{StoreError, Tx, Write, wallets};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::harness::client::Call;
use crate::harness::gateway::Gateway;
use crate::harness::rig::{Client, Rig, on_both, policy, stranger, wanted};

/// More than one search of the chain serves.
const MANY: u32 = 60;
const SEARCHED_AT_ONCE: u32 = 50;
/// Calls of one wallet at the same time, and how many of them may wait.
const CALLS: usize = 200;
const WAIT_AT_MOST: usize = 64;

async fn key(rig: &Rig) -> KeyId {
    let wanted =
        NewKey { name: "a tenant's".to_owned(), scopes: vec![Scope::Register], wallets: vec![], expires_at: None };
    keys::create(&rig.flows, wanted).await.expect("a key can be made").0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_registers_wallets_without_end() {
    let limits = [
        "auth.mode=key",
        "http.limits.enabled=true",
        "http.limits.registrations_per_key_per_minute=3",
        "http.limits.registrations_per_minute=5",
    ];
    let (gateway, _chain) = Gateway::start_fake(&limits).await;
    let greedy = gateway.key(&[Scope::Register], &[]).await;
    let register = async |number: u32, key: &str| {
        gateway.caller(number).with_key(key).call(Call::post_empty("/wallet/register")).await
    };
    for number in 1..=3 {
        register(number, &greedy).await.ok();
    }
    // What the search for their coins writes comes by itself.
    let stored = async || {
        let counts = gateway.row_counts().await;
        counts.into_iter().filter(|(table, _)| ["wallets", "scripts", "requests"].contains(table)).collect::<Vec<_>>()
    };
    let before = stored().await;
    for number in 4..=12 {
        let refused = register(number, &greedy).await;
        refused.refused(429, "rate_limited");
        assert!(refused.header("retry-after").is_some());
    }
    assert_eq!(stored().await, before);
    register(1, &greedy).await.ok();
    let honest = gateway.key(&[Scope::Register], &[]).await;
    register(13, &honest).await.ok();
    register(14, &honest).await.ok();
    // Five in all.
    register(15, &honest).await.refused(429, "rate_limited");
    gateway.stop().await;
}

on_both!(a_tenant_fills_the_database_with_wallets, Policy { max_wallets_per_key: 3, ..policy() }, |rig| async move {
    let greedy = key(&rig).await;
    let register = async |number: u32, key: &KeyId| {
        register::register(&rig.flows, &Client::number(number).keys, Some(key.clone())).await.map(drop)
    };
    for number in 1..=3 {
        register(number, &greedy).await.expect("a tenant may have three");
    }
    let refused = register(4, &greedy).await.unwrap_err();
    assert_eq!(refused.code(), Code::TooManyWallets);
    register(3, &greedy).await.expect("what is registered is answered again");
    register(4, &key(&rig).await).await.expect("the key was refused, not the wallet");
    rig.release(&Client::number(1)).await;
    register(5, &greedy).await.expect("a released wallet makes room");
    rig.audit().await;
});

on_both!(
    a_tenant_has_the_chain_searched_for_thousands_of_wallets_first,
    Policy { lookahead: 5, ..policy() },
    |rig| async move {
        let greedy = key(&rig).await;
        for number in 1..=MANY {
            register::register(&rig.flows, &Client::number(number).keys, Some(greedy.clone()))
                .await
                .expect("it registers");
        }
        let honest = Client::number(MANY + 1);
        register::register(&rig.flows, &honest.keys, Some(key(&rig).await)).await.expect("it registers");
        let mut conn = rig.flows.store().read().await.expect("a connection");
        let next = wallets::to_scan(&mut conn, SEARCHED_AT_ONCE).await.expect("they can be listed");
        drop(conn);
        assert_eq!(next.len(), SEARCHED_AT_ONCE as usize);
        assert!(next.iter().any(|wallet| wallet.id == honest.keys.id()), "it waits for all the wallets of another key");
        rig.settle().await;
        rig.audit().await;
    }
);

/// Keeps everybody who writes waiting.
struct Hold(Arc<Notify>);

#[async_trait]
impl Write for Hold {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, _tx: &mut Tx<'_>) -> Result<(), StoreError> {
        self.0.notified().await;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_piles_up_calls_that_wait_for_one_wallet() {
    let rig = Rig::sqlite().await;
    let (busy, calm) = (Client::number(1), Client::number(2));
    rig.funded(&busy, 500_000).await;
    rig.funded(&calm, 500_000).await;
    let release = Arc::new(Notify::new());
    let held = tokio::spawn({
        let (store, release) = (rig.flows.store().clone(), Arc::clone(&release));
        async move { store.write(Hold(release)).await }
    });
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let (flows, keys, wanted) = (rig.flows.clone(), busy.keys.clone(), wanted(&stranger(), 20_000));
        calls.spawn(async move { send::begin(&flows, &keys, wanted, None).await.map(drop) });
    }
    // Those that are answered while nobody can write did not wait.
    for _ in 0..CALLS - WAIT_AT_MOST {
        let refused = calls.join_next().await.expect("a call").expect("no panic").unwrap_err();
        assert_eq!(refused.code(), Code::RateLimited);
    }
    release.notify_one();
    held.await.expect("no panic").expect("it is written");
    while let Some(call) = calls.join_next().await {
        // One has the coin; the others are told so.
        let call = call.expect("no panic").map_err(|error| error.code());
        assert!(matches!(call, Ok(()) | Err(Code::CoinsLeased | Code::InsufficientFunds)), "{call:?}");
    }
    rig.begin(&calm, &stranger(), 20_000).await.expect("another wallet is not held up");
    rig.audit().await;
}
