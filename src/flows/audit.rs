//! `sluice audit`: recomputes the books and says where they differ.

use super::{Error, Flows};

/// A difference that should not be. None of them is harmless.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Drift {
    /// The rule that is broken, in a word.
    pub rule: &'static str,
    pub detail: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// How many rows each rule was checked on.
    pub checked: Vec<(&'static str, u64)>,
    pub drifts: Vec<Drift>,
}

/// Audits the store, and the chain where the backend can be asked.
pub async fn audit(_flows: &Flows) -> Result<Report, Error> {
    todo!()
}
