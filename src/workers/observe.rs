//! Looks at every rail and writes down what it sees, for the probes and the metrics. Every gateway does, follower or not.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitcoin::BlockHash;
use bitcoin::constants::genesis_block;

use super::chain_follow::wrong_network;
use super::supervise::{Next, Worker};
use crate::clock::Timestamp;
use crate::flows::assets::learn;
use crate::flows::health::{AssetsRail, Health, LightningRail};
use crate::flows::{Error, Flows, consignments};
use crate::ports::PortError;
use crate::ports::chain::{BlockRef, ChainInfo};
use crate::store::gauges::{self, Gauges};
use crate::store::{ProveWritable, StoreError, chain, halts};

/// A node that has not answered by then is not connected, whatever its client still hopes for.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is tried whether the database can be written. While it can't, each round tries.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// Counting rows costs more than asking for a cursor.
const COUNT_EVERY: Duration = Duration::from_secs(10);
const MEGABYTE: u64 = 1_000_000;

pub(super) struct Observe {
    flows: Flows,
    health: Health,
    poll: Duration,
    genesis: BlockHash,
    counted: Option<Instant>,
    /// When the database was last written to for that alone.
    wrote: Option<Instant>,
    /// Gauges that were set and have to be told when their number is zero.
    set_before: HashSet<(String, String)>,
}

struct Books {
    cursor: Option<BlockRef>,
    halts: Vec<String>,
}

impl Observe {
    pub(super) fn new(flows: &Flows, health: &Health, poll: Duration) -> Self {
        Self {
            flows: flows.clone(),
            health: health.clone(),
            poll,
            genesis: genesis_block(flows.network()).block_hash(),
            counted: None,
            wrote: None,
            set_before: HashSet::new(),
        }
    }

    async fn ask_node(&self) -> Result<ChainInfo, PortError> {
        let info = tokio::time::timeout(PATIENCE, self.flows.chain().info()).await.unwrap_or_else(|_| {
            Err(PortError::Unreachable { service: "bitcoind", reason: format!("no answer within {PATIENCE:?}") })
        })?;
        if info.genesis == self.genesis { Ok(info) } else { Err(wrong_network(info.genesis, self.genesis)) }
    }

    /// A database that can be read may have no room for what is written next.
    async fn try_to_write(&mut self) -> Result<(), StoreError> {
        if self.wrote.is_some_and(|at| at.elapsed() < WRITE_EVERY) {
            return Ok(());
        }
        self.wrote = None;
        let written = tokio::time::timeout(PATIENCE, self.flows.store().write(ProveWritable)).await;
        written.unwrap_or_else(|_| Err(StoreError::Unavailable(format!("nothing was written within {PATIENCE:?}"))))?;
        self.wrote = Some(Instant::now());
        Ok(())
    }

    async fn read_books(&self) -> Result<Books, StoreError> {
        let mut conn = self.flows.store().read().await?;
        let cursor = chain::cursor(&mut conn).await?;
        let halts = halts::in_force(&mut conn).await?.into_iter().map(|halt| halt.reason).collect();
        Ok(Books { cursor, halts })
    }

    fn lightning(&self) -> LightningRail {
        let slot = self.flows.node();
        let configured = slot.is_configured();
        // That there is none is no fault.
        let reason = slot.ready().err().filter(|_| configured).map(|error| error.to_string());
        LightningRail { configured, ready: slot.is_ready(), reason }
    }

    fn assets(&self) -> AssetsRail {
        let Some(side) = self.flows.asset_side() else { return AssetsRail::default() };
        let broken = side.looked.broken();
        let rests = learn::indexer_rests(&self.flows);
        let reason = match broken.first_key_value() {
            Some((wallet, why)) => Some(format!("what {wallet} has can't be opened: {why}")),
            None => rests.then(|| "the indexer can't be reached".to_owned()),
        };
        AssetsRail { configured: true, ready: reason.is_none(), unopened: broken.len(), reason }
    }

    fn write_down(&self, node: Result<ChainInfo, PortError>, books: Result<Books, StoreError>) {
        self.health.update(|rails| {
            rails.lightning = self.lightning();
            rails.assets = self.assets();
            match books {
                Ok(books) => {
                    rails.store.ok = true;
                    rails.store.reason = None;
                    rails.chain.cursor = books.cursor.map(Into::into);
                    rails.payouts.halted = books.halts;
                }
                Err(error) => {
                    rails.store.ok = false;
                    rails.store.reason = Some(error.to_string());
                }
            }
            rails.chain.connected = node.is_ok();
            match node {
                Ok(info) => {
                    rails.chain.tip = Some(info.tip.into());
                    // One block of lag is a block that came in while we were looking.
                    let is_near = rails.lag().is_some_and(|lag| lag <= 1);
                    rails.chain.synced = !info.syncing && is_near && rails.chain.reason.is_none();
                }
                Err(error) => {
                    rails.chain.synced = false;
                    rails.chain.reason = Some(error.to_string());
                }
            }
        });
    }

    fn set_chain_gauges(&self) {
        let rails = self.health.rails();
        if let Some(tip) = &rails.chain.tip {
            metrics::gauge!("sluice_chain_tip_height").set(tip.height);
        }
        if let Some(cursor) = &rails.chain.cursor {
            metrics::gauge!("sluice_chain_cursor_height").set(cursor.height);
        }
        if let Some(lag) = rails.lag() {
            metrics::gauge!("sluice_chain_lag_blocks").set(lag);
        }
        metrics::gauge!("sluice_ready", "rail" => "store").set(u8::from(rails.store.ok));
        metrics::gauge!("sluice_ready", "rail" => "chain").set(u8::from(rails.chain.connected && rails.chain.synced));
        metrics::gauge!("sluice_ready", "rail" => "payouts").set(u8::from(rails.payouts.halted.is_empty()));
        if rails.lightning.configured {
            metrics::gauge!("sluice_ready", "rail" => "lightning").set(u8::from(rails.lightning.ready));
        }
        if rails.assets.configured {
            metrics::gauge!("sluice_ready", "rail" => "assets").set(u8::from(rails.assets.ready));
            let unopened = u32::try_from(rails.assets.unopened).unwrap_or(u32::MAX);
            metrics::gauge!("sluice_assets_unopened_wallets").set(unopened);
        }
        let halted = u32::try_from(rails.payouts.halted.len()).unwrap_or(u32::MAX);
        metrics::gauge!("sluice_halts_in_force").set(halted);
    }

    async fn count(&mut self) -> Result<(), Error> {
        if self.counted.is_some_and(|at| at.elapsed() < COUNT_EVERY) {
            return Ok(());
        }
        self.counted = Some(Instant::now());
        let mut conn = self.flows.store().read().await?;
        let Gauges { open_requests, effects_pending, oldest_effect, oldest_withdrawal, wallets_to_scan } =
            gauges::count(&mut conn).await?;
        drop(conn);
        let now = self.flows.store().clock().now();
        metrics::gauge!("sluice_effects_oldest_seconds").set(age(oldest_effect, now));
        metrics::gauge!("sluice_withdrawals_oldest_waiting_seconds").set(age(oldest_withdrawal, now));
        metrics::gauge!("sluice_wallets_to_scan").set(as_gauge(wallets_to_scan));
        metrics::gauge!("sluice_store_writes_waiting").set(as_gauge(self.flows.store().writes_waiting()));
        metrics::gauge!("sluice_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
        metrics::gauge!("sluice_effects_pending").set(as_gauge(effects_pending));
        let megabytes = consignments::used_by_strangers(&self.flows).await? / MEGABYTE;
        metrics::gauge!("sluice_proxy_strangers_megabytes").set(u32::try_from(megabytes).unwrap_or(u32::MAX));
        let mut gone = std::mem::take(&mut self.set_before);
        for (kind, state, number) in open_requests {
            set_open(&kind, &state, as_gauge(number));
            gone.remove(&(kind.clone(), state.clone()));
            self.set_before.insert((kind, state));
        }
        for (kind, state) in gone {
            set_open(&kind, &state, 0);
        }
        Ok(())
    }
}

/// A gauge holds a floating-point number, in which every number of these is exact.
fn as_gauge(count: i64) -> u32 {
    u32::try_from(count.max(0)).unwrap_or(u32::MAX)
}

/// For how long something waits, in seconds; 0 where nothing does.
fn age(since: Option<Timestamp>, now: Timestamp) -> u32 {
    since.map_or(0, |since| as_gauge(now.millis().saturating_sub(since.millis()) / 1_000))
}

fn set_open(kind: &str, state: &str, number: u32) {
    metrics::gauge!("sluice_requests_open", "kind" => kind.to_owned(), "state" => state.to_owned()).set(number);
}

#[async_trait]
impl Worker for Observe {
    fn name(&self) -> &'static str {
        "observe"
    }

    async fn round(&mut self) -> Result<Next, Error> {
        let (node, books) = tokio::join!(self.ask_node(), self.read_books());
        let books = match books {
            Ok(books) => self.try_to_write().await.map(|()| books),
            unread => unread,
        };
        self.write_down(node, books);
        self.set_chain_gauges();
        self.count().await?;
        Ok(Next::After(self.poll))
    }
}
