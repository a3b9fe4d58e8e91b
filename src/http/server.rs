//! The accept loop. It is our own because a gateway must drop clients that are half open, slow, or too many.

use std::future::Future;
use std::io::{self, Write};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::ServiceExt as _;

use super::client::Peer;
use super::config::{Config, DRAIN_TIMEOUT};
use super::places::{Place, Places};
use super::problem::{Problem, entry};
use super::slow::DropSlowClients;
use super::trace::TraceId;
use crate::flows::Code;

/// After the system refused to accept (out of file descriptors, say), trying again at once would only burn CPU.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` is done, then lets calls in flight finish for a while.
///
/// # Errors
/// When the listener can't be used at all.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: &Config,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let places = Arc::new(Places::new(config));
    let (stop, stopping) = watch::channel(false);
    let mut shutdown = pin!(shutdown);
    tracing::info!(address = %listener.local_addr()?, "listening");
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, address)) => (stream, address.ip()),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (router, stopping) = (router.clone(), stopping.clone());
        match places.try_take(peer) {
            Some(place) => {
                tokio::spawn(connection((stream, peer), router, stopping, place));
            }
            // Nobody else waits for it to be told so.
            None => match places.try_wait(peer) {
                Some(soon) => {
                    tokio::spawn(async move {
                        match soon.await {
                            Some(place) => connection((stream, peer), router, stopping, place).await,
                            None => turn_away(stream),
                        }
                    });
                }
                None => turn_away(stream),
            },
        }
    }
    drop(listener);
    // Nobody listens when every connection is gone already.
    let _nobody_left = stop.send(true);
    if tokio::time::timeout(DRAIN_TIMEOUT, places.all_are_free()).await.is_err() {
        tracing::warn!("connections were still open when time was up; they are cut");
    }
    Ok(())
}

async fn connection(
    (stream, peer): (TcpStream, IpAddr),
    router: Router,
    mut stopping: watch::Receiver<bool>,
    place: Place,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let talk = place.conversation();
    let io = TokioIo::new(DropSlowClients::new(stream, Arc::clone(&talk)));
    let mut http = http1::Builder::new();
    // How long a head may take is for the stream to say, which tells one that is late from one that has not begun.
    http.timer(TokioTimer::new()).header_read_timeout(None).half_close(false);
    let service = service_fn(|request: Request<Incoming>| {
        let (router, talk) = (router.clone(), Arc::clone(&talk));
        talk.is_asked();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            router.oneshot(request).await.map(|response| talk.answers(response))
        }
    });
    let mut conn = pin!(http.serve_connection(io, service));
    let asked_to_stop = async {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => {}
            () = talk.until_unwanted() => {}
        }
    };
    let ended = tokio::select! {
        ended = conn.as_mut() => ended,
        () = asked_to_stop => {
            conn.as_mut().graceful_shutdown();
            conn.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
    drop(place);
}

/// Answers one connection too many without waiting for anything: what does not fit into the socket's buffer is not sent.
fn turn_away(stream: TcpStream) {
    let problem = Problem::plain(Code::TooManyConnections);
    let entry = entry(problem.code);
    let body = serde_json::to_string(&problem.wire(TraceId::fresh().as_str(), None)).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\nRetry-After: {}\r\nConnection: close\r\n\r\n{body}",
        entry.status,
        "Service Unavailable",
        body.len(),
        entry.retry_after.unwrap_or(1),
    );
    let sent = stream.into_std().and_then(|mut stream| stream.write(answer.as_bytes()));
    tracing::debug!(sent = sent.is_ok(), "a connection was turned away");
    metrics::counter!("sluice_http_connections_refused_total").increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    async fn started(
        max_connections: u32,
    ) -> (std::net::SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/wait", get(std::future::pending::<&'static str>));
        let server = tokio::spawn(async move {
            let config = Config { max_connections, ..Config::default() };
            serve(listener, router, &config, async { drop(stopped.await) }).await
        });
        (address, stop, server)
    }

    /// Keeps a place by a call that is not answered.
    async fn keep_busy(address: std::net::SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
        stream.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        // It is read at once; a machine that is busy may need longer.
        tokio::time::sleep(Duration::from_millis(300)).await;
        stream
    }

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut buffer = [0u8; 4096];
        let n = stream.read(&mut buffer).await.unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }

    #[tokio::test]
    async fn one_connection_too_many_is_told_so_and_a_free_place_is_used_again() {
        let (address, stop, server) = started(1).await;
        let first = keep_busy(address).await;
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut answer = String::new();
        second.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("too_many_connections"), "{answer}");
        drop(first);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut third = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut third).await.starts_with("HTTP/1.1 200"));
        drop(third);
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_waits_for_nothing_gives_its_place_to_one_that_asks() {
        let (address, stop, server) = started(2).await;
        let mut kept = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut kept).await.contains("hello"));
        let mut silent = TcpStream::connect(address).await.unwrap();
        for _ in 0..5 {
            let mut new = TcpStream::connect(address).await.unwrap();
            assert!(ask(&mut new).await.contains("hello"));
        }
        let mut rest = Vec::new();
        assert_eq!(kept.read_to_end(&mut rest).await.unwrap(), 0, "the one that waited longest is closed");
        drop(silent.read_to_end(&mut rest).await);
        assert!(rest.is_empty());
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_idle_connections() {
        let (address, stop, server) = started(4).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut idle).await.contains("hello"));
        stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(2), server).await.unwrap().unwrap().unwrap();
    }
}
