//! A JSON-RPC server that says whatever a test wants said.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What the server says to one call.
pub enum Canned {
    Result(Value),
    Error(i64, &'static str),
    /// These bytes with this status, in place of the whole answer.
    Raw(u16, String),
    /// Takes the request, and never answers.
    Silence,
}

type Script = dyn Fn(&str, &Value) -> Canned + Send + Sync;

pub struct CannedServer {
    pub url: String,
    task: JoinHandle<()>,
}

impl CannedServer {
    /// The closure is given the method and the parameters of each call, one by one also those of a batch.
    pub async fn start(script: impl Fn(&str, &Value) -> Canned + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let script: Arc<Script> = Arc::new(script);
        let app = Router::new().fallback(answer).with_state(script);
        let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("serves") });
        Self { url, task }
    }
}

impl Drop for CannedServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(script): State<Arc<Script>>, body: String) -> Response {
    let request: Value = serde_json::from_str(&body).expect("a JSON request");
    let calls = request.as_array().cloned().unwrap_or_else(|| vec![request.clone()]);
    let mut answers = Vec::new();
    for call in &calls {
        match script(call["method"].as_str().expect("a method"), &call["params"]) {
            Canned::Result(result) => answers.push(json!({ "result": result, "error": null, "id": call["id"] })),
            Canned::Error(code, message) => {
                answers
                    .push(json!({ "result": null, "error": { "code": code, "message": message }, "id": call["id"] }));
            }
            Canned::Raw(status, body) => return (status_of(status), body).into_response(),
            Canned::Silence => std::future::pending().await,
        }
    }
    if request.is_array() {
        return (StatusCode::OK, Value::Array(answers).to_string()).into_response();
    }
    let status = if answers[0]["error"].is_null() { 200 } else { 500 };
    (status_of(status), answers[0].to_string()).into_response()
}

fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("a status")
}
