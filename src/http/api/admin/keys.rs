//! API keys while the gateway runs: making, binding, replacing and ending them. A key is shown once, in the answer that makes it.

use std::time::Duration;

use axum::Json;
use axum::extract::State;

use super::key_views::{
    BindRequestModel, CreateKeyRequestModel, GiveGrantRequestModel, GrantToSignResponse, KeyMadeResponse, KeyView,
    KeyWalletsResponse, KeysResponse, RevokeRequestModel, RevokedResponse, RotateRequestModel,
};
use super::wallets::read_wallet_cursor;
use crate::clock::Timestamp;
use crate::flows::grants::{self, WantedGrant};
use crate::flows::key_admin::{self, GRACE_MAX, Made};
use crate::flows::keys::NewKey;
use crate::flows::values::{Limit, read_sum};
use crate::flows::{Code, Error, Idempotency};
use crate::http::HttpState;
use crate::http::api::wire::PageParams;
use crate::http::auth::{Operator, ToAdminister, ToLook};
use crate::http::extract::{AnyId, MaybePosted, PAGE_USUAL, Params, Posted, cursor, limit, read_cursor};
use crate::http::problem::Problem;
use crate::ids::{KeyId, WalletId};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Longer than anybody keeps a key.
const DAYS_MAX: u32 = 36_500;
/// How long a key may spend unless the operator says otherwise.
const USUAL_GRANT_DAYS: u32 = 90;
/// How long the old key stays in force unless the operator says otherwise.
const USUAL_GRACE: Duration = DAY;
/// Wallets that one call binds. More would not fit into a body anyway.
const WALLETS_MAX: usize = 1_000;

fn now(state: &HttpState) -> Timestamp {
    state.flows.store().clock().now()
}

async fn made(
    state: &HttpState,
    (id, secret): Made,
    replaced: Option<KeyId>,
) -> Result<Json<KeyMadeResponse>, Problem> {
    let key = KeyView::of(key_admin::one(&state.flows, &id).await?, now(state));
    let replaced = match replaced {
        Some(id) => Some(KeyView::of(key_admin::one(&state.flows, &id).await?, now(state))),
        None => None,
    };
    let secret = secret.map(|secret| secret.expose().to_owned());
    Ok(Json(KeyMadeResponse { key, secret, replaced, grant_message: None }))
}

fn read_wallets(texts: &[String]) -> Result<Vec<WalletId>, Problem> {
    if texts.len() > WALLETS_MAX {
        let detail = format!("wallets: at most {WALLETS_MAX} in one call");
        return Err(Problem::field(Code::InvalidRequest, "wallets", detail));
    }
    let wrong = |text: &str| {
        let detail = format!("wallets: {} is no wallet id, which has 16 hexadecimal characters", text.escape_debug());
        Problem::field(Code::InvalidRequest, "wallets", detail)
    };
    texts.iter().map(|text| text.parse().map_err(|_| wrong(text))).collect()
}

pub const LIST: &[Code] = &[];

/// API keys
///
/// Every key that was made, oldest first: what it is called and may do, never the key itself. The first page has also what was asked for keys that wait
/// for the grant of a wallet's owner.
#[utoipa::path(get, path = "/admin/keys", operation_id = "adminKeys", tag = "operator",
    params(PageParams),
    responses((status = 200, description = "The keys", body = KeysResponse)))]
pub async fn list(
    State(state): State<HttpState>,
    _operator: Operator<ToLook>,
    Params(page): Params<PageParams>,
) -> Result<Json<KeysResponse>, Problem> {
    let most = limit(page.limit, PAGE_USUAL)?;
    let after = read_cursor::<String>(page.cursor.as_deref())?;
    let is_first = after.is_none();
    let rows = key_admin::page(&state.flows, after, most).await?;
    let full = rows.len() >= most as usize;
    let next_cursor = rows.last().filter(|_| full).map(|known| cursor(known.row.created_at, &known.row.id.0));
    let waiting = if is_first { key_admin::waiting(&state.flows).await? } else { Vec::new() };
    Ok(Json(KeysResponse {
        keys: rows.into_iter().map(|known| KeyView::of(known, now(&state))).collect(),
        waiting: waiting.iter().map(|granted| KeyView::waiting(granted, now(&state))).collect(),
        next_cursor,
    }))
}

pub const CREATE: &[Code] = &[];

/// Make a key
///
/// The key is in this answer and nowhere else. A repeated call with the same idempotency key answers the same key without its secret; who has lost it
/// rotates the key. With `like` it may act for the wallets of another key, those too that are bound to that one later. With `limits` it pays without a
/// signature, once the owner of its one wallet has signed its grant.
#[utoipa::path(post, path = "/admin/keys", operation_id = "adminCreateKey", tag = "operator",
    request_body = CreateKeyRequestModel,
    responses((status = 200, description = "The key", body = KeyMadeResponse)))]
pub async fn create(
    State(state): State<HttpState>,
    operator: Operator<ToAdminister>,
    posted: Posted<CreateKeyRequestModel>,
) -> Result<Json<KeyMadeResponse>, Problem> {
    let idempotency = posted.idempotency;
    let CreateKeyRequestModel { name, scopes, wallets, like, expires_in_days, limits, limit_per_payment } =
        posted.value;
    if expires_in_days.is_some_and(|days| !(1..=DAYS_MAX).contains(&days)) {
        let detail = format!("expires_in_days: must be from 1 to {DAYS_MAX}");
        return Err(Problem::field(Code::InvalidRequest, "expires_in_days", detail));
    }
    let days = expires_in_days.or_else(|| (!limits.is_empty()).then_some(USUAL_GRANT_DAYS));
    let expires_at = days.map(|days| now(&state).after(DAY.saturating_mul(days)));
    let like = like.map(KeyId);
    let scopes = match &like {
        Some(other) if scopes.is_empty() => key_admin::scopes_of(&state.flows, other).await?,
        _ => key_admin::read_scopes(&scopes)?,
    };
    let wanted = NewKey { name, scopes, wallets: read_wallets(&wallets)?, expires_at };
    if limits.is_empty() && limit_per_payment.is_none() {
        let key = key_admin::create(&state.flows, wanted, like, operator.by, idempotency).await?;
        return made(&state, key, None).await;
    }
    if like.is_some() {
        let detail = "like: a key that may spend is like no other; name its wallet";
        return Err(Problem::field(Code::InvalidRequest, "like", detail));
    }
    ask(&state, wanted, &limits, limit_per_payment.as_deref(), (operator.by, idempotency)).await
}

/// A key that may spend waits for its grant first.
async fn ask(
    state: &HttpState,
    wanted: NewKey,
    limits: &[String],
    per_payment: Option<&str>,
    (by, idempotency): (String, Option<Idempotency>),
) -> Result<Json<KeyMadeResponse>, Problem> {
    let wrong =
        |field: &'static str, why: String| Problem::field(Code::InvalidRequest, field, format!("{field}: {why}"));
    let limits = limits.iter().map(|text| text.parse::<Limit>().map_err(|why| wrong("limits", why.to_string())));
    let limits = limits.collect::<Result<Vec<_>, _>>()?;
    let per_payment = per_payment.map(read_sum).transpose();
    let per_payment = per_payment.map_err(|why| wrong("limit_per_payment", why.to_string()))?;
    let NewKey { name, scopes, wallets, expires_at } = wanted;
    let ([wallet], Some(expires_at)) = (wallets.as_slice(), expires_at) else {
        return Err(wrong("wallets", "a key that may spend is for one wallet: name it, once".to_owned()));
    };
    let wanted = WantedGrant { name, scopes, wallet: wallet.clone(), limits, per_payment, expires_at };
    let (id, secret) = key_admin::ask(&state.flows, wanted, by, idempotency).await.map_err(in_words_of_the_body)?;
    let asked = key_admin::asked(&state.flows, &id).await?;
    let grant_message = Some(asked.grant.message.clone());
    let key = KeyView::waiting(&asked, now(state));
    let secret = secret.map(|secret| secret.expose().to_owned());
    Ok(Json(KeyMadeResponse { key, secret, replaced: None, grant_message }))
}

/// Grants name the flags of the command line.
fn in_words_of_the_body(error: Error) -> Problem {
    let problem = Problem::from(error);
    let named = match problem.field.as_deref() {
        Some("scope") => "scopes",
        Some("limit") => "limits",
        Some("wallet") => "wallets",
        _ => return problem,
    };
    let detail = problem.detail.split_once(": ").map_or(problem.detail.as_ref(), |(_, why)| why).to_owned();
    Problem::field(problem.code, named, format!("{named}: {detail}"))
}

pub const REVOKE: &[Code] = &[];

/// End a key
///
/// At once: the next call with it is refused. A key that waits for its grant is taken back.
#[utoipa::path(post, path = "/admin/keys/{id}/revoke", operation_id = "adminRevokeKey", tag = "operator",
    params(("id" = String, Path, description = "The key", example = json!("5f1c09ab77d2"))),
    request_body = RevokeRequestModel,
    responses((status = 200, description = "It is revoked", body = RevokedResponse)))]
pub async fn revoke(
    State(state): State<HttpState>,
    operator: Operator<ToAdminister>,
    id: AnyId,
    posted: MaybePosted<RevokeRequestModel>,
) -> Result<Json<RevokedResponse>, Problem> {
    let RevokeRequestModel {} = posted.value;
    key_admin::revoke(&state.flows, KeyId(id.0.clone()), operator.by, posted.idempotency).await?;
    Ok(Json(RevokedResponse { key_id: id.0 }))
}

pub const ROTATE: &[Code] = &[Code::InvalidRequest];

/// Replace a key
///
/// Makes a key with the name, the scopes and the wallets of this one, which stays in force for the grace time: tell whoever has it, and it ends by
/// itself. What is bound to the old key meanwhile is bound to the new one, too.
#[utoipa::path(post, path = "/admin/keys/{id}/rotate", operation_id = "adminRotateKey", tag = "operator",
    params(("id" = String, Path, description = "The key", example = json!("5f1c09ab77d2"))),
    request_body = RotateRequestModel,
    responses((status = 200, description = "The new key", body = KeyMadeResponse)))]
pub async fn rotate(
    State(state): State<HttpState>,
    operator: Operator<ToAdminister>,
    id: AnyId,
    posted: MaybePosted<RotateRequestModel>,
) -> Result<Json<KeyMadeResponse>, Problem> {
    let grace = posted.value.grace_seconds.map_or(USUAL_GRACE, |seconds| Duration::from_secs(seconds.into()));
    if grace > GRACE_MAX {
        let detail = format!("grace_seconds: must be at most {}", GRACE_MAX.as_secs());
        return Err(Problem::field(Code::InvalidRequest, "grace_seconds", detail));
    }
    let old = KeyId(id.0);
    let new = key_admin::rotate(&state.flows, old.clone(), grace, operator.by, posted.idempotency).await?;
    made(&state, new, Some(old)).await
}

pub const WALLETS: &[Code] = &[];

/// Wallets of a key
///
/// The wallets that a key may act for, in the order of their ids.
#[utoipa::path(get, path = "/admin/keys/{id}/wallets", operation_id = "adminKeyWallets", tag = "operator",
    params(("id" = String, Path, description = "The key", example = json!("5f1c09ab77d2")), PageParams),
    responses((status = 200, description = "The wallets", body = KeyWalletsResponse)))]
pub async fn wallets(
    State(state): State<HttpState>,
    _operator: Operator<ToLook>,
    id: AnyId,
    Params(page): Params<PageParams>,
) -> Result<Json<KeyWalletsResponse>, Problem> {
    wallets_of(&state, &KeyId(id.0), page).await
}

async fn wallets_of(state: &HttpState, id: &KeyId, page: PageParams) -> Result<Json<KeyWalletsResponse>, Problem> {
    let most = limit(page.limit, PAGE_USUAL)?;
    let after = read_wallet_cursor(page.cursor.as_deref())?;
    let wallets = key_admin::wallets_of(&state.flows, id, after.as_ref(), most).await?;
    let full = wallets.len() >= most as usize;
    let next_cursor = wallets.last().filter(|_| full).map(ToString::to_string);
    Ok(Json(KeyWalletsResponse { wallets: wallets.iter().map(ToString::to_string).collect(), next_cursor }))
}

pub const BIND: &[Code] = &[];

/// Let a key act for wallets
///
/// Binds registered wallets to a key that is in force, and so to every key that takes its place. Answers the first page of its wallets.
#[utoipa::path(post, path = "/admin/keys/{id}/wallets", operation_id = "adminBindKey", tag = "operator",
    params(("id" = String, Path, description = "The key", example = json!("5f1c09ab77d2"))),
    request_body = BindRequestModel,
    responses((status = 200, description = "They are bound", body = KeyWalletsResponse)))]
pub async fn bind(
    State(state): State<HttpState>,
    operator: Operator<ToAdminister>,
    id: AnyId,
    posted: Posted<BindRequestModel>,
) -> Result<Json<KeyWalletsResponse>, Problem> {
    let wallets = read_wallets(&posted.value.wallets)?;
    if wallets.is_empty() {
        return Err(Problem::field(Code::InvalidRequest, "wallets", "wallets: name at least one"));
    }
    let key = KeyId(id.0);
    key_admin::bind(&state.flows, key.clone(), wallets, operator.by, posted.idempotency).await?;
    wallets_of(&state, &key, PageParams::default()).await
}

pub const GRANT: &[Code] = &[Code::PsbtUnknown];

/// What a wallet's owner has to sign
///
/// The message of the grant that a key waits for, or was given, and the PSBT of BIP-322 over it.
#[utoipa::path(get, path = "/admin/keys/{id}/grant", operation_id = "adminKeyGrant", tag = "operator",
    params(("id" = String, Path, description = "The key", example = json!("5f1c09ab77d2"))),
    responses((status = 200, description = "The grant", body = GrantToSignResponse)))]
pub async fn grant(
    State(state): State<HttpState>,
    _operator: Operator<ToLook>,
    id: AnyId,
) -> Result<Json<GrantToSignResponse>, Problem> {
    let grant = grants::asked(&state.flows, &KeyId(id.0)).await?;
    Ok(Json(grant.into()))
}

pub const GIVE_GRANT: &[Code] = &[
    Code::InvalidPsbt,
    Code::PsbtNotSigned,
    Code::PsbtAltered,
    Code::InvalidSignature,
    Code::PsbtUnknown,
    Code::RequestExpired,
];

/// Hand in a grant
///
/// Takes the grant that the wallet's owner has signed, checks it as a payment's authorisation is checked, and puts the key into force.
#[utoipa::path(post, path = "/admin/keys/{id}/grant", operation_id = "adminGiveKeyGrant", tag = "operator",
    params(("id" = String, Path, description = "The key", example = json!("5f1c09ab77d2"))),
    request_body = GiveGrantRequestModel,
    responses((status = 200, description = "The key is in force", body = GrantToSignResponse)))]
pub async fn give_grant(
    State(state): State<HttpState>,
    operator: Operator<ToAdminister>,
    id: AnyId,
    posted: Posted<GiveGrantRequestModel>,
) -> Result<Json<GrantToSignResponse>, Problem> {
    let key = KeyId(id.0);
    let signed = posted.value.signed_psbt;
    key_admin::give(&state.flows, &key, &signed, operator.by, posted.idempotency).await?;
    let grant = grants::asked(&state.flows, &key).await?;
    Ok(Json(grant.into()))
}
