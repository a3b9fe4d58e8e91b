//! Does what a flow has left behind: signed transactions that no node has taken yet are offered again.

use std::time::Duration;

use async_trait::async_trait;

use super::supervise::{Next, Worker};
use crate::flows::{Error, Flows, effects};

const IDLE: Duration = Duration::from_secs(1);

pub(super) struct Effects {
    flows: Flows,
    is_first_round: bool,
}

impl Effects {
    pub(super) fn new(flows: &Flows) -> Self {
        Self { flows: flows.clone(), is_first_round: true }
    }
}

#[async_trait]
impl Worker for Effects {
    fn name(&self) -> &'static str {
        "effects"
    }

    async fn round(&mut self) -> Result<Next, Error> {
        if self.is_first_round {
            effects::take_over(&self.flows).await?;
            self.is_first_round = false;
        }
        let done = effects::run_due(&self.flows).await?;
        Ok(if done == 0 { Next::After(IDLE) } else { Next::AtOnce })
    }
}
