//! Events are read in one order, without gaps, while many write them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sluice::domain::Fact;
use sluice::domain::event::payloads::{Nothing, WalletScanned};
use sluice::ids::WalletId;
use sluice::store::events::{self, NumberEvents};
use sluice::store::owners::{Acquire, LEASE, Ownership, Role};
use sluice::store::{Engine, Store, StoreError};

use super::{Db, Open, on_both};

const WRITERS: i64 = 32;
const EACH: i64 = 4;
const ALL: i64 = WRITERS * EACH * 2;
/// A page smaller than the whole, so that readers turn many.
const PAGE: u32 = 50;

on_both!(a_reader_sees_every_event_once_and_in_order, a_request_tells_its_story_in_order);

async fn a_reader_sees_every_event_once_and_in_order(db: Db) {
    let wallet = db.wallet(1).await;
    let stop = Arc::new(AtomicBool::new(false));
    let sequencer = (db.store.engine() == Engine::Postgres)
        .then(|| tokio::spawn(number_until(db.store.clone(), "first", Arc::clone(&stop))));
    let reader = tokio::spawn(read_all(db.store.clone(), wallet.clone()));
    let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(write_some(db.store.clone(), wallet.clone()))).collect();
    if let Some(first) = sequencer {
        // The owner's time is over in the middle of it, and another gateway goes on.
        let other = db.second_store().await;
        let numbered = "SELECT COUNT(*) FROM event_order";
        super::until("the first sequencer numbers", || async { db.count(numbered).await > 0 }).await;
        let second = take_over(&db, &other).await;
        let second = tokio::spawn(number_as(other, second, Arc::clone(&stop)));
        assert!(first.await.expect("no panic"), "the first sequencer was told that it is none");
        finish(writers, reader).await;
        stop.store(true, Ordering::SeqCst);
        assert!(!second.await.expect("no panic"), "nobody took over from the second");
    } else {
        finish(writers, reader).await;
    }
    assert_eq!(db.count("SELECT COUNT(*) FROM events_unnumbered").await, 0);
    db.audit().await;
}

async fn finish(writers: Vec<tokio::task::JoinHandle<()>>, reader: tokio::task::JoinHandle<()>) {
    for writer in writers {
        writer.await.expect("no writer panics");
    }
    tokio::time::timeout(super::DEADLINE, reader).await.expect("all of them become readable").expect("in order");
}

async fn write_some(store: Store, wallet: WalletId) {
    for number in 0..EACH {
        let told = |part: u32| {
            Fact::WalletScanned(WalletScanned { coins: usize::try_from(number).expect("a number"), height: part })
        };
        let open = Open { events: vec![told(0), told(1)], ..Open::new(&wallet) };
        store.write(open).await.expect("it is written");
    }
}

/// Follows the log as a client would: what comes next has the next number.
async fn read_all(store: Store, wallet: WalletId) {
    let mut last = 0;
    while last < ALL {
        let mut conn = store.read().await.expect("a connection");
        let page = events::after(&mut conn, &wallet, last, PAGE).await.expect("a page");
        drop(conn);
        for event in &page {
            assert_eq!(event.seq, Some(last + 1), "a number was skipped, or appeared later");
            last += 1;
        }
        if page.is_empty() {
            tokio::time::sleep(super::POLL).await;
        }
    }
}

async fn acquire(store: &Store, holder: &str) -> Option<Ownership> {
    let acquire = Acquire { role: Role::Sequencer, holder: holder.to_owned() };
    store.write(acquire).await.expect("the database answers")
}

async fn number_until(store: Store, holder: &'static str, stop: Arc<AtomicBool>) -> bool {
    let owner = acquire(&store, holder).await.expect("nobody has it");
    number_as(store, owner, stop).await
}

/// Numbers until it is told to stop; answers whether it was fenced.
async fn number_as(store: Store, owner: Ownership, stop: Arc<AtomicBool>) -> bool {
    while !stop.load(Ordering::SeqCst) {
        match store.write(NumberEvents { owner: owner.clone() }).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(StoreError::Fenced { .. }) => return true,
            Err(error) => panic!("{error}"),
        }
    }
    false
}

/// The first owner renews whenever it writes: time has to pass it by.
async fn take_over(db: &Db, other: &Store) -> Ownership {
    loop {
        db.lapse(LEASE * 2).await;
        if let Some(owner) = acquire(other, "second").await {
            return owner;
        }
    }
}

async fn a_request_tells_its_story_in_order(db: Db) {
    let wallet = db.wallet(1).await;
    let story = [
        Fact::WithdrawalRequested(Nothing {}),
        Fact::WithdrawalCancelled(Nothing {}),
        Fact::SendExpired(Nothing {}),
        Fact::WithdrawalExpired(Nothing {}),
        Fact::PaymentExpired(Nothing {}),
        Fact::WalletRegistered(Nothing {}),
    ];
    let kinds: Vec<&str> = story.iter().map(Fact::kind).collect();
    let open = Open { events: story.to_vec(), ..Open::new(&wallet) };
    let id = open.id;
    db.store.write(open).await.expect("it is written");
    let mut conn = db.store.read().await.expect("a connection");
    let told = events::timeline(&mut conn, id).await.expect("a timeline");
    assert_eq!(told.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), kinds);
}
