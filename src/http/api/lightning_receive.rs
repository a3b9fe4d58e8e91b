//! Receiving over Lightning: making an invoice, and how it stands.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::examples;
use super::wire::{AssetAmount, LightningAsset};
use crate::clock::Timestamp;
use crate::flows::Code;
use crate::flows::invoice::{self, DESCRIPTION_MAX, Invoiced, WantedInvoice};
use crate::flows::values::{Machine, Receive, ReceiveState, Request};
use crate::http::HttpState;
use crate::http::auth::{ToRead, ToReceive, Wallet};
use crate::http::extract::{AnyId, Posted};
use crate::http::problem::Problem;
use crate::money::{Amount, Sat};

/// Over Lightning everything is bitcoin here.
pub const ASSET: &str = "ASSET";
pub const BTC: &str = "BTC";
const INBOUND_LOW: &str = "inbound_liquidity_low";

/// An invoice that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "amount_sats": 5_000, "amountless": false, "asset": null, "expiry_seconds": 420, "description": "order 7",
    "reference": "order-7",
}))]
pub struct CreateLightningInvoiceRequestModel {
    /// Satoshis; needed unless `amountless` is true.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 2_100_000_000_000_000_u64)]
    pub amount_sats: Option<Sat>,
    /// The payer says how much.
    pub amountless: Option<bool>,
    /// The node of this gateway carries no assets.
    pub asset: Option<LightningAsset>,
    /// How long it can be paid, up to 31 days; 420 unless given.
    #[schema(minimum = 1, maximum = 2_678_400)]
    pub expiry_seconds: Option<u64>,
    /// What the payer is shown: at most 639 bytes.
    #[schema(max_length = 639)]
    pub description: Option<String>,
    /// The caller's own word for it.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    pub reference: Option<String>,
}

/// How far an invoice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schema(example = json!("OPEN"))]
pub enum InvoiceStatus {
    /// It can be paid, or its payment is being taken.
    Open,
    /// It was paid, and the wallet has the money.
    Settled,
    /// Nobody paid in time. What comes late and can still be taken settles it all the same.
    Expired,
    /// It was withdrawn.
    Failed,
}

impl InvoiceStatus {
    #[must_use]
    pub const fn of(state: &ReceiveState) -> Self {
        match state {
            ReceiveState::Open | ReceiveState::Claiming { .. } => Self::Open,
            ReceiveState::Settled { .. } => Self::Settled,
            ReceiveState::Expired => Self::Expired,
            ReceiveState::Cancelled => Self::Failed,
        }
    }
}

/// An invoice, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": examples::ID, "invoice": examples::INVOICE, "status": "OPEN", "payment_type": "BTC", "amount_sats": 5_000,
    "asset": null, "created_at": examples::TIME, "amount_msat": 5_000_000, "received_msat": null, "settled_by": null,
    "payment_hash": examples::HASH, "description": "order 7", "expires_at": examples::TIME, "updated_at": examples::TIME,
    "state": "open", "reference": "order-7", "warning": null,
}))]
pub struct LightningReceiveRequest {
    pub id: String,
    pub invoice: String,
    pub status: InvoiceStatus,
    /// BTC or ASSET.
    pub payment_type: &'static str,
    /// What was received, once it was; before that what is asked for. Rounded down.
    pub amount_sats: Option<u64>,
    pub asset: Option<AssetAmount>,
    pub created_at: String,
    /// The same as `amount_sats`, exactly.
    pub amount_msat: Option<u64>,
    /// What the wallet was credited with. Empty until it was.
    pub received_msat: Option<u64>,
    /// channel: over the Lightning network; book: by another wallet of this gateway.
    pub settled_by: Option<&'static str>,
    pub payment_hash: String,
    pub description: Option<String>,
    /// Until when it can be paid.
    pub expires_at: Option<String>,
    pub updated_at: String,
    /// The state in the words of the gateway, which say more than `status`.
    pub state: &'static str,
    pub reference: Option<String>,
    /// `inbound_liquidity_low` when the node could not receive so much as it was asked. Only create-invoice says so.
    pub warning: Option<&'static str>,
}

impl From<Request<Receive>> for LightningReceiveRequest {
    fn from(request: Request<Receive>) -> Self {
        let (received, settled_by) = match request.machine.state {
            ReceiveState::Settled { amount, by } => (Some(amount), Some(by.as_str())),
            ReceiveState::Open | ReceiveState::Claiming { .. } | ReceiveState::Expired | ReceiveState::Cancelled => {
                (None, None)
            }
        };
        let amount = received.or(request.machine.amount);
        Self {
            id: request.id.to_string(),
            status: InvoiceStatus::of(&request.machine.state),
            payment_type: BTC,
            amount_sats: amount.map(Amount::sat_floor),
            asset: None,
            created_at: request.created_at.rfc3339(),
            amount_msat: amount.map(Amount::base_units),
            received_msat: received.map(Amount::base_units),
            settled_by,
            payment_hash: request.machine.hash.to_string(),
            expires_at: request.expires_at.map(Timestamp::rfc3339),
            updated_at: request.updated_at.rfc3339(),
            state: request.machine.state(),
            reference: request.reference,
            warning: None,
            invoice: request.machine.invoice,
            description: request.machine.description,
        }
    }
}

impl From<Invoiced> for LightningReceiveRequest {
    fn from(invoiced: Invoiced) -> Self {
        let warning = invoiced.is_inbound_low.then_some(INBOUND_LOW);
        Self { warning, ..invoiced.request.into() }
    }
}

/// Create a Lightning invoice
///
/// What arrives for it is credited to the wallet's off-chain balance, once. It may be paid over the Lightning network, or by another
/// wallet of this gateway. With an Idempotency-Key the same key answers the same invoice.
#[utoipa::path(post, path = "/lightning/create-invoice", operation_id = "createInvoice", tag = "lightning",
    request_body = CreateLightningInvoiceRequestModel,
    responses((status = 200, description = "The invoice", body = LightningReceiveRequest)))]
pub async fn create(
    State(state): State<HttpState>,
    wallet: Wallet<ToReceive>,
    body: Posted<CreateLightningInvoiceRequestModel>,
) -> Result<Json<LightningReceiveRequest>, Problem> {
    let wanted = wanted(body.value)?;
    let invoiced = invoice::create(&state.flows, &wallet.keys, wanted, body.idempotency).await?;
    Ok(Json(invoiced.into()))
}

fn wanted(asked: CreateLightningInvoiceRequestModel) -> Result<WantedInvoice, Problem> {
    if asked.asset.is_some() {
        return Err(Problem::plain(Code::AssetLightningUnavailable));
    }
    let refuse = |field: &'static str, why: &'static str| Err(Problem::field(Code::InvalidRequest, field, why));
    let amount = match (super::above_zero("amount_sats", asked.amount_sats)?, asked.amountless.unwrap_or(false)) {
        (Some(amount), false) => Some(amount),
        (None, true) => None,
        (Some(_), true) => return refuse("amountless", "amountless: is true, and amount_sats is given; leave one out"),
        (None, false) => {
            return refuse("amount_sats", "amount_sats: is needed, unless amountless is true");
        }
    };
    if asked.description.as_ref().is_some_and(|text| text.len() > DESCRIPTION_MAX) {
        return refuse("description", "description: at most 639 bytes fit into an invoice");
    }
    Ok(WantedInvoice {
        amount,
        description: asked.description,
        description_hash: None,
        expiry_seconds: asked.expiry_seconds,
        reference: super::reference(asked.reference)?,
    })
}

/// One invoice
///
/// The authority on what became of an invoice. An id that names no invoice of this wallet is answered `null`.
#[utoipa::path(get, path = "/lightning/receive-request/{request_id}", operation_id = "receiveRequest", tag = "lightning",
    params(("request_id" = String, Path, description = "The id that create-invoice answered", example = json!(examples::ID))),
    responses((status = 200, description = "The invoice, or null", body = Option<LightningReceiveRequest>)))]
pub async fn get(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    id: Result<AnyId, Problem>,
) -> Result<Json<Option<LightningReceiveRequest>>, Problem> {
    // What can't be an id names nothing, either.
    let Some(id) = id.ok().and_then(|id| id.request()) else { return Ok(Json(None)) };
    Ok(Json(invoice::find(&state.flows, &wallet.id, id).await?.map(Into::into)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::values::{Preimage, Rail};
    use crate::ids::{RequestId, WalletId};

    fn asked(body: &str) -> Result<WantedInvoice, (Code, String)> {
        let problem = |p: Problem| (p.code, p.field.unwrap_or_default().into_owned());
        wanted(crate::http::extract::parse_json(body.as_bytes()).map_err(problem)?).map_err(problem)
    }

    #[test]
    fn an_invoice_has_an_amount_or_says_that_it_has_none() {
        let field = |body: &str| asked(body).unwrap_err();
        assert_eq!(field("{}"), (Code::InvalidRequest, "amount_sats".to_owned()));
        assert_eq!(field(r#"{"amountless":false}"#), (Code::InvalidRequest, "amount_sats".to_owned()));
        assert_eq!(field(r#"{"amountless":true,"amount_sats":1}"#), (Code::InvalidRequest, "amountless".to_owned()));
        for wrong in ["-1", "1.5", "1e3", "\"5\"", "2100000000000001"] {
            let body = format!(r#"{{"amount_sats":{wrong}}}"#);
            assert_eq!(field(&body), (Code::InvalidRequest, "amount_sats".to_owned()), "{wrong}");
        }
        assert_eq!(asked(r#"{"amountless":true}"#).unwrap().amount, None);
        assert_eq!(asked(r#"{"amount_sats":7}"#).unwrap().amount.map(Amount::base_units), Some(7_000));
        let long = format!(r#"{{"amount_sats":7,"description":"{}"}}"#, "x".repeat(DESCRIPTION_MAX + 1));
        assert_eq!(field(&long), (Code::InvalidRequest, "description".to_owned()));
    }

    #[test]
    fn an_asset_is_refused_whatever_else_is_asked() {
        for amount in ["", r#","amount_sats":5"#, r#","amountless":true"#] {
            let body = format!(r#"{{"asset":{{"asset_id":"rgb:x","amount":1}}{amount}}}"#);
            assert_eq!(asked(&body).unwrap_err().0, Code::AssetLightningUnavailable);
        }
    }

    #[test]
    fn each_state_maps_and_what_was_received_is_told_exactly() {
        let msat = |n| Amount::from_msat(n).unwrap();
        let (open, settled) = (InvoiceStatus::Open, InvoiceStatus::Settled);
        let all = [
            (ReceiveState::Open, open, Some(5), None, None),
            (ReceiveState::Claiming { amount: msat(6_100) }, open, Some(5), None, None),
            (
                ReceiveState::Settled { amount: msat(6_100), by: Rail::Channel },
                settled,
                Some(6),
                Some(6_100),
                Some("channel"),
            ),
            (
                ReceiveState::Settled { amount: msat(5_000), by: Rail::Book },
                settled,
                Some(5),
                Some(5_000),
                Some("book"),
            ),
            (ReceiveState::Expired, InvoiceStatus::Expired, Some(5), None, None),
            (ReceiveState::Cancelled, InvoiceStatus::Failed, Some(5), None, None),
        ];
        for (state, status, sats, received, by) in all {
            let id = RequestId::fresh();
            let wallet = WalletId::of_triple("a", "b", "c");
            let preimage = Preimage([7; 32]);
            let request = Request {
                id,
                wallet: wallet.clone(),
                reference: None,
                label: None,
                created_at: Timestamp::from_millis(0),
                updated_at: Timestamp::from_millis(0),
                expires_at: None,
                version: 1,
                machine: Receive {
                    request: id,
                    wallet,
                    invoice: "lnbcrt1".to_owned(),
                    hash: preimage.hash(),
                    preimage,
                    amount: Some(msat(5_000)),
                    description: None,
                    attempts: 1,
                    surplus: Amount::ZERO,
                    state,
                },
            };
            let view = LightningReceiveRequest::from(request);
            assert_eq!(
                (view.status, view.amount_sats, view.received_msat, view.settled_by),
                (status, sats, received, by)
            );
            let body = serde_json::to_string(&view).unwrap();
            assert!(!body.contains(&preimage.to_string()), "what opens the payment is never told");
        }
    }
}
