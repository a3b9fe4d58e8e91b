//! A wire to PostgreSQL that is cut where a test wants it cut.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

/// What happens to a commit on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    Nothing,
    /// The commit is not delivered, and the wire is dead.
    BeforeCommit,
    /// The commit is done, its answer is lost, and the wire is dead.
    AfterCommit,
    /// As `AfterCommit`, and nobody gets through any more.
    AfterCommitForGood,
    /// Nobody gets through.
    Everything,
}

pub struct Proxy {
    port: u16,
    cut: Arc<AtomicU8>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Passes everything on to the server behind a socket.
    pub async fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let cut = Arc::new(AtomicU8::new(0));
        let task = tokio::spawn(accept(listener, socket, Arc::clone(&cut)));
        Self { port, cut, task }
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://sluice@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// The next commit meets this.
    pub fn cut(&self, cut: Cut) {
        self.cut.store(cut as u8, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn is(cut: &AtomicU8, kind: Cut) -> bool {
    cut.load(Ordering::SeqCst) == kind as u8
}

async fn accept(listener: TcpListener, socket: PathBuf, cut: Arc<AtomicU8>) {
    loop {
        let (client, _) = listener.accept().await.expect("a connection");
        if is(&cut, Cut::Everything) {
            continue;
        }
        // A server that is away hangs up on its clients as well.
        let Ok(server) = UnixStream::connect(&socket).await else { continue };
        tokio::spawn(carry(client, server, Arc::clone(&cut)));
    }
}

/// Carries bytes both ways until one side ends, or the wire is cut.
async fn carry(mut client: TcpStream, mut server: UnixStream, cut: Arc<AtomicU8>) {
    let mut up = vec![0; 64 * 1024];
    let mut down = vec![0; 64 * 1024];
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                let commits = up[..count].windows(6).any(|word| word == b"COMMIT");
                if is(&cut, Cut::Everything) {
                    return;
                }
                if commits && is(&cut, Cut::BeforeCommit) {
                    cut.store(Cut::Nothing as u8, Ordering::SeqCst);
                    return;
                }
                if server.write_all(&up[..count]).await.is_err() {
                    return;
                }
                if commits && (is(&cut, Cut::AfterCommit) || is(&cut, Cut::AfterCommitForGood)) {
                    let after = if is(&cut, Cut::AfterCommit) { Cut::Nothing } else { Cut::Everything };
                    cut.store(after as u8, Ordering::SeqCst);
                    // The server has answered: it has committed.
                    let _answer = server.read(&mut down).await;
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&down[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
