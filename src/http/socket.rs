//! The operator's calls over a socket of this machine. Whoever may open it is believed: the gateway's own user, and root.
//!
//! One gateway has it at a time. Its owner holds a lock on a file beside it, which the system gives back when the process is gone, however
//! it went; so a socket that a killed process has left behind is replaced, and that of a living one is not.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::util::MapRequest;

use super::auth::SocketPeer;
use super::config::{DRAIN_TIMEOUT, HEADER_TIMEOUT};

/// Only its owner may open it, and make it.
const MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
const ROOT: u32 = 0;
/// An operator needs few; a script that runs wild must not use all files up.
const MOST_CONNECTIONS: u32 = 32;

/// The socket, made and held.
pub struct OperatorSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Who runs the gateway.
    owner: u32,
    _lock: File,
}

impl OperatorSocket {
    /// Makes the socket. `None` when another process that lives has it.
    ///
    /// # Errors
    /// When it can't be made, or something else is in its place.
    pub fn bind(path: &Path) -> io::Result<Option<Self>> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
        }
        let lock = File::options().create(true).truncate(false).write(true).mode(MODE).open(with(path, ".lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else in its place"));
        }
        // Nobody can open it under its name before it has its mode.
        let draft = with(path, ".new");
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&draft)?;
        fs::set_permissions(&draft, Permissions::from_mode(MODE))?;
        fs::rename(&draft, path)?;
        let owner = fs::symlink_metadata(path)?.uid();
        Ok(Some(Self { listener, path: path.to_owned(), owner, _lock: lock }))
    }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Modes can be changed, and folders handed over; who calls can't be.
const fn admits(owner: u32, caller: u32) -> bool {
    caller == owner || caller == ROOT
}

/// Serves until `shutdown` is done, then lets calls in flight finish for a while, and takes the socket away.
pub async fn serve_operator(socket: OperatorSocket, router: Router, shutdown: impl Future<Output = ()> + Send) {
    let OperatorSocket { listener, path, owner, _lock: lock } = socket;
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS as usize));
    let (stop, stopping) = watch::channel(false);
    let mut shutdown = pin!(shutdown);
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let stream = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the operator's socket could not be accepted");
                    tokio::time::sleep(super::server::ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        match stream.peer_cred().map(|caller| caller.uid()) {
            Ok(uid) if admits(owner, uid) => {
                let peer = SocketPeer { uid: Some(uid) };
                tokio::spawn(connection(stream, peer, router.clone(), stopping.clone(), place));
            }
            Ok(uid) => tracing::warn!(uid, "another user of this machine called the operator's socket; it is cut"),
            Err(error) => tracing::warn!(%error, "it is not known who called the operator's socket; it is cut"),
        }
    }
    drop(listener);
    if let Err(error) = fs::remove_file(&path) {
        tracing::warn!(%error, path = %path.display(), "the operator's socket could not be removed");
    }
    // Nobody listens when every connection is gone already.
    let _nobody_left = stop.send(true);
    if tokio::time::timeout(DRAIN_TIMEOUT, places.acquire_many(MOST_CONNECTIONS)).await.is_err() {
        tracing::warn!("calls of the operator were still open when time was up; they are cut");
    }
    drop(lock);
}

async fn connection(
    stream: UnixStream,
    peer: SocketPeer,
    router: Router,
    mut stopping: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).half_close(false);
    let service = MapRequest::new(router, move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request
    });
    let mut conn = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
    let asked_to_stop = async move { stopping.wait_for(|stop| *stop).await.is_ok() };
    let ended = tokio::select! {
        ended = conn.as_mut() => ended,
        _ = asked_to_stop => {
            conn.as_mut().graceful_shutdown();
            conn.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the operator's socket ended early");
    }
    drop(place);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_and_root_are_let_in_and_nobody_else() {
        assert!(admits(1_000, 1_000) && admits(1_000, 0) && admits(0, 0));
        assert!(!admits(1_000, 1_001) && !admits(0, 1_000));
    }

    #[tokio::test]
    async fn a_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = OperatorSocket::bind(&path).unwrap().expect("nobody has it");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(OperatorSocket::bind(&path).unwrap().is_none(), "it is in use");
        assert!(UnixStream::connect(&path).await.is_ok(), "and stays where it is");
        drop(first);
        assert!(OperatorSocket::bind(&path).unwrap().is_some(), "whoever had it is gone");
    }

    #[tokio::test]
    async fn a_file_in_its_place_is_nobodys_to_remove() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keep");
        fs::write(&path, "mine").unwrap();
        assert!(OperatorSocket::bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
