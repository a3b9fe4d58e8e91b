//! The engine in memory, on a chain in memory.

use std::sync::Arc;

use async_trait::async_trait;
use sluice::assets::fake::{FakeEngine, World};
use sluice::chain::fake::FakeChain;
use sluice::clock::Clock;
use sluice::domain::wallet::WalletKeys;
use sluice::money::Sat;
use sluice::ports::assets::{Asset, AssetEngine};

use super::Rig;
use crate::harness::rig::parse_address;

struct Fake {
    chain: Arc<FakeChain>,
    world: Arc<World>,
    engine: Arc<FakeEngine>,
}

impl Fake {
    fn start() -> Self {
        let (chain, world) = (Arc::new(FakeChain::new()), World::new(Clock::System));
        let engine = FakeEngine::new(Arc::clone(&world), chain.clone());
        Self { chain, world, engine }
    }
}

#[async_trait(?Send)]
impl Rig for Fake {
    fn engine(&self) -> Arc<dyn AssetEngine> {
        self.engine.clone()
    }

    async fn restart(&mut self) {
        self.engine = FakeEngine::new(Arc::clone(&self.world), self.chain.clone());
    }

    async fn pay(&self, address: &str, sat: Sat) {
        self.chain.pay(&parse_address(address).script_pubkey(), sat).expect("the fake pays");
    }

    async fn mine(&self, blocks: u32) {
        self.chain.mine(blocks);
    }

    async fn opened(&self, sealed: &[u8], password: &str, keys: &WalletKeys) -> Option<Vec<Asset>> {
        let elsewhere = FakeEngine::new(World::new(Clock::System), self.chain.clone());
        if !elsewhere.restore(keys, sealed, password) {
            return None;
        }
        Some(elsewhere.assets(keys).await.expect("assets"))
    }
}

#[tokio::test]
async fn assets_move_and_add_up() {
    super::assets_move_and_add_up(&mut Fake::start()).await;
}

#[tokio::test]
async fn many_at_once_and_a_change_of_mind() {
    super::many_at_once_and_a_change_of_mind(&mut Fake::start()).await;
}

#[tokio::test]
async fn bad_orders_are_refused() {
    super::bad_orders_are_refused(&mut Fake::start()).await;
}

#[tokio::test]
async fn two_hundred_unused_scripts_hide_nothing() {
    super::two_hundred_unused_scripts_hide_nothing(&mut Fake::start()).await;
}

#[tokio::test]
async fn an_export_holds_everything_and_shows_nothing() {
    super::an_export_holds_everything_and_shows_nothing(&mut Fake::start()).await;
}
