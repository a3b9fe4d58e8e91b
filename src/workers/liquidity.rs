//! Looks at the channels every now and then, and when it is woken, as long as this process runs the node.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::supervise::{Next, Worker};
use crate::flows::{Error, Flows, liquidity};

/// How long a round waits to be woken; and how long it is deaf after a look, so that nobody can keep the node busy.
const WAIT: Duration = Duration::from_secs(1);

pub(super) struct Liquidity {
    flows: Flows,
    every: Duration,
    looked: Option<Instant>,
}

impl Liquidity {
    pub(super) fn new(flows: &Flows) -> Self {
        let every = Duration::from_secs(flows.policy().liquidity.every_seconds);
        Self { flows: flows.clone(), every, looked: None }
    }
}

#[async_trait]
impl Worker for Liquidity {
    fn name(&self) -> &'static str {
        "liquidity"
    }

    async fn round(&mut self) -> Result<Next, Error> {
        let is_woken = tokio::time::timeout(WAIT, self.flows.liquidity_is_woken()).await.is_ok();
        let is_due = self.looked.is_none_or(|at| at.elapsed() >= self.every);
        if !is_woken && !is_due {
            return Ok(Next::AtOnce);
        }
        if liquidity::look(&self.flows).await? {
            self.looked = Some(Instant::now());
        }
        Ok(Next::After(WAIT))
    }
}
