//! What an event tells, by its kind. Fields are only added, and a field keeps its meaning.
//!
//! The same idea has the same name everywhere: `amount_msat` and `fee_msat`, and the same in whole satoshis where that was told before.

use bitcoin::{OutPoint, Txid};
use serde::{Deserialize, Serialize};

use super::shape::{Field, Moment, Payload, Shape, Shaped};
use crate::domain::lightning::{PayFailure, PaymentHash};
use crate::domain::movement::Movement;
use crate::domain::onchain_send::Role;
use crate::domain::receive::Rail;
use crate::ids::{KeyId, RequestId, WalletId};
use crate::money::{Amount, Sat};

macro_rules! payloads {
    ($($(#[doc = $about:literal])+ $name:ident $(+ $derive:ident)? { $($(#[doc = $field_about:literal])* $field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize $(, $derive)?)]
        pub struct $name { $($(#[doc = $field_about])* pub $field: $type),* }

        impl $name {
            pub const PAYLOAD: Payload = Payload {
                name: stringify!($name),
                about: concat!($($about),+),
                fields: &[$(Field {
                    name: stringify!($field),
                    about: concat!($($field_about),*),
                    shape: <$type as Shaped>::SHAPE,
                }),*],
            };
        }

        impl Shaped for $name {
            const SHAPE: Shape = Shape::Object(&Self::PAYLOAD);
        }
    )*};
}

payloads! {
    /// The kind says it all.
    Nothing {}

    /// An address.
    AddressExpired { address: String }
    /// An address, and what its owner calls it.
    AddressIssued { address: String, label: Option<String>, reference: Option<String> }
    /// An address, and the output that paid it.
    AddressPaid { address: String, txid: Txid, vout: u32 }
    /// Coins that came to an address.
    CoinsReceived {
        txid: Txid,
        vout: u32,
        address: String,
        amount_sats: Sat,
        amount_msat: Amount,
        /// The block that the transaction is in.
        height: Option<u32>,
        /// The transaction that spends the same coins instead.
        replaced_by: Option<Txid>,
    }

    /// A Lightning payment, by its hash.
    Payment { payment_hash: PaymentHash }
    /// A Lightning payment, and what it may cost.
    PaymentBegun {
        payment_hash: PaymentHash,
        amount_msat: Amount,
        /// The most that may be paid for the way.
        max_fee_msat: Amount,
    }
    /// A Lightning payment that has cost more than it may.
    PaymentOverspent { payment_hash: PaymentHash, fee_msat: Amount, max_fee_msat: Amount }
    /// A Lightning payment, and what it has cost.
    PaymentCost { payment_hash: PaymentHash, amount_msat: Amount, fee_msat: Amount }
    /// A Lightning payment that did not arrive.
    PaymentFailed { payment_hash: PaymentHash, why: PayFailure }
    /// A Lightning payment that has arrived.
    PaymentSucceeded {
        payment_hash: PaymentHash,
        amount_msat: Amount,
        fee_msat: Amount,
        /// Through a channel, or in the books of this gateway.
        by: Rail,
    }
    /// An invoice.
    InvoiceOpened {
        payment_hash: PaymentHash,
        /// Null: whatever the payer likes.
        amount_msat: Option<Amount>,
    }
    /// An invoice, and the money that is there for it.
    InvoicePaying { payment_hash: PaymentHash, amount_msat: Amount }
    /// An invoice that was paid.
    InvoiceSettled {
        payment_hash: PaymentHash,
        amount_msat: Amount,
        /// Through a channel, or in the books of this gateway.
        by: Rail,
    }

    /// A transaction that was issued for its owner to sign.
    SendBegun {
        /// The address, or the invoice of an asset.
        to: String,
        amount_sats: Option<Sat>,
        amount_msat: Option<Amount>,
        fee_sats: Sat,
        fee_msat: Amount,
        /// What is sent of assets.
        assets: Option<Vec<AssetPayee>>,
        unsigned_txid: Txid,
        expires_at: Moment,
    }
    /// What one recipient gets of an asset.
    AssetPayee {
        asset_id: String,
        /// Base units of the asset.
        amount: Amount,
        /// The same as text.
        amount_str: String,
        recipient_id: String,
    }
    /// Another version of a transaction, for its owner to sign.
    BumpBegun {
        unsigned_txid: Txid,
        /// The transaction that it takes the place of.
        replaces: Txid,
        fee_sats: Sat,
        fee_msat: Amount,
        role: Role,
        expires_at: Moment,
    }
    /// A transaction.
    Transaction { txid: Txid }
    /// A transaction, and the block that it is in.
    TransactionMined { txid: Txid, height: u32 }
    /// One of a send's transactions, and the block that it is in.
    SendMined { txid: Txid, height: u32, role: Role }
    /// A transaction that the network does not take.
    BroadcastRefused { txid: Txid, reason: String }
    /// Why it did not come to that.
    Reason { reason: String }
    /// Another transaction has spent the same coins.
    Conflict {
        /// That transaction.
        by: Txid,
        /// Whether it is in a block.
        mined: bool,
    }

    /// A withdrawal, and what it may cost.
    WithdrawalBegun { to: String, amount_sats: Sat, amount_msat: Amount, max_fee_sats: Sat, max_fee_msat: Amount }
    /// The transaction of a withdrawal.
    WithdrawalSent { txid: Txid, fee_sats: Sat, fee_msat: Amount }
    /// The transaction of a withdrawal that had ended otherwise.
    WithdrawalSentAfterAll {
        txid: Txid,
        amount_sats: Sat,
        amount_msat: Amount,
        fee_sats: Sat,
        fee_msat: Amount,
        /// The state that it had ended in.
        was: String,
    }
    /// A transaction that takes the place of another.
    Replacement { txid: Txid, replaces: Txid }
    /// A channel that is closed for a withdrawal.
    ChannelToClose { channel: String, funding: OutPoint }
    /// A channel that was closed for a withdrawal.
    ChannelClosedForIt {
        channel: String,
        funding: OutPoint,
        /// The transaction that closed it, once that is in a block.
        txid: Option<Txid>,
        /// The transaction that brought the rest home, if one was needed.
        swept_by: Option<Txid>,
    }

    /// An invoice for an asset.
    AssetInvoice {
        recipient_id: String,
        /// Null: any asset.
        asset_id: Option<String>,
        /// Base units of the asset. Null: any amount.
        amount: Option<Amount>,
        /// The same as text.
        amount_str: Option<String>,
    }
    /// What has come of an asset.
    AssetArrived {
        asset_id: String,
        /// Base units of the asset.
        amount: Amount,
        /// The same as text.
        amount_str: String,
        txid: Txid,
    }
    /// An export of a wallet's asset state.
    AssetsExported { export_id: String }

    /// A search for a wallet's coins that is done.
    WalletScanned {
        /// How many coins were found.
        coins: usize,
        /// The block up to which was searched.
        height: u32,
    }
    /// A key that may spend.
    GrantGiven { key_id: KeyId, name: String, expires_at: Moment }
    /// A key that may not spend any more.
    GrantRevoked { key_id: KeyId, name: String }

    /// A rule of the audit that has not been checked for a long time.
    AuditBlind { rule: String, since: Moment }
    /// What the audit has found.
    Alarm {
        detail: String,
        /// The wallet whose payouts are stopped. Null: everybody's are.
        wallet: Option<WalletId>,
    }
    /// What the node has more than the books say.
    NodeSurplus { account: String, books_msat: i64, more_msat: i64 }
    /// An audit that somebody asked for.
    AuditRun {
        /// How many differences were found.
        drifts: i64,
        /// The key of who asked.
        by: String,
    }
    /// A difference between books and node that was booked.
    Difference {
        /// The entry.
        id: String,
        account: String,
        against: String,
        /// Above zero: the node had more than the books. Below: less.
        amount_msat: i64,
        reason: String,
    }
    /// A difference, and who booked it.
    DifferenceBooked { difference: Difference, by: String }
    /// What was decided about an item in suspense.
    Resolution {
        /// The entry that resolves it.
        id: String,
        item: String,
        /// The account that has it now, or bears the loss.
        account: String,
        /// Above zero: money that came. Below: a loss.
        amount_msat: i64,
        reason: String,
    }
    /// What was decided about an item in suspense, and by whom.
    SuspenseResolved { resolution: Resolution, by: String }

    /// A key.
    KeyCreated {
        key_id: KeyId,
        name: String,
        /// Separated by commas.
        scopes: String,
        wallets: Option<Vec<WalletId>>,
        /// The key that it was made like.
        like: Option<KeyId>,
        expires_at: Option<Moment>,
        by: String,
    }
    /// A key, and the wallets that it may act for from now on.
    KeyBound { key_id: KeyId, wallets: Vec<WalletId>, by: String }
    /// A key that is not in force any more.
    KeyRevoked { key_id: KeyId, by: String }
    /// A key, and the one that takes its place.
    KeyRotated { key_id: KeyId, successor: KeyId, name: String, ends_at: Moment, by: String }
    /// A key that may spend once its wallet's owner has signed for it.
    GrantAsked { key_id: KeyId, name: String, wallet: WalletId, by: String }
    /// A signed grant that the operator has handed in.
    GrantHandedIn { key_id: KeyId, by: String }
    /// A stop of payouts.
    HaltRaised {
        reason: String,
        detail: String,
        by: String,
        /// `everybody` or `wallet`.
        scope: String,
        /// The wallet.
        subject: Option<String>,
    }
    /// A stop of payouts that is over.
    HaltCleared {
        reason: String,
        /// Why it was cleared.
        detail: Option<String>,
        since: Moment,
        by: String,
        /// `everybody` or `wallet`.
        scope: String,
        /// The wallet.
        subject: Option<String>,
    }
    /// A wallet that is not watched any more.
    WalletReleased { wallet: WalletId, by: String }

    /// A peer of the node.
    PeerConnected { peer: String, address: String }
    /// A channel that the operator opens.
    ChannelOpening {
        channel: String,
        peer: String,
        amount_sats: Sat,
        amount_msat: Amount,
        /// What the peer is given.
        push_msat: u64,
        announced: bool,
    }
    /// A channel that the operator closes.
    ChannelClosing {
        channel: String,
        /// `cooperative` or `force`.
        how: String,
    }
    /// What the node asks for forwarding through a channel.
    ForwardingFeesSet { channel: String, base_msat: u64, parts_per_million: u32 }
    /// Another version of what the node has sent for a withdrawal.
    NodeSendBumped { asked: BumpAsked, txid: Txid, fee_sats: Sat, fee_msat: Amount }
    /// What the operator has asked for.
    BumpAsked { request: RequestId, milli_sat_per_vb: u64 }

    /// A channel that the gateway opens by itself.
    LiquidityOpening {
        opening: RequestId,
        peer: String,
        amount_sats: Sat,
        amount_msat: Amount,
        fee_sats: Sat,
        fee_msat: Amount,
        /// What could be sent before.
        outbound_sats: Sat,
    }
    /// A channel that the gateway has opened by itself.
    LiquidityOpened {
        opening: RequestId,
        peer: String,
        amount_sats: Sat,
        amount_msat: Amount,
        fee_sats: Sat,
        fee_msat: Amount,
        channel: String,
        funding: Option<String>,
    }
    /// A channel that the gateway could not open.
    LiquidityRefused {
        opening: RequestId,
        peer: String,
        amount_sats: Sat,
        amount_msat: Amount,
        fee_sats: Sat,
        fee_msat: Amount,
        reason: Option<String>,
    }
    /// Why no channel is opened now.
    LiquidityHeldBack { why: String, detail: String, outbound_sats: Sat }
    /// Less can be received than is wanted.
    InboundLow { inbound_sats: Sat, wanted_sats: Sat }

    /// What happened to the node's own money. Each kind has the fields that it needs.
    NodeMovement + Default {
        /// What the log of the node's movements calls it.
        kind: String,
        txid: Option<Txid>,
        outpoint: Option<OutPoint>,
        /// The output's script, as hex.
        script: Option<String>,
        channel: Option<String>,
        /// The withdrawal that the coins were sent for.
        order: Option<RequestId>,
        /// The payment, as the node names it.
        payment: Option<String>,
        /// The forwarded payment, as the node names it.
        name: Option<String>,
        /// As it was told first: satoshis where coins moved, millisatoshis where channels did.
        amount: Option<u64>,
        amount_msat: Option<Amount>,
        /// As it was told first: satoshis, but millisatoshis of a forwarded payment.
        fee: Option<u64>,
        fee_msat: Option<Amount>,
        /// Satoshis that a hurried transaction has cost. Below zero: it brought more than it cost.
        cost: Option<i64>,
        /// Satoshis that came home.
        back: Option<Sat>,
        /// Millisatoshis that the peers were given.
        given: Option<Amount>,
        /// Millisatoshis that were paid out of a closed channel.
        paid: Option<Amount>,
        /// Millisatoshis that were claimed from a closed channel.
        claimed: Option<Amount>,
        /// What is less than a satoshi, in millisatoshis.
        fraction: Option<Amount>,
        /// Millisatoshis that came out beyond what should have.
        excess: Option<Amount>,
        /// The movement that was undone, or happened again.
        what: Option<Box<NodeMovement>>,
        times: Option<u32>,
    }
}

impl CoinsReceived {
    pub fn of(outpoint: OutPoint, address: &str, amount: Sat) -> Self {
        Self {
            txid: outpoint.txid,
            vout: outpoint.vout,
            address: address.to_owned(),
            amount_sats: amount,
            amount_msat: Amount::from_sat(amount),
            height: None,
            replaced_by: None,
        }
    }
}

impl From<&Movement> for NodeMovement {
    fn from(movement: &Movement) -> Self {
        let sats = |sat: &Sat| (Some(sat.to_u64()), Some(Amount::from_sat(*sat)));
        let msats = |amount: &Amount| (Some(amount.base_units()), Some(*amount));
        let mut told = Self { kind: movement.kind().to_owned(), ..Self::default() };
        match movement {
            Movement::Arrived { outpoint, script, amount } => {
                (told.outpoint, told.script) = (Some(*outpoint), Some(script.clone()));
                (told.amount, told.amount_msat) = sats(amount);
            }
            Movement::Sent { txid, order, amount, fee } => {
                (told.txid, told.order) = (Some(*txid), *order);
                (told.amount, told.amount_msat) = sats(amount);
                (told.fee, told.fee_msat) = sats(fee);
            }
            Movement::Funded { txid, amount, given, fee } => {
                (told.txid, told.given) = (Some(*txid), Some(*given));
                (told.amount, told.amount_msat) = sats(amount);
                (told.fee, told.fee_msat) = sats(fee);
            }
            Movement::Given { channel, amount } | Movement::Closed { channel, amount } => {
                told.channel = Some(channel.clone());
                (told.amount, told.amount_msat) = msats(amount);
            }
            Movement::Bumped { txid, cost } => (told.txid, told.cost) = (Some(*txid), Some(*cost)),
            Movement::Swept { txid, back, fee } => {
                (told.txid, told.back) = (Some(*txid), Some(*back));
                (told.fee, told.fee_msat) = sats(fee);
            }
            Movement::Resolved { channel, paid, claimed, fee, fraction, excess } => {
                told.channel = Some(channel.clone());
                (told.paid, told.claimed) = (Some(*paid), Some(*claimed));
                (told.fraction, told.excess) = (Some(*fraction), Some(*excess));
                (told.fee, told.fee_msat) = sats(fee);
            }
            Movement::Forwarded { name, fee } => {
                told.name = Some(name.clone());
                (told.fee, told.fee_msat) = msats(fee);
            }
            Movement::Unclaimed { payment, amount } | Movement::Unasked { payment, amount } => {
                told.payment = Some(payment.clone());
                (told.amount, told.amount_msat) = msats(amount);
            }
            Movement::Undone { what, times } | Movement::Again { what, times } => {
                (told.what, told.times) = (Some(Box::new(Self::from(&**what))), Some(*times));
            }
        }
        told
    }
}
