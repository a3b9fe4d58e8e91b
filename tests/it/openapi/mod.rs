//! The document of the API against the gateway that serves it.

mod fuzz;
