//! What the node's payments came to in the end. A payment that is in no row, or that cost more than its row allows, is an alarm and an
//! item in suspense, in the same transaction as the node's own word of it.

use super::halts;
use super::node::tell;
use super::row::Columns;
use super::{Conn, StoreError, Tx};
use crate::domain::lightning::{PaymentId, Preimage};
use crate::domain::movement::Movement;
use crate::money::Amount;

/// A payment has arrived, and `cost` is all that has left the node for it. What is beyond the amount that was asked for is its fee,
/// whoever got it.
pub(super) async fn sent(
    tx: &mut Tx<'_>,
    id: PaymentId,
    preimage: Preimage,
    cost: Option<Amount>,
) -> Result<(), StoreError> {
    let sql = match cost {
        Some(_) => {
            "UPDATE node_payments SET state = 'sent', preimage = $1, failure = NULL, destination = '', updated_at = $2, \
             fee = CASE WHEN $4 > amount THEN $4 - amount ELSE 0 END WHERE id = $3 AND state <> 'sent'"
        }
        // It can't be more, and is never taken for nothing.
        None => {
            "UPDATE node_payments SET state = 'sent', preimage = $1, failure = NULL, destination = '', updated_at = $2, \
             fee = max_fee WHERE id = $3 AND state <> 'sent'"
        }
    };
    let now = tx.now().millis();
    let mut query = sqlx::query(sql).bind(preimage.to_string()).bind(now).bind(id.to_string());
    if let Some(cost) = cost {
        query = query.bind(cost.as_bigint());
    }
    let has_moved = query.execute(tx.conn()).await?.rows_affected() > 0;
    if has_moved && cost.is_none() {
        let detail = format!("payment {id}: the node can't say what it cost, and it was charged its ceiling");
        return halts::raise(tx, halts::NODE_OVERSPENT, &detail).await;
    }
    // It may be told again.
    if has_moved || is_known(tx.conn(), id).await? {
        return Ok(());
    }
    let sum = cost.map_or_else(|| "an unknown sum".to_owned(), |cost| format!("{cost} msat"));
    unasked(tx, id, cost.unwrap_or(Amount::ZERO), &format!("the node paid {sum} without a request")).await
}

async fn is_known(conn: &mut Conn, id: PaymentId) -> Result<bool, StoreError> {
    let row =
        sqlx::query("SELECT id FROM node_payments WHERE id = $1").bind(id.to_string()).fetch_optional(conn).await?;
    Ok(row.is_some())
}

async fn unasked(tx: &mut Tx<'_>, id: PaymentId, amount: Amount, why: &str) -> Result<(), StoreError> {
    halts::raise(tx, halts::NODE_OVERSPENT, &format!("payment {id}: {why}")).await?;
    tell(tx, &Movement::Unasked { payment: id.to_string(), amount }).await
}

/// A payment goes out in parts: what the payee takes of them is added up.
pub(super) async fn begin(tx: &mut Tx<'_>, id: PaymentId) -> Result<(), StoreError> {
    let sql = "INSERT INTO node_parts (payment, part, claimed, created_at) VALUES ($1, '', 0, $2) \
               ON CONFLICT (payment, part) DO NOTHING";
    let now = tx.now().millis();
    sqlx::query(sql).bind(id.to_string()).bind(now).execute(tx.conn()).await?;
    Ok(())
}

/// The payee took a part. Of a payment that is not counted, or not any more, that says nothing.
pub(super) async fn claimed(tx: &mut Tx<'_>, id: PaymentId, part: &str, cost: Amount) -> Result<(), StoreError> {
    let sql = "INSERT INTO node_parts (payment, part, claimed, created_at) \
               SELECT payment, $1, $2, $3 FROM node_parts WHERE payment = $4 AND part = '' \
               ON CONFLICT (payment, part) DO NOTHING";
    let now = tx.now().millis();
    let query = sqlx::query(sql).bind(part.to_owned()).bind(cost.as_bigint()).bind(now);
    query.bind(id.to_string()).execute(tx.conn()).await?;
    Ok(())
}

/// None of a payment is out any more. What was charged for it and came back is nobody's yet.
pub(super) async fn over(tx: &mut Tx<'_>, id: PaymentId) -> Result<(), StoreError> {
    let sql = "SELECT CAST(SUM(part.claimed) AS BIGINT) AS claimed, payment.amount + payment.fee AS charged \
               FROM node_parts part JOIN node_payments payment ON payment.id = part.payment \
               WHERE part.payment = $1 AND payment.state = 'sent' GROUP BY payment.amount, payment.fee";
    let row = sqlx::query(sql).bind(id.to_string()).fetch_optional(tx.conn()).await?;
    let deleted = "DELETE FROM node_parts WHERE payment = $1";
    sqlx::query(deleted).bind(id.to_string()).execute(tx.conn()).await?;
    let Some(row) = row else { return Ok(()) };
    let (claimed, charged): (i64, i64) = (row.take("claimed")?, row.take("charged")?);
    let makes_no_sense = |_| StoreError::Corrupt(format!("the parts of payment {id}"));
    let amount =
        Amount::from_bigint(charged.abs_diff(claimed).try_into().unwrap_or(i64::MAX)).map_err(makes_no_sense)?;
    if claimed > charged {
        return unasked(tx, id, amount, &format!("its parts cost {claimed} msat, and it was charged {charged} msat"))
            .await;
    }
    // Where no part was counted, they went out before parts were counted.
    if claimed == 0 || amount.is_zero() {
        return Ok(());
    }
    tell(tx, &Movement::Unclaimed { payment: id.to_string(), amount }).await
}

/// Payments in parts that may not be over.
///
/// # Errors
/// When the database can't answer or a row is corrupt.
pub async fn open(conn: &mut Conn) -> Result<Vec<PaymentId>, StoreError> {
    let rows = sqlx::query("SELECT payment FROM node_parts WHERE part = ''").fetch_all(conn).await?;
    rows.iter().map(|row| row.parsed("payment")).collect()
}
