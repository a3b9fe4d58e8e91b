//! What payers bring for invoices of this gateway: the engine looks at it, and only what it accepts is acknowledged.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::{give_up, mirror, side, turn};
use crate::clock::Timestamp;
use crate::crash;
use crate::domain::asset_receive::{Arrival, AssetReceive, Event, State};
use crate::domain::event::payloads::Reason;
use crate::domain::{BlockRef, Fact, Machine};
use crate::flows::{Error, Flows};
use crate::ids::{RequestId, WalletId};
use crate::money::Amount;
use crate::ports::assets::{AssetError, Verdict};
use crate::store::asset_transfers::{self, Brought};
use crate::store::{StoreError, Tx, Write, apply, chain, consignments, events, requests};

/// Consignments that one round considers: more than will ever be put off at the same time.
const BATCH: u32 = 500;

/// How long a consignment waits that the engine could not look at.
const LATER: Duration = Duration::from_secs(10);

/// Consignments that are not looked at now. Kept in memory: looking once more is harmless.
#[derive(Debug, Default)]
pub struct PutOff {
    until: HashMap<String, Until>,
}

#[derive(Clone, Copy, Debug)]
enum Until {
    /// The next block after this one: its history is too young.
    Block(Option<BlockRef>),
    Time(Timestamp),
}

impl PutOff {
    fn holds(&self, recipient: &str, tip: Option<BlockRef>, now: Timestamp) -> bool {
        match self.until.get(recipient) {
            None => false,
            Some(Until::Block(block)) => *block == tip,
            Some(Until::Time(time)) => now < *time,
        }
    }
}

/// Looks at what was brought; answers whether there was anything.
///
/// # Errors
/// When the engine or the store can't be used.
pub async fn look_at_what_was_brought(flows: &Flows, put_off: &mut PutOff) -> Result<bool, Error> {
    let mut conn = flows.store().read().await?;
    let brought = asset_transfers::brought(&mut conn, BATCH).await?;
    if brought.is_empty() {
        put_off.until.clear();
        return Ok(false);
    }
    let tip = chain::cursor(&mut conn).await?;
    drop(conn);
    put_off.until.retain(|recipient, _| brought.iter().any(|one| one.recipient == *recipient));
    let mut any = false;
    for one in brought {
        if put_off.holds(&one.recipient, tip, flows.now()) {
            continue;
        }
        any = true;
        let (looking, recipient) = (flows.clone(), one.recipient.clone());
        match turn::to_the_end(async move { look_at(&looking, one).await }).await {
            Ok(Verdict::NotYet) => drop(put_off.until.insert(recipient, Until::Block(tip))),
            Ok(Verdict::Accepted | Verdict::Refused { .. }) => {}
            Err(Error::Store(error)) if !matches!(error, StoreError::Corrupt(_)) => return Err(error.into()),
            Err(error) => {
                // One that the engine stumbles over keeps no other one waiting.
                tracing::warn!(recipient, %error, "a consignment can't be looked at now");
                put_off.until.insert(recipient, Until::Time(flows.now().after(LATER)));
            }
        }
    }
    Ok(any)
}

async fn look_at(flows: &Flows, one: Brought) -> Result<Verdict, Error> {
    let engine = side(flows)?.engine.clone();
    let keys = give_up::keys(flows, &one.wallet).await?;
    let lock = flows.choosing(&one.wallet);
    let _one_at_a_time = lock.lock().await;
    let mut conn = flows.store().read().await?;
    let Some(request) = asset_transfers::request_of_recipient(&mut conn, &one.recipient).await? else {
        return Err(StoreError::Corrupt(format!("recipient {} has no request", one.recipient)).into());
    };
    let content = consignments::content(&mut conn, &one.recipient).await?;
    drop(conn);
    let Some(content) = content else { return Ok(Verdict::NotYet) };
    let bytes = BASE64_STANDARD.decode(content).map_err(|e| StoreError::Corrupt(format!("a consignment: {e}")))?;
    let verdict = match engine.accept(&keys, &one.recipient, bytes).await {
        Err(AssetError::Refused(refusal)) => Verdict::Refused { reason: refusal.to_string() },
        said => said?,
    };
    crash::point("asset_receive.looked_at");
    let told = mirror::read(flows, &keys, &engine, None).await?;
    let arrival = match verdict {
        Verdict::Accepted => Some(arrival(&told, &one.recipient)?),
        Verdict::NotYet | Verdict::Refused { .. } => None,
    };
    let Brought { recipient, wallet } = one;
    flows.store().write(Answer { request, wallet, recipient, verdict: verdict.clone(), arrival, told }).await?;
    crash::point("asset_receive.answered");
    flows.wake_assets();
    Ok(verdict)
}

fn arrival(told: &mirror::Told, recipient: &str) -> Result<Arrival, Error> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("the engine has accepted {recipient}, and says no {what}"));
    let mine = told.to(recipient).ok_or_else(|| corrupt("transfer"))?;
    let amount = mine.amounts.iter().try_fold(Amount::ZERO, |sum, amount| sum.checked_add(*amount));
    Ok(Arrival {
        asset: mine.asset.clone().ok_or_else(|| corrupt("asset"))?,
        amount: amount.ok_or_else(|| corrupt("amount"))?,
        txid: mine.txid.ok_or_else(|| corrupt("transaction"))?,
    })
}

struct Answer {
    request: RequestId,
    wallet: WalletId,
    recipient: String,
    verdict: Verdict,
    arrival: Option<Arrival>,
    told: mirror::Told,
}

#[async_trait]
impl Write for Answer {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        self.told.write(tx).await?;
        match (&self.verdict, &self.arrival) {
            (Verdict::Accepted, Some(arrival)) => self.accepted(tx, arrival).await,
            (Verdict::Refused { reason }, _) => self.refused(tx, reason).await,
            (Verdict::Accepted | Verdict::NotYet, _) => Ok(()),
        }
    }
}

impl Answer {
    async fn accepted(&self, tx: &mut Tx<'_>, arrival: &Arrival) -> Result<(), StoreError> {
        apply::advance::<AssetReceive>(tx, self.request, &Event::Accepted(arrival.clone())).await?;
        if let Some(height) = asset_transfers::height_of(tx.conn(), &self.wallet, arrival.txid).await? {
            apply::advance::<AssetReceive>(tx, self.request, &Event::Mined { height }).await?;
        }
        consignments::acknowledge(tx, &self.recipient, true, true).await.map(drop)
    }

    /// Nobody knows who has brought what is worthless: it makes room for what the payer brings. Once the invoice is closed, the payer
    /// is told.
    async fn refused(&self, tx: &mut Tx<'_>, reason: &str) -> Result<(), StoreError> {
        let request = requests::load::<AssetReceive>(tx.conn(), self.request).await?;
        let is_open = request.as_ref().is_some_and(|request| request.machine.state == State::Open);
        if !is_open {
            return consignments::acknowledge(tx, &self.recipient, false, true).await.map(drop);
        }
        let note = Fact::AssetConsignmentRefused(Reason { reason: reason.to_owned() });
        events::append(tx, Some(&self.wallet), Some(self.request), &note).await?;
        tracing::warn!(request = %self.request, kind = AssetReceive::KIND, reason, "a consignment is worth nothing");
        consignments::discard(tx, &self.recipient).await
    }
}

/// Asks the engine to look at the chain for the wallets of which something is on its way.
///
/// # Errors
/// When the engine or the store can't be used.
pub async fn look_at_the_chain(flows: &Flows) -> Result<(), Error> {
    let mut conn = flows.store().read().await?;
    let waiting = asset_transfers::wallets_waiting(&mut conn).await?;
    drop(conn);
    for wallet in waiting {
        let (flows, of) = (flows.clone(), wallet.clone());
        let looked = turn::to_the_end(async move { refresh(&flows, &of).await }).await;
        go_on(looked, &wallet, "the engine can't look at the chain for a wallet now")?;
    }
    Ok(())
}

/// One wallet that the engine stumbles over keeps no other one waiting. Without the store nothing goes on.
fn go_on(done: Result<(), Error>, wallet: &WalletId, what: &str) -> Result<(), Error> {
    match done {
        Err(Error::Store(error)) if !matches!(error, StoreError::Corrupt(_)) => Err(error.into()),
        Err(error) => {
            tracing::warn!(%wallet, %error, "{what}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Has the engine look at the chain for one wallet, and writes down what has changed.
///
/// # Errors
/// When the engine or the store can't be used.
pub async fn refresh(flows: &Flows, wallet: &WalletId) -> Result<(), Error> {
    let engine = side(flows)?.engine.clone();
    let keys = give_up::keys(flows, wallet).await?;
    let lock = flows.choosing(wallet);
    let _one_at_a_time = lock.lock().await;
    engine.refresh(&keys).await?;
    mirror::copy(flows, &keys, &engine).await
}

/// Gives up what the engine was made to make and nobody wrote down: a process died, or the engine's answer was lost.
///
/// # Errors
/// When the engine or the store can't be used.
pub async fn tidy_up(flows: &Flows) -> Result<(), Error> {
    let mut conn = flows.store().read().await?;
    let wallets = asset_transfers::wallets_with_intents(&mut conn).await?;
    drop(conn);
    for wallet in wallets {
        let (flows, of) = (flows.clone(), wallet.clone());
        let tidied = turn::to_the_end(async move { tidy_up_one(&flows, &of).await }).await;
        go_on(tidied, &wallet, "a wallet's transfers can't be tidied up now")?;
    }
    Ok(())
}

async fn tidy_up_one(flows: &Flows, wallet: &WalletId) -> Result<(), Error> {
    let engine = side(flows)?.engine.clone();
    let keys = give_up::keys(flows, wallet).await?;
    let lock = flows.choosing(wallet);
    let _one_at_a_time = lock.lock().await;
    turn::tidy_up(flows, &keys, &engine).await
}
