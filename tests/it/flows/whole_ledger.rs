//! Every account beside a model of a few lines: whatever wallets, the operator, the node and the chain do, in whatever order, each
//! balance is what the model says, and once nothing is under way the books are the node's to the millisatoshi.
//!
//! The model knows no postings. A wallet owns what came less what went; with so much of it held, what it has is the larger of the two, and what
//! is held beyond what it owns is owed. What is at the node and whose it is follows from where each transaction stands in the chain.

mod model;

use std::sync::{Arc, Mutex};

use bitcoin::{OutPoint, Txid};
use futures::executor::block_on;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use sluice::chain::fake::Reorged;
use sluice::connectors::fake::FakeNode;
use sluice::domain::lightning::Preimage;
use sluice::domain::withdraw::{State, Withdraw};
use sluice::flows::send::{Begun, Source};
use sluice::flows::settle::{self, BeginSettle, SettlePolicy};
use sluice::flows::{Code, Error, Policy, books, node_admin, withdraw};
use sluice::ids::RequestId;
use sluice::ledger::Account;
use sluice::money::{Amount, AssetId, Sat};
use sluice::ports::chain::ChainBackend;
use sluice::ports::lightning::{Asked as Answered, CloseHow, LightningNode, NewChannel};
use sluice::store::ledger;

use self::model::{Model, Second, Settle, Withdrawal, msat_of};
use crate::harness::lightning::{CHANNEL_SIDE, msat, sat};
use crate::harness::rig::{
    Client, Database, Rig, amount, inputs_of, parse_address, policy, spend_elsewhere, stranger, unsigned, wanted,
};

const CASES: u32 = 12;
/// Over all cases.
const ENOUGH: u32 = 4;
const STEPS: usize = 60;
const SAT: i64 = 1_000;
const SIDE: i64 = CHANNEL_SIDE.as_bigint() * SAT;
/// Deeper than any reorganisation here, so that what was there at the beginning stays.
const DEEP: u32 = 8;
const SETTLED_AFTER: u32 = 2;
/// The node's coins: more than all withdrawals together.
const RESERVE: u64 = 3_000_000;
const TOO_MUCH: Sat = Sat::literal(1_000_000_000);
/// What the node between takes, and what payments may cost.
const ROUTING: i64 = 3_000;
const ROUTING_CEILING: i64 = 10_000;
/// What the fake node pays for a withdrawal at the usual rate. Its ceiling is twice that.
const ONCHAIN: i64 = 282_000;
const OPENED: i64 = 300_000_000;
const PUSHED: i64 = 50_000_000;
/// How long a signature is waited for.
const PATIENCE: u64 = 600;

// ---- what may happen ----

#[derive(Clone, Debug)]
enum Op {
    Receive {
        who: usize,
        msat: u64,
    },
    Pay {
        who: usize,
        sats: u64,
        far: bool,
    },
    Transfer {
        who: usize,
        sats: u64,
    },
    Withdraw {
        who: usize,
        sats: u64,
    },
    /// Pays everything that is free.
    PayAll {
        who: usize,
    },
    /// The node's coins go between begin and end.
    WithdrawTooLate {
        who: usize,
        sats: u64,
    },
    /// Consents to something that waits for it.
    End {
        which: Index,
    },
    Cancel {
        which: Index,
    },
    Claim {
        which: Index,
    },
    Fail {
        which: Index,
    },
    Settle {
        who: usize,
        sats: u64,
    },
    Mine {
        blocks: u32,
    },
    Reorg {
        depth: u32,
        fate: Reorged,
    },
    Wait {
        seconds: u64,
    },
    /// Whether the node has to keep more than it has.
    Reserve {
        is_short: bool,
    },
    TopUp {
        sats: u64,
    },
    /// The next step in the life of the second channel.
    Channel,
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0usize..2;
    let which = any::<Index>;
    let fate = prop_oneof![Just(Reorged::MinedAgain), Just(Reorged::BackInMempool), Just(Reorged::Gone)];
    prop_oneof![
        3 => (who.clone(), 1_000_000u64..20_000_000).prop_map(|(who, msat)| Op::Receive { who, msat }),
        5 => (who.clone(), 5_000u64..40_000, any::<bool>()).prop_map(|(who, sats, far)| Op::Pay { who, sats, far }),
        3 => (who.clone(), 5_000u64..40_000).prop_map(|(who, sats)| Op::Transfer { who, sats }),
        5 => (who.clone(), 10_000u64..30_000).prop_map(|(who, sats)| Op::Withdraw { who, sats }),
        3 => who.clone().prop_map(|who| Op::PayAll { who }),
        2 => (who.clone(), 10_000u64..30_000).prop_map(|(who, sats)| Op::WithdrawTooLate { who, sats }),
        12 => which().prop_map(|which| Op::End { which }),
        4 => which().prop_map(|which| Op::Cancel { which }),
        4 => which().prop_map(|which| Op::Claim { which }),
        1 => which().prop_map(|which| Op::Fail { which }),
        6 => (who, 20_000u64..60_000).prop_map(|(who, sats)| Op::Settle { who, sats }),
        6 => (1u32..4).prop_map(|blocks| Op::Mine { blocks }),
        8 => (1u32..6, fate).prop_map(|(depth, fate)| Op::Reorg { depth, fate }),
        1 => prop_oneof![Just(31u64), Just(601)].prop_map(|seconds| Op::Wait { seconds }),
        4 => prop::bool::weighted(0.2).prop_map(|is_short| Op::Reserve { is_short }),
        1 => (1_000u64..100_000).prop_map(|sats| Op::TopUp { sats }),
        2 => Just(Op::Channel),
    ]
}

// ---- both together ----

enum What {
    Pay { preimage: Preimage, far: bool, msat: i64 },
    Transfer { msat: i64 },
    Withdraw { msat: i64 },
}

/// Begun, and not consented to.
struct Asked {
    who: usize,
    begun: Begun,
    what: What,
    at: u64,
}

impl What {
    const fn hold(&self) -> i64 {
        match *self {
            Self::Pay { msat, .. } => msat + ROUTING_CEILING,
            Self::Transfer { msat } => msat,
            Self::Withdraw { msat } => msat + 2 * ONCHAIN,
        }
    }
}

/// On its way, and held by its payee.
struct Flight {
    who: usize,
    hold: i64,
    cost: i64,
    preimage: Preimage,
    far: bool,
}

/// How often something came about of which a run without it would prove less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    debts: u32,
    taken_back: u32,
    too_little: u32,
    reserve_low: u32,
    queued: u32,
    cancelled: u32,
    expired: u32,
    landed: u32,
    closed: u32,
}

impl Seen {
    fn is_enough(&self) -> bool {
        let Self { debts, taken_back, too_little, reserve_low, queued, cancelled, expired, landed, closed } = *self;
        let all = [debts, taken_back, too_little, reserve_low, queued, cancelled, expired, landed, closed];
        all.into_iter().all(|often| often >= ENOUGH)
    }
}

struct Walk {
    seen: Arc<Mutex<Seen>>,
    rig: Rig,
    clients: [Client; 2],
    far: Arc<FakeNode>,
    second: Arc<FakeNode>,
    channel: String,
    model: Model,
    asked: Vec<Asked>,
    flights: Vec<Flight>,
    now: u64,
    is_short: bool,
    /// The first block that a transaction of the case may be in.
    first: u32,
}

impl Walk {
    async fn new(rig: Rig, seen: Arc<Mutex<Seen>>) -> Self {
        let clients = [Client::number(1), Client::number(2)];
        for client in &clients {
            rig.funded_with(client, &[100_000; 8]).await;
        }
        send_from_a_vault(&rig).await;
        rig.mine(DEEP).await;
        let far = rig.lightning.network.add_node();
        rig.lightning.network.open(&rig.lightning.shop, &far, CHANNEL_SIDE, CHANNEL_SIDE);
        rig.lightning.shop.set_fees(Amount::from_msat(ROUTING.unsigned_abs()).expect("it fits"), 0);
        let second = rig.lightning.network.add_node();
        rig.lightning.node.connect(second.id(), &second.address()).await.expect("it connects");
        let first = rig.chain.tip().height + 1 - DEEP;
        let mut walk = Self {
            seen,
            rig,
            clients,
            far,
            second,
            channel: String::new(),
            model: Model::new(),
            asked: Vec::new(),
            flights: Vec::new(),
            now: 0,
            is_short: false,
            first,
        };
        walk.top_up(RESERVE).await;
        for who in 0..walk.clients.len() {
            walk.run(Op::Receive { who, msat: 50_000_000 }).await;
        }
        walk
    }

    fn saw(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().expect("nobody panics with it"));
    }

    async fn run(&mut self, op: Op) {
        match op {
            Op::Receive { who, msat: amount } => {
                self.rig.funded_offchain(&self.clients[who], msat(amount)).await;
                self.model.purses[who].owns += msat(amount).as_bigint();
                self.model.channels += msat(amount).as_bigint();
            }
            Op::Pay { who, sats, far } => self.ask_to_pay(who, sats, far).await,
            Op::Transfer { who, sats } => self.ask_to_transfer(who, sats).await,
            Op::Withdraw { who, sats } => self.ask_to_withdraw(who, sats).await,
            Op::PayAll { who } => {
                let most = self.model.free(who) - ROUTING_CEILING;
                if most >= msat_of(1_000) {
                    self.ask_to_pay(who, sats(most).to_u64(), true).await;
                    self.end_last().await;
                }
            }
            Op::WithdrawTooLate { who, sats } => {
                let before = self.asked.len();
                self.ask_to_withdraw(who, sats).await;
                if self.asked.len() > before {
                    self.set_reserve(true);
                    self.end_last().await;
                }
            }
            Op::End { which } => {
                if !self.asked.is_empty() {
                    let asked = self.asked.remove(which.index(self.asked.len()));
                    self.end(asked).await;
                }
            }
            Op::Cancel { which } => self.cancel(which).await,
            Op::Claim { .. } | Op::Fail { .. } if self.flights.is_empty() => {}
            Op::Claim { which } => {
                let flight = self.flights.remove(which.index(self.flights.len()));
                self.land(flight, true).await;
            }
            Op::Fail { which } => {
                let flight = self.flights.remove(which.index(self.flights.len()));
                self.land(flight, false).await;
            }
            Op::Settle { who, sats } => self.settle(who, sats).await,
            Op::Mine { blocks } => {
                self.rig.chain.mine(blocks);
            }
            Op::Reorg { depth, fate } => {
                self.rig.chain.reorg(depth, depth + 1, fate).expect("what is lost builds on what is deep");
            }
            Op::Wait { seconds } => self.wait(seconds).await,
            Op::Reserve { is_short } => self.set_reserve(is_short),
            Op::TopUp { sats } => self.top_up(sats).await,
            Op::Channel => self.move_second_channel().await,
        }
        self.look().await;
    }

    /// Takes in what the chain says, and compares.
    async fn look(&mut self) {
        self.rig.settle().await;
        self.send_again().await;
        let tip = self.rig.chain.tip().height;
        let credited = self.credited();
        self.model.tip = tip;
        self.model.heights.clear();
        for height in self.first..=tip {
            let hash = self.rig.chain.block_hash(height).await.expect("the fake answers").expect("a block");
            for transaction in self.rig.chain.block(hash).await.expect("the fake answers").txdata {
                self.model.heights.insert(transaction.compute_txid(), height);
            }
        }
        for place in 0..self.model.withdrawals.len() {
            self.look_at_withdrawal(place).await;
        }
        if self.credited() < credited {
            self.saw(|seen| seen.taken_back += 1);
        }
        self.compare().await;
    }

    fn credited(&self) -> usize {
        self.model.settles.iter().filter(|settle| self.model.is_credited(settle)).count()
    }

    /// What waited for coins may have gone out; what went out may be in a block.
    async fn look_at_withdrawal(&mut self, place: usize) {
        let Withdrawal { who, id, msat, .. } = self.model.withdrawals[place];
        if self.model.withdrawals[place].sent.is_none() {
            let Some(txid) = self.withdrawal(who, id).await.txid() else { return };
            assert!(!self.is_short, "it was sent from nothing");
            self.sent(place, who, msat, txid);
        }
        let withdrawal = &mut self.model.withdrawals[place];
        let txid = withdrawal.sent.as_ref().expect("it is out").compute_txid();
        withdrawal.is_told |= self.model.heights.contains_key(&txid);
    }

    fn sent(&mut self, place: usize, who: usize, msat: i64, txid: Txid) {
        let transaction = self.rig.chain.transaction(txid).expect("it is out");
        assert!(transaction.output.iter().any(|output| msat_of(output.value.to_sat()) == msat));
        self.model.withdrawals[place].sent = Some(transaction);
        self.model.purses[who].owns -= msat + ONCHAIN;
        self.model.purses[who].held -= msat + 2 * ONCHAIN;
    }

    /// A node offers what it has sent until it is in a block.
    async fn send_again(&self) {
        let waiting = self.rig.chain.mempool_ids();
        for transaction in self.model.withdrawals.iter().filter_map(|withdrawal| withdrawal.sent.as_ref()) {
            let txid = transaction.compute_txid();
            if !waiting.contains(&txid) && self.rig.chain.transaction(txid).is_none() {
                self.rig.offer(transaction).await;
            }
        }
    }

    async fn compare(&self) {
        let mut conn = self.rig.flows.store().read().await.expect("a connection");
        let (mut different, mut owes) = (Vec::new(), false);
        for (account, wanted) in self.model.balances(&self.clients) {
            let stored = ledger::balance(&mut conn, &account, &AssetId::Btc).await.expect("a balance");
            owes |= matches!(account, Account::Debt(_)) && stored.total < 0;
            if stored != wanted {
                different.push((account, stored, wanted));
            }
        }
        assert_eq!(different, [], "the books, and the model");
        self.saw(|seen| seen.debts += u32::from(owes));
        drop(conn);
        let (_, lines) = books::trial_balance(&self.rig.flows).await.expect("the store answers");
        assert_eq!(lines.iter().map(|line| line.total).sum::<i64>(), 0, "the books do not balance: {lines:?}");
    }

    // ---- wallets ----

    /// A begin is refused exactly when the model says so, and holds what the model says.
    fn begun(&mut self, who: usize, what: What, begun: Result<Begun, Error>) {
        let short = self.is_short && matches!(what, What::Withdraw { .. });
        match begun {
            Ok(begun) => {
                let asked = Asked { who, begun, what, at: self.now };
                assert!(!short && asked.what.hold() <= self.model.free(who), "it must not begin");
                self.model.purses[who].held += asked.what.hold();
                self.asked.push(asked);
            }
            Err(refused) if short => {
                self.saw(|seen| seen.reserve_low += 1);
                assert_eq!(refused.code(), Code::ReserveLow, "{refused}");
            }
            Err(refused) => {
                self.saw(|seen| seen.too_little += 1);
                let (hold, free) = (what.hold(), self.model.free(who));
                assert_eq!(refused.code(), Code::InsufficientFunds, "{refused}");
                assert!(hold > free, "{hold} of {free} were refused");
            }
        }
    }

    async fn ask_to_pay(&mut self, who: usize, sats: u64, far: bool) {
        let payee = if far { &self.far } else { &self.rig.lightning.shop };
        let (invoice, preimage) = payee.invoice(Some(sat(sats)), "goods");
        let ceiling = msat(ROUTING_CEILING.unsigned_abs());
        let begun = self.rig.begin_pay(&self.clients[who], &invoice, Some(ceiling)).await;
        self.begun(who, What::Pay { preimage, far, msat: msat_of(sats) }, begun);
    }

    async fn ask_to_transfer(&mut self, who: usize, sats: u64) {
        let receive = self.rig.invoice(&self.clients[1 - who], Some(sat(sats))).await;
        let begun = self.rig.begin_pay(&self.clients[who], &receive.machine.invoice, None).await;
        self.begun(who, What::Transfer { msat: msat_of(sats) }, begun);
    }

    async fn ask_to_withdraw(&mut self, who: usize, sats: u64) {
        let (keys, wanted) = (&self.clients[who].keys, wanted(&stranger(), sats));
        let begun = withdraw::begin_either(&self.rig.flows, keys, Some(Source::Offchain), wanted, None).await;
        self.begun(who, What::Withdraw { msat: msat_of(sats) }, begun);
    }

    async fn end_last(&mut self) {
        let asked = self.asked.pop().expect("it has begun");
        self.end(asked).await;
    }

    async fn end(&mut self, asked: Asked) {
        let (client, hold) = (&self.clients[asked.who], asked.what.hold());
        let Asked { who, begun, what, .. } = asked;
        match what {
            What::Pay { preimage, far, msat } => {
                self.rig.end_pay(client, &begun).await.expect("it ends");
                let cost = msat + if far { ROUTING } else { 0 };
                self.flights.push(Flight { who, hold, cost, preimage, far });
            }
            What::Transfer { msat } => {
                self.rig.end_pay(client, &begun).await.expect("it ends");
                self.model.purses[who].held -= hold;
                self.model.purses[who].owns -= msat;
                self.model.purses[1 - who].owns += msat;
            }
            What::Withdraw { msat } => {
                let signed = client.sign(&begun.psbt);
                let ended = withdraw::end(&self.rig.flows, &client.keys, &signed).await.expect("it ends");
                let ended = ended.expect("it is a withdrawal").machine;
                let id = begun.request;
                self.model.withdrawals.push(Withdrawal { who, id, msat, sent: None, is_told: false });
                assert_eq!(matches!(ended.state, State::Queued { .. }), self.is_short, "{ended:?}");
                self.saw(|seen| seen.queued += u32::from(self.is_short));
            }
        }
    }

    async fn withdrawal(&self, who: usize, id: RequestId) -> Withdraw {
        let found = withdraw::find(&self.rig.flows, &self.clients[who].keys.id(), id).await;
        found.expect("the store answers").expect("it is known").machine
    }

    /// Takes back a withdrawal, begun or ended: what is out is out.
    async fn cancel(&mut self, which: Index) {
        let begun = self.asked.iter().filter(|asked| matches!(asked.what, What::Withdraw { .. }));
        let mut all: Vec<(usize, RequestId)> = begun.map(|asked| (asked.who, asked.begun.request)).collect();
        all.extend(self.model.withdrawals.iter().map(|withdrawal| (withdrawal.who, withdrawal.id)));
        if all.is_empty() {
            return;
        }
        let (who, id) = all[which.index(all.len())];
        let cancelled = withdraw::cancel(&self.rig.flows, &self.clients[who].keys.id(), id).await;
        if let Some(place) = self.asked.iter().position(|asked| asked.begun.request == id) {
            cancelled.expect("nobody has consented");
            self.saw(|seen| seen.cancelled += 1);
            self.model.purses[who].held -= self.asked.remove(place).what.hold();
            return;
        }
        let place = self.model.withdrawals.iter().position(|withdrawal| withdrawal.id == id).expect("it is known");
        if self.model.withdrawals[place].sent.is_some() {
            assert_eq!(cancelled.expect_err("it is out").code(), Code::NotCancellable);
        } else {
            cancelled.expect("it waits");
            self.saw(|seen| seen.cancelled += 1);
            let Withdrawal { msat, .. } = self.model.withdrawals.remove(place);
            self.model.purses[who].held -= msat + 2 * ONCHAIN;
        }
    }

    /// A payment is taken by its payee, or sent back.
    async fn land(&mut self, flight: Flight, is_claimed: bool) {
        let Flight { who, hold, cost, preimage, far } = flight;
        let payee = if far { &self.far } else { &self.rig.lightning.shop };
        self.model.purses[who].held -= hold;
        self.saw(|seen| seen.landed += 1);
        if is_claimed {
            payee.claim(preimage.hash(), Some(preimage)).await.expect("it is claimed");
            self.model.purses[who].owns -= cost;
            self.model.channels -= cost;
        } else {
            payee.fail(preimage.hash()).await.expect("it is sent back");
        }
    }

    async fn settle(&mut self, who: usize, sats: u64) {
        let client = &self.clients[who];
        let wanted =
            BeginSettle { amount: Sat::new(sats).ok(), fee_rate: 2, expires_in_seconds: None, reference: None };
        // Its coins may be on their way.
        let Ok(begun) = settle::begin(&self.rig.flows, &client.keys, wanted, None).await else { return };
        settle::end(&self.rig.flows, &client.keys.id(), &client.sign(&begun.psbt)).await.expect("it ends");
        let txid = unsigned(&begun.psbt).compute_txid();
        self.model.settles.push(Settle { who, txid, msat: msat_of(sats) });
    }

    // ---- the operator, and time ----

    async fn wait(&mut self, seconds: u64) {
        self.rig.wait(seconds).await;
        self.now += seconds;
        let late: Vec<Asked> = self.asked.extract_if(.., |asked| self.now >= asked.at + PATIENCE).collect();
        for late in late {
            self.saw(|seen| seen.expired += 1);
            self.model.purses[late.who].held -= late.what.hold();
        }
    }

    fn set_reserve(&mut self, is_short: bool) {
        self.is_short = is_short;
        self.rig.lightning.node.set_reserve(if is_short { TOO_MUCH } else { Sat::ZERO });
    }

    async fn top_up(&mut self, sats: u64) {
        let reserve = node_admin::reserve(&self.rig.flows).await.expect("a reserve");
        self.rig.lightning.node.fund_address(&parse_address(&reserve.address), amount(sats));
        self.rig.lightning.network.mine(1);
        self.model.topped_up(sats);
    }

    async fn move_second_channel(&mut self) {
        let node = &self.rig.lightning.node;
        match self.model.second {
            Second::None => {
                let new =
                    NewChannel { peer: self.second.id(), amount: sats(OPENED), push: msats(PUSHED), announced: false };
                match node.open_channel(&new).await.expect("an answer") {
                    Answered::Done(id) => {
                        self.channel = id;
                        self.model.second = Second::Opening;
                    }
                    Answered::Refused { reason } => assert!(self.is_short, "{reason}"),
                }
            }
            Second::Opening | Second::Closing => {
                self.rig.lightning.network.mine(1);
                self.model.network_mined();
            }
            Second::Open => {
                let closed = node.close_channel(&self.channel, CloseHow::Cooperative).await;
                assert_eq!(closed, Ok(Answered::Done(())));
                self.model.channels -= OPENED - PUSHED;
                self.model.closing += OPENED - PUSHED;
                self.model.second = Second::Closing;
                self.saw(|seen| seen.closed += 1);
            }
        }
    }

    /// Everything that is under way comes to its end; the channels are closed; nothing is left between.
    async fn finish(mut self) {
        self.set_reserve(false);
        while let Some(flight) = self.flights.pop() {
            let is_claimed = flight.far;
            self.land(flight, is_claimed).await;
            self.look().await;
        }
        self.wait(PATIENCE).await;
        self.look().await;
        assert!(self.asked.is_empty() && self.model.withdrawals.iter().all(|withdrawal| withdrawal.sent.is_some()));
        while self.model.second != Second::None {
            self.move_second_channel().await;
            self.look().await;
        }
        for _ in 0..=SETTLED_AFTER {
            self.rig.wait(31).await;
            self.rig.chain.mine(1);
            self.look().await;
        }
        assert!(self.model.settles.iter().all(|settle| self.model.is_credited(settle)), "a settle is lost");
        let closed = self.rig.lightning.node.close_channel(&self.rig.lightning.channel, CloseHow::Cooperative).await;
        assert_eq!(closed, Ok(Answered::Done(())));
        let fraction = self.model.channels % SAT;
        self.model.closing += std::mem::take(&mut self.model.channels) - fraction;
        self.model.rounding -= fraction;
        self.look().await;
        self.rig.lightning.network.mine(1);
        self.model.network_mined();
        self.look().await;
        self.rig.audit_exactly().await;
    }
}

fn sats(msat: i64) -> Sat {
    Sat::new((msat / SAT).unsigned_abs()).expect("an amount")
}

fn msats(msat: i64) -> Amount {
    Amount::from_bigint(msat).expect("not negative")
}

/// What the node sends on-chain spends coins that are too deep for any reorganisation, each of them once.
async fn send_from_a_vault(rig: &Rig) {
    const COIN: u64 = 100_000;
    let vault = Client::number(9).address_at(0).script_pubkey();
    let outputs: Vec<_> = (0..STEPS).map(|_| (vault.clone(), amount(COIN))).collect();
    let txid = rig.chain.pay_many(&outputs).expect("the fake pays");
    let coins = (0..).take(STEPS).map(|vout| OutPoint { txid, vout }).collect::<Vec<_>>();
    let (chain, coins) = (Arc::clone(&rig.chain), Mutex::new(coins));
    rig.lightning.node.send_through(move |script, sats| {
        let coin = coins.lock().expect("nobody panics").pop().expect("a coin for each step");
        let to = bitcoin::Address::from_script(script, bitcoin::Network::Regtest).expect("an address");
        let payment = spend_elsewhere(&[coin], &to, sats.to_u64());
        debug_assert_eq!(inputs_of(&payment), [coin]);
        block_on(chain.broadcast(&payment)).expect("the fake answers");
        payment.compute_txid()
    });
}

// ---- cases ----

fn deep() -> Policy {
    let settle = SettlePolicy { confirmations: Some(SETTLED_AFTER), larger: Vec::new() };
    Policy { settle, lookahead: 30, ..policy() }
}

fn compare_with_the_model(database: Database) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(&prop::collection::vec(op(), STEPS / 2..STEPS), |ops| {
        runtime.block_on(async {
            let Some(rig) = Rig::with(database, deep()).await else { return };
            let mut walk = Walk::new(rig, Arc::clone(&seen)).await;
            for op in ops {
                walk.run(op).await;
            }
            walk.finish().await;
        });
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, ops)) => panic!("{reason}\nafter {ops:#?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let seen = *seen.lock().expect("nobody panics with it");
    // Nothing at all where there is no such database.
    assert!(seen.is_enough() || seen == Seen::default(), "too little came about: {seen:?}");
}

#[test]
fn every_account_is_what_the_model_says_on_sqlite() {
    compare_with_the_model(Database::Sqlite);
}

#[test]
fn every_account_is_what_the_model_says_on_postgres() {
    compare_with_the_model(Database::Postgres);
}
