//! The values that stand in the signatures of flows, under one name: whoever calls flows needs no other room for them.

pub use crate::domain::address::{ReceiveAddress, State as AddressState};
pub use crate::domain::asset_receive::AssetReceive;
pub use crate::domain::authorization::has_simple_form;
pub use crate::domain::credit::{Credit, State as CreditState};
pub use crate::domain::deposit::{Deposit, State as DepositState};
pub use crate::domain::event::KINDS as EVENT_KINDS;
pub use crate::domain::event::shape::{Field as EventField, Payload as EventPayload, Shape as EventShape};
pub use crate::domain::grant::{BadLimit, Limit, read_sum};
pub use crate::domain::lightning::{PayFailure, PaymentHash, Preimage};
pub use crate::domain::onchain_send::{Door, OnchainSend, Role, State as SendState, Terms};
pub use crate::domain::pay::{Door as PayDoor, Pay, State as PayState, Terms as PayTerms};
pub use crate::domain::receive::{Rail, Receive, State as ReceiveState};
pub use crate::domain::wallet::{Account, BadKeys, WalletKeys};
pub use crate::domain::withdraw::{State as WithdrawState, Withdraw};
pub use crate::domain::{LineStatus, Machine, PaymentLine, Request};
pub use crate::ports::assets::{Allocation, Asset, AssetBalance, NewAsset, Onto, RgbInvoice, Schema};
pub use crate::ports::chain::BlockRef;
pub use crate::ports::lightning::{
    Capabilities, Channel, CloseHow, ForwardingFees, NewChannel, NodeBalance, NodeInfo, Peer,
};
pub use crate::store::asset_transfers::TransferRow;
pub use crate::store::authorizations::Authorization;
pub use crate::store::books::{Line as TrialLine, Suspended};
pub use crate::store::chain::{Coin, WalletTx};
pub use crate::store::consignments::{Acknowledged, Consignment, Label, Posted, Standing};
pub use crate::store::events::Event;
pub use crate::store::grants::GrantRow;
pub use crate::store::halts::{Halt, Scope as HaltScope};
pub use crate::store::issued::IssuedTx;
pub use crate::store::liquidity::{Opening as LiquidityOpening, Word};
pub use crate::store::payments::{Listed, PaymentFilter};
pub use crate::store::requests::{AnyRequest, Filter, PageAfter};
pub use crate::store::spending::Budget;
