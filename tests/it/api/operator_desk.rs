//! The switches of the operator, over HTTP and while everything runs: halts, keys, wallets, the audit.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice::chain::fake::FakeChain;
use sluice::flows::keys::Scope;
use sluice::ids::WalletId;

use super::{funded_on_fake, send_of};
use crate::harness::client::{Call, Caller};
use crate::harness::gateway::Gateway;
use crate::harness::rig::{Database, stranger};

struct Desk {
    gateway: Gateway,
    chain: Arc<FakeChain>,
    operator: Caller,
    /// The id of the operator's key.
    by: String,
}

/// Tells a story on both databases, and looks at the books afterwards.
macro_rules! stories {
    ($($story:ident),+ $(,)?) => {$(
        mod $story {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::tell(crate::harness::rig::Database::Sqlite, super::$story).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                super::tell(crate::harness::rig::Database::Postgres, super::$story).await;
            }
        }
    )+};
}

stories!(
    payouts_are_stopped_and_go_on,
    a_halt_is_checked_field_by_field,
    one_wallet_is_stopped_and_no_other,
    a_difference_is_booked_once_with_a_reason,
    a_key_is_made_used_and_ended,
    a_key_is_checked_field_by_field,
    a_key_takes_the_place_of_another,
    a_key_is_made_like_another,
    a_key_that_spends_waits_for_its_grant,
    wallets_are_listed_and_released,
    an_audit_is_run_and_its_result_is_kept,
);

async fn tell(database: Database, story: impl AsyncFnOnce(&Desk)) {
    let Some((gateway, chain)) = Gateway::start_fake_on(database, &["auth.mode=key"]).await else { return };
    let (by, key) = gateway.make_key(&[Scope::AdminRead, Scope::AdminWrite], &[], None).await;
    let operator = gateway.caller(9).without_wallet().with_key(&key);
    let desk = Desk { gateway, chain, operator, by: by.to_string() };
    story(&desk).await;
    desk.gateway.stop().await;
}

const CLIENT: [Scope; 4] = [Scope::Register, Scope::Read, Scope::Receive, Scope::Send];

impl Desk {
    /// Somebody with a registered wallet and a key of its own.
    async fn client(&self, number: u32) -> Caller {
        let caller = self.gateway.caller(number).with_key(&self.gateway.key(&CLIENT, &[]).await);
        self.gateway.register(&caller).await;
        caller
    }

    /// What the events of this kind say, so many, all of them this operator's.
    async fn noted(&self, kind: &str, number: usize) -> Vec<Value> {
        let of_kind = |page: &Value| -> Vec<Value> {
            let all = page["events"].as_array().cloned().unwrap_or_default();
            all.into_iter().filter(|event| event["kind"] == kind).collect()
        };
        let page = self.operator.until("/admin/events?limit=200", |page| of_kind(page).len() >= number).await;
        let found = of_kind(&page);
        assert_eq!(found.len(), number, "{found:?}");
        assert!(found.iter().all(|event| event["data"]["by"] == self.by.as_str()), "{found:?}");
        found.into_iter().map(|event| event["data"].clone()).collect()
    }

    async fn names_of_halts(&self) -> Vec<String> {
        let halts = self.operator.get("/admin/halts").await.ok();
        let names = halts["halts"].as_array().into_iter().flatten().map(|halt| text(halt, "name"));
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned()
}

fn id_of(caller: &Caller) -> WalletId {
    caller.wallet.keys.id()
}

async fn payouts_are_stopped_and_go_on(desk: &Desk) {
    let owner = funded_on_fake(&desk.gateway, &desk.chain, desk.client(1).await, &[100_000, 90_000]).await;
    let begin = || Call::post("/lightning/onchain-send-begin", &send_of(&stranger(), 20_000)).for_object();
    let begun = owner.call(begin()).await.ok();
    let raise = |reason: &str| Call::post("/admin/halts", &json!({ "reason": reason })).idempotent("stop");
    let raised = desk.operator.call(raise("ticket 12")).await.ok();
    assert_eq!((&raised["halts"][0]["name"], &raised["halts"][0]["reason"]), (&json!("operator"), &json!("ticket 12")));
    assert_eq!(desk.operator.call(raise("ticket 12")).await.ok(), raised);
    desk.operator.call(raise("ticket 13")).await.refused(422, "idempotency_mismatch");
    owner.call(begin().expecting(503)).await.refused(503, "payouts_halted");
    let end = Call::post("/lightning/onchain-send-end", &json!({ "signed_psbt": owner.sign(&begun) }));
    owner.call(end.clone().expecting(503)).await.refused(503, "payouts_halted");
    owner.post_empty("/lightning/onchain-receive").await.ok();
    // Another one by that name changes nothing; one by another name has to be cleared, too.
    desk.operator.post("/admin/halts", json!({ "reason": "again" })).await.ok();
    desk.operator.post("/admin/halts", json!({ "name": "upgrade", "reason": "to 0.2" })).await.ok();
    assert_eq!(desk.names_of_halts().await, ["operator", "upgrade"]);
    let id = text(&raised["halts"][0], "id");
    let why = json!({ "reason": "ticket 12: done" });
    desk.operator.post(format!("/admin/halts/{id}/clear"), why).await.ok();
    owner.call(end.clone().expecting(503)).await.refused(503, "payouts_halted");
    let clear = || Call::post_empty("/admin/halts/upgrade/clear").idempotent("go on");
    assert_eq!(desk.operator.call(clear()).await.ok(), json!({ "halts": [] }));
    assert_eq!(desk.operator.call(clear()).await.ok(), json!({ "halts": [] }), "the same call again");
    desk.operator.post_empty("/admin/halts/upgrade/clear").await.refused(404, "not_found");
    assert_eq!(owner.call(end).await.ok()["status"], "BROADCASTED");
    let raised = desk.noted("operator.halt_raised", 2).await;
    assert_eq!(raised.iter().map(|one| text(one, "reason")).collect::<Vec<_>>(), ["operator", "upgrade"]);
    let cleared = desk.noted("operator.halt_cleared", 2).await;
    assert_eq!(cleared[0]["detail"], "ticket 12: done");
}

async fn one_wallet_is_stopped_and_no_other(desk: &Desk) {
    let owner = funded_on_fake(&desk.gateway, &desk.chain, desk.client(1).await, &[100_000]).await;
    let other = funded_on_fake(&desk.gateway, &desk.chain, desk.client(2).await, &[100_000]).await;
    let begin = || Call::post("/lightning/onchain-send-begin", &send_of(&stranger(), 20_000)).for_object();
    for caller in [&owner, &other] {
        let stop = json!({ "wallet": id_of(caller), "reason": "its owner has lost a key" });
        desk.operator.post("/admin/halts", stop).await.ok();
    }
    owner.call(begin().expecting(503)).await.refused(503, "payouts_halted");
    desk.operator.post_empty("/admin/halts/operator/clear").await.refused(400, "invalid_request");
    let halts = desk.operator.get("/admin/halts").await.ok();
    let of_other = halts["halts"].as_array().into_iter().flatten().find(|one| one["wallet"] == id_of(&other).as_str());
    let id = text(of_other.expect("it is listed"), "id");
    desk.operator.post_empty(format!("/admin/halts/{id}/clear")).await.ok();
    other.call(begin()).await.ok();
    owner.call(begin().expecting(503)).await.refused(503, "payouts_halted");
    desk.operator.post_empty("/admin/halts/operator/clear").await.ok();
    owner.call(begin()).await.ok();
    assert_eq!(desk.noted("operator.halt_cleared", 2).await[0]["subject"], id_of(&other).as_str());
}

async fn a_difference_is_booked_once_with_a_reason(desk: &Desk) {
    let good = json!({
        "account": "node:onchain", "against": "suspense", "direction": "more", "amount_msat": 7_000, "reason": "ticket 3",
    });
    for (field, bad) in [
        ("account", json!("wallet:0000000000000000")),
        ("account", json!("operator:capital")),
        ("against", json!("wallets")),
        ("direction", json!("up")),
        ("amount_msat", json!(0)),
        ("amount_msat", json!(-5)),
        ("amount_msat", json!(u64::MAX)),
        ("reason", json!("")),
    ] {
        let mut body = good.clone();
        body[field] = bad.clone();
        let refused = desk.operator.post("/admin/differences", body).await.refused(400, "invalid_request");
        assert_eq!(refused["field"], field, "{bad}");
    }
    let book = |body: &Value| Call::post("/admin/differences", body).idempotent("d");
    let booked = desk.operator.call(book(&good)).await.ok();
    assert_eq!((&booked["amount_msat"], &booked["against"]), (&json!(7_000), &json!("operator:suspense")));
    assert_eq!(desk.operator.call(book(&good)).await.ok(), booked);
    let mut other = good.clone();
    other["amount_msat"] = json!(8_000);
    desk.operator.call(book(&other)).await.refused(422, "idempotency_mismatch");
    let trial = desk.operator.get("/admin/trial-balance").await.ok();
    let line = |account: &str| {
        let lines = trial["lines"].as_array().into_iter().flatten();
        lines.clone().find(|line| line["account"] == account).map(|line| line["balance_msat"].clone())
    };
    assert_eq!((line("node:onchain"), line("operator:suspense")), (Some(json!(-7_000)), Some(json!(7_000))));
    other["direction"] = json!("less");
    other["amount_msat"] = json!(7_000);
    desk.operator.post("/admin/differences", other).await.ok();
    desk.noted("operator.difference_booked", 2).await;
}

async fn a_halt_is_checked_field_by_field(desk: &Desk) {
    let refused = async |body: Value| {
        let refused = desk.operator.post("/admin/halts", body).await.refused(400, "invalid_request");
        text(&refused, "field")
    };
    for name in ["", "Big", "a b", "../x", &"x".repeat(33), "deep_reorg", "audit_drift", "insolvent", "node_overspent"]
    {
        assert_eq!(refused(json!({ "name": name, "reason": "r" })).await, "name", "{name}");
    }
    for wallet in ["x", "0000000000000000"] {
        assert_eq!(refused(json!({ "wallet": wallet, "reason": "r" })).await, "wallet", "{wallet}");
    }
    for reason in [json!(""), json!("a\nb"), json!("x".repeat(501)), json!(5), Value::Null] {
        assert_eq!(refused(json!({ "reason": reason })).await, "reason");
    }
    assert_eq!(refused(json!({ "name": "a" })).await, "reason");
    let clear = desk.operator.post("/admin/halts/a/clear", json!({ "reason": "" })).await;
    assert_eq!(clear.refused(400, "invalid_request")["field"], "reason");
    for id in ["nothing", "%20", "..%2f", "'"] {
        desk.operator.post_empty(format!("/admin/halts/{id}/clear")).await.refused(404, "not_found");
    }
    assert!(desk.names_of_halts().await.is_empty(), "nothing was stopped");
    desk.noted("operator.halt_raised", 0).await;
}

async fn a_key_is_made_used_and_ended(desk: &Desk) {
    let client = desk.client(1).await;
    let wallet = id_of(&client).to_string();
    let wanted = json!({ "name": "dashboard", "scopes": ["read", "read"], "wallets": [wallet], "expires_in_days": 30 });
    let made = desk.operator.call(Call::post("/admin/keys", &wanted).idempotent("k")).await.ok();
    let (id, secret) = (text(&made["key"], "id"), text(&made, "secret"));
    assert_eq!((&made["key"]["scopes"], &made["key"]["wallet_count"]), (&json!(["read"]), &json!(1)));
    let reader = client.with_key(&secret);
    reader.get("/lightning/balance").await.ok();
    reader.post_empty("/lightning/onchain-receive").await.refused(403, "forbidden");

    let other = desk.client(2).await;
    let path = format!("/admin/keys/{id}/wallets");
    let reads_other = other.with_key(&secret);
    reads_other.get("/lightning/balance").await.refused(403, "forbidden");
    let bound = desk.operator.post(&path, json!({ "wallets": [id_of(&other)] })).await.ok();
    assert_eq!(bound["wallets"].as_array().map(Vec::len), Some(2));
    reads_other.get("/lightning/balance").await.ok();
    let page = desk.operator.get(format!("{path}?limit=1")).await.ok();
    let next = format!("{path}?limit=1&cursor={}", text(&page, "next_cursor"));
    assert_ne!(desk.operator.get(next).await.ok()["wallets"], page["wallets"]);

    let first = desk.operator.get("/admin/keys?limit=1").await.ok();
    let next = format!("/admin/keys?limit=500&cursor={}", text(&first, "next_cursor"));
    let rest = desk.operator.get(next).await.ok();
    let listed = rest["keys"].as_array().into_iter().flatten().find(|key| key["id"] == id.as_str());
    assert_eq!(listed.map(|key| (&key["state"], &key["name"])), Some((&json!("in_force"), &json!("dashboard"))));
    assert!(!format!("{first}{rest}").contains(&secret), "no list shows a key");

    let revoke = || Call::post_empty(format!("/admin/keys/{id}/revoke")).idempotent("r");
    assert_eq!(desk.operator.call(revoke()).await.ok()["key_id"], id.as_str());
    reader.get("/lightning/balance").await.refused(401, "unauthorized");
    desk.operator.call(revoke()).await.ok();
    desk.operator.post_empty(format!("/admin/keys/{id}/revoke")).await.refused(404, "not_found");
    desk.operator.post(&path, json!({ "wallets": [wallet] })).await.refused(404, "not_found");
    for kind in ["operator.key_created", "operator.key_bound", "operator.key_revoked"] {
        assert_eq!(desk.noted(kind, 1).await[0]["key_id"], id.as_str(), "{kind}");
    }
}

async fn a_key_is_checked_field_by_field(desk: &Desk) {
    let good = json!({ "name": "n", "scopes": ["read"] });
    for (field, bad) in [
        ("name", json!("")),
        ("name", json!("x".repeat(101))),
        ("name", json!("a\u{0}")),
        ("name", json!(1)),
        ("scopes", json!([])),
        ("scopes", json!(["root"])),
        ("scopes", json!(["admin:*"])),
        ("wallets", json!(["x"])),
        ("wallets", json!(["0000000000000000"])),
        ("like", json!("nobody")),
        ("expires_in_days", json!(0)),
        ("expires_in_days", json!(36_501)),
        ("limits", json!(["btc:0/day"])),
        ("limit_per_payment", json!("eth:5")),
    ] {
        let mut body = good.clone();
        body[field] = bad.clone();
        let refused = desk.operator.post("/admin/keys", body).await.refused(400, "invalid_request");
        assert_eq!(refused["field"], field, "{bad}: {refused}");
    }
    let no_wallet = json!({ "name": "n", "scopes": ["send"], "limits": ["btc:5/day"] });
    assert_eq!(desk.operator.post("/admin/keys", no_wallet).await.refused(400, "invalid_request")["field"], "wallets");
    let path = format!("/admin/keys/{}", desk.by);
    for (rest, field, body) in [
        ("wallets", "wallets", json!({ "wallets": [] })),
        ("wallets", "wallets", json!({ "wallets": ["0000000000000000"] })),
        ("wallets", "wallets", json!({})),
        ("rotate", "grace_seconds", json!({ "grace_seconds": 2_592_001 })),
        ("rotate", "grace_seconds", json!({ "grace_seconds": -1 })),
    ] {
        let refused = desk.operator.post(format!("{path}/{rest}"), body).await.refused(400, "invalid_request");
        assert_eq!(refused["field"], field, "{refused}");
    }
    for rest in ["revoke", "rotate"] {
        desk.operator.post_empty(format!("/admin/keys/nobody/{rest}")).await.refused(404, "not_found");
    }
    desk.operator.get("/admin/keys/nobody/wallets").await.refused(404, "not_found");
    desk.operator.get("/admin/keys/nobody/grant").await.refused(404, "psbt_unknown");
    for (query, field) in [("limit=0", "limit"), ("limit=501", "limit"), ("cursor=x", "cursor")] {
        for path in ["/admin/keys", "/admin/wallets"] {
            let refused = desk.operator.get(format!("{path}?{query}")).await.refused(400, "invalid_request");
            assert_eq!(refused["field"], field);
        }
    }
    let keys = desk.operator.get("/admin/keys").await.ok();
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(1), "only the operator's own: {keys}");
}

async fn a_key_takes_the_place_of_another(desk: &Desk) {
    let (old_id, old) = desk.gateway.make_key(&CLIENT, &[], None).await;
    let (first, second) = (desk.gateway.caller(1), desk.gateway.caller(2));
    desk.gateway.register(&first.with_key(&old)).await;
    let rotate =
        || Call::post(format!("/admin/keys/{old_id}/rotate"), &json!({ "grace_seconds": 3_600 })).idempotent("r");
    let made = desk.operator.call(rotate()).await.ok();
    let new = text(&made, "secret");
    assert_eq!((&made["key"]["name"], &made["key"]["wallet_count"]), (&json!("a story's"), &json!(1)));
    assert_eq!(made["key"]["expires_at"], Value::Null, "the old one had no end either");
    assert!(made["replaced"]["expires_at"].is_string() && made["replaced"]["state"] == "in_force");
    let again = desk.operator.call(rotate()).await.ok();
    assert_eq!((&again["key"]["id"], &again["secret"]), (&made["key"]["id"], &Value::Null), "one key, shown once");
    first.with_key(&old).get("/lightning/balance").await.ok();
    first.with_key(&new).get("/lightning/balance").await.ok();
    // What is registered with the old key meanwhile is not missed.
    desk.gateway.register(&second.with_key(&old)).await;
    second.with_key(&new).get("/lightning/balance").await.ok();
    // Nor across two rotations.
    let newest = desk.operator.post_empty(format!("/admin/keys/{}/rotate", text(&made["key"], "id"))).await.ok();
    let third = desk.gateway.caller(3);
    desk.gateway.register(&third.with_key(&old)).await;
    third.with_key(&text(&newest, "secret")).get("/lightning/balance").await.ok();
    // One key takes its place, and the end that it was given stands.
    desk.operator.post_empty(format!("/admin/keys/{old_id}/rotate")).await.refused(400, "invalid_request");
    let now = json!({ "grace_seconds": 0 });
    let last = desk.operator.post(format!("/admin/keys/{}/rotate", text(&newest["key"], "id")), now).await.ok();
    third.with_key(&text(&newest, "secret")).get("/lightning/balance").await.refused(401, "unauthorized");
    third.with_key(&text(&last, "secret")).get("/lightning/balance").await.ok();
    let ended = format!("/admin/keys/{}/rotate", text(&newest["key"], "id"));
    desk.operator.post_empty(ended).await.refused(404, "not_found");
    desk.noted("operator.key_rotated", 3).await;
}

async fn a_key_is_made_like_another(desk: &Desk) {
    let (old_id, old) = desk.gateway.make_key(&CLIENT, &[], None).await;
    let client = desk.gateway.caller(1);
    desk.gateway.register(&client.with_key(&old)).await;
    let made =
        desk.operator.post("/admin/keys", json!({ "name": "audit", "scopes": ["read"], "like": old_id })).await.ok();
    let reader = client.with_key(&text(&made, "secret"));
    reader.get("/lightning/balance").await.ok();
    reader.post_empty("/lightning/onchain-receive").await.refused(403, "forbidden");
    let same = desk.operator.post("/admin/keys", json!({ "name": "twin", "like": old_id })).await.ok();
    assert_eq!(same["key"]["scopes"], json!(["register", "read", "receive", "send"]));
    client.with_key(&old).get("/lightning/balance").await.ok();
}

async fn a_key_that_spends_waits_for_its_grant(desk: &Desk) {
    let owner = desk.client(1).await;
    let wanted = json!({
        "name": "shop", "scopes": ["read", "send"], "wallets": [id_of(&owner)], "limits": ["btc:1000/day"],
        "limit_per_payment": "btc:50",
    });
    let made = desk.operator.call(Call::post("/admin/keys", &wanted).idempotent("g")).await.ok();
    let id = text(&made["key"], "id");
    assert_eq!((&made["key"]["state"], &made["key"]["limit_per_payment_sats"]), (&json!("waiting"), &json!(50)));
    let again = desk.operator.call(Call::post("/admin/keys", &wanted).idempotent("g")).await.ok();
    assert_eq!((&again["key"]["id"], &again["secret"]), (&json!(id), &Value::Null));
    let spender = owner.with_key(&text(&made, "secret"));
    spender.get("/lightning/balance").await.refused(401, "unauthorized");
    let path = format!("/admin/keys/{id}/grant");
    let asked = desk.operator.get(&path).await.ok();
    assert_eq!(asked["message"], made["grant_message"]);
    let unsigned = json!({ "signed_psbt": asked["psbt"] });
    desk.operator.post(&path, unsigned).await.refused(400, "psbt_not_signed");
    let signed = json!({ "signed_psbt": owner.wallet.grant(&text(&asked, "psbt")) });
    let give = || Call::post(path.clone(), &signed).idempotent("given");
    assert!(desk.operator.call(give()).await.ok()["signed_at"].is_string());
    desk.operator.call(give()).await.ok();
    spender.get("/lightning/balance").await.ok();
    let listed = desk.operator.get("/admin/keys").await.ok();
    let key =
        listed["keys"].as_array().into_iter().flatten().find(|key| key["id"] == id.as_str()).expect("it is listed");
    assert_eq!((&key["limits"][0]["left_sats"], &listed["waiting"]), (&json!(1_000), &json!([])));
    // What names a key in a signed message is no other key's.
    desk.operator.post_empty(format!("/admin/keys/{id}/rotate")).await.refused(400, "invalid_request");
    desk.noted("operator.grant_asked", 1).await;
    desk.noted("operator.grant_handed_in", 1).await;
}

async fn wallets_are_listed_and_released(desk: &Desk) {
    let owner = funded_on_fake(&desk.gateway, &desk.chain, desk.client(1).await, &[50_000]).await;
    let other = desk.client(2).await;
    let page = desk.operator.get("/admin/wallets?limit=1").await.ok();
    let next = format!("/admin/wallets?limit=1&cursor={}", text(&page, "next_cursor"));
    let rest = desk.operator.get(next).await.ok();
    let mut found = vec![text(&page["wallets"][0], "id"), text(&rest["wallets"][0], "id")];
    let mut wanted = vec![id_of(&owner).to_string(), id_of(&other).to_string()];
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    let begin = Call::post("/lightning/onchain-send-begin", &send_of(&stranger(), 20_000)).for_object();
    owner.call(begin).await.ok();
    let path = format!("/admin/wallets/{}/release", id_of(&owner));
    desk.operator.post_empty(&path).await.refused(400, "invalid_request");
    let release = || Call::post_empty(format!("/admin/wallets/{}/release", id_of(&other))).idempotent("w");
    desk.operator.call(release()).await.ok();
    desk.operator.call(release()).await.ok();
    let path = format!("/admin/wallets/{}/release", id_of(&other));
    desk.operator.post_empty(path).await.refused(404, "wallet_not_registered");
    for id in ["x", "0000000000000000"] {
        let path = format!("/admin/wallets/{id}/release");
        desk.operator.post_empty(path).await.refused(404, "wallet_not_registered");
    }
    other.get("/lightning/balance").await.refused(403, "forbidden");
    let listed = desk.operator.get("/admin/wallets").await.ok();
    let released = listed["wallets"].as_array().into_iter().flatten().find(|one| one["id"] == id_of(&other).as_str());
    assert!(released.is_some_and(|one| one["released_at"].is_string()), "{listed}");
    desk.noted("operator.wallet_released", 1).await;
}

async fn an_audit_is_run_and_its_result_is_kept(desk: &Desk) {
    assert_eq!(desk.operator.get("/admin/audit").await.ok(), json!({ "audit": null }));
    let run = desk.operator.post_empty("/admin/audit").await.ok();
    assert_eq!((&run["drift_count"], &run["asked_by"], &run["drifts"]), (&json!(0), &json!(desk.by), &json!([])));
    assert!(run["checked"].as_array().is_some_and(|rules| rules.len() > 5), "{run}");
    assert_eq!(desk.operator.get("/admin/audit").await.ok()["audit"], run);
    desk.noted("operator.audit_run", 1).await;
    // A drift stops payouts, whoever finds it.
    desk.gateway
        .sql("INSERT INTO balances (account, asset, guarded, total, held) VALUES ('operator:capital', 'btc', 0, 5, 0)")
        .await;
    let run = desk.operator.post_empty("/admin/audit").await.ok();
    assert!(run["drift_count"].as_i64().is_some_and(|drifts| drifts > 0), "{run}");
    assert_eq!(desk.names_of_halts().await, ["audit_drift"]);
    desk.gateway.sql("DELETE FROM balances WHERE account = 'operator:capital'").await;
    desk.operator.post_empty("/admin/halts/audit_drift/clear").await.ok();
    let run = desk.operator.post_empty("/admin/audit").await.ok();
    assert_eq!(run["drift_count"], 0);
}
