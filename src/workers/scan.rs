//! Searches the chain for what newly registered wallets had before. Beside the follower, because a search may take minutes.

use std::time::Duration;

use async_trait::async_trait;

use super::role::{self, Held};
use super::supervise::{Next, Worker};
use crate::flows::{Error, Flows, scan};

const WAIT_FOR_ROLE: Duration = Duration::from_secs(1);

pub(super) struct Scan {
    flows: Flows,
    held: Held,
    poll: Duration,
}

impl Scan {
    pub(super) fn new(flows: &Flows, held: Held, poll: Duration) -> Self {
        Self { flows: flows.clone(), held, poll }
    }
}

#[async_trait]
impl Worker for Scan {
    fn name(&self) -> &'static str {
        "scan"
    }

    async fn round(&mut self) -> Result<Next, Error> {
        let Some(ownership) = role::wait(&mut self.held, WAIT_FOR_ROLE).await else { return Ok(Next::AtOnce) };
        let wallets = scan::scan_waiting(&self.flows, &ownership).await?;
        if wallets > 0 {
            tracing::info!(wallets, "searched the chain for coins from before");
        }
        Ok(Next::After(self.poll))
    }
}
