//! What somebody attempts who has read the code: one story for each attempt, each of which succeeded once.

mod consignments;
mod door;
mod files;
mod mistakes;
mod tenants;
