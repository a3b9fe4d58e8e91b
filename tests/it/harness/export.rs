//! Opening an export as its owner does, without the gateway that made it.

use bitcoin::Network;
use sluice::assets::rgb::{Config, RgbEngine};
use sluice::domain::wallet::WalletKeys;
use sluice::ports::assets::{Asset, AssetEngine};

/// The assets of a wallet, as an export says them; `None` when the password is another.
pub async fn opened(sealed: &[u8], password: &str, keys: &WalletKeys) -> Option<Vec<Asset>> {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, data_dir) = (folder.path().join("sealed"), folder.path().join("assets"));
    std::fs::write(&file, sealed).expect("it is written");
    let text = |path: std::path::PathBuf| path.to_str().expect("a path").to_owned();
    let (file, place, password) = (text(file), text(data_dir.join(keys.id().to_string())), password.to_owned());
    let restore = move || rgb_lib::wallet::restore_backup(&file, &password, &place);
    match tokio::task::spawn_blocking(restore).await.expect("it does not panic") {
        Err(rgb_lib::Error::WrongPassword) => return None,
        restored => restored.expect("the library restores what it has sealed"),
    }
    // What a wallet has is told without an indexer.
    let config = Config { data_dir, indexer: Some("http://127.0.0.1:9".to_owned()), ..Config::default() };
    let engine = RgbEngine::open(&config, Network::Regtest).expect("the engine opens");
    Some(engine.assets(keys).await.expect("assets"))
}
