//! A gateway to try: everything it needs on this machine, on a chain of its own.

mod demo;
mod merchant;
mod node;
mod page;

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use self::demo::Demo;
use self::merchant::Merchant;
use self::node::Node;
use super::failure::{Failure, print};
use super::signals::Stop;
use super::{Settings, block_on, logging};
use crate::app::{self, Indexer, Running};
use crate::config::{Config, Override};
use crate::flows::Flows;
use crate::flows::keys::{self, NewKey, Scope};
use crate::ports::lightning::LightningNode;

/// What a coinbase coin waits for, and one more.
const FIRST_BLOCKS: u32 = 101;
/// Blocks mined between two lines of progress.
const BLOCKS_A_LINE: u32 = 25;
const NODE_WITHIN: Duration = Duration::from_secs(60);
const USUAL_API_PORT: u16 = 8_080;
const USUAL_OPERATOR_PORT: u16 = 9_464;
/// Where a preset setting comes from, for errors about it.
const ORIGIN: &str = "sluice regtest";

/// Try the gateway: a private chain, a demo wallet with coins, and calls to paste
///
/// Starts a bitcoind of its own in regtest mode, the gateway on 127.0.0.1, makes a demo wallet with sluice-signer, registers
/// and funds it, and prints calls to try. A block is mined every few seconds, so that what is sent confirms. Ctrl-C stops
/// everything; the next start goes on where this one was. Nothing leaves this machine, and the coins are worth nothing.
///
/// sluice.toml is not read here, unless --config names it.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  sluice regtest\n  sluice regtest --dir /tmp/try --block-seconds 2 --listen 127.0.0.1:3000\n\n\
    bitcoind is taken from BITCOIND or the PATH; `make run` fetches one if there is none."
)]
pub(super) struct Regtest {
    /// Where the chain, the database and the demo wallet are kept; delete it to start afresh
    #[arg(long, value_name = "FOLDER", default_value = "data/regtest")]
    dir: PathBuf,
    /// Seconds between two blocks; 0 mines none
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    block_seconds: u64,
}

impl Regtest {
    pub(super) fn run(self, settings: &Settings) -> Result<ExitCode, Failure> {
        let _lock = lock(&self.dir)?;
        let presets = [
            ("store.url", format!("sqlite:{}", self.dir.join("sluice.db").display())),
            ("http.listen", usual_or_free(USUAL_API_PORT)?.to_string()),
            ("operator.listen", usual_or_free(USUAL_OPERATOR_PORT)?.to_string()),
            ("log.level", "warn".to_owned()),
        ];
        let presets = presets.into_iter().map(|(key, value)| Override::new(key, value, ORIGIN)).collect();
        let config = settings.load_over(presets, settings.config.clone())?;
        logging::start(&config.log)?;
        block_on(self.play(config))
    }

    async fn play(self, config: Config) -> Result<ExitCode, Failure> {
        let mut stop = Stop::listen()?;
        step("Starting bitcoind on a private chain")?;
        let node = Node::start(&self.dir.join("bitcoind"))?;
        let outcome = tokio::select! {
            outcome = self.play_with(&node, config, &mut stop) => outcome,
            () = node.died() => Err(node.obituary()),
        };
        node.stop().await;
        if outcome.is_ok() {
            step("Stopped. The next start goes on from here")?;
        }
        outcome.map(|()| ExitCode::SUCCESS)
    }

    /// The node's state is in the gateway's database, its seed beside it.
    fn add_lightning(&self, config: &mut Config) {
        config.ldk.enabled = true;
        config.ldk.seed_file = self.dir.join("node.seed");
        config.ldk.poll_ms = 200;
        config.ldk.listen.get_or_insert(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    }

    async fn play_with(&self, node: &Node, mut config: Config, stop: &mut Stop) -> Result<(), Failure> {
        tokio::select! {
            ready = prepare(node) => ready?,
            () = stop.asked() => return Ok(()),
        }
        config.use_private_node(node.url(), node.cookie_file());
        self.add_lightning(&mut config);
        step("Starting an indexer, which reads the chain")?;
        let indexer = tokio::select! {
            indexer = app::start_indexer(&config) => indexer?,
            () = stop.asked() => return Ok(()),
        };
        config.assets.indexer = Some(indexer.url().to_owned());
        config.assets.data_dir = self.dir.join("assets");
        config.policy.proxy.data_dir = self.dir.join("consignments");
        step(&format!("Starting the gateway on {}", config.http.listen))?;
        let running = app::start(&config).await?;
        step("Starting the merchant, a second Lightning node")?;
        let merchant = Merchant::start(&self.dir.join("merchant"), &config).await?;
        let outcome = tokio::select! {
            outcome = self.show(node, &indexer, &running, &merchant) => outcome,
            () = stop.asked() => Ok(()),
        };
        step("Stopping")?;
        running.stop().await;
        merchant.stop().await;
        outcome
    }

    /// Sets the demo up, prints the page, and keeps the blocks coming until somebody stops it.
    async fn show(
        &self,
        node: &Node,
        indexer: &Indexer,
        running: &Running,
        merchant: &Merchant,
    ) -> Result<(), Failure> {
        let ours = lightning_node(running).await?;
        merchant.connect(node, ours.as_ref(), &running.flows).await?;
        let demo = Demo::prepare(&self.dir, running.api_addr).await?;
        demo.register_and_fund(node).await?;
        let facts = page::Facts {
            demo: &demo,
            operator_key: operator_key(&self.dir, &running.flows).await?,
            merchant: &merchant.url,
            indexer: indexer.url(),
            operator: running.operator_addr,
            balance: demo.vanilla_balance().await?,
            pay_to: node.new_address().await?,
            block_seconds: self.block_seconds,
        };
        print(&facts.page())?;
        if self.block_seconds == 0 {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(Duration::from_secs(self.block_seconds)).await;
            node.mine(1).await?;
        }
    }
}

/// The file with the header by which the operator is known, for curl: kept from the first start.
async fn operator_key(dir: &Path, flows: &Flows) -> Result<PathBuf, Failure> {
    let file = dir.join("operator.header");
    if !file.exists() {
        let wanted = NewKey {
            name: "regtest operator".to_owned(),
            scopes: vec![Scope::Admin],
            wallets: vec![],
            expires_at: None,
        };
        let (_, secret) = keys::create(flows, wanted).await.map_err(|error| Failure::new(error.to_string()))?;
        let mut written = File::options().create_new(true).write(true).mode(0o600).open(&file)?;
        writeln!(written, "header = \"Authorization: Bearer {}\"", secret.expose())?;
    }
    Ok(file)
}

/// The gateway's own node, once it runs.
async fn lightning_node(running: &Running) -> Result<Arc<dyn LightningNode>, Failure> {
    let deadline = Instant::now() + NODE_WITHIN;
    loop {
        match running.flows.node().ready() {
            Ok(node) => return Ok(node),
            Err(error) if Instant::now() > deadline => return Err(Failure::new(error.to_string())),
            Err(_not_yet) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Says what is being done: a start takes some seconds, and silence looks like a fault.
fn step(what: &str) -> Result<(), Failure> {
    print(&format!("==> {what}"))
}

/// Two of these on one folder would ruin each other's chain.
fn lock(dir: &Path) -> Result<File, Failure> {
    let shown = dir.display();
    let open = || {
        std::fs::create_dir_all(dir)?;
        File::options().create(true).truncate(false).write(true).open(dir.join("lock"))
    };
    let file = open().map_err(|error| Failure::new(format!("can't use {shown}: {error}")))?;
    file.try_lock().map_err(|_| {
        Failure::new(format!("another `sluice regtest` runs in {shown}; stop it, or give this one a folder with --dir"))
    })?;
    Ok(file)
}

fn usual_or_free(usual: u16) -> Result<SocketAddr, Failure> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let bound = TcpListener::bind(local(usual)).or_else(|_| TcpListener::bind(local(0)));
    Ok(bound.and_then(|listener| listener.local_addr())?)
}

/// A node that answers, with coins to give away, and with a tip of today: an old one counts as still syncing.
async fn prepare(node: &Node) -> Result<(), Failure> {
    node.wait_until_ready().await?;
    node.open_wallet().await?;
    let height = node.height().await?;
    if height >= FIRST_BLOCKS {
        step(&format!("Going on at block {height}"))?;
        return node.mine(1).await;
    }
    step(&format!("Mining the first {FIRST_BLOCKS} blocks: a mined coin can be spent after 100 more"))?;
    let mut mined = height;
    while mined < FIRST_BLOCKS {
        let blocks = BLOCKS_A_LINE.min(FIRST_BLOCKS - mined);
        node.mine(blocks).await?;
        mined += blocks;
        print(&format!("    block {mined} of {FIRST_BLOCKS}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_used_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a").join("b");
        let first = lock(&dir).unwrap();
        assert!(lock(&dir).is_err());
        drop(first);
        assert!(lock(&dir).is_ok());
    }

    #[test]
    fn a_port_that_is_taken_is_replaced() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_ne!(usual_or_free(port).unwrap().port(), port);
    }
}
