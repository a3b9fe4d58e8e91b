//! The adapters of the ports to RGB: the engines, and the client that brings consignments to others.

pub mod courier;
pub mod fake;
pub mod rgb;
