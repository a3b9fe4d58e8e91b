//! Running the built-in Lightning node: for a gateway, under the keeper of its role, and alone, as the merchant of the demo.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::StartError;
use crate::chain::bitcoind::Bitcoind;
use crate::clock::Clock;
use crate::config::Config;
use crate::connectors::ldk::{self, LdkError, LdkNode, Rpc};
use crate::ports::PortError;
use crate::ports::chain::ChainBackend;
use crate::ports::lightning::LightningNode;
use crate::store::owners::{Acquire, LEASE, Ownership, Renew, Resign, Role};
use crate::store::{Store, StoreError};
use crate::workers::{NodeFailure, NodeHost};

/// Starts the node that the configuration describes when the gateway owns the role, and stops it.
pub(super) struct LdkHost {
    config: Config,
    chain: Arc<dyn ChainBackend>,
    store: Store,
    running: Mutex<Option<Arc<LdkNode>>>,
}

impl LdkHost {
    pub(super) fn new(config: &Config, chain: Arc<dyn ChainBackend>, store: Store) -> Self {
        Self { config: config.clone(), chain, store, running: Mutex::default() }
    }
}

#[async_trait]
impl NodeHost for LdkHost {
    async fn start(&self, owner: Ownership) -> Result<Arc<dyn LightningNode>, NodeFailure> {
        let (chain, store) = (Arc::clone(&self.chain), self.store.clone());
        let started =
            LdkNode::start(&self.config.ldk, self.config.chain.network, rpc(&self.config), chain, store, owner);
        let node = started.await.map_err(explain)?;
        *self.running.lock().await = Some(Arc::clone(&node));
        Ok(node)
    }

    async fn stop(&self) {
        if let Some(node) = self.running.lock().await.take() {
            node.stop().await;
        }
    }
}

/// What waiting can mend, and what it can't.
fn explain(error: LdkError) -> NodeFailure {
    match error {
        LdkError::Port(PortError::Misconfigured { .. })
        | LdkError::Misconfigured(_)
        | LdkError::File { .. }
        | LdkError::WrongSeed { .. }
        | LdkError::OldDatabase { .. }
        | LdkError::Unproven { .. }
        | LdkError::Corrupt(_) => NodeFailure::Hopeless(format!("the Lightning node can't be started: {error}")),
        LdkError::Port(why) => NodeFailure::NotNow(why),
        LdkError::Blocks(_) | LdkError::Store(_) => {
            NodeFailure::NotNow(PortError::Unreachable { service: "the Lightning node", reason: error.to_string() })
        }
    }
}

fn rpc(config: &Config) -> Rpc {
    let bitcoind = &config.chain.bitcoind;
    Rpc {
        url: bitcoind.url.clone(),
        cookie_file: bitcoind.cookie_file.clone(),
        user: bitcoind.user.clone(),
        password: bitcoind.password.clone(),
    }
}

/// A node without a gateway around it. It owns its database as a gateway would.
pub struct LoneNode {
    pub node: Arc<LdkNode>,
    store: Store,
    owner: Ownership,
    upkeep: JoinHandle<()>,
}

impl LoneNode {
    /// Runs the node that a configuration describes, on a database of its own.
    ///
    /// # Errors
    /// When it can't be started.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let (store, owner) = own(config).await?;
        let chain: Arc<dyn ChainBackend> = Arc::new(Bitcoind::new(&config.chain.bitcoind)?);
        let node = LdkNode::start(&config.ldk, config.chain.network, rpc(config), chain, store.clone(), owner.clone());
        let node = node.await.map_err(|error| StartError::Settings(error.to_string()))?;
        let upkeep = tokio::spawn(renew(store.clone(), owner.clone()));
        Ok(Self { node, store, owner, upkeep })
    }

    pub async fn stop(self) {
        self.node.stop().await;
        give_back(self.store, self.owner, &self.upkeep).await;
    }
}

/// Opens the database, and takes the role of the node in it.
async fn own(config: &Config) -> Result<(Store, Ownership), StartError> {
    let store = Store::open(&config.store, Clock::System).await?;
    let acquire = Acquire { role: Role::Node, holder: uuid::Uuid::new_v4().to_string() };
    // A lease of last time is waited out; on SQLite the lock of the file says that nobody else is there.
    let owner = loop {
        match store.write(acquire.clone()).await? {
            Some(owner) => break owner,
            None => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    Ok((store, owner))
}

async fn give_back(store: Store, owner: Ownership, upkeep: &JoinHandle<()>) {
    upkeep.abort();
    if let Err(error) = store.write(Resign(owner)).await {
        tracing::warn!(%error, "the role could not be given back; it will lapse");
    }
    store.close().await;
}

/// Where the running node keeps what a recovery needs.
#[must_use]
pub fn recovery_file(config: &Config) -> PathBuf {
    ldk::recovery_file(&config.ldk)
}

/// A node that has lost its database, and only recovers.
pub struct Recovering {
    recovery: ldk::Recovery,
    store: Store,
    owner: Ownership,
    upkeep: JoinHandle<()>,
}

impl Recovering {
    /// # Errors
    /// When it can't be started: another seed, a database with channels, no bitcoind.
    pub async fn start(config: &Config, from: &Path) -> Result<Self, StartError> {
        let settings = |error: LdkError| StartError::Settings(error.to_string());
        let file = ldk::RecoveryFile::read(from).map_err(settings)?;
        let (store, owner) = own(config).await?;
        let chain: Arc<dyn ChainBackend> = Arc::new(Bitcoind::new(&config.chain.bitcoind)?);
        let (network, rpc) = (config.chain.network, rpc(config));
        let started = ldk::Recovery::start(&config.ldk, network, rpc, chain, store.clone(), owner.clone(), file).await;
        let upkeep = tokio::spawn(renew(store.clone(), owner.clone()));
        match started {
            Ok(recovery) => Ok(Self { recovery, store, owner, upkeep }),
            Err(error) => {
                give_back(store, owner, &upkeep).await;
                Err(settings(error))
            }
        }
    }

    /// One look at peers and chain.
    ///
    /// # Errors
    /// When bitcoind can't be asked now.
    pub async fn step(&mut self) -> Result<ldk::Progress, StartError> {
        self.recovery.step().await.map_err(|error| StartError::Settings(error.to_string()))
    }

    /// Ends the recovery: the database may be served.
    ///
    /// # Errors
    /// When that can't be written.
    pub async fn finish(self) -> Result<(), StartError> {
        let ended = self.recovery.finish().await;
        give_back(self.store, self.owner, &self.upkeep).await;
        ended.map_err(|error| StartError::Settings(error.to_string()))
    }

    /// Stops, to go on another time.
    pub async fn stop(self) {
        self.recovery.stop().await;
        give_back(self.store, self.owner, &self.upkeep).await;
    }
}

async fn renew(store: Store, owner: Ownership) {
    loop {
        tokio::time::sleep(LEASE / 3).await;
        match store.write(Renew(owner.clone())).await {
            Ok(()) => {}
            Err(StoreError::Fenced { role }) => {
                tracing::error!(role, "another process has taken over; this one stops at once");
                std::process::abort();
            }
            Err(error) => tracing::warn!(%error, "the role could not be renewed; it is tried again"),
        }
    }
}
