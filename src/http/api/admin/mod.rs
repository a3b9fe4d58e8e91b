//! The operator's calls. Each needs a key with a scope of the operator, also where wallet headers alone are believed, or comes over the
//! socket of this machine.

pub mod audit;
pub mod books;
pub mod channels;
pub mod differences;
pub mod events;
pub mod halts;
pub mod key_views;
pub mod keys;
pub mod liquidity;
pub mod node;
pub mod sends;
pub mod wallets;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::flows::Code;
use crate::http::HttpState;
use crate::http::endpoint::endpoint;
use crate::http::problem::Problem;

/// The part of the document that they stand in.
pub const TAG: &str = "operator";

/// Adds every call of the operator.
#[must_use]
pub fn add_to(router: OpenApiRouter<HttpState>) -> OpenApiRouter<HttpState> {
    router
        .routes(routes!(node::get))
        .routes(routes!(node::reserve, node::new_reserve_address))
        .routes(endpoint!(sends::bump, sends::BUMP))
        .routes(routes!(channels::peers, channels::connect))
        .routes(routes!(channels::list, channels::open))
        .routes(routes!(channels::close))
        .routes(routes!(channels::set_fees))
        .routes(routes!(liquidity::get))
        .routes(routes!(events::list))
        .routes(routes!(books::trial_balance))
        .routes(routes!(books::profit_and_loss))
        .routes(routes!(books::suspense))
        .routes(routes!(books::resolve))
        .routes(endpoint!(halts::list, halts::LIST))
        .routes(endpoint!(halts::raise, halts::RAISE))
        .routes(endpoint!(halts::clear, halts::CLEAR))
        .routes(endpoint!(keys::list, keys::LIST))
        .routes(endpoint!(keys::create, keys::CREATE))
        .routes(endpoint!(keys::revoke, keys::REVOKE))
        .routes(endpoint!(keys::rotate, keys::ROTATE))
        .routes(endpoint!(keys::wallets, keys::WALLETS))
        .routes(endpoint!(keys::bind, keys::BIND))
        .routes(endpoint!(keys::grant, keys::GRANT))
        .routes(endpoint!(keys::give_grant, keys::GIVE_GRANT))
        .routes(endpoint!(wallets::list, wallets::LIST))
        .routes(endpoint!(wallets::release, wallets::RELEASE))
        .routes(endpoint!(differences::book, differences::BOOK))
        .routes(endpoint!(audit::last, audit::LAST))
        .routes(endpoint!(audit::run, audit::RUN))
}

/// A reason is a sentence.
const REASON_MAX: usize = 500;

/// A reason, for whoever reads it later.
fn read_reason(reason: String) -> Result<String, Problem> {
    let length = reason.chars().count();
    if (1..=REASON_MAX).contains(&length) && !reason.chars().any(char::is_control) {
        return Ok(reason);
    }
    let detail = format!("reason: must be 1 to {REASON_MAX} characters without control characters");
    Err(Problem::field(Code::InvalidRequest, "reason", detail))
}
