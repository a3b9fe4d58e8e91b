//! Processes that die: at each named point, at random, beside another one that takes over, and when they are asked to.

mod channel;
mod channel_points;
mod owners;
pub mod pair;
mod points;
mod rail_points;
pub mod random;
mod stop;
mod takeover;

use std::io::Write as _;

use serde_json::{Value, json};

use crate::harness::bitcoind::Bitcoind;
use crate::harness::process::{Call, Gateway};
use crate::harness::rig::{Client, parse_address, stranger};

/// Prints past the test runner, which swallows what a test that passes prints.
pub fn say(text: &str) {
    // Nothing to do when nobody reads it.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn balance(client: &Client) -> Call {
    Call::post("/wallet/btcbalance", client)
}

fn begin(client: &Client, key: &str, sats: u64) -> Call {
    Call::post("/lightning/onchain-send-begin", client)
        .key(key)
        .json(json!({ "address_or_rgbinvoice": stranger().to_string(), "amount_sats": sats, "fee_rate": 2 }))
}

fn end(client: &Client, psbt: &str) -> Call {
    Call::post("/lightning/onchain-send-end", client).json(json!({ "signed_psbt": client.sign(psbt) }))
}

/// Registers a wallet and pays it this many coins, each confirmed.
async fn fund(gateway: &Gateway, node: &Bitcoind, client: &Client, coins: u32, sats: u64) {
    gateway.until("it registers", &Call::post("/wallet/register", client), |answer| answer.is_ok()).await;
    let not_scanning = |body: &Value| body["scanning"] == false;
    gateway.until("it is scanned", &balance(client), |answer| not_scanning(&answer.body)).await;
    for _ in 0..coins {
        let address = gateway.answer(&Call::post("/lightning/onchain-receive", client)).await;
        node.pay(&parse_address(address.text("btc_address")), sluice::money::Sat::literal(sats)).await;
    }
    node.mine(1).await;
    let total = u64::from(coins) * sats;
    gateway.until("it is funded", &balance(client), |answer| answer.body["vanilla"]["settled"] == total).await;
}
