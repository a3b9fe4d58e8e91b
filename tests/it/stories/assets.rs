//! RGB assets through a gateway: coins for them are made, one is issued, and everybody who asks is told the same.

use serde_json::{Value, json};
use sluice::crash::ASSET_POINTS;

use super::asset_scene::scene;
use crate::harness::process::{Answer, Call, died_at_its_point};
use crate::harness::rig::Database;
use crate::harness::{document, export};

fn gold() -> Value {
    json!({ "ticker": "GOLD", "name": "Gold of a test", "precision": 2, "amounts": [600, 400] })
}

async fn an_asset_is_issued_and_shown(database: Database) {
    let Some(scene) = scene(database).await else { return };
    let issue = scene.post("/wallet/issueassetnia", gold()).key("gold");
    let none = scene.refused(&issue, 409, "colorable_utxos_needed").await;
    assert!(none["detail"].as_str().expect("a text").contains("/wallet/createutxosbegin"), "{none}");
    assert_eq!(scene.make_coins(json!({ "num": 3, "size": 2_000, "fee_rate": 2 })).await, 3);
    let balance = scene.ok(&Call::get("/lightning/balance", &scene.client)).await;
    assert_eq!(balance["balance"]["colored"]["settled"], 6_000);
    scene.refused(&issue, 409, "not_issued").await;

    let issue = scene.post("/wallet/issueassetnia", gold()).key("gold, again");
    let asset = scene.ok(&issue).await;
    assert_eq!(asset, scene.ok(&issue).await, "the same key issues another one");
    assert_eq!((&asset["issued_supply"], &asset["balance"]["settled_str"]), (&json!(1_000), &json!("1000")));
    let id = asset["asset_id"].as_str().expect("an id").to_owned();
    let listed = scene.ok(&Call::post("/wallet/listassets", &scene.client)).await;
    assert_eq!(listed["nia"], json!([asset]));
    let has = scene.ok(&scene.post("/wallet/assetbalance", json!({ "asset_id": id }))).await;
    assert_eq!(has["spendable"], 1_000);
    let balance = scene.ok(&Call::get("/lightning/balance", &scene.client)).await;
    assert_eq!(balance["asset_balances"][0]["asset_id"], json!(id));
    assert_eq!(balance["asset_balances"][0]["balance"]["settled"], 1_000);
    let coins = scene.ok(&Call::post("/wallet/listunspents", &scene.client)).await;
    let on_coins: Vec<&Value> = coins
        .as_array()
        .expect("a list")
        .iter()
        .filter(|coin| coin["utxo"]["colorable"] == true)
        .flat_map(|coin| coin["rgb_allocations"].as_array().expect("a list"))
        .collect();
    assert_eq!(on_coins.len(), 2, "{coins}");
    assert!(on_coins.iter().all(|on| on["asset_id"] == json!(id) && on["settled"] == true), "{coins}");

    // Two of the three carry something now: one is free, and two more make three.
    assert_eq!(scene.make_coins(json!({ "num": 3, "up_to": true, "fee_rate": 2 })).await, 2);
    let enough = scene.post("/wallet/createutxosbegin", json!({ "num": 3, "up_to": true, "fee_rate": 2 }));
    scene.refused(&enough, 409, "colorable_utxos_there").await;
    assert_eq!(scene.ok(&Call::get("/lightning/capabilities", &scene.client)).await["assets"], true);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asset_is_issued_and_shown_on_sqlite() {
    an_asset_is_issued_and_shown(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asset_is_issued_and_shown_on_postgres() {
    an_asset_is_issued_and_shown(Database::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_names_the_field_and_changes_nothing() {
    let Some(scene) = scene(Database::Sqlite).await else { return };
    scene.make_coins(json!({ "num": 1, "fee_rate": 2 })).await;
    let coins = [
        (json!({ "num": 0 }), "num"),
        (json!({ "num": 101 }), "num"),
        (json!({ "num": -1 }), "num"),
        (json!({ "size": 0 }), "size"),
        (json!({ "size": "1000" }), "size"),
        (json!({ "fee_rate": 0 }), "fee_rate"),
        (json!({ "expires_in_seconds": 1 }), "expires_in_seconds"),
    ];
    for (body, field) in coins {
        let answer = scene.gateway.answer(&scene.post("/wallet/createutxosbegin", body.clone())).await;
        assert_eq!((answer.status, answer.body["field"].as_str()), (400, Some(field)), "{body}: {:?}", answer.body);
    }
    scene.refused(&scene.post("/wallet/createutxosbegin", json!({ "size": 100_000 })), 409, "insufficient_funds").await;
    let assets = [
        (json!({ "ticker": "gold", "name": "G", "amounts": [1] }), "ticker"),
        (json!({ "ticker": "GOLD", "name": "", "amounts": [1] }), "name"),
        (json!({ "ticker": "GOLD", "name": "G", "amounts": [] }), "amounts"),
        (json!({ "ticker": "GOLD", "name": "G", "amounts": [0] }), "amounts"),
        (json!({ "ticker": "GOLD", "name": "G", "amounts": [9_223_372_036_854_775_808_u64] }), "amounts[0]"),
        (json!({ "ticker": "GOLD", "name": "G", "amounts": [9_223_372_036_854_775_807_u64, 1] }), "amounts"),
        (json!({ "ticker": "GOLD", "name": "G", "precision": 19, "amounts": [1] }), "precision"),
        (json!({ "name": "G", "amounts": [1] }), "ticker"),
    ];
    for (body, field) in assets {
        let answer = scene.gateway.answer(&scene.post("/wallet/issueassetnia", body.clone())).await;
        assert_eq!((answer.status, answer.body["field"].as_str()), (400, Some(field)), "{body}: {:?}", answer.body);
    }
    scene.refused(&scene.post("/wallet/assetbalance", json!({ "asset_id": "rgb:x" })), 404, "asset_unknown").await;
    // What the document shows is what the engine reads.
    let mut all = document::operations().into_iter();
    let decode = all.find(|one| one.path == "/wallet/decodergbinvoice").expect("the document has it");
    let read = scene.ok(&scene.post(&decode.path, decode.example())).await;
    assert_eq!(read, decode.spec["responses"]["200"]["content"]["application/json"]["example"]);
    let unread = scene.post("/wallet/decodergbinvoice", json!({ "invoice": "rgb:nothing" }));
    scene.refused(&unread, 400, "invalid_invoice").await;
    let listed = scene.ok(&Call::post("/wallet/listassets", &scene.client)).await;
    assert_eq!(listed["nia"], json!([]));
    scene.end().await;
}

/// The indexer is another's service. What a wallet has is told without it, and what is in new coins as soon as it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_wallet_has_is_told_without_an_indexer() {
    let Some(mut scene) = scene(Database::Sqlite).await else { return };
    scene.make_coins(json!({ "num": 2, "fee_rate": 2 })).await;
    let asset = scene.ok(&scene.post("/wallet/issueassetnia", gold())).await;
    scene.esplora = None;
    scene.gateway.kill();
    scene.gateway.restart(None).await;
    let listed = scene.ok(&Call::post("/wallet/listassets", &scene.client)).await;
    assert_eq!(listed["nia"], json!([asset]));
    scene.make_coins(json!({ "num": 1, "fee_rate": 2 })).await;
    let balance = scene.ok(&Call::get("/lightning/balance", &scene.client)).await;
    assert_eq!(balance["asset_balances"][0]["balance"]["settled"], 1_000);
    assert_eq!(balance["balance"]["colored"]["settled"], 3_000);
    scene.end().await;
}

/// A block is undone that made coins for assets: as long as they wait again, nothing is issued onto one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_issued_onto_a_coin_that_waits_for_its_block() {
    let Some(scene) = scene(Database::Sqlite).await else { return };
    scene.make_coins(json!({ "num": 2, "fee_rate": 2 })).await;
    let listed = scene.ok(&Call::post("/wallet/listunspents", &scene.client)).await;
    assert!(listed.to_string().contains("\"colorable\":true"), "{listed}");
    let tip = scene.node.tip().await;
    scene.node.invalidate_block(tip.hash).await;
    scene.node.mine_empty(2).await;
    scene.gateway.wait_synced(&scene.node).await;
    let issue = scene.post("/wallet/issueassetnia", gold());
    scene.refused(&issue, 409, "coins_unconfirmed").await;
    scene.mine().await;
    let coins = |answer: &Answer| answer.is_ok();
    scene.gateway.until("it is issued", &issue, coins).await;
    scene.end().await;
}

/// Whatever a death leaves behind, a caller who asks again with the same key has one asset, or is told that there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_dies_while_it_issues_issues_once() {
    let Some(scene) = scene(Database::Sqlite).await else { return };
    scene.make_coins(json!({ "num": 4, "fee_rate": 2 })).await;
    let mut issued = Vec::new();
    for point in ASSET_POINTS {
        scene.gateway.kill();
        scene.gateway.restart(Some(point)).await;
        let issue = scene.post("/wallet/issueassetnia", gold()).key(*point);
        assert!(scene.gateway.call(&issue).await.is_err(), "{point}: it does not die");
        assert!(died_at_its_point(scene.gateway.wait_exit().await), "{point}");
        scene.gateway.restart(None).await;
        match *point {
            "issue.committed" => {
                scene.refused(&issue, 409, "not_issued").await;
            }
            _ => issued.push(scene.ok(&issue).await),
        }
        let listed = scene.ok(&Call::post("/wallet/listassets", &scene.client)).await;
        assert_eq!(listed["nia"], json!(issued), "{point}");
    }
    scene.end().await;
}

/// The state of assets is one gateway's: another folder beside the same database would not know what is on the coins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_folder_is_refused() {
    let Some(scene) = scene(Database::Sqlite).await else { return };
    scene.gateway.terminate().await;
    let site = scene.gateway.site.clone().with("assets.data_dir", "another");
    let refused = site.run(&["serve"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("this database belongs to folder"), "{said}");
    scene.gateway.site.audit().await;
}

/// Who leaves takes along what is in no chain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_wallet_has_can_be_taken_along() {
    const PASSWORD: &str = "a password of a test";
    let Some(scene) = scene(Database::Sqlite).await else { return };
    scene.make_coins(json!({ "num": 2, "fee_rate": 2 })).await;
    let asset = scene.ok(&scene.post("/wallet/issueassetnia", gold())).await;
    let begun = scene.ok(&scene.post("/wallet/export-begin", json!({}))).await;
    let signed = scene.client.export(begun["psbt"].as_str().expect("a PSBT"));
    let end = scene.post("/wallet/export-end", json!({ "signed_psbt": signed, "password": PASSWORD }));
    let exported = scene.gateway.answer(&end).await;
    assert_eq!(exported.status, 200, "{:?}", exported.body);
    scene.refused(&end, 409, "request_expired").await;
    assert!(export::opened(&exported.bytes, "a password of others", &scene.client.keys).await.is_none());
    let there = export::opened(&exported.bytes, PASSWORD, &scene.client.keys).await.expect("the password is right");
    let said: Vec<Value> = there
        .iter()
        .map(|one| json!([one.id, one.ticker, one.balance.settled.base_units(), one.balance.spendable.base_units()]))
        .collect();
    assert_eq!(said, [json!([asset["asset_id"], "GOLD", 1_000, 1_000])]);
    assert!(!scene.gateway.whole_log().contains(PASSWORD));
    let listed = scene.ok(&Call::post("/wallet/listassets", &scene.client)).await;
    assert_eq!(listed["nia"], json!([asset]));
    scene.end().await;
}
