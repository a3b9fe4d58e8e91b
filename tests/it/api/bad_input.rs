//! What is wrong is refused by name, is never an error of the gateway, and changes nothing. The tables come from the document.

use serde_json::{Value, json};

use super::{funded_on_fake, send_of, sent};
use crate::harness::client::{Answer, Call, Caller};
use crate::harness::document::{Operation, operations, resolve};
use crate::harness::gateway::Gateway;
use crate::harness::rig::stranger;

/// A number that no machine word holds.
fn huge() -> String {
    format!("1{}", "0".repeat(400))
}

/// A field of a body: its name, and what the document says of it.
struct Field {
    name: &'static str,
    types: Vec<&'static str>,
    least: Option<i64>,
    is_enum: bool,
}

fn fields_of(operation: &Operation) -> Vec<Field> {
    let Some(schema) = operation.body_schema() else { return Vec::new() };
    let properties = schema["properties"].as_object().expect("properties");
    properties.iter().map(|(name, schema)| field(name, schema)).collect()
}

fn field(name: &'static str, schema: &'static Value) -> Field {
    let alternatives: Vec<&Value> = match schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array)
    {
        Some(all) => all.iter().map(resolve).collect(),
        None => vec![resolve(schema)],
    };
    let mut types = Vec::new();
    for one in &alternatives {
        match &one["type"] {
            Value::String(name) => types.push(name.as_str()),
            Value::Array(names) => types.extend(names.iter().filter_map(Value::as_str)),
            other => panic!("{name} has the type {other}"),
        }
    }
    Field {
        name,
        types,
        least: alternatives.iter().find_map(|one| one["minimum"].as_i64()),
        is_enum: alternatives.iter().any(|one| one.get("enum").is_some()),
    }
}

impl Field {
    fn is(&self, kind: &str) -> bool {
        self.types.contains(&kind)
    }

    /// Values, as they stand in JSON, that the field must not take.
    fn wrong(&self) -> Vec<String> {
        let mut wrong: Vec<String> = Vec::new();
        let mut add = |texts: &[&str]| wrong.extend(texts.iter().map(|text| (*text).to_owned()));
        if !self.is("null") {
            add(&["null"]);
        }
        if self.is("integer") {
            add(&[
                "-1",
                "1.5",
                "1e3",
                "-1.0",
                "true",
                "\"5\"",
                "[]",
                "{}",
                "-9223372036854775808",
                "18446744073709551616",
            ]);
            add(&[&huge()]);
            if self.name != "amount" || self.least.is_some() {
                add(&["9223372036854775808"]);
            }
            if self.least.is_some_and(|least| least > 0) {
                add(&["0"]);
            }
        }
        if self.is("boolean") {
            add(&["0", "1", "\"true\"", "[]", "{}"]);
        }
        if self.is("string") {
            add(&["0", "1.5", "true", "[]", "{}", &huge()]);
            if self.is_enum {
                add(&["\"\"", "\"nowhere\"", "\"ONCHAIN\""]);
            }
        }
        if self.is("object") {
            add(&["0", "true", "\"rgb:x\"", "[]", "{}", "[1,2]"]);
        }
        wrong
    }
}

/// The example with one field replaced by a text.
fn with(example: &Value, name: &str, raw: &str) -> String {
    let mut parts = vec![format!("{}:{raw}", json!(name))];
    let others = example.as_object().expect("an example is an object").iter().filter(|(other, _)| *other != name);
    parts.extend(others.map(|(other, value)| format!("{}:{value}", json!(other))));
    format!("{{{}}}", parts.join(","))
}

fn assert_names(answer: &Answer, field: &str) {
    assert!((400..500).contains(&answer.status) && answer.status != 404, "{answer}");
    let named = answer.body["field"].as_str().unwrap_or_default();
    assert!(named == field || named.starts_with(&format!("{field}.")), "{answer}: {field} is not named");
    assert!(answer.text.len() < 2_000, "what was wrong is not sent back whole: {answer}");
}

/// A wallet with coins and a send that is out, so that nothing is refused for want of them.
async fn scene() -> (Gateway, Caller, String) {
    let (gateway, chain) = Gateway::start_fake(&[]).await;
    let caller = funded_on_fake(&gateway, &chain, gateway.registered(1).await, &[300_000, 300_000]).await;
    let id = sent(&caller, &stranger(), 20_000).await.0;
    (gateway, caller, id)
}

/// Calls that are described, offered, and take a body.
fn posts() -> Vec<Operation> {
    let all: Vec<Operation> = operations().into_iter().filter(|one| one.body_schema().is_some()).collect();
    assert!(all.len() >= 11, "{} calls take a body", all.len());
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_value_is_refused_by_the_name_of_its_field() {
    let (gateway, caller, id) = scene().await;
    let before = gateway.row_counts().await;
    let mut asked = 0;
    for operation in posts() {
        let (path, example) = (operation.path_with(&id), operation.example());
        for field in fields_of(&operation) {
            for raw in field.wrong() {
                let answer = caller.call(Call::post_raw(path.as_str(), with(&example, field.name, &raw))).await;
                assert_names(&answer, field.name);
                asked += 1;
            }
            let twice = with(&example, field.name, "1").replacen('{', &format!("{{\"{}\":1,", field.name), 1);
            assert_names(&caller.call(Call::post_raw(path.as_str(), twice)).await, field.name);
        }
        let required = operation.body_schema().and_then(|schema| schema["required"].as_array()).into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            let mut less = example.clone();
            less.as_object_mut().expect("an object").remove(name);
            assert_names(&caller.call(Call::post(path.as_str(), &less)).await, name);
        }
    }
    assert!(asked > 300, "only {asked} calls were made");
    assert_eq!(gateway.row_counts().await, before, "something has changed");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_no_json_object_is_refused_and_a_large_one_is_not_read() {
    let (gateway, caller, id) = scene().await;
    let before = gateway.row_counts().await;
    let deep = "[".repeat(100_000);
    let nested = format!("{}{}", "{\"a\":".repeat(20_000), "1");
    let bodies: Vec<Vec<u8>> = vec![
        b"[]".to_vec(),
        b"\"x\"".to_vec(),
        b"7".to_vec(),
        b"{".to_vec(),
        b"{}{}".to_vec(),
        b"{} x".to_vec(),
        b"{'a':1}".to_vec(),
        b"{\"a\":NaN}".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        b"{\"a\":\"\xff\xfe\"}".to_vec(),
        b"a=1&b=2".to_vec(),
        b"\0".to_vec(),
        deep.as_bytes()[..60_000].to_vec(),
        nested.as_bytes()[..60_000].to_vec(),
    ];
    for operation in posts() {
        let path = operation.path_with(&id);
        for body in &bodies {
            let answer = caller.call(Call::post_raw(path.as_str(), body.clone())).await;
            answer.refused(400, "invalid_request");
        }
        let signed = path.ends_with("end");
        let most = if signed { 1024 * 1024 } else { 64 * 1024 };
        for body in [vec![b' '; most + 1], deep.repeat(20).into_bytes()] {
            caller.call(Call::post_raw(path.as_str(), body)).await.refused(413, "body_too_large");
        }
        caller.call(Call::post_raw(path.as_str(), vec![b'['; most])).await.refused(400, "invalid_request");
        if operation.spec["requestBody"]["required"] == true {
            caller.post_empty(path.as_str()).await.refused(400, "invalid_request");
            caller.call(Call::post_raw(path.as_str(), "null")).await.refused(400, "invalid_request");
        }
    }
    assert_eq!(gateway.row_counts().await, before, "something has changed");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_is_an_address_of_this_network() {
    let (gateway, caller, _) = scene().await;
    let before = gateway.row_counts().await;
    let wrong_network = [
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
        "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
    ];
    let no_address = [
        "",
        " ",
        "bcrt1q",
        "bcrt1pvpmd0cuvyha2sjylhr57kd6t8x9jrju8f063mdvkmk4c5uq464qqjpeapq",
        "../../etc",
        "\u{0}",
        "\u{2603}",
    ];
    let doors = [
        ("/wallet/sendbtcbegin", "address", "amount"),
        ("/lightning/onchain-send-begin", "address_or_rgbinvoice", "amount_sats"),
        ("/lightning/paybegin", "address_or_invoice", "amount_sats"),
    ];
    for (path, to, amount) in doors {
        let begin = |address: &str, sat: u64, rate: u32| {
            let body = json!({ to: address, amount: sat, "fee_rate": rate });
            caller.call(Call::post(path, &body))
        };
        for address in wrong_network {
            assert_names(&begin(address, 20_000, 2).await, to);
            begin(address, 20_000, 2).await.refused(400, "wrong_network");
        }
        for address in no_address {
            assert_names(&begin(address, 20_000, 2).await, to);
        }
        let good = stranger().to_string();
        assert_names(&begin(&good, 100, 2).await, amount);
        begin(&good, 100, 2).await.refused(400, "amount_below_dust");
        begin(&good, 20_000, 1_001).await.refused(400, "fee_rate_out_of_range");
        begin(&good, 2_100_000_000_000_000, 2).await.refused(409, "insufficient_funds");
    }
    for seconds in [59u64, 604_801] {
        let mut body = send_of(&stranger(), 20_000);
        body["expires_in_seconds"] = json!(seconds);
        assert_names(&caller.post("/lightning/onchain-send-begin", body).await, "expires_in_seconds");
    }
    assert_eq!(gateway.row_counts().await, before, "something has changed");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_of_a_query_are_held_to_the_same() {
    let (gateway, caller, _) = scene().await;
    let before = gateway.row_counts().await;
    let wrong_numbers = ["", "-1", "1.5", "1e3", "true", "null", "9223372036854775808", "0x1", "%00", "%EF%BC%91"];
    let mut asked = 0;
    for operation in operations() {
        for parameter in operation.spec["parameters"].as_array().into_iter().flatten() {
            if parameter["in"] != "query" {
                continue;
            }
            let name = parameter["name"].as_str().expect("a name");
            let types = parameter["schema"]["type"].to_string();
            let mut wrong: Vec<&str> = Vec::new();
            if types.contains("integer") {
                wrong.extend(
                    wrong_numbers.iter().filter(|text| **text != "-1" || parameter["schema"]["minimum"].is_number()),
                );
            }
            match name {
                "limit" => wrong.extend(["0", "501"]),
                "cursor" if operation.id() != "walletListUnspents" => wrong.extend(["x", "bm9uZQ", "%ff"]),
                "state" => wrong.extend(["lost", "CONFIRMED"]),
                _ => {}
            }
            for value in wrong {
                let path = format!("{}?{name}={value}", operation.path);
                let call = if operation.method == "GET" { Call::get(path) } else { Call::post_empty(path) };
                assert_names(&caller.call(call).await, name);
                asked += 1;
            }
        }
    }
    assert!(asked > 60, "only {asked} calls were made");
    assert_eq!(gateway.row_counts().await, before, "something has changed");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_wallet_header_is_there_once_and_well_formed() {
    let (gateway, caller, _) = scene().await;
    let before = gateway.row_counts().await;
    let nobody = caller.without_wallet();
    let right = caller.wallet_headers();
    let long = "x".repeat(20_000);
    let mainnet = "xpub6BosfCnifzxcFwrSzQiqu2DBVTshkCXacvNsWGYJVVhhawA7d4R5WSWGFNbi8Aw6ZRc1brxMyWMzG3DSSSSoekkudhUd9yLb6qx39T9nMdj";
    let wrong =
        ["", " ", "x", "../../etc/passwd", "\u{e9}", "' OR 1=1 --", &long, mainnet, "ffffffff0", "zzzzzzzz", "tpub"];
    for operation in operations() {
        let path = operation.path_with("0198c0f2-9d7c-4f6e-a1c2-0d3be5a90b47");
        for at in 0..right.len() {
            let call = |value: Option<&str>, twice: bool| {
                let mut call =
                    if operation.method == "GET" { Call::get(path.as_str()) } else { Call::post_empty(path.as_str()) };
                for (n, (name, right)) in right.iter().enumerate() {
                    let value = if n == at { value } else { Some(right.as_str()) };
                    call.headers.extend(value.map(|value| (*name, value.to_owned())));
                    if n == at && twice {
                        call.headers.push((*name, right.clone()));
                    }
                }
                call
            };
            let name = right[at].0;
            assert_eq!(nobody.call(call(None, false)).await.refused(401, "wallet_headers_missing")["field"], name);
            assert_eq!(nobody.call(call(Some(&right[at].1), true)).await.refused(422, "invalid_keys")["field"], name);
            // Once for all is enough: reading a header is the same everywhere.
            if !matches!(operation.id(), "balance" | "walletRegister" | "onchainSendBegin") {
                continue;
            }
            for value in wrong {
                assert_eq!(
                    nobody.call(call(Some(value), false)).await.refused(422, "invalid_keys")["field"],
                    name,
                    "{value}"
                );
            }
        }
    }
    assert_eq!(gateway.row_counts().await, before, "something has changed");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_or_method_that_is_not_there_is_a_problem_too() {
    let (gateway, caller, id) = scene().await;
    for path in ["/", "/wallet", "/lightning/onchain-receive/", "/requests/", "/%2e%2e/%00", "/requests/a%2fb"] {
        let answer = caller.get(path).await;
        assert!((answer.status, answer.code()) == (404, "not_found"), "{answer}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    for operation in operations() {
        let path = operation.path_with(&id);
        for method in ["PUT", "DELETE", "PATCH", "TRACE", "FOO"] {
            let call = Call { method: method.parse().expect("a method"), ..Call::get(path.as_str()) };
            let answer = caller.call(call).await;
            answer.refused(405, "method_not_allowed");
            assert!(answer.header("allow").is_some_and(|allow| allow.contains(operation.method.as_str())), "{answer}");
        }
    }
    for id in
        ["1", "x", &id.to_uppercase(), &id.replace('-', ""), &format!("{{{id}}}"), &"9".repeat(5_000), "%F0%9F%98%80"]
    {
        for path in ["/requests", "/onchain-send", "/lightning/onchain-send"] {
            caller.get(format!("{path}/{id}")).await.refused(404, "not_found");
        }
    }
    gateway.stop().await;
}
