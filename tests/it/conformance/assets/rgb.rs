//! rgb-lib, on a real chain.

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::Network;
use sluice::assets::rgb::{Config, RgbEngine};
use sluice::domain::wallet::WalletKeys;
use sluice::money::Sat;
use sluice::ports::assets::{Asset, AssetEngine};
use tempfile::TempDir;

use super::Rig;
use crate::harness::bitcoind::Bitcoind;
use crate::harness::esplora::Esplora;
use crate::harness::export;
use crate::harness::rig::parse_address;

struct Real {
    node: Bitcoind,
    esplora: Esplora,
    engine: Option<Arc<RgbEngine>>,
    folder: TempDir,
}

impl Real {
    async fn start() -> Option<Self> {
        let node = Bitcoind::start().await?;
        let esplora = Esplora::start(&node).await;
        let folder = tempfile::tempdir().expect("a folder");
        let mut real = Self { node, esplora, engine: None, folder };
        real.open();
        Some(real)
    }

    fn open(&mut self) {
        let config = Config {
            data_dir: self.folder.path().to_owned(),
            indexer: Some(self.esplora.url().to_owned()),
            endpoints: Vec::new(),
            open_wallets: 2,
            at_once: 2,
            ..Config::default()
        };
        self.engine = Some(Arc::new(RgbEngine::open(&config, Network::Regtest).expect("the engine opens")));
    }
}

#[async_trait(?Send)]
impl Rig for Real {
    fn engine(&self) -> Arc<dyn AssetEngine> {
        self.engine.clone().expect("an engine")
    }

    async fn restart(&mut self) {
        self.engine = None;
        self.open();
    }

    async fn pay(&self, address: &str, sat: Sat) {
        self.node.pay(&parse_address(address), sat).await;
    }

    async fn mine(&self, blocks: u32) {
        self.node.mine(blocks).await;
    }

    async fn opened(&self, sealed: &[u8], password: &str, keys: &WalletKeys) -> Option<Vec<Asset>> {
        export::opened(sealed, password, keys).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn assets_move_and_add_up() {
    let Some(mut rig) = Real::start().await else { return };
    super::assets_move_and_add_up(&mut rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_and_a_change_of_mind() {
    let Some(mut rig) = Real::start().await else { return };
    super::many_at_once_and_a_change_of_mind(&mut rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_orders_are_refused() {
    let Some(mut rig) = Real::start().await else { return };
    super::bad_orders_are_refused(&mut rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_unused_scripts_hide_nothing() {
    let Some(mut rig) = Real::start().await else { return };
    super::two_hundred_unused_scripts_hide_nothing(&mut rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_holds_everything_and_shows_nothing() {
    let Some(mut rig) = Real::start().await else { return };
    super::an_export_holds_everything_and_shows_nothing(&mut rig).await;
    // The library makes a copy first that is not sealed.
    for place in std::fs::read_dir(rig.folder.path()).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        assert!(!place.join("export").exists(), "{} was left behind", place.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_serves_one_process() {
    let Some(rig) = Real::start().await else { return };
    let config = Config {
        data_dir: rig.folder.path().to_owned(),
        indexer: Some(rig.esplora.url().to_owned()),
        ..Config::default()
    };
    let second = RgbEngine::open(&config, Network::Regtest).err().expect("refused");
    assert!(second.to_string().contains("another process"), "{second}");
}
