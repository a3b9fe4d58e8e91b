//! Everything that the event log tells, as one closed list.
//!
//! A kind is never renamed and never gets a second meaning. What is stored is never rewritten: an old line is lifted to the fields of
//! today when it is read.

pub mod payloads;
pub mod shape;

use serde_json::Value;

use payloads::{
    AddressExpired, AddressIssued, AddressPaid, Alarm, AssetArrived, AssetInvoice, AssetsExported, AuditBlind,
    AuditRun, BroadcastRefused, BumpBegun, ChannelClosedForIt, ChannelClosing, ChannelOpening, ChannelToClose,
    CoinsReceived, Conflict, Difference, DifferenceBooked, ForwardingFeesSet, GrantAsked, GrantGiven, GrantHandedIn,
    GrantRevoked, HaltCleared, HaltRaised, InboundLow, InvoiceOpened, InvoicePaying, InvoiceSettled, KeyBound,
    KeyCreated, KeyRevoked, KeyRotated, LiquidityHeldBack, LiquidityOpened, LiquidityOpening, LiquidityRefused,
    NodeMovement, NodeSendBumped, NodeSurplus, Nothing, Payment, PaymentBegun, PaymentCost, PaymentFailed,
    PaymentOverspent, PaymentSucceeded, PeerConnected, Reason, Replacement, Resolution, SendBegun, SendMined,
    SuspenseResolved, Transaction, TransactionMined, WalletReleased, WalletScanned, WithdrawalBegun, WithdrawalSent,
    WithdrawalSentAfterAll,
};
use shape::Payload;

use super::movement::Movement;

/// How the kinds begin that tell of the node's own money.
const OF_THE_NODE: &str = "node.";

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kind {
    pub name: &'static str,
    pub about: &'static str,
    pub payload: &'static Payload,
}

macro_rules! facts {
    ($($(#[doc = $about:literal])+ $variant:ident($payload:ident) = $kind:literal),* $(,)?) => {
        /// Something that happened.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Fact { $($(#[doc = $about])+ $variant($payload)),* }

        /// Every kind there is.
        pub const KINDS: &[Kind] =
            &[$(Kind { name: $kind, about: concat!($($about),+), payload: &$payload::PAYLOAD }),*];

        impl Fact {
            /// Its name, for ever.
            #[must_use]
            pub const fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $kind),* }
            }

            fn to_json(&self) -> serde_json::Result<Value> {
                match self { $(Self::$variant(payload) => serde_json::to_value(payload)),* }
            }

            fn read(kind: &str, data: Value) -> Option<Self> {
                match kind {
                    $($kind => serde_json::from_value(data).ok().map(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

facts! {
    /// An address was given out.
    AddressIssued(AddressIssued) = "onchain_receive.issued",
    /// An address was paid for the first time.
    AddressUsed(AddressPaid) = "onchain_receive.used",
    /// An address turned out to have been paid before the wallet was registered.
    AddressUsedBefore(AddressPaid) = "onchain_receive.used_before",
    /// An address is not offered any more. What comes to it still counts.
    AddressExpired(AddressExpired) = "onchain_receive.expired",

    /// A deposit is in the mempool.
    DepositSeen(CoinsReceived) = "deposit.seen",
    /// A deposit is in a block.
    DepositMined(CoinsReceived) = "deposit.mined",
    /// A deposit is as deep as is asked for.
    DepositConfirmed(CoinsReceived) = "deposit.confirmed",
    /// Another transaction spends the coins of a deposit.
    DepositReplaced(CoinsReceived) = "deposit.replaced",
    /// A deposit has left the mempool.
    DepositEvicted(CoinsReceived) = "deposit.evicted",
    /// The block of a deposit is not in the chain any more.
    DepositReorged(CoinsReceived) = "deposit.reorged",
    /// What looked like a deposit was the wallet's own transaction.
    DepositOwn(CoinsReceived) = "deposit.own",

    /// Coins that become off-chain money are in the mempool.
    SettleSeen(CoinsReceived) = "settle.seen",
    /// Coins that become off-chain money are in a block.
    SettleMined(CoinsReceived) = "settle.mined",
    /// Coins have become off-chain money.
    SettleCredited(CoinsReceived) = "settle.credited",
    /// Another transaction spends the coins of a settle.
    SettleReplaced(CoinsReceived) = "settle.replaced",
    /// The transaction of a settle has left the mempool.
    SettleEvicted(CoinsReceived) = "settle.evicted",
    /// The block of a settle is not in the chain any more.
    SettleReorged(CoinsReceived) = "settle.reorged",

    /// A Lightning payment waits for its owner's signature.
    PaymentBegun(PaymentBegun) = "lightning_pay.begun",
    /// A Lightning payment was consented to.
    PaymentPaying(Payment) = "lightning_pay.paying",
    /// A Lightning payment has arrived.
    PaymentSucceeded(PaymentSucceeded) = "lightning_pay.succeeded",
    /// A Lightning payment has failed for good.
    PaymentFailed(PaymentFailed) = "lightning_pay.failed",
    /// A Lightning payment was not signed in time.
    PaymentExpired(Nothing) = "lightning_pay.expired",
    /// The node has paid more for a payment than it may.
    PaymentOverspent(PaymentOverspent) = "lightning_pay.overspent",
    /// The node has paid what it had called failed.
    PaymentPaidAfterFailure(PaymentCost) = "lightning_pay.paid_after_failure",

    /// An invoice was made.
    InvoiceOpened(InvoiceOpened) = "lightning_receive.opened",
    /// Money for an invoice is there, and is being claimed.
    InvoiceClaiming(InvoicePaying) = "lightning_receive.claiming",
    /// An invoice was paid.
    InvoiceSettled(InvoiceSettled) = "lightning_receive.settled",
    /// Money for an invoice went back before it was claimed.
    InvoiceMissed(InvoicePaying) = "lightning_receive.missed",
    /// More came for an invoice that was paid.
    InvoiceSurplus(InvoicePaying) = "lightning_receive.surplus",
    /// An invoice was not paid in time.
    InvoiceExpired(Payment) = "lightning_receive.expired",
    /// An invoice was taken back.
    InvoiceCancelled(Payment) = "lightning_receive.cancelled",

    /// A transaction waits for its owner's signature.
    SendBegun(SendBegun) = "onchain_send.begun",
    /// A transaction at another fee waits for its owner's signature.
    SendBumpBegun(BumpBegun) = "onchain_send.bump_begun",
    /// A signed transaction waits for the recipients of its assets.
    SendWaitingAck(Transaction) = "onchain_send.waiting_ack",
    /// A signed transaction is offered to the network.
    SendBroadcast(Transaction) = "onchain_send.broadcast",
    /// The network does not take a transaction now.
    SendBroadcastRefused(BroadcastRefused) = "onchain_send.broadcast_refused",
    /// A transaction is in a block.
    SendSeen(SendMined) = "onchain_send.seen",
    /// A transaction is as deep as is asked for.
    SendConfirmed(TransactionMined) = "onchain_send.confirmed",
    /// The transaction that takes a send back is as deep as is asked for.
    SendCancelled(TransactionMined) = "onchain_send.cancelled",
    /// The block of a transaction is not in the chain any more.
    SendReorged(Transaction) = "onchain_send.reorged",
    /// Another transaction has spent the coins of a send.
    SendConflicted(Conflict) = "onchain_send.conflicted",
    /// A transaction was not signed in time.
    SendExpired(Nothing) = "onchain_send.expired",
    /// A recipient does not take the assets.
    SendFailed(Reason) = "onchain_send.failed",

    /// A withdrawal waits for its owner's signature.
    WithdrawalBegun(WithdrawalBegun) = "withdraw.begun",
    /// A withdrawal was consented to.
    WithdrawalRequested(Nothing) = "withdraw.requested",
    /// A withdrawal waits for coins.
    WithdrawalQueued(Reason) = "withdraw.queued",
    /// A channel is closed for a withdrawal.
    WithdrawalClosingChannel(ChannelToClose) = "withdraw.closing_channel",
    /// A channel is closed, and its transaction is not in a block yet.
    WithdrawalChannelClosed(ChannelClosedForIt) = "withdraw.channel_closed",
    /// The transaction that closes a channel is in a block.
    WithdrawalCloseMined(ChannelClosedForIt) = "withdraw.close_mined",
    /// What was in a closed channel is among the node's coins.
    WithdrawalSwept(ChannelClosedForIt) = "withdraw.swept",
    /// The transaction of a withdrawal is out.
    WithdrawalBroadcast(WithdrawalSent) = "withdraw.broadcast",
    /// Another transaction has taken the place of a withdrawal's.
    WithdrawalReplaced(Replacement) = "withdraw.replaced",
    /// The transaction of a withdrawal is in a block.
    WithdrawalSeen(TransactionMined) = "withdraw.seen",
    /// The transaction of a withdrawal is as deep as is asked for.
    WithdrawalConfirmed(TransactionMined) = "withdraw.confirmed",
    /// The block of a withdrawal is not in the chain any more.
    WithdrawalReorged(Transaction) = "withdraw.reorged",
    /// A withdrawal was taken back.
    WithdrawalCancelled(Nothing) = "withdraw.cancelled",
    /// A withdrawal was not signed in time.
    WithdrawalExpired(Nothing) = "withdraw.expired",
    /// The node has sent what had ended otherwise.
    WithdrawalSentAfterAll(WithdrawalSentAfterAll) = "withdraw.sent_after_all",

    /// An invoice for an asset was made.
    AssetReceiveOpened(AssetInvoice) = "asset_receive.opened",
    /// An asset is on its way.
    AssetReceiveArriving(AssetArrived) = "asset_receive.arriving",
    /// The transaction that brings an asset is in a block.
    AssetReceiveSeen(TransactionMined) = "asset_receive.seen",
    /// An asset has arrived.
    AssetReceiveSettled(AssetArrived) = "asset_receive.settled",
    /// The block that brought an asset is not in the chain any more.
    AssetReceiveReorged(Transaction) = "asset_receive.reorged",
    /// What a payer has brought is worth nothing.
    AssetConsignmentRefused(Reason) = "asset_receive.consignment_refused",
    /// An invoice for an asset was not paid in time.
    AssetReceiveExpired(Nothing) = "asset_receive.expired",
    /// An invoice for an asset was taken back.
    AssetReceiveCancelled(Nothing) = "asset_receive.cancelled",
    /// A wallet's asset state was exported.
    AssetsExported(AssetsExported) = "assets.exported",

    /// A wallet was registered.
    WalletRegistered(Nothing) = "wallet.registered",
    /// The chain was searched for what a wallet had before.
    WalletScanned(WalletScanned) = "wallet.scanned",
    /// A wallet's owner lets a key spend.
    GrantGiven(GrantGiven) = "spending_grant.given",
    /// A key may not spend any more.
    GrantRevoked(GrantRevoked) = "spending_grant.revoked",

    /// The audit could not check a rule for a long time.
    AuditBlind(AuditBlind) = "operator.audit_blind",
    /// The books contradict themselves, and payouts stop.
    AuditDrift(Alarm) = "operator.audit_drift",
    /// The books of one wallet contradict themselves, and its payouts stop.
    WalletDrift(Alarm) = "operator.wallet_drift",
    /// There is less than wallets have, and payouts stop.
    Insolvent(Alarm) = "operator.insolvent",
    /// The node has more than the books say. It waits in suspense.
    NodeSurplus(NodeSurplus) = "operator.node_surplus",
    /// Somebody had the books audited.
    AuditRun(AuditRun) = "operator.audit_run",
    /// A difference between books and node was booked.
    DifferenceBooked(DifferenceBooked) = "operator.difference_booked",
    /// A call that books a difference was answered.
    DifferenceAnswered(Difference) = "operator.difference_answered",
    /// An item in suspense was given to whom it belongs.
    SuspenseResolved(SuspenseResolved) = "operator.suspense_resolved",
    /// A call that resolves an item in suspense was answered.
    SuspenseResolutionAnswered(Resolution) = "operator.suspense_resolution_answered",

    /// A key was made.
    KeyCreated(KeyCreated) = "operator.key_created",
    /// A key may act for more wallets.
    KeyBound(KeyBound) = "operator.key_bound",
    /// A key is not in force any more.
    KeyRevoked(KeyRevoked) = "operator.key_revoked",
    /// Another key takes the place of a key.
    KeyRotated(KeyRotated) = "operator.key_rotated",
    /// A wallet's owner is asked for a key that may spend.
    GrantAsked(GrantAsked) = "operator.grant_asked",
    /// The operator has handed in a signed grant.
    GrantHandedIn(GrantHandedIn) = "operator.grant_handed_in",
    /// Payouts were stopped.
    HaltRaised(HaltRaised) = "operator.halt_raised",
    /// Payouts go on.
    HaltCleared(HaltCleared) = "operator.halt_cleared",
    /// A wallet is not watched any more.
    WalletReleased(WalletReleased) = "operator.wallet_released",

    /// The node has connected to a peer.
    PeerConnected(PeerConnected) = "operator.peer_connected",
    /// A channel is being opened.
    ChannelOpening(ChannelOpening) = "operator.channel_opening",
    /// A channel is being closed.
    ChannelClosing(ChannelClosing) = "operator.channel_closing",
    /// Forwarding through a channel costs something else.
    ForwardingFeesSet(ForwardingFeesSet) = "operator.channel_fees_set",
    /// What the node has sent goes out at a higher fee.
    NodeSendBumped(NodeSendBumped) = "operator.send_bumped",

    /// The gateway opens a channel by itself.
    LiquidityOpening(LiquidityOpening) = "liquidity.opening",
    /// A channel that the gateway has opened by itself is in use.
    LiquidityOpened(LiquidityOpened) = "liquidity.opened",
    /// A channel that the gateway wanted was not opened.
    LiquidityRefused(LiquidityRefused) = "liquidity.refused",
    /// More could be sent if a channel were opened, and none is.
    LiquidityHeldBack(LiquidityHeldBack) = "liquidity.held_back",
    /// Less can be received than is wanted.
    InboundLow(InboundLow) = "liquidity.inbound_low",

    /// Somebody has paid to the node's own wallet.
    NodeCoinsArrived(NodeMovement) = "node.coins_arrived",
    /// The node has sent coins of its own.
    NodeCoinsSent(NodeMovement) = "node.coins_sent",
    /// The node's coins went into channels.
    NodeChannelFunded(NodeMovement) = "node.channel_funded",
    /// A peer gave the node something when it opened a channel.
    NodeChannelGiven(NodeMovement) = "node.channel_given",
    /// The node has hurried a transaction.
    NodeBumped(NodeMovement) = "node.bumped",
    /// A channel is closing.
    NodeChannelClosed(NodeMovement) = "node.channel_closed",
    /// What came out of closed channels is among the node's coins.
    NodeSwept(NodeMovement) = "node.swept",
    /// Nothing more comes out of a closed channel.
    NodeChannelResolved(NodeMovement) = "node.channel_resolved",
    /// The node has earned something by forwarding.
    NodeForwarded(NodeMovement) = "node.forwarded",
    /// A payee gave back a part of what it had acknowledged.
    NodePartNotClaimed(NodeMovement) = "node.part_not_claimed",
    /// The node has paid what nobody had asked for.
    NodePaidUnasked(NodeMovement) = "node.paid_unasked",
    /// A transaction is not in the chain any more.
    NodeTransactionUndone(NodeMovement) = "node.transaction_undone",
    /// A transaction is in the chain again.
    NodeTransactionAgain(NodeMovement) = "node.transaction_again",
}

impl From<&Movement> for Fact {
    fn from(movement: &Movement) -> Self {
        let told = NodeMovement::from(movement);
        match movement {
            Movement::Arrived { .. } => Self::NodeCoinsArrived(told),
            Movement::Sent { .. } => Self::NodeCoinsSent(told),
            Movement::Funded { .. } => Self::NodeChannelFunded(told),
            Movement::Given { .. } => Self::NodeChannelGiven(told),
            Movement::Bumped { .. } => Self::NodeBumped(told),
            Movement::Closed { .. } => Self::NodeChannelClosed(told),
            Movement::Swept { .. } => Self::NodeSwept(told),
            Movement::Resolved { .. } => Self::NodeChannelResolved(told),
            Movement::Forwarded { .. } => Self::NodeForwarded(told),
            Movement::Unclaimed { .. } => Self::NodePartNotClaimed(told),
            Movement::Unasked { .. } => Self::NodePaidUnasked(told),
            Movement::Undone { .. } => Self::NodeTransactionUndone(told),
            Movement::Again { .. } => Self::NodeTransactionAgain(told),
        }
    }
}

impl Fact {
    /// What is stored of it. A movement of the node tells only the fields that its kind has.
    #[must_use]
    pub fn data(&self) -> Value {
        // proof: payloads are structs of texts, numbers and lists, which are JSON.
        let data = self.to_json().expect("a payload is JSON");
        if self.kind().starts_with(OF_THE_NODE) { without_nulls(data) } else { data }
    }
}

fn without_nulls(data: Value) -> Value {
    let Value::Object(fields) = data else { return data };
    let there = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(there.map(|(name, value)| (name, without_nulls(value))).collect())
}

/// A stored line with the fields of today. What can't be read stays as it is.
#[must_use]
pub fn lift(kind: &str, stored: Value) -> Value {
    let fact = if kind.starts_with(OF_THE_NODE) {
        serde_json::from_value::<Movement>(stored.clone()).ok().map(|movement| Fact::from(&movement))
    } else {
        Fact::read(kind, completed(stored.clone()))
    };
    fact.map_or(stored, |fact| fact.data())
}

/// What was told in satoshis only is told in millisatoshis, too, and amounts of assets as text.
fn completed(mut data: Value) -> Value {
    let Some(fields) = data.as_object_mut() else { return data };
    for idea in ["amount", "fee", "max_fee"] {
        let sats = fields.get(&format!("{idea}_sats")).and_then(Value::as_u64);
        if let Some(msat) = sats.and_then(|sats| sats.checked_mul(1_000)) {
            fields.entry(format!("{idea}_msat")).or_insert_with(|| msat.into());
        }
    }
    if fields.contains_key("asset_id")
        && let Some(units) = fields.get("amount").and_then(Value::as_u64)
    {
        fields.entry("amount_str").or_insert_with(|| units.to_string().into());
    }
    if let Some(Value::Array(payees)) = fields.get_mut("assets") {
        payees.iter_mut().for_each(|payee| *payee = completed(payee.take()));
    }
    data
}

#[cfg(test)]
mod tests;
