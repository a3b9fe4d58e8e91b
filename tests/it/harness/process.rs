//! A gateway as its users run it: a process of its own that can be killed, stopped, frozen and started again on its data.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, kill_process, prlimit, waitpid};
use serde_json::Value;
use sluice::crash;
use sqlx::Connection as _;
use tempfile::TempDir;

use super::bitcoind::Bitcoind;
use super::postgres;
use super::rig::{Client, Database};

/// Generous: a machine that builds beside the tests is slow. What has to be fast is measured apart.
pub const DEADLINE: Duration = Duration::from_secs(60);
pub const POLL: Duration = Duration::from_millis(20);
/// What the gateway waits for the node in these tests: a frozen one should not cost much time.
const NODE_TIMEOUT_MS: u64 = 1_500;
const CALL_TIMEOUT: Duration = Duration::from_secs(45);
/// Lines of a log that are shown when a test fails.
const LOG_LINES: usize = 60;

/// Where a gateway's data is, and how it is configured. Several processes may be started on the same one.
#[derive(Clone)]
pub struct Site {
    settings: Vec<(String, String)>,
    store_url: String,
    folder: Arc<TempDir>,
    outlives_full_disks: bool,
}

impl Site {
    /// New, empty data; `None` after a loud skip where there is no PostgreSQL.
    pub async fn new(database: Database, node: &Bitcoind) -> Option<Self> {
        match database {
            Database::Sqlite => Some(Self::at(None, node)),
            Database::Postgres => Some(Self::at(Some(postgres::database().await?), node)),
        }
    }

    /// On this PostgreSQL; on SQLite where none is named.
    pub fn at(postgres: Option<String>, node: &Bitcoind) -> Self {
        let folder = TempDir::with_prefix("sluice-gateway-").expect("a temporary folder");
        let store_url = postgres.unwrap_or_else(|| format!("sqlite:{}", folder.path().join("sluice.db").display()));
        let site = Self {
            settings: Vec::new(),
            store_url: store_url.clone(),
            folder: Arc::new(folder),
            outlives_full_disks: false,
        };
        site.with("store.url", store_url)
            .with("http.listen", "127.0.0.1:0")
            .with("operator.listen", "127.0.0.1:0")
            .with("http.limits.enabled", "false")
            .with("chain.network", "regtest")
            .with("chain.poll_ms", "100")
            .with("chain.bitcoind.url", node.url())
            .with("chain.bitcoind.cookie_file", node.cookie_file().display().to_string())
            .with("chain.bitcoind.timeout_ms", NODE_TIMEOUT_MS.to_string())
            .with("policy.lookahead", "25")
    }

    /// With nothing set but the store.
    pub fn bare(store_url: String) -> Self {
        let folder = TempDir::with_prefix("sluice-gateway-").expect("a temporary folder");
        let (settings, folder) = (Vec::new(), Arc::new(folder));
        let site = Self { settings, store_url: store_url.clone(), folder, outlives_full_disks: false };
        site.with("store.url", store_url)
    }

    /// The same with another setting.
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        let name = format!("SLUICE__{}", key.to_ascii_uppercase().replace('.', "__"));
        self.settings.retain(|(known, _)| *known != name);
        self.settings.push((name, value.into()));
        self
    }

    /// The same with another variable of the environment.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.push((name.to_owned(), value.into()));
        self
    }

    /// The same, whose processes get an error, and no signal, for a file that grows beyond its limit: as on a disk that is full.
    pub fn outliving_full_disks(mut self) -> Self {
        self.outlives_full_disks = true;
        self
    }

    pub fn store_url(&self) -> &str {
        &self.store_url
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A setting that was made, by its name in the file.
    pub fn setting(&self, key: &str) -> Option<&str> {
        let name = format!("SLUICE__{}", key.to_ascii_uppercase().replace('.', "__"));
        self.settings.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Runs a subcommand to its end. On SQLite the gateway has to be stopped for most of them.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(arguments);
        tokio::task::spawn_blocking(move || command.output().expect("sluice runs")).await.expect("no panic")
    }

    /// Runs `sluice audit`, and takes no drift. Answers how many rules could not be checked.
    pub async fn audit(&self) -> usize {
        let output = self.run(&["audit", "--json"]).await;
        let text = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("no report: {text}{}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(report["drifts"], Value::Array(Vec::new()), "the audit found drift");
        assert!(output.status.success(), "the audit failed without a drift: {report}");
        report["skipped"].as_array().map_or(0, Vec::len)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        if self.outlives_full_disks {
            command = Command::new("sh");
            command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_sluice")]);
        }
        command.env_clear().envs(self.settings.iter().cloned()).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn new_log(&self) -> PathBuf {
        let number = std::fs::read_dir(self.folder.path()).expect("the folder can be listed").count();
        self.folder.path().join(format!("log-{number}"))
    }
}

/// A running, stopped or dead gateway.
pub struct Gateway {
    pub site: Site,
    http: reqwest::Client,
    process: Mutex<Option<Process>>,
}

struct Process {
    child: Child,
    log: PathBuf,
    ports: Option<(u16, u16)>,
    status: Option<ExitStatus>,
}

/// An answer of the gateway.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Null when it is a file.
    pub body: Value,
    pub bytes: Vec<u8>,
    pub retry_after: Option<u64>,
    pub request_id: Option<String>,
}

impl Answer {
    pub fn is_ok(&self) -> bool {
        self.status == 200
    }

    /// The body of a success.
    pub fn ok(self) -> Value {
        assert!(self.is_ok(), "{self:?}");
        self.body
    }

    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_else(|| panic!("{field} is no text in {self:?}"))
    }
}

/// One call, as it can be made again.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
}

impl Call {
    pub fn get(path: impl Into<String>, wallet: &Client) -> Self {
        Self::new(Method::GET, path.into(), wallet)
    }

    pub fn post(path: impl Into<String>, wallet: &Client) -> Self {
        Self::new(Method::POST, path.into(), wallet)
    }

    fn new(method: Method, path: String, wallet: &Client) -> Self {
        let xpubs = wallet.signer.wallet_xpubs();
        let headers = vec![
            ("xpub-van", xpubs.xpub_van.to_string()),
            ("xpub-col", xpubs.xpub_col.to_string()),
            ("master-fingerprint", xpubs.master_fingerprint.to_string()),
        ];
        Self { method, path, headers, body: None }
    }

    pub fn json(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    pub fn bearer(mut self, secret: &str) -> Self {
        self.headers.push(("authorization", format!("Bearer {secret}")));
        self
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// The same with another value of a header that is there.
    pub fn replaced(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.header(name, value)
    }

    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.headers.push(("idempotency-key", key.into()));
        self
    }
}

impl Gateway {
    /// Starts one and waits until it serves.
    pub async fn start(site: &Site) -> Self {
        Self::start_armed(site, None).await
    }

    /// The same, to die at a crash point, which may be before it serves.
    pub async fn start_armed(site: &Site, point: Option<&str>) -> Self {
        let gateway = Self::stopped(site);
        gateway.restart(point).await;
        gateway
    }

    /// One that does not run yet.
    pub fn stopped(site: &Site) -> Self {
        // A connection for each call: one that was kept could belong to the process before.
        let http = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(CALL_TIMEOUT)
            .build()
            .expect("an HTTP client");
        Self { site: site.clone(), http, process: Mutex::new(None) }
    }

    /// Starts it (again) on the same data, and waits until it serves, or has died at its crash point. Answers how long that took.
    pub async fn restart(&self, point: Option<&str>) -> Duration {
        let begun = Instant::now();
        self.spawn(point);
        let deadline = begun + DEADLINE;
        while self.ports().is_none() {
            if let Some(status) = self.exit_status() {
                assert!(point.is_some() && died_at_its_point(status), "it ended at start: {status}\n{}", self.log());
                break;
            }
            assert!(Instant::now() < deadline, "the gateway does not start\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        begun.elapsed()
    }

    fn spawn(&self, point: Option<&str>) {
        let log = self.site.new_log();
        let file = File::create(&log).expect("a log");
        let mut command = self.site.command();
        command.arg("serve").envs(point.map(|point| (crash::VARIABLE, point)));
        command.stdout(Stdio::null()).stderr(file);
        let child = command.spawn().expect("sluice starts");
        let mut process = self.process();
        assert!(process.as_ref().is_none_or(|old| old.status.is_some()), "it runs already");
        *process = Some(Process { child, log, ports: None, status: None });
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ports of the API and of the operator, once it serves.
    fn ports(&self) -> Option<(u16, u16)> {
        let mut process = self.process();
        let process = process.as_mut()?;
        if process.ports.is_none() {
            let log = std::fs::read_to_string(&process.log).unwrap_or_default();
            let line = log.lines().find(|line| line.contains("the gateway serves"));
            process.ports = line.map(|line| (port_in(line, "api_addr="), port_in(line, "operator_addr=")));
        }
        process.ports
    }

    /// The port of the API, while it serves.
    pub fn api_port(&self) -> Option<u16> {
        self.ports().map(|(api, _)| api)
    }

    /// Where payers and payees exchange consignments, as their wallets write it.
    pub fn proxy(&self) -> String {
        let (port, _) = self.ports().expect("it serves");
        format!("rpc://127.0.0.1:{port}/json-rpc")
    }

    /// Makes a call; an error when there was no answer.
    pub async fn call(&self, call: &Call) -> Result<Answer, String> {
        let (port, _) = self.ports().ok_or("it does not serve")?;
        let mut request = self.http.request(call.method.clone(), format!("http://127.0.0.1:{port}{}", call.path));
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        answer_of(request.send().await.map_err(|error| format!("{error:?}"))?).await
    }

    /// Makes a call that has to be answered.
    pub async fn answer(&self, call: &Call) -> Answer {
        match self.call(call).await {
            Ok(answer) => answer,
            Err(error) => panic!("{} was not answered: {error}\n{}", call.path, self.log()),
        }
    }

    /// Makes a call until a condition holds of its answer. No answer, and "not now", are waited out.
    pub async fn until(&self, what: &str, call: &Call, holds: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let last = self.call(call).await;
            match last {
                Ok(answer) if holds(&answer) => return answer,
                last if Instant::now() > deadline => panic!("{what}: not in time, last {last:?}\n{}", self.log()),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// What `/health/ready` says.
    pub async fn ready(&self) -> Result<Answer, String> {
        let (_, port) = self.ports().ok_or("it does not serve")?;
        let sent = self.http.get(format!("http://127.0.0.1:{port}/health/ready")).send().await;
        answer_of(sent.map_err(|error| format!("{error:?}"))?).await
    }

    /// Waits until every rail is ready.
    pub async fn wait_ready(&self) {
        self.wait_health("it becomes ready", Answer::is_ok).await;
    }

    /// Waits until a condition holds of what `/health/ready` says.
    pub async fn wait_health(&self, what: &str, holds: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let last = self.ready().await;
            match last {
                Ok(answer) if holds(&answer) => return answer,
                last if Instant::now() > deadline => panic!("{what}: not in time, last {last:?}\n{}", self.log()),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Waits until it has taken in the node's tip.
    pub async fn wait_synced(&self, node: &Bitcoind) {
        let tip = node.tip().await;
        self.wait_health("it follows the node", |answer| {
            answer.is_ok() && answer.body["rails"]["chain"]["cursor"]["hash"] == tip.hash.to_string()
        })
        .await;
    }

    /// As a power cut does.
    pub fn kill(&self) {
        if let Some(process) = self.process().as_mut() {
            // Fails only when it is gone already.
            let _ = process.child.kill();
            process.status = process.child.wait().ok();
        }
    }

    /// Frees what a dead process held on PostgreSQL, where its leases would else have to run out: whoever calls has seen it end.
    pub async fn free_roles(&self) {
        assert!(self.exit_status().is_some(), "it runs");
        if self.site.store_url().starts_with("postgres") {
            let mut conn = sqlx::PgConnection::connect(self.site.store_url()).await.expect("PostgreSQL answers");
            let free = sqlx::query("UPDATE owners SET leased_until = 0 WHERE leased_until > 0");
            free.execute(&mut conn).await.expect("the roles are free");
        }
    }

    /// Asks it to stop, and waits until it has. Answers how it ended and how long that took.
    pub async fn terminate(&self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        self.signal(Signal::TERM);
        (self.wait_exit().await, begun.elapsed())
    }

    pub async fn wait_exit(&self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.exit_status() {
                return status;
            }
            assert!(Instant::now() < deadline, "the gateway does not end\n{}", self.log());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Stops it from running at all, as a machine does that sleeps.
    pub fn freeze(&self) {
        let pid = self.signal(Signal::STOP);
        let waited = waitpid(Some(pid), WaitOptions::UNTRACED).expect("the gateway is our child");
        assert!(waited.is_some_and(|(_, status)| status.stopped()), "the gateway does not stand still");
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Lets no file of the process grow beyond so many bytes, as a full disk does; `None` lets them grow again.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let process = self.process();
        let pid = Pid::from_child(&process.as_ref().expect("a running gateway").child);
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(pid), Resource::Fsize, limit).expect("the limit of our child");
    }

    pub fn signal(&self, signal: Signal) -> Pid {
        let process = self.process();
        let pid = Pid::from_child(&process.as_ref().expect("a running gateway").child);
        kill_process(pid, signal).expect("the signal was sent");
        pid
    }

    /// How it ended, once it has.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        let mut process = self.process();
        let process = process.as_mut()?;
        if process.status.is_none() {
            process.status = process.child.try_wait().expect("the gateway is our child");
        }
        process.status
    }

    /// What the present process, or the last one, has logged.
    pub fn whole_log(&self) -> String {
        self.process()
            .as_ref()
            .map(|process| std::fs::read_to_string(&process.log).unwrap_or_default())
            .unwrap_or_default()
    }

    /// The end of it.
    pub fn log(&self) -> String {
        let log = self.whole_log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a process ended as one does that reaches its crash point.
pub fn died_at_its_point(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::ABORT.as_raw())
}

async fn answer_of(response: reqwest::Response) -> Result<Answer, String> {
    let status = response.status().as_u16();
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let retry_after = header("retry-after").and_then(|seconds| seconds.parse().ok());
    let request_id = header("sluice-request-id");
    let is_file = header("content-type").as_deref() == Some("application/octet-stream");
    let bytes = response.bytes().await.map_err(|error| format!("{error:?}"))?.to_vec();
    let body = if is_file { Ok(Value::Null) } else { serde_json::from_slice(&bytes) };
    let body = body.map_err(|error| format!("{status} without JSON: {error}"))?;
    Ok(Answer { status, body, bytes, retry_after, request_id })
}

fn port_in(line: &str, name: &str) -> u16 {
    let after = line.split_once(name).unwrap_or_else(|| panic!("no {name} in {line}")).1;
    let address = after.split_whitespace().next().unwrap_or_default();
    address.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("no port in {line}"))
}
