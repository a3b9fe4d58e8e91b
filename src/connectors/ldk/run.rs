//! The loop that makes the node go round: events, what peers said, and then one commit of all that came of it.
//!
//! It stands in for LDK's background processor, which writes the manager and each monitor in transactions of their own. The order
//! within a round is what keeps the channels safe: see [`Node::round`].

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lightning::events::{Event, EventsProvider as _, ReplayEvent};
use lightning::ln::msgs::OnionMessageHandler as _;
use lightning::types::payment::PaymentHash as LdkHash;
use lightning_block_sync::SpvClient;
use lightning_block_sync::poll::ChainPoller;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

use super::broadcast::{self, Package};
use super::node::{Node, Phase};
use super::source::Followers;
use super::stage::{Batch, encoded};
use super::start::{MANAGER, Started, generation_step, put};
use super::types::lock;
use super::{fees, peers, rapid};
use crate::clock::Timestamp;
use crate::crash;
use crate::store::node::Step;

/// What is done again and again, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chore {
    Tick,
    Peers,
    OnionMessages,
    Rebroadcast,
    Sweep,
    Archive,
    Prune,
    Score,
    Generation,
    Announce,
    Queue,
    Unfunded,
}

const CHORES: [(Chore, Duration, Duration); 12] = [
    // LDK's clock; how often is configured.
    (Chore::Tick, Duration::ZERO, Duration::from_secs(60)),
    (Chore::Peers, Duration::from_secs(10), Duration::from_secs(10)),
    (Chore::OnionMessages, Duration::from_secs(10), Duration::from_secs(10)),
    (Chore::Rebroadcast, Duration::ZERO, Duration::from_secs(30)),
    (Chore::Sweep, Duration::from_secs(5), Duration::from_secs(30)),
    (Chore::Archive, Duration::from_secs(15), Duration::from_secs(600)),
    (Chore::Prune, Duration::from_secs(60), Duration::from_secs(3_600)),
    (Chore::Score, Duration::from_secs(300), Duration::from_secs(300)),
    (Chore::Generation, Duration::from_secs(60), Duration::from_secs(60)),
    (Chore::Announce, Duration::from_secs(60), Duration::from_secs(3_600)),
    (Chore::Queue, Duration::from_secs(1), Duration::from_secs(1)),
    (Chore::Unfunded, Duration::from_secs(2), Duration::from_secs(2)),
];

/// How long it is known what arrived for no invoice, and went back.
const RECEIPTS_KEPT_MILLIS: i64 = 24 * 60 * 60 * 1_000;

/// How long the loop sleeps at most.
const IDLE: Duration = Duration::from_millis(500);

/// LDK gives up on the parts of a payment to us at the third tick after the first of them came. Ticks that are so far apart give its
/// payer the sixty seconds of BOLT 4. They come more often where nothing waits, for with them goes what the manager remembers of
/// payments that have ended, and it is written with each commit.
const APART: Duration = Duration::from_secs(30);
/// What is there at one look and still at the next one waits for something. All else passes through within much less.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

struct Timers {
    next: [Instant; CHORES.len()],
    tick: Duration,
    ticked: Instant,
    /// What waited at the last look, while a tick is due.
    waiting: HashSet<LdkHash>,
}

impl Timers {
    fn new(tick: Duration) -> Self {
        let now = Instant::now();
        Self { next: CHORES.map(|(_, first, _)| now + first), tick, ticked: now, waiting: HashSet::new() }
    }

    /// Whether LDK's clock stands still for now, because parts of a payment to us wait for the others.
    fn holds_tick(&mut self, waiting: HashSet<LdkHash>) -> bool {
        let is_first_look = self.waiting.is_empty();
        let some_wait = if is_first_look { !waiting.is_empty() } else { !self.waiting.is_disjoint(&waiting) };
        let holds = some_wait && self.ticked.elapsed() < APART;
        self.waiting = if holds { waiting } else { HashSet::new() };
        let [tick, ..] = &mut self.next;
        if holds {
            *tick = Instant::now() + LOOK_AGAIN;
        } else {
            self.ticked = Instant::now();
        }
        holds
    }

    fn due(&mut self) -> Vec<Chore> {
        let now = Instant::now();
        let mut due = Vec::new();
        for ((chore, _, every), next) in CHORES.into_iter().zip(&mut self.next) {
            if *next <= now {
                *next = now + if chore == Chore::Tick { self.tick } else { every };
                due.push(chore);
            }
        }
        due
    }

    fn sleep(&self) -> Duration {
        let now = Instant::now();
        self.next.iter().map(|next| next.saturating_duration_since(now)).min().unwrap_or(IDLE).min(IDLE)
    }
}

/// Starts everything that a node does by itself.
pub fn run(started: Started, listener: Option<tokio::net::TcpListener>) {
    let Started { node, source, tip, headers } = started;
    node.spawn("loop", turn(Arc::clone(&node)));
    let followers = Followers {
        wallet: Arc::clone(&node.wallet),
        monitors: Arc::clone(&node.monitors),
        manager: Arc::clone(&node.manager),
        sweeper: Arc::clone(&node.sweeper),
    };
    let poller = ChainPoller::new(source, node.network);
    let following = Arc::clone(&node);
    node.spawn("chain", async move {
        let mut client = SpvClient::new(tip, poller, headers, &followers);
        let every = Duration::from_millis(following.config.poll_ms.max(10));
        while following.is_running() {
            match client.poll_best_tip().await {
                // What the network refused or forgot before may be welcome after a block.
                Ok((_, true)) => offer_again(&following).await,
                Ok((_, false)) => {}
                Err(error) => tracing::debug!(error = ?error.kind(), "bitcoind did not say what is new"),
            }
            following.stage.wake();
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = following.draining() => {}
            }
        }
    });
    node.spawn("fees", keep_fees(Arc::clone(&node)));
    node.spawn("rapid gossip sync", rapid::keep_synced(Arc::clone(&node)));
    node.spawn("reconnect", peers::keep_connected(Arc::clone(&node)));
    if let Some(listener) = listener {
        node.spawn("listen", peers::listen(Arc::clone(&node), listener));
    }
}

async fn keep_fees(node: Arc<Node>) {
    while node.is_running() {
        tokio::select! {
            () = tokio::time::sleep(fees::REFRESH) => {}
            () = node.draining() => return,
        }
        if let Err(error) = node.fees.refresh(&node.chain).await {
            tracing::warn!(%error, "fee rates could not be refreshed");
        }
        offer_again(&node).await;
    }
}

/// Offers what of ours waits for a block.
async fn offer_again(node: &Arc<Node>) {
    for transaction in node.wallet.unconfirmed() {
        if let Some(outcome) = broadcast::offer(&*node.chain, std::slice::from_ref(&transaction)).await {
            node.wallet.offered(&transaction, &outcome);
        }
    }
}

async fn turn(node: Arc<Node>) {
    let mut timers = Timers::new(Duration::from_secs(node.config.tick_seconds.max(1)));
    let waiting: Vec<Package> = node.wallet.unconfirmed().into_iter().map(|tx| vec![tx]).collect();
    waiting.into_iter().for_each(|package| node.broadcaster.hold(package));
    node.resume_receipts();
    for chore in timers.due() {
        node.chore(chore);
    }
    node.round().await;
    node.settle_unsent();
    if let Err(error) = node.let_go_of_unused_coins().await {
        tracing::warn!(%error, "it could not be looked up which coins were set aside for nothing; they stay so until the next start");
    }
    while *node.phase.borrow() == Phase::Running {
        for chore in timers.due() {
            if chore != Chore::Tick || !timers.holds_tick(node.parts_that_wait()) {
                node.chore(chore);
            }
        }
        node.round().await;
        tokio::select! {
            () = tokio::time::sleep(timers.sleep()) => {}
            () = node.manager.get_event_or_persistence_needed_future() => {}
            () = node.monitors.get_update_future() => {}
            () = node.onion.get_update_future() => {}
            () = node.gossip.has_checked() => {}
            () = node.stage.woken() => {}
        }
    }
    node.finish().await;
}

impl Node {
    /// One round. What LDK has to say is handled and leads to rows; then the manager is written as it is, then what it wanted to
    /// change in the monitors; all of it is one transaction. Only then are the monitors' changes called done, transactions sent,
    /// callers answered, and peers told.
    async fn round(self: &Arc<Self>) {
        let quiet = self.quiet_channels();
        self.handle_events();
        self.tell_own_money(quiet).await;
        self.send_queued();
        self.peers.process_events();
        if self.manager.needs_pending_htlc_processing() {
            self.process_htlcs();
        }
        // Taken before the manager is written: what led to these is in it.
        let packages = self.broadcaster.take();
        if self.manager.get_and_clear_needs_persistence() || !packages.is_empty() {
            self.stage_manager();
        }
        let batch = self.stage.take();
        if batch.is_empty() && packages.is_empty() && !self.lease.is_due() {
            return;
        }
        self.commit(batch).await;
        self.books.note_pending(&self.manager.list_channels());
        if !packages.is_empty() {
            drop(tokio::spawn(broadcast::send(Arc::clone(&self.chain), packages)));
        }
    }

    /// LDK may look for another way in there, which takes long where the network is large: then this worker serves nobody else.
    fn process_htlcs(&self) {
        let process = || self.manager.process_pending_htlc_forwards();
        let tries_again = self.tries_again.swap(false, Ordering::Relaxed);
        match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread if tries_again => tokio::task::block_in_place(process),
            _ => process(),
        }
    }

    /// The number of waiting operations is read before the manager is written, so that it knows of each that is flushed.
    fn stage_manager(&self) {
        let waiting = self.monitors.pending_operation_count();
        self.stage.push(put(MANAGER, "", encoded(self.manager.as_ref())));
        self.monitors.flush(waiting, &self.log);
    }

    async fn commit(&self, batch: Batch) {
        crash::point("node.before_commit");
        self.lease.commit(batch.steps).await;
        crash::point("node.after_commit");
        for (channel, update) in batch.durable {
            if let Err(error) = self.monitors.channel_monitor_updated(channel, update) {
                tracing::warn!(?error, %channel, "a stored update belongs to no channel");
            }
        }
        if !batch.ended.is_empty() {
            lock(&self.paying).forget(&batch.ended);
        }
        if batch.claimable {
            crash::point("node.claimable");
        }
        if batch.claimed {
            crash::point("node.claimed");
        }
        for waiting in batch.waiting {
            // Who went away needs no answer.
            let _gone = waiting.send(());
        }
        for hint in batch.hints {
            // Nobody may be listening.
            drop(self.hints.send(hint));
        }
    }

    fn handle_events(self: &Arc<Self>) {
        let handle = |event: Event| -> Result<(), ReplayEvent> { self.handle(event) };
        self.manager.process_pending_events(&handle);
        self.monitors.process_pending_events(&handle);
        self.onion.process_pending_events(&handle);
    }

    fn chore(self: &Arc<Self>, chore: Chore) {
        match chore {
            Chore::Tick => self.manager.timer_tick_occurred(),
            Chore::Peers => self.peers.timer_tick_occurred(),
            Chore::OnionMessages => self.onion.timer_tick_occurred(),
            Chore::Rebroadcast => self.monitors.rebroadcast_pending_claims(),
            // It says so in the log when it can't; the next time comes soon.
            Chore::Sweep => drop(self.sweeper.regenerate_and_broadcast_spend_if_necessary()),
            Chore::Archive => self.monitors.archive_fully_resolved_channel_monitors(),
            Chore::Prune => {
                if self.gossip.tells_what_is_stale() {
                    self.graph.remove_stale_channels_and_tracking_with_time(self.since_epoch().as_secs());
                }
                drop(tokio::spawn(Arc::clone(self).keep_graph()));
                let now = self.store.clock().now().millis();
                let before = Timestamp::from_millis(now.saturating_sub(RECEIPTS_KEPT_MILLIS));
                self.stage.push(Step::ForgetReceipts(before));
            }
            Chore::Score => drop(tokio::spawn(Arc::clone(self).keep_scores())),
            Chore::Generation => self.raise_generation(),
            Chore::Announce => self.announce(),
            Chore::Unfunded => drop(tokio::spawn(Arc::clone(self).give_up_unfunded())),
            Chore::Queue => {
                self.give_up_waiting();
                self.tell_earned();
                self.look_at_suspects();
                self.look_at_parts();
                lock(&self.paying).room = true;
            }
        }
    }

    /// In the database with the next commit, in the file when that is durable.
    fn raise_generation(self: &Arc<Self>) {
        let (file, number) = &self.generation;
        let next = {
            let mut number = lock(number);
            *number = number.saturating_add(1);
            *number
        };
        self.stage.push(generation_step(next));
        let (durable, file) = (self.stage.committed(), file.clone());
        drop(tokio::spawn(async move {
            if durable.await.is_ok()
                && let Err(error) = file.write(next)
            {
                tracing::error!(%error, "the file with the node's generation can't be written");
            }
        }));
    }

    /// The last round: what peers were told is stored, and the file with the generation is as new as the database.
    async fn finish(self: &Arc<Self>) {
        self.peers.disconnect_all_peers();
        self.handle_events();
        self.stage_manager();
        let next = lock(&self.generation.1).saturating_add(1);
        self.stage.push(generation_step(next));
        let packages = self.broadcaster.take();
        let batch = self.stage.take();
        self.commit(batch).await;
        broadcast::send(Arc::clone(&self.chain), packages).await;
        Arc::clone(self).keep_scores().await;
        Arc::clone(self).keep_graph().await;
        if let Err(error) = self.generation.0.write(next) {
            tracing::error!(%error, "the file with the node's generation can't be written");
        }
        self.phase.send_replace(Phase::Stopped);
        // Whoever still waits is told by this that it did not happen.
        drop(self.stage.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(numbers: &[u8]) -> HashSet<LdkHash> {
        numbers.iter().map(|number| LdkHash([*number; 32])).collect()
    }

    /// Ticks are ten seconds apart, and the last one was so long ago.
    fn timers(ago: u64) -> Timers {
        let mut timers = Timers::new(Duration::from_secs(10));
        timers.ticked -= Duration::from_secs(ago);
        timers
    }

    #[test]
    fn the_clock_goes_on_where_everything_passes_through() {
        assert!(!timers(10).holds_tick(parts(&[])));
        let mut busy = timers(10);
        assert!(busy.holds_tick(parts(&[1, 2])), "it is looked again");
        assert!(!busy.holds_tick(parts(&[3, 4])), "all that was there has gone on");
    }

    #[test]
    fn parts_that_wait_have_sixty_seconds_until_the_third_tick() {
        let mut held = timers(10);
        assert!(held.holds_tick(parts(&[1])) && held.holds_tick(parts(&[1, 2])) && held.holds_tick(parts(&[1])));
        assert!(APART * 2 >= Duration::from_secs(60));
        held.ticked -= APART;
        assert!(!held.holds_tick(parts(&[1])), "whoever never ends stops no clock");
        assert!(held.holds_tick(parts(&[1])));
    }
}
