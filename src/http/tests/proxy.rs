//! What is written down of a call at the path that only this process knows.

use std::io;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// Keeps a log in memory.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Kept {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn call(method: &str, path: &str, body: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap()
}

#[tokio::test]
async fn neither_log_nor_problem_names_the_private_path() {
    let api = api(Config::default()).await;
    let own = api.own_proxy.expose().to_owned();
    let (_, token) = own.rsplit_once('/').unwrap();
    assert!(token.len() == 64 && !format!("{:?}", api.own_proxy).contains(token));
    let kept = Kept::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(kept.clone()).finish();
    let listening = tracing::subscriber::set_default(subscriber);
    let info = r#"{"jsonrpc":"2.0","id":"7","method":"server.info"}"#;
    let answer = api.ask(call("POST", &own, info)).await;
    assert_eq!((answer.status.as_u16(), &answer.body["result"]["protocol_version"]), (200, &json!("0.2")));
    api.ask(call("POST", &own, "{")).await;
    let wrong = api.ask(call("GET", &own, "")).await;
    assert_eq!((code(&wrong), &wrong.body["instance"]), ((405, "method_not_allowed"), &json!("/json-rpc/own/{token}")));
    let guessed = api.ask(call("POST", &own.replace(token, "guess"), info)).await;
    assert_eq!((code(&guessed), &guessed.body["instance"]), ((404, "not_found"), &json!("/json-rpc/own/{token}")));
    drop(listening);
    let log = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    assert!(log.matches("answered").count() == 4 && log.contains("/json-rpc/own/{token}"), "{log}");
    assert!(!log.contains(token), "{log}");
}
