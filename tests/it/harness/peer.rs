//! An independent Lightning node (`tests/peers/ldk-node-peer`) as a process of its own, on the regtest of a [`Bitcoind`].
//!
//! The environment's `LDK_PEER` names the program; `scripts/ensure-ldk-peer` builds it.

use std::fmt::Debug;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitcoin::Address;
use bitcoin::secp256k1::PublicKey;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::{Value, json};
use sluice::money::{Amount, Sat};
use sluice::ports::lightning::{LightningNode, PaymentHash, Preimage};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

use super::bitcoind::{Bitcoind, PASSWORD, USER, skip};

/// How long what takes rounds between nodes and blocks may take on a machine that builds beside the tests.
pub const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Enough for both sides to use a channel, and for its announcement.
const CONFIRMATIONS: u32 = 6;

/// Asks until there is an answer, and fails when there is none in time.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_shown(what, async || ask().await.ok_or("no answer")).await
}

/// The same, for what says what it is as long as it isn't what it should be.
pub async fn eventually_shown<T, E: Debug>(what: &str, ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    eventually_within(DEADLINE, what, ask).await
}

/// The same, for what takes several such waits one after the other.
pub async fn eventually_within<T, E: Debug>(
    span: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + span;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(instead) => assert!(Instant::now() < deadline, "not in time: {what}; at last: {instead:?}"),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Nothing that is asked for changes while `ask` says so, for as long as anything here usually takes.
pub async fn stays(what: &str, span: Duration, mut ask: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + span;
    while Instant::now() < deadline {
        assert!(ask().await, "it changed: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// A running, stopped or dead peer. What it keeps is gone when this is dropped.
pub struct LdkPeer {
    process: Mutex<Option<Child>>,
    wires: tokio::sync::Mutex<Option<Wires>>,
    identity: OnceLock<(PublicKey, String)>,
    program: PathBuf,
    options: Vec<String>,
    folder: TempDir,
}

struct Wires {
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    last_id: u64,
}

/// One of the peer's channels, as the peer sees it.
#[derive(Clone, Debug)]
pub struct PeerChannel {
    pub id: String,
    pub with: PublicKey,
    pub funding: Option<String>,
    pub local: Amount,
    pub remote: Amount,
    pub ready: bool,
    pub usable: bool,
    pub confirmations: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerPayment {
    Pending,
    Succeeded { preimage: Option<Preimage>, msat: Option<Amount>, fee: Option<Amount> },
    Failed { reason: String },
}

/// What is asked for when a channel is opened from one end.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    pub amount: Sat,
    pub push: Amount,
    pub announced: bool,
}

fn new_folder() -> TempDir {
    TempDir::with_prefix("sluice-ldk-peer-").expect("a temporary folder")
}

impl LdkPeer {
    /// `None`, after saying so, when there is no peer's program on this machine.
    pub async fn start(bitcoind: &Bitcoind, alias: &str) -> Option<Self> {
        Self::start_with(bitcoind, &["--alias", alias]).await
    }

    /// The same with other options, such as `--sloppy-fees 1000:0`.
    pub async fn start_with(bitcoind: &Bitcoind, options: &[&str]) -> Option<Self> {
        Self::start_in(new_folder(), bitcoind, options).await
    }

    /// The same on what a peer has kept before in the folder `data` of this one.
    pub async fn start_in(folder: TempDir, bitcoind: &Bitcoind, options: &[&str]) -> Option<Self> {
        let Some(program) = std::env::var_os("LDK_PEER").filter(|path| !path.is_empty()) else {
            skip("LDK_PEER names no ldk-node-peer (see scripts/ensure-ldk-peer)");
            return None;
        };
        Some(Self::run(program, folder, bitcoind, options).await)
    }

    /// A peer that breaks rules, over the same wires (`tests/peers/hostile-peer`). What it answers to is its own.
    pub async fn start_hostile(bitcoind: &Bitcoind, options: &[&str]) -> Option<Self> {
        let Some(program) = std::env::var_os("HOSTILE_PEER").filter(|path| !path.is_empty()) else {
            skip("HOSTILE_PEER names no hostile-peer (see scripts/ensure-hostile-peer)");
            return None;
        };
        Some(Self::run(program, new_folder(), bitcoind, options).await)
    }

    async fn run(program: std::ffi::OsString, folder: TempDir, bitcoind: &Bitcoind, options: &[&str]) -> Self {
        let rpc = bitcoind.url();
        let rpc = rpc.strip_prefix("http://").expect("the address of bitcoind");
        let common = ["--rpc", rpc, "--rpc-user", USER, "--rpc-password", PASSWORD];
        let peer = Self {
            process: Mutex::new(None),
            wires: tokio::sync::Mutex::new(None),
            identity: OnceLock::new(),
            program: program.into(),
            options: common.iter().chain(options).map(|option| (*option).to_owned()).collect(),
            folder,
        };
        peer.launch().await;
        peer
    }

    /// Starts it again where it was, after [`Self::stop`] or [`Self::kill`].
    pub async fn launch(&self) {
        let mut command = Command::new(&self.program);
        command.arg("--dir").arg(self.data()).args(&self.options);
        if let Some((_, address)) = self.identity.get() {
            command.args(["--listen", address]);
        }
        let log = std::fs::File::create(self.folder.path().join("stderr")).expect("a file for the log");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("LDK_PEER runs");
        let stdin = ChildStdin::from_std(child.stdin.take().expect("piped")).expect("a pipe");
        let stdout = ChildStdout::from_std(child.stdout.take().expect("piped")).expect("a pipe");
        let wires = Wires { stdin, stdout: BufReader::new(stdout).lines(), last_id: 0 };
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        *self.wires.lock().await = Some(wires);
        let info = self.call("info", json!({})).await;
        let identity = (key(&info["id"]), text(&info["listen"]));
        assert_eq!(self.identity.get_or_init(|| identity.clone()), &identity, "it is another one now");
    }

    /// A clean stop.
    pub async fn stop(&self) {
        // Its end is that of its input.
        drop(self.wires.lock().await.take());
        eventually("the peer stops", async || {
            let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
            let child = process.as_mut().expect("a running peer");
            matches!(child.try_wait(), Ok(Some(_))).then_some(())
        })
        .await;
        self.kill();
    }

    /// As a power cut does.
    pub fn kill(&self) {
        if let Some(mut child) = self.process.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Both fail only when it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it from running at all: its connections stay, and nobody answers.
    pub fn freeze(&self) {
        let pid = self.signal(Signal::STOP);
        let waited = waitpid(Some(pid), WaitOptions::UNTRACED).expect("the peer is our child");
        assert!(waited.is_some_and(|(_, status)| status.stopped()), "the peer does not stand still");
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) -> Pid {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = Pid::from_child(process.as_ref().expect("a running peer"));
        kill_process(pid, signal).expect("the signal was sent");
        pid
    }

    /// What it keeps, in a folder of its own.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn id(&self) -> PublicKey {
        self.identity.get().expect("it has been started").0
    }

    /// Where it listens, as `host:port`. The same after every start.
    pub fn listens(&self) -> &str {
        &self.identity.get().expect("it has been started").1
    }

    /// Calls, and takes no no for an answer.
    pub async fn call(&self, method: &str, params: Value) -> Value {
        match self.try_call(method, params).await {
            Ok(result) => result,
            Err(no) => panic!("{method}: {no}{}", self.stderr()),
        }
    }

    pub async fn try_call(&self, method: &str, params: Value) -> Result<Value, String> {
        let mut guard = self.wires.lock().await;
        let wires = guard.as_mut().ok_or("the peer does not run")?;
        let id = wires.last_id + 1;
        wires.last_id = id;
        let line = format!("{}\n", json!({ "id": id, "method": method, "params": params }));
        let round = async {
            wires.stdin.write_all(line.as_bytes()).await?;
            wires.stdin.flush().await?;
            wires.stdout.next_line().await
        };
        let answer = tokio::time::timeout(DEADLINE, round).await.map_err(|_| "no answer in time".to_owned())?;
        let answer = answer.map_err(|error| error.to_string())?.ok_or("the peer has ended")?;
        let mut answer: Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
        assert_eq!(answer["id"], json!(id), "the answer to another question");
        match answer["error"].as_str() {
            Some(no) => Err(no.to_owned()),
            None => Ok(answer["result"].take()),
        }
    }

    /// Looks at the chain now, instead of at its next turn.
    pub async fn sync(&self) {
        self.call("sync_wallets", json!({})).await;
    }

    pub async fn height(&self) -> u32 {
        let info = self.call("info", json!({})).await;
        info["height"].as_u64().and_then(|height| u32::try_from(height).ok()).expect("a height")
    }

    pub async fn address(&self) -> Address {
        let address: Address<_> = text(&self.call("address", json!({})).await).parse().expect("an address");
        address.assume_checked()
    }

    /// What it has on-chain, and could spend.
    pub async fn spendable(&self) -> Sat {
        let balances = self.call("balances", json!({})).await;
        Sat::new(balances["spendable_sat"].as_u64().expect("a number")).expect("an amount")
    }

    /// Gives it this much, confirmed.
    pub async fn fund(&self, bitcoind: &Bitcoind, sat: Sat) {
        let before = self.spendable().await;
        bitcoind.pay(&self.address().await, sat).await;
        bitcoind.mine(1).await;
        eventually("the peer has its coins", async || {
            self.sync().await;
            (Some(self.spendable().await) >= before.checked_add(sat)).then_some(())
        })
        .await;
    }

    pub async fn connect(&self, node: PublicKey, address: &str) {
        let asked = json!({ "node": node.to_string(), "address": address });
        // The other one may be connecting too: of two connections one is closed, and that may be this one.
        eventually_shown("it connects", async || self.try_call("connect", asked.clone()).await).await;
    }

    pub async fn disconnect(&self, node: PublicKey) {
        self.call("disconnect", json!({ "node": node.to_string() })).await;
    }

    /// Leaves and comes back. Who connects anew is told of every channel, also of those whose word was lost before.
    pub async fn meet_again(&self, node: PublicKey, address: &str) {
        self.disconnect(node).await;
        self.connect(node, address).await;
    }

    pub async fn channels(&self) -> Vec<PeerChannel> {
        let channels = self.call("channels", json!({})).await;
        channels.as_array().expect("a list").iter().map(PeerChannel::read).collect()
    }

    pub async fn channels_with(&self, node: PublicKey) -> Vec<PeerChannel> {
        self.channels().await.into_iter().filter(|channel| channel.with == node).collect()
    }

    pub async fn close(&self, channel: &str, force: bool) {
        self.call("close", json!({ "channel": channel, "force": force })).await;
    }

    /// What it takes for forwarding, over all channels.
    pub async fn set_fees(&self, base_msat: u32, ppm: u32) {
        self.call("set_channel_fees", json!({ "base": base_msat, "ppm": ppm })).await;
    }

    /// Whether it has heard both sides of a channel between these two.
    pub async fn knows_channel(&self, one: PublicKey, two: PublicKey) -> bool {
        let graph = self.call("graph", json!({})).await;
        let ends = [json!(one.to_string()), json!(two.to_string())];
        let between = |channel: &&Value| ends.contains(&channel["one"]) && ends.contains(&channel["two"]);
        graph.as_array().expect("a list").iter().filter(between).any(|channel| channel["sides"] == 2)
    }

    /// Opens a channel from here, and mines until both ends use it. The peer needs coins for it: see [`Self::fund`].
    pub async fn open_channel(&self, bitcoind: &Bitcoind, other: &dyn End, address: &str, opening: Opening) {
        self.fund_channel(other.id().await, address, opening).await;
        mine_until_usable(bitcoind, &[self, other]).await;
    }

    /// Opens a channel from here, as far as it goes without a block.
    pub async fn fund_channel(&self, node: PublicKey, address: &str, opening: Opening) {
        let Opening { amount, push, announced } = opening;
        let asked = json!({
            "node": node.to_string(),
            "address": address,
            "sat": amount.to_u64(),
            "push_msat": push.base_units(),
            "announced": announced,
        });
        let before = self.channels_with(node).await.len();
        self.call("open_channel", asked).await;
        eventually("the channel is funded", async || {
            let channels = self.channels_with(node).await;
            (channels.len() > before && channels.iter().all(|channel| channel.funding.is_some())).then_some(())
        })
        .await;
    }

    /// An invoice that it claims by itself. No amount: the payer says how much.
    pub async fn invoice(&self, amount: Option<Amount>, description: &str) -> String {
        let msat = amount.map(Amount::base_units);
        text(&self.call("invoice", json!({ "msat": msat, "description": description })).await)
    }

    /// One that is open for so long.
    pub async fn invoice_for(&self, amount: Amount, seconds: u32) -> String {
        let asked = json!({ "msat": amount.base_units(), "description": "goods", "expiry": seconds });
        text(&self.call("invoice", asked).await)
    }

    /// An invoice whose payment waits for [`Self::claim`] or [`Self::fail`].
    pub async fn hold_invoice(&self, amount: Option<Amount>, hash: PaymentHash) -> String {
        let msat = amount.map(Amount::base_units);
        text(&self.call("hold_invoice", json!({ "msat": msat, "hash": hash.to_string() })).await)
    }

    /// What waits for this hash, when there is something.
    pub async fn claimable(&self, hash: PaymentHash) -> Option<Amount> {
        let all = self.call("claimable", json!({})).await;
        let wanted = json!(hash.to_string());
        all.as_array().expect("a list").iter().find(|one| one["hash"] == wanted).and_then(|one| amount(&one["msat"]))
    }

    pub async fn claim(&self, preimage: Preimage) {
        self.call("claim_for_hash", json!({ "preimage": preimage.to_string() })).await;
    }

    pub async fn fail(&self, hash: PaymentHash) {
        self.call("fail_for_hash", json!({ "hash": hash.to_string() })).await;
    }

    /// Answers the id under which [`Self::payment`] finds it; an error when it can't even begin.
    pub async fn pay(&self, invoice: &str, amount: Option<Amount>) -> Result<String, String> {
        let msat = amount.map(Amount::base_units);
        self.try_call("pay", json!({ "invoice": invoice, "msat": msat })).await.map(|id| text(&id))
    }

    pub async fn offer(&self, amount: Option<Amount>, description: &str) -> String {
        let msat = amount.map(Amount::base_units);
        text(&self.call("offer", json!({ "msat": msat, "description": description })).await)
    }

    pub async fn pay_offer(&self, offer: &str, amount: Option<Amount>) -> Result<String, String> {
        let msat = amount.map(Amount::base_units);
        self.try_call("pay_offer", json!({ "offer": offer, "msat": msat })).await.map(|id| text(&id))
    }

    pub async fn keysend(&self, to: PublicKey, amount: Amount, preimage: Preimage) -> Result<String, String> {
        let asked = json!({ "node": to.to_string(), "msat": amount.base_units(), "preimage": preimage.to_string() });
        self.try_call("keysend", asked).await.map(|id| text(&id))
    }

    /// How a payment stands, by its id or by its hash, sent or received.
    pub async fn payment(&self, id: &str) -> Option<PeerPayment> {
        let found = self.call("payment", json!({ "id": id })).await;
        match found["status"].as_str()? {
            "Pending" => Some(PeerPayment::Pending),
            "Succeeded" => Some(PeerPayment::Succeeded {
                preimage: found["preimage"].as_str().map(|text| text.parse().expect("a preimage")),
                msat: amount(&found["msat"]),
                fee: amount(&found["fee_msat"]),
            }),
            "Failed" => Some(PeerPayment::Failed { reason: found["reason"].as_str().unwrap_or_default().to_owned() }),
            other => panic!("a payment that is {other}"),
        }
    }

    /// What happened since the last call.
    pub async fn events(&self) -> Vec<Value> {
        self.call("events", json!({})).await.as_array().expect("a list").clone()
    }

    fn stderr(&self) -> String {
        let said = std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default();
        if said.is_empty() { said } else { format!("\n{said}") }
    }
}

impl Drop for LdkPeer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl PeerChannel {
    fn read(value: &Value) -> Self {
        Self {
            id: text(&value["id"]),
            with: key(&value["node"]),
            funding: value["funding"].as_str().map(str::to_owned),
            local: amount(&value["local_msat"]).expect("an amount"),
            remote: amount(&value["remote_msat"]).expect("an amount"),
            ready: value["ready"] == true,
            usable: value["usable"] == true,
            confirmations: value["confirmations"].as_u64().unwrap_or_default(),
        }
    }
}

/// One end of a channel, whoever runs it.
#[async_trait]
pub trait End: Send + Sync {
    async fn id(&self) -> PublicKey;
    /// How many channels with others there are, and how many of them are in use.
    async fn channels_in_use(&self, with: PublicKey) -> (usize, usize);
    /// Takes notice of new blocks.
    async fn look(&self) {}
}

#[async_trait]
impl End for LdkPeer {
    async fn id(&self) -> PublicKey {
        self.id()
    }
    async fn channels_in_use(&self, with: PublicKey) -> (usize, usize) {
        let channels = self.channels_with(with).await;
        (channels.len(), channels.iter().filter(|channel| channel.usable).count())
    }
    async fn look(&self) {
        self.sync().await;
    }
}

/// A node behind the port is an end too.
pub struct Ported<'a>(pub &'a dyn LightningNode);

#[async_trait]
impl End for Ported<'_> {
    async fn id(&self) -> PublicKey {
        self.0.info().await.expect("the node answers").id
    }
    async fn channels_in_use(&self, with: PublicKey) -> (usize, usize) {
        let channels = self.0.channels().await.expect("the node answers");
        let between: Vec<_> = channels.iter().filter(|channel| channel.peer == with).collect();
        (between.len(), between.iter().filter(|channel| channel.usable).count())
    }
}

/// Mines the funding that waits in the mempool, and waits until every channel between the two is in use on both ends.
pub async fn mine_until_usable(bitcoind: &Bitcoind, ends: &[&dyn End; 2]) {
    eventually("the funding is in the mempool", async || {
        let waiting = bitcoind.rpc("getrawmempool", json!([])).await;
        (!waiting.as_array().expect("a list").is_empty()).then_some(())
    })
    .await;
    bitcoind.mine(CONFIRMATIONS).await;
    let ids = [ends[0].id().await, ends[1].id().await];
    eventually("both ends use the channel", async || {
        for (end, with) in ends.iter().zip([ids[1], ids[0]]) {
            end.look().await;
            let (all, usable) = end.channels_in_use(with).await;
            if all == 0 || usable < all {
                return None;
            }
        }
        Some(())
    })
    .await;
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}

fn key(value: &Value) -> PublicKey {
    text(value).parse().expect("a public key")
}

fn amount(value: &Value) -> Option<Amount> {
    value.as_u64().map(|msat| Amount::from_msat(msat).expect("an amount"))
}
