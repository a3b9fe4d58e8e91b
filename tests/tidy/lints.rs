//! The lints, proven: a small crate with this project's own settings and one fault for each. A lint without a fault here fails.
