//! What happens to a signed send of assets: its payees are brought their consignments, and it goes out when all have accepted.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::{Psbt, Txid};

use super::give_up::{self, GivenUp};
use super::{mirror, side, turn};
use crate::clock::Timestamp;
use crate::crash;
use crate::domain::Request;
use crate::domain::onchain_send::{AssetTerms, Event, OnchainSend, Payee, State};
use crate::domain::wallet::WalletKeys;
use crate::flows::{AssetSide, Error, Flows, consignments, effects};
use crate::ids::RequestId;
use crate::ports::assets::{AssetEngine, AssetError, Consignment, Refusal};
use crate::ports::courier::{Brought, Parcel};
use crate::store::consignments::{Label, Posted};
use crate::store::issued::{self, IssuedTx};
use crate::store::{StoreError, Tx, Write, apply, consignments as kept, halts, requests};

/// How long a payee that has not answered is left alone: at first, and at most.
const SOON: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(30);

/// How far deliveries are. Kept in memory: bringing and asking once more is harmless.
#[derive(Debug, Default)]
pub struct Deliveries {
    of: Mutex<HashMap<RequestId, Delivery>>,
}

#[derive(Clone, Debug)]
struct Delivery {
    brought: HashSet<String>,
    accepted: HashSet<String>,
    asked_at: Timestamp,
    patience: Duration,
}

impl Deliveries {
    fn take(&self, id: RequestId, now: Timestamp) -> Delivery {
        let fresh = || Delivery {
            brought: HashSet::new(),
            accepted: HashSet::new(),
            asked_at: Timestamp::from_millis(0),
            patience: SOON,
        };
        let mut all = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let mut delivery = all.remove(&id).unwrap_or_else(fresh);
        delivery.asked_at = delivery.asked_at.min(now);
        delivery
    }

    fn put(&self, id: RequestId, delivery: Delivery) {
        self.of.lock().unwrap_or_else(PoisonError::into_inner).insert(id, delivery);
    }

    fn keep_only(&self, open: &HashSet<RequestId>) {
        self.of.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| open.contains(id));
    }
}

/// Moves every signed send of assets on as far as it goes now; answers whether there are any.
///
/// # Errors
/// When the store can't be used. A payee or an engine that can't be reached is asked again later.
pub async fn deliver(flows: &Flows) -> Result<bool, Error> {
    let side = side(flows)?;
    let mut conn = flows.store().read().await?;
    let waiting = requests::waiting_for_payees(&mut conn).await?;
    drop(conn);
    side.deliveries.keep_only(&waiting.iter().map(|request| request.id).collect());
    let any = !waiting.is_empty();
    for request in waiting {
        let (flows, id) = (flows.clone(), request.id);
        match turn::to_the_end(async move { deliver_one(&flows, request).await }).await {
            Err(Error::Store(error)) if !matches!(error, StoreError::Corrupt(_)) => return Err(error.into()),
            // One that can't go on keeps no other one waiting.
            Err(error) => tracing::warn!(request = %id, %error, "a transfer of assets does not go on now"),
            Ok(()) => {}
        }
    }
    Ok(any)
}

async fn deliver_one(flows: &Flows, request: Request<OnchainSend>) -> Result<(), Error> {
    let (Some(txid), Some(assets)) = (request.machine.txid(), &request.machine.terms.assets) else { return Ok(()) };
    let side = side(flows)?;
    // What is out can't be taken back: its payees are told all the same.
    let is_out = !matches!(request.machine.state, State::WaitingAck { .. });
    if flows.now() >= assets.accept_by && !is_out {
        return fail(flows, &request, assets, txid, "not everybody accepted in time").await;
    }
    let mut delivery = side.deliveries.take(request.id, flows.now());
    if delivery.asked_at.after(delivery.patience) > flows.now() && !is_all_ours(flows, assets).await? {
        side.deliveries.put(request.id, delivery);
        return Ok(());
    }
    let outcome = ask_payees(flows, side, &request, assets, txid, &mut delivery).await;
    delivery.asked_at = flows.now();
    delivery.patience = delivery.patience.saturating_mul(2).min(LATE);
    let all_accepted = assets.payees.iter().all(|payee| delivery.accepted.contains(&payee.recipient));
    side.deliveries.put(request.id, delivery);
    match outcome? {
        Some(refusal) if is_out => {
            tracing::error!(request = %request.id, refusal, "an asset is out that its payee does not take");
            Ok(())
        }
        Some(refusal) => fail(flows, &request, assets, txid, &refusal).await,
        // The engine offers it by itself: while payouts are stopped, it is not told.
        None if all_accepted && is_halted(flows, &request).await? => Ok(()),
        None if all_accepted => send_out(flows, &request, assets, txid).await,
        None => Ok(()),
    }
}

/// Whether every payee is asked in the gateway's own database, which costs nothing.
async fn is_all_ours(flows: &Flows, assets: &AssetTerms) -> Result<bool, Error> {
    for payee in &assets.payees {
        if !is_ours(flows, payee).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the payee is told here: its invoice is one of this gateway's, or it uses this gateway's proxy.
async fn is_ours(flows: &Flows, payee: &Payee) -> Result<bool, Error> {
    if side(flows)?.endpoints.iter().any(|own| payee.endpoints.contains(own)) {
        return Ok(true);
    }
    let mut conn = flows.store().read().await?;
    Ok(kept::owner(&mut conn, &payee.recipient).await?.is_some())
}

/// Brings what is not brought yet, and asks who has not accepted yet; answers why it has failed, once it has.
async fn ask_payees(
    flows: &Flows,
    side: &AssetSide,
    request: &Request<OnchainSend>,
    assets: &AssetTerms,
    txid: Txid,
    delivery: &mut Delivery,
) -> Result<Option<String>, Error> {
    let missing = |delivery: &Delivery| {
        assets.payees.iter().filter(|payee| !delivery.brought.contains(&payee.recipient)).cloned().collect::<Vec<_>>()
    };
    let to_bring = missing(delivery);
    if !to_bring.is_empty() {
        let Some(consignments) = consignments_of(flows, side, request, txid).await? else {
            return Ok(Some("the RGB engine can't make what its payees have to see".to_owned()));
        };
        crash::point("asset_send.ended");
        for payee in to_bring {
            let of_asset = consignments.iter().find(|consignment| consignment.asset == payee.asset);
            let bytes = of_asset.map(|consignment| consignment.bytes.clone());
            let bytes = bytes.ok_or_else(|| StoreError::Corrupt(format!("{txid} has no consignment of an asset")))?;
            let parcel = Parcel { recipient: payee.recipient.clone(), txid, vout: payee.vout, bytes };
            match bring(flows, side, &payee, parcel).await? {
                Said::Yes => drop(delivery.brought.insert(payee.recipient.clone())),
                Said::NotYet => {}
                Said::No(reason) => return Ok(Some(reason)),
            }
        }
        crash::point("asset_send.brought");
    }
    for payee in &assets.payees {
        if !delivery.brought.contains(&payee.recipient) || delivery.accepted.contains(&payee.recipient) {
            continue;
        }
        match ask(flows, side, payee).await? {
            Said::Yes => drop(delivery.accepted.insert(payee.recipient.clone())),
            Said::NotYet => {}
            Said::No(reason) => return Ok(Some(reason)),
        }
    }
    Ok(None)
}

async fn is_halted(flows: &Flows, request: &Request<OnchainSend>) -> Result<bool, Error> {
    let mut conn = flows.store().read().await?;
    Ok(halts::stopping(&mut conn, &request.wallet).await?.is_some())
}

enum Said {
    Yes,
    NotYet,
    No(String),
}

/// The engine takes the signature, which is kept here since `end`, and answers the same each time. Nothing where it stumbles over it,
/// which it would do each time as well.
async fn consignments_of(
    flows: &Flows,
    side: &AssetSide,
    request: &Request<OnchainSend>,
    txid: Txid,
) -> Result<Option<Vec<Consignment>>, Error> {
    let keys = give_up::keys(flows, &request.wallet).await?;
    let mut conn = flows.store().read().await?;
    let issued = issued::by_txid(&mut conn, txid).await?;
    drop(conn);
    let issued = issued.ok_or_else(|| StoreError::Corrupt(format!("{txid} was not issued")))?;
    let signed = with_signatures(&issued)?;
    let lock = flows.choosing(&request.wallet);
    let _one_at_a_time = lock.lock().await;
    match side.engine.end_transfer(&keys, &signed).await {
        Err(AssetError::Refused(Refusal::Broken)) => Ok(None),
        made => Ok(Some(made?)),
    }
}

/// The PSBT as it was handed out, which has what the engine put there, with the signatures of the transaction that was accepted.
fn with_signatures(issued: &IssuedTx) -> Result<Psbt, Error> {
    let mut psbt = issued.parse_psbt()?;
    let signed = issued.signed_tx.as_ref();
    let signed = signed.ok_or_else(|| StoreError::Corrupt(format!("{} is not signed", issued.unsigned_txid)))?;
    for (input, of) in psbt.inputs.iter_mut().zip(&signed.input) {
        input.final_script_witness = Some(of.witness.clone());
    }
    Ok(psbt)
}

async fn bring(flows: &Flows, side: &AssetSide, payee: &Payee, parcel: Parcel) -> Result<Said, Error> {
    if is_ours(flows, payee).await? {
        let label = Label { recipient_id: parcel.recipient, txid: parcel.txid.to_string(), vout: parcel.vout };
        return Ok(match consignments::post(flows, label, parcel.bytes).await? {
            Posted::Stored | Posted::Same => Said::Yes,
            // What is worthless there is taken away again.
            Posted::Differs | Posted::Full => Said::NotYet,
            Posted::Closed => Said::No("the invoice takes nothing any more".to_owned()),
        });
    }
    let (mut refused, mut all_asked) = (None, true);
    for endpoint in payee.endpoints.iter().filter(|endpoint| side.courier.check(endpoint).is_ok()) {
        match side.courier.bring(endpoint, &parcel).await {
            Ok(Brought::Taken) => return Ok(Said::Yes),
            Ok(Brought::Refused { reason }) => refused = Some(reason),
            Err(error) => {
                tracing::info!(endpoint, %error, "a payee's proxy can't be reached now");
                all_asked = false;
            }
        }
    }
    // One that can't be reached now may take it yet.
    Ok(match refused {
        Some(why) if all_asked => Said::No(format!("the payee's proxy does not take it: {why}")),
        Some(_) | None => Said::NotYet,
    })
}

async fn ask(flows: &Flows, side: &AssetSide, payee: &Payee) -> Result<Said, Error> {
    let said = if is_ours(flows, payee).await? {
        consignments::find(flows, &payee.recipient).await?.and_then(|found| found.ack)
    } else {
        let mut said = None;
        for endpoint in payee.endpoints.iter().filter(|endpoint| side.courier.check(endpoint).is_ok()) {
            match side.courier.answer(endpoint, &payee.recipient).await {
                Ok(Some(answer)) => {
                    said = Some(answer);
                    break;
                }
                Ok(None) => {}
                Err(error) => tracing::info!(endpoint, %error, "a payee's proxy can't be asked now"),
            }
        }
        said
    };
    Ok(match said {
        Some(true) => Said::Yes,
        Some(false) => Said::No("a payee has refused the asset".to_owned()),
        None => Said::NotYet,
    })
}

/// Everybody has accepted: the engine sends it out, and the gateway offers it too until a block has it.
async fn send_out(flows: &Flows, request: &Request<OnchainSend>, assets: &AssetTerms, txid: Txid) -> Result<(), Error> {
    let engine = side(flows)?.engine.clone();
    let keys = give_up::keys(flows, &request.wallet).await?;
    let lock = flows.choosing(&request.wallet);
    let one_at_a_time = lock.lock().await;
    for payee in &assets.payees {
        engine.acknowledged(&keys, &payee.recipient).await?;
    }
    crash::point("asset_send.sent_out");
    let told = mirror::read(flows, &keys, &engine, None).await?;
    flows.store().write(SentOut { request: request.id, txid, told }).await?;
    drop(one_at_a_time);
    crash::point("asset_send.out_committed");
    let mut conn = flows.store().read().await?;
    let signed = issued::by_txid(&mut conn, txid).await?.and_then(|version| version.signed_tx);
    drop(conn);
    match signed {
        Some(signed) => effects::offer(flows, request.id, &signed).await,
        None => Ok(()),
    }
}

async fn fail(
    flows: &Flows,
    request: &Request<OnchainSend>,
    assets: &AssetTerms,
    txid: Txid,
    reason: &str,
) -> Result<(), Error> {
    let engine: Arc<dyn AssetEngine> = side(flows)?.engine.clone();
    let keys: WalletKeys = give_up::keys(flows, &request.wallet).await?;
    let lock = flows.choosing(&request.wallet);
    let one_at_a_time = lock.lock().await;
    let mut conn = flows.store().read().await?;
    let now = requests::load::<OnchainSend>(&mut conn, request.id).await?;
    drop(conn);
    let still_waits = now.is_some_and(|now| matches!(now.machine.state, State::WaitingAck { .. }));
    if !still_waits {
        return Ok(());
    }
    if turn::may_be_out(flows, txid).await? || !turn::give_up(&engine, &keys, assets.batch).await? {
        // The engine has sent it out, and a process died before that was written down.
        drop(one_at_a_time);
        return send_out(flows, request, assets, txid).await;
    }
    crash::point("asset_send.given_up");
    let told = mirror::read(flows, &keys, &engine, None).await?;
    Ok(flows.store().write(GivenUp { request: request.id, told, reason: reason.to_owned() }).await?)
}

struct SentOut {
    request: RequestId,
    txid: Txid,
    told: mirror::Told,
}

#[async_trait]
impl Write for SentOut {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        self.told.write(tx).await?;
        apply::advance::<OnchainSend>(tx, self.request, &Event::Acknowledged { txid: self.txid }).await.map(drop)
    }
}
