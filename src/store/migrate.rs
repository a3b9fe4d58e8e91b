//! Brings a schema up to date, one numbered file after the other, each in a transaction of its own.
//!
//! A migration from `FIRST_ADDITION` on only adds: the program before it still serves on what it leaves. It is recorded in a table of
//! its own, which that program does not read, so an upgrade can be rolled back by starting the program before it.

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
    shared("0020_node_parts", include_str!("../../migrations/0020_node_parts.sql")),
    shared("0021_payments", include_str!("../../migrations/0021_payments.sql")),
    shared("0022_node_commits", include_str!("../../migrations/0022_node_commits.sql")),
    shared("0023_halts_and_hours", include_str!("../../migrations/0023_halts_and_hours.sql")),
    shared("0024_door", include_str!("../../migrations/0024_door.sql")),
    shared("0026_admin", include_str!("../../migrations/0026_admin.sql")),
    shared("0027_values_of_bodies", include_str!("../../migrations/0027_values_of_bodies.sql")),
];

/// From this number on a migration only adds: tables, indexes, and columns that are null or have a default. What is to go goes in a
/// release of its own, by a migration that is recorded with those before, and that the programs before it refuse.
const FIRST_ADDITION: &str = "0020";

/// Where migrations are recorded that every program has to know which uses the database.
const REQUIRED: &str = "schema_migrations";
/// Where additions are recorded. A program need not know all of them.
const ADDITIONS: &str = "schema_additions";

impl Migration {
    fn recorded_in(&self) -> &'static str {
        if self.name >= FIRST_ADDITION { ADDITIONS } else { REQUIRED }
    }
}

/// What is done about migrations that the database does not have yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Apply,
    Refuse,
}

/// Any number will do, as long as every gateway on one PostgreSQL uses the same.
const ADVISORY_LOCK: &str = "SELECT pg_advisory_xact_lock(5712034)";

pub(super) async fn run(conn: &mut Conn, engine: Engine, now: Timestamp, missing: Missing) -> Result<(), StoreError> {
    if missing == Missing::Refuse {
        return refuse_missing(conn, engine).await;
    }
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

/// Looks, and writes nothing.
async fn refuse_missing(conn: &mut Conn, engine: Engine) -> Result<(), StoreError> {
    for table in [REQUIRED, ADDITIONS] {
        let first = MIGRATIONS.iter().find(|migration| migration.recorded_in() == table);
        if let Some(migration) = first
            && !is_there(conn, engine, table).await?
        {
            return Err(is_missing(migration));
        }
    }
    refuse_newer_schema(conn).await?;
    for migration in MIGRATIONS {
        if !is_applied(conn, engine, migration).await? {
            return Err(is_missing(migration));
        }
    }
    Ok(())
}

fn is_missing(migration: &Migration) -> StoreError {
    StoreError::Misconfigured(format!(
        "the database does not have migration {} yet, and was not to be migrated; run `sluice migrate`",
        migration.name
    ))
}

async fn is_there(conn: &mut Conn, engine: Engine, table: &str) -> Result<bool, StoreError> {
    let sql = match engine {
        Engine::Sqlite => "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = $1",
        Engine::Postgres => {
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = ANY (current_schemas(false)) AND table_name = $1"
        }
    };
    let found: i64 = sqlx::query_scalar(sql).bind(table.to_owned()).fetch_one(conn).await?;
    Ok(found > 0)
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
    for table in [REQUIRED, ADDITIONS] {
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {table} (name TEXT PRIMARY KEY, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)"
        );
        sqlx::query(AssertSqlSafe(sql)).execute(&mut *conn).await?;
    }
    refuse_newer_schema(conn).await
}

fn text_of(migration: &Migration, engine: Engine) -> String {
    let overlay = match engine {
        Engine::Sqlite => migration.sqlite,
        Engine::Postgres => migration.postgres,
    };
    format!("{}\n{overlay}", migration.sql)
}

fn checksum(text: &str) -> String {
    sha256::Hash::hash(text.as_bytes()).to_string()
}

/// Whether the database has it, and in the form that this program knows.
async fn is_applied(conn: &mut Conn, engine: Engine, migration: &Migration) -> Result<bool, StoreError> {
    let sql = format!("SELECT checksum FROM {} WHERE name = $1", migration.recorded_in());
    let applied: Option<String> =
        sqlx::query_scalar(AssertSqlSafe(sql)).bind(migration.name).fetch_optional(conn).await?;
    match applied {
        Some(known) if known == checksum(&text_of(migration, engine)) => Ok(true),
        Some(_) => Err(StoreError::Misconfigured(format!(
            "migration {} was applied to the database in another form than this program has it",
            migration.name
        ))),
        None => Ok(false),
    }
}

async fn apply(conn: &mut Conn, engine: Engine, migration: &Migration, now: Timestamp) -> Result<(), StoreError> {
    if is_applied(conn, engine, migration).await? {
        return Ok(());
    }
    let text = text_of(migration, engine);
    let sum = checksum(&text);
    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *conn).await?;
    let record = format!("INSERT INTO {} (name, checksum, applied_at) VALUES ($1, $2, $3)", migration.recorded_in());
    sqlx::query(AssertSqlSafe(record)).bind(migration.name).bind(sum).bind(now.millis()).execute(&mut *conn).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn additions() -> impl Iterator<Item = &'static Migration> {
        MIGRATIONS.iter().filter(|migration| migration.recorded_in() == ADDITIONS)
    }

    /// An index that refused more than it has to. Its migration says why the program before serves without it.
    const LOOSENED: &str = "DROP INDEX PAYMENTS_ONE_PAY";

    /// What the program before relies on: a table, a column, an index that its statements name, or that a row may be as it writes it.
    fn takes_away(sql: &str) -> Option<String> {
        let plain: Vec<&str> = sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
        plain.join(" ").split(';').find_map(|statement| {
            let words = statement.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_uppercase();
            let is_bad = words.starts_with("DROP ") && words != LOOSENED
                || words.starts_with("DELETE ")
                || words.starts_with("ALTER ") && !words.contains(" ADD ")
                || words.starts_with("ALTER ") && words.contains("NOT NULL") && !words.contains(" DEFAULT ");
            is_bad.then_some(words)
        })
    }

    #[test]
    fn an_addition_takes_nothing_away() {
        assert!(additions().count() > 0);
        for migration in additions() {
            for sql in [migration.sql, migration.sqlite, migration.postgres] {
                assert_eq!(takes_away(sql), None, "{}: the program before could not serve", migration.name);
            }
        }
        assert!(takes_away("-- DROP TABLE a;\nCREATE TABLE a (b TEXT NOT NULL);").is_none());
        assert!(takes_away("CREATE TABLE a (b TEXT);\n DROP INDEX c").is_some());
        assert!(takes_away("ALTER TABLE a RENAME COLUMN b TO c").is_some());
        assert!(takes_away("ALTER TABLE a ADD COLUMN b TEXT NOT NULL").is_some());
        assert!(takes_away("ALTER TABLE a ADD COLUMN b BIGINT NOT NULL DEFAULT 0").is_none());
    }

    #[test]
    fn numbers_only_grow() {
        assert!(MIGRATIONS.windows(2).all(|pair| pair[0].name < pair[1].name));
    }
}
