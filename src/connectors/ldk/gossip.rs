//! From whom the node hears of the network, and what it has learnt: the graph, and how good its channels are. That is large, and whoever
//! loses it learns it anew, so it is in files of its own: no commit of a payment waits for it.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lightning::ln::peer_handler::IgnoringMessageHandler;
use lightning::routing::gossip::P2PGossipSync;
use lightning::routing::scoring::{LockableScore as _, ScoreUpdate as _};
use lightning::util::ser::Writeable as _;
use lightning_block_sync::gossip::{GossipVerifier, TokioSpawner};

use super::config::Config;
use super::node::Node;
use super::rapid::Rapid;
use super::seed::beside;
use super::source::Source;
use super::start::{GRAPH, SCORER};
use super::types::{Graph, Log, PeerGossip, RouteHandler, lock};
use crate::store::node::Step;

/// Who tells the node of the network.
pub enum Gossip {
    /// Its peers. What they announce is checked against the block that it names.
    Peers(Arc<PeerGossip>),
    /// The server that the operator names. No block is needed, and peers are not listened to.
    Server(Rapid),
}

impl Gossip {
    pub fn new(rapid: Option<Rapid>, source: &Arc<Source>, graph: &Arc<Graph>, log: &Log) -> Self {
        let from_peers = || {
            let verifier = Arc::new(GossipVerifier::new(Arc::clone(source), TokioSpawner));
            Arc::new(P2PGossipSync::new(Arc::clone(graph), Some(verifier), Arc::clone(log)))
        };
        rapid.map_or_else(|| Self::Peers(from_peers()), Self::Server)
    }

    /// What hears the peers.
    pub fn handler(&self) -> RouteHandler {
        match self {
            Self::Peers(gossip) => Arc::clone(gossip) as RouteHandler,
            Self::Server(_) => Arc::new(IgnoringMessageHandler {}),
        }
    }

    /// Comes back when a channel was looked up in the chain, and is to be told to others.
    pub async fn has_checked(&self) {
        match self {
            Self::Peers(gossip) => gossip.validation_completion_future().await,
            Self::Server(_) => std::future::pending().await,
        }
    }

    /// Whether a channel that nobody has spoken of for long is gone, and not only unheard of.
    pub fn tells_what_is_stale(&self) -> bool {
        match self {
            Self::Peers(_) => true,
            Self::Server(rapid) => rapid.has_synced(),
        }
    }
}

/// The files.
#[derive(Debug)]
pub struct Learnt {
    pub graph: PathBuf,
    pub scores: PathBuf,
    /// One writes at a time: each begins with the same file beside them.
    writing: Mutex<()>,
}

impl Learnt {
    #[must_use]
    pub fn beside(config: &Config) -> Self {
        Self { graph: beside(config, "graph"), scores: beside(config, "scores"), writing: Mutex::default() }
    }
}

/// Nothing where there is no such file, or where it can't be read: then it is learnt anew.
pub fn read(path: &Path) -> Option<Vec<u8>> {
    match std::fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "what was learnt of the network can't be read");
            None
        }
    }
}

/// In one step: whoever reads it finds all of the old one or all of the new one.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&next, path)
}

impl Node {
    /// Writes the graph, beside the loop.
    pub async fn keep_graph(self: Arc<Self>) {
        self.keep(GRAPH, |node| (node.learnt.graph.clone(), node.graph.encode())).await;
    }

    /// Writes the scores, beside the loop.
    pub async fn keep_scores(self: Arc<Self>) {
        self.keep(SCORER, |node| {
            node.scorer.write_lock().time_passed(node.since_epoch());
            let scores = node.scorer.read().unwrap_or_else(std::sync::PoisonError::into_inner).encode();
            (node.learnt.scores.clone(), scores)
        })
        .await;
    }

    async fn keep(
        self: &Arc<Self>,
        row: &'static str,
        encode: impl FnOnce(&Self) -> (PathBuf, Vec<u8>) + Send + 'static,
    ) {
        let node = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || {
            let _alone = lock(&node.learnt.writing);
            let (path, bytes) = encode(&node);
            write(&path, &bytes).map_err(|error| format!("{}: {error}", path.display()))
        });
        match written.await {
            // Where an earlier version had it.
            Ok(Ok(())) => self.stage.push(Step::Remove { space: row, name: String::new() }),
            Ok(Err(error)) => tracing::warn!(error, "what was learnt of the network can't be kept"),
            Err(error) => tracing::error!(%error, "what was learnt of the network can't be written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let config = Config { seed_file: folder.path().join("node.seed"), ..Config::default() };
        let learnt = Learnt::beside(&config);
        assert_eq!(read(&learnt.graph), None);
        write(&learnt.graph, b"first").unwrap();
        write(&learnt.graph, b"2nd").unwrap();
        assert_eq!(read(&learnt.graph).as_deref(), Some(&b"2nd"[..]));
        assert_eq!(read(&learnt.scores), None);
        assert_eq!(std::fs::metadata(&learnt.graph).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
