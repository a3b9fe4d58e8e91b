//! The one integration binary: stories and suites that need more than one room.

mod conformance;
mod flows;
mod harness;
