//! A send as it stands on the wire: the one place where states of the machine become words of the API.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::examples;
use super::wire::AssetAmount;
use crate::clock::Timestamp;
use crate::flows::history::Send;
use crate::flows::values::{IssuedTx, Machine, Request, Role, SendState, Terms, Withdraw, WithdrawState};
use crate::money::{Amount, Sat};

/// The states of the machine that a list can be narrowed to.
pub const SEND_STATES: [&str; 14] = [
    "awaiting_signature",
    "waiting_ack",
    "requested",
    "queued",
    "closing_channels",
    "waiting_close",
    "sweeping",
    "broadcast",
    "seen",
    "confirmed",
    "cancelled",
    "conflicted",
    "expired",
    "failed",
];

/// How far a send is. Those in the middle belong to off-chain money, and are said only when true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(example = json!("BROADCASTED"))]
pub enum Status {
    /// It waits for the client's signature or for the payees of an asset, or the operator's node has it to send and has not sent it yet.
    Requested,
    /// The node's coins do not reach, and a channel of the node is being closed by agreement with its peer.
    ClosingChannels,
    /// The channel is closed, and the transaction that closed it is in no block yet.
    WaitingCloseConfirmations,
    /// Never said: what came out of a channel is spent as soon as it counts.
    WaitingBalanceUpdate,
    /// That is in a block, and what it brought is not among the node's coins yet.
    SweepingOutputs,
    /// It is consented to: a signed version is handed to the network until it is in a block that is deep enough, and can't be taken back but by a
    /// version that pays more. `last_error` is empty once a node has taken it.
    Broadcasted,
    /// In a block that is deep enough. A reorganisation takes it back.
    Confirmed,
    /// No signed version that reached the gateway can still go through.
    Failed,
}

impl Status {
    #[must_use]
    pub const fn of(state: &SendState) -> Self {
        match state {
            SendState::AwaitingSignature | SendState::WaitingAck { .. } => Self::Requested,
            SendState::Broadcast { .. } | SendState::Seen { .. } => Self::Broadcasted,
            SendState::Confirmed { .. } => Self::Confirmed,
            SendState::Cancelled { .. }
            | SendState::Conflicted { .. }
            | SendState::Expired
            | SendState::Failed { .. } => Self::Failed,
        }
    }
}

/// A send of either kind: of the wallet's own coins, or of its off-chain money.
#[derive(Debug)]
pub enum AnySend {
    Coins(Send),
    Offchain(Request<Withdraw>),
}

impl AnySend {
    /// Where it stands in a list.
    #[must_use]
    pub fn place(&self) -> (Timestamp, String) {
        match self {
            Self::Coins(send) => (send.request.created_at, send.request.id.to_string()),
            Self::Offchain(request) => (request.created_at, request.id.to_string()),
        }
    }
}

/// A send of bitcoin, as far as it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "send_id": examples::ID, "withdrawal_id": examples::ID, "status": "BROADCASTED",
    "address_or_rgbinvoice": examples::ADDRESS, "amount_sats_requested": 50_000, "amount_sats_sent": 50_000, "asset": null,
    "close_txids": [], "sweep_txid": null, "fee_sats": 420,
    "timestamps": { "created": 1_763_683_200, "created_at": 1_763_683_200, "updated_at": 1_763_683_260 },
    "error_code": null, "error_message": null, "retryable": false,
    "state": "broadcast", "source": "onchain", "txid": examples::TXID, "height": null, "last_error": null,
    "reference": "payout-93", "expires_at": examples::TIME,
    "versions": [{ "txid": examples::TXID, "role": "original", "fee_sats": 420, "fee_rate": 3.0, "signed": true }],
}))]
pub struct GetOnchainSendResponse {
    pub send_id: String,
    /// The same as `send_id`.
    pub withdrawal_id: String,
    pub status: Status,
    /// The destination as it was written.
    pub address_or_rgbinvoice: String,
    /// The amount as it was asked for.
    #[schema(value_type = Option<u64>)]
    pub amount_sats_requested: Option<Sat>,
    /// What the recipient gets. Empty until it is on its way, and when it will not go.
    #[schema(value_type = Option<u64>)]
    pub amount_sats_sent: Option<Sat>,
    /// Empty for bitcoin, and for several assets at once.
    pub asset: Option<AssetAmount>,
    /// Transactions that closed channels of the node for it, each once it is in a block. None for on-chain coins.
    pub close_txids: Vec<String>,
    /// The transaction that brought home what was in the last of them, if one was needed. None for on-chain coins.
    pub sweep_txid: Option<String>,
    /// The fee of the current version. For off-chain money what it really cost, once it is sent.
    #[schema(value_type = Option<u64>)]
    pub fee_sats: Option<Sat>,
    /// Unix seconds: created, created_at, updated_at, and completed once it is.
    pub timestamps: BTreeMap<&'static str, i64>,
    /// Why it failed: cancelled, inputs_spent, request_expired or given_up. Or why it waits: reserve_low.
    pub error_code: Option<&'static str>,
    /// The same for a person.
    pub error_message: Option<String>,
    /// Whether the gateway may still make it succeed by itself.
    pub retryable: bool,
    /// The state in the words of the gateway, which say more than `status`.
    pub state: &'static str,
    /// Whose money it moves: onchain is the wallet's own coins, offchain what the operator owes it.
    pub source: &'static str,
    /// The version that stands for the send now.
    pub txid: Option<String>,
    /// The block that version is in.
    pub height: Option<u32>,
    /// Why no node has taken the signed transaction yet. It is offered again at each block. Empty while a node has it.
    pub last_error: Option<String>,
    pub reference: Option<String>,
    /// Until when the signature is waited for.
    pub expires_at: Option<String>,
    /// Every transaction that was handed out for it.
    pub versions: Vec<SendVersion>,
}

/// A transaction that was handed out for signing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "txid": examples::TXID, "role": "original", "fee_sats": 420, "fee_rate": 3.0, "signed": true }))]
pub struct SendVersion {
    pub txid: String,
    /// original, bump or cancel.
    pub role: &'static str,
    #[schema(value_type = u64)]
    pub fee_sats: Sat,
    /// Satoshis per virtual byte.
    pub fee_rate: f64,
    /// Whether its signature has reached the gateway.
    pub signed: bool,
}

impl From<&IssuedTx> for SendVersion {
    fn from(version: &IssuedTx) -> Self {
        Self {
            txid: version.unsigned_txid.to_string(),
            role: version.role.as_str(),
            fee_sats: version.fee,
            fee_rate: version.fee_rate.sat_per_vb(),
            signed: version.signed_tx.is_some(),
        }
    }
}

/// What a failed send is told apart by.
pub struct Failure {
    pub code: &'static str,
    pub message: String,
}

/// Why a send failed; `None` for one that has not.
#[must_use]
pub fn failure(state: &SendState) -> Option<Failure> {
    let (code, message) = match state {
        SendState::AwaitingSignature
        | SendState::WaitingAck { .. }
        | SendState::Broadcast { .. }
        | SendState::Seen { .. }
        | SendState::Confirmed { .. } => return None,
        SendState::Failed { reason } => ("given_up", format!("it was given up before it went out: {reason}")),
        SendState::Cancelled { txid, .. } => {
            ("cancelled", format!("the send was cancelled: {txid} paid its coins back to the wallet"))
        }
        SendState::Conflicted { by, .. } => {
            ("inputs_spent", format!("another transaction, {by}, spent a coin of this send"))
        }
        SendState::Expired => ("request_expired", "no signature arrived in time".to_owned()),
    };
    Some(Failure { code, message })
}

const fn height(state: &SendState) -> Option<u32> {
    match state {
        SendState::Seen { height, .. } | SendState::Confirmed { height, .. } | SendState::Cancelled { height, .. } => {
            Some(*height)
        }
        SendState::AwaitingSignature
        | SendState::WaitingAck { .. }
        | SendState::Broadcast { .. }
        | SendState::Conflicted { .. }
        | SendState::Expired
        | SendState::Failed { .. } => None,
    }
}

/// What is on its way to the recipient. A version that pays back to the wallet sends nothing.
#[must_use]
pub fn amount_sent(send: &Send) -> Option<Sat> {
    let on_its_way = match &send.request.machine.state {
        SendState::Broadcast { .. } | SendState::Seen { .. } | SendState::Confirmed { .. } => true,
        SendState::AwaitingSignature
        | SendState::WaitingAck { .. }
        | SendState::Cancelled { .. }
        | SendState::Conflicted { .. }
        | SendState::Expired
        | SendState::Failed { .. } => false,
    };
    let pays_back = send.current_version().is_some_and(|version| version.role == Role::Cancel);
    (on_its_way && !pays_back).then_some(send.request.machine.terms.amount_sent)
}

fn timestamps(send: &Send) -> BTreeMap<&'static str, i64> {
    let created = send.request.created_at.unix_seconds();
    let updated = send.request.updated_at.unix_seconds();
    let mut times = BTreeMap::from([("created", created), ("created_at", created), ("updated_at", updated)]);
    if !send.request.machine.is_open() {
        times.insert("completed", updated);
    }
    times
}

/// What a send moves besides bitcoin, where it is one asset.
#[must_use]
pub fn asset(terms: &Terms) -> Option<AssetAmount> {
    let payees = &terms.assets.as_ref()?.payees;
    let first = payees.first()?;
    if payees.iter().any(|payee| payee.asset != first.asset) {
        return None;
    }
    let sum = payees.iter().try_fold(Amount::ZERO, |sum, payee| sum.checked_add(payee.amount))?;
    Some(AssetAmount::new(first.asset.clone(), sum))
}

/// Why the version that stands for a send is at no node, if so.
#[must_use]
pub fn last_error(send: &Send) -> Option<String> {
    let SendState::Broadcast { last_error, .. } = &send.request.machine.state else { return None };
    let is_offered = || send.is_with_no_node.then(|| "no node has taken it yet; it is being offered".to_owned());
    last_error.clone().or_else(is_offered)
}

impl From<&Send> for GetOnchainSendResponse {
    fn from(send: &Send) -> Self {
        let machine = &send.request.machine;
        let id = send.request.id.to_string();
        let (error_code, error_message) =
            failure(&machine.state).map_or((None, None), |f| (Some(f.code), Some(f.message)));
        Self {
            send_id: id.clone(),
            withdrawal_id: id,
            status: Status::of(&machine.state),
            address_or_rgbinvoice: machine.terms.to.clone(),
            amount_sats_requested: machine.terms.assets.is_none().then_some(machine.terms.amount_requested),
            amount_sats_sent: amount_sent(send).filter(|_| machine.terms.assets.is_none()),
            asset: asset(&machine.terms),
            close_txids: Vec::new(),
            sweep_txid: None,
            fee_sats: send.current_version().map(|version| version.fee),
            timestamps: timestamps(send),
            error_code,
            error_message,
            retryable: false,
            state: machine.state(),
            source: "onchain",
            txid: machine.txid().map(|txid| txid.to_string()),
            height: height(&machine.state),
            last_error: last_error(send),
            reference: send.request.reference.clone(),
            expires_at: send.request.expires_at.map(Timestamp::rfc3339),
            versions: send.versions.iter().map(Into::into).collect(),
        }
    }
}

impl From<&AnySend> for GetOnchainSendResponse {
    fn from(send: &AnySend) -> Self {
        match send {
            AnySend::Coins(send) => Self::from(send),
            AnySend::Offchain(request) => Self::from(request),
        }
    }
}

impl Status {
    #[must_use]
    pub const fn of_withdraw(state: &WithdrawState) -> Self {
        match state {
            WithdrawState::AwaitingSignature | WithdrawState::Requested { .. } | WithdrawState::Queued { .. } => {
                Self::Requested
            }
            WithdrawState::ClosingChannels => Self::ClosingChannels,
            WithdrawState::WaitingClose { .. } => Self::WaitingCloseConfirmations,
            WithdrawState::Sweeping { .. } => Self::SweepingOutputs,
            WithdrawState::Broadcast { .. } | WithdrawState::Seen { .. } => Self::Broadcasted,
            WithdrawState::Confirmed { .. } => Self::Confirmed,
            WithdrawState::Cancelled | WithdrawState::Expired => Self::Failed,
        }
    }
}

/// Why a withdrawal failed or waits.
fn withdraw_failure(state: &WithdrawState) -> Option<Failure> {
    let (code, message) = match state {
        WithdrawState::Queued { reason } => {
            ("reserve_low", format!("the operator's coins on-chain do not reach now: {reason}; it is tried again"))
        }
        WithdrawState::Cancelled => ("cancelled", "it was cancelled before anything was sent".to_owned()),
        WithdrawState::Expired => ("request_expired", "no signature arrived in time".to_owned()),
        WithdrawState::AwaitingSignature
        | WithdrawState::Requested { .. }
        | WithdrawState::ClosingChannels
        | WithdrawState::WaitingClose { .. }
        | WithdrawState::Sweeping { .. }
        | WithdrawState::Broadcast { .. }
        | WithdrawState::Seen { .. }
        | WithdrawState::Confirmed { .. } => return None,
    };
    Some(Failure { code, message })
}

impl From<&Request<Withdraw>> for GetOnchainSendResponse {
    fn from(request: &Request<Withdraw>) -> Self {
        let (machine, terms) = (&request.machine, &request.machine.terms);
        let id = request.id.to_string();
        let failure = withdraw_failure(&machine.state);
        let created = request.created_at.unix_seconds();
        let updated = request.updated_at.unix_seconds();
        let mut timestamps = BTreeMap::from([("created", created), ("created_at", created), ("updated_at", updated)]);
        if !machine.is_open() {
            timestamps.insert("completed", updated);
        }
        Self {
            send_id: id.clone(),
            withdrawal_id: id,
            status: Status::of_withdraw(&machine.state),
            address_or_rgbinvoice: terms.to.clone(),
            amount_sats_requested: Some(terms.amount_requested),
            amount_sats_sent: machine.txid().map(|_| terms.amount_sent),
            asset: None,
            close_txids: machine.closes.iter().filter_map(|close| close.txid).map(|txid| txid.to_string()).collect(),
            sweep_txid: machine.closes.iter().rev().find_map(|close| close.swept_by).map(|txid| txid.to_string()),
            fee_sats: machine.fee(),
            timestamps,
            error_code: failure.as_ref().map(|failure| failure.code),
            error_message: failure.map(|failure| failure.message),
            retryable: matches!(machine.state, WithdrawState::Queued { .. }),
            state: machine.state(),
            source: "offchain",
            txid: machine.txid().map(|txid| txid.to_string()),
            height: machine.height(),
            last_error: None,
            reference: request.reference.clone(),
            expires_at: request.expires_at.map(Timestamp::rfc3339),
            versions: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
