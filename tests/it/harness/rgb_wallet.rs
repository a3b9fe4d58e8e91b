//! An independent RGB wallet (`tests/peers/rgb-wallet`) as a process of its own, on the regtest of a [`Bitcoind`] and its [`Esplora`].
//!
//! The environment's `RGB_WALLET` names a Python that has rgb-lib; `scripts/ensure-rgb-wallet` makes one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bitcoin::Txid;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sluice::money::Sat;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::Mutex;

use super::bitcoind::{Bitcoind, skip};
use super::esplora::Esplora;
use super::peer::DEADLINE;
use super::rig::parse_address;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/rgb-wallet/wallet.py");
/// What a wallet begins with: bitcoin for fees, and coins of the colored account for assets.
const FUNDS: Sat = Sat::literal(1_000_000);
const COINS: u32 = 6;
const COIN_SAT: u32 = 3_000;
const FEE_RATE: u32 = 2;
/// How the recipient of an invoice for a new coin is marked, and what a payer puts on such a coin.
const WITNESS_MARK: &str = ":wvout:";
const WITNESS_SAT: u64 = 1_000;
/// Rounds until both ends of a payment have seen its block; two are enough, and a third does no harm.
const ROUNDS: usize = 3;

/// A running wallet. It dies, and what it keeps is gone, when this is dropped.
pub struct RgbWallet {
    wires: Mutex<Wires>,
    process: Child,
    folder: TempDir,
}

struct Wires {
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    last_id: u64,
}

/// What a wallet says of its own invoice.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Invoiced {
    pub invoice: String,
    pub recipient: String,
    pub batch: i32,
}

/// What an invoice says to a wallet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct InvoiceRead {
    pub recipient: String,
    pub asset: Option<String>,
    pub amount: Option<u64>,
    pub expires_at: Option<u64>,
    pub endpoints: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Held {
    pub settled: u64,
    pub future: u64,
    pub spendable: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Bitcoin {
    pub vanilla: Held,
    pub colored: Held,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Sent {
    pub txid: Txid,
    pub batch: i32,
}

/// Status and kind as the library writes them: `WAITING_COUNTERPARTY`, `RECEIVE_BLIND`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct WalletTransfer {
    pub batch: i32,
    pub status: String,
    pub kind: String,
    pub amounts: Vec<Option<u64>>,
    pub txid: Option<Txid>,
    pub recipient: Option<String>,
}

/// What is asked for in an invoice. Empty is any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    pub asset: Option<&'a str>,
    pub amount: Option<u64>,
    pub endpoints: &'a [&'a str],
    /// Empty is an hour.
    pub expires_in: Option<u32>,
}

/// One of those whom a transfer pays.
#[derive(Clone, Debug)]
pub struct Payee {
    pub asset: String,
    pub recipient: String,
    pub amount: u64,
    /// What the new coin of a witness invoice holds; nothing for a blind one.
    pub witness_sat: Option<u64>,
    pub endpoints: Vec<String>,
}

impl RgbWallet {
    /// A wallet with fresh keys, some bitcoin and free coins for assets; `None`, after saying so, when there is no rgb-lib on this machine.
    pub async fn start(bitcoind: &Bitcoind, esplora: &Esplora) -> Option<Self> {
        let wallet = Self::start_empty(esplora).await?;
        wallet.fund(bitcoind, FUNDS).await;
        wallet.create_utxos(COINS, COIN_SAT).await;
        bitcoind.mine(1).await;
        Some(wallet)
    }

    pub async fn start_empty(esplora: &Esplora) -> Option<Self> {
        let Some(python) = std::env::var_os("RGB_WALLET").filter(|path| !path.is_empty()) else {
            skip("RGB_WALLET names no Python with rgb-lib (see scripts/ensure-rgb-wallet)");
            return None;
        };
        let folder = TempDir::with_prefix("sluice-rgb-wallet-").expect("a temporary folder");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("a folder for the wallet");
        let log = std::fs::File::create(log_of(folder.path())).expect("a file for the log");
        let mut command = Command::new(python);
        command.arg(PROGRAM).arg("--dir").arg(data).args(["--indexer", esplora.url()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut process = command.spawn().expect("RGB_WALLET runs");
        let stdin = ChildStdin::from_std(process.stdin.take().expect("piped")).expect("a pipe");
        let stdout = ChildStdout::from_std(process.stdout.take().expect("piped")).expect("a pipe");
        let wires = Mutex::new(Wires { stdin, stdout: BufReader::new(stdout).lines(), last_id: 0 });
        Some(Self { wires, process, folder })
    }

    /// Calls, and takes no no for an answer.
    pub async fn call<T: DeserializeOwned>(&self, method: &str, params: Value) -> T {
        match self.try_call(method, params).await {
            Ok(result) => result,
            Err(no) => panic!("{method}: {no}\n{}", self.log()),
        }
    }

    /// The error is in the library's own words.
    pub async fn try_call<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T, String> {
        let mut wires = self.wires.lock().await;
        let id = wires.last_id + 1;
        wires.last_id = id;
        let line = format!("{}\n", json!({ "id": id, "method": method, "params": params }));
        let round = async {
            wires.stdin.write_all(line.as_bytes()).await?;
            wires.stdin.flush().await?;
            wires.stdout.next_line().await
        };
        let answer = tokio::time::timeout(DEADLINE, round).await.map_err(|_| "no answer in time".to_owned())?;
        let answer = answer.map_err(|error| error.to_string())?.ok_or("the wallet has ended")?;
        let mut answer: Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
        assert_eq!(answer["id"], json!(id), "the answer to another question");
        match answer["error"].as_str() {
            Some(no) => Err(no.to_owned()),
            None => Ok(serde_json::from_value(answer["result"].take()).expect("the result has its shape")),
        }
    }

    /// An address of the vanilla account.
    pub async fn address(&self) -> String {
        self.call("address", json!({})).await
    }

    /// Pays it, and mines the payment.
    pub async fn fund(&self, bitcoind: &Bitcoind, sat: Sat) {
        bitcoind.pay(&parse_address(&self.address().await), sat).await;
        bitcoind.mine(1).await;
    }

    /// Makes coins for assets, which can be used once they are mined.
    pub async fn create_utxos(&self, num: u32, size: u32) {
        let made: u32 = self.call("create_utxos", json!({ "num": num, "size": size, "fee_rate": FEE_RATE })).await;
        assert_eq!(made, num, "coins for assets");
    }

    /// Answers the id of the new asset.
    pub async fn issue_nia(&self, ticker: &str, name: &str, precision: u8, amounts: &[u64]) -> String {
        let params = json!({ "ticker": ticker, "name": name, "precision": precision, "amounts": amounts });
        self.call("issue_nia", params).await
    }

    /// An invoice for a coin that it has already.
    pub async fn blind_receive(&self, asked: Asked<'_>) -> Invoiced {
        self.call("blind_receive", asked.params()).await
    }

    /// An invoice for a coin that the payer makes.
    pub async fn witness_receive(&self, asked: Asked<'_>) -> Invoiced {
        self.call("witness_receive", asked.params()).await
    }

    pub async fn read_invoice(&self, invoice: &str) -> InvoiceRead {
        self.call("read_invoice", json!({ "invoice": invoice })).await
    }

    /// Signs a transfer, and brings the consignments. It is broadcast by the refresh that finds the payees' acknowledgements.
    pub async fn send(&self, payees: &[Payee]) -> Sent {
        self.try_send(payees).await.unwrap_or_else(|no| panic!("send: {no}\n{}", self.log()))
    }

    pub async fn try_send(&self, payees: &[Payee]) -> Result<Sent, String> {
        let payees: Vec<Value> = payees.iter().map(Payee::params).collect();
        self.try_call("send", json!({ "payees": payees, "fee_rate": FEE_RATE })).await
    }

    /// Pays an invoice as a wallet does that was only shown its text.
    pub async fn pay(&self, invoice: &str, asset: &str, amount: u64) -> Sent {
        let read = self.read_invoice(invoice).await;
        self.send(&[Payee::of(read, asset, amount)]).await
    }

    /// Looks at proxy and chain. Answers what has changed: pairs of a batch and its new status, or of what went wrong.
    pub async fn refresh(&self) -> Vec<(i32, String)> {
        let changed: BTreeMap<i32, String> = self.call("refresh", json!({})).await;
        changed.into_iter().collect()
    }

    /// Gives a transfer up that was not broadcast; answers whether there was something to give up.
    pub async fn give_up(&self, batch: i32) -> bool {
        self.call("give_up", json!({ "batch": batch })).await
    }

    pub async fn balance(&self, asset: &str) -> Held {
        self.call("balance", json!({ "asset": asset })).await
    }

    /// What both accounts have, in satoshis.
    pub async fn bitcoin(&self) -> Bitcoin {
        self.call("bitcoin", json!({})).await
    }

    /// The ids of what it knows.
    pub async fn assets(&self) -> Vec<String> {
        self.call("assets", json!({})).await
    }

    /// Oldest first.
    pub async fn transfers(&self, asset: &str) -> Vec<WalletTransfer> {
        self.call("transfers", json!({ "asset": asset })).await
    }

    /// The transfer that is about this recipient, at either end.
    pub async fn transfer_of(&self, asset: &str, recipient: &str) -> WalletTransfer {
        let is_it = |transfer: &WalletTransfer| transfer.recipient.as_deref() == Some(recipient);
        self.transfers(asset).await.into_iter().find(is_it).expect("a transfer with this recipient")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(log_of(self.folder.path())).unwrap_or_default()
    }
}

impl Drop for RgbWallet {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn log_of(folder: &Path) -> PathBuf {
    folder.join("stderr")
}

impl Asked<'_> {
    fn params(&self) -> Value {
        let mut params = json!({ "asset": self.asset, "amount": self.amount, "endpoints": self.endpoints });
        if let Some(seconds) = self.expires_in {
            params["expires_in"] = json!(seconds);
        }
        params
    }
}

impl Payee {
    /// Whom an invoice names, and where it wants the consignment.
    pub fn of(invoice: InvoiceRead, asset: &str, amount: u64) -> Self {
        let InvoiceRead { recipient, endpoints, asset: _, amount: _, expires_at: _ } = invoice;
        let witness_sat = recipient.contains(WITNESS_MARK).then_some(WITNESS_SAT);
        Self { asset: asset.to_owned(), recipient, amount, witness_sat, endpoints }
    }

    fn params(&self) -> Value {
        let Self { asset, recipient, amount, witness_sat, endpoints } = self;
        json!({
            "asset": asset, "recipient": recipient, "amount": amount, "witness_sat": witness_sat, "endpoints": endpoints,
        })
    }
}

/// Carries a payment that was sent to its end: the payee accepts, the payer broadcasts, a block, and both see it.
pub async fn carry(bitcoind: &Bitcoind, payer: &RgbWallet, payee: &RgbWallet) {
    payee.refresh().await;
    payer.refresh().await;
    bitcoind.mine(1).await;
    for _ in 0..ROUNDS {
        let (one, other) = (payee.refresh().await, payer.refresh().await);
        if one.is_empty() && other.is_empty() {
            return;
        }
    }
}
