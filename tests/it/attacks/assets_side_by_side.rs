//! Several assets of one wallet, and several sends at once: what the engine would mix up or take twice is refused before anything is signed.

use serde_json::{Value, json};

use crate::harness::process::Call;
use crate::harness::rig::{Client, Database};
use crate::stories::asset_transfers::{Pair, pair, text};

async fn begin(pair: &Pair, asset: &str, amount: u64, fee_rate: u64) -> Call {
    let invoice = pair.invoice(&pair.bob, "/wallet/witnessreceive", json!({})).await;
    let body = json!({
        "invoice": invoice["invoice"], "asset_id": asset, "amount": amount, "fee_rate": fee_rate, "min_confirmations": 1,
    });
    Call::post("/wallet/sendbegin", &pair.ann).json(body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_assets_on_one_coin_and_three_sends_at_once() {
    let Some(pair) = pair(Database::Sqlite).await else { return };
    two_assets_with_one_free_coin(&pair).await;
    sends_of_what_is_on_its_way(&pair).await;
    a_coin_for_the_fee_that_two_sends_want(&pair).await;
    pair.scene.end().await;
}

/// The second would have come to lie beside the first, and neither could have been sent any more.
async fn two_assets_with_one_free_coin(pair: &Pair) {
    let carol = Client::number(3);
    pair.scene.join(&carol).await;
    pair.scene.make_coins_for(&carol, json!({ "num": 1, "size": 5_000, "fee_rate": 2 })).await;
    let issue = |ticker: &str| {
        let body = json!({ "ticker": ticker, "name": "One of two", "amounts": [100] });
        Call::post("/wallet/issueassetnia", &carol).json(body)
    };
    pair.scene.ok(&issue("ONE")).await;
    pair.scene.refused(&issue("TWO"), 409, "colorable_utxos_needed").await;
    pair.scene.make_coins_for(&carol, json!({ "num": 3, "size": 5_000, "fee_rate": 2 })).await;
    let two = pair.scene.ok(&issue("TWO")).await;
    // The fee leaves no bitcoin to give back: what is left of the asset goes on a coin of its own.
    let invoice = pair.invoice(&pair.bob, "/wallet/blindreceive", json!({})).await;
    let body = json!({
        "invoice": invoice["invoice"], "asset_id": two["asset_id"], "amount": 40, "fee_rate": 22, "min_confirmations": 1,
    });
    let begun = pair.scene.ok(&Call::post("/wallet/sendbegin", &carol).json(body)).await;
    let signed = json!({ "signed_psbt": carol.sign(text(&begun)) });
    let sent = pair.scene.ok(&Call::post("/wallet/sendend", &carol).json(signed)).await;
    pair.settle(&carol, text(&sent["send_id"])).await;
    let unspents = Call::post("/wallet/listunspents", &carol);
    let coins = pair.scene.until("what is left is on a coin", &unspents, |coins| sums(coins) == 160).await;
    for coin in coins.as_array().expect("a list") {
        let on = coin["rgb_allocations"].as_array().expect("a list").len();
        assert!(on <= 1, "{coin}");
    }
}

fn sums(coins: &Value) -> u64 {
    let coins = coins.as_array().expect("a list").iter();
    let on = coins.flat_map(|coin| coin["rgb_allocations"].as_array().expect("a list"));
    on.filter(|on| on["settled"] == true).map(|on| on["amount"].as_u64().expect("an amount")).sum()
}

/// All of it is on one coin, which the first send has.
async fn sends_of_what_is_on_its_way(pair: &Pair) {
    let first = pair.scene.ok(&begin(pair, &pair.asset, 10, 2).await).await;
    for _ in 0..2 {
        let next = begin(pair, &pair.asset, 10, 2).await;
        let refused = pair.scene.refused(&next, 409, "coins_unconfirmed").await;
        assert_eq!(refused["retryable"], true, "{refused}");
    }
    let signed = json!({ "signed_psbt": pair.ann.sign(text(&first)) });
    let sent = pair.scene.ok(&Call::post("/wallet/sendend", &pair.ann).json(signed)).await;
    pair.settle(&pair.ann, text(&sent["send_id"])).await;
    let more = begin(pair, &pair.asset, 100_000, 2).await;
    pair.scene.refused(&more, 400, "insufficient_assets").await;
}

async fn a_coin_for_the_fee_that_two_sends_want(pair: &Pair) {
    pair.comes_to(&pair.ann, 990).await;
    let silver = json!({ "ticker": "SILVER", "name": "Silver", "amounts": [100] });
    let silver = pair.scene.ok(&pair.scene.post("/wallet/issueassetnia", silver)).await;
    pair.scene.ok(&begin(pair, &pair.asset, 10, 30).await).await;
    let refused = pair.scene.refused(&begin(pair, text(&silver["asset_id"]), 10, 30).await, 409, "coins_leased").await;
    assert_eq!(refused["retryable"], true, "{refused}");
    // An asset on that coin would be spent with it.
    let copper = json!({ "ticker": "COPPER", "name": "Copper", "amounts": [100] });
    let refused = pair.scene.refused(&pair.scene.post("/wallet/issueassetnia", copper), 409, "coins_unconfirmed").await;
    assert_eq!(refused["retryable"], true, "{refused}");
    let blind = pair.scene.post("/wallet/blindreceive", json!({}));
    pair.scene.refused(&blind, 409, "coins_unconfirmed").await;
}
