//! Payments that were accepted when the block that holds them had been read: nobody has looked for them there, and should it be undone,
//! nobody would notice.

use bitcoin::Txid;

use super::mirror::Told;
use crate::domain::BlockRef;
use crate::domain::asset_receive::AssetReceive;
use crate::flows::{Error, Flows, follow};
use crate::store::{StoreError, Tx, asset_transfers, chain, requests};

/// A payment, and the block that holds it.
pub(super) struct Held {
    txid: Txid,
    block: BlockRef,
}

/// Finds the blocks of what the engine counts as settled. What none of them holds is too deep to be undone without a halt, or its block
/// is yet to be read.
pub(super) async fn find(flows: &Flows, told: &Told) -> Result<Vec<Held>, Error> {
    let mut conn = flows.store().read().await?;
    let mut settled = Vec::new();
    for id in asset_transfers::arriving(&mut conn, &told.wallet).await? {
        let Some(receive) = requests::load::<AssetReceive>(&mut conn, id).await? else { continue };
        let needs_a_block = receive.machine.min_confirmations > 0;
        let arrival = receive.machine.arrival().filter(|arrival| needs_a_block && told.has_settled(arrival.txid));
        settled.extend(arrival.map(|arrival| arrival.txid));
    }
    if settled.is_empty() {
        return Ok(Vec::new());
    }
    let blocks = chain::blocks(&mut conn, flows.policy().reorg_max).await?;
    drop(conn);
    let mut held = Vec::new();
    for txid in settled {
        held.extend(block_of(flows, txid, &blocks).await?.map(|block| Held { txid, block }));
    }
    Ok(held)
}

async fn block_of(flows: &Flows, txid: Txid, blocks: &[BlockRef]) -> Result<Option<BlockRef>, Error> {
    for block in blocks {
        if flows.chain().confirmed_transaction(txid, block.hash).await?.is_some() {
            return Ok(Some(*block));
        }
    }
    Ok(None)
}

/// Writes it down, unless the block is gone by now.
pub(super) async fn write(tx: &mut Tx<'_>, held: &[Held]) -> Result<(), StoreError> {
    if held.is_empty() {
        return Ok(());
    }
    if let Some(tip) = chain::cursor(tx.conn()).await? {
        chain::hold_cursor(tx, tip).await?;
    }
    let waiting = asset_transfers::unmined(tx.conn()).await?;
    for Held { txid, block } in held {
        if chain::block_at(tx.conn(), block.height).await? != Some(*block) {
            continue;
        }
        for transfer in waiting.iter().filter(|transfer| transfer.txid == *txid) {
            follow::note_transfer(tx, transfer, block.height).await?;
        }
    }
    Ok(())
}
