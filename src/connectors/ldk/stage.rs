//! The one ordered list of everything that the next commit writes.
//!
//! LDK's parts write here and never to the database: a monitor that was on the disk before the manager that knows of it would
//! close its channel on the next start. Only the loop takes the list, whole, and commits it.

use std::sync::{Arc, Mutex};

use lightning::chain::ChannelMonitorUpdateStatus;
use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::io;
use lightning::ln::types::ChannelId;
use lightning::sign::InMemorySigner;
use lightning::util::persist::{KVStoreSync, MonitorName};
use lightning::util::ser::Writeable;
use serde::Serialize;
use tokio::sync::{Notify, oneshot};

use super::lease::die;
use super::types::lock;
use crate::domain::lightning::PaymentId;
use crate::ports::lightning::NodeEvent;
use crate::store::node::Step;

/// Updates of a monitor that are kept beside it before it is written whole again.
const UPDATES_A_MONITOR: u64 = 100;

/// What the sweeper keeps, as LDK names it, is one value in this space.
pub const SWEEPER: &str = "sweeper";

/// What one commit writes, and what it sets free.
#[derive(Default)]
pub struct Batch {
    pub steps: Vec<Step>,
    /// Updates of monitors that LDK is told of once they are durable.
    pub durable: Vec<(ChannelId, u64)>,
    pub hints: Vec<NodeEvent>,
    /// Payments that have ended, in this commit.
    pub ended: Vec<PaymentId>,
    /// Callers who are answered then.
    pub waiting: Vec<oneshot::Sender<()>>,
    /// Something arrived, something was claimed: for the crash points.
    pub claimable: bool,
    pub claimed: bool,
}

impl Batch {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.durable.is_empty() && self.hints.is_empty() && self.waiting.is_empty()
    }
}

#[derive(Default)]
pub struct Stage {
    batch: Mutex<Batch>,
    wake: Notify,
}

impl Stage {
    pub fn push(&self, step: Step) {
        self.push_all([step]);
    }

    /// Steps that belong together: one commit has all of them, wherever the process dies.
    pub fn push_all(&self, steps: impl IntoIterator<Item = Step>) {
        lock(&self.batch).steps.extend(steps);
        self.wake.notify_one();
    }

    /// A hint for those who listen, given when what it is about is durable.
    pub fn hint(&self, event: NodeEvent) {
        lock(&self.batch).hints.push(event);
        self.wake.notify_one();
    }

    pub fn ended(&self, id: PaymentId) {
        lock(&self.batch).ended.push(id);
    }

    pub fn note_claimable(&self) {
        lock(&self.batch).claimable = true;
    }

    pub fn note_claimed(&self) {
        lock(&self.batch).claimed = true;
    }

    /// Comes back when everything that was staged until now is durable; an error says that the node stopped first.
    pub fn committed(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.batch).waiting.push(sender);
        self.wake.notify_one();
        receiver
    }

    pub fn take(&self) -> Batch {
        std::mem::take(&mut *lock(&self.batch))
    }

    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    pub fn wake(&self) {
        self.wake.notify_one();
    }

    fn put_monitor(&self, name: &MonitorName, monitor: &ChannelMonitor<InMemorySigner>) {
        let through = number(monitor.get_latest_update_id());
        self.push(Step::PutMonitor { monitor: name.to_string(), value: monitor.encode(), through });
    }
}

/// Room that a manager needs at least; more is made as it is needed.
const ROOM: usize = 64 * 1_024;

/// The bytes of `encode`, which writes everything twice: the first time only to learn how long it is. The manager is written with
/// every commit, and is the largest of what is.
pub fn encoded(value: &impl Writeable) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ROOM);
    match value.write(&mut bytes) {
        Ok(()) => bytes,
        Err(_a_list_takes_everything) => value.encode(),
    }
}

/// What the memory has already and the next start has to know, too. What can't be written ends the process: whatever came after it would
/// rest on what only this process knows.
pub fn written<T: Serialize>(what: &str, value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| die(&format!("{what} can't be written: {error}")))
}

/// Numbers of updates count from 1; only channels of very old versions have one that does not fit.
fn number(update_id: u64) -> i64 {
    i64::try_from(update_id).unwrap_or(i64::MAX)
}

impl Persist<InMemorySigner> for Stage {
    fn persist_new_channel(
        &self,
        name: MonitorName,
        monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        self.put_monitor(&name, monitor);
        lock(&self.batch).durable.push((monitor.channel_id(), monitor.get_latest_update_id()));
        ChannelMonitorUpdateStatus::InProgress
    }

    fn update_persisted_channel(
        &self,
        name: MonitorName,
        update: Option<&ChannelMonitorUpdate>,
        monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        match update {
            Some(update) if !update.update_id.is_multiple_of(UPDATES_A_MONITOR) && update.update_id != u64::MAX => {
                let number = number(update.update_id);
                self.push(Step::PutUpdate { monitor: name.to_string(), number, value: update.encode() });
            }
            _ => self.put_monitor(&name, monitor),
        }
        if let Some(update) = update {
            lock(&self.batch).durable.push((monitor.channel_id(), update.update_id));
        }
        ChannelMonitorUpdateStatus::InProgress
    }

    fn archive_persisted_channel(&self, name: MonitorName) {
        self.push(Step::ArchiveMonitor { monitor: name.to_string() });
    }
}

/// What the sweeper writes to. It is read at the start, from the database.
pub struct SweeperStore(pub Arc<Stage>);

impl KVStoreSync for SweeperStore {
    fn read(&self, _primary: &str, _secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
        Err(io::Error::new(io::ErrorKind::NotFound, key))
    }

    fn write(&self, _primary: &str, _secondary: &str, _key: &str, value: Vec<u8>) -> Result<(), io::Error> {
        self.0.push(Step::Put { space: SWEEPER, name: String::new(), value });
        Ok(())
    }

    fn remove(&self, _primary: &str, _secondary: &str, _key: &str, _lazy: bool) -> Result<(), io::Error> {
        self.0.push(Step::Remove { space: SWEEPER, name: String::new() });
        Ok(())
    }

    fn list(&self, _primary: &str, _secondary: &str) -> Result<Vec<String>, io::Error> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_once_is_what_is_written_twice() {
        let value: Vec<u64> = (0..20_000).collect();
        assert_eq!(encoded(&value.len().to_string()), value.len().to_string().encode());
        let bytes: Vec<u8> = value.iter().flat_map(|number| number.to_be_bytes()).collect();
        assert!(bytes.len() > ROOM);
        assert_eq!(encoded(&bytes), bytes.encode());
    }

    struct Unwritable;

    impl Serialize for Unwritable {
        fn serialize<S: serde::Serializer>(&self, _serializer: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it has no text"))
        }
    }

    /// In a process of its own, which this test starts: it is the same test there, told to do it.
    #[test]
    fn a_change_that_can_not_be_written_ends_the_process() {
        use std::os::unix::process::ExitStatusExt as _;
        const TOLD: &str = "SLUICE_TEST_WRITES_THE_UNWRITABLE";
        const SIGABRT: i32 = 6;
        if std::env::var_os(TOLD).is_some() {
            println!("it goes on with {}", written("a change of its wallet", &Unwritable));
            return;
        }
        assert_eq!(written("a number", &7), "7");
        let name = format!("{}::a_change_that_can_not_be_written_ends_the_process", module_path!());
        let (_crate, name) = name.split_once("::").unwrap();
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let ended = again.args(["--exact", name, "--nocapture"]).env(TOLD, "1").output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(said.contains("running 1 test") && !said.contains("it goes on"), "{said}");
        assert_eq!(ended.status.signal(), Some(SIGABRT), "{said}");
    }

    /// Taken at any moment, a batch has both of two steps that belong together, or none.
    #[test]
    fn steps_that_belong_together_are_in_one_batch() {
        let stage = Arc::new(Stage::default());
        let step = |name: String| Step::Remove { space: SWEEPER, name };
        let pushing = Arc::clone(&stage);
        let pushes = std::thread::spawn(move || {
            (0..2_000).for_each(|number| pushing.push_all(["a", "b"].map(|half| step(format!("{number} {half}")))));
        });
        let mut seen = 0;
        while seen < 4_000 {
            let steps = stage.take().steps;
            assert!(steps.len().is_multiple_of(2), "{} steps", steps.len());
            seen += steps.len();
            std::thread::yield_now();
        }
        pushes.join().unwrap();
    }

    #[test]
    fn whoever_waits_is_answered_by_the_batch_that_has_its_steps() {
        let stage = Stage::default();
        let mut waiting = stage.committed();
        stage.push(Step::Remove { space: SWEEPER, name: String::new() });
        let batch = stage.take();
        assert!(!batch.is_empty() && stage.take().is_empty());
        assert!(waiting.try_recv().is_err());
        for sender in batch.waiting {
            sender.send(()).unwrap();
        }
        waiting.try_recv().unwrap();
    }
}
