//! The file: ids, addresses and funding outputs, and no secret. It stands beside the generation, and is written whole whenever the
//! channels or the addresses of their peers have changed.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Network, OutPoint};
use lightning::routing::gossip::NodeId;
use serde::{Deserialize, Serialize};

use super::super::config::Config;
use super::super::error::LdkError;
use super::super::map::channel_text;
use super::super::node::Node;
use super::super::seed::{beside, write_durably};
use super::super::types::lock;

/// How long a channel may be missing in the file.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A reader of later versions tells by it what to expect.
const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryFile {
    pub version: u32,
    pub network: Network,
    pub node_id: PublicKey,
    pub peers: Vec<RecoveryPeer>,
    pub channels: Vec<RecoveryChannel>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPeer {
    pub id: PublicKey,
    /// Where it was reached before, the likeliest first.
    pub addresses: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryChannel {
    pub id: String,
    pub peer: PublicKey,
    /// The output that the channel is made of. Once it is spent the channel is closed.
    pub funding: OutPoint,
    pub value_sats: u64,
}

/// Where a node with this configuration keeps its file.
#[must_use]
pub fn path(config: &Config) -> PathBuf {
    beside(config, "recovery.json")
}

impl RecoveryFile {
    /// # Errors
    /// When it can't be read or is no such file.
    pub fn read(path: &Path) -> Result<Self, LdkError> {
        let text = std::fs::read_to_string(path).map_err(|error| LdkError::File { path: path.to_owned(), error })?;
        let read: Self = serde_json::from_str(&text).map_err(|error| {
            LdkError::Misconfigured(format!("{} is no recovery file of a node: {error}", path.display()))
        })?;
        if read.version != VERSION {
            let known = format!("this program reads version {VERSION}");
            return Err(LdkError::Misconfigured(format!("{} has version {}; {known}", path.display(), read.version)));
        }
        Ok(read)
    }

    fn write(&self, path: &Path) -> Result<(), LdkError> {
        let fail = |error| LdkError::File { path: path.to_owned(), error };
        let text = serde_json::to_string_pretty(self).map_err(|error| fail(error.into()))?;
        let next = path.with_extension("json.next");
        write_durably(&next, &format!("{text}\n"), OpenOptions::new().create(true).truncate(true))?;
        std::fs::rename(&next, path).map_err(fail)
    }

    fn of(node: &Node) -> Self {
        let mut channels: Vec<RecoveryChannel> = node
            .manager
            .list_channels()
            .into_iter()
            .filter_map(|channel| {
                Some(RecoveryChannel {
                    id: channel_text(channel.channel_id),
                    peer: channel.counterparty.node_id,
                    funding: channel.funding_txo?.into_bitcoin_outpoint(),
                    value_sats: channel.channel_value_satoshis,
                })
            })
            .collect();
        channels.sort_by_key(|channel| channel.funding);
        let mut ids: Vec<PublicKey> = channels.iter().map(|channel| channel.peer).collect();
        ids.sort_unstable();
        ids.dedup();
        let peers = ids.into_iter().map(|id| RecoveryPeer { id, addresses: addresses(node, id) }).collect();
        Self { version: VERSION, network: node.network, node_id: node.id, peers, channels }
    }
}

/// Ours first: the announced ones may be of Tor or of last year.
fn addresses(node: &Node, id: PublicKey) -> Vec<String> {
    let ours = lock(&node.addresses).get(&id).cloned();
    let graph = node.graph.read_only();
    let announced = graph.node(&NodeId::from_pubkey(&id)).and_then(|info| info.announcement_info.as_ref());
    let announced = announced.map(|info| info.addresses().to_vec()).unwrap_or_default();
    let mut all: Vec<String> = ours.into_iter().collect();
    for address in announced.iter().map(ToString::to_string) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

/// Keeps the file as new as the channels, as long as the node runs.
pub async fn keep(node: Arc<Node>) {
    let path = path(&node.config);
    let mut written = None;
    while node.is_running() {
        let now = RecoveryFile::of(&node);
        if written.as_ref() != Some(&now) {
            let (file, place) = (now.clone(), path.clone());
            match tokio::task::spawn_blocking(move || file.write(&place)).await {
                Ok(Ok(())) => written = Some(now),
                Ok(Err(error)) => tracing::error!(%error, "the node's recovery file can't be written"),
                Err(error) => tracing::error!(%error, "the node's recovery file was not written"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = node.draining() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> RecoveryFile {
        let id = "02531fe6068134503d2723133227c867ac8fa6c83c537e9a44c3c5bdbdcb1fe337".parse().unwrap();
        let channel = RecoveryChannel { id: "ab".repeat(32), peer: id, funding: OutPoint::null(), value_sats: 1_000 };
        let peer = RecoveryPeer { id, addresses: vec!["127.0.0.1:9735".to_owned()] };
        RecoveryFile {
            version: VERSION,
            network: Network::Regtest,
            node_id: id,
            peers: vec![peer],
            channels: vec![channel],
        }
    }

    #[test]
    fn it_is_read_as_it_was_written_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.recovery.json");
        file().write(&path).unwrap();
        assert_eq!(RecoveryFile::read(&path).unwrap(), file());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn another_file_and_a_later_version_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.recovery.json");
        assert!(matches!(RecoveryFile::read(&path), Err(LdkError::File { .. })));
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(RecoveryFile::read(&path), Err(LdkError::Misconfigured(_))));
        RecoveryFile { version: VERSION + 1, ..file() }.write(&path).unwrap();
        let later = RecoveryFile::read(&path).unwrap_err();
        assert!(later.to_string().contains("version 2"), "{later}");
    }
}
