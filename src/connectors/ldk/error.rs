//! Why the node does not start.

use std::path::PathBuf;

use crate::ports::PortError;
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum LdkError {
    #[error("the node's configuration can't be used: {0}")]
    Misconfigured(String),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error(
        "the seed belongs to the node {ours}, and the database to the node {stored}: put the seed back that this database \
         was begun with, or begin with an empty database"
    )]
    WrongSeed { ours: String, stored: String },
    #[error(
        "the database is older than the node has been ({database} < {file}, as {} says): it was copied back from a backup. \
         Running a Lightning node on old state loses the money in its channels. Put the newest copy of the database back. If \
         there is none, `sluice node recover` asks the peers to close the channels, with an empty database and the same seed", path.display()
    )]
    OldDatabase { database: i64, file: i64, path: PathBuf },
    #[error(
        "another PostgreSQL server has taken the place of the one that the node ran on last, commits were answered before a standby had \
         them, and this machine has not seen the last of them: nobody can tell whether some are lost. Running a Lightning node on old state \
         loses the money in its channels. Start it on the machine where it ran last. If you know that nothing is lost, write {database} \
         into {}", path.display()
    )]
    Unproven { database: i64, path: PathBuf },
    #[error("what is stored of the node can't be read: {0}")]
    Corrupt(String),
    #[error("bitcoind gave no blocks: {0}")]
    Blocks(String),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Store(#[from] StoreError),
}
