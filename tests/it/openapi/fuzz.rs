//! schemathesis, which reads the document and asks the gateway everything that it allows and much that it does not.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::json;
use sluice::assets::fake::{FakeEngine, World};
use sluice::chain::fake::FakeChain;
use sluice::clock::Clock;
use sluice::flows::keys::Scope;
use tokio::process::Command;

use crate::api::funded_on_fake;
use crate::harness::assets::side;
use crate::harness::bitcoind::skip;
use crate::harness::client::Caller;
use crate::harness::gateway::Gateway;
use crate::harness::rig::{Database, stranger};

const SECONDS_IN_CI: u64 = 180;
const SECONDS_USUAL: u64 = 20;
const SETTINGS: &str = include_str!("schemathesis.toml");
/// Wallets that the calls are made for, and one that nobody calls for.
const CALLER: u32 = 1;
const BYSTANDER: u32 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_nothing_where_the_wallet_headers_are_believed() {
    let Some(program) = program() else { return };
    let (gateway, chain) = gateway("auth.mode=wallet").await;
    let caller = funded(&gateway, &chain, gateway.registered(CALLER).await).await;
    let bystander = funded(&gateway, &chain, gateway.registered(BYSTANDER).await).await;
    run_and_compare(&program, &gateway, &caller, &bystander, None).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_nothing_where_keys_are_asked_for() {
    let Some(program) = program() else { return };
    let (gateway, chain) = gateway("auth.mode=key").await;
    let all = [Scope::Register, Scope::Read, Scope::Receive, Scope::Send];
    let (key, other) = (gateway.key(&all, &[]).await, gateway.key(&all, &[]).await);
    let registered = async |wallet: u32, key: &str| {
        let caller = gateway.caller(wallet).with_key(key);
        gateway.register(&caller).await;
        funded(&gateway, &chain, caller).await
    };
    let caller = registered(CALLER, &key).await;
    let bystander = registered(BYSTANDER, &other).await;
    run_and_compare(&program, &gateway, &caller, &bystander, Some(&key)).await;
    gateway.stop().await;
}

/// One that has every rail there is.
async fn gateway(mode: &str) -> (Gateway, Arc<FakeChain>) {
    let started = Gateway::start_lightning(Database::Sqlite, &[mode, "proxy.enabled=true", "proxy.media=true"]).await;
    let (gateway, chain, _lightning) = started.expect("SQLite is always there");
    let world = World::new(Clock::System);
    gateway.flows().use_assets(side(FakeEngine::new(world, Arc::<FakeChain>::clone(&chain))));
    (gateway, chain)
}

/// Where schemathesis is; `None` after a loud skip.
fn program() -> Option<std::ffi::OsString> {
    let program = std::env::var_os("SCHEMATHESIS").filter(|path| !path.is_empty());
    if program.is_none() {
        skip("SCHEMATHESIS names no schemathesis (see scripts/ensure-schemathesis)");
    }
    program
}

/// Coins to send, one of them set aside already; an asset, and an invoice for one.
async fn funded(gateway: &Gateway, chain: &FakeChain, caller: Caller) -> Caller {
    let caller = funded_on_fake(gateway, chain, caller, &[200_000; 4]).await;
    let wanted = json!({ "address_or_rgbinvoice": stranger().to_string(), "amount_sats": 50_000, "fee_rate": 2 });
    caller.post("/lightning/onchain-send-begin", wanted).await.ok();
    let begun = caller.post("/wallet/createutxosbegin", json!({ "num": 5, "size": 3_000, "fee_rate": 2 })).await.ok();
    let signed = caller.wallet.sign(begun.as_str().expect("a PSBT"));
    caller.post("/wallet/createutxosend", json!({ "signed_psbt": signed })).await.ok();
    chain.mine(1);
    gateway.at_tip().await;
    let gold = json!({ "ticker": "GOLD", "name": "Gold", "amounts": [1_000] });
    caller.post("/wallet/issueassetnia", gold).await.ok();
    caller.post("/wallet/blindreceive", json!({ "amount": 10 })).await.ok();
    caller
}

async fn run_and_compare(
    program: &std::ffi::OsStr,
    gateway: &Gateway,
    caller: &Caller,
    bystander: &Caller,
    key: Option<&str>,
) {
    let before = gateway.rows_of(&bystander.wallet.keys.id()).await;
    assert!(before.len() > 20, "the bystander has rows: {}", before.len());
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("schemathesis.toml"), SETTINGS).expect("the settings are written");
    let mut command = Command::new(program);
    command
        .arg("--config-file")
        .arg(folder.path().join("schemathesis.toml"))
        .args(["run", &format!("{}/openapi.json", gateway.url), "--checks", "all", "--workers", "2", "--no-color"])
        .args(["--max-time", &seconds().to_string(), "--request-timeout", "20", "--generation-database", "none"]);
    for (name, value) in caller.wallet_headers() {
        command.arg("-H").arg(format!("{name}: {value}"));
    }
    if let Some(key) = key {
        command.arg("-H").arg(format!("Authorization: Bearer {key}"));
    }
    assert_clean(command, folder.path()).await;
    assert_eq!(gateway.rows_of(&bystander.wallet.keys.id()).await, before, "another wallet's rows have changed");
}

async fn assert_clean(mut command: Command, folder: &Path) {
    let output = command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.expect("schemathesis runs");
    let said = String::from_utf8_lossy(&output.stdout);
    if let Some(path) = std::env::var_os("SLUICE_FUZZ_REPORT") {
        std::fs::write(path, output.stdout.as_slice()).expect("the report is written");
    }
    assert!(
        output.status.success(),
        "schemathesis found something:\n{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("generated"), "schemathesis asked nothing:\n{said}");
}

fn seconds() -> u64 {
    let asked =
        std::env::var("SLUICE_FUZZ_SECONDS").ok().map(|text| text.parse().expect("SLUICE_FUZZ_SECONDS: seconds"));
    let in_ci = std::env::var("CI").as_deref() == Ok("true");
    asked.unwrap_or(if in_ci { SECONDS_IN_CI } else { SECONDS_USUAL })
}
