//! The gateway's own client of other people's consignment proxies.
//!
//! Where it calls stands in invoices, which anybody can write. So it calls only the public network, and what the operator has named:
//! addresses in the text are looked at before every call, and names are resolved by a resolver that answers nothing else. It follows
//! no redirect, keeps no connection, and believes little of what it is told.

mod answer;
mod endpoint;
mod form;
mod guard;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, RequestBuilder, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::answer::{Reply, cleaned};
use self::endpoint::{Allowed, Endpoint};
use self::form::Form;
use self::guard::{NotPublic, PublicOnly};
use crate::ports::courier::{Brought, Courier, Parcel};
use crate::ports::{PortError, root_cause};

const SERVICE: &str = "the payee's proxy";
const USER_AGENT: &str = concat!("sluice/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Nothing to wait for would be no call at all; and who waits for a stranger has others to serve.
const LONGEST_TIMEOUT_MS: u64 = 600_000;
/// An answer says little more than yes or no.
const LEAST_ANSWER_BYTES: usize = 1_024;
const MOST_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// What a stranger is told the call is; its answer is the only one on its connection.
const CALL_ID: &str = "1";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Hosts, and ports of hosts, that are called although they are not public.
    pub allow_private: Vec<String>,
    /// How long a call may take, with all that it brings.
    pub timeout_ms: u64,
    /// The longest answer that is read.
    pub max_answer_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { allow_private: Vec::new(), timeout_ms: 10_000, max_answer_bytes: 64 * 1024 }
    }
}

impl Config {
    /// # Errors
    /// Which key can't be meant, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        Allowed::parse(&self.allow_private).map_err(|reason| ("allow_private", reason))?;
        if !(1..=LONGEST_TIMEOUT_MS).contains(&self.timeout_ms) {
            return Err(("timeout_ms", format!("must be from 1 to {LONGEST_TIMEOUT_MS}")));
        }
        if !(LEAST_ANSWER_BYTES..=MOST_ANSWER_BYTES).contains(&self.max_answer_bytes) {
            return Err(("max_answer_bytes", format!("must be from {LEAST_ANSWER_BYTES} to {MOST_ANSWER_BYTES}")));
        }
        Ok(())
    }
}

/// Brings parcels over HTTP.
pub struct HttpCourier {
    allowed: Allowed,
    max_answer_bytes: usize,
    /// Reaches only the public network.
    guarded: Client,
    /// For what the operator has named, wherever its name leads.
    trusting: Client,
}

impl HttpCourier {
    /// # Errors
    /// When the configuration can't be meant.
    pub fn new(config: &Config) -> Result<Self, PortError> {
        config.check().map_err(|(key, reason)| misconfigured(format!("assets.courier.{key}: {reason}")))?;
        let build = |builder: ClientBuilder| {
            builder.build().map_err(|error| misconfigured(format!("no HTTP client: {}", deepest(&error))))
        };
        Ok(Self {
            allowed: Allowed::parse(&config.allow_private).map_err(misconfigured)?,
            max_answer_bytes: config.max_answer_bytes,
            guarded: build(client(config).dns_resolver(Arc::new(PublicOnly)))?,
            trusting: build(client(config))?,
        })
    }

    /// Where to call, and how.
    fn post(&self, endpoint: &str) -> Result<RequestBuilder, PortError> {
        let Endpoint { url, is_allowed } = Endpoint::parse(endpoint, &self.allowed).map_err(misconfigured)?;
        let client = if is_allowed { &self.trusting } else { &self.guarded };
        Ok(client.post(url))
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Reply, PortError> {
        let response = request.send().await.map_err(|error| transport(&error))?;
        answer::read(response, self.max_answer_bytes).await
    }
}

fn client(config: &Config) -> ClientBuilder {
    let timeout = Duration::from_millis(config.timeout_ms);
    Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout)
        // What a redirect names was not looked at.
        .redirect(Policy::none())
        // A proxy of the environment would resolve names in our place.
        .no_proxy()
        .referer(false)
        // A stranger holds nothing of ours open between two calls.
        .pool_max_idle_per_host(0)
}

#[async_trait]
impl Courier for HttpCourier {
    fn check(&self, endpoint: &str) -> Result<(), String> {
        Endpoint::parse(endpoint, &self.allowed).map(drop)
    }

    async fn bring(&self, endpoint: &str, parcel: &Parcel) -> Result<Brought, PortError> {
        let request = self.post(endpoint)?;
        let mut params = json!({ "recipient_id": parcel.recipient, "txid": parcel.txid.to_string() });
        if let (Some(vout), Some(params)) = (parcel.vout, params.as_object_mut()) {
            params.insert("vout".to_owned(), Value::from(vout));
        }
        let params = params.to_string();
        let texts = [("jsonrpc", "2.0"), ("id", CALL_ID), ("method", "consignment.post"), ("params", &params)];
        let Form { content_type, body } = Form::new(&texts, &parcel.bytes);
        match self.ask(request.header(header::CONTENT_TYPE, content_type).body(body)).await? {
            // False says that the same is there already.
            Ok(Value::Bool(_)) => Ok(Brought::Taken),
            Ok(other) => Err(unexpected(&other)),
            Err(no) if no.is_about_the_parcel() => Ok(Brought::Refused { reason: no.words() }),
            Err(no) => Err(no.nonsense()),
        }
    }

    async fn answer(&self, endpoint: &str, recipient: &str) -> Result<Option<bool>, PortError> {
        let params = json!({ "recipient_id": recipient });
        let call = json!({ "jsonrpc": "2.0", "id": CALL_ID, "method": "ack.get", "params": params });
        match self.ask(self.post(endpoint)?.json(&call)).await? {
            Ok(Value::Null) => Ok(None),
            Ok(Value::Bool(word)) => Ok(Some(word)),
            Ok(other) => Err(unexpected(&other)),
            Err(no) if no.is_nothing_there() => Ok(None),
            Err(no) => Err(no.nonsense()),
        }
    }
}

/// Why there is no answer. Names no address, but one that was refused.
fn transport(error: &reqwest::Error) -> PortError {
    if let Some(refused) = causes(error).find_map(|cause| cause.downcast_ref::<NotPublic>()) {
        return misconfigured(format!("{refused}, and assets.courier.allow_private does not name it"));
    }
    let reason = if error.is_timeout() { "no answer in time".to_owned() } else { deepest(error) };
    PortError::Unreachable { service: SERVICE, reason }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The innermost cause, which does not repeat the URL. It may quote a certificate, and so a stranger.
fn deepest(error: &(dyn Error + 'static)) -> String {
    cleaned(&root_cause(error).to_string())
}

fn unexpected(result: &Value) -> PortError {
    nonsense(format!("an unexpected result: {}", cleaned(&result.to_string())))
}

fn nonsense(reason: String) -> PortError {
    PortError::Nonsense { service: SERVICE, reason }
}

fn misconfigured(reason: String) -> PortError {
    PortError::Misconfigured { service: SERVICE, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_meant_is_refused_by_its_key() {
        let refused = |config: Config| config.check().unwrap_err().0;
        assert_eq!(Config::default().check(), Ok(()));
        assert_eq!(
            refused(Config { allow_private: vec!["10.0.0.0/8".to_owned()], ..Config::default() }),
            "allow_private"
        );
        assert_eq!(refused(Config { timeout_ms: 0, ..Config::default() }), "timeout_ms");
        assert_eq!(refused(Config { timeout_ms: u64::MAX, ..Config::default() }), "timeout_ms");
        assert_eq!(refused(Config { max_answer_bytes: 0, ..Config::default() }), "max_answer_bytes");
        assert!(HttpCourier::new(&Config { timeout_ms: 0, ..Config::default() }).is_err());
    }

    #[tokio::test]
    async fn an_address_that_is_not_public_is_refused_at_every_call() {
        let courier = HttpCourier::new(&Config::default()).unwrap();
        let endpoint = format!("rpc://{}:9/json-rpc", "0x7f.1");
        assert!(courier.check(&endpoint).is_err());
        let refused = courier.answer(&endpoint, "r").await.unwrap_err();
        assert!(matches!(refused, PortError::Misconfigured { .. }), "{refused}");
    }
}
