//! Keys of operators, used for what they are not for.

use serde_json::json;
use sluice::flows::keys::Scope;

use crate::harness::client::Call;
use crate::harness::document::every_operation;
use crate::harness::gateway::Gateway;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_may_only_read_moves_something() {
    let (gateway, _chain) = Gateway::start_fake(&[]).await;
    let wallet = gateway.registered(1).await;
    let reader = wallet.without_wallet().with_key(&gateway.key(&[Scope::AdminRead], &[]).await);
    let writer = wallet.without_wallet().with_key(&gateway.key(&[Scope::AdminWrite], &[]).await);
    let before = gateway.row_counts().await;
    let mut tried = 0;
    for operation in every_operation().into_iter().filter(|one| one.is_operators()) {
        let path = operation.path_with("00");
        if operation.method == "GET" {
            writer.call(Call::get(path)).await.refused(403, "forbidden");
            continue;
        }
        tried += 1;
        let call = match operation.example() {
            serde_json::Value::Null => Call::post_empty(path),
            example => Call::post(path, &example),
        };
        reader.call(call.clone()).await.refused(403, "forbidden");
        reader.call(call.idempotent("a")).await.refused(403, "forbidden");
    }
    assert!(tried >= 15, "{tried} calls that write");
    assert_eq!(gateway.row_counts().await, before, "nothing was written");
    assert_eq!(reader.get("/admin/halts").await.ok(), json!({ "halts": [] }));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_makes_itself_a_successor() {
    let (gateway, _chain) = Gateway::start_fake(&[]).await;
    let operator = gateway.caller(1).without_wallet().with_key(&gateway.key(&[Scope::Admin], &[]).await);
    let (id, secret) = gateway.make_key(&[Scope::AdminWrite, Scope::AdminRead], &[], None).await;
    let thief = operator.with_key(&secret);
    let rotated = thief.post_empty(format!("/admin/keys/{id}/rotate")).await.ok();
    let successor = rotated["key"]["id"].as_str().expect("an id").to_owned();
    operator.post_empty(format!("/admin/keys/{id}/revoke")).await.ok();
    thief.get("/admin/keys").await.refused(401, "unauthorized");
    thief.post_empty(format!("/admin/keys/{successor}/rotate")).await.refused(401, "unauthorized");
    operator.post_empty(format!("/admin/keys/{id}/rotate")).await.refused(404, "not_found");
    // What the thief has made is in the list and in the events, by his key.
    let events = operator.get("/admin/events?limit=100").await.ok();
    let made = events["events"].as_array().into_iter().flatten().find(|one| one["kind"] == "operator.key_rotated");
    assert_eq!(made.map(|one| (&one["data"]["by"], &one["data"]["successor"])), Some((&json!(id), &json!(successor))));
    operator.post_empty(format!("/admin/keys/{successor}/revoke")).await.ok();
    operator
        .with_key(rotated["secret"].as_str().expect("a secret"))
        .get("/admin/keys")
        .await
        .refused(401, "unauthorized");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_read_a_second_time_by_its_idempotency_key() {
    let (gateway, _chain) = Gateway::start_fake(&[]).await;
    let operator = gateway.caller(1).without_wallet().with_key(&gateway.key(&[Scope::Admin], &[]).await);
    let call = || Call::post("/admin/keys", &json!({ "name": "shop", "scopes": ["read"] })).idempotent("one");
    let first = operator.call(call()).await.ok();
    let again = operator.call(call()).await.ok();
    let secret = first["secret"].as_str().expect("it is shown once");
    assert_eq!((&again["key"], &again["secret"]), (&first["key"], &serde_json::Value::Null));
    let mut conn = gateway.flows().store().read().await.expect("a connection");
    let kept: Vec<String> =
        sqlx::query_scalar("SELECT COALESCE(answer, '') FROM operator_calls UNION ALL SELECT data FROM events")
            .fetch_all(&mut *conn)
            .await
            .expect("rows");
    drop(conn);
    assert!(kept.iter().all(|text| !text.contains(secret)), "it is stored nowhere");
    gateway.stop().await;
}
