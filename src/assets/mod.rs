//! The adapters of the ports to RGB: the engine, and the client that brings consignments to others.

pub mod courier;
pub mod rgb;
