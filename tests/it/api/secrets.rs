//! A gateway as a process of its own, told everything that is secret, in stories that go right and wrong: nothing of it may
//! stand in its log or in an answer.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::send_of;
use crate::harness::bitcoind::{Bitcoind, PASSWORD, USER};
use crate::harness::client::{Call, Caller};
use crate::harness::gateway::eventually;
use crate::harness::postgres;
use crate::harness::rig::{Client, parse_address};
use sluice::money::Sat;

const STORE_PASSWORD: &str = "hunter2-of-the-store";
const WRONG_KEY: &str = "sluice_000000000000_a-key-that-was-mistyped";
const LOG_LEVEL: &str = "debug,sluice=trace,hyper=trace,sqlx=trace,reqwest=trace";

struct Process {
    child: Child,
    log: std::path::PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }

    /// Asks it to end, and waits until it has.
    async fn end(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the signal was sent");
        let child = std::sync::Mutex::new(&mut self.child);
        let status = eventually("the gateway ends", async || {
            child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().expect("our child")
        })
        .await;
        assert!(status.success(), "{status}");
    }
}

fn command(node: &Bitcoind, store: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command
        .env("SLUICE__STORE__URL", store)
        .env("SLUICE__HTTP__LISTEN", "127.0.0.1:0")
        .env("SLUICE__OPERATOR__LISTEN", "127.0.0.1:0")
        .env("SLUICE__AUTH__MODE", "key")
        .env("SLUICE__CHAIN__POLL_MS", "50")
        .env("SLUICE__CHAIN__BITCOIND__URL", node.url())
        .env("SLUICE__CHAIN__BITCOIND__USER", USER)
        .env("SLUICE__CHAIN__BITCOIND__PASSWORD", PASSWORD)
        .env("SLUICE__LOG__LEVEL", LOG_LEVEL)
        .stdin(Stdio::null());
    command
}

fn make_key(node: &Bitcoind, store: &str, folder: &Path) -> String {
    let mut command = command(node, store);
    command.current_dir(folder).args(["keys", "create", "--name", "story"]);
    for scope in ["register", "read", "receive", "send"] {
        command.args(["--scope", scope]);
    }
    let output = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let key = said.split_whitespace().find(|word| word.starts_with("sluice_"));
    key.unwrap_or_else(|| panic!("no key in {output:?}")).to_owned()
}

/// Starts it, and finds out where it listens.
async fn serve(node: &Bitcoind, store: &str, folder: &Path) -> (Process, String) {
    let log = folder.join("log");
    let file = std::fs::File::create(&log).expect("a log can be made");
    let output = file.try_clone().expect("a file");
    let child = command(node, store).current_dir(folder).arg("serve").stderr(file).stdout(output).spawn();
    let process = Process { child: child.expect("the program runs"), log };
    let url = eventually("the gateway says where it listens", async || {
        let log = process.log();
        let line = log.lines().find(|line| line.contains("api_addr="))?.to_owned();
        let rest = line.split("api_addr=").nth(1)?;
        Some(format!("http://{}", rest.split_whitespace().next()?))
    })
    .await;
    (process, url)
}

/// Everything that goes right, once.
async fn what_goes_right(node: &Bitcoind, caller: &Caller) -> Vec<String> {
    caller.post_empty("/wallet/register").await.ok();
    let made = caller.post_empty("/lightning/onchain-receive").await.ok();
    let address = parse_address(made["btc_address"].as_str().expect("an address"));
    node.pay(&address, Sat::literal(100_000)).await;
    node.mine(1).await;
    caller.post_empty("/wallet/sync").await.ok();
    let begun = caller.post("/lightning/onchain-send-begin", send_of(&node.new_address().await, 20_000)).await.ok();
    let signed = caller.sign(&begun);
    caller.post("/lightning/onchain-send-end", json!({ "signed_psbt": signed })).await.ok();
    for path in ["/onchain-send", "/deposits", "/events", "/lightning/balance", "/lightning/listtransactions"] {
        caller.get(path).await.ok();
    }
    vec![begun.as_str().expect("a PSBT").to_owned(), signed]
}

/// Everything that goes wrong where a secret is near.
async fn what_goes_wrong(node: &Bitcoind, caller: &Caller, key: &str, psbts: &[String]) {
    caller.with_key(WRONG_KEY).get("/lightning/balance").await.refused(401, "unauthorized");
    caller.get(format!("/lightning/balance?key={key}")).await.ok();
    caller.get(format!("/requests/{key}")).await.refused(404, "not_found");
    let broken = format!("{}AAAA", psbts[1]);
    caller.post("/lightning/onchain-send-end", json!({ "signed_psbt": broken })).await.refused(400, "invalid_psbt");
    caller.post("/wallet/sendbtcend", json!({ "signed_psbt": psbts[0] })).await;
    let torn = Call::post_raw("/lightning/onchain-send-end", format!("{{\"signed_psbt\": \"{}", psbts[1]));
    caller.call(torn).await.refused(400, "invalid_request");
    let mut doubled = caller.clone().without_wallet();
    doubled.transcript.clone_from(&caller.transcript);
    doubled.get("/lightning/balance").await.refused(401, "wallet_headers_missing");
    node.freeze();
    caller.call(Call::post_empty("/wallet/sync").expecting(503)).await;
    node.thaw();
    node.kill();
    caller.call(Call::post_empty("/wallet/sync").expecting(503)).await.refused(503, "chain_unavailable");
    caller.call(Call::post("/wallet/get_fee_estimation", &json!({ "blocks": 2 })).expecting(503)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_and_no_answer_holds_a_secret() {
    let Some(node) = Bitcoind::start().await else { return };
    let Some(store) = postgres::database().await else { return };
    let store = format!("{store}&password={STORE_PASSWORD}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = make_key(&node, &store, folder.path());
    let (mut process, url) = serve(&node, &store, folder.path()).await;
    let plain = Caller::new(&url, Client::number(1));
    let caller = plain.with_key(&key);
    let psbts = what_goes_right(&node, &caller).await;
    what_goes_wrong(&node, &caller, &key, &psbts).await;
    process.end().await;

    let log = process.log();
    assert!(log.lines().count() > 100 && log.contains("answered"), "the log says little:\n{log}");
    let xpubs = caller.wallet_headers().map(|(_, value)| value);
    let node_login = format!("{USER}:{PASSWORD}");
    let mut secrets =
        vec![("the API key", key.as_str()), ("a mistyped key", WRONG_KEY), ("bitcoind's password", PASSWORD)];
    secrets.extend([("bitcoind's login", node_login.as_str()), ("the store's password", STORE_PASSWORD)]);
    for (what, secret) in secrets.iter().chain(&[("an xpub", xpubs[0].as_str()), ("an xpub", xpubs[1].as_str())]) {
        assert_absent(&log, what, secret);
    }
    for psbt in &psbts {
        assert_absent(&log, "a PSBT", &psbt[..60.min(psbt.len())]);
    }
    let answers = caller.transcript.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
    assert!(answers.len() > 5_000, "little was answered");
    for (what, secret) in secrets.iter().filter(|(_, secret)| *secret != key) {
        assert_absent(&answers, what, secret);
    }
    // One call put its key into a path, and a problem says which path was called.
    let elsewhere: String = answers.lines().filter(|line| !line.contains("\"instance\":\"/requests/")).collect();
    assert_absent(&elsewhere, "the API key", &key);
    assert_absent(&answers, "an xpub", &xpubs[0]);
}

#[track_caller]
fn assert_absent(text: &str, what: &str, secret: &str) {
    use base64::Engine as _;
    let encoded = base64::prelude::BASE64_STANDARD.encode(secret);
    for form in [secret, encoded.trim_end_matches('=')] {
        let line = text.lines().find(|line| line.contains(form));
        assert!(line.is_none(), "{what} stands in: {}", line.unwrap_or_default());
    }
}
