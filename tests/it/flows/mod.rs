//! Stories of the flows on both databases, over a chain in memory.

mod addresses;
mod asset_coins;
mod asset_exports;
mod asset_faults;
mod bumps;
mod conflicts;
mod consignments;
mod deposits;
mod faults;
mod idempotency;
mod lightning_books;
mod lightning_pays;
mod lightning_receives;
mod liquidity;
mod mutated_psbts;
mod node_books;
mod random_walks;
mod reorgs;
mod scanning;
mod sending;
mod settling;
mod spending;
mod spending_grants;
mod spending_keys;
mod whole_ledger;
mod withdrawing;
