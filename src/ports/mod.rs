//! What the gateway asks of the world: traits only. Adapters live elsewhere; flows never name one.

pub mod assets;
pub mod chain;
pub mod courier;
pub mod lightning;

use std::error::Error;

/// Why a port could not answer. It never means "no": a definite answer is a value of the call's own type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Nobody answered, or not in time. Whether the call had an effect is unknown.
    #[error("{service} did not answer: {reason}")]
    Unreachable { service: &'static str, reason: String },
    /// The answer came, and makes no sense. Whether the call had an effect is unknown.
    #[error("{service} gave an answer that can't be believed: {reason}")]
    Nonsense { service: &'static str, reason: String },
    /// The service refused us as a client: wrong password, wrong network.
    #[error("{service} is not usable as configured: {reason}")]
    Misconfigured { service: &'static str, reason: String },
}

/// What an error comes down to. What is wrapped around it says less, or names an address.
pub fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    std::iter::successors(Some(error), |&error| error.source()).last().unwrap_or(error)
}
