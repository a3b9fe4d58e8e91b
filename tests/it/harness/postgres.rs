//! A PostgreSQL of the tests' own: one cluster for the whole run, one database for each story.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, Executor};

use super::bitcoind::skip;

/// PostgreSQL refuses to run as root; this user is on every Debian.
const UNPRIVILEGED: &str = "nobody";

/// A fixture is made under another clock. The server keeps the machine's: with the other one a lock was seen to be waited for without end.
const PRELOADED: &str = "LD_PRELOAD";

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

/// A database as SQL, by the program that operators use for it.
pub fn dump(url: &str) -> String {
    let bin = std::env::var_os("PG_BIN").map(PathBuf::from).expect("PG_BIN, as for the server");
    let mut command = unprivileged(&bin.join("pg_dump"));
    command.args(["--no-owner", "--no-privileges", "--rows-per-insert=200", "--dbname", url]);
    let output = command.output().expect("pg_dump starts");
    assert!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Fills an empty database with what was dumped. What only a shell or a newer server understands is left out.
pub async fn load(url: &str, dump: &str) {
    let is_sql = |line: &&str| !line.starts_with('\\') && !line.starts_with("SET ");
    let sql: Vec<&str> = dump.lines().filter(is_sql).collect();
    let mut conn = sqlx::PgConnection::connect(url).await.expect("the cluster answers");
    conn.execute(AssertSqlSafe(sql.join("\n"))).await.expect("the dump is loaded");
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

    pub fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=sluice", self.folder.display())
    }

    /// Where the server listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.join(".s.PGSQL.5432")
    }

    /// Stops the server as a power failure would.
    pub fn cut_power(&self) {
        run(self.control("stop").args(["-m", "immediate"]));
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
    stop_after_this_process(&cluster);
    Some(cluster)
}

/// A test process has no last word of its own. A watcher in another session stops the server once this process is gone.
fn stop_after_this_process(Cluster { bin, folder }: &Cluster) {
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
        let mut command = Command::new(program);
        command.env_remove(PRELOADED);
        return command;
    }
    let mut command = Command::new("setpriv");
    command.env_remove(PRELOADED);
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
