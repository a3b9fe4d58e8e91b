//! A PostgreSQL of the tests' own: one cluster for the whole run, one database for each story.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, Executor};

use super::bitcoind::skip;

/// PostgreSQL refuses to run as root; this user is on every Debian.
const UNPRIVILEGED: &str = "nobody";

/// A PostgreSQL server of the tests' own.
pub struct Cluster {
    bin: PathBuf,
    folder: PathBuf,
}

/// The address of a new, empty database; `None` after a loud skip where there is no PostgreSQL.
pub async fn database() -> Option<String> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let cluster = CLUSTER.get_or_init(start).as_ref()?;
    let name = format!("story_{}", NUMBER.fetch_add(1, Ordering::SeqCst));
    Some(cluster.database(&name).await)
}

impl Cluster {
    /// One that a story has to itself, and may stop; `None` after a loud skip where there is no PostgreSQL.
    pub fn private() -> Option<Self> {
        start()
    }

    /// Makes a database; answers its address.
    pub async fn database(&self, name: &str) -> String {
        let mut conn = sqlx::PgConnection::connect(&self.url("postgres")).await.expect("the cluster answers");
        conn.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.expect("a database can be made");
        self.url(name)
    }

    /// As an operator does it: connections are cut, transactions are rolled back.
    pub fn stop(&self) {
        run(self.control("stop").args(["--mode=fast", "--wait"]));
    }

    /// Returns when the server answers, or fails with its log.
    pub fn start(&self) {
        let settings = format!("-c listen_addresses= -c max_connections=300 -k {}", self.folder.display());
        run(self.control("start").arg("--wait").arg("-l").arg(self.folder.join("log")).arg("-o").arg(settings));
    }

    pub fn restart(&self) {
        self.stop();
        self.start();
    }

    fn control(&self, what: &str) -> Command {
        let mut command = unprivileged(&self.bin.join("pg_ctl"));
        command.arg(what).arg("-D").arg(self.folder.join("data"));
        command
    }

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
    let cluster = Cluster { bin, folder };
    cluster.start();
    stop_after_this_process(&cluster.bin, &cluster.folder);
    Some(cluster)
}

/// A test process has no last word of its own. A watcher in another session stops the server once this process is gone.
fn stop_after_this_process(bin: &Path, folder: &Path) {
    let stop = unprivileged(&bin.join("pg_ctl"));
    let stop: Vec<String> = std::iter::once(stop.get_program())
        .chain(stop.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let watch = format!(
        "cd /; (while kill -0 {me} 2>/dev/null; do sleep 0.5; done; {stop} stop -m immediate -D '{folder}/data'; rm -rf '{folder}') &",
        me = std::process::id(),
        stop = stop.join(" "),
        folder = folder.display(),
    );
    let shell = Command::new("setsid")
        .args(["sh", "-c", &watch])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("a watcher starts");
    assert!(shell.success(), "the watcher of PostgreSQL did not start");
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
    rustix::process::geteuid().is_root()
}

fn run(command: &mut Command) {
    let output = command.output().expect("the command starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
