//! A network of Lightning nodes in memory behind the port, for tests: balances that move, and invoices and offers that are real texts.
//!
//! What is absent: payments in parts, channel reserves, fees on-chain for opening and closing, and everything that a node says
//! to another. Nothing outside of tests wires it.

mod channels;
mod controls;
mod movements;
mod payments;
mod port;
mod route;
mod state;
#[cfg(test)]
mod tests;
mod texts;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;

use self::state::{ChannelState, Stage, State};
use crate::clock::Clock;
use crate::money::{Amount, Sat};
use crate::ports::PortError;
use crate::ports::lightning::Movement;

const SERVICE: &str = "fake node";
/// The first blocks after a payment has arrived in which it may be claimed.
pub const HOLD_BLOCKS: u32 = 36;
/// After so many a channel is in use.
pub const CHANNEL_CONFIRMATIONS: u32 = 6;
/// How long the coins of one who closes by force are locked.
pub const FORCE_CLOSE_BLOCKS: u32 = 144;

/// What is wrong with a node until it is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not run: its calls are unanswered, and its channels rest.
    Down,
    /// The call is taken, and nothing comes back before the client gives up after this long. Nothing is done.
    Hang(Duration),
    /// What is asked for is done, and the answer is lost.
    AnswerLost,
    /// A payment never gets into the node's records, and the answer is lost.
    PaymentLost,
    /// A payment is taken, but only into memory, and the answer is lost. It goes out at [`FakeNode::release_payments`];
    /// [`FakeNode::restart`] forgets it.
    PaymentOnlyInMemory,
    EventsLost,
    EventsTwice,
}

/// The controls of a test that concern more than one node.
pub struct FakeNetwork {
    state: Mutex<State>,
}

/// One node: behind the port, and with the controls of a test. They work whatever fault is set.
#[derive(Clone)]
pub struct FakeNode {
    network: Arc<FakeNetwork>,
    index: usize,
    id: PublicKey,
}

impl FakeNetwork {
    #[must_use]
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::new(clock)) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first, second and so on have the same keys in every run.
    #[must_use]
    pub fn add_node(self: &Arc<Self>) -> Arc<FakeNode> {
        let mut state = self.lock();
        let index = state.add_node();
        let id = state.nodes[index].id;
        drop(state);
        Arc::new(FakeNode { network: Arc::clone(self), index, id })
    }

    /// A channel that is in use at once, with what each end has in it. Answers its id.
    pub fn open(&self, one: &FakeNode, other: &FakeNode, one_has: Sat, other_has: Sat) -> String {
        let mut state = self.lock();
        let balances = [Amount::from_sat(one_has).base_units(), Amount::from_sat(other_has).base_units()];
        let confirmed_at = state.height.saturating_sub(CHANNEL_CONFIRMATIONS);
        let stage = Stage::Confirmed { at: confirmed_at };
        let channel = ChannelState::new(state.fresh_outpoint(), [one.index, other.index], balances, true, stage);
        let id = channel.id.clone();
        state.channels.push(channel);
        for (end, msat) in [one.index, other.index].into_iter().zip(balances) {
            state.moved(end, Movement::Given { channel: id.clone(), amount: amount(msat) });
        }
        id
    }

    /// What waits is confirmed, and what was held for too long goes back.
    pub fn mine(&self, blocks: u32) -> u32 {
        let mut state = self.lock();
        for _ in 0..blocks {
            state.mine_one();
        }
        state.height
    }

    #[must_use]
    pub fn height(&self) -> u32 {
        self.lock().height
    }

    /// What the books of all channels leave out: it is neither an end's nor on its way. Nothing, whatever happens.
    #[must_use]
    pub fn unaccounted(&self) -> Amount {
        amount(self.lock().unaccounted())
    }
}

impl FakeNode {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.network.lock()
    }

    /// Every call of the port but `pay` goes through here, and hangs or fails if it shall.
    async fn reach(&self) -> Result<MutexGuard<'_, State>, PortError> {
        let fault = self.lock().nodes[self.index].fault;
        match fault {
            Some(Fault::Down) => Err(unreachable("nobody listens")),
            Some(Fault::Hang(span)) => {
                tokio::time::sleep(span).await;
                Err(unreachable("no answer in time"))
            }
            Some(
                Fault::AnswerLost
                | Fault::PaymentLost
                | Fault::PaymentOnlyInMemory
                | Fault::EventsLost
                | Fault::EventsTwice,
            )
            | None => Ok(self.lock()),
        }
    }
}

fn unreachable(reason: &str) -> PortError {
    PortError::Unreachable { service: SERVICE, reason: reason.to_owned() }
}

fn misconfigured(reason: &str) -> PortError {
    PortError::Misconfigured { service: SERVICE, reason: reason.to_owned() }
}

fn amount(msat: u64) -> Amount {
    Amount::from_msat(msat).unwrap_or(Amount::MAX)
}
