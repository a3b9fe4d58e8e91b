//! The document of the API against the gateway that serves it.

mod fuzz;

use std::collections::HashSet;

use serde_json::Value;
use sluice::http::problem::{ALL, entry};

use crate::harness::client::Call;
use crate::harness::document::{DOCUMENT, conforms, every_operation, operations, resolve};
use crate::harness::gateway::Gateway;
use crate::harness::rig::Database;

const COMMITTED: &str = include_str!("../../../openapi/sluice.json");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_served_is_what_is_committed() {
    let (gateway, _chain) = Gateway::start_fake(&["auth.mode=key"]).await;
    let nobody = gateway.caller(1).without_wallet();
    let served = nobody.get("/openapi.json").await;
    assert!(served.status == 200 && served.text == COMMITTED, "write it again with `make openapi`");
    let page = nobody.get("/docs").await;
    assert!(page.status == 200 && page.text.contains("/openapi.json"), "{page}");
    let errors = nobody.get("/docs/errors").await;
    for code in ALL {
        let name = entry(*code).name;
        assert!(errors.text.contains(&format!("id=\"{name}\"")), "/docs/errors does not explain {name}");
    }
    gateway.stop().await;
}

/// What stands as an example of a body: one, or several by name.
fn examples(content: &'static Value) -> Vec<&'static Value> {
    let named = content.get("examples").and_then(Value::as_object).into_iter().flat_map(|all| all.values());
    content.get("example").into_iter().chain(named.map(|one| &one["value"])).collect()
}

#[test]
fn every_body_has_examples_and_each_has_the_shape_that_it_is_an_example_of() {
    let mut looked_at = 0;
    for operation in every_operation() {
        let name = format!("{} {}", operation.method, operation.path);
        let responses = operation.spec["responses"].as_object().expect("responses");
        let mut bodies: Vec<(String, &'static Value)> =
            responses.iter().map(|(status, response)| (status.clone(), &response["content"])).collect();
        if let Some(body) = operation.spec.get("requestBody") {
            bodies.push(("request".to_owned(), &body["content"]));
        }
        for (what, kinds) in bodies {
            for content in kinds.as_object().unwrap_or_else(|| panic!("{name} {what} has no body")).values() {
                let examples = examples(content);
                assert!(!examples.is_empty(), "{name} {what} has no example");
                for example in examples {
                    conforms(example, &content["schema"], "$").unwrap_or_else(|why| panic!("{name} {what}: {why}"));
                    looked_at += 1;
                }
            }
        }
    }
    assert!(looked_at > 500, "only {looked_at} examples were looked at");
}

#[test]
fn every_shape_has_an_example_of_itself() {
    for (name, schema) in DOCUMENT["components"]["schemas"].as_object().expect("schemas") {
        let one = schema.get("example").or_else(|| schema["examples"].get(0));
        let example = one.unwrap_or_else(|| panic!("{name} has no example"));
        conforms(example, resolve(schema), "$").unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

/// Answers of the server and of the router: they belong to no operation.
const NOBODYS: [&str; 2] = ["too_many_connections", "method_not_allowed"];

#[test]
fn every_code_is_documented_with_its_status_at_some_operation() {
    let mut documented = HashSet::new();
    for operation in every_operation() {
        for (status, response) in operation.spec["responses"].as_object().expect("responses") {
            let problems = response["content"]["application/problem+json"]["examples"].as_object();
            for (code, example) in problems.into_iter().flatten() {
                assert_eq!(example["value"]["status"].to_string(), *status, "{} {}", operation.path, code);
                documented.insert(code.as_str());
            }
        }
    }
    let known: HashSet<&str> = ALL.iter().map(|code| entry(*code).name).collect();
    for name in &known {
        assert!(documented.contains(name) || NOBODYS.contains(name), "no operation documents {name}");
    }
    assert!(documented.iter().all(|name| known.contains(name)), "documented, and not in the list of codes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_of_requests_are_understood() {
    let (gateway, _chain, _lightning) =
        Gateway::start_lightning(Database::Sqlite, &[]).await.expect("SQLite is always there");
    let caller = gateway.registered(1).await;
    for operation in operations().into_iter().filter(|one| one.body_schema().is_some()) {
        let path = operation.path_with("0198c0f2-9d7c-7f6e-a1c2-0d3be5a90b47");
        // No network has the node that is to be paid in the examples, and this gateway has no engine for assets.
        let missing = if operation.is_about_assets() { 501 } else { 503 };
        let answer = caller.call(Call::post(path, &operation.example()).expecting(missing)).await;
        let understood = matches!(
            (answer.status, answer.code()),
            (200, _)
                | (409, "insufficient_funds")
                | (404, "psbt_unknown" | "not_found")
                | (400, "psbt_not_signed")
                | (403, "spending_not_granted")
                | (409, "no_liquidity")
                | (501, "assets_unavailable")
        );
        assert!(understood, "{answer}");
    }
    gateway.stop().await;
}
