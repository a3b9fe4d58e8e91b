//! Every commit of the node has a number, in the database and in a file of this machine. A server that takes the place of PostgreSQL and has
//! lost the last second is found out by it: at once while the node runs, and at its start.
//!
//! On SQLite the database is a file of this machine itself; there the generation has to do, which moves once a minute.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::config::Config;
use super::error::LdkError;
use super::seed;
use super::start::{META, put};
use crate::store::node::{self, Step};
use crate::store::node_commits::{self, Server};
use crate::store::{Engine, Store};

/// Where the server is remembered that the node has last run on.
const SERVER: &str = "server";
/// As many digits as a number can have: the file never changes its length.
const DIGITS: usize = 19;

pub struct Counter {
    number: AtomicI64,
    file: Arc<File>,
    path: PathBuf,
}

impl Counter {
    /// Refuses a database that has lost commits of the node, or of which nobody can tell, but for a recovery, which begins with none.
    /// `None` where there is no server.
    ///
    /// # Errors
    /// When it must not be used, when it can't answer, or when the file can't be read.
    pub async fn begin(config: &Config, store: &Store, recovering: bool) -> Result<Option<(Self, Step)>, LdkError> {
        if store.engine() == Engine::Sqlite {
            return Ok(None);
        }
        let mut conn = store.read().await?;
        let (database, server) = (node_commits::counted(&mut conn).await?, node_commits::server(&mut conn).await?);
        let before = node::value(&mut conn, META, SERVER).await?;
        drop(conn);
        let before: Option<Server> = before
            .map(|bytes| serde_json::from_slice(&bytes))
            .transpose()
            .map_err(|error| LdkError::Corrupt(format!("the server: {error}")))?;
        let path = seed::beside(config, "commits");
        let (file, seen) = open(&path)?;
        if !recovering {
            check(database, seen, before.as_ref(), &server, &path)?;
        }
        if server.standbys > 0 && !server.is_synchronous {
            tracing::warn!(
                standbys = server.standbys,
                "PostgreSQL answers commits before a standby has them: after a failover that has lost the last ones the node does not \
                 start again. Set synchronous_standby_names"
            );
        }
        let value = serde_json::to_vec(&server).map_err(|error| LdkError::Corrupt(error.to_string()))?;
        let counter = Self { number: AtomicI64::new(database), file: Arc::new(file), path };
        Ok(Some((counter, put(META, SERVER, value))))
    }

    /// The number before a commit, and after it.
    #[must_use]
    pub fn step(&self) -> Step {
        let from = self.number.load(Ordering::SeqCst);
        Step::Counted { from, to: from.saturating_add(1) }
    }

    #[must_use]
    pub fn proof(&self) -> Step {
        Step::Proven(self.number.load(Ordering::SeqCst))
    }

    /// A commit is durable: this machine remembers it before anybody is told of what is in it.
    pub async fn counted(&self) {
        let number = self.number.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        let file = Arc::clone(&self.file);
        let written = tokio::task::spawn_blocking(move || write(&file, number)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(path = %self.path.display(), %error, "the number of the node's last commit can't be written");
            }
            // The runtime stops.
            Err(_stopping) => {}
        }
    }
}

/// In place, within one sector: a crash leaves the old number or the new one.
fn write(file: &File, number: i64) -> std::io::Result<()> {
    file.write_all_at(format!("{number:0width$}\n", width = DIGITS).as_bytes(), 0)?;
    file.sync_data()
}

/// The file, and the number in it; nothing where this machine has not run the node yet.
fn open(path: &Path) -> Result<(File, Option<i64>), LdkError> {
    let fail = |error| LdkError::File { path: path.to_owned(), error };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(fail)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(fail)?;
    if text.trim().is_empty() {
        return Ok((file, None));
    }
    let number = text.trim().parse();
    number
        .map(|number| (file, Some(number)))
        .map_err(|_| LdkError::Misconfigured(format!("{} does not hold a number", path.display())))
}

fn check(database: i64, seen: Option<i64>, before: Option<&Server>, now: &Server, path: &Path) -> Result<(), LdkError> {
    match seen {
        Some(file) if database < file => return Err(LdkError::OldDatabase { database, file, path: path.to_owned() }),
        // A process that dies after a commit has not written its number.
        Some(file) if database <= file.saturating_add(1) => return Ok(()),
        Some(_) | None => {}
    }
    match before {
        Some(before) if before.timeline != now.timeline && !before.is_synchronous => {
            Err(LdkError::Unproven { database, path: path.to_owned() })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(timeline: &str, is_synchronous: bool) -> Server {
        Server { timeline: timeline.to_owned(), is_synchronous, standbys: 0 }
    }

    fn checked(database: i64, seen: Option<i64>, before: Option<&Server>, now: &Server) -> Result<(), LdkError> {
        check(database, seen, before, now, Path::new("node.commits"))
    }

    #[test]
    fn commits_that_are_gone_are_missed() {
        let one = server("00000001", false);
        checked(0, None, None, &one).unwrap();
        checked(7, Some(7), Some(&one), &one).unwrap();
        checked(8, Some(7), Some(&one), &one).unwrap();
        assert!(matches!(
            checked(6, Some(7), Some(&one), &one),
            Err(LdkError::OldDatabase { database: 6, file: 7, .. })
        ));
        assert!(checked(6, Some(7), Some(&server("00000001", true)), &one).is_err(), "whatever it was set to");
    }

    #[test]
    fn a_server_that_was_promoted_is_trusted_when_it_can_be_seen_that_nothing_is_lost() {
        let (one, two) = (server("00000001", false), server("00000002", false));
        checked(7, Some(7), Some(&one), &two).unwrap();
        checked(9, None, Some(&server("00000001", true)), &two).unwrap();
        for seen in [None, Some(3)] {
            assert!(matches!(checked(9, seen, Some(&one), &two), Err(LdkError::Unproven { .. })), "{seen:?}");
            checked(9, seen, Some(&one), &one).unwrap();
        }
    }

    #[test]
    fn the_file_has_the_last_number_whatever_was_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/node.commits");
        assert_eq!(open(&path).unwrap().1, None);
        for number in [1, 99, i64::MAX, 2] {
            let (file, _) = open(&path).unwrap();
            write(&file, number).unwrap();
            assert_eq!(open(&path).unwrap().1, Some(number));
        }
        std::fs::write(&path, "many\n").unwrap();
        assert!(open(&path).is_err());
    }
}
