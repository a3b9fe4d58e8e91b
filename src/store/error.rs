use std::sync::atomic::{AtomicU64, Ordering};

use crate::ledger::model::Refusal;

/// Connections fail one by one or all at once, and nothing says which: after any failure every kept one is doubted.
static FAILURES: AtomicU64 = AtomicU64::new(0);

/// Errors so far that may have come from a connection which no longer works.
pub(super) fn failures_seen() -> u64 {
    FAILURES.load(Ordering::Acquire)
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database can't be used now; the same call may work later. Nothing was changed.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The connection broke during the commit, and what became of it could not be found out. Ask again with the same
    /// idempotency key, or look before writing again.
    #[error("it is not known whether the database has committed: {0}")]
    InDoubt(String),
    /// Somebody else wrote first. What was decided rests on an old state: decide again.
    #[error("somebody else changed {0} first")]
    Conflict(&'static str),
    /// A newer owner has taken over this role. This process must stop acting in it at once.
    #[error("this process no longer owns the role {role}")]
    Fenced { role: &'static str },
    /// The ledger refuses a posting.
    #[error("the ledger refuses: {0}")]
    Ledger(#[from] Refusal),
    /// A row makes no sense. Money that depends on it must not move.
    #[error("a stored row is corrupt: {0}")]
    Corrupt(String),
    /// A machine was sent an event that its state does not know: a fault of this program.
    #[error(transparent)]
    Illegal(#[from] crate::domain::Illegal),
    #[error("the database belongs to the chain with genesis {bound}, not {asked}")]
    WrongNetwork { bound: String, asked: String },
    #[error("another process uses this database: {0}")]
    Locked(String),
    #[error("{0}")]
    Misconfigured(String),
    #[error("the query failed: {0}")]
    Sql(#[source] sqlx::Error),
}

/// Whether running the same write again may succeed, because what stopped it was another writer.
pub trait Retryable {
    fn is_retryable(&self) -> bool;
}

impl Retryable for StoreError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Conflict(_) => true,
            Self::Sql(error) => is_serialization_failure(error),
            Self::Unavailable(_)
            | Self::InDoubt(_)
            | Self::Fenced { .. }
            | Self::Ledger(_)
            | Self::Corrupt(_)
            | Self::Illegal(_)
            | Self::WrongNetwork { .. }
            | Self::Locked(_)
            | Self::Misconfigured(_) => false,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let said = Self::of(error);
        if !matches!(said, Self::Sql(sqlx::Error::Database(_) | sqlx::Error::RowNotFound) | Self::Corrupt(_)) {
            FAILURES.fetch_add(1, Ordering::AcqRel);
        }
        said
    }
}

impl StoreError {
    fn of(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => Self::Unavailable(error.to_string()),
            sqlx::Error::Database(inner) if is_unavailable_code(inner.code().as_deref()) => {
                Self::Unavailable(inner.message().to_owned())
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
                Self::Corrupt(error.to_string())
            }
            _ => Self::Sql(error),
        }
    }
}

/// PostgreSQL classes: 08 connection, 53 resources, 57P shutdown, 58 system, 25006 read-only, 25P03 idle for too long. SQLite codes: busy 5, locked 6,
/// out of memory 7, read-only 8, input/output 10, full 13, can't open 14; the extended code keeps them in its low byte.
fn is_unavailable_code(code: Option<&str>) -> bool {
    let Some(code) = code else { return false };
    if code.len() == 5 {
        return ["08", "53", "57P", "58", "25006", "25P03"].iter().any(|class| code.starts_with(class));
    }
    code.parse::<u32>().is_ok_and(|number| matches!(number & 0xff, 5 | 6 | 7 | 8 | 10 | 13 | 14))
}

/// Whether a server could not be reached because it is about to start, stop, or has no place yet.
pub(super) fn is_not_up_yet(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(inner) => {
            inner.code().is_some_and(|code| code.len() == 5 && (code.starts_with("57P") || code.starts_with("53")))
        }
        _ => false,
    }
}

fn is_serialization_failure(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|inner| inner.code().map(|code| code.into_owned()));
    matches!(code.as_deref(), Some("40001" | "40P01"))
}
