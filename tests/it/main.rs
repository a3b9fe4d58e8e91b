//! The one integration binary: stories and suites that need more than one room.

mod api;
mod attacks;
mod conformance;
mod crash;
mod fixture;
mod flows;
mod harness;
mod openapi;
mod outage;
mod stories;
