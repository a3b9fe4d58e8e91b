//! What differs between the two databases: how to connect, how to lock, how a transaction begins.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::{AnyPool, Connection};

use super::{Config, Conn, StoreError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// Durable on every commit, readers beside the writer, and foreign keys that hold.
const SQLITE_SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
                               PRAGMA busy_timeout = 5000; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16000";

/// A process that is paused inside a transaction keeps its rows locked: without an end to that, nobody could take its roles
/// over. Our statements follow each other within milliseconds.
const POSTGRES_SETTINGS: &str = "SET idle_in_transaction_session_timeout = '5s'";

impl Engine {
    /// # Errors
    /// When the address names neither database.
    pub fn of_url(url: &str) -> Result<Self, StoreError> {
        if url.starts_with("sqlite:") {
            Ok(Self::Sqlite)
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            Ok(Self::Postgres)
        } else {
            Err(StoreError::Misconfigured("store.url must begin with sqlite: or postgres:".to_owned()))
        }
    }

    /// On SQLite, the lock that keeps a second process out. It goes with the process, however that ends.
    pub(super) fn lock(self, url: &str) -> Result<Option<File>, StoreError> {
        let Self::Sqlite = self else { return Ok(None) };
        let path = sqlite_path(url)?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|e| StoreError::Misconfigured(format!("can't create {}: {e}", folder.display())))?;
        }
        let lock_path = path.with_extension("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|e| StoreError::Misconfigured(format!("can't open {}: {e}", lock_path.display())))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Locked(path.display().to_string())),
            Err(std::fs::TryLockError::Error(e)) => {
                Err(StoreError::Misconfigured(format!("can't lock {}: {e}", lock_path.display())))
            }
        }
    }

    pub(super) async fn connect(self, url: &str) -> Result<Conn, StoreError> {
        sqlx::any::install_default_drivers();
        let mut conn = Conn::connect(&self.address(url)?).await?;
        sqlx::raw_sql(self.settings()).execute(&mut conn).await?;
        Ok(conn)
    }

    pub(super) async fn pool(self, config: &Config) -> Result<AnyPool, StoreError> {
        sqlx::any::install_default_drivers();
        let pool = AnyPoolOptions::new()
            .max_connections(config.connections.max(2))
            .acquire_timeout(Duration::from_millis(config.wait_ms))
            .after_connect(move |conn, _| {
                Box::pin(async move {
                    sqlx::raw_sql(self.settings()).execute(conn).await?;
                    Ok(())
                })
            })
            .connect_lazy(&self.address(config.url.expose())?)?;
        Ok(pool)
    }

    /// What every connection is told first.
    const fn settings(self) -> &'static str {
        match self {
            Self::Sqlite => SQLITE_SETTINGS,
            Self::Postgres => POSTGRES_SETTINGS,
        }
    }

    fn address(self, url: &str) -> Result<String, StoreError> {
        match self {
            Self::Postgres => Ok(url.to_owned()),
            Self::Sqlite => Ok(format!("sqlite://{}?mode=rwc", sqlite_path(url)?.display())),
        }
    }

    /// READ COMMITTED suffices on PostgreSQL: every decision is guarded by a version, a key or a check in the statement that writes it.
    pub(super) const fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }
}

fn sqlite_path(url: &str) -> Result<PathBuf, StoreError> {
    let path = url.trim_start_matches("sqlite:").trim_start_matches("//");
    if path.is_empty() || path.contains(":memory:") || path.contains('?') {
        return Err(StoreError::Misconfigured("store.url must name a file: sqlite:path/to/sluice.db".to_owned()));
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_one_of_two_databases() {
        assert_eq!(Engine::of_url("sqlite:a.db").unwrap(), Engine::Sqlite);
        assert_eq!(Engine::of_url("postgresql://localhost/a").unwrap(), Engine::Postgres);
        assert!(Engine::of_url("mysql://localhost/a").is_err());
        assert!(sqlite_path("sqlite::memory:").is_err());
        assert_eq!(sqlite_path("sqlite:///var/lib/a.db").unwrap(), PathBuf::from("/var/lib/a.db"));
    }
}
