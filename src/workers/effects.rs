//! Does what a flow has left behind: signed transactions that no node has taken yet are offered again.

use std::time::Duration;

use async_trait::async_trait;

use super::supervise::{Next, Worker};
use crate::flows::{Error, Flows, effects};

const IDLE: Duration = Duration::from_secs(1);

pub(super) struct Effects {
    flows: Flows,
}

impl Effects {
    pub(super) fn new(flows: &Flows) -> Self {
        Self { flows: flows.clone() }
    }
}

#[async_trait]
impl Worker for Effects {
    fn name(&self) -> &'static str {
        "effects"
    }

    async fn round(&mut self) -> Result<Next, Error> {
        let done = effects::run_due(&self.flows).await?;
        Ok(if done == 0 { Next::After(IDLE) } else { Next::AtOnce })
    }
}
