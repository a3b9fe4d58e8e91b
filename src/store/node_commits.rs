//! How many commits the node has made, and which server keeps them. A database that has lost some of them was replaced by an older copy of
//! itself; what LDK would do with that state loses the money in its channels.

use serde::{Deserialize, Serialize};

use super::row::Columns;
use super::{Conn, StoreError, Tx};

const LOST: &str = "the database does not have the node's last commits any more: another server has taken its place that had not got them";

/// Counts a commit, in its transaction. One that was in doubt may be counted again.
///
/// # Errors
/// `Corrupt` when commits before this one are gone; what the database can't do.
pub async fn count(tx: &mut Tx<'_>, from: i64, to: i64) -> Result<(), StoreError> {
    let sql = "UPDATE node_commits SET number = $1 WHERE name = 'node' AND number IN ($1, $2)";
    let counted = sqlx::query(sql).bind(to).bind(from).execute(tx.conn()).await?.rows_affected();
    if counted == 1 { Ok(()) } else { Err(StoreError::Corrupt(LOST.to_owned())) }
}

/// Proves that so many commits are there.
///
/// # Errors
/// `Corrupt` when there are fewer; what the database can't do.
pub async fn prove(tx: &mut Tx<'_>, number: i64) -> Result<(), StoreError> {
    if counted(tx.conn()).await? >= number { Ok(()) } else { Err(StoreError::Corrupt(LOST.to_owned())) }
}

/// # Errors
/// When the database can't answer.
pub async fn counted(conn: &mut Conn) -> Result<i64, StoreError> {
    let row = sqlx::query("SELECT number FROM node_commits WHERE name = 'node'").fetch_one(conn).await?;
    row.take("number")
}

/// A PostgreSQL server, as far as it tells what a failover may lose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Another one after each promotion of a standby, and after each restore to a point in time.
    pub timeline: String,
    /// A commit is only answered when a standby has it, too.
    pub is_synchronous: bool,
    /// Standbys that are connected now.
    #[serde(skip)]
    pub standbys: i64,
}

/// # Errors
/// When the database can't answer, or is no PostgreSQL.
pub async fn server(conn: &mut Conn) -> Result<Server, StoreError> {
    let row = sqlx::query(
        "SELECT SUBSTR(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS timeline, \
         CAST(CASE WHEN current_setting('synchronous_standby_names') <> '' AND current_setting('synchronous_commit') NOT IN ('off', 'local') \
         THEN 1 ELSE 0 END AS BIGINT) AS is_synchronous, (SELECT COUNT(*) FROM pg_stat_replication) AS standbys",
    )
    .fetch_one(conn)
    .await?;
    Ok(Server {
        timeline: row.take("timeline")?,
        is_synchronous: row.take::<i64>("is_synchronous")? == 1,
        standbys: row.take("standbys")?,
    })
}
