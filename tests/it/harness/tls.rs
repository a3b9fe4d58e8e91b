//! A server that speaks TLS in front of one that doesn't, as operators put one there.
//!
//! Its certificate is for this machine, valid for 100 years, and of an authority that only these tests know, whose key nobody has kept.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const CERTIFICATE: &[u8] = include_bytes!("tls/cert.pem");
const KEY: &[u8] = include_bytes!("tls/key.pem");

/// The authority's certificate: who trusts it trusts the server.
pub fn authority() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/harness/tls/ca.pem")
}

pub struct TlsFront {
    port: u16,
    serving: JoinHandle<()>,
}

impl TlsFront {
    /// In front of the server at this address.
    pub async fn of(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let serving = tokio::spawn(serve(listener, acceptor(), address.to_owned()));
        Self { port, serving }
    }

    /// Its host and port, by the name in its certificate.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn acceptor() -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(KEY).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they belong together");
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, address: String) {
    while let Ok((caller, _)) = listener.accept().await {
        let (acceptor, address) = (acceptor.clone(), address.clone());
        tokio::spawn(async move {
            // Whoever does not like the certificate hangs up.
            let Ok(mut caller) = acceptor.accept(caller).await else { return };
            let mut server = TcpStream::connect(address).await.expect("the server is there");
            // Callers may leave without a word.
            drop(copy_bidirectional(&mut caller, &mut server).await);
        });
    }
}
