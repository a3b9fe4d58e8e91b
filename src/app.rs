//! Wiring: configuration in, a running gateway out. The only file that sees every room.

mod first_key;
mod node;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use bitcoin::BlockHash;
use bitcoin::constants::genesis_block;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::node::{LoneNode, Recovering, recovery_file};
pub use crate::connectors::ldk::Progress as RecoveryProgress;

use crate::assets::courier::HttpCourier;
use crate::assets::rgb::RgbEngine;
use crate::chain::bitcoind::Bitcoind;
pub use crate::chain::indexer::Indexer;
use crate::chain::indexer::IndexerError;
use crate::clock::Clock;
use crate::config::Config;
use crate::flows::health::Health;
use crate::flows::{self, AssetSide, Flows, NodeSlot, Policy};
use crate::http::{self, HttpState, OperatorSocket, OperatorState};
use crate::ports::PortError;
use crate::ports::chain::ChainBackend;
use crate::store::shelf::Shelf;
use crate::store::{self, Store, StoreError};
use crate::workers::{NodeHost, Pace, Workers};

/// How long a start waits for the node's word on its network. Reads are served without it.
const FIRST_LOOK: Duration = Duration::from_millis(800);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Settings(String),
    #[error("can't listen on {address}, which {key} asks for: {source}")]
    Listen { address: SocketAddr, key: &'static str, source: io::Error },
    #[error("{0}; SQLite serves one process at a time: stop the gateway that uses it, or move to PostgreSQL")]
    InUse(StoreError),
    #[error(transparent)]
    Store(StoreError),
    #[error("chain.bitcoind: {0}")]
    Chain(#[from] PortError),
    #[error("the indexer does not start: {0}")]
    Indexer(#[from] IndexerError),
    #[error("{0}")]
    Assets(PortError),
    #[error("the first key of the operator can't be made: {0}")]
    FirstKey(#[from] flows::Error),
    #[error(
        "bitcoind is of another network: its first block is {found}, and chain.network = \"{network}\" begins with {wanted}"
    )]
    WrongNetwork { network: bitcoin::Network, wanted: BlockHash, found: BlockHash },
    #[error(
        "{0} can be reached from other machines, and there is no API key yet; make one first, with the same settings:\n\n  \
         sluice keys create --name first --scope register --scope read --scope receive --scope send\n"
    )]
    NoKeys(SocketAddr),
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Locked(_) => Self::InUse(error),
            StoreError::Unavailable(_)
            | StoreError::InDoubt(_)
            | StoreError::Conflict(_)
            | StoreError::Fenced { .. }
            | StoreError::Ledger(_)
            | StoreError::Corrupt(_)
            | StoreError::Illegal(_)
            | StoreError::WrongNetwork { .. }
            | StoreError::Misconfigured(_)
            | StoreError::Sql(_) => Self::Store(error),
        }
    }
}

/// A gateway at work.
pub struct Running {
    pub api_addr: SocketAddr,
    pub operator_addr: SocketAddr,
    pub flows: Flows,
    pub health: Health,
    workers: Workers,
    api: Server,
    operator: Server,
    /// Empty where there is none, or another gateway has it.
    socket: Option<Server>,
    upkeep: JoinHandle<()>,
}

/// Starts a gateway with the node that the configuration names.
///
/// # Errors
/// When it could not do its work as configured. A node that is merely down is no such reason.
pub async fn start(config: &Config) -> Result<Running, StartError> {
    let chain = Arc::new(Bitcoind::new(&config.chain.bitcoind)?);
    start_in(config, World { chain, node: None, clock: Clock::System }).await
}

/// What a gateway meets outside itself.
pub struct World {
    pub chain: Arc<dyn ChainBackend>,
    /// Empty: the node that the configuration describes, if it does.
    pub node: Option<Arc<dyn NodeHost>>,
    pub clock: Clock,
}

/// Starts a gateway with another chain and clock, as tests do.
///
/// # Errors
/// As `start`.
pub async fn start_with(config: &Config, chain: Arc<dyn ChainBackend>, clock: Clock) -> Result<Running, StartError> {
    start_in(config, World { chain, node: None, clock }).await
}

/// Starts a gateway in a world of the caller's making.
///
/// # Errors
/// As `start`.
pub async fn start_in(config: &Config, world: World) -> Result<Running, StartError> {
    let World { chain, node, clock } = world;
    config.http.check().map_err(StartError::Settings)?;
    require_mode(config)?;
    let (api_listener, api_addr) = bind(config.http.listen, "http.listen").await?;
    let (operator_listener, operator_addr) = bind(config.operator.listen, "operator.listen").await?;
    let store = Store::open(&config.store, clock).await?;
    bind_network(&store, config).await?;
    if let Some(path) = &config.admin.first_key_file {
        let flows = Flows::new(store.clone(), Arc::clone(&chain), config.chain.network, config.policy.clone());
        first_key::write(&flows, path).await?;
    }
    require_keys(&store, config, api_addr).await?;
    check_node(chain.as_ref(), config).await?;

    let node = node.or_else(|| {
        config
            .ldk
            .enabled
            .then(|| -> Arc<dyn NodeHost> { Arc::new(node::LdkHost::new(config, Arc::clone(&chain), store.clone())) })
    });
    let slot = if node.is_some() { NodeSlot::expected() } else { NodeSlot::default() };
    let flows = Flows::with_node(store, chain, slot, config.chain.network, policy(config));
    add_assets(&flows, config, api_addr).await?;
    if flows.policy().proxy.is_on() {
        flows.use_shelf(open_shelf(&config.policy.proxy.data_dir).await?);
    }
    let health = Health::default();
    let metrics = metrics()?;
    let workers = Workers::start(&flows, &health, pace(config), node);
    let upkeep = tokio::spawn(http::metrics_upkeep(metrics.clone()));
    let http_state = HttpState::new(flows.clone(), &config.http);
    let socket = serve_socket(config, http_state.clone())?;
    let api_router = http::router(http_state);
    let operator_router =
        http::operator_router(OperatorState { health: health.clone(), metrics, mode: config.http.mode() });
    let api = Server::spawn("api", api_listener, api_router, config);
    let operator = Server::spawn("operator", operator_listener, operator_router, config);
    tracing::info!(%api_addr, %operator_addr, network = %config.chain.network, "the gateway serves");
    Ok(Running { api_addr, operator_addr, flows, health, workers, api, operator, socket, upkeep })
}

/// Serves the operator's calls to whoever runs the gateway on this machine.
fn serve_socket(config: &Config, state: HttpState) -> Result<Option<Server>, StartError> {
    let Some(path) = config.admin_socket() else { return Ok(None) };
    match OperatorSocket::bind(&path) {
        Ok(Some(socket)) => {
            let (stop, stopping) = watch::channel(false);
            let task = tokio::spawn(http::serve_operator(socket, http::operator_calls(state), asked(stopping)));
            tracing::info!(path = %path.display(), "the operator's socket");
            Ok(Some(Server { stop, task }))
        }
        Ok(None) => {
            tracing::warn!(path = %path.display(), "another gateway has the operator's socket; this one goes without");
            Ok(None)
        }
        Err(error) if config.admin.socket.is_some() => {
            Err(StartError::Settings(format!("admin.socket: {}: {error}", path.display())))
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the operator's socket can't be made; admin.socket names another place");
            Ok(None)
        }
    }
}

/// Until a stop is asked for. A sender that is gone asks for it, too.
async fn asked(mut stopping: watch::Receiver<bool>) {
    drop(stopping.wait_for(|stop| *stop).await);
}

/// Opens the store for a command that does one thing and ends: nobody listens and no worker runs.
///
/// # Errors
/// When the store can't be opened or belongs to another network.
pub async fn open(config: &Config) -> Result<Flows, StartError> {
    flows_on(Store::open(&config.store, Clock::System).await?, config).await
}

/// The same for a command that only looks: what is not there is an error, and is not made.
///
/// # Errors
/// As `open`, and when no gateway has used the store.
pub async fn open_existing(config: &Config) -> Result<Flows, StartError> {
    flows_on(Store::open_existing(&config.store, Clock::System).await?, config).await
}

async fn flows_on(store: Store, config: &Config) -> Result<Flows, StartError> {
    bind_network(&store, config).await?;
    let chain = Bitcoind::new(&config.chain.bitcoind).or_else(|_| Bitcoind::new(&without_login(config)))?;
    Ok(Flows::new(store, Arc::new(chain), config.chain.network, config.policy.clone()))
}

/// The same with the engine for assets, where there is one and no other process has it; says why it is not there.
///
/// # Errors
/// As for [`open_existing`].
pub async fn open_with_assets(config: &Config) -> Result<(Flows, Option<String>), StartError> {
    let flows = open_existing(config).await?;
    // A folder that is not there is made by the gateway, not by whoever looks.
    if config.assets.indexer.is_none() || !config.assets.data_dir.exists() {
        return Ok((flows, None));
    }
    match RgbEngine::open(&config.assets, config.chain.network) {
        Ok(engine) => {
            let courier = HttpCourier::new(&config.assets.courier).map_err(StartError::Assets)?;
            flows.use_assets(AssetSide::new(Arc::new(engine), Arc::new(courier), config.assets.endpoints.clone()));
            Ok((flows, None))
        }
        Err(error) => Ok((flows, Some(error.to_string()))),
    }
}

/// For commands that don't call the node, and must not ask for its password. One that does is told that the file is not there.
fn without_login(config: &Config) -> crate::chain::bitcoind::Config {
    crate::chain::bitcoind::Config {
        cookie_file: Some("chain.bitcoind.cookie_file".into()),
        user: None,
        password: None,
        ..config.chain.bitcoind.clone()
    }
}

/// Starts the indexer that a private chain brings with it, on the node that the configuration names.
///
/// # Errors
/// When the node can't be read, or is not one of regtest.
pub async fn start_indexer(config: &Config) -> Result<Indexer, StartError> {
    let chain = Arc::new(Bitcoind::new(&config.chain.bitcoind)?);
    Ok(Indexer::start(chain).await?)
}

impl Running {
    /// Ends when the gateway can't go on, and says why: a listener has stopped by itself, or the node must not be started.
    pub async fn broken(&mut self) -> String {
        let mut hopeless = self.workers.hopeless();
        tokio::select! {
            () = self.api.ended() => "a listener has failed; see the log".to_owned(),
            () = self.operator.ended() => "a listener has failed; see the log".to_owned(),
            why = said(&mut hopeless) => why,
        }
    }

    /// Stops in the order in which others depend on it: callers, workers, probes, and last the database.
    pub async fn stop(self) {
        let Self { flows, workers, api, operator, socket, upkeep, api_addr: _, operator_addr: _, health: _ } = self;
        if let Some(socket) = socket {
            socket.stop().await;
        }
        api.stop().await;
        workers.stop().await;
        operator.stop().await;
        upkeep.abort();
        flows.store().close().await;
        tracing::info!("the gateway has stopped");
    }
}

/// What a worker says when it sees no way on; never, when none does.
async fn said(hopeless: &mut watch::Receiver<Option<String>>) -> String {
    match hopeless.wait_for(Option::is_some).await {
        Ok(why) => why.clone().unwrap_or_default(),
        // Nobody is there who could say so.
        Err(_) => std::future::pending().await,
    }
}

struct Server {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    fn spawn(name: &'static str, listener: TcpListener, router: Router, config: &Config) -> Self {
        let (stop, stopping) = watch::channel(false);
        let config = config.http.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = http::serve(listener, router, &config, asked(stopping)).await {
                tracing::error!(name, %error, "a listener has failed");
            }
        });
        Self { stop, task }
    }

    fn ended(&mut self) -> impl Future<Output = ()> {
        let task = &mut self.task;
        async move {
            if let Err(error) = task.await {
                tracing::error!(%error, "a listener has panicked");
            }
        }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        if self.task.is_finished() {
            return;
        }
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a listener did not end well");
        }
    }
}

/// A process measures itself once, however many gateways run in it, as they do in tests.
fn metrics() -> Result<PrometheusHandle, StartError> {
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut handle = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*handle {
        return Ok(handle.clone());
    }
    let installed = http::install_metrics().map_err(|error| StartError::Settings(format!("metrics: {error}")))?;
    *handle = Some(installed.clone());
    Ok(installed)
}

async fn bind(address: SocketAddr, key: &'static str) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |source| StartError::Listen { address, key, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

async fn bind_network(store: &Store, config: &Config) -> Result<(), StartError> {
    let genesis = genesis_block(config.chain.network).block_hash();
    Ok(store.bind_network(&genesis.to_string()).await?)
}

/// Opens the engine for assets, where an indexer is named.
async fn add_assets(flows: &Flows, config: &Config, listener: SocketAddr) -> Result<(), StartError> {
    if config.assets.indexer.is_none() {
        return Ok(());
    }
    let engine = RgbEngine::open(&config.assets, config.chain.network).map_err(StartError::Assets)?;
    flows.store().bind_asset_folder(engine.folder_identity()).await?;
    let courier = HttpCourier::new(&config.assets.courier).map_err(StartError::Assets)?;
    flows.use_assets(AssetSide::new(Arc::new(engine), Arc::new(courier), endpoints(config, listener)));
    Ok(())
}

/// What flows may do. Whoever deals in no assets hears of no consignments.
fn policy(config: &Config) -> Policy {
    let mut policy = config.policy.clone();
    policy.proxy.enabled = Some(policy.proxy.enabled.unwrap_or(config.assets.indexer.is_some()));
    policy
}

/// Opens the folder of strangers' consignments. A process that is on its way out may have it yet.
async fn open_shelf(folder: &Path) -> Result<Shelf, StartError> {
    let deadline = tokio::time::Instant::now() + store::LOCK_WITHIN;
    loop {
        match Shelf::open(folder) {
            Err(StoreError::Locked(_)) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(StoreError::Locked(folder)) => {
                return Err(StartError::Settings(format!("another process uses proxy.data_dir {folder}")));
            }
            opened => return Ok(opened?),
        }
    }
}

/// Where payers bring consignments: what the operator says, else the listener, which only wallets on this machine reach.
fn endpoints(config: &Config, listener: SocketAddr) -> Vec<String> {
    if config.assets.endpoints.is_empty() {
        return vec![format!("rpc://{}{}", near(listener), http::PROXY_ROUTE)];
    }
    config.assets.endpoints.clone()
}

/// How this machine reaches a listener.
fn near(listener: SocketAddr) -> SocketAddr {
    let mut near = listener;
    if near.ip().is_unspecified() {
        near.set_ip(if near.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    near
}

/// Where money is real, who is believed is decided by a person: behind a proxy of the same machine the whole world is loopback.
fn require_mode(config: &Config) -> Result<(), StartError> {
    let network = config.chain.network;
    if network == bitcoin::Network::Regtest || config.http.auth.mode.is_some() {
        return Ok(());
    }
    Err(StartError::Settings(format!(
        "auth.mode is not set, and on {network} it has to be said. Write auth.mode = \"key\" and make a key with \
         `sluice keys create`; this is the one to choose where the gateway is behind a proxy. Or, on a machine of your own whose \
         programs you all trust, auth.mode = \"wallet\": whoever knows a wallet's public keys acts for it"
    )))
}

/// Wallet headers are no secret: without keys, whoever reaches the listener could move into any wallet's requests.
async fn require_keys(store: &Store, config: &Config, address: SocketAddr) -> Result<(), StartError> {
    match config.http.mode() {
        http::Mode::Wallet => {
            tracing::warn!(%address, auth.mode = "wallet", "wallet headers alone are believed: whoever reaches this listener \
                            acts for any wallet whose public keys he knows");
            Ok(())
        }
        http::Mode::Key => {
            tracing::info!(auth.mode = "key", "an API key is asked for");
            if address.ip().is_loopback() {
                return Ok(());
            }
            let mut conn = store.read().await?;
            let any = store::keys::any_in_force(&mut conn, store.clock().now()).await?;
            if any { Ok(()) } else { Err(StartError::NoKeys(address)) }
        }
    }
}

async fn check_node(chain: &dyn ChainBackend, config: &Config) -> Result<(), StartError> {
    let network = config.chain.network;
    let wanted = genesis_block(network).block_hash();
    match tokio::time::timeout(FIRST_LOOK, chain.info()).await {
        Ok(Ok(info)) if info.genesis != wanted => {
            Err(StartError::WrongNetwork { network, wanted, found: info.genesis })
        }
        Ok(Ok(info)) => {
            tracing::info!(height = info.tip.height, syncing = info.syncing, "the node answers");
            Ok(())
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the node can't be used now; the gateway starts without it and keeps asking");
            Ok(())
        }
        Err(_elapsed) => {
            tracing::warn!("the node is slow to answer; the gateway starts without it and keeps asking");
            Ok(())
        }
    }
}

fn pace(config: &Config) -> Pace {
    let minutes = config.audit.every_minutes;
    Pace {
        poll: Duration::from_millis(config.chain.poll_ms.max(1)),
        audit: (minutes > 0).then(|| Duration::from_secs(minutes.saturating_mul(60))),
    }
}

#[cfg(test)]
mod tests;
