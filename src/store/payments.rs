//! The lines of Lightning payments: lists are read from them, and requests found by their hash. Only `apply` writes them.

use sqlx::any::AnyRow;

use super::batch::Batch;
use super::row::Columns;
use super::{Conn, PAGE_MAX, StoreError};
use crate::clock::Timestamp;
use crate::domain::lightning::PaymentHash;
use crate::domain::pay::Pay;
use crate::domain::{LineStatus, Machine, PaymentLine, Request};
use crate::ids::{RequestId, WalletId};
use crate::money::Amount;

use super::requests::{self, PageAfter};

/// A line as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub request: RequestId,
    pub wallet: WalletId,
    pub line: PaymentLine,
    /// The node that is paid, where a list was asked for and the invoice tells.
    pub payee: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A hash that has an invoice already is a conflict.
pub(super) fn insert<M: Machine>(batch: &mut Batch, request: &Request<M>) {
    let Some(line) = request.machine.payment_line() else { return };
    batch.add(
        "INSERT INTO payments (request_id, wallet_id, payment_hash, inbound, status, amount_msat, created_at, updated_at, asked_msat) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        [
            request.id.to_string().into(),
            request.wallet.to_string().into(),
            line.hash.to_string().into(),
            i64::from(line.inbound).into(),
            line.status.as_str().into(),
            line.amount.map(Amount::as_bigint).into(),
            request.created_at.millis().into(),
            request.updated_at.millis().into(),
            line.amount.filter(|_| line.inbound).map(Amount::as_bigint).into(),
        ],
        StoreError::Conflict("the payment hash"),
    );
}

pub(super) fn update<M: Machine>(batch: &mut Batch, request: &Request<M>) {
    let Some(line) = request.machine.payment_line() else { return };
    batch.add(
        "UPDATE payments SET status = $1, amount_msat = $2, updated_at = $3 WHERE request_id = $4",
        [
            line.status.as_str().into(),
            line.amount.map(Amount::as_bigint).into(),
            request.updated_at.millis().into(),
            request.id.to_string().into(),
        ],
        StoreError::Corrupt(format!("payment {} has no line", request.id)),
    );
}

/// The request that made the invoice of this hash.
///
/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn receive_of(conn: &mut Conn, hash: PaymentHash) -> Result<Option<RequestId>, StoreError> {
    let row = sqlx::query("SELECT request_id FROM payments WHERE payment_hash = $1 AND inbound = 1")
        .bind(hash.to_string())
        .fetch_optional(conn)
        .await?;
    row.map(|row| row.parsed("request_id")).transpose()
}

/// The request that pays this hash with its owner's consent, or has paid it. There is at most one: what waits for a signature or came
/// to nothing is not looked at.
///
/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn consented_pay_of(conn: &mut Conn, hash: PaymentHash) -> Result<Option<Listed>, StoreError> {
    let row = sqlx::query(
        "SELECT * FROM payments WHERE payment_hash = $1 AND inbound = 0 AND status IN ('pending', 'succeeded')",
    )
    .bind(hash.to_string())
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(read).transpose()
}

/// What a list of payments is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct PaymentFilter {
    pub status: Option<LineStatus>,
    pub inbound: Option<bool>,
    pub min_amount: Option<Amount>,
    pub max_amount: Option<Amount>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub hash: Option<PaymentHash>,
}

/// A page of a wallet's payments, newest first. What was never consented to is no payment.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn page(
    conn: &mut Conn,
    wallet: &WalletId,
    filter: &PaymentFilter,
    after: Option<PageAfter>,
    limit: u32,
) -> Result<Vec<Listed>, StoreError> {
    let cursor = after.map(|a| (a.created_at.millis(), a.id.to_string()));
    let until = filter.until.map(|until| (until.millis(), String::new()));
    let (before, before_id) = cursor.into_iter().chain(until).min().unwrap_or_else(|| (i64::MAX, String::new()));
    let rows = sqlx::query(
        "SELECT p.*, CASE WHEN p.inbound = 0 THEN r.data END AS data FROM payments p JOIN requests r ON r.id = p.request_id \
         WHERE p.wallet_id = $1 AND p.status IN ('pending', 'succeeded', 'failed') \
         AND (p.created_at, p.request_id) < ($2, $3) AND p.created_at >= $4 \
         AND ($5 = '' OR p.status = $5) AND ($6 < 0 OR p.inbound = $6) \
         AND ($7 <= 0 OR p.amount_msat >= $7) AND ($8 < 0 OR p.amount_msat <= $8) AND ($9 = '' OR p.payment_hash = $9) \
         ORDER BY p.created_at DESC, p.request_id DESC LIMIT $10",
    )
    .bind(wallet.to_string())
    .bind(before)
    .bind(before_id)
    .bind(filter.since.map_or(i64::MIN, Timestamp::millis))
    .bind(filter.status.map_or("", LineStatus::as_str))
    .bind(filter.inbound.map_or(-1, i64::from))
    .bind(filter.min_amount.map_or(0, Amount::as_bigint))
    .bind(filter.max_amount.map_or(-1, Amount::as_bigint))
    .bind(filter.hash.map(|hash| hash.to_string()).unwrap_or_default())
    .bind(i64::from(limit.min(PAGE_MAX)))
    .fetch_all(conn)
    .await?;
    rows.iter().map(listed).collect()
}

fn listed(row: &AnyRow) -> Result<Listed, StoreError> {
    let pay = row.take::<Option<String>>("data")?.map(|data| requests::decode::<Pay>(&data)).transpose()?;
    Ok(Listed { payee: pay.and_then(|pay| pay.terms.payee), ..read(row)? })
}

fn read(row: &AnyRow) -> Result<Listed, StoreError> {
    let status = match row.take::<String>("status")?.as_str() {
        "waiting" => LineStatus::Waiting,
        "pending" => LineStatus::Pending,
        "succeeded" => LineStatus::Succeeded,
        "failed" => LineStatus::Failed,
        "void" => LineStatus::Void,
        other => return Err(StoreError::Corrupt(format!("a payment has the unknown status {other}"))),
    };
    let amount = row.take::<Option<i64>>("amount_msat")?.map(Amount::from_bigint).transpose();
    let line = PaymentLine {
        hash: row.parsed("payment_hash")?,
        inbound: row.take::<i64>("inbound")? == 1,
        status,
        amount: amount.map_err(|_| StoreError::Corrupt("a payment has a negative amount".to_owned()))?,
    };
    Ok(Listed {
        request: row.parsed("request_id")?,
        wallet: row.parsed("wallet_id")?,
        line,
        payee: None,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}
