//! The one door: a transition is written whole, once, and only on the state that it was decided on.

use async_trait::async_trait;
use sluice::domain::address::{Event, ReceiveAddress};
use sluice::domain::event::payloads::Nothing;
use sluice::domain::{Fact, Machine, Request, Transition};
use sluice::ids::RequestId;
use sluice::ledger::{Account, Kind, Posting, PostingId};
use sluice::money::{Amount, Money};
use sluice::store::{Retryable, StoreError, Tx, Write, apply};

use super::{Db, Open, Posts, on_both};

on_both!(
    a_stale_decision_is_refused,
    a_repeated_event_writes_nothing,
    an_id_is_taken_once,
    a_refused_posting_takes_the_whole_transition_back,
    a_transition_posts_for_its_own_request_only,
    many_writers_of_one_request_all_get_through,
);

/// Writes a decision that was made on a state seen earlier. Its conflicts are not run again, so that the test sees them.
struct Decided {
    before: Request<ReceiveAddress>,
    event: Event,
}

#[derive(Debug)]
struct Once(StoreError);

impl From<StoreError> for Once {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

impl Retryable for Once {
    fn is_retryable(&self) -> bool {
        false
    }
}

#[async_trait]
impl Write for Decided {
    type Output = Request<ReceiveAddress>;
    type Error = Once;
    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Output, Once> {
        let transition = self.before.machine.apply(&self.event, tx.now()).map_err(StoreError::from)?;
        Ok(apply::apply(tx, self.before.clone(), transition).await?)
    }
}

async fn a_stale_decision_is_refused(db: Db) {
    let wallet = db.wallet(1).await;
    let seen = db.store.write(Open::new(&wallet)).await.expect("it opens");
    let decided = |event| Decided { before: seen.clone(), event };
    let paid = Event::Paid { outpoint: bitcoin::OutPoint::null() };
    let first = db.store.write(decided(paid)).await.expect("the first one counts");
    assert_eq!((first.version, first.machine.state()), (2, "used"));
    let stale = db.store.write(decided(Event::TimedOut)).await.expect_err("the state has changed");
    assert!(matches!(stale.0, StoreError::Conflict(_)), "{stale:?}");
    assert_eq!(db.count("SELECT COUNT(*) FROM requests WHERE state = 'used' AND version = 2").await, 1);
    assert_eq!(db.count("SELECT COUNT(*) FROM events").await, 1);
    db.audit().await;
}

async fn a_repeated_event_writes_nothing(db: Db) {
    let wallet = db.wallet(1).await;
    let seen = db.store.write(Open::new(&wallet)).await.expect("it opens");
    let once = db.store.write(Decided { before: seen, event: Event::TimedOut }).await.expect("it expires");
    let twice = db.store.write(Decided { before: once.clone(), event: Event::TimedOut }).await.expect("no error");
    assert_eq!(once, twice);
    assert_eq!(db.count("SELECT version FROM requests").await, 2);
    assert_eq!(db.count("SELECT COUNT(*) FROM events").await, 1);
    db.audit().await;
}

async fn an_id_is_taken_once(db: Db) {
    let wallet = db.wallet(1).await;
    let open = Open { events: vec![Fact::WalletRegistered(Nothing {})], ..Open::new(&wallet) };
    db.store.write(open.clone()).await.expect("it opens");
    let again = db.store.write(open).await.expect_err("it is there");
    assert!(matches!(again, StoreError::Conflict(_)), "{again}");
    assert_eq!(db.count("SELECT COUNT(*) FROM events").await, 1);
    db.audit().await;
}

fn post(request: RequestId, step: &str, debit: Account, credit: Account) -> Posting {
    let money = Money::btc(Amount::from_msat(7).expect("a small amount"));
    Posting { id: PostingId::of(request, step), request, debit, credit, money, kind: Kind::Post }
}

async fn a_refused_posting_takes_the_whole_transition_back(db: Db) {
    let wallet = db.wallet(1).await;
    let request = db.request(&wallet).await;
    let covered = post(request, "covered", Account::Capital, Account::Suspense);
    let not_covered = post(request, "not", Account::Wallet(wallet), Account::Suspense);
    let refused = db.store.write(Posts { request, postings: vec![covered, not_covered] }).await;
    assert!(matches!(refused, Err(StoreError::Ledger(_))), "{refused:?}");
    assert_eq!(db.count("SELECT version FROM requests").await, 1);
    assert_eq!(db.count("SELECT COUNT(*) FROM postings").await, 0);
    assert_eq!(db.count("SELECT COUNT(*) FROM balances WHERE total <> 0").await, 0);
    db.audit().await;
}

async fn a_transition_posts_for_its_own_request_only(db: Db) {
    let wallet = db.wallet(1).await;
    let (request, other) = (db.request(&wallet).await, db.request(&wallet).await);
    let foreign = post(other, "foreign", Account::Capital, Account::Suspense);
    let refused = db.store.write(Posts { request, postings: vec![foreign] }).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
    assert_eq!(db.count("SELECT COUNT(*) FROM postings").await, 0);
    db.audit().await;
}

/// Says something about a request without changing its state.
struct Note(RequestId);

#[async_trait]
impl Write for Note {
    type Output = ();
    type Error = StoreError;
    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let before = sluice::store::requests::load::<ReceiveAddress>(tx.conn(), self.0).await?.expect("it is there");
        let same = Transition::to(before.machine.clone()).event(Fact::WalletRegistered(Nothing {}));
        apply::apply(tx, before, same).await?;
        Ok(())
    }
}

async fn many_writers_of_one_request_all_get_through(db: Db) {
    const WRITERS: i64 = 16;
    let wallet = db.wallet(1).await;
    let request = db.request(&wallet).await;
    let writers = (0..WRITERS).map(|_| db.store.write(Note(request)));
    for written in futures::future::join_all(writers).await {
        written.expect("a lost race is run again");
    }
    assert_eq!(db.count("SELECT version FROM requests").await, 1 + WRITERS);
    assert_eq!(db.count("SELECT COUNT(*) FROM events").await, WRITERS);
    db.audit().await;
}
