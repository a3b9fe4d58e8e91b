//! Who may do what. The tables come from the document, so that an endpoint that is added is asked, too.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sluice::clock::Timestamp;
use sluice::flows::keys::{self, Scope};

use super::{funded_on_fake, send_of};
use crate::harness::client::{Answer, Call, Caller};
use crate::harness::document::{Operation, guarded_operations, operations};
use crate::harness::gateway::Gateway;
use crate::harness::rig::stranger;

const ALL: [Scope; 4] = [Scope::Register, Scope::Read, Scope::Receive, Scope::Send];
const NEVER_WAS: &str = "0198c0f2-9d7c-4f6e-a1c2-0d3be5a90b47";

/// A call of an operation that is well-formed.
fn call_of(operation: &Operation, id: &str) -> Call {
    let path = operation.path_with(id);
    let call = match (operation.method.as_str(), operation.example()) {
        ("GET", _) => Call::get(path),
        (_, Value::Null) => Call::post_empty(path),
        (_, example) => Call::post(path, &example),
    };
    // Of a rail that is not there, once the caller was let in.
    call.expecting(501)
}

/// As `call`, where a rail that is not there is as good as any other answer of somebody who was let in.
async fn ask(caller: &Caller, operation: &Operation) -> Answer {
    caller.call(call_of(operation, NEVER_WAS)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_in_force_nobody_gets_in_anywhere() {
    let (gateway, _chain) = Gateway::start_fake(&["auth.mode=key"]).await;
    let good = gateway.key(&ALL, &[]).await;
    let caller = gateway.caller(1);
    gateway.register(&caller.with_key(&good)).await;
    let (revoked_id, revoked) = gateway.make_key(&ALL, &[caller.wallet.keys.id()], None).await;
    caller.with_key(&revoked).post_empty("/wallet/btcbalance").await.ok();
    assert!(keys::revoke(gateway.flows(), revoked_id).await.expect("a key can be revoked"));
    let long_ago = Timestamp::from_millis(1_000);
    let (_, expired) = gateway.make_key(&ALL, &[caller.wallet.keys.id()], Some(long_ago)).await;
    let before = gateway.row_counts().await;
    let bearer = |key: &str| format!("Bearer {key}");
    let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
    let bad = [
        bearer(&revoked),
        bearer(&expired),
        bearer("sluice_0_0"),
        bearer(&good[..good.len() - 1]),
        bearer(&good.to_uppercase()),
        good.clone(),
        format!("Token {good}"),
        basic(&format!("{good}:")),
        basic("no colon"),
        "Basic !".to_owned(),
    ];
    for operation in guarded_operations() {
        let none = ask(&caller, &operation).await;
        none.refused(401, "unauthorized");
        assert!(none.header("www-authenticate").is_some_and(|how| how.starts_with("Bearer")));
        for value in &bad {
            ask(&caller.with_authorization(value), &operation).await.refused(401, "unauthorized");
        }
        for query in ["key", "api_key", "access_token", "authorization"] {
            let mut call = call_of(&operation, NEVER_WAS);
            call.path = format!("{}?{query}={good}", call.path);
            caller.call(call).await.refused(401, "unauthorized");
        }
    }
    assert_eq!(gateway.row_counts().await, before);
    for way in [bearer(&good), basic(&format!("anybody:{good}")), basic(&format!(":{good}"))] {
        caller.with_authorization(&way).post_empty("/wallet/btcbalance").await.ok();
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_endpoint_asks_for_exactly_one_scope() {
    let (gateway, _chain) = Gateway::start_fake(&["auth.mode=key"]).await;
    let caller = gateway.caller(1);
    caller.with_key(&gateway.key(&ALL, &[]).await).post_empty("/wallet/register").await.ok();
    let wallet = [caller.wallet.keys.id()];
    let mut with_one = Vec::new();
    for scope in Scope::ALL {
        with_one.push((scope, caller.with_key(&gateway.key(&[scope], &wallet).await)));
    }
    let mut asked = Vec::new();
    for operation in guarded_operations() {
        let mut lets_in = Vec::new();
        for (scope, caller) in &with_one {
            let answer = ask(caller, &operation).await;
            // Whoever is let in to pay with a key is asked for its limit next.
            if answer.code() == "forbidden" {
                answer.refused(403, "forbidden");
            } else {
                lets_in.push(scope.as_str());
            }
        }
        if operation.id() == "adminRaiseHalt" {
            let admin = with_one.iter().find(|(scope, _)| *scope == Scope::Admin).expect("one of each");
            admin.1.post_empty("/admin/halts/operator/clear").await.ok();
        }
        // The scope of before means both of today's.
        if operation.is_operators() {
            assert_eq!(lets_in.first(), Some(&"admin"), "{} {}", operation.method, operation.path);
            lets_in.remove(0);
        }
        assert_eq!(lets_in.len(), 1, "{} {}: {lets_in:?}", operation.method, operation.path);
        asked.push((operation.id(), lets_in[0]));
    }
    for (id, scope) in [
        ("walletRegister", "register"),
        ("walletAddress", "receive"),
        ("onchainReceiveNew", "receive"),
        ("balance", "read"),
        ("onchainSendBegin", "send"),
        ("onchainSendEnd", "send"),
        ("onchainSendBumpBegin", "send"),
        ("walletSendBtcEnd", "send"),
        ("payBegin", "send"),
        ("payInvoice", "send"),
        ("spendingGrants", "read"),
        ("spendingGrantGive", "send"),
        ("createInvoice", "receive"),
        ("receiveRequest", "read"),
        ("payInvoiceBegin", "send"),
        ("payInvoiceEnd", "send"),
        ("sendRequestAuthorization", "read"),
        ("feeEstimate", "read"),
        ("decode", "read"),
        ("events", "read"),
        ("requestGet", "read"),
        ("adminNode", "admin:read"),
        ("adminTrialBalance", "admin:read"),
        ("adminReserve", "admin:read"),
        ("adminReserveNew", "admin:write"),
        ("adminOpenChannel", "admin:write"),
        ("adminHalts", "admin:read"),
        ("adminRaiseHalt", "admin:write"),
        ("adminKeys", "admin:read"),
        ("adminCreateKey", "admin:write"),
        ("adminRunAudit", "admin:write"),
    ] {
        assert!(asked.contains(&(id, scope)), "{id} should ask for {scope}: {asked:?}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_acts_for_the_wallets_that_it_is_bound_to() {
    let (gateway, _chain) = Gateway::start_fake(&["auth.mode=key"]).await;
    let (one, two) = (gateway.key(&ALL, &[]).await, gateway.key(&ALL, &[]).await);
    let (first, second) = (gateway.caller(1), gateway.caller(2));
    first.with_key(&one).get("/lightning/balance").await.refused(403, "forbidden");
    first.with_key(&one).post_empty("/wallet/register").await.ok();
    second.with_key(&two).post_empty("/wallet/register").await.ok();
    first.with_key(&one).get("/lightning/balance").await.ok();
    let unknown = gateway.caller(3).with_key(&one).get("/lightning/balance").await.refused(403, "forbidden");
    for operation in operations().into_iter().filter(|operation| operation.id() != "walletRegister") {
        let refused = ask(&second.with_key(&one), &operation).await.refused(403, "forbidden");
        assert_eq!(refused["detail"], unknown["detail"], "whether a wallet exists is nobody's business");
    }
    gateway.stop().await;
}

/// What a refusal says, without what names this one call of it.
fn said(answer: &Answer, id: &str) -> (u16, Value) {
    let mut body = answer.body.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.remove("trace_id");
        fields.remove("instance");
    }
    (answer.status, serde_json::from_str(&body.to_string().replace(id, "ID")).expect("still JSON"))
}

/// Everything of a wallet that has an id: an address, a deposit, a send that waits, one that is out.
async fn ids_of(owner: &Caller) -> Vec<String> {
    let waiting = owner.post("/lightning/onchain-send-begin", send_of(&stranger(), 20_000)).await;
    let mut ids = vec![waiting.header("sluice-request-id").expect("an id").to_owned()];
    ids.push(super::sent(owner, &stranger(), 21_000).await.0);
    let address = owner.get("/lightning/onchain-receive").await.ok();
    let deposits = owner.get("/deposits").await.ok();
    ids.extend(
        [&address["request_id"], &deposits["deposits"][0]["id"]].map(|id| id.as_str().expect("an id").to_owned()),
    );
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_of_another_wallet_are_as_unknown_as_those_that_never_were() {
    let (gateway, chain) = Gateway::start_fake(&["auth.mode=wallet"]).await;
    let owner = funded_on_fake(&gateway, &chain, gateway.registered(1).await, &[100_000, 100_000]).await;
    let other = funded_on_fake(&gateway, &chain, gateway.registered(2).await, &[100_000]).await;
    let ids = ids_of(&owner).await;
    let theirs = gateway.rows_of(&owner.wallet.keys.id()).await;
    let mut asked = 0;
    for operation in operations().into_iter().filter(Operation::takes_id) {
        let never = other.call(call_of(&operation, NEVER_WAS)).await;
        for id in &ids {
            let foreign = other.call(call_of(&operation, id)).await;
            assert_eq!(said(&foreign, id), said(&never, NEVER_WAS), "{} {}", operation.method, operation.path);
            assert!(!foreign.text.contains("bcrt1") && foreign.status != 200 || foreign.text == "null", "{foreign}");
            asked += 1;
        }
    }
    assert!(asked >= 8 * ids.len(), "only {asked} calls were made");
    assert_eq!(gateway.rows_of(&owner.wallet.keys.id()).await, theirs);
    for id in &ids {
        owner.get(format!("/requests/{id}")).await.ok();
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_psbt_ends_where_it_began_and_for_its_wallet() {
    let (gateway, chain) = Gateway::start_fake(&["auth.mode=wallet"]).await;
    let owner = funded_on_fake(&gateway, &chain, gateway.registered(1).await, &[100_000]).await;
    let other = gateway.registered(2).await;
    let begun = owner.post("/lightning/onchain-send-begin", send_of(&stranger(), 20_000)).await;
    let id = begun.header("sluice-request-id").expect("an id").to_owned();
    let signed = json!({ "signed_psbt": owner.sign(&begun.ok()) });
    let bump = format!("/onchain-send/{id}/bump-end");
    let mut doors = vec!["/wallet/sendbtcend", "/lightning/payend", bump.as_str()];
    for door in &doors {
        owner.post(*door, signed.clone()).await.refused(404, "psbt_unknown");
    }
    doors.push("/lightning/onchain-send-end");
    for door in doors {
        let answer = other.post(door, signed.clone()).await;
        assert!(answer.status == 404 && ["psbt_unknown", "not_found"].contains(&answer.code()), "{answer}");
    }
    assert!(chain.mempool_ids().is_empty(), "nothing went out");
    owner.post("/lightning/onchain-send-end", signed).await.ok();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_name_one_wallet_or_none() {
    let (gateway, _chain) = Gateway::start_fake(&["auth.mode=wallet"]).await;
    let (one, two) = (gateway.registered(1).await, gateway.registered(2).await);
    let ([van, col, print], [other_van, other_col, other_print]) = (one.wallet_headers(), two.wallet_headers());
    let nobody = one.without_wallet();
    let call = |headers: &[(&'static str, &str)], path: &str| {
        let mut call = Call::post_empty(path);
        call.headers.extend(headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
        call
    };
    for mixed in [[&van.1, &other_col.1, &print.1], [&other_van.1, &col.1, &print.1], [&van.1, &col.1, &other_print.1]]
    {
        let headers = [(van.0, mixed[0].as_str()), (col.0, mixed[1].as_str()), (print.0, mixed[2].as_str())];
        nobody.call(call(&headers, "/wallet/btcbalance")).await.refused(404, "wallet_not_registered");
        nobody.call(call(&headers, "/wallet/register")).await.refused(409, "keychain_in_use");
    }
    let same = [(van.0, van.1.as_str()), (col.0, van.1.as_str()), (print.0, print.1.as_str())];
    let refused = nobody.call(call(&same, "/wallet/register")).await;
    assert!([(409, "keychain_in_use"), (422, "invalid_keys")].contains(&(refused.status, refused.code())), "{refused}");
    for operation in operations().into_iter().filter(|operation| operation.id() != "walletRegister") {
        ask(&gateway.caller(3), &operation).await.refused(404, "wallet_not_registered");
    }
    gateway.stop().await;
}
