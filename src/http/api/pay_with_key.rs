//! Paying in one step, with a key that may spend.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::lightning_send::LightningSendRequest;
use super::{destination, examples};
use crate::flows::Code;
use crate::flows::pay_invoice::BeginPay;
use crate::flows::pay_with_key;
use crate::flows::values::PayDoor;
use crate::http::HttpState;
use crate::http::auth::Spender;
use crate::http::extract::Posted;
use crate::http::problem::Problem;
use crate::money::{Amount, Sat};

/// How long a call waits at most: well within the time that any call may take.
const LONGEST_WAIT_SECONDS: u32 = 30;

/// A payment that a key consents to.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "destination": examples::INVOICE, "amount_sats": null, "max_fee_sats": 50, "wait": 10, "reference": "payout-93",
}))]
pub struct PayWithKeyRequestModel {
    /// A BOLT 11 invoice or a BOLT 12 offer. An invoice of this gateway is paid in its books.
    pub destination: String,
    /// Needed where the destination names no amount, else left out or equal.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 2_100_000_000_000_000_u64)]
    pub amount_sats: Option<Sat>,
    /// What routing may cost at most, in satoshis; it counts against the limits of the key until the payment is over. Unless given, as
    /// much as the balance and the limits leave, and at most 3000.
    #[schema(value_type = Option<u64>, maximum = 2_100_000_000_000_000_u64)]
    pub max_fee_sats: Option<Sat>,
    /// How many seconds the call waits for the end of the payment, 0 to 30; 0 unless given. When they are over it answers PENDING. Whoever
    /// hangs up meanwhile has paid all the same.
    #[schema(maximum = 30)]
    pub wait: Option<u32>,
    /// The caller's own word for it.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    pub reference: Option<String>,
}

/// Pay a Lightning invoice with a key
///
/// In one step and without a signature: the key that is sent consents, within the limits that the wallet's owner has granted to it.
/// The amount and the fee ceiling count against every limit; what the payment did not cost comes back to it. It is answered as soon as
/// the node has been asked, or after the end if `wait` is long enough; `GET /lightning/send-request/{id}` says what became of it.
#[utoipa::path(post, path = "/lightning/pay-invoice", operation_id = "payInvoice", tag = "lightning",
    request_body = PayWithKeyRequestModel,
    responses((status = 200, description = "The payment", body = LightningSendRequest)))]
pub async fn pay(
    State(state): State<HttpState>,
    spender: Spender,
    body: Posted<PayWithKeyRequestModel>,
) -> Result<Json<LightningSendRequest>, Problem> {
    let patience = patience(body.value.wait)?;
    let wanted = wanted(body.value)?;
    let key = spender.key()?;
    state.limits.begin(&spender.id)?;
    let paid = pay_with_key::pay(&state.flows, &spender.keys, key, wanted, body.idempotency).await?;
    let paid = pay_with_key::wait(&state.flows, &spender.id, paid.id, patience).await?;
    Ok(Json(LightningSendRequest::from(&paid)))
}

fn patience(wait: Option<u32>) -> Result<Duration, Problem> {
    let seconds = wait.unwrap_or(0);
    if seconds <= LONGEST_WAIT_SECONDS {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let detail = format!("wait: must be from 0 to {LONGEST_WAIT_SECONDS} seconds");
    Err(Problem::field(Code::InvalidRequest, "wait", detail))
}

fn wanted(asked: PayWithKeyRequestModel) -> Result<BeginPay, Problem> {
    Ok(BeginPay {
        to: destination::without_lightning(&asked.destination).to_owned(),
        amount: super::above_zero("amount_sats", asked.amount_sats)?,
        max_fee: asked.max_fee_sats.map(Amount::from_sat),
        // Nobody's signature is waited for.
        expires_in_seconds: None,
        reference: super::reference(asked.reference)?,
        door: PayDoor::PayInvoice,
        to_field: "destination",
    })
}
