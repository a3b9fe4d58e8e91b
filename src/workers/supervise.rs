//! Keeps workers going: an error is waited out, a panic is logged and waited out, and a lost role ends the process.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::flows::Error;
use crate::store::StoreError;

const FIRST_BACKOFF: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 250 });
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// How long a worker may take to finish its round when the gateway stops. What it does then is as safe to cut as by a crash.
const GRACE: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5_000 });

/// Something that is done again and again.
#[async_trait]
pub(super) trait Worker: Send + 'static {
    /// Its name in logs.
    fn name(&self) -> &'static str;

    /// One round, as short as it can be: a stop waits for its end.
    async fn round(&mut self) -> Result<Next, Error>;

    /// The last thing it does, after its last round.
    async fn leave(&mut self) {}
}

/// When the next round is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    AtOnce,
    After(Duration),
}

pub(super) struct Supervisor {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self { stop: watch::channel(false).0, tasks: Vec::new() }
    }
}

impl Supervisor {
    pub(super) fn add(&mut self, worker: impl Worker) {
        self.tasks.push(tokio::spawn(run(worker, self.stop.subscribe())));
    }

    /// Ends every worker and waits for it.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            // A worker's own panics are caught in its rounds.
            if let Err(error) = task.await {
                tracing::error!(%error, "a worker did not end well");
            }
        }
    }
}

async fn run(mut worker: impl Worker, mut stop: watch::Receiver<bool>) {
    let mut failures: u32 = 0;
    while !*stop.borrow() {
        let Some(outcome) = guarded_round(&mut worker, &mut stop).await else { break };
        let pause = match outcome {
            Ok(next) => {
                failures = 0;
                match next {
                    Next::AtOnce => Duration::ZERO,
                    Next::After(pause) => pause,
                }
            }
            Err(failure) => {
                failures = failures.saturating_add(1);
                let pause = backoff(failures);
                failure.report(worker.name(), pause);
                pause
            }
        };
        if pause.is_zero() {
            // A worker that always has more to do must not keep others from their turn.
            tokio::task::yield_now().await;
            continue;
        }
        // Either is a reason to look again whether to stop; a supervisor that is gone means stop, too.
        let stopped = tokio::time::timeout(pause, stop.changed()).await;
        if matches!(stopped, Ok(Err(_))) {
            break;
        }
    }
    worker.leave().await;
}

enum Failure {
    Error(Error),
    Panic,
}

impl Failure {
    fn report(&self, worker: &'static str, pause: Duration) {
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::Error(error) => tracing::warn!(worker, %error, pause_ms, "a round failed; it is tried again"),
            Self::Panic => tracing::error!(
                worker,
                pause_ms,
                "a round panicked, which is a fault of this program; it is tried again"
            ),
        }
    }
}

/// One round; `None` when the gateway stops and the round would not end.
async fn guarded_round(worker: &mut impl Worker, stop: &mut watch::Receiver<bool>) -> Option<Result<Next, Failure>> {
    let round = AssertUnwindSafe(worker.round()).catch_unwind();
    let result = tokio::select! {
        result = round => result,
        () = stopped_for(stop, GRACE) => return None,
    };
    Some(match result {
        Ok(Ok(next)) => Ok(next),
        Ok(Err(error)) => {
            die_if_fenced(&error);
            Err(Failure::Error(error))
        }
        Err(_panic) => Err(Failure::Panic),
    })
}

async fn stopped_for(stop: &mut watch::Receiver<bool>, span: Duration) {
    // An error means that the supervisor is gone, which is a stop as well.
    drop(stop.wait_for(|stopped| *stopped).await);
    tokio::time::sleep(span).await;
}

/// Somebody else acts in our role. Whatever this process would still do rests on what is no longer true: it ends, at once
/// and without clean-up, because cleaning up is writing.
pub(super) fn die_if_fenced(error: &Error) {
    if let Error::Store(StoreError::Fenced { role }) = error {
        tracing::error!(role, "another process has taken over; this one stops at once");
        std::process::abort();
    }
}

fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST_BACKOFF.saturating_mul(1 << doublings).min(LONGEST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::flows::Code;

    #[derive(Default, Clone)]
    struct Count {
        rounds: Arc<AtomicU32>,
        left: Arc<AtomicU32>,
    }

    #[async_trait]
    impl Worker for Count {
        fn name(&self) -> &'static str {
            "count"
        }

        async fn round(&mut self) -> Result<Next, Error> {
            match self.rounds.fetch_add(1, Ordering::SeqCst) {
                0 => Err(Error::refused(Code::Internal, "for the test")),
                1 => panic!("for the test"),
                2 => Ok(Next::AtOnce),
                _many => Ok(Next::After(Duration::from_secs(3_600))),
            }
        }

        async fn leave(&mut self) {
            self.left.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn a_worker_goes_on_after_an_error_and_a_panic_and_leaves_once() {
        let count = Count::default();
        let mut supervisor = Supervisor::default();
        supervisor.add(count.clone());
        let all_rounds = async {
            while count.rounds.load(Ordering::SeqCst) < 4 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all_rounds).await.unwrap();
        supervisor.stop().await;
        assert_eq!(count.rounds.load(Ordering::SeqCst), 4, "a sleeping worker is not woken for another round");
        assert_eq!(count.left.load(Ordering::SeqCst), 1);
    }

    struct Hang;

    #[async_trait]
    impl Worker for Hang {
        fn name(&self) -> &'static str {
            "hang"
        }
        async fn round(&mut self) -> Result<Next, Error> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn a_round_that_hangs_does_not_keep_the_gateway_from_stopping() {
        let mut supervisor = Supervisor::default();
        supervisor.add(Hang);
        tokio::time::sleep(Duration::from_millis(20)).await;
        tokio::time::timeout(Duration::from_secs(20), supervisor.stop()).await.unwrap();
    }

    #[test]
    fn backoff_grows_and_has_an_end() {
        assert_eq!(backoff(1), FIRST_BACKOFF);
        assert_eq!(backoff(2), FIRST_BACKOFF * 2);
        assert_eq!(backoff(u32::MAX), LONGEST_BACKOFF);
    }
}
