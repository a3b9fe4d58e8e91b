//! What the gateway leans on fails.
