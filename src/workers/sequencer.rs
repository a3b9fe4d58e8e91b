//! Numbers committed events where many write at once, which is on PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;

use super::role::{self, Held};
use super::supervise::{Next, Worker};
use crate::crash;
use crate::flows::{Error, Flows};
use crate::store::events::NumberEvents;

const WAIT_FOR_ROLE: Duration = Duration::from_secs(1);
const SHORTEST_IDLE: Duration = Duration::from_millis(10);
const LONGEST_IDLE: Duration = Duration::from_millis(50);

pub(super) struct Sequence {
    flows: Flows,
    held: Held,
    idle: Duration,
}

impl Sequence {
    pub(super) fn new(flows: &Flows, held: Held) -> Self {
        Self { flows: flows.clone(), held, idle: SHORTEST_IDLE }
    }
}

#[async_trait]
impl Worker for Sequence {
    fn name(&self) -> &'static str {
        "sequencer"
    }

    async fn round(&mut self) -> Result<Next, Error> {
        let Some(owner) = role::wait(&mut self.held, WAIT_FOR_ROLE).await else { return Ok(Next::AtOnce) };
        let numbered = self.flows.store().write(NumberEvents { owner }).await?;
        if numbered > 0 {
            crash::point("events.numbered");
        }
        self.idle = if numbered > 0 { SHORTEST_IDLE } else { (self.idle * 2).min(LONGEST_IDLE) };
        Ok(if numbered > 0 { Next::AtOnce } else { Next::After(self.idle) })
    }
}
