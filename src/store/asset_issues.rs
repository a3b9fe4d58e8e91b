//! Orders to issue an asset.

use serde::{Deserialize, Serialize};

use super::row::Columns;
use super::{Conn, StoreError, Tx};
use crate::ids::{RequestId, WalletId};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub ticker: String,
    pub name: String,
    pub precision: u8,
    /// In the asset's smallest unit.
    pub amounts: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub id: RequestId,
    pub wallet: WalletId,
    pub terms: Terms,
    /// The assets that the wallet had before.
    pub known: Vec<String>,
    pub end: Option<End>,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Issued(String),
    /// The engine did not issue it, and is not asked again.
    Void,
}

fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Corrupt(e.to_string()))
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::Corrupt(format!("an order to issue an asset: {e}")))
}

/// # Errors
/// When the database can't do it.
pub async fn insert(tx: &mut Tx<'_>, order: &Order) -> Result<(), StoreError> {
    let now = tx.now().millis();
    sqlx::query(
        "INSERT INTO asset_issues (id, wallet_id, terms, known, state, created_at) VALUES ($1, $2, $3, $4, 'begun', $5)",
    )
    .bind(order.id.to_string())
    .bind(order.wallet.to_string())
    .bind(json(&order.terms)?)
    .bind(json(&order.known)?)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// # Errors
/// `Conflict` when it has ended already.
pub async fn end(tx: &mut Tx<'_>, id: RequestId, end: &End) -> Result<(), StoreError> {
    let (state, asset) = match end {
        End::Issued(asset) => ("issued", Some(asset.clone())),
        End::Void => ("void", None),
    };
    let now = tx.now().millis();
    let ended = sqlx::query(
        "UPDATE asset_issues SET state = $1, asset_id = $2, ended_at = $3 WHERE id = $4 AND state = 'begun'",
    )
    .bind(state)
    .bind(asset)
    .bind(now)
    .bind(id.to_string())
    .execute(tx.conn())
    .await?
    .rows_affected();
    if ended == 1 { Ok(()) } else { Err(StoreError::Conflict("an order to issue an asset")) }
}

fn read(row: &sqlx::any::AnyRow) -> Result<Order, StoreError> {
    let state: String = row.take("state")?;
    let asset: Option<String> = row.take("asset_id")?;
    let end = match (state.as_str(), asset) {
        ("begun", None) => None,
        ("issued", Some(asset)) => Some(End::Issued(asset)),
        ("void", None) => Some(End::Void),
        other => return Err(StoreError::Corrupt(format!("an order to issue an asset is {other:?}"))),
    };
    Ok(Order {
        id: row.parsed("id")?,
        wallet: row.parsed("wallet_id")?,
        terms: parse(&row.take::<String>("terms")?)?,
        known: parse(&row.take::<String>("known")?)?,
        end,
    })
}

/// # Errors
/// When the database can't answer or the row is corrupt.
pub async fn find(conn: &mut Conn, id: RequestId) -> Result<Option<Order>, StoreError> {
    let row = sqlx::query("SELECT id, wallet_id, terms, known, state, asset_id FROM asset_issues WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(read).transpose()
}

/// Those of a wallet that nobody knows the end of.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn begun(conn: &mut Conn, wallet: &WalletId) -> Result<Vec<Order>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, wallet_id, terms, known, state, asset_id FROM asset_issues \
         WHERE wallet_id = $1 AND state = 'begun' ORDER BY created_at, id",
    )
    .bind(wallet.to_string())
    .fetch_all(conn)
    .await?;
    rows.iter().map(read).collect()
}
