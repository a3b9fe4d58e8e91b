//! What was written down stays as it was written.

use sluice::domain::Fact;
use sluice::domain::event::payloads::Nothing;
use sluice::ledger::{Account, Kind, Posting, PostingId};
use sluice::money::{Amount, Money};
use sluice::store::owners::{Acquire, Role};
use sluice::store::{Engine, events::NumberEvents};

use super::{Db, Open, on_both};

on_both!(postings_and_events_are_never_changed);

/// A request with a posting and a numbered event.
async fn write_one_of_each(db: &Db) {
    let wallet = db.wallet(1).await;
    let open = Open::new(&wallet);
    let posting = Posting {
        id: PostingId::of(open.id, "fund"),
        request: open.id,
        debit: Account::Capital,
        credit: Account::Wallet(wallet.clone()),
        money: Money::btc(Amount::from_msat(5).expect("a small amount")),
        kind: Kind::Post,
    };
    let event = Fact::WalletRegistered(Nothing {});
    db.store.write(Open { postings: vec![posting], events: vec![event], ..open }).await.expect("it is written");
    if db.store.engine() == Engine::Postgres {
        let acquire = Acquire { role: Role::Sequencer, holder: "test".to_owned() };
        let owner = db.store.write(acquire).await.expect("a role").expect("nobody has it");
        db.store.write(NumberEvents { owner }).await.expect("events are numbered");
    }
}

async fn postings_and_events_are_never_changed(db: Db) {
    write_one_of_each(&db).await;
    let statements = [
        "UPDATE postings SET amount = 6",
        "DELETE FROM postings",
        "UPDATE events SET kind = 'test.did_not_happen'",
        "DELETE FROM events",
        "UPDATE event_order SET seq = 7",
        "DELETE FROM event_order",
    ];
    let of_engine: &[&str] = match db.store.engine() {
        // REPLACE deletes the row that is in its way.
        Engine::Sqlite => &[
            "INSERT OR REPLACE INTO postings SELECT id, request_id, kind, debit, credit, asset, 6, hold_id, created_at FROM postings",
            "INSERT OR REPLACE INTO events SELECT id, wallet_id, request_id, 'test.other', data, created_at FROM events",
        ],
        Engine::Postgres => &["TRUNCATE postings CASCADE", "TRUNCATE events CASCADE", "TRUNCATE event_order"],
    };
    for statement in statements.iter().chain(of_engine) {
        let refused = db.sql(statement).await.expect_err(statement);
        assert!(refused.to_string().contains("append-only"), "{statement}: {refused}");
    }
    assert_eq!(db.count("SELECT CAST(SUM(amount) AS BIGINT) FROM postings").await, 5);
    assert_eq!(db.count("SELECT COUNT(*) FROM events WHERE kind = 'wallet.registered'").await, 1);
    assert_eq!(db.count("SELECT seq FROM event_order").await, 1);
    db.audit().await;
}
