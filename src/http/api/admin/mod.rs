//! The operator's calls. Each needs a key with the scope `admin`, also where wallet headers alone are believed.

pub mod books;
pub mod channels;
pub mod events;
pub mod liquidity;
pub mod node;
pub mod sends;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::HttpState;

/// The part of the document that they stand in.
pub const TAG: &str = "operator";

/// Adds every call of the operator.
#[must_use]
pub fn add_to(router: OpenApiRouter<HttpState>) -> OpenApiRouter<HttpState> {
    router
        .routes(routes!(node::get))
        .routes(routes!(node::reserve, node::new_reserve_address))
        .routes(routes!(sends::bump))
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
}
