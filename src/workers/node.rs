//! Runs the Lightning node while this process owns it, and reacts to what it says.
//!
//! What to do about a hint is the business of `flows/node.rs`; which node it is, that of `app.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::role::{self, Held};
use super::supervise::{Next, Worker};
use crate::flows::{Error, Flows, books, node};
use crate::ports::PortError;
use crate::ports::lightning::{LightningNode, NodeEvent};
use crate::store::owners::Ownership;

/// How long a round waits for the role, and for a hint.
const WAIT: Duration = Duration::from_secs(1);
/// Everything open is looked up this often, whatever hints there were.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Hints of one round, and how many of them are worked on at the same time: their writes share commits.
const MOST_HINTS: usize = 256;
const AT_ONCE: usize = 64;

/// Makes the node that this process is to run.
#[async_trait]
pub trait NodeHost: Send + Sync + 'static {
    /// Starts it, under the epoch that this process owns it by.
    async fn start(&self, owner: Ownership) -> Result<Arc<dyn LightningNode>, NodeFailure>;

    /// Lets it finish: no new payments, what is open written down, peers told.
    async fn stop(&self);
}

/// Why there is no node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeFailure {
    /// It may go better the next time.
    NotNow(PortError),
    /// Only the operator can help, and running on without saying so would hide it: the gateway stops.
    Hopeless(String),
}

pub(super) struct RunNode {
    /// Told why the gateway has to stop.
    hopeless: watch::Sender<Option<String>>,
    flows: Flows,
    host: Arc<dyn NodeHost>,
    held: Held,
    running: Option<Running>,
}

struct Running {
    hints: Receiver<NodeEvent>,
    looked: Option<Instant>,
}

impl RunNode {
    pub(super) fn new(
        flows: &Flows,
        host: Arc<dyn NodeHost>,
        held: Held,
        hopeless: watch::Sender<Option<String>>,
    ) -> Self {
        Self { hopeless, flows: flows.clone(), host, held, running: None }
    }

    async fn start(&mut self) -> Result<Next, Error> {
        let Some(owner) = role::wait(&mut self.held, WAIT).await else { return Ok(Next::AtOnce) };
        let node = match self.host.start(owner.clone()).await {
            Ok(node) => node,
            Err(NodeFailure::NotNow(why)) => return Err(Error::Node(why)),
            Err(NodeFailure::Hopeless(why)) => {
                tracing::error!(why, "the Lightning node can't be started");
                self.hopeless.send_replace(Some(why));
                return Ok(Next::After(LOOK_EVERY));
            }
        };
        // Before the first look: nothing falls between the two.
        let hints = node.events();
        self.flows.node().arrive_owned(node, owner);
        self.running = Some(Running { hints, looked: None });
        Ok(Next::AtOnce)
    }
}

#[async_trait]
impl Worker for RunNode {
    fn name(&self) -> &'static str {
        "node"
    }

    async fn round(&mut self) -> Result<Next, Error> {
        let Some(running) = &mut self.running else { return self.start().await };
        if running.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            let failed = node::look_at_everything(&self.flows).await?;
            running.looked = Some(Instant::now());
            if failed == 0 {
                self.flows.node().accept_spends();
            }
        }
        if let Some(hint) = first_hint(running).await {
            follow_up(&self.flows, running, hint).await;
        }
        Ok(Next::AtOnce)
    }

    async fn leave(&mut self) {
        self.flows.node().leave();
        self.host.stop().await;
    }
}

/// The next hint; `None` when none came in a while, or some were lost and everything is looked at next.
async fn first_hint(running: &mut Running) -> Option<NodeEvent> {
    match tokio::time::timeout(WAIT, running.hints.recv()).await {
        Err(_none_came) => None,
        Ok(Ok(hint)) => Some(hint),
        Ok(Err(RecvError::Lagged(_))) => {
            running.looked = None;
            None
        }
        Ok(Err(RecvError::Closed)) => {
            // A node whose hints have ended is asked every now and then.
            tokio::time::sleep(WAIT).await;
            None
        }
    }
}

/// Reacts to a hint and to those that come meanwhile, each as soon as it comes: one that takes long keeps no other waiting. What
/// is told again while it is followed up is followed up once more.
async fn follow_up(flows: &Flows, running: &mut Running, first: NodeEvent) {
    let mut reacting = FuturesUnordered::from_iter([react(flows, first)]);
    let (mut busy, mut again) = (vec![first], Vec::new());
    let mut left = MOST_HINTS;
    loop {
        let hint = tokio::select! {
            done = reacting.next() => {
                let Some(done) = done else { return };
                busy.retain(|hint| *hint != done);
                let Some(at) = again.iter().position(|hint| *hint == done) else { continue };
                again.swap_remove(at)
            }
            told = running.hints.recv(), if left > 0 && busy.len() < AT_ONCE => match told {
                Ok(hint) => {
                    left -= 1;
                    hint
                }
                Err(lost) => {
                    if matches!(lost, RecvError::Lagged(_)) {
                        running.looked = None;
                    }
                    left = 0;
                    continue;
                }
            },
        };
        if !busy.contains(&hint) {
            busy.push(hint);
            reacting.push(react(flows, hint));
        } else if !again.contains(&hint) {
            again.push(hint);
        }
    }
}

/// One request that can't be looked up now must not keep the others waiting: it is looked up again.
async fn react(flows: &Flows, hint: NodeEvent) -> NodeEvent {
    let reacted = match hint {
        NodeEvent::Incoming(hash) => node::look_at_incoming(flows, hash).await,
        NodeEvent::Outgoing(id) => node::look_at_outgoing(flows, id).await,
        NodeEvent::Channels => books::enter_movements(flows).await.map(drop),
    };
    if let Err(error) = reacted {
        super::supervise::die_if_fenced(&error);
        tracing::warn!(?hint, %error, "what the node said could not be followed up; it is looked at again");
    }
    hint
}
