//! What a wallet's balance on the chain is made of. Asked for more often than anything else, so it is one question with a short answer.

use sqlx::any::AnyRow;

use super::chain::{CURSOR, Coin};
use super::row::Columns;
use super::{Conn, StoreError};
use crate::domain::wallet::Account;
use crate::ids::WalletId;
use crate::money::Sat;

/// Coins of one account that a balance does not tell apart, and what they add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lot {
    pub account: Account,
    pub amount: Sat,
    pub own: bool,
    pub coinbase: bool,
    pub in_mempool: bool,
    pub height: Option<u32>,
    pub is_spent: bool,
    pub is_leased: bool,
}

impl From<&Coin> for Lot {
    fn from(coin: &Coin) -> Self {
        Self {
            account: coin.account,
            amount: coin.amount,
            own: coin.own,
            coinbase: coin.coinbase,
            in_mempool: coin.in_mempool,
            height: coin.height,
            is_spent: coin.spent_by.is_some(),
            is_leased: coin.leased_by.is_some(),
        }
    }
}

/// All of it, seen at the same time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The height that the follower has reached.
    pub tip: u32,
    /// The chain is still searched for coins from before.
    pub scanning: bool,
    /// Everything that no mined transaction spends.
    pub lots: Vec<Lot>,
}

/// A wallet's coins that no mined transaction spends, added up.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn of(conn: &mut Conn, wallet: &WalletId) -> Result<Standing, StoreError> {
    const TEXT: &str = "SELECT w.scanned_at, t.height AS tip, g.* FROM wallets w LEFT JOIN chain_cursor t ON t.name = $2 LEFT JOIN \
                        (SELECT c.account, c.own, c.coinbase, c.status, c.height, \
                         CAST(CASE WHEN c.spent_by IS NULL THEN 0 ELSE 1 END AS BIGINT) AS spent, \
                         CAST(CASE WHEN l.request_id IS NULL THEN 0 ELSE 1 END AS BIGINT) AS leased, \
                         CAST(SUM(c.amount_sat) AS BIGINT) AS amount FROM coins c LEFT JOIN leases l ON l.outpoint = c.outpoint \
                         WHERE c.wallet_id = $1 AND c.spent_height IS NULL AND c.status IN ('offered', 'mempool', 'mined') \
                         GROUP BY c.account, c.own, c.coinbase, c.status, c.height, spent, leased) g ON 1 = 1 WHERE w.id = $1";
    let rows = sqlx::query(TEXT).bind(wallet.to_string()).bind(CURSOR).fetch_all(conn).await?;
    let Some(first) = rows.first() else { return Ok(Standing::default()) };
    let mut standing = Standing {
        tip: first.number_opt("tip")?.unwrap_or_default(),
        scanning: first.time_opt("scanned_at")?.is_none(),
        lots: Vec::new(),
    };
    for row in &rows {
        // A wallet without a coin has a row all the same.
        if let Some(account) = row.parsed_opt("account")? {
            standing.lots.push(read_lot(row, account)?);
        }
    }
    Ok(standing)
}

fn read_lot(row: &AnyRow, account: Account) -> Result<Lot, StoreError> {
    Ok(Lot {
        account,
        amount: row.sat("amount")?,
        own: row.take::<i64>("own")? == 1,
        coinbase: row.take::<i64>("coinbase")? == 1,
        in_mempool: row.take::<String>("status")? == "mempool",
        height: row.number_opt("height")?,
        is_spent: row.take::<i64>("spent")? == 1,
        is_leased: row.take::<i64>("leased")? == 1,
    })
}
