//! Money that arrived on addresses of a wallet.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::ListParams;
use super::{List, examples};
use crate::clock::Timestamp;
use crate::flows::history;
use crate::flows::values::{Deposit, DepositState, Machine, Request};
use crate::http::HttpState;
use crate::http::auth::{ToRead, Wallet};
use crate::http::extract::Params;
use crate::http::problem::Problem;
use crate::money::Sat;

/// The states that the list can be narrowed to.
pub const STATES: [&str; 7] = ["seen", "mined", "confirmed", "replaced", "evicted", "reorged", "own"];

/// An output that pays an address which was handed out for receiving.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Deposit, example = json!({
    "id": examples::ID, "txid": examples::TXID, "vout": 0, "address": examples::ADDRESS, "amount_sats": 100_000,
    "amount_msat": 100_000_000, "state": "confirmed", "confirmations": 3, "height": 810, "replaced_by": null,
    "address_request_id": examples::ID, "label": "customer 7", "reference": "order-1842",
    "created_at": examples::TIME, "updated_at": examples::TIME,
}))]
pub struct DepositView {
    pub id: String,
    pub txid: String,
    pub vout: u32,
    pub address: String,
    #[schema(value_type = u64)]
    pub amount_sats: Sat,
    pub amount_msat: u64,
    /// seen, mined, confirmed, replaced, evicted, reorged or own. Only a confirmed one counts; an `own` one turned out to be paid with
    /// coins of this wallet.
    pub state: &'static str,
    /// Blocks on top of and with its own; 0 while it is in none.
    pub confirmations: u32,
    pub height: Option<u32>,
    /// The transaction that took its place.
    pub replaced_by: Option<String>,
    /// The request that handed out the address.
    pub address_request_id: Option<String>,
    /// The label of that address.
    pub label: Option<String>,
    /// The reference of that address.
    pub reference: Option<String>,
    pub created_at: String,
    pub updated_at: String,
}

impl DepositView {
    #[must_use]
    pub fn of(request: &Request<Deposit>, tip: u32) -> Self {
        let deposit = &request.machine;
        let (height, replaced_by) = match &deposit.state {
            DepositState::Mined { height } | DepositState::Confirmed { height } => (Some(*height), None),
            DepositState::Replaced { by } => (None, Some(by.to_string())),
            DepositState::Seen | DepositState::Evicted | DepositState::Reorged | DepositState::Own => (None, None),
        };
        Self {
            id: request.id.to_string(),
            txid: deposit.outpoint.txid.to_string(),
            vout: deposit.outpoint.vout,
            address: deposit.address.clone(),
            amount_sats: deposit.amount,
            amount_msat: crate::money::Amount::from_sat(deposit.amount).base_units(),
            state: deposit.state(),
            // A block that was just taken in is one confirmation even if the tip was read a moment before.
            confirmations: height.map_or(0, |height| tip.saturating_add(1).saturating_sub(height).max(1)),
            height,
            replaced_by,
            address_request_id: deposit.address_request.map(|id| id.to_string()),
            label: request.label.clone(),
            reference: request.reference.clone(),
            created_at: request.created_at.rfc3339(),
            updated_at: Timestamp::rfc3339(request.updated_at),
        }
    }
}

/// A page of deposits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "deposits": [], "next_cursor": null }))]
pub struct DepositsResponse {
    pub deposits: Vec<DepositView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// The deposits
///
/// Money that arrived on addresses of this wallet, newest first. `state` is one of seen, mined, confirmed, replaced, evicted,
/// reorged, own. `reference` is the one that the address was made with.
#[utoipa::path(get, path = "/deposits", operation_id = "deposits", tag = "receive",
    params(ListParams),
    responses((status = 200, description = "The deposits", body = DepositsResponse)))]
pub async fn list(
    State(state): State<HttpState>,
    wallet: Wallet<ToRead>,
    Params(params): Params<ListParams>,
) -> Result<Json<DepositsResponse>, Problem> {
    let list = List::read(params, &STATES)?;
    let tip = history::tip_height(&state.flows).await?;
    let rows = history::deposits(&state.flows, &wallet.id, &list.filter, list.after, list.limit).await?;
    let next_cursor = super::next_cursor(&rows, list.limit, super::place);
    let deposits = rows.iter().map(|request| DepositView::of(request, tip)).collect();
    Ok(Json(DepositsResponse { deposits, next_cursor }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{RequestId, WalletId};
    use bitcoin::hashes::Hash;

    #[test]
    fn each_state_maps() {
        let by = bitcoin::Txid::all_zeros();
        let all = [
            (DepositState::Seen, 0, false),
            (DepositState::Mined { height: 10 }, 1, false),
            (DepositState::Confirmed { height: 8 }, 3, false),
            (DepositState::Replaced { by }, 0, true),
            (DepositState::Evicted, 0, false),
            (DepositState::Reorged, 0, false),
            (DepositState::Own, 0, false),
        ];
        for ((state, confirmations, replaced), name) in all.into_iter().zip(STATES) {
            let machine = Deposit {
                outpoint: bitcoin::OutPoint::null(),
                address: "a".to_owned(),
                amount: Sat::literal(7),
                address_request: None,
                state,
            };
            let request = Request {
                id: RequestId::fresh(),
                wallet: WalletId::of_triple("a", "b", "c"),
                reference: None,
                label: None,
                created_at: Timestamp::from_millis(0),
                updated_at: Timestamp::from_millis(0),
                expires_at: None,
                version: 1,
                machine,
            };
            let view = DepositView::of(&request, 10);
            assert_eq!((view.state, view.confirmations, view.replaced_by.is_some()), (name, confirmations, replaced));
            assert_eq!(view.amount_msat, 7_000);
        }
    }
}
