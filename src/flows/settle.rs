//! Moving the client's coins off-chain: the client signs a payment to an address of the node that is bound to its wallet, and what
//! arrives there is credited once it is deep enough. Whoever pays such an address pays that wallet.

use async_trait::async_trait;
use bitcoin::Network;
use serde::{Deserialize, Serialize};

use super::history::{self, Send};
use super::send::{self, BeginSend, Begun};
use super::{Code, Error, Flows, Idempotency, balance, sync};
use crate::crash;
use crate::domain::Request;
use crate::domain::credit::{Credit, State};
use crate::domain::onchain_send::Door;
use crate::domain::wallet::WalletKeys;
use crate::ids::{RequestId, WalletId};
use crate::money::Sat;
use crate::store::credits::{self, BoundAddress};
use crate::store::{Conn, StoreError, Tx, Write, requests};

/// What the operator decides about coins that become off-chain money.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SettlePolicy {
    /// Blocks until such a coin is credited. Empty: 1 on regtest, 3 elsewhere.
    pub confirmations: Option<u32>,
    /// Larger amounts may have to be deeper; the highest number that applies is taken.
    pub larger: Vec<Larger>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Larger {
    pub from_sats: Sat,
    pub confirmations: u32,
}

impl SettlePolicy {
    /// How deep a coin of this amount has to be.
    #[must_use]
    pub fn confirmations(&self, network: Network, amount: Sat) -> u32 {
        let usual = self.confirmations.unwrap_or(if network == Network::Regtest { 1 } else { 3 }).max(1);
        let larger = self.larger.iter().filter(|step| amount >= step.from_sats).map(|step| step.confirmations);
        larger.fold(usual, u32::max)
    }
}

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct BeginSettle {
    /// What is to be credited. Empty: everything that can be spent now, less the fee.
    pub amount: Option<Sat>,
    /// Whole satoshis per virtual byte.
    pub fee_rate: u32,
    pub expires_in_seconds: Option<u64>,
    pub reference: Option<String>,
}

/// Chooses coins and hands out the payment to the wallet's address at the node, to be signed.
///
/// # Errors
/// As for any send, and when the node can't be asked for an address.
pub async fn begin(
    flows: &Flows,
    keys: &WalletKeys,
    wanted: BeginSettle,
    idempotency: Option<Idempotency>,
) -> Result<Begun, Error> {
    if let Some(begun) = send::answered_before(flows, &keys.id(), idempotency.as_ref()).await? {
        return Ok(begun);
    }
    // Before the node is asked for an address.
    send::check_wishes(flows, wanted.fee_rate, wanted.expires_in_seconds, wanted.reference.as_deref())?;
    let (amount, deduct_fee) = match wanted.amount {
        Some(amount) => (amount, false),
        None => (everything(flows, &keys.id()).await?, true),
    };
    let to = bound_address(flows, &keys.id()).await?;
    let send = BeginSend {
        to: to.address,
        amount,
        fee_rate: wanted.fee_rate,
        deduct_fee,
        expires_in_seconds: wanted.expires_in_seconds,
        reference: wanted.reference,
        door: Door::Settle,
        min_confirmations: None,
        to_field: "amount_sats",
        amount_field: "amount_sats",
    };
    send::begin(flows, keys, send, idempotency).await
}

async fn everything(flows: &Flows, wallet: &WalletId) -> Result<Sat, Error> {
    let spendable = balance::balances(flows, wallet).await?.vanilla.spendable;
    if spendable == Sat::ZERO {
        return Err(Error::refused(Code::InsufficientFunds, "the wallet has no coins on-chain that can be spent now"));
    }
    Ok(spendable)
}

/// The address of the node that stands for this wallet now: the last one, until something has come to it.
async fn bound_address(flows: &Flows, wallet: &WalletId) -> Result<BoundAddress, Error> {
    let mut conn = flows.store().read().await?;
    if let Some(unused) = credits::unused(&mut conn, wallet).await? {
        return Ok(unused);
    }
    drop(conn);
    let address = flows.node().node()?.onchain_address().await.map_err(Error::Node)?;
    let bound = BoundAddress { script: address.script_pubkey(), address: address.to_string(), wallet: wallet.clone() };
    flows.store().write(Bind(bound.clone())).await?;
    crash::point("settle.bound");
    Ok(bound)
}

struct Bind(BoundAddress);

#[async_trait]
impl Write for Bind {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        credits::bind(tx, &self.0).await
    }
}

/// Checks the signatures and broadcasts.
///
/// # Errors
/// As for the end of any send.
pub async fn end(flows: &Flows, wallet: &WalletId, signed_psbt: &str) -> Result<Settle, Error> {
    let send = send::end(flows, wallet, Door::Settle, signed_psbt).await?;
    with_credits(flows, send).await
}

/// A move of coins off-chain: the payment, and what the books made of it.
#[derive(Clone, Debug)]
pub struct Settle {
    pub send: Send,
    pub credits: Vec<CreditView>,
}

/// A credit, and how many blocks it still waits for.
#[derive(Clone, Debug)]
pub struct CreditView {
    pub request: Request<Credit>,
    pub confirmations_left: u32,
}

impl Settle {
    /// What the books owe the wallet because of it.
    #[must_use]
    pub fn credited(&self) -> Option<Sat> {
        let credited = self.credits.iter().filter(|credit| is_credited(&credit.request));
        let amounts: Vec<Sat> = credited.map(|credit| credit.request.machine.amount).collect();
        if amounts.is_empty() { None } else { Sat::sum(amounts) }
    }
}

fn is_credited(request: &Request<Credit>) -> bool {
    matches!(request.machine.state, State::Credited { .. })
}

/// One move of this wallet's.
///
/// # Errors
/// When the store can't be used.
pub async fn get(flows: &Flows, wallet: &WalletId, id: RequestId) -> Result<Option<Settle>, Error> {
    match history::send(flows, wallet, id).await? {
        Some(send) if send.request.machine.terms.door == Door::Settle => Ok(Some(with_credits(flows, send).await?)),
        Some(_) | None => Ok(None),
    }
}

async fn with_credits(flows: &Flows, send: Send) -> Result<Settle, Error> {
    let mut conn = flows.store().read().await?;
    let ids = match send.request.machine.txid() {
        Some(txid) => credits::of_transaction(&mut conn, txid).await?,
        None => Vec::new(),
    };
    drop(conn);
    Ok(Settle { credits: views(flows, &ids).await?, send })
}

/// A credit by its id.
///
/// # Errors
/// When the store can't be used.
pub async fn credit(flows: &Flows, id: RequestId) -> Result<Option<CreditView>, Error> {
    Ok(views(flows, &[id]).await?.pop())
}

async fn views(flows: &Flows, ids: &[RequestId]) -> Result<Vec<CreditView>, Error> {
    let tip = history::tip_height(flows).await?;
    let mut conn = flows.store().read().await?;
    let mut views = Vec::new();
    for id in ids {
        views.extend(load(&mut conn, *id).await?.map(|request| {
            let confirmations_left = left(flows, &request.machine, tip);
            CreditView { request, confirmations_left }
        }));
    }
    Ok(views)
}

async fn load(conn: &mut Conn, id: RequestId) -> Result<Option<Request<Credit>>, StoreError> {
    requests::load::<Credit>(conn, id).await
}

fn left(flows: &Flows, credit: &Credit, tip: u32) -> u32 {
    let depth = credit.height().map_or(0, |height| tip.saturating_add(1).saturating_sub(height));
    match credit.state {
        State::Credited { .. } => 0,
        State::Seen | State::Mined { .. } | State::Replaced { .. } | State::Evicted | State::Reorged => {
            flows.settle_confirmations(credit.amount).saturating_sub(depth)
        }
    }
}

/// What `settle` found or did in a pocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    NothingToDo,
    /// Became the wallet's off-chain money with this call.
    Credited(Sat),
    /// On its way there.
    Pending {
        amount: Sat,
        confirmations_left: u32,
    },
    /// Coins that only the client can move.
    NeedsSignature(Sat),
}

/// Finishes what needs no signature: takes in the chain up to the node's tip, and what became final with it. The channels are looked at
/// after it; whether one is opened is no wallet's call.
///
/// # Errors
/// When the chain can't be followed in time, or the store can't be used.
pub async fn finish(flows: &Flows, wallet: &WalletId) -> Result<Vec<Found>, Error> {
    let mut conn = flows.store().read().await?;
    let waiting = credits::on_their_way(&mut conn, wallet).await?;
    drop(conn);
    sync::wait_for_tip(flows).await?;
    let mut conn = flows.store().read().await?;
    let mut ids = credits::on_their_way(&mut conn, wallet).await?;
    drop(conn);
    ids.extend(waiting.iter().filter(|id| !ids.contains(id)).copied().collect::<Vec<_>>());
    let mut found: Vec<Found> = views(flows, &ids).await?.into_iter().filter_map(of_credit).collect();
    let spendable = balance::balances(flows, wallet).await?.vanilla.spendable;
    if spendable != Sat::ZERO {
        found.push(Found::NeedsSignature(spendable));
    }
    if found.is_empty() {
        found.push(Found::NothingToDo);
    }
    flows.wake_liquidity();
    Ok(found)
}

fn of_credit(view: CreditView) -> Option<Found> {
    let amount = view.request.machine.amount;
    match view.request.machine.state {
        State::Credited { .. } => Some(Found::Credited(amount)),
        State::Seen | State::Mined { .. } | State::Reorged => {
            Some(Found::Pending { amount, confirmations_left: view.confirmations_left })
        }
        State::Replaced { .. } | State::Evicted => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_amounts_wait_longer() {
        let larger = vec![
            Larger { from_sats: Sat::literal(1_000), confirmations: 6 },
            Larger { from_sats: Sat::literal(5_000), confirmations: 4 },
        ];
        let policy = SettlePolicy { confirmations: Some(2), larger };
        for (amount, deep) in [(999, 2), (1_000, 6), (5_000, 6)] {
            assert_eq!(policy.confirmations(Network::Bitcoin, Sat::literal(amount)), deep);
        }
        let usual = SettlePolicy::default();
        assert_eq!(usual.confirmations(Network::Bitcoin, Sat::MAX), 3);
        assert_eq!(usual.confirmations(Network::Regtest, Sat::MAX), 1);
    }
}
