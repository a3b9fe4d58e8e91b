//! Lists that are read while they grow, and things that are handed out once.

use std::collections::BTreeSet;
use std::time::Duration;

use bitcoin::OutPoint;
use sluice::domain::address::ReceiveAddress;
use sluice::domain::wallet::Account;
use sluice::ids::{RequestId, WalletId};
use sluice::store::idempotency::{self, BodyHash, Remembered};
use sluice::store::requests::{self, Filter, PageAfter};
use sluice::store::wallets::{self, Purpose};
use sluice::store::{PAGE_MAX, StoreError, leases};

use super::{Db, Open, on_both, work};
use crate::harness::rig::Client;

on_both!(
    a_list_does_not_move_under_its_reader,
    filters_and_cursors_agree,
    a_page_is_never_larger_than_the_cap,
    an_idempotency_key_is_taken_once,
    a_coin_is_leased_once,
    every_index_is_issued_once_and_none_is_skipped,
);

async fn page(
    db: &Db,
    wallet: &WalletId,
    filter: &Filter,
    after: Option<PageAfter>,
    limit: u32,
) -> Vec<(PageAfter, RequestId)> {
    let mut conn = db.store.read().await.expect("a connection");
    let page = requests::page::<ReceiveAddress>(&mut conn, wallet, filter, after, limit).await.expect("a page");
    page.into_iter().map(|r| (PageAfter { created_at: r.created_at, id: r.id }, r.id)).collect()
}

/// Reads to the end, and writes another request between any two pages.
async fn a_list_does_not_move_under_its_reader(db: Db) {
    let wallet = db.wallet(1).await;
    let mut written = Vec::new();
    for number in 0..23 {
        // Some of the same moment: their ids decide.
        if number % 3 == 0 {
            db.clock.advance(Duration::from_millis(1));
        }
        written.push(db.request(&wallet).await);
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let next = page(&db, &wallet, &Filter::default(), after, 5).await;
        let Some((last, _)) = next.last() else { break };
        after = Some(*last);
        seen.extend(next.iter().map(|(_, id)| *id));
        db.clock.advance(Duration::from_millis(1));
        db.request(&wallet).await;
    }
    assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>().len(), seen.len(), "none comes twice");
    assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>(), written.into_iter().collect(), "none is missing");
    db.audit().await;
}

async fn filters_and_cursors_agree(db: Db) {
    let wallet = db.wallet(1).await;
    let mut made = Vec::new();
    for _ in 0..10 {
        made.push((db.clock.now(), db.request(&wallet).await));
        db.clock.advance(Duration::from_millis(10));
    }
    let other = db.wallet(2).await;
    db.request(&other).await;
    let ids = |range: std::ops::Range<usize>| made[range].iter().rev().map(|(_, id)| *id).collect::<Vec<_>>();
    let cursor = |n: usize| Some(PageAfter { created_at: made[n].0, id: made[n].1 });
    let within = Filter { since: Some(made[2].0), until: Some(made[7].0), ..Filter::default() };
    let listed =
        async |after| page(&db, &wallet, &within, after, 50).await.into_iter().map(|(_, id)| id).collect::<Vec<_>>();
    assert_eq!(listed(None).await, ids(2..7), "since is in it, until is not");
    assert_eq!(listed(cursor(5)).await, ids(2..5));
    assert_eq!(listed(cursor(9)).await, ids(2..7), "a cursor later than the filter adds nothing");
    assert_eq!(listed(cursor(1)).await, [], "a cursor earlier than the filter finds nothing");
    let used = Filter { state: Some("used".to_owned()), ..Filter::default() };
    assert_eq!(page(&db, &wallet, &used, None, 50).await, []);
}

async fn a_page_is_never_larger_than_the_cap(db: Db) {
    let wallet = db.wallet(1).await;
    let writes = (0..=PAGE_MAX).map(|_| db.store.write(Open::new(&wallet)));
    for written in futures::future::join_all(writes).await {
        written.expect("a request is written");
    }
    let all = page(&db, &wallet, &Filter::default(), None, u32::MAX).await;
    assert_eq!(all.len(), PAGE_MAX as usize);
}

async fn an_idempotency_key_is_taken_once(db: Db) {
    let wallet = db.wallet(1).await;
    let key = RequestId::from_idempotency_key(&wallet, "the caller's word");
    let remember = |request: RequestId| {
        let wallet = wallet.clone();
        work(move |tx| {
            let wallet = wallet.clone();
            Box::pin(async move {
                if let Some(known) = idempotency::find(tx.conn(), key).await? {
                    return Ok(known.request);
                }
                let what = Remembered { body_hash: BodyHash::of_bytes("hash"), request, unsigned_txid: None };
                idempotency::remember(tx, key, &wallet, &what).await?;
                Ok(request)
            })
        })
    };
    let mut requests = Vec::new();
    for _ in 0..16 {
        requests.push(db.request(&wallet).await);
    }
    let answers = futures::future::join_all(requests.iter().map(|request| db.store.write(remember(*request)))).await;
    let answers: BTreeSet<RequestId> = answers.into_iter().map(|answer| answer.expect("the same answer")).collect();
    assert_eq!(answers.len(), 1, "whoever was first answers for all");
    db.audit().await;
}

async fn a_coin_is_leased_once(db: Db) {
    let wallet = db.wallet(1).await;
    let coin = |number: u32| OutPoint { vout: number, ..OutPoint::null() };
    let take = |request: RequestId, coins: Vec<OutPoint>| {
        let wallet = wallet.clone();
        db.store.write(work(move |tx| {
            let (wallet, coins) = (wallet.clone(), coins.clone());
            Box::pin(async move { leases::take(tx, request, &wallet, &coins).await })
        }))
    };
    let (one, two) = (db.request(&wallet).await, db.request(&wallet).await);
    take(one, vec![coin(1), coin(2)]).await.expect("both are free");
    let refused = take(two, vec![coin(3), coin(2)]).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    let mut conn = db.store.read().await.expect("a connection");
    assert_eq!(leases::holder(&mut conn, &coin(2)).await.expect("it answers"), Some(one));
    assert_eq!(leases::holder(&mut conn, &coin(3)).await.expect("it answers"), None, "all of them or none");
}

/// Issues the next index of a wallet as a flow does.
async fn issue(db: &Db, wallet: WalletId) -> u32 {
    let request = RequestId::fresh();
    let issue = work(move |tx| {
        let wallet = wallet.clone();
        Box::pin(async move {
            let index = wallets::keychain(tx.conn(), &wallet, Account::Vanilla).await?.next_index;
            wallets::issue_index(tx, &wallet, Account::Vanilla, index, Purpose::Receive, request).await?;
            Ok(index)
        })
    });
    db.store.write(issue).await.expect("everybody gets one")
}

async fn every_index_is_issued_once_and_none_is_skipped(db: Db) {
    const CLIENTS: u32 = 64;
    let client = Client::number(1);
    let keys = client.keys.clone();
    let register = work(move |tx| {
        let keys = keys.clone();
        Box::pin(async move {
            wallets::insert(tx, &keys).await?;
            let scripts = keys.scripts(Account::Vanilla, 0..CLIENTS + 1);
            wallets::add_scripts(tx, &keys.id(), Account::Vanilla, &scripts).await
        })
    });
    db.store.write(register).await.expect("the wallet is written");
    let issued = futures::future::join_all((0..CLIENTS).map(|_| issue(&db, client.keys.id()))).await;
    assert_eq!(issued.into_iter().collect::<BTreeSet<_>>(), (0..CLIENTS).collect());
    assert_eq!(
        db.count("SELECT COUNT(DISTINCT request_id) FROM scripts WHERE purpose = 'receive'").await,
        i64::from(CLIENTS)
    );
}
