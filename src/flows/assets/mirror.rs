//! What the engine tells of a wallet's transfers, copied into rows: they can be listed, and the chain can be looked at for them.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::{OutPoint, Txid};

use super::look_back::{self, Held};
use crate::domain::asset_receive::{self, AssetReceive};
use crate::domain::wallet::WalletKeys;
use crate::flows::{Error, Flows};
use crate::ids::{RequestId, WalletId};
use crate::ports::assets::{AssetEngine, Transfer, TransferKind, TransferStatus};
use crate::store::asset_transfers::{self, TransferRow, Written};
use crate::store::{StoreError, Tx, Write, apply, chain, requests};

/// What the engine said, and what of it is written down.
pub(super) struct Told {
    pub wallet: WalletId,
    transfers: Vec<Transfer>,
    written: Written,
    held: Vec<Held>,
    of: Option<Made>,
}

/// What this call has had the engine make.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub batch: i32,
    pub request: RequestId,
    /// Where the payees are told of it, by their names.
    pub endpoints: HashMap<String, Vec<String>>,
}

/// Asks the engine what there is. Only under the wallet's lock: an older answer must not be written over a newer one.
pub(super) async fn read(
    flows: &Flows,
    keys: &WalletKeys,
    engine: &Arc<dyn AssetEngine>,
    of: Option<Made>,
) -> Result<Told, Error> {
    let wallet = keys.id();
    let transfers = engine.transfers(keys).await?;
    let mut conn = flows.store().read().await?;
    let written = asset_transfers::written(&mut conn, &wallet).await?;
    drop(conn);
    let told = Told { wallet, transfers, written, held: Vec::new(), of };
    let held = look_back::find(flows, &told).await?;
    Ok(Told { held, ..told })
}

/// Whether all transfers before this one are written: one that a process died over would be taken for an old one ever after.
pub(super) async fn is_next(flows: &Flows, wallet: &WalletId, transfer: &Transfer) -> Result<bool, Error> {
    let mut conn = flows.store().read().await?;
    let last = asset_transfers::last(&mut conn, wallet).await?;
    Ok(last.unwrap_or(0).checked_add(1) == Some(transfer.index))
}

/// What the engine has told of the one transfer that it has just made: it costs the same however many there were before.
pub(super) fn of_one(wallet: &WalletId, transfer: Transfer, of: Made) -> Told {
    let (transfers, written) = (vec![transfer], Written::default());
    Told { wallet: wallet.clone(), transfers, written, held: Vec::new(), of: Some(of) }
}

impl Told {
    /// Where what is left of the assets is to be, by what this call has had the engine make.
    pub(super) fn change_coins(&self) -> Vec<OutPoint> {
        let made = self.of.as_ref().map(|made| made.batch);
        self.transfers.iter().filter(|of| Some(of.batch) == made).filter_map(|of| of.change_coin).collect()
    }

    /// The transfer that a recipient is paid by.
    pub(super) fn to(&self, recipient: &str) -> Option<&Transfer> {
        self.transfers.iter().find(|transfer| transfer.recipient.as_deref() == Some(recipient))
    }

    /// Whether the engine counts what came by this transaction as settled.
    pub(super) fn has_settled(&self, txid: Txid) -> bool {
        let is_it = |of: &&Transfer| of.txid == Some(txid) && of.status == TransferStatus::Settled;
        self.transfers.iter().any(|of| is_it(&of))
    }

    /// Writes it, and tells the requests whose assets the engine counts as settled.
    pub(super) async fn write(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        for transfer in self.transfers.iter().filter(|transfer| self.written.may_change(transfer.index)) {
            let made = self.of.as_ref().filter(|made| made.batch == transfer.batch);
            asset_transfers::upsert(tx, &self.wallet, &row(transfer, made)).await?;
        }
        look_back::write(tx, &self.held).await?;
        let tip = chain::cursor(tx.conn()).await?.map_or(0, |tip| tip.height);
        for id in asset_transfers::settled_receives(tx.conn(), &self.wallet).await? {
            let receive = requests::load::<AssetReceive>(tx.conn(), id).await?;
            if receive.is_some_and(|receive| receive.machine.is_deep(tip)) {
                apply::advance::<AssetReceive>(tx, id, &asset_receive::Event::Settled).await?;
            }
        }
        Ok(())
    }
}

fn row(of: &Transfer, made: Option<&Made>) -> TransferRow {
    let endpoints = of.recipient.as_ref().and_then(|recipient| made?.endpoints.get(recipient));
    TransferRow {
        endpoints: endpoints.cloned().unwrap_or_default(),
        index: of.index,
        batch: of.batch,
        request: made.map(|made| made.request),
        kind: kind(of.kind).to_owned(),
        status: status(of.status).to_owned(),
        asset: of.asset.clone(),
        requested: of.requested,
        amounts: of.amounts.clone(),
        txid: of.txid,
        recipient: of.recipient.clone(),
        receive_coin: of.receive_coin,
        change_coin: of.change_coin,
        created_at: of.created_at,
        updated_at: of.updated_at,
        expires_at: of.expires_at.map(|at| i64::try_from(at).unwrap_or(i64::MAX)),
        height: None,
        reorged: false,
    }
}

/// As it is stored.
const fn kind(of: TransferKind) -> &'static str {
    match of {
        TransferKind::Issuance => "issuance",
        TransferKind::ReceiveBlind => "receive_blind",
        TransferKind::ReceiveWitness => "receive_witness",
        TransferKind::Send => "send",
        TransferKind::Inflation => "inflation",
        TransferKind::Burn => "burn",
    }
}

const fn status(of: TransferStatus) -> &'static str {
    match of {
        TransferStatus::Initiated => "initiated",
        TransferStatus::WaitingCounterparty => "waiting_counterparty",
        TransferStatus::WaitingConfirmations => "waiting_confirmations",
        TransferStatus::Settled => "settled",
        TransferStatus::Failed => "failed",
    }
}

/// Copies what the engine tells now.
pub(super) async fn copy(flows: &Flows, keys: &WalletKeys, engine: &Arc<dyn AssetEngine>) -> Result<(), Error> {
    let told = read(flows, keys, engine, None).await?;
    Ok(flows.store().write(Copy { told }).await?)
}

struct Copy {
    told: Told,
}

#[async_trait]
impl Write for Copy {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        self.told.write(tx).await
    }
}
