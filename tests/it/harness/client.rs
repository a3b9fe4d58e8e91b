//! One wallet's owner, who calls over HTTP as an integrator does. Every answer is held against the document of the API.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::document;
use super::gateway::{LOOK_AGAIN, PATIENCE};
use super::rig::Client;

/// Everything that was answered, for whoever looks for what must not be in it.
pub type Transcript = Arc<Mutex<Vec<String>>>;

#[derive(Clone)]
pub struct Caller {
    pub wallet: Arc<Client>,
    pub transcript: Transcript,
    base: String,
    http: reqwest::Client,
    authorization: Option<String>,
    names_wallet: bool,
}

/// One call. What is not said is as usual: the wallet's headers, the caller's key, no body.
#[derive(Clone)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub body: Option<Vec<u8>>,
    pub headers: Vec<(&'static str, String)>,
    /// A status of 500 or more that is meant to be answered.
    pub expects: Option<u16>,
}

#[derive(Clone, Debug)]
pub struct Answer {
    /// What was asked, for messages.
    pub asked: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
    /// The same, with signs in the place of what is no text.
    pub text: String,
    /// Null when the text is not JSON.
    pub body: Value,
}

impl Call {
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: None, headers: Vec::new(), expects: None }
    }

    /// As clients post that have nothing to say.
    pub fn post_empty(path: impl Into<String>) -> Self {
        Self { method: Method::POST, ..Self::get(path) }.header("content-type", "application/x-www-form-urlencoded")
    }

    pub fn post(path: impl Into<String>, body: &Value) -> Self {
        Self::post_raw(path, body.to_string())
    }

    pub fn post_raw(path: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        let call = Self { method: Method::POST, body: Some(body.into()), ..Self::get(path) };
        call.header("content-type", "application/json")
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn idempotent(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    /// Asks a begin for its answer as an object.
    pub fn for_object(self) -> Self {
        self.header("accept", "application/json; profile=object")
    }

    pub fn expecting(self, status: u16) -> Self {
        Self { expects: Some(status), ..self }
    }
}

impl Caller {
    pub fn new(base: &str, wallet: Client) -> Self {
        Self {
            wallet: Arc::new(wallet),
            transcript: Transcript::default(),
            base: base.to_owned(),
            http: reqwest::Client::builder().no_proxy().build().expect("an HTTP client"),
            authorization: None,
            names_wallet: true,
        }
    }

    pub fn with_key(&self, key: &str) -> Self {
        self.with_authorization(&format!("Bearer {key}"))
    }

    pub fn with_authorization(&self, value: &str) -> Self {
        Self { authorization: Some(value.to_owned()), ..self.clone() }
    }

    /// The same caller without the headers that name the wallet.
    pub fn without_wallet(&self) -> Self {
        Self { names_wallet: false, ..self.clone() }
    }

    /// The headers that name the wallet.
    pub fn wallet_headers(&self) -> [(&'static str, String); 3] {
        let xpubs = self.wallet.signer.wallet_xpubs();
        [
            ("xpub-van", xpubs.xpub_van.to_string()),
            ("xpub-col", xpubs.xpub_col.to_string()),
            ("master-fingerprint", xpubs.master_fingerprint.to_string()),
        ]
    }

    /// Sends a call. An answer of 500 or more that nobody expects fails the test, and so does one that the document does not have.
    pub async fn call(&self, call: Call) -> Answer {
        let answer = self.send(&call).await;
        if answer.status >= 500 {
            assert_eq!(call.expects, Some(answer.status), "{answer}");
        }
        document::check(&call.method, &call.path, &answer);
        answer
    }

    async fn send(&self, call: &Call) -> Answer {
        let mut headers = HeaderMap::new();
        let mut add = |name: &'static str, value: &str| {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header's value");
            headers.append(HeaderName::from_static(name), value);
        };
        if self.names_wallet {
            for (name, value) in self.wallet_headers() {
                add(name, &value);
            }
        }
        if let Some(value) = &self.authorization {
            add("authorization", value);
        }
        for (name, value) in &call.headers {
            add(name, value);
        }
        let mut request =
            self.http.request(call.method.clone(), format!("{}{}", self.base, call.path)).headers(headers);
        request = match &call.body {
            Some(body) => request.body(body.clone()),
            None if call.method == Method::POST => request.header("content-length", "0"),
            None => request,
        };
        let response = request.send().await.unwrap_or_else(|error| panic!("{} {}: {error:?}", call.method, call.path));
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.expect("an answer arrives").to_vec();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{headers:?}\n{text}"));
        Answer {
            asked: shortened(format!("{} {} {}", call.method, call.path, body_text(call))),
            status: status_number(status),
            headers,
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            bytes,
            text,
        }
    }

    pub async fn get(&self, path: impl Into<String>) -> Answer {
        self.call(Call::get(path)).await
    }

    pub async fn post(&self, path: impl Into<String>, body: Value) -> Answer {
        self.call(Call::post(path, &body)).await
    }

    pub async fn post_empty(&self, path: impl Into<String>) -> Answer {
        self.call(Call::post_empty(path)).await
    }

    /// Signs a PSBT that the gateway handed out, as a bare string or as an object.
    pub fn sign(&self, begun: &Value) -> String {
        let psbt = begun.as_str().or_else(|| begun["psbt"].as_str()).unwrap_or_else(|| panic!("no PSBT in {begun}"));
        self.wallet.sign(psbt)
    }

    /// Reads a path until what it answers is as wanted.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let body = self.get(path).await.ok();
            if wanted(&body) {
                return body;
            }
            assert!(started.elapsed() < PATIENCE, "GET {path} stayed at {body}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self}");
        self.body.clone()
    }

    /// The body of a refusal with this status and code.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> Value {
        assert_eq!((self.status, self.code()), (status, code), "{self}");
        self.body.clone()
    }

    pub fn code(&self) -> &str {
        self.body["error"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {} {}", self.asked, self.status, self.text)
    }
}

fn status_number(status: StatusCode) -> u16 {
    status.as_u16()
}

fn body_text(call: &Call) -> String {
    call.body.as_deref().map(|body| String::from_utf8_lossy(body).into_owned()).unwrap_or_default()
}

fn shortened(text: String) -> String {
    const MOST: usize = 600;
    if text.chars().count() <= MOST { text } else { text.chars().take(MOST).chain(['…']).collect() }
}
