//! Who calls, for which wallet, and whether they may.
//!
//! In key mode a key that is not bound to a wallet is answered 403, whether or not that wallet exists: a caller learns
//! nothing about the wallets of others.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bitcoin::Network;

use super::api::problems::OPERATOR;
use super::client::Client;
use super::config::Mode;
use super::endpoint::{About, Documented};
use super::limits::Registrar;
use super::problem::Problem;
use super::{HttpState, local};
use crate::flows::keys::{self, Caller, Scope};
use crate::flows::values::WalletKeys;
use crate::flows::{Code, Error, register};
use crate::ids::{KeyId, WalletId};

/// The headers that name a wallet.
pub const WALLET_HEADERS: [&str; 3] = ["xpub-van", "xpub-col", "master-fingerprint"];
/// Parsed wallets that are remembered: reading two keys costs more than most calls do otherwise.
const REMEMBERED: usize = 10_000;

/// What an endpoint asks of a key.
pub trait Needs: Send + Sync + 'static {
    const SCOPE: Scope;
}

macro_rules! scopes {
    ($($name:ident => $scope:ident),+) => {
        $(
            #[doc = concat!("The endpoint asks for the scope of [`Scope::", stringify!($scope), "`].")]
            pub struct $name;
            impl Needs for $name {
                const SCOPE: Scope = Scope::$scope;
            }
        )+
    };
}

scopes!(ToRead => Read, ToReceive => Receive, ToSend => Send, ToLook => AdminRead, ToAdminister => AdminWrite);

/// The registered wallet that a call is for, by a caller who may make the call.
pub struct Wallet<S> {
    pub keys: Arc<WalletKeys>,
    pub id: WalletId,
    needs: PhantomData<S>,
}

impl<S: Needs> FromRequestParts<HttpState> for Wallet<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        let (keys, id) = admit(state, parts, S::SCOPE).await?;
        Ok(Self { keys, id, needs: PhantomData })
    }
}

/// Somebody who would consent by a key, and the registered wallet that the call is for. Whether the key may spend is for the flow to say.
pub struct Spender {
    pub keys: Arc<WalletKeys>,
    pub id: WalletId,
    key: Option<KeyId>,
}

impl Spender {
    /// The key that was sent.
    ///
    /// # Errors
    /// When there was none.
    pub fn key(&self) -> Result<&KeyId, Problem> {
        self.key.as_ref().ok_or_else(|| Problem::plain(Code::SpendingNotGranted))
    }
}

impl FromRequestParts<HttpState> for Spender {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        // Where the wallet headers are believed, they consent to nothing: a key that is sent is looked at there, too.
        let is_sent = parts.headers.contains_key(header::AUTHORIZATION);
        let mode = if is_sent { Mode::Key } else { state.mode };
        let caller = authenticate(state, mode, parts, Scope::Send).await?;
        let (keys, id) = enter(state, &parts.headers, caller.as_ref()).await?;
        Ok(Self { keys, id, key: caller.map(|caller| caller.key) })
    }
}

/// Lets a call for a registered wallet in.
///
/// # Errors
/// When the caller is unknown, may not do this, calls too often, or the headers name no wallet.
pub async fn admit(state: &HttpState, parts: &Parts, scope: Scope) -> Result<Named, Problem> {
    let caller = authenticate(state, state.mode, parts, scope).await?;
    enter(state, &parts.headers, caller.as_ref()).await
}

/// The wallet that the headers name, if it is registered and the caller may act for it.
async fn enter(state: &HttpState, headers: &HeaderMap, caller: Option<&Caller>) -> Result<Named, Problem> {
    let (keys, id) = named(state, headers)?;
    if let Some(caller) = caller
        && !keys::is_bound(&state.flows, &caller.key, &id).await?
    {
        return Err(Problem::new(
            Code::Forbidden,
            "this key is not bound to this wallet; if the wallet is new, POST /wallet/register first",
        ));
    }
    register::require(&state.flows, &keys).await?;
    state.limits.wallet(&id)?;
    Ok((keys, id))
}

/// The wallet that the headers name. Where they alone are believed, only a program of this machine may name one.
fn named(state: &HttpState, headers: &HeaderMap) -> Result<Named, Problem> {
    if state.mode == Mode::Wallet {
        local::check(headers, &state.cors_origins)
            .map_err(|(name, why)| Problem::field(Code::NotLocal, name.clone(), format!("the header {name} {why}")))?;
    }
    state.wallets.named(headers, state.flows.network())
}

/// Somebody who may register a wallet, and the wallet.
pub struct Registrant {
    pub keys: Arc<WalletKeys>,
    /// The key that the wallet will be bound to.
    pub key: Option<KeyId>,
}

impl FromRequestParts<HttpState> for Registrant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        let caller = authenticate(state, state.mode, parts, Scope::Register).await?;
        let (keys, id) = named(state, &parts.headers)?;
        state.limits.wallet(&id)?;
        let key = caller.map(|caller| caller.key);
        if !register::is_known(&state.flows, &keys).await? {
            let client = || Client::of(&parts.headers, &parts.extensions, state.believes_proxy);
            let by = key.clone().map_or_else(|| Registrar::Client(client()), Registrar::Key);
            state.limits.registration(&by)?;
        }
        Ok(Self { keys, key })
    }
}

/// The operator. No wallet headers stand for him: he shows a key in every mode, or calls over the socket of this machine, which lets
/// nobody in but whoever runs the gateway.
pub struct Operator<S> {
    /// Who it is, for the log of events: the id of his key, or that he called over the socket.
    pub by: String,
    needs: PhantomData<S>,
}

impl<S: Needs> FromRequestParts<HttpState> for Operator<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        let by = match parts.extensions.get::<SocketPeer>() {
            Some(peer) => peer.to_string(),
            None => by_key(state, parts, S::SCOPE).await?.key.to_string(),
        };
        Ok(Self { by, needs: PhantomData })
    }
}

impl<S: Needs> Documented for Operator<S> {
    fn describe(about: &mut About) {
        about.scope = Some(S::SCOPE);
        about.may_answer(OPERATOR);
    }
}

/// Somebody who called over the socket of this machine, or from this process. Only the server of the socket says so of a request; what
/// a client sends can't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketPeer {
    /// Empty: the system did not tell.
    pub uid: Option<u32>,
}

impl fmt::Display for SocketPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.uid {
            Some(uid) => write!(f, "socket:{uid}"),
            None => f.write_str("socket"),
        }
    }
}

/// `None` where the wallet headers alone are believed.
async fn authenticate(state: &HttpState, mode: Mode, parts: &Parts, scope: Scope) -> Result<Option<Caller>, Problem> {
    match mode {
        Mode::Wallet => Ok(None),
        Mode::Key => by_key(state, parts, scope).await.map(Some),
    }
}

async fn by_key(state: &HttpState, parts: &Parts, scope: Scope) -> Result<Caller, Problem> {
    let secret = presented(&parts.headers).ok_or_else(|| Problem::plain(Code::Unauthorized))?;
    let unknown = || Problem::new(Code::Unauthorized, "this API key is not in force");
    // What can't be a key is not looked for.
    if !keys::could_be_key(&secret) {
        return Err(unknown());
    }
    let guess = state.guesses.begin(Client::of(&parts.headers, &parts.extensions, state.believes_proxy), &secret)?;
    let Some(caller) = keys::authenticate(&state.flows, &secret).await? else {
        guess.was_wrong();
        return Err(unknown());
    };
    guess.was_right();
    state.limits.key(&caller.key)?;
    if caller.may(scope) {
        return Ok(caller);
    }
    Err(Problem::new(Code::Forbidden, format!("this needs a key with the scope {scope}")))
}

/// The key of the Authorization header: the token of Bearer, or the password of Basic. Never one from a query, which ends up in logs.
fn presented(headers: &HeaderMap) -> Option<String> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let value = all.next()?.to_str().ok()?;
    if all.next().is_some() {
        return None;
    }
    let (scheme, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim();
    let secret = if scheme.eq_ignore_ascii_case("bearer") {
        rest.to_owned()
    } else if scheme.eq_ignore_ascii_case("basic") {
        let decoded = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
        decoded.split_once(':')?.1.to_owned()
    } else {
        return None;
    };
    (!secret.is_empty()).then_some(secret)
}

/// A wallet's keys, and the id that follows from them.
pub type Named = (Arc<WalletKeys>, WalletId);

/// Wallets by the headers that name them, parsed once.
#[derive(Default)]
pub struct Wallets {
    known: Mutex<HashMap<[String; 3], Named>>,
}

impl Wallets {
    fn named(&self, headers: &HeaderMap, network: Network) -> Result<Named, Problem> {
        let [van, col, fingerprint] = WALLET_HEADERS;
        let triple = [one(headers, van)?, one(headers, col)?, one(headers, fingerprint)?];
        if let Some((keys, id)) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&triple) {
            return Ok((Arc::clone(keys), id.clone()));
        }
        let keys = WalletKeys::parse(&triple[0], &triple[1], &triple[2], network).map_err(Error::from)?;
        let found = (Arc::new(keys.clone()), keys.id());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(triple, found.clone());
        Ok(found)
    }
}

/// The value of a header that must be there once.
fn one(headers: &HeaderMap, name: &'static str) -> Result<String, Problem> {
    let mut all = headers.get_all(name).iter();
    let Some(value) = all.next() else {
        return Err(Problem::field(Code::WalletHeadersMissing, name, format!("the header {name} is missing")));
    };
    let malformed = |why: &str| Problem::field(Code::InvalidKeys, name, format!("{name} {why}"));
    if all.next().is_some() {
        return Err(malformed("was sent more than once"));
    }
    value.to_str().map(|text| text.trim().to_owned()).map_err(|_| malformed("is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_key_comes_as_bearer_or_as_the_password_of_basic() {
        let key = |value: &str| presented(&with("authorization", &[value]));
        assert_eq!(key("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(key("bearer  abc ").as_deref(), Some("abc"));
        let basic = format!("Basic {}", BASE64_STANDARD.encode("anyone:a:b"));
        assert_eq!(key(&basic).as_deref(), Some("a:b"));
        for wrong in ["Bearer", "Bearer ", "Digest abc", "Basic !!!", "abc"] {
            assert_eq!(key(wrong), None, "{wrong}");
        }
        assert_eq!(presented(&with("authorization", &["Bearer a", "Bearer b"])), None);
    }

    #[test]
    fn a_missing_header_is_not_a_malformed_one() {
        let wallets = Wallets::default();
        let named = |headers: &HeaderMap| wallets.named(headers, Network::Regtest).map(|_| ()).unwrap_err();
        assert_eq!(named(&HeaderMap::new()).code, Code::WalletHeadersMissing);
        assert_eq!(named(&with("xpub-van", &["a", "b"])).code, Code::InvalidKeys);
        let mut headers = with("xpub-van", &["../../etc/passwd"]);
        headers.insert("xpub-col", "x".parse().unwrap());
        assert_eq!(named(&headers).field.as_deref(), Some("master-fingerprint"));
        headers.insert("master-fingerprint", "1f5bd7df".parse().unwrap());
        let problem = named(&headers);
        assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidKeys, Some("xpub-van")));
    }
}
