//! The transfer that the library has made last, read from its own database: its list of transfers costs more with each of them.

use std::path::Path;

use rgb_lib::utils::block_on;
use rgb_lib::wallet::ReceiveData;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Row};

use super::nonsense;
use crate::ports::PortError;
use crate::ports::assets::{NewReceive, Onto, Transfer, TransferKind, TransferStatus};

const FILE: &str = "rgb_lib_db";
/// Each of the three is found by its primary key, so it costs the same however many there are.
const LAST: &str = "SELECT t.idx, b.idx AS batch, b.created_at, b.updated_at, t.recipient_id FROM transfer t \
    JOIN asset_transfer a ON a.idx = t.asset_transfer_idx JOIN batch_transfer b ON b.idx = a.batch_transfer_idx \
    ORDER BY t.idx DESC LIMIT 1";

/// What the library tells of an invoice that it has just made. The coin that a blinded one names is told with the list.
pub(super) fn transfer(folder: &Path, made: &ReceiveData, new: &NewReceive) -> Result<Transfer, PortError> {
    let options = SqliteConnectOptions::new().filename(folder.join(FILE)).read_only(true);
    let read = block_on(async {
        let mut conn = options.connect().await?;
        let row = sqlx::query(LAST).fetch_one(&mut conn).await?;
        let numbers = (row.try_get("idx")?, row.try_get("batch")?);
        let times = (row.try_get("created_at")?, row.try_get("updated_at")?);
        Ok::<(_, _, Option<String>), sqlx::Error>((numbers, times, row.try_get("recipient_id")?))
    });
    let ((index, batch), (created_at, updated_at), recipient) = read.map_err(nonsense)?;
    if batch != made.batch_transfer_idx || recipient.as_ref() != Some(&made.recipient_id) {
        return Err(nonsense("the last transfer is not the one that was just made"));
    }
    Ok(Transfer {
        index,
        batch,
        status: TransferStatus::WaitingCounterparty,
        kind: match new.onto {
            Onto::OwnCoin => TransferKind::ReceiveBlind,
            Onto::NewCoin => TransferKind::ReceiveWitness,
        },
        asset: new.asset.clone(),
        requested: new.amount,
        amounts: Vec::new(),
        txid: None,
        recipient,
        receive_coin: None,
        change_coin: None,
        created_at,
        updated_at,
        expires_at: Some(new.expires_at),
    })
}
