//! Transfers of assets as the engine tells them, the blocks that they are in, and calls of the engine that are not written down yet.

use std::collections::HashSet;

use bitcoin::{OutPoint, Txid};
use sqlx::any::AnyRow;

use super::row::{Columns, parse};
use super::{Conn, StoreError, Tx};
use crate::ids::{RequestId, WalletId};
use crate::money::Amount;

/// What is shown of a transfer. Words are those of the engine's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferRow {
    pub index: i32,
    pub batch: i32,
    pub request: Option<RequestId>,
    pub kind: String,
    pub status: String,
    pub asset: Option<String>,
    pub requested: Option<Amount>,
    pub amounts: Vec<Amount>,
    pub txid: Option<Txid>,
    pub recipient: Option<String>,
    pub receive_coin: Option<OutPoint>,
    pub change_coin: Option<OutPoint>,
    /// Where its payee is told of it; empty where this call does not know.
    pub endpoints: Vec<String>,
    /// Seconds since 1970.
    pub created_at: i64,
    pub updated_at: i64,
    pub expires_at: Option<i64>,
    /// The block that it is in, as far as the gateway has seen that.
    pub height: Option<u32>,
    /// Its block is no longer part of the chain.
    pub reorged: bool,
}

/// A transfer whose transaction a block holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InBlock {
    pub txid: Txid,
    pub request: Option<RequestId>,
    pub is_receive: bool,
}

/// A consignment that was brought for an invoice of this gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brought {
    pub recipient: String,
    pub wallet: WalletId,
}

fn amount(units: i64) -> Result<Amount, StoreError> {
    Amount::from_bigint(units).map_err(|_| StoreError::Corrupt("an asset's amount is negative".to_owned()))
}

fn read(row: &AnyRow) -> Result<TransferRow, StoreError> {
    let coin = |name: &'static str| {
        let text: Option<String> = row.take(name)?;
        text.map(|text| parse::<OutPoint>(name, &text)).transpose()
    };
    let amounts: Vec<i64> = serde_json::from_str(&row.take::<String>("amounts")?)
        .map_err(|e| StoreError::Corrupt(format!("amounts of a transfer: {e}")))?;
    let text: Option<String> = row.take("txid")?;
    let request: Option<String> = row.take("request_id")?;
    Ok(TransferRow {
        index: row.number("idx")?,
        batch: row.number("batch")?,
        request: request.map(|text| parse("request_id", &text)).transpose()?,
        kind: row.take("kind")?,
        status: row.take("status")?,
        asset: row.take("asset_id")?,
        requested: row.take::<Option<i64>>("requested")?.map(amount).transpose()?,
        amounts: amounts.into_iter().map(amount).collect::<Result<_, _>>()?,
        txid: text.map(|text| parse("txid", &text)).transpose()?,
        recipient: row.take("recipient_id")?,
        receive_coin: coin("receive_coin")?,
        change_coin: coin("change_coin")?,
        endpoints: serde_json::from_str(&row.take::<String>("endpoints")?)
            .map_err(|e| StoreError::Corrupt(format!("endpoints of a transfer: {e}")))?,
        created_at: row.take("created_at")?,
        updated_at: row.take("updated_at")?,
        expires_at: row.take("expires_at")?,
        height: row.number_opt("height")?,
        reorged: row.take::<i64>("reorged")? == 1,
    })
}

/// What is written of a wallet's transfers, as far as it can change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The last of them; empty before the first.
    pub last: Option<i32>,
    /// Those that were neither settled nor failed.
    pub unfinished: HashSet<i32>,
}

impl Written {
    /// Whether there can be something new about a transfer. What is settled or failed stays so.
    #[must_use]
    pub fn may_change(&self, index: i32) -> bool {
        self.last.is_none_or(|last| index > last) || self.unfinished.contains(&index)
    }
}

/// The last transfer that is written; empty before the first.
///
/// # Errors
/// When the database can't answer.
pub async fn last(conn: &mut Conn, wallet: &WalletId) -> Result<Option<i32>, StoreError> {
    let last = sqlx::query("SELECT idx FROM asset_transfers WHERE wallet_id = $1 ORDER BY idx DESC LIMIT 1")
        .bind(wallet.to_string())
        .fetch_optional(conn)
        .await?;
    last.map(|row| row.number("idx")).transpose()
}

/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn written(conn: &mut Conn, wallet: &WalletId) -> Result<Written, StoreError> {
    let last = last(conn, wallet).await?;
    let unfinished = sqlx::query(
        "SELECT idx FROM asset_transfers WHERE wallet_id = $1 \
         AND status IN ('initiated', 'waiting_counterparty', 'waiting_confirmations')",
    )
    .bind(wallet.to_string())
    .fetch_all(conn)
    .await?;
    Ok(Written { last, unfinished: unfinished.iter().map(|row| row.number("idx")).collect::<Result<_, _>>()? })
}

/// Writes a transfer as the engine tells it. Its request, once known, and what the chain tells of it stay.
///
/// # Errors
/// When the database can't do it.
pub async fn upsert(tx: &mut Tx<'_>, wallet: &WalletId, row: &TransferRow) -> Result<(), StoreError> {
    let amounts: Vec<i64> = row.amounts.iter().map(|amount| amount.as_bigint()).collect();
    let amounts = serde_json::to_string(&amounts).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    let endpoints = serde_json::to_string(&row.endpoints).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    sqlx::query(
        "INSERT INTO asset_transfers (wallet_id, idx, batch, request_id, kind, status, asset_id, requested, amounts, txid, \
         recipient_id, receive_coin, change_coin, created_at, updated_at, expires_at, endpoints, height, reorged) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, NULL, 0) \
         ON CONFLICT (wallet_id, idx) DO UPDATE SET status = excluded.status, asset_id = excluded.asset_id, \
         requested = excluded.requested, amounts = excluded.amounts, txid = excluded.txid, receive_coin = excluded.receive_coin, \
         change_coin = excluded.change_coin, updated_at = excluded.updated_at, expires_at = excluded.expires_at, \
         request_id = COALESCE(asset_transfers.request_id, excluded.request_id), \
         endpoints = CASE excluded.endpoints WHEN '[]' THEN asset_transfers.endpoints ELSE excluded.endpoints END",
    )
    .bind(wallet.to_string())
    .bind(i64::from(row.index))
    .bind(i64::from(row.batch))
    .bind(row.request.map(|id| id.to_string()))
    .bind(row.kind.clone())
    .bind(row.status.clone())
    .bind(row.asset.clone())
    .bind(row.requested.map(Amount::as_bigint))
    .bind(amounts)
    .bind(row.txid.map(|txid| txid.to_string()))
    .bind(row.recipient.clone())
    .bind(row.receive_coin.map(|coin| coin.to_string()))
    .bind(row.change_coin.map(|coin| coin.to_string()))
    .bind(row.created_at)
    .bind(row.updated_at)
    .bind(row.expires_at)
    .bind(endpoints)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A page of a wallet's transfers, newest first: of one asset, or of all.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn page(
    conn: &mut Conn,
    wallet: &WalletId,
    asset: Option<&str>,
    before: Option<i32>,
    limit: u32,
) -> Result<Vec<TransferRow>, StoreError> {
    let before = before.map_or(i64::MAX, i64::from);
    let rows = match asset {
        Some(asset) => {
            sqlx::query(
                "SELECT * FROM asset_transfers WHERE wallet_id = $1 AND asset_id = $2 AND idx < $3 ORDER BY idx DESC LIMIT $4",
            )
            .bind(wallet.to_string())
            .bind(asset.to_owned())
            .bind(before)
            .bind(i64::from(limit))
            .fetch_all(conn)
            .await?
        }
        None => {
            sqlx::query("SELECT * FROM asset_transfers WHERE wallet_id = $1 AND idx < $2 ORDER BY idx DESC LIMIT $3")
                .bind(wallet.to_string())
                .bind(before)
                .bind(i64::from(limit))
                .fetch_all(conn)
                .await?
        }
    };
    rows.iter().map(read).collect()
}

/// The request that a batch belongs to; nothing when nobody knows the batch.
///
/// # Errors
/// When the database can't answer.
pub async fn request_of_batch(conn: &mut Conn, wallet: &WalletId, batch: i32) -> Result<Option<RequestId>, StoreError> {
    let row = sqlx::query(
        "SELECT request_id FROM asset_transfers WHERE wallet_id = $1 AND batch = $2 AND request_id IS NOT NULL LIMIT 1",
    )
    .bind(wallet.to_string())
    .bind(i64::from(batch))
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(|row| row.parsed("request_id")).transpose()
}

/// The request whose invoice names a recipient.
///
/// # Errors
/// When the database can't answer.
pub async fn request_of_recipient(conn: &mut Conn, recipient: &str) -> Result<Option<RequestId>, StoreError> {
    let row = sqlx::query(
        "SELECT request_id FROM asset_transfers WHERE recipient_id = $1 AND kind IN ('receive_blind', 'receive_witness') \
         AND request_id IS NOT NULL LIMIT 1",
    )
    .bind(recipient.to_owned())
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(|row| row.parsed("request_id")).transpose()
}

/// How far a wallet is with paying a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payment {
    /// It may still be given up.
    Waiting,
    Out,
}

/// What a wallet has begun to pay a recipient with and did not give up.
///
/// # Errors
/// When the database can't answer.
pub async fn payment_to(conn: &mut Conn, wallet: &WalletId, recipient: &str) -> Result<Option<Payment>, StoreError> {
    let row = sqlx::query(
        "SELECT status FROM asset_transfers WHERE recipient_id = $1 AND wallet_id = $2 AND kind = 'send' \
         AND status <> 'failed' LIMIT 1",
    )
    .bind(recipient.to_owned())
    .bind(wallet.to_string())
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let waits = matches!(row.take::<String>("status")?.as_str(), "initiated" | "waiting_counterparty");
    Ok(Some(if waits { Payment::Waiting } else { Payment::Out }))
}

fn read_in_block(row: &AnyRow) -> Result<InBlock, StoreError> {
    let request: Option<String> = row.take("request_id")?;
    Ok(InBlock {
        txid: row.parsed("txid")?,
        request: request.map(|text| parse("request_id", &text)).transpose()?,
        is_receive: row.take::<String>("kind")?.starts_with("receive"),
    })
}

/// Transfers that are out, and in no block that was read.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn unmined(conn: &mut Conn) -> Result<Vec<InBlock>, StoreError> {
    let rows = sqlx::query(
        "SELECT txid, request_id, kind FROM asset_transfers \
         WHERE txid IS NOT NULL AND height IS NULL AND status IN ('waiting_confirmations', 'settled')",
    )
    .fetch_all(conn)
    .await?;
    rows.iter().map(read_in_block).collect()
}

/// Transfers that the block at this height holds.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn mined_at(conn: &mut Conn, height: u32) -> Result<Vec<InBlock>, StoreError> {
    let rows = sqlx::query("SELECT txid, request_id, kind FROM asset_transfers WHERE height = $1")
        .bind(i64::from(height))
        .fetch_all(conn)
        .await?;
    rows.iter().map(read_in_block).collect()
}

/// The block that holds a wallet's transfer, as far as that was seen.
///
/// # Errors
/// When the database can't answer.
pub async fn height_of(conn: &mut Conn, wallet: &WalletId, txid: Txid) -> Result<Option<u32>, StoreError> {
    let row = sqlx::query(
        "SELECT height FROM asset_transfers WHERE wallet_id = $1 AND txid = $2 AND height IS NOT NULL LIMIT 1",
    )
    .bind(wallet.to_string())
    .bind(txid.to_string())
    .fetch_optional(conn)
    .await?;
    row.map(|row| row.number("height")).transpose()
}

/// # Errors
/// When the database can't do it.
pub async fn set_mined(tx: &mut Tx<'_>, txid: Txid, height: u32) -> Result<(), StoreError> {
    sqlx::query("UPDATE asset_transfers SET height = $1, reorged = 0 WHERE txid = $2 AND height IS NULL")
        .bind(i64::from(height))
        .bind(txid.to_string())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The block at this height is no longer part of the chain.
///
/// # Errors
/// When the database can't do it.
pub async fn set_reorged(tx: &mut Tx<'_>, height: u32) -> Result<(), StoreError> {
    sqlx::query("UPDATE asset_transfers SET height = NULL, reorged = 1 WHERE height = $1")
        .bind(i64::from(height))
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Coins of a wallet that carry what a block brought that is no longer part of the chain.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn unsettled_coins(conn: &mut Conn, wallet: &WalletId) -> Result<HashSet<OutPoint>, StoreError> {
    let rows = sqlx::query("SELECT * FROM asset_transfers WHERE wallet_id = $1 AND reorged = 1")
        .bind(wallet.to_string())
        .fetch_all(conn)
        .await?;
    let mut coins = HashSet::new();
    for row in &rows {
        let row = read(row)?;
        coins.extend(row.receive_coin.into_iter().chain(row.change_coin));
    }
    Ok(coins)
}

/// Wallets of which something is on its way: only those are looked at when a block comes. The engine may have counted it as settled in
/// a block that is undone by now, and says so once more.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn wallets_waiting(conn: &mut Conn) -> Result<Vec<WalletId>, StoreError> {
    let rows = sqlx::query(
        "SELECT wallet_id FROM asset_transfers WHERE status = 'waiting_confirmations' \
         UNION SELECT wallet_id FROM requests WHERE kind = 'asset_receive' AND state = 'seen'",
    )
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| row.parsed("wallet_id")).collect()
}

/// Whether something of this wallet is on its way.
///
/// # Errors
/// When the database can't answer.
pub async fn is_waiting(conn: &mut Conn, wallet: &WalletId) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "SELECT 1 AS there FROM asset_transfers WHERE wallet_id = $1 AND status = 'waiting_confirmations' LIMIT 1",
    )
    .bind(wallet.to_string())
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
}

/// Requests to receive that the engine counts as settled and that are not written down as such.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn settled_receives(conn: &mut Conn, wallet: &WalletId) -> Result<Vec<RequestId>, StoreError> {
    let rows = sqlx::query(
        "SELECT r.id AS id FROM requests r WHERE r.wallet_id = $1 AND r.kind = 'asset_receive' AND r.state IN ('arriving', 'seen') \
         AND EXISTS (SELECT 1 FROM asset_transfers t WHERE t.request_id = r.id AND t.status = 'settled')",
    )
    .bind(wallet.to_string())
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| row.parsed("id")).collect()
}

/// Requests to receive that were accepted, and whose transaction was in no block that was read since.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn arriving(conn: &mut Conn, wallet: &WalletId) -> Result<Vec<RequestId>, StoreError> {
    let rows =
        sqlx::query("SELECT id FROM requests WHERE wallet_id = $1 AND kind = 'asset_receive' AND state = 'arriving'")
            .bind(wallet.to_string())
            .fetch_all(conn)
            .await?;
    rows.iter().map(|row| row.parsed("id")).collect()
}

/// What was brought for invoices of this gateway and is not answered yet, oldest first.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn brought(conn: &mut Conn, limit: u32) -> Result<Vec<Brought>, StoreError> {
    let rows = sqlx::query(
        "SELECT c.recipient_id, r.wallet_id FROM consignments c JOIN consignment_recipients r ON r.recipient_id = c.recipient_id \
         WHERE c.kept = 1 AND c.ack IS NULL ORDER BY c.created_at LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| Ok(Brought { recipient: row.take("recipient_id")?, wallet: row.parsed("wallet_id")? }))
        .collect()
}

// ---- intents ----

/// Says that the engine is about to be asked for something.
///
/// # Errors
/// When the database can't do it.
pub async fn intend(tx: &mut Tx<'_>, id: RequestId, wallet: &WalletId) -> Result<(), StoreError> {
    let now = tx.now().millis();
    sqlx::query(
        "INSERT INTO asset_intents (id, wallet_id, created_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING",
    )
    .bind(id.to_string())
    .bind(wallet.to_string())
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What the engine was asked for is written down, or was given up.
///
/// # Errors
/// When the database can't do it.
pub async fn intended(tx: &mut Tx<'_>, wallet: &WalletId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM asset_intents WHERE wallet_id = $1").bind(wallet.to_string()).execute(tx.conn()).await?;
    Ok(())
}

/// # Errors
/// When the database can't answer.
pub async fn has_intents(conn: &mut Conn, wallet: &WalletId) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 AS there FROM asset_intents WHERE wallet_id = $1 LIMIT 1")
        .bind(wallet.to_string())
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some())
}

/// Wallets of which nobody knows what the engine did last.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn wallets_with_intents(conn: &mut Conn) -> Result<Vec<WalletId>, StoreError> {
    let rows = sqlx::query("SELECT DISTINCT wallet_id FROM asset_intents").fetch_all(conn).await?;
    rows.iter().map(|row| row.parsed("wallet_id")).collect()
}

// ---- invoices of addresses ----

/// Binds an invoice to the address that it is handed out with. A later one takes its place.
///
/// # Errors
/// When the database can't do it.
pub async fn bind_invoice(tx: &mut Tx<'_>, address: RequestId, invoice: RequestId) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO asset_invoices (address_request, request_id) VALUES ($1, $2) \
         ON CONFLICT (address_request) DO UPDATE SET request_id = excluded.request_id",
    )
    .bind(address.to_string())
    .bind(invoice.to_string())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The invoice that was last handed out with an address.
///
/// # Errors
/// When the database can't answer.
pub async fn invoice_of(conn: &mut Conn, address: RequestId) -> Result<Option<RequestId>, StoreError> {
    let row = sqlx::query("SELECT request_id FROM asset_invoices WHERE address_request = $1")
        .bind(address.to_string())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(|row| row.parsed("request_id")).transpose()
}
