//! The one table from a closed list of codes to what stands on the wire. A new code does not compile until it is here.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::flows::{Code, Error};

/// What the table says of one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub status: u16,
    /// The stable name: clients branch on it, so it is never renamed.
    pub name: &'static str,
    pub title: &'static str,
    /// Whether the same call may succeed later without being changed.
    pub retryable: bool,
    /// Seconds to wait before that, where a number makes sense.
    pub retry_after: Option<u32>,
    /// What the caller can do about it.
    pub advice: &'static str,
}

/// What a code means for whoever wants to try again.
#[derive(Clone, Copy)]
enum Again {
    /// The same call gives the same answer.
    Never,
    /// The same call may succeed later, after so many seconds.
    After(u32),
}

macro_rules! table {
    ($($code:ident => $status:literal, $name:literal, $title:literal, $again:expr, $advice:literal;)+) => {
        /// Every code, in the order of the table.
        pub const ALL: &[Code] = &[$(Code::$code),+];

        /// What stands on the wire for a code.
        #[must_use]
        pub const fn entry(code: Code) -> Entry {
            match code {
                $(Code::$code => row($status, $name, $title, $again, $advice),)+
            }
        }
    };
}

const fn row(status: u16, name: &'static str, title: &'static str, again: Again, advice: &'static str) -> Entry {
    let (retryable, retry_after) = match again {
        Again::Never => (false, None),
        Again::After(seconds) => (true, Some(seconds)),
    };
    Entry { status, name, title, retryable, retry_after, advice }
}

// 400: the client must change the call. 409: the call is fine, the state is not. 422: a header is malformed or contradicts.
// 501: not offered by this gateway. 503, 504: not now.
table! {
    InvalidRequest => 400, "invalid_request", "The request is not valid", Again::Never,
        "Correct the field that is named and call again.";
    InvalidKeys => 422, "invalid_keys", "The wallet headers are malformed", Again::Never,
        "Send account xpubs of depth 3 for this network and a fingerprint of 8 hexadecimal characters.";
    InvalidAddress => 400, "invalid_address", "The destination is not an address", Again::Never,
        "Check the destination with whoever gave it.";
    WrongNetwork => 400, "wrong_network", "The destination belongs to another network", Again::Never,
        "Use an address of the network that this gateway serves.";
    WalletHeadersMissing => 401, "wallet_headers_missing", "The wallet headers are missing", Again::Never,
        "Send xpub-van, xpub-col and master-fingerprint with every call.";
    WalletNotRegistered => 404, "wallet_not_registered", "The wallet is not registered", Again::Never,
        "Call POST /wallet/register first, with the same headers.";
    KeychainInUse => 409, "keychain_in_use", "A key belongs to another wallet", Again::Never,
        "Use a key of its own for each wallet, or ask the operator to release the other wallet.";
    Unauthorized => 401, "unauthorized", "An API key is needed", Again::Never,
        "Send a key that is in force as Authorization: Bearer, or as the password of Basic authentication.";
    Forbidden => 403, "forbidden", "The API key may not do this", Again::Never,
        "Use a key that has the scope and is bound to the wallet; the operator makes them.";
    NotLocal => 403, "not_local", "The call was not made on the gateway's machine", Again::Never,
        "This gateway believes wallet headers alone. Call it on its own machine, not through a proxy and not from a foreign web page; its operator asks for API keys with auth.mode = \"key\".";
    TooManyWallets => 409, "too_many_wallets", "The key has registered as many wallets as it may", Again::Never,
        "Release wallets that are no longer used, or ask the operator for another key or a larger policy.max_wallets_per_key.";
    NotFound => 404, "not_found", "There is nothing here", Again::Never,
        "Check the path and the id. Ids of other wallets are answered the same way.";
    MethodNotAllowed => 405, "method_not_allowed", "The path exists, the method does not", Again::Never,
        "Use a method that the Allow header names.";
    BodyTooLarge => 413, "body_too_large", "The body is too large", Again::Never,
        "Send at most 64 KiB, or 1 MiB where a signed PSBT is expected.";
    RateLimited => 429, "rate_limited", "Too many calls", Again::After(1),
        "Wait for as long as Retry-After says.";
    TooManyConnections => 503, "too_many_connections", "Too many connections", Again::After(1),
        "Reuse connections, and try again after a moment.";
    AmountBelowDust => 400, "amount_below_dust", "The amount is too small for the network", Again::Never,
        "Send at least as much as the network relays to this kind of address.";
    InsufficientFunds => 409, "insufficient_funds", "The wallet does not have that much", Again::Never,
        "Receive more first, or send less.";
    CoinsLeased => 409, "coins_leased", "The coins are set aside for another request", Again::After(30),
        "End the other request, or wait until it expires.";
    CoinsUnconfirmed => 409, "coins_unconfirmed", "The coins are not confirmed yet", Again::After(60),
        "Wait for a block.";
    TooManyInputs => 400, "too_many_inputs", "The amount needs too many coins", Again::Never,
        "Send at most the amount that the answer names, then the rest.";
    FeeRateOutOfRange => 400, "fee_rate_out_of_range", "The fee rate is not allowed", Again::Never,
        "Use a fee rate within the bounds that the answer names.";
    FeeTooHigh => 400, "fee_too_high", "The fee would be too high", Again::Never,
        "Use a lower fee rate or a larger amount.";
    TooManyOpenRequests => 409, "too_many_open_requests", "Too many requests wait for a signature", Again::After(60),
        "End some of them, or wait until they expire.";
    InvalidPsbt => 400, "invalid_psbt", "This is not a PSBT", Again::Never,
        "Send the signed PSBT of version 0 in base64.";
    PsbtNotSigned => 400, "psbt_not_signed", "The PSBT is not signed", Again::Never,
        "Sign the PSBT that begin handed out with the wallet's keys, then send the result.";
    PsbtAltered => 400, "psbt_altered", "The PSBT is not the one that was handed out", Again::Never,
        "Sign the PSBT as it was handed out; nothing in its transaction may change.";
    PsbtUnknown => 404, "psbt_unknown", "Nothing was begun with this PSBT", Again::Never,
        "Send it to the endpoint that ends what began it, with the headers of the same wallet.";
    InvalidSignature => 400, "invalid_signature", "A signature is not valid", Again::Never,
        "Sign every input with the wallet's own key and the sighash type DEFAULT or ALL.";
    RequestExpired => 409, "request_expired", "The time for the signature is over", Again::Never,
        "Begin again; ask for more time with expires_in_seconds if signing takes long.";
    InputsSpent => 409, "inputs_spent", "A coin of the request was spent elsewhere", Again::Never,
        "Begin again with the coins that are left.";
    AlreadyConfirmed => 409, "already_confirmed", "The transaction is already in a block", Again::Never,
        "Nothing can be changed any more.";
    ChangeSpent => 409, "change_spent", "Another request spends the change", Again::Never,
        "Raise the fee of the later transaction instead.";
    BumpTooSmall => 400, "bump_too_small", "The new fee is not high enough", Again::Never,
        "Use a fee rate that the network accepts as a replacement; the answer names the least.";
    NotBroadcast => 409, "not_broadcast", "The send was never signed", Again::Never,
        "End the send first, or let it expire.";
    IdempotencyMismatch => 422, "idempotency_mismatch", "The idempotency key was used for something else", Again::Never,
        "Use a new key for a new request, and the same body for the same key.";
    InvalidInvoice => 400, "invalid_invoice", "This can't be paid", Again::Never,
        "Check the invoice or offer with whoever gave it; nothing may be missing from it.";
    AssetInvoice => 400, "asset_invoice", "The invoice asks for an asset", Again::Never,
        "Pay it with a wallet whose Lightning node carries assets, or ask the payee for an invoice in bitcoin.";
    InvoiceExpired => 409, "invoice_expired", "The invoice has expired", Again::Never,
        "Ask the payee for another invoice.";
    AlreadyPaid => 409, "already_paid", "The invoice was paid", Again::Never,
        "Look at your payments; ask the payee for another invoice to pay again.";
    PaymentInProgress => 409, "payment_in_progress", "The invoice is being paid", Again::After(10),
        "Wait until the payment that is under way has ended; if it fails, the invoice can be paid again.";
    ReserveLow => 409, "reserve_low", "The operator's coins on-chain do not reach now", Again::After(60),
        "Try again later, or withdraw less: the operator refills them.";
    NotCancellable => 409, "not_cancellable", "It can't be cancelled now", Again::Never,
        "Only what waits for a signature or for the operator's coins can be cancelled; look at how it stands.";
    SelfPayment => 409, "self_payment", "The invoice is of this very wallet", Again::Never,
        "A wallet can't pay itself.";
    SpendingNotGranted => 403, "spending_not_granted", "No key was sent that may spend for the wallet", Again::Never,
        "Send an API key that has a spending limit for this wallet, or use pay-invoice-begin and pay-invoice-end, which the wallet's owner signs.";
    PaymentAboveLimit => 403, "payment_above_limit", "The payment is above a limit of the key", Again::Never,
        "Pay less, lower max_fee_sats, or use pay-invoice-begin and pay-invoice-end, which the wallet's owner signs.";
    SpendingLimitExceeded => 409, "spending_limit_exceeded", "The key has used up too much of its limit", Again::After(60),
        "Wait until the limit renews, pay less, or use pay-invoice-begin and pay-invoice-end, which the wallet's owner signs.";
    FeeLimitTooLow => 400, "fee_limit_too_low", "The fee ceiling is below the cheapest way", Again::Never,
        "Raise max_fee_sats to at least the fee that the answer names.";
    NoLiquidity => 409, "no_liquidity", "No way to the payee was found", Again::After(30),
        "Try again later or with a smaller amount; the operator may have to open a channel.";
    AssetLightningUnavailable => 501, "asset_lightning_unavailable", "Assets over Lightning are not offered here", Again::Never,
        "This gateway has no Lightning node that carries assets.";
    LightningUnavailable => 501, "lightning_unavailable", "Lightning is not offered here", Again::Never,
        "This gateway has no Lightning node.";
    LightningNotReady => 503, "lightning_not_ready", "The Lightning node can't be used now", Again::After(5),
        "Try again; what was begun keeps its state, and money that was promised is paid or given back.";
    AssetsUnavailable => 501, "assets_unavailable", "Assets are not offered here", Again::Never,
        "This gateway has no RGB engine.";
    AssetsNotReady => 503, "assets_not_ready", "The RGB engine can't be used now", Again::After(5),
        "Try again, with the same Idempotency-Key if you sent one; the operator sees why in the log.";
    AssetsShareCoin => 409, "assets_share_a_coin", "Assets on one coin can't be sent apart", Again::Never,
        "Send some of each together with POST /wallet/sendbegin and `more`; one that is sent whole leaves the other alone on its coin.";
    AssetUnknown => 404, "asset_unknown", "The wallet does not know this asset", Again::Never,
        "Check the id with POST /wallet/listassets; an asset is known once some of it was received.";
    ColorableUtxosNeeded => 409, "colorable_utxos_needed", "No coin is free to carry an asset", Again::Never,
        "Make some with POST /wallet/createutxosbegin, and wait for a block.";
    ColorableUtxosThere => 409, "colorable_utxos_there", "There are enough free coins for assets", Again::Never,
        "Use those that are there, or ask for more with up_to false.";
    InsufficientAssets => 400, "insufficient_assets", "The wallet has too little of the asset", Again::Never,
        "Send less, or wait until what is on its way has settled.";
    ColoredBtcLow => 409, "colored_btc_low", "The coins that carry assets hold too little bitcoin", Again::Never,
        "Make coins that hold more with POST /wallet/createutxosbegin and a larger size, wait for a block, and begin again.";
    NotBumpable => 409, "not_bumpable", "This transaction can't be replaced", Again::Never,
        "Wait for a block; begin with a higher fee_rate the next time.";
    NotIssued => 409, "not_issued", "The call with this key issued nothing", Again::Never,
        "Correct the call and use a new Idempotency-Key.";
    NodeRefused => 409, "node_refused", "The Lightning node does not do that now", Again::Never,
        "Do what the answer names; nothing was done.";
    OutcomeUnknown => 409, "outcome_unknown", "It is not known what became of this call", Again::Never,
        "Look at the node's channels; call again with a new Idempotency-Key if it was not done.";
    PayoutsHalted => 503, "payouts_halted", "Payouts are stopped", Again::After(60),
        "The operator has to decide first. Receiving and reading go on.";
    ChainUnavailable => 503, "chain_unavailable", "The Bitcoin node can't be used now", Again::After(5),
        "Try again; nothing has changed unless the request says so.";
    ChainNotSynced => 503, "chain_not_synced", "The Bitcoin node is still catching up", Again::After(30),
        "Try again when /health/ready says that the chain is synced.";
    SyncTimeout => 504, "sync_timeout", "The chain was not followed to its tip in time", Again::After(5),
        "Try again; the gateway goes on meanwhile.";
    StoreUnavailable => 503, "store_unavailable", "The database can't be used now", Again::After(2),
        "Try again, with the same Idempotency-Key if you sent one.";
    Timeout => 504, "timeout", "The call took too long", Again::After(5),
        "Read the request back before trying again; it may have gone through.";
    Internal => 500, "internal", "Something is wrong in the gateway", Again::Never,
        "Tell the operator the trace id.";
}

/// An answer that is not success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub code: Code,
    pub detail: Cow<'static, str>,
    pub field: Option<Cow<'static, str>>,
    /// Instead of what the table says.
    pub retry_after: Option<u32>,
}

/// A problem as it stands on the wire: RFC 9457, and the names that older clients look for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem, example = json!({
    "type": "/docs/errors#insufficient_funds", "title": "The wallet does not have that much", "status": 409,
    "detail": "60000 sat are needed and 41200 sat are there", "instance": "/lightning/onchain-send-begin",
    "error": "insufficient_funds", "message": "60000 sat are needed and 41200 sat are there", "retryable": false,
    "field": null, "trace_id": "0198c0f29d7c4f6ea1c20d3be5a90b47",
}))]
pub struct WireProblem<'a> {
    /// Where the code is explained, on this gateway.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened, for a person.
    pub detail: &'a str,
    /// The path that was called.
    pub instance: Option<&'a str>,
    /// The stable code, for a program.
    pub error: &'static str,
    /// The same as `detail`.
    pub message: &'a str,
    /// Whether the same call may succeed later.
    pub retryable: bool,
    /// The field, header or parameter to blame.
    pub field: Option<&'a str>,
    /// Names this call in the operator's log.
    pub trace_id: &'a str,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), field: None, retry_after: None }
    }

    /// A code with what the table says of it.
    #[must_use]
    pub fn plain(code: Code) -> Self {
        Self::new(code, entry(code).advice)
    }

    pub fn field(code: Code, field: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some(field.into()), ..Self::new(code, detail) }
    }

    #[must_use]
    pub fn with_retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// The problem as a body.
    #[must_use]
    pub fn wire<'a>(&'a self, trace_id: &'a str, instance: Option<&'a str>) -> WireProblem<'a> {
        let entry = entry(self.code);
        WireProblem {
            kind: format!("/docs/errors#{}", entry.name),
            title: entry.title,
            status: entry.status,
            detail: &self.detail,
            instance,
            error: entry.name,
            message: &self.detail,
            retryable: entry.retryable,
            field: self.field.as_deref(),
            trace_id,
        }
    }

    /// The whole answer, on top of the headers that an inner layer has set.
    #[must_use]
    pub fn render(&self, mut inner: Response, trace_id: &str, instance: &str) -> Response {
        let entry = entry(self.code);
        let body = serde_json::to_vec(&self.wire(trace_id, Some(instance))).unwrap_or_default();
        *inner.status_mut() = StatusCode::from_u16(entry.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = inner.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after.or(entry.retry_after) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"sluice\""));
        }
        *inner.body_mut() = Body::from(body);
        inner
    }
}

/// The body is written by the outermost layer, which alone knows the trace id and the path.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(entry(self.code).status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// What went wrong inside is for the log. The caller learns what to do about it.
impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let code = error.code();
        let entry = entry(code);
        let inside = match &error {
            Error::Store(_) | Error::Chain(_) | Error::Node(_) | Error::Assets(_) | Error::Internal(_) => true,
            Error::Field { .. }
            | Error::Refused { .. }
            | Error::Later { .. }
            | Error::Psbt(_)
            | Error::Fee(_)
            | Error::SignatureTime(_)
            | Error::Keys(_) => code == Code::Internal,
        };
        if inside {
            tracing::error!(code = entry.name, %error, "a call failed inside");
            return Self::new(code, format!("{}. {}", entry.title, entry.advice));
        }
        let field = error.field_name().map(Cow::Borrowed);
        let retry_after = if let Error::Later { seconds, .. } = &error { Some(*seconds) } else { None };
        Self { code, detail: Cow::Owned(error.to_string()), field, retry_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_has_a_name_of_its_own_and_a_status_of_an_error() {
        let names: HashSet<_> = ALL.iter().map(|code| entry(*code).name).collect();
        assert_eq!(names.len(), ALL.len());
        for code in ALL {
            let entry = entry(*code);
            assert!((400..600).contains(&entry.status), "{}", entry.name);
            assert!(entry.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{}", entry.name);
            assert!(entry.advice.ends_with('.') && !entry.title.ends_with('.'), "{}", entry.name);
        }
    }

    #[test]
    fn whoever_is_asked_to_wait_is_told_that_it_helps() {
        for code in ALL {
            let entry = entry(*code);
            assert!(entry.retry_after.is_none() || entry.retryable, "{}", entry.name);
            let waits = matches!(entry.status, 429 | 503 | 504);
            assert!(!waits || entry.retry_after.is_some(), "{}", entry.name);
        }
    }

    #[test]
    fn a_problem_speaks_to_people_and_to_programs() {
        let problem = Problem::field(Code::InvalidRequest, "amount_sats", "amount_sats: must be above zero");
        let wire = serde_json::to_value(problem.wire("t", Some("/x"))).unwrap();
        assert_eq!(wire["error"], "invalid_request");
        assert_eq!(wire["detail"], wire["message"]);
        assert_eq!(wire["field"], "amount_sats");
        assert_eq!(wire["status"], 400);
        assert_eq!(wire["type"], "/docs/errors#invalid_request");
    }

    /// The database has nothing to do with it, and trying again does not help.
    #[tokio::test]
    async fn a_panicked_task_is_a_fault_of_this_program() {
        let panicked = tokio::spawn(async { panic!("in a task") }).await.unwrap_err();
        let problem = Problem::from(Error::panicked("a task", &panicked));
        let wire = serde_json::to_value(problem.wire("t", None)).unwrap();
        assert_eq!((&wire["error"], &wire["status"]), (&"internal".into(), &500.into()), "{wire}");
        assert!(!wire["detail"].to_string().contains("in a task"), "{wire}");
    }

    #[test]
    fn what_went_wrong_inside_stays_inside() {
        let error = Error::refused(Code::Internal, "secret path");
        assert!(!Problem::from(error).detail.contains("secret"));
    }
}
