//! What somebody attempts who has read the code: one story for each attempt, each of which succeeded once.

mod consignments;
mod door;
mod files;
mod mistakes;
mod tenants;
//! What somebody attempts who has read the code: each story is named by it, and ends with nothing taken and nobody stopped.

mod asset_invoices;
mod open_begins;
mod own_invoices;
mod unsigned_begins;
mod wallet_names;
//! What somebody may try to take what is not theirs, or to stop the others: one story for each attempt.

mod old_states;
mod poison;
mod second_payments;
mod withdrawals;
//! One story for each thing that somebody attempts and that must not work.

mod differences;
mod halts;
mod node_audit;
mod own_deposits;
mod reversals;
mod revived;
mod strangers_rows;
//! What somebody does who has read the code, or who pulls the plug: each test is named by what is attempted.

mod asset_addresses;
mod asset_kills;
mod assets_side_by_side;
//! What somebody would do to take what isn't his, or to stop the others: one story for each attempt.

mod node_rows;
mod offers_asked;
mod operator;
mod socket;
mod stopped;
