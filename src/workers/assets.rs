//! Transfers of assets: what payers bring is looked at, payees are told and asked, and after each block the engine looks at the chain
//! for what is on its way.

use std::time::Duration;

use async_trait::async_trait;

use super::supervise::{Next, Worker};
use crate::flows::assets::accept::{self, PutOff};
use crate::flows::assets::{deliver, learn};
use crate::flows::values::BlockRef;
use crate::flows::{Error, Flows, history};

/// How long a round waits to be woken.
const WAIT: Duration = Duration::from_secs(1);

pub(super) struct Assets {
    flows: Flows,
    put_off: PutOff,
    /// The block at which the chain was looked at: another may come in its place, at the same height.
    looked_at: Option<BlockRef>,
}

impl Assets {
    pub(super) fn new(flows: &Flows) -> Self {
        Self { flows: flows.clone(), put_off: PutOff::default(), looked_at: None }
    }
}

#[async_trait]
impl Worker for Assets {
    fn name(&self) -> &'static str {
        "assets"
    }

    async fn round(&mut self) -> Result<Next, Error> {
        accept::look_at_what_was_brought(&self.flows, &mut self.put_off).await?;
        deliver::deliver(&self.flows).await?;
        learn::learn_of_coins(&self.flows).await?;
        let tip = history::tip(&self.flows).await?;
        if self.looked_at != tip || tip.is_none() {
            // At the start, too: an earlier process may have left something behind.
            accept::tidy_up(&self.flows).await?;
            accept::look_at_the_chain(&self.flows).await?;
            self.looked_at = tip;
        }
        // Woken or not, the next round looks.
        drop(tokio::time::timeout(WAIT, self.flows.assets_are_woken()).await);
        Ok(Next::AtOnce)
    }
}
