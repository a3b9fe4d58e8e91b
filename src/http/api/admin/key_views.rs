//! How keys look on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::flows::grants::Granted;
use crate::flows::key_admin::Known;
use crate::flows::values::{Budget, GrantRow};
use crate::http::api::examples;
use crate::money::Amount;

/// How a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = json!("in_force"))]
pub enum KeyState {
    InForce,
    Expired,
    Revoked,
    /// It may spend, and waits for the signature of its wallet's owner.
    Waiting,
}

/// What a key may spend within a period, and how that stands.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "asset": "btc", "period": "day", "amount_sats": 1_000_000, "used_sats": 5_003, "left_sats": 994_997, "renews_at": examples::TIME,
}))]
pub struct KeyLimit {
    pub asset: String,
    /// hour, day, week or month of the calendar in UTC.
    pub period: String,
    pub amount_sats: u64,
    /// Rounded up.
    pub used_sats: u64,
    /// Rounded down.
    pub left_sats: u64,
    pub renews_at: String,
}

impl From<&Budget> for KeyLimit {
    fn from(budget: &Budget) -> Self {
        Self {
            asset: budget.limit.money.asset.to_string(),
            period: budget.limit.period.to_string(),
            amount_sats: budget.limit.money.amount.sat_floor(),
            used_sats: budget.used.sat_ceil(),
            left_sats: budget.left().sat_floor(),
            renews_at: budget.window.ends.rfc3339(),
        }
    }
}

/// A key, without its secret.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "5f1c09ab77d2", "name": "backoffice", "state": "in_force", "scopes": ["read", "receive"], "wallet_count": 1, "wallet": null,
    "limits": [], "limit_per_payment_sats": null, "created_at": examples::TIME, "expires_at": null, "revoked_at": null,
}))]
pub struct KeyView {
    pub id: String,
    pub name: String,
    pub state: KeyState,
    pub scopes: Vec<String>,
    /// How many wallets it may act for.
    pub wallet_count: i64,
    /// The one wallet of a key that may spend.
    pub wallet: Option<String>,
    /// What it may spend without a signature. Empty for most keys.
    pub limits: Vec<KeyLimit>,
    pub limit_per_payment_sats: Option<u64>,
    pub created_at: String,
    pub expires_at: Option<String>,
    pub revoked_at: Option<String>,
}

fn scopes(text: &str) -> Vec<String> {
    text.split(',').filter(|scope| !scope.is_empty()).map(str::to_owned).collect()
}

impl KeyView {
    #[must_use]
    pub fn of(known: Known, now: Timestamp) -> Self {
        let Known { row, wallets, granted } = known;
        let state = match (row.revoked_at, row.expires_at) {
            (Some(_), _) => KeyState::Revoked,
            (None, Some(at)) if at <= now => KeyState::Expired,
            (None, _) => KeyState::InForce,
        };
        Self {
            id: row.id.to_string(),
            name: row.name,
            state,
            scopes: scopes(&row.scopes),
            wallet_count: wallets,
            wallet: granted.as_ref().map(|granted| granted.grant.wallet.to_string()),
            limits: granted.iter().flat_map(|granted| &granted.budgets).map(Into::into).collect(),
            limit_per_payment_sats: granted.and_then(|granted| granted.grant.per_payment).map(Amount::sat_floor),
            created_at: row.created_at.rfc3339(),
            expires_at: row.expires_at.map(Timestamp::rfc3339),
            revoked_at: row.revoked_at.map(Timestamp::rfc3339),
        }
    }

    /// One that is no key yet.
    #[must_use]
    pub fn waiting(granted: &Granted, now: Timestamp) -> Self {
        let grant = &granted.grant;
        Self {
            id: grant.key.to_string(),
            name: grant.name.clone(),
            state: if grant.expires_at <= now { KeyState::Expired } else { KeyState::Waiting },
            scopes: scopes(&grant.scopes),
            wallet_count: 1,
            wallet: Some(grant.wallet.to_string()),
            limits: granted.budgets.iter().map(Into::into).collect(),
            limit_per_payment_sats: grant.per_payment.map(Amount::sat_floor),
            created_at: grant.created_at.rfc3339(),
            expires_at: Some(grant.expires_at.rfc3339()),
            revoked_at: granted.revoked_at.map(Timestamp::rfc3339),
        }
    }
}

/// Keys, oldest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "keys": [], "waiting": [], "next_cursor": null }))]
pub struct KeysResponse {
    pub keys: Vec<KeyView>,
    /// What was asked for keys that wait for their grant, or never got one. On the first page only.
    pub waiting: Vec<KeyView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// The key that is wanted.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "name": "backoffice", "scopes": ["read", "receive"], "wallets": [], "expires_in_days": 90 }))]
pub struct CreateKeyRequestModel {
    /// What you call it in lists.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// What it may do: read, receive, send, register, admin:read, admin:write. With `like` those of the other key unless given.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Registered wallets that it may act for, at most 1,000. Those that are registered with the key are added by themselves.
    #[serde(default)]
    pub wallets: Vec<String>,
    /// The id of another key: whatever that one may act for, this one may, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
    /// It ends after so many days. Never unless given; with limits after 90.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 36500)]
    pub expires_in_days: Option<u32>,
    /// What it may spend without a signature, in satoshis, as in `btc:1000000/day`. One for each hour, day, week or month at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// What one payment may come to, its fee ceiling included, as in `btc:50000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_per_payment: Option<String>,
}

/// A key that was made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "key": {
        "id": "5f1c09ab77d2", "name": "backoffice", "state": "in_force", "scopes": ["read", "receive"], "wallet_count": 0, "wallet": null,
        "limits": [], "limit_per_payment_sats": null, "created_at": examples::TIME, "expires_at": null, "revoked_at": null,
    },
    "secret": "sluice_5f1c09ab77d2_...", "replaced": null, "grant_message": null,
}))]
pub struct KeyMadeResponse {
    pub key: KeyView,
    /// The key itself, to be kept now: it is stored nowhere. Empty when the call was made before with the same idempotency key.
    pub secret: Option<String>,
    /// The key whose place it takes, and until when that is in force.
    pub replaced: Option<KeyView>,
    /// What the owner of the wallet has to sign before the key may spend.
    pub grant_message: Option<String>,
}

/// Nothing.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({}))]
pub struct RevokeRequestModel {}

/// It is done.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "key_id": "5f1c09ab77d2" }))]
pub struct RevokedResponse {
    pub key_id: String,
}

/// For how long both are in force.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "grace_seconds": 86_400 }))]
pub struct RotateRequestModel {
    /// How long the old key stays in force: a day unless given, 30 days at most. 0 ends it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2592000)]
    pub grace_seconds: Option<u32>,
}

/// Wallets of a key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "wallets": ["0922385b88fd67ab"], "next_cursor": null }))]
pub struct KeyWalletsResponse {
    pub wallets: Vec<String>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// The wallets that the key is to act for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "wallets": ["0922385b88fd67ab"] }))]
pub struct BindRequestModel {
    /// Registered wallets, 1 to 1,000.
    pub wallets: Vec<String>,
}

/// A grant, signed or not.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "key_id": "5f1c09ab77d2", "wallet": "0922385b88fd67ab", "message": examples::GRANT, "psbt": examples::PSBT,
    "expires_at": examples::TIME, "signed_at": null,
}))]
pub struct GrantToSignResponse {
    pub key_id: String,
    pub wallet: String,
    /// What is granted, to the byte.
    pub message: String,
    /// As it is to be signed.
    pub psbt: String,
    /// Until when the key may spend.
    pub expires_at: String,
    pub signed_at: Option<String>,
}

impl From<GrantRow> for GrantToSignResponse {
    fn from(grant: GrantRow) -> Self {
        Self {
            key_id: grant.key.to_string(),
            wallet: grant.wallet.to_string(),
            message: grant.message,
            psbt: grant.psbt,
            expires_at: grant.expires_at.rfc3339(),
            signed_at: grant.signed_at.map(Timestamp::rfc3339),
        }
    }
}

/// The grant, signed by the wallet's owner.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "signed_psbt": examples::PSBT }))]
pub struct GiveGrantRequestModel {
    pub signed_psbt: String,
}
