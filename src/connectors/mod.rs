//! Adapters of the Lightning port, one folder each. Only `app` names one.

pub mod fake;
pub mod ldk;
