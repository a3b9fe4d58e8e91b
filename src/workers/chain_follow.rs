//! Follows the chain, one step a round, as long as this process holds the role.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitcoin::BlockHash;
use bitcoin::constants::genesis_block;

use super::role::{self, Held};
use super::supervise::{Next, Worker};
use crate::flows::follow::{self, Progress};
use crate::flows::health::Health;
use crate::flows::{Error, Flows};
use crate::ports::PortError;
use crate::store::owners::Ownership;

/// How long to wait for the role before looking whether to stop.
const WAIT_FOR_ROLE: Duration = Duration::from_secs(1);
/// How often a halted follower looks whether an operator has decided.
const HALTED_POLL: Duration = Duration::from_secs(5);
/// How long the node's word that it is of our network is believed.
const NETWORK_IS_KNOWN_FOR: Duration = Duration::from_secs(1);

pub(super) struct Follow {
    flows: Flows,
    health: Health,
    held: Held,
    poll: Duration,
    genesis: BlockHash,
    network_seen: Option<Instant>,
}

impl Follow {
    pub(super) fn new(flows: &Flows, health: &Health, held: Held, poll: Duration) -> Self {
        let genesis = genesis_block(flows.network()).block_hash();
        Self { flows: flows.clone(), health: health.clone(), held, poll, genesis, network_seen: None }
    }

    async fn step(&mut self, ownership: &Ownership) -> Result<Progress, Error> {
        self.check_network().await?;
        follow::step(&self.flows, ownership).await
    }

    /// Behind the same address another node may answer one day. Nothing of another network's chain may be taken in.
    async fn check_network(&mut self) -> Result<(), Error> {
        if self.network_seen.is_some_and(|at| at.elapsed() < NETWORK_IS_KNOWN_FOR) {
            return Ok(());
        }
        self.network_seen = None;
        let genesis = self.flows.chain().info().await?.genesis;
        if genesis != self.genesis {
            return Err(wrong_network(genesis, self.genesis).into());
        }
        self.network_seen = Some(Instant::now());
        Ok(())
    }
}

#[async_trait]
impl Worker for Follow {
    fn name(&self) -> &'static str {
        "chain_follow"
    }

    async fn round(&mut self) -> Result<Next, Error> {
        let Some(ownership) = role::wait(&mut self.held, WAIT_FOR_ROLE).await else { return Ok(Next::AtOnce) };
        match self.step(&ownership).await {
            Ok(progress) => {
                self.health.update(|rails| rails.chain.reason = None);
                Ok(match progress {
                    Progress::Moved => Next::AtOnce,
                    Progress::CaughtUp => Next::After(self.poll),
                    Progress::Halted => Next::After(HALTED_POLL),
                })
            }
            Err(error) => {
                self.network_seen = None;
                self.health.update(|rails| {
                    rails.chain.synced = false;
                    rails.chain.reason = Some(error.to_string());
                });
                Err(error)
            }
        }
    }
}

/// The answer of a node that belongs to another chain.
pub(super) fn wrong_network(found: BlockHash, wanted: BlockHash) -> PortError {
    PortError::Misconfigured {
        service: "bitcoind",
        reason: format!("it is of another network: its first block is {found}, and chain.network asks for {wanted}"),
    }
}
