//! Brings a schema up to date, one numbered file after the other, each in a transaction of its own.

use bitcoin::hashes::{Hash, sha256};
use sqlx::AssertSqlSafe;

use super::{Conn, Engine, StoreError};
use crate::clock::Timestamp;

struct Migration {
    name: &'static str,
    sql: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

const fn shared(name: &'static str, sql: &'static str) -> Migration {
    Migration { name, sql, sqlite: "", postgres: "" }
}

/// In order. A file that has been released is never edited: the next number says what changes.
const MIGRATIONS: &[Migration] = &[
    shared("0001_wallets_and_requests", include_str!("../../migrations/0001_wallets_and_requests.sql")),
    shared("0002_ledger", include_str!("../../migrations/0002_ledger.sql")),
    shared("0003_events_and_owners", include_str!("../../migrations/0003_events_and_owners.sql")),
    shared("0004_chain", include_str!("../../migrations/0004_chain.sql")),
    Migration {
        name: "0005_keys",
        sql: include_str!("../../migrations/0005_keys.sql"),
        sqlite: include_str!("../../migrations/append_only.sqlite.sql"),
        postgres: include_str!("../../migrations/append_only.postgres.sql"),
    },
    shared("0006_node", include_str!("../../migrations/0006_node.sql")),
    shared("0007_lightning", include_str!("../../migrations/0007_lightning.sql")),
    shared("0008_spending_grants", include_str!("../../migrations/0008_spending_grants.sql")),
    shared("0009_settle", include_str!("../../migrations/0009_settle.sql")),
    shared("0010_withdraw", include_str!("../../migrations/0010_withdraw.sql")),
    shared("0011_operator", include_str!("../../migrations/0011_operator.sql")),
    shared("0012_node_books", include_str!("../../migrations/0012_node_books.sql")),
    shared("0013_closes", include_str!("../../migrations/0013_closes.sql")),
    shared("0014_liquidity", include_str!("../../migrations/0014_liquidity.sql")),
    shared("0015_consignments", include_str!("../../migrations/0015_consignments.sql")),
    shared("0016_asset_issues", include_str!("../../migrations/0016_asset_issues.sql")),
    shared("0017_asset_transfers", include_str!("../../migrations/0017_asset_transfers.sql")),
    shared("0018_asset_exports", include_str!("../../migrations/0018_asset_exports.sql")),
    shared("0019_unfinished_transfers", include_str!("../../migrations/0019_unfinished_transfers.sql")),
    shared("0024_door", include_str!("../../migrations/0024_door.sql")),
    shared("0021_payments", include_str!("../../migrations/0021_payments.sql")),
    shared("0022_node_commits", include_str!("../../migrations/0022_node_commits.sql")),
    shared("0023_halts_and_hours", include_str!("../../migrations/0023_halts_and_hours.sql")),
    shared("0020_node_parts", include_str!("../../migrations/0020_node_parts.sql")),
];

/// Any number will do, as long as every gateway on one PostgreSQL uses the same.
const ADVISORY_LOCK: &str = "SELECT pg_advisory_xact_lock(5712034)";

pub(super) async fn run(conn: &mut Conn, engine: Engine, now: Timestamp) -> Result<(), StoreError> {
    begin_alone(conn, engine).await?;
    let known = prepare(conn).await;
    end(conn, known).await?;
    for migration in MIGRATIONS {
        begin_alone(conn, engine).await?;
        let applied = apply(conn, engine, migration, now).await;
        end(conn, applied).await?;
    }
    Ok(())
}

/// A transaction that no other start has at the same time. Without that two of them collide even in IF NOT EXISTS.
async fn begin_alone(conn: &mut Conn, engine: Engine) -> Result<(), StoreError> {
    sqlx::raw_sql(engine.begin()).execute(&mut *conn).await?;
    if engine == Engine::Postgres {
        sqlx::raw_sql(ADVISORY_LOCK).execute(conn).await?;
    }
    Ok(())
}

async fn end(conn: &mut Conn, outcome: Result<(), StoreError>) -> Result<(), StoreError> {
    match outcome {
        Ok(()) => {
            sqlx::raw_sql("COMMIT").execute(conn).await?;
            Ok(())
        }
        Err(error) => {
            // The caller gives the connection up; what matters is why.
            drop(sqlx::raw_sql("ROLLBACK").execute(conn).await);
            Err(error)
        }
    }
}

async fn prepare(conn: &mut Conn) -> Result<(), StoreError> {
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS schema_migrations (name TEXT PRIMARY KEY, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)",
    )
    .execute(&mut *conn)
    .await?;
    refuse_newer_schema(conn).await
}

async fn apply(conn: &mut Conn, engine: Engine, migration: &Migration, now: Timestamp) -> Result<(), StoreError> {
    let overlay = match engine {
        Engine::Sqlite => migration.sqlite,
        Engine::Postgres => migration.postgres,
    };
    let text = format!("{}\n{overlay}", migration.sql);
    let checksum = sha256::Hash::hash(text.as_bytes()).to_string();
    let applied: Option<String> = sqlx::query_scalar("SELECT checksum FROM schema_migrations WHERE name = $1")
        .bind(migration.name)
        .fetch_optional(&mut *conn)
        .await?;
    match applied {
        Some(known) if known == checksum => return Ok(()),
        Some(_) => {
            return Err(StoreError::Misconfigured(format!(
                "migration {} was applied to the database in another form than this program has it",
                migration.name
            )));
        }
        None => {}
    }
    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *conn).await?;
    sqlx::query("INSERT INTO schema_migrations (name, checksum, applied_at) VALUES ($1, $2, $3)")
        .bind(migration.name)
        .bind(checksum)
        .bind(now.millis())
        .execute(&mut *conn)
        .await?;
    Ok(())
}

async fn refuse_newer_schema(conn: &mut Conn) -> Result<(), StoreError> {
    let names: Vec<String> = sqlx::query_scalar("SELECT name FROM schema_migrations").fetch_all(conn).await?;
    match names.iter().find(|name| MIGRATIONS.iter().all(|known| known.name != name.as_str())) {
        None => Ok(()),
        Some(name) => Err(StoreError::Misconfigured(format!(
            "the database has migration {name}, which this program does not know"
        ))),
    }
}
