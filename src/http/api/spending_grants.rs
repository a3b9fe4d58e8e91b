//! What a wallet's owner has granted to keys, or is asked to.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::examples;
use super::lightning_send::simple_signature;
use super::wire::SendAssetEndRequestModel;
use crate::clock::Timestamp;
use crate::flows::grants::{self, Granted};
use crate::flows::values::{Budget, WalletKeys};
use crate::flows::{Code, pay_invoice};
use crate::http::HttpState;
use crate::http::auth::{ToRead, ToSend, Wallet};
use crate::http::extract::{AnyId, Posted};
use crate::http::problem::Problem;
use crate::ids::KeyId;
use crate::money::Amount;

/// How a grant stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = json!("in_force"))]
pub enum GrantState {
    /// It waits for the owner's signature: the key can do nothing yet.
    Waiting,
    InForce,
    Expired,
    Revoked,
}

/// A limit of a key, and how it stands in the period that it is now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "asset": "btc", "period": "day", "amount_sats": 1_000_000, "used_sats": 5_003, "left_sats": 994_997,
    "amount_msat": 1_000_000_000, "used_msat": 5_002_500, "left_msat": 994_997_500, "renews_at": examples::TIME,
}))]
pub struct SpendingLimit {
    pub asset: String,
    /// hour, day, week or month of the calendar in UTC. A week begins on Monday.
    pub period: &'static str,
    pub amount_sats: u64,
    /// Paid, and held for payments that are not over, rounded up.
    pub used_sats: u64,
    /// Rounded down.
    pub left_sats: u64,
    /// The same, exactly.
    pub amount_msat: u64,
    pub used_msat: u64,
    pub left_msat: u64,
    /// When the period ends, and the next one begins with nothing used.
    pub renews_at: String,
}

impl From<&Budget> for SpendingLimit {
    fn from(budget: &Budget) -> Self {
        let (amount, used, left) = (budget.limit.money.amount, budget.used, budget.left());
        Self {
            asset: budget.limit.money.asset.to_string(),
            period: budget.limit.period.as_str(),
            amount_sats: amount.sat_floor(),
            used_sats: used.sat_ceil(),
            left_sats: left.sat_floor(),
            amount_msat: amount.base_units(),
            used_msat: used.base_units(),
            left_msat: left.base_units(),
            renews_at: budget.window.ends.rfc3339(),
        }
    }
}

/// What a key was granted, and the signed proof of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "key_id": "5f1c09ab77d2", "name": "shop", "state": "in_force", "limits": [{
        "asset": "btc", "period": "day", "amount_sats": 1_000_000, "used_sats": 5_003, "left_sats": 994_997,
        "amount_msat": 1_000_000_000, "used_msat": 5_002_500, "left_msat": 994_997_500, "renews_at": examples::TIME,
    }],
    "per_payment_sats": 50_000, "message": examples::GRANT, "address": examples::ADDRESS, "psbt": examples::AUTHORIZATION,
    "signature": examples::SIGNATURE, "signed_transaction": examples::SIGNED_AUTHORIZATION, "created_at": examples::TIME,
    "signed_at": examples::TIME, "expires_at": examples::TIME, "revoked_at": null,
}))]
pub struct SpendingGrant {
    /// The public half of the key. The key itself is the operator's to hand out.
    pub key_id: String,
    pub name: String,
    pub state: GrantState,
    pub limits: Vec<SpendingLimit>,
    /// What one payment may come to, fee ceiling included. Empty: as much as the limits.
    pub per_payment_sats: Option<u64>,
    /// What is granted, to the byte.
    pub message: String,
    /// Whose signature it is: the wallet's first address.
    pub address: String,
    /// As it is to be signed.
    pub psbt: String,
    /// The signature in the simple form of BIP-322. Empty until it was given, and where only `signed_transaction` proves it, in the full form.
    pub signature: Option<String>,
    /// The signed transaction of BIP-322, as hex. Empty until it was given.
    pub signed_transaction: Option<String>,
    pub created_at: String,
    pub signed_at: Option<String>,
    /// Until when the key may spend.
    pub expires_at: String,
    pub revoked_at: Option<String>,
}

impl SpendingGrant {
    fn of(granted: &Granted, address: &bitcoin::Address, now: Timestamp) -> Self {
        let Granted { grant, budgets, revoked_at } = granted;
        let state = match (revoked_at, grant.signed_at) {
            (Some(_), _) => GrantState::Revoked,
            (None, _) if grant.expires_at <= now => GrantState::Expired,
            (None, Some(_)) => GrantState::InForce,
            (None, None) => GrantState::Waiting,
        };
        Self {
            key_id: grant.key.to_string(),
            name: grant.name.clone(),
            state,
            limits: budgets.iter().map(Into::into).collect(),
            per_payment_sats: grant.per_payment.map(Amount::sat_floor),
            message: grant.message.clone(),
            address: address.to_string(),
            psbt: grant.psbt.clone(),
            signature: grant.signed_tx.as_ref().and_then(simple_signature),
            signed_transaction: grant.signed_tx.as_ref().map(bitcoin::consensus::encode::serialize_hex),
            created_at: grant.created_at.rfc3339(),
            signed_at: grant.signed_at.map(Timestamp::rfc3339),
            expires_at: grant.expires_at.rfc3339(),
            revoked_at: revoked_at.map(Timestamp::rfc3339),
        }
    }
}

/// The newest 100 grants of a wallet, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "grants": [] }))]
pub struct SpendingGrantsResponse {
    pub grants: Vec<SpendingGrant>,
}

/// What keys may spend
///
/// The keys that may spend for this wallet without its signature, or wait for its grant: their limits, what is used of them, and the
/// signed proofs. Anybody can check a proof with BIP-322.
#[utoipa::path(get, path = "/lightning/spending-grants", operation_id = "spendingGrants", tag = "lightning",
    responses((status = 200, description = "The grants", body = SpendingGrantsResponse)))]
pub async fn list(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
) -> Result<Json<SpendingGrantsResponse>, Problem> {
    let all = grants::of_wallet(&state.flows, &wallet.id).await?;
    let grants = all.iter().map(|granted| view(&state, &wallet.keys, granted)).collect::<Result<_, _>>()?;
    Ok(Json(SpendingGrantsResponse { grants }))
}

fn view(state: &HttpState, keys: &WalletKeys, granted: &Granted) -> Result<SpendingGrant, Problem> {
    let address = pay_invoice::consenting_address(keys)?;
    Ok(SpendingGrant::of(granted, &address, state.flows.store().clock().now()))
}

/// Give a grant
///
/// Takes the signed PSBT of a grant that waits, checks it as a payment's authorisation is checked, and puts the key into force. Every
/// grant makes one key, once.
#[utoipa::path(post, path = "/lightning/spending-grants/{key_id}", operation_id = "spendingGrantGive", tag = "lightning",
    params(("key_id" = String, Path, description = "The key, as the list of grants names it", example = json!("5f1c09ab77d2"))),
    request_body = SendAssetEndRequestModel,
    responses((status = 200, description = "The grant", body = SpendingGrant)))]
pub async fn give(
    State(state): State<HttpState>,
    wallet: Wallet<ToSend>,
    id: AnyId,
    body: Posted<SendAssetEndRequestModel>,
) -> Result<Json<SpendingGrant>, Problem> {
    let unknown = || Problem::new(Code::NotFound, "this wallet has no grant for a key with this id");
    let key = KeyId(id.0);
    let known = grants::of_key(&state.flows, &wallet.id, &key).await?;
    known.ok_or_else(unknown)?;
    grants::give(&state.flows, &key, &body.value.signed_psbt).await?;
    let given = grants::of_key(&state.flows, &wallet.id, &key).await?.ok_or_else(unknown)?;
    Ok(Json(view(&state, &wallet.keys, &given)?))
}
