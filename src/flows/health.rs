//! How each rail is doing, as the workers last found it. Cheap to clone and to ask: a probe touches neither database nor node.

use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;

use crate::ports::chain::BlockRef;

/// Shared by the workers, which write it, and by whoever is asked for it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    rails: Arc<RwLock<Rails>>,
}

/// Every rail by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rails {
    pub store: StoreRail,
    pub chain: ChainRail,
    pub payouts: PayoutsRail,
    pub lightning: LightningRail,
    pub assets: AssetsRail,
}

/// The engine for assets. A gateway without one is as ready as any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AssetsRail {
    /// There is an engine.
    pub configured: bool,
    /// Its indexer has answered last, and every state that the audit has looked at can be opened.
    pub ready: bool,
    /// Wallets whose state can't be opened, as the audit has found.
    pub unopened: usize,
    /// Why a configured one is not ready.
    pub reason: Option<String>,
}

/// The Lightning node. A gateway without one, or whose node is another process's, is as ready as any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LightningRail {
    /// There is a node, or there will be one.
    pub configured: bool,
    /// It accepts new payments here.
    pub ready: bool,
    /// Why a configured one does not.
    pub reason: Option<String>,
}

/// The database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StoreRail {
    pub ok: bool,
    /// Why it is not ok. Written for an operator; it names no secrets.
    pub reason: Option<String>,
}

/// The Bitcoin node, and how far it is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChainRail {
    /// The node answers, and it is of the right network.
    pub connected: bool,
    /// The node has the network's tip, and we have seen what it has.
    pub synced: bool,
    /// The node's tip.
    pub tip: Option<Block>,
    /// The last block that the gateway has taken in.
    pub cursor: Option<Block>,
    pub reason: Option<String>,
}

/// Whether money may go out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PayoutsRail {
    /// The reasons for which none does; empty when all is well. An operator clears them with `sluice resume`.
    pub halted: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Block {
    pub height: u32,
    pub hash: String,
}

impl From<BlockRef> for Block {
    fn from(block: BlockRef) -> Self {
        Self { height: block.height, hash: block.hash.to_string() }
    }
}

impl Health {
    /// What every rail is known to do now. Until a worker has looked, nothing is ok.
    #[must_use]
    pub fn rails(&self) -> Rails {
        self.rails.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is known.
    pub fn update(&self, change: impl FnOnce(&mut Rails)) {
        change(&mut self.rails.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Rails {
    /// Whether a load balancer may send calls here. A halt of payouts is no reason against it: every gateway on the same
    /// database has it, and reading and receiving go on. Nor is a Lightning node that is not here: one gateway of several has it.
    #[must_use]
    pub fn are_ready(&self) -> bool {
        self.store.ok && self.chain.connected && self.chain.synced
    }

    /// Blocks that the node has and we have not; `None` when either is unknown.
    #[must_use]
    pub fn lag(&self) -> Option<u32> {
        let (tip, cursor) = (self.chain.tip.as_ref()?, self.chain.cursor.as_ref()?);
        Some(tip.height.saturating_sub(cursor.height))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(height: u32) -> Block {
        Block { height, hash: String::new() }
    }

    #[test]
    fn nothing_is_ready_before_somebody_has_looked() {
        let health = Health::default();
        assert!(!health.rails().are_ready());
        let all_is_well = |rails: &mut Rails| {
            rails.store.ok = true;
            rails.chain.connected = true;
            rails.chain.synced = true;
        };
        health.update(all_is_well);
        assert!(health.rails().are_ready());
        health.clone().update(|rails| rails.store.ok = false);
        assert!(!health.rails().are_ready(), "a clone tells of the same rails");
    }

    #[test]
    fn a_halt_of_payouts_is_shown_and_keeps_nobody_from_reading() {
        let halted = PayoutsRail { halted: vec!["deep_reorg".to_owned()] };
        let chain = ChainRail { connected: true, synced: true, ..ChainRail::default() };
        let store = StoreRail { ok: true, reason: None };
        let rails = Rails { store, chain, payouts: halted, ..Rails::default() };
        assert!(rails.are_ready(), "nor does a node that is not here");
    }

    #[test]
    fn the_lag_is_unknown_rather_than_wrong() {
        let mut rails = Rails::default();
        rails.chain.tip = Some(block(12));
        assert_eq!(rails.lag(), None);
        rails.chain.cursor = Some(block(10));
        assert_eq!(rails.lag(), Some(2));
        rails.chain.cursor = Some(block(13));
        assert_eq!(rails.lag(), Some(0), "a reorganisation may put the cursor ahead for a moment");
    }
}
