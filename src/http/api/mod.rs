//! The endpoints, one file per group: wire shapes, and a mapping onto flows. Nothing is decided here.

pub mod admin;
pub mod asset_export;
pub mod asset_transfers;
pub mod assets;
pub mod balance;
pub mod begun;
mod bip21;
pub mod capabilities;
pub mod decode;
pub mod deposits;
mod destination;
pub mod events;
pub mod examples;
pub mod lightning_receive;
pub mod lightning_send;
pub mod onchain_receive;
pub mod onchain_send;
pub mod pay;
pub mod pay_with_key;
pub mod payments;
pub mod problems;
pub mod requests;
pub mod send_view;
pub mod settle;
pub mod spending_grants;
pub mod transactions;
pub mod wallet;
pub mod wire;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::HttpState;
use super::extract::{PAGE_USUAL, cursor, limit, read_page};
use super::problem::Problem;
use super::proxy;
use crate::clock::Timestamp;
use crate::flows::Code;
use crate::flows::values::{Filter, PageAfter, Request};
use crate::money::{Amount, Sat};

/// The longest word of a caller's own that is kept with a request.
const OWN_WORD_MAX: usize = crate::flows::send::REFERENCE_MAX;

/// Every endpoint with its part of the document.
#[must_use]
pub fn endpoints() -> OpenApiRouter<HttpState> {
    let router = OpenApiRouter::new()
        .routes(routes!(wallet::register))
        .routes(routes!(wallet::address))
        .routes(routes!(wallet::btcbalance))
        .routes(routes!(wallet::listunspents))
        .routes(routes!(wallet::listtransactions))
        .routes(routes!(wallet::sendbtcbegin))
        .routes(routes!(wallet::sendbtcend))
        .routes(routes!(wallet::get_fee_estimation))
        .routes(routes!(wallet::refresh))
        .routes(routes!(wallet::sync))
        .routes(routes!(onchain_receive::current, onchain_receive::new))
        .routes(routes!(onchain_receive::unused))
        .routes(routes!(onchain_send::begin))
        .routes(routes!(onchain_send::end))
        .routes(routes!(onchain_send::get))
        .routes(routes!(onchain_send::get_alias))
        .routes(routes!(onchain_send::list))
        .routes(routes!(onchain_send::cancel))
        .routes(routes!(onchain_send::bump_begin))
        .routes(routes!(onchain_send::bump_end))
        .routes(routes!(balance::balance))
        .routes(routes!(transactions::transactions))
        .routes(routes!(deposits::list))
        .routes(routes!(requests::get))
        .routes(routes!(requests::cancel))
        .routes(routes!(events::list))
        .routes(routes!(pay::receive))
        .routes(routes!(pay::begin))
        .routes(routes!(pay::end))
        .routes(routes!(lightning_receive::create))
        .routes(routes!(lightning_receive::get))
        .routes(routes!(lightning_send::begin))
        .routes(routes!(lightning_send::end))
        .routes(routes!(lightning_send::get))
        .routes(routes!(lightning_send::authorization))
        .routes(routes!(lightning_send::fee_estimate))
        .routes(routes!(pay_with_key::pay))
        .routes(routes!(spending_grants::list))
        .routes(routes!(spending_grants::give))
        .routes(routes!(payments::list))
        .routes(routes!(settle::finish))
        .routes(routes!(settle::begin))
        .routes(routes!(settle::end))
        .routes(routes!(settle::get))
        .routes(routes!(decode::decode))
        .routes(routes!(capabilities::get))
        .routes(routes!(assets::createutxosbegin))
        .routes(routes!(assets::createutxosend))
        .routes(routes!(assets::listassets))
        .routes(routes!(assets::assetbalance))
        .routes(routes!(assets::issueassetnia))
        .routes(routes!(assets::decodergbinvoice))
        .routes(routes!(asset_transfers::blindreceive))
        .routes(routes!(asset_transfers::witnessreceive))
        .routes(routes!(asset_transfers::sendbegin))
        .routes(routes!(asset_transfers::sendend))
        .routes(routes!(asset_transfers::lightning_listtransfers))
        .routes(routes!(asset_transfers::listtransfers))
        .routes(routes!(asset_transfers::failtransfers))
        .routes(routes!(asset_export::begin))
        .routes(routes!(asset_export::end));
    admin::add_to(proxy::add_to(router))
}

/// Where the next page begins, if this one is full.
fn next_cursor<T>(rows: &[T], most: u32, place: impl Fn(&T) -> (Timestamp, String)) -> Option<String> {
    let full = rows.len() >= most as usize;
    rows.last().filter(|_| full).map(|row| {
        let (at, id) = place(row);
        cursor(at, &id)
    })
}

fn place<M>(request: &Request<M>) -> (Timestamp, String) {
    (request.created_at, request.id.to_string())
}

/// A list's parameters, checked.
struct List {
    filter: Filter,
    after: Option<PageAfter>,
    limit: u32,
}

impl List {
    fn read(params: wire::ListParams, states: &[&str]) -> Result<Self, Problem> {
        let wire::ListParams { limit: asked, cursor, state, reference, since, until } = params;
        // `state=` is what a form sends for "any".
        let (state, reference) = (given(state), given(reference));
        if let Some(state) = &state
            && !states.contains(&state.as_str())
        {
            let detail = format!("state: there are {}", states.join(", "));
            return Err(Problem::field(Code::InvalidRequest, "state", detail));
        }
        let time = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1_000));
        Ok(Self {
            filter: Filter { state, reference, since: since.map(time), until: until.map(time) },
            after: read_page(cursor.as_deref())?,
            limit: limit(asked, PAGE_USUAL)?,
        })
    }
}

fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// A caller's own word for a request.
fn reference(text: Option<String>) -> Result<Option<String>, Problem> {
    own_word("reference", text)
}

fn own_word(field: &'static str, text: Option<String>) -> Result<Option<String>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let fits = (1..=OWN_WORD_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if fits {
        return Ok(Some(text));
    }
    let detail = format!("{field}: must be 1 to {OWN_WORD_MAX} characters without control characters");
    Err(Problem::field(Code::InvalidRequest, field, detail))
}

/// An amount of a payment, which is never nothing.
fn above_zero(field: &'static str, amount: Option<Sat>) -> Result<Option<Amount>, Problem> {
    if amount == Some(Sat::ZERO) {
        return Err(Problem::field(Code::InvalidRequest, field, format!("{field}: must be at least 1")));
    }
    Ok(amount.map(Amount::from_sat))
}

/// Schemes are written in any case.
fn starts_with_ignoring_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_page_says_where_the_next_begins_and_a_short_one_does_not() {
        let rows = [1, 2];
        let place = |row: &i32| (Timestamp::from_millis(0), row.to_string());
        assert!(next_cursor(&rows, 2, place).is_some());
        assert!(next_cursor(&rows, 3, place).is_none());
        assert!(next_cursor(&[], 3, place).is_none());
    }

    #[test]
    fn a_callers_own_word_is_short_text() {
        assert_eq!(reference(Some("order 7 ✓".to_owned())), Ok(Some("order 7 ✓".to_owned())));
        for wrong in ["", "a\nb", "a\0b", &"x".repeat(257)] {
            assert_eq!(reference(Some(wrong.to_owned())).unwrap_err().field.as_deref(), Some("reference"));
        }
    }
}
