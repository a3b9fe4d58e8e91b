//! What comes between begin and confirm: higher fees, cancelling, conflicts, reorganisations, second thoughts.

use bitcoin::{Psbt, Transaction};
use serde_json::{Value, json};

use super::{Scene, on_both, send_of, sent};
use crate::harness::client::{Call, Caller};
use crate::harness::gateway::eventually;

on_both!(
    a_higher_fee_takes_the_place_of_a_lower_one,
    a_cancelled_send_comes_back,
    another_transaction_of_the_same_coins_is_a_conflict,
    a_reorganisation_takes_back_what_it_confirmed,
);

async fn bump(owner: &Caller, id: &str, terms: Value) -> Value {
    let begun = owner.post(format!("/onchain-send/{id}/bump-begin"), terms).await.ok();
    let signed = json!({ "signed_psbt": owner.sign(&begun) });
    owner.post(format!("/onchain-send/{id}/bump-end"), signed).await.ok()
}

fn outcomes(send: &Value) -> Vec<(&str, bool)> {
    let versions = send["versions"].as_array().expect("versions").iter();
    versions.map(|v| (v["role"].as_str().expect("a role"), v["signed"].as_bool().expect("signed"))).collect()
}

async fn a_higher_fee_takes_the_place_of_a_lower_one(scene: &Scene) {
    let owner = scene.funded(1, &[100_000]).await;
    let to = scene.stranger().await;
    let (id, first) = sent(&owner, &to, 40_000).await;
    scene.in_mempool(&first).await;
    let path = format!("/onchain-send/{id}/bump-begin");
    let small = owner.post(&path, json!({ "fee_rate": 2 })).await.refused(400, "bump_too_small");
    assert_eq!(small["field"], "fee_rate");
    let bumped = bump(&owner, &id, json!({ "fee_rate": 9 })).await;
    let second = bumped["txid"].as_str().expect("a transaction id").to_owned();
    assert!(bumped["status"] == "BROADCASTED" && second != first, "{bumped}");
    scene.in_mempool(&second).await;
    assert!(scene.node.try_rpc("getmempoolentry", json!([first])).await.is_err(), "the first was replaced");
    scene.mine(1).await;
    let send = owner.get(format!("/onchain-send/{id}")).await.ok();
    assert_eq!((&send["status"], &send["txid"]), (&json!("CONFIRMED"), &json!(second)));
    assert_eq!(outcomes(&send), [("original", true), ("bump", true)]);
    assert_eq!(scene.paid_to_in_block(&second, &to).await, 40_000, "the recipient gets as much as before");
    owner.post(&path, json!({ "fee_rate": 20 })).await.refused(409, "already_confirmed");
}

async fn a_cancelled_send_comes_back(scene: &Scene) {
    let owner = scene.funded(1, &[100_000]).await;
    let to = scene.stranger().await;
    let begun = owner.call(Call::post("/lightning/onchain-send-begin", &send_of(&to, 40_000)).for_object()).await.ok();
    let waiting = begun["request_id"].as_str().expect("an id");
    let refused = owner.post(format!("/onchain-send/{waiting}/bump-begin"), json!({ "fee_rate": 5 })).await;
    refused.refused(409, "not_broadcast");
    let signed = json!({ "signed_psbt": owner.sign(&begun) });
    let first = owner.post("/lightning/onchain-send-end", signed).await.ok()["txid"].clone();
    scene.in_mempool(first.as_str().expect("a transaction id")).await;
    let cancelling = bump(&owner, waiting, json!({ "fee_rate": 8, "cancel": true })).await;
    let txid = cancelling["txid"].as_str().expect("a transaction id");
    scene.in_mempool(txid).await;
    assert_eq!(scene.paid_to(txid, &to).await, 0);
    scene.mine(1).await;
    let send = owner.get(format!("/onchain-send/{waiting}")).await.ok();
    assert_eq!((&send["status"], &send["state"]), (&json!("FAILED"), &json!("cancelled")));
    assert_eq!((&send["error_code"], &send["amount_sats_sent"]), (&json!("cancelled"), &Value::Null));
    assert_eq!(outcomes(&send), [("original", true), ("cancel", true)]);
    let balance = owner.post_empty("/wallet/btcbalance").await.ok();
    let fee = send["fee_sats"].as_u64().expect("a fee");
    assert_eq!(
        balance["vanilla"],
        json!({ "settled": 100_000 - fee, "future": 100_000 - fee, "spendable": 100_000 - fee })
    );
    let deposits = owner.get("/deposits").await.ok();
    assert_eq!(deposits["deposits"].as_array().map(Vec::len), Some(1), "coming back is no deposit");
}

/// The owner signs something else with the same coins, and hands it to a miner.
fn rival(owner: &Caller, begun: &Value) -> Transaction {
    let psbt: Psbt = begun["psbt"].as_str().expect("a PSBT").parse().expect("a PSBT");
    let mut other = psbt.clone();
    other.unsigned_tx.output.truncate(1);
    // Its derivation would be a false claim of the output that follows.
    other.outputs = vec![bitcoin::psbt::Output::default()];
    other.unsigned_tx.output[0].value = bitcoin::Amount::from_sat(60_000);
    other.unsigned_tx.output[0].script_pubkey = psbt.inputs[0].witness_utxo.clone().expect("a coin").script_pubkey;
    let signed: Psbt = owner.wallet.sign(&other.to_string()).parse().expect("a PSBT");
    signed.extract_tx_unchecked_fee_rate()
}

async fn another_transaction_of_the_same_coins_is_a_conflict(scene: &Scene) {
    let owner = scene.funded(1, &[100_000]).await;
    let to = scene.stranger().await;
    let begun = owner.call(Call::post("/lightning/onchain-send-begin", &send_of(&to, 40_000)).for_object()).await.ok();
    let rival = rival(&owner, &begun);
    scene.node.mine_with(std::slice::from_ref(&rival)).await;
    scene.gateway.at_tip().await;
    let id = begun["request_id"].as_str().expect("an id");
    let send = owner.until(&format!("/onchain-send/{id}"), |send| send["status"] == "FAILED").await;
    assert_eq!((&send["state"], &send["error_code"]), (&json!("conflicted"), &json!("inputs_spent")));
    assert!(send["error_message"].as_str().is_some_and(|text| text.contains(&rival.compute_txid().to_string())));
    let signed = json!({ "signed_psbt": owner.sign(&begun) });
    owner.post("/lightning/onchain-send-end", signed.clone()).await.refused(409, "inputs_spent");
    owner.post("/lightning/onchain-send-end", signed).await.refused(409, "inputs_spent");
    let known = scene.node.rpc("getrawmempool", json!([])).await;
    assert_eq!(known, json!([]), "nothing went out");
}

async fn a_reorganisation_takes_back_what_it_confirmed(scene: &Scene) {
    let owner = scene.funded(1, &[100_000]).await;
    scene.mine(3).await;
    let to = scene.stranger().await;
    let (id, txid) = sent(&owner, &to, 40_000).await;
    scene.in_mempool(&txid).await;
    let made = owner.post_empty("/lightning/onchain-receive").await.ok();
    let paid = scene.pay(&made["btc_address"], 25_000).await;
    scene.mine(2).await;
    let path = format!("/onchain-send/{id}");
    assert_eq!(owner.get(&path).await.ok()["status"], "CONFIRMED");
    assert_eq!(owner.get("/deposits?state=confirmed").await.ok()["deposits"].as_array().map(Vec::len), Some(2));

    scene.node.reorg(2, false).await;
    scene.gateway.at_tip().await;
    let send = owner.until(&path, |send| send["status"] == "BROADCASTED").await;
    assert!(send["height"].is_null(), "{send}");
    let waits = |deposits: &Value| {
        let mut all = deposits["deposits"].as_array().expect("deposits").iter();
        all.any(|d| d["txid"] == paid.to_string() && (d["state"] == "seen" || d["state"] == "reorged"))
    };
    owner.until("/deposits", waits).await;
    scene.mine(1).await;
    eventually("both confirm again", async || {
        let send = owner.get(&path).await.ok();
        let deposits = owner.get("/deposits?state=confirmed").await.ok();
        let both = send["status"] == "CONFIRMED" && deposits["deposits"].as_array().is_some_and(|all| all.len() == 2);
        both.then_some(())
    })
    .await;
    let timeline = owner.get(format!("/requests/{id}")).await.ok()["timeline"].clone();
    let kinds: Vec<&str> = timeline.as_array().expect("a timeline").iter().filter_map(|e| e["kind"].as_str()).collect();
    assert!(kinds.iter().filter(|kind| kind.ends_with("confirmed")).count() == 2, "{kinds:?}");
}
