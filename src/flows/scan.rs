//! Searching the chain for coins that a wallet had before it was registered.
//!
//! Scripts are in the index before the search begins, so the follower sees every block from then on. The search only has to
//! be true for one position of the cursor, and is written under it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::{BlockHash, OutPoint, ScriptBuf, Transaction, Txid};

use super::address::extend_lookahead;
use super::{Error, Flows, ingest};
use crate::crash;
use crate::domain::Fact;
use crate::domain::address::{self, ReceiveAddress};
use crate::domain::event::payloads::WalletScanned;
use crate::ids::WalletId;
use crate::ports::chain::{BlockRef, ScannedCoin};
use crate::store::chain::{self, Coin, Status, TxRow};
use crate::store::owners::{self, Ownership};
use crate::store::wallets::{self, KnownScript, WalletRow};
use crate::store::{StoreError, Tx, Write, apply, events};

/// Wallets that one pass over the set of unspent outputs serves.
const BATCH: u32 = 50;
/// How often what was found is compared with the cursor's block before the search is given up, and how long between.
const COMPARISONS: u32 = 60;
const COMPARE_AGAIN: Duration = Duration::from_millis(500);

/// Scans for every wallet that waits for it, in one pass; answers how many there were. May take minutes on mainnet.
///
/// # Errors
/// When the node or the store can't be used; `Fenced` when this process is no longer the owner.
pub async fn scan_waiting(flows: &Flows, owner: &Ownership) -> Result<usize, Error> {
    let mut conn = flows.store().read().await?;
    let waiting = wallets::to_scan(&mut conn, BATCH).await?;
    let has_cursor = chain::cursor(&mut conn).await?.is_some();
    if waiting.is_empty() || !has_cursor {
        return Ok(0);
    }
    let mut scripts: HashMap<ScriptBuf, KnownScript> = HashMap::new();
    for wallet in &waiting {
        let of_wallet = wallets::scripts_of(&mut conn, &wallet.id).await?;
        scripts.extend(of_wallet.into_iter().map(|known| (known.script.clone(), known)));
    }
    drop(conn);
    let wanted: Vec<ScriptBuf> = scripts.keys().cloned().collect();
    let scan = flows.chain().scan(&wanted).await?;
    if widen(flows, owner, &scan.coins, &scripts).await? {
        // Coins near the edge: there may be more beyond it. The next call searches again, further.
        return Ok(waiting.len());
    }
    finish(flows, owner, &waiting, scan.coins, &scripts).await?;
    crash::point("scan.committed");
    flows.forget_mempool();
    Ok(waiting.len())
}

/// Derives more scripts where a coin was found beyond what is issued; says whether any had to be.
async fn widen(
    flows: &Flows,
    owner: &Ownership,
    coins: &[ScannedCoin],
    scripts: &HashMap<ScriptBuf, KnownScript>,
) -> Result<bool, Error> {
    let found: Vec<KnownScript> = coins.iter().filter_map(|coin| scripts.get(&coin.script)).cloned().collect();
    let widened = flows.store().write(Widen { flows: flows.clone(), owner: owner.clone(), found }).await?;
    crash::point("scan.widened");
    Ok(widened)
}

struct Widen {
    flows: Flows,
    owner: Ownership,
    found: Vec<KnownScript>,
}

#[async_trait]
impl Write for Widen {
    type Output = bool;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        owners::fence(tx, &self.owner).await?;
        let mut widened = false;
        for script in &self.found {
            let before = wallets::keychain(tx.conn(), &script.wallet, script.account).await?;
            if script.index >= before.next_index {
                wallets::skip_to(tx, &script.wallet, script.account, script.index).await?;
            }
            let keys = ingest::keys_of(tx, &script.wallet, self.flows.network()).await?;
            let beyond = script.index.saturating_add(1);
            extend_lookahead(tx, &keys, script.account, beyond, self.flows.policy().lookahead).await?;
            let after = wallets::keychain(tx.conn(), &script.wallet, script.account).await?;
            widened |= after.derived_to > before.derived_to;
        }
        Ok(widened)
    }
}

/// Writes what is still unspent at the cursor's block, and under it.
async fn finish(
    flows: &Flows,
    owner: &Ownership,
    waiting: &[WalletRow],
    coins: Vec<ScannedCoin>,
    scripts: &HashMap<ScriptBuf, KnownScript>,
) -> Result<(), Error> {
    let outpoints: Vec<OutPoint> = coins.iter().map(|coin| coin.outpoint).collect();
    let transactions = fetch(flows, &coins).await?;
    let wallets: Vec<WalletId> = waiting.iter().map(|wallet| wallet.id.clone()).collect();
    for _ in 0..COMPARISONS {
        let (at, unspent) = flows.chain().still_unspent(&outpoints).await?;
        let found = found(&coins, &unspent, scripts, &transactions);
        let finish = Finish { owner: owner.clone(), at, wallets: wallets.clone(), found };
        match flows.store().write(finish).await {
            // The follower is elsewhere yet. Asking again is cheap; searching again is not.
            Err(StoreError::Conflict(_)) => tokio::time::sleep(COMPARE_AGAIN).await,
            done => return Ok(done?),
        }
    }
    Err(StoreError::Conflict("the chain cursor").into())
}

#[derive(Clone)]
struct Found {
    coin: Coin,
    height: u32,
    mined_at: Option<i64>,
    raw: Option<Transaction>,
}

fn found(
    coins: &[ScannedCoin],
    unspent: &HashSet<OutPoint>,
    scripts: &HashMap<ScriptBuf, KnownScript>,
    transactions: &HashMap<Txid, Fetched>,
) -> Vec<Found> {
    let mut all = Vec::new();
    for coin in coins.iter().filter(|coin| unspent.contains(&coin.outpoint)) {
        let Some(script) = scripts.get(&coin.script) else { continue };
        let fetched = transactions.get(&coin.outpoint.txid);
        all.push(Found {
            height: coin.height,
            mined_at: fetched.map(|fetched| fetched.mined_at),
            raw: fetched.and_then(|fetched| fetched.raw.clone()),
            coin: ingest::coin_of(coin.outpoint, coin.amount, script, false, coin.coinbase),
        });
    }
    all
}

struct Fetched {
    mined_at: i64,
    raw: Option<Transaction>,
}

/// The transactions that made the coins, and the times of their blocks.
async fn fetch(flows: &Flows, coins: &[ScannedCoin]) -> Result<HashMap<Txid, Fetched>, Error> {
    let mut blocks: HashMap<u32, Option<(BlockHash, i64)>> = HashMap::new();
    let mut fetched = HashMap::new();
    for coin in coins {
        let block = match blocks.get(&coin.height) {
            Some(known) => *known,
            None => block_time(flows, coin.height).await?,
        };
        blocks.insert(coin.height, block);
        let Some((hash, mined_at)) = block else { continue };
        let raw = flows.chain().confirmed_transaction(coin.outpoint.txid, hash).await?;
        fetched.insert(coin.outpoint.txid, Fetched { mined_at, raw });
    }
    Ok(fetched)
}

async fn block_time(flows: &Flows, height: u32) -> Result<Option<(BlockHash, i64)>, Error> {
    let Some(hash) = flows.chain().block_hash(height).await? else { return Ok(None) };
    Ok(Some((hash, i64::from(flows.chain().block(hash).await?.header.time))))
}

struct Finish {
    owner: Ownership,
    at: BlockRef,
    wallets: Vec<WalletId>,
    found: Vec<Found>,
}

#[async_trait]
impl Write for Finish {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        owners::fence(tx, &self.owner).await?;
        chain::write_alone(tx).await?;
        chain::hold_cursor(tx, self.at).await?;
        for found in &self.found {
            self.write(tx, found).await?;
        }
        for wallet in &self.wallets {
            wallets::mark_scanned(tx, wallet).await?;
            let coins = self.found.iter().filter(|found| found.coin.wallet == *wallet).count();
            let scanned = WalletScanned { coins, height: self.at.height };
            events::append(tx, Some(wallet), None, &Fact::WalletScanned(scanned)).await?;
        }
        Ok(())
    }
}

impl Finish {
    async fn write(&self, tx: &mut Tx<'_>, found: &Found) -> Result<(), StoreError> {
        let txid = found.coin.outpoint.txid;
        let status = Status::Mined { height: found.height };
        let row = TxRow {
            txid,
            raw: found.raw.clone(),
            status,
            mined_at: found.mined_at,
            coinbase: found.coin.coinbase,
            first_seen_at: tx.now(),
        };
        let is_news = chain::coins_among(tx.conn(), &[found.coin.outpoint]).await?.is_empty();
        let script = wallets::scripts_among(tx.conn(), std::slice::from_ref(&found.coin.script)).await?.pop();
        if let Some(id) = script.filter(|script| is_news && script.is_receive).and_then(|script| script.request) {
            // Handed out while the search was going on. What lies there is from before, and nobody's deposit.
            let event = address::Event::FoundUsed { outpoint: found.coin.outpoint };
            apply::advance::<ReceiveAddress>(tx, id, &event).await?;
        }
        chain::insert_tx(tx, &row).await?;
        chain::insert_coin(tx, &found.coin, status).await?;
        chain::insert_wallet_tx(tx, &found.coin.wallet, txid).await
    }
}
