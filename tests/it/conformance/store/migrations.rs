//! The schema is brought up to date once, and never guessed at.

use sluice::store::{Store, StoreError};

use super::{Db, on_both};
use crate::harness::postgres as server;

on_both!(a_second_start_changes_nothing, a_schema_from_the_future_is_refused, an_edited_migration_is_refused);

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
