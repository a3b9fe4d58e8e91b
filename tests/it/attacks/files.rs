//! Another user of the same machine, who may read whatever is not kept from him. The gateway is a real process: its umask is its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::harness::bitcoind::Bitcoind;
use crate::harness::process::{Gateway, Site};
use crate::harness::rig::Database;

/// What is readable, writable or executable by others under a folder, but the logs, which the test itself makes.
fn open_to_others(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut open = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder can be listed") {
        let path = entry.expect("an entry").path();
        let is_log = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-"));
        let mode = fs::metadata(&path).expect("its metadata").permissions().mode();
        if mode & 0o077 != 0 && !is_log {
            open.push((path.clone(), format!("{:o}", mode & 0o777)));
        }
        if path.is_dir() {
            open.extend(open_to_others(&path));
        }
    }
    open
}

fn open_up(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the permissions of our own file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_the_same_machine_reads_preimages_channels_and_assets() {
    let Some(node) = Bitcoind::start().await else { return };
    let Some(site) = Site::new(Database::Sqlite, &node).await else { return };
    let database = site.folder().join("data/sluice.db");
    let site = site
        .with("store.url", format!("sqlite:{}", database.display()))
        .with("ldk.enabled", "true")
        .with("ldk.seed_file", "keys/node.seed")
        .with("assets.indexer", "http://127.0.0.1:1");
    let gateway = Gateway::start(&site).await;
    gateway.wait_health("the node runs", |answer| answer.body["rails"]["lightning"]["ready"] == true).await;
    let there = ["data/sluice.db", "data/sluice.db-wal", "data/sluice.db.lock", "keys/node.seed", "assets"];
    for path in there {
        assert!(site.folder().join(path).exists(), "{path} is not there");
    }
    assert_eq!(open_to_others(site.folder()), []);
    gateway.terminate().await;

    // As an earlier version left them.
    for path in ["data/sluice.db", "data/sluice.db.lock", "keys/node.seed"] {
        open_up(&site.folder().join(path), 0o644);
    }
    open_up(&site.folder().join("assets"), 0o755);
    gateway.restart(None).await;
    gateway.wait_health("the node runs", |answer| answer.body["rails"]["lightning"]["ready"] == true).await;
    assert_eq!(open_to_others(site.folder()), []);
    assert!(gateway.whole_log().contains("others could read this"), "{}", gateway.log());
    gateway.terminate().await;
    assert_eq!(site.audit().await, 0);
}
