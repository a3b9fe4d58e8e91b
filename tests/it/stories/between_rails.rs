//! Money that changes rails: a wallet's coins become off-chain money, go out over Lightning, and off-chain money leaves from the node's
//! coins. Whatever the chain does meanwhile, the books say of the node's money what the node says.

use bitcoin::{Amount, Txid};
use serde_json::{Value, json};
use sluice::money::Sat;

use super::on_both;
use super::scene::{PURSE, SETTLED_AFTER, Scene, Set};
use crate::harness::lightning::sat;
use crate::harness::peer::{eventually, eventually_shown};
use crate::harness::process::{Answer, Call};
use crate::harness::rig::{parse_address, stranger};

const COINS: u64 = 300_000;
const SETTLED: u64 = 200_000;
const WITHDRAWN: u64 = 60_000;
const FEE_RATE: u64 = 5;

async fn operator(scene: &Scene, path: &str) -> Value {
    scene.gateway.answer(&Call::get(path, &scene.client).bearer(&scene.operator)).await.ok()
}

/// What the operator can send now, beside what must stay.
async fn free_coins(scene: &Scene) -> u64 {
    let reserve = operator(scene, "/admin/reserve").await;
    let number = |field: &str| reserve[field].as_u64().expect("a number");
    number("confirmed_sats") - number("required_sats")
}

/// The operator pays so many coins to the reserve, in a block.
async fn top_up(scene: &Scene, coins: u64, sats: u64) {
    let reserve = operator(scene, "/admin/reserve").await;
    let address = parse_address(reserve["address"].as_str().expect("an address"));
    for _ in 0..coins {
        scene.chain.pay(&address, Sat::new(sats).expect("an amount")).await;
    }
    scene.mine(1).await;
}

/// The books say of the node's money what the node says, to the millisatoshi, and nothing is left in between.
async fn books_agree(scene: &Scene) {
    books_agree_but_for(scene, 0).await;
}

/// The same where coins of wallets are at the node and are not credited.
async fn books_agree_but_for(scene: &Scene, crossing_sats: u64) {
    let crossing = i64::try_from(crossing_sats * 1_000).expect("an amount");
    eventually_shown("the books say what the node says", async || {
        let node = operator(scene, "/admin/node").await;
        let trial = operator(scene, "/admin/trial-balance").await;
        assert_eq!(trial["sum_msat"], 0, "{trial}");
        let lines = trial["lines"].as_array().expect("a list");
        let books = ["node:channels", "node:closing", "node:onchain", "node:crossing"].map(|account| {
            let line = lines.iter().find(|line| line["account"] == account);
            line.map_or(0, |line| line["balance_msat"].as_i64().expect("a number"))
        });
        let has = |field: &str| node["balance"][field].as_i64().expect("a number");
        let coins = has("onchain_confirmed_sats") + has("onchain_unconfirmed_sats");
        let says =
            [-has("channels_msat") - has("in_flight_msat"), -has("closing_sats") * 1_000, -coins * 1_000, crossing];
        if books == says { Ok(()) } else { Err((books, says)) }
    })
    .await;
}

/// The wallet has a coin on-chain, deep enough for anything.
async fn has_coins(scene: &Scene, sats: u64) {
    let asked = scene.gateway.answer(&Call::get("/lightning/onchain-receive", &scene.client)).await;
    scene.chain.pay(&parse_address(asked.text("btc_address")), Sat::new(sats).expect("an amount")).await;
    scene.mine(2 * SETTLED_AFTER).await;
}

/// The wallet moves coins off-chain, and they are out. Answers the id.
async fn settles(scene: &Scene, sats: u64) -> String {
    let wanted = json!({ "amount_sats": sats, "fee_rate": FEE_RATE });
    let begun = scene.gateway.answer(&Call::post("/lightning/settle-begin", &scene.client).json(wanted)).await;
    let id = begun.request_id.clone().expect("an id");
    let signed = scene.client.sign(begun.ok().as_str().expect("a PSBT"));
    let end = Call::post("/lightning/settle-end", &scene.client).json(json!({ "signed_psbt": signed }));
    assert_eq!(scene.gateway.answer(&end).await.ok()["status"], "BROADCASTED");
    id
}

async fn settle_becomes(scene: &Scene, id: &str, status: &str) {
    let read = Call::get(format!("/lightning/settle/{id}"), &scene.client);
    let what = format!("the settle is {status}");
    scene.gateway.until(&what, &read, |answer| answer.is_ok() && answer.body["status"] == status).await;
}

async fn begin_withdrawal(scene: &Scene, sats: u64) -> Answer {
    let to = stranger().to_string();
    let wanted = json!({
        "address_or_rgbinvoice": to, "amount_sats": sats, "fee_rate": FEE_RATE, "source": "offchain",
    });
    scene.gateway.answer(&Call::post("/lightning/onchain-send-begin", &scene.client).json(wanted)).await
}

/// A withdrawal that is not consented to yet: its id, and the consent.
async fn withdrawal(scene: &Scene, sats: u64) -> (String, String) {
    let begun = begin_withdrawal(scene, sats).await;
    let id = begun.request_id.clone().expect("an id");
    (id, scene.client.sign(begun.ok().as_str().expect("a PSBT")))
}

async fn end_withdrawal(scene: &Scene, signed: &str) -> Value {
    let end = Call::post("/lightning/onchain-send-end", &scene.client).json(json!({ "signed_psbt": signed }));
    scene.gateway.answer(&end).await.ok()
}

async fn withdrawal_becomes(scene: &Scene, id: &str, state: &str) -> Value {
    let read = Call::get(format!("/onchain-send/{id}"), &scene.client);
    let what = format!("the withdrawal is {state}");
    scene.gateway.until(&what, &read, |answer| answer.is_ok() && answer.body["state"] == state).await.ok()
}

/// What the transaction of a withdrawal costs on the chain, and that it pays what was asked for.
async fn cost_on_chain(scene: &Scene, txid: &str, sats: u64) -> u64 {
    let txid: Txid = txid.parse().expect("a transaction's id");
    let entry = scene.chain.rpc("getmempoolentry", json!([txid])).await;
    let decoded = scene.chain.rpc("getrawtransaction", json!([txid, true])).await;
    let to = stranger().to_string();
    let sat = |btc: &Value| Amount::from_btc(btc.as_f64().expect("a number")).expect("an amount").to_sat();
    let paid = decoded["vout"]
        .as_array()
        .expect("outputs")
        .iter()
        .any(|output| output["scriptPubKey"]["address"] == to.as_str() && sat(&output["value"]) == sats);
    assert!(paid, "{decoded}");
    sat(&entry["fees"]["base"])
}

/// What the wallet owes, in millisatoshi.
async fn debt(scene: &Scene) -> u64 {
    let answer = scene.gateway.answer(&Call::get("/lightning/balance", &scene.client)).await;
    answer.body["balance"]["offchain_balance"]["debt_msat"].as_u64().expect("a number")
}

on_both!(money_goes_in_and_out_on_both_rails, Set::Rails, async |scene: Scene| {
    books_agree(&scene).await;
    has_coins(&scene, COINS).await;
    let settle = settles(&scene, SETTLED).await;
    for _ in 1..SETTLED_AFTER {
        scene.mine(1).await;
        assert_eq!(scene.offchain().await, (PURSE * 1_000, 0), "it is not deep enough");
    }
    scene.mine(1).await;
    settle_becomes(&scene, &settle, "CREDITED").await;
    scene.has((PURSE + SETTLED) * 1_000, 0).await;
    books_agree(&scene).await;

    // More than came over Lightning: the peer is paid with coins.
    let spent = PURSE + SETTLED / 2;
    let ended = scene.pay(&scene.peer.invoice(Some(sat(spent)), "goods").await, 0).await;
    assert_eq!((&ended["status"], &ended["fee_msat"]), (&"SUCCEEDED".into(), &0.into()), "{ended}");
    books_agree(&scene).await;

    let (id, signed) = withdrawal(&scene, WITHDRAWN).await;
    let sent = end_withdrawal(&scene, &signed).await;
    assert_eq!(sent["status"], "BROADCASTED", "{sent}");
    let fee = cost_on_chain(&scene, sent["txid"].as_str().expect("a transaction"), WITHDRAWN).await;
    let left = SETTLED / 2 - WITHDRAWN - fee;
    scene.has(left * 1_000, 0).await;
    scene.mine(1).await;
    let confirmed = withdrawal_becomes(&scene, &id, "confirmed").await;
    assert_eq!((&confirmed["status"], &confirmed["fee_sats"]), (&"CONFIRMED".into(), &fee.into()), "{confirmed}");
    assert_eq!(end_withdrawal(&scene, &signed).await["txid"], sent["txid"], "ended again");
    books_agree(&scene).await;

    // The channel that all of it went over is closed, and nobody's balance changes.
    let channels = operator(&scene, "/admin/channels").await;
    let channel = channels["channels"][0]["id"].as_str().unwrap_or_else(|| panic!("no channel in {channels}"));
    let close = Call::post(format!("/admin/channels/{channel}/close"), &scene.client).bearer(&scene.operator);
    scene.gateway.answer(&close).await.ok();
    eventually("the node has everything in coins again", async || {
        scene.mine(1).await;
        let balance = &operator(&scene, "/admin/node").await["balance"];
        let is_over = balance["channels_msat"] == 0 && balance["closing_sats"] == 0 && balance["is_moving"] == false;
        is_over.then_some(())
    })
    .await;
    books_agree(&scene).await;
    scene.has(left * 1_000, 0).await;
    scene.audit_exactly().await;
});

on_both!(a_withdrawal_waits_for_the_operators_coins, Set::Rails, async |scene: Scene| {
    let free = free_coins(&scene).await;
    let refused = begin_withdrawal(&scene, free + 1_000).await;
    assert_eq!((refused.status, refused.text("error")), (409, "reserve_low"), "{refused:?}");
    assert_eq!(scene.offchain().await, (PURSE * 1_000, 0), "nothing is held");

    // There is enough for each of the two, and not for both.
    let each = free * 3 / 5;
    let (first, second) = (withdrawal(&scene, each).await, withdrawal(&scene, each).await);
    let sent = end_withdrawal(&scene, &first.1).await;
    assert_eq!(sent["status"], "BROADCASTED", "{sent}");
    let fee = cost_on_chain(&scene, sent["txid"].as_str().expect("a transaction"), each).await;
    let (_, held) = scene.offchain().await;
    let waits = end_withdrawal(&scene, &second.1).await;
    assert_eq!((&waits["status"], &waits["txid"]), (&"REQUESTED".into(), &Value::Null), "{waits}");
    for _ in 0..2 {
        let queued = withdrawal_becomes(&scene, &second.0, "queued").await;
        assert_eq!((&queued["error_code"], &queued["retryable"]), (&"reserve_low".into(), &true.into()), "{queued}");
        scene.has((PURSE - each - fee) * 1_000, held).await;
        scene.mine(1).await;
    }
    withdrawal_becomes(&scene, &first.0, "confirmed").await;
    withdrawal_becomes(&scene, &second.0, "queued").await;

    top_up(&scene, 1, free).await;
    eventually("it goes out by itself", async || {
        scene.mine(1).await;
        let read = Call::get(format!("/onchain-send/{}", second.0), &scene.client);
        (scene.gateway.answer(&read).await.body["state"] == "confirmed").then_some(())
    })
    .await;
    let fees = 2 * fee;
    let confirmed = withdrawal_becomes(&scene, &second.0, "confirmed").await;
    assert!(confirmed["fee_sats"].as_u64().is_some_and(|second| second <= fees), "{confirmed}");
    let left = PURSE - 2 * each - fee - confirmed["fee_sats"].as_u64().expect("a fee");
    scene.has(left * 1_000, 0).await;
    books_agree(&scene).await;
    scene.audit_exactly().await;
});

on_both!(coins_that_vanish_after_they_were_spent_are_owed, Set::Rails, async |scene: Scene| {
    has_coins(&scene, COINS).await;
    let settle = settles(&scene, SETTLED).await;
    scene.mine(SETTLED_AFTER).await;
    settle_becomes(&scene, &settle, "CREDITED").await;
    scene.has((PURSE + SETTLED) * 1_000, 0).await;
    let (left, owed, income) = (50_000, SETTLED - 50_000, 60_000);
    let ended = scene.pay(&scene.peer.invoice(Some(sat(PURSE + SETTLED - left)), "goods").await, 0).await;
    assert_eq!(ended["status"], "SUCCEEDED", "{ended}");

    // What is there is taken, and the rest is owed: nothing can be paid.
    scene.chain.reorg(SETTLED_AFTER, false).await;
    scene.gateway.wait_synced(&scene.chain).await;
    scene.has(0, 0).await;
    assert_eq!(debt(&scene).await, owed * 1_000);
    let refused = scene.begin(&scene.peer.invoice(Some(sat(1_000)), "goods").await, 0).await;
    assert_eq!(refused.text("error"), "insufficient_funds", "{refused:?}");
    // It waits for a block, and is still the node's.
    books_agree_but_for(&scene, SETTLED).await;

    // Income pays it, also across the death of the gateway.
    let order = Call::post("/lightning/create-invoice", &scene.client).json(json!({ "amount_sats": income }));
    let invoice = scene.gateway.answer(&order).await;
    scene.die_and_return().await;
    scene.usable().await;
    scene.peer.pay(invoice.text("invoice"), None).await.expect("the peer can send");
    eventually("the income pays the debt", async || (debt(&scene).await == (owed - income) * 1_000).then_some(()))
        .await;
    assert_eq!(scene.offchain().await, (0, 0));

    // The coin comes again, and clears the rest, once.
    scene.mine(SETTLED_AFTER).await;
    settle_becomes(&scene, &settle, "CREDITED").await;
    let left = (left + income) * 1_000;
    scene.has(left, 0).await;
    scene.mine(SETTLED_AFTER).await;
    assert_eq!((scene.offchain().await, debt(&scene).await), ((left, 0), 0));
    books_agree(&scene).await;
    scene.audit_exactly().await;
});

// At begin the node had one coin for it. At end it has many small ones, and each of them costs.
on_both!(a_withdrawal_that_has_become_dear_is_not_sent, Set::Rails, async |scene: Scene| {
    let free = free_coins(&scene).await;
    let (dear, other) = (free * 90 / 100, free * 95 / 100);
    let (id, signed) = withdrawal(&scene, dear).await;
    let (_, held) = scene.offchain().await;
    let away = withdrawal(&scene, other).await;
    let sent = end_withdrawal(&scene, &away.1).await;
    assert_eq!(sent["status"], "BROADCASTED", "{sent}");
    let fee = cost_on_chain(&scene, sent["txid"].as_str().expect("a transaction"), other).await;
    let left = (PURSE - other - fee) * 1_000;
    top_up(&scene, 20, free * 55 / 1_000).await;
    eventually("there are coins for it", async || (free_coins(&scene).await > held / 1_000).then_some(())).await;

    end_withdrawal(&scene, &signed).await;
    for _ in 0..3 {
        let queued = withdrawal_becomes(&scene, &id, "queued").await;
        let reason = queued["error_message"].as_str().expect("a reason");
        assert!(reason.contains("it would cost") && reason.contains("may cost"), "{queued}");
        assert_eq!((&queued["status"], &queued["txid"]), (&"REQUESTED".into(), &Value::Null), "{queued}");
        scene.has(left, held).await;
        assert_eq!(scene.chain.rpc("getrawmempool", json!([])).await, json!([]), "nothing went out");
        scene.mine(1).await;
    }
    withdrawal_becomes(&scene, &away.0, "confirmed").await;
    let cancel = Call::post(format!("/onchain-send/{id}/cancel"), &scene.client);
    scene.gateway.until("it is taken back", &cancel, Answer::is_ok).await;
    scene.has(left, 0).await;
    // It never goes out, whatever the operator brings.
    top_up(&scene, 1, free).await;
    scene.mine(1).await;
    let cancelled = withdrawal_becomes(&scene, &id, "cancelled").await;
    assert_eq!((&cancelled["status"], &cancelled["txid"]), (&"FAILED".into(), &Value::Null), "{cancelled}");
    scene.has(left, 0).await;
    books_agree(&scene).await;
    scene.audit_exactly().await;
});
