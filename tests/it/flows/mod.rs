//! Stories of the flows on both databases, over a chain in memory.

mod sending;
