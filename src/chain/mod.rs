//! Adapters of the chain port, and the logic that follows a chain through reorganisations.
