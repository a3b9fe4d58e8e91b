//! What the store promises, on both databases, and what each of them has to survive.

mod append;
mod commits;
mod events;
mod faults;
mod ledger;
mod lists;
mod migrations;
mod owners;
mod proxy;
mod transitions;

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use sluice::clock::{Clock, Timestamp};
use sluice::domain::address::{ReceiveAddress, State};
use sluice::domain::{Fact, Request, Transition};
use sluice::ids::{RequestId, WalletId};
use sluice::ledger::Posting;
use sluice::secret::Secret;
use sluice::store::audit::{self, RULES};
use sluice::store::{Config, Engine, Store, StoreError, Tx, Write, apply, requests};

use crate::harness::postgres as server;

/// Something that must happen has until then. Nothing waits that long when all is well.
const DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// Runs stories on both databases.
macro_rules! on_both {
    ($($story:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story($crate::conformance::store::Db::sqlite().await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                if let Some(db) = $crate::conformance::store::Db::postgres().await {
                    super::$story(db).await;
                }
            })*
        }
    };
}
use on_both;

/// A store of one test's own.
struct Db {
    store: Store,
    config: Config,
    clock: Clock,
    _folder: Option<tempfile::TempDir>,
}

impl Db {
    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite:{}", folder.path().join("sluice.db").display());
        Self::at(url, Some(folder)).await
    }

    async fn postgres() -> Option<Self> {
        Some(Self::at(server::database().await?, None).await)
    }

    async fn at(url: String, folder: Option<tempfile::TempDir>) -> Self {
        let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        let config = Config { url: Secret::new(url), ..Config::default() };
        let store = Store::open(&config, clock.clone()).await.expect("the store opens");
        Self { store, config, clock, _folder: folder }
    }

    /// Another gateway on the same PostgreSQL.
    async fn second_store(&self) -> Store {
        Store::open(&self.config, self.clock.clone()).await.expect("PostgreSQL takes more than one")
    }

    /// Every lease is so much older. On PostgreSQL it is the server's clock that they are judged by.
    async fn lapse(&self, span: Duration) {
        self.clock.advance(span);
        if self.store.engine() == Engine::Postgres {
            let millis = span.as_millis();
            self.sql(&format!("UPDATE owners SET leased_until = leased_until - {millis}"))
                .await
                .expect("it is written");
        }
    }

    /// A wallet's row, without the keys that a real one has.
    async fn wallet(&self, number: u32) -> WalletId {
        let id = WalletId::of_triple("van", "col", &number.to_string());
        self.sql(&format!(
            "INSERT INTO wallets (id, xpub_van, xpub_col, fingerprint, created_at) VALUES ('{id}', 'van{number}', 'col', 'f', 0)"
        ))
        .await
        .expect("a wallet is written");
        id
    }

    /// A request of a wallet that has done nothing yet.
    async fn request(&self, wallet: &WalletId) -> RequestId {
        let open = Open::new(wallet);
        let id = open.id;
        self.store.write(open).await.expect("a request is written");
        id
    }

    /// One statement, committed.
    async fn sql(&self, statement: &str) -> Result<u64, StoreError> {
        sql(&self.store, statement).await
    }

    async fn count(&self, query: &str) -> i64 {
        count(&self.store, query).await.expect("the database answers")
    }

    /// Every test ends here: no rule of the audit is broken.
    async fn audit(&self) {
        let mut conn = self.store.read().await.expect("a connection");
        for rule in RULES {
            let (_, broken) = audit::check(&mut conn, rule).await.expect("a rule can be checked");
            assert_eq!(broken, [], "{} is broken", rule.name);
        }
    }
}

async fn sql(store: &Store, statement: &str) -> Result<u64, StoreError> {
    let statement = statement.to_owned();
    store
        .write(work(move |tx| {
            let statement = statement.clone();
            Box::pin(async move { execute(tx, &statement).await })
        }))
        .await
}

async fn execute(tx: &mut Tx<'_>, statement: &str) -> Result<u64, StoreError> {
    Ok(sqlx::query(sqlx::AssertSqlSafe(statement)).execute(tx.conn()).await?.rows_affected())
}

async fn count(store: &Store, query: &str) -> Result<i64, StoreError> {
    let mut conn = store.read().await?;
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&mut *conn).await?)
}

/// A write made of a closure.
struct Work<F>(F);

fn work<T, F>(run: F) -> Work<F>
where
    F: for<'a, 'c> Fn(&'a mut Tx<'c>) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync + 'static,
{
    Work(run)
}

#[async_trait]
impl<T, F> Write for Work<F>
where
    T: Send + 'static,
    F: for<'a, 'c> Fn(&'a mut Tx<'c>) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync + 'static,
{
    type Output = T;
    type Error = StoreError;
    async fn run(&self, tx: &mut Tx<'_>) -> Result<T, StoreError> {
        (self.0)(tx).await
    }
}

/// A request is written for the first time, and its first transition posts and tells.
#[derive(Clone)]
struct Open {
    id: RequestId,
    wallet: WalletId,
    postings: Vec<Posting>,
    events: Vec<Fact>,
}

impl Open {
    fn new(wallet: &WalletId) -> Self {
        Self { id: RequestId::fresh(), wallet: wallet.clone(), postings: Vec::new(), events: Vec::new() }
    }
}

#[async_trait]
impl Write for Open {
    type Output = Request<ReceiveAddress>;
    type Error = StoreError;
    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Output, StoreError> {
        let now = tx.now();
        let machine = ReceiveAddress { address: "an address".to_owned(), index: 0, state: State::Open };
        let first = Transition {
            postings: self.postings.clone(),
            events: self.events.clone(),
            ..Transition::to(machine.clone())
        };
        let request = Request {
            id: self.id,
            wallet: self.wallet.clone(),
            reference: None,
            label: None,
            created_at: now,
            updated_at: now,
            expires_at: None,
            version: 1,
            machine,
        };
        apply::create(tx, request, first).await
    }
}

/// A request that is there posts more; its state stays.
struct Posts {
    request: RequestId,
    postings: Vec<Posting>,
}

#[async_trait]
impl Write for Posts {
    type Output = ();
    type Error = StoreError;
    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let before = requests::load::<ReceiveAddress>(tx.conn(), self.request).await?.expect("the request is there");
        let transition = Transition { postings: self.postings.clone(), ..Transition::to(before.machine.clone()) };
        apply::apply(tx, before, transition).await?;
        Ok(())
    }
}

/// Asks until the answer is yes.
async fn until<F: Future<Output = bool>>(what: &str, ask: impl Fn() -> F) {
    let asked = async {
        while !ask().await {
            tokio::time::sleep(POLL).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, asked).await.is_ok(), "not in time: {what}");
}
