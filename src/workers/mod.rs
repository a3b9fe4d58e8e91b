//! What happens without anybody asking: following the chain, finishing what was begun, looking after the books.
//!
//! A worker is a loop of short rounds. It knows when to do something; what is done is a flow's business.

mod assets;
mod audit;
mod chain_follow;
mod effects;
mod expiry;
mod liquidity;
mod node;
mod observe;
mod role;
mod scan;
mod sequencer;
mod supervise;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::flows::Flows;
use crate::flows::health::Health;
use crate::store::Engine;
use crate::store::owners::Role;

pub use node::{NodeFailure, NodeHost};

use role::Keeper;
use supervise::Supervisor;

/// How often the workers look for something to do.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub poll: Duration,
    /// Empty: no audit beside the work.
    pub audit: Option<Duration>,
}

/// Every worker of a gateway.
pub struct Workers {
    rounds: Supervisor,
    roles: Supervisor,
    hopeless: watch::Receiver<Option<String>>,
}

impl Workers {
    #[must_use]
    pub fn start(flows: &Flows, health: &Health, pace: Pace, node: Option<Arc<dyn NodeHost>>) -> Self {
        let mut roles = Supervisor::default();
        let chain = Keeper::new(flows, Role::Chain);
        let mut rounds = Supervisor::default();
        rounds.add(observe::Observe::new(flows, health, pace.poll));
        rounds.add(chain_follow::Follow::new(flows, health, chain.held(), pace.poll));
        rounds.add(scan::Scan::new(flows, chain.held(), pace.poll));
        rounds.add(effects::Effects::new(flows));
        rounds.add(expiry::Expiry::new(flows));
        if flows.asset_engine().is_some() {
            rounds.add(assets::Assets::new(flows));
        }
        if let Some(every) = pace.audit {
            rounds.add(audit::Audit::new(flows, every));
        }
        if flows.store().engine() == Engine::Postgres {
            let sequencer = Keeper::new(flows, Role::Sequencer);
            rounds.add(sequencer::Sequence::new(flows, sequencer.held()));
            roles.add(sequencer);
        }
        let (tell_hopeless, hopeless) = watch::channel(None);
        if let Some(host) = node {
            let keeper = Keeper::new(flows, Role::Node);
            rounds.add(node::RunNode::new(flows, host, keeper.held(), tell_hopeless));
            if flows.policy().liquidity.is_on() {
                rounds.add(liquidity::Liquidity::new(flows));
            }
            roles.add(keeper);
        }
        roles.add(chain);
        Self { rounds, roles, hopeless }
    }

    /// Why the gateway can't go on, once it can't.
    #[must_use]
    pub fn hopeless(&self) -> watch::Receiver<Option<String>> {
        self.hopeless.clone()
    }

    /// Lets every worker finish its round, then gives the roles back.
    pub async fn stop(self) {
        self.rounds.stop().await;
        self.roles.stop().await;
    }
}
