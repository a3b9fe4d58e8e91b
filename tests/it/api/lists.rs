//! What is read back: balances, deposits, coins, transactions, events, pages of all of them.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{Scene, fields, on_both, send_of, sent};
use crate::harness::client::{Call, Caller};

on_both!(
    a_deposit_goes_from_seen_to_confirmed,
    what_a_wallet_has_is_told_in_each_shape,
    every_list_is_read_page_by_page,
    events_are_read_without_gaps_while_they_happen,
    refresh_and_sync_answer_at_the_tip,
);

async fn a_deposit_goes_from_seen_to_confirmed(scene: &Scene) {
    let owner = scene.gateway.registered(1).await;
    let body = json!({ "label": "customer 7", "reference": "order-7" });
    let made = owner.post("/lightning/onchain-receive", body).await.ok();
    assert_eq!(fields(&made), ["asset_invoice", "btc_address", "expires_at", "label", "reference", "request_id"]);
    assert_eq!(
        (&made["asset_invoice"], &made["label"], &made["reference"]),
        (&json!(""), &json!("customer 7"), &json!("order-7"))
    );
    let txid = scene.pay(&made["btc_address"], 60_000).await.to_string();
    let one = |list: &Value| list["deposits"].as_array().is_some_and(|all| all.len() == 1);
    let seen = owner.until("/deposits", one).await["deposits"][0].clone();
    assert_eq!(
        fields(&seen),
        [
            "address",
            "address_request_id",
            "amount_msat",
            "amount_sats",
            "confirmations",
            "created_at",
            "height",
            "id",
            "label",
            "reference",
            "replaced_by",
            "state",
            "txid",
            "updated_at",
            "vout",
        ]
    );
    assert_eq!((&seen["state"], &seen["confirmations"], &seen["height"]), (&json!("seen"), &json!(0), &Value::Null));
    assert_eq!((&seen["txid"], &seen["amount_msat"]), (&json!(txid), &json!(60_000_000)));
    let balance = owner.post_empty("/wallet/btcbalance").await.ok();
    assert_eq!(balance["vanilla"], json!({ "settled": 0, "future": 60_000, "spendable": 0 }));
    let unripe = owner.post("/lightning/onchain-send-begin", send_of(&scene.stranger().await, 30_000)).await;
    unripe.refused(409, "coins_unconfirmed");

    scene.mine(1).await;
    let id = seen["id"].as_str().expect("an id");
    let request = owner.get(format!("/requests/{id}")).await.ok();
    assert_eq!((&request["kind"], &request["state"]), (&json!("deposit"), &json!("confirmed")));
    assert_eq!(request["deposit"]["address_request_id"], made["request_id"]);
    assert!(request["send"].is_null() && request["receive"].is_null());
    let kinds: Vec<&Value> = request["timeline"].as_array().expect("a timeline").iter().map(|e| &e["kind"]).collect();
    assert_eq!(kinds.first(), Some(&&json!("deposit.seen")), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&&json!("deposit.confirmed")), "{kinds:?}");
    let other = owner.get("/lightning/onchain-receive").await.ok();
    assert_ne!(other["btc_address"], made["btc_address"], "an address is used once");
    for (filter, found) in
        [("reference=order-7", 1), ("reference=order-8", 0), ("state=seen", 0), ("state=confirmed", 1)]
    {
        let list = owner.get(format!("/deposits?{filter}")).await.ok();
        assert_eq!(list["deposits"].as_array().map(Vec::len), Some(found), "{filter}");
    }
    let now = created_seconds(&seen);
    for (filter, found) in [
        (format!("since={now}"), 1),
        (format!("since={}", now + 60), 0),
        (format!("until={now}"), 0),
        (format!("until={}", now + 60), 1),
    ] {
        let list = owner.get(format!("/deposits?{filter}")).await.ok();
        assert_eq!(list["deposits"].as_array().map(Vec::len), Some(found), "{filter}");
    }
}

/// When it was created, in whole unix seconds.
fn created_seconds(deposit: &Value) -> i64 {
    let text = deposit["created_at"].as_str().expect("a time");
    let format = time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::parse(text, &format).expect("RFC 3339").unix_timestamp()
}

async fn what_a_wallet_has_is_told_in_each_shape(scene: &Scene) {
    let owner = scene.gateway.caller(1);
    let registered = owner.post_empty("/wallet/register").await.ok();
    assert_eq!(fields(&registered), ["address", "btc_balance"]);
    assert!(registered["btc_balance"]["vanilla"].is_object() && registered["btc_balance"]["colored"].is_object());
    let again = owner.post_empty("/wallet/register").await.ok();
    assert_eq!(again["address"], registered["address"]);
    assert_eq!(owner.post_empty("/wallet/address").await.ok(), registered["address"]);
    let current = owner.get("/lightning/onchain-receive").await.ok();
    assert_eq!(current["btc_address"], registered["address"]);

    scene.pay(&registered["address"], 80_000).await;
    scene.mine(1).await;
    let (_, txid) = sent(&owner, &scene.stranger().await, 30_000).await;
    scene.in_mempool(&txid).await;
    let listed = |path: &'static str| {
        let owner = owner.clone();
        async move { owner.post_empty(path).await.ok().as_array().expect("an array").clone() }
    };
    let transactions = listed("/wallet/listtransactions").await;
    assert_eq!(transactions.len(), 2);
    assert_eq!(fields(&transactions[0]), ["confirmation_time", "fee", "received", "sent", "transaction_type", "txid"]);
    let out = transactions.iter().find(|tx| tx["txid"] == json!(txid)).expect("the send is listed");
    assert_eq!(
        (&out["sent"], &out["confirmation_time"], &out["transaction_type"]),
        (&json!(80_000), &Value::Null, &json!(3))
    );
    let fee = out["fee"].as_u64().expect("a fee");
    assert_eq!(out["received"], json!(80_000 - 30_000 - fee));
    assert_eq!(owner.get("/lightning/listtransactions").await.ok()["transactions"], json!(transactions));

    let coins = listed("/wallet/listunspents").await;
    assert_eq!(coins.len(), 1, "{coins:?}");
    assert_eq!((fields(&coins[0]), &coins[0]["rgb_allocations"]), (vec!["rgb_allocations", "utxo"], &json!([])));
    let change = &coins[0]["utxo"];
    assert_eq!(
        (&change["btc_amount"], &change["confirmed"], &change["leased_by"]),
        (&out["received"], &json!(false), &Value::Null)
    );
    let lease = owner
        .call(Call::post("/lightning/onchain-send-begin", &send_of(&scene.stranger().await, 10_000)).for_object())
        .await
        .ok();
    let leased = listed("/wallet/listunspents").await;
    assert_eq!(leased[0]["utxo"]["leased_by"], lease["request_id"]);
    let balance = owner.get("/lightning/balance").await.ok();
    let left = 80_000 - 30_000 - fee;
    assert_eq!(fields(&balance), ["asset_balances", "asset_balances_known", "balance"]);
    // The coin that is spent in the mempool is settled until a block says otherwise.
    assert_eq!(balance["balance"]["vanilla"], json!({ "settled": 80_000, "future": left, "spendable": 0 }));
    let rate = owner.post("/wallet/get_fee_estimation", json!({ "blocks": 6 })).await.ok();
    assert!(rate.as_f64().is_some_and(|rate| (1.0..=1_000.0).contains(&rate)), "{rate}");
}

/// Reads a list to its end in pages of two; the ids in order.
async fn pages(owner: &Caller, path: &str, list: &str, id: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = owner.get(format!("{path}?limit=2{cursor}")).await.ok();
        let items = page[list].as_array().expect("a list");
        assert!(items.len() <= 2, "{path}: {}", items.len());
        ids.extend(items.iter().map(|item| item[id].as_str().expect("an id").to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

/// The same of a bare array, whose cursor is in a header.
async fn header_pages(owner: &Caller, path: &str, id: impl Fn(&Value) -> String) -> Vec<String> {
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = owner.post_empty(format!("{path}?limit=2{cursor}")).await;
        ids.extend(page.ok().as_array().expect("an array").iter().map(&id));
        match page.header("sluice-next-cursor") {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

async fn every_list_is_read_page_by_page(scene: &Scene) {
    let owner = scene.funded(1, &[50_000, 51_000, 52_000, 53_000, 54_000]).await;
    for n in 0..5u64 {
        let mut wanted = send_of(&scene.stranger().await, 20_000 + n);
        wanted["reference"] = json!(format!("payout-{}", n % 2));
        owner.post("/lightning/onchain-send-begin", wanted).await.ok();
    }
    let unique = |ids: &[String]| ids.iter().collect::<HashSet<_>>().len();
    for (path, list, id, wanted) in [
        ("/deposits", "deposits", "id", 5),
        ("/onchain-send", "sends", "send_id", 5),
        ("/lightning/unused-addresses", "addresses", "request_id", 1),
        ("/lightning/listtransactions", "transactions", "txid", 5),
    ] {
        let ids = pages(&owner, path, list, id).await;
        assert_eq!((ids.len(), unique(&ids)), (wanted, wanted), "{path}");
        let whole = owner.get(path).await.ok();
        let whole: Vec<&str> = whole[list].as_array().expect("a list").iter().filter_map(|i| i[id].as_str()).collect();
        assert_eq!(ids, whole, "{path}: pages are the list");
        let foreign = owner.get(format!("{path}?cursor=bm9uZQ")).await.refused(400, "invalid_request");
        assert_eq!(foreign["field"], "cursor", "{path}");
    }
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let txids = header_pages(&owner, "/wallet/listtransactions", |tx| text(&tx["txid"])).await;
    assert_eq!((txids.len(), unique(&txids)), (5, 5));
    let coin =
        |coin: &Value| format!("{}:{}", text(&coin["utxo"]["outpoint"]["txid"]), coin["utxo"]["outpoint"]["vout"]);
    let coins = header_pages(&owner, "/wallet/listunspents", coin).await;
    assert_eq!((coins.len(), unique(&coins)), (5, 5));
    for (filter, found) in
        [("reference=payout-0", 3), ("reference=payout-1", 2), ("state=awaiting_signature", 5), ("state=confirmed", 0)]
    {
        let list = owner.get(format!("/onchain-send?{filter}")).await.ok();
        assert_eq!(list["sends"].as_array().map(Vec::len), Some(found), "{filter}");
    }
    for (filter, field) in [
        ("state=lost", "state"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("since=1.5", "since"),
    ] {
        for path in ["/deposits", "/onchain-send"] {
            let refused = owner.get(format!("{path}?{filter}")).await.refused(400, "invalid_request");
            assert_eq!(refused["field"], field, "{path}?{filter}");
        }
    }
    let fresh = scene.gateway.registered(2).await;
    assert_eq!(fresh.get("/deposits").await.ok(), json!({ "deposits": [], "next_cursor": null }));
}

async fn events_are_read_without_gaps_while_they_happen(scene: &Scene) {
    let owner = scene.gateway.registered(1).await;
    let made = async {
        for n in 0..40 {
            owner.post("/lightning/onchain-receive", json!({ "label": format!("c{n}") })).await.ok();
        }
    };
    let read = async {
        let (mut after, mut labels) = (0, Vec::new());
        while labels.len() < 40 {
            let page = owner.get(format!("/events?after={after}&limit=3")).await.ok();
            for event in page["events"].as_array().expect("events") {
                let seq = event["seq"].as_i64().expect("a number");
                assert!(seq > after, "{seq} after {after}");
                after = seq;
                labels.extend(event["data"]["label"].as_str().map(str::to_owned));
            }
            assert_eq!(page["next_after"], after);
            tokio::task::yield_now().await;
        }
        labels
    };
    let all = tokio::time::timeout(crate::harness::gateway::PATIENCE, async { tokio::join!(made, read).1 }).await;
    let all = all.expect("every event is read");
    assert_eq!(all, (0..40).map(|n| format!("c{n}")).collect::<Vec<_>>(), "each once, in order");
    for (query, field) in [("after=-1", "after"), ("after=x", "after"), ("limit=0", "limit")] {
        let refused = owner.get(format!("/events?{query}")).await.refused(400, "invalid_request");
        assert_eq!(refused["field"], field);
    }
}

async fn refresh_and_sync_answer_at_the_tip(scene: &Scene) {
    let owner = scene.gateway.registered(1).await;
    for depth in [0, 3] {
        let tip = if depth == 0 { scene.node.mine(30).await } else { scene.node.reorg(depth, false).await };
        let synced = owner.post_empty("/wallet/sync").await.ok();
        let message = synced["message"].as_str().expect("a message");
        assert!(message.contains(&tip.height.to_string()) && message.contains(&tip.hash.to_string()), "{message}");
    }
    // As high as before, and another block.
    let before = scene.node.tip().await;
    scene.node.invalidate_block(before.hash).await;
    let tip = scene.node.mine_empty(1).await;
    assert_eq!(tip.height, before.height);
    let synced = owner.post_empty("/wallet/sync").await.ok();
    assert!(
        synced["message"].as_str().is_some_and(|text| text.contains(&tip.hash.to_string())),
        "{synced}, not {tip:?}"
    );
    scene.node.mine(5).await;
    assert_eq!(owner.post_empty("/wallet/refresh").await.ok(), json!({}));
    let made = owner.post_empty("/lightning/onchain-receive").await.ok();
    scene.pay(&made["btc_address"], 30_000).await;
    scene.node.mine(1).await;
    owner.post_empty("/wallet/refresh").await.ok();
    let balance = owner.post_empty("/wallet/btcbalance").await.ok();
    assert_eq!(balance["vanilla"]["settled"], 30_000, "what refresh waited for is there");
}
