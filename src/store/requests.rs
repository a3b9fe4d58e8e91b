//! Rows of requests: every send, receive and deposit has one here. Only `apply` changes them.

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::batch::Batch;
use super::row::Columns;
use super::{Conn, PAGE_MAX, StoreError};
use crate::clock::Timestamp;
use crate::domain::address::ReceiveAddress;
use crate::domain::asset_receive::AssetReceive;
use crate::domain::credit::Credit;
use crate::domain::deposit::Deposit;
use crate::domain::lightning::PaymentHash;
use crate::domain::onchain_send::OnchainSend;
use crate::domain::pay::Pay;
use crate::domain::receive::Receive;
use crate::domain::withdraw::Withdraw;
use crate::domain::{Machine, Request};
use crate::ids::{RequestId, WalletId};

/// The form that machines are stored in now. A reader of a newer form than it knows refuses it.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored<M> {
    format: u32,
    machine: M,
}

fn encode<M: Machine>(machine: &M) -> Result<String, StoreError> {
    serde_json::to_string(&Stored { format: FORMAT, machine: machine.clone() })
        .map_err(|e| StoreError::Corrupt(format!("a request can't be written: {e}")))
}

pub(super) fn decode<M: Machine>(text: &str) -> Result<M, StoreError> {
    let stored: Stored<M> =
        serde_json::from_str(text).map_err(|e| StoreError::Corrupt(format!("a {} can't be read: {e}", M::KIND)))?;
    if stored.format == FORMAT {
        Ok(stored.machine)
    } else {
        Err(StoreError::Corrupt(format!("a {} has the unknown format {}", M::KIND, stored.format)))
    }
}

/// A request whose kind is only known from its row.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyRequest {
    Address(Request<ReceiveAddress>),
    Send(Request<OnchainSend>),
    Deposit(Request<Deposit>),
    Receive(Request<Receive>),
    Pay(Request<Pay>),
    Credit(Request<Credit>),
    Withdraw(Request<Withdraw>),
    AssetReceive(Request<AssetReceive>),
}

pub(super) fn insert<M: Machine>(batch: &mut Batch, request: &Request<M>) -> Result<(), StoreError> {
    batch.add(
        "INSERT INTO requests (id, wallet_id, kind, state, is_open, data, reference, label, created_at, updated_at, expires_at, version) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (id) DO NOTHING",
        [
            request.id.to_string().into(),
            request.wallet.to_string().into(),
            M::KIND.into(),
            request.machine.state().into(),
            i64::from(request.machine.is_open()).into(),
            encode(&request.machine)?.into(),
            request.reference.clone().into(),
            request.label.clone().into(),
            request.created_at.millis().into(),
            request.updated_at.millis().into(),
            request.expires_at.map(Timestamp::millis).into(),
            request.version.into(),
        ],
        StoreError::Conflict("the request's id"),
    );
    Ok(())
}

/// Writes a request as it is now, if nobody wrote it since it was read.
pub(super) fn compare_and_swap<M: Machine>(batch: &mut Batch, after: &Request<M>) -> Result<(), StoreError> {
    batch.add(
        "UPDATE requests SET state = $1, is_open = $2, data = $3, updated_at = $4, version = $5 \
         WHERE id = $6 AND version = $7 AND kind = $8",
        [
            after.machine.state().into(),
            i64::from(after.machine.is_open()).into(),
            encode(&after.machine)?.into(),
            after.updated_at.millis().into(),
            after.version.into(),
            after.id.to_string().into(),
            (after.version - 1).into(),
            M::KIND.into(),
        ],
        StoreError::Conflict("the request"),
    );
    Ok(())
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn load<M: Machine>(conn: &mut Conn, id: RequestId) -> Result<Option<Request<M>>, StoreError> {
    let row = sqlx::query("SELECT * FROM requests WHERE id = $1 AND kind = $2")
        .bind(id.to_string())
        .bind(M::KIND)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(read::<M>).transpose()
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn load_any(conn: &mut Conn, id: RequestId) -> Result<Option<AnyRequest>, StoreError> {
    let row = sqlx::query("SELECT * FROM requests WHERE id = $1").bind(id.to_string()).fetch_optional(conn).await?;
    row.as_ref().map(read_any).transpose()
}

/// The request that made the invoice of this hash.
///
/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn receive_of(conn: &mut Conn, hash: PaymentHash) -> Result<Option<Request<Receive>>, StoreError> {
    let row = sqlx::query(
        "SELECT r.* FROM payments p JOIN requests r ON r.id = p.request_id WHERE p.payment_hash = $1 AND p.inbound = 1",
    )
    .bind(hash.to_string())
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(read).transpose()
}

fn read<M: Machine>(row: &AnyRow) -> Result<Request<M>, StoreError> {
    Ok(Request {
        id: row.parsed("id")?,
        wallet: row.parsed("wallet_id")?,
        reference: row.take("reference")?,
        label: row.take("label")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
        expires_at: row.time_opt("expires_at")?,
        version: row.take("version")?,
        machine: decode(&row.take::<String>("data")?)?,
    })
}

fn read_any(row: &AnyRow) -> Result<AnyRequest, StoreError> {
    match row.take::<String>("kind")?.as_str() {
        ReceiveAddress::KIND => Ok(AnyRequest::Address(read(row)?)),
        OnchainSend::KIND => Ok(AnyRequest::Send(read(row)?)),
        Deposit::KIND => Ok(AnyRequest::Deposit(read(row)?)),
        Receive::KIND => Ok(AnyRequest::Receive(read(row)?)),
        Pay::KIND => Ok(AnyRequest::Pay(read(row)?)),
        Credit::KIND => Ok(AnyRequest::Credit(read(row)?)),
        Withdraw::KIND => Ok(AnyRequest::Withdraw(read(row)?)),
        AssetReceive::KIND => Ok(AnyRequest::AssetReceive(read(row)?)),
        other => Err(StoreError::Corrupt(format!("a request has the unknown kind {other}"))),
    }
}

/// Where a page of a list begins: after this entry. Lists are newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageAfter {
    pub created_at: Timestamp,
    pub id: RequestId,
}

/// What a list of requests is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub state: Option<String>,
    pub reference: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// A page of a wallet's requests of one kind, newest first.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn page<M: Machine>(
    conn: &mut Conn,
    wallet: &WalletId,
    filter: &Filter,
    after: Option<PageAfter>,
    limit: u32,
) -> Result<Vec<Request<M>>, StoreError> {
    let cursor = after.map(|a| (a.created_at.millis(), a.id.to_string()));
    let until = filter.until.map(|until| (until.millis(), String::new()));
    // One bound for both, as a row value: the index is entered there, however far back that is.
    let (before, before_id) = cursor.into_iter().chain(until).min().unwrap_or_else(|| (i64::MAX, String::new()));
    let rows = sqlx::query(
        "SELECT * FROM requests WHERE wallet_id = $1 AND kind = $2 \
         AND (created_at, id) < ($3, $4) AND created_at >= $5 \
         AND ($6 = '' OR state = $6) AND ($7 = '' OR reference = $7) \
         ORDER BY created_at DESC, id DESC LIMIT $8",
    )
    .bind(wallet.to_string())
    .bind(M::KIND)
    .bind(before)
    .bind(before_id)
    .bind(filter.since.map_or(i64::MIN, Timestamp::millis))
    .bind(filter.state.clone().unwrap_or_default())
    .bind(filter.reference.clone().unwrap_or_default())
    .bind(i64::from(limit.min(PAGE_MAX)))
    .fetch_all(conn)
    .await?;
    rows.iter().map(read::<M>).collect()
}

/// The newest address of a wallet that was handed out as "the current one" and is still unused.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn current_address(
    conn: &mut Conn,
    wallet: &WalletId,
    now: Timestamp,
) -> Result<Option<Request<ReceiveAddress>>, StoreError> {
    let row = sqlx::query(
        "SELECT * FROM requests WHERE wallet_id = $1 AND kind = 'onchain_receive' AND state = 'open' \
         AND label IS NULL AND reference IS NULL AND (expires_at IS NULL OR expires_at > $2) \
         ORDER BY created_at DESC, id DESC LIMIT 1",
    )
    .bind(wallet.to_string())
    .bind(now.millis())
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(read).transpose()
}

/// Requests whose time is over and that still wait, oldest first.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn overdue(conn: &mut Conn, now: Timestamp, limit: u32) -> Result<Vec<(RequestId, String)>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, kind FROM requests WHERE state IN ('open', 'awaiting_signature') AND expires_at <= $1 \
         ORDER BY expires_at LIMIT $2",
    )
    .bind(now.millis())
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok((row.parsed("id")?, row.take("kind")?))).collect()
}

/// Lightning requests whose next step is the node's.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn waiting_for_node(conn: &mut Conn) -> Result<Vec<AnyRequest>, StoreError> {
    let rows = sqlx::query("SELECT * FROM requests WHERE state IN ('claiming', 'paying')").fetch_all(conn).await?;
    rows.iter().map(read_any).collect()
}

/// Sends of assets that are signed, and whose payees have not all accepted as far as the engine knows. One that is out already is
/// among them: its client sent it out, or a process died before it wrote down that the engine had.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn waiting_for_payees(conn: &mut Conn) -> Result<Vec<Request<OnchainSend>>, StoreError> {
    let waiting = sqlx::query("SELECT * FROM requests WHERE state = 'waiting_ack' ORDER BY updated_at");
    let mut rows = waiting.fetch_all(&mut *conn).await?;
    let out = sqlx::query(
        "SELECT r.* FROM requests r WHERE r.kind = 'onchain_send' AND r.state IN ('broadcast', 'seen', 'confirmed') AND r.id IN \
         (SELECT request_id FROM asset_transfers WHERE kind = 'send' AND status IN ('initiated', 'waiting_counterparty'))",
    );
    rows.extend(out.fetch_all(conn).await?);
    rows.iter().map(read).collect()
}

/// Sends, withdrawals, deposits and credits that are in a block and wait for it to be deep enough.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn not_yet_deep(conn: &mut Conn) -> Result<Vec<AnyRequest>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM requests WHERE (kind IN ('deposit', 'settle_credit') AND state = 'mined') OR (kind IN ('onchain_send', 'withdraw') AND state = 'seen')",
    )
    .fetch_all(conn)
    .await?;
    rows.iter().map(read_any).collect()
}
