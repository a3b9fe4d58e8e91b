//! JSON-RPC over HTTP, and nothing about bitcoin: what was asked, what came back, or why nothing that can be believed did.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::map::{misconfigured, nonsense, refused_call, unreachable};
use super::wire::{Answer, Call, RpcError};
use super::{Config, MAX_RESPONSE_BYTES};
use crate::ports::{PortError, root_cause};
use crate::secret::Secret;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// bitcoind closes a connection that was idle for 30 s (`-rpcservertimeout`); we let go of it first.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(15);
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A cookie is about 80 bytes; a file that is much larger is something else.
const MAX_COOKIE_BYTES: usize = 1_024;

/// One call's answer: bitcoind's own yes (undecoded) or no.
pub(super) type Reply = Result<Box<RawValue>, RpcError>;

pub(super) struct Client {
    http: reqwest::Client,
    url: Url,
    credentials: Credentials,
    timeout: Duration,
}

enum Credentials {
    Password {
        user: String,
        password: Secret,
    },
    /// bitcoind writes a new cookie whenever it starts, so what was read is only good until it is refused.
    Cookie {
        file: PathBuf,
        last_read: Mutex<Option<Secret>>,
    },
}

impl Client {
    pub(super) fn new(config: &Config) -> Result<Self, PortError> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            // A scan waits for minutes in silence: this notices that the other machine is gone.
            .tcp_keepalive(KEEPALIVE)
            .redirect(reqwest::redirect::Policy::none())
            // The password goes to bitcoind, not to whatever proxy the environment names.
            .no_proxy()
            .build()
            .map_err(|error| misconfigured(format!("no HTTP client: {}", root_cause(&error))))?;
        Ok(Self {
            http,
            url: parse_url(&config.url)?,
            credentials: Credentials::of(config)?,
            timeout: Duration::from_millis(config.timeout_ms),
        })
    }

    /// Asks one thing. The inner result is bitcoind's own answer.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<Result<T, RpcError>, PortError> {
        self.call_within(call, self.timeout).await
    }

    pub(super) async fn call_within<T: DeserializeOwned>(
        &self,
        call: Call,
        timeout: Duration,
    ) -> Result<Result<T, RpcError>, PortError> {
        let body = self.post(&request(0, &call), timeout).await?;
        let answer = serde_json::from_str::<Answer>(&body.text).map_err(|_| body.not_rpc())?;
        match reply(answer, 0, body.status)? {
            Ok(raw) => decode(&raw).map(Ok),
            Err(no) => Ok(Err(no)),
        }
    }

    /// Asks one thing to which there is no expected no.
    pub(super) async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T, PortError> {
        self.call(call).await?.map_err(|no| refused_call(&no))
    }

    /// Asks many things in one message; bitcoind answers them one after the other. The replies are in the order asked.
    pub(super) async fn batch(&self, calls: &[Call]) -> Result<Vec<Reply>, PortError> {
        let requests: Vec<Value> = (0..).zip(calls).map(|(id, call)| request(id, call)).collect();
        let body = self.post(&Value::Array(requests), self.timeout).await?;
        let answers = serde_json::from_str::<Vec<Answer>>(&body.text).map_err(|_| body.not_batch())?;
        if answers.len() != calls.len() {
            return Err(nonsense(format!("{} answers to {} calls", answers.len(), calls.len())));
        }
        (0..).zip(answers).map(|(id, answer)| reply(answer, id, body.status)).collect()
    }

    async fn post(&self, request: &Value, timeout: Duration) -> Result<Body, PortError> {
        let first = self.send(request, timeout, &self.credentials.current().await?).await?;
        let response = if first.status() == StatusCode::UNAUTHORIZED && self.credentials.forget() {
            self.send(request, timeout, &self.credentials.current().await?).await?
        } else {
            first
        };
        match response.status() {
            StatusCode::UNAUTHORIZED => Err(misconfigured("the user or the password is wrong")),
            StatusCode::FORBIDDEN => Err(misconfigured("it does not allow this user or address to call")),
            _ => read(response).await,
        }
    }

    async fn send(&self, request: &Value, timeout: Duration, login: &Login) -> Result<Response, PortError> {
        self.http
            .post(self.url.clone())
            .basic_auth(&login.user, Some(login.password.expose()))
            .timeout(timeout)
            .json(request)
            .send()
            .await
            .map_err(transport)
    }
}

struct Login {
    user: String,
    password: Secret,
}

impl Credentials {
    fn of(config: &Config) -> Result<Self, PortError> {
        match (&config.cookie_file, &config.user, &config.password) {
            (Some(file), None, None) => Ok(Self::Cookie { file: file.clone(), last_read: Mutex::new(None) }),
            (None, Some(user), Some(password)) => Ok(Self::Password { user: user.clone(), password: password.clone() }),
            _ => Err(misconfigured("set either cookie_file, or user and password")),
        }
    }

    async fn current(&self) -> Result<Login, PortError> {
        match self {
            Self::Password { user, password } => Ok(Login { user: user.clone(), password: password.clone() }),
            Self::Cookie { file, last_read } => {
                let known = last_read.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let cookie = match known {
                    Some(cookie) => cookie,
                    None => read_cookie(file).await?,
                };
                let login = split_cookie(&cookie)?;
                *last_read.lock().unwrap_or_else(PoisonError::into_inner) = Some(cookie);
                Ok(login)
            }
        }
    }

    /// After a refusal: true when there may be a newer secret to try.
    fn forget(&self) -> bool {
        match self {
            Self::Password { .. } => false,
            Self::Cookie { last_read, .. } => {
                last_read.lock().unwrap_or_else(PoisonError::into_inner).take();
                true
            }
        }
    }
}

/// A missing cookie is no fault of the configuration: bitcoind removes it when it stops.
async fn read_cookie(file: &PathBuf) -> Result<Secret, PortError> {
    tokio::fs::read_to_string(file)
        .await
        .map(Secret::new)
        .map_err(|error| unreachable(format!("the cookie file can't be read: {}", error.kind())))
}

fn split_cookie(cookie: &Secret) -> Result<Login, PortError> {
    let text = cookie.expose().trim();
    match text.split_once(':') {
        Some((user, password)) if text.len() <= MAX_COOKIE_BYTES => {
            Ok(Login { user: user.to_owned(), password: Secret::new(password.to_owned()) })
        }
        _ => Err(unreachable("the cookie file holds no cookie (yet)")),
    }
}

/// A password inside the address would be printed with it, so there is no place for one.
fn parse_url(text: &str) -> Result<Url, PortError> {
    let url = Url::parse(text).map_err(|error| misconfigured(format!("url: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(misconfigured("url: it has to start with http:// or https:// and name a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(misconfigured("url: give user and password in their own fields"));
    }
    Ok(url)
}

/// Without a version, every bitcoind answers in the dialect it has always spoken.
fn request(id: u64, call: &Call) -> Value {
    json!({ "id": id, "method": call.method, "params": call.params })
}

struct Body {
    status: StatusCode,
    text: String,
}

impl Body {
    /// What an answer means that isn't JSON-RPC. bitcoind says "Work queue depth exceeded" like this, and so do proxies.
    fn not_rpc(&self) -> PortError {
        let status = self.status.as_u16();
        if self.status.is_server_error() {
            unreachable(format!("HTTP {status}"))
        } else if self.status.is_success() {
            nonsense("the answer is not of the form that was asked for")
        } else {
            misconfigured(format!("HTTP {status}: is this the RPC address of bitcoind?"))
        }
    }

    /// A batch is refused as a whole by one object, for example while bitcoind warms up.
    fn not_batch(&self) -> PortError {
        match serde_json::from_str::<Answer>(&self.text) {
            Ok(Answer { error: Some(no), .. }) => refused_call(&no),
            _ => self.not_rpc(),
        }
    }
}

async fn read(mut response: Response) -> Result<Body, PortError> {
    let status = response.status();
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(transport)? {
        if bytes.len() + chunk.len() > MAX_RESPONSE_BYTES {
            return Err(nonsense(format!("the answer is larger than {MAX_RESPONSE_BYTES} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    // What isn't text isn't JSON either; the caller says what that means for this status.
    Ok(Body { status, text: String::from_utf8(bytes).unwrap_or_default() })
}

fn reply(answer: Answer, asked: u64, status: StatusCode) -> Result<Reply, PortError> {
    let Answer { id, result, error } = answer;
    match error {
        None if !status.is_success() => Err(unreachable(format!("HTTP {}", status.as_u16()))),
        // A message that couldn't be read has no id.
        Some(no) if id.is_none() => Err(refused_call(&no)),
        _ if id != Some(asked) => Err(nonsense("the answer belongs to another call")),
        Some(no) => Ok(Err(no)),
        None => Ok(Ok(result.unwrap_or_else(|| RawValue::NULL.to_owned()))),
    }
}

pub(super) fn decode<T: DeserializeOwned>(raw: &RawValue) -> Result<T, PortError> {
    serde_json::from_str(raw.get()).map_err(|error| nonsense(format!("unexpected result: {error}")))
}

/// Names what went wrong on the way, without the address.
fn transport(error: reqwest::Error) -> PortError {
    if error.is_timeout() {
        return unreachable("no answer in time");
    }
    unreachable(root_cause(&error.without_url()).to_string())
}
