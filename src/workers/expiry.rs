//! Ends what has waited too long: addresses that nobody paid to, sends that nobody signed, consignments of strangers.

use std::time::Duration;

use async_trait::async_trait;

use super::supervise::{Next, Worker};
use crate::flows::{Error, Flows, consignments, expiry};

const IDLE: Duration = Duration::from_secs(1);

pub(super) struct Expiry {
    flows: Flows,
}

impl Expiry {
    pub(super) fn new(flows: &Flows) -> Self {
        Self { flows: flows.clone() }
    }
}

#[async_trait]
impl Worker for Expiry {
    fn name(&self) -> &'static str {
        "expiry"
    }

    async fn round(&mut self) -> Result<Next, Error> {
        let expired = expiry::expire_overdue(&self.flows).await?;
        let forgotten = consignments::sweep(&self.flows).await?;
        if expired + forgotten == 0 {
            return Ok(Next::After(IDLE));
        }
        tracing::debug!(expired, forgotten, "time was up");
        Ok(Next::AtOnce)
    }
}
