//! How long a connection may take for what it does, so that nobody keeps a place by doing nothing, or next to nothing.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Response, header};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::config::{HEADER_TIMEOUT, IDLE_TIMEOUT, WRITE_TIMEOUT};

/// How long a client may take for each thing.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a head, since it has begun to arrive or, where nothing was ever asked, since the beginning.
    head: Duration,
    /// For another call.
    idle: Duration,
    /// While nothing of an answer is read.
    stuck: Duration,
    /// For a whole answer, and as much again for each so many bytes of it.
    answer: Duration,
    answer_bytes: u64,
}

impl Patience {
    pub const USUAL: Self = Self {
        head: HEADER_TIMEOUT,
        idle: IDLE_TIMEOUT,
        stuck: WRITE_TIMEOUT,
        answer: Duration::from_secs(10),
        // 256 KiB a second.
        answer_bytes: 10 * 256 * 1024,
    };

    fn for_answer(&self, length: u64) -> Duration {
        let millis = u64::try_from(self.answer.as_millis()).unwrap_or(u64::MAX);
        let more = length.saturating_mul(millis) / self.answer_bytes.max(1);
        self.answer.saturating_add(Duration::from_millis(more))
    }
}

/// What a connection is doing, as its stream, its calls and whoever needs its place see it.
#[derive(Debug)]
pub struct Conversation {
    patience: Patience,
    phase: Mutex<Phase>,
    unwanted: Notify,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// No call is under way. A head that has begun to arrive has to be whole soon.
    Waiting { since: Instant, patience: Duration, head_since: Option<Instant> },
    /// A call is being answered. Until when the answer has to be read, once it is known.
    Answering { until: Option<Instant> },
}

impl Conversation {
    /// One that has just begun: whoever connects wants something.
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        let phase = Phase::Waiting { since: Instant::now(), patience: patience.head, head_since: None };
        Self { patience, phase: Mutex::new(phase), unwanted: Notify::new() }
    }

    fn set(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call has arrived.
    pub fn is_asked(&self) {
        self.set(Phase::Answering { until: None });
    }

    /// The answer to it, which has to be read within a time that depends on its length. Its end is the end of the call.
    pub fn answers(self: &Arc<Self>, response: Response<Body>) -> Response<Body> {
        let said = response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let length = said.or_else(|| response.body().size_hint().exact());
        let until = length.map(|length| Instant::now() + self.patience.for_answer(length));
        self.set(Phase::Answering { until });
        response.map(|body| Body::new(Told { body, conversation: Arc::clone(self) }))
    }

    fn waits_again(&self) {
        self.set(Phase::Waiting { since: Instant::now(), patience: self.patience.idle, head_since: None });
    }

    fn has_heard(&self) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if let Phase::Waiting { head_since: head_since @ None, .. } = &mut *phase {
            *head_since = Some(Instant::now());
        }
    }

    /// Since when nothing has been asked; nothing while something is answered.
    #[must_use]
    pub fn waits_since(&self) -> Option<Instant> {
        match self.phase() {
            Phase::Waiting { since, .. } => Some(since),
            Phase::Answering { .. } => None,
        }
    }

    /// Somebody needs its place.
    pub fn is_unwanted(&self) {
        self.unwanted.notify_one();
    }

    /// Returns when its place is needed.
    pub async fn until_unwanted(&self) {
        self.unwanted.notified().await;
    }

    fn read_deadline(&self) -> Option<Instant> {
        match self.phase() {
            Phase::Waiting { head_since: Some(since), .. } => Some(since + self.patience.head),
            Phase::Waiting { since, patience, head_since: None } => Some(since + patience),
            // How long a body may take is for whoever reads it.
            Phase::Answering { .. } => None,
        }
    }

    fn answer_deadline(&self) -> Option<Instant> {
        match self.phase() {
            Phase::Answering { until } => until,
            Phase::Waiting { .. } => None,
        }
    }
}

/// An answer that says when it has been written, or dropped.
struct Told {
    body: Body,
    conversation: Arc<Conversation>,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.conversation.waits_again();
    }
}

impl HttpBody for Told {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that fails when its client takes too long.
pub struct DropSlowClients<S> {
    stream: S,
    conversation: Arc<Conversation>,
    reading: Timer,
    writing: Timer,
    stuck_since: Option<Instant>,
}

/// Wakes at the deadline that was asked for last.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx)
    }
}

impl<S> DropSlowClients<S> {
    pub fn new(stream: S, conversation: Arc<Conversation>) -> Self {
        Self { stream, conversation, reading: Timer::default(), writing: Timer::default(), stuck_since: None }
    }

    /// Passes on what the stream said of a write; while it says "not now", the clocks run.
    fn timed<T>(&mut self, cx: &mut Context<'_>, said: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if said.is_ready() {
            self.stuck_since = None;
            // A client that reads a little now and then moves all the time, and takes for ever.
            if self.conversation.answer_deadline().is_some_and(|until| until <= Instant::now()) {
                return Poll::Ready(Err(too_slow("the client reads too slowly")));
            }
            return said;
        }
        let stuck = *self.stuck_since.get_or_insert_with(Instant::now) + self.conversation.patience.stuck;
        let deadline = self.conversation.answer_deadline().map_or(stuck, |until| until.min(stuck));
        ready!(self.writing.poll(cx, deadline));
        Poll::Ready(Err(too_slow("the client does not read")))
    }
}

fn too_slow(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for DropSlowClients<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let said = Pin::new(&mut self.stream).poll_read(cx, buf);
        if said.is_ready() {
            if buf.filled().len() > before {
                self.conversation.has_heard();
            }
            return said;
        }
        let Some(deadline) = self.conversation.read_deadline() else { return Poll::Pending };
        ready!(self.reading.poll(cx, deadline));
        Poll::Ready(Err(too_slow("the client does not ask")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for DropSlowClients<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.timed(cx, said)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.timed(cx, said)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let said = Pin::new(&mut self.stream).poll_flush(cx);
        self.timed(cx, said)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A hundredth of the usual, more or less.
    fn conversation() -> Arc<Conversation> {
        let patience = Patience {
            head: Duration::from_millis(100),
            idle: Duration::from_millis(750),
            stuck: Duration::from_millis(300),
            answer: Duration::from_millis(100),
            answer_bytes: 2_500,
        };
        Arc::new(Conversation::new(patience))
    }

    fn asked_once() -> Arc<Conversation> {
        let talk = conversation();
        talk.is_asked();
        drop(talk.answers(Response::new(Body::empty())));
        talk
    }

    #[test]
    fn a_long_answer_has_more_time() {
        assert_eq!(Patience::USUAL.for_answer(0), Duration::from_secs(10));
        assert_eq!(Patience::USUAL.for_answer(1024 * 1024), Duration::from_secs(14));
        assert!(Patience::USUAL.for_answer(u64::MAX) > Duration::from_secs(1_000_000));
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_given_up() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let mut ours = DropSlowClients::new(ours, conversation());
        ours.write_all(&[0; 16]).await.unwrap();
        let error = ours.write_all(&[0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_reads_a_little_now_and_then_is_given_up_when_the_answer_should_be_there() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let talk = conversation();
        talk.is_asked();
        let _answer = talk.answers(Response::new(Body::from(vec![0; 10_000])));
        let reads = tokio::spawn(async move {
            let mut piece = [0; 16];
            while theirs.read(&mut piece).await.is_ok_and(|read| read > 0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let (mut ours, started) = (DropSlowClients::new(ours, talk), Instant::now());
        // 10,000 bytes at 800 a second.
        let error = ours.write_all(&[0; 10_000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= Duration::from_millis(500), "{:?}", started.elapsed());
        drop(ours);
        reads.await.unwrap();
    }

    #[tokio::test]
    async fn a_kept_connection_waits_longer_than_one_that_never_asked_or_asks_slowly() {
        let waited = async |talk: Arc<Conversation>, sends: bool| {
            let (ours, mut theirs) = tokio::io::duplex(16);
            let (mut ours, started, mut piece) = (DropSlowClients::new(ours, talk), Instant::now(), [0; 1]);
            if sends {
                theirs.write_all(&[1]).await.unwrap();
                ours.read_exact(&mut piece).await.unwrap();
            }
            let error = ours.read_exact(&mut piece).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            started.elapsed()
        };
        let (head, idle) = (Duration::from_millis(100), Duration::from_millis(750));
        let never_asked = waited(conversation(), false).await;
        assert!(never_asked >= head && never_asked < idle, "{never_asked:?}");
        let kept = waited(asked_once(), false).await;
        assert!(kept >= idle, "{kept:?}");
        let asks_slowly = waited(asked_once(), true).await;
        assert!(asks_slowly >= head && asks_slowly < idle, "{asks_slowly:?}");
        assert!(Patience::USUAL.idle >= Duration::from_secs(75) && Patience::USUAL.head < Patience::USUAL.idle);
    }
}
