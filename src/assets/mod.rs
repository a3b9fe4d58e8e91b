//! The adapters of the port to RGB.

pub mod rgb;
