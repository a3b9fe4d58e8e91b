//! What the built-in Lightning node keeps. Everything is written by [`Commit`]: a list of steps, in order, in one transaction
//! that is fenced with the node's epoch. So the node's manager, its channels' monitors and our own rows about payments are
//! never out of step, wherever the process dies. Each step may be run again and then changes nothing.
//!
//! What a value means is the node's business; here it is text and bytes.

mod upkeep;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bitcoin::Txid;
use sqlx::any::AnyRow;

use super::node_parts;
use super::owners::{self, Ownership};
use super::row::Columns;
use super::{Conn, StoreError, Tx, Write, node_commits, node_sends};
use crate::clock::Timestamp;
use crate::domain::lightning::{PaymentHash, PaymentId, Preimage};
use crate::domain::movement::Movement;
use crate::ids::RequestId;
use crate::money::{Amount, Sat};

pub use upkeep::{Hour, untold_hours};

/// One step of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The number of this commit, and of the one before it.
    Counted {
        from: i64,
        to: i64,
    },
    /// So many commits are there.
    Proven(i64),
    Put {
        space: &'static str,
        name: String,
        value: Vec<u8>,
    },
    Remove {
        space: &'static str,
        name: String,
    },
    /// A whole monitor. The updates up to this number are in it, and go.
    PutMonitor {
        monitor: String,
        value: Vec<u8>,
        through: i64,
    },
    PutUpdate {
        monitor: String,
        number: i64,
        value: Vec<u8>,
    },
    /// A channel that is over: kept, not loaded any more.
    ArchiveMonitor {
        monitor: String,
    },
    Wallet {
        number: i64,
        value: String,
    },
    /// One change instead of all up to its number.
    WalletCompacted {
        number: i64,
        value: String,
    },
    /// Coins that were sent for a request.
    Sent(NewSend),
    /// They were sent by another version from now on.
    Bumped {
        id: RequestId,
        replaces: Txid,
        txid: Txid,
        fee: Sat,
    },
    Payment(NewPayment),
    PaymentQueued(PaymentId),
    PaymentPending(PaymentId),
    /// Wins over every other state. What left the node for it, where the node can tell.
    PaymentSent {
        id: PaymentId,
        preimage: Preimage,
        cost: Option<Amount>,
    },
    /// A payment goes out in parts.
    Parts(PaymentId),
    /// The payee took one of them.
    PartClaimed {
        id: PaymentId,
        /// Told again, it is the same part.
        part: String,
        cost: Amount,
    },
    /// None of them is out any more.
    PartsOver(PaymentId),
    /// Loses against `sent`.
    PaymentFailed {
        id: PaymentId,
        failure: &'static str,
    },
    Arrived(Arrival),
    Claiming {
        hash: PaymentHash,
        preimage: Preimage,
    },
    Claimed {
        hash: PaymentHash,
        part: String,
        amount: Amount,
    },
    Failing(PaymentHash),
    /// What was to be failed is failed. What arrived meanwhile is not meant.
    Failed(PaymentHash),
    /// What was held is gone, for whatever reason.
    Gone(PaymentHash),
    Cancelled(PaymentHash),
    Peer {
        id: String,
        address: String,
    },
    /// Something that happened to the node's own money. Told again it changes nothing.
    Movement(Movement),
    /// What was earned by forwarding within an hour since 1970, all together, and how much of that is told. In millisatoshi.
    Earned(Hour),
    /// What came to nothing before this, and belongs to no invoice, is forgotten.
    ForgetReceipts(Timestamp),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPayment {
    pub id: PaymentId,
    pub hash: PaymentHash,
    /// `queued` or `pending`.
    pub state: &'static str,
    pub destination: String,
    pub amount: Amount,
    pub max_fee: Amount,
}

/// Coins of the node's own that were sent for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSend {
    pub id: RequestId,
    pub txid: Txid,
    pub address: String,
    pub amount: Sat,
    pub fee: Sat,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub hash: PaymentHash,
    pub part: String,
    pub amount: Amount,
    pub claim_before: Option<u32>,
    pub preimage: Option<Preimage>,
    pub offer: Option<String>,
}

/// Everything that the node has to make durable before it speaks to anybody again.
#[derive(Clone, Debug)]
pub struct Commit {
    pub owner: Ownership,
    pub steps: Arc<Vec<Step>>,
}

#[async_trait]
impl Write for Commit {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        owners::fence(tx, &self.owner).await?;
        for step in self.steps.iter() {
            run_step(tx, step).await?;
        }
        Ok(())
    }
}

async fn run_step(tx: &mut Tx<'_>, step: &Step) -> Result<(), StoreError> {
    match step {
        Step::Counted { from, to } => node_commits::count(tx, *from, *to).await,
        Step::Proven(number) => node_commits::prove(tx, *number).await,
        Step::Put { space, name, value } => put(tx, space, name, &BASE64.encode(value)).await,
        Step::Remove { space, name } => {
            let sql = "DELETE FROM node_state WHERE space = $1 AND name = $2";
            run(tx, sqlx::query(sql).bind(*space).bind(name.clone())).await
        }
        Step::PutMonitor { monitor, value, through } => {
            put(tx, MONITORS, monitor, &BASE64.encode(value)).await?;
            let sql = "DELETE FROM node_updates WHERE monitor = $1 AND number <= $2";
            run(tx, sqlx::query(sql).bind(monitor.clone()).bind(*through)).await
        }
        Step::PutUpdate { monitor, number, value } => {
            let sql = "INSERT INTO node_updates (monitor, number, value) VALUES ($1, $2, $3) \
                       ON CONFLICT (monitor, number) DO UPDATE SET value = excluded.value";
            run(tx, sqlx::query(sql).bind(monitor.clone()).bind(*number).bind(BASE64.encode(value))).await
        }
        Step::ArchiveMonitor { monitor } => archive(tx, monitor).await,
        Step::Wallet { number, value } => put_wallet(tx, *number, value).await,
        Step::WalletCompacted { number, value } => {
            run(tx, sqlx::query("DELETE FROM node_wallet WHERE number < $1").bind(*number)).await?;
            put_wallet(tx, *number, value).await
        }
        Step::Sent(new) => node_sends::insert(tx, new).await,
        Step::Bumped { id, replaces, txid, fee } => node_sends::bumped(tx, *id, *replaces, *txid, *fee).await,
        Step::Payment(_) | Step::PaymentQueued(_) | Step::PaymentPending(_) | Step::PaymentFailed { .. } => {
            run_payment(tx, step).await
        }
        Step::PaymentSent { id, preimage, cost } => node_parts::sent(tx, *id, *preimage, *cost).await,
        Step::Parts(id) => node_parts::begin(tx, *id).await,
        Step::PartClaimed { id, part, cost } => node_parts::claimed(tx, *id, part, *cost).await,
        Step::PartsOver(id) => node_parts::over(tx, *id).await,
        Step::Arrived(_)
        | Step::Claiming { .. }
        | Step::Claimed { .. }
        | Step::Failing(_)
        | Step::Failed(_)
        | Step::Gone(_)
        | Step::Cancelled(_) => run_receipt(tx, step).await,
        Step::Movement(movement) => tell(tx, movement).await,
        Step::Earned(hour) => upkeep::put_hour(tx, *hour).await,
        Step::ForgetReceipts(before) => upkeep::forget_receipts(tx, *before).await,
        Step::Peer { id, address } => {
            let sql = "INSERT INTO node_peers (id, address, updated_at) VALUES ($1, $2, $3) \
                       ON CONFLICT (id) DO UPDATE SET address = excluded.address, updated_at = excluded.updated_at";
            let now = tx.now().millis();
            run(tx, sqlx::query(sql).bind(id.clone()).bind(address.clone()).bind(now)).await
        }
    }
}

/// Where whole monitors are, and where those go whose channel is over.
const MONITORS: &str = "monitor";
const ARCHIVE: &str = "archive";

type Query<'q> = sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments>;

async fn run(tx: &mut Tx<'_>, query: Query<'_>) -> Result<(), StoreError> {
    query.execute(tx.conn()).await?;
    Ok(())
}

async fn put(tx: &mut Tx<'_>, space: &str, name: &str, value: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO node_state (space, name, value) VALUES ($1, $2, $3) \
               ON CONFLICT (space, name) DO UPDATE SET value = excluded.value";
    run(tx, sqlx::query(sql).bind(space.to_owned()).bind(name.to_owned()).bind(value.to_owned())).await
}

async fn put_wallet(tx: &mut Tx<'_>, number: i64, value: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO node_wallet (number, value) VALUES ($1, $2) \
               ON CONFLICT (number) DO UPDATE SET value = excluded.value";
    run(tx, sqlx::query(sql).bind(number).bind(value.to_owned())).await
}

async fn archive(tx: &mut Tx<'_>, monitor: &str) -> Result<(), StoreError> {
    let moved = "INSERT INTO node_state (space, name, value) \
                 SELECT $1, name, value FROM node_state WHERE space = $2 AND name = $3 \
                 ON CONFLICT (space, name) DO NOTHING";
    run(tx, sqlx::query(moved).bind(ARCHIVE).bind(MONITORS).bind(monitor.to_owned())).await?;
    let gone = "DELETE FROM node_state WHERE space = $1 AND name = $2";
    run(tx, sqlx::query(gone).bind(MONITORS).bind(monitor.to_owned())).await
}

/// The node is the only writer, so the next number is its to take.
pub(super) async fn tell(tx: &mut Tx<'_>, movement: &Movement) -> Result<(), StoreError> {
    let now = tx.now().millis();
    let data = serde_json::to_string(movement).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let sql = "INSERT INTO node_movements (number, key, data, created_at) \
               SELECT COALESCE(MAX(number), 0) + 1, $1, $2, $3 FROM node_movements WHERE 1 = 1 ON CONFLICT (key) DO NOTHING";
    run(tx, sqlx::query(sql).bind(movement.key()).bind(data).bind(now)).await
}

async fn run_payment(tx: &mut Tx<'_>, step: &Step) -> Result<(), StoreError> {
    let now = tx.now().millis();
    match step {
        Step::Payment(new) => insert_payment(tx, new).await,
        Step::PaymentQueued(id) => move_payment(tx, *id, "queued").await,
        Step::PaymentPending(id) => move_payment(tx, *id, "pending").await,
        Step::PaymentFailed { id, failure } => {
            let sql = "UPDATE node_payments SET state = 'failed', failure = $1, destination = '', updated_at = $2 \
                       WHERE id = $3 AND state IN ('queued', 'pending')";
            run(tx, sqlx::query(sql).bind(*failure).bind(now).bind(id.to_string())).await
        }
        _ => Ok(()),
    }
}

async fn insert_payment(tx: &mut Tx<'_>, new: &NewPayment) -> Result<(), StoreError> {
    let now = tx.now().millis();
    let sql = "INSERT INTO node_payments (id, hash, state, destination, amount, max_fee, created_at, updated_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $7) ON CONFLICT (id) DO NOTHING";
    let query = sqlx::query(sql)
        .bind(new.id.to_string())
        .bind(new.hash.to_string())
        .bind(new.state)
        .bind(new.destination.clone())
        .bind(new.amount.as_bigint())
        .bind(new.max_fee.as_bigint());
    run(tx, query.bind(now)).await
}

async fn move_payment(tx: &mut Tx<'_>, id: PaymentId, state: &'static str) -> Result<(), StoreError> {
    let sql = "UPDATE node_payments SET state = $1, updated_at = $2 WHERE id = $3 AND state IN ('queued', 'pending')";
    let now = tx.now().millis();
    run(tx, sqlx::query(sql).bind(state).bind(now).bind(id.to_string())).await
}

async fn run_receipt(tx: &mut Tx<'_>, step: &Step) -> Result<(), StoreError> {
    let now = tx.now().millis();
    match step {
        Step::Arrived(arrival) => insert_receipt(tx, arrival).await,
        Step::Claiming { hash, preimage } => {
            let sql = "UPDATE node_receipts SET state = 'claiming', preimage = $1, updated_at = $2 \
                       WHERE hash = $3 AND state = 'held'";
            run(tx, sqlx::query(sql).bind(preimage.to_string()).bind(now).bind(hash.to_string())).await
        }
        Step::Claimed { hash, part, amount } => {
            let sql = "INSERT INTO node_receipts (hash, part, state, amount, created_at, updated_at) \
                       VALUES ($1, $2, 'claimed', $3, $4, $4) ON CONFLICT (hash, part) DO UPDATE \
                       SET state = 'claimed', amount = excluded.amount, updated_at = excluded.updated_at";
            let query = sqlx::query(sql).bind(hash.to_string()).bind(part.clone());
            run(tx, query.bind(amount.as_bigint()).bind(now)).await
        }
        Step::Failing(hash) => {
            let sql = "UPDATE node_receipts SET state = 'failing', updated_at = $1 WHERE hash = $2 AND state = 'held'";
            run(tx, sqlx::query(sql).bind(now).bind(hash.to_string())).await
        }
        Step::Failed(hash) => {
            let sql =
                "UPDATE node_receipts SET state = 'failed', updated_at = $1 WHERE hash = $2 AND state = 'failing'";
            run(tx, sqlx::query(sql).bind(now).bind(hash.to_string())).await
        }
        Step::Gone(hash) => {
            let sql = "UPDATE node_receipts SET state = 'failed', updated_at = $1 \
                       WHERE hash = $2 AND state IN ('held', 'claiming', 'failing')";
            run(tx, sqlx::query(sql).bind(now).bind(hash.to_string())).await
        }
        Step::Cancelled(hash) => {
            let sql = "INSERT INTO node_cancelled (hash, created_at) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING";
            run(tx, sqlx::query(sql).bind(hash.to_string()).bind(now)).await
        }
        _ => Ok(()),
    }
}

/// The same arrival may be told again; what became of it since stays.
async fn insert_receipt(tx: &mut Tx<'_>, arrival: &Arrival) -> Result<(), StoreError> {
    let now = tx.now().millis();
    let sql = "INSERT INTO node_receipts (hash, part, state, amount, claim_before, preimage, offer, created_at, updated_at) \
               VALUES ($1, $2, 'held', $3, $4, $5, $6, $7, $7) ON CONFLICT (hash, part) DO NOTHING";
    let query = sqlx::query(sql)
        .bind(arrival.hash.to_string())
        .bind(arrival.part.clone())
        .bind(arrival.amount.as_bigint())
        .bind(arrival.claim_before.map(i64::from))
        .bind(arrival.preimage.map(|preimage| preimage.to_string()))
        .bind(arrival.offer.clone());
    run(tx, query.bind(now)).await
}

/// A payment as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentRow {
    pub id: PaymentId,
    pub hash: PaymentHash,
    pub state: String,
    pub destination: String,
    pub amount: Amount,
    pub max_fee: Amount,
    pub created_at: Timestamp,
    pub preimage: Option<Preimage>,
    pub fee: Option<Amount>,
    pub failure: Option<String>,
}

/// Something that arrived, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptRow {
    pub hash: PaymentHash,
    pub state: String,
    pub amount: Amount,
    pub claim_before: Option<u32>,
    pub preimage: Option<Preimage>,
    pub offer: Option<String>,
}

fn read_payment(row: &AnyRow) -> Result<PaymentRow, StoreError> {
    Ok(PaymentRow {
        id: row.parsed("id")?,
        hash: row.parsed("hash")?,
        state: row.take("state")?,
        destination: row.take("destination")?,
        amount: amount(row, "amount")?,
        max_fee: amount(row, "max_fee")?,
        created_at: row.time("created_at")?,
        preimage: row.parsed_opt("preimage")?,
        fee: row
            .number_opt::<u64>("fee")?
            .map(|msat| Amount::from_msat(msat).map_err(|_| corrupt("fee")))
            .transpose()?,
        failure: row.take("failure")?,
    })
}

fn read_receipt(row: &AnyRow) -> Result<ReceiptRow, StoreError> {
    Ok(ReceiptRow {
        hash: row.parsed("hash")?,
        state: row.take("state")?,
        amount: amount(row, "amount")?,
        claim_before: row.number_opt("claim_before")?,
        preimage: row.parsed_opt("preimage")?,
        offer: row.take("offer")?,
    })
}

fn amount(row: &AnyRow, column: &str) -> Result<Amount, StoreError> {
    Amount::from_bigint(row.take(column)?).map_err(|_| corrupt(column))
}

fn corrupt(column: &str) -> StoreError {
    StoreError::Corrupt(format!("column {column} of the node makes no sense"))
}

fn decode(text: &str) -> Result<Vec<u8>, StoreError> {
    BASE64.decode(text).map_err(|_| corrupt("value"))
}

/// # Errors
/// When the database can't answer or the value is corrupt.
pub async fn value(conn: &mut Conn, space: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let text: Option<String> = sqlx::query_scalar("SELECT value FROM node_state WHERE space = $1 AND name = $2")
        .bind(space.to_owned())
        .bind(name.to_owned())
        .fetch_optional(conn)
        .await?;
    text.as_deref().map(decode).transpose()
}

/// Every monitor that is not archived, by its name.
///
/// # Errors
/// When the database can't answer or a value is corrupt.
pub async fn monitors(conn: &mut Conn) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    values(conn, MONITORS).await
}

/// Everything of a space, by name.
///
/// # Errors
/// When the database can't answer or a value is corrupt.
pub async fn values(conn: &mut Conn, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let rows = sqlx::query("SELECT name, value FROM node_state WHERE space = $1 ORDER BY name")
        .bind(space.to_owned())
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| Ok((row.take("name")?, decode(&row.take::<String>("value")?)?))).collect()
}

/// What happened to the node's own money after a number, in order.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn movements(conn: &mut Conn, after: i64, limit: u32) -> Result<Vec<(i64, Movement)>, StoreError> {
    let sql = "SELECT number, data FROM node_movements WHERE number > $1 ORDER BY number LIMIT $2";
    read_movements(conn, sql, after, limit).await
}

/// The same without what was earned by forwarding, of which there is far more than of all else.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn movements_of_coins(conn: &mut Conn, after: i64, limit: u32) -> Result<Vec<(i64, Movement)>, StoreError> {
    let sql = "SELECT number, data FROM node_movements WHERE number > $1 AND key NOT LIKE 'forwarded:%' ORDER BY number LIMIT $2";
    read_movements(conn, sql, after, limit).await
}

async fn read_movements(
    conn: &mut Conn,
    sql: &'static str,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, Movement)>, StoreError> {
    let rows = sqlx::query(sql).bind(after).bind(i64::from(limit)).fetch_all(conn).await?;
    let read = |text: String| serde_json::from_str(&text).map_err(|_| corrupt("data"));
    rows.iter().map(|row| Ok((row.take("number")?, read(row.take("data")?)?))).collect()
}

/// The updates of a monitor since it was stored whole, in order.
///
/// # Errors
/// When the database can't answer or a value is corrupt.
pub async fn updates(conn: &mut Conn, monitor: &str) -> Result<Vec<Vec<u8>>, StoreError> {
    let texts: Vec<String> = sqlx::query_scalar("SELECT value FROM node_updates WHERE monitor = $1 ORDER BY number")
        .bind(monitor.to_owned())
        .fetch_all(conn)
        .await?;
    texts.iter().map(|text| decode(text)).collect()
}

/// The changes of the node's wallet, in order, and their numbers.
///
/// # Errors
/// When the database can't answer.
pub async fn wallet(conn: &mut Conn) -> Result<Vec<(i64, String)>, StoreError> {
    let rows = sqlx::query("SELECT number, value FROM node_wallet ORDER BY number").fetch_all(conn).await?;
    rows.iter().map(|row| Ok((row.take("number")?, row.take("value")?))).collect()
}

/// Peers and where they were reached.
///
/// # Errors
/// When the database can't answer.
pub async fn peers(conn: &mut Conn) -> Result<Vec<(String, String)>, StoreError> {
    let rows = sqlx::query("SELECT id, address FROM node_peers").fetch_all(conn).await?;
    rows.iter().map(|row| Ok((row.take("id")?, row.take("address")?))).collect()
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn payment(conn: &mut Conn, id: PaymentId) -> Result<Option<PaymentRow>, StoreError> {
    let row =
        sqlx::query("SELECT * FROM node_payments WHERE id = $1").bind(id.to_string()).fetch_optional(conn).await?;
    row.as_ref().map(read_payment).transpose()
}

/// Whether a payment for this hash has arrived.
///
/// # Errors
/// When the database can't answer.
pub async fn was_sent(conn: &mut Conn, hash: PaymentHash) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT id FROM node_payments WHERE hash = $1 AND state = 'sent' LIMIT 1")
        .bind(hash.to_string())
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some())
}

/// Payments that have not ended, oldest first.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn open_payments(conn: &mut Conn) -> Result<Vec<PaymentRow>, StoreError> {
    let sql = "SELECT * FROM node_payments WHERE state IN ('queued', 'pending') ORDER BY created_at, id";
    let rows = sqlx::query(sql).fetch_all(conn).await?;
    rows.iter().map(read_payment).collect()
}

/// Everything that ever arrived for a hash.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn receipts(conn: &mut Conn, hash: PaymentHash) -> Result<Vec<ReceiptRow>, StoreError> {
    let sql = "SELECT * FROM node_receipts WHERE hash = $1 ORDER BY created_at, part";
    let rows = sqlx::query(sql).bind(hash.to_string()).fetch_all(conn).await?;
    rows.iter().map(read_receipt).collect()
}

/// Everything that is held, or is on its way from there.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn open_receipts(conn: &mut Conn) -> Result<Vec<ReceiptRow>, StoreError> {
    let sql = "SELECT * FROM node_receipts WHERE state IN ('held', 'claiming', 'failing') ORDER BY created_at, hash";
    let rows = sqlx::query(sql).fetch_all(conn).await?;
    rows.iter().map(read_receipt).collect()
}

/// Hashes that were cancelled since then.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn cancelled(conn: &mut Conn, since: Timestamp) -> Result<Vec<PaymentHash>, StoreError> {
    let rows = sqlx::query("SELECT hash FROM node_cancelled WHERE created_at >= $1")
        .bind(since.millis())
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| row.parsed("hash")).collect()
}
