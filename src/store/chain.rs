//! What the chain follower has seen: blocks, transactions that touch a wallet, coins, and who spends them.
//!
//! These are facts of the chain, kept so that they need not be asked for again. Money of the operator is not here.

use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::row::{Columns, LIST, padded, padding, placeholders};
use super::{Conn, Engine, PAGE_MAX, StoreError, Tx, requests};
use crate::clock::Timestamp;
use crate::domain::BlockRef;
use crate::domain::onchain_send::OnchainSend;
use crate::domain::wallet::Account;
use crate::ids::{RequestId, WalletId};
use crate::money::Sat;

pub(super) const CURSOR: &str = "main";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Signed by a client, and not in our node's mempool.
    Offered,
    Mempool,
    Mined {
        height: u32,
    },
    /// Left the mempool without a successor that we know.
    Evicted,
    /// Another transaction spends the same coin.
    Replaced {
        by: Txid,
    },
}

impl Status {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Mempool => "mempool",
            Self::Mined { .. } => "mined",
            Self::Evicted => "evicted",
            Self::Replaced { .. } => "replaced",
        }
    }

    #[must_use]
    pub const fn height(self) -> Option<u32> {
        match self {
            Self::Mined { height } => Some(height),
            Self::Offered | Self::Mempool | Self::Evicted | Self::Replaced { .. } => None,
        }
    }

    /// Whether the transaction may still, or does, count.
    #[must_use]
    pub const fn is_live(self) -> bool {
        match self {
            Self::Offered | Self::Mempool | Self::Mined { .. } => true,
            Self::Evicted | Self::Replaced { .. } => false,
        }
    }
}

/// A transaction that touches a wallet.
#[derive(Clone, Debug, PartialEq)]
pub struct TxRow {
    pub txid: Txid,
    pub raw: Option<Transaction>,
    pub status: Status,
    /// The time its block says.
    pub mined_at: Option<i64>,
    pub coinbase: bool,
    pub first_seen_at: Timestamp,
}

/// An output to one of our scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coin {
    pub outpoint: OutPoint,
    pub wallet: WalletId,
    pub account: Account,
    pub index: u32,
    pub script: ScriptBuf,
    pub amount: Sat,
    /// Made by a transaction that this wallet issued here: spendable before it confirms.
    pub own: bool,
    pub coinbase: bool,
    pub live: bool,
    pub in_mempool: bool,
    /// The height of its block.
    pub height: Option<u32>,
    pub spent_by: Option<Txid>,
    pub spent_height: Option<u32>,
    pub leased_by: Option<RequestId>,
}

// ---- cursor and blocks ----

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn cursor(conn: &mut Conn) -> Result<Option<BlockRef>, StoreError> {
    let row =
        sqlx::query("SELECT height, hash FROM chain_cursor WHERE name = $1").bind(CURSOR).fetch_optional(conn).await?;
    row.map(|row| Ok(BlockRef { height: row.number("height")?, hash: row.parsed("hash")? })).transpose()
}

/// Moves the cursor from where the caller saw it.
///
/// # Errors
/// `Conflict` when it is somewhere else.
pub async fn move_cursor(tx: &mut Tx<'_>, from: Option<BlockRef>, to: BlockRef) -> Result<(), StoreError> {
    let now = tx.now().millis();
    let query = match from {
        None => sqlx::query(
            "INSERT INTO chain_cursor (name, height, hash, updated_at) VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO NOTHING",
        ),
        Some(_) => sqlx::query(
            "UPDATE chain_cursor SET height = $2, hash = $3, updated_at = $4 WHERE name = $1 AND height = $5 AND hash = $6",
        ),
    };
    let mut query = query.bind(CURSOR).bind(i64::from(to.height)).bind(to.hash.to_string()).bind(now);
    if let Some(from) = from {
        query = query.bind(i64::from(from.height)).bind(from.hash.to_string());
    }
    let written = query.execute(tx.conn()).await?.rows_affected();
    if written == 1 { Ok(()) } else { Err(StoreError::Conflict("the chain cursor")) }
}

/// Takes part in whatever the cursor guards: two transactions that do can't both commit on the same position of it.
///
/// # Errors
/// `Conflict` when the cursor is somewhere else.
pub async fn hold_cursor(tx: &mut Tx<'_>, at: BlockRef) -> Result<(), StoreError> {
    move_cursor(tx, Some(at), at).await
}

/// # Errors
/// When the database can't do it.
pub async fn insert_block(conn: &mut Conn, block: BlockRef, mined_at: i64, keep: u32) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO chain_blocks (height, hash, mined_at) VALUES ($1, $2, $3) \
         ON CONFLICT (height) DO UPDATE SET hash = excluded.hash, mined_at = excluded.mined_at",
    )
    .bind(i64::from(block.height))
    .bind(block.hash.to_string())
    .bind(mined_at)
    .execute(&mut *conn)
    .await?;
    sqlx::query("DELETE FROM chain_blocks WHERE height < $1")
        .bind(i64::from(block.height) - i64::from(keep))
        .execute(conn)
        .await?;
    Ok(())
}

/// # Errors
/// When the database can't do it.
pub async fn remove_block(conn: &mut Conn, height: u32) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM chain_blocks WHERE height = $1").bind(i64::from(height)).execute(conn).await?;
    Ok(())
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn block_at(conn: &mut Conn, height: u32) -> Result<Option<BlockRef>, StoreError> {
    let row = sqlx::query("SELECT height, hash FROM chain_blocks WHERE height = $1")
        .bind(i64::from(height))
        .fetch_optional(conn)
        .await?;
    row.map(|row| Ok(BlockRef { height: row.number("height")?, hash: row.parsed("hash")? })).transpose()
}

/// The last blocks, newest first.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn blocks(conn: &mut Conn, limit: u32) -> Result<Vec<BlockRef>, StoreError> {
    let rows = sqlx::query("SELECT height, hash FROM chain_blocks ORDER BY height DESC LIMIT $1")
        .bind(i64::from(limit))
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| Ok(BlockRef { height: row.number("height")?, hash: row.parsed("hash")? })).collect()
}

// ---- whose turn it is ----

/// Any number will do that nothing else locks, as long as every gateway on one PostgreSQL uses the same.
const FACTS: i64 = 5_712_035;

/// Keeps everybody else from writing of transactions and coins until this transaction ends. The follower writes of many, in an order
/// that the chain gives; whoever writes of one of them in another order would wait for it while it waits for him. SQLite has one writer.
///
/// # Errors
/// When the database can't do it.
pub async fn write_alone(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    lock_facts(tx, "pg_advisory_xact_lock").await
}

/// The same for who writes of one transaction: beside others who do, and never beside the follower.
///
/// # Errors
/// When the database can't do it.
pub async fn write_beside_others(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    lock_facts(tx, "pg_advisory_xact_lock_shared").await
}

/// The server's queue for it is fair: neither a busy follower nor many calls keep the others waiting for ever.
async fn lock_facts(tx: &mut Tx<'_>, lock: &str) -> Result<(), StoreError> {
    if tx.engine == Engine::Postgres {
        let sql = format!("SELECT CAST({lock}({FACTS}) AS TEXT)");
        sqlx::query(AssertSqlSafe(sql)).execute(tx.conn()).await?;
    }
    Ok(())
}

// ---- transactions ----

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn find_tx(conn: &mut Conn, txid: Txid) -> Result<Option<TxRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM txs WHERE txid = $1").bind(txid.to_string()).fetch_optional(conn).await?;
    row.as_ref().map(read_tx).transpose()
}

/// Writes a transaction that is not known yet, with a status that `set_status` may change later.
///
/// # Errors
/// When the database can't do it.
pub async fn insert_tx(tx: &mut Tx<'_>, row: &TxRow) -> Result<(), StoreError> {
    let now = tx.now().millis();
    sqlx::query(
        "INSERT INTO txs (txid, raw, status, height, mined_at, coinbase, first_seen_at) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (txid) DO UPDATE SET raw = COALESCE(txs.raw, excluded.raw)",
    )
    .bind(row.txid.to_string())
    .bind(row.raw.as_ref().map(bitcoin::consensus::encode::serialize_hex))
    .bind(row.status.as_str())
    .bind(row.status.height().map(i64::from))
    .bind(row.mined_at)
    .bind(i64::from(row.coinbase))
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Gives a transaction another status, and its outputs and inputs what follows from it.
///
/// # Errors
/// When the database can't do it.
pub async fn set_status(tx: &mut Tx<'_>, txid: Txid, status: Status, mined_at: Option<i64>) -> Result<(), StoreError> {
    let by = match status {
        Status::Replaced { by } => Some(by.to_string()),
        Status::Offered | Status::Mempool | Status::Mined { .. } | Status::Evicted => None,
    };
    let height = status.height().map(i64::from);
    sqlx::query("UPDATE txs SET status = $1, height = $2, mined_at = $3, replaced_by = $4 WHERE txid = $5")
        .bind(status.as_str())
        .bind(height)
        .bind(mined_at)
        .bind(by)
        .bind(txid.to_string())
        .execute(tx.conn())
        .await?;
    sqlx::query("UPDATE coins SET status = $1, height = $2 WHERE txid = $3")
        .bind(status.as_str())
        .bind(height)
        .bind(txid.to_string())
        .execute(tx.conn())
        .await?;
    choose_spenders(tx.conn(), txid).await
}

/// Of all transactions that spend a coin, the one that counts: mined before mempool before offered, else none.
async fn choose_spenders(conn: &mut Conn, changed: Txid) -> Result<(), StoreError> {
    const TEXT: &str = "UPDATE coins SET (spent_by, spent_height) = (SELECT t.txid, t.height FROM spends s JOIN txs t ON t.txid = s.txid \
                        WHERE s.outpoint = coins.outpoint AND t.status IN ('mined', 'mempool', 'offered') \
                        ORDER BY CASE t.status WHEN 'mined' THEN 0 WHEN 'mempool' THEN 1 ELSE 2 END, t.first_seen_at DESC, t.txid LIMIT 1) \
                        WHERE outpoint IN (SELECT outpoint FROM spends WHERE txid = $1)";
    sqlx::query(TEXT).bind(changed.to_string()).execute(conn).await?;
    Ok(())
}

/// # Errors
/// When the database can't do it.
pub async fn insert_spend(tx: &mut Tx<'_>, outpoint: &OutPoint, txid: Txid) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO spends (outpoint, txid) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(outpoint.to_string())
        .bind(txid.to_string())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// # Errors
/// When the database can't do it.
pub async fn insert_coin(tx: &mut Tx<'_>, coin: &Coin, status: Status) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO coins (outpoint, txid, wallet_id, account, idx, script, amount_sat, own, coinbase, status, height) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (outpoint) DO NOTHING",
    )
    .bind(coin.outpoint.to_string())
    .bind(coin.outpoint.txid.to_string())
    .bind(coin.wallet.to_string())
    .bind(coin.account.as_str())
    .bind(i64::from(coin.index))
    .bind(coin.script.to_hex_string())
    .bind(coin.amount.as_bigint())
    .bind(i64::from(coin.own))
    .bind(i64::from(coin.coinbase))
    .bind(status.as_str())
    .bind(status.height().map(i64::from))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// # Errors
/// When the database can't do it.
pub async fn insert_wallet_tx(tx: &mut Tx<'_>, wallet: &WalletId, txid: Txid) -> Result<(), StoreError> {
    let now = tx.now().millis();
    sqlx::query("INSERT INTO wallet_txs (wallet_id, txid, first_seen_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(wallet.to_string())
        .bind(txid.to_string())
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Transactions of ours in the block at a height.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn mined_at(conn: &mut Conn, height: u32) -> Result<Vec<TxRow>, StoreError> {
    let rows = sqlx::query("SELECT * FROM txs WHERE height = $1").bind(i64::from(height)).fetch_all(conn).await?;
    rows.iter().map(read_tx).collect()
}

/// Transactions of ours that wait for a block.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn unmined(conn: &mut Conn) -> Result<Vec<TxRow>, StoreError> {
    let rows = sqlx::query("SELECT * FROM txs WHERE status IN ('offered', 'mempool')").fetch_all(conn).await?;
    rows.iter().map(read_tx).collect()
}

/// The other transactions that spend a coin which this one spends too.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn rivals(conn: &mut Conn, txid: Txid) -> Result<Vec<TxRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM txs WHERE txid <> $1 AND txid IN \
         (SELECT other.txid FROM spends mine JOIN spends other ON other.outpoint = mine.outpoint WHERE mine.txid = $1)",
    )
    .bind(txid.to_string())
    .fetch_all(conn)
    .await?;
    rows.iter().map(read_tx).collect()
}

/// Transactions of ours whose place this one has taken, whoever owns what they spend.
///
/// # Errors
/// When the database can't answer.
pub async fn replaced_by(conn: &mut Conn, by: Txid) -> Result<Vec<Txid>, StoreError> {
    let rows = sqlx::query("SELECT txid FROM txs WHERE status = 'replaced' AND replaced_by = $1")
        .bind(by.to_string())
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| row.parsed("txid")).collect()
}

/// Transactions that spend, or would spend, what this one makes for us.
///
/// # Errors
/// When the database can't answer.
pub async fn children(conn: &mut Conn, txid: Txid) -> Result<Vec<Txid>, StoreError> {
    let rows = sqlx::query(
        "SELECT DISTINCT s.txid AS txid FROM coins c JOIN spends s ON s.outpoint = c.outpoint WHERE c.txid = $1",
    )
    .bind(txid.to_string())
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| row.parsed("txid")).collect()
}

fn read_tx(row: &AnyRow) -> Result<TxRow, StoreError> {
    let status = match row.take::<String>("status")?.as_str() {
        "offered" => Status::Offered,
        "mempool" => Status::Mempool,
        "mined" => Status::Mined { height: row.number("height")? },
        "evicted" => Status::Evicted,
        "replaced" => Status::Replaced { by: row.parsed("replaced_by")? },
        other => return Err(StoreError::Corrupt(format!("a transaction has the unknown status {other}"))),
    };
    let raw = row
        .take::<Option<String>>("raw")?
        .map(|hex| bitcoin::consensus::encode::deserialize_hex(&hex))
        .transpose()
        .map_err(|e| StoreError::Corrupt(format!("txs.raw: {e}")))?;
    Ok(TxRow {
        txid: row.parsed("txid")?,
        raw,
        status,
        mined_at: row.take("mined_at")?,
        coinbase: row.take::<i64>("coinbase")? == 1,
        first_seen_at: row.time("first_seen_at")?,
    })
}

// ---- coins ----

const COIN: &str = "SELECT c.*, l.request_id AS leased_by FROM coins c LEFT JOIN leases l ON l.outpoint = c.outpoint";

/// Of these outpoints, those that are coins of ours.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn coins_among(conn: &mut Conn, outpoints: &[OutPoint]) -> Result<Vec<Coin>, StoreError> {
    let mut found = Vec::new();
    for chunk in outpoints.chunks(LIST) {
        let text = format!("{COIN} WHERE c.outpoint IN ({})", placeholders(1, padded(chunk.len())));
        let mut query = sqlx::query(AssertSqlSafe(text));
        for outpoint in padding(chunk) {
            query = query.bind(outpoint.to_string());
        }
        for row in query.fetch_all(&mut *conn).await? {
            found.push(read_coin(&row)?);
        }
    }
    Ok(found)
}

/// A wallet's coins that no mined transaction spends: what its balance is made of. Their number does not grow with history.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn unspent(conn: &mut Conn, wallet: &WalletId) -> Result<Vec<Coin>, StoreError> {
    let text = format!(
        "{COIN} WHERE c.wallet_id = $1 AND c.spent_height IS NULL AND c.status IN ('offered', 'mempool', 'mined') ORDER BY c.outpoint"
    );
    let rows = sqlx::query(AssertSqlSafe(text)).bind(wallet.to_string()).fetch_all(conn).await?;
    rows.iter().map(read_coin).collect()
}

/// Outputs to our scripts of one transaction.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn coins_made_by(conn: &mut Conn, txid: Txid) -> Result<Vec<Coin>, StoreError> {
    let text = format!("{COIN} WHERE c.txid = $1");
    let rows = sqlx::query(AssertSqlSafe(text)).bind(txid.to_string()).fetch_all(conn).await?;
    rows.iter().map(read_coin).collect()
}

/// Coins of ours that one transaction spends or would spend.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn coins_spent_by(conn: &mut Conn, txid: Txid) -> Result<Vec<Coin>, StoreError> {
    let text = format!("{COIN} WHERE c.outpoint IN (SELECT outpoint FROM spends WHERE txid = $1)");
    let rows = sqlx::query(AssertSqlSafe(text)).bind(txid.to_string()).fetch_all(conn).await?;
    rows.iter().map(read_coin).collect()
}

fn read_coin(row: &AnyRow) -> Result<Coin, StoreError> {
    let script: String = row.take("script")?;
    let status: String = row.take("status")?;
    Ok(Coin {
        outpoint: row.parsed("outpoint")?,
        wallet: row.parsed("wallet_id")?,
        account: row.parsed("account")?,
        index: row.number("idx")?,
        script: ScriptBuf::from_hex(&script).map_err(|e| StoreError::Corrupt(format!("coins.script: {e}")))?,
        amount: row.sat("amount_sat")?,
        own: row.take::<i64>("own")? == 1,
        coinbase: row.take::<i64>("coinbase")? == 1,
        live: matches!(status.as_str(), "offered" | "mempool" | "mined"),
        in_mempool: status == "mempool",
        height: row.number_opt("height")?,
        spent_by: row.parsed_opt("spent_by")?,
        spent_height: row.number_opt("spent_height")?,
        leased_by: row.parsed_opt("leased_by")?,
    })
}

// ---- deposits ----

/// # Errors
/// When the database can't do it.
pub async fn insert_deposit(
    tx: &mut Tx<'_>,
    outpoint: &OutPoint,
    request: RequestId,
    wallet: &WalletId,
    amount: Sat,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO deposits (outpoint, request_id, wallet_id, txid, amount_sat) VALUES ($1, $2, $3, $4, $5)")
        .bind(outpoint.to_string())
        .bind(request.to_string())
        .bind(wallet.to_string())
        .bind(outpoint.txid.to_string())
        .bind(amount.as_bigint())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The deposits that a transaction made.
///
/// # Errors
/// When the database can't answer.
pub async fn deposits_of(conn: &mut Conn, txid: Txid) -> Result<Vec<RequestId>, StoreError> {
    let rows =
        sqlx::query("SELECT request_id FROM deposits WHERE txid = $1").bind(txid.to_string()).fetch_all(conn).await?;
    rows.iter().map(|row| row.parsed("request_id")).collect()
}

// ---- a wallet's list of transactions ----

/// A transaction as one wallet sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletTx {
    pub txid: Txid,
    pub received: Sat,
    pub sent: Sat,
    /// Known only where every input is ours.
    pub fee: Option<Sat>,
    pub height: Option<u32>,
    pub mined_at: Option<i64>,
    pub first_seen_at: Timestamp,
    /// The send that it is, where it is one of this wallet's.
    pub send: Option<OnchainSend>,
}

/// A page of a wallet's live transactions, newest first.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn wallet_txs(
    conn: &mut Conn,
    wallet: &WalletId,
    before: Option<(Timestamp, Txid)>,
    limit: u32,
) -> Result<Vec<WalletTx>, StoreError> {
    let rows = sqlx::query(
        "SELECT w.txid, w.first_seen_at, t.height, t.mined_at, \
         CASE WHEN EXISTS (SELECT 1 FROM spends s JOIN coins c ON c.outpoint = s.outpoint \
                           WHERE s.txid = w.txid AND c.wallet_id = w.wallet_id) THEN t.raw END AS raw, \
         CAST((SELECT COALESCE(SUM(c.amount_sat), 0) FROM coins c WHERE c.txid = w.txid AND c.wallet_id = w.wallet_id) AS BIGINT) AS received, \
         CAST((SELECT COALESCE(SUM(c.amount_sat), 0) FROM spends s JOIN coins c ON c.outpoint = s.outpoint \
               WHERE s.txid = w.txid AND c.wallet_id = w.wallet_id) AS BIGINT) AS sent, \
         (SELECT COUNT(*) FROM spends s JOIN coins c ON c.outpoint = s.outpoint WHERE s.txid = w.txid AND c.wallet_id = w.wallet_id) AS own_inputs \
         , r.data AS request \
         FROM wallet_txs w JOIN txs t ON t.txid = w.txid \
         LEFT JOIN request_txs q ON q.unsigned_txid = w.txid AND q.wallet_id = w.wallet_id LEFT JOIN requests r ON r.id = q.request_id \
         WHERE w.wallet_id = $1 AND t.status IN ('offered', 'mempool', 'mined') \
         AND (w.first_seen_at, w.txid) < ($2, $3) \
         ORDER BY w.first_seen_at DESC, w.txid DESC LIMIT $4",
    )
    .bind(wallet.to_string())
    .bind(before.map_or(i64::MAX, |(at, _)| at.millis()))
    .bind(before.map_or_else(String::new, |(_, txid)| txid.to_string()))
    .bind(i64::from(limit.min(PAGE_MAX)))
    .fetch_all(conn)
    .await?;
    rows.iter().map(read_wallet_tx).collect()
}

fn read_wallet_tx(row: &AnyRow) -> Result<WalletTx, StoreError> {
    let sent = row.sat("sent")?;
    let raw: Option<Transaction> = row
        .take::<Option<String>>("raw")?
        .map(|hex| bitcoin::consensus::encode::deserialize_hex(&hex))
        .transpose()
        .map_err(|e| StoreError::Corrupt(format!("txs.raw: {e}")))?;
    let own_inputs: usize = row.number("own_inputs")?;
    let all_ours = raw.filter(|raw| raw.input.len() == own_inputs);
    let paid = all_ours.and_then(|raw| Sat::sum(raw.output.iter().filter_map(|out| Sat::try_from(out.value).ok())));
    let send = row.take::<Option<String>>("request")?;
    Ok(WalletTx {
        send: send.map(|data| requests::decode(&data)).transpose()?,
        txid: row.parsed("txid")?,
        received: row.sat("received")?,
        sent,
        fee: paid.and_then(|paid| sent.checked_sub(paid)),
        height: row.number_opt("height")?,
        mined_at: row.take("mined_at")?,
        first_seen_at: row.time("first_seen_at")?,
    })
}
