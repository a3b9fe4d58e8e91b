//! The schema is brought up to date once, and never guessed at.

use sluice::store::{Store, StoreError};

use super::{Db, on_both};
use crate::harness::postgres as server;

on_both!(
    a_second_start_changes_nothing,
    a_schema_from_the_future_is_refused,
    an_edited_migration_is_refused,
    the_program_before_finds_only_what_it_knows,
    an_addition_of_the_next_program_is_no_reason_to_refuse,
    without_migrating_a_schema_that_is_behind_is_refused_and_left_alone,
);

async fn open_again(db: Db) -> (Result<Store, StoreError>, Option<tempfile::TempDir>) {
    let Db { store, config, clock, _folder: folder } = db;
    store.close().await;
    drop(store);
    (Store::open(&config, clock).await, folder)
}

const APPLIED: &str = "SELECT COUNT(*) FROM schema_migrations WHERE applied_at = 1800000000000";

async fn a_second_start_changes_nothing(db: Db) {
    let before = db.count(APPLIED).await;
    assert!(before > 0);
    let gateway = db.store.gateway().clone();
    db.clock.advance(std::time::Duration::from_secs(5));
    let (again, _folder) = open_again(db).await;
    let again = again.expect("it opens");
    assert_eq!(super::count(&again, APPLIED).await.expect("it answers"), before);
    assert_eq!(super::count(&again, "SELECT COUNT(*) FROM schema_migrations").await.expect("it answers"), before);
    assert_eq!(again.gateway(), &gateway);
}

async fn a_schema_from_the_future_is_refused(db: Db) {
    // The newest migration of this program is missing as well: nothing is applied to a schema that is not understood.
    db.sql("DELETE FROM schema_migrations WHERE name = '0005_keys'").await.expect("forgotten");
    db.sql("INSERT INTO schema_migrations VALUES ('9999_from_the_future', '', 0)").await.expect("written");
    let (refused, _folder) = open_again(db).await;
    let refused = refused.err().expect("it is refused");
    assert!(matches!(&refused, StoreError::Misconfigured(why) if why.contains("9999_from_the_future")), "{refused}");
}

async fn an_edited_migration_is_refused(db: Db) {
    db.sql("UPDATE schema_migrations SET checksum = 'another' WHERE name = '0002_ledger'").await.expect("edited");
    let (refused, _folder) = open_again(db).await;
    let refused = refused.err().expect("it is refused");
    assert!(matches!(&refused, StoreError::Misconfigured(why) if why.contains("0002_ledger")), "{refused}");
}

/// The first release refuses a database whose `schema_migrations` has a name that it does not know. It knows these.
const OF_THE_FIRST_RELEASE: i64 = 19;

async fn the_program_before_finds_only_what_it_knows(db: Db) {
    // What it looks at before anything else, as it asks for it.
    let unknown = "SELECT COUNT(*) FROM (SELECT name FROM schema_migrations) AS known WHERE name >= '0020'";
    assert_eq!(db.count(unknown).await, 0);
    assert_eq!(db.count("SELECT COUNT(*) FROM schema_migrations").await, OF_THE_FIRST_RELEASE);
    assert!(db.count("SELECT COUNT(*) FROM schema_additions WHERE name >= '0020'").await > 0);
    // What it writes, it still can: a row of each table that an addition has touched is one of its own making.
    db.sql("INSERT INTO api_keys (id, hash, name, scopes, created_at) VALUES ('k', 'h', 'n', 'admin', 0)")
        .await
        .expect("a key of the program before");
}

async fn an_addition_of_the_next_program_is_no_reason_to_refuse(db: Db) {
    db.sql("INSERT INTO schema_additions VALUES ('9999_from_the_future', '', 0)").await.expect("written");
    let (opened, _folder) = open_again(db).await;
    opened.expect("what was only added harms nobody");
}

async fn without_migrating_a_schema_that_is_behind_is_refused_and_left_alone(db: Db) {
    let Db { store, mut config, clock, _folder: folder } = db;
    store.close().await;
    config.migrate = false;
    let opened = Store::open(&config, clock.clone()).await.expect("it is up to date");
    opened.close().await;
    config.migrate = true;
    let db = Db { store: Store::open(&config, clock.clone()).await.expect("it opens"), config, clock, _folder: folder };
    db.sql("DELETE FROM schema_additions WHERE name = '0026_admin'").await.expect("forgotten");
    let Db { store, mut config, clock, _folder: folder } = db;
    store.close().await;
    config.migrate = false;
    let refused = Store::open(&config, clock).await.err().expect("it is behind");
    assert!(matches!(&refused, StoreError::Misconfigured(why) if why.contains("0026_admin")), "{refused}");
    drop(folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_may_start_at_once() {
    const ROUNDS: usize = 4;
    for _ in 0..ROUNDS {
        let Some(url) = server::database().await else { return };
        let starts = (0..6).map(|_| tokio::spawn(Db::at(url.clone(), None)));
        let opened: Vec<Db> =
            futures::future::join_all(starts).await.into_iter().map(|db| db.expect("every one opens")).collect();
        let names: Vec<_> = opened.iter().map(|db| db.store.gateway().clone()).collect();
        assert!(names.iter().all(|name| *name == names[0]), "they agree on who they are: {names:?}");
        opened[0].audit().await;
    }
}
