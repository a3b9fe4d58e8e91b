//! The socket of the operator, and others who find it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::geteuid;
use sluice::flows::keys::Scope;

use crate::harness::client::Call;
use crate::harness::gateway::Gateway;
use crate::harness::lightning::Lightning;
use crate::harness::rig::Database;

/// Somebody on this machine who does not run the gateway.
const NOBODY: u32 = 65_534;

fn socket_of(gateway: &Gateway) -> PathBuf {
    gateway.config.admin_socket().expect("there is one")
}

/// Runs a subcommand beside the gateway, as its operator would.
async fn sluice(gateway: &Gateway, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.env_clear().args(arguments);
    command.env("SLUICE__STORE__URL", gateway.config.store.url.expose());
    command.env("SLUICE__ADMIN__SOCKET", socket_of(gateway));
    tokio::task::spawn_blocking(move || command.output().expect("sluice runs")).await.expect("no panic")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn curl(socket: &Path, user: Option<u32>) -> Output {
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "10", "--unix-socket"]).arg(socket).arg("http://localhost/admin/halts");
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    tokio::task::spawn_blocking(move || command.output().expect("curl runs")).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_of_the_machine_calls_the_socket() {
    let (gateway, _chain) = Gateway::start_fake(&["auth.mode=key"]).await;
    let socket = socket_of(&gateway);
    assert_eq!(std::fs::metadata(&socket).expect("it is there").mode() & 0o777, 0o600);
    assert!(String::from_utf8_lossy(&curl(&socket, None).await.stdout).contains("\"halts\":[]"));
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can call as another user");
        gateway.stop().await;
        return;
    }
    let folder = socket.parent().expect("a folder");
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let refused = curl(&socket, Some(NOBODY)).await;
    assert!(!refused.status.success() && refused.stdout.is_empty(), "its mode keeps others out");
    // Also when somebody was careless with the mode: the system tells who calls.
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).expect("a mode");
    let refused = curl(&socket, Some(NOBODY)).await;
    assert!(!refused.status.success() && refused.stdout.is_empty(), "who calls is looked at");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_the_api_says_that_it_is_the_socket() {
    let (gateway, _chain) = Gateway::start_fake(&["auth.mode=wallet"]).await;
    let client = gateway.registered(1).await;
    for (name, value) in [("host", "localhost"), ("x-forwarded-for", "unix:"), ("forwarded", "for=unix;by=socket")] {
        client.call(Call::get("/admin/keys").header(name, value)).await.refused(401, "unauthorized");
    }
    gateway.stop().await;
}

/// The operator has no key, or lost it, or it was stolen; on both databases, while the gateway runs.
async fn without_a_key(database: Database) {
    let Some((gateway, _chain)) = Gateway::start_fake_on(database, &["auth.mode=key"]).await else { return };
    let create = ["keys", "create", "--name", "first", "--scope", "admin:read", "--scope", "admin:write"];
    let secret = said(&sluice(&gateway, &create).await);
    let operator = gateway.caller(1).without_wallet().with_key(&secret);
    let id = operator.get("/admin/keys").await.ok()["keys"][0]["id"].as_str().expect("an id").to_owned();
    assert!(said(&sluice(&gateway, &["keys", "list"]).await).contains(&id));
    let second = said(&sluice(&gateway, &["keys", "rotate", &id, "--grace-hours", "0"]).await);
    operator.get("/admin/keys").await.refused(401, "unauthorized");
    let operator = operator.with_key(&second);
    said(&sluice(&gateway, &["halts", "raise", "a drill", "--name", "drill"]).await);
    assert_eq!(operator.get("/admin/halts").await.ok()["halts"][0]["name"], "drill");
    assert!(said(&sluice(&gateway, &["halts", "list"]).await).contains("a drill"));
    assert!(said(&sluice(&gateway, &["resume", "drill"]).await).contains("Cleared"));
    assert!(!sluice(&gateway, &["halts", "clear", "drill"]).await.status.success(), "it is cleared");
    let tenant = gateway.caller(2).with_key(&gateway.key(&[Scope::Register, Scope::Read], &[]).await);
    gateway.register(&tenant).await;
    let wallet = tenant.wallet.keys.id().to_string();
    assert!(said(&sluice(&gateway, &["wallets", "list"]).await).contains(&wallet));
    said(&sluice(&gateway, &["wallets", "release", &wallet]).await);
    assert!(said(&sluice(&gateway, &["audit"]).await).contains("leases"));
    assert_eq!(operator.get("/admin/audit").await.ok()["audit"]["drift_count"], 0);
    let by = format!("socket:{}", geteuid().as_raw());
    let by_socket = |page: &serde_json::Value| {
        let all = page["events"].as_array().into_iter().flatten();
        let mut kinds: Vec<String> =
            all.filter(|one| one["data"]["by"] == by.as_str()).map(|one| one["kind"].to_string()).collect();
        kinds.sort_unstable();
        kinds
    };
    let wanted = [
        "operator.audit_run",
        "operator.halt_cleared",
        "operator.halt_raised",
        "operator.key_created",
        "operator.key_rotated",
        "operator.wallet_released",
    ];
    let wanted: Vec<String> = wanted.iter().map(|kind| format!("\"{kind}\"")).collect();
    let page = operator.until("/admin/events?limit=100", |page| by_socket(page).len() >= wanted.len()).await;
    assert_eq!(by_socket(&page), wanted);
    gateway.stop().await;
}

mod a_lost_key_is_replaced_while_the_gateway_runs {
    use super::{Database, without_a_key};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sqlite() {
        without_a_key(Database::Sqlite).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgres() {
        without_a_key(Database::Postgres).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_gateway_takes_the_socket_of_the_first() {
    let Some((first, chain, lightning)): Option<(Gateway, _, Lightning)> =
        Gateway::start_lightning(Database::Postgres, &[]).await
    else {
        return;
    };
    let second = Gateway::start_beside(&first, &chain, &lightning).await;
    assert_eq!(said(&sluice(&first, &["halts", "list"]).await), "Nothing stops payouts.");
    second.stop().await;
    assert_eq!(said(&sluice(&first, &["halts", "list"]).await), "Nothing stops payouts.", "it is still there");
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_key_is_read_by_others_or_written_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("first-key");
    // What a start has left that was killed before the key was in force, with a mode that lets everybody in.
    std::fs::write(&file, "sluice_000000000000_stale").expect("a file");
    let setting = format!("admin.first_key_file={}", file.display());
    let (gateway, chain) = Gateway::start_fake(&["auth.mode=key", &setting]).await;
    assert_eq!(std::fs::metadata(&file).expect("it is there").mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(&file).expect("a key").trim().to_owned();
    let operator = gateway.caller(1).without_wallet().with_key(&secret);
    let id = operator.get("/admin/keys").await.ok()["keys"][0]["id"].as_str().expect("an id").to_owned();
    let gateway = gateway.again(&chain).await;
    assert_eq!(std::fs::read_to_string(&file).expect("a key").trim(), secret, "it is written once");
    let operator = gateway.caller(1).without_wallet().with_key(&secret);
    operator.post_empty(format!("/admin/keys/{id}/revoke")).await.ok();
    std::fs::remove_file(&file).expect("it is removed");
    let gateway = gateway.again(&chain).await;
    assert!(!file.exists(), "who has revoked the key gets no other by a restart");
    gateway.stop().await;
}
