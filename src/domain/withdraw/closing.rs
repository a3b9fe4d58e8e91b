//! Closing a channel by agreement when the node's coins do not reach for a withdrawal.

use bitcoin::{OutPoint, Txid};
use serde::{Deserialize, Serialize};

use super::{Event, Illegal, State, Transition, Withdraw};
use crate::domain::Fact;
use crate::domain::event::payloads::{ChannelClosedForIt, ChannelToClose, Reason};

/// A channel that was closed to pay a withdrawal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    pub channel: String,
    pub funding: OutPoint,
    /// The transaction that closed it, once that is in a block.
    pub txid: Option<Txid>,
    /// The transaction that brought the rest home, if one was needed.
    pub swept_by: Option<Txid>,
}

impl Withdraw {
    pub(super) fn close(&self, channel: &str, funding: OutPoint) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::Requested { .. } => {
                let mut next = self.clone();
                next.closes.push(Close { channel: channel.to_owned(), funding, txid: None, swept_by: None });
                Ok(next
                    .to(State::ClosingChannels)
                    .event(Fact::WithdrawalClosingChannel(ChannelToClose { channel: channel.to_owned(), funding })))
            }
            State::ClosingChannels => Ok(self.unchanged()),
            State::AwaitingSignature
            | State::Queued { .. }
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled
            | State::Expired => Err(self.illegal(&Event::Close { channel: channel.to_owned(), funding })),
        }
    }

    /// Nothing was closed: it is as if nobody had asked.
    pub(super) fn not_closed(&self, reason: &str) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::ClosingChannels => {
                let mut next = self.clone();
                next.closes.pop();
                Ok(next
                    .to(State::Queued { reason: reason.to_owned() })
                    .event(Fact::WithdrawalQueued(Reason { reason: reason.to_owned() })))
            }
            State::Queued { .. } => Ok(self.unchanged()),
            State::AwaitingSignature
            | State::Requested { .. }
            | State::WaitingClose { .. }
            | State::Sweeping { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled
            | State::Expired => Err(self.illegal(&Event::NotClosed { reason: reason.to_owned() })),
        }
    }

    pub(super) fn closed(&self, height: u32) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::ClosingChannels => Ok(self
                .to(State::WaitingClose { since: height })
                .events(self.last_close().map(Fact::WithdrawalChannelClosed))),
            State::WaitingClose { .. } => Ok(self.to(State::WaitingClose { since: height })),
            State::AwaitingSignature
            | State::Requested { .. }
            | State::Queued { .. }
            | State::Sweeping { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled
            | State::Expired => Err(self.illegal(&Event::Closed { height })),
        }
    }

    pub(super) fn close_mined(&self, txid: Txid, height: u32) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::WaitingClose { .. } => {
                let mut next = self.clone();
                next.closes.iter_mut().last().into_iter().for_each(|close| close.txid = Some(txid));
                Ok(next.to(State::Sweeping { height }).events(next.last_close().map(Fact::WithdrawalCloseMined)))
            }
            State::Sweeping { .. } => Ok(self.unchanged()),
            State::AwaitingSignature
            | State::Requested { .. }
            | State::Queued { .. }
            | State::ClosingChannels
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled
            | State::Expired => Err(self.illegal(&Event::CloseMined { txid, height })),
        }
    }

    pub(super) fn swept(&self, by: Option<Txid>, height: u32) -> Result<Transition<Self>, Illegal> {
        match self.state {
            State::Sweeping { .. } => {
                let mut next = self.clone();
                next.closes.iter_mut().last().into_iter().for_each(|close| close.swept_by = by);
                Ok(next.to(State::Requested { since: height }).events(next.last_close().map(Fact::WithdrawalSwept)))
            }
            State::Requested { .. } => Ok(self.unchanged()),
            State::AwaitingSignature
            | State::Queued { .. }
            | State::ClosingChannels
            | State::WaitingClose { .. }
            | State::Broadcast { .. }
            | State::Seen { .. }
            | State::Confirmed { .. }
            | State::Cancelled
            | State::Expired => Err(self.illegal(&Event::Swept { by, height })),
        }
    }

    fn last_close(&self) -> Option<ChannelClosedForIt> {
        let Close { channel, funding, txid, swept_by } = self.closes.last()?.clone();
        Some(ChannelClosedForIt { channel, funding, txid, swept_by })
    }
}
