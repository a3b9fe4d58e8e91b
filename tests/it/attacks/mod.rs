//! What somebody attempts who has read the code, or who pulls the plug: one story for each attempt, named by it. Each ends with nothing
//! taken and nobody stopped.

mod asset_addresses;
mod asset_invoices;
mod asset_kills;
mod assets_side_by_side;
mod closes;
mod consignments;
mod differences;
mod door;
mod files;
mod halts;
mod hostile_peers;
mod mistakes;
mod node_audit;
mod node_rows;
mod offers_asked;
mod old_states;
mod open_begins;
mod operator;
mod own_deposits;
mod own_invoices;
mod poison;
mod reversals;
mod revived;
mod second_payments;
mod socket;
mod stopped;
mod strangers_rows;
mod tenants;
mod till;
mod unfunded;
mod unsigned_begins;
mod wallet_names;
mod withdrawals;
mod world;
