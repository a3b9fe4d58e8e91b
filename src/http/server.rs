//! The accept loop. It is our own because a gateway must drop clients that are half open, slow, or too many.

use std::future::Future;
use std::io::{self, Write};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::util::MapRequest;

use super::client::Peer;
use super::config::{Config, DRAIN_TIMEOUT, HEADER_TIMEOUT, WRITE_TIMEOUT};
use super::problem::{Problem, entry};
use super::slow::DropSlowReaders;
use super::trace::TraceId;
use crate::flows::Code;

/// After the system refused to accept (out of file descriptors, say), trying again at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    let most = config.max_connections.max(1);
    let places = Arc::new(Semaphore::new(most as usize));
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
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                tokio::spawn(connection((stream, peer), router.clone(), stopping.clone(), place));
            }
            Err(_full) => turn_away(stream),
        }
    }
    drop(listener);
    // Nobody listens when every connection is gone already.
    let _nobody_left = stop.send(true);
    if tokio::time::timeout(DRAIN_TIMEOUT, places.acquire_many(most)).await.is_err() {
        tracing::warn!("connections were still open when time was up; they are cut");
    }
    Ok(())
}

async fn connection(
    (stream, peer): (TcpStream, IpAddr),
    router: Router,
    mut stopping: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let io = TokioIo::new(DropSlowReaders::new(stream, WRITE_TIMEOUT));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).half_close(false);
    let service = MapRequest::new(router, move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request
    });
    let mut conn = pin!(http.serve_connection(io, TowerToHyperService::new(service)));
    let asked_to_stop = async move { stopping.wait_for(|stop| *stop).await.is_ok() };
    let ended = tokio::select! {
        ended = conn.as_mut() => ended,
        _ = asked_to_stop => {
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
        let router = Router::new().route("/", get(|| async { "hello" }));
        let server = tokio::spawn(async move {
            let config = Config { max_connections, ..Config::default() };
            serve(listener, router, &config, async { drop(stopped.await) }).await
        });
        (address, stop, server)
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
        let mut first = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut first).await.starts_with("HTTP/1.1 200"));
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
    async fn a_stop_does_not_wait_for_idle_connections() {
        let (address, stop, server) = started(4).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut idle).await.contains("hello"));
        stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(2), server).await.unwrap().unwrap().unwrap();
    }
}
