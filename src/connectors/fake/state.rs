//! What there is in the network, and what blocks do to it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{PublicKey, Secp256k1};
use bitcoin::{OutPoint, ScriptBuf, Txid};
use lightning::sign::KeysManager;
use tokio::sync::{broadcast, oneshot};

use super::{CHANNEL_CONFIRMATIONS, Fault};
use crate::clock::Clock;
use crate::ids::RequestId;
use crate::money::Sat;
use crate::ports::lightning::{
    Capabilities, Movement, NodeEvent, PayFailure, PayOutcome, Payment, PaymentHash, PaymentId, Preimage, SentOnchain,
};

const START_HEIGHT: u32 = 120;
const EVENTS: usize = 1_024;
/// A forwarding node asks nothing unless a test says so.
const NO_FEES: (u64, u64) = (0, 0);
const EVERYTHING: Capabilities = Capabilities { quotes: true, bolt12: true, channels: true, onchain: true };

/// Pays a script on some chain, and answers the transaction.
pub(super) type Through = Arc<dyn Fn(&ScriptBuf, Sat) -> Txid + Send + Sync>;

/// Replaces a transaction on some chain by one that pays more, and answers that.
pub(super) type Replaces = Arc<dyn Fn(Txid) -> Txid + Send + Sync>;

pub(super) struct State {
    pub clock: Clock,
    pub height: u32,
    pub nodes: Vec<NodeState>,
    pub channels: Vec<ChannelState>,
    /// By the order in which they were sent.
    pub flights: BTreeMap<u64, Flight>,
    made: u64,
}

pub(super) struct NodeState {
    pub keys: KeysManager,
    pub id: PublicKey,
    pub events: broadcast::Sender<NodeEvent>,
    pub fault: Option<Fault>,
    pub capabilities: Capabilities,
    /// For forwarding: base in millisatoshis and parts per million.
    pub fees: (u64, u64),
    pub overspends: u64,
    pub claims_by_itself: bool,
    pub holds_payments: bool,
    pub slow_claims: bool,
    /// Sends its coins, and answers that it has not.
    pub denies_sends: bool,
    /// What the next answers about its coins wait for, and how often it was asked to send them.
    pub gates: VecDeque<Door>,
    pub sends_asked: usize,
    pub wallet: Wallet,
    pub connected: BTreeSet<usize>,
    pub receives: HashMap<PaymentHash, Receive>,
    pub claimed: HashMap<PaymentHash, u64>,
    pub sent: HashMap<PaymentId, PayOutcome>,
    pub offers: BTreeSet<String>,
    /// Taken, and not written down.
    pub only_in_memory: Vec<Payment>,
    /// What happened to its own money, in order.
    pub movements: Vec<Movement>,
}

/// The inner side of a gate: it tells that somebody has come, and waits to be let go.
pub(super) struct Door {
    pub reached: oneshot::Sender<()>,
    pub opened: oneshot::Receiver<()>,
}

#[derive(Default)]
pub(super) struct Wallet {
    pub confirmed: Sat,
    pub unconfirmed: Sat,
    /// What the unconfirmed coins are, with the scripts that they were paid to.
    pub arriving: Vec<(String, Sat)>,
    /// What it has sent and no block holds.
    pub leaving: Vec<(Txid, Movement)>,
    /// What the chain that it follows has brought, and how often that was told and undone: an odd number says that it stands.
    pub brought: BTreeMap<OutPoint, (Movement, Sat, u32)>,
    /// Of the chain that it follows, if it follows one.
    pub height: Option<u32>,
    pub reserve: Sat,
    /// Of closed channels, and when it is confirmed and unlocked.
    pub closing: Vec<(Sat, u32)>,
    pub addresses: u32,
    pub scripts: HashSet<ScriptBuf>,
    pub sent: HashMap<RequestId, SentOnchain>,
    /// Where what it sends is seen, for those who follow a chain.
    pub through: Option<Through>,
    /// Puts another version in the place of what was sent there.
    pub replaces: Option<Replaces>,
}

/// What a node knows of a hash that it made an invoice for.
#[derive(Clone, Default)]
pub(super) struct Receive {
    pub preimage: Option<Preimage>,
    pub offer: Option<String>,
    pub cancelled: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Unconfirmed,
    Confirmed { at: u32 },
    Closed,
}

pub(super) struct ChannelState {
    pub id: String,
    pub funding: OutPoint,
    /// The first has opened it.
    pub ends: [usize; 2],
    pub balances: [u64; 2],
    pub capacity: u64,
    pub announced: bool,
    pub stage: Stage,
    /// What each end takes for forwarding over it, where that is not what it takes everywhere.
    pub fees: [Option<(u64, u64)>; 2],
    /// What the opener has given to the other end.
    pub given: u64,
}

/// A payment between its sender and its end: what it takes with it over each channel.
pub(super) struct Flight {
    pub payer: usize,
    pub payee: usize,
    pub payment: PaymentId,
    pub hash: PaymentHash,
    pub amount: u64,
    pub fee: u64,
    /// More than the route asks for, given to the first node on it.
    pub extra: u64,
    pub hops: Vec<Hop>,
    /// What a payment without an invoice brings along.
    pub preimage: Option<Preimage>,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub channel: usize,
    /// Which end of it sends.
    pub sender: usize,
    pub amount: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    OnItsWay,
    Held { claim_before: u32 },
    Claiming { preimage: Preimage },
}

impl State {
    pub fn new(clock: Clock) -> Self {
        Self { clock, height: START_HEIGHT, nodes: Vec::new(), channels: Vec::new(), flights: BTreeMap::new(), made: 0 }
    }

    pub fn add_node(&mut self) -> usize {
        let index = self.nodes.len();
        let seed = sha256::Hash::hash(format!("fake node {index}").as_bytes()).to_byte_array();
        let keys = KeysManager::new(&seed, 0, 0, true);
        self.nodes.push(NodeState {
            id: PublicKey::from_secret_key(&Secp256k1::new(), &keys.get_node_secret_key()),
            keys,
            events: broadcast::channel(EVENTS).0,
            fault: None,
            capabilities: EVERYTHING,
            fees: NO_FEES,
            overspends: 0,
            claims_by_itself: false,
            holds_payments: false,
            slow_claims: false,
            denies_sends: false,
            gates: VecDeque::new(),
            sends_asked: 0,
            wallet: Wallet::default(),
            connected: BTreeSet::new(),
            receives: HashMap::new(),
            claimed: HashMap::new(),
            sent: HashMap::new(),
            offers: BTreeSet::new(),
            only_in_memory: Vec::new(),
            movements: Vec::new(),
        });
        index
    }

    /// A number that was not there before.
    pub fn fresh_number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    pub fn fresh_txid(&mut self) -> Txid {
        let number = self.fresh_number();
        Txid::from_byte_array(sha256::Hash::hash(format!("transaction {number}").as_bytes()).to_byte_array())
    }

    pub fn fresh_outpoint(&mut self) -> OutPoint {
        OutPoint { txid: self.fresh_txid(), vout: 0 }
    }

    pub fn index_of(&self, id: PublicKey) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    pub fn is_up(&self, node: usize) -> bool {
        self.nodes[node].fault != Some(Fault::Down)
    }

    /// They keep reconnecting while there is a channel.
    pub fn are_connected(&self, one: usize, other: usize) -> bool {
        let channel = |channel: &ChannelState| {
            channel.stage != Stage::Closed && channel.ends.contains(&one) && channel.ends.contains(&other)
        };
        let told = self.nodes[one].connected.contains(&other) || self.nodes[other].connected.contains(&one);
        self.is_up(one) && self.is_up(other) && (told || self.channels.iter().any(channel))
    }

    pub fn is_usable(&self, channel: &ChannelState) -> bool {
        let is_buried = match channel.stage {
            Stage::Confirmed { at } => at + CHANNEL_CONFIRMATIONS <= self.height + 1,
            Stage::Unconfirmed | Stage::Closed => false,
        };
        is_buried && self.is_up(channel.ends[0]) && self.is_up(channel.ends[1])
    }

    pub fn tell(&self, node: usize, event: NodeEvent) {
        let NodeState { events, fault, .. } = &self.nodes[node];
        let times = match fault {
            Some(Fault::EventsLost | Fault::Down) => 0,
            Some(Fault::EventsTwice) => 2,
            Some(Fault::Hang(_) | Fault::AnswerLost | Fault::PaymentLost | Fault::PaymentOnlyInMemory) | None => 1,
        };
        for _ in 0..times {
            // An error says that nobody listens.
            drop(events.send(event));
        }
    }

    pub fn unaccounted(&self) -> u64 {
        let (mut should, mut is) = (0, 0);
        for channel in self.channels.iter().filter(|channel| channel.stage != Stage::Closed) {
            should += channel.capacity;
            is += channel.balances[0] + channel.balances[1];
        }
        for flight in self.flights.values() {
            is += flight.hops.iter().map(|hop| hop.amount).sum::<u64>() + flight.extra;
        }
        should.abs_diff(is)
    }

    pub fn mine_one(&mut self) {
        self.height += 1;
        let height = self.height;
        let mut confirmed = Vec::new();
        let mut opened = Vec::new();
        for (index, channel) in self.channels.iter_mut().enumerate() {
            if channel.stage == Stage::Unconfirmed {
                channel.stage = Stage::Confirmed { at: height };
                opened.push(index);
            }
        }
        opened.into_iter().for_each(|index| self.tell_opened(index));
        self.tell_arrived();
        self.tell_left();
        self.tell_swept();
        for channel in &self.channels {
            if matches!(channel.stage, Stage::Confirmed { at } if at + CHANNEL_CONFIRMATIONS == height + 1) {
                confirmed.extend(channel.ends);
            }
        }
        for node in &mut self.nodes {
            let wallet = &mut node.wallet;
            let ripe: Vec<Sat> = wallet.closing.extract_if(.., |(_, at)| *at <= height).map(|(sat, _)| sat).collect();
            let coins = [wallet.confirmed, wallet.unconfirmed].into_iter().chain(ripe);
            wallet.confirmed = Sat::sum(coins).unwrap_or(Sat::MAX);
            wallet.unconfirmed = Sat::ZERO;
        }
        for node in confirmed {
            self.tell(node, NodeEvent::Channels);
        }
        let is_late = |flight: &Flight| matches!(flight.place, Place::Held { claim_before } if claim_before <= height);
        let late: Vec<u64> =
            self.flights.iter().filter(|(_, flight)| is_late(flight)).map(|(number, _)| *number).collect();
        for number in late {
            self.send_back(number, PayFailure::Rejected);
        }
    }
}

impl ChannelState {
    pub fn new(funding: OutPoint, ends: [usize; 2], balances: [u64; 2], announced: bool, stage: Stage) -> Self {
        let capacity = balances[0] + balances[1];
        Self {
            id: funding.txid.to_string(),
            funding,
            ends,
            balances,
            capacity,
            announced,
            stage,
            fees: [None; 2],
            given: 0,
        }
    }

    /// Which end of it this node is.
    pub fn side_of(&self, node: usize) -> Option<usize> {
        self.ends.iter().position(|end| *end == node)
    }
}
