//! What differs between the two databases: how to connect, how to lock, how a transaction begins.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use sqlx::Connection;

use super::pool::Pool;
use super::{Config, Conn, StoreError};
use crate::secret::{keep_private, make_private_folder};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// Durable on every commit, readers beside the writer, foreign keys that hold, and a REPLACE that fires what guards a DELETE.
const SQLITE_WRITER: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
                             PRAGMA recursive_triggers = ON; PRAGMA busy_timeout = 5000; PRAGMA temp_store = MEMORY; \
                             PRAGMA cache_size = -16000";
/// There are many readers: each keeps little. None of them writes.
const SQLITE_READER: &str = "PRAGMA query_only = ON; PRAGMA busy_timeout = 5000; PRAGMA temp_store = MEMORY; \
                             PRAGMA cache_size = -4000";
/// A process that stops in a transaction holds what it locked, such as the row of an owner. PostgreSQL lets go of it when the
/// owner's lease is over. And what was answered has to be on the disk, however the server is set up.
const POSTGRES_SETTINGS: &str = "SET idle_in_transaction_session_timeout = '5s'; \
                                 SELECT set_config('synchronous_commit', 'on', false) FROM (SELECT 1) AS one \
                                 WHERE current_setting('synchronous_commit') = 'off'";
/// How long a start waits for a process that is on its way out.
pub const LOCK_WITHIN: Duration = Duration::from_secs(2);

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
    pub(super) async fn lock(self, url: &str) -> Result<Option<File>, StoreError> {
        let Self::Sqlite = self else { return Ok(None) };
        let deadline = tokio::time::Instant::now() + LOCK_WITHIN;
        loop {
            match try_lock(&sqlite_file(url)?) {
                Err(StoreError::Locked(_)) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                done => return done.map(Some),
            }
        }
    }

    /// Takes what SQLite keeps away from all but its owner: whoever reads the preimages of open invoices may claim what is on its way.
    pub(super) fn keep_private(self, url: &str) -> Result<(), StoreError> {
        let Self::Sqlite = self else { return Ok(()) };
        let database = sqlite_file(url)?;
        for suffix in ["", "-wal", "-shm", ".lock"] {
            let mut path = database.as_os_str().to_owned();
            path.push(suffix);
            keep_private(Path::new(&path));
        }
        Ok(())
    }

    /// Whether a gateway's database is there. Nothing is made, and nothing in it is changed.
    ///
    /// # Errors
    /// When there is none, or it can't be read.
    pub(super) async fn require_existing(self, url: &str) -> Result<(), StoreError> {
        let address = match self {
            Self::Postgres => url.to_owned(),
            Self::Sqlite => {
                let path = sqlite_path(url)?;
                if !path.is_file() {
                    let why = format!("store.url: there is no database at {}", path.display());
                    return Err(StoreError::Misconfigured(why));
                }
                format!("sqlite://{}?mode=ro", percent_encoded(&sqlite_file(url)?)?)
            }
        };
        sqlx::any::install_default_drivers();
        let mut conn = Conn::connect(&address).await?;
        let found = sqlx::query("SELECT name FROM schema_migrations LIMIT 1").fetch_optional(&mut conn).await;
        conn.close().await?;
        match found {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(no_gateway()),
            Err(sqlx::Error::Database(_)) => Err(no_gateway()),
            Err(error) => Err(error.into()),
        }
    }

    /// The connection that migrates and, on SQLite, writes.
    pub(super) async fn connect(self, url: &str) -> Result<Conn, StoreError> {
        sqlx::any::install_default_drivers();
        let mut conn = Conn::connect(&self.address(url)?).await?;
        let settings = match self {
            Self::Sqlite => SQLITE_WRITER,
            Self::Postgres => self.settings(),
        };
        sqlx::raw_sql(settings).execute(&mut conn).await?;
        Ok(conn)
    }

    /// Connections that read and, on PostgreSQL, write.
    pub(super) fn pool(self, config: &Config) -> Result<Pool, StoreError> {
        sqlx::any::install_default_drivers();
        Ok(Pool::new(self, self.address(config.url.expose())?, config))
    }

    /// What a connection of the pool is told first.
    pub(super) const fn settings(self) -> &'static str {
        match self {
            Self::Sqlite => SQLITE_READER,
            Self::Postgres => POSTGRES_SETTINGS,
        }
    }

    fn address(self, url: &str) -> Result<String, StoreError> {
        match self {
            Self::Postgres => Ok(url.to_owned()),
            Self::Sqlite => Ok(format!("sqlite://{}?mode=rwc", percent_encoded(&sqlite_file(url)?)?)),
        }
    }

    /// Says which file it was that could not be used. A server's address may have a password in it, and is not said.
    pub(super) fn name_file(self, url: &str, error: StoreError) -> StoreError {
        match (self, error) {
            (Self::Sqlite, StoreError::Unavailable(why)) => match sqlite_file(url) {
                Ok(file) => StoreError::Unavailable(format!("{}: {why}", file.display())),
                Err(error) => error,
            },
            (Self::Sqlite | Self::Postgres, other) => other,
        }
    }

    /// READ COMMITTED suffices on PostgreSQL: every decision is guarded by a version, a key or a check in the statement that writes it.
    pub(super) const fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// A view of everything at one time, for who reads much.
    pub(super) const fn begin_snapshot(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }
}

fn try_lock(database: &Path) -> Result<File, StoreError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let cant = |what: &str, error: std::io::Error| {
        StoreError::Misconfigured(format!("can't {what} {}: {error}", path.display()))
    };
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(|error| cant("open", error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(database.display().to_string())),
        Err(TryLockError::Error(error)) => Err(cant("lock", error)),
    }
}

fn no_gateway() -> StoreError {
    StoreError::Misconfigured("store.url: this database was never used by a gateway".to_owned())
}

fn sqlite_path(url: &str) -> Result<&Path, StoreError> {
    let path = url.strip_prefix("sqlite:").unwrap_or(url);
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.contains(":memory:") || path.contains('?') {
        return Err(StoreError::Misconfigured("store.url must name a file: sqlite:path/to/sluice.db".to_owned()));
    }
    Ok(Path::new(path))
}

/// Where PostgreSQL's neighbours on this machine are kept.
const FOLDER: &str = "data";

/// What files on this machine are named after that belong to a database: its own file, or a name that no other database has.
pub(super) fn local_name(url: &str) -> Result<PathBuf, StoreError> {
    match Engine::of_url(url)? {
        Engine::Sqlite => {
            let path = sqlite_path(url)?;
            Ok(path.canonicalize().unwrap_or_else(|_not_made_yet| path.to_owned()))
        }
        Engine::Postgres => {
            let hash = sha256::Hash::hash(url.as_bytes()).to_string();
            Ok(Path::new(FOLDER).join(format!("sluice-{}", hash.get(..12).unwrap_or_default())))
        }
    }
}

/// The one name of the database's file, whatever links lead to it: what is locked is what is opened. Its folder is made.
fn sqlite_file(url: &str) -> Result<PathBuf, StoreError> {
    let path = sqlite_path(url)?;
    let cant = |error: std::io::Error| StoreError::Misconfigured(format!("can't use {}: {error}", path.display()));
    if path.exists() {
        return path.canonicalize().map_err(cant);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(StoreError::Misconfigured(format!("{} is no file", path.display())));
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    make_private_folder(folder).map_err(cant)?;
    Ok(folder.canonicalize().map_err(cant)?.join(name))
}

/// A path as it stands in an address, where some letters have another meaning.
fn percent_encoded(path: &Path) -> Result<String, StoreError> {
    let text = path.to_str().ok_or_else(|| StoreError::Misconfigured(format!("{} is not Unicode", path.display())))?;
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    Ok(text.bytes().map(encode).collect())
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
        assert_eq!(sqlite_path("sqlite:///var/lib/a.db").unwrap(), Path::new("/var/lib/a.db"));
    }

    #[test]
    fn no_two_databases_share_what_is_named_after_one() {
        let name = |url: &str| local_name(url).unwrap();
        assert_eq!(name("sqlite:/nowhere/a.db"), Path::new("/nowhere/a.db"));
        assert_ne!(name("postgres://u:secret@h/a"), name("postgres://u:secret@h/b"));
        assert!(!name("postgres://u:secret@h/a").display().to_string().contains("secret"));
    }
}
