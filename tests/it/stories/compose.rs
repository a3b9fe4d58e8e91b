//! The compose file, run by hand: no engine for containers is asked for, but each of its services is started as the file says, with
//! what differs on one machine exchanged (hosts, ports, folders).

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::json;

use crate::harness::bitcoind::skip;
use crate::harness::gateway::eventually;
use crate::harness::ports::free_address;
use crate::harness::postgres;
use crate::harness::process::{Call, Gateway, Site};
use crate::harness::rig::Client;

/// A service of the file: its keys, each with the lines that belong to it.
type Service = HashMap<String, Vec<String>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Reads what such a file has: services two spaces deep, their keys four, and what belongs to a key below it or on its line.
fn services(text: &str) -> HashMap<String, Service> {
    let (mut all, mut service, mut key) = (HashMap::<String, Service>::new(), String::new(), String::new());
    let lines = text.lines().skip_while(|line| *line != "services:").skip(1);
    for line in lines.take_while(|line| line.is_empty() || line.starts_with(' ')) {
        let (depth, said) = (line.len() - line.trim_start().len(), line.trim());
        if said.is_empty() || said.starts_with('#') {
            continue;
        }
        match depth {
            2 => service = said.trim_end_matches(':').to_owned(),
            4 => {
                let (name, rest) = said.split_once(':').expect("a key");
                key = name.to_owned();
                let place = all.entry(service.clone()).or_default().entry(key.clone()).or_default();
                place.extend((!rest.trim().is_empty()).then(|| rest.trim().to_owned()));
            }
            _ => all.entry(service.clone()).or_default().entry(key.clone()).or_default().push(said.to_owned()),
        }
    }
    all
}

/// The pairs of a key such as `environment`.
fn pairs(service: &Service, key: &str) -> Vec<(String, String)> {
    let lines = service.get(key).into_iter().flatten();
    lines
        .filter_map(|line| line.split_once(": "))
        .map(|(k, v)| (k.to_owned(), v.trim_matches('"').to_owned()))
        .collect()
}

/// The items of a key such as `command`, in either spelling.
fn items(service: &Service, key: &str) -> Vec<String> {
    let lines = service.get(key).unwrap_or_else(|| panic!("no {key}"));
    if let Some(inline) = lines.first().and_then(|line| line.strip_prefix('[')?.strip_suffix(']')) {
        return inline.split(", ").map(str::to_owned).collect();
    }
    lines.iter().filter_map(|line| line.strip_prefix("- ")).map(str::to_owned).collect()
}

struct Node {
    child: Child,
    cli: String,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// bitcoind with the options of the file. `None` after a loud skip.
async fn bitcoind(service: &Service) -> Option<Node> {
    let Some(program) = std::env::var_os("BITCOIND").map(PathBuf::from) else {
        skip("BITCOIND names no bitcoind (see scripts/ensure-bitcoind)");
        return None;
    };
    let cli = program.with_file_name("bitcoin-cli");
    if !cli.is_file() {
        skip("there is no bitcoin-cli beside bitcoind");
        return None;
    }
    let (folder, port) = (tempfile::tempdir().expect("a temporary folder"), free_address().port());
    let of_a_network = |option: &String| option.starts_with("-rpcbind") || option.starts_with("-rpcallowip");
    let options = items(service, "command").into_iter().filter(|option| !of_a_network(option));
    let child = Command::new(&program)
        .args(options)
        .arg(format!("-datadir={}", folder.path().display()))
        .args([format!("-rpcport={port}"), "-listen=0".to_owned()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("bitcoind starts");
    let node = Node { child, cli: cli.display().to_string(), port, _folder: folder };
    // As its health check asks.
    let health = items(service, "healthcheck");
    assert!(health.is_empty() && service["healthcheck"][0].contains("getblockchaininfo"));
    eventually("bitcoind is healthy", async || {
        let mut ask = Command::new(&node.cli);
        let login = ["-regtest", "-rpcuser=sluice", "-rpcpassword=regtest"];
        ask.args(login).arg(format!("-rpcport={port}")).arg("getblockchaininfo");
        ask.output().expect("bitcoin-cli runs").status.success().then_some(())
    })
    .await;
    Some(node)
}

/// Runs a service that ends by itself: its entrypoint and its command, in its environment.
fn run(service: &Service, change: impl Fn(&str) -> String, folder: &Path) -> Output {
    let mut words = items(service, "entrypoint");
    if service.contains_key("command") {
        words.extend(items(service, "command"));
    }
    let words: Vec<String> = words.iter().map(|word| change(word)).collect();
    let binary = Path::new(env!("CARGO_BIN_EXE_sluice")).parent().expect("its folder");
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").expect("a path"));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(folder).env_clear().env("PATH", path);
    command.envs(pairs(service, "environment").into_iter().map(|(name, value)| (name, change(&value))));
    command.output().expect("it runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_compose_up_starts_by_itself_and_takes_calls_of_both_rails() {
    let text = std::fs::read_to_string(root().join("docker-compose.yml")).expect("the compose file");
    let all = services(&text);
    for (waits, on, until) in [
        ("chain", "bitcoind", "service_healthy"),
        ("first-key", "postgres", "service_healthy"),
        ("gateway", "chain", "service_completed_successfully"),
        ("gateway", "first-key", "service_completed_successfully"),
    ] {
        let waits_for = all[waits]["depends_on"].join(" ");
        assert!(waits_for.contains(&format!("{on}: condition: {until}")), "{waits}: {waits_for}");
    }
    assert_eq!(all["gateway"]["stop_grace_period"], ["1m"], "longer than calls in flight have");
    let Some(node) = bitcoind(&all["bitcoind"]).await else { return };
    let Some(database) = postgres::database().await else { return };

    let here = |word: &str| {
        let script = root().join("docker/start-chain.sh").display().to_string();
        let word = word.replace("/usr/local/bin/start-chain.sh", &script);
        let word = word.replace("-rpcconnect=bitcoind", &format!("-rpcport={}", node.port));
        let word = word.replace("bitcoin-cli ", &format!("{} ", node.cli));
        let word = word.replace("http://bitcoind:18443", &format!("http://127.0.0.1:{}", node.port));
        word.replace("postgres://sluice:regtest@postgres:5432/sluice", &database)
            .replace(":8080", ":0")
            .replace(":9464", ":0")
    };
    let mut site = Site::bare(database.clone());
    for height in ["101", "102"] {
        let chain = run(&all["chain"], here, site.folder());
        let said = String::from_utf8_lossy(&chain.stdout).into_owned();
        assert!(chain.status.success() && said.contains(&format!("{height} blocks")), "{said}{chain:?}");
    }
    let key = site.folder().join("first.key");
    let mut keys = Vec::new();
    for _ in 0..2 {
        let made = run(&all["first-key"], here, site.folder());
        assert!(made.status.success(), "{made:?}");
        keys.push(std::fs::read_to_string(&key).expect("a key"));
    }
    assert!(keys[0].starts_with("sluice_") && keys[0] == keys[1], "another start makes no other key");
    assert_eq!(std::fs::metadata(&key).expect("its metadata").permissions().mode() & 0o777, 0o600);

    for (name, value) in pairs(&all["gateway"], "environment") {
        let setting = name.trim_start_matches("SLUICE__").to_ascii_lowercase().replace("__", ".");
        site = site.with(&setting, here(&value));
    }
    let gateway = Gateway::start(&site).await;
    gateway
        .wait_health("it is ready on both rails", |answer| {
            answer.is_ok() && answer.body["rails"]["lightning"]["ready"] == true && answer.body["auth_mode"] == "key"
        })
        .await;
    let (client, secret) = (Client::number(1), keys[0].trim());
    gateway.answer(&Call::post("/wallet/register", &client).bearer(secret)).await.ok();
    let address = gateway.answer(&Call::post("/lightning/onchain-receive", &client).bearer(secret)).await.ok();
    assert!(address["btc_address"].as_str().is_some_and(|text| text.starts_with("bcrt1")), "{address}");
    let wanted = Call::post("/lightning/create-invoice", &client).bearer(secret).json(json!({ "amount_sats": 5_000 }));
    let invoice = gateway.answer(&wanted).await.ok();
    assert!(invoice.to_string().contains("lnbcrt"), "{invoice}");
    let (status, _) = gateway.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
}
