//! A PostgreSQL of the tests' own: one cluster for the whole run, one database for each story.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor};

use super::bitcoind::skip;

/// PostgreSQL refuses to run as root; this user is on every Debian.
const UNPRIVILEGED: &str = "nobody";
const READY_WITHIN: Duration = Duration::from_secs(30);

struct Cluster {
    folder: PathBuf,
    server: Mutex<Child>,
}

/// The address of a new, empty database; `None` after a loud skip where there is no PostgreSQL.
pub async fn database() -> Option<String> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let cluster = CLUSTER.get_or_init(start).as_ref()?;
    let name = format!("story_{}", NUMBER.fetch_add(1, Ordering::SeqCst));
    let mut conn = sqlx::PgConnection::connect(&cluster.url("postgres")).await.expect("the cluster answers");
    conn.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.expect("a database can be made");
    Some(cluster.url(&name))
}

impl Cluster {
    fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=sluice", self.folder.display())
    }
}

fn start() -> Option<Cluster> {
    let Some(bin) = std::env::var_os("PG_BIN").map(PathBuf::from).filter(|bin| bin.join("initdb").exists()) else {
        skip("PG_BIN names no folder with PostgreSQL");
        return None;
    };
    let folder = tempfile::Builder::new().prefix("sluice-pg").tempdir().expect("a temporary folder").keep();
    let data = folder.join("data");
    if is_root() {
        run(Command::new("chown").arg(UNPRIVILEGED).arg(&folder));
    }
    run(unprivileged(&bin.join("initdb"))
        .args(["--username=sluice", "--auth=trust", "--no-sync", "--encoding=UTF8", "-D"])
        .arg(&data));
    let server = unprivileged(&bin.join("postgres"))
        .arg("-D")
        .arg(&data)
        .args(["-c", "listen_addresses=", "-c", "max_connections=300", "-k"])
        .arg(&folder)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create("/dev/null").expect("a null device"))
        .spawn()
        .expect("PostgreSQL starts");
    let cluster = Cluster { folder, server: Mutex::new(server) };
    wait_until_ready(&bin, &cluster);
    register_stop(&cluster);
    Some(cluster)
}

fn wait_until_ready(bin: &Path, cluster: &Cluster) {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let ready = Command::new(bin.join("pg_isready")).arg("-q").arg("-h").arg(&cluster.folder).status();
        if ready.is_ok_and(|status| status.success()) {
            return;
        }
        assert!(Instant::now() < deadline, "PostgreSQL was not ready in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The test process has no last word of its own: a child of PostgreSQL's outlives it unless the kernel is told otherwise.
fn register_stop(cluster: &Cluster) {
    let pid = cluster.server.lock().expect("not poisoned").id();
    let folder = cluster.folder.clone();
    let me = std::process::id();
    let watch = format!(
        "while kill -0 {me} 2>/dev/null; do sleep 0.5; done; kill -INT {pid} 2>/dev/null; sleep 2; rm -rf '{}'",
        folder.display()
    );
    Command::new("setsid")
        .args(["sh", "-c", &watch])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a watcher starts");
}

fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", UNPRIVILEGED, "--regid", "nogroup", "--clear-groups"]).arg(program);
    command.current_dir("/");
    command
}

fn is_root() -> bool {
    // SAFETY: asks for a number; nothing can go wrong.
    unsafe { libc::geteuid() == 0 }
}

fn run(command: &mut Command) {
    let output = command.output().expect("the command starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
